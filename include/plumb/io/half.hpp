// 16-bit floats of files. Arithmetic is never done in them.
#pragma once

#include <plumb/core/version.hpp>

#include <bit>
#include <cstdint>

namespace plumb { inline namespace v0_1 { namespace detail {

/// IEEE 754 binary16 to float, exactly, and without a branch, so that a loop of them is vectors.
inline float float_from_half(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  const std::uint32_t magnitude = half & 0x7fffu;
  const std::uint32_t bias = magnitude >= 0x7c00u ? 224u : 112u;  // infinity and NaN stay such
  const std::uint32_t normal = (magnitude << 13) + (bias << 23);
  const auto small = static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-24f;
  return std::bit_cast<float>(sign |
                              (magnitude < 0x400u ? std::bit_cast<std::uint32_t>(small) : normal));
}

/// The nearest binary16, ties to even; beyond its range infinity.
inline std::uint16_t half_from_float(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000u);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);  // NaN
  if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {
    // Below the least normal one: adding ½ moves the bits that count to the end, rounded.
    const float moved = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(moved) - 0x3f000000u));
  }
  const std::uint32_t odd = magnitude >> 13 & 1u;
  return static_cast<std::uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

}  // namespace detail
}}  // namespace plumb::v0_1
