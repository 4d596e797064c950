// Small statistics for what a run reports: mean, standard deviation, the Wilson interval.
//
// Sources: E. B. Wilson 1927, "Probable inference, the law of succession, and statistical inference".
// Sums run in double, in order. Not for tensors: those have kernels.
#pragma once

#include <plumb/core/check.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

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
  return {std::max(0.0, centre - half), std::min(1.0, centre + half)};
}

}}  // namespace plumb::v0_1
