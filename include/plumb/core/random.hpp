// Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as
// easy as 1, 2, 3"). A draw is a pure function of (seed, stage, step, sequence, token), so results
// depend on neither threads, nor how a batch is split, nor where a run was resumed, nor the device.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/core/floats.hpp>
#include <plumb/core/real.hpp>

#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// What a random number is for; part of its key, so that stages never share draws.
enum class Stage : std::uint32_t {
  Init = 1,
  Sample = 2,
  Shuffle = 3,
  Split = 4,
  Order = 5,
  Test = 100,
};

/// Ten rounds of Philox4x32: four 32-bit words from a 128-bit counter and a 64-bit key.
constexpr std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                              std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53U} * counter[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57U} * counter[2];
    counter = {
        static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
        static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key[0] += 0x9E3779B9U;
    key[1] += 0xBB67AE85U;
  }
  return counter;
}

/// The four words drawn for one place.
constexpr std::array<std::uint32_t, 4> philox(std::uint64_t seed, Stage stage, std::uint32_t step,
                                              std::uint32_t sequence, std::uint32_t token) {
  return philox({token, sequence, step, static_cast<std::uint32_t>(stage)},
                {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
}

/// The step number of the draws that belong to a name (FNV-1a). Fresh weights hang on it, so it
/// stays as it is; files are hashed by io/hash.hpp, from a library that the engine does not need.
constexpr std::uint32_t stream_of(std::string_view name) {
  std::uint32_t hash = 2166136261U;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619U;
  return hash;
}

/// Uniform in [0, 1), a multiple of 2^-24: exact in float.
constexpr float uniform_from(std::uint32_t word) {
  return static_cast<float>(word >> 8) * 0x1p-24F;
}

/// A sequential stream for one (seed, stage, step, sequence): initialisation, shuffles, splits.
class Rng {
 public:
  explicit Rng(std::uint64_t seed, Stage stage = Stage::Test, std::uint32_t step = 0,
               std::uint32_t sequence = 0)
      : seed_(seed), stage_(stage), step_(step), sequence_(sequence) {}

  /// Goes to the stream's words 4·block, …: normal() gives two values a block.
  void seek(std::uint32_t block) {
    counter_ = block;
    next_ = 4;
  }

  std::uint32_t bits() {
    if (next_ == 4) {
      words_ = philox(seed_, stage_, step_, sequence_, counter_++);
      next_ = 0;
    }
    return words_[next_++];
  }
  /// Uniform in [0, 1).
  float uniform() { return uniform_from(bits()); }

  /// Standard normal (Box and Muller 1958), one of each pair.
  float normal() {
    const DefaultFloats floats;
    const double u = (static_cast<double>(bits()) + 1.0) * 0x1p-32;  // (0, 1]: log is finite
    const double angle = 6.283185307179586 * (static_cast<double>(bits()) * 0x1p-32);
    return static_cast<float>(std::sqrt(-2.0 * real::log(u)) * real::cos(angle));
  }

  /// Uniform in [0, n), without modulo bias (Lemire 2019, with rejection).
  std::uint32_t below(std::uint32_t n) {
    check(n > 0, "[random] below(0) has no values");
    std::uint64_t product = std::uint64_t{bits()} * n;
    if (static_cast<std::uint32_t>(product) < n) {
      const std::uint32_t threshold = (0U - n) % n;
      while (static_cast<std::uint32_t>(product) < threshold) product = std::uint64_t{bits()} * n;
    }
    return static_cast<std::uint32_t>(product >> 32);
  }

  /// Fisher–Yates shuffle.
  template <class T>
  void shuffle(std::vector<T>& items) {
    for (std::size_t i = items.size(); i > 1; --i)
      std::swap(items[i - 1], items[below(static_cast<std::uint32_t>(i))]);
  }

 private:
  std::uint64_t seed_;
  Stage stage_;
  std::uint32_t step_;
  std::uint32_t sequence_;
  std::uint32_t counter_ = 0;
  std::array<std::uint32_t, 4> words_{};
  std::size_t next_ = 4;
};

/// The numbers 0 … n-1 in a random order.
inline std::vector<Index> permutation(Index n, Rng rng) {
  std::vector<Index> order(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<Index>(i);
  rng.shuffle(order);
  return order;
}

}}  // namespace plumb::v0_1
