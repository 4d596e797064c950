// Rollouts that were not drawn from the policy that is trained: from weights in fewer bits or of an
// earlier iteration, through a filter, out of a cache of bf16. A sample from μ stands for one from
// π if what it teaches is weighted π/μ; here the policy's own log-probs are computed anew, and an
// advantage is multiplied by the weight, by which the clipped loss then scales (it is homogeneous
// in the advantage where that keeps its sign).
//
//   none               the log-probs recorded when sampling are the ratio's denominator
//   recompute          the policy's own are, and the mismatch is passed over
//   token-truncate     and a token weighs min(π/μ, cap)
//   token-mask         and a token weighs π/μ, or nothing beyond cap
//   sequence-truncate  and a response's tokens weigh min(Π π/μ, cap)
//   sequence-mask      and a response's tokens weigh Π π/μ, or nothing beyond cap
//
// By sequence and without a cap the gradient is that of samples from π, with a variance that grows
// with the length; by token it is not: a token's weight says nothing of the tokens before it.
// Sources: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL
// training" (truncated); Liu et al. 2025, "When speed kills stability" (masked, and by sequence);
// names and metrics as in TRL, whose cap is 3, where theirs is 2. Not here: a mask below, too
// (IcePop); weights in a value loss, whose targets are of the responses that came.
#pragma once

#include <plumb/core/real.hpp>
#include <plumb/rlhf/ppo_config.hpp>

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// Gives every episode the weights that the settings name, and its log-probs as the policy has
/// them; says how far the sampler was from the policy: means over tokens of |log π − log μ| and of
/// KL(μ‖π) by k3; the least, mean and largest weight of tokens, or of responses, and the share of
/// them beyond the cap. Episodes have policy_logprobs.
inline Metrics correct_mismatch(std::span<Episode> episodes, const PpoConfig& config) {
  const bool mask =
      config.correction == Correction::TokenMask || config.correction == Correction::SequenceMask;
  const double cap = config.correction_cap;
  double tokens = 0, apart = 0, most = 0, kl = 0, weights = 0, least = HUGE_VAL, largest = 0;
  double weighed = 0, beyond = 0;
  const auto weight_of = [&](double log_ratio) {
    const double ratio = real::exp(log_ratio);
    weighed += 1;
    beyond += ratio > cap ? 1 : 0;
    const double weight = ratio <= cap ? ratio : mask ? 0.0 : cap;
    weights += weight;
    least = std::min(least, weight);
    largest = std::max(largest, weight);
    return static_cast<float>(weight);
  };
  for (Episode& e : episodes) {
    double sum = 0;
    std::vector<float> weight(e.response.size(), 1.0F);
    for (std::size_t t = 0; t < e.response.size(); ++t) {
      const double x = static_cast<double>(e.policy_logprobs[t]) - e.logprobs[t];
      sum += x;
      tokens += 1;
      apart += std::abs(x);
      most = std::max(most, std::abs(x));
      kl += real::expm1(x) - x;
      if (by_token(config.correction)) weight[t] = weight_of(x);
    }
    if (!by_token(config.correction)) weight.assign(weight.size(), weight_of(sum));
    if (config.correction == Correction::None) continue;
    e.logprobs = e.policy_logprobs;
    if (config.correction != Correction::Recompute) e.weights = std::move(weight);
  }
  return {{"sampling/sampling_logp_difference/mean", apart / tokens},
          {"sampling/sampling_logp_difference/max", most},
          {"sampling/kl", kl / tokens},
          {"sampling/importance_sampling_ratio/min", least},
          {"sampling/importance_sampling_ratio/mean", weights / weighed},
          {"sampling/importance_sampling_ratio/max", largest},
          {"sampling/beyond_cap", beyond / weighed}};
}

}}  // namespace plumb::v0_1
