// The CUDA backend's matrix products by cuBLAS: near the oracle. On the emulator cuBLAS is a
// stand-in; on a GPU the library. Its errors: test_emulated_gemm_vendor.cu.
#include <doctest/doctest.h>
#include <plumb/cuda/gemm_vendor.cuh>

#include <thread>

#include "gemm_problem.hpp"

using namespace plumb;
using namespace test;
using namespace cases::gemm;
using kernels::CudaVendor;

namespace {

constexpr double kUnit = 1e-6;  // of Σ|a·b|: float sums in whatever order

/// What the epilogue makes of the product in double precision, and the error in units of the
/// tolerance.
double worst_with_activation(const Problem& p, const Results& r, After after, Activation f) {
  std::vector<float> before = r.c;  // with the activation in place, the product is computed anew
  if (after == After::ActivationInPlace) {
    Problem plain = p;
    before = plain.on(CudaVendor{}, false, After::Nothing).c;
    for (std::size_t i = 0; i < before.size(); ++i) before[i] += p.residual[i];
  }
  std::vector<float> expected(before.size());
  kernels::activation_forward(Cpu{}, expected.data(), before.data(), f,
                              static_cast<Index>(before.size()));
  const auto& got = after == After::ActivationInPlace ? r.c : r.activated;
  double worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(static_cast<double>(got[i]) - static_cast<double>(expected[i]));
    worst = error <= worst ? worst : std::isnan(error) ? INFINITY : error;
  }
  return worst;
}

void check_all(const Problem& p, Offsets offsets = {}) {
  CAPTURE_SIZE(p.size);
  CAPTURE(static_cast<int>(p.form));
  for (const bool accumulate : {false, true})
    for (const After after : {After::Nothing, After::BiasAndResidual}) {
      CAPTURE(accumulate);
      const auto c = p.on(CudaVendor{}, accumulate, after, {}, offsets).c;
      CHECK(worst_error(p, c, accumulate, after == After::BiasAndResidual, kUnit) < 1);
    }
  for (const Activation f : {Activation::Gelu, Activation::Silu})
    for (const After after : {After::Activation, After::ActivationInPlace})
      // In place, the library's GELU may take the hardware's tanh, good to 2^-11.
      CHECK(worst_with_activation(p, p.on(CudaVendor{}, false, after, f, offsets), after, f) <
            2e-6 * static_cast<double>(p.size.k + 8) +
                (after == After::ActivationInPlace && f == Activation::Gelu ? 2e-3 : 0.0));
}

}  // namespace

TEST_CASE("cuda gemm by cuBLAS: every form at odd sizes, with every epilogue, is near the oracle") {
  for (const Size size : kSmall)
    for (const Form form : kForms) check_all(Problem{size, form});
}

TEST_CASE("cuda gemm by cuBLAS: operands at any alignment") {
  for (const Form form : kForms) {
    check_all(Problem{{24, 32, 64}, form}, {1, 1, 1, 1, 1, 1});
    check_all(Problem{{24, 32, 64}, form}, {.a = 1});
    check_all(Problem{{24, 32, 64}, form}, {.c = 1, .residual = 2});
  }
}

TEST_CASE("cuda gemm by cuBLAS: k = 0 is the epilogue alone, m or n = 0 nothing") {
  const Problem p{{3, 37, 0}, Form::NN};
  for (const bool accumulate : {false, true})
    CHECK(p.on(CudaVendor{}, accumulate, After::BiasAndResidual) ==
          p.on_cpu(accumulate, After::BiasAndResidual));
}

TEST_CASE("cuda gemm by cuBLAS: with B packed as float near the oracle, as bf16 the exact mode") {
  const Problem p{{17, 40, 300}, Form::NT};
  const auto c = packed_on<float>(CudaVendor{}, p, After::Nothing).c;
  CHECK(worst_error(p, c, false, false, kUnit) < 1);
  CHECK(packed_on<bf16>(CudaVendor{}, p, After::BiasAndResidual) ==
        packed_on_cpu<bf16>(p, After::BiasAndResidual));
}

TEST_CASE("cuda gemm by cuBLAS: more shapes than plans are kept, and another thread") {
  for (Index m = 1; m <= 300; ++m) {
    const Problem p{{m, 3, 2}, Form::NT};
    const auto c = p.on(CudaVendor{}, false, After::BiasAndResidual).c;
    CHECK(worst_error(p, c, false, true, kUnit) < 1);
  }
  double worst = INFINITY;
  std::thread([&] {
    const Problem p{{5, 31, 257}, Form::NT};
    worst = worst_error(p, p.on(CudaVendor{}, false, After::BiasAndResidual).c, false, true, kUnit);
  }).join();
  CHECK(worst < 1);
}
