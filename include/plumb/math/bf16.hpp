// How products in bf16 add: numbers are rounded to bf16 to nearest even, those too small to be
// normal floats being zeros; a product adds pairs of k, the second of a pair first, each by one
// fused multiply-add whose result is zero where it is too small. This is what Intel's and AMD's
// vdpbf16ps does, to the bit (cpu/vdpbf16ps.hpp tries the processor at hand), and
// `fma.rn.ftz.f32` on a GPU.
#pragma once

#include <plumb/core/bf16.hpp>

#include <cmath>

namespace plumb { inline namespace v0_1 {

inline constexpr float kLeastNormal = 0x1p-126F;

/// x, or zero with its sign where x is subnormal.
inline float flushed(float x) { return std::abs(x) < kLeastNormal ? std::copysign(0.0F, x) : x; }

/// What a product in bf16 reads of x.
inline bf16 product_bf16(float x) { return bf16(flushed(x)); }

/// a·b + c, none of them subnormal, rounded once; zero where that is below the least normal float
/// as rounded with an unbounded exponent.
inline float fma_flushed(float a, float b, float c) {
  const float sum = std::fma(a, b, c);
  const float size = std::abs(sum);
  if (size > kLeastNormal || std::isnan(sum)) return sum;
  // The least normal float itself may have been rounded up to, from between the subnormals.
  constexpr float kUp = 0x1p64F;
  if (size == kLeastNormal && std::abs(std::fma(a * kUp, b, c * kUp)) >= kLeastNormal * kUp)
    return sum;
  return std::copysign(0.0F, sum);
}

}}  // namespace plumb::v0_1
