// Which of several alternatives was chosen, as a log-linear model: P(a) ∝ exp(x_a·β), features x_a
// known, β fitted by maximum likelihood (McFadden 1974, "Conditional logit analysis of qualitative
// choice behavior"). Ratings by Bradley and Terry, Plackett and Luce, and Davidson are this with
// features of 0, 1 and ½ (rlhf/ratings.hpp); what answers lean on, with features of texts
// (data/habits.hpp).
//
// Newton's method on the exact likelihood, which is concave, in double, sums in the order of the
// choices; a step is halved until the likelihood does not fall. Covariances are those of the model,
// the inverse of the observed information H, and the sandwich H⁻¹ (G/(G−1) Σ s_g s_gᵀ) H⁻¹ of the
// scores s_g summed by cluster (Huber 1967; Liang and Zeger 1986), which holds also where choices
// of one cluster are alike. Not here: tensors and kernels; parameters by the thousand, since
// matrices are dense.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/core/real.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// A square matrix of doubles, (n, n), row after row.
struct SquareMatrix {
  std::size_t n = 0;
  std::vector<double> values{};
  explicit SquareMatrix(std::size_t size = 0) : n(size), values(size * size) {}
  double& operator()(std::size_t i, std::size_t j) { return values[i * n + j]; }
  double operator()(std::size_t i, std::size_t j) const { return values[i * n + j]; }
};

/// The lower factor L of a = L·Lᵀ in a's lower half; false if `a` is not positive definite.
inline bool cholesky(SquareMatrix& a) {
  for (std::size_t j = 0; j < a.n; ++j) {
    const double diagonal = a(j, j);
    for (std::size_t k = 0; k < j; ++k) a(j, j) -= a(j, k) * a(j, k);
    if (!(a(j, j) > 1e-14 * diagonal)) return false;
    a(j, j) = std::sqrt(a(j, j));
    for (std::size_t i = j + 1; i < a.n; ++i) {
      for (std::size_t k = 0; k < j; ++k) a(i, j) -= a(i, k) * a(j, k);
      a(i, j) /= a(j, j);
    }
  }
  return true;
}

/// x = (L·Lᵀ)⁻¹ b.
inline std::vector<double> cholesky_solve(const SquareMatrix& factor, std::vector<double> b) {
  for (std::size_t i = 0; i < factor.n; ++i) {
    for (std::size_t k = 0; k < i; ++k) b[i] -= factor(i, k) * b[k];
    b[i] /= factor(i, i);
  }
  for (std::size_t i = factor.n; i-- > 0;) {
    for (std::size_t k = i + 1; k < factor.n; ++k) b[i] -= factor(k, i) * b[k];
    b[i] /= factor(i, i);
  }
  return b;
}

/// A feature of an alternative that is not 0: of which parameter, and how much of it.
struct FeatureTerm {
  std::size_t parameter;
  double value;
};

/// Choices that were made. Each has alternatives, of which one was chosen, or several in shares.
class Choices {
 public:
  explicit Choices(std::size_t parameters) : parameters_(parameters) {}

  /// Begins a choice: what it counts, and the cluster that it belongs to, numbered from 0.
  void add(std::size_t cluster, double weight = 1.0) {
    weight_.push_back(weight);
    cluster_.push_back(cluster);
    last_.push_back(alternatives());
  }
  /// An alternative of the choice begun last; `chosen`: 1 or 0, or a share.
  void alternative(double chosen, std::span<const FeatureTerm> features) {
    for (const FeatureTerm& f : features)
      if (f.parameter >= parameters_)
        fail(str("[choices] a feature of parameter ", f.parameter, " of ", parameters_));
    chosen_.push_back(chosen);
    features_.insert(features_.end(), features.begin(), features.end());
    end_.push_back(features_.size());
    last_.back() = alternatives();
  }

  std::size_t parameters() const { return parameters_; }
  std::size_t size() const { return weight_.size(); }
  std::size_t alternatives() const { return chosen_.size(); }
  std::size_t cluster(std::size_t choice) const { return cluster_[choice]; }
  std::size_t clusters() const {
    return cluster_.empty() ? 0 : 1 + *std::max_element(cluster_.begin(), cluster_.end());
  }
  /// −log-likelihood of one choice at β = `at`, and its slope, p − chosen of each alternative,
  /// by `times` and its weight, to visit(alternative, slope, probability).
  template <class Visit>
  double term(std::size_t choice, double times, std::span<const double> at, Visit&& visit) const {
    const std::size_t begin = choice == 0 ? 0 : last_[choice - 1], end = last_[choice];
    const double weight = times * weight_[choice];
    if (weight == 0.0 || begin == end) return 0.0;
    double top = -std::numeric_limits<double>::infinity(), total = 0.0, chosen = 0.0, mean = 0.0;
    std::vector<double>& score = score_;
    score.resize(end - begin);
    for (std::size_t a = begin; a < end; ++a) {
      double sum = 0.0;
      for (const FeatureTerm& f : features(a)) sum += f.value * at[f.parameter];
      score[a - begin] = sum;
      top = std::max(top, sum);
      mean += chosen_[a] * sum;
      chosen += chosen_[a];
    }
    for (double& s : score) total += s = real::exp(s - top);
    for (std::size_t a = begin; a < end; ++a) {
      const double p = score[a - begin] / total;
      visit(a, weight * (chosen * p - chosen_[a]), weight * chosen * p);
    }
    return weight * (chosen * (top + real::log(total)) - mean);
  }
  std::span<const FeatureTerm> features(std::size_t alternative) const {
    const std::size_t begin = alternative == 0 ? 0 : end_[alternative - 1];
    return {features_.data() + begin, end_[alternative] - begin};
  }
  double weight(std::size_t choice) const { return weight_[choice]; }

 private:
  std::size_t parameters_;
  std::vector<double> weight_, chosen_;
  std::vector<std::size_t> cluster_, last_, end_;
  std::vector<FeatureTerm> features_;
  mutable std::vector<double> score_;  // of one choice; a Choices is one thread's
};

/// What is added to the negative log-likelihood.
struct ChoicePrior {
  double ridge = 0.0;    ///< ½ ridge · Σ β², but of the last `free` parameters
  std::size_t tied = 0;  ///< the sum of the first so many parameters, which no choice shows, is 0
  std::size_t free = 0;
};

/// Parameters as they were fitted.
struct ChoiceFit {
  std::vector<double> at;  ///< β
  double nll = 0.0;        ///< −log-likelihood there, the prior apart
  bool converged = false;  ///< false: the likelihood has no maximum that could be found
  SquareMatrix inverse;    ///< of the observed information, the prior's included

  double variance(std::size_t i) const { return inverse(i, i); }
};

namespace detail {

struct ChoiceSums {
  double nll = 0.0, objective = 0.0;
  std::vector<double> gradient;
  SquareMatrix hessian;
};

inline ChoiceSums choice_sums(const Choices& choices, std::span<const double> times,
                              const ChoicePrior& prior, std::span<const double> at, bool slopes) {
  const std::size_t n = choices.parameters();
  ChoiceSums out{0.0, 0.0, std::vector<double>(n), SquareMatrix(slopes ? n : 0)};
  std::vector<double> mean(n);
  std::vector<std::size_t> touched;
  double total = 0.0;
  for (std::size_t c = 0; c < choices.size(); ++c) {
    const double often = times.empty() ? 1.0 : times[c], weight = often * choices.weight(c);
    total += weight;
    touched.clear();
    double chosen = 0.0;
    out.nll += choices.term(c, often, at, [&](std::size_t a, double slope, double mass) {
      if (!slopes) return;
      chosen += mass;
      const auto features = choices.features(a);
      for (const FeatureTerm& f : features) {
        out.gradient[f.parameter] += slope * f.value;
        mean[f.parameter] += mass * f.value;
        touched.push_back(f.parameter);
        for (const FeatureTerm& g : features)
          out.hessian(f.parameter, g.parameter) += mass * f.value * g.value;
      }
    });
    if (!(chosen > 0.0)) continue;
    std::sort(touched.begin(), touched.end());
    touched.erase(std::unique(touched.begin(), touched.end()), touched.end());
    for (const std::size_t i : touched)
      for (const std::size_t j : touched) out.hessian(i, j) -= mean[i] * mean[j] / chosen;
    for (const std::size_t i : touched) mean[i] = 0.0;
  }
  out.objective = out.nll;
  double sum = 0.0;
  const double stiffness = std::max(total, 1.0) / static_cast<double>(std::max<std::size_t>(n, 1));
  for (std::size_t i = 0; i < prior.tied; ++i) sum += at[i];
  for (std::size_t i = 0; i < n; ++i) {
    const double ridge = i + prior.free < n ? prior.ridge : 0.0;
    out.objective += 0.5 * ridge * at[i] * at[i];
    out.gradient[i] += ridge * at[i] + (i < prior.tied ? stiffness * sum : 0.0);
    if (slopes) out.hessian(i, i) += ridge;
  }
  out.objective += 0.5 * stiffness * sum * sum;
  if (slopes)
    for (std::size_t i = 0; i < prior.tied; ++i)
      for (std::size_t j = 0; j < prior.tied; ++j) out.hessian(i, j) += stiffness;
  return out;
}

}  // namespace detail

/// Fits β to the choices, each taken `times` so often (empty: once), beginning at `start` (empty:
/// 0). Not converged where no maximum exists: a feature that decides every choice, without a ridge,
/// runs off to infinity.
inline ChoiceFit fit_choices(const Choices& choices, const ChoicePrior& prior = {},
                             std::span<const double> times = {}, std::vector<double> start = {},
                             Where where = Where::here()) {
  const std::size_t n = choices.parameters();
  if ((!times.empty() && times.size() != choices.size()) || prior.tied > n)
    fail(str("[choices] ", times.size(), " weights for ", choices.size(), " choices, ", prior.tied,
             " tied of ", n, " parameters"),
         where);
  ChoiceFit fit;
  fit.at = start.empty() ? std::vector<double>(n) : std::move(start);
  for (int iteration = 0; iteration < 60; ++iteration) {
    detail::ChoiceSums sums = detail::choice_sums(choices, times, prior, fit.at, true);
    fit.nll = sums.nll;
    if (!cholesky(sums.hessian)) return fit;
    const std::vector<double> step = cholesky_solve(sums.hessian, sums.gradient);
    double longest = 0.0, size = 1.0;
    for (std::size_t i = 0; i < n; ++i) {
      longest = std::max(longest, std::abs(step[i]));
      size = std::max(size, std::abs(fit.at[i]));
    }
    std::vector<double> next = fit.at;
    for (double share = 1.0; longest > 1e-6 && share > 1e-9; share /= 2) {
      for (std::size_t i = 0; i < n; ++i) next[i] = fit.at[i] - share * step[i];
      // Near the maximum the difference is less than the rounding of the sums.
      if (detail::choice_sums(choices, times, prior, next, false).objective <=
          sums.objective + 1e-12 * (1.0 + std::abs(sums.objective)))
        break;
    }
    if (longest <= 1e-6)
      for (std::size_t i = 0; i < n; ++i) next[i] = fit.at[i] - step[i];
    fit.at = next;
    if (longest > 1e-9 * size) continue;
    fit.converged = true;
    fit.inverse = SquareMatrix(n);
    for (std::size_t j = 0; j < n; ++j) {
      std::vector<double> unit(n);
      unit[j] = 1.0;
      const std::vector<double> column = cholesky_solve(sums.hessian, std::move(unit));
      for (std::size_t i = 0; i < n; ++i) fit.inverse(i, j) = column[i];
    }
    return fit;
  }
  return fit;
}

/// How each choice pulls at the parameters: the scores s = −∂nll/∂β, summed by cluster, (G, n).
inline std::vector<std::vector<double>> cluster_scores(const Choices& choices,
                                                       std::span<const double> at) {
  std::vector<std::vector<double>> scores(choices.clusters(),
                                          std::vector<double>(choices.parameters()));
  for (std::size_t c = 0; c < choices.size(); ++c)
    choices.term(c, 1.0, at, [&](std::size_t a, double slope, double) {
      for (const FeatureTerm& f : choices.features(a))
        scores[choices.cluster(c)][f.parameter] -= slope * f.value;
    });
  return scores;
}

/// The covariance of the parameters over the drawing of clusters. NaN of fewer than two clusters.
inline SquareMatrix sandwich_covariance(const Choices& choices, const ChoiceFit& fit) {
  const std::size_t n = choices.parameters();
  const auto scores = cluster_scores(choices, fit.at);
  std::vector<bool> seen(scores.size());
  for (std::size_t c = 0; c < choices.size(); ++c) seen[choices.cluster(c)] = true;
  const auto groups = static_cast<double>(std::count(seen.begin(), seen.end(), true));
  const double scale =
      groups < 2.0 ? std::numeric_limits<double>::quiet_NaN() : groups / (groups - 1.0);
  SquareMatrix out(n);
  for (const std::vector<double>& score : scores) {
    std::vector<double> pull(n);
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = 0; j < n; ++j) pull[i] += fit.inverse(i, j) * score[j];
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = 0; j < n; ++j) out(i, j) += scale * pull[i] * pull[j];
  }
  return out;
}

}}  // namespace plumb::v0_1
