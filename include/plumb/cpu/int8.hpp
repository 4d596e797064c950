// Eight bits a weight, as storage: of each row and each 32 columns a scale, the largest magnitude
// over 127, and a whole number from -127 to 127 for each value, rounded to nearest, ties to even
// (GGUF's Q8_0, but for its scale, which is a float here). Arithmetic happens in float: expanded,
// each value is code · scale, one multiplication. Not here: products of whole numbers.
#pragma once

#include <plumb/core/device.hpp>
#include <plumb/core/pool.hpp>
#include <plumb/math/int8.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace plumb { inline namespace v0_1 { namespace kernels {

/// x / scale, rounded to a whole number; 0 where all of a block is 0.
inline std::int8_t int8_code(float x, float scale) {
  const float q = scale == 0.0F ? 0.0F : x / scale;
  return static_cast<std::int8_t>((q + 0x1.8p23F) - 0x1.8p23F);
}

/// w (N, K) -> codes (N, K), scales (N, ⌈K/32⌉).
inline void quantize_rows(Cpu device, std::int8_t* codes, float* scales, const float* w, Index n,
                          Index k) {
  const Index blocks = int8_blocks(k);
  parallel_for(device, n, 1 + 65536 / (k + 1), [&](Index row, Index end) {
    for (Index i = row * blocks; i < end * blocks; ++i) {
      const Index first = i / blocks * k + i % blocks * kInt8Block;
      const Index count = std::min(kInt8Block, k - i % blocks * kInt8Block);
      float most = 0;
      for (Index j = 0; j < count; ++j) most = std::max(most, std::abs(w[first + j]));
      scales[i] = most / 127.0F;
      for (Index j = 0; j < count; ++j) codes[first + j] = int8_code(w[first + j], scales[i]);
    }
  });
}

/// codes (N, K), scales (N, ⌈K/32⌉) -> w (N, K).
inline void expand_rows(Cpu device, float* w, const std::int8_t* codes, const float* scales,
                        Index n, Index k) {
  const Index blocks = int8_blocks(k);
  parallel_for(device, n, 1 + 65536 / (k + 1), [&](Index row, Index end) {
    for (; row < end; ++row)
      for (Index b = 0; b < blocks; ++b) {
        const float scale = scales[row * blocks + b];
        const Index first = row * k + b * kInt8Block;
        const Index last = std::min(first + kInt8Block, (row + 1) * k);
        for (Index i = first; i < last; ++i) w[i] = static_cast<float>(codes[i]) * scale;
      }
  });
}

}}}  // namespace plumb::v0_1::kernels
