// Two 64-bit hashes: FNV-1a for names and fingerprints, and a faster word-wise one for bulk data.
//
// What this is not: protection against an adversary. Both catch accidents only. Source of FNV-1a:
// Fowler, Noll, Vo, www.isthe.com/chongo/tech/comp/fnv. Both chains run over the bytes in order.
#pragma once

#include <plumb/core/version.hpp>

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace plumb { inline namespace v0_1 {

static_assert(std::endian::native == std::endian::little, "checksum64 reads words as they lie");

inline constexpr std::uint64_t kFnvBasis = 0xcbf29ce484222325u;
inline constexpr std::uint64_t kFnvPrime = 0x100000001b3u;

/// FNV-1a of the bytes of `text`, continuing from `hash`.
constexpr std::uint64_t fnv1a(std::string_view text, std::uint64_t hash = kFnvBasis) {
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * kFnvPrime;
  return hash;
}

/// Hash of bulk data, eight bytes a step. Every step is invertible, so that one changed word always
/// shows; the shift lets high bits reach low ones, without which two flipped signs could cancel.
inline std::uint64_t checksum64(std::string_view bytes, std::uint64_t hash = kFnvBasis) {
  const auto step = [&hash](std::uint64_t word) {
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 32;
  };
  step(bytes.size());
  std::size_t at = 0;
  for (; at + 8 <= bytes.size(); at += 8) {
    std::uint64_t word;
    std::memcpy(&word, bytes.data() + at, 8);
    step(word);
  }
  if (at < bytes.size()) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + at, bytes.size() - at);
    step(word);
  }
  return hash;
}

/// Sixteen lower-case hexadecimal digits.
inline std::string hex64(std::uint64_t value) {
  std::string out(16, '0');
  for (std::size_t i = 16; i-- > 0; value >>= 4) out[i] = "0123456789abcdef"[value & 15];
  return out;
}

}}  // namespace plumb::v0_1
