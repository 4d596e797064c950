// A warp as the 32 lanes of the canonical row reduction, and the per-element formulas of math/ for
// one GPU thread: the same expressions, with V = float, that the scalar CPU kernels are made of.
//
// Order of a row reduction: lane l takes elements l, l + 32, …; then lanes 16 apart are combined,
// then 8, 4, 2, 1 (cpu/vec.inl.hpp). What this is not: cooperative over more than a warp.
#pragma once

#include <plumb/core/bf16.hpp>
#include <plumb/cuda/platform.cuh>
#include <plumb/math/adamw.hpp>
#include <plumb/math/elementwise.hpp>
#include <plumb/math/kl.hpp>
#include <plumb/math/loss.hpp>

#include <cstdint>

namespace plumb { inline namespace v0_1 {
namespace kernels {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffU;

namespace gpu {

using V = float;
using Mask = bool;

__device__ inline V set(float x) { return x; }
__device__ inline V fma(V a, V b, V c) { return fmaf(a, b, c); }
__device__ inline V max(V a, V b) { return a > b ? a : b; }
__device__ inline V min(V a, V b) { return a < b ? a : b; }
__device__ inline V sqrt(V x) { return __fsqrt_rn(x); }
__device__ inline V abs(V x) { return fabsf(x); }
__device__ inline V round(V x) { return __fsub_rn(__fadd_rn(x, 0x1.8p23F), 0x1.8p23F); }
__device__ inline Mask less(V a, V b) { return a < b; }
__device__ inline V select(Mask m, V a, V b) { return m ? a : b; }
__device__ inline V power_of_two(V n) { return __int_as_float((static_cast<int>(n) + 127) << 23); }
__device__ inline V scale(V x, V n) {
  const V half = round(n * 0.5F);
  return (x * power_of_two(half)) * power_of_two(n - half);
}
__device__ inline V exponent(V x) { return static_cast<float>((__float_as_int(x) >> 23) - 126); }
__device__ inline V mantissa(V x) {
  return __int_as_float((__float_as_int(x) & 0x007fffff) | 0x3f000000);
}

#define PLUMB_FORMULA __device__ inline
#include <plumb/math/elementary.inl.hpp>

#include <plumb/math/activation.inl.hpp>
#include <plumb/math/elementwise.inl.hpp>
#include <plumb/math/adamw.inl.hpp>
using Real = float;
#include <plumb/math/loss.inl.hpp>
#undef PLUMB_FORMULA

__device__ inline int lane() { return static_cast<int>(threadIdx.x) % kWarp; }

/// The sum over the warp's lanes, in all of them. All lanes call it.
__device__ inline float warp_sum(float x) {
#pragma unroll
  for (int apart = kWarp / 2; apart > 0; apart /= 2) x = x + __shfl_xor_sync(kAllLanes, x, apart);
  return x + 0.0F;  // a sum of -0 alone is +0, as on the CPU
}

/// The largest of the warp's lanes, in all of them; what is not comparable wins or loses as on the
/// CPU.
__device__ inline float warp_max(float x) {
#pragma unroll
  for (int apart = kWarp / 2; apart > 0; apart /= 2)
    x = max(x, __shfl_down_sync(kAllLanes, x, static_cast<unsigned>(apart)));
  return __shfl_sync(kAllLanes, x, 0);
}

/// Row reduction over n elements: grow(i, total) adds element i to its lane's total.
template <class Grow>
__device__ float row_sum(Index n, Grow grow) {
  float total = 0.0F;
  for (Index i = lane(); i < n; i += kWarp) total = grow(i, total);
  return warp_sum(total);
}

/// The row that this warp works on: blocks of kThreads, a warp a row.
template <int kThreads>
__device__ Index warp_row() {
  return static_cast<Index>(blockIdx.x) * (kThreads / kWarp) +
         static_cast<Index>(threadIdx.x) / kWarp;
}

}  // namespace gpu
}  // namespace kernels
}}  // namespace plumb::v0_1
