// Bodies of gemm.hpp. Included once per instruction set.
//
// Registers: AVX-512 holds 12 × 32 values of C in 24 of its 32 registers, AVX2 6 × 16 in 12 of its 16:
// the rest take a row of B and one broadcast of A.

inline constexpr Index kTileVectors = kWidth == 1 ? 4 : 2;
inline constexpr Index kTileColumns = kTileVectors * kWidth;
inline constexpr Index kTileRows = kWidth == 16 ? 12 : kWidth == 8 ? 6 : 3;

template <bool Whole>
inline V gemm_load(const float* p, Index n) {
  return Whole ? load(p) : load(p, n);
}

/// Adds what a chunk's sum x is added to, and stores it. (No lambdas: gcc compiles those inside
/// templates for the wrong instruction set.)
template <bool Whole>
inline void gemm_finish(const GemmPanel& t, Index place, Index column, V x) {
  const Index left = t.columns - column;
  if (t.add) x = gemm_load<Whole>(t.c + place, left) + x;
  if (t.bias != nullptr) x = x + gemm_load<Whole>(t.bias + column, left);
  if (t.residual != nullptr) x = x + gemm_load<Whole>(t.residual + place, left);
  if (Whole)
    store(t.c + place, x);
  else
    store(t.c + place, x, left);
}

/// R rows of one panel. A template of R, so that few rows cost no more than their share.
template <Index R>
inline void gemm_tile(const GemmPanel& t, Index row) {
  V acc[R][kTileVectors];
  PLUMB_UNROLL for (Index r = 0; r < R; ++r) PLUMB_UNROLL for (Index v = 0; v < kTileVectors; ++v)
      acc[r][v] = set(0.0F);
  const float* a = t.a + row * t.a_row;
  const float* b = t.b;
  const Index a_row = t.a_row;
  for (Index k = 0; k < t.k; ++k, a += t.a_k, b += t.b_k) {
    V bv[kTileVectors];
    PLUMB_UNROLL for (Index v = 0; v < kTileVectors; ++v) bv[v] = load(b + v * kWidth);
    PLUMB_UNROLL for (Index r = 0; r < R; ++r) {
      const V ar = set(a[r * a_row]);
      PLUMB_UNROLL for (Index v = 0; v < kTileVectors; ++v) acc[r][v] = fma(ar, bv[v], acc[r][v]);
    }
  }
  const bool whole = t.columns == kTileColumns;
  PLUMB_UNROLL for (Index r = 0; r < R; ++r) PLUMB_UNROLL for (Index v = 0; v < kTileVectors; ++v) {
    const Index place = (row + r) * t.ldc + v * kWidth;
    if (whole)
      gemm_finish<true>(t, place, v * kWidth, acc[r][v]);
    else
      gemm_finish<false>(t, place, v * kWidth, acc[r][v]);
  }
}

/// The last, fewer than kTileRows rows of a panel.
template <Index R>
inline void gemm_edge(const GemmPanel& t, Index row) {
  if constexpr (R > 0) {
    if (t.rows - row == R) return gemm_tile<R>(t, row);
    gemm_edge<R - 1>(t, row);
  }
}

inline void gemm_panel(const GemmPanel& t) {
  Index row = 0;
  for (; row + kTileRows <= t.rows; row += kTileRows) gemm_tile<kTileRows>(t, row);
  gemm_edge<kTileRows - 1>(t, row);
}

inline void gemm_pack(float* to, const float* b, Index ldb, bool transposed, Index k,
                      Index columns) {
  if (transposed) {
    PLUMB_UNROLL for (Index v = 0; v < kTileVectors; ++v) transpose(
        to + v * kWidth, kTileColumns, b + v * kWidth * ldb, ldb, columns - v * kWidth, k);
    return;
  }
  for (Index i = 0; i < k; ++i) PLUMB_UNROLL for (Index v = 0; v < kTileVectors; ++v) {
      const float* from = b + i * ldb + v * kWidth;
      const Index left = columns - v * kWidth;
      store(to + i * kTileColumns + v * kWidth, left >= kWidth ? load(from) : load(from, left));
    }
}

inline const GemmTable& gemm_table() {
  static constexpr GemmTable table{
      .tile_rows = kTileRows,
      .tile_columns = kTileColumns,
      .pack = gemm_pack,
      .panel = gemm_panel,
  };
  return table;
}
