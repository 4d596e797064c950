// What the methods of rlhf/group.hpp, and PPO, do in expectation: the update of an infinite batch
// of infinite groups, on policy, as coefficients of ∇ log π; the point at which it stands still;
// and, for responses of one token, that point in closed form. Written anew in double from the
// formulas, so that the trainers can be held to it. Not here: clipping, which first ratios of 1
// never meet; groups of finite size, whose own mean takes (G − 1)/G off what they learn.
#pragma once

#include <plumb/core/real.hpp>
#include <plumb/exact/responses.hpp>
#include <plumb/rlhf/group.hpp>

#include <cmath>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// Whether a method divides what it compares by its spread.
inline bool divides_by_spread(PolicyMethod method) {
  return method == PolicyMethod::Grpo || method == PolicyMethod::Dapo ||
         method == PolicyMethod::Gspo || method == PolicyMethod::Cispo ||
         method == PolicyMethod::ReinforcePlusPlusBaseline;
}

/// The expected update as coefficients c[y][t] of ∇ log π(y_t): what Responses::gradient makes a
/// gradient of. `reward` (R); `longest`: response, for Reduction::Constant.
inline PerToken expected_update(PolicyMethod method, const PpoConfig& config,
                                const Responses& policy, const Responses& reference,
                                std::span<const double> reward, Index longest) {
  const double beta = config.beta, mean = policy.mean(reward);
  const double spread = divides_by_spread(method) ? policy.deviation(reward) + 1e-4 : 1.0;
  const double mean_length = policy.mean_length();
  const bool to_come = method == PolicyMethod::Ppo || method == PolicyMethod::ReinforcePlusPlus;
  PerToken c(policy.size());
  for (std::size_t y = 0; y < policy.size(); ++y) {
    const std::size_t length = policy.responses[y].size();
    const double own = config.ratio == RatioOf::Sequence ? 1.0
                       : config.reduction == Reduction::Constant
                           ? 1.0 / static_cast<double>(longest)
                       : config.reduction == Reduction::Sequence ? 1.0 / static_cast<double>(length)
                                                                 : 1.0 / mean_length;
    const auto apart = [&](std::size_t t) {
      return policy.token_logprobs[y][t] - reference.token_logprobs[y][t];
    };
    double whole = 0;  // what the divergence costs, of all tokens or of those to come
    for (std::size_t t = 0; t < length; ++t) whole += apart(t);
    for (std::size_t t = 0; t < length; ++t) {
      double advantage = (reward[y] - mean) / spread;
      if (config.kl_place == KlPlace::Reward) advantage -= beta * whole;
      if (to_come) whole -= apart(t);
      double charge = 0;
      if (config.kl_place == KlPlace::Loss && beta > 0)
        charge = config.kl == KlEstimator::K1   ? 1.0
                 : config.kl == KlEstimator::K2 ? apart(t)
                                                : 1.0 - real::exp(-apart(t));
      const double share =
          config.ratio == RatioOf::Sequence ? 1.0 / static_cast<double>(length) : own;
      c[y].push_back(policy.probabilities[y] * (own * advantage - share * beta * charge));
    }
  }
  return c;
}

/// The gradient of J = E r − β KL(π‖π_ref) by the logits.
inline std::vector<double> objective_gradient(const Responses& policy, const Responses& reference,
                                              std::span<const double> reward, double beta) {
  PerToken c(policy.size());
  for (std::size_t y = 0; y < policy.size(); ++y)
    c[y].assign(policy.responses[y].size(),
                policy.probabilities[y] *
                    (reward[y] - beta * (policy.logprobs[y] - reference.logprobs[y])));
  return policy.gradient(c);
}

/// The policy at which the expected update is zero, from `start` on, by natural gradient steps: a
/// node's coefficients over how often it is reached. NumericError if it does not settle.
inline TableLogits standstill(PolicyMethod method, const PpoConfig& config, TableLogits start,
                              std::int32_t prompt, std::int32_t stop,
                              std::span<const double> reward, double step = 0.1) {
  const Responses reference(start, prompt, stop);
  const auto v = static_cast<std::size_t>(start.shape.vocab);
  for (int i = 0; i < 20000; ++i) {
    const Responses policy(start, prompt, stop);
    const PerToken c =
        expected_update(method, config, policy, reference, reward, start.shape.length);
    std::vector<double> sum(start.at.size()), reached(start.at.size());
    for (std::size_t y = 0; y < policy.size(); ++y)
      for (std::size_t t = 0; t < c[y].size(); ++t) {
        const std::size_t at = static_cast<std::size_t>(policy.nodes[y][t]) * v +
                               static_cast<std::size_t>(policy.responses[y][t]);
        sum[at] += c[y][t];
        reached[at] += policy.probabilities[y];
      }
    double most = 0;
    for (std::size_t row = 0; row < sum.size(); row += v) {
      double mean = 0, all = 0;  // of a node, which a common change of logits does not move
      for (std::size_t a = row; a < row + v; ++a) mean += sum[a], all += reached[a];
      if (all == 0) continue;
      for (std::size_t a = row; a < row + v; ++a) {
        const double change = step * (sum[a] / reached[a] - mean / all);
        if (!std::isfinite(change)) fail<NumericError>("[exact] the expected update diverges");
        start.at[a] += change;
        most = std::max(most, std::abs(change));
      }
    }
    if (most < 1e-14) return start;
  }
  fail<NumericError>("[exact] the expected update comes to no standstill");
}

/// Where the update of responses of one token stands still, in closed form. With k1 or k2 it is
/// π_ref e^(r/(βσ)), normalised, σ the spread of r there for methods that divide by it, else 1;
/// with k3, whose gradient on the policy's own samples is that of KL(π_ref‖π),
/// π_ref / (1 − (r/σ − λ)/β), λ by normalisation. From π_ref on, so the same one of several.
inline std::vector<double> closed_form(PolicyMethod method, const PpoConfig& config,
                                       std::span<const double> log_reference,
                                       std::span<const double> reward) {
  const double beta = config.beta;
  const bool k3 = config.kl == KlEstimator::K3 && config.kl_place == KlPlace::Loss;
  const auto at_spread = [&](double spread) {
    std::vector<double> scaled(reward.begin(), reward.end());
    for (double& r : scaled) r /= spread;
    if (!k3) return tilted(log_reference, scaled, beta);
    const auto weights = [&](double lambda) {
      std::vector<double> p;
      for (std::size_t y = 0; y < scaled.size(); ++y)
        p.push_back(real::exp(log_reference[y]) / (1.0 - (scaled[y] - lambda) / beta));
      return p;
    };
    double low = *std::max_element(scaled.begin(), scaled.end()) - beta, high = low + 1e6;
    for (int i = 0; i < 200; ++i) {
      const double middle = low + (high - low) / 2;
      double total = 0;
      for (const double p : weights(middle)) total += p;
      (total > 1 ? low : high) = middle;
    }
    return weights(high);
  };
  if (!divides_by_spread(method)) return at_spread(1.0);
  const auto spread_of = [&](const std::vector<double>& p) {
    return deviation_under(p, reward) + 1e-4;
  };
  std::vector<double> p;
  for (const double x : log_reference) p.push_back(real::exp(x));
  double spread = spread_of(p);
  for (int i = 0; i < 5000; ++i) spread += 0.1 * (spread_of(at_spread(spread)) - spread);
  return at_spread(spread);
}

}}  // namespace plumb::v0_1
