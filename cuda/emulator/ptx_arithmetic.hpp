// What one PTX instruction computes: the pure part of the translation made by ptx_translate.py.
//
// Every function is the PTX ISA's definition of an instruction on its operand type, in C++ that has
// no undefined case: integers wrap, shifts clamp or wrap as the instruction says, conversions
// saturate and turn NaN into what the ISA states, min and max order -0 below +0 and drop a NaN
// operand. Float sums, products and roots are the host's IEEE operations in round-to-nearest-even;
// they need a translation unit without contraction (-ffp-contract=off) and without -ffast-math.
//
// Not here: memory and anything that several threads do together (ptx_thread.hpp). Not reproduced:
// the payload of a NaN that an arithmetic instruction makes (the ISA leaves it open; a GPU gives
// 0x7fffffff), and the error of the `.approx` instructions, which are the correctly rounded double
// result here.
//
// Source: PTX ISA 9.0, chapters 9.7.1 to 9.7.9.
#pragma once

#include <emulator/ptx_integers.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace plumb::emulator::ptx {

// ---- Floats ------------------------------------------------------------------------------------

float brain_to_float(Brain value);
Brain brain_from(double value, int rounding);  // rounding: a Rounding
float half_to_float(Half value);
Half half_from(double value, int rounding);
/// f32 with 10 explicit bits of mantissa: ties away from zero (rna) or to even (rn).
std::uint32_t tf32_from(float value, bool ties_away);

enum Rounding : int { nearest, toward_zero, downward, upward };

/// Sum, product, fma, quotient and root in a rounding mode other than the nearest.
float add_rounded(float a, float b, Rounding mode);
double add_rounded(double a, double b, Rounding mode);
float mul_rounded(float a, float b, Rounding mode);
double mul_rounded(double a, double b, Rounding mode);
float fma_rounded(float a, float b, float c, Rounding mode);
double fma_rounded(double a, double b, double c, Rounding mode);
float div_rounded(float a, float b, Rounding mode);
double div_rounded(double a, double b, Rounding mode);
float sqrt_rounded(float a, Rounding mode);
double sqrt_rounded(double a, Rounding mode);

/// a·b + c of f16 or bf16 with one rounding.
Half fma_small(Half a, Half b, Half c);
Brain fma_small(Brain a, Brain b, Brain c);

inline float widen(Half v) { return half_to_float(v); }
inline float widen(Brain v) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(v.bits) << 16);
}
inline float widen(float v) { return v; }
inline double widen(double v) { return v; }
template <class T>
T narrow(double v, int rounding = nearest) {
  if constexpr (std::is_same_v<T, Half>)
    return half_from(v, rounding);
  else if constexpr (std::is_same_v<T, Brain>)
    return brain_from(v, rounding);
  else
    return static_cast<T>(v);
}

// f16 and bf16 go through float: 24 bits hold twice 11 and two more, so rounding twice is rounding
// once for a sum, a product, a quotient or a root.
template <class T>
T float_add(T a, T b) {
  if constexpr (is_small_float<T>)
    return narrow<T>(widen(a) + widen(b));
  else
    return a + b;
}
template <class T>
T float_sub(T a, T b) {
  if constexpr (is_small_float<T>)
    return narrow<T>(widen(a) - widen(b));
  else
    return a - b;
}
template <class T>
T float_mul(T a, T b) {
  if constexpr (is_small_float<T>)
    return narrow<T>(widen(a) * widen(b));
  else
    return a * b;
}
template <class T>
T float_fma(T a, T b, T c) {
  if constexpr (is_small_float<T>)
    return fma_small(a, b, c);
  else
    return std::fma(a, b, c);
}
inline float float_div(float a, float b) { return a / b; }
inline double float_div(double a, double b) { return a / b; }
inline float float_sqrt(float a) { return std::sqrt(a); }
inline double float_sqrt(double a) { return std::sqrt(a); }

template <class T>
constexpr Word<T> sign_bit = static_cast<Word<T>>(Word<T>{1} << (8 * sizeof(T) - 1));
template <class T>
constexpr T float_neg(T a) {
  return std::bit_cast<T>(static_cast<Word<T>>(std::bit_cast<Word<T>>(a) ^ sign_bit<T>));
}
template <class T>
constexpr T float_abs(T a) {
  return std::bit_cast<T>(
      static_cast<Word<T>>(std::bit_cast<Word<T>>(a) & static_cast<Word<T>>(~sign_bit<T>)));
}
/// b's magnitude with a's sign (PTX names the sign first).
template <class T>
constexpr T copy_sign(T sign, T magnitude) {
  return std::bit_cast<T>(static_cast<Word<T>>((std::bit_cast<Word<T>>(sign) & sign_bit<T>) |
                                               std::bit_cast<Word<T>>(float_abs(magnitude))));
}

template <class T>
inline bool is_nan(T a) {
  return widen(a) != widen(a);
}
template <class T>
constexpr T canonical_nan() {
  if constexpr (sizeof(T) == 2)
    return T{0x7fff};
  else if constexpr (sizeof(T) == 4)
    return f32(0x7fffffffu);
  else
    return f64(0x7fffffffffffffffull);
}
template <class T>
constexpr bool negative(T a) {
  return (std::bit_cast<Word<T>>(a) & sign_bit<T>) != 0;
}

template <class T>
inline T float_min(T a, T b) {
  if (is_nan(a)) return is_nan(b) ? canonical_nan<T>() : b;
  if (is_nan(b)) return a;
  if (widen(a) == widen(b)) return negative(a) ? a : b;
  return widen(a) < widen(b) ? a : b;
}
template <class T>
inline T float_max(T a, T b) {
  if (is_nan(a)) return is_nan(b) ? canonical_nan<T>() : b;
  if (is_nan(b)) return a;
  if (widen(a) == widen(b)) return negative(a) ? b : a;
  return widen(a) > widen(b) ? a : b;
}
/// The `.NaN` forms: a NaN operand is the result.
template <class T>
inline T float_min_nan(T a, T b) {
  return is_nan(a) || is_nan(b) ? canonical_nan<T>() : float_min(a, b);
}
template <class T>
inline T float_max_nan(T a, T b) {
  return is_nan(a) || is_nan(b) ? canonical_nan<T>() : float_max(a, b);
}

/// `.ftz`: a subnormal operand or result counts as a zero of its sign.
inline float flush(float a) {
  const auto bits = std::bit_cast<std::uint32_t>(a);
  return (bits & 0x7f800000u) == 0 ? f32(bits & 0x80000000u) : a;
}
inline double flush(double a) {
  const auto bits = std::bit_cast<std::uint64_t>(a);
  return (bits & 0x7ff0000000000000u) == 0 ? f64(bits & 0x8000000000000000u) : a;
}
/// `.sat`: into [0, 1]; NaN becomes +0.
template <class T>
inline T saturate_unit(T a) {
  if (!(widen(a) > 0)) return T{};
  return widen(a) > 1 ? narrow<T>(1.0) : a;
}
/// `.relu`: below zero and -0 become +0, NaN stays a canonical NaN.
template <class T>
inline T relu(T a) {
  return is_nan(a) ? canonical_nan<T>() : negative(a) ? T{} : a;
}

enum class FloatClass { finite, infinite, number, notanumber, normal, subnormal };
template <class T>
inline bool test_class(T a, FloatClass c) {
  switch (c) {
    case FloatClass::finite: return std::isfinite(a);
    case FloatClass::infinite: return std::isinf(a);
    case FloatClass::number: return !std::isnan(a);
    case FloatClass::notanumber: return std::isnan(a);
    case FloatClass::normal: return std::isnormal(a) || a == 0;
    default: return std::fpclassify(a) == FP_SUBNORMAL;
  }
}

// ---- Conversions -------------------------------------------------------------------------------

/// Float to integer by `round`, held in the target's range; NaN becomes 0, or the top bit alone
/// where source or target is 64 bits wide.
template <class To, class From>
To to_integer(From from, Rounding mode) {
  using Value = std::conditional_t<std::is_same_v<From, double>, double, float>;
  const Value v = widen(from);
  if (v != v)
    return sizeof(To) == 8 || sizeof(From) == 8
               ? static_cast<To>(Word<To>{1} << (8 * sizeof(To) - 1))
               : To{0};
  const Value r = mode == nearest       ? std::nearbyint(v)
                  : mode == toward_zero ? std::trunc(v)
                  : mode == downward    ? std::floor(v)
                                        : std::ceil(v);
  // 2^bits is exact in both float types; its predecessor among integers need not be.
  const Value above = std::ldexp(Value{1}, bits_of<To> - (std::is_signed_v<To> ? 1 : 0));
  if (r >= above) return std::numeric_limits<To>::max();
  if (r <= static_cast<Value>(std::numeric_limits<To>::min()))
    return std::numeric_limits<To>::min();
  return static_cast<To>(r);
}
template <class T>
T round_to_integral(T v, Rounding mode) {
  return mode == nearest       ? std::nearbyint(v)
         : mode == toward_zero ? std::trunc(v)
         : mode == downward    ? std::floor(v)
                               : std::ceil(v);
}
template <class To, class From>
constexpr To to_width_saturated(From v) {
  using Limits = std::numeric_limits<To>;
  const Int128 wide = static_cast<Int128>(v);
  if (wide < static_cast<Int128>(Limits::min())) return Limits::min();
  if (wide > static_cast<Int128>(Limits::max())) return Limits::max();
  return static_cast<To>(v);
}
float float_from(std::int64_t v, Rounding mode);
float float_from(std::uint64_t v, Rounding mode);
double double_from(std::int64_t v, Rounding mode);
double double_from(std::uint64_t v, Rounding mode);
float float_from(double v, Rounding mode);
/// The integer as a double rounded to odd, for rounding it again to a small float.
double odd_double_from(std::int64_t v);
double odd_double_from(std::uint64_t v);

template <class To, class From>
To from_integer(From v, Rounding mode) {
  using Any = std::conditional_t<std::is_signed_v<From>, std::int64_t, std::uint64_t>;
  if constexpr (std::is_same_v<To, double>)
    return mode == nearest ? static_cast<double>(v) : double_from(Any{v}, mode);
  else if constexpr (std::is_same_v<To, float>)
    return mode == nearest ? static_cast<float>(v) : float_from(Any{v}, mode);
  else
    return narrow<To>(odd_double_from(Any{v}), mode);
}
template <class To, class From>
To from_float(From v, Rounding mode) {
  if constexpr (std::is_same_v<To, float> && std::is_same_v<From, double>)
    return mode == nearest ? static_cast<float>(v) : float_from(v, mode);
  else
    return narrow<To>(static_cast<double>(widen(v)), mode);
}

// ---- Approximations ----------------------------------------------------------------------------
// A GPU's have errors of a few units in the last place; these have none.

template <class T>
T approx_exp2(T v) {
  return narrow<T>(std::exp2(static_cast<double>(widen(v))));
}
template <class T>
T approx_log2(T v) {
  return narrow<T>(std::log2(static_cast<double>(widen(v))));
}
template <class T>
T approx_tanh(T v) {
  return narrow<T>(std::tanh(static_cast<double>(widen(v))));
}
inline float approx_sin(float v) { return static_cast<float>(std::sin(static_cast<double>(v))); }
inline float approx_cos(float v) { return static_cast<float>(std::cos(static_cast<double>(v))); }
inline float approx_rsqrt(float v) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(v)));
}
inline double approx_rsqrt(double v) { return 1.0 / std::sqrt(v); }

}  // namespace plumb::emulator::ptx
