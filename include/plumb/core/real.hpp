// Elementary functions in double, the same bits on every machine: exp, expm1, log, log1p, pow, sin,
// cos, tan, atan. A system's own differ from one version to the next in the last bit, and weights,
// rotary tables and reports would differ with them. Nothing here but + − × ÷, square roots and
// integers: no call of the system's library, no fused multiply-add, and the compiler makes none.
//
// Each takes its argument to a short interval and sums a Taylor series there, whose coefficients
// are 1/n! and 1/n; what is as large as the result is carried as an unevaluated sum of two doubles
// (Dekker 1971, "A floating-point technique for extending the available precision"; Knuth, TAOCP 2,
// 4.2.2). Angles are reduced by multiplying with as many bits of 2/π as the argument needs (Payne
// and Hanek 1983), in integers. Errors, in units of the last place, of tests/test_real.cpp:
//   exp, expm1, log, log1p, pow, sin, cos  less than 0.6   (subnormal results of exp, pow: 1)
//   tan  less than 2.5     atan  less than 5
// Not here: the kernels' functions of float (math/elementary.inl.hpp), for which these would be too
// slow; pow of a negative base, which nobody needs, and which gives NaN.
#pragma once

#include <plumb/core/version.hpp>

#include <cmath>
#include <cstdint>
#include <limits>

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
#endif

namespace plumb { inline namespace v0_1 { namespace real {

namespace detail {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();
inline constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
inline constexpr double kLn2 = 0x1.62e42fefa3800p-1;  // 42 bits: its multiples are exact
inline constexpr double kLn2Rest = 0x1.ef35793c76730p-45;
inline constexpr double kHalfPi = 0x1.921fb54442d18p+0;
inline constexpr double kHalfPiRest = 0x1.1a62633145c07p-54;

inline std::uint64_t bits_of(double x) { return __builtin_bit_cast(std::uint64_t, x); }
inline double from_bits(std::uint64_t bits) { return __builtin_bit_cast(double, bits); }

/// high + low, where high is that sum rounded.
struct Pair {
  double high, low;
};

inline Pair sum(double a, double b) {
  const double s = a + b, t = s - a;
  return {s, (a - (s - t)) + (b - t)};
}
/// The same for |a| ≥ |b| or a = 0.
inline Pair quick_sum(double a, double b) {
  const double s = a + b;
  return {s, b - (s - a)};
}
/// Exact where neither is beyond 2^996 and the last bits are not below the smallest double.
inline Pair product(double a, double b) {
  constexpr double kSplit = 0x1p27 + 1.0;
  const double p = a * b, x = kSplit * a, y = kSplit * b;
  const double a_high = x - (x - a), a_low = a - a_high;
  const double b_high = y - (y - b), b_low = b - b_high;
  return {p, ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low};
}
inline Pair product(Pair a, Pair b) {
  const Pair p = product(a.high, b.high);
  return quick_sum(p.high, p.low + (a.high * b.low + a.low * b.high));
}

/// x · 2^n for n in [-1080, 1024] and x in [½, 2], rounded once.
inline double scaled(double x, int n) {
  const int half = n / 2;
  const auto power = [](int e) { return from_bits(static_cast<std::uint64_t>(1023 + e) << 52); };
  return x * power(half) * power(n - half);
}

/// e^(x + rest) − 1 for |x| ≤ 0.35, of which rest is a rounding error.
inline Pair expm1_near_zero(double x, double rest) {
  const Pair square = product(x, x);
  // 1/3! + x/4! + … + x^11/14!: by Horner's rule, products with constants rather than quotients.
  constexpr double kInverse[] = {1.0 / 87178291200.0, 1.0 / 6227020800.0, 1.0 / 479001600.0,
                                 1.0 / 39916800.0,    1.0 / 3628800.0,    1.0 / 362880.0,
                                 1.0 / 40320.0,       1.0 / 5040.0,       1.0 / 720.0,
                                 1.0 / 120.0,         1.0 / 24.0,         1.0 / 6.0};
  double series = 0.0;
  for (const double c : kInverse) series = series * x + c;
  const Pair two = quick_sum(x, 0.5 * square.high);
  const Pair three = quick_sum(two.high, x * square.high * series);
  return quick_sum(three.high, three.low + (two.low + 0.5 * square.low + rest * (1.0 + two.high)));
}

/// x = n · ln 2 + r: n, and r as a pair of at most 0.35. |x| < 800.
struct Halvings {
  int n;
  Pair rest;
};
inline Halvings halvings(double x, double low) {
  const double n = (x * 0x1.71547652b82fep+0 + 0x1.8p52) - 0x1.8p52;
  const Pair r = sum(x - n * kLn2, low - n * kLn2Rest);
  return {static_cast<int>(n), r};
}

/// e^(x + low), where low is at most a rounding error of x.
inline double exp_of(double x, double low) {
  if (!(x < 709.8)) return x != x ? x : kInfinity;
  if (x < -746.0) return 0.0;
  if (std::fabs(x) < 0x1p-60) return 1.0 + x;
  const Halvings h = halvings(x, low);
  const Pair e = expm1_near_zero(h.rest.high, h.rest.low);
  const Pair y = quick_sum(1.0, e.high);
  return scaled(y.high + (y.low + e.low), h.n);
}

/// A positive normal x = (1 + fraction) · 2^n, 1 + fraction in [√½, √2).
struct Binary {
  double n, fraction;
};
inline Binary binary(double x) {
  const std::uint64_t from = bits_of(x) - 0x3fe6a09e667f3bcdU;  // √½
  const auto n = static_cast<std::int64_t>(from) >> 52;
  const double m = from_bits(bits_of(x) - (static_cast<std::uint64_t>(n) << 52));
  return {static_cast<double>(n), m - 1.0};
}

/// f + g over 2 + f + g, of which g is a rounding error.
inline Pair log_argument(double f, double g) {
  const Pair d = quick_sum(2.0, f);
  const double s = f / d.high;
  const Pair back = product(s, d.high);
  return {s, (((f - back.high) - back.low) + (g - s * (d.low + g))) / d.high};
}

/// log((1 + f + g) · 2^n): with s = (f + g)/(2 + f + g) it is n ln 2 + 2 s + 2 s³/3 + 2 s^5/5 + ….
inline double log_of(double n, double f, double g) {
  const Pair s = log_argument(f, g);
  constexpr double kInverse[] = {2.0 / 25, 2.0 / 23, 2.0 / 21, 2.0 / 19, 2.0 / 17, 2.0 / 15,
                                 2.0 / 13, 2.0 / 11, 2.0 / 9,  2.0 / 7,  2.0 / 5,  2.0 / 3};
  const double z = s.high * s.high;
  double series = 0.0;
  for (const double c : kInverse) series = series * z + c;
  const Pair top = sum(n * kLn2, 2.0 * s.high);
  return top.high + (top.low + (s.high * z * series + (2.0 * s.low + n * kLn2Rest)));
}

/// log x of a positive, finite x to some 90 bits, for pow: the same series in pairs.
inline Pair log_pair(double x) {
  const bool small = x < 0x1p-1022;
  const Binary b = binary(small ? x * 0x1p54 : x);
  const double n = small ? b.n - 54.0 : b.n;
  const Pair s = log_argument(b.fraction, 0.0);
  const Pair z = product(s, s);
  Pair series = {0.0, 0.0};
  for (int odd = 45; odd > 0; odd -= 2) {
    const double inverse = 1.0 / odd;
    const Pair back = product(inverse, odd);
    const double rest = ((1.0 - back.high) - back.low) / odd;
    const Pair next = product(z, series);
    const Pair y = quick_sum(inverse, next.high);
    series = quick_sum(y.high, y.low + (rest + next.low));
  }
  const Pair l = product(s, series);
  const Pair top = sum(n * kLn2, 2.0 * l.high);
  return quick_sum(top.high, top.low + (2.0 * l.low + n * kLn2Rest));
}

/// x = quadrant · π/2 + angle, the angle at most π/4; the quadrant counts modulo 4.
struct Turn {
  unsigned quadrant;
  Pair angle;
};

/// For finite x > 0.78. x is m · 2^e with an integer m; only 192 bits of 2/π matter: those before
/// make whole turns, those after less than 2^-126 of a quadrant.
inline Turn turn(double x) {
  static constexpr std::uint64_t kTwoOverPi[] = {
      0x0000000000000000, 0xa2f9836e4e441529, 0xfc2757d1f534ddc0, 0xdb6295993c439041,
      0xfe5163abdebbc561, 0xb7246e3a424dd2e0, 0x06492eea09d1921c, 0xfe1deb1cb129a73e,
      0xe88235f52ebb4484, 0xe99c7026b45f7e41, 0x3991d639835339f4, 0x9c845f8bbdf9283b,
      0x1ff897ffde05980f, 0xef2f118b5a0a6d1f, 0x6d367ecf27cb09b7, 0x4f463f669e5fea2d,
      0x7527bac7ebe5f17b, 0x3d0739f78a5292ea, 0x6bfb5fb11f8d5d08, 0x56033046fc7b6bab};
  __extension__ using Wide = unsigned __int128;
  __extension__ using Signed = __int128;
  const std::uint64_t bits = bits_of(x);
  const std::uint64_t m = (bits & 0xfffffffffffffU) | 0x10000000000000U;
  const auto place = static_cast<unsigned>(bits >> 52) - 1075U + 62U;  // of the first bit; e ≥ -53
  const unsigned word = place / 64, shift = place % 64;
  const auto window = [&](unsigned i) {
    const std::uint64_t at = kTwoOverPi[word + i];
    return shift == 0 ? at : at << shift | kTwoOverPi[word + i + 1] >> (64 - shift);
  };
  const Wide low = Wide{m} * window(2) >> 64;
  const Wide fraction = (Wide{m} * window(1) + low) + (Wide{m * window(0)} << 64);  // of 2^126
  const Wide whole = (fraction + (Wide{1} << 125)) >> 126;
  const auto rest = static_cast<Signed>(fraction - (whole << 126));
  const auto high = static_cast<double>(rest);
  const auto remains = static_cast<double>(rest - static_cast<Signed>(high));
  const Pair part = {high * 0x1p-126, remains * 0x1p-126};
  return {static_cast<unsigned>(whole) & 3U, product(part, {kHalfPi, kHalfPiRest})};
}

/// sin of a pair of at most π/4: x − x³/6 + x^5/120 − ….
inline double sin_near_zero(Pair x) {
  if (std::fabs(x.high) < 0x1p-27) return x.high;
  const Pair square = product(x.high, x.high);
  const double z = square.high;
  constexpr double kSixth = 1.0 / 6.0, kSixthRest = 0x1.5555555555555p-57;
  constexpr double kInverse[] = {
      1.0 / 355687428096000.0, -1.0 / 1307674368000.0, 1.0 / 6227020800.0, -1.0 / 39916800.0,
      1.0 / 362880.0,          -1.0 / 5040.0,          1.0 / 120.0};
  double series = 0.0;
  for (const double c : kInverse) series = series * z + c;
  const Pair third = product(z, -kSixth);
  const Pair factor = quick_sum(third.high, z * z * series);
  const Pair more = product(x.high, factor.high);
  const double more_rest =
      x.high * (factor.low + (third.low - (z * kSixthRest + square.low * kSixth)));
  const Pair y = quick_sum(x.high, more.high);
  return y.high + (y.low + (more.low + more_rest + x.low * (1.0 - 0.5 * z)));
}

/// cos of a pair of at most π/4: 1 − x²/2 + x^4/24 − ….
inline double cos_near_zero(Pair x) {
  const Pair square = product(x.high, x.high);
  const double z = square.high;
  constexpr double kInverse[] = {
      -1.0 / 6402373705728000.0, 1.0 / 20922789888000.0, -1.0 / 87178291200.0, 1.0 / 479001600.0,
      -1.0 / 3628800.0,          1.0 / 40320.0,          -1.0 / 720.0,         1.0 / 24.0};
  double series = 0.0;
  for (const double c : kInverse) series = series * z + c;
  const Pair two = quick_sum(1.0, -0.5 * z);
  const Pair y = quick_sum(two.high, z * z * series);
  return y.high + (y.low + (two.low - (0.5 * square.low + x.high * x.low)));
}

/// sin(x + quadrants · π/2) for x ≥ 0.
inline double sin_turned(double x, unsigned quadrants) {
  if (!(x < kInfinity)) return kNan;
  const Turn t = x <= 0.78 ? Turn{0, {x, 0.0}} : turn(x);
  const unsigned quadrant = t.quadrant + quadrants;
  const double y = quadrant % 2 == 0 ? sin_near_zero(t.angle) : cos_near_zero(t.angle);
  return quadrant % 4 < 2 ? y : -y;
}

}  // namespace detail

inline double exp(double x) { return detail::exp_of(x, 0.0); }

/// e^x − 1.
inline double expm1(double x) {
  using namespace detail;
  if (!(x < 709.8)) return x != x ? x : kInfinity;
  if (x < -40.0) return -1.0;
  if (std::fabs(x) < 0x1p-54) return x;
  const Halvings h = halvings(x, 0.0);
  const Pair e = expm1_near_zero(h.rest.high, h.rest.low);
  if (h.n == 0) return e.high;
  const Pair y = quick_sum(1.0, e.high);
  const Pair less = sum(scaled(y.high, h.n), -1.0);
  return less.high + (less.low + scaled(y.low + e.low, h.n));
}

/// The natural logarithm.
inline double log(double x) {
  using namespace detail;
  if (!(x > 0.0)) return x == 0.0 ? -kInfinity : kNan;
  if (x == kInfinity) return x;
  const bool small = x < 0x1p-1022;
  const Binary b = binary(small ? x * 0x1p54 : x);
  return log_of(small ? b.n - 54.0 : b.n, b.fraction, 0.0);
}

/// log(1 + x).
inline double log1p(double x) {
  using namespace detail;
  if (!(x > -1.0)) return x == -1.0 ? -kInfinity : kNan;
  if (x == kInfinity || std::fabs(x) < 0x1p-54) return x;
  const Pair u = sum(1.0, x);
  const Binary b = binary(u.high);
  const int n = static_cast<int>(b.n);
  const double lost = n > 1000 ? 0.0 : u.low * scaled(1.0, -n);
  const Pair f = sum(b.fraction, lost);
  return log_of(b.n, f.high, f.low);
}

/// x^y for x ≥ 0; NaN for a negative x, unless y is 0.
inline double pow(double x, double y) {
  using namespace detail;
  if (y == 0.0 || x == 1.0) return 1.0;
  if (x != x || y != y || x < 0.0) return kNan;
  if (x == 0.0) return y > 0.0 ? 0.0 : kInfinity;
  if (x == kInfinity) return y > 0.0 ? kInfinity : 0.0;
  const Pair l = log_pair(x);
  const double rough = y * l.high;
  if (!(rough < 710.0)) return kInfinity;
  if (rough < -747.0) return 0.0;
  if (std::fabs(rough) < 0x1p-60) return 1.0;
  const Pair p = product(y, l.high);
  const Pair e = quick_sum(p.high, p.low + y * l.low);
  return exp_of(e.high, e.low);
}

inline double sin(double x) {
  if (x == 0.0) return x;
  return x < 0.0 ? -detail::sin_turned(-x, 0) : detail::sin_turned(x, 0);
}
inline double cos(double x) { return detail::sin_turned(std::fabs(x), 1); }
inline double tan(double x) { return sin(x) / cos(x); }

/// The angle between −π/2 and π/2 whose tangent is x. Halved until it is short, by
/// tan(a/2) = t / (1 + √(1 + t²)).
inline double atan(double x) {
  const double size = std::fabs(x);
  if (size < 0x1p-27 || x != x) return x;
  double t = size > 1.0 ? 1.0 / size : size, parts = 1.0;
  for (; t > 0.2; parts *= 2.0) t = t / (1.0 + std::sqrt(1.0 + t * t));
  double series = 0.0;
  for (int odd = 27; odd > 0; odd -= 2) series = 1.0 / odd - t * t * series;
  const double angle = parts * t * series;
  const double y = size > 1.0 ? detail::kHalfPi - angle : angle;
  return x < 0.0 ? -y : y;
}

}}}  // namespace plumb::v0_1::real

#if !defined(__clang__)
#pragma GCC pop_options
#endif
