// What kernel tests share: random inputs, every instruction set in turn, comparison of bits.
#pragma once

#include <plumb/core/device.hpp>
#include <plumb/core/random.hpp>
#include <plumb/cpu/isa.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <span>
#include <string>
#include <vector>

namespace test {

using plumb::Index;

/// Sanitizers run an order of magnitude slower: heavy cases shrink.
inline bool sanitized() {
  const char* text = std::getenv("PLUMB_TEST_SANITIZED");
  return text != nullptr && text[0] == '1';
}

/// The processor's time since it was made, in seconds: another program's load does not count.
class Spent {
 public:
  double seconds() const {
    return static_cast<double>(std::clock() - begin_) / static_cast<double>(CLOCKS_PER_SEC);
  }
  /// Within a limit which only an algorithm of another order passes. Under a sanitizer anything is:
  /// there what takes too long ends by the test's own limit.
  bool within(double limit) const { return sanitized() || seconds() < limit; }

 private:
  std::clock_t begin_ = std::clock();
};

/// What f throws as E, as text; empty if it throws nothing. Another exception passes through.
template <class E = plumb::Error, class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const E& error) {
    return error.what();
  }
  return {};
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// n standard normal numbers times `scale`, the same for the same seed.
inline std::vector<float> random_vector(Index n, std::uint64_t seed, float scale = 1.0F) {
  plumb::Rng rng(seed);
  std::vector<float> x(static_cast<std::size_t>(n));
  for (float& value : x) value = scale * rng.normal();
  return x;
}

/// Calls f(isa) with each supported instruction set in use, then restores the one before. Of those
/// that differ on device D.
template <class D = plumb::Cpu, class F>
void for_each_isa(F f) {
  const plumb::Isa before = plumb::current_isa();
  for (const plumb::Isa isa : {plumb::Isa::Scalar, plumb::Isa::Neon, plumb::Isa::Avx2,
                               plumb::Isa::Avx512, plumb::Isa::Avx512Bf16})
    if (plumb::supported(isa) && (isa != plumb::Isa::Avx512Bf16 || plumb::rounds_products<D>)) {
      plumb::set_isa(isa);
      f(isa);
    }
  plumb::set_isa(before);
}

inline bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

/// max |x - exact| / scale; infinite when sizes differ or a value is NaN.
inline double max_error(std::span<const float> x, std::span<const double> exact,
                        double scale = 1.0) {
  double worst = x.size() == exact.size() ? 0.0 : INFINITY;
  for (std::size_t i = 0; i < std::min(x.size(), exact.size()); ++i) {
    const double error = std::abs(static_cast<double>(x[i]) - exact[i]) / scale;
    worst = error <= worst ? worst : std::isnan(error) ? INFINITY : error;
  }
  return worst;
}

/// max |x - exact| / max(1, |exact|), likewise.
inline double max_relative_error(std::span<const float> x, std::span<const double> exact) {
  double worst = x.size() == exact.size() ? 0.0 : INFINITY;
  for (std::size_t i = 0; i < std::min(x.size(), exact.size()); ++i)
    worst = std::max(
        worst, max_error(x.subspan(i, 1), exact.subspan(i, 1), std::max(1.0, std::abs(exact[i]))));
  return worst;
}

}  // namespace test
