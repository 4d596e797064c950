// Each class of PTX instruction that Plumb's kernels may turn into, against what the host computes
// or a value written down here. Compiled by nvcc; run on the emulator through the translation of
// its PTX, or on a GPU. Instructions are written as inline assembly where CUDA C++ leaves nvcc a
// choice.
#include "ptx_support.hpp"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <bit>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <type_traits>

namespace {

// ---- Operations of one, two and three operands --------------------------------------------------

template <class Op, class R, class A>
__global__ void unary(R* out, const A* in, int n) {
  for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x))
    out[i] = Op::device(in[i]);
}
template <class Op, class R, class A>
__global__ void binary(R* out, const A* in, int n) {
  for (int i = static_cast<int>(threadIdx.x); i < n * n; i += static_cast<int>(blockDim.x))
    out[i] = Op::device(in[i / n], in[i % n]);
}
template <class Op, class R, class A>
__global__ void ternary(R* out, const A* in, int n) {
  for (int i = static_cast<int>(threadIdx.x); i < n * n * n; i += static_cast<int>(blockDim.x))
    out[i] = Op::device(in[i / n / n], in[i / n % n], in[i % n]);
}

template <class Op, class A>
void check_unary(const std::vector<A>& values) {
  using R = decltype(Op::host(A{}));
  const int n = static_cast<int>(values.size());
  const Device<A> in(values);
  const Device<R> out(values.size());
  unary<Op><<<1, 64>>>(out.data, in.data, n);
  const auto got = out.host();
  for (int i = 0; i < n; ++i) {
    const auto a = values[static_cast<std::size_t>(i)];
    CHECK_MESSAGE(same_bits(got[static_cast<std::size_t>(i)], Op::host(a)), Op::name, " of ", a,
                  " gave ", got[static_cast<std::size_t>(i)], ", not ", Op::host(a));
  }
}
template <class Op, class A>
void check_binary(const std::vector<A>& values) {
  using R = decltype(Op::host(A{}, A{}));
  const std::size_t n = values.size();
  const Device<A> in(values);
  const Device<R> out(n * n);
  binary<Op><<<1, 64>>>(out.data, in.data, static_cast<int>(n));
  const auto got = out.host();
  for (std::size_t i = 0; i < n * n; ++i) {
    const auto a = values[i / n], b = values[i % n];
    CHECK_MESSAGE(same_bits(got[i], Op::host(a, b)), Op::name, " of ", a, " and ", b, " gave ",
                  got[i], ", not ", Op::host(a, b));
  }
}
template <class Op, class A>
void check_ternary(const std::vector<A>& values) {
  using R = decltype(Op::host(A{}, A{}, A{}));
  const std::size_t n = values.size();
  const Device<A> in(values);
  const Device<R> out(n * n * n);
  ternary<Op><<<1, 64>>>(out.data, in.data, static_cast<int>(n));
  const auto got = out.host();
  for (std::size_t i = 0; i < n * n * n; ++i) {
    const auto a = values[i / n / n], b = values[i / n % n], c = values[i % n];
    CHECK_MESSAGE(same_bits(got[i], Op::host(a, b, c)), Op::name, " of ", a, ", ", b, ", ", c,
                  " gave ", got[i], ", not ", Op::host(a, b, c));
  }
}

#define UNARY(Name, R, A, r, a, text, ...)    \
  struct Name {                               \
    static constexpr const char* name = text; \
    static __device__ R device(A x) {         \
      R d;                                    \
      asm(text " %0, %1;" : r(d) : a(x));     \
      return d;                               \
    }                                         \
    static R host(A x) { __VA_ARGS__ }        \
  };
#define BINARY(Name, R, A, r, a, text, ...)         \
  struct Name {                                     \
    static constexpr const char* name = text;       \
    static __device__ R device(A x, A y) {          \
      R d;                                          \
      asm(text " %0, %1, %2;" : r(d) : a(x), a(y)); \
      return d;                                     \
    }                                               \
    static R host(A x, A y) { __VA_ARGS__ }         \
  };
#define TERNARY(Name, R, A, r, a, text, ...)                  \
  struct Name {                                               \
    static constexpr const char* name = text;                 \
    static __device__ R device(A x, A y, A z) {               \
      R d;                                                    \
      asm(text " %0, %1, %2, %3;" : r(d) : a(x), a(y), a(z)); \
      return d;                                               \
    }                                                         \
    static R host(A x, A y, A z) { __VA_ARGS__ }              \
  };

using u32 = std::uint32_t;
using s32 = std::int32_t;
using u64 = std::uint64_t;
using s64 = std::int64_t;

const std::vector<s32> kSigned = {0,
                                  1,
                                  -1,
                                  2,
                                  -2,
                                  7,
                                  -7,
                                  31,
                                  32,
                                  33,
                                  255,
                                  -128,
                                  65535,
                                  0x12345678,
                                  -0x12345678,
                                  std::numeric_limits<s32>::max(),
                                  std::numeric_limits<s32>::min(),
                                  std::numeric_limits<s32>::min() + 1};
std::vector<u32> unsigned_values() { return {kSigned.begin(), kSigned.end()}; }
const std::vector<s64> kLong = {0,
                                1,
                                -1,
                                3,
                                -3,
                                63,
                                64,
                                0x100000000,
                                -0x100000001,
                                0x123456789abcdef0,
                                std::numeric_limits<s64>::max(),
                                std::numeric_limits<s64>::min()};
std::vector<u64> unsigned_long_values() { return {kLong.begin(), kLong.end()}; }

BINARY(AddS32, s32, s32, "=r", "r", "add.s32",
       return static_cast<s32>(static_cast<u32>(x) + static_cast<u32>(y));)
BINARY(AddSat, s32, s32, "=r", "r", "add.sat.s32", s64 s = s64{x} + y;
       return static_cast<s32>(s > INT32_MAX   ? INT32_MAX
                               : s < INT32_MIN ? INT32_MIN
                                               : s);)
BINARY(SubS32, s32, s32, "=r", "r", "sub.s32",
       return static_cast<s32>(static_cast<u32>(x) - static_cast<u32>(y));)
BINARY(MulLo, s32, s32, "=r", "r", "mul.lo.s32",
       return static_cast<s32>(static_cast<u64>(s64{x} * y));)
BINARY(MulHi, s32, s32, "=r", "r", "mul.hi.s32", return static_cast<s32>((s64{x} * y) >> 32);)
BINARY(MulHiU, u32, u32, "=r", "r", "mul.hi.u32", return static_cast<u32>((u64{x} * y) >> 32);)
BINARY(MulWide, s64, s32, "=l", "r", "mul.wide.s32", return s64{x} * y;)
BINARY(MulWideU, u64, u32, "=l", "r", "mul.wide.u32", return u64{x} * y;)
BINARY(MulHi64, s64, s64, "=l", "l", "mul.hi.s64",
       return static_cast<s64>((static_cast<__int128>(x) * y) >> 64);)
BINARY(MulHi64U, u64, u64, "=l", "l", "mul.hi.u64",
       return static_cast<u64>((static_cast<unsigned __int128>(x) * y) >> 64);)
BINARY(MinS, s32, s32, "=r", "r", "min.s32", return x < y ? x : y;)
BINARY(MaxU, u32, u32, "=r", "r", "max.u32", return x > y ? x : y;)
BINARY(ShlB, u32, u32, "=r", "r", "shl.b32", return y > 31 ? 0 : static_cast<u32>(u64{x} << y);)
BINARY(ShrU, u32, u32, "=r", "r", "shr.u32", return y > 31 ? 0 : x >> y;)
struct ShrS {
  static constexpr const char* name = "shr.s32";
  static __device__ s32 device(s32 x, s32 y) {
    s32 d;
    asm("shr.s32 %0, %1, %2;" : "=r"(d) : "r"(x), "r"(y));
    return d;
  }
  static s32 host(s32 x, s32 y) {
    return static_cast<u32>(y) > 31 ? (x < 0 ? -1 : 0)
                                    : static_cast<s32>(std::floor(std::ldexp(double(x), -y)));
  }
};
struct DivS {
  static constexpr const char* name = "div.s32, rem.s32";
  static __device__ s64 device(s32 x, s32 y) {
    s32 q = 0, r = 0;
    if (y != 0) {
      asm("div.s32 %0, %1, %2;" : "=r"(q) : "r"(x), "r"(y));
      asm("rem.s32 %0, %1, %2;" : "=r"(r) : "r"(x), "r"(y));
    }
    return (s64{q} << 32) | static_cast<u32>(r);
  }
  static s64 host(s32 x, s32 y) {
    if (y == 0) return 0;
    const s64 q = s64{x} / y, r = s64{x} % y;
    return static_cast<s64>(static_cast<u64>(q) << 32) | static_cast<u32>(r);
  }
};
struct DivU64 {
  static constexpr const char* name = "div.u64, rem.u64";
  static __device__ u64 device(u64 x, u64 y) { return y == 0 ? 0 : x / y * 31 + x % y; }
  static u64 host(u64 x, u64 y) { return y == 0 ? 0 : x / y * 31 + x % y; }
};
TERNARY(MadLo, s32, s32, "=r", "r", "mad.lo.s32",
        return static_cast<s32>(static_cast<u64>(s64{x} * y) + static_cast<u64>(s64{z}));)
TERNARY(MadHi, u32, u32, "=r", "r", "mad.hi.u32", return static_cast<u32>((u64{x} * y) >> 32) + z;)
struct MadWide {
  static constexpr const char* name = "mad.wide.s32";
  static __device__ s64 device(s32 x, s32 y, s32 z) {
    s64 d;
    asm("mad.wide.s32 %0, %1, %2, %3;" : "=l"(d) : "r"(x), "r"(y), "l"(s64{z} * 3));
    return d;
  }
  static s64 host(s32 x, s32 y, s32 z) { return s64{x} * y + s64{z} * 3; }
};
TERNARY(Prmt, u32, u32, "=r", "r", "prmt.b32", {
  unsigned char pool[8], picked[4];
  std::memcpy(pool, &x, 4);
  std::memcpy(pool + 4, &y, 4);
  for (int i = 0; i < 4; ++i) {
    const unsigned s = z >> (4 * i) & 15;
    picked[i] = s < 8 ? pool[s] : static_cast<unsigned char>(pool[s - 8] > 127 ? 255 : 0);
  }
  u32 d;
  std::memcpy(&d, picked, 4);
  return d;
})
u64 joined(u32 high, u32 low) { return (u64{high} << 32) | low; }
TERNARY(FunnelLeft, u32, u32, "=r", "r", "shf.l.wrap.b32",
        return static_cast<u32>((joined(y, x) << (z & 31)) >> 32);)
TERNARY(FunnelRight, u32, u32, "=r", "r", "shf.r.clamp.b32",
        return static_cast<u32>(z > 31 ? y : joined(y, x) >> z);)
TERNARY(Dot4, s32, s32, "=r", "r", "dp4a.s32.s32", {
  signed char a[4], b[4];
  std::memcpy(a, &x, 4);
  std::memcpy(b, &y, 4);
  s64 sum = z;
  for (int i = 0; i < 4; ++i) sum += a[i] * b[i];
  return static_cast<s32>(static_cast<u32>(sum));
})
TERNARY(Sad, u32, u32, "=r", "r", "sad.u32", return z + (x > y ? x - y : y - x);)
struct Lop3 {  // (a & b) | (~a & c)
  static constexpr const char* name = "lop3.b32 0xca";
  static __device__ u32 device(u32 x, u32 y, u32 z) {
    u32 d;
    asm("lop3.b32 %0, %1, %2, %3, 0xca;" : "=r"(d) : "r"(x), "r"(y), "r"(z));
    return d;
  }
  static u32 host(u32 x, u32 y, u32 z) { return (x & y) | (~x & z); }
};
struct BitExtract {
  static constexpr const char* name = "bfe.s32";
  static __device__ s32 device(s32 x, s32 y, s32 z) {
    s32 d;
    asm("bfe.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(x), "r"(y), "r"(z));
    return d;
  }
  static s32 host(s32 x, s32 y, s32 z) {  // bit by bit, as the ISA's pseudocode
    const int from = y & 255, n = z & 255;
    const auto bit = [&](int i) { return i > 31 ? 0U : static_cast<u32>(x) >> i & 1; };
    const u32 sign = n == 0 ? 0 : bit(from + n - 1 < 31 ? from + n - 1 : 31);
    u32 d = 0;
    for (int i = 0; i < 32; ++i) d |= (i < n && from + i <= 31 ? bit(from + i) : sign) << i;
    return static_cast<s32>(d);
  }
};
struct BitInsert {
  static constexpr const char* name = "bfi.b32";
  static __device__ u32 device(u32 x, u32 y, u32 z) {
    u32 d;
    asm("bfi.b32 %0, %1, %2, %3, %4;" : "=r"(d) : "r"(x), "r"(y), "r"(z), "r"(z >> 3));
    return d;
  }
  static u32 host(u32 x, u32 y, u32 z) {
    const u32 from = z & 255, n = z >> 3 & 255;
    for (u32 i = 0; i < n && from + i < 32; ++i)
      y = (y & ~(1U << (from + i))) | ((x >> i & 1) << (from + i));
    return y;
  }
};
UNARY(Clz, u32, u32, "=r", "r", "clz.b32", u32 n = 0;
      while (n < 32 && (x >> (31 - n) & 1) == 0)++ n; return n;)
UNARY(Popc, u32, u64, "=r", "l", "popc.b64", u32 n = 0;
      for (; x != 0; x >>= 1) n += static_cast<u32>(x & 1); return n;)
UNARY(Reverse, u32, u32, "=r", "r", "brev.b32", u32 r = 0;
      for (int i = 0; i < 32; ++i) r |= (x >> i & 1) << (31 - i); return r;)
UNARY(FindS, u32, s32, "=r", "r", "bfind.s32",
      for (int i = 30; i >= 0; --i) if ((static_cast<u32>(x) >> i & 1) !=
                                        static_cast<u32>(x < 0)) return static_cast<u32>(i);
      return ~0U;)
UNARY(FindShift, u32, u32, "=r", "r", "bfind.shiftamt.u32",
      for (u32 i = 0; i < 32; ++i) if (x >> (31 - i) & 1) return i;
      return ~0U;)
UNARY(NotB, u64, u64, "=l", "l", "not.b64", return u64{0} - 1 - x;)
UNARY(NegS, s32, s32, "=r", "r", "neg.s32", return static_cast<s32>(0U - static_cast<u32>(x));)
UNARY(AbsS, s32, s32, "=r", "r", "abs.s32",
      return static_cast<s32>(x < 0 ? 0U - static_cast<u32>(x) : static_cast<u32>(x));)
UNARY(NarrowS8, s32, s32, "=r", "r", "cvt.s32.s8",
      return static_cast<s32>(((static_cast<u32>(x) & 255) ^ 128) - 128);)
UNARY(SaturateU8, u32, s32, "=r", "r", "cvt.sat.u8.s32",
      return static_cast<u32>(x < 0     ? 0
                              : x > 255 ? 255
                                        : x);)

}  // namespace

TEST_CASE("integer arithmetic wraps, widens and saturates") {
  check_binary<AddS32>(kSigned);
  check_binary<AddSat>(kSigned);
  check_binary<SubS32>(kSigned);
  check_binary<MulLo>(kSigned);
  check_binary<MulHi>(kSigned);
  check_binary<MulHiU>(unsigned_values());
  check_binary<MulWide>(kSigned);
  check_binary<MulWideU>(unsigned_values());
  check_binary<MulHi64>(kLong);
  check_binary<MulHi64U>(unsigned_long_values());
  check_binary<DivS>(kSigned);
  check_binary<DivU64>(unsigned_long_values());
  check_binary<MinS>(kSigned);
  check_binary<MaxU>(unsigned_values());
  check_ternary<MadLo>(kSigned);
  check_ternary<MadHi>(unsigned_values());
  check_ternary<MadWide>(kSigned);
  check_ternary<Dot4>(kSigned);
  check_ternary<Sad>(unsigned_values());
  check_unary<NegS>(kSigned);
  check_unary<AbsS>(kSigned);
  check_unary<NarrowS8>(kSigned);
  check_unary<SaturateU8>(kSigned);
}

TEST_CASE("bits") {
  check_binary<ShlB>(unsigned_values());
  check_binary<ShrU>(unsigned_values());
  check_binary<ShrS>(kSigned);
  check_ternary<Prmt>(unsigned_values());
  check_ternary<FunnelLeft>(unsigned_values());
  check_ternary<FunnelRight>(unsigned_values());
  check_ternary<Lop3>(unsigned_values());
  check_ternary<BitExtract>(kSigned);
  check_ternary<BitInsert>(unsigned_values());
  check_unary<Clz>(unsigned_values());
  check_unary<Popc>(unsigned_long_values());
  check_unary<Reverse>(unsigned_values());
  check_unary<FindS>(kSigned);
  check_unary<FindShift>(unsigned_values());
  check_unary<NotB>(unsigned_long_values());
}

namespace {
__global__ void wide_sum(u64* out, const u64* a, const u64* b,
                         int n) {  // add.cc, addc, sub.cc, subc
  using u128 = unsigned __int128;
  for (int i = 0; i < n; ++i) {
    const u128 x = (static_cast<u128>(a[i]) << 64) | b[i],
               y = (static_cast<u128>(b[n - 1 - i]) << 64) | a[n - 1 - i];
    const u128 sum = x + y, difference = x - y, product = x * y;
    const u128 all[3] = {sum, difference, product};
    for (int k = 0; k < 3; ++k)
      out[6 * i + 2 * k] = static_cast<u64>(all[k]),
                      out[6 * i + 2 * k + 1] = static_cast<u64>(all[k] >> 64);
  }
}
}  // namespace

TEST_CASE("128-bit sums carry") {
  const auto a = unsigned_long_values();
  std::vector<u64> b(a.rbegin(), a.rend());
  b[3] ^= 0x8000000000000001;
  const Device<u64> da(a), db(b), out(6 * a.size());
  wide_sum<<<1, 1>>>(out, da, db, static_cast<int>(a.size()));
  const auto got = out.host();
  using u128 = unsigned __int128;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const std::size_t j = a.size() - 1 - i;
    const u128 x = (static_cast<u128>(a[i]) << 64) | b[i],
               y = (static_cast<u128>(b[j]) << 64) | a[j];
    const u128 all[3] = {x + y, x - y, x * y};
    for (std::size_t k = 0; k < 3; ++k) {
      CHECK(got[6 * i + 2 * k] == static_cast<u64>(all[k]));
      CHECK(got[6 * i + 2 * k + 1] == static_cast<u64>(all[k] >> 64));
    }
  }
}

// ---- Floats ------------------------------------------------------------------------------------

namespace {

const float kInf = std::numeric_limits<float>::infinity(),
            kNan = std::numeric_limits<float>::quiet_NaN();
const std::vector<float> kFloats = {
    0.0f,      -0.0f,       1.0f,        -1.0f,   1.5f,           1.0f / 3,         -2.0f / 3,
    0x1p-149f, -0x1p-149f,  0x1.8p-140f, FLT_MIN, -FLT_MIN,       0x1.000002p-126f, FLT_MAX,
    -FLT_MAX,  16777217.0f, 0.1f,        -3.75f,  0x1.fffffep-1f, 1e-30f,           3e30f,
    kInf,      -kInf,       kNan};
const std::vector<double> kDoubles = {0.0,
                                      -0.0,
                                      1.0,
                                      -1.0 / 3,
                                      0x1p-1074,
                                      2.5,
                                      DBL_MIN,
                                      DBL_MAX,
                                      1e300,
                                      -1e-300,
                                      0.1,
                                      std::numeric_limits<double>::infinity(),
                                      std::numeric_limits<double>::quiet_NaN()};

BINARY(AddF, float, float, "=f", "f", "add.rn.f32", return static_cast<float>(x + y);)
BINARY(SubF, float, float, "=f", "f", "sub.rn.f32", return x - y;)
BINARY(MulF, float, float, "=f", "f", "mul.rn.f32", return x * y;)
BINARY(DivF, float, float, "=f", "f", "div.rn.f32", return x / y;)
BINARY(MinF, float, float, "=f", "f", "min.f32",
       return x == 0 && y == 0 ? (std::signbit(x) ? x : y) : std::fmin(x, y);)
BINARY(MaxF, float, float, "=f", "f", "max.f32",
       return x == 0 && y == 0 ? (std::signbit(x) ? y : x) : std::fmax(x, y);)
BINARY(MaxNan, float, float, "=f", "f", "max.NaN.f32",
       return std::isnan(x) || std::isnan(y) ? kNan : MaxF::host(x, y);)
BINARY(CopySign, float, float, "=f", "f", "copysign.f32", return std::copysign(y, x);)
BINARY(AddD, double, double, "=d", "d", "add.rn.f64", return x + y;)
BINARY(MulD, double, double, "=d", "d", "mul.rn.f64", return x * y;)
BINARY(DivD, double, double, "=d", "d", "div.rn.f64", return x / y;)
TERNARY(FmaF, float, float, "=f", "f", "fma.rn.f32", return std::fma(x, y, z);)
TERNARY(FmaD, double, double, "=d", "d", "fma.rn.f64", return std::fma(x, y, z);)
UNARY(SqrtF, float, float, "=f", "f", "sqrt.rn.f32", return std::sqrt(x);)
UNARY(RcpF, float, float, "=f", "f", "rcp.rn.f32", return 1 / x;)
UNARY(NegF, float, float, "=f", "f", "neg.f32", return -x;)
UNARY(AbsF, float, float, "=f", "f", "abs.f32", return std::fabs(x);)
UNARY(SqrtD, double, double, "=d", "d", "sqrt.rn.f64", return std::sqrt(x);)
float flushed(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; }
BINARY(AddFtz, float, float, "=f", "f", "add.rn.ftz.f32", return flushed(flushed(x) + flushed(y));)
BINARY(MulFtz, float, float, "=f", "f", "mul.rn.ftz.f32", return flushed(flushed(x) * flushed(y));)
BINARY(AddSatF, float, float, "=f", "f", "add.rn.sat.f32", const float s = x + y;
       return s > 0 ? (s > 1 ? 1.0f : s) : 0.0f;)

}  // namespace

TEST_CASE("float arithmetic is IEEE's, subnormals, zeros and infinities included") {
  check_binary<AddF>(kFloats);
  check_binary<SubF>(kFloats);
  check_binary<MulF>(kFloats);
  check_binary<DivF>(kFloats);
  check_binary<MinF>(kFloats);
  check_binary<MaxF>(kFloats);
  check_binary<MaxNan>(kFloats);
  check_binary<CopySign>(kFloats);
  check_ternary<FmaF>(kFloats);
  check_unary<SqrtF>(kFloats);
  check_unary<RcpF>(kFloats);
  check_unary<NegF>(kFloats);
  check_unary<AbsF>(kFloats);
  check_binary<AddD>(kDoubles);
  check_binary<MulD>(kDoubles);
  check_binary<DivD>(kDoubles);
  check_ternary<FmaD>(kDoubles);
  check_unary<SqrtD>(kDoubles);
  check_binary<AddFtz>(kFloats);
  check_binary<MulFtz>(kFloats);
  check_binary<AddSatF>(kFloats);
}

namespace {
__global__ void directed(float* out, float one, float tiny, float third) {
#define DIRECTED(i, text, a, b) asm(text " %0, %1, %2;" : "=f"(out[i]) : "f"(a), "f"(b))
  DIRECTED(0, "add.rz.f32", one, tiny);
  DIRECTED(1, "add.rp.f32", one, tiny);
  DIRECTED(2, "add.rm.f32", one, -tiny);
  DIRECTED(3, "add.rz.f32", -one, tiny);
  DIRECTED(4, "sub.rp.f32", -one, tiny);
  DIRECTED(5, "mul.rz.f32", third, third);
  DIRECTED(6, "mul.rp.f32", third, third);
  DIRECTED(7, "div.rm.f32", one, 3.0f);
  DIRECTED(8, "div.rp.f32", one, 3.0f);
  asm("fma.rm.f32 %0, %1, %1, %2;" : "=f"(out[9]) : "f"(one), "f"(-tiny));
  asm("sqrt.rp.f32 %0, %1;" : "=f"(out[10]) : "f"(2.0f));
  asm("sqrt.rz.f32 %0, %1;" : "=f"(out[11]) : "f"(2.0f));
}
}  // namespace

TEST_CASE("directed rounding") {
  const Device<float> out(12);
  directed<<<1, 1>>>(out, 1.0f, 0x1p-30f, 1.0f / 3);
  // (1/3 in float)² lies between 0x1.c71c72p-4 and 0x1.c71c74p-4.
  const std::vector<float> expected = {
      1.0f,           0x1.000002p0f,  0x1.fffffep-1f, -0x1.fffffep-1f,
      -1.0f,          0x1.c71c72p-4f, 0x1.c71c74p-4f, 0x1.555554p-2f,
      0x1.555556p-2f, 0x1.fffffep-1f, 0x1.6a09e8p0f,  0x1.6a09e6p0f};
  const auto got = out.host();
  for (std::size_t i = 0; i < expected.size(); ++i) CHECK_MESSAGE(got[i] == expected[i], i);
}

// ---- Comparison ---------------------------------------------------------------------------------

namespace {

template <class T>
__global__ void compare_floats(u32* out, const T* in, int n) {
  for (int i = static_cast<int>(threadIdx.x); i < n * n; i += static_cast<int>(blockDim.x)) {
    const float a = in[i / n], b = in[i % n];
    u32 bits = 0;
#define COMPARE(k, word)                                                     \
  {                                                                          \
    u32 one;                                                                 \
    asm("{.reg .pred p; setp." word ".f32 p, %1, %2; selp.u32 %0, 1, 0, p;}" \
        : "=r"(one)                                                          \
        : "f"(a), "f"(b));                                                   \
    bits |= one << (k);                                                      \
  }
    COMPARE(0, "eq")
    COMPARE(1, "ne")
    COMPARE(2, "lt") COMPARE(3, "le") COMPARE(4, "gt") COMPARE(5, "ge") COMPARE(6, "equ")
        COMPARE(7, "neu") COMPARE(8, "ltu") COMPARE(9, "leu") COMPARE(10, "gtu") COMPARE(11, "geu")
            COMPARE(12, "num") COMPARE(13, "nan") out[i] = bits;
  }
}
__global__ void compare_integers(u32* out, const s32* in, int n) {
  for (int i = static_cast<int>(threadIdx.x); i < n * n; i += static_cast<int>(blockDim.x)) {
    u32 bits = 0, other = 0;
    asm("{.reg .pred p, q, r; setp.lo.u32 p, %2, %3; setp.lt.s32 q, %2, %3;"
        " setp.ge.and.s32 r|p, %2, %3, p; selp.u32 %0, 1, 0, r; @p add.u32 %0, %0, 2; @!q add.u32 "
        "%0, %0, 4;"
        " set.gt.u32.s32 %1, %2, %3;}"
        : "=r"(bits), "=r"(other)
        : "r"(in[i / n]), "r"(in[i % n]));
    out[i] = bits | (other & 8);
  }
}
__global__ void classify(u32* out, const float* in, int n) {
  for (int i = 0; i < n; ++i) {
    u32 bits = 0;
#define CLASS(k, word)                                                    \
  {                                                                       \
    u32 one;                                                              \
    asm("{.reg .pred p; testp." word ".f32 p, %1; selp.u32 %0, 1, 0, p;}" \
        : "=r"(one)                                                       \
        : "f"(in[i]));                                                    \
    bits |= one << (k);                                                   \
  }
    CLASS(0, "finite")
    CLASS(1, "infinite")
    CLASS(2, "number") CLASS(3, "notanumber") CLASS(4, "subnormal") out[i] = bits;
  }
}

}  // namespace

TEST_CASE("comparisons, ordered and unordered") {
  const std::size_t n = kFloats.size();
  const Device<float> in(kFloats);
  const Device<u32> out(n * n);
  compare_floats<<<1, 32>>>(out.data, in.data, static_cast<int>(n));
  const auto got = out.host();
  for (std::size_t i = 0; i < n * n; ++i) {
    const float a = kFloats[i / n], b = kFloats[i % n];
    const bool unordered = std::isunordered(a, b);
    const bool ordered[6] = {!unordered && a == b,      std::islessgreater(a, b) != 0,
                             std::isless(a, b) != 0,    std::islessequal(a, b) != 0,
                             std::isgreater(a, b) != 0, std::isgreaterequal(a, b) != 0};
    u32 expected = (unordered ? 1U << 13 : 1U << 12);
    for (u32 k = 0; k < 6; ++k)
      expected |= u32{ordered[k]} << k | u32{unordered || ordered[k]} << (6 + k);
    CHECK_MESSAGE(got[i] == expected, a, " ", b);
  }
}

TEST_CASE("integer comparisons combine with a predicate, and set fills a register") {
  const std::size_t n = kSigned.size();
  const Device<s32> in(kSigned);
  const Device<u32> out(n * n);
  compare_integers<<<1, 32>>>(out, in, static_cast<int>(n));
  const auto got = out.host();
  for (std::size_t i = 0; i < n * n; ++i) {
    const s32 a = kSigned[i / n], b = kSigned[i % n];
    const bool below = static_cast<u32>(a) < static_cast<u32>(b);
    u32 expected = a >= b && below;
    if (!(a >= b) && below) expected += 2;
    if (!(a < b)) expected += 4;
    CHECK(got[i] == (expected | (a > b ? 8U : 0U)));
  }
}

TEST_CASE("classes of floats") {
  const Device<float> in(kFloats);
  const Device<u32> out(kFloats.size());
  classify<<<1, 1>>>(out, in, static_cast<int>(kFloats.size()));
  const auto got = out.host();
  for (std::size_t i = 0; i < kFloats.size(); ++i) {
    const float a = kFloats[i];
    CHECK(got[i] == (u32{std::isfinite(a)} | u32{std::isinf(a)} << 1 | u32{!std::isnan(a)} << 2 |
                     u32{std::isnan(a)} << 3 | u32{std::fpclassify(a) == FP_SUBNORMAL} << 4));
  }
}

// ---- Conversions --------------------------------------------------------------------------------

namespace {

__global__ void float_to_integer(s32* out, const float* in, int n) {
  for (int i = 0; i < n; ++i) {
    asm("cvt.rni.s32.f32 %0, %1;" : "=r"(out[6 * i]) : "f"(in[i]));
    asm("cvt.rzi.s32.f32 %0, %1;" : "=r"(out[6 * i + 1]) : "f"(in[i]));
    asm("cvt.rmi.s32.f32 %0, %1;" : "=r"(out[6 * i + 2]) : "f"(in[i]));
    asm("cvt.rpi.s32.f32 %0, %1;" : "=r"(out[6 * i + 3]) : "f"(in[i]));
    asm("cvt.rzi.u32.f32 %0, %1;" : "=r"(out[6 * i + 4]) : "f"(in[i]));
    s64 wide;
    asm("cvt.rzi.s64.f32 %0, %1;" : "=l"(wide) : "f"(in[i]));
    out[6 * i + 5] = static_cast<s32>(wide >> 32);
  }
}
__global__ void small_floats(u32* out, const float* in, int n) {
  for (int i = 0; i < n; ++i) {
    unsigned short half, brain, brain_rz;
    u32 tf32, pair;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(in[i]));
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(brain) : "f"(in[i]));
    asm("cvt.rz.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(in[i]), "f"(1.0f));
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(tf32) : "f"(in[i]));
    brain_rz = static_cast<unsigned short>(pair >> 16);
    out[5 * i] = half, out[5 * i + 1] = brain, out[5 * i + 2] = brain_rz, out[5 * i + 3] = tf32,
            out[5 * i + 4] = pair & 0xffff;
  }
}
__global__ void half_arithmetic(unsigned short* out, const unsigned short* in, int n) {
  for (int i = 0; i < n; ++i) {
    const unsigned short a = in[3 * i], b = in[3 * i + 1], c = in[3 * i + 2];
    asm("fma.rn.f16 %0, %1, %2, %3;" : "=h"(out[4 * i]) : "h"(a), "h"(b), "h"(c));
    asm("fma.rn.bf16 %0, %1, %2, %3;" : "=h"(out[4 * i + 1]) : "h"(a), "h"(b), "h"(c));
    asm("mul.rn.f16 %0, %1, %2;" : "=h"(out[4 * i + 2]) : "h"(a), "h"(b));
    asm("{.reg .f32 f; cvt.f32.f16 f, %1; cvt.rn.f16.f32 %0, f;}" : "=h"(out[4 * i + 3]) : "h"(a));
  }
}
__global__ void integer_to_float(float* out, s64 big, s32 odd) {
  asm("cvt.rn.f32.s32 %0, %1;" : "=f"(out[0]) : "r"(odd));
  asm("cvt.rz.f32.s32 %0, %1;" : "=f"(out[1]) : "r"(odd));
  asm("cvt.rp.f32.s32 %0, %1;" : "=f"(out[2]) : "r"(odd));
  asm("cvt.rn.f32.s64 %0, %1;" : "=f"(out[3]) : "l"(big));
  asm("cvt.rn.f32.u64 %0, %1;" : "=f"(out[4]) : "l"(-big));
  asm("cvt.rni.f32.f32 %0, %1;" : "=f"(out[5]) : "f"(2.5f));
  asm("cvt.rmi.f32.f32 %0, %1;" : "=f"(out[6]) : "f"(-2.5f));
  double wide;
  asm("cvt.rn.f64.s64 %0, %1;" : "=d"(wide) : "l"(big));
  asm("cvt.rz.f32.f64 %0, %1;" : "=f"(out[7]) : "d"(wide));
  asm("cvt.sat.f32.f32 %0, %1;" : "=f"(out[8]) : "f"(1.5f));
}

}  // namespace

TEST_CASE("floats to integers: rounding, limits, NaN") {
  const std::vector<float> in = {0.5f,          1.5f,          2.5f,           -0.5f, -1.5f, -2.7f,
                                 2147483520.0f, 2147483648.0f, -2147483648.0f, 3e9f,  -kInf, kNan};
  constexpr s32 max = INT32_MAX, min = INT32_MIN;
  const auto u = [](u32 v) { return static_cast<s32>(v); };
  const std::vector<s32> expected = {0,
                                     0,
                                     0,
                                     1,
                                     0,
                                     0,
                                     2,
                                     1,
                                     1,
                                     2,
                                     1,
                                     0,
                                     2,
                                     2,
                                     2,
                                     3,
                                     2,
                                     0,
                                     0,
                                     0,
                                     -1,
                                     0,
                                     0,
                                     0,
                                     -2,
                                     -1,
                                     -2,
                                     -1,
                                     0,
                                     -1,
                                     -3,
                                     -2,
                                     -3,
                                     -2,
                                     0,
                                     -1,
                                     2147483520,
                                     2147483520,
                                     2147483520,
                                     2147483520,
                                     2147483520,
                                     0,
                                     max,
                                     max,
                                     max,
                                     max,
                                     u(2147483648u),
                                     0,
                                     min,
                                     min,
                                     min,
                                     min,
                                     0,
                                     -1,
                                     max,
                                     max,
                                     max,
                                     max,
                                     u(3000000000u),
                                     0,
                                     min,
                                     min,
                                     min,
                                     min,
                                     0,
                                     min,
                                     0,
                                     0,
                                     0,
                                     0,
                                     0,
                                     min};
  const Device<float> values(in);
  const Device<s32> out(expected.size());
  float_to_integer<<<1, 1>>>(out, values, static_cast<int>(in.size()));
  CHECK(out.host() == expected);
}

TEST_CASE("small float formats: ties, subnormals, overflow") {
  struct Case {
    float in;
    u32 half, brain, brain_rz, tf32;
  };
  const std::vector<Case> cases = {
      {1.0f, 0x3c00, 0x3f80, 0x3f80, 0x3f800000},
      {-0.0f, 0x8000, 0x8000, 0x8000, 0x80000000},
      {0x1.002p0f, 0x3c00, 0x3f80, 0x3f80, 0x3f802000},   // an f16 and tf32 tie: to even, away
      {0x1.006p0f, 0x3c02, 0x3f80, 0x3f80, 0x3f804000},   // an f16 and tf32 tie: to even, away
      {0x1.01p0f, 0x3c04, 0x3f80, 0x3f80, 0x3f808000},    // a bf16 tie, to even: down
      {0x1.03p0f, 0x3c0c, 0x3f82, 0x3f81, 0x3f818000},    // a bf16 tie, to even: up
      {0x1.0018p0f, 0x3c00, 0x3f80, 0x3f80, 0x3f800000},  // below that tie
      {65504.0f, 0x7bff, 0x4780, 0x477f, 0x477fe000},
      {65520.0f, 0x7c00, 0x4780, 0x477f, 0x47800000},
      {65519.0f, 0x7bff, 0x4780, 0x477f, 0x477ff000 & 0xffffe000},
      {0x1p-24f, 0x0001, 0x3380, 0x3380, 0x33800000},
      {0x1p-25f, 0x0000, 0x3300, 0x3300, 0x33000000},
      {0x1.8p-25f, 0x0001, 0x3340, 0x3340, 0x33400000},
      {0x1.ff8p-15f, 0x03ff, 0x3880, 0x387f, 0x387fc000},
      {0x1.ffcp-15f, 0x0400, 0x3880, 0x387f, 0x387fe000},
      {FLT_MAX, 0x7c00, 0x7f80, 0x7f7f, 0x7f800000},
      {kInf, 0x7c00, 0x7f80, 0x7f80, 0x7f800000},
      {0x1p-133f, 0x0000, 0x0001, 0x0001, 0x00010000},
      {0x1p-134f, 0x0000, 0x0000, 0x0000, 0x00008000}};
  std::vector<float> in;
  for (const Case& c : cases) in.push_back(c.in);
  const Device<float> values(in);
  const Device<u32> out(5 * in.size());
  small_floats<<<1, 1>>>(out, values, static_cast<int>(in.size()));
  const auto got = out.host();
  for (std::size_t i = 0; i < cases.size(); ++i) {
    CHECK_MESSAGE(got[5 * i] == cases[i].half, "f16 of ", cases[i].in);
    CHECK_MESSAGE(got[5 * i + 1] == cases[i].brain, "bf16 of ", cases[i].in);
    CHECK_MESSAGE(got[5 * i + 2] == cases[i].brain_rz, "bf16 of ", cases[i].in, " toward zero");
    CHECK_MESSAGE(got[5 * i + 3] == cases[i].tf32, "tf32 of ", cases[i].in);
    CHECK(got[5 * i + 4] == 0x3f80);  // the second operand is the low half
  }
}

TEST_CASE("f16 and bf16 fma round once") {
  // f16: (1 + 2^-10)² = 1 + 2^-9 + 2^-20, plus 2^-11 less a hair is below the tie that two
  // roundings make.
  const std::vector<unsigned short> in = {0x3c01, 0x3c01, 0x1000, 0x3c01, 0x3c01,
                                          0x9001, 0x3f81, 0x3f81, 0x3b00};
  const Device<unsigned short> values(in);
  const Device<unsigned short> out(12);
  half_arithmetic<<<1, 1>>>(out, values, 3);
  const auto got = out.host();
  const auto half = [](unsigned short h) {
    return static_cast<double>(__half2float(__ushort_as_half(h)));
  };
  const auto brain = [](unsigned short b) {
    return static_cast<double>(std::bit_cast<float>(u32{b} << 16));
  };
  for (std::size_t i = 0; i < 3; ++i) {
    const unsigned short a = in[3 * i], b = in[3 * i + 1], c = in[3 * i + 2];
    // All neighbours of the result are further from the exact value (a long double holds it).
    const auto nearest = [&](auto value, unsigned short result) {
      const long double exact = static_cast<long double>(value(a)) * value(b) + value(c);
      const auto error = [&](int step) {
        return std::fabs(exact - value(static_cast<unsigned short>(result + step)));
      };
      return error(0) <= error(1) && error(0) <= error(-1);
    };
    CHECK(nearest(half, got[4 * i]));
    CHECK(nearest(brain, got[4 * i + 1]));
    CHECK(got[4 * i + 3] == a);
  }
  CHECK(got[2] == 0x3c02);
}

TEST_CASE("integers to floats, floats to integral floats") {
  const Device<float> out(9);
  const s64 big = 0x7fffffbfffffffff;  // just below a tie of floats
  integer_to_float<<<1, 1>>>(out, big, 16777219);
  CHECK(out.host() == std::vector<float>{16777220.0f, 16777218.0f, 16777220.0f, 0x1.fffffep62f,
                                         static_cast<float>(static_cast<u64>(-big)), 2.0f, -3.0f,
                                         0x1.fffffep62f, 1.0f});
}

// ---- Parameters, calls, local memory, switches
// ---------------------------------------------------

namespace {

struct Mixed {
  char tag;
  float scale;
  double offset;
  short steps[5];
  float* out;
};
__global__ void struct_parameter(Mixed m, int i, Mixed second) {
  m.out[0] = m.scale * static_cast<float>(m.steps[i]) + static_cast<float>(m.offset);
  m.out[1] = static_cast<float>(m.tag) + static_cast<float>(second.steps[4 - i]) * second.scale;
}
__global__ void grid_constant_parameter(const __grid_constant__ Mixed m, int n) {
  for (int i = 0; i < n; ++i) m.out[i] = static_cast<float>(m.steps[i]) * m.scale;
}

__device__ __noinline__ Mixed advance(Mixed m, int by) {
  for (short& s : m.steps) s = static_cast<short>(s + by);
  m.scale *= 2;
  return m;
}
__device__ __noinline__ void bump(int* counter) { *counter += 3; }
__device__ __noinline__ float fibonacci(int n) {
  return n < 2 ? static_cast<float>(n) : fibonacci(n - 1) + fibonacci(n - 2);
}
__device__ __noinline__ float from_neighbour(
    float mine) {  // a device function with its own shared memory
  __shared__ float room[32];
  room[threadIdx.x] = mine;
  __syncthreads();
  const float other = room[threadIdx.x ^ 1];
  __syncthreads();
  return other;
}
__global__ void calls(float* out, Mixed m, int by) {
  const Mixed next = advance(advance(m, by), 1);
  int counter = by;
  bump(&counter);
  out[threadIdx.x] = next.scale * static_cast<float>(next.steps[threadIdx.x % 5]) +
                     static_cast<float>(counter) + fibonacci(10);
  __shared__ float own[32];
  own[threadIdx.x] = static_cast<float>(threadIdx.x);
  __syncthreads();
  out[32 + threadIdx.x] = from_neighbour(own[31 - threadIdx.x]) + own[threadIdx.x];
}

__global__ void local_array(int* out, const int* in, int n) {
  int heap[24];
  for (int i = 0; i < 24; ++i) heap[i] = in[i];
  for (int i = 0; i < n; ++i) heap[heap[i % 24] % 24] += i;
  for (int i = 0; i < 24; ++i) out[i] = heap[i];
}
__global__ void switches(int* out, int n) {
  const int i = static_cast<int>(threadIdx.x);
  if (i >= n) return;
  int r = 0;
  switch (i) {
    case 0: r = 11; break;
    case 1: r = n * 3; break;
    case 2:
      for (int k = 0; k < n; ++k) r += k * k;
      break;
    case 3: r = n / 7;  // falls through
    case 4: r += 1000; break;
    case 5: r = -n; break;
    case 9: r = 9; break;
    default: r = 77;
  }
  out[i] = r;
  int chosen;
  asm("{\n\t.reg .u32 k;\n\tmin.u32 k, %1, 2;\n\tway: .branchtargets A, B, C;\n\tbrx.idx k, "
      "way;\n\tA: mov.u32 %0, 5;\n\tbra D;\n\tB: mov.u32 %0, 6;\n\tbra D;\n\tC: mov.u32 %0, "
      "7;\n\tD:\n\t}"
      : "=r"(chosen)
      : "r"(i));
  out[n + i] = chosen;
}
__global__ void tables(int* out, int n) {
  constexpr int primes[] = {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53};
  for (int i = 0; i < n; ++i) out[i] = primes[(i * 5) % 16];
}
__global__ void divergent_loops(int* out) {  // threads leave at different times, some early
  const int i = static_cast<int>(threadIdx.x);
  int sum = 0;
  for (int k = 0; k < i; ++k) {
    if (k % 3 == 2) continue;
    if (k > 20) break;
    sum += (k & 1) ? k : -k;
  }
  if (i % 5 == 4) return;
  out[i] = sum;
}

}  // namespace

TEST_CASE("structs as parameters") {
  const Device<float> out(5);
  const Mixed m{'c', 1.5f, 0.25, {1, -2, 3, -4, 5}, out.data},
      second{'d', 4.0f, 0, {9, 8, 7, 6, 5}, nullptr};
  struct_parameter<<<1, 1>>>(m, 3, second);
  const auto got = out.host();
  CHECK(got[0] == -5.75f);
  CHECK(got[1] == 'c' + 8 * 4.0f);
  grid_constant_parameter<<<1, 1>>>(m, 5);
  CHECK(out.host() == std::vector<float>{1.5f, -3.0f, 4.5f, -6.0f, 7.5f});
}

TEST_CASE(
    "device functions that are not inlined: structs, pointers to locals, recursion, shared "
    "memory") {
  const Device<float> out(64);
  const Mixed m{'c', 1.5f, 0.25, {1, -2, 3, -4, 5}, nullptr};
  calls<<<1, 32>>>(out, m, 10);
  const auto got = out.host();
  for (std::size_t i = 0; i < 32; ++i) {
    CHECK(got[i] == 6.0f * static_cast<float>(m.steps[i % 5] + 11) + 13 + 55);
    CHECK(got[32 + i] == static_cast<float>(31 - (i ^ 1)) + static_cast<float>(i));
  }
}

TEST_CASE("local arrays, switches, tables, divergent loops") {
  std::vector<int> in(24);
  std::iota(in.begin(), in.end(), 3);
  const Device<int> values(in), out(24);
  local_array<<<1, 1>>>(out, values, 50);
  for (int i = 0; i < 50; ++i)
    in[static_cast<std::size_t>(in[static_cast<std::size_t>(i % 24)] % 24)] += i;
  CHECK(out.host() == in);

  const Device<int> chosen(24);
  switches<<<1, 32>>>(chosen, 12);
  CHECK(chosen.host() == std::vector<int>{11, 36, 506, 1001, 1000, -12, 77, 77, 77, 9, 77, 77,
                                          5,  6,  7,   7,    7,    7,   7,  7,  7,  7, 7,  7});

  const Device<int> table(8);
  tables<<<1, 1>>>(table, 8);
  CHECK(table.host() == std::vector<int>{2, 13, 31, 53, 11, 29, 47, 7});

  const Device<int> sums(std::vector<int>(64, -1000));
  divergent_loops<<<1, 64>>>(sums);
  const auto got = sums.host();
  for (int i = 0; i < 64; ++i) {
    int sum = 0;
    for (int k = 0; k < i && k <= 20; ++k) sum += k % 3 == 2 ? 0 : (k & 1) ? k : -k;
    CHECK(got[static_cast<std::size_t>(i)] == (i % 5 == 4 ? -1000 : sum));
  }
}

// ---- Memory ------------------------------------------------------------------------------------

namespace {

__global__ void vectors(float* out, const float* in) {
  const int i = static_cast<int>(threadIdx.x);
  __shared__ float4 tile[32];
  tile[31 - i] = reinterpret_cast<const float4*>(in)[i];
  __syncthreads();
  const float4 v = tile[i];
  reinterpret_cast<float4*>(out)[i] = make_float4(v.w, v.z, v.y, v.x);
  const float2 w = reinterpret_cast<const float2*>(in)[i];
  reinterpret_cast<float2*>(out + 128)[i] = make_float2(w.y, w.x);
}
__global__ void narrow_types(int* out, const signed char* in, signed char* bytes,
                             unsigned short* shorts, double* doubles) {
  const int i = static_cast<int>(threadIdx.x);
  bytes[i] = static_cast<signed char>(in[i] * 3);
  shorts[i] = static_cast<unsigned short>(shorts[i] + 65530);
  doubles[i] = doubles[i] / 3;
  __syncthreads();
  out[i] = bytes[i] + shorts[i];
}
__global__ void generic_pointers(float* out, const float* in, int choice) {
  __shared__ float shared[32];
  extern __shared__ float dynamic[];
  const int i = static_cast<int>(threadIdx.x);
  float local[4] = {1.0f * static_cast<float>(i), 2.0f, 3.0f, 4.0f};
  shared[i] = in[i] + 1;
  dynamic[i] = in[i] + 2;
  __syncthreads();
  const float* from = choice + i % 4 == 0   ? shared + i
                      : choice + i % 4 == 1 ? in + i
                      : choice + i % 4 == 2 ? dynamic + i
                                            : local + choice;
  float sum = 0;
  asm volatile("ld.f32 %0, [%1];" : "=f"(sum) : "l"(from));
  out[i] = sum;
}
__global__ void atomics(int* s, unsigned* u, unsigned long long* w) {
  const int i = static_cast<int>(threadIdx.x) + static_cast<int>(blockIdx.x * blockDim.x);
  __shared__ int total;
  if (threadIdx.x == 0) total = 0;
  __syncthreads();
  atomicAdd(&total, i);
  __syncthreads();
  if (threadIdx.x == 0) atomicAdd(s, total);
  atomicMax(s + 1, i);
  atomicMin(s + 2, -i);
  atomicAdd(u, 1u);
  atomicInc(u + 1, 6u);
  atomicDec(u + 2, 6u);
  atomicOr(u + 3, 1u << (i & 31));
  atomicAnd(u + 4, ~(1u << (i & 15)));
  atomicXor(u + 5, static_cast<unsigned>(i));
  atomicAdd(w, static_cast<unsigned long long>(i) << 30);
  const int before = atomicExch(s + 3 + i, 2 * i);
  atomicCAS(s + 3 + i, 2 * i, before + 7);
}

}  // namespace

TEST_CASE("vector and narrow accesses") {
  std::vector<float> in(128), expected(192);
  std::iota(in.begin(), in.end(), 0.0f);
  for (std::size_t i = 0; i < 32; ++i) {
    for (std::size_t k = 0; k < 4; ++k) expected[4 * i + k] = in[4 * (31 - i) + 3 - k];
    expected[128 + 2 * i] = in[2 * i + 1], expected[129 + 2 * i] = in[2 * i];
  }
  const Device<float> values(in), out(192);
  vectors<<<1, 32>>>(out, values);
  CHECK(out.host() == expected);

  const Device<signed char> from(std::vector<signed char>{50, -50, 1, -128}), bytes(4);
  const Device<unsigned short> shorts(std::vector<unsigned short>{1, 10, 0, 65535});
  const Device<double> doubles(std::vector<double>{1, 2, 3, 4});
  const Device<int> sums(4);
  narrow_types<<<1, 4>>>(sums, from, bytes, shorts, doubles);
  CHECK(sums.host() == std::vector<int>{-106 + 65531, 106 + 4, 3 + 65530, -128 + 65529});
  CHECK(doubles.host()[1] == 2.0 / 3);
}

TEST_CASE("generic addresses of shared, global and local memory") {
  std::vector<float> in(32);
  std::iota(in.begin(), in.end(), 10.0f);
  const Device<float> values(in), out(32);
  generic_pointers<<<1, 32, 32 * sizeof(float)>>>(out, values, 0);
  const auto got = out.host();
  for (std::size_t i = 0; i < 32; ++i)
    CHECK(got[i] == (i % 4 == 0   ? in[i] + 1
                     : i % 4 == 1 ? in[i]
                     : i % 4 == 2 ? in[i] + 2
                                  : static_cast<float>(i)));
}

TEST_CASE("atomics") {
  std::vector<int> s(3 + 128);
  s[1] = -5, s[2] = 5;
  const Device<int> ds(s);
  const Device<unsigned> du(std::vector<unsigned>{0, 0, 0, 0, 0xffffu, 0});
  const Device<unsigned long long> dw(std::vector<unsigned long long>{5});
  atomics<<<2, 64>>>(ds, du, dw);
  const auto got = ds.host();
  CHECK(got[0] == 127 * 64);
  CHECK(got[1] == 127);
  CHECK(got[2] == -127);
  for (std::size_t i = 0; i < 128; ++i) CHECK(got[3 + i] == 7);
  CHECK(du.host() == std::vector<unsigned>{128, 128 % 7, (7 * 20 - 128) % 7, 0xffffffffu, 0, 0});
  CHECK(dw.host()[0] == 5 + (8128ull << 30));
}

// ---- Warps ------------------------------------------------------------------------------------

namespace {

#define SHUFFLE(mode, d, p, v, b, c)                               \
  asm volatile("{.reg .pred q; shfl.sync." mode                    \
               ".b32 %0|q, %2, %3, %4, -1; selp.u32 %1, 1, 0, q;}" \
               : "=r"(d), "=r"(p)                                  \
               : "r"(v), "r"(b), "r"(c))
__global__ void shuffles(u32* out, u32 b, u32 width) {
  const u32 lane = threadIdx.x, value = 100 + lane, clamp = (32 - width) << 8 | 31,
            clamp_up = (32 - width) << 8;
  u32 d, p;
  SHUFFLE("up", d, p, value, b, clamp_up);
  out[lane] = d << 1 | p;
  SHUFFLE("down", d, p, value, b, clamp);
  out[32 + lane] = d << 1 | p;
  SHUFFLE("bfly", d, p, value, b, clamp);
  out[64 + lane] = d << 1 | p;
  SHUFFLE("idx", d, p, value, b, clamp);
  out[96 + lane] = d << 1 | p;
}
__global__ void divergent_shuffles(float* out) {  // half warps shuffle among themselves
  const u32 lane = threadIdx.x;
  float v = static_cast<float>(lane);
  if (lane < 16) {
    for (int m = 8; m > 0; m /= 2) v += __shfl_xor_sync(0xffffu, v, m);
  } else {
    for (int m = 8; m > 0; m /= 2) v = fmaxf(v, __shfl_xor_sync(0xffff0000u, v, m));
  }
  __syncwarp();
  out[lane] = v;
}
__global__ void votes(u32* out) {
  const u32 lane = threadIdx.x;
  out[lane] = __ballot_sync(~0u, lane % 3 == 0);
  out[32 + lane] = static_cast<u32>(__any_sync(~0u, lane == 9)) |
                   static_cast<u32>(__all_sync(~0u, lane < 31)) << 1 |
                   static_cast<u32>(__all_sync(~0u, lane < 32)) << 2;
  out[64 + lane] = __match_any_sync(~0u, lane / 5);
  int same = 0;
  const u32 all = __match_all_sync(~0u, lane / 32, &same);
  out[96 + lane] = all ^ static_cast<u32>(same);
  out[128 + lane] = __reduce_add_sync(~0u, lane) + (__reduce_max_sync(~0u, lane) << 10) +
                    (__reduce_xor_sync(~0u, lane * 3) << 20);
  out[160 + lane] = static_cast<u32>(__reduce_min_sync(~0u, -static_cast<int>(lane))) +
                    __reduce_or_sync(~0u, 1u << lane) + __reduce_and_sync(~0u, lane | 4);
  u32 lt, ge, id;
  asm("mov.u32 %0, %%lanemask_lt;" : "=r"(lt));
  asm("mov.u32 %0, %%lanemask_ge;" : "=r"(ge));
  asm("mov.u32 %0, %%laneid;" : "=r"(id));
  out[192 + lane] = lt + ge + id;  // ~0 + id
}
__global__ void barriers(int* out) {
  const int i = static_cast<int>(threadIdx.x);
  out[3 * i] = __syncthreads_count(i % 4 == 1);
  out[3 * i + 1] = __syncthreads_or(i == 70) + 2 * __syncthreads_or(i == 500);
  out[3 * i + 2] = __syncthreads_and(i < 96) + 2 * __syncthreads_and(i < 95);
}

}  // namespace

TEST_CASE("shuffles in all modes, with segments and the in-range predicate") {
  for (const u32 width : {32u, 8u, 2u})
    for (const u32 b : {0u, 1u, 3u, 7u, 16u, 31u}) {
      const Device<u32> out(128);
      shuffles<<<1, 32>>>(out, b, width);
      const auto got = out.host();
      for (u32 lane = 0; lane < 32; ++lane) {
        const u32 first = lane / width * width, last = first + width - 1;
        const auto expect = [&](bool in_range, u32 source) {
          return (100 + (in_range ? source : lane)) << 1 | u32{in_range};
        };
        CHECK(got[lane] == expect(lane >= first + b, lane - b));
        CHECK(got[32 + lane] == expect(lane + b <= last, lane + b));
        CHECK(got[64 + lane] == expect((lane ^ b) <= last, lane ^ b));
        CHECK(got[96 + lane] == expect(true, first + b % width));
      }
    }
}

TEST_CASE("shuffles in diverged halves of a warp") {
  const Device<float> out(32);
  divergent_shuffles<<<1, 32>>>(out);
  const auto got = out.host();
  for (std::size_t i = 0; i < 32; ++i) CHECK(got[i] == (i < 16 ? 120.0f : 31.0f));
}

TEST_CASE("votes, matches, reductions, lane masks") {
  const Device<u32> out(224);
  votes<<<1, 32>>>(out);
  const auto got = out.host();
  u32 thirds = 0, exclusive = 0;
  for (u32 l = 0; l < 32; ++l) thirds |= u32{l % 3 == 0} << l, exclusive ^= 3 * l;
  for (u32 l = 0; l < 32; ++l) {
    CHECK(got[l] == thirds);
    CHECK(got[32 + l] == 5);
    CHECK(got[64 + l] == (l / 5 == 6 ? 3u << 30 : 31u << (l / 5 * 5)));
    CHECK(got[96 + l] == (~0u ^ 1u));
    CHECK(got[128 + l] == 496 + (31u << 10) + (exclusive << 20));
    CHECK(got[160 + l] == static_cast<u32>(-31) + ~0u + 4);
    CHECK(got[192 + l] == ~0u + l);
  }
}

TEST_CASE("barriers that count and vote") {
  const Device<int> out(3 * 96);
  barriers<<<1, 96>>>(out);
  const auto got = out.host();
  for (std::size_t i = 0; i < 96; ++i) {
    CHECK(got[3 * i] == 24);
    CHECK(got[3 * i + 1] == 1);
    CHECK(got[3 * i + 2] == 1);
  }
}

// ---- Asynchronous copies and tensor cores
// ---------------------------------------------------------

namespace {

__device__ unsigned shared_address(const void* p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

__global__ void async_copies(float* out, const float* in, int bytes) {
  __shared__ __align__(16) float tile[3][128];
  const int i = static_cast<int>(threadIdx.x);
  asm volatile(
      "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(&tile[0][4 * i])),
      "l"(in + 4 * i), "r"(bytes));
  asm volatile("cp.async.commit_group;");
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(&tile[1][i])),
               "l"(in + i));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(shared_address(&tile[2][2 * i])),
               "l"(in + 2 * i));
  asm volatile("cp.async.commit_group;");
  asm volatile("cp.async.wait_group 1;" ::: "memory");
  __syncthreads();
  for (int k = 0; k < 4; ++k) out[4 * i + k] = tile[0][(4 * i + k) ^ 4];  // another thread's
  asm volatile("cp.async.wait_all;" ::: "memory");
  __syncthreads();
  out[128 + i] = tile[1][31 - i];
  out[160 + i] = tile[2][63 - 2 * i];
}

template <bool transposed>
__global__ void load_matrices(unsigned short* out,
                              const unsigned short* in) {  // four 8x8 of 16 bits
  __shared__ __align__(16) unsigned short tile[256];
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 256; i += 32) tile[i] = in[i];
  __syncthreads();
  u32 r[4], one, two[2];
  const unsigned row = shared_address(tile + 8 * lane);
  if (transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(one)
                 : "r"(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(two[0]), "=r"(two[1])
                 : "r"(row));
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(one) : "r"(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(two[0]), "=r"(two[1])
                 : "r"(row));
  }
  for (int m = 0; m < 4; ++m) {
    out[64 * m + 2 * lane] = static_cast<unsigned short>(r[m]);
    out[64 * m + 2 * lane + 1] = static_cast<unsigned short>(r[m] >> 16);
  }
  if (one != r[0] || two[0] != r[0] || two[1] != r[1]) out[0] = 0xffff;
}

// The element that lane l holds in half i of an 8x8 matrix: row l / 4, columns 2 (l % 4) and the
// next. A (16, 16) as four matrices down the columns, B (16, 8) by columns, D (16, 8).
template <bool swapped>
__global__ void product_bf16(float* d, const __nv_bfloat16* a, const __nv_bfloat16* b) {
  const int lane = static_cast<int>(threadIdx.x), g = lane / 4, t = lane % 4;
  const auto pair = [](const __nv_bfloat16* p) { return *reinterpret_cast<const u32*>(p); };
  const u32 a0 = pair(a + 16 * g + 2 * t), a1 = pair(a + 16 * (g + 8) + 2 * t),
            a2 = pair(a + 16 * g + 2 * t + 8), a3 = pair(a + 16 * (g + 8) + 2 * t + 8);
  const u32 b0 = pair(b + 16 * g + 2 * t), b1 = pair(b + 16 * g + 2 * t + 8);
  float c[4];
  for (int i = 0; i < 4; ++i) c[i] = d[8 * (g + i / 2 * 8) + 2 * t + i % 2];
  if (swapped)  // the two halves of A's rows, in the assembly string alone
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%6,%5,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  for (int i = 0; i < 4; ++i) d[8 * (g + i / 2 * 8) + 2 * t + i % 2] = c[i];
}
__global__ void product_tf32(float* d, const float* a,
                             const float* b) {  // A (16, 8), B (8, 8) by columns
  const int lane = static_cast<int>(threadIdx.x), g = lane / 4, t = lane % 4;
  u32 ra[4], rb[2];
  for (int i = 0; i < 4; ++i)
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(ra[i]) : "f"(a[8 * (g + i % 2 * 8) + t + i / 2 * 4]));
  for (int i = 0; i < 2; ++i)
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rb[i]) : "f"(b[8 * g + t + 4 * i]));
  float c[4] = {1, 2, 3, 4};
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(ra[0]), "r"(ra[1]), "r"(ra[2]), "r"(ra[3]), "r"(rb[0]), "r"(rb[1]));
  for (int i = 0; i < 4; ++i) d[8 * (g + i / 2 * 8) + 2 * t + i % 2] = c[i];
}

}  // namespace

TEST_CASE("asynchronous copies: sizes, zero fill, groups") {
  std::vector<float> in(128);
  std::iota(in.begin(), in.end(), 1.0f);
  for (const int bytes : {16, 8, 0}) {
    const Device<float> values(in), out(192);
    async_copies<<<1, 32>>>(out, values, bytes);
    const auto got = out.host();
    for (std::size_t i = 0; i < 128; ++i)
      CHECK(got[i] == (static_cast<int>(i % 4 * 4) < bytes ? in[i ^ 4] : 0.0f));
    for (std::size_t i = 0; i < 32; ++i) {
      CHECK(got[128 + i] == in[31 - i]);
      CHECK(got[160 + i] == in[63 - 2 * i]);
    }
  }
}

TEST_CASE("ldmatrix, plain and transposed") {
  std::vector<unsigned short> in(256);
  std::iota(in.begin(), in.end(), static_cast<unsigned short>(1));
  const Device<unsigned short> values(in), plain(256), transposed(256);
  load_matrices<false><<<1, 32>>>(plain.data, values.data);
  load_matrices<true><<<1, 32>>>(transposed.data, values.data);
  CHECK(plain.host() == in);
  const auto got = transposed.host();
  for (std::size_t m = 0; m < 4; ++m)
    for (std::size_t r = 0; r < 8; ++r)
      for (std::size_t c = 0; c < 8; ++c) CHECK(got[64 * m + 8 * r + c] == in[64 * m + 8 * c + r]);
}

TEST_CASE("mma: bf16 and tf32, and operands swapped in the assembly string are seen") {
  std::vector<__nv_bfloat16> a(256), b(128);
  std::vector<float> c(128), af(256), bf(128);
  for (std::size_t i = 0; i < 256; ++i)
    af[i] = static_cast<float>(i * 7 % 23) - 11, a[i] = __float2bfloat16(af[i]);
  for (std::size_t i = 0; i < 128; ++i)
    bf[i] = static_cast<float>(i * 5 % 17) - 8, b[i] = __float2bfloat16(bf[i]),
    c[i] = static_cast<float>(i);
  const Device<__nv_bfloat16> da(a), db(b);
  const Device<float> d(c), wrong(c);
  product_bf16<false><<<1, 32>>>(d.data, da.data, db.data);
  product_bf16<true><<<1, 32>>>(wrong.data, da.data, db.data);
  const auto got = d.host(), swapped = wrong.host();
  std::size_t differ = 0;
  for (std::size_t i = 0; i < 16; ++i)
    for (std::size_t j = 0; j < 8; ++j) {
      float sum = c[8 * i + j];  // small integers: exact in any order
      for (std::size_t k = 0; k < 16; ++k) sum += af[16 * i + k] * bf[16 * j + k];
      CHECK(got[8 * i + j] == sum);
      differ += swapped[8 * i + j] != sum;
    }
  CHECK(differ > 64);

  std::vector<float> ta(128), tb(64);
  for (std::size_t i = 0; i < 128; ++i)
    ta[i] = static_cast<float>(i * 7 % 23) - 11 + 0x1p-12f;  // the 2^-12 is rounded away
  for (std::size_t i = 0; i < 64; ++i) tb[i] = static_cast<float>(i * 5 % 17) - 8;
  ta[0] = 1;
  const Device<float> fa(ta), fb(tb), fd(128);
  product_tf32<<<1, 32>>>(fd, fa, fb);
  const auto product = fd.host();
  for (std::size_t i = 0; i < 16; ++i)
    for (std::size_t j = 0; j < 8; ++j) {
      float sum = static_cast<float>(1 + 2 * (i / 8) + j % 2);
      for (std::size_t k = 0; k < 8; ++k) sum += std::nearbyint(ta[8 * i + k]) * tb[8 * j + k];
      // An operand of 0 ± 2^-12 is not rounded away.
      CHECK(std::fabs(product[8 * i + j] - sum) <= 8 * 8 * 0x1p-12f);
    }
}

namespace {
template <bool swapped>
__global__ void difference(float* out, float a, float b) {
  if (swapped)
    asm("sub.rn.f32 %0, %2, %1;" : "=f"(*out) : "f"(a), "f"(b));
  else
    asm("sub.rn.f32 %0, %1, %2;" : "=f"(*out) : "f"(a), "f"(b));
}
}  // namespace

TEST_CASE("the assembly string is what runs") {
  const Device<float> out(1);
  difference<false><<<1, 1>>>(out.data, 5.0f, 3.0f);
  CHECK(out.host()[0] == 2.0f);
  difference<true><<<1, 1>>>(out.data, 5.0f, 3.0f);
  CHECK(out.host()[0] == -2.0f);
}
