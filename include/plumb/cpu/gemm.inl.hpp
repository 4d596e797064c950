// Bodies of gemm.hpp. Included once per instruction set.
//
// Registers: AVX-512 holds 12 × 32 values of C in 24 of its 32 registers, AVX2 6 × 16 in 12 of its
// 16: the rest take a row of B and one broadcast of A. One to three rows take several panels of B
// at once: a chain of fma waits for itself, and eight must run side by side to hide that.
//
// Fetching ahead: a panel's first tile asks, one step of k at a time, for what the next panel will
// read, to the second cache; each tile, before it begins, for the values of C that it will end
// with. One or two rows leave it to the processor, which follows four panels best by itself; of
// bf16, whose instructions cover half as many bytes, it needs to be told 32 steps ahead.

inline constexpr Index kTileVectors = kWidth == 1 ? 4 : 2;
inline constexpr Index kTileColumns = kTileVectors * kWidth;
inline constexpr Index kTileRows = kWidth == 16 ? 12 : kWidth == 8 ? 6 : 3;

template <bool Whole>
inline V gemm_load(const float* p, Index n) {
  return Whole ? load(p) : load(p, n);
}

/// Adds what a chunk's sums x of one vector of C are added to, and stores them.
template <bool Whole, class T>
inline void gemm_finish(const GemmPanels<T>& t, Index place, Index column, Index left, V x) {
  if (t.add) x = gemm_load<Whole>(t.c + place, left) + x;
  if (t.bias != nullptr) x = x + gemm_load<Whole>(t.bias + column, left);
  if (t.residual != nullptr) x = x + gemm_load<Whole>(t.residual + place, left);
  if (Whole)
    store(t.c + place, x);
  else
    store(t.c + place, x, left);
}

/// The same for a tile of `rows` × `width` sums, of which those within C are stored. One function
/// for all tiles: written out in each, edges and epilogues were most of the code of the kernels and
/// of the time to compile them.
template <class T>
[[gnu::noinline]] void gemm_finish_tile(const GemmPanels<T>& t, const float* sums, Index row,
                                        Index rows, Index column, Index width) {
  const Index columns = t.columns - column < width ? t.columns - column : width;
  for (Index r = 0; r < rows; ++r, sums += width) {
    const Index place = (row + r) * t.ldc + column;
    Index i = 0;
    for (; i + kWidth <= columns; i += kWidth)
      gemm_finish<true>(t, place + i, column + i, kWidth, load(sums + i));
    if (i < columns) gemm_finish<false>(t, place + i, column + i, columns - i, load(sums + i));
  }
}

/// One row of a packed panel.
inline void gemm_row(V* to, const float* b) {
  PLUMB_UNROLL for (Index v = 0; v < kTileVectors; ++v) to[v] = load(b + v * kWidth);
}
inline void gemm_row(V* to, const bf16* b) {
  PLUMB_UNROLL for (Index v = 0; v < kTileVectors; v += 2)
      load_two(b + v * kWidth, to[v], to[v + 1]);
}

/// R rows of P panels. A template of R, so that few rows cost no more than their share.
template <Index R, Index P, bool kRowsOfA, class T>
inline void gemm_tile(const GemmPanels<T>& t, Index row, Index panel) {
  constexpr Index kVectors = P * kTileVectors;
  V acc[R][kVectors];
  PLUMB_UNROLL for (Index r = 0; r < R; ++r) PLUMB_UNROLL for (Index v = 0; v < kVectors; ++v)
      acc[r][v] = set(0.0F);
  const Index b_k = t.b_k, b_panel = t.b_panel;
  const T* b = t.b + panel * b_panel;
  // Rows of A far apart: three to a pointer, by the addresses p, p + a_row and p + 2·a_row. Twelve
  // pointers, or twelve offsets, are more than there are registers.
  constexpr Index kTogether = kRowsOfA ? 3 : R, kPointers = (R + kTogether - 1) / kTogether;
  const Index a_row = kRowsOfA ? t.a_row : 1, a_k = kRowsOfA ? 1 : t.a_k;
  const float* a[kPointers];
  PLUMB_UNROLL for (Index i = 0; i < kPointers; ++i) a[i] = t.a + (row + kTogether * i) * a_row;
  const bool first = row == 0;
  const T* ahead = t.ahead + (first ? panel * t.ahead_panel : 0);
  const Index ahead_k = first ? t.ahead_k : 0, ahead_8k = first ? t.ahead_8k : 0;
  for (Index k = 0; k < t.k; ++k, b += b_k) {
    const T* next = ahead + k / 8 * ahead_8k + k % 8 * ahead_k;
    if constexpr (R > 2) {
      __builtin_prefetch(next, 0, 2);
      if constexpr (sizeof(T) == sizeof(float)) __builtin_prefetch(next + kCacheLine, 0, 2);
    } else if constexpr (sizeof(T) < sizeof(float)) {
      PLUMB_UNROLL for (Index p = 0; p < P; ++p)
          __builtin_prefetch(b + p * b_panel + 32 * b_k, 0, 3);
    }
    V bv[kVectors];
    PLUMB_UNROLL for (Index p = 0; p < P; ++p) gemm_row(bv + p * kTileVectors, b + p * b_panel);
    PLUMB_UNROLL for (Index r = 0; r < R; ++r) {
      const V ar = set(a[r / kTogether][r % kTogether * a_row]);
      PLUMB_UNROLL for (Index v = 0; v < kVectors; ++v) acc[r][v] = fma(ar, bv[v], acc[r][v]);
    }
    PLUMB_UNROLL for (Index i = 0; i < kPointers; ++i) a[i] += a_k;
  }
  if (t.bias == nullptr && t.residual == nullptr && t.columns >= (panel + P) * kTileColumns) {
    float* c = t.c + row * t.ldc + panel * kTileColumns;
    PLUMB_UNROLL for (Index r = 0; r < R; ++r, c += t.ldc) {
      if (t.add)
        PLUMB_UNROLL for (Index v = 0; v < kVectors; ++v) acc[r][v] =
            load(c + v * kWidth) + acc[r][v];
      PLUMB_UNROLL for (Index v = 0; v < kVectors; ++v) store(c + v * kWidth, acc[r][v]);
    }
    return;
  }
  alignas(64) float sums[R * kVectors * kWidth];
  PLUMB_UNROLL for (Index r = 0; r < R; ++r) PLUMB_UNROLL for (Index v = 0; v < kVectors; ++v)
      store(sums + (r * kVectors + v) * kWidth, acc[r][v]);
  gemm_finish_tile(t, sums, row, R, panel * kTileColumns, P * kTileColumns);
}

/// The activation of rows [row, end) of P panels, while they are in the first cache.
template <Index P, class T>
inline void gemm_activate(const GemmPanels<T>& t, Index row, Index end, Index panel) {
  if (t.activated == nullptr) return;
  const Index column = panel * kTileColumns, left = t.columns - column;
  const Index width = left < P * kTileColumns ? left : P * kTileColumns;
  for (; row < end; ++row)
    activation_forward(t.activated + row * t.ldc + column, t.c + row * t.ldc + column, t.activation,
                       width);
}

/// `rows` of at most R rows of one panel.
template <Index R, bool kRowsOfA, class T>
inline void gemm_tile_of(Index rows, const GemmPanels<T>& t, Index row, Index panel) {
  if constexpr (R > 0) {
    if (rows == R) return gemm_tile<R, 1, kRowsOfA>(t, row, panel);
    gemm_tile_of<R - 1, kRowsOfA>(rows, t, row, panel);
  }
}

/// All of R rows, P panels at a time.
template <Index R, Index P, bool kRowsOfA, class T>
inline void gemm_few_rows(const GemmPanels<T>& t) {
  Index panel = 0;
  for (; (panel + P) * kTileColumns <= t.columns; panel += P) {
    gemm_tile<R, P, kRowsOfA>(t, 0, panel);
    gemm_activate<P>(t, 0, R, panel);
  }
  for (; panel * kTileColumns < t.columns; ++panel) {
    gemm_tile<R, 1, kRowsOfA>(t, 0, panel);
    gemm_activate<1>(t, 0, R, panel);
  }
}

template <bool kRowsOfA, class T>
inline void gemm_all(const GemmPanels<T>& t) {
  if (kWidth > 1 && t.rows == 1) return gemm_few_rows<1, 4, kRowsOfA>(t);
  if (kWidth > 1 && t.rows == 2) return gemm_few_rows<2, 4, kRowsOfA>(t);
  if (kWidth > 1 && t.rows == 3) return gemm_few_rows<3, 2, kRowsOfA>(t);
  // Tiles of nearly equal height: 64 rows are four of 11 and two of 10, and none of 4.
  const Index tiles = (t.rows + kTileRows - 1) / kTileRows;
  for (Index panel = 0; panel * kTileColumns < t.columns; ++panel)
    for (Index tile = 0; tile < tiles; ++tile) {
      const Index row = tile * t.rows / tiles, end = (tile + 1) * t.rows / tiles;
      for (Index r = row; r < end; ++r) {
        const float* c = t.c + r * t.ldc + panel * kTileColumns;
        __builtin_prefetch(c, 1, 3);
        __builtin_prefetch(c + kTileColumns - 1, 1, 3);
      }
      gemm_tile_of<kTileRows, kRowsOfA>(end - row, t, row, panel);
      gemm_activate<1>(t, row, end, panel);
    }
}

inline void gemm_panels(const GemmPanels<float>& t) {
  if (t.a_k == 1)
    gemm_all<true>(t);
  else
    gemm_all<false>(t);
}
inline void gemm_panels_bf16(const GemmPanels<bf16>& t) { gemm_all<true>(t); }

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

inline void gemm_to_bf16(bf16* to, const float* panel, Index k) {
  for (Index i = 0; i < k * kTileColumns; i += 2 * kWidth)
    store_two(to + i, load(panel + i), load(panel + i + kWidth));
}

inline void gemm_from_bf16(float* panel, const bf16* from, Index k) {
  V row[kTileVectors];
  for (Index i = 0; i < k; ++i, panel += kTileColumns, from += kTileColumns) {
    gemm_row(row, from);
    PLUMB_UNROLL for (Index v = 0; v < kTileVectors; ++v) store(panel + v * kWidth, row[v]);
  }
}

inline const GemmTable& gemm_table() {
  static constexpr GemmTable table{
      .tile_rows = kTileRows,
      .tile_columns = kTileColumns,
      .pack = gemm_pack,
      .panels = gemm_panels,
  };
  return table;
}
inline const GemmBf16Table& gemm_bf16_table() {
  static constexpr GemmBf16Table table{
      .round = gemm_to_bf16, .expand = gemm_from_bf16, .panels = gemm_panels_bf16};
  return table;
}
