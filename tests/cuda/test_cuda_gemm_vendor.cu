// The CUDA backend's matrix products by cuBLAS: near the oracle, and its errors. On the emulator cuBLAS is
// a stand-in; on a GPU the library. The errors, which are injected, are the emulator's alone.
#include <doctest/doctest.h>
#include <plumb/cuda/gemm_vendor.cuh>

#include <string>
#include <thread>

#include "gemm_problem.hpp"

#if __has_include(<emulator/cublas.hpp>) && !defined(PLUMB_ON_GPU)
#include <emulator/cublas.hpp>
#endif

using namespace plumb;
using namespace test;
using namespace cases::gemm;
using kernels::CudaVendor;

namespace {

constexpr double kUnit = 1e-6;  // of Σ|a·b|: float sums in whatever order

/// What the epilogue makes of the product in double precision, and the error in units of the tolerance.
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
      CHECK(worst_with_activation(p, p.on(CudaVendor{}, false, after, f, offsets), after, f) <
            2e-6 * static_cast<double>(p.size.k + 8));
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

#if __has_include(<emulator/cublas.hpp>) && !defined(PLUMB_ON_GPU)

TEST_CASE("cuda gemm by cuBLAS: without an algorithm of cublasLt a kernel does the epilogue") {
  for (const After after : {After::BiasAndResidual, After::ActivationInPlace}) {
    const Problem p{{11, 13, after == After::BiasAndResidual ? 29 : 30}, Form::NT};
    emulator::inject_cublas("cublasLtMatmulAlgoGetHeuristic", 0, CUBLAS_STATUS_NOT_SUPPORTED);
    const auto r = p.on(CudaVendor{}, false, after);
    if (after == After::BiasAndResidual)
      CHECK(worst_error(p, r.c, false, true, kUnit) < 1);
    else
      CHECK(worst_with_activation(p, r, after, Activation::Gelu) < 1e-4);
  }
}

TEST_CASE("cuda gemm by cuBLAS: an error names the call, its status and the sizes") {
  const auto message = [](const char* function, After after, Index k) {
    const Problem p{{4, 6, k}, Form::NT};
    emulator::inject_cublas(function, 0, CUBLAS_STATUS_EXECUTION_FAILED);
    try {
      p.on(CudaVendor{}, false, after);
    } catch (const CudaError& error) {
      return std::string(error.what());
    }
    return std::string("nothing was thrown");
  };
  const auto check_names = [&](const char* function, const char* shown, After after, Index k) {
    const std::string text = message(function, after, k);
    CAPTURE(text);
    CHECK(text.find(shown) != std::string::npos);
    CHECK(text.find("execution failed") != std::string::npos);
    CHECK(text.find(str("NT of m 4, n 6, k ", k)) != std::string::npos);
  };
  check_names("cublasSetStream_v2", "cublasSetStream", After::Nothing, 8);
  check_names("cublasSetWorkspace_v2", "cublasSetWorkspace", After::Nothing, 8);
  check_names("cublasSetMathMode", "cublasSetMathMode", After::Nothing, 8);
  check_names("cublasSgemm_v2", "cublasSgemm", After::Nothing, 8);
  // Each with a shape that has no plan yet.
  check_names("cublasLtMatmulDescCreate", "cublasLtMatmulDescCreate", After::BiasAndResidual, 51);
  check_names("cublasLtMatmulDescSetAttribute", "cublasLtMatmulDescSetAttribute",
              After::BiasAndResidual, 52);
  check_names("cublasLtMatrixLayoutCreate", "cublasLtMatrixLayoutCreate", After::BiasAndResidual,
              53);
  check_names("cublasLtMatmulPreferenceCreate", "cublasLtMatmulPreferenceCreate",
              After::BiasAndResidual, 54);
  check_names("cublasLtMatmulPreferenceSetAttribute", "cublasLtMatmulPreferenceSetAttribute",
              After::BiasAndResidual, 55);
  check_names("cublasLtMatmulAlgoGetHeuristic", "cublasLtMatmulAlgoGetHeuristic",
              After::BiasAndResidual, 56);
  check_names("cublasLtMatmul", "cublasLtMatmul", After::BiasAndResidual, 57);
}

#endif
