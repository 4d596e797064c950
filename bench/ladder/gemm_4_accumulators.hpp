// Rung 4: C in registers. 64 columns of a row of C are 8 registers, which stay while k runs through
// all of K; each is stored once.
//
// Why it helps: a multiply-add needs one load, of B; rung 3's load and store of C, K times each,
// are gone. Eight chains, because an fma takes four cycles and two begin in each: fewer would wait.
// What binds: B, 2 bytes for each FLOP as before: so this alone gains nothing, but the next rung
// builds on it. It may even lose: B is now read 64 columns at a time, 4 cache lines and then a jump
// of N floats. If that is a power of two, the lines fall into few sets of the caches: see rung 6.
// Bits: those of rung 3, one chain of fma over all of K.
#pragma once

#include <plumb/core/device.hpp>
#include <plumb/cpu/isa.hpp>

#include <immintrin.h>

#include <plumb/cpu/simd_begin_avx2.hpp>
namespace ladder::gemm_4_accumulators {
using plumb::Index;
#include <plumb/cpu/vec_avx2.inl.hpp>

inline constexpr Index kVectors = 8;
inline constexpr Index kColumns = kVectors * kWidth;

template <bool Whole>
inline void columns_of_row(float* c, const float* a, const float* b, Index n, Index k,
                           Index columns) {
  V acc[kVectors];
  PLUMB_UNROLL for (Index v = 0; v < kVectors; ++v) acc[v] = set(0.0F);
  for (Index p = 0; p < k; ++p) {
    const V x = set(a[p]);
    PLUMB_UNROLL for (Index v = 0; v < kVectors; ++v) {
      const float* from = b + p * n + v * kWidth;
      acc[v] = fma(x, Whole ? load(from) : load(from, columns - v * kWidth), acc[v]);
    }
  }
  PLUMB_UNROLL for (Index v = 0; v < kVectors; ++v) {
    if (Whole)
      store(c + v * kWidth, acc[v]);
    else
      store(c + v * kWidth, acc[v], columns - v * kWidth);
  }
}

inline void matmul(plumb::Cpu, float* c, const float* a, const float* b, Index m, Index n,
                   Index k) {
  for (Index i = 0; i < m; ++i) {
    Index j = 0;
    for (; j + kColumns <= n; j += kColumns)
      columns_of_row<true>(c + i * n + j, a + i * k, b + j, n, k, kColumns);
    if (j < n) columns_of_row<false>(c + i * n + j, a + i * k, b + j, n, k, n - j);
  }
}

}  // namespace ladder::gemm_4_accumulators
#include <plumb/cpu/simd_end.hpp>
