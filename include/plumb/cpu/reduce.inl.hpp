// Bodies of reduce.hpp. Included once per instruction set.

inline float row_sum(const float* x, Index c) {
  return norm_row_sum(c, [&](auto at, V total) { return total + at(x); });
}

inline Index argmax(const float* x, Index c) {
  Lanes most = all_lanes(-__builtin_inff());
  V odd_ones = set(0.0F);  // NaN once a value was
  const auto see = [&](Index r, V v, V smallest_if_none) {
    most.v[r] = max(most.v[r], smallest_if_none);
    odd_ones = fma(min(set(1.0F), max(set(-1.0F), v)), set(0.0F), odd_ones);
  };
  for_lanes(
      c,
      [&](Index r, Index i) {
        const V v = load(x + i);
        see(r, v, v);
      },
      [&](Index r, Index i, Index left) {
        const V v = load(x + i, left);
        const Mask real = less(set(0.0F), keep(set(1.0F), left));
        see(r, v, select(real, v, set(-__builtin_inff())));
      });
  const float flag = fold_sum(odd_ones), maximum = largest(most);
  Index i = 0;
  if (flag == 0.0F)
    while (x[i] != maximum) ++i;
  else
    while (x[i] == x[i]) ++i;
  return i;
}

inline void softmax(float* y, const float* x, Index c, bool log_of_it) {
  const float maximum = head_maximum(x, c, 1.0F);
  const V top = set(maximum);
  Lanes sums = all_lanes(0.0F);
  for_lanes(
      c, [&](Index r, Index i) { sums.v[r] = sums.v[r] + exp(load(x + i) - top); },
      [&](Index r, Index i, Index left) {
        sums.v[r] = sums.v[r] + keep(exp(load(x + i, left) - top), left);
      });
  const float sum_of_exp = sum(sums);
  if (log_of_it) {
    const V lse = set(maximum + head_log(sum_of_exp));
    map(y, c, [&](auto at) { return at(x) - lse; });
  } else {
    const V all = set(sum_of_exp);
    map(y, c, [&](auto at) { return exp(at(x) - top) / all; });
  }
}

inline void softmax_backward(float* dx, const float* dy, const float* y, Index c, bool log_of_it) {
  if (log_of_it) {
    const V all = set(row_sum(dy, c));
    map(dx, c, [&](auto at) {
      return at(dx) + fma(set(0.0F) - exp(at(y)), all, at(dy));
    });
  } else {
    const V mean =
        set(norm_row_sum(c, [&](auto at, V total) { return fma(at(dy), at(y), total); }));
    map(dx, c, [&](auto at) { return fma(at(y), at(dy) - mean, at(dx)); });
  }
}

inline void logsumexp(float* y, const float* x, Index rows, Index c) {
  map(y, c, [&](auto at) {
    V most = set(-3.40282347e38F);
    for (Index i = 0; i < rows; ++i) most = max(most, at(x + i * c));
    V total = set(0.0F);
    for (Index i = 0; i < rows; ++i) total = total + exp(at(x + i * c) - most);
    return most + log(total);
  });
}

inline void logsumexp_backward(float* dx, const float* dy, const float* x, const float* y,
                               Index rows, Index c) {
  for (Index i = 0; i < rows; ++i, dx += c, x += c)
    map(dx, c, [&](auto at) {
      return fma(at(dy), exp(at(x) - not_below(-3.40282347e38F, at(y))), at(dx));
    });
}

/// y[j · y_stride + i] = x[i · x_stride + j], i < rows, j < columns.
inline void transpose_block(float* y, Index y_stride, const float* x, Index x_stride, Index rows,
                            Index columns) {
  Index i = 0;
  for (; i + kWidth <= rows; i += kWidth)
    transpose(y + i, y_stride, x + i * x_stride, x_stride, kWidth, columns);
  for (; i < rows; ++i)
    for (Index j = 0; j < columns; ++j) y[j * y_stride + i] = x[i * x_stride + j];
}

inline const ReduceTable& reduce_table() {
  static constexpr ReduceTable table{
      .row_sum = row_sum,
      .argmax = argmax,
      .softmax = softmax,
      .softmax_backward = softmax_backward,
      .logsumexp = logsumexp,
      .logsumexp_backward = logsumexp_backward,
      .transpose = transpose_block,
  };
  return table;
}
