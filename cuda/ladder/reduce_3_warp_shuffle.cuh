// Rung 3: many elements a thread, then exchanges between registers. A thread sums 16 elements, a
// block's width apart; five exchanges (__shfl_xor_sync) join a warp's sums; the 8 warps' sums meet
// in shared memory, behind the only barrier, and the first warp joins them by three more.
//
// Why it helps: 16 loads of a thread are under way together, and the tree comes once for 4096
// elements and not for 256. Exchanges need no shared memory and no barrier.
// Global memory: 4 bytes an element, and 8 for each 4096 of them: 67 MB for 16.8 million, 0.25
// FLOP/B.
// What binds: memory, which is what a sum is for: 43 µs on an A100 (1.56 TB/s), 20 on an H100
// (3.35).
#pragma once

#include <plumb/cuda/device.cuh>

namespace plumb { inline namespace v0_1 { namespace ladder::reduce_3 {

using namespace kernels;

/// part[block] = the sum of the block's kThreads · kPerThread elements of x.
template <int kThreads, int kPerThread>
__global__ void __launch_bounds__(kThreads) sum_kernel(float* part, const float* x, Index n) {
  constexpr int kWarps = kThreads / 32;
  __shared__ float sum_of[kWarps];
  const int thread = static_cast<int>(threadIdx.x);
  const Index first = static_cast<Index>(blockIdx.x) * (kThreads * kPerThread) + thread;
  float sum = 0.0F;
#pragma unroll
  for (int j = 0; j < kPerThread; ++j)
    sum += first + j * kThreads < n ? x[first + j * kThreads] : 0.0F;
#pragma unroll
  for (int apart = 16; apart > 0; apart /= 2) sum += __shfl_xor_sync(0xffffffffU, sum, apart);
  if (thread % 32 == 0) sum_of[thread / 32] = sum;
  __syncthreads();
  if (thread >= 32) return;
  sum = thread < kWarps ? sum_of[thread] : 0.0F;
#pragma unroll
  for (int apart = kWarps / 2; apart > 0; apart /= 2)
    sum += __shfl_xor_sync(0xffffffffU, sum, apart);
  if (thread == 0) part[blockIdx.x] = sum;
}

/// *result = the sum of x (n), on the device.
inline void sum(Cuda device, float* result, const float* x, Index n) {
  constexpr int kThreads = 256, kPerThread = 16;
  if (n == 0) return zero(device, result, sizeof(float));
  const unsigned blocks = blocks_for(n, kThreads * kPerThread);
  if (blocks == 1) {
    PLUMB_LAUNCH((sum_kernel<kThreads, kPerThread>), 1, kThreads, 0, device.stream, result, x, n);
    return;
  }
  const DeviceScratch<float> part(device, blocks);
  PLUMB_LAUNCH((sum_kernel<kThreads, kPerThread>), blocks, kThreads, 0, device.stream, part.data(),
               x, n);
  sum(device, result, part.data(), blocks);
}

}}}  // namespace plumb::v0_1::ladder::reduce_3
