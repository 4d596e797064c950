// Which instruction set the kernels use: chosen once by cpuid, or by PLUMB_ISA=scalar|avx2|avx512|
// avx512_bf16, or by set_isa (tests run every path in one process). All give the same bits.
//
// Each family of kernels has a table of function pointers, filled once per instruction set from the
// same source: see kernels.hpp.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/core/environment.hpp>
#include <plumb/math/bf16.hpp>

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdint>

// Before a loop of few, constantly many steps whose array must live in registers; -O2 does not see
// to it by itself. _LANES: not where registers are single lanes, 32 copies of a body take long to
// compile.
#if defined(__clang__)
#define PLUMB_UNROLL _Pragma("unroll")
#define PLUMB_UNROLL_LANES _Pragma("unroll(kRegisters <= 4 ? kRegisters : 1)")
#else
#define PLUMB_UNROLL _Pragma("GCC unroll 32")
#define PLUMB_UNROLL_LANES _Pragma("GCC unroll (kRegisters <= 4 ? kRegisters : 1)")
#endif

// A lambda that is called twice is otherwise a call.
#define PLUMB_INLINE __attribute__((always_inline))

namespace plumb { inline namespace v0_1 {

/// Avx512Bf16 differs from Avx512 in the products of CpuBf16 alone.
enum class Isa : int { Scalar = 0, Avx2 = 1, Avx512 = 2, Avx512Bf16 = 3 };

inline constexpr const char* kIsaNames[] = {"scalar", "avx2", "avx512", "avx512_bf16"};
inline const char* name(Isa isa) { return kIsaNames[static_cast<int>(isa)]; }

#if defined(__x86_64__)
namespace detail {
/// sums (16) += a·b over a pair each, by the processor's vdpbf16ps. Words: math/bf16.hpp.
inline void processor_dot(float* sums, const std::uint32_t* a, const std::uint32_t* b) {
  asm volatile(
      "vmovups (%0), %%zmm0\n\t"
      "vmovups (%1), %%zmm1\n\t"
      "vdpbf16ps (%2), %%zmm1, %%zmm0\n\t"
      "vmovups %%zmm0, (%0)\n\t"
      "vzeroupper"
      :
      : "r"(sums), "r"(a), "r"(b)
      : "xmm0", "xmm1", "memory");
}

/// Whether vdpbf16ps is the chain of math/bf16.hpp, on numbers of moderate size, any, tiny and
/// huge. Some 30 µs.
inline bool dot_is_the_chain() {
  std::uint64_t state = 1;
  const auto random = [&state] {  // Knuth's MMIX constants
    state = state * 6364136223846793005U + 1442695040888963407U;
    return static_cast<std::uint32_t>(state >> 33);
  };
  // Sign and fraction at random, the exponent one of `count` from `first` on.
  const auto of = [&](std::uint32_t first, std::uint32_t count) {
    return (random() & 0x807fU) | (first + random() % count) << 7;
  };
  struct Exponents {
    std::uint32_t a, a_count, b, b_count, c, c_count;
  };
  constexpr Exponents kRegimes[] = {{120, 14, 120, 14, 120, 14},
                                    {0, 255, 0, 255, 0, 255},
                                    {20, 80, 10, 60, 0, 30},
                                    {0, 3, 110, 30, 0, 10},
                                    {240, 15, 120, 20, 240, 15}};
  for (const Exponents& e : kRegimes)
    for (int step = 0; step < 16; ++step) {
      std::uint32_t a[16], b[16];
      float before[16], after[16];
      for (int i = 0; i < 16; ++i) {
        a[i] = of(e.a, e.a_count) << 16 | of(e.a, e.a_count);
        b[i] = of(e.b, e.b_count) << 16 | of(e.b, e.b_count);
        const std::uint32_t c = of(e.c, e.c_count) << 16 | (random() & 0xffffU);
        after[i] = before[i] = flushed(std::bit_cast<float>(c));
      }
      processor_dot(after, a, b);
      for (int i = 0; i < 16; ++i) {
        const auto value = [](std::uint32_t bits) { return flushed(std::bit_cast<float>(bits)); };
        const float second =
            fma_flushed(value(a[i] & 0xffff0000U), value(b[i] & 0xffff0000U), before[i]);
        const float sum = fma_flushed(value(a[i] << 16), value(b[i] << 16), second);
        if (std::isnan(sum)
                ? !std::isnan(after[i])
                : std::bit_cast<std::uint32_t>(sum) != std::bit_cast<std::uint32_t>(after[i]))
          return false;
      }
    }
  return true;
}

/// Whether a product is faster by vdpbf16ps, which does the work of two fma: on some processors it
/// takes as long as one, on others as long as four. The shorter of some runs of a microsecond.
inline bool dot_is_fast() {
  using Clock = std::chrono::steady_clock;
  Clock::duration fma = Clock::duration::max(), dot = fma;
#define PLUMB_EIGHT(instruction)                                                              \
  instruction                                                                                 \
      " %%zmm14, %%zmm15, %%zmm0\n\t" instruction " %%zmm14, %%zmm15, %%zmm1\n\t" instruction \
      " %%zmm14, %%zmm15, %%zmm2\n\t" instruction " %%zmm14, %%zmm15, %%zmm3\n\t" instruction \
      " %%zmm14, %%zmm15, %%zmm4\n\t" instruction " %%zmm14, %%zmm15, %%zmm5\n\t" instruction \
      " %%zmm14, %%zmm15, %%zmm6\n\t" instruction " %%zmm14, %%zmm15, %%zmm7\n\t"
#define PLUMB_TIMED(least, instruction)                                                            \
  {                                                                                                \
    int left = 400;                                                                                \
    const Clock::time_point begin = Clock::now();                                                  \
    asm volatile("vzeroall\n\t1:\n\t" PLUMB_EIGHT(instruction) "dec %0\n\tjnz 1b\n\tvzeroupper"    \
                 : "+r"(left)                                                                      \
                 :                                                                                 \
                 : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", \
                   "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "cc");                    \
    least = std::min(least, Clock::now() - begin);                                                 \
  }
  for (int run = 0; run < 8; ++run) {
    PLUMB_TIMED(fma, "vfmadd231ps")
    PLUMB_TIMED(dot, "vdpbf16ps")
  }
#undef PLUMB_TIMED
#undef PLUMB_EIGHT
  return 10 * dot < 17 * fma;
}
}  // namespace detail
#endif

/// Whether this processor can run `isa`.
inline bool supported(Isa isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  switch (isa) {
    case Isa::Avx512Bf16: {
      static const bool is = supported(Isa::Avx512) && __builtin_cpu_supports("avx512bf16") &&
                             detail::dot_is_the_chain();
      return is;
    }
    case Isa::Avx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("fma");
    case Isa::Avx2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    default: return true;
  }
#else
  return isa == Isa::Scalar;
#endif
}

namespace detail {
inline Isa initial_isa() {
  const int named = environment_choice("PLUMB_ISA", {"scalar", "avx2", "avx512", "avx512_bf16"});
  if (named < 0) {
#if defined(__x86_64__)
    if (supported(Isa::Avx512Bf16) && dot_is_fast()) return Isa::Avx512Bf16;
#endif
    return supported(Isa::Avx512) ? Isa::Avx512 : supported(Isa::Avx2) ? Isa::Avx2 : Isa::Scalar;
  }
  const Isa isa{named};
  if (!supported(isa))
    fail<DataError>(str("[isa] PLUMB_ISA is '", name(isa),
                        "', which this processor lacks. HINT: unset it for the best that it has"));
  return isa;
}
inline std::atomic<Isa>& isa_state() {
  static std::atomic<Isa> isa{initial_isa()};
  return isa;
}
}  // namespace detail

/// The instruction set in use.
inline Isa current_isa() { return detail::isa_state().load(std::memory_order_relaxed); }

/// Chooses another. Not while kernels run.
inline void set_isa(Isa isa, Where where = Where::here()) {
  if (!supported(isa)) fail(str("[isa] this processor lacks ", name(isa)), where);
  detail::isa_state().store(isa, std::memory_order_relaxed);
}

namespace kernels {
/// The table of a family of kernels for an instruction set. Specialised once per family.
template <class Table>
const Table& table_for(Isa isa);

template <class Table>
const Table& dispatch() {
  return table_for<Table>(current_isa());
}
}  // namespace kernels

}}  // namespace plumb::v0_1
