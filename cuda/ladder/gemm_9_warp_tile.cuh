// Rung 9: a tile for each warp. Rung 8's warps each worked on 16 × 128 of the block's tile, as the
// numbers of their threads happened to fall; now a warp has 64 × 32 of it, its lanes standing 8
// high and 4 wide.
//
// Why it helps: a warp reads its rows of A and its columns of B. For one step of k those were 16 +
// 128 different floats, now they are 64 + 32: a third fewer for the same 2048 multiply-adds.
// Whether that saves turns depends on the hardware: a request of 16 bytes a lane is served 8 lanes
// at a time, and whether lanes of different eights that want the same words share a turn is not
// documented. Counted without that, nothing changes. But this is the shape that the tensor cores'
// instructions, which a warp executes together, will ask for.
// Global memory: 4·M·N·K·(1/128 + 1/128) bytes, 67 MB for 1024³, 32 FLOP/B. Shared memory: M·N·K
// bytes asked for by the lanes, of which 4·M·N·K·(1/64 + 1/32) = 0.19·M·N·K differ within a warp.
// Banks: rows of 12 words put the 8 rows that a warp reads together 12 banks apart: 0, 12, 24, 4,
// 16, 28, 8, 20, four words each: all different.
// What binds: the arithmetic, on an A100; on an H100 every instruction that is no multiply-add
// costs its slot, and shared memory 0.25 turns per multiply-add. What is left is to multiply more
// per instruction.
#pragma once

#include <plumb/cuda/device.cuh>

#include <cstdint>

namespace plumb { inline namespace v0_1 { namespace ladder::gemm_9 {

using namespace kernels;

/// Begins to bring elements column … column + 3 of a row of `columns`, zeros beyond it and for no
/// row.
template <bool kAligned>
__device__ inline void fetch(float* to, const float* base, Index row, Index column, Index rows,
                             Index columns) {
  const bool inside = row < rows && column < columns;
  const float* from = inside ? base + row * columns + column : base;
  if (kAligned) {
    cp_async_16(to, from, inside ? 16 : 0);
  } else {
#pragma unroll
    for (int e = 0; e < 4; ++e) to[e] = inside && column + e < columns ? from[e] : 0.0F;
  }
}

/// Elements column … column + 3 of a row of `columns`, none beyond it.
template <bool kAligned>
__device__ inline void store_row(float* row, Index column, Index columns, float4 v) {
  if constexpr (kAligned) {
    if (column < columns) store4(row + column, v);
  } else {
    if (column < columns) row[column] = v.x;
    if (column + 1 < columns) row[column + 1] = v.y;
    if (column + 2 < columns) row[column + 2] = v.z;
    if (column + 3 < columns) row[column + 3] = v.w;
  }
}

/// A block's tile is (kTile, kTile), a step 8 deep, a warp's part (64, 32), a thread's 8 rows of
/// twice 4 columns.
template <int kTile, bool kAligned>
__global__ void __launch_bounds__(kTile* kTile / 64)
    matmul_kernel(float* c, const float* a, const float* b, Index m, Index n, Index k) {
  static_assert(kTile * kTile / 64 == kTile * 8 / 4, "a thread brings four elements of A and B");
  constexpr int kWarpColumns = kTile / 32;  // warps side by side
  __shared__ __align__(16) float a_tile[2][kTile][12];
  __shared__ __align__(16) float b_tile[2][8][kTile];
  const int thread = static_cast<int>(threadIdx.x);
  const Index first_row = static_cast<Index>(blockIdx.y) * kTile;
  const Index first_column = static_cast<Index>(blockIdx.x) * kTile;
  const int warp = thread / 32, lane = thread % 32;
  const int i = warp / kWarpColumns * 64 + lane / 4, j = warp % kWarpColumns * 32 + lane % 4 * 4;
  const int a_row = thread / 2, a_column = thread % 2 * 4;
  const int b_row = thread / (kTile / 4), b_column = thread % (kTile / 4) * 4;
  const auto fetch_step = [&](int buffer, Index first) {
    fetch<kAligned>(&a_tile[buffer][a_row][a_column], a, first_row + a_row, first + a_column, m, k);
    fetch<kAligned>(&b_tile[buffer][b_row][b_column], b, first + b_row, first_column + b_column, k,
                    n);
    cp_async_commit();
  };
  float sum[8][8] = {};
  if (k > 0) fetch_step(0, 0);
  int buffer = 0;
  for (Index first = 0; first < k; first += 8, buffer ^= 1) {
    cp_async_wait<0>();
    __syncthreads();  // this step's tiles are there for all; nobody reads the other pair now
    if (first + 8 < k) fetch_step(buffer ^ 1, first + 8);
#pragma unroll
    for (int p = 0; p < 8; p += 4) {
      float x[8][4];
#pragma unroll
      for (int r = 0; r < 8; ++r) {
        const float4 v = load4(&a_tile[buffer][i + r * 8][p]);
        x[r][0] = v.x, x[r][1] = v.y, x[r][2] = v.z, x[r][3] = v.w;
      }
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        const float4 y0 = load4(&b_tile[buffer][p + q][j]);
        const float4 y1 = load4(&b_tile[buffer][p + q][j + 16]);
        const float y[8] = {y0.x, y0.y, y0.z, y0.w, y1.x, y1.y, y1.z, y1.w};
#pragma unroll
        for (int r = 0; r < 8; ++r)
#pragma unroll
          for (int s = 0; s < 8; ++s) sum[r][s] = fmaf(x[r][q], y[s], sum[r][s]);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < 8; ++r) {
    const Index row = first_row + i + r * 8;
    if (row >= m) break;
#pragma unroll
    for (int s = 0; s < 8; s += 4)
      store_row<kAligned>(c + row * n, first_column + j + s / 4 * 16, n,
                          make_float4(sum[r][s], sum[r][s + 1], sum[r][s + 2], sum[r][s + 3]));
  }
}

/// c (m, n) = a (m, k) · b (k, n).
inline void matmul(Cuda device, float* c, const float* a, const float* b, Index m, Index n,
                   Index k) {
  constexpr int kTile = 128;
  if (m == 0 || n == 0) return;
  const dim3 grid(blocks_for(n, kTile), blocks_for(m, kTile));
  const auto places = reinterpret_cast<std::uintptr_t>(a) | reinterpret_cast<std::uintptr_t>(b) |
                      reinterpret_cast<std::uintptr_t>(c);
  if (n % 4 == 0 && k % 4 == 0 && places % 16 == 0)
    PLUMB_LAUNCH((matmul_kernel<kTile, true>), grid, kTile * kTile / 64, 0, device.stream, c, a, b,
                 m, n, k);
  else
    PLUMB_LAUNCH((matmul_kernel<kTile, false>), grid, kTile * kTile / 64, 0, device.stream, c, a, b,
                 m, n, k);
}

}}}  // namespace plumb::v0_1::ladder::gemm_9
