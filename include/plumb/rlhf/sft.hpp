// Step 0: supervised fine-tuning, which makes the first policy. Loss: negative log-likelihood of the
// completion's tokens only, averaged over the completion tokens of the whole minibatch.
#pragma once

#include <plumb/optim/adamw.hpp>
#include <plumb/optim/schedule.hpp>
#include <plumb/rlhf/episode.hpp>

#include <functional>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// A prompt and the completion to imitate, end token included.
struct Example {
  Tokens prompt, completion;
};

struct SftConfig {
  Index epochs = 1;
  Index batch = 16;           ///< examples per update
  Index micro_sequences = 0;  ///< examples per forward; 0: the whole batch
  AdamWConfig optimizer{.lr = 3e-4F, .weight_decay = 0.01F};
  bool linear_lr = true;
  std::uint64_t seed = 0;
};

/// Adds the gradient of the completion loss of some examples to the model's. `share` is one over the
/// completion tokens of the minibatch. Returns the examples' part of the loss.
template <class D>
float sft_gradient(const Model<D>& model, std::span<const Example* const> examples, float share) {
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
  const auto row_ids = detail::device_vector<D>(rows),
             target_ids = detail::device_vector<D>(targets);
  const auto weight = detail::device_vector<D>(std::vector<float>(rows.size(), -share));
  return backpropagate([&] {
    const auto hidden = embedding(model.transformer()(batch), row_ids);
    const auto out = head_logprob(hidden, model.transformer().head(), target_ids);
    return weighted_sum(out.logprob, weight);
  });
}

/// Called after each update: its number, how many there are, its loss (nats per token).
using UpdateCallback = std::function<void(Index update, Index total, float loss)>;

/// Trains the model on the examples. DataError if one has no prompt token or no
/// completion, or the model cannot read it.
template <class D>
void sft_train(Model<D>& model, const std::vector<Example>& examples, const SftConfig& config,
               const UpdateCallback& after_update = {}) {
  check<DataError>(!examples.empty(), "[sft] there are no examples");
  for (std::size_t i = 0; i < examples.size(); ++i) {
    const Example& e = examples[i];
    if (e.prompt.empty() || e.completion.empty())
      fail<DataError>(str("[sft] example ", i, " has no prompt token or no completion token"));
    Tokens sequence = e.prompt;
    sequence.insert(sequence.end(), e.completion.begin(), e.completion.end());
    require_readable(model.config(), sequence, "sft", "example", i);
  }
  const auto count = static_cast<Index>(examples.size());
  const Index per_epoch = (count + config.batch - 1) / config.batch;
  const Index total = per_epoch * config.epochs;
  AdamW<D> optimizer(model.parameters(), config.optimizer);
  for (Index update = 0; update < total; ++update) {
    const Index epoch = update / per_epoch, part = update % per_epoch;
    const auto order =
        permutation(count, Rng(config.seed, Stage::Shuffle, static_cast<std::uint32_t>(epoch)));
    std::vector<const Example*> members;
    std::size_t tokens = 0;
    for (Index i = part * config.batch; i < std::min(count, (part + 1) * config.batch); ++i) {
      members.push_back(&examples[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])]);
      tokens += members.back()->completion.size();
    }
    const auto micro = config.micro_sequences > 0 ? static_cast<std::size_t>(config.micro_sequences)
                                                  : members.size();
    float loss = 0;
    try {
      for (std::size_t i = 0; i < members.size(); i += micro)
        loss +=
            sft_gradient(model, std::span(members).subspan(i, std::min(micro, members.size() - i)),
                         1.0F / static_cast<float>(tokens));
    } catch (const NumericError& error) {
      throw NumericError(str("[sft] update ", update, ": ", error.what()));
    }
    const float lr = config.linear_lr ? linear_schedule(config.optimizer.lr, update, total)
                                      : config.optimizer.lr;
    optimizer.step(lr);
    if (after_update) after_update(update, total, loss);
  }
}

}}  // namespace plumb::v0_1
