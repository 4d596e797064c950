// What PPO learns from: responses sampled by the policy, what reference, value function and reward
// say of them, and the advantages that follow. The steps before the update, in the order they run.
#pragma once

#include <plumb/math/kl.hpp>
#include <plumb/rlhf/ppo_config.hpp>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// 1. Responses and the log-probs they were sampled with; the iteration is part of the random key.
template <Policy P>
std::vector<Episode> collect(const P& policy, const std::vector<Tokens>& prompts,
                             const PpoConfig& config, Index iteration) {
  SampleOptions options = config.sampling;
  options.step = static_cast<std::uint32_t>(iteration);
  // What was drawn from is what a weight corrects for.
  options.sampling.filtered_logprob = config.correction != Correction::None;
  std::vector<Episode> episodes;
  for (Response& response : sample(policy, prompts, options)) {
    Episode e;
    e.prompt = prompts[static_cast<std::size_t>(response.prompt)];
    e.group = response.prompt;
    e.response = std::move(response.tokens);
    e.logprobs = std::move(response.logprobs);
    e.finished = response.finished;
    const auto length = static_cast<Index>(e.response.size());
    const bool after =
        config.score_position == ScorePosition::AfterEnd && length < options.max_new_tokens;
    e.steps = length + (after ? 1 : 0);
    episodes.push_back(std::move(e));
  }
  return episodes;
}

/// Where values come from: a model of their own, the head on the policy's trunk, or nowhere.
enum class Critic { None, Shared, Separate };

/// Values of the rows that a batch values: by a model of their own if there is one, else by the
/// head on the policy's hidden states. (Σ steps)
template <Policy P>
Tensor<typename P::Device> batch_values(const P& policy, const P* value_model,
                                        const Tensor<typename P::Device>& policy_hidden,
                                        const EpisodeBatch<typename P::Device>& batch) {
  if (value_model == nullptr) return policy.scalar(embedding(policy_hidden, batch.value_rows));
  return value_model->scalar(embedding(value_model->hidden(batch.batch), batch.value_rows));
}

/// 2. Reference log-probs, exact KL if asked and, with a critic, values, all under the policy as it
/// is; if `own_logprobs`, its own log-probs, too.
template <Policy P, Policy R>
void evaluate(std::vector<Episode>& episodes, const P& policy, const R& reference, Critic critic,
              const P* value_model, float temperature,
              const FrozenStates<typename P::Device>& frozen = {}, bool exact_kl = true,
              bool own_logprobs = false) {
  using D = typename P::Device;
  std::vector<const Episode*> all;
  for (const Episode& e : episodes) all.push_back(&e);
  HostReads<D> reads;
  std::size_t i = 0;
  for_episode_runs(
      partial_batches<P> && partial_batches<R>, all, forward_tokens(policy),
      [&](const PackedBatch& packed, std::span<const Episode* const> members) {
        auto batch = EpisodeBatch<D>::from(packed, members);
        frozen.attach(batch.batch, packed, places_of(members, episodes.data()));
        const bool hidden_needed = exact_kl || own_logprobs || critic == Critic::Shared;
        const auto hidden = hidden_needed ? policy.hidden(batch.batch) : Tensor<D>{};
        const auto rows = exact_kl || own_logprobs ? embedding(hidden, batch.rows) : Tensor<D>{};
        const auto ref_rows = embedding(reference.hidden(batch.batch), batch.rows);
        std::vector<float> ref_host, kl_host, own_host, value_host;
        const auto to_host = [&](std::vector<float>& to, const Tensor<D>& from) {
          to.resize(static_cast<std::size_t>(from.size()));
          reads.later(to.data(), from.data(), from.size());
        };
        if (exact_kl) {
          const auto ref =
              row_reference(policy, rows, reference, ref_rows, batch.targets, temperature);
          to_host(ref_host, ref.logprob);
          to_host(kl_host, ref.kl);
        } else {
          to_host(ref_host,
                  head_logprob(ref_rows, reference.head(), batch.targets, temperature).logprob);
        }
        if (own_logprobs)
          to_host(own_host, head_logprob(rows, policy.head(), batch.targets, temperature).logprob);
        if (critic != Critic::None)
          to_host(value_host, batch_values(policy, value_model, hidden, batch));
        reads.fetch();
        const auto cut = [](const std::vector<float>& from, std::size_t at, std::size_t n) {
          const auto first = from.begin() + static_cast<std::ptrdiff_t>(at);
          return std::vector<float>(first, first + static_cast<std::ptrdiff_t>(n));
        };
        std::size_t token = 0, step = 0;
        for (const std::size_t end = i + members.size(); i < end; ++i) {
          Episode& e = episodes[i];
          const auto steps = static_cast<std::size_t>(e.steps);
          e.ref_logprobs = cut(ref_host, token, e.response.size());
          if (own_logprobs) e.policy_logprobs = cut(own_host, token, e.response.size());
          if (exact_kl) e.kl_exact = cut(kl_host, token, e.response.size());
          if (critic != Critic::None) e.values = cut(value_host, step, steps);
          token += e.response.size();
          step += steps;
        }
      });
}

/// NumericError naming the op if an evaluation is not finite: it would surface only later, as a
/// loss of NaN advantages. `again` repeats the evaluation.
template <class Again>
void require_finite(const std::vector<Episode>& episodes, Again again) {
  const auto finite = [](const std::vector<float>& values) {
    return std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); });
  };
  for (const Episode& e : episodes) {
    if (finite(e.logprobs) && finite(e.ref_logprobs) && finite(e.values)) continue;
    std::string what = "log-probabilities or values are not finite";
    try {
      const CheckFinite name_the_op;
      again();
    } catch (const NumericError& error) {
      what = error.what();
    }
    throw NumericError(str("evaluation: ", what));
  }
}

/// The score of each whole response, clipped, and penalised where it did not end.
inline void set_scores(std::vector<Episode>& episodes, const ScoreFunction& score_function,
                       const PpoConfig& config) {
  const auto scores = score_function(episodes);
  if (scores.size() != episodes.size())
    fail(str("[ppo] the score function gave ", scores.size(), " scores for ", episodes.size(),
             " episodes"));
  for (std::size_t i = 0; i < scores.size(); ++i) {
    float score = scores[i];
    if (!std::isfinite(score)) fail<NumericError>(str("the score of episode ", i, " is ", score));
    episodes[i].raw_score = score;
    if (config.score_clip > 0) score = std::clamp(score, -config.score_clip, config.score_clip);
    // DAPO's soft penalty: from 0 to 1 over the last tokens that a response may have.
    const auto beyond = static_cast<Index>(episodes[i].response.size()) + config.overlong -
                        config.sampling.max_new_tokens;
    if (config.overlong > 0 && beyond > 0)
      score -= static_cast<float>(beyond) / static_cast<float>(config.overlong);
    if (!episodes[i].finished && config.missing_eos_penalty != 0)
      score =
          (config.missing_eos == MissingEos::Subtract ? score : 0.0F) - config.missing_eos_penalty;
    episodes[i].score = score;
  }
}

/// Groups in which all scores are equal teach nothing where advantages are compared within one.
/// Counts them, and leaves them out if so configured; but if all agree, none, and only a divergence
/// in the loss is left to learn.
inline Metrics choose_groups(std::vector<Episode>& episodes, const PpoConfig& config) {
  const auto agrees = [](std::span<Episode> group) {
    return std::all_of(group.begin(), group.end(),
                       [&](const Episode& e) { return e.score == group[0].score; });
  };
  Index all = 0, agreeing = 0, left = 0;
  for_groups(episodes, [&](std::span<Episode> group) {
    ++all;
    agreeing += agrees(group) ? 1 : 0;
  });
  const bool drop = config.drop_agreeing && agreeing < all;
  std::vector<Episode> kept;
  for_groups(episodes, [&](std::span<Episode> group) {
    const bool full = config.keep_groups > 0 && left >= config.keep_groups;
    if (full || (drop && agrees(group))) return;
    ++left;
    std::move(group.begin(), group.end(), std::back_inserter(kept));
  });
  episodes = std::move(kept);
  return {{"group/agreeing", static_cast<double>(agreeing) / static_cast<double>(all)},
          {"group/kept", static_cast<double>(left)}};
}

namespace detail {
inline void whiten_all(std::vector<Episode>& episodes, std::vector<float> Episode::*field,
                       Whitening kind, bool shift_mean) {
  std::vector<float*> all;
  for (Episode& e : episodes)
    for (float& x : e.*field) all.push_back(&x);
  whiten(all, kind, shift_mean);
}
}  // namespace detail

/// 3. Rewards per token, advantages, returns. The metrics begin with objective/kl.
inline Metrics shape_rewards(std::vector<Episode>& episodes, const PpoConfig& config, float beta) {
  for (std::size_t i = 0; i < episodes.size(); ++i)
    if (episodes[i].response.empty() ||
        episodes[i].steps < static_cast<Index>(episodes[i].response.size()))
      fail<DataError>(str("[ppo] episode ", i, " has a response of ", episodes[i].response.size(),
                          " tokens and ", episodes[i].steps,
                          " steps; expected at least one token, and a step for each"));
  double kl = 0, kl3 = 0, exact = 0, gap = 0, gap2 = 0, entropy = 0, score = 0, penalty = 0;
  double tokens = 0, ended = 0;
  bool with_exact = true;
  for (Episode& e : episodes) {
    with_exact = with_exact && e.kl_exact.size() == e.response.size();
    e.rewards.assign(static_cast<std::size_t>(e.steps), 0.0F);
    double k1 = 0, full = 0;
    for (std::size_t t = 0; t < e.response.size(); ++t) {
      const float charge = -beta * kl_estimate(config.kl, e.logprobs[t], e.ref_logprobs[t]);
      if (config.kl_place == KlPlace::Reward) e.rewards[t] = charge;
      penalty += charge;
      k1 += kl_estimate(KlEstimator::K1, e.logprobs[t], e.ref_logprobs[t]);
      kl3 += kl_estimate(KlEstimator::K3, e.logprobs[t], e.ref_logprobs[t]);
      full += with_exact ? e.kl_exact[t] : 0.0F;
      entropy -= e.logprobs[t];
    }
    e.rewards.back() += e.score;
    kl += k1;
    exact += full;
    gap += k1 - full;
    gap2 += (k1 - full) * (k1 - full);
    score += e.score;
    tokens += static_cast<double>(e.response.size());
    ended += e.finished ? 1.0 : 0.0;
  }
  // Of the responses to a prompt, the share that are not the repetition of another.
  double distinct = 0;
  for_groups(episodes, [&](std::span<Episode> group) {
    std::set<Tokens> different;
    for (const Episode& e : group) different.insert(e.response);
    distinct += static_cast<double>(different.size());
  });
  detail::whiten_all(episodes, &Episode::rewards, config.whiten_rewards, false);
  const AdvantageMethod method =
      config.advantage.compute ? config.advantage : gae_advantages(config.gamma, config.lambda);
  method.compute(episodes);
  detail::whiten_all(episodes, &Episode::advantages, config.whiten_advantages, true);
  for (Episode& e : episodes)
    for (std::size_t t = 0; t < e.weights.size(); ++t) e.advantages[t] *= e.weights[t];

  const auto n = static_cast<double>(episodes.size());
  const double gap_se = std::sqrt(std::max(gap2 / n - gap / n * (gap / n), 0.0) / n);
  Metrics metrics{{"objective/kl", kl / n}, {"objective/kl_k3", kl3 / n}};
  if (with_exact)
    metrics.insert(metrics.end(), {{"objective/kl_exact", exact / n},
                                   {"objective/kl_gap_z", gap_se > 0 ? gap / n / gap_se : 0.0}});
  metrics.insert(metrics.end(), {{"objective/entropy", entropy / n},
                                 {"objective/non_score_reward", penalty / n},
                                 {"objective/scores", score / n},
                                 {"objective/rlhf_reward", (score + penalty) / n},
                                 {"objective/kl_coef", beta},
                                 {"val/num_eos_tokens", ended},
                                 {"response/length", tokens / n},
                                 {"response/distinct", distinct / n}});
  return metrics;
}

}}  // namespace plumb::v0_1
