// Oracles of head.hpp and sampling.hpp: plain loops in double precision, the formulas as written.
// For tests; no order of reduction, no claim to speed.
#pragma once

#include <plumb/math/sampling.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace plumb { inline namespace v0_1 { namespace reference {

/// log softmax of scale · logits (V).
inline std::vector<double> log_softmax(const std::vector<double>& logits, double scale) {
  double top = scale * logits[0], total = 0;
  for (const double logit : logits) top = std::max(top, scale * logit);
  for (const double logit : logits) total += std::exp(scale * logit - top);
  std::vector<double> log_p;
  for (const double logit : logits) log_p.push_back(scale * logit - top - std::log(total));
  return log_p;
}

/// w·x of one row x (C) with w (V, C).
template <class X, class W>
std::vector<double> head_logits(const X* x, const W* w, Index c, Index v) {
  std::vector<double> logits;
  for (Index j = 0; j < v; ++j) {
    double sum = 0;
    for (Index k = 0; k < c; ++k)
      sum += static_cast<double>(x[k]) * static_cast<double>(w[j * c + k]);
    logits.push_back(sum);
  }
  return logits;
}

inline double entropy_of(const std::vector<double>& log_p) {
  double entropy = 0;
  for (const double l : log_p) entropy -= std::exp(l) * l;
  return entropy;
}

/// The gradient by logits of dlogprob · log p[target] + dentropy · entropy.
inline std::vector<double> head_dlogits(const std::vector<double>& log_p, Index target,
                                        double dlogprob, double dentropy, double scale) {
  const double entropy = entropy_of(log_p);
  std::vector<double> d;
  for (std::size_t j = 0; j < log_p.size(); ++j) {
    const double p = std::exp(log_p[j]);
    const double chosen = static_cast<Index>(j) == target ? 1.0 : 0.0;
    d.push_back(scale * (dlogprob * (chosen - p) - dentropy * p * (log_p[j] + entropy)));
  }
  return d;
}

inline double kl_divergence(const std::vector<double>& log_p, const std::vector<double>& log_q) {
  double kl = 0;
  for (std::size_t j = 0; j < log_p.size(); ++j) kl += std::exp(log_p[j]) * (log_p[j] - log_q[j]);
  return kl;
}

/// The probabilities that sampling draws with, filters applied: by a full sort.
inline std::vector<double> sampling_probabilities(const float* logits, Index v,
                                                  const SamplingSettings& settings) {
  std::vector<std::size_t> order;
  for (std::size_t j = 0; j < static_cast<std::size_t>(v); ++j) order.push_back(j);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
  if (settings.temperature == 0.0F)
    order.resize(1);
  else if (settings.top_k > 0 && settings.top_k < v)
    order.resize(static_cast<std::size_t>(settings.top_k));
  const double scale =
      settings.temperature == 0.0F ? 1.0 : 1.0 / static_cast<double>(settings.temperature);
  const auto weight = [&](std::size_t j) {
    return std::exp(scale *
                    (static_cast<double>(logits[j]) - static_cast<double>(logits[order[0]])));
  };
  double total = 0, mass = 0;
  for (const std::size_t j : order) total += weight(j);
  std::size_t kept = 0;
  while (kept < order.size() && (kept == 0 || mass < static_cast<double>(settings.top_p) * total))
    mass += weight(order[kept++]);
  if (settings.top_p >= 1.0F) kept = order.size(), mass = total;
  while (weight(order[kept - 1]) < static_cast<double>(settings.min_p))
    mass -= weight(order[--kept]);
  std::vector<double> p(static_cast<std::size_t>(v), 0.0);
  for (std::size_t i = 0; i < kept; ++i) p[order[i]] = weight(order[i]) / mass;
  return p;
}

}}}  // namespace plumb::v0_1::reference
