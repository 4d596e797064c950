// Bodies of elementwise.hpp. Included once per instruction set.

/// y[i] = f(i-th vector): `f(load)` is given a loader so that one expression serves whole vectors
/// and the tail.
template <class F>
inline void map(float* y, Index n, F f) {
  for_vectors(
      n, [&](Index i) { store(y + i, f([i](const float* p) { return load(p + i); })); },
      [&](Index i, Index left) {
        store(y + i, f([i, left](const float* p) { return load(p + i, left); }), left);
      });
}

inline void add(float* y, const float* a, const float* b, Index n) {
  map(y, n, [&](auto at) { return at(a) + at(b); });
}
inline void accumulate(float* y, const float* x, float factor, Index n) {
  map(y, n, [&](auto at) { return fma(set(factor), at(x), at(y)); });
}
inline void multiply(float* y, const float* a, const float* b, Index n) {
  map(y, n, [&](auto at) { return at(a) * at(b); });
}
inline void multiply_accumulate(float* y, const float* a, const float* b, Index n) {
  map(y, n, [&](auto at) { return fma(at(a), at(b), at(y)); });
}
inline void scale(float* y, const float* x, float factor, Index n) {
  map(y, n, [&](auto at) { return set(factor) * at(x); });
}

inline void activation_forward(float* y, const float* x, Activation f, Index n) {
  switch (f) {
    case Activation::Gelu: return map(y, n, [&](auto at) { return gelu(at(x)); });
    case Activation::Silu: return map(y, n, [&](auto at) { return silu(at(x)); });
    case Activation::Tanh: return map(y, n, [&](auto at) { return tanh(at(x)); });
    case Activation::Relu: return map(y, n, [&](auto at) { return relu(at(x)); });
    case Activation::GeluErf: return map(y, n, [&](auto at) { return gelu_erf(at(x)); });
  }
}

inline void activation_backward(float* dx, const float* dy, const float* x, Activation f, Index n) {
  switch (f) {
    case Activation::Gelu:
      return map(dx, n, [&](auto at) { return fma(at(dy), gelu_derivative(at(x)), at(dx)); });
    case Activation::Silu:
      return map(dx, n, [&](auto at) { return fma(at(dy), silu_derivative(at(x)), at(dx)); });
    case Activation::Tanh:
      return map(dx, n, [&](auto at) {
        const V t = tanh(at(x));
        return fma(at(dy), fma(set(0.0F) - t, t, set(1.0F)), at(dx));
      });
    case Activation::Relu:
      return map(dx, n, [&](auto at) {
        return at(dx) + select(less(set(0.0F), at(x)), at(dy), set(0.0F));
      });
    case Activation::GeluErf:
      return map(dx, n, [&](auto at) { return fma(at(dy), gelu_erf_derivative(at(x)), at(dx)); });
  }
}

inline void swiglu_forward(float* y, const float* gate, const float* up, Index n) {
  map(y, n, [&](auto at) { return silu(at(gate)) * at(up); });
}

inline void swiglu_backward(float* dgate, float* dup, const float* dy, const float* gate,
                            const float* up, Index n) {
  const auto step = [&](auto at, auto put) {
    const V g = at(gate);
    const V s = sigmoid(g);
    const V d = at(dy);
    put(dgate, fma(d * at(up), s * fma(g, set(1.0F) - s, set(1.0F)), at(dgate)));
    put(dup, fma(d, g * s, at(dup)));
  };
  for_vectors(
      n,
      [&](Index i) {
        step([i](const float* p) { return load(p + i); }, [i](float* p, V v) { store(p + i, v); });
      },
      [&](Index i, Index left) {
        step([i, left](const float* p) { return load(p + i, left); },
             [i, left](float* p, V v) { store(p + i, v, left); });
      });
}

inline void exp_rows(float* y, const float* x, Index n) {
  map(y, n, [&](auto at) { return exp(at(x)); });
}
inline void log_rows(float* y, const float* x, Index n) {
  map(y, n, [&](auto at) { return log(at(x)); });
}
inline void erf_rows(float* y, const float* x, Index n) {
  map(y, n, [&](auto at) { return erf(at(x)); });
}

inline const ElementwiseTable& elementwise_table() {
  static constexpr ElementwiseTable table{
      .add = add,
      .accumulate = accumulate,
      .multiply = multiply,
      .multiply_accumulate = multiply_accumulate,
      .scale = scale,
      .activation_forward = activation_forward,
      .activation_backward = activation_backward,
      .swiglu_forward = swiglu_forward,
      .swiglu_backward = swiglu_backward,
      .exp = exp_rows,
      .log = log_rows,
      .erf = erf_rows,
  };
  return table;
}
