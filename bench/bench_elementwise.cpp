// One pass over n elements: activations and their derivatives, sums, elementary functions.
#include <plumb/bench.hpp>
#include <plumb/cpu/kernels.hpp>
#include <plumb/cpu/reference_elementwise.hpp>

#include "cases/elementwise.hpp"

using namespace plumb::bench;
using cases::elementwise::Op;
using plumb::Activation;
using plumb::Arithmetic;
using plumb::Cpu;
using plumb::Function;
using plumb::Index;
namespace elementwise = cases::elementwise;
namespace kernels = plumb::kernels;
namespace reference = plumb::reference;

namespace {

using Doubles = std::span<const double>;

/// The cases of an op: make(n, tolerance) makes its arguments, exact(places, arguments…) computes.
template <class Kernel, class Make, class Oracle>
void op(Op which, Kernel kernel, Make make, Oracle oracle) {
  const elementwise::Entry& entry = elementwise::entry(which);
  add(plumb::str("elementwise/", entry.name), kernel,
      each_of(elementwise::kTimedSizes, [=](Index n) { return make(n, entry.tolerance); }), oracle,
      [=](Index n) {
        return elementwise::work({which, n});
      });
}

/// y = f(x); values up to 4, past which GELU is the identity or 0.
template <class Kernel, class F>
void function_of_one(Op which, Kernel kernel, F f, double low = -4.0) {
  op(
      which, kernel,
      [=](Index n, double tolerance) { return arguments(out(n, tolerance), in(n, low, 4), n); },
      [=](const Places& places, std::span<double> y, Doubles x, Index n) {
        for (const Index i : places(n)) y[std::size_t(i)] = f(x[std::size_t(i)]);
      });
}
template <Activation A>
void activation(Op which) {
  function_of_one(
      which,
      [](Cpu device, float* y, const float* x, Index n) {
        kernels::activation_forward(device, y, x, A, n);
      },
      [](double x) { return reference::activation(A, x); });
}

/// y = f(a, b).
template <class Kernel, class F>
void function_of_two(Op which, Kernel kernel, F f) {
  op(
      which, kernel,
      [](Index n, double tolerance) {
        return arguments(out(n, tolerance), in(n, -4, 4), in(n), n);
      },
      [=](const Places& places, std::span<double> y, Doubles a, Doubles b, Index n) {
        for (const Index i : places(n)) y[std::size_t(i)] = f(a[std::size_t(i)], b[std::size_t(i)]);
      });
}

/// dx += dy · f'(x).
template <Activation A>
void derivative(Op which) {
  op(
      which,
      [](Cpu device, float* dx, const float* dy, const float* x, Index n) {
        kernels::activation_backward(device, dx, dy, x, A, n);
      },
      [](Index n, double tolerance) {
        return arguments(inout(n, tolerance), in(n), in(n, -4, 4), n);
      },
      [](const Places& places, std::span<double> dx, Doubles dy, Doubles x, Index n) {
        for (const Index i : places(n)) {
          const auto at = static_cast<std::size_t>(i);
          dx[at] += dy[at] * reference::activation_derivative(A, x[at]);
        }
      });
}

void swiglu_backward() {
  op(
      Op::SwigluBackward,
      [](Cpu device, float* da, float* db, const float* dy, const float* a, const float* b,
         Index n) { kernels::swiglu_backward(device, da, db, dy, a, b, n); },
      [](Index n, double tolerance) {
        return arguments(inout(n, tolerance), inout(n, tolerance), in(n), in(n, -4, 4), in(n), n);
      },
      [](const Places& places, std::span<double> da, std::span<double> db, Doubles dy, Doubles a,
         Doubles b, Index n) {
        for (const Index i : places(n)) {
          const auto at = static_cast<std::size_t>(i);
          da[at] += dy[at] * b[at] * reference::activation_derivative(Activation::Silu, a[at]);
          db[at] += dy[at] * a[at] * reference::sigmoid(a[at]);
        }
      });
}

void sums() {
  function_of_two(
      Op::Add,
      [](Cpu device, float* y, const float* a, const float* b, Index n) {
        kernels::combine_forward(device, y, {a, n, 1}, {b, n, 1}, Arithmetic::Add, 1, n);
      },
      [](double a, double b) { return a + b; });
  op(
      Op::Accumulate,
      [](Cpu device, float* y, const float* x, Index n) {
        kernels::accumulate(device, y, x, 0.75F, n);
      },
      [](Index n, double tolerance) { return arguments(inout(n, tolerance), in(n, -4, 4), n); },
      [](const Places& places, std::span<double> y, Doubles x, Index n) {
        for (const Index i : places(n)) y[std::size_t(i)] += 0.75 * x[std::size_t(i)];
      });
}

void functions() {
  function_of_one(
      Op::Exp,
      [](Cpu device, float* y, const float* x, Index n) {
        kernels::function_forward(device, y, x, Function::Exp, n);
      },
      [](double x) { return std::exp(x); });
  function_of_one(
      Op::Log,
      [](Cpu device, float* y, const float* x, Index n) {
        kernels::function_forward(device, y, x, Function::Log, n);
      },
      [](double x) { return std::log(x); }, 1e-3);
  activation<Activation::Tanh>(Op::Tanh);
  function_of_one(
      Op::Erf,
      [](Cpu device, float* y, const float* x, Index n) {
        kernels::function_forward(device, y, x, Function::Erf, n);
      },
      [](double x) { return std::erf(x); });
}

}  // namespace

int main(int argc, char** argv) {
  sums();
  activation<Activation::Gelu>(Op::GeluForward);
  derivative<Activation::Gelu>(Op::GeluBackward);
  activation<Activation::GeluErf>(Op::GeluErfForward);
  derivative<Activation::GeluErf>(Op::GeluErfBackward);
  function_of_two(
      Op::SwigluForward,
      [](Cpu device, float* y, const float* a, const float* b, Index n) {
        kernels::swiglu_forward(device, y, a, b, n);
      },
      [](double a, double b) { return a * reference::sigmoid(a) * b; });
  swiglu_backward();
  functions();
  return plumb::bench::run(argc, argv);
}
