// Rung 2: coalesced loads. Neighbouring threads take neighbouring columns instead of rows: two
// lines of the kernel change.
//
// Why it helps: the 32 lanes of a warp now read 32 floats of B side by side, which is 4 sectors of
// 32 bytes and every byte of use, and the same float of A, one sector. 5 sectors per 32
// multiply-adds instead of 33; C is written in whole sectors too.
// Global memory: as many bytes asked for as before, 8·M·N·K, 8.6 GB for 1024³, 0.25 FLOP/B; but 5.4
// GB move instead of 35. Shared memory: none.
// What binds: B comes from the second cache, 128 bytes for each 32 multiply-adds, for nothing in a
// block of 256 columns of one row uses it twice. An A100's second cache gives an SM about 47 bytes
// a clock: nearly three clocks for what the arithmetic does in half a clock.
#pragma once

#include <plumb/cuda/device.cuh>

namespace plumb { inline namespace v0_1 { namespace ladder::gemm_2 {

using namespace kernels;

template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    matmul_kernel(float* c, const float* a, const float* b, Index m, Index n, Index k) {
  const Index element = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  const Index row = element / n, column = element % n;
  if (row >= m) return;
  float sum = 0.0F;
  for (Index p = 0; p < k; ++p) sum = fmaf(a[row * k + p], b[p * n + column], sum);
  c[row * n + column] = sum;
}

/// c (m, n) = a (m, k) · b (k, n).
inline void matmul(Cuda device, float* c, const float* a, const float* b, Index m, Index n,
                   Index k) {
  constexpr int kThreads = 256;
  if (m > 0 && n > 0)
    PLUMB_LAUNCH(matmul_kernel<kThreads>, blocks_for(m * n, kThreads), kThreads, 0, device.stream,
                 c, a, b, m, n, k);
}

}}}  // namespace plumb::v0_1::ladder::gemm_2
