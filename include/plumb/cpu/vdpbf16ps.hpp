// What must be known of a processor's vdpbf16ps before products in bf16 use it: whether it adds as
// math/bf16.hpp says, and whether it is faster than the fma that gives the same bits. Both are
// tried, once, when a program begins.
#pragma once

#include <plumb/math/bf16.hpp>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdint>

#if defined(__x86_64__)

namespace plumb { inline namespace v0_1 { namespace detail {

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

using InstructionClock = std::chrono::steady_clock;

// Functions, and no lambdas: nvcc takes these for a device's, too, which has no such registers.
#define PLUMB_STEP(name, sum) name " %%zmm14, %%zmm15, %%zmm" #sum "\n\t"
#define PLUMB_STEPS(name)                                                                \
  PLUMB_STEP(name, 0)                                                                    \
  PLUMB_STEP(name, 1)                                                                    \
  PLUMB_STEP(name, 2)                                                                    \
  PLUMB_STEP(name, 3)                                                                    \
  PLUMB_STEP(name, 4) PLUMB_STEP(name, 5) PLUMB_STEP(name, 6) PLUMB_STEP(name, 7)
#define PLUMB_TIME(function, name)                                                        \
  inline InstructionClock::duration function() {                                          \
    int left = 400;                                                                       \
    const InstructionClock::time_point begin = InstructionClock::now();                   \
    asm volatile("vzeroall\n\t1:\n\t" PLUMB_STEPS(name) "dec %0\n\tjnz 1b\n\tvzeroupper"  \
                 : "+r"(left)                                                             \
                 :                                                                        \
                 : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",        \
                   "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15",  \
                   "cc");                                                                 \
    return InstructionClock::now() - begin;                                               \
  }
PLUMB_TIME(time_of_fma, "vfmadd231ps")
PLUMB_TIME(time_of_dot, "vdpbf16ps")
#undef PLUMB_TIME
#undef PLUMB_STEPS
#undef PLUMB_STEP

/// Whether a product is faster by vdpbf16ps, which does the work of two fma: on some processors it
/// takes as long as one, on others as long as four. The shortest of some runs of a microsecond.
inline bool dot_is_fast() {
  auto fma = InstructionClock::duration::max(), dot = fma;
  for (int i = 0; i < 8; ++i) {
    fma = std::min(fma, time_of_fma());
    dot = std::min(dot, time_of_dot());
  }
  return 10 * dot < 17 * fma;
}

}}}  // namespace plumb::v0_1::detail

#endif
