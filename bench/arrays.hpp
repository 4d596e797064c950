// The inputs of benchmarks: random floats, and arrays that rotate through the caches.
#pragma once

#include <plumb/core/memory.hpp>

#include <algorithm>
#include <cstdint>

#include "probe.hpp"

namespace bench {

/// n floats, uniform in [-scale, scale), the same for the same seed. Not of normal distribution,
/// since gigabytes of them are made.
class Floats : public plumb::Scratch<float> {
 public:
  explicit Floats(Index n, std::uint64_t seed = 1, float scale = 1.0F) : Scratch(n), size_(n) {
    std::uint64_t state = seed * 0x9E3779B97F4A7C15U;
    for (Index i = 0; i < n; ++i) {
      state = state * 6364136223846793005U + 1442695040888963407U;
      const auto bits = static_cast<std::int32_t>(state >> 32);
      data()[i] = scale * 0x1p-31F * static_cast<float>(bits);
    }
  }
  Index size() const { return size_; }
  void fill(float value) { std::fill_n(data(), size_, value); }

 private:
  Index size_;
};

/// Arrays of n floats, taken in turn: so many that each has left the caches when its turn comes
/// again, as the weights of a model's layers have.
class Rotating {
 public:
  explicit Rotating(Index n, std::uint64_t seed = 1)
      : stride_((n + 15) / 16 * 16),
        copies_(1 + static_cast<Index>(room()) / (4 * stride_)),
        all_(stride_ * copies_, seed) {}

  Index copies() const { return copies_; }
  float* at(Index turn) const { return all_.data() + turn % copies_ * stride_; }
  float* take() { return at(next_++); }
  double bytes() const { return 4.0 * static_cast<double>(all_.size()); }

 private:
  static double room() {
    return std::clamp(2 * cache_bytes()[3], 64.0 * 1024 * 1024, 512.0 * 1024 * 1024);
  }
  Index stride_, copies_, next_ = 0;
  Floats all_;
};

}  // namespace bench
