// What this machine can do at most, measured in this process with the instruction set that the
// kernels use: multiply-adds a second, and bytes a second from a working set of a given size, read
// or updated in place. Every benchmark states its share of one of these. What this is not: a data
// sheet; a neighbour on a shared machine lowers a limit as it lowers a kernel, so compare within
// one run.
//
// Two ways to read nonsense, and what guards against them here. A compiler drops a loop whose
// result nobody needs (1.5 TB/s was read): inputs and results pass through an empty asm that it
// cannot see into, and a reading above what a core's ports allow a cycle counts as INVALID. And
// pages never written to are all one page of zeros, which the first cache holds: buffers are filled
// first.
#pragma once

#include <plumb/core/bf16.hpp>
#include <plumb/core/memory.hpp>
#include <plumb/core/pool.hpp>
#include <plumb/cpu/isa.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <ctime>
#include <fstream>
#include <map>
#include <string>
#include <tuple>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace plumb { inline namespace v0_1 { namespace bench {

struct Loops {
  Index width, chains;
  float (*fma)(Index steps, float factor, float addend);
  float (*dot)(Index steps, float a, float b);  ///< or null
  float (*read)(const float* x, Index n);
  void (*update)(float* p, float* m, float* v, const float* g, Index n);
};

#include <plumb/cpu/simd_begin_scalar.hpp>
namespace scalar {
#include <plumb/cpu/vec_scalar.inl.hpp>

#include <plumb/bench/probe.inl.hpp>
}  // namespace scalar
#include <plumb/cpu/simd_end.hpp>

#if defined(__x86_64__)
#include <plumb/cpu/simd_begin_avx2.hpp>
namespace avx2 {
#include <plumb/cpu/vec_avx2.inl.hpp>

#include <plumb/bench/probe.inl.hpp>
}  // namespace avx2
#include <plumb/cpu/simd_end.hpp>

#include <plumb/cpu/simd_begin_avx512.hpp>
namespace avx512 {
#include <plumb/cpu/vec_avx512.inl.hpp>

#include <plumb/bench/probe.inl.hpp>
}  // namespace avx512
#include <plumb/cpu/simd_end.hpp>
#endif

inline const Loops& loops([[maybe_unused]] Isa isa = current_isa()) {
#if defined(__x86_64__)
  if (isa >= Isa::Avx512) return avx512::loops();
  if (isa == Isa::Avx2) return avx2::loops();
#endif
  return scalar::loops();
}

/// After wide vectors, so that code for SSE is not slowed by what they left in the registers: gcc
/// sees to it by itself from -O2 on only (a kernel that called libm took 15 times as long).
#if defined(__x86_64__)
[[gnu::noinline, gnu::target("avx")]] inline void leave_wide() { _mm256_zeroupper(); }
#endif
inline void leave_wide_vectors() {
#if defined(__x86_64__)
  if (current_isa() >= Isa::Avx2) leave_wide();
#endif
}

/// x, of which the compiler now knows nothing; nor of what memory holds.
template <class T>
T opaque(T x) {
  asm volatile("" : "+m"(x) : : "memory");
  return x;
}

/// Seconds since some moment: of one thread its own CPU time, so that a neighbour on the same core
/// does not count; of several threads the wall clock's.
inline double seconds_now(int threads) {
  timespec now{};
  clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// The least seconds that one of `passes` of body(thread, passes) took, over every thread of the
/// pool together; passes are doubled until they outlast what the clock and the pool cost by far.
template <class Body>
double fastest(Pool& pool, Body body) {
  const auto time = [&](Index passes) {
    const double start = seconds_now(pool.threads());
    pool.run(pool.threads(), [&](Index thread) {
      body(thread, passes);
      leave_wide_vectors();
    });
    return seconds_now(pool.threads()) - start;
  };
  Index passes = 1;
  while (std::min(time(passes), time(passes)) < 4e-3) passes *= 2;
  double best = time(passes);
  for (int i = 0; i < 7; ++i) best = std::min(best, time(passes));
  return best / static_cast<double>(passes);
}

/// Cycles per nanosecond: a chain of xor takes one cycle a step on every processor.
inline double clock_ghz() {
  static const double ghz = [] {
    Pool alone(1);
    constexpr Index kSteps = 100000;
    const double seconds = fastest(alone, [](Index, Index passes) {
      std::uint64_t x = 1, y = opaque(std::uint64_t{3});
      for (Index i = 0; i < passes * kSteps / 8; ++i) {
        PLUMB_UNROLL for (int step = 0; step < 8; ++step) {
          x ^= y;
          asm volatile("" : "+r"(x));
        }
      }
      opaque(x);
    });
    return kSteps / seconds * 1e-9;
  }();
  return ghz;
}

/// A reading, or 0 for INVALID: above `most` a cycle and thread. A tenth for the clock's own error.
inline double valid(double reading, double most, int threads) {
  return reading <= 1.1 * most * clock_ghz() * threads ? reading : 0.0;
}

/// GFLOP/s of a loop of an instruction set, of `adds` multiply-adds a lane; 0: INVALID.
inline double arithmetic_peak(int threads, const Loops& loop, float (*body)(Index, float, float),
                              double adds) {
  Pool pool(threads);
  constexpr Index kSteps = 1000;
  const double flops =
      2.0 * adds * static_cast<double>(kSteps * loop.chains * loop.width * threads);
  const double seconds = fastest(pool, [&](Index, Index passes) {
    for (Index i = 0; i < passes; ++i) opaque(body(kSteps, opaque(0.5F), opaque(0.5F)));
  });
  // Two instructions a cycle.
  return valid(flops / seconds * 1e-9, 4.0 * adds * static_cast<double>(loop.width), threads);
}
inline double fma_peak(int threads, Isa isa = current_isa()) {
  static std::map<std::pair<int, Isa>, double> known;
  const auto [place, fresh] = known.try_emplace({threads, isa});
  if (fresh) place->second = arithmetic_peak(threads, loops(isa), loops(isa).fma, 1);
  return place->second;
}
/// Of vdpbf16ps, where there is one and it adds as products in bf16 do; else 0.
inline double dot_peak(int threads) {
  static std::map<int, double> known;
  const auto [place, fresh] = known.try_emplace(threads);
  if (fresh && loops().dot != nullptr && supported(Isa::Avx512Bf16))
    place->second = arithmetic_peak(threads, loops(), loops().dot, 2);
  return place->second;
}

/// Bytes of cache levels 1 to 3, by Linux; sysconf is not asked: on virtual machines it was seen to
/// give a whole machine's third level.
inline const std::array<double, 4>& cache_bytes() {
  static const std::array<double, 4> sizes = [] {
    std::array<double, 4> found{0, 32 * 1024.0, 1024 * 1024.0, 16 * 1024 * 1024.0};
    for (int i = 0; i < 8; ++i) {
      const std::string at = str("/sys/devices/system/cpu/cpu0/cache/index", i, "/");
      std::size_t level = 0;
      double kilobytes = 0;
      std::string type;
      std::ifstream(at + "level") >> level;
      std::ifstream(at + "size") >> kilobytes;
      std::ifstream(at + "type") >> type;
      if (level >= 1 && level <= 3 && kilobytes > 0 && type != "Instruction")
        found[level] = kilobytes * 1024;
    }
    return found;
  }();
  return sizes;
}

/// What feeds a working set of that size: levels 1 and 2 are each thread's own, 3 is shared.
inline const char* level_of(double bytes, int threads) {
  const auto& cache = cache_bytes();
  return bytes <= cache[1] * threads   ? "L1"
         : bytes <= cache[2] * threads ? "L2"
         : bytes <= cache[3]           ? "L3"
                                       : "memory";
}

enum class Access { Read, Update };

/// A working set that is "memory" without doubt.
inline constexpr double kMemoryBytes = 256.0 * 1024 * 1024;

/// A working set that level 1, 2 or 3 feeds, or memory (4).
inline double cache_level_bytes(std::size_t level, int threads) {
  return level < 3    ? cache_bytes()[level] / 2 * threads
         : level == 3 ? cache_bytes()[level] / 2
                      : kMemoryBytes;
}

/// GB/s from a working set of `bytes` over all threads, rounded to half a power of two; 0: INVALID.
inline double bandwidth(double bytes, Access access, int threads) {
  static std::map<std::tuple<int, Access, int>, double> known;
  const int size = static_cast<int>(
      std::lround(2 * std::log2(std::clamp(bytes, 8192.0 * threads, kMemoryBytes))));
  const auto key = std::tuple(size, access, threads);
  if (const auto found = known.find(key); found != known.end()) return found->second;

  // Per thread, and per array of an update: a multiple of 8 vectors of any width.
  const int arrays = access == Access::Read ? 1 : 4;
  const Index n =
      std::max<Index>(1, static_cast<Index>(std::exp2(size / 2.0)) / 4 / (threads * arrays) / 128) *
      128;
  const Scratch<float> buffer(n * arrays * threads);
  Pool pool(threads);
  pool.run(threads, [&](Index thread) {
    std::fill_n(buffer.data() + thread * n * arrays, n * arrays, 1.0F);
  });
  const Loops& loop = loops();
  const double seconds = fastest(pool, [&](Index thread, Index passes) {
    for (Index i = 0; i < passes; ++i) {
      float* x = opaque(buffer.data() + thread * n * arrays);
      if (access == Access::Read)
        opaque(loop.read(x, n));
      else
        loop.update(x, x + n, x + 2 * n, x + 3 * n, n);
    }
  });
  const double moved = (access == Access::Read ? 4.0 : 28.0) * static_cast<double>(n * threads);
  // Two loads of 64 bytes a cycle; an update may store another 64.
  const double most = access == Access::Read ? 128.0 : 192.0;
  return known[key] = valid(moved / seconds * 1e-9, most, threads);
}

}}}  // namespace v0_1::bench
