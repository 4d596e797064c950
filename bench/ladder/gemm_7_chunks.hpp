// Rung 7: chunks of k. K is cut into chunks of 256: a panel is packed and used chunk by chunk, and
// each chunk's sums are added to C.
//
// Why it helps: a chunk of a panel is 256·16 floats, 16 KiB: it stays in the first cache while all
// the tiles of rows read it, whatever K is. The price: C is loaded and stored K/256 times instead
// of once, 8 bytes for 512 FLOPs, which costs more than it gains where the second cache is quick
// and K moderate. It also shortens the chains of roundings, and fixes an order of additions that no
// blocking changes.
// What binds: A. All M rows of a chunk, M KiB, are read again for each panel, N/16 times; of a
// thousand rows that is about all that the second cache holds.
// Bits: the library's from here on. A chain of fma from +0 within a chunk, k ascending; then the
// chunks in order.
#pragma once

#include <plumb/core/memory.hpp>
#include <plumb/cpu/isa.hpp>

#include <algorithm>

#include <immintrin.h>

#include <plumb/cpu/simd_begin_avx2.hpp>
namespace ladder::gemm_7_chunks {
using plumb::Index;
#include <plumb/cpu/vec_avx2.inl.hpp>

inline constexpr Index kVectors = 2, kRows = 6;
inline constexpr Index kColumns = kVectors * kWidth;
inline constexpr Index kChunk = 256;

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
  const plumb::Scratch<float> panel(kChunk * kColumns);
  for (Index p = 0; p < k; p += kChunk) {
    const Index kc = std::min(kChunk, k - p);
    for (Index j = 0; j < n; j += kColumns) {
      const Index columns = std::min(kColumns, n - j);
      pack(panel.data(), b + p * n + j, n, kc, columns);
      for (Index i = 0; i < m; i += kRows)
        tile_of<kRows>(std::min(kRows, m - i), c + i * n + j, a + i * k + p, panel.data(), n, k,
                       columns, kc, p > 0);
    }
  }
}

}  // namespace ladder::gemm_7_chunks
#include <plumb/cpu/simd_end.hpp>
