// Activations and their derivatives, per element. Included like elementary.inl.hpp, after it.

/// GELU in the tanh form of GPT-2: x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³))).
inline V gelu(V x) {
  const V inner = set(0.7978845608F) * fma(set(0.044715F) * x * x, x, x);
  return set(0.5F) * x * (set(1.0F) + tanh(inner));
}

inline V gelu_derivative(V x) {
  const V square = x * x;
  const V inner = set(0.7978845608F) * fma(set(0.044715F) * square, x, x);
  const V t = tanh(inner);
  const V slope = set(0.7978845608F) * fma(set(0.134145F), square, set(1.0F));
  const V sech2 = fma(set(0.0F) - t, t, set(1.0F));
  return fma(set(0.5F) * x * sech2, slope, set(0.5F) * (set(1.0F) + t));
}

/// SiLU (swish): x · sigmoid(x).
inline V silu(V x) { return x * sigmoid(x); }

inline V silu_derivative(V x) {
  const V s = sigmoid(x);
  return s * fma(x, set(1.0F) - s, set(1.0F));
}

inline V relu(V x) { return max(set(0.0F), x); }  // NaN stays NaN: max gives its second argument
