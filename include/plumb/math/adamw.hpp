// What one step of an optimizer multiplies by, for the kernels of every backend.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/core/real.hpp>

#include <cmath>

namespace plumb { inline namespace v0_1 {

/// One step of AdamW: see cpu/optimizer.hpp for the order of operations.
struct AdamWStep {
  float lr, beta1, beta2, eps, weight_decay;
  float grad_scale;  ///< clipping factor, multiplied into every gradient
  Index step;        ///< from 1
  bool eps_inside;   ///< false: PyTorch, eps added to √v̂; true: TensorFlow, eps added to √v
};

/// The constants of one step, as the kernel multiplies by them.
struct AdamWScalars {
  float grad_scale, minus_decay, one_minus_beta1, beta2, one_minus_beta2;
  float root_scale, eps, minus_step_size;
};

inline AdamWScalars adamw_scalars(const AdamWStep& step) {
  const double beta1 = step.beta1, beta2 = step.beta2, lr = step.lr;
  const double t = static_cast<double>(step.step);
  const double correction1 = 1.0 - real::pow(beta1, t);
  const double root_correction2 = std::sqrt(1.0 - real::pow(beta2, t));
  const double step_size = lr / correction1 * (step.eps_inside ? root_correction2 : 1.0);
  return {
      .grad_scale = step.grad_scale,
      .minus_decay = static_cast<float>(-lr * double{step.weight_decay}),
      .one_minus_beta1 = static_cast<float>(1.0 - beta1),
      .beta2 = step.beta2,
      .one_minus_beta2 = static_cast<float>(1.0 - beta2),
      .root_scale = step.eps_inside ? 1.0F : static_cast<float>(1.0 / root_correction2),
      .eps = step.eps,
      .minus_step_size = static_cast<float>(-step_size),
  };
}

/// One step of gradient descent with momentum: g += weight_decay · p; m = momentum · m + g;
/// p -= lr · m, or with Nesterov's lr · (momentum · m + g).
struct SgdStep {
  float lr, momentum, weight_decay, grad_scale;
  bool nesterov;
};

/// One step of Lion: p -= lr · (sign(m + (1-β1)(g - m)) + weight_decay · p); m += (1-β2)(g - m).
struct LionStep {
  float lr, one_minus_beta1, one_minus_beta2, minus_decay, grad_scale;
};

}}  // namespace plumb::v0_1
