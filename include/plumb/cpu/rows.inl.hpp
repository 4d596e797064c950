// Bodies of rows.hpp. Included once per instruction set.

/// sums[j] = the chain of terms of column j over the rows: `term(at, a, row)` adds one vector's
/// terms to a, at(p) loading its columns of p. Rows are read in groups, so that memory is walked
/// forwards.
template <class Term>
inline void column_chains(float* sums, Index rows, Index columns, Term term) {
  constexpr Index kGroup = 4;
  map(sums, columns, [](auto) { return set(0.0F); });
  for (Index first_row = 0; first_row < rows; first_row += kGroup) {
    const Index end = rows - first_row < kGroup ? rows : first_row + kGroup;
    map(sums, columns, [&](auto at) {
      V a = at(sums);
      for (Index row = first_row; row < end; ++row) a = term(at, a, row);
      return a;
    });
  }
}

inline void column_sums(float* sums, const float* x, Index rows, Index columns, Index stride) {
  column_chains(sums, rows, columns,
                [&](auto at, V a, Index row) { return a + at(x + row * stride); });
}

inline void add_row(float* y, const float* x, Index c) {
  map(y, c, [&](auto at) { return at(y) + at(x); });
}

inline void add_chunks(float* total, const float* chunks, Index count, Index columns,
                       Index stride) {
  map(total, columns, [&](auto at) {
    V a = at(total);
    for (Index i = 0; i < count; ++i) a = a + at(chunks + i * stride);
    return a;
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
    V turned_low = interleave_low(x, y), turned_high = interleave_high(x, y);
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
