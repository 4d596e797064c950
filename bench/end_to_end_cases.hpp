// The measurements, each written as a user of the library would: a training step, generation,
// an iteration of PPO, a step of the reward model, an update on groups of responses.
#pragma once

#include "end_to_end_support.hpp"

namespace end_to_end {

/// Forward, backward, clipping and AdamW on B sequences of 256; cross-entropy on every token.
template <class D>
Result train(const Size& size, int repeat) {
  constexpr Index kLength = 256;
  const Index tokens = size.batch * kLength;
  Model<D> model(size.config(), 1);
  AdamW<D> adamw(model.parameters(), {.lr = 3e-4F, .weight_decay = 0.01F});

  PackedBatch packed;
  for (const Tokens& sequence : random_sequences(size.batch, kLength, size.vocab))
    packed.add(sequence);
  const auto batch = Batch<D>::from(packed);
  const auto targets =
      Tensor<D, std::int32_t>::from(random_tokens(tokens, size.vocab, 1000), {tokens});

  Result result{.name = str("train/", size.name, kSuffix<D>), .unit = "tokens/s"};
  std::vector<float> losses;
  measure(result, 2, repeat, [&] {
    Tape tape;
    const auto loss =
        cross_entropy(model.transformer()(batch), model.transformer().head(), targets);
    losses.push_back(loss.item());
    tape.backward(loss);
    adamw.step();
  });
  check(losses.back() < losses.front(), "[train] the loss did not fall: this is not training");
  per_second(result, static_cast<double>(tokens));
  result.work = {{"parameters", static_cast<double>(model.parameters().count())},
                 {"sequences", static_cast<double>(size.batch)},
                 {"length", kLength},
                 {"predicted", static_cast<double>(tokens)}};
  result.estimate = model_bytes(model.parameters().size(), true) +
                    training_bytes(size, static_cast<double>(tokens)) +
                    head_bytes(size, static_cast<double>(tokens));
  return result;
}

/// `batch` prompts of 32 tokens, 128 new tokens each at temperature 1; reading the prompts counts.
template <class D>
Result generate(const Size& size, Index batch, int repeat) {
  constexpr Index kPrompt = 32, kNew = 128;
  const Model<D> model(size.config(), 1);
  const auto prompts = random_sequences(batch, kPrompt, size.vocab);
  SampleOptions options;
  options.max_new_tokens = kNew;
  options.slots = batch;

  Result result{.name = str("generate/", size.name, "/b", batch, kSuffix<D>), .unit = "tokens/s"};
  measure(result, 1, repeat, [&] {
    ++options.step;
    for (const Response& response : sample(model, prompts, options))
      check(static_cast<Index>(response.tokens.size()) == kNew, "[generate] a response is short");
  });
  per_second(result, static_cast<double>(batch * kNew));
  result.work = {{"parameters", static_cast<double>(model.parameters().count())},
                 {"sequences", static_cast<double>(batch)},
                 {"prompt", kPrompt},
                 {"new_tokens", kNew}};
  const double cached = static_cast<double>((batch + 1) * (kPrompt + kNew));
  const auto c = static_cast<double>(size.channels);
  // The weights, and a copy packed for generation.
  result.estimate = (rounds_products<D> ? 1.5 : 2) * model_bytes(model.parameters().size(), false) +
                    4 * (cached * static_cast<double>(size.layers) * 2 * c +
                         static_cast<double>(batch) * (static_cast<double>(size.vocab) + 16 * c));
  return result;
}

/// One form of the PPO iteration.
struct PpoCase {
  bool shared;     ///< the value head sits on the policy; otherwise a model of its own has it
  bool geometric;  ///< each token ends its response with probability 1/40; otherwise all have 64
};

inline constexpr Index kPpoPrompts = 64, kPpoPrompt = 32, kPpoNew = 64, kPpoMinibatches = 4;

inline PpoConfig ppo_config(const Size& size, bool geometric) {
  PpoConfig config;
  config.epochs = 4;
  config.minibatches = kPpoMinibatches;
  config.linear_lr = false;
  config.sampling.responses = 1;
  config.sampling.max_new_tokens = kPpoNew;
  config.sampling.slots = kPpoPrompts;
  config.sampling.seed = 1;
  // An untrained model's distribution is nearly flat: a fortieth of the tokens as stops gives
  // lengths of mean 32 under the limit of 64.
  if (geometric)
    for (Index token = 0; token < size.vocab / 40; ++token)
      config.sampling.stops.push_back(static_cast<std::int32_t>(token));
  return config;
}

inline double ppo_estimate(const Size& size, const PpoCase& form, Index weights) {
  const double minibatch = static_cast<double>(kPpoPrompts / kPpoMinibatches) *
                           static_cast<double>(kPpoPrompt + kPpoNew);
  const int trained = form.shared ? 1 : 2;
  return trained * (model_bytes(weights, true) + training_bytes(size, minibatch)) +
         2 * model_bytes(weights, false) + head_bytes(size, minibatch);
}

/// 64 prompts of 32 tokens, up to 64 new ones, 4 epochs of 4 minibatches; a reference, a reward
/// model and (unless shared) a value model of the policy's size. Beyond what peers do, Plumb
/// computes the exact KL to the reference, for which the policy reads every response once more.
template <class D>
Result ppo(const Size& size, const PpoCase& form, int repeat) {
  const Model<D> reference(size.config(), 1);
  const Model<D> reward_model = reference.clone(ScalarHead::Reward, 2);
  Model<D> policy = reference.clone(form.shared ? ScalarHead::Value : ScalarHead::None);
  std::optional<Model<D>> value_model;
  if (!form.shared) value_model.emplace(reference.clone(ScalarHead::Value));

  const ScoreFunction score = [&](const std::vector<Episode>& episodes) {
    return score_episodes(reward_model, episodes);
  };
  const PpoConfig config = ppo_config(size, form.geometric);
  PpoTrainer<D> trainer(policy, reference, score, config, value_model ? &*value_model : nullptr);
  const auto prompts = random_sequences(kPpoPrompts, kPpoPrompt, size.vocab);

  Result result{.name = str("ppo/", size.name, form.shared ? "/shared" : "/separate",
                            form.geometric ? "/geometric" : "/full", kSuffix<D>),
                .unit = "s"};
  std::vector<Named> phases;
  measure(result, 1, repeat, [&] {
    Named seconds;
    for (const auto& [name, value] : trainer.step(prompts))
      if (name == "time/sample" || name == "time/evaluate" || name == "time/score" ||
          name == "time/update")
        seconds.emplace_back(name.substr(5), value);
    phases.push_back(seconds);
    std::vector<Index> lengths;
    for (const Episode& e : trainer.episodes())
      lengths.push_back(static_cast<Index>(e.response.size()));
    result.lengths.push_back(lengths);
  });
  result.phases.assign(phases.begin() + 1, phases.end());
  double tokens = 0;  // of the timed iterations
  for (std::size_t i = 1; i < result.lengths.size(); ++i)
    for (const Index length : result.lengths[i]) tokens += static_cast<double>(length);
  result.work = {{"parameters", static_cast<double>(reference.parameters().count())},
                 {"prompts", kPpoPrompts},
                 {"prompt", kPpoPrompt},
                 {"response_tokens", tokens},
                 {"updates", static_cast<double>(trainer.state().optimizer_steps) /
                                 static_cast<double>(trainer.iteration())},
                 {"trained_models", form.shared ? 1 : 2}};
  result.estimate = ppo_estimate(size, form, reference.parameters().size());
  return result;
}

/// Forward, backward, clipping and AdamW of the pairwise loss on 16 pairs of 128 tokens.
template <class D>
Result reward(const Size& size, int repeat) {
  constexpr Index kPairs = 16, kLength = 128;
  Model<D> model(size.config(), 1, ScalarHead::Reward);
  AdamW<D> adamw(model.parameters(), {.lr = 3e-4F, .weight_decay = 0.01F});
  const auto sequences = random_sequences(2 * kPairs, kLength, size.vocab);
  std::vector<RankedPrompt> prompts(kPairs);
  std::vector<const RankedPrompt*> members;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    prompts[i] = {{sequences[2 * i], sequences[2 * i + 1]}, {0, 1}, {kLength, kLength}};
    members.push_back(&prompts[i]);
  }

  Result result{.name = str("reward/", size.name, kSuffix<D>), .unit = "pairs/s"};
  double pairs = 0;
  std::vector<float> losses;
  measure(result, 2, repeat, [&] {
    RankingStats stats;
    losses.push_back(reward_gradient(model, members, {}, 1.0F / kPairs, stats));
    adamw.step();
    pairs = stats.pairs;
  });
  check(losses.back() < losses.front(), "[reward] the loss did not fall: this is not training");
  per_second(result, kPairs);
  result.work = {{"parameters", static_cast<double>(model.parameters().count())},
                 {"pairs", pairs},
                 {"length", kLength}};
  result.estimate =
      model_bytes(model.parameters().size(), true) + training_bytes(size, 2.0 * kPairs * kLength);
  return result;
}

/// `prompts` prompts of `prompt` tokens, each followed by `responses` responses of `response`.
inline std::vector<Tokens> answered_prompts(Index prompts, Index responses, Index prompt,
                                            Index response, Index vocab) {
  std::vector<Tokens> sequences;
  for (Index p = 0; p < prompts; ++p)
    for (Index k = 0; k < responses; ++k) {
      Tokens all = random_tokens(prompt, vocab, static_cast<std::uint32_t>(p));
      const Tokens own =
          random_tokens(response, vocab, static_cast<std::uint32_t>(1000 + p * responses + k));
      all.insert(all.end(), own.begin(), own.end());
      sequences.push_back(std::move(all));
    }
  return sequences;
}

/// Forward, backward, clipping and AdamW of the pairwise loss on 32 responses of 64 tokens to
/// prompts of 128, `responses` to each, ranked without ties.
template <class D>
Result ranked(const Size& size, Index responses, int repeat) {
  constexpr Index kPrompt = 128, kResponse = 64;
  const Index prompts = 32 / responses;
  Model<D> model(size.config(), 1, ScalarHead::Reward);
  AdamW<D> adamw(model.parameters(), {.lr = 3e-4F, .weight_decay = 0.01F});
  const auto sequences = answered_prompts(prompts, responses, kPrompt, kResponse, size.vocab);
  std::vector<RankedPrompt> rankings(static_cast<std::size_t>(prompts));
  std::vector<const RankedPrompt*> members;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    RankedPrompt& ranking = rankings[i / static_cast<std::size_t>(responses)];
    ranking.sequences.push_back(sequences[i]);
    ranking.rank.push_back(static_cast<std::int32_t>(ranking.rank.size()));
    ranking.lengths.push_back(kResponse);
  }
  for (const RankedPrompt& ranking : rankings) members.push_back(&ranking);

  Result result{.name = str("ranked/", size.name, "/k", responses, kSuffix<D>),
                .unit = "rankings/s"};
  std::vector<float> losses;
  measure(result, 2, repeat, [&] {
    RankingStats stats;
    losses.push_back(
        reward_gradient(model, members, {}, 1.0F / static_cast<float>(prompts), stats));
    adamw.step();
  });
  check(losses.back() < losses.front(), "[ranked] the loss did not fall: this is not training");
  per_second(result, static_cast<double>(prompts));
  result.work = {{"parameters", static_cast<double>(model.parameters().count())},
                 {"prompts", static_cast<double>(prompts)},
                 {"responses", static_cast<double>(responses)},
                 {"prompt", kPrompt},
                 {"response", kResponse}};
  result.estimate = model_bytes(model.parameters().size(), true) +
                    training_bytes(size, static_cast<double>(prompts * kPrompt + 32 * kResponse));
  return result;
}

/// An update of GRPO's shape: two prompts of 256 tokens, 8 responses of 128 to each; the clipped
/// loss on every token of a response by the advantage of the response, backward, clipping, AdamW.
template <class D>
Result group(const Size& size, int repeat) {
  constexpr Index kPrompts = 2, kPrompt = 256, kResponses = 8, kResponse = 128;
  TransformerConfig config = size.config();
  config.context = kPrompt + kResponse;
  Model<D> model(config, 1);
  AdamW<D> adamw(model.parameters(), {.lr = 3e-4F, .weight_decay = 0.01F});
  PackedBatch packed(true);
  for (const Tokens& sequence :
       answered_prompts(kPrompts, kResponses, kPrompt, kResponse, size.vocab))
    packed.add(sequence);
  Tokens rows, targets;
  std::vector<float> old, advantage;
  for (Index b = 0; b < packed.sequences(); ++b)
    for (Index t = kPrompt - 1; t < kPrompt + kResponse - 1; ++t) {
      rows.push_back(packed.row(b, t));
      targets.push_back(packed.tokens[static_cast<std::size_t>(packed.row(b, t + 1))]);
      old.push_back(-std::log(static_cast<float>(size.vocab)));
      advantage.push_back(b % 2 == 0 ? 1.0F : -1.0F);
    }
  const auto batch = Batch<D>::from(packed, read_rows(packed, {&rows}));
  const auto tokens = static_cast<Index>(rows.size());
  const auto row_ids = device_vector<D>(rows), target_ids = device_vector<D>(targets);
  const auto old_logprob = device_vector<D>(old), advantages = device_vector<D>(advantage);
  const auto weight =
      device_vector<D>(std::vector<float>(rows.size(), 1.0F / static_cast<float>(tokens)));

  Result result{.name = str("group/", size.name, kSuffix<D>), .unit = "s"};
  std::vector<float> losses;
  measure(result, 2, repeat, [&] {
    PolicyStats stats;
    model.parameters().flat().zero_grad();
    losses.push_back(backpropagate([&] {
      const auto hidden = embedding(model.hidden(batch), row_ids);
      const auto out = head_logprob(hidden, model.head(), target_ids);
      return ppo_policy_loss(out.logprob, old_logprob, advantages, weight, PpoClip{}, &stats);
    }));
    adamw.step();
  });
  check(losses.back() < losses.front(), "[group] the loss did not fall: this is not training");
  result.work = {{"parameters", static_cast<double>(model.parameters().count())},
                 {"prompts", kPrompts},
                 {"responses", kResponses},
                 {"prompt", kPrompt},
                 {"response", kResponse},
                 {"predicted", static_cast<double>(tokens)}};
  result.estimate = model_bytes(model.parameters().size(), true) +
                    training_bytes(size, static_cast<double>(packed.size()));
  return result;
}

/// Forward, backward, clipping and AdamW of a loss on the responses' log-probabilities, on about
/// 4600 tokens of whole sequences: whole, and with each prompt once. Step about, so that a noisy
/// neighbour slows both.
template <class D>
std::array<Result, 2> tree(const Size& size, const TreeShape& shape, int repeat) {
  const auto [prompt, response, responses] = shape;
  const Index groups = std::max<Index>(1, 4608 / (responses * (prompt + response)));
  TransformerConfig config = size.config();
  config.context = std::max(config.context, prompt + response);
  const auto sequences = answered_prompts(groups, responses, prompt, response, size.vocab);

  struct Form {
    Model<D> model;
    AdamW<D> adamw;
    PackedBatch packed;
    Result result{};
    std::vector<float> losses{};

    Form(const TransformerConfig& config, bool share)
        : model(config, 1),
          adamw(model.parameters(), {.lr = 3e-4F, .weight_decay = 0.01F}),
          packed(share) {}

    void step(Index prompt, Index response) {
      Tokens rows, targets;
      for (Index b = 0; b < packed.sequences(); ++b)
        for (Index t = prompt - 1; t < prompt + response - 1; ++t) {
          rows.push_back(packed.row(b, t));
          targets.push_back(packed.tokens[static_cast<std::size_t>(packed.row(b, t + 1))]);
        }
      const auto batch = Batch<D>::from(packed, read_rows(packed, {&rows}));
      const float share = -1.0F / static_cast<float>(rows.size());
      const auto weight = device_vector<D>(std::vector<float>(rows.size(), share));
      model.parameters().flat().zero_grad();
      losses.push_back(backpropagate([&] {
        const auto hidden = embedding(model.hidden(batch), device_vector<D>(rows));
        return weighted_sum(head_logprob(hidden, model.head(), device_vector<D>(targets)).logprob,
                            weight);
      }));
      adamw.step();
    }
  };
  std::array<Form, 2> forms{Form(config, false), Form(config, true)};
  for (Form& form : forms) {
    for (const Tokens& sequence : sequences) form.packed.add(sequence);
    form.result = {.name = str("tree/", size.name, "/", prompt, "-", response, "-", responses,
                               form.packed.shared ? "/shared" : "/whole", kSuffix<D>),
                   .unit = "s"};
    form.result.work = {{"parameters", static_cast<double>(form.model.parameters().count())},
                        {"prompts", static_cast<double>(groups)},
                        {"responses", static_cast<double>(responses)},
                        {"prompt", static_cast<double>(prompt)},
                        {"response", static_cast<double>(response)},
                        {"tokens", static_cast<double>(form.packed.size())}};
  }
  for (Form& form : forms)
    for (int i = 0; i < 2; ++i) form.step(prompt, response);
  for (int i = 0; i < repeat; ++i)
    for (Form& form : forms) {
      Result one;
      release_cached_memory();
      measure(one, 1, 1, [&] { form.step(prompt, response); });
      append(form.result, one);
    }
  for (Form& form : forms) {
    check(form.losses.back() < form.losses.front(), "[tree] the loss did not fall");
    form.result.estimate = model_bytes(form.model.parameters().size(), true) +
                           training_bytes(size, static_cast<double>(form.packed.size()));
  }
  check(std::abs(forms[0].losses[0] - forms[1].losses[0]) < (rounds_products<D> ? 1e-2F : 1e-4F),
        "[tree] the losses differ");
  return {forms[0].result, forms[1].result};
}

}  // namespace end_to_end
