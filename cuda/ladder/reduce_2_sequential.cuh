// Rung 2: the tree, halves first. The upper half of the sums is added to the lower, then the upper
// quarter …: the threads that add stand together, at the beginning.
//
// Why it helps: a warp is at work with all its lanes or has nothing to do: 4 warps add at first,
// then 2, then 1, and only the last 5 steps leave lanes idle. 45 turns of shared memory instead of
// 150.
// Global memory: 4 bytes an element, and 8 for each 256 of them: 68 MB for 16.8 million, 0.25
// FLOP/B, as before.
// What binds: waiting. A thread reads one element, and then 8 barriers pass in which half of the
// warps, then a quarter … do one addition. With so little under way, memory waits for the tree.
#pragma once

#include <plumb/cuda/device.cuh>

namespace plumb { inline namespace v0_1 { namespace ladder::reduce_2 {

using namespace kernels;

/// part[block] = the sum of the block's kThreads elements of x.
template <int kThreads>
__global__ void __launch_bounds__(kThreads) sum_kernel(float* part, const float* x, Index n) {
  __shared__ float sum[kThreads];
  const int thread = static_cast<int>(threadIdx.x);
  const Index i = static_cast<Index>(blockIdx.x) * kThreads + thread;
  sum[thread] = i < n ? x[i] : 0.0F;
  __syncthreads();
  for (int apart = kThreads / 2; apart > 0; apart /= 2) {
    if (thread < apart) sum[thread] += sum[thread + apart];
    __syncthreads();
  }
  if (thread == 0) part[blockIdx.x] = sum[0];
}

/// *result = the sum of x (n), on the device.
inline void sum(Cuda device, float* result, const float* x, Index n) {
  constexpr int kThreads = 256;
  if (n == 0) return zero(device, result, sizeof(float));
  if (n <= kThreads) {
    PLUMB_LAUNCH(sum_kernel<kThreads>, 1, kThreads, 0, device.stream, result, x, n);
    return;
  }
  const unsigned blocks = blocks_for(n, kThreads);
  const DeviceScratch<float> part(device, blocks);
  PLUMB_LAUNCH(sum_kernel<kThreads>, blocks, kThreads, 0, device.stream, part.data(), x, n);
  sum(device, result, part.data(), blocks);
}

}}}  // namespace plumb::v0_1::ladder::reduce_2
