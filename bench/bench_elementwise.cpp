// One pass over n elements: activations and their derivatives, sums, elementary functions.
#include <plumb/bench.hpp>
#include <plumb/bench/arrays.hpp>
#include <plumb/cpu/kernels.hpp>
#include <plumb/cpu/reference_elementwise.hpp>

#include "cases/elementwise.hpp"

using namespace plumb::bench;
using plumb::Cpu;
using plumb::Index;

namespace {

using cases::elementwise::Op;
using plumb::Activation;
using plumb::Function;
namespace elementwise = cases::elementwise;
namespace kernels = plumb::kernels;
namespace reference = plumb::reference;

/// y, and z for the op that has two results, from a, b and c.
struct Elementwise {
  using Case = elementwise::Case;
  Case of;
  Floats y, z, a, b, c;

  /// Values up to 4: past there GELU is the identity or 0. Positive ones for the logarithm.
  explicit Elementwise(const Case& k)
      : of(k),
        y(k.n, 1),
        z(of.op == Op::SwigluBackward ? k.n : 0, 2),
        a(k.n, 3, 4.0F),
        b(k.n, 4),
        c(k.n, 5) {
    if (k.op == Op::Log)
      for (Index i = 0; i < k.n; ++i) a[i] = std::abs(a[i]) + 1e-3F;
  }
  Work work() const { return elementwise::work(of); }

  void run(Cpu device) {
    const Index n = of.n;
    switch (of.op) {
      case Op::Add:
        return kernels::combine_forward(device, y.data(), {a.data(), n, 1}, {b.data(), n, 1},
                                        plumb::Arithmetic::Add, 1, n);
      case Op::Accumulate: return kernels::accumulate(device, y.data(), a.data(), 0.75F, n);
      case Op::GeluForward:
        return kernels::activation_forward(device, y.data(), a.data(), Activation::Gelu, n);
      case Op::GeluBackward:
        return kernels::activation_backward(device, y.data(), b.data(), a.data(), Activation::Gelu,
                                            n);
      case Op::GeluErfForward:
        return kernels::activation_forward(device, y.data(), a.data(), Activation::GeluErf, n);
      case Op::GeluErfBackward:
        return kernels::activation_backward(device, y.data(), b.data(), a.data(),
                                            Activation::GeluErf, n);
      case Op::SwigluForward:
        return kernels::swiglu_forward(device, y.data(), a.data(), b.data(), n);
      case Op::SwigluBackward:
        return kernels::swiglu_backward(device, y.data(), z.data(), c.data(), a.data(), b.data(),
                                        n);
      case Op::Exp: return kernels::function_forward(device, y.data(), a.data(), Function::Exp, n);
      case Op::Log: return kernels::function_forward(device, y.data(), a.data(), Function::Log, n);
      case Op::Tanh:
        return kernels::activation_forward(device, y.data(), a.data(), Activation::Tanh, n);
      case Op::Erf: return kernels::function_forward(device, y.data(), a.data(), Function::Erf, n);
    }
  }

  /// y of one element, from what y was before.
  double exact(double y0, double a0, double b0, double c0) const {
    switch (of.op) {
      case Op::Add: return a0 + b0;
      case Op::Accumulate: return y0 + 0.75 * a0;
      case Op::GeluForward: return reference::activation(Activation::Gelu, a0);
      case Op::GeluBackward:
        return y0 + b0 * reference::activation_derivative(Activation::Gelu, a0);
      case Op::GeluErfForward: return reference::activation(Activation::GeluErf, a0);
      case Op::GeluErfBackward:
        return y0 + b0 * reference::activation_derivative(Activation::GeluErf, a0);
      case Op::SwigluForward: return a0 * reference::sigmoid(a0) * b0;
      case Op::SwigluBackward:
        return y0 + c0 * b0 * reference::activation_derivative(Activation::Silu, a0);
      case Op::Exp: return std::exp(a0);
      case Op::Log: return std::log(a0);
      case Op::Tanh: return std::tanh(a0);
      case Op::Erf: break;
    }
    return std::erf(a0);
  }

  double error(Cpu device) {
    const auto some = places(of.n, 9973);
    std::vector<double> expected, expected_z;
    for (const Index i : some) {
      expected.push_back(exact(y[i], a[i], b[i], c[i]));
      if (of.op == Op::SwigluBackward) {
        const double a0 = a[i];
        expected_z.push_back(static_cast<double>(z[i]) +
                             static_cast<double>(c[i]) * a0 * reference::sigmoid(a0));
      }
    }
    run(device);
    Worst worst;
    const double tolerance = elementwise::entry(of.op).tolerance;
    for (std::size_t j = 0; j < some.size(); ++j) {
      worst.see(y[some[j]], expected[j], tolerance * std::max(1.0, std::abs(expected[j])));
      if (!expected_z.empty())
        worst.see(z[some[j]], expected_z[j], tolerance * std::max(1.0, std::abs(expected_z[j])));
    }
    return worst.value();
  }
};

}  // namespace

int main(int argc, char** argv) {
  add<Elementwise>("elementwise", cases::elementwise::kTimed);
  return plumb::bench::run(argc, argv);
}
