// Rung 9: wider vectors. AVX-512 has 32 registers of 16 floats: the tile of C is 12 × 32, in 24 of
// them.
//
// Why it helps: twice the floats per instruction; and 24 multiply-adds come with 2 + 12 loads, 0.58
// for each, where the tile of 6 × 16 had 0.67.
// What binds: the multiply-adds, but for what is around the tiles: packing, loads and stores of C,
// and the short tile at the end of a block.
// Bits: the library's. A value of C is one lane, whatever the width of the register.
#pragma once

#include <plumb/core/memory.hpp>
#include <plumb/cpu/isa.hpp>

#include <algorithm>

#include <immintrin.h>

#include <plumb/cpu/simd_begin_avx512.hpp>
namespace ladder::gemm_9_wide {
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
    for (Index block = 0; block < m; block += kBlock) {
      const Index block_end = std::min(block + kBlock, m);
      for (Index j = 0; j < n; j += kColumns)
        for (Index i = block; i < block_end; i += kRows)
          tile_of<kRows>(std::min(kRows, block_end - i), c + i * n + j, a + i * k + p,
                         &panels[j * kc], n, k, std::min(kColumns, n - j), kc, p > 0);
    }
  }
}

}  // namespace ladder::gemm_9_wide
#include <plumb/cpu/simd_end.hpp>
