// Activations and their derivatives in double precision: the oracle of elementwise.hpp's tests. Not
// for use in a program.
#pragma once

#include <plumb/math/activation.hpp>

#include <cmath>

namespace plumb { inline namespace v0_1 {

namespace reference {

inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

inline double activation(Activation f, double x) {
  switch (f) {
    case Activation::Gelu:
      return x / 2 * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
    case Activation::Silu: return x * sigmoid(x);
    case Activation::Tanh: return std::tanh(x);
    case Activation::GeluErf: return x / 2 * std::erfc(-x / std::sqrt(2.0));
    case Activation::Relu: break;
  }
  return x > 0 ? x : 0;
}

inline double activation_derivative(Activation f, double x) {
  switch (f) {
    case Activation::Gelu: {
      const double a = std::sqrt(2 / std::acos(-1.0));
      const double t = std::tanh(a * (x + 0.044715 * x * x * x));
      return (1 + t) / 2 + x / 2 * (1 - t * t) * a * (1 + 3 * 0.044715 * x * x);
    }
    case Activation::Silu: return sigmoid(x) * (1 + x * (1 - sigmoid(x)));
    case Activation::Tanh: return 1 - std::tanh(x) * std::tanh(x);
    case Activation::GeluErf:
      return std::erfc(-x / std::sqrt(2.0)) / 2 +
             x * std::exp(-x * x / 2) / std::sqrt(2 * std::acos(-1.0));
    case Activation::Relu: break;
  }
  return x > 0 ? 1 : 0;
}

}  // namespace reference
}}  // namespace plumb::v0_1
