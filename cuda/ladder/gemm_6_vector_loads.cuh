// Rung 6: loads of 16 bytes. Global memory is read and shared memory is read four floats at a time;
// for that a thread's 8 values of A have to lie side by side, so A's tile is transposed on its way
// in.
//
// Why it helps: a request of 16 bytes a lane is one instruction instead of four. Per step of k a
// thread issues 4 loads of shared memory for 64 multiply-adds where rung 5 wrote 16: of an H100's
// issue slots, any of which can begin a multiply-add, a sixteenth goes to loading and not a fifth.
// Where ptxas had joined rung 5's by itself it needed 4 steps of A at hand; transposed, A costs 123
// registers and not 160, and two blocks share an SM. The block brings a step's tiles with 2 loads a
// thread instead of 8.
// Global memory: 4·M·N·K·(1/128 + 1/128) bytes as before, 67 MB for 1024³, 32 FLOP/B, in a quarter
// of the requests. Shared memory: M·N·K bytes read as before, in a quarter of the requests.
// Rows whose length is no multiple of 4 do not lie at 16-byte boundaries; those are read by
// elements.
// What binds: bank conflicts, still. A request of 16 bytes a lane is served 8 lanes at a time; 8
// lanes of B, 32 bytes apart, cover half of the banks twice: 2 turns. And the transposing stores
// put 16 floats of one column beside 16 of another, 4·128 words away, in the same banks: 2 turns.
#pragma once

#include <plumb/cuda/device.cuh>

#include <cstdint>

namespace plumb { inline namespace v0_1 { namespace ladder::gemm_6 {

using namespace kernels;

/// Elements column … column + 3 of a row of `columns`, zeros beyond it; nothing of a row that is
/// not inside.
template <bool kAligned>
__device__ inline float4 load_row(const float* row, Index column, Index columns, bool inside) {
  if (!inside || column >= columns) return make_float4(0.0F, 0.0F, 0.0F, 0.0F);
  if (kAligned) return load4(row + column);  // a multiple of 4 columns: all four or none
  const Index left = columns - column;
  return make_float4(row[column], left > 1 ? row[column + 1] : 0.0F,
                     left > 2 ? row[column + 2] : 0.0F, left > 3 ? row[column + 3] : 0.0F);
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

/// A block's tile is (kTile, kTile), a step 8 deep, a thread's part (8, 8).
template <int kTile, bool kAligned>
__global__ void __launch_bounds__(kTile* kTile / 64)
    matmul_kernel(float* c, const float* a, const float* b, Index m, Index n, Index k) {
  static_assert(kTile * kTile / 64 == kTile * 8 / 4, "a thread brings four elements of A and B");
  __shared__ __align__(16) float a_tile[8][kTile];  // transposed: [k][row]
  __shared__ __align__(16) float b_tile[8][kTile];
  const int thread = static_cast<int>(threadIdx.x);
  const Index first_row = static_cast<Index>(blockIdx.y) * kTile;
  const Index first_column = static_cast<Index>(blockIdx.x) * kTile;
  const int i = thread / (kTile / 8) * 8, j = thread % (kTile / 8) * 8;
  const int a_row = thread / 2, a_column = thread % 2 * 4;
  const int b_row = thread / (kTile / 4), b_column = thread % (kTile / 4) * 4;
  float sum[8][8] = {};
  for (Index first = 0; first < k; first += 8) {
    const float4 x =
        load_row<kAligned>(a + (first_row + a_row) * k, first + a_column, k, first_row + a_row < m);
    a_tile[a_column][a_row] = x.x;
    a_tile[a_column + 1][a_row] = x.y;
    a_tile[a_column + 2][a_row] = x.z;
    a_tile[a_column + 3][a_row] = x.w;
    store4(
        &b_tile[b_row][b_column],
        load_row<kAligned>(b + (first + b_row) * n, first_column + b_column, n, first + b_row < k));
    __syncthreads();
#pragma unroll
    for (int p = 0; p < 8; ++p) {
      const float4 x0 = load4(&a_tile[p][i]), x1 = load4(&a_tile[p][i + 4]);
      const float4 y0 = load4(&b_tile[p][j]), y1 = load4(&b_tile[p][j + 4]);
      const float x8[8] = {x0.x, x0.y, x0.z, x0.w, x1.x, x1.y, x1.z, x1.w};
      const float y8[8] = {y0.x, y0.y, y0.z, y0.w, y1.x, y1.y, y1.z, y1.w};
#pragma unroll
      for (int r = 0; r < 8; ++r)
#pragma unroll
        for (int s = 0; s < 8; ++s) sum[r][s] = fmaf(x8[r], y8[s], sum[r][s]);
    }
    __syncthreads();
  }
#pragma unroll
  for (int r = 0; r < 8; ++r) {
    const Index row = first_row + i + r;
    if (row >= m) break;
#pragma unroll
    for (int s = 0; s < 8; s += 4)
      store_row<kAligned>(c + row * n, first_column + j + s, n,
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

}}}  // namespace plumb::v0_1::ladder::gemm_6
