// Rung 4: a column of C in registers. A thread computes 8 elements of C below each other instead of
// one; a block's tile grows to 64 × 64, in steps of 8 along k.
//
// Why it helps: a value of B is read from shared memory once and used for 8 rows out of a register.
// Shared memory: 9 loads (1 of B, 8 of A) per 8 multiply-adds, 1.125 instead of 2; 4.5·M·N·K bytes.
// A row of A's tile is 8 floats: ptxas joins its loads by fours, which leaves 3 requests per 8
// multiply-adds.
// Global memory: 4·M·N·K·(1/64 + 1/64) bytes, 134 MB for 1024³: 16 FLOP/B.
// The price: 8 sums in registers, so fewer threads fit an SM; but they are 8 independent chains,
// and one thread now hides the latency for itself that before took 8 threads.
// What binds: waiting. A step is 64 multiply-adds a thread between two barriers, and begins with a
// trip to global memory of some 500 clocks. Then shared memory: 24 requests per 64 multiply-adds of
// a warp, 0.375 clocks each, beside 0.5 for the arithmetic on an A100 and 0.25 on an H100; A is
// read again for each column.
#pragma once

#include <plumb/cuda/device.cuh>

namespace plumb { inline namespace v0_1 { namespace ladder::gemm_4 {

using namespace kernels;

/// A block's tile is (kTile, kTile), a step kDepth deep, a thread's part kRows of one column.
template <int kTile, int kDepth, int kRows>
__global__ void __launch_bounds__(kTile* kTile / kRows)
    matmul_kernel(float* c, const float* a, const float* b, Index m, Index n, Index k) {
  static_assert(kTile * kTile / kRows == kTile * kDepth, "a thread brings one element of A and B");
  __shared__ float a_tile[kTile][kDepth];
  __shared__ float b_tile[kDepth][kTile];
  const int thread = static_cast<int>(threadIdx.x);
  const Index first_row = static_cast<Index>(blockIdx.y) * kTile;
  const Index first_column = static_cast<Index>(blockIdx.x) * kTile;
  const int i = thread / kTile * kRows, j = thread % kTile;
  float sum[kRows] = {};
  for (Index first = 0; first < k; first += kDepth) {
    const int a_row = thread / kDepth, a_column = thread % kDepth;
    const int b_row = thread / kTile, b_column = thread % kTile;
    a_tile[a_row][a_column] = first_row + a_row < m && first + a_column < k
                                  ? a[(first_row + a_row) * k + first + a_column]
                                  : 0.0F;
    b_tile[b_row][b_column] = first + b_row < k && first_column + b_column < n
                                  ? b[(first + b_row) * n + first_column + b_column]
                                  : 0.0F;
    __syncthreads();
#pragma unroll
    for (int p = 0; p < kDepth; ++p) {
      const float y = b_tile[p][j];
#pragma unroll
      for (int r = 0; r < kRows; ++r) sum[r] = fmaf(a_tile[i + r][p], y, sum[r]);
    }
    __syncthreads();
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    if (first_row + i + r < m && first_column + j < n)
      c[(first_row + i + r) * n + first_column + j] = sum[r];
}

/// c (m, n) = a (m, k) · b (k, n).
inline void matmul(Cuda device, float* c, const float* a, const float* b, Index m, Index n,
                   Index k) {
  constexpr int kTile = 64, kDepth = 8, kRows = 8;
  if (m > 0 && n > 0)
    PLUMB_LAUNCH((matmul_kernel<kTile, kDepth, kRows>),
                 dim3(blocks_for(n, kTile), blocks_for(m, kTile)), kTile * kTile / kRows, 0,
                 device.stream, c, a, b, m, n, k);
}

}}}  // namespace plumb::v0_1::ladder::gemm_4
