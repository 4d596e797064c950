// The arithmetic of ptx_arithmetic.hpp that needs more than an expression: rounding modes other
// than the nearest, and the small float formats.
#include <emulator/ptx_arithmetic.hpp>

#include <cfenv>

namespace plumb::emulator::ptx {

namespace {

/// Runs f under a rounding mode. The operands reach f, and its result leaves it, through volatile
/// objects: the compiler assumes the nearest everywhere and would move or fold the operation.
template <class T, class F>
T rounded(Rounding mode, F f) {
  constexpr int modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
  std::fesetround(modes[mode]);
  volatile T result = f();
  std::fesetround(FE_TONEAREST);
  return result;
}
template <class T>
T add_mode(T a, T b, Rounding mode) {
  volatile T x = a, y = b;
  return rounded<T>(mode, [&] { return x + y; });
}
template <class T>
T mul_mode(T a, T b, Rounding mode) {
  volatile T x = a, y = b;
  return rounded<T>(mode, [&] { return x * y; });
}
template <class T>
T fma_mode(T a, T b, T c, Rounding mode) {
  volatile T x = a, y = b, z = c;
  return rounded<T>(mode, [&] { return std::fma(x, y, z); });
}
template <class T>
T div_mode(T a, T b, Rounding mode) {
  volatile T x = a, y = b;
  return rounded<T>(mode, [&] { return x / y; });
}
template <class T>
T sqrt_mode(T a, Rounding mode) {
  volatile T x = a;
  return rounded<T>(mode, [&] { return std::sqrt(x); });
}
template <class To, class From>
To convert_mode(From v, Rounding mode) {
  volatile From x = v;
  return rounded<To>(mode, [&] { return static_cast<To>(x); });
}

/// The double nearest to v that is odd in its last place unless exact: rounding it again, to fewer
/// digits and in any mode, gives what rounding v once would.
double to_odd(double nearest_value, bool exact, bool value_is_above) {
  auto bits = std::bit_cast<std::uint64_t>(nearest_value);
  if (exact || (bits & 1) != 0) return nearest_value;
  const bool away = value_is_above == (nearest_value > 0);
  return std::bit_cast<double>(away ? bits + 1 : bits - 1);
}

/// A value to a format of `mantissa` explicit bits and 5 or 8 bits of exponent.
std::uint16_t small_from(double value, int mantissa, int exponent_bits, Rounding mode) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const std::uint32_t infinity = ((1U << exponent_bits) - 1) << mantissa;
  const std::uint32_t sign = std::signbit(value) ? 0x8000U : 0U;
  if (std::isnan(value)) return 0x7fff;
  const double magnitude = std::fabs(value);
  if (magnitude == 0) return static_cast<std::uint16_t>(sign);
  if (std::isinf(magnitude)) return static_cast<std::uint16_t>(sign | infinity);
  int exponent = 0;
  std::frexp(magnitude, &exponent);        // magnitude < 2^exponent
  const int lowest = 1 - bias - mantissa;  // exponent of the smallest subnormal
  const int unit = exponent - 1 - mantissa < lowest ? lowest : exponent - 1 - mantissa;
  const double scaled = std::ldexp(magnitude, -unit);  // exact; the integer part is the mantissa
  const bool up = mode == upward ? sign == 0 : mode == downward && sign != 0;
  const double whole = mode == nearest ? std::nearbyint(scaled)
                       : up            ? std::ceil(scaled)
                                       : std::floor(scaled);
  // The encoding counts on from one binade to the next, and from the subnormals to the first.
  const auto count = static_cast<std::uint32_t>(whole);
  const std::uint32_t bits = count + (static_cast<std::uint32_t>(unit - lowest) << mantissa);
  if (bits >= infinity)
    return static_cast<std::uint16_t>(sign | (mode == nearest || up ? infinity : infinity - 1));
  return static_cast<std::uint16_t>(sign | bits);
}

/// a·b + c of values whose product a double holds, rounded to odd.
double fma_to_odd(double a, double b, double c) {
  const double product = a * b;
  const double sum = product + c;
  if (!std::isfinite(sum)) return sum;
  // The rounding error of a sum, exactly (Knuth's two-sum).
  const double part = sum - product;
  const double error = (product - (sum - part)) + (c - part);
  return to_odd(sum, error == 0, error > 0);
}

}  // namespace

float brain_to_float(Brain value) { return widen(value); }
Brain brain_from(double value, int rounding) {
  return {small_from(value, 7, 8, static_cast<Rounding>(rounding))};
}
Half half_from(double value, int rounding) {
  return {small_from(value, 10, 5, static_cast<Rounding>(rounding))};
}

float half_to_float(Half value) {
  const std::uint32_t sign = (value.bits & 0x8000U) << 16, exponent = (value.bits >> 10) & 31U,
                      mantissa = value.bits & 0x3ffU;
  if (exponent == 31) return f32(sign | 0x7f800000U | (mantissa << 13));
  if (exponent != 0) return f32(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
  return sign != 0 ? -magnitude : magnitude;
}

std::uint32_t tf32_from(float value, bool ties_away) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7f800000U) == 0x7f800000U) return bits & 0xffffe000U;
  // A carry out of the mantissa moves to the next binade, and beyond the last to infinity.
  const std::uint32_t half = ties_away ? 0x1000U : 0xfffU + ((bits >> 13) & 1U);
  return (bits + half) & 0xffffe000U;
}

float add_rounded(float a, float b, Rounding mode) { return add_mode(a, b, mode); }
double add_rounded(double a, double b, Rounding mode) { return add_mode(a, b, mode); }
float mul_rounded(float a, float b, Rounding mode) { return mul_mode(a, b, mode); }
double mul_rounded(double a, double b, Rounding mode) { return mul_mode(a, b, mode); }
float fma_rounded(float a, float b, float c, Rounding mode) { return fma_mode(a, b, c, mode); }
double fma_rounded(double a, double b, double c, Rounding mode) { return fma_mode(a, b, c, mode); }
float div_rounded(float a, float b, Rounding mode) { return div_mode(a, b, mode); }
double div_rounded(double a, double b, Rounding mode) { return div_mode(a, b, mode); }
float sqrt_rounded(float a, Rounding mode) { return sqrt_mode(a, mode); }
double sqrt_rounded(double a, Rounding mode) { return sqrt_mode(a, mode); }

Half fma_small(Half a, Half b, Half c) {
  return half_from(fma_to_odd(widen(a), widen(b), widen(c)), nearest);
}
Brain fma_small(Brain a, Brain b, Brain c) {
  return brain_from(fma_to_odd(widen(a), widen(b), widen(c)), nearest);
}

float float_from(std::int64_t v, Rounding mode) { return convert_mode<float>(v, mode); }
float float_from(std::uint64_t v, Rounding mode) { return convert_mode<float>(v, mode); }
double double_from(std::int64_t v, Rounding mode) { return convert_mode<double>(v, mode); }
double double_from(std::uint64_t v, Rounding mode) { return convert_mode<double>(v, mode); }
float float_from(double v, Rounding mode) { return convert_mode<float>(v, mode); }

double odd_double_from(std::int64_t v) {
  const double d = static_cast<double>(v);
  const Int128 difference = static_cast<Int128>(v) - static_cast<Int128>(d);
  return to_odd(d, difference == 0, difference > 0);
}
double odd_double_from(std::uint64_t v) {
  const double d = static_cast<double>(v);
  const Int128 difference = static_cast<Int128>(v) - static_cast<Int128>(d);
  return to_odd(d, difference == 0, difference > 0);
}

}  // namespace plumb::emulator::ptx
