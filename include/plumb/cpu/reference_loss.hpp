// Oracles of loss.hpp: the values of the losses as plain loops in double precision. For tests;
// their gradients are had by differences, and from PyTorch in tests/golden/losses.json.
#pragma once

#include <plumb/math/loss.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace plumb { inline namespace v0_1 { namespace reference {

inline double ppo_policy_loss(const double* logprob, const float* old_logprob,
                              const float* advantage, const float* weight, Index n,
                              const PpoClip& clip) {
  double loss = 0;
  for (Index i = 0; i < n; ++i) {
    const double a = advantage[i], limit = clip.log_ratio_limit;
    double delta = logprob[i] - static_cast<double>(old_logprob[i]);
    if (limit > 0) delta = std::clamp(delta, -limit, limit);
    const double ratio = std::exp(delta);
    const double near = std::clamp(ratio, 1.0 - static_cast<double>(clip.low),
                                   1.0 + static_cast<double>(clip.upper()));
    double term = std::max(-a * ratio, -a * near);
    if (clip.dual > 0.0F && a < 0) term = std::min(term, -static_cast<double>(clip.dual) * a);
    loss += static_cast<double>(weight[i]) * term;
  }
  return loss;
}

inline double ppo_value_loss(const double* value, const float* old_value, const float* returns,
                             const float* weight, Index n, double clip) {
  double loss = 0;
  for (Index i = 0; i < n; ++i) {
    const double v = value[i], r = returns[i];
    double term = (v - r) * (v - r);
    if (clip > 0) {
      const double old = old_value[i], near = std::clamp(v, old - clip, old + clip);
      term = std::max(term, (near - r) * (near - r));
    }
    loss += 0.5 * static_cast<double>(weight[i]) * term;
  }
  return loss;
}

/// −log σ(x).
inline double minus_log_sigmoid(double x) {
  return std::max(-x, 0.0) + std::log1p(std::exp(-std::abs(x)));
}

inline double bradley_terry(const double* s, const std::int32_t* rank, const float* level,
                            Index count, const RankingLoss& settings) {
  double loss = 0, pairs = 0;
  for (Index i = 0; i < count; ++i)
    for (Index j = 0; j < i; ++j) {
      if (rank[i] < 0 || rank[j] < 0) continue;
      pairs += 1;
      const double sign = rank[i] < rank[j] ? 1 : -1;
      const double d = sign * (s[i] - s[j]);
      double margin = settings.margin;
      if (level != nullptr) margin += sign * (static_cast<double>(level[i]) - level[j]);
      loss += rank[i] == rank[j] ? 0.5 * (minus_log_sigmoid(d) + minus_log_sigmoid(-d))
                                 : minus_log_sigmoid(d - margin);
      loss += static_cast<double>(settings.center) * (s[i] + s[j]) * (s[i] + s[j]);
    }
  return pairs > 0 ? loss / pairs : 0;
}

inline double plackett_luce(const double* s, const std::int32_t* rank, Index count,
                            const RankingLoss& settings) {
  const std::int32_t last = count > 0 ? *std::max_element(rank, rank + count) : -1;
  double loss = 0, members = 0, squares = 0, judged = 0;
  for (Index i = 0; i < count; ++i) {
    if (rank[i] < 0) continue;
    judged += 1;
    squares += s[i] * s[i];
    if (rank[i] == last) continue;
    members += 1;
    double total = 0;
    for (Index j = 0; j < count; ++j)
      if (rank[j] >= rank[i]) total += std::exp(s[j] - s[i]);
    loss += std::log(total);
  }
  return members > 0 ? loss / members + static_cast<double>(settings.center) * squares / judged : 0;
}

inline double ranking_loss(const double* score, const std::int32_t* rank, const float* level,
                           const std::int32_t* offsets, const float* weight, Index prompts,
                           const RankingLoss& settings) {
  double loss = 0;
  for (Index p = 0; p < prompts; ++p) {
    const Index first = offsets[p], count = offsets[p + 1] - first;
    loss += static_cast<double>(weight[p]) *
            (settings.kind == RankingLossKind::BradleyTerry
                 ? bradley_terry(score + first, rank + first,
                                 level == nullptr ? nullptr : level + first, count, settings)
                 : plackett_luce(score + first, rank + first, count, settings));
  }
  return loss;
}

}}}  // namespace plumb::v0_1::reference
