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

/// Appends an example to a batch.
inline void pack(PackedBatch& packed, const Example& example) {
  Tokens sequence = example.prompt;
  sequence.insert(sequence.end(), example.completion.begin(), example.completion.end());
  packed.add(sequence);
}

/// Adds the gradient of the completion loss of some examples, packed so, to the model's. `share` is
/// one over the completion tokens of the minibatch; the examples are numbers `places` of `frozen`.
/// Returns the examples' part of the loss.
template <Policy P>
float sft_gradient(const P& policy, const PackedBatch& packed,
                   std::span<const Example* const> examples, float share,
                   const FrozenStates<typename P::Device>& frozen = {},
                   std::span<const std::size_t> places = {}) {
  using D = typename P::Device;
  Tokens rows, targets;
  for (std::size_t b = 0; b < examples.size(); ++b) {
    const Example& example = *examples[b];
    const auto before = static_cast<Index>(example.prompt.size()) - 1;
    const auto tokens = static_cast<Index>(example.completion.size());
    for (Index t = 0; t < tokens; ++t)
      rows.push_back(packed.row(static_cast<Index>(b), before + t));
    targets.insert(targets.end(), example.completion.begin(), example.completion.end());
  }
  auto batch = Batch<D>::from(packed, read_rows(packed, {&rows}));
  frozen.attach(batch, packed, places);
  const auto row_ids = device_vector<D>(rows), target_ids = device_vector<D>(targets);
  const auto weight = device_vector<D>(std::vector<float>(rows.size(), -share));
  return backpropagate([&] {
    const auto hidden = embedding(policy.hidden(batch), row_ids);
    const HeadSlope<D> slope = [&](Index first, Index count, const LogProbs<D>&, float* d, float*) {
      copy(D{}, d, weight.data() + first, static_cast<std::size_t>(count) * sizeof(float));
    };
    const auto out = head_logprob(hidden, policy.head(), target_ids, 1.0F, false, slope);
    return weighted_sum(out.logprob, weight);
  });
}

/// The same in one batch.
template <Policy P>
float sft_gradient(const P& policy, std::span<const Example* const> examples, float share) {
  PackedBatch packed(partial_batches<P>);
  for (const Example* example : examples) pack(packed, *example);
  return sft_gradient(policy, packed, examples, share);
}

/// Trains the policy on the examples. DataError if one has no prompt token or no
/// completion, or the policy cannot read it.
template <Policy P>
PackedPasses sft_train(P& policy, const std::vector<Example>& examples, const SftConfig& config,
                       const UpdateCallback& after_update = {}, Where where = Where::here()) {
  using D = typename P::Device;
  check_fields(config, "sft", where);
  check<DataError>(!examples.empty(), "[sft] there are no examples", where);
  std::size_t all_tokens = 0;
  for (std::size_t i = 0; i < examples.size(); ++i) {
    const Example& e = examples[i];
    if (e.prompt.empty() || e.completion.empty())
      fail<DataError>(str("[sft] example ", i, " has no prompt token or no completion token"),
                      where);
    Tokens sequence = e.prompt;
    sequence.insert(sequence.end(), e.completion.begin(), e.completion.end());
    require_readable(policy, sequence, "sft", "example", i, 0, where);
    all_tokens += sequence.size();
  }
  const auto minibatches = Minibatches::of(static_cast<Index>(examples.size()), config.batch,
                                           config.epochs, config.seed, 0);
  const Index total = minibatches.parts * config.epochs;
  PackedPasses passes{.budget = update_tokens(policy, config.micro_tokens)};
  AdamW<D> optimizer(policy.parameters(), config.optimizer, where);
  const auto frozen =
      frozen_states_of_data(policy, config.epochs, static_cast<Index>(all_tokens), examples.size(),
                            [&](PackedBatch& packed, std::size_t i) { pack(packed, examples[i]); });
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
      const auto add = [&](PackedBatch& packed, std::size_t i) { pack(packed, *members[i]); };
      for_packed_runs(partial_batches<P>, members.size(), passes.budget, add,
                      [&](const PackedBatch& packed, std::size_t first, std::size_t last) {
                        ++passes.count;
                        passes.tokens += packed.size();
                        loss += sft_gradient(policy, packed,
                                             std::span(members).subspan(first, last - first),
                                             1.0F / static_cast<float>(tokens), frozen,
                                             std::span(places).subspan(first, last - first));
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
