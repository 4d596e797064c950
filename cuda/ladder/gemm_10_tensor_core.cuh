// Rung 10: tensor cores. A and B are bf16 (8 bits of precision, a float's range), sums stay float.
// One instruction of a warp, mma.m16n8k16, does 2048 multiply-adds: a (16, 16) times (16, 8), each
// operand spread over the registers of the 32 lanes in an order that the instruction prescribes;
// ldmatrix brings four 8 × 8 matrices from shared memory to just that order, and transposed if
// asked, as B needs.
//
// Why it helps: an A100 does 312 TFLOP/s so instead of 19.5, an H100 989 instead of 67 (dense, both
// of them; an H100 needs other instructions, wgmma, for all of it). And an element is 2 bytes
// instead of 4.
// Global memory: 2·M·N·K·(1/128 + 1/128) bytes, 34 MB for 1024³ and 4 MB of C: 64 FLOP/B. An A100
// needs 200 if all came from memory, an H100 295: the second cache has to serve blocks that share
// rows or columns.
// Shared memory: a warp reads its 64 rows of A and 32 columns of B once per step of k,
// 2·M·N·K·(1/64 + 1/32) bytes, 0.1 GB. Rows are padded by 16 bytes, so that 8 rows' pieces of 16
// bytes cover all 32 banks.
// What it costs: operands rounded to bf16, up to 2⁻⁸ of their size. Products are exact and sums are
// float; the order of a tensor core's sums is not documented.
// What binds: waiting. Each step copies, waits for all of it, multiplies: 16 times the arithmetic
// has made rung 8's idea 16 times as dear to do without. It is left out here, to stay with one
// idea. Besides, copies write rows of 80 and 272 bytes, whose pieces do not always meet different
// banks; and C leaves as the instruction holds it, 4 bytes a lane and every other word, 8 sectors a
// request where 4 would do.
#pragma once

#include <plumb/core/bf16.hpp>
#include <plumb/cuda/device.cuh>

#include <cstdint>

namespace plumb { inline namespace v0_1 { namespace ladder::gemm_10 {

using namespace kernels;

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

/// A block's tile is (128, 128), a step 32 deep; a warp's part is (64, 32), 4 × 4 of mma's tiles.
template <bool kAligned>
__global__ void __launch_bounds__(256)
    matmul_kernel(float* c, const bf16* a, const bf16* b, Index m, Index n, Index k) {
  constexpr int kTile = 128, kDepth = 32, kThreads = 256;
  __shared__ __align__(16) std::uint16_t a_tile[kTile][kDepth + 8];
  __shared__ __align__(16) std::uint16_t b_tile[kDepth][kTile + 8];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const Index first_row = static_cast<Index>(blockIdx.y) * kTile;
  const Index first_column = static_cast<Index>(blockIdx.x) * kTile;
  const int warp_row = warp / 4 * 64, warp_column = warp % 4 * 32;
  float sum[4][4][4] = {};
  for (Index first = 0; first < k; first += kDepth) {
#pragma unroll
    for (int part = 0; part < kTile * kDepth / 8; part += kThreads) {
      const int e = part + thread;
      const int a_row = e / 4, a_column = e % 4 * 8, b_row = e / 16, b_column = e % 16 * 8;
      fetch<kAligned>(&a_tile[a_row][a_column], a, first_row + a_row, first + a_column, m, k);
      fetch<kAligned>(&b_tile[b_row][b_column], b, first + b_row, first_column + b_column, k, n);
    }
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
#pragma unroll
    for (int p = 0; p < kDepth; p += 16) {
      std::uint32_t x[4][4], y[2][4];
#pragma unroll
      for (int i = 0; i < 4; ++i)
        ldmatrix_x4(x[i], &a_tile[warp_row + i * 16 + lane % 16][p + lane / 16 * 8]);
#pragma unroll
      for (int j = 0; j < 2; ++j)
        ldmatrix_x4_transposed(y[j], &b_tile[p + lane % 16][warp_column + j * 16 + lane / 16 * 8]);
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const std::uint32_t pair[2] = {y[j / 2][j % 2 * 2], y[j / 2][j % 2 * 2 + 1]};
          mma_bf16(sum[i][j], x[i], pair);
        }
    }
    __syncthreads();
  }
  // Lane l holds rows l / 4 and 8 further, columns 2 (l mod 4) and the next, of each 16 × 8.
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
  const dim3 grid(blocks_for(n, 128), blocks_for(m, 128));
  const auto places = reinterpret_cast<std::uintptr_t>(a) | reinterpret_cast<std::uintptr_t>(b);
  if (n % 8 == 0 && k % 8 == 0 && places % 16 == 0)
    PLUMB_LAUNCH(matmul_kernel<true>, grid, 256, 0, device.stream, c, a, b, m, n, k);
  else
    PLUMB_LAUNCH(matmul_kernel<false>, grid, 256, 0, device.stream, c, a, b, m, n, k);
}

}}}  // namespace plumb::v0_1::ladder::gemm_10
