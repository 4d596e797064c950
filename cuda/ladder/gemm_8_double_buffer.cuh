// Rung 8: double buffering with asynchronous copies. Shared memory holds two of each tile: while
// the block multiplies with one pair, the next is on its way. cp.async brings 16 bytes from global
// to shared memory without passing through registers, and the thread goes on at once.
//
// Why it helps: memory's latency, some 500 clocks, runs beside the 8·64 multiply-adds of each
// thread in a step, which take an SM of an A100 2048 clocks. One barrier a step instead of two: who
// has passed it knows that all have done with the other pair.
// Global memory: 4·M·N·K·(1/128 + 1/128) bytes, 67 MB for 1024³, 32 FLOP/B. Shared memory: M·N·K
// bytes read; 20 KiB instead of 8.
// A copy cannot transpose. So A's tile keeps its rows, and a thread reads 4 steps of k of a row at
// once: 8 loads of A and 8 of B per 4 steps, as many as before. Rows are padded to 12 words, and a
// thread's rows are 16 apart, so that the two rows that a warp reads together lie in different
// banks.
// The price: 4 steps of A in registers, 150 to 170 a thread, so that an SM holds one block and not
// two. The copies ahead do for it what the other block did.
// Where the rows of A and B are no multiples of 4 floats, copies are made element by element, and
// wait.
// What binds: the arithmetic, on an A100; on an H100 shared memory as much. 16 requests of 16 bytes
// a lane come with 256 multiply-adds; at 8 lanes a turn that is 64 turns, 0.25 per multiply-add of
// a warp, which an H100 does in 0.25 clocks.
#pragma once

#include <plumb/cuda/device.cuh>

#include <cstdint>

namespace plumb { inline namespace v0_1 { namespace ladder::gemm_8 {

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

/// A block's tile is (kTile, kTile), a step 8 deep; a thread's part is 8 rows of twice 4 columns.
template <int kTile, bool kAligned>
__global__ void __launch_bounds__(kTile* kTile / 64)
    matmul_kernel(float* c, const float* a, const float* b, Index m, Index n, Index k) {
  static_assert(kTile * kTile / 64 == kTile * 8 / 4, "a thread brings four elements of A and B");
  constexpr int kApart = kTile / 8;  // between the rows of a thread
  __shared__ __align__(16) float a_tile[2][kTile][12];
  __shared__ __align__(16) float b_tile[2][8][kTile];
  const int thread = static_cast<int>(threadIdx.x);
  const Index first_row = static_cast<Index>(blockIdx.y) * kTile;
  const Index first_column = static_cast<Index>(blockIdx.x) * kTile;
  const int i = thread / kApart, j = thread % kApart * 4;
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
        const float4 v = load4(&a_tile[buffer][i + r * kApart][p]);
        x[r][0] = v.x, x[r][1] = v.y, x[r][2] = v.z, x[r][3] = v.w;
      }
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        const float4 y0 = load4(&b_tile[buffer][p + q][j]);
        const float4 y1 = load4(&b_tile[buffer][p + q][j + kTile / 2]);
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
    const Index row = first_row + i + r * kApart;
    if (row >= m) break;
#pragma unroll
    for (int s = 0; s < 8; s += 4)
      store_row<kAligned>(c + row * n, first_column + j + s / 4 * (kTile / 2), n,
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

}}}  // namespace plumb::v0_1::ladder::gemm_8
