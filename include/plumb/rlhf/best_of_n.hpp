// Best of n: draw n responses, keep the one that scores highest. No training, and yet the bar that
// every method has to clear (Gao et al. 2023); fine-tuned on what it keeps, it is
// rejection-sampling fine-tuning (Touvron et al. 2023, section 3.2). Its law is known exactly: of
// n draws the best lies in the scores up to s with probability F(s)^n. Here: that law where
// responses can be enumerated, what n draws of more would give, and the bound on the divergence.
// Not here: sampling.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/core/real.hpp>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <numeric>
#include <span>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// log n − (n − 1)/n, nats: the divergence of the best of n where no two responses score alike and
/// none is likely, and never less than it is (Beirami et al. 2024).
inline double best_of_n_kl_bound(Index n) {
  const auto x = static_cast<double>(n);
  return real::log(x) - (x - 1) / x;
}

/// What the best of n draws is distributed as.
struct BestOfN {
  std::vector<double> probabilities;  ///< of each response
  double kl = 0;                      ///< from what was drawn from, nats
  double win_rate = 0;                ///< against one draw; equal scores count one half
};

/// The law of the best of n draws from `probabilities` by `scores`, both (R). Of draws that score
/// alike the first is kept. DataError unless n ≥ 1 and sizes agree.
inline BestOfN best_of_n_law(std::span<const double> probabilities, std::span<const double> scores,
                             Index n, Where where = Where::here()) {
  check<DataError>(n >= 1 && probabilities.size() == scores.size() && !scores.empty(),
                   "[best-of-n] expected n ≥ 1, and a score for each of at least one response",
                   where);
  std::vector<std::size_t> order(scores.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return scores[a] < scores[b]; });
  BestOfN law{std::vector<double>(scores.size()), 0, 0};
  double below = 0;  // probability of a lower score
  for (std::size_t first = 0; first < order.size();) {
    std::size_t end = first;
    double group = 0;
    for (; end < order.size() && scores[order[end]] == scores[order[first]]; ++end)
      group += probabilities[order[end]];
    const auto exponent = static_cast<double>(n);
    const double mass =
        real::pow(std::min(below + group, 1.0), exponent) - real::pow(below, exponent);
    for (std::size_t i = first; i < end; ++i) {
      const double p = probabilities[order[i]];
      if (group > 0) law.probabilities[order[i]] = mass * p / group;
    }
    if (mass > 0) law.kl += mass * real::log(mass / group);
    law.win_rate += mass * (below + group / 2);
    below += group;
    first = end;
  }
  return law;
}

/// The mean of the best of n draws, from K ≥ n draws' scores, without bias: the mean over all sets
/// of n of them. DataError unless 1 ≤ n ≤ K.
inline double best_of_n_mean(std::vector<double> scores, Index n, Where where = Where::here()) {
  const auto k = static_cast<Index>(scores.size());
  if (n < 1 || n > k)
    fail<DataError>(str("[best-of-n] the best of ", n, " from ", k, " scores; expected 1 ≤ n ≤ K"),
                    where);
  std::sort(scores.begin(), scores.end(), std::greater<>());
  // Of all sets of n, the share whose best is the i-th highest: C(K−1−i, n−1) / C(K, n).
  double share = static_cast<double>(n) / static_cast<double>(k), mean = 0;
  for (Index i = 0; i + n <= k; ++i) {
    mean += share * scores[static_cast<std::size_t>(i)];
    if (i + 1 < k) share *= static_cast<double>(k - n - i) / static_cast<double>(k - 1 - i);
  }
  return mean;
}

}}  // namespace plumb::v0_1
