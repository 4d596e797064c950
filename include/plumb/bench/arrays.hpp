// Inputs of benchmarks that are structs (suite.hpp): random floats, and arrays that rotate through
// the caches; and how far off their results are.
#pragma once

#include <plumb/bench/probe.hpp>
#include <plumb/core/memory.hpp>
#include <plumb/core/random.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace plumb { inline namespace v0_1 { namespace bench {

/// n floats, uniform in [-scale, scale), the same for the same seed. Not of normal distribution,
/// since gigabytes of them are made.
class Floats : public Scratch<float> {
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

/// The largest error seen, 1 being the largest allowed; infinite after a NaN.
class Worst {
 public:
  void see(double x, double exact, double allowed) {
    const double error = std::abs(x - exact) / allowed;
    value_ = error <= value_ ? value_ : std::isnan(error) ? INFINITY : error;
  }
  double value() const { return value_; }

 private:
  double value_ = 0;
};

}}}  // namespace plumb::v0_1::bench
