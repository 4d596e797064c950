// Rung 3: tiles in shared memory. A block computes 32 × 32 of C. It walks along k in steps of 32;
// in each, its threads bring one tile of A and one of B to shared memory, wait for each other, and
// use both.
//
// Why it helps: an element that is brought once serves 32 threads: the 32 columns or the 32 rows.
// Global memory: 4·M·N·K·(1/32 + 1/32) bytes, 268 MB for 1024³ instead of 8.6 GB: 8 FLOP/B. An A100
// needs 12.5 to be bound by arithmetic if all of that came from memory; much comes from the second
// cache.
// Shared memory: two loads per multiply-add, 8·M·N·K bytes. A warp is one row of the tile: all
// lanes read the same float of A (a broadcast) and 32 consecutive ones of B: no bank conflicts.
// ptxas joins four broadcasts that lie side by side to one request of 16 bytes, which leaves 1.25.
// What binds: shared memory. It answers one request of a warp a clock: more than a clock per
// multiply-add of a warp, where an A100 needs half a clock (64 lanes of float a clock) and an H100
// a quarter.
#pragma once

#include <plumb/cuda/device.cuh>

namespace plumb { inline namespace v0_1 { namespace ladder::gemm_3 {

using namespace kernels;

template <int kTile>
__global__ void __launch_bounds__(kTile* kTile)
    matmul_kernel(float* c, const float* a, const float* b, Index m, Index n, Index k) {
  __shared__ float a_tile[kTile][kTile];
  __shared__ float b_tile[kTile][kTile];
  const int i = static_cast<int>(threadIdx.x) / kTile, j = static_cast<int>(threadIdx.x) % kTile;
  const Index row = static_cast<Index>(blockIdx.y) * kTile + i;
  const Index column = static_cast<Index>(blockIdx.x) * kTile + j;
  float sum = 0.0F;
  for (Index first = 0; first < k; first += kTile) {
    a_tile[i][j] = row < m && first + j < k ? a[row * k + first + j] : 0.0F;
    b_tile[i][j] = first + i < k && column < n ? b[(first + i) * n + column] : 0.0F;
    __syncthreads();
#pragma unroll
    for (int p = 0; p < kTile; ++p) sum = fmaf(a_tile[i][p], b_tile[p][j], sum);
    __syncthreads();  // all have read before anyone writes the next tiles
  }
  if (row < m && column < n) c[row * n + column] = sum;
}

/// c (m, n) = a (m, k) · b (k, n).
inline void matmul(Cuda device, float* c, const float* a, const float* b, Index m, Index n,
                   Index k) {
  constexpr int kTile = 32;
  if (m > 0 && n > 0)
    PLUMB_LAUNCH(matmul_kernel<kTile>, dim3(blocks_for(n, kTile), blocks_for(m, kTile)),
                 kTile * kTile, 0, device.stream, c, a, b, m, n, k);
}

}}}  // namespace plumb::v0_1::ladder::gemm_3
