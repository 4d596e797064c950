// Bodies of elementwise.hpp. Included once per instruction set.

inline void accumulate(float* y, const float* x, float factor, Index n) {
  map(y, n, [&](auto at) { return fma(set(factor), at(x), at(y)); });
}
inline void scale(float* y, const float* x, float factor, Index n) {
  map(y, n, [&](auto at) { return set(factor) * at(x); });
}
inline void shift(float* y, const float* x, float term, Index n) {
  map(y, n, [&](auto at) { return at(x) + set(term); });
}
inline void clamp_forward(float* y, const float* x, float low, float high, Index n) {
  map(y, n, [&](auto at) { return clamped(at(x), set(low), set(high)); });
}
inline void clamp_backward(float* dx, const float* dy, const float* x, float low, float high,
                           Index n) {
  map(dx, n, [&](auto at) {
    return clamped_gradient(at(dx), at(dy), at(x), set(low), set(high));
  });
}

/// Calls body.template operator()<f>() with what is chosen at run time as a constant.
template <class Body>
inline void with_constant(Arithmetic f, Body body) {
  switch (f) {
    case Arithmetic::Add: return body.template operator()<Arithmetic::Add>();
    case Arithmetic::Subtract: return body.template operator()<Arithmetic::Subtract>();
    case Arithmetic::Multiply: return body.template operator()<Arithmetic::Multiply>();
    case Arithmetic::Divide: return body.template operator()<Arithmetic::Divide>();
    case Arithmetic::Minimum: return body.template operator()<Arithmetic::Minimum>();
    case Arithmetic::Maximum: return body.template operator()<Arithmetic::Maximum>();
  }
}
template <class Body>
inline void with_constant(Function f, Body body) {
  switch (f) {
    case Function::Exp: return body.template operator()<Function::Exp>();
    case Function::Log: return body.template operator()<Function::Log>();
    case Function::Erf: return body.template operator()<Function::Erf>();
    case Function::Sqrt: return body.template operator()<Function::Sqrt>();
    case Function::Sigmoid: return body.template operator()<Function::Sigmoid>();
    case Function::Softplus: return body.template operator()<Function::Softplus>();
  }
}

inline void combine_forward(float* y, const float* a, const float* b, Arithmetic f, Index n) {
  with_constant(f, [=]<Arithmetic kF>() {
    map(y, n, [=](auto at) { return combined<kF>(at(a), at(b)); });
  });
}
inline void combine_backward(float* d, const float* dy, const float* a, const float* b,
                             Arithmetic f, bool by_a, Index n) {
  with_constant(f, [=]<Arithmetic kF>() {
    if (by_a)
      map(d, n, [=](auto at) { return combined_gradient<kF, true>(at(d), at(dy), at(a), at(b)); });
    else
      map(d, n, [=](auto at) { return combined_gradient<kF, false>(at(d), at(dy), at(a), at(b)); });
  });
}

inline void function_forward(float* y, const float* x, Function f, Index n) {
  with_constant(f, [=]<Function kF>() { map(y, n, [=](auto at) { return function<kF>(at(x)); }); });
}
inline void function_backward(float* dx, const float* dy, const float* x, Function f, Index n) {
  with_constant(f, [=]<Function kF>() {
    map(dx, n, [=](auto at) { return function_gradient<kF>(at(dx), at(dy), at(x)); });
  });
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
  update(n, [&](auto at, auto put) {
    const V g = at(gate);
    const V s = sigmoid(g);
    const V d = at(dy);
    put(dgate, fma(d * at(up), s * fma(g, set(1.0F) - s, set(1.0F)), at(dgate)));
    put(dup, fma(d, g * s, at(dup)));
  });
}

inline const ElementwiseTable& elementwise_table() {
  static constexpr ElementwiseTable table{
      .accumulate = accumulate,
      .scale = scale,
      .shift = shift,
      .clamp_forward = clamp_forward,
      .clamp_backward = clamp_backward,
      .combine_forward = combine_forward,
      .combine_backward = combine_backward,
      .function_forward = function_forward,
      .function_backward = function_backward,
      .activation_forward = activation_forward,
      .activation_backward = activation_backward,
      .swiglu_forward = swiglu_forward,
      .swiglu_backward = swiglu_backward,
  };
  return table;
}
