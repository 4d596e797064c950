// Rung 1: a tree in shared memory, neighbours first. A block brings 256 elements; then 1 is added
// to 0, 3 to 2, …; then sums 2 apart, 4 apart, until one is left. The blocks' sums are summed the
// same way by another launch, until one is left: no atomics, so the same sum every time.
//
// Global memory: 4 bytes an element, and 8 for each 256 of them: 68 MB for 16.8 million. 0.25
// FLOP/B: all that matters is how fast memory is read, 43 µs on an A100 (1.56 TB/s), 20 on an H100
// (3.35).
// What binds: the tree. At step s, the threads whose number is a multiple of 2s add. They stand in
// all warps, so all warps go through the steps with ever fewer of their lanes: 8 steps with a
// barrier each, and 150 turns of shared memory, for 256 additions.
#pragma once

#include <plumb/cuda/device.cuh>

namespace plumb { inline namespace v0_1 { namespace ladder::reduce_1 {

using namespace kernels;

/// part[block] = the sum of the block's kThreads elements of x.
template <int kThreads>
__global__ void __launch_bounds__(kThreads) sum_kernel(float* part, const float* x, Index n) {
  __shared__ float sum[kThreads];
  const int thread = static_cast<int>(threadIdx.x);
  const Index i = static_cast<Index>(blockIdx.x) * kThreads + thread;
  sum[thread] = i < n ? x[i] : 0.0F;
  __syncthreads();
  for (int apart = 1; apart < kThreads; apart *= 2) {
    if (thread % (2 * apart) == 0) sum[thread] += sum[thread + apart];
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

}}}  // namespace plumb::v0_1::ladder::reduce_1
