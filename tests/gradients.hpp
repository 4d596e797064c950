// Ops in float and in double against one another, and double's gradients against central
// differences.
#pragma once

#include <plumb/plumb.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include "tiny.hpp"

namespace test {

using plumb::Cpu;
using plumb::Index;
using plumb::Shape;
using plumb::Tape;
using plumb::Tensor;

template <class T>
using All = std::vector<Tensor<Cpu, T>>;

template <class T>
All<T> inputs_of(const std::vector<Shape>& shapes, bool positive) {
  All<T> all;
  std::uint64_t seed = 11;
  for (const Shape& shape : shapes) {
    std::vector<T> values;
    for (const float x : random_vector(shape.size(), seed++))
      values.push_back(static_cast<T>(positive ? std::abs(x) + 0.3F : x));
    all.push_back(Tensor<Cpu, T>::from(values, shape));
    all.back().set_requires_grad(true);
  }
  return all;
}

template <class T>
using OpOf = std::function<Tensor<Cpu, T>(const All<T>&)>;

/// Σ of a fixed weight times each result.
template <class T>
Tensor<Cpu, T> weighed(const OpOf<T>& op, const All<T>& inputs) {
  Tensor<Cpu, T> y = op(inputs);
  std::vector<T> weights;
  for (const float w : random_vector(y.size(), 500)) weights.push_back(static_cast<T>(w));
  return weighted_sum(y.reshape({y.size()}), Tensor<Cpu, T>::from(weights, {y.size()}));
}

inline double slope_at(const OpOf<double>& op, const All<double>& inputs, double& x) {
  const double before = x, h = 1e-5;
  x = before + h;
  const double above = weighed(op, inputs).item();
  x = before - h;
  const double below = weighed(op, inputs).item();
  x = before;
  return (above - below) / (2 * h);
}

/// Gradients in double against central differences, and float's results and gradients against
/// double's.
inline void check_both(const char* name, const OpOf<float>& op, const OpOf<double>& exact_op,
                       const std::vector<Shape>& shapes, bool positive) {
  CAPTURE(name);
  const auto in_float = inputs_of<float>(shapes, positive);
  const auto in_double = inputs_of<double>(shapes, positive);
  {
    Tape tape;
    tape.backward(weighed(op, in_float));
  }
  {
    Tape tape;
    tape.backward(weighed(exact_op, in_double));
  }
  const auto y = op(in_float);
  const auto exact = exact_op(in_double);
  CHECK(y.shape() == exact.shape());
  CHECK(max_relative_error(y.to_vector(), exact.to_vector()) < 3e-6);
  for (std::size_t i = 0; i < in_double.size(); ++i) {
    CAPTURE(i);
    const auto gradient = in_double[i].grad_tensor().to_vector();
    CHECK(max_relative_error(in_float[i].grad_tensor().to_vector(), gradient) < 2e-5);
    double worst = 0;
    for (std::size_t e = 0; e < gradient.size(); ++e) {
      const double slope = slope_at(exact_op, in_double, in_double[i].data()[e]);
      worst = std::max(worst, std::abs(slope - gradient[e]) / std::max(1.0, std::abs(slope)));
    }
    CHECK(worst < 1e-8);
  }
}
template <class Op>
void check_op(const char* name, Op op, const std::vector<Shape>& shapes, bool positive = false) {
  check_both(name, op, op, shapes, positive);
}

/// A fixed operand of an op, in the number of its inputs.
template <class T>
Tensor<Cpu, T> beside(const Tensor<Cpu, T>&, const std::vector<float>& values) {
  return Tensor<Cpu, T>::from(std::vector<T>(values.begin(), values.end()),
                              {static_cast<Index>(values.size())});
}

}  // namespace test
