// Rung 4: the row in registers, and accesses of 16 bytes. A block of 4 warps takes a row; each
// thread holds up to 8 groups of 4 elements, so a row of 4096 is read once, 16 bytes a lane. What a
// longer row has beyond that goes through the online sum of rung 3 and is read a second time.
//
// Why it helps: what is in a register needs not be read again, and its e^x is not computed again
// either.
// Global memory: 8 bytes an element, 134 MB for 4096 rows of 4096: what has to be. In a quarter of
// the requests.
// The price: 32 registers a thread, one barrier to join the 4 warps' pairs through 32 bytes of
// shared memory.
// Rows whose length is no multiple of 4 do not lie at 16-byte boundaries; those are read by
// elements.
// What binds: memory, from the first byte to the last. For 4096 rows of 4096 an A100 (1.56 TB/s)
// takes no less than 86 µs, an H100 (3.35 TB/s) no less than 40.
#pragma once

#include <plumb/cuda/device.cuh>

#include <cmath>
#include <cstdint>
#include <limits>

namespace plumb { inline namespace v0_1 { namespace ladder::softmax_4 {

using namespace kernels;

/// The largest value of some elements, and the sum of e^(x − largest).
struct Normaliser {
  float largest = std::numeric_limits<float>::lowest(), sum = 0.0F;
};
__device__ inline Normaliser join(Normaliser a, Normaliser b) {
  const float largest = fmaxf(a.largest, b.largest);
  return {largest, a.sum * expf(a.largest - largest) + b.sum * expf(b.largest - largest)};
}

/// Elements i … i + 3 of a row of n; −inf, whose e^x is 0, beyond it.
template <bool kAligned>
__device__ inline void load_row(float (&x)[4], const float* row, Index i, Index n) {
  if (kAligned && i < n) {
    const float4 v = load4(row + i);
    x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
  } else {
#pragma unroll
    for (int e = 0; e < 4; ++e) x[e] = !kAligned && i + e < n ? row[i + e] : -INFINITY;
  }
}
template <bool kAligned>
__device__ inline void store_row(float* row, Index i, Index n, const float (&x)[4], float scale) {
  if constexpr (kAligned) {
    if (i < n) store4(row + i, make_float4(x[0] * scale, x[1] * scale, x[2] * scale, x[3] * scale));
  } else {
#pragma unroll
    for (int e = 0; e < 4; ++e)
      if (i + e < n) row[i + e] = x[e] * scale;
  }
}

/// kGroups groups of 4 a thread are held: group g of thread t is number g · kThreads + t of the
/// row.
template <int kThreads, int kGroups, bool kAligned>
__global__ void __launch_bounds__(kThreads) softmax_kernel(float* y, const float* x, Index n) {
  __shared__ float largest_of[kThreads / 32], sum_of[kThreads / 32];
  const int thread = static_cast<int>(threadIdx.x);
  const float* from = x + static_cast<Index>(blockIdx.x) * n;
  float* to = y + static_cast<Index>(blockIdx.x) * n;

  float held[kGroups][4];
  Normaliser own;
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    load_row<kAligned>(held[g], from, static_cast<Index>(g * kThreads + thread) * 4, n);
#pragma unroll
    for (int e = 0; e < 4; ++e) own.largest = fmaxf(own.largest, held[g][e]);
  }
#pragma unroll
  for (int g = 0; g < kGroups; ++g)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      held[g][e] = expf(held[g][e] - own.largest);  // 0 of what is not there
      own.sum += held[g][e];
    }
  const float held_largest = own.largest;
  constexpr Index kHeld = Index{4} * kGroups * kThreads;
  for (Index i = kHeld + thread; i < n; i += kThreads) own = join(own, {from[i], 1.0F});

  Normaliser row = own;
#pragma unroll
  for (int apart = 16; apart > 0; apart /= 2)
    row = join(row, {__shfl_xor_sync(0xffffffffU, row.largest, apart),
                     __shfl_xor_sync(0xffffffffU, row.sum, apart)});
  if (thread % 32 == 0) {
    largest_of[thread / 32] = row.largest;
    sum_of[thread / 32] = row.sum;
  }
  __syncthreads();
  row = {};
#pragma unroll
  for (int warp = 0; warp < kThreads / 32; ++warp)
    row = join(row, {largest_of[warp], sum_of[warp]});

  const float scale = expf(held_largest - row.largest) / row.sum;
#pragma unroll
  for (int g = 0; g < kGroups; ++g)
    store_row<kAligned>(to, static_cast<Index>(g * kThreads + thread) * 4, n, held[g], scale);
  for (Index i = kHeld + thread; i < n; i += kThreads)
    to[i] = expf(from[i] - row.largest) / row.sum;
}

/// y (rows, n) = softmax of each row of x (rows, n).
inline void softmax(Cuda device, float* y, const float* x, Index rows, Index n) {
  constexpr int kThreads = 128, kGroups = 8;
  if (rows == 0 || n == 0) return;
  const auto places = reinterpret_cast<std::uintptr_t>(x) | reinterpret_cast<std::uintptr_t>(y);
  const auto blocks = static_cast<unsigned>(rows);
  if (n % 4 == 0 && places % 16 == 0)
    PLUMB_LAUNCH((softmax_kernel<kThreads, kGroups, true>), blocks, kThreads, 0, device.stream, y,
                 x, n);
  else
    PLUMB_LAUNCH((softmax_kernel<kThreads, kGroups, false>), blocks, kThreads, 0, device.stream, y,
                 x, n);
}

}}}  // namespace plumb::v0_1::ladder::softmax_4
