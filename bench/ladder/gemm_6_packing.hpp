// Rung 6: packing. 16 columns of B, a panel, are copied to [k][16] before the tiles read them, with
// zeros beyond the edge of B.
//
// Why it helps: a tile reads the panel in order, one cache line after the other, on few pages and
// in all sets of the cache. The copy is K·16 moves for M·K·16 multiply-adds, 1/M of the work. And
// the loop over k needs no mask at the edge: the zeros are there.
// What binds: 8-wide arithmetic; and for larger K the panel's size. 64·K bytes, 64 KiB at K = 1024,
// do not fit the first cache: each tile reads it from the second, or from further away.
// Bits: those of rung 3, one chain of fma over all of K.
#pragma once

#include <plumb/core/memory.hpp>
#include <plumb/cpu/isa.hpp>

#include <algorithm>

#include <immintrin.h>

#include <plumb/cpu/simd_begin_avx2.hpp>
namespace ladder::gemm_6_packing {
using plumb::Index;
#include <plumb/cpu/vec_avx2.inl.hpp>

inline constexpr Index kVectors = 2, kRows = 6;
inline constexpr Index kColumns = kVectors * kWidth;

inline void pack(float* to, const float* b, Index n, Index k, Index columns) {
  for (Index p = 0; p < k; ++p) PLUMB_UNROLL for (Index v = 0; v < kVectors; ++v) {
      const Index left = columns - v * kWidth;
      const float* from = b + p * n + v * kWidth;
      store(to + p * kColumns + v * kWidth, left >= kWidth ? load(from) : load(from, left));
    }
}

template <Index R>
inline void tile(float* c, const float* a, const float* panel, Index n, Index k, Index columns) {
  V acc[R][kVectors];
  PLUMB_UNROLL for (Index r = 0; r < R; ++r) PLUMB_UNROLL for (Index v = 0; v < kVectors; ++v)
      acc[r][v] = set(0.0F);
  for (Index p = 0; p < k; ++p) {
    V bv[kVectors];
    PLUMB_UNROLL for (Index v = 0; v < kVectors; ++v) bv[v] =
        load(panel + p * kColumns + v * kWidth);
    PLUMB_UNROLL for (Index r = 0; r < R; ++r) {
      const V x = set(a[r * k + p]);
      PLUMB_UNROLL for (Index v = 0; v < kVectors; ++v) acc[r][v] = fma(x, bv[v], acc[r][v]);
    }
  }
  PLUMB_UNROLL for (Index r = 0; r < R; ++r) PLUMB_UNROLL for (Index v = 0; v < kVectors; ++v) {
    float* to = c + r * n + v * kWidth;
    const Index left = columns - v * kWidth;
    if (left >= kWidth)
      store(to, acc[r][v]);
    else
      store(to, acc[r][v], left);
  }
}

template <Index R>
inline void tile_of(Index rows, float* c, const float* a, const float* panel, Index n, Index k,
                    Index columns) {
  if constexpr (R > 0) {
    if (rows < R) return tile_of<R - 1>(rows, c, a, panel, n, k, columns);
    tile<R>(c, a, panel, n, k, columns);
  }
}

inline void matmul(plumb::Cpu, float* c, const float* a, const float* b, Index m, Index n,
                   Index k) {
  const plumb::Scratch<float> panel(k * kColumns);
  for (Index j = 0; j < n; j += kColumns) {
    const Index columns = std::min(kColumns, n - j);
    pack(panel.data(), b + j, n, k, columns);
    for (Index i = 0; i < m; i += kRows)
      tile_of<kRows>(std::min(kRows, m - i), c + i * n + j, a + i * k, panel.data(), n, k, columns);
  }
}

}  // namespace ladder::gemm_6_packing
#include <plumb/cpu/simd_end.hpp>
