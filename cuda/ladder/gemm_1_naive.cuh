// Rung 1: the definition. A thread computes one element of C; neighbouring threads take
// neighbouring rows, as the loops of a C program suggest.
//
// Global memory: 2 floats loaded per multiply-add, 8·M·N·K bytes asked for: 8.6 GB for 1024³, 0.25
// FLOP/B.
// It is worse: a warp's 32 lanes read A at the same column of 32 rows, K floats apart. Memory moves
// in sectors of 32 bytes, so the one load fetches 32 of them for 128 bytes; B is the same float for
// all lanes, one sector. 33 sectors per 32 multiply-adds: 35 GB move for 1024³. C is written the
// same way.
// Shared memory: none.
// What binds: the load unit, which works off about one line of 128 bytes a clock. 33 clocks for a
// load of A and of B, where an A100's SM could have done 66 such multiply-adds and an H100's 132.
#pragma once

#include <plumb/cuda/device.cuh>

namespace plumb { inline namespace v0_1 { namespace ladder::gemm_1 {

using namespace kernels;

template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    matmul_kernel(float* c, const float* a, const float* b, Index m, Index n, Index k) {
  const Index element = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  const Index row = element % m, column = element / m;
  if (column >= n) return;
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

}}}  // namespace plumb::v0_1::ladder::gemm_1
