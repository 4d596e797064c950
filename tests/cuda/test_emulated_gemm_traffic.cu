// What the matrix products move, counted by the emulator's tracer: bytes of global memory as their
// headers' formulas say, and shared memory without bank conflicts. For traced programs only.
#include <doctest/doctest.h>
#include <plumb/cuda/gemm_tensor_core.cuh>

#include <emulator/trace.hpp>

#include <initializer_list>

#include "gemm_problem.hpp"

using namespace plumb;
using namespace test;
namespace gpu = kernels::gpu;

namespace {

/// What one product moves, as its kernel's formula has it.
struct Traffic {
  double loads, stores;  ///< bytes
};

/// Launches m × n × k without an epilogue and compares; whole tiles, so that the formulas are
/// exact.
template <class T = float, class Launch>
void check_traffic(Size size, Form form, Traffic expected, Launch launch,
                   std::size_t launched = 1) {
  REQUIRE(emulator::traced());
  CAPTURE_SIZE(size);
  CAPTURE(static_cast<int>(form));
  const auto [m, n, k] = size;
  const kernels::DeviceScratch<float> c(Cuda{}, m * n), a(Cuda{}, m * k);
  const kernels::DeviceScratch<T> b(Cuda{}, n * k);
  kernels::zero(Cuda{}, a.data(), at(m * k) * sizeof(float));
  kernels::zero(Cuda{}, b.data(), at(n * k) * sizeof(T));
  kernels::synchronize(Cuda{});
  emulator::trace_counts().clear();
  emulator::trace_transactions(true);
  launch(gpu::product<T>(c.data(), a.data(), b.data(), m, n, k, form, false, {}));
  kernels::synchronize(Cuda{});
  emulator::trace_transactions(false);
  REQUIRE(emulator::trace_counts().size() == launched);
  const emulator::TraceCounts counts = emulator::trace_total();
  CAPTURE(emulator::trace_counts().begin()->first);
  CHECK(static_cast<double>(counts.global_load_bytes) == expected.loads);
  CHECK(static_cast<double>(counts.global_store_bytes) == expected.stores);
  CHECK(counts.global_sectors == counts.global_ideal);
  CHECK(counts.shared_wavefronts == counts.shared_ideal);
  CHECK(counts.shared_ideal > 0);
}

double product(std::initializer_list<Index> factors) {
  double x = 1;
  for (const Index factor : factors) x *= static_cast<double>(factor);
  return x;
}

constexpr Size kTileSizes[] = {{256, 128, 64}, {128, 256, 640}};

template <Form form, int kTile>
void check_tiles() {
  for (const Size s : kTileSizes) {
    const Index waits = (s.k + 255) / 256 - 1;  // of totals in C, between chunks
    check_traffic(s, form,
                  {product({4, s.m, s.n, s.k}) * 2 / kTile + product({4, s.m, s.n, waits}),
                   product({4, s.m, s.n, 1 + waits})},
                  [](const auto& p) { gpu::launch_tile<gpu::FloatSum, form, kTile>(Cuda{}, p); });
  }
}
/// Chunks of k side by side: each one's sums are written once and read once.
template <Form form>
void check_split() {
  for (const Size s : {Size{128, 192, 1280}, Size{64, 128, 520}}) {
    const Index chunks = (s.k + 255) / 256;
    check_traffic(
        s, form,
        {product({4, s.m, s.n, s.k}) * 2 / 64 + product({4, s.m, s.n, chunks}),
         product({4, s.m, s.n, chunks + 1})},
        [](const auto& p) { gpu::launch_tiles<gpu::FloatSum, form>(Cuda{}, p); }, 2);
  }
}
template <class E, Form form, int kTile, class T = float>
void check_tensor_tiles() {
  const double of_b = static_cast<double>(sizeof(T));
  for (const Size s : kTileSizes)
    check_traffic<T>(s, form,
                     {product({s.m, s.n, s.k}) * (4 + of_b) / kTile, product({4, s.m, s.n})},
                     [](const auto& p) { gpu::launch_tensor_tile<E, form, kTile>(Cuda{}, p); });
}
template <class E>
void check_tensor_forms() {
  check_tensor_tiles<E, Form::NN, 128>();
  check_tensor_tiles<E, Form::NT, 128>();
  check_tensor_tiles<E, Form::TN, 128>();
  check_tensor_tiles<E, Form::NN, 64>();
  check_tensor_tiles<E, Form::NT, 64>();
  check_tensor_tiles<E, Form::TN, 64>();
}

template <class T>
void check_few_rows() {
  for (const Index m : {4, 8, 16}) {
    const Size s{m, 64, 1024};
    const Index slots = std::min<Index>(32 / m, 4);  // chunks side by side
    check_traffic<T>(s, Form::NT,
                     {product({sizeof(T), s.n, s.k}) + product({4, s.n * slots / 32, m, s.k}),
                      product({4, m, s.n})},
                     [](const auto& p) { gpu::launch_few_rows<gpu::FloatSum>(Cuda{}, p); });
  }
}
template <class E, class T>
void check_tensor_few_rows() {
  const Size s{16, 64, 256};
  check_traffic<T>(
      s, Form::NT,
      {product({sizeof(T), s.n, s.k}) + product({4, s.n / 32, s.m, s.k}), product({4, s.m, s.n})},
      [](const auto& p) { gpu::launch_tensor_few_rows<E>(Cuda{}, p); });
}

}  // namespace

TEST_CASE("traffic of the exact products: bytes as stated, whole sectors, no bank conflicts") {
  check_tiles<Form::NN, 128>();
  check_tiles<Form::NT, 128>();
  check_tiles<Form::TN, 128>();
  check_tiles<Form::NN, 64>();
  check_tiles<Form::NT, 64>();
  check_tiles<Form::TN, 64>();
  check_split<Form::NN>();
  check_split<Form::NT>();
  check_split<Form::TN>();
  check_few_rows<float>();
  check_few_rows<gpu::Bf16Bits>();
}

TEST_CASE("traffic of the tensor-core products: the same") {
  check_tensor_forms<gpu::Bf16Operand>();
  check_tensor_forms<gpu::Tf32Operand>();
  check_tensor_tiles<gpu::Bf16Operand, Form::NT, 128, gpu::Bf16Bits>();
  check_tensor_tiles<gpu::Bf16Operand, Form::NT, 64, gpu::Bf16Bits>();
  check_tensor_few_rows<gpu::Bf16Operand, float>();
  check_tensor_few_rows<gpu::Bf16Operand, gpu::Bf16Bits>();
  check_tensor_few_rows<gpu::Tf32Operand, float>();
}
