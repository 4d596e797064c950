// Bodies of rows.hpp. Included once per instruction set.

/// Walks `columns` columns in blocks of four vectors, whose accumulators stay in registers while
/// `step(accumulators, row, column, count)` adds the terms of one row; put(column, values, count)
/// takes the results.
template <class Term, class Put>
inline void for_columns(Index rows, Index columns, Term term, Put put) {
  constexpr Index kBlock = 4 * kWidth;
  Index j = 0;
  for (; j + kBlock <= columns; j += kBlock) {
    V a = set(0.0F), b = a, c = a, d = a;
    for (Index i = 0; i < rows; ++i) {
      a = term(a, i, j, kWidth);
      b = term(b, i, j + kWidth, kWidth);
      c = term(c, i, j + 2 * kWidth, kWidth);
      d = term(d, i, j + 3 * kWidth, kWidth);
    }
    put(j, a, kWidth);
    put(j + kWidth, b, kWidth);
    put(j + 2 * kWidth, c, kWidth);
    put(j + 3 * kWidth, d, kWidth);
  }
  for (; j < columns; j += kWidth) {
    V a = set(0.0F);
    for (Index i = 0; i < rows; ++i) a = term(a, i, j, columns - j);
    put(j, a, columns - j);
  }
}

inline V row_load(const float* p, Index n) { return n >= kWidth ? load(p) : load(p, n); }
inline void row_store(float* p, V x, Index n) {
  if (n >= kWidth)
    store(p, x);
  else
    store(p, x, n);
}

inline void column_sums(float* sums, const float* x, Index rows, Index columns, Index stride) {
  for_columns(
      rows, columns,
      [&](V a, Index i, Index j, Index n) { return a + row_load(x + i * stride + j, n); },
      [&](Index j, V a, Index n) { row_store(sums + j, a, n); });
}

inline void add_row(float* y, const float* x, Index c) { add(y, y, x, c); }

inline void add_chunks(float* total, const float* chunks, Index count, Index columns,
                       Index stride) {
  for_vectors(
      columns,
      [&](Index j) {
        V a = load(total + j);
        for (Index i = 0; i < count; ++i) a = a + load(chunks + i * stride + j);
        store(total + j, a);
      },
      [&](Index j, Index n) {
        V a = load(total + j, n);
        for (Index i = 0; i < count; ++i) a = a + load(chunks + i * stride + j, n);
        store(total + j, a, n);
      });
}

/// One head: 2 · half channels. Per pair, forward fma(0 - x1, s, x0 · c) and fma(x0, s, x1 · c);
/// backward fma(y1, s, y0 · c) and fma(0 - y0, s, y1 · c), added to dx.
template <bool kBackward>
inline void rotate_head(float* out, const float* in, const float* cosine, const float* sine,
                        Index half) {
  for (Index i = 0; i < half; i += kWidth) {
    const Index n = 2 * (half - i);  // floats left
    const bool whole = n >= 2 * kWidth;
    const float* const p = in + 2 * i;
    float* const q = out + 2 * i;
    const V low = whole ? load(p) : load(p, n);
    const V high = whole ? load(p + kWidth) : load(p + kWidth, n - kWidth);
    const V c = whole ? load(cosine + i) : load(cosine + i, half - i);
    const V s = whole ? load(sine + i) : load(sine + i, half - i);
    const V a = even(low, high), b = odd(low, high);
    const V x = kBackward ? fma(b, s, a * c) : fma(set(0.0F) - b, s, a * c);
    const V y = kBackward ? fma(set(0.0F) - a, s, b * c) : fma(a, s, b * c);
    V turned_low = zip_low(x, y), turned_high = zip_high(x, y);
    if (kBackward) {
      turned_low = (whole ? load(q) : load(q, n)) + turned_low;
      turned_high = (whole ? load(q + kWidth) : load(q + kWidth, n - kWidth)) + turned_high;
    }
    if (whole) {
      store(q, turned_low);
      store(q + kWidth, turned_high);
    } else {
      store(q, turned_low, n);
      store(q + kWidth, turned_high, n - kWidth);
    }
  }
}

template <bool kBackward>
inline void rotate_rows(float* out, const float* in, const float* cosine, const float* sine,
                        const std::int32_t* positions, Index n, Index heads, Index head_size) {
  const Index half = head_size / 2;
  for (Index i = 0; i < n; ++i)
    for (Index h = 0; h < heads; ++h) {
      const Index at = (i * heads + h) * head_size;
      const Index angle = positions[i] * half;
      rotate_head<kBackward>(out + at, in + at, cosine + angle, sine + angle, half);
    }
}

inline const RowsTable& rows_table() {
  static constexpr RowsTable table{
      .column_sums = column_sums,
      .add_row = add_row,
      .add_chunks = add_chunks,
      .rope_forward = rotate_rows<false>,
      .rope_backward = rotate_rows<true>,
  };
  return table;
}
