// Rung 11: a pipeline of copies. Three pairs of tiles instead of one: while the warps multiply with
// one, two more are on their way, and only one barrier separates the steps. To hold three pairs in
// the 48 KiB that a block gets unasked, the padding goes; a swizzle takes its place.
//
// Why it helps: a step is 32 deep, 128·128·32 multiply-adds, 512 clocks of an A100's tensor cores a
// block: about memory's latency. With one step ahead nothing is to spare, with two there is.
// The swizzle: piece i (16 bytes) of row r lies at place i XOR f(r). Rows of A are 64 bytes, two to
// a line of 128: f(r) = r / 2 mod 4; rows of B 256 bytes: f(r) = r mod 8. The 8 pieces that
// ldmatrix reads at once, one of each of 8 rows, then cover all 32 banks, and so do the pieces that
// a copy writes. No byte is lost.
// Global memory: 2·M·N·K·(1/128 + 1/128) bytes, 34 MB for 1024³ and 4 MB of C: 64 FLOP/B. Shared
// memory: 2·M·N·K·(1/64 + 1/32) bytes, 0.1 GB: 24 turns for 32,768 multiply-adds, 32 clocks of an
// A100, 16 of an H100.
// What binds: the tensor cores on an A100; shared memory on an H100, whose wgmma reads operands
// from there without ldmatrix and for 4 warps at once, fed by TMA. That is another machine, and not
// in this ladder.
#pragma once

#include <plumb/core/bf16.hpp>
#include <plumb/cuda/device.cuh>

#include <cstdint>

namespace plumb { inline namespace v0_1 { namespace ladder::gemm_11 {

using namespace kernels;

inline constexpr int kTile = 128, kDepth = 32, kStages = 3, kThreads = 256;

/// Where the 8 elements from a column on lie in the tile of A, (kTile, kDepth), and of B, (kDepth,
/// kTile).
__device__ inline int a_place(int row, int column) {
  return row * kDepth + ((column / 8) ^ (row / 2 % 4)) * 8;
}
__device__ inline int b_place(int row, int column) {
  return row * kTile + ((column / 8) ^ (row % 8)) * 8;
}

/// Begins to bring elements column … column + 7 of a row of `columns`, zeros beyond it and for no
/// row.
template <bool kAligned>
__device__ inline void fetch(std::uint16_t* to, const bf16* base, Index row, Index column,
                             Index rows, Index columns) {
  const bool inside = row < rows && column < columns;
  const bf16* from = inside ? base + row * columns + column : base;
  if (kAligned) {
    cp_async_16(to, from, inside ? 16 : 0);
  } else {
#pragma unroll
    for (int e = 0; e < 8; ++e)
      to[e] = inside && column + e < columns ? from[e].bits : std::uint16_t{0};
  }
}

/// sum += the warp's 64 rows of A's tile · its 32 columns of B's tile.
__device__ inline void multiply(float (&sum)[4][4][4], const std::uint16_t* a_tile,
                                const std::uint16_t* b_tile, int warp_row, int warp_column,
                                int lane) {
#pragma unroll
  for (int p = 0; p < kDepth; p += 16) {
    std::uint32_t x[4][4], y[2][4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      ldmatrix_x4(x[i], a_tile + a_place(warp_row + i * 16 + lane % 16, p + lane / 16 * 8));
#pragma unroll
    for (int j = 0; j < 2; ++j)
      ldmatrix_x4_transposed(y[j],
                             b_tile + b_place(p + lane % 16, warp_column + j * 16 + lane / 16 * 8));
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const std::uint32_t pair[2] = {y[j / 2][j % 2 * 2], y[j / 2][j % 2 * 2 + 1]};
        mma_bf16(sum[i][j], x[i], pair);
      }
  }
}

/// A block's tile is (kTile, kTile), a step kDepth deep; a warp's part is (64, 32), 4 × 4 of mma's
/// tiles.
template <bool kAligned>
__global__ void __launch_bounds__(kThreads)
    matmul_kernel(float* c, const bf16* a, const bf16* b, Index m, Index n, Index k) {
  __shared__ __align__(16) std::uint16_t a_tile[kStages][kTile * kDepth];
  __shared__ __align__(16) std::uint16_t b_tile[kStages][kDepth * kTile];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const Index first_row = static_cast<Index>(blockIdx.y) * kTile;
  const Index first_column = static_cast<Index>(blockIdx.x) * kTile;
  const int warp_row = warp / 4 * 64, warp_column = warp % 4 * 32;
  const auto fetch_step = [&](int stage, Index first) {
    if (first < k) {
#pragma unroll
      for (int part = 0; part < kTile * kDepth / 8; part += kThreads) {
        const int e = part + thread;
        const int a_row = e / 4, a_column = e % 4 * 8, b_row = e / 16, b_column = e % 16 * 8;
        fetch<kAligned>(&a_tile[stage][a_place(a_row, a_column)], a, first_row + a_row,
                        first + a_column, m, k);
        fetch<kAligned>(&b_tile[stage][b_place(b_row, b_column)], b, first + b_row,
                        first_column + b_column, k, n);
      }
    }
    cp_async_commit();  // an empty group at the end, so that the count of groups goes on
  };
  float sum[4][4][4] = {};
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) fetch_step(s, s * kDepth);
  int stage = 0;
  for (Index first = 0; first < k; first += kDepth) {
    cp_async_wait<kStages - 2>();
    __syncthreads();  // this stage is there for all, and all have done with the one before it
    fetch_step(stage == 0 ? kStages - 1 : stage - 1, first + (kStages - 1) * kDepth);
    multiply(sum, a_tile[stage], b_tile[stage], warp_row, warp_column, lane);
    stage = stage == kStages - 1 ? 0 : stage + 1;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const Index row = first_row + warp_row + i * 16 + lane / 4 + e / 2 * 8;
        const Index column = first_column + warp_column + j * 8 + lane % 4 * 2 + e % 2;
        if (row < m && column < n) c[row * n + column] = sum[i][j][e];
      }
}

/// c (m, n) = a (m, k) · b (k, n).
inline void matmul(Cuda device, float* c, const bf16* a, const bf16* b, Index m, Index n, Index k) {
  if (m == 0 || n == 0) return;
  const dim3 grid(blocks_for(n, kTile), blocks_for(m, kTile));
  const auto places = reinterpret_cast<std::uintptr_t>(a) | reinterpret_cast<std::uintptr_t>(b);
  if (n % 8 == 0 && k % 8 == 0 && places % 16 == 0)
    PLUMB_LAUNCH(matmul_kernel<true>, grid, kThreads, 0, device.stream, c, a, b, m, n, k);
  else
    PLUMB_LAUNCH(matmul_kernel<false>, grid, kThreads, 0, device.stream, c, a, b, m, n, k);
}

}}}  // namespace plumb::v0_1::ladder::gemm_11
