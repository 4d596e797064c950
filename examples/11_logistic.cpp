// Logistic regression: what of a reply's form, and not of what it says, people's votes follow.
//
// Shows: operators on tensors, sum and mean, gradient descent with momentum, a model of four
// numbers whose weights can be read. The data are PandaLM's votes: which of two replies most of
// three people preferred. Not: a reward model, but what one has to beat; a policy that is trained
// on one that does not will learn to write long (docs/rlhf.md).
//
// Prints:
//   step   0  loss 0.6931
//   step  50  loss 0.5744
//   step 100  loss 0.5740
//   step 150  loss 0.5740
//   step 200  loss 0.5740
//   weight of length                 0.97
//   weight of lines                 -0.08
//   weight of words of the prompt   -2.39
//   right on 70.4 % of 622 votes, and 68.7 % of 134 others
#include "votes.hpp"

#include <cstdio>

using namespace plumb;

struct Logistic {
  Parameters<Cpu> parameters;
  Tensor<Cpu> weight, bias;
  Logistic() {
    weight = parameters.add("weight", {1, 3}, {});
    bias = parameters.add("bias", {1}, {});
    parameters.allocate(1);
  }
  // The mean of -log P(what was preferred).
  Tensor<Cpu> loss(const Votes& votes) const {
    return mean(softplus(-(votes.y * linear(votes.x, weight, bias))));
  }
  double accuracy(const Votes& votes) const {
    double right = 0;
    for (const float margin : (votes.y * linear(votes.x, weight, bias)).to_vector())
      right += margin > 0 ? 1 : 0;
    return right / static_cast<double>(votes.y.size());
  }
};

int main() {
  const Votes train = read_votes(false), test = read_votes(true);
  const Logistic model;
  Sgd<Cpu> optimizer(model.parameters, {.lr = 0.5F});
  for (int step = 0; step <= 200; ++step) {
    Tape tape;
    const auto loss = model.loss(train);
    if (step % 50 == 0)
      std::printf("step %3d  loss %.4f\n", step, static_cast<double>(loss.item()));
    tape.backward(loss);
    optimizer.step();
  }
  for (int i = 0; i < 3; ++i)
    std::printf("weight of %-20s %6.2f\n", kFeatures[i],
                static_cast<double>(model.weight.data()[i]));
  const double held_out = model.accuracy(test);
  std::printf("right on %.1f %% of %d votes, and %.1f %% of %d others\n",
              100 * model.accuracy(train), static_cast<int>(train.y.size()), 100 * held_out,
              static_cast<int>(test.y.size()));
  return held_out > 0.6 ? 0 : 1;
}
