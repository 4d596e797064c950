// An LSTM (Hochreiter and Schmidhuber 1997) learns to spell children's stories.
//
// Shows: a model that is no transformer, of embedding(), columns() and operators; one tape through
// 32 steps of time; text drawn byte by byte. Not: words that make sense after so short a training.
//
// Prints:
//   update   0  4.852 nats a byte
//   update 200  2.065 nats a byte
//   update 400  2.049 nats a byte
//   Whe bit said wand the heas and bun the care ther and sace sand ind to the they tored the s
#include "small_data.hpp"

#include <cstdio>

using namespace plumb;

struct Lstm {
  static constexpr Index kBytes = 128;
  Parameters<Cpu> parameters;
  Tensor<Cpu> input, recurrent, bias, head;
  struct State {
    Tensor<Cpu> h, c;  // (B, hidden)
  };
  Lstm(std::uint64_t seed, Index hidden) {
    input = parameters.add("input", {kBytes, 4 * hidden}, {.std = 0.08F});
    recurrent = parameters.add("recurrent", {4 * hidden, hidden}, {.std = 0.08F});
    bias = parameters.add("bias", {4 * hidden}, {});
    head = parameters.add("head", {kBytes, hidden}, {.std = 0.08F});
    parameters.allocate(seed);
  }

  State start(Index batch) const {
    return {Tensor<Cpu>::zeros({batch, head.dim(1)}), Tensor<Cpu>::zeros({batch, head.dim(1)})};
  }
  // One byte a sequence further: bytes (B).
  State step(const State& s, const Ids& bytes) const {
    const Index n = head.dim(1);
    const auto gates = linear(s.h, recurrent, bias, embedding(input, bytes));
    const auto gate = [&](Index i) { return columns(gates, i * n, (i + 1) * n); };
    const auto c = sigmoid(gate(1)) * s.c + sigmoid(gate(0)) * plumb::tanh(gate(2));
    return {sigmoid(gate(3)) * plumb::tanh(c), c};
  }
  // Nats a byte of texts (B) of `steps` + 1 bytes, given by time: bytes ((steps + 1) · B).
  Tensor<Cpu> loss(const Ids& bytes, Index steps, Index batch) const {
    State s = start(batch);
    std::vector<Tensor<Cpu>> hidden;
    for (Index t = 0; t < steps; ++t) {
      s = step(s, bytes.rows(t * batch, (t + 1) * batch));
      hidden.push_back(s.h);
    }
    return cross_entropy(concat(hidden, 0), head, bytes.rows(batch, (steps + 1) * batch));
  }
};

int main() {
  const Index steps = 32, batch = 32;
  const Stories stories;
  const Lstm lstm(1, 128);
  AdamW<Cpu> optimizer(lstm.parameters, {.lr = 5e-3F});
  Rng rng(2);
  double last = 0;
  for (Index update = 0; update <= 400; ++update) {
    Tape tape;
    const auto loss = lstm.loss(stories.batch(rng, steps + 1, batch), steps, batch);
    last = static_cast<double>(loss.item());
    if (update % 200 == 0)
      std::printf("update %3d  %.3f nats a byte\n", static_cast<int>(update), last);
    tape.backward(loss);
    optimizer.step(cosine_schedule(5e-3F, update, 401));
  }
  Lstm::State state = lstm.start(1);
  std::int32_t byte = '\n';
  for (int i = 0; i < 90; ++i) {
    state = lstm.step(state, Ids::from({byte}, {1}));
    byte = drawn(softmax(linear(state.h, lstm.head) * 2), rng);  // at temperature ½
    std::putchar(byte < 32 ? ' ' : byte);
  }
  std::putchar('\n');
  return last < 2.2 ? 0 : 1;
}
