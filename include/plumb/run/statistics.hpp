// Small statistics for what a run reports: mean, standard deviation, and 95 % intervals of shares
// and means, of trials that are independent or that come in clusters.
//
// Pairs of one prompt are not independent: a model that is wrong about one response is wrong in
// every pair with it. So the unit that is drawn is the prompt, and the variance is that of the sums
// by prompt. Sources: E. B. Wilson 1927, "Probable inference, the law of succession, and
// statistical inference"; W. G. Cochran 1977, "Sampling techniques", 6.4 and 9 (the ratio estimator
// and its variance from cluster sums: the cluster-robust sandwich of a mean); N. Dean and M. Pagano
// 2015, "Evaluating confidence interval methods for binomial proportions in clustered surveys"
// (Wilson's interval at the effective sample size); J. L. Hodges and E. L. Lehmann 1963,
// "Estimates of location based on rank tests" (the intervals that belong to such tests). Sums run
// in double, in order. Not for tensors: those have kernels.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/core/real.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// Arithmetic mean; NaN of nothing.
inline double mean(std::span<const double> values) {
  double sum = 0.0;
  for (const double value : values) sum += value;
  return values.empty() ? std::numeric_limits<double>::quiet_NaN()
                        : sum / static_cast<double>(values.size());
}

/// Sample standard deviation (divisor n - 1); NaN of fewer than two values.
inline double standard_deviation(std::span<const double> values) {
  if (values.size() < 2) return std::numeric_limits<double>::quiet_NaN();
  const double centre = mean(values);
  double sum = 0.0;
  for (const double value : values) sum += (value - centre) * (value - centre);
  return std::sqrt(sum / static_cast<double>(values.size() - 1));
}

/// A closed interval.
struct Interval {
  double low;
  double high;
};

/// Wilson's score interval for a share of `successes` in n independent trials (ties may count ½);
/// z = 1.96 covers 95 %. Of no trials it is [0, 1].
inline Interval wilson_interval(double successes, double n, double z = 1.959963984540054) {
  if (!(successes >= 0.0 && successes <= n))
    fail(str("[wilson] expected 0 <= successes <= n; got ", successes, " of ", n));
  if (n == 0.0) return {0.0, 1.0};
  const double share = successes / n;
  const double scale = 1.0 + z * z / n;
  const double centre = (share + z * z / (2.0 * n)) / scale;
  const double half = z / scale * std::sqrt(share * (1.0 - share) / n + z * z / (4.0 * n * n));
  return {successes == 0.0 ? 0.0 : std::max(0.0, centre - half),  // rounding aside, it ends there
          successes == n ? 1.0 : std::min(1.0, centre + half)};
}

/// The t that |T| stays below with probability 0.95, by Student's distribution of whole degrees of
/// freedom; beyond 1000 the normal quantile, which is 0.1 % off at most. Infinite of none.
inline double student_t95(double degrees) {
  if (!(degrees >= 1.0)) return std::numeric_limits<double>::infinity();
  if (degrees > 1000.0) return 1.959963984540054;
  const int n = static_cast<int>(degrees);
  // P(|T| < sqrt(n) tan(angle)), Abramowitz and Stegun 26.7.3 and 26.7.4.
  const auto probability = [n](double angle) {
    const double c = real::cos(angle), s = real::sin(angle);
    double term = n % 2 == 1 ? c : 1.0, sum = n == 1 ? 0.0 : term;
    for (int k = n % 2 == 1 ? 3 : 2; k <= n - 2; k += 2) {
      term *= c * c * (k - 1) / k;
      sum += term;
    }
    return n % 2 == 1 ? 2.0 / 3.141592653589793 * (angle + s * sum) : s * sum;
  };
  double low = 0.0, high = 1.5707963267948966;
  for (int i = 0; i < 60; ++i)
    (probability((low + high) / 2) < 0.95 ? low : high) = (low + high) / 2;
  return std::sqrt(static_cast<double>(n)) * real::tan(low);
}

/// What one cluster (a prompt) adds: the sum of its outcomes, and how many there are.
struct ClusterSum {
  double sum = 0.0;
  double count = 0.0;
};

/// The mean of all outcomes, Σ sum / Σ count, and the variance of that ratio over the drawing of
/// clusters: G/(G − 1) · Σ (sum − mean · count)² / (Σ count)². NaN of fewer than two clusters.
struct ClusteredMean {
  double mean = std::numeric_limits<double>::quiet_NaN();
  double variance = std::numeric_limits<double>::quiet_NaN();
  double count = 0.0;
  double clusters = 0.0;  ///< that have an outcome
};

inline ClusteredMean clustered_mean(std::span<const ClusterSum> clusters) {
  ClusteredMean out;
  double sum = 0.0;
  for (const ClusterSum& c : clusters) {
    if (!(c.count >= 0.0) || !std::isfinite(c.sum))
      fail(str("[clustered] a cluster has ", c.count, " outcomes that add up to ", c.sum));
    out.clusters += c.count > 0.0 ? 1.0 : 0.0;
    out.count += c.count;
    sum += c.sum;
  }
  if (out.clusters < 1.0) return out;
  out.mean = sum / out.count;
  if (out.clusters < 2.0) return out;
  double squares = 0.0;
  for (const ClusterSum& c : clusters) {
    const double residual = c.sum - out.mean * c.count;
    squares += residual * residual;
  }
  out.variance = out.clusters / (out.clusters - 1.0) * squares / (out.count * out.count);
  return out;
}

/// 95 % interval of a mean of clustered outcomes: mean ± t(G − 1) · deviation. All numbers where
/// there are fewer than two clusters, since nothing then tells how clusters differ.
inline Interval clustered_mean_interval(std::span<const ClusterSum> clusters) {
  const ClusteredMean m = clustered_mean(clusters);
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (m.clusters < 2.0) return {-kInfinity, kInfinity};
  const double half = student_t95(m.clusters - 1.0) * std::sqrt(m.variance);
  return {m.mean - half, m.mean + half};
}

/// 95 % interval of a share of clustered outcomes between 0 and 1 (ties may count ½). Where every
/// cluster has one outcome it is Wilson's own; fewer than two clusters give [0, 1]. Otherwise it is
/// Wilson's with Student's quantile of G − 1, and the count divided by the design effect: the
/// variance above over that of independent outcomes, which is estimated as if half a cluster more
/// had been seen, one half of it won and one lost. Without that, few clusters with a share near 0
/// or 1 pass for alike when they only had no time to differ, and the interval misses too often;
/// with it, a share of 0 or 1 is worth about one outcome a cluster. The design effect counts as 1
/// at least: luck alone must not pass for more than was counted.
inline Interval clustered_share_interval(std::span<const ClusterSum> clusters) {
  double sum = 0.0, most = 0.0;
  for (const ClusterSum& c : clusters) {
    if (!(c.sum >= 0.0 && c.sum <= c.count + 1e-9))
      fail(str("[clustered] expected 0 <= sum <= count; got ", c.sum, " of ", c.count));
    sum += c.sum;
    most = std::max(most, c.count);
  }
  const ClusteredMean m = clustered_mean(clusters);
  if (most <= 1.0) return wilson_interval(std::min(sum, m.count), m.count);
  if (m.clusters < 2.0) return {0.0, 1.0};
  constexpr double kExtra = 0.25;  // clusters, won and as many lost
  const double size = m.count / m.clusters, count = m.count + 2.0 * kExtra * size;
  const double share = (sum + kExtra * size) / count, seen = m.clusters + 2.0 * kExtra;
  double squares = kExtra * size * size * (share * share + (1.0 - share) * (1.0 - share));
  for (const ClusterSum& c : clusters) {
    const double residual = c.sum - share * c.count;
    squares += residual * residual;
  }
  const double variance = seen / (seen - 1.0) * squares / (count * count);
  const double design = std::max(1.0, variance * count / (share * (1.0 - share)));
  const double worth = m.count / design;  // so many independent outcomes
  return wilson_interval(std::clamp(m.mean, 0.0, 1.0) * worth, worth,
                         student_t95(m.clusters - 1.0));
}

/// By how much one sample lies above another: the median of what its members say, and an interval
/// from ranks, which no outlier moves far. All numbers where there are too few samples for such a
/// confidence.
struct Shift {
  double estimate = std::numeric_limits<double>::quiet_NaN();
  Interval interval{-std::numeric_limits<double>::infinity(),
                    std::numeric_limits<double>::infinity()};
};

namespace detail {
/// The k-th smallest and largest of `all` enclose, where k is the most that a rank statistic with
/// `ways` ways to each value 0, 1, … stays below with a probability of (1 − confidence) / 2.
inline Shift shift_of(std::vector<double> all, const std::vector<double>& ways, double confidence) {
  Shift shift;
  if (all.empty()) return shift;
  std::sort(all.begin(), all.end());
  const std::size_t n = all.size();
  shift.estimate = (all[(n - 1) / 2] + all[n / 2]) / 2;
  double total = 0.0, below = 0.0;
  for (const double w : ways) total += w;
  std::size_t k = 0;
  while (k < n / 2 && (below += ways[k]) <= total * (1.0 - confidence) / 2) ++k;
  if (k > 0) shift.interval = {all[k - 1], all[n - k]};
  return shift;
}
}  // namespace detail

/// Of paired differences: their median, and the sign test, whose distribution is the binomial one.
/// Nothing is supposed of their shape; where some pairs were disturbed this interval is shorter
/// than the one by signed ranks.
inline Shift sign_shift(std::span<const double> differences, double confidence) {
  std::vector<double> ways{1.0};
  for (std::size_t i = 0; i < differences.size(); ++i) {
    ways.push_back(0.0);
    for (std::size_t k = ways.size(); k-- > 1;) ways[k] += ways[k - 1];
  }
  return detail::shift_of({differences.begin(), differences.end()}, ways, confidence);
}

/// Of two independent samples, b's above a's: all differences, and the rank-sum statistic of
/// Wilcoxon, Mann and Whitney, whose distribution is exact.
inline Shift rank_sum_shift(std::span<const double> a, std::span<const double> b,
                            double confidence) {
  std::vector<double> differences;
  for (const double y : b)
    for (const double x : a) differences.push_back(y - x);
  // Ways of b to be above u of a, member by member: the Gaussian binomial coefficient, as the
  // product of (1 − q^(m + i)) / (1 − q^i).
  const std::size_t m = a.size(), most = m * b.size();
  std::vector<double> ways(most + 1, 0.0);
  ways[0] = 1.0;
  for (std::size_t i = 1; i <= b.size(); ++i) {
    for (std::size_t u = most + 1; u-- > m + i;) ways[u] -= ways[u - m - i];
    for (std::size_t u = i; u <= most; ++u) ways[u] += ways[u - i];
  }
  return detail::shift_of(std::move(differences), ways, confidence);
}

}}  // namespace plumb::v0_1
