// PTX's registers and integer instructions: no case is undefined. Sums and products wrap, shifts
// clamp or wrap their distance as the instruction says, fields may reach beyond the register. See
// ptx_arithmetic.hpp, which has the floats and is what a translation includes.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace plumb::emulator::ptx {

// ---- Registers ---------------------------------------------------------------------------------
// A register is an unsigned integer, a float or a double of its width; an instruction's type is a
// view of it. f16 and bf16 values live in uint16_t; Half and Brain only name the arithmetic.

struct Half {
  std::uint16_t bits;
};
struct Brain {
  std::uint16_t bits;
};

template <int bytes>
struct WordOf;
template <>
struct WordOf<1> {
  using type = std::uint8_t;
};
template <>
struct WordOf<2> {
  using type = std::uint16_t;
};
template <>
struct WordOf<4> {
  using type = std::uint32_t;
};
template <>
struct WordOf<8> {
  using type = std::uint64_t;
};
template <class T>
using Word = typename WordOf<sizeof(T)>::type;

template <class T>
constexpr bool is_small_float = std::is_same_v<T, Half> || std::is_same_v<T, Brain>;
template <class T>
constexpr bool is_float = std::is_floating_point_v<T> || is_small_float<T>;

/// The register as a value of T: the low bytes of a wider one.
template <class T, class Register>
constexpr T get(Register value) {
  if constexpr (std::is_same_v<T, Register>)
    return value;
  else if constexpr (sizeof(T) == sizeof(Register))
    return std::bit_cast<T>(value);
  else
    return std::bit_cast<T>(static_cast<Word<T>>(std::bit_cast<Word<Register>>(value)));
}

/// Writes a value of an instruction's type: bits of the same width, an integer extended by its own
/// sign.
template <class Register, class T>
constexpr void set(Register& to, T value) {
  if constexpr (std::is_same_v<T, Register>)
    to = value;
  else if constexpr (std::is_same_v<Register, bool>)
    to = static_cast<bool>(value);
  else if constexpr (sizeof(T) == sizeof(Register))
    to = std::bit_cast<Register>(value);
  else if constexpr (std::is_integral_v<T>)
    to = std::bit_cast<Register>(static_cast<Word<Register>>(value));
  else
    to = std::bit_cast<Register>(static_cast<Word<Register>>(std::bit_cast<Word<T>>(value)));
}

/// mov's target `_` and the unused half of a pair.
struct Sink {
  template <class T>
  constexpr void operator=(T) const {}
};
template <class T>
constexpr void set(const Sink&, T) {}

constexpr float f32(std::uint32_t bits) { return std::bit_cast<float>(bits); }
constexpr double f64(std::uint64_t bits) { return std::bit_cast<double>(bits); }

// ---- Integers ----------------------------------------------------------------------------------

template <class T>
constexpr int bits_of = 8 * static_cast<int>(sizeof(T));
template <class T>
using Unsigned = std::make_unsigned_t<T>;
// Products of 8- and 16-bit operands would be computed in int, so arithmetic runs at 32 bits or
// more.
template <class T>
using Wide = std::conditional_t<(sizeof(T) < 4), std::uint32_t, Unsigned<T>>;
template <class T>
struct DoubleOf;
template <>
struct DoubleOf<std::int16_t> {
  using type = std::int32_t;
};
template <>
struct DoubleOf<std::uint16_t> {
  using type = std::uint32_t;
};
template <>
struct DoubleOf<std::int32_t> {
  using type = std::int64_t;
};
template <>
struct DoubleOf<std::uint32_t> {
  using type = std::uint64_t;
};
__extension__ typedef __int128 Int128;
__extension__ typedef unsigned __int128 UInt128;
template <>
struct DoubleOf<std::int64_t> {
  using type = Int128;
};
template <>
struct DoubleOf<std::uint64_t> {
  using type = UInt128;
};
template <class T>
using Double = typename DoubleOf<T>::type;

template <class T>
constexpr T int_add(T a, T b) {
  return static_cast<T>(static_cast<Wide<T>>(a) + static_cast<Wide<T>>(b));
}
template <class T>
constexpr T int_sub(T a, T b) {
  return static_cast<T>(static_cast<Wide<T>>(a) - static_cast<Wide<T>>(b));
}
template <class T>
constexpr T int_mul_lo(T a, T b) {
  return static_cast<T>(static_cast<Wide<T>>(a) * static_cast<Wide<T>>(b));
}
template <class T>
constexpr T int_mul_hi(T a, T b) {
  return static_cast<T>((static_cast<Double<T>>(a) * static_cast<Double<T>>(b)) >> bits_of<T>);
}
template <class T>
constexpr Double<T> int_mul_wide(T a, T b) {
  return static_cast<Double<T>>(static_cast<Double<T>>(a) * static_cast<Double<T>>(b));
}
template <class T>
constexpr T int_neg(T a) {
  return int_sub<T>(0, a);
}
template <class T>
constexpr T int_abs(T a) {
  return a < 0 ? int_neg(a) : a;
}
template <class T>
constexpr T int_min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
constexpr T int_max(T a, T b) {
  return a < b ? b : a;
}

/// The sum held in the type's range instead of wrapped (add.sat.s32).
constexpr std::int32_t int_saturate(std::int64_t v) {
  constexpr std::int64_t low = std::numeric_limits<std::int32_t>::min(),
                         high = std::numeric_limits<std::int32_t>::max();
  return static_cast<std::int32_t>(v < low ? low : v > high ? high : v);
}

/// Division by zero has no defined result: the hardware gives all ones, and so does this.
template <class T>
constexpr T int_div(T a, T b) {
  if (b == 0) return static_cast<T>(-1);
  if constexpr (std::is_signed_v<T>)
    if (b == -1) return int_neg(a);
  return static_cast<T>(a / b);
}
template <class T>
constexpr T int_rem(T a, T b) {
  if (b == 0) return a;
  if constexpr (std::is_signed_v<T>)
    if (b == -1) return 0;
  return static_cast<T>(a % b);
}

/// a + b + carry in two's complement, and the carry out of the top bit.
template <class T>
constexpr T add_carry(T a, T b, bool in, bool& out) {
  using U = Unsigned<T>;
  const U partial = static_cast<U>(static_cast<U>(a) + static_cast<U>(b));
  const U sum = static_cast<U>(partial + U{in});
  out = partial < static_cast<U>(a) || sum < partial;
  return static_cast<T>(sum);
}
/// a - b - borrow. As the ISA has it, the flag is the borrow.
template <class T>
constexpr T sub_borrow(T a, T b, bool in, bool& out) {
  using U = Unsigned<T>;
  const U partial = static_cast<U>(static_cast<U>(a) - static_cast<U>(b));
  const U difference = static_cast<U>(partial - U{in});
  out = static_cast<U>(a) < static_cast<U>(b) || partial < difference;
  return static_cast<T>(difference);
}

/// Shifts clamp their distance at the width; a signed right shift then leaves the sign.
template <class T>
constexpr T shl(T a, std::uint32_t n) {
  return n >= static_cast<unsigned>(bits_of<T>) ? T{0}
                                                : static_cast<T>(static_cast<Wide<T>>(a) << n);
}
template <class T>
constexpr T shr(T a, std::uint32_t n) {
  if (n >= static_cast<unsigned>(bits_of<T>)) return a < 0 ? static_cast<T>(-1) : T{0};
  return static_cast<T>(a >> n);
}
constexpr std::uint32_t funnel_left(std::uint32_t low, std::uint32_t high, std::uint32_t n) {
  return n == 0 ? high : n >= 32 ? low : (high << n) | (low >> (32 - n));
}
constexpr std::uint32_t funnel_right(std::uint32_t low, std::uint32_t high, std::uint32_t n) {
  return n == 0 ? low : n >= 32 ? high : (high << (32 - n)) | (low >> n);
}

/// Three-input logic: bit (4a + 2b + c) of the table.
constexpr std::uint32_t lop3(std::uint32_t a, std::uint32_t b, std::uint32_t c,
                             std::uint32_t table) {
  std::uint32_t r = 0;
  if (table & 0x01) r |= ~a & ~b & ~c;
  if (table & 0x02) r |= ~a & ~b & c;
  if (table & 0x04) r |= ~a & b & ~c;
  if (table & 0x08) r |= ~a & b & c;
  if (table & 0x10) r |= a & ~b & ~c;
  if (table & 0x20) r |= a & ~b & c;
  if (table & 0x40) r |= a & b & ~c;
  if (table & 0x80) r |= a & b & c;
  return r;
}

/// Bit field of `length` from `position`, extended by its top bit where signed. Position and length
/// count modulo 256; bits beyond the register repeat the sign.
template <class T>
constexpr T bit_extract(T a, std::uint32_t position, std::uint32_t length) {
  const int msb = bits_of<T> - 1;
  const int from = static_cast<int>(position & 0xff), n = static_cast<int>(length & 0xff);
  using U = Unsigned<T>;
  const U bits = static_cast<U>(a);
  const int sign_at = from + n - 1 < msb ? from + n - 1 : msb;
  const bool sign = std::is_signed_v<T> && n != 0 && ((bits >> sign_at) & 1) != 0;
  U field = from > msb ? U{0} : static_cast<U>(bits >> from);
  const int valid = from > msb ? 0 : (msb - from + 1 < n ? msb - from + 1 : n);
  const U mask = valid > msb ? static_cast<U>(~U{0}) : static_cast<U>((U{1} << valid) - 1);
  field &= mask;
  return static_cast<T>(sign ? (field | static_cast<U>(~mask)) : field);
}
template <class T>
constexpr T bit_insert(T a, T b, std::uint32_t position, std::uint32_t length) {
  const unsigned from = position & 0xff, n = length & 0xff, width = bits_of<T>;
  if (from >= width || n == 0) return b;
  const unsigned count = n < width - from ? n : width - from;
  const T mask = static_cast<T>(
      (count >= width ? static_cast<T>(~T{0}) : static_cast<T>((T{1} << count) - 1)) << from);
  return static_cast<T>((b & static_cast<T>(~mask)) | (static_cast<T>(a << from) & mask));
}
/// Position of the highest bit that differs from the sign (all ones if none), or the shift that
/// would bring it to the top.
template <class T>
constexpr std::uint32_t bit_find(T a, bool shift_amount) {
  using U = Unsigned<T>;
  U bits = static_cast<U>(a);
  if (std::is_signed_v<T> && a < 0) bits = static_cast<U>(~bits);
  if (bits == 0) return 0xffffffffu;
  const int zeros = std::countl_zero(bits);
  return static_cast<std::uint32_t>(shift_amount ? zeros : bits_of<T> - 1 - zeros);
}
template <class T>
constexpr T bit_reverse(T a) {
  T r = 0;
  for (int i = 0; i < bits_of<T>; ++i, a = static_cast<T>(a >> 1))
    r = static_cast<T>((r << 1) | (a & 1));
  return r;
}
/// A byte of eight, or (selector bit 3) its sign in all bits.
constexpr std::uint32_t byte_at(std::uint64_t pair, std::uint32_t selector) {
  const auto byte = static_cast<std::uint32_t>(pair >> (8 * (selector & 7))) & 0xff;
  if ((selector & 8) == 0) return byte;
  return (byte & 0x80) != 0 ? 0xff : 0;
}
/// Four bytes chosen from the eight of (b, a).
constexpr std::uint32_t permute(std::uint32_t a, std::uint32_t b, std::uint32_t selector) {
  const std::uint64_t pair = (std::uint64_t{b} << 32) | a;
  std::uint32_t r = 0;
  for (int i = 0; i < 4; ++i) r |= byte_at(pair, (selector >> (4 * i)) & 15) << (8 * i);
  return r;
}
template <class A, class B>
constexpr std::uint32_t dot4(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  for (int i = 0; i < 4; ++i)
    c += static_cast<std::uint32_t>(static_cast<std::int32_t>(static_cast<A>(a >> (8 * i))) *
                                    static_cast<std::int32_t>(static_cast<B>(b >> (8 * i))));
  return c;
}
template <class T>
constexpr T absolute_difference_plus(T a, T b, T c) {
  return int_add<T>(c, a < b ? int_sub<T>(b, a) : int_sub<T>(a, b));
}
template <class T>
constexpr T mul24_lo(T a, T b) {
  return int_mul_lo<T>(bit_extract<T>(a, 0, 24), bit_extract<T>(b, 0, 24));
}

}  // namespace plumb::emulator::ptx
