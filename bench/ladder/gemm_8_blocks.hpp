// Rung 8: blocks of rows. All panels of a chunk are packed first; then 96 rows of A pass over all
// of them before the next 96 rows begin.
//
// Why it helps: a block of A, 96 rows of a chunk, is 96 KiB: it stays in the second cache while
// N/16 panels pass by, so A is read from afar once a chunk and not once a panel. The panels come
// from the second or third cache instead, 16 KiB that 16 tiles share.
// What binds: 8-wide arithmetic.
// Bits: the library's.
#pragma once

#include <plumb/core/memory.hpp>
#include <plumb/cpu/isa.hpp>

#include <algorithm>

#include <immintrin.h>

#include <plumb/cpu/simd_begin_avx2.hpp>
namespace ladder::gemm_8_blocks {
using plumb::Index;
#include <plumb/cpu/vec_avx2.inl.hpp>

inline constexpr Index kVectors = 2, kRows = 6;
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
    for (Index block = 0; block < m; block += kBlock) {
      const Index block_end = std::min(block + kBlock, m);
      for (Index j = 0; j < n; j += kColumns)
        for (Index i = block; i < block_end; i += kRows)
          tile_of<kRows>(std::min(kRows, block_end - i), c + i * n + j, a + i * k + p,
                         &panels[j * kc], n, k, std::min(kColumns, n - j), kc, p > 0);
    }
  }
}

}  // namespace ladder::gemm_8_blocks
#include <plumb/cpu/simd_end.hpp>
