// Rung 10: even tiles. Blocks of rows, and the tiles of a block, are of nearly equal height: 25
// rows are tiles of 8, 8 and 9, not of 12, 12 and 1.
//
// Why it helps: a short tile reads as much of B as a tall one for less work; a tile of one row has
// 2 chains of fma, where 8 must run side by side to hide that each takes four cycles. It shows
// where rows are few: of a thousand, one short tile is nothing.
// What binds: the multiply-adds.
// Bits: the library's.
#pragma once

#include <plumb/core/memory.hpp>
#include <plumb/cpu/isa.hpp>

#include <algorithm>

#include <immintrin.h>

#include <plumb/cpu/simd_begin_avx512.hpp>
namespace ladder::gemm_10_even_tiles {
using plumb::Index;
#include <plumb/cpu/vec_avx512.inl.hpp>

inline constexpr Index kVectors = 2, kRows = 12;
inline constexpr Index kColumns = kVectors * kWidth;
inline constexpr Index kChunk = 256, kBlock = 96;

inline void pack(float* to, const float* b, Index n, Index k, Index columns) {
  for (Index p = 0; p < k; ++p) PLUMB_UNROLL for (Index v = 0; v < kVectors; ++v) {
      const Index left = columns - v * kWidth;
      const float* from = b + p * n + v * kWidth;
      store(to + p * kColumns + v * kWidth, left >= kWidth ? load(from) : load(from, left));
    }
}

template <Index R>
inline void tile(float* c, const float* a, const float* panel, Index n, Index k, Index columns,
                 Index kc, bool add) {
  V acc[R][kVectors];
  PLUMB_UNROLL for (Index r = 0; r < R; ++r) PLUMB_UNROLL for (Index v = 0; v < kVectors; ++v)
      acc[r][v] = set(0.0F);
  for (Index p = 0; p < kc; ++p) {
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
      store(to, add ? load(to) + acc[r][v] : acc[r][v]);
    else
      store(to, add ? load(to, left) + acc[r][v] : acc[r][v], left);
  }
}

template <Index R>
inline void tile_of(Index rows, float* c, const float* a, const float* panel, Index n, Index k,
                    Index columns, Index kc, bool add) {
  if constexpr (R > 0) {
    if (rows < R) return tile_of<R - 1>(rows, c, a, panel, n, k, columns, kc, add);
    tile<R>(c, a, panel, n, k, columns, kc, add);
  }
}

inline void matmul(plumb::Cpu, float* c, const float* a, const float* b, Index m, Index n,
                   Index k) {
  const plumb::Scratch<float> panels((n + kColumns - 1) / kColumns * kColumns * kChunk);
  for (Index p = 0; p < k; p += kChunk) {
    const Index kc = std::min(kChunk, k - p);
    for (Index j = 0; j < n; j += kColumns)
      pack(&panels[j * kc], b + p * n + j, n, kc, std::min(kColumns, n - j));
    const Index blocks = (m + kBlock - 1) / kBlock;
    for (Index block = 0; block < blocks; ++block) {
      const Index begin = block * m / blocks, rows = (block + 1) * m / blocks - begin;
      const Index tiles = (rows + kRows - 1) / kRows;
      for (Index j = 0; j < n; j += kColumns)
        for (Index t = 0; t < tiles; ++t) {
          const Index i = begin + t * rows / tiles, i_end = begin + (t + 1) * rows / tiles;
          tile_of<kRows>(i_end - i, c + i * n + j, a + i * k + p, &panels[j * kc], n, k,
                         std::min(kColumns, n - j), kc, p > 0);
        }
    }
  }
}

}  // namespace ladder::gemm_10_even_tiles
#include <plumb/cpu/simd_end.hpp>
