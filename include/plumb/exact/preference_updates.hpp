// What the methods of rlhf/preference.hpp do with rankings without end: the loss of every pair of
// responses of one token, weighted by how often one is preferred to the other, its derivative, and
// the policy at which it is least; in closed form where there is one. Written anew in double from
// the formulas. Not here: Plackett–Luce of K > 2, whose least point on Plackett–Luce rankings is
// DPO's.
#pragma once

#include <plumb/core/real.hpp>
#include <plumb/exact/responses.hpp>
#include <plumb/rlhf/preference.hpp>

#include <cmath>
#include <span>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// How often each response is preferred to each other, (R)(R).
using WinRates = std::vector<std::vector<double>>;

/// Bradley–Terry with these rewards, a share `flipped` of the answers turned round.
inline WinRates win_rates(std::span<const double> reward, double flipped = 0) {
  WinRates win(reward.size(), std::vector<double>(reward.size(), 0.5));
  for (std::size_t i = 0; i < reward.size(); ++i)
    for (std::size_t j = 0; j < reward.size(); ++j) {
      const double p = 1.0 / (1.0 + real::exp(reward[j] - reward[i]));
      win[i][j] = (1 - flipped) * p + flipped * (1 - p);
    }
  return win;
}

namespace detail {
inline double exact_sigmoid(double x) { return 1.0 / (1.0 + real::exp(-x)); }

// The derivative of a pair's loss by d = score of the better − score of the worse.
inline double exact_pair_slope(const PreferenceConfig& c, double d) {
  const double e = c.smoothing;
  const auto slope = [](double x) { return -exact_sigmoid(-x); };  // of −log σ(x)
  switch (c.method) {
    case PreferenceMethod::Ipo: return 2 * (d - 1.0 / (2.0 * static_cast<double>(c.beta)));
    case PreferenceMethod::Hinge: return d < 1 ? -1.0 : 0.0;
    case PreferenceMethod::SimPo: return slope(d - static_cast<double>(c.margin));
    case PreferenceMethod::Robust: return ((1 - e) * slope(d) + e * slope(-d)) / (1 - 2 * e);
    default: return (1 - e) * slope(d) - e * slope(-d);
  }
}
}  // namespace detail

/// The derivative of the mean loss by each response's log π, π normalised. `log_policy`,
/// `log_reference` (R): of responses of one token, drawn into pairs alike.
inline std::vector<double> preference_slopes(const PreferenceConfig& c,
                                             std::span<const double> log_policy,
                                             std::span<const double> log_reference,
                                             const WinRates& win) {
  const std::size_t n = log_policy.size();
  const double beta = c.beta, pairs = static_cast<double>(n * (n - 1));
  const double factor = c.method == PreferenceMethod::Ipo ? 1.0 : beta;
  std::vector<double> score(n), score_slope(n, factor), slopes(n);
  double mean_score = 0;
  for (std::size_t i = 0; i < n; ++i) {
    score[i] = factor * (log_policy[i] - (c.needs_reference() ? log_reference[i] : 0.0));
    mean_score += score[i] / static_cast<double>(n);
    if (c.method != PreferenceMethod::Orpo) continue;
    const double rest = -real::expm1(log_policy[i]);
    score[i] = log_policy[i] - real::log(rest);
    score_slope[i] = 1.0 / rest;
  }
  const double z = std::max(mean_score, 0.0);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < n; ++j) {
      if (i == j) continue;
      const double share = 2 * win[i][j] / pairs;  // of all pairs, those in which i beats j
      if (c.method == PreferenceMethod::Kto) {
        const double good = detail::exact_sigmoid(score[i] - z);
        const double bad = detail::exact_sigmoid(z - score[j]);
        slopes[i] -= share / 2 * static_cast<double>(c.wanted) * good * (1 - good) * score_slope[i];
        slopes[j] += share / 2 * static_cast<double>(c.unwanted) * bad * (1 - bad) * score_slope[j];
        continue;
      }
      const double weight = c.method == PreferenceMethod::Orpo ? share * beta : share;
      const double slope = weight * detail::exact_pair_slope(c, score[i] - score[j]);
      slopes[i] += slope * score_slope[i];
      slopes[j] -= slope * score_slope[j];
      const double imitate = c.method == PreferenceMethod::Orpo && c.imitate == 0
                                 ? 1.0
                                 : static_cast<double>(c.imitate);
      slopes[i] -= share * imitate;
    }
  return slopes;
}

/// The policy over responses of one token at which the mean loss is least, by gradient descent from
/// the reference in `steps` steps: to rounding where the loss is smooth and has a least point.
inline std::vector<double> least_preference_loss(const PreferenceConfig& c,
                                                 std::span<const double> log_reference,
                                                 const WinRates& win, int steps = 200000) {
  const std::size_t n = log_reference.size();
  std::vector<double> logits(log_reference.begin(), log_reference.end()), last;
  const auto gradient = [&](const std::vector<double>& at, std::vector<double>& p) {
    p = normalised(at);
    std::vector<double> logs;
    for (const double x : p) logs.push_back(real::log(x));
    auto g = preference_slopes(c, logs, log_reference, win);
    double total = 0;
    for (const double x : g) total += x;
    for (std::size_t i = 0; i < n; ++i) g[i] -= p[i] * total;
    return g;
  };
  const auto size = [](const std::vector<double>& g) {
    double sum = 0;
    for (const double x : g) sum += x * x;
    return std::sqrt(sum);
  };
  const bool smooth = c.method != PreferenceMethod::Hinge;
  std::vector<double> p, g = gradient(logits, p), mean(n);
  double step = 1;
  for (int i = 0; i < steps && size(g) > 1e-15; ++i) {
    std::vector<double> next = logits, next_p;
    if (!smooth) step = 20.0 / std::sqrt(i + 1.0);
    for (std::size_t a = 0; a < n; ++a) next[a] -= step * g[a];
    auto next_g = gradient(next, next_p);
    if (smooth && size(next_g) > size(g)) {
      step /= 2;
      continue;
    }
    step *= 1.1;
    logits = std::move(next), g = std::move(next_g), p = std::move(next_p);
    if (!smooth && i >= steps / 2)  // a kink is found by the mean of the steps around it
      for (std::size_t a = 0; a < n; ++a) mean[a] += logits[a] / (steps - steps / 2);
  }
  return smooth ? p : normalised(mean);
}

/// The same in closed form: of DPO and Plackett–Luce on rankings that follow `reward`, and of their
/// robust form on flipped ones, π_ref e^(r/β); of IPO π_ref e^(E p(y ≻ y')/β), y' drawn alike (Azar
/// et al. 2023); of SimPO without a margin e^(r/β). None (empty) for the others.
inline std::vector<double> closed_form(const PreferenceConfig& c,
                                       std::span<const double> log_reference,
                                       std::span<const double> reward, const WinRates& win) {
  switch (c.method) {
    case PreferenceMethod::Dpo:
      if (c.smoothing > 0) return {};
      [[fallthrough]];
    case PreferenceMethod::PlackettLuce:
    case PreferenceMethod::Robust:
      return tilted(log_reference, reward, static_cast<double>(c.beta));
    case PreferenceMethod::Ipo: {
      std::vector<double> mean(reward.size());
      for (std::size_t i = 0; i < mean.size(); ++i)
        for (const double p : win[i]) mean[i] += p / static_cast<double>(mean.size());
      return tilted(log_reference, mean, static_cast<double>(c.beta));
    }
    case PreferenceMethod::SimPo:
      if (c.margin != 0) return {};
      return tilted(std::vector<double>(reward.size()), reward, static_cast<double>(c.beta));
    default: return {};
  }
}

}}  // namespace plumb::v0_1
