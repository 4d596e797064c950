// The penalty that keeps a policy near its reference: estimators of KL(π‖π_ref) per token, and the
// controllers of its coefficient β. The estimators: math/kl.hpp.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/core/real.hpp>
#include <plumb/math/kl.hpp>

#include <algorithm>

namespace plumb { inline namespace v0_1 {

inline float kl_estimate(KlEstimator kind, float logprob, float ref_logprob) {
  const float x = logprob - ref_logprob;
  const double minus_x = static_cast<double>(ref_logprob) - logprob;
  switch (kind) {
    case KlEstimator::K2: return 0.5F * x * x;
    case KlEstimator::K3: return static_cast<float>(kl_k3(minus_x, real::exp(minus_x)));
    default: return x;
  }
}

/// β, fixed or adaptive (Ziegler et al. 2019, section 2.2): after each iteration
///   e = clip(KL / target − 1, −0.2, 0.2),   β ← β (1 + e · episodes / horizon)
/// with KL the mean over the batch of the KL summed over a response.
class KlController {
 public:
  /// target 0: fixed. `horizon` is counted in episodes.
  KlController(float beta, float target = 0.0F, float horizon = 10000.0F,
               Where where = Where::here())
      : beta_(beta), target_(target), horizon_(horizon) {
    check(beta >= 0 && target >= 0 && horizon > 0,
          "[kl] expected beta ≥ 0, target ≥ 0 and horizon > 0", where);
  }

  float beta() const { return beta_; }
  void set_beta(float beta) { beta_ = beta; }

  void update(float kl, Index episodes) {
    if (target_ <= 0) return;
    const float error = std::clamp(kl / target_ - 1.0F, -0.2F, 0.2F);
    beta_ *= 1.0F + error * static_cast<float>(episodes) / horizon_;
  }

 private:
  float beta_, target_, horizon_;
};

}}  // namespace plumb::v0_1
