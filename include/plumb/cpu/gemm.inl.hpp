// Bodies of gemm.hpp. Included once per instruction set.
//
// Registers: AVX-512 holds 12 × 32 values of C in 24 of its 32 registers, NEON 12 × 8 in as many,
// AVX2 6 × 16 in 12 of its 16: the rest take a row of B and one broadcast of A. One to three rows
// take several panels of B at once: a chain of fma waits for itself, and eight must run side by
// side to hide that.
//
// Fetching ahead: a panel's first tile asks, one step of k at a time, for what the next panel will
// read, to the second cache; each tile, before it begins, for the values of C that it will end
// with. One or two rows leave it to the processor, which follows four panels best by itself; of
// bf16, whose instructions cover half as many bytes, it needs to be told 32 steps ahead.
//
// In bf16 with vdpbf16ps a step is a word, two k, and costs what one k in float does. Without it
// the same words are expanded to floats, half by half, so that B is read as short.

inline constexpr Index kTileVectors = kWidth == 1 ? 4 : 2;
inline constexpr Index kTileColumns = kTileVectors * kWidth;
inline constexpr Index kTileRows = kWidth == 16 || kWidth == 4 ? 12 : kWidth == 8 ? 6 : 3;

template <bool Whole>
inline V gemm_load(const float* p, Index n) {
  return Whole ? load(p) : load(p, n);
}

/// Adds what a chunk's sums x of one vector of C are added to, and stores them.
template <bool Whole>
inline void gemm_finish(const GemmPanels& t, Index place, Index column, Index left, V x) {
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
[[gnu::noinline]] inline void gemm_finish_tile(const GemmPanels& t, const float* sums, Index row,
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

// What a tile does in one step: of each vector of B in turn its kParts parts, each times one number
// of A.
struct FloatStep {
  static constexpr Index kParts = 1, kRowsOfB = 1;
  static constexpr bool kFlushes = false;
  static Index steps(Index k) { return k; }
  static V part(V b, Index) { return b; }
  static V add(V a, V b, V sum) { return fma(a, b, sum); }
};
struct MixedStep {  // A in float, B in bf16
  static constexpr Index kParts = 2, kRowsOfB = 1;
  static constexpr bool kFlushes = false;
  static Index steps(Index k) { return k / 2; }
  static V part(V b, Index i) { return i == 0 ? lower(b) : upper(b); }
  static V add(V a, V b, V sum) { return fma(a, b, sum); }
};
struct ChainStep {  // both in bf16, A expanded before
  static constexpr Index kParts = 2, kRowsOfB = 2;
  static constexpr bool kFlushes = true;
  static Index steps(Index k) { return (k + 1) / 2; }
  static V part(V b, Index i) { return i == 0 ? upper(b) : lower(b); }
  static V add(V a, V b, V sum) { return fma_flushed(a, b, sum); }
};

#ifdef PLUMB_DOT
struct DotStep {  // both in bf16, pairs of k
  static constexpr Index kParts = 1, kRowsOfB = 2;
  static constexpr bool kFlushes = false;  // the instruction does
  static Index steps(Index k) { return (k + 1) / 2; }
  static V part(V b, Index) { return b; }
  static V add(V a, V b, V sum) { return dot(a, b, sum); }
};
#endif

// How numbers are rounded to words of two: consecutive ones, and those of two vectors side by side.
struct ByHand {
  static constexpr Index kWordsOfA = 2;  // and A is expanded to floats again, the second of a pair
                                         // first
  static V row(V first, V second) { return bf16_pairs(even(first, second), odd(first, second)); }
  static V column(V low, V high) { return bf16_pairs(low, high); }
};
#ifdef PLUMB_DOT
struct ByInstruction {  // that comes with vdpbf16ps, which reads words
  static constexpr Index kWordsOfA = 1;
  static V row(V first, V second) { return bf16_row(first, second); }
  static V column(V low, V high) { return halves_interleaved(bf16_row(low, high)); }
};
#endif

/// The sums of R rows of P panels over a chunk. A template of R, so that few rows cost no more than
/// their share.
template <Index R, Index P, bool kRowsOfA, class Step>
PLUMB_INLINE inline void gemm_sum(V (&acc)[R][P * kTileVectors], const GemmPanels& t, Index row,
                                  Index panel) {
  constexpr Index kVectors = P * kTileVectors;
  PLUMB_UNROLL for (Index r = 0; r < R; ++r) PLUMB_UNROLL for (Index v = 0; v < kVectors; ++v)
      acc[r][v] = set(0.0F);
  const Index b_k = t.b_k, b_panel = t.b_panel;
  const float* b = t.b + panel * b_panel;
  // Rows of A far apart: three to a pointer, by the addresses p, p + a_row and p + 2·a_row. Twelve
  // pointers, or twelve offsets, are more than there are registers.
  constexpr Index kTogether = kRowsOfA ? 3 : R, kPointers = (R + kTogether - 1) / kTogether;
  const Index a_row = kRowsOfA ? t.a_row : 1, a_k = kRowsOfA ? 1 : t.a_k;
  const float* a[kPointers];
  PLUMB_UNROLL for (Index i = 0; i < kPointers; ++i) a[i] = t.a + (row + kTogether * i) * a_row;
  const auto multiply = [&](Index part) PLUMB_INLINE {
    V bv[kVectors];
    PLUMB_UNROLL for (Index v = 0; v < kVectors; ++v) bv[v] =
        Step::part(load(b + v / kTileVectors * b_panel + v % kTileVectors * kWidth), part);
    PLUMB_UNROLL for (Index r = 0; r < R; ++r) {
      const V ar = set(a[r / kTogether][r % kTogether * a_row]);
      PLUMB_UNROLL for (Index v = 0; v < kVectors; ++v) acc[r][v] = Step::add(ar, bv[v], acc[r][v]);
    }
    PLUMB_UNROLL for (Index i = 0; i < kPointers; ++i) a[i] += a_k;
  };
  const bool first = row == 0;
  const float* ahead = t.ahead + (first ? panel * t.ahead_panel : 0);
  const Index ahead_k = first ? t.ahead_k : 0, ahead_8k = first ? t.ahead_8k : 0;
  const Index ahead_second = first ? t.ahead_second : 0;
  const Index steps = Step::steps(t.k);
  for (Index k = 0; k < steps; ++k, b += b_k) {
    if constexpr (R > 2) {
      const float* next = ahead + k / 8 * ahead_8k + k % 8 * ahead_k;
      PLUMB_UNROLL for (Index i = 0; i < Step::kRowsOfB; ++i, next += ahead_second) {
        __builtin_prefetch(next, 0, 2);
        __builtin_prefetch(next + kCacheLine, 0, 2);
        __builtin_prefetch(next + 2 * kCacheLine - 1, 0, 2);
      }
    } else if constexpr (!std::is_same_v<Step, FloatStep>) {
      PLUMB_UNROLL for (Index p = 0; p < P; ++p) {
        __builtin_prefetch(b + p * b_panel + 16 * b_k, 0, 3);
        __builtin_prefetch(b + p * b_panel + 16 * b_k + kCacheLine, 0, 3);
      }
    }
    multiply(0);
    if constexpr (Step::kParts == 2) multiply(1);
  }
  if constexpr (std::is_same_v<Step, MixedStep>)
    if (t.k % 2 == 1) multiply(0);
}

/// The same to memory. Never inlined: what is computed here stays in the environment of the call.
template <Index R, Index P, bool kRowsOfA, class Step>
[[gnu::noinline]] void gemm_sum_apart(float* sums, const GemmPanels& t, Index row, Index panel) {
  constexpr Index kVectors = P * kTileVectors;
  V acc[R][kVectors];
  gemm_sum<R, P, kRowsOfA, Step>(acc, t, row, panel);
  PLUMB_UNROLL for (Index r = 0; r < R; ++r) PLUMB_UNROLL for (Index v = 0; v < kVectors; ++v)
      store(sums + (r * kVectors + v) * kWidth, acc[r][v]);
}

/// R rows of P panels of C.
template <Index R, Index P, bool kRowsOfA, class Step>
inline void gemm_tile(const GemmPanels& t, Index row, Index panel) {
  constexpr Index kVectors = P * kTileVectors;
  alignas(64) float sums[R * kVectors * kWidth];
  if constexpr (Step::kFlushes && !std::is_same_v<Flushed, NothingFlushed>) {
    {
      const Flushed flushed;
      gemm_sum_apart<R, P, kRowsOfA, Step>(sums, t, row, panel);
    }
    gemm_finish_tile(t, sums, row, R, panel * kTileColumns, P * kTileColumns);
  } else {
    V acc[R][kVectors];
    gemm_sum<R, P, kRowsOfA, Step>(acc, t, row, panel);
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
    PLUMB_UNROLL for (Index r = 0; r < R; ++r) PLUMB_UNROLL for (Index v = 0; v < kVectors; ++v)
        store(sums + (r * kVectors + v) * kWidth, acc[r][v]);
    gemm_finish_tile(t, sums, row, R, panel * kTileColumns, P * kTileColumns);
  }
}

/// The activation of rows [row, end) of P panels, while they are in the first cache.
template <Index P>
inline void gemm_activate(const GemmPanels& t, Index row, Index end, Index panel) {
  if (t.activated == nullptr) return;
  const Index column = panel * kTileColumns, left = t.columns - column;
  const Index width = left < P * kTileColumns ? left : P * kTileColumns;
  for (; row < end; ++row)
    activation_forward(t.activated + row * t.ldc + column, t.c + row * t.ldc + column, t.activation,
                       width);
}

/// `rows` of at most R rows of one panel.
template <Index R, bool kRowsOfA, class Step>
inline void gemm_tile_of(Index rows, const GemmPanels& t, Index row, Index panel) {
  if constexpr (R > 0) {
    if (rows == R) return gemm_tile<R, 1, kRowsOfA, Step>(t, row, panel);
    gemm_tile_of<R - 1, kRowsOfA, Step>(rows, t, row, panel);
  }
}

/// All of R rows, P panels at a time.
template <Index R, Index P, bool kRowsOfA, class Step>
inline void gemm_few_rows(const GemmPanels& t) {
  Index panel = 0;
  for (; (panel + P) * kTileColumns <= t.columns; panel += P) {
    gemm_tile<R, P, kRowsOfA, Step>(t, 0, panel);
    gemm_activate<P>(t, 0, R, panel);
  }
  for (; panel * kTileColumns < t.columns; ++panel) {
    gemm_tile<R, 1, kRowsOfA, Step>(t, 0, panel);
    gemm_activate<1>(t, 0, R, panel);
  }
}

template <bool kRowsOfA, class Step>
inline void gemm_all(const GemmPanels& t) {
  if (kWidth > 1 && t.rows == 1) return gemm_few_rows<1, 4, kRowsOfA, Step>(t);
  if (kWidth > 1 && t.rows == 2) return gemm_few_rows<2, 4, kRowsOfA, Step>(t);
  if (kWidth > 1 && t.rows == 3) return gemm_few_rows<3, 2, kRowsOfA, Step>(t);
  // Tiles of nearly equal height: 64 rows are four of 11 and two of 10, and none of 4.
  const Index tiles = (t.rows + kTileRows - 1) / kTileRows;
  for (Index panel = 0; panel * kTileColumns < t.columns; ++panel)
    for (Index tile = 0; tile < tiles; ++tile) {
      const Index row = tile * t.rows / tiles, end = (tile + 1) * t.rows / tiles;
      for (Index r = row; r < end; ++r) {
        const float* c = t.c + r * t.ldc + panel * kTileColumns;
        __builtin_prefetch(c, 1, 3);
        __builtin_prefetch(c + kCacheLine, 1, 3);
        __builtin_prefetch(c + kTileColumns - 1, 1, 3);
      }
      gemm_tile_of<kTileRows, kRowsOfA, Step>(end - row, t, row, panel);
      gemm_activate<1>(t, row, end, panel);
    }
}

template <class Step>
inline void gemm_panels(const GemmPanels& t) {
  if (t.a_k == 1)
    gemm_all<true, Step>(t);
  else
    gemm_all<false, Step>(t);
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

/// k values from x on, rounded, as words.
template <class Rounding>
inline void gemm_round_row(float* words, const float* x, Index k) {
  for (Index i = 0; i < k; i += 2 * kWidth) {
    const V first = i + 2 * kWidth <= k ? load(x + i) : load(x + i, k - i);
    const V second =
        i + 2 * kWidth <= k ? load(x + i + kWidth) : load(x + i + kWidth, k - i - kWidth);
    store(words + i / 2, Rounding::row(first, second), (k - i + 1) / 2);
  }
}

/// columns of the rows from x0 and x1 (null: zeros) on, rounded, as words.
template <class Rounding>
inline void gemm_round_pair(float* words, const float* x0, const float* x1, Index columns) {
  for (Index i = 0; i < columns; i += kWidth) {
    const V low = load(x0 + i, columns - i);
    const V high = x1 != nullptr ? load(x1 + i, columns - i) : set(0.0F);
    store(words + i, Rounding::column(low, high), columns - i);
  }
}

template <class Rounding>
inline void gemm_pack_bf16(float* words, const float* b, Index ldb, bool transposed, Index k,
                           Index columns) {
  const Index pairs = (k + 1) / 2;
  if (transposed) {
    float rows[kTileColumns * kChunk / 2];  // a chunk
    for (Index p0 = 0; p0 < pairs; p0 += kChunk / 2, words += kChunk / 2 * kTileColumns) {
      const Index left = k - 2 * p0 < kChunk ? k - 2 * p0 : kChunk, count = (left + 1) / 2;
      for (Index j = 0; j < columns; ++j)
        gemm_round_row<Rounding>(rows + j * count, b + j * ldb + 2 * p0, left);
      PLUMB_UNROLL for (Index v = 0; v < kTileVectors; ++v)
          transpose(words + v * kWidth, kTileColumns, rows + v * kWidth * count, count,
                    columns - v * kWidth, count);
    }
    return;
  }
  for (Index p = 0; p < pairs; ++p, words += kTileColumns) {
    const float* const x = b + 2 * p * ldb;
    gemm_round_pair<Rounding>(words, x, 2 * p + 1 < k ? x + ldb : nullptr, columns);
    for (Index j = columns; j < kTileColumns; ++j) words[j] = 0.0F;
  }
}

template <class Rounding>
inline void gemm_round_rows(float* to, const float* a, Index lda, Index rows, Index k) {
  const Index pairs = (k + 1) / 2;
  for (Index r = 0; r < rows; ++r, a += lda) {
    if constexpr (Rounding::kWordsOfA == 1) {
      gemm_round_row<Rounding>(to + r * pairs, a, k);
    } else {
      float words[kChunk / 2];
      gemm_round_row<Rounding>(words, a, k);
      float* const row = to + r * 2 * pairs;
      for (Index p = 0; p < pairs; p += kWidth) {
        const Index left = 2 * (pairs - p);
        const V x = load(words + p, pairs - p), first = upper(x), second = lower(x);
        store(row + 2 * p, interleave_low(first, second), left);
        store(row + 2 * p + kWidth, interleave_high(first, second), left - kWidth);
      }
    }
  }
}

template <class Rounding>
inline void gemm_round_columns(float* to, const float* a, Index lda, Index rows, Index k) {
  for (Index i = 0; i < k; i += 2, a += 2 * lda) {
    const float* const next = i + 1 < k ? a + lda : nullptr;
    if constexpr (Rounding::kWordsOfA == 1) {
      gemm_round_pair<Rounding>(to + i / 2 * rows, a, next, rows);
    } else {
      float* const first = to + i * rows;
      gemm_round_pair<Rounding>(first, a, next, rows);
      for (Index r = 0; r < rows; r += kWidth) {
        const V words = load(first + r, rows - r);
        store(first + r, upper(words), rows - r);
        store(first + rows + r, lower(words), rows - r);
      }
    }
  }
}

inline void gemm_expand(float* panel, const float* words, Index k) {
  for (Index i = 0; i < k; ++i, panel += kTileColumns)
    for (Index j = 0; j < kTileColumns; j += kWidth) {
      const V pairs = load(words + i / 2 * kTileColumns + j);
      store(panel + j, i % 2 == 0 ? lower(pairs) : upper(pairs));
    }
}

inline const GemmTable& gemm_table() {
  static constexpr GemmTable table{
      .tile_rows = kTileRows,
      .tile_columns = kTileColumns,
      .pack = gemm_pack,
      .panels = gemm_panels<FloatStep>,
  };
  return table;
}

template <class Rounding, class Step>
constexpr GemmBf16Table::Products bf16_products() {
  return {.pack = gemm_pack_bf16<Rounding>,
          .a_words = Rounding::kWordsOfA,
          .round_rows = gemm_round_rows<Rounding>,
          .round_columns = gemm_round_columns<Rounding>,
          .panels = gemm_panels<Step>};
}
inline const GemmBf16Table& gemm_bf16_table() {
  static constexpr GemmBf16Table table{
      .chain = bf16_products<ByHand, ChainStep>(),
#ifdef PLUMB_DOT
      .dot = bf16_products<ByInstruction, DotStep>(),
#else
      .dot = {},
#endif
      .expand = gemm_expand,
      .mixed = gemm_all<true, MixedStep>};
  return table;
}
