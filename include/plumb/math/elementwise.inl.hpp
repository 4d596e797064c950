// The functions of math/elementwise.hpp and their derivatives, per element. Included like
// elementary.inl.hpp, after it.

template <Function f>
PLUMB_FORMULA V function(V x) {
  if constexpr (f == Function::Exp) return exp(x);
  if constexpr (f == Function::Log) return log(x);
  if constexpr (f == Function::Erf) return erf(x);
  if constexpr (f == Function::Sqrt) return sqrt(x);
  if constexpr (f == Function::Sigmoid) return sigmoid(x);
  if constexpr (f == Function::Softplus) return softplus(x);
}

/// dx + f'(x) · dy.
template <Function f>
PLUMB_FORMULA V function_gradient(V dx, V dy, V x) {
  if constexpr (f == Function::Exp) return fma(dy, exp(x), dx);
  if constexpr (f == Function::Log) return dx + dy / x;
  if constexpr (f == Function::Erf)  // 2/√π · e^(-x²)
    return fma(dy, set(1.1283791671F) * exp(set(0.0F) - x * x), dx);
  if constexpr (f == Function::Sqrt) return dx + set(0.5F) * dy / sqrt(x);
  if constexpr (f == Function::Sigmoid)  // 1 - s would cancel where s is near 1
    return fma(dy, sigmoid(x) * sigmoid(set(0.0F) - x), dx);
  if constexpr (f == Function::Softplus) return fma(dy, sigmoid(x), dx);
}

/// What holds of a < b, else what holds of b < a, else of neither: equal, or NaN.
PLUMB_FORMULA V by_order(V a, V b, V if_less, V if_more, V neither) {
  return select(less(a, b), if_less, select(less(b, a), if_more, neither));
}

template <Arithmetic f>
PLUMB_FORMULA V combined(V a, V b) {
  if constexpr (f == Arithmetic::Add) return a + b;
  if constexpr (f == Arithmetic::Subtract) return a - b;
  if constexpr (f == Arithmetic::Multiply) return a * b;
  if constexpr (f == Arithmetic::Divide) return a / b;
  // Of equal numbers the second; a NaN on either side stays.
  const V neither = select(less(abs(a), set(__builtin_inff())), b, a + b);
  if constexpr (f == Arithmetic::Minimum) return by_order(a, b, a, b, neither);
  if constexpr (f == Arithmetic::Maximum) return by_order(a, b, b, a, neither);
}

/// d + dy times the derivative of f(a, b) by a, or by b. Where a minimum's or maximum's arguments
/// are equal, half for each.
template <Arithmetic f, bool kByA>
PLUMB_FORMULA V combined_gradient(V d, V dy, V a, V b) {
  if constexpr (f == Arithmetic::Add) return d + dy;
  if constexpr (f == Arithmetic::Subtract) return kByA ? d + dy : d - dy;
  if constexpr (f == Arithmetic::Multiply) return fma(dy, kByA ? b : a, d);
  if constexpr (f == Arithmetic::Divide) return kByA ? d + dy / b : d - dy / b * (a / b);
  const V nothing = set(0.0F), half = set(0.5F) * dy;
  if constexpr (f == Arithmetic::Minimum)
    return d + by_order(a, b, kByA ? dy : nothing, kByA ? nothing : dy, half);
  if constexpr (f == Arithmetic::Maximum)
    return d + by_order(a, b, kByA ? nothing : dy, kByA ? dy : nothing, half);
}

/// x within [low, high]; a NaN stays.
PLUMB_FORMULA V clamped(V x, V low, V high) { return min(high, max(low, x)); }

/// d + dy where x is within [low, high].
PLUMB_FORMULA V clamped_gradient(V d, V dy, V x, V low, V high) {
  return d + select(less(x, low), set(0.0F), select(less(high, x), set(0.0F), dy));
}
