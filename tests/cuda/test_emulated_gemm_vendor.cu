// cuBLAS refuses or fails, which the emulator's stand-in does on request: what the CUDA backend's
// products then do. (On the emulator only.)
#include <doctest/doctest.h>
#include <emulator/cublas.hpp>
#include <plumb/cuda/gemm_vendor.cuh>

#include <string>
#include <thread>

#include "gemm_problem.hpp"

using namespace plumb;
using namespace test;
using kernels::CudaVendor;

TEST_CASE("cuda gemm by cuBLAS: without an algorithm of cublasLt a kernel does the epilogue") {
  for (const After after : {After::BiasAndResidual, After::ActivationInPlace}) {
    const Problem p{{11, 13, after == After::BiasAndResidual ? 29 : 30}, Form::NT};
    emulator::inject_cublas("cublasLtMatmulAlgoGetHeuristic", CUBLAS_STATUS_NOT_SUPPORTED);
    const auto r = p.on(CudaVendor{}, false, after);
    if (after == After::BiasAndResidual) {
      CHECK(worst_error(p, r.c, false, true, 1e-6) < 1);
      continue;
    }
    const auto expected = p.on_cpu(false, after).c;
    CHECK(max_error(r.c, std::vector<double>(expected.begin(), expected.end())) < 1e-4);
  }
}

TEST_CASE("cuda gemm by cuBLAS: handles and plans end with their thread") {
  const std::size_t before = emulator::live_cublas_objects();
  std::size_t within = 0;
  std::thread([&within] {
    const Problem p{{4, 6, 8}, Form::NT};
    p.on(CudaVendor{}, false, After::Nothing);
    p.on(CudaVendor{}, false, After::BiasAndResidual);
    within = emulator::live_cublas_objects();
  }).join();
  CHECK(within > before);
  CHECK(emulator::live_cublas_objects() == before);
}

TEST_CASE("cuda gemm by cuBLAS: batches of many sizes are planned by few") {
  using kernels::vendor::row_bucket;
  for (Index rows = 1, before = 0; rows < 5000; ++rows) {
    const Index bucket = row_bucket(rows);
    CHECK(bucket >= rows);
    CHECK((rows <= 16 ? bucket == rows : 3 * bucket < 4 * (rows + 1)));
    CHECK(bucket >= before);
    CHECK(row_bucket(bucket) == bucket);
    before = bucket;
  }
  const std::uint64_t before = emulator::calls("cublasLtMatmulAlgoGetHeuristic");
  for (Index m = 65; m <= 128; ++m) {
    const Problem p{{m, 8, 12}, Form::NT};
    const auto r = p.on(CudaVendor{}, false, After::BiasAndResidual);
    CHECK(worst_error(p, r.c, false, true, 1e-6) < 1);
  }
  const std::uint64_t asked = emulator::calls("cublasLtMatmulAlgoGetHeuristic") - before;
  std::printf("64 numbers of rows: the library was asked %d times\n", static_cast<int>(asked));
  // Four buckets, by how far memory happens to be aligned.
  CHECK(asked <= 16);
}

TEST_CASE("cuda gemm by cuBLAS: an error names the call, its status and the sizes") {
  const auto message = [](const char* function, After after, Index k) {
    const Problem p{{4, 6, k}, Form::NT};
    emulator::inject_cublas(function, CUBLAS_STATUS_EXECUTION_FAILED);
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
