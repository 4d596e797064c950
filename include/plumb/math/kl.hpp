// Estimators of KL(π‖π_ref) from a token a drawn from π, with x = log π(a) − log π_ref(a):
//   k1 = x             unbiased; negative for single tokens
//   k2 = x²/2          biased, low variance
//   k3 = e^{−x} − 1 + x  unbiased, never negative
// and k3's formula, one for the losses' kernels and the penalty's estimator. Source: Schulman,
// "Approximating KL divergence", joschu.net/blog/kl-approx.
#pragma once

#include <plumb/core/version.hpp>

#include <array>
#include <utility>

namespace plumb { inline namespace v0_1 {

enum class KlEstimator { K1, K2, K3 };
constexpr std::array<std::pair<const char*, KlEstimator>, 3> choices(KlEstimator) {
  return {{{"k1", KlEstimator::K1}, {"k2", KlEstimator::K2}, {"k3", KlEstimator::K3}}};
}

/// e^delta − 1 − delta, never negative; `ratio` is e^delta. Near 0, where the difference would
/// cancel, by its Taylor series (eight corrections: relative error below 1e-9 for |delta| < ½).
constexpr double kl_k3(double delta, double ratio) {
  if (delta > 0.5 || delta < -0.5) return ratio - 1.0 - delta;
  double series = 1.0;
  for (int k = 10; k > 2; --k) series = 1.0 + delta / k * series;
  return 0.5 * delta * delta * series;
}

}}  // namespace plumb::v0_1
