// One pass over n elements, on any device: activations and their derivatives, sums, arithmetic,
// elementary functions.
#pragma once

#include <plumb/bench.hpp>
#include <plumb/cpu/reference_elementwise.hpp>
#include <plumb/math/elementwise.hpp>

#include <algorithm>
#include <cmath>

#include "cases/elementwise.hpp"
#include "families/support.hpp"

namespace families {

using cases::elementwise::Op;
using plumb::Activation;
using plumb::Arithmetic;
using plumb::Function;

/// The cases of an op: make(n, tolerance) makes its arguments, exact(places, arguments…) computes.
template <class Table, class Kernel, class Make, class Oracle>
void add_op(const Table& table, Op which, Kernel kernel, Make make, Oracle oracle) {
  const cases::elementwise::Entry& entry = cases::elementwise::entry(which);
  add(plumb::str("elementwise/", entry.name), kernel,
      each_of(table, [=](Index n) { return make(n, entry.tolerance); }), oracle, [=](Index n) {
        return cases::elementwise::work({which, n});
      });
}

/// y = f(x); values up to 4, past which GELU is the identity or 0.
template <class Table, class Kernel, class F>
void add_of_one(const Table& table, Op which, Kernel kernel, F f, double low = -4.0) {
  add_op(
      table, which, kernel,
      [=](Index n, double tolerance) { return arguments(out(n, tolerance), in(n, low, 4), n); },
      [=](const Places& places, Results y, Doubles x, Index n) {
        for (const Index i : places(n)) y[at(i)] = f(x[at(i)]);
      });
}
template <class D, Activation A, class Table>
void add_activation(const Table& table, Op which) {
  add_of_one(
      table, which,
      [](D device, float* y, const float* x, Index n) { activation_forward(device, y, x, A, n); },
      [](double x) { return plumb::reference::activation(A, x); });
}

/// y = f(a, b).
template <class Table, class Kernel, class F>
void add_of_two(const Table& table, Op which, Kernel kernel, F f) {
  add_op(
      table, which, kernel,
      [](Index n, double tolerance) {
        return arguments(out(n, tolerance), in(n, -4, 4), in(n), n);
      },
      [=](const Places& places, Results y, Doubles a, Doubles b, Index n) {
        for (const Index i : places(n)) y[at(i)] = f(a[at(i)], b[at(i)]);
      });
}

/// dx += dy · f'(x).
template <class D, Activation A, class Table>
void add_derivative(const Table& table, Op which) {
  add_op(
      table, which,
      [](D device, float* dx, const float* dy, const float* x, Index n) {
        activation_backward(device, dx, dy, x, A, n);
      },
      [](Index n, double tolerance) {
        return arguments(inout(n, tolerance), in(n), in(n, -4, 4), n);
      },
      [](const Places& places, Results dx, Doubles dy, Doubles x, Index n) {
        for (const Index i : places(n)) {
          const std::size_t here = at(i);
          dx[here] += dy[here] * plumb::reference::activation_derivative(A, x[here]);
        }
      });
}

template <class D, class Table>
void add_swiglu(const Table& table) {
  add_of_two(
      table, Op::SwigluForward,
      [](D device, float* y, const float* a, const float* b, Index n) {
        swiglu_forward(device, y, a, b, n);
      },
      [](double a, double b) { return a * plumb::reference::sigmoid(a) * b; });
  add_op(
      table, Op::SwigluBackward,
      [](D device, float* da, float* db, const float* dy, const float* a, const float* b, Index n) {
        swiglu_backward(device, da, db, dy, a, b, n);
      },
      [](Index n, double tolerance) {
        return arguments(inout(n, tolerance), inout(n, tolerance), in(n), in(n, -4, 4), in(n), n);
      },
      [](const Places& places, Results da, Results db, Doubles dy, Doubles a, Doubles b, Index n) {
        for (const Index i : places(n)) {
          const std::size_t here = at(i);
          da[here] += dy[here] * b[here] *
                      plumb::reference::activation_derivative(Activation::Silu, a[here]);
          db[here] += dy[here] * a[here] * plumb::reference::sigmoid(a[here]);
        }
      });
}

/// One of the arithmetic of two whole arrays.
template <class D, class Table, class F>
void add_arithmetic(const Table& table, Op which, Arithmetic arithmetic, F f) {
  add_of_two(
      table, which,
      [=](D device, float* y, const float* a, const float* b, Index n) {
        combine_forward(device, y, {a, n, 1}, {b, n, 1}, arithmetic, 1, n);
      },
      f);
}
template <class D, class Table>
void add_sums(const Table& table) {
  add_arithmetic<D>(table, Op::Add, Arithmetic::Add, [](double a, double b) { return a + b; });
  add_arithmetic<D>(table, Op::Divide, Arithmetic::Divide,
                    [](double a, double b) { return a / b; });
  add_arithmetic<D>(table, Op::Minimum, Arithmetic::Minimum,
                    [](double a, double b) { return std::min(a, b); });
  add_op(
      table, Op::Accumulate,
      [](D device, float* y, const float* x, Index n) { accumulate(device, y, x, 0.75F, n); },
      [](Index n, double tolerance) { return arguments(inout(n, tolerance), in(n, -4, 4), n); },
      [](const Places& places, Results y, Doubles x, Index n) {
        for (const Index i : places(n)) y[at(i)] += 0.75 * x[at(i)];
      });
  add_of_one(
      table, Op::Clamp,
      [](D device, float* y, const float* x, Index n) {
        clamp_forward(device, y, x, -1.5F, 2.5F, n);
      },
      [](double x) { return std::clamp(x, -1.5, 2.5); });
  add_of_one(
      table, Op::Shift,
      [](D device, float* y, const float* x, Index n) { shift_forward(device, y, x, 0.75F, n); },
      [](double x) { return x + 0.75; });
}

/// Functions of one value, at those that they are defined for. The oracle is the system's.
template <class D, class Table>
void add_functions(const Table& table) {
  const auto add_function = [&](Op which, Function function, auto f, double low) {
    add_of_one(
        table, which,
        [=](D device, float* y, const float* x, Index n) {
          function_forward(device, y, x, function, n);
        },
        f, low);
  };
  add_function(
      Op::Exp, Function::Exp, [](double x) { return std::exp(x); }, -4);
  add_function(
      Op::Log, Function::Log, [](double x) { return std::log(x); }, 1e-3);
  add_activation<D, Activation::Tanh>(table, Op::Tanh);
  add_function(
      Op::Erf, Function::Erf, [](double x) { return std::erf(x); }, -4);
  add_function(
      Op::Sqrt, Function::Sqrt, [](double x) { return std::sqrt(x); }, 0);
  add_function(
      Op::Sigmoid, Function::Sigmoid, [](double x) { return plumb::reference::sigmoid(x); }, -4);
  add_function(
      Op::Softplus, Function::Softplus, [](double x) { return std::log1p(std::exp(x)); }, -4);
}

template <class D, class Table>
void add_gelu(const Table& table) {
  add_activation<D, Activation::Gelu>(table, Op::GeluForward);
  add_derivative<D, Activation::Gelu>(table, Op::GeluBackward);
  add_activation<D, Activation::GeluErf>(table, Op::GeluErfForward);
  add_derivative<D, Activation::GeluErf>(table, Op::GeluErfBackward);
}

}  // namespace families
