// Whether B is faster than A: a verdict with an interval, from times of both. What counts as one
// time is one process, since where a program's memory comes to lie decides a few per cent, and is
// the same for all calls in it.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/run/statistics.hpp>

#include <cmath>
#include <span>
#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 { namespace bench {

enum class Verdict { Faster, Slower, Same, Unsure };
inline constexpr const char* kVerdictNames[] = {"FASTER", "SLOWER", "SAME", "UNSURE"};
inline const char* name(Verdict verdict) { return kVerdictNames[static_cast<int>(verdict)]; }

/// Of the interval; at the two together one comparison in a thousand errs, were nothing but chance
/// at work.
inline constexpr double kConfidence = 0.999;
/// What nobody would call a difference: a ratio within 1 ± this.
inline constexpr double kMargin = 0.02;

/// Times of B over times of A: 1.05 is a B that takes 5 % longer.
struct Comparison {
  double ratio = NAN;
  Interval interval{0, INFINITY};
  Verdict verdict = Verdict::Unsure;
};

namespace detail {
/// SAME where the whole interval is within the margin; FASTER and SLOWER where it leaves 1 out, and
/// with `apart` all that is within the margin.
inline Comparison judge(const Shift& shift, bool apart) {
  Comparison c{std::exp(shift.estimate),
               {std::exp(shift.interval.low), std::exp(shift.interval.high)},
               Verdict::Unsure};
  const double beyond = apart ? kMargin : 0.0;
  if (c.interval.low > 1 - kMargin && c.interval.high < 1 + kMargin)
    c.verdict = Verdict::Same;
  else if (c.interval.low > 1 + beyond)
    c.verdict = Verdict::Slower;
  else if (c.interval.high < 1 - beyond)
    c.verdict = Verdict::Faster;
  return c;
}
inline std::vector<double> logs(std::span<const double> values) {
  std::vector<double> all;
  for (const double x : values) {
    if (!(x > 0) || !std::isfinite(x)) fail(str("[bench] a time is positive; got ", x));
    all.push_back(std::log(x));
  }
  return all;
}
}  // namespace detail

/// Of ratios, each of two processes that were timed in turn.
inline Comparison compare_in_turn(std::span<const double> ratios) {
  return detail::judge(sign_shift(detail::logs(ratios), kConfidence), false);
}

/// Of times taken apart. What else the machine did then is in no interval, so that a difference
/// counts only past the margin.
inline Comparison compare_apart(std::span<const double> a, std::span<const double> b) {
  return detail::judge(rank_sum_shift(detail::logs(a), detail::logs(b), kConfidence), true);
}

}}}  // namespace plumb::v0_1::bench
