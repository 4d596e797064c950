// Bodies of optimizer.hpp. Included once per instruction set.

inline void adamw(float* parameter, const float* grad, float* m, float* v, Index n,
                  const AdamWScalars& scalars) {
  update(n, [&](auto at, auto put) {
    const AdamWElement next = adamw_element({at(parameter), at(m), at(v)}, at(grad), scalars);
    put(m, next.m);
    put(v, next.v);
    put(parameter, next.parameter);
  });
}

template <class Element>
inline void momentum_rows(float* parameter, const float* grad, float* m, Index n, Element element) {
  update(n, [&](auto at, auto put) {
    const MomentumElement next = element({at(parameter), at(m)}, at(grad));
    put(m, next.m);
    put(parameter, next.parameter);
  });
}
inline void sgd(float* parameter, const float* grad, float* m, Index n, const SgdStep& step) {
  momentum_rows(parameter, grad, m, n,
                [&](MomentumElement old, V g) { return sgd_element(old, g, step); });
}
inline void lion(float* parameter, const float* grad, float* m, Index n, const LionStep& step) {
  momentum_rows(parameter, grad, m, n,
                [&](MomentumElement old, V g) { return lion_element(old, g, step); });
}

inline float sum_squares(const float* x, Index n) {
  return norm_row_sum(n, [&](auto at, V total) {
    const V v = at(x);
    return fma(v, v, total);
  });
}

inline const OptimizerTable& optimizer_table() {
  static constexpr OptimizerTable table{
      .adamw = adamw, .sgd = sgd, .lion = lion, .squares = sum_squares};
  return table;
}
