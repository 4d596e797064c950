// Activations and their derivatives, per element. Included like elementary.inl.hpp, after it.

/// GELU in the tanh form of GPT-2: x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³))), which is x · sigmoid
/// of twice that argument: shorter, and no sum cancels where x < 0.
PLUMB_FORMULA V gelu(V x) {
  return x * sigmoid(set(1.5957691216F) * fma(set(0.044715F) * x * x, x, x));
}

PLUMB_FORMULA V gelu_derivative(V x) {
  x = min(set(30.0F), max(set(-30.0F), x));  // beyond, it is 0 or 1
  const V square = x * x;
  const V u = set(1.5957691216F) * fma(set(0.044715F) * square, x, x);
  const V e = exp(set(0.0F) - u);
  const V s = set(1.0F) / (set(1.0F) + e);
  const V rest = select(less(e, set(__builtin_inff())), e * s, set(1.0F));  // 1 - s, unrounded
  const V slope = set(1.5957691216F) * fma(set(0.134145F), square, set(1.0F));
  return s * fma(x * rest, slope, set(1.0F));
}

/// GELU itself, x · Φ(x) = x/2 · (1 + erf(x/√2)), to 1.5e-7 of itself for x > 0. Where x < 0 the
/// sum cancels, and the error is up to 9e-8 whatever the result, which is -0 below -5.5.
PLUMB_FORMULA V gelu_erf(V x) {
  return set(0.5F) * x * (set(1.0F) + erf(set(0.70710678118654752F) * x));
}

PLUMB_FORMULA V gelu_erf_derivative(V x) {  // Φ(x) + x φ(x)
  const V density = set(0.39894228040143268F) * exp(set(-0.5F) * x * x);
  const V cumulative = set(0.5F) * (set(1.0F) + erf(set(0.70710678118654752F) * x));
  return fma(x, density, cumulative);
}

/// SiLU (swish): x · sigmoid(x).
PLUMB_FORMULA V silu(V x) { return x * sigmoid(x); }

PLUMB_FORMULA V silu_derivative(V x) {
  const V s = sigmoid(x);
  return s * fma(x, set(1.0F) - s, set(1.0F));
}

PLUMB_FORMULA V relu(V x) {
  return max(set(0.0F), x);
}  // NaN stays NaN: max gives its second argument
