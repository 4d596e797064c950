// AdamW in plain loops and double precision: the oracle of optimizer.hpp's tests, written after
// PyTorch's documentation rather than after the kernel. Not for use in a program.
#pragma once

#include <plumb/math/adamw.hpp>

#include <cmath>
#include <vector>

namespace plumb { inline namespace v0_1 {

namespace reference {

struct AdamWState {
  std::vector<double> parameter, m, v;
};

/// One step, with bias-corrected moments as in the paper.
inline void adamw_update(AdamWState& state, const float* grad, const AdamWStep& step) {
  const double beta1 = step.beta1, beta2 = step.beta2, t = static_cast<double>(step.step);
  const double correction1 = 1 - std::pow(beta1, t), correction2 = 1 - std::pow(beta2, t);
  for (std::size_t i = 0; i < state.parameter.size(); ++i) {
    const double g = double{grad[i]} * double{step.grad_scale};
    double& p = state.parameter[i];
    p -= double{step.lr} * double{step.weight_decay} * p;
    const double m = state.m[i] = beta1 * state.m[i] + (1 - beta1) * g;
    const double v = state.v[i] = beta2 * state.v[i] + (1 - beta2) * g * g;
    if (step.eps_inside)
      p -= double{step.lr} * std::sqrt(correction2) / correction1 * m /
           (std::sqrt(v) + double{step.eps});
    else
      p -= double{step.lr} * (m / correction1) / (std::sqrt(v / correction2) + double{step.eps});
  }
}

inline double sum_of_squares(const float* x, Index n) {
  double total = 0;
  for (Index i = 0; i < n; ++i) total += double{x[i]} * double{x[i]};
  return total;
}

}  // namespace reference
}}  // namespace plumb::v0_1
