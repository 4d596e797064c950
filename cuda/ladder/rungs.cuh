// The rungs in order, for the test that runs all of them and the program that counts or times them.
#pragma once

#include <ladder/attention_1_materialised.cuh>
#include <ladder/attention_2_fused_row.cuh>
#include <ladder/attention_3_tiled.cuh>
#include <ladder/attention_4_tensor_core.cuh>
#include <ladder/attention_5_library.cuh>
#include <ladder/gemm_10_tensor_core.cuh>
#include <ladder/gemm_11_pipelined_tensor_core.cuh>
#include <ladder/gemm_12_library.cuh>
#include <ladder/gemm_1_naive.cuh>
#include <ladder/gemm_2_coalesced.cuh>
#include <ladder/gemm_3_shared_tile.cuh>
#include <ladder/gemm_4_register_column.cuh>
#include <ladder/gemm_5_register_tile.cuh>
#include <ladder/gemm_6_vector_loads.cuh>
#include <ladder/gemm_7_no_bank_conflicts.cuh>
#include <ladder/gemm_8_double_buffer.cuh>
#include <ladder/gemm_9_library.cuh>
#include <ladder/reduce_1_interleaved.cuh>
#include <ladder/reduce_2_sequential.cuh>
#include <ladder/reduce_3_library.cuh>
#include <ladder/softmax_1_three_passes.cuh>
#include <ladder/softmax_2_warp_row.cuh>
#include <ladder/softmax_3_online.cuh>
#include <ladder/softmax_4_registers.cuh>
#include <ladder/softmax_5_library.cuh>

#include <plumb/core/bf16.hpp>

namespace plumb { inline namespace v0_1 { namespace ladder {

/// One of the two functions is there: a product of floats or of bf16. The last rounds its floats to
/// bf16.
struct Gemm {
  const char *name, *idea;
  void (*matmul)(Cuda, float* c, const float* a, const float* b, Index m, Index n, Index k);
  void (*matmul_bf16)(Cuda, float* c, const bf16* a, const bf16* b, Index m, Index n, Index k);
  bool tensor_core = matmul_bf16 != nullptr;
};
inline constexpr Gemm kGemm[] = {
    {"gemm_1_naive", "the definition, a thread an element", gemm_1::matmul, nullptr},
    {"gemm_2_coalesced", "neighbouring lanes, neighbouring columns", gemm_2::matmul, nullptr},
    {"gemm_3_shared_tile", "tiles of A and B in shared memory", gemm_3::matmul, nullptr},
    {"gemm_4_register_column", "8 × 1 of C in a thread's registers", gemm_4::matmul, nullptr},
    {"gemm_5_register_tile", "8 × 8 of C in a thread's registers", gemm_5::matmul, nullptr},
    {"gemm_6_vector_loads", "accesses of 16 bytes, A transposed", gemm_6::matmul, nullptr},
    {"gemm_7_no_bank_conflicts", "padded rows, split columns", gemm_7::matmul, nullptr},
    {"gemm_8_double_buffer", "the next tiles come by cp.async", gemm_8::matmul, nullptr},
    {"gemm_9_library", "the library: C in the CPU's order", gemm_9::matmul, nullptr},
    {"gemm_10_tensor_core", "bf16 operands: ldmatrix, mma", nullptr, gemm_10::matmul},
    {"gemm_11_pipelined_tensor_core", "3 stages, swizzle for padding", nullptr, gemm_11::matmul},
    {"gemm_12_library", "the library: floats, rounded on the way", gemm_12::matmul, nullptr, true},
};

struct Softmax {
  const char *name, *idea;
  void (*softmax)(Cuda, float* y, const float* x, Index rows, Index n);
};
inline constexpr Softmax kSoftmax[] = {
    {"softmax_1_three_passes", "the definition, a thread a row", softmax_1::softmax},
    {"softmax_2_warp_row", "a warp a row, joined by shuffles", softmax_2::softmax},
    {"softmax_3_online", "largest and sum in one pass", softmax_3::softmax},
    {"softmax_4_registers", "the row in registers, 16 bytes an access", softmax_4::softmax},
    {"softmax_5_library", "the library: rung 2 in the CPU's order", softmax_5::softmax},
};

/// Likewise of floats or of bf16; kSize is the head's size, 32, 64 or 128.
template <int kSize>
struct Attention {
  const char *name, *idea;
  void (*attention)(Cuda, float* out, const float* q, const float* k, const float* v, Index t);
  void (*attention_bf16)(Cuda, float* out, const bf16* q, const bf16* k, const bf16* v, Index t);
};
template <int kSize>
inline constexpr Attention<kSize> kAttention[] = {
    {"attention_1_materialised", "three kernels, scores in memory", attention_1::attention<kSize>,
     nullptr},
    {"attention_2_fused_row", "online softmax, a warp a query", attention_2::attention<kSize>,
     nullptr},
    {"attention_3_tiled", "keys and values in shared memory", attention_3::attention<kSize>,
     nullptr},
    {"attention_4_tensor_core", "bf16 operands: both products by mma", nullptr,
     attention_4::attention<kSize>},
    {"attention_5_library", "the library: floats in the CPU's order", attention_5::attention<kSize>,
     nullptr},
};

struct Sum {
  const char *name, *idea;
  void (*sum)(Cuda, float* result, const float* x, Index n);
};
inline constexpr Sum kSum[] = {
    {"reduce_1_interleaved", "a tree in shared memory, neighbours first", reduce_1::sum},
    {"reduce_2_sequential", "halves first", reduce_2::sum},
    {"reduce_3_library", "the library: 128 elements a lane, then shuffles", reduce_3::sum},
};

}}}  // namespace plumb::v0_1::ladder
