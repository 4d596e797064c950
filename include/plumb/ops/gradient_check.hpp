// Whether an op's backward pass is right: the gradient that a tape gives beside central differences
// at two steps, extrapolated (Richardson), one element after another. For ops and losses of one's
// own; ours are held to it in tests/. In float, differences see about three digits, so this finds a
// wrong formula and not a wrong rounding; in double (Tensor<Cpu, double>), nine. Not here: second
// derivatives, kinks (move the inputs away from them).
#pragma once

#include <plumb/ops/basic.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <type_traits>
#include <vector>

namespace plumb { inline namespace v0_1 {

struct GradientCheckConfig {
  double step = 1e-2;       ///< of an element, and half of it
  double tolerance = 1e-2;  ///< of an error, as a share of the input's largest gradient
  Index most = 64;          ///< elements of an input that are tried, spread over it; 0: all
};

/// What was found. Errors are shares of the largest gradient of their input, by either way.
struct GradientCheck {
  bool right = true;
  double worst = 0;        ///< the largest error
  std::size_t input = 0;   ///< where: of which input,
  Index element = 0;       ///< which element,
  double recorded = 0;     ///< its gradient by the tape,
  double differences = 0;  ///< and by differences
};

/// Compares the gradients of `f()`, a loss of one element, by these inputs, which it reads. Inputs
/// keep their values; their gradients are cleared. ShapeError unless f gives one element;
/// DataError where the loss depends on none of the inputs.
template <class D, class T = float>
GradientCheck gradient_check(const std::type_identity_t<std::function<Tensor<D, T>()>>& f,
                             const std::type_identity_t<std::vector<Tensor<D, T>>>& inputs,
                             const GradientCheckConfig& config = {}, Where where = Where::here()) {
  for (const Tensor<D, T>& x : inputs) {
    x.set_requires_grad(true);
    x.zero_grad();
  }
  {
    Tape tape;
    const Tensor<D, T> loss = f();
    if (loss.size() != 1)
      fail(str("[gradient_check] the loss must have one element; its shape is ", loss.shape()),
           where);
    check<DataError>(loss.requires_grad(),
                     "[gradient_check] the loss depends on none of the inputs", where);
    tape.backward(loss);
  }
  const auto value = [&] {
    const NoTape inference;
    return static_cast<double>(f().item());
  };
  GradientCheck result;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const Tensor<D, T>& x = inputs[i];
    const auto gradient = x.grad_tensor().to_vector(), values = x.to_vector();
    const auto at = [&](Index e, T moved) {
      copy_from_host(D{}, x.data() + e, &moved, sizeof moved);
      const double loss = value();
      copy_from_host(D{}, x.data() + e, &values[static_cast<std::size_t>(e)], sizeof moved);
      return loss;
    };
    const auto slope = [&](Index e, double h) {
      const T above = values[static_cast<std::size_t>(e)] + static_cast<T>(h);
      const T below = values[static_cast<std::size_t>(e)] - static_cast<T>(h);
      return (at(e, above) - at(e, below)) /
             (static_cast<double>(above) - static_cast<double>(below));
    };
    const Index tried = config.most > 0 ? std::min(config.most, x.size()) : x.size();
    std::vector<Index> elements;
    std::vector<double> slopes;
    double largest = 1e-6;
    for (Index k = 0; k < tried; ++k) {
      const Index e = k * x.size() / tried;
      elements.push_back(e);
      slopes.push_back((4 * slope(e, config.step / 2) - slope(e, config.step)) / 3);
      largest = std::max({largest, std::abs(slopes.back()),
                          std::abs(static_cast<double>(gradient[static_cast<std::size_t>(e)]))});
    }
    for (std::size_t k = 0; k < elements.size(); ++k) {
      const double recorded = gradient[static_cast<std::size_t>(elements[k])];
      const double error = std::abs(recorded - slopes[k]) / largest;
      if (std::isfinite(error) && error <= result.worst) continue;
      result = {std::isfinite(error) && error <= config.tolerance,
                error,
                i,
                elements[k],
                recorded,
                slopes[k]};
      if (!std::isfinite(error)) return result;
    }
    x.zero_grad();
  }
  return result;
}

}}  // namespace plumb::v0_1
