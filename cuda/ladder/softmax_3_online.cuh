// Rung 3: the largest and the sum in one pass (Milakov and Gimelshein 2018, "Online normalizer
// calculation for softmax"). A lane keeps the largest so far, m, and the sum of e^(x − m). When an
// x exceeds m, the old sum is scaled by e^(m − x). Two such pairs join the same way, so lanes can
// still share a row.
//
// Why it helps: a row is read twice, not three times.
// Global memory: 12 bytes an element, 201 MB for 4096 rows of 4096, where 134 must be. An element
// costs one e^x in this pass whether it is a new largest or not. It is also what lets attention
// fuse a softmax with the product behind it: see attention_2.
// What binds: memory, while rows are longer than the first cache holds for a block; else the
// arithmetic of two e^x an element, which is 2·N results of a unit that gives 16 a clock and SM.
#pragma once

#include <plumb/cuda/device.cuh>

#include <limits>

namespace plumb { inline namespace v0_1 { namespace ladder::softmax_3 {

using namespace kernels;

template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    softmax_kernel(float* y, const float* x, Index rows, Index n) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const Index row = static_cast<Index>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (row >= rows) return;  // the whole warp, and there are no barriers
  // From the lowest float and not from −inf, so that no lane subtracts infinities of one sign.
  float largest = std::numeric_limits<float>::lowest(), sum = 0.0F;
  for (Index i = lane; i < n; i += 32) {
    const float value = x[row * n + i];
    const float smaller = expf(fminf(value, largest) - fmaxf(value, largest));
    sum = value > largest ? fmaf(sum, smaller, 1.0F) : sum + smaller;
    largest = fmaxf(largest, value);
  }
#pragma unroll
  for (int apart = 16; apart > 0; apart /= 2) {
    const float other = __shfl_xor_sync(0xffffffffU, largest, apart);
    const float other_sum = __shfl_xor_sync(0xffffffffU, sum, apart);
    const float both = fmaxf(largest, other);
    sum = sum * expf(largest - both) + other_sum * expf(other - both);
    largest = both;
  }
  for (Index i = lane; i < n; i += 32) y[row * n + i] = expf(x[row * n + i] - largest) / sum;
}

/// y (rows, n) = softmax of each row of x (rows, n).
inline void softmax(Cuda device, float* y, const float* x, Index rows, Index n) {
  constexpr int kThreads = 256;
  if (rows > 0 && n > 0)
    PLUMB_LAUNCH(softmax_kernel<kThreads>, blocks_for(rows, kThreads / 32), kThreads, 0,
                 device.stream, y, x, rows, n);
}

}}}  // namespace plumb::v0_1::ladder::softmax_3
