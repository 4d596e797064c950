// Bodies of optimizer.hpp. Included once per instruction set.

inline void adamw(float* parameter, const float* grad, float* m, float* v, Index n,
                  const AdamWScalars& scalars) {
  const auto step = [&](auto at, auto put) {
    const V g = at(grad) * set(scalars.grad_scale);
    const V p = fma(at(parameter), set(scalars.minus_decay), at(parameter));
    const V m_old = at(m);
    const V m_new = fma(set(scalars.one_minus_beta1), g - m_old, m_old);
    const V v_new = fma(set(scalars.one_minus_beta2) * g, g, set(scalars.beta2) * at(v));
    const V root = fma(sqrt(v_new), set(scalars.root_scale), set(scalars.eps));
    put(m, m_new);
    put(v, v_new);
    put(parameter, fma(set(scalars.minus_step_size), m_new / root, p));
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
