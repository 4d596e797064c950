// Step 0: supervised fine-tuning, which makes the first policy. Loss: negative log-likelihood of
// the completion's tokens only, averaged over the completion tokens of the whole minibatch.
#pragma once

#include <plumb/core/fields.hpp>
#include <plumb/optim/schedule.hpp>
#include <plumb/rlhf/episode.hpp>
#include <plumb/rlhf/update.hpp>

#include <span>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// A prompt and the completion to imitate, end token included.
struct Example {
  Tokens prompt, completion;
};

struct SftConfig {
  Index epochs = 1;
  Index batch = 16;        ///< examples per update
  Index micro_tokens = 0;  ///< tokens per forward; 0: see update_tokens
  AdamWConfig optimizer{.lr = 3e-4F, .weight_decay = 0.01F};
  bool linear_lr = true;
  std::uint64_t seed = 1;
  BeforeStep before_step{};  ///< between an update's last gradient and its step; optional
};

template <class F>
void fields(SftConfig& c, F&& f) {
  f(Field{"epochs", "passes over the demonstrations", at_least(0)}, c.epochs);
  f(Field{"batch", "demonstrations per update", at_least(1)}, c.batch);
  f(Field{"micro-tokens", "tokens of one pass of an update; 0: as memory allows; not the loss",
          at_least(0), "", "Memory"},
    c.micro_tokens);
  fields(c.optimizer, f);
  f(Field{"linear-lr", "the learning rate falls to zero", {}, "", "Optimizer"}, c.linear_lr);
  f(Field{"seed", "seed of the shuffles"}, c.seed);
}

/// The forward passes of a training: how many, and how full of the tokens that one may have.
struct PackedPasses {
  Index count = 0, tokens = 0, budget = 0;
  double fill() const {
    return count > 0 ? static_cast<double>(tokens) / static_cast<double>(count * budget) : 0.0;
  }
};

/// Adds the gradient of the completion loss of some examples to the model's. `share` is one over
/// the completion tokens of the minibatch. Returns the examples' part of the loss.
template <Policy P>
float sft_gradient(const P& policy, std::span<const Example* const> examples, float share) {
  using D = typename P::Device;
  PackedBatch packed;
  Tokens rows, targets, sequence;
  for (const Example* example : examples) {
    const auto before = static_cast<std::int32_t>(packed.tokens.size() + example->prompt.size());
    for (std::size_t t = 0; t < example->completion.size(); ++t)
      rows.push_back(before - 1 + static_cast<std::int32_t>(t));
    targets.insert(targets.end(), example->completion.begin(), example->completion.end());
    sequence = example->prompt;
    sequence.insert(sequence.end(), example->completion.begin(), example->completion.end());
    packed.add(sequence);
  }
  const auto batch = Batch<D>::from(packed);
  const auto row_ids = device_vector<D>(rows), target_ids = device_vector<D>(targets);
  const auto weight = device_vector<D>(std::vector<float>(rows.size(), -share));
  return backpropagate([&] {
    const auto hidden = embedding(policy.hidden(batch), row_ids);
    const auto out = head_logprob(hidden, policy.head(), target_ids);
    return weighted_sum(out.logprob, weight);
  });
}

/// Trains the policy on the examples. DataError if one has no prompt token or no
/// completion, or the policy cannot read it.
template <Policy P>
PackedPasses sft_train(P& policy, const std::vector<Example>& examples, const SftConfig& config,
                       const UpdateCallback& after_update = {}, Where where = Where::here()) {
  using D = typename P::Device;
  check_fields(config, "sft", where);
  check<DataError>(!examples.empty(), "[sft] there are no examples", where);
  for (std::size_t i = 0; i < examples.size(); ++i) {
    const Example& e = examples[i];
    if (e.prompt.empty() || e.completion.empty())
      fail<DataError>(str("[sft] example ", i, " has no prompt token or no completion token"),
                      where);
    Tokens sequence = e.prompt;
    sequence.insert(sequence.end(), e.completion.begin(), e.completion.end());
    require_readable(policy, sequence, "sft", "example", i, 0, where);
  }
  const auto minibatches = Minibatches::of(static_cast<Index>(examples.size()), config.batch,
                                           config.epochs, config.seed, 0);
  const Index total = minibatches.parts * config.epochs;
  PackedPasses passes{.budget = update_tokens(policy, config.micro_tokens)};
  AdamW<D> optimizer(policy.parameters(), config.optimizer, where);
  minibatches.run([&](Index epoch, Index part, const std::vector<std::size_t>& places) {
    const Index update = epoch * minibatches.parts + part;
    std::vector<const Example*> members;
    std::size_t tokens = 0;
    for (const std::size_t place : places) {
      members.push_back(&examples[place]);
      tokens += examples[place].completion.size();
    }
    const float lr = config.linear_lr ? linear_schedule(config.optimizer.lr, update, total)
                                      : config.optimizer.lr;
    const Trained<D> model{&policy.parameters(), &optimizer, lr};
    float loss = 0;
    const auto gradients = [&] {
      const auto length = [&](std::size_t i) {
        return static_cast<Index>(members[i]->prompt.size() + members[i]->completion.size());
      };
      for_token_runs(members.size(), passes.budget, length,
                     [&](std::size_t first, std::size_t last) {
                       ++passes.count;
                       for (std::size_t i = first; i < last; ++i) passes.tokens += length(i);
                       loss += sft_gradient(policy, std::span(members).subspan(first, last - first),
                                            1.0F / static_cast<float>(tokens));
                     });
    };
    update_step<D>(
        std::span(&model, 1), gradients, [&] { return str("[sft] update ", update); },
        config.before_step);
    if (after_update) after_update(update, total, loss);
  });
  return passes;
}

}}  // namespace plumb::v0_1
