// Case tables: the sizes at which an op is tested (kSmall: odd, and around its tiles) and timed
// (kTimed), with the least work that a call must do. For tests/test_<op>.cpp and
// bench/bench_<op>.cpp alike, so that what is timed is what is tested.
#pragma once

#include <plumb/bench/work.hpp>
#include <plumb/core/check.hpp>

namespace cases {

using plumb::Index;

using plumb::bench::Work;

/// Multiplications, fused or not, and a division as one, that an element takes in
/// math/elementary.inl.hpp, whose bits every kernel keeps.
inline constexpr Index kExp = 13, kLog = 15, kTanh = 8 + kExp, kErf = 13 + kExp,
                       kSigmoid = 1 + kExp;

/// Bytes of n floats.
constexpr double floats(Index n) { return 4.0 * static_cast<double>(n); }

/// Work on operands that are either read or written.
constexpr Work streaming(double flops, double read, double written) {
  return {flops, read, written, read + written, 0};
}

/// As streaming, where `in_place` of the bytes written were read first.
constexpr Work updating(double flops, double read, double written, double in_place) {
  return {flops, read, written, read + written - in_place, 0};
}

/// The same work with so many more multiplications.
constexpr Work with_extra(Work work, Index extra) {
  work.extra = static_cast<double>(extra);
  return work;
}

}  // namespace cases
