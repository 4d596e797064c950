// Numbers as GGUF files hold them, in blocks that share a scale, made floats.
//
// A block of Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 has 32 numbers; one of the K types has 256, in
// sub-blocks whose scales are themselves quantised. Each product and sum is rounded once, in the
// order in which the reference implementation writes it, so the floats are its floats, bit for bit.
// What this is not: a writer of anything but Q8_0; arithmetic on blocks. Source of the layouts:
// ggml-org/ggml, src/ggml-common.h and src/ggml-quants.c (dequantize_row_*).
#pragma once

#include <plumb/io/half.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace plumb { inline namespace v0_1 { namespace detail {

/// A block's 16-bit float at `at`.
inline float half_at(const std::uint8_t* at) {
  std::uint16_t bits;
  std::memcpy(&bits, at, 2);
  return float_from_half(bits);
}

inline void read_q4_0(const std::uint8_t* block, float* out) {
  const float scale = half_at(block);
  for (int j = 0; j < 16; ++j) {
    out[j] = static_cast<float>((block[2 + j] & 15) - 8) * scale;
    out[j + 16] = static_cast<float>((block[2 + j] >> 4) - 8) * scale;
  }
}

inline void read_q4_1(const std::uint8_t* block, float* out) {
  const float scale = half_at(block), least = half_at(block + 2);
  for (int j = 0; j < 16; ++j) {
    out[j] = static_cast<float>(block[4 + j] & 15) * scale + least;
    out[j + 16] = static_cast<float>(block[4 + j] >> 4) * scale + least;
  }
}

/// The fifth bits of Q5_0 and Q5_1 lie apart, one a number.
inline int fifth_bit(std::uint32_t bits, int j) { return static_cast<int>(bits >> j & 1U) << 4; }

inline void read_q5_0(const std::uint8_t* block, float* out) {
  const float scale = half_at(block);
  std::uint32_t high;
  std::memcpy(&high, block + 2, 4);
  for (int j = 0; j < 16; ++j) {
    out[j] = static_cast<float>(((block[6 + j] & 15) | fifth_bit(high, j)) - 16) * scale;
    out[j + 16] = static_cast<float>(((block[6 + j] >> 4) | fifth_bit(high, j + 16)) - 16) * scale;
  }
}

inline void read_q5_1(const std::uint8_t* block, float* out) {
  const float scale = half_at(block), least = half_at(block + 2);
  std::uint32_t high;
  std::memcpy(&high, block + 4, 4);
  for (int j = 0; j < 16; ++j) {
    out[j] = static_cast<float>((block[8 + j] & 15) | fifth_bit(high, j)) * scale + least;
    out[j + 16] = static_cast<float>((block[8 + j] >> 4) | fifth_bit(high, j + 16)) * scale + least;
  }
}

inline void read_q8_0(const std::uint8_t* block, float* out) {
  const float scale = half_at(block);
  for (int j = 0; j < 32; ++j)
    out[j] = static_cast<float>(static_cast<std::int8_t>(block[2 + j])) * scale;
}

/// Scale and minimum of sub-block j of Q4_K and Q5_K: 6 bits each, eight pairs in 12 bytes.
inline void scale_and_least(const std::uint8_t* packed, int j, float& scale, float& least) {
  if (j < 4) {
    scale = static_cast<float>(packed[j] & 63);
    least = static_cast<float>(packed[j + 4] & 63);
  } else {
    scale = static_cast<float>((packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4);
    least = static_cast<float>((packed[j + 4] >> 4) | (packed[j] >> 6) << 4);
  }
}

/// Q4_K and Q5_K, which has a fifth bit of each number in `high` (null: Q4_K).
inline void read_k4_k5(const std::uint8_t* block, const std::uint8_t* high, const std::uint8_t* low,
                       float* out) {
  const float scale = half_at(block), least = half_at(block + 2);
  for (int j = 0; j < 8; ++j) {
    float s, m;
    scale_and_least(block + 4, j, s, m);
    s = scale * s;
    m = least * m;
    for (int l = 0; l < 32; ++l) {
      const int byte = low[j / 2 * 32 + l];
      int q = j % 2 == 0 ? byte & 15 : byte >> 4;
      if (high != nullptr) q |= (high[l] >> j & 1) << 4;
      out[j * 32 + l] = s * static_cast<float>(q) - m;
    }
  }
}
inline void read_q4_k(const std::uint8_t* block, float* out) {
  read_k4_k5(block, nullptr, block + 16, out);
}
inline void read_q5_k(const std::uint8_t* block, float* out) {
  read_k4_k5(block, block + 16, block + 48, out);
}

inline void read_q6_k(const std::uint8_t* block, float* out) {
  const std::uint8_t* scales = block + 192;
  const float scale = half_at(block + 208);
  for (int half = 0; half < 2; ++half)
    for (int part = 0; part < 4; ++part)
      for (int l = 0; l < 32; ++l) {
        const int byte = block[half * 64 + (part % 2) * 32 + l];
        const int low = part < 2 ? byte & 15 : byte >> 4;
        const int high = block[128 + half * 32 + l] >> (2 * part) & 3;
        const auto s = static_cast<std::int8_t>(scales[half * 8 + part * 2 + l / 16]);
        out[half * 128 + part * 32 + l] =
            scale * static_cast<float>(s) * static_cast<float>((low | high << 4) - 32);
      }
}

/// 32 floats as a block of Q8_0: the largest magnitude becomes 127 steps.
inline void write_q8_0(const float* in, std::uint8_t* block) {
  float most = 0.0F;
  for (int j = 0; j < 32; ++j) most = std::fmax(most, std::fabs(in[j]));
  const float scale = most / 127.0F, inverse = scale > 0.0F ? 1.0F / scale : 0.0F;
  const std::uint16_t bits = half_from_float(scale);
  std::memcpy(block, &bits, 2);
  for (int j = 0; j < 32; ++j)
    block[2 + j] = static_cast<std::uint8_t>(static_cast<std::int8_t>(std::round(in[j] * inverse)));
}

}  // namespace detail
}}  // namespace plumb::v0_1
