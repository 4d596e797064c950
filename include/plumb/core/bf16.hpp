// bf16: the upper half of a float, as storage. Arithmetic happens in float: convert, compute,
// convert back. Rounding is to nearest, ties to even; NaN stays NaN.
#pragma once

#include <plumb/core/version.hpp>

#include <bit>
#include <cstdint>

namespace plumb { inline namespace v0_1 {

struct bf16 {
  std::uint16_t bits = 0;

  bf16() = default;
  explicit bf16(float value) {
    const auto word = std::bit_cast<std::uint32_t>(value);
    if ((word & 0x7fffffffU) > 0x7f800000U)
      bits = static_cast<std::uint16_t>((word >> 16) | 0x40U);  // quiet, never rounded to infinity
    else
      bits = static_cast<std::uint16_t>((word + 0x7fffU + ((word >> 16) & 1U)) >> 16);
  }
  explicit operator float() const {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
};

}}  // namespace plumb::v0_1
