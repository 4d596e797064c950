// Optimizers in plain loops and double precision: the oracle of optimizer.hpp's tests, written
// after PyTorch's documentation and Lion's paper, not after the kernels. Not for use in a program.
#pragma once

#include <plumb/math/adamw.hpp>

#include <cmath>
#include <vector>

namespace plumb { inline namespace v0_1 {

namespace reference {

struct AdamWState {
  std::vector<double> parameter, m, v;
};

/// One step of one parameter, with bias-corrected moments as in the paper.
inline void adamw_element(double& p, double& moment, double& square, double grad,
                          const AdamWStep& step) {
  const double beta1 = step.beta1, beta2 = step.beta2, t = static_cast<double>(step.step);
  const double correction1 = 1 - std::pow(beta1, t), correction2 = 1 - std::pow(beta2, t);
  const double g = grad * double{step.grad_scale};
  p -= double{step.lr} * double{step.weight_decay} * p;
  const double m = moment = beta1 * moment + (1 - beta1) * g;
  const double v = square = beta2 * square + (1 - beta2) * g * g;
  if (step.eps_inside)
    p -= double{step.lr} * std::sqrt(correction2) / correction1 * m /
         (std::sqrt(v) + double{step.eps});
  else
    p -= double{step.lr} * (m / correction1) / (std::sqrt(v / correction2) + double{step.eps});
}
inline void adamw_update(AdamWState& state, const float* grad, const AdamWStep& step) {
  for (std::size_t i = 0; i < state.parameter.size(); ++i)
    adamw_element(state.parameter[i], state.m[i], state.v[i], double{grad[i]}, step);
}

/// Gradient descent with momentum (no dampening), of one parameter.
inline void sgd_element(double& p, double& m, double grad, const SgdStep& step) {
  const double g = grad * double{step.grad_scale} + double{step.weight_decay} * p;
  m = double{step.momentum} * m + g;
  p -= double{step.lr} * (step.nesterov ? g + double{step.momentum} * m : m);
}

/// Lion (Chen et al. 2023), of one parameter.
inline void lion_element(double& p, double& m, double grad, const LionStep& step) {
  const double g = grad * double{step.grad_scale};
  const double mean = m + double{step.one_minus_beta1} * (g - m);
  p += double{step.minus_decay} * p;
  p -= double{step.lr} * (mean > 0 ? 1.0 : mean < 0 ? -1.0 : 0.0);
  m += double{step.one_minus_beta2} * (g - m);
}

template <class T>
double sum_of_squares(const T* x, Index n) {
  double total = 0;
  for (Index i = 0; i < n; ++i) total += double{x[i]} * double{x[i]};
  return total;
}

}  // namespace reference
}}  // namespace plumb::v0_1
