// Rung 5: a tile of C in registers. A thread computes 8 × 8 elements of C, not 8 × 1; 256 threads
// make a block's tile of 128 × 128.
//
// Why it helps: R × W multiply-adds take R + W loads, so the nearer to a square and the larger, the
// better.
// Shared memory: 16 loads per 64 multiply-adds, 0.25 instead of 1.125; M·N·K bytes.
// Global memory: 4·M·N·K·(1/128 + 1/128) bytes, 67 MB for 1024³: 32 FLOP/B, more than any part
// needs.
// The price: registers. 64 sums, the operands of several steps (ptxas joins loads that lie side by
// side to requests of 16 bytes, for which it keeps 4 steps of A): some 160 a thread, so one block,
// 8 warps, has an SM's 65,536 for itself. The 64 independent chains have to make up for the warps
// that are missing.
// What binds: bank conflicts. Shared memory lies in 32 banks, word i in bank i mod 32, and answers
// a request in as many turns as the fullest bank has different words. A thread's columns lie side
// by side, so 16 lanes read B 8 words apart, from 4 banks only: 4 turns. The two rows of threads in
// a warp read A 64 words apart, in one bank: 2 turns. 48 turns for 16 loads: 0.75 per multiply-add,
// not 0.25, where the arithmetic takes 0.5 on an A100 and 0.25 on an H100.
// Besides, a thread's 8 columns are a sector, so its neighbours are a sector apart, and each store
// of C touches 32 of them for 128 bytes. Once for all of k; rung 6 mends it by the way.
#pragma once

#include <plumb/cuda/device.cuh>

namespace plumb { inline namespace v0_1 { namespace ladder::gemm_5 {

using namespace kernels;

/// A block's tile is (kTile, kTile), a step kDepth deep, a thread's part (kSide, kSide).
template <int kTile, int kDepth, int kSide>
__global__ void __launch_bounds__(kTile* kTile / (kSide * kSide))
    matmul_kernel(float* c, const float* a, const float* b, Index m, Index n, Index k) {
  constexpr int kThreads = kTile * kTile / (kSide * kSide);
  __shared__ float a_tile[kTile][kDepth];
  __shared__ float b_tile[kDepth][kTile];
  const int thread = static_cast<int>(threadIdx.x);
  const Index first_row = static_cast<Index>(blockIdx.y) * kTile;
  const Index first_column = static_cast<Index>(blockIdx.x) * kTile;
  const int i = thread / (kTile / kSide) * kSide, j = thread % (kTile / kSide) * kSide;
  float sum[kSide][kSide] = {};
  for (Index first = 0; first < k; first += kDepth) {
#pragma unroll
    for (int part = 0; part < kTile * kDepth; part += kThreads) {
      const int e = part + thread;
      const int a_row = e / kDepth, a_column = e % kDepth;
      const int b_row = e / kTile, b_column = e % kTile;
      a_tile[a_row][a_column] = first_row + a_row < m && first + a_column < k
                                    ? a[(first_row + a_row) * k + first + a_column]
                                    : 0.0F;
      b_tile[b_row][b_column] = first + b_row < k && first_column + b_column < n
                                    ? b[(first + b_row) * n + first_column + b_column]
                                    : 0.0F;
    }
    __syncthreads();
#pragma unroll
    for (int p = 0; p < kDepth; ++p) {
      float x[kSide], y[kSide];
#pragma unroll
      for (int r = 0; r < kSide; ++r) x[r] = a_tile[i + r][p];
#pragma unroll
      for (int s = 0; s < kSide; ++s) y[s] = b_tile[p][j + s];
#pragma unroll
      for (int r = 0; r < kSide; ++r)
#pragma unroll
        for (int s = 0; s < kSide; ++s) sum[r][s] = fmaf(x[r], y[s], sum[r][s]);
    }
    __syncthreads();
  }
#pragma unroll
  for (int r = 0; r < kSide; ++r)
#pragma unroll
    for (int s = 0; s < kSide; ++s)
      if (first_row + i + r < m && first_column + j + s < n)
        c[(first_row + i + r) * n + first_column + j + s] = sum[r][s];
}

/// c (m, n) = a (m, k) · b (k, n).
inline void matmul(Cuda device, float* c, const float* a, const float* b, Index m, Index n,
                   Index k) {
  constexpr int kTile = 128, kDepth = 8, kSide = 8;
  if (m > 0 && n > 0)
    PLUMB_LAUNCH((matmul_kernel<kTile, kDepth, kSide>),
                 dim3(blocks_for(n, kTile), blocks_for(m, kTile)), kTile * kTile / (kSide * kSide),
                 0, device.stream, c, a, b, m, n, k);
}

}}}  // namespace plumb::v0_1::ladder::gemm_5
