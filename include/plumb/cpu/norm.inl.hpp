// Bodies of norm.hpp. Included once per instruction set.

/// Row reduction where `grow(at, total)` adds the terms of one vector; at(p) loads its elements of
/// p, zeros beyond the row's end, which must add nothing.
template <class Grow>
inline float norm_row_sum(Index c, Grow grow) {
  Lanes total = all_lanes(0.0F);
  for_lanes(
      c,
      [&](Index r, Index i) {
        total.v[r] = grow([i](const float* p) { return load(p + i); }, total.v[r]);
      },
      [&](Index r, Index i, Index n) {
        total.v[r] = grow([i, n](const float* p) { return load(p + i, n); }, total.v[r]);
      });
  return sum(total);
}

/// Σ (x - mean)² over a row.
inline float norm_squares_about(const float* x, float mean, Index c) {
  Lanes total = all_lanes(0.0F);
  const V m = set(mean);
  for_lanes(
      c,
      [&](Index r, Index i) {
        const V d = load(x + i) - m;
        total.v[r] = fma(d, d, total.v[r]);
      },
      [&](Index r, Index i, Index n) {
        const V d = keep(load(x + i, n) - m, n);
        total.v[r] = fma(d, d, total.v[r]);
      });
  return sum(total);
}

inline void rms_norm_rows(float* y, float* rstd, const float* x, const float* weight, Index n,
                          Index c, float eps) {
  const float channels = static_cast<float>(c);
  for (Index row = 0; row < n; ++row, x += c, y += c) {
    const float squares = norm_row_sum(c, [&](auto at, V total) {
      const V v = at(x);
      return fma(v, v, total);
    });
    rstd[row] = 1.0F / __builtin_sqrtf(squares / channels + eps);
    const V r = set(rstd[row]);
    map(y, c, [&](auto at) { return at(weight) * (at(x) * r); });
  }
}

inline void rms_norm_rows_backward(float* dx, const float* dy, const float* x, const float* weight,
                                   const float* rstd, Index n, Index c) {
  const float channels = static_cast<float>(c);
  for (Index row = 0; row < n; ++row, dx += c, dy += c, x += c) {
    const V r = set(rstd[row]);
    const float along = norm_row_sum(
        c, [&](auto at, V total) { return fma(at(weight) * at(dy), at(x) * r, total); });
    const V minus_mean = set(-(along / channels));
    map(dx, c, [&](auto at) {
      const V g = at(weight) * at(dy);
      return fma(r, fma(minus_mean, at(x) * r, g), at(dx));
    });
  }
}

inline void layer_norm_rows(float* y, float* mean, float* rstd, const float* x, const float* weight,
                            const float* bias, Index n, Index c, float eps) {
  const float channels = static_cast<float>(c);
  for (Index row = 0; row < n; ++row, x += c, y += c) {
    mean[row] = norm_row_sum(c, [&](auto at, V total) { return total + at(x); }) / channels;
    const float variance = norm_squares_about(x, mean[row], c) / channels;
    rstd[row] = 1.0F / __builtin_sqrtf(variance + eps);
    const V m = set(mean[row]), r = set(rstd[row]);
    map(y, c, [&](auto at) { return fma((at(x) - m) * r, at(weight), at(bias)); });
  }
}

inline void layer_norm_rows_backward(float* dx, const float* dy, const float* x,
                                     const float* weight, const float* mean, const float* rstd,
                                     Index n, Index c) {
  const float channels = static_cast<float>(c);
  for (Index row = 0; row < n; ++row, dx += c, dy += c, x += c) {
    const V m = set(mean[row]), r = set(rstd[row]);
    const float level =
        norm_row_sum(c, [&](auto at, V total) { return fma(at(weight), at(dy), total); });
    const float along = norm_row_sum(
        c, [&](auto at, V total) { return fma(at(weight) * at(dy), (at(x) - m) * r, total); });
    const V mean_g = set(level / channels), minus_mean = set(-(along / channels));
    map(dx, c, [&](auto at) {
      const V g = at(weight) * at(dy) - mean_g;
      return fma(r, fma(minus_mean, (at(x) - m) * r, g), at(dx));
    });
  }
}

/// Σ dy · x̂ over the rows of one chunk; mean null: RMSNorm.
inline void norm_weight_sums(float* sums, const float* dy, const float* x, const float* mean,
                             const float* rstd, Index rows, Index columns, Index stride) {
  if (mean == nullptr)
    column_chains(sums, rows, columns, [&](auto at, V a, Index row) {
      return fma(at(dy + row * stride), at(x + row * stride) * set(rstd[row]), a);
    });
  else
    column_chains(sums, rows, columns, [&](auto at, V a, Index row) {
      const V normal = (at(x + row * stride) - set(mean[row])) * set(rstd[row]);
      return fma(at(dy + row * stride), normal, a);
    });
}

inline const NormTable& norm_table() {
  static constexpr NormTable table{
      .rms_forward = rms_norm_rows,
      .rms_backward = rms_norm_rows_backward,
      .layer_forward = layer_norm_rows,
      .layer_backward = layer_norm_rows_backward,
      .weight_sums = norm_weight_sums,
  };
  return table;
}
