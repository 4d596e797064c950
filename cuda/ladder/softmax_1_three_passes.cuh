// Rung 1: the definition, a thread a row. y = e^(x − m) / sum of e^(x − m), m being the row's
// largest: one pass to find m, one for the sum, one to write. Without m, e^x overflows from x = 89
// on.
//
// Global memory: a row is read 3 times and written once, 16 bytes an element: 268 MB for 4096 rows
// of 4096, if no cache helps; 4 would be the half of what has to be. 0.5 FLOP/B or less, with e^x
// as a FLOP.
// It is worse: neighbouring lanes stand on neighbouring rows, N floats apart. Each of a warp's
// loads fetches 32 sectors of 32 bytes for 128 bytes of use, and hopes that they are still there 8
// columns later.
// What binds: the load unit, 32 lines a request; and with a thousand rows only a thousand threads
// run, where an A100 holds 221,184 and an H100 270,336.
#pragma once

#include <plumb/cuda/device.cuh>

#include <limits>

namespace plumb { inline namespace v0_1 { namespace ladder::softmax_1 {

using namespace kernels;

template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    softmax_kernel(float* y, const float* x, Index rows, Index n) {
  const Index row = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (row >= rows) return;
  float largest = std::numeric_limits<float>::lowest();
  for (Index i = 0; i < n; ++i) largest = fmaxf(largest, x[row * n + i]);
  float sum = 0.0F;
  for (Index i = 0; i < n; ++i) sum += expf(x[row * n + i] - largest);
  for (Index i = 0; i < n; ++i) y[row * n + i] = expf(x[row * n + i] - largest) / sum;
}

/// y (rows, n) = softmax of each row of x (rows, n).
inline void softmax(Cuda device, float* y, const float* x, Index rows, Index n) {
  constexpr int kThreads = 256;
  if (rows > 0 && n > 0)
    PLUMB_LAUNCH(softmax_kernel<kThreads>, blocks_for(rows, kThreads), kThreads, 0, device.stream,
                 y, x, rows, n);
}

}}}  // namespace plumb::v0_1::ladder::softmax_1
