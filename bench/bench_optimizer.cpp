// AdamW on one flat buffer, and the sum of squares that clipping needs.
#include <plumb/bench.hpp>
#include <plumb/bench/arrays.hpp>
#include <plumb/cpu/kernels.hpp>
#include <plumb/cpu/reference_optimizer.hpp>

#include "cases/optimizer.hpp"

using namespace plumb::bench;
using plumb::Cpu;
using plumb::Index;

namespace {

namespace optimizer = cases::optimizer;
namespace kernels = plumb::kernels;
namespace reference = plumb::reference;

constexpr plumb::AdamWStep kStep{.lr = 1e-4F,
                                 .beta1 = 0.9F,
                                 .beta2 = 0.999F,
                                 .eps = 1e-8F,
                                 .weight_decay = 0.1F,
                                 .grad_scale = 0.5F,
                                 .step = 100,
                                 .eps_inside = false};

struct AdamW {
  using Case = optimizer::Case;
  Case of;
  Floats parameter, grad, m, v;
  explicit AdamW(const Case& c)
      : of(c), parameter(c.n, 1), grad(c.n, 2), m(c.n, 3, 0.1F), v(c.n, 4, 0.1F) {
    for (Index i = 0; i < c.n; ++i) v[i] = std::abs(v[i]) + 1e-4F;
  }
  Work work() const { return optimizer::adamw_work(of); }

  void run(Cpu device) {
    kernels::adamw_update(device, parameter.data(), grad.data(), m.data(), v.data(), of.n, kStep);
  }

  double error(Cpu device) {
    const auto some = places(of.n, 9973);
    reference::AdamWState exact;
    std::vector<float> gradients;
    for (const Index i : some) {
      exact.parameter.push_back(parameter[i]);
      exact.m.push_back(m[i]);
      exact.v.push_back(v[i]);
      gradients.push_back(grad[i]);
    }
    reference::adamw_update(exact, gradients.data(), kStep);
    run(device);
    Worst worst;
    for (std::size_t j = 0; j < some.size(); ++j) {
      worst.see(parameter[some[j]], exact.parameter[j], optimizer::kTolerance);
      worst.see(m[some[j]], exact.m[j], optimizer::kTolerance);
      worst.see(v[some[j]], exact.v[j], optimizer::kTolerance);
    }
    return worst.value();
  }
};

struct SumOfSquares {
  using Case = optimizer::Case;
  Case of;
  Floats x;
  explicit SumOfSquares(const Case& c) : of(c), x(c.n, 1) {}
  Work work() const { return optimizer::squares_work(of); }
  void run(Cpu device) {
    benchmark::DoNotOptimize(kernels::sum_of_squares(device, x.data(), of.n));
  }
  double error(Cpu device) {
    const double exact = reference::sum_of_squares(x.data(), of.n);
    Worst worst;
    worst.see(kernels::sum_of_squares(device, x.data(), of.n), exact,
              optimizer::kTolerance * exact);
    return worst.value();
  }
};

}  // namespace

int main(int argc, char** argv) {
  add<AdamW>("adamw", cases::optimizer::kTimed);
  add<SumOfSquares>("sum_of_squares", cases::optimizer::kTimed);
  return plumb::bench::run(argc, argv);
}
