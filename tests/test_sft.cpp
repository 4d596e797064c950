// Supervised fine-tuning: loss and gradient of completion tokens only, by the minibatch's count of
// them however it is split; and that it learns.
#include "tiny.hpp"

#include <doctest/doctest.h>

using namespace plumb;
using namespace test;

namespace {

std::vector<Example> some_examples(Index vocab) {
  std::vector<Example> examples;
  for (const auto& [prompt, completion] :
       {std::pair<Index, Index>{1, 1}, {5, 20}, {40, 3}, {2, 34}, {9, 2}, {3, 1}})
    examples.push_back(
        {random_tokens(prompt, vocab, static_cast<std::uint64_t>(prompt)),
         random_tokens(completion, vocab, static_cast<std::uint64_t>(50 + completion))});
  return examples;
}

std::vector<const Example*> pointers(const std::vector<Example>& examples) {
  std::vector<const Example*> all;
  for (const Example& e : examples) all.push_back(&e);
  return all;
}

float share_of(const std::vector<Example>& examples) {
  std::size_t tokens = 0;
  for (const Example& e : examples) tokens += e.completion.size();
  return 1.0F / static_cast<float>(tokens);
}

/// Σ over completion tokens of −log p, one example at a time, through log-softmax of all logits.
double completion_nll(const Model<Cpu>& model, const std::vector<Example>& examples) {
  double total = 0;
  for (const Example& e : examples) {
    PackedBatch packed;
    Tokens sequence = e.prompt;
    sequence.insert(sequence.end(), e.completion.begin(), e.completion.end());
    packed.add(sequence);
    const auto z = linear(model.transformer()(Batch<Cpu>::from(packed)), model.transformer().head())
                       .to_vector();
    const auto v = static_cast<std::size_t>(model.config().vocab);
    for (std::size_t t = e.prompt.size(); t < sequence.size(); ++t) {
      const float* row = z.data() + (t - 1) * v;
      double sum = 0;
      for (std::size_t i = 0; i < v; ++i) sum += std::exp(double{row[i]});
      total += std::log(sum) - double{row[static_cast<std::size_t>(sequence[t])]};
    }
  }
  return total;
}

}  // namespace

TEST_CASE("loss and gradient are those of the completion tokens, both families") {
  for (const auto& config : {tiny_llama(), tiny_gpt2()}) {
    const auto model = tiny_model(config);
    const auto examples = some_examples(config.vocab);
    const float share = share_of(examples);
    const auto members = pointers(examples);
    const float loss = sft_gradient(model, members, share);
    CHECK(loss == doctest::Approx(completion_nll(model, examples) * double{share}).epsilon(1e-6));
    for (const auto& entry : model.parameters().entries()) {
      CAPTURE(entry.name);
      const double error = gradient_error(
          entry.tensor, grad_of(entry.tensor),
          [&] { return completion_nll(model, examples) * double{share}; }, 1e-2F,
          sanitized() ? 1 : 5, 1e-2);
      CHECK(error < 5e-3);
    }
  }
}

TEST_CASE("a prompt's own tokens are not imitated") {
  // With an untied head, the head's gradient is a sum over the rows that predict: tokens that never
  // complete anything still get −p, but the rows of prompt tokens must add nothing. One completion
  // token after a long prompt then gives a gradient of rank one.
  const auto config = tiny_llama();
  const auto model = tiny_model(config);
  const std::vector<Example> one = {{random_tokens(30, config.vocab, 1), {4}}};
  sft_gradient(model, pointers(one), 1.0F);
  const auto head = grad_of(model.parameters()["head"]);
  const std::size_t c = 24;
  double worst = 0, most = 0;
  for (std::size_t v = 1; v < 19; ++v)
    for (std::size_t i = 1; i < c; ++i) {
      const double minor =
          double{head[v * c + i]} * double{head[0]} - double{head[v * c]} * double{head[i]};
      worst = std::max(worst, std::abs(minor));
      most = std::max(most, std::abs(double{head[v * c + i]} * double{head[0]}));
    }
  CHECK(most > 1e-6);
  CHECK(worst < 1e-6 * most);
}

TEST_CASE("splitting a minibatch changes neither loss nor gradient") {
  for (const auto& config : {tiny_llama(), tiny_gpt2()}) {
    const auto examples = some_examples(config.vocab);
    const auto members = pointers(examples);
    std::vector<float> whole;
    float whole_loss = 0;
    for (const std::size_t micro : {6U, 4U, 1U}) {
      const auto model = tiny_model(config);
      float loss = 0;
      for (std::size_t i = 0; i < members.size(); i += micro)
        loss +=
            sft_gradient(model, std::span(members).subspan(i, std::min(micro, members.size() - i)),
                         share_of(examples));
      const auto gradient = grad_of(model.parameters().flat());
      if (whole.empty()) {
        whole = gradient;
        whole_loss = loss;
      }
      CHECK(loss == doctest::Approx(whole_loss).epsilon(1e-6));
      float most = 0, worst = 0;
      for (std::size_t i = 0; i < whole.size(); ++i) {
        most = std::max(most, std::abs(whole[i]));
        worst = std::max(worst, std::abs(whole[i] - gradient[i]));
      }
      CHECK(worst <= 1e-6F * most);
    }
  }
}

TEST_CASE("training: losses reported are the minibatches', fall, and do not depend on the split") {
  const auto config = tiny_llama();
  const auto examples = some_examples(config.vocab);
  SftConfig settings;
  settings.epochs = sanitized() ? 10 : 40;
  settings.batch = 4;
  settings.optimizer.lr = 1e-2F;
  PackedPasses passes;
  const auto train = [&](Index micro) {
    settings.micro_tokens = micro;
    auto model = tiny_model(config);
    std::vector<float> losses;
    passes = sft_train(model, examples, settings, [&](Index update, Index total, float loss) {
      CHECK(update == static_cast<Index>(losses.size()));
      CHECK(total == 2 * settings.epochs);
      losses.push_back(loss);
    });
    CHECK(losses.size() == static_cast<std::size_t>(2 * settings.epochs));
    return losses;
  };
  const auto whole = train(0), split = train(1);
  CHECK(split[0] == doctest::Approx(whole[0]).epsilon(1e-6));
  CHECK(split[3] == doctest::Approx(whole[3]).epsilon(1e-4));
  CHECK(passes.count == 6 * settings.epochs);
  // As many as fit: the examples have 2, 25, 43, 36, 11 and 4 tokens.
  const auto packed = train(45);
  CHECK(packed[3] == doctest::Approx(whole[3]).epsilon(1e-4));
  CHECK(passes.tokens <= 121 * settings.epochs);
  CHECK(passes.tokens > 118 * settings.epochs);  // but for a first token that two have in common
  CHECK(passes.count >= 3 * settings.epochs);
  CHECK(passes.count < 6 * settings.epochs);
  CHECK(passes.fill() > 118.0 / (5 * 45.0) - 1e-6);
  CHECK(whole.back() < whole.front() / (sanitized() ? 2 : 10));
}

TEST_CASE("one epoch sees every example once; learning rate 0 leaves the weights as they are") {
  const auto config = tiny_gpt2();
  const auto examples = some_examples(config.vocab);
  auto model = tiny_model(config);
  const auto before = model.parameters().flat().to_vector();
  SftConfig settings;
  settings.batch = 1;
  settings.optimizer.lr = 0;
  settings.linear_lr = false;
  std::vector<float> losses, expected;
  sft_train(model, examples, settings, [&](Index, Index, float loss) { losses.push_back(loss); });
  for (const Example& e : examples)
    expected.push_back(
        static_cast<float>(completion_nll(model, {e}) / static_cast<double>(e.completion.size())));
  std::sort(losses.begin(), losses.end());
  std::sort(expected.begin(), expected.end());
  REQUIRE(losses.size() == expected.size());
  for (std::size_t i = 0; i < losses.size(); ++i)
    CHECK(losses[i] == doctest::Approx(expected[i]).epsilon(1e-5));
  CHECK(same_bits(before, model.parameters().flat().to_vector()));
}

TEST_CASE("examples that cannot be learned are refused by number and reason") {
  auto model = tiny_model(tiny_llama());
  const auto error = [&](const Example& example) {
    return message_of<DataError>([&] { sft_train(model, {{{1}, {2}}, example}, {}); });
  };
  CHECK(contains(message_of<DataError>([&] { sft_train(model, {}, {}); }), "no examples"));
  CHECK(contains(error({{}, {1}}), "example 1 has no prompt token"));
  CHECK(contains(error({{1}, {}}), "example 1 has no prompt token or no completion"));
  CHECK(contains(error({random_tokens(40, 19, 1), random_tokens(41, 19, 2)}),
                 "example 1 has 81 tokens; the context holds 80"));
  CHECK(contains(error({{1}, {19}}), "example 1 has token 19, outside the vocabulary of 19"));
  model.parameters()["blocks.0.up"].data()[0] = NAN;
  CHECK(contains(message_of<NumericError>([&] {
                   sft_train(model, {{{1}, {2}}}, {});
                 }),
                 "[sft] update 0: [linear] element"));
}
