// Rung 2: a warp a row. Lane l takes elements l, l + 32, …; the lanes' maxima and sums are joined
// by five exchanges between registers (__shfl_xor_sync), with lanes 16, 8, 4, 2 and 1 apart.
//
// Why it helps: the 32 lanes read 128 bytes side by side, 4 sectors a request instead of 32; and
// there are 32 times as many threads. The exchanges cost 10 instructions a row, and no shared
// memory.
// Global memory: 16 bytes an element as before, 268 MB for 4096 rows of 4096, each byte fetched of
// use. Rows of up to some thousand elements are in the first cache when the second and third pass
// come.
// What binds: memory, for 12 bytes of reading an element where 4 must be.
#pragma once

#include <plumb/cuda/device.cuh>

#include <limits>

namespace plumb { inline namespace v0_1 { namespace ladder::softmax_2 {

using namespace kernels;

/// The largest of the lanes' values, and their sum, in all lanes. All lanes of the warp call them.
__device__ inline float warp_max(float value) {
#pragma unroll
  for (int apart = 16; apart > 0; apart /= 2)
    value = fmaxf(value, __shfl_xor_sync(0xffffffffU, value, apart));
  return value;
}
__device__ inline float warp_sum(float value) {
#pragma unroll
  for (int apart = 16; apart > 0; apart /= 2) value += __shfl_xor_sync(0xffffffffU, value, apart);
  return value;
}

template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    softmax_kernel(float* y, const float* x, Index rows, Index n) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const Index row = static_cast<Index>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (row >= rows) return;  // the whole warp, and there are no barriers
  float largest = std::numeric_limits<float>::lowest();
  for (Index i = lane; i < n; i += 32) largest = fmaxf(largest, x[row * n + i]);
  largest = warp_max(largest);
  float sum = 0.0F;
  for (Index i = lane; i < n; i += 32) sum += expf(x[row * n + i] - largest);
  sum = warp_sum(sum);
  for (Index i = lane; i < n; i += 32) y[row * n + i] = expf(x[row * n + i] - largest) / sum;
}

/// y (rows, n) = softmax of each row of x (rows, n).
inline void softmax(Cuda device, float* y, const float* x, Index rows, Index n) {
  constexpr int kThreads = 256;
  if (rows > 0 && n > 0)
    PLUMB_LAUNCH(softmax_kernel<kThreads>, blocks_for(rows, kThreads / 32), kThreads, 0,
                 device.stream, y, x, rows, n);
}

}}}  // namespace plumb::v0_1::ladder::softmax_2
