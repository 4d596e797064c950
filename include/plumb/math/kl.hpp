// Schulman's k3, one formula for the losses' kernels and the penalty's estimator.
// Source: Schulman, "Approximating KL divergence", joschu.net/blog/kl-approx.
#pragma once

#include <plumb/core/version.hpp>

namespace plumb { inline namespace v0_1 {

/// e^delta − 1 − delta, never negative; `ratio` is e^delta. Near 0, where the difference would
/// cancel, by its Taylor series (eight corrections: relative error below 1e-9 for |delta| < ½).
constexpr double kl_k3(double delta, double ratio) {
  if (delta > 0.5 || delta < -0.5) return ratio - 1.0 - delta;
  double series = 1.0;
  for (int k = 10; k > 2; --k) series = 1.0 + delta / k * series;
  return 0.5 * delta * delta * series;
}

}}  // namespace plumb::v0_1
