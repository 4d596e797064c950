// Rung 5: a tile of C in registers. Not one row of 8 registers but 6 rows of 2: 12 of AVX2's 16,
// the rest for two vectors of B and one value of A.
//
// Why it helps: a vector of B is loaded once and used for 6 rows, a value of A once for 2 vectors.
// 12 multiply-adds come with 2 + 6 loads where rung 4 had 12 + 1; and B passes through the core M/6
// times instead of M times. R × W FMAs for R + W floats: the nearer to a square, the better.
// What binds: how B lies. A tile walks down 16 columns of it, one cache line and then a jump of N
// floats. For N = 1024 that is a new page each k, and lines 4 KiB apart share one set of the first
// cache, which holds 8 to 12: the columns are gone when the next tile of rows wants them. For
// N = 1000 they lie in all sets, and the arithmetic binds already.
// Bits: those of rung 3, one chain of fma over all of K.
#pragma once

#include <plumb/core/device.hpp>
#include <plumb/cpu/isa.hpp>

#include <algorithm>

#include <immintrin.h>

#include <plumb/cpu/simd_begin_avx2.hpp>
namespace ladder::gemm_5_register_tile {
using plumb::Index;
#include <plumb/cpu/vec_avx2.inl.hpp>

inline constexpr Index kVectors = 2, kRows = 6;
inline constexpr Index kColumns = kVectors * kWidth;

template <Index R, bool Whole>
inline void tile(float* c, const float* a, const float* b, Index n, Index k, Index columns) {
  V acc[R][kVectors];
  PLUMB_UNROLL for (Index r = 0; r < R; ++r) PLUMB_UNROLL for (Index v = 0; v < kVectors; ++v)
      acc[r][v] = set(0.0F);
  for (Index p = 0; p < k; ++p) {
    V bv[kVectors];
    PLUMB_UNROLL for (Index v = 0; v < kVectors; ++v) {
      const float* from = b + p * n + v * kWidth;
      bv[v] = Whole ? load(from) : load(from, columns - v * kWidth);
    }
    PLUMB_UNROLL for (Index r = 0; r < R; ++r) {
      const V x = set(a[r * k + p]);
      PLUMB_UNROLL for (Index v = 0; v < kVectors; ++v) acc[r][v] = fma(x, bv[v], acc[r][v]);
    }
  }
  PLUMB_UNROLL for (Index r = 0; r < R; ++r) PLUMB_UNROLL for (Index v = 0; v < kVectors; ++v) {
    if (Whole)
      store(c + r * n + v * kWidth, acc[r][v]);
    else
      store(c + r * n + v * kWidth, acc[r][v], columns - v * kWidth);
  }
}

/// A tile of `rows` <= R rows: a template of the rows keeps each height's registers apart.
template <Index R>
inline void tile_of(Index rows, float* c, const float* a, const float* b, Index n, Index k,
                    Index columns) {
  if constexpr (R > 0) {
    if (rows < R) return tile_of<R - 1>(rows, c, a, b, n, k, columns);
    if (columns == kColumns)
      tile<R, true>(c, a, b, n, k, columns);
    else
      tile<R, false>(c, a, b, n, k, columns);
  }
}

inline void matmul(plumb::Cpu, float* c, const float* a, const float* b, Index m, Index n,
                   Index k) {
  for (Index j = 0; j < n; j += kColumns)
    for (Index i = 0; i < m; i += kRows)
      tile_of<kRows>(std::min(kRows, m - i), c + i * n + j, a + i * k, b + j, n, k,
                     std::min(kColumns, n - j));
}

}  // namespace ladder::gemm_5_register_tile
#include <plumb/cpu/simd_end.hpp>
