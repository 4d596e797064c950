// Bodies of optimizer.hpp. Included once per instruction set.

inline void adamw(float* parameter, const float* grad, float* m, float* v, Index n,
                  const AdamWScalars& scalars) {
  const auto step = [&](auto at, auto put) {
    const AdamWElement next = adamw_element({at(parameter), at(m), at(v)}, at(grad), scalars);
    put(m, next.m);
    put(v, next.v);
    put(parameter, next.parameter);
  };
  for_vectors(
      n,
      [&](Index i) {
        step([i](const float* p) { return load(p + i); }, [i](float* p, V x) { store(p + i, x); });
      },
      [&](Index i, Index left) {
        step([i, left](const float* p) { return load(p + i, left); },
             [i, left](float* p, V x) { store(p + i, x, left); });
      });
}

inline float sum_squares(const float* x, Index n) {
  return norm_row_sum(n, [&](auto at, V total) {
    const V v = at(x);
    return fma(v, v, total);
  });
}

inline const OptimizerTable& optimizer_table() {
  static constexpr OptimizerTable table{.adamw = adamw, .squares = sum_squares};
  return table;
}
