// One 64-bit hash for everything: names, fingerprints, folds, checksums. XXH3 of the library
// xxHash, whose only user this header is. Not protection against an adversary; it catches
// accidents.
//
// The values are the same on every machine and in every version of the library (its specification,
// github.com/Cyan4973/xxHash, doc/xxhash_spec.md), so files and folds may depend on them.
#pragma once

#include <plumb/core/version.hpp>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace plumb { inline namespace v0_1 {

/// XXH3 (64 bits) of the bytes.
inline std::uint64_t hash64(std::string_view bytes, std::uint64_t seed = 0) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

/// The same of bytes that come in parts.
class Hash64 {
 public:
  explicit Hash64(std::uint64_t seed = 0) {
    XXH3_INITSTATE(&state_);
    XXH3_64bits_reset_withSeed(&state_, seed);
  }

  /// Appends bytes: adding "ab" and "c" gives what adding "abc" gives.
  Hash64& add(std::string_view bytes) {
    XXH3_64bits_update(&state_, bytes.data(), bytes.size());
    return *this;
  }
  /// Appends a number, little-endian.
  Hash64& add(std::uint64_t value) {
    return add({reinterpret_cast<const char*>(&value), sizeof value});
  }
  /// Appends one of several texts, with its length: "ab" and "c" is not "a" and "bc".
  Hash64& field(std::string_view text) {
    return add(static_cast<std::uint64_t>(text.size())).add(text);
  }

  std::uint64_t value() const { return XXH3_64bits_digest(&state_); }

 private:
  XXH3_state_t state_;
};

/// Sixteen lower-case hexadecimal digits.
inline std::string hex64(std::uint64_t value) {
  std::string out(16, '0');
  for (std::size_t i = 16; i-- > 0; value >>= 4) out[i] = "0123456789abcdef"[value & 15];
  return out;
}

}}  // namespace plumb::v0_1
