// exp, log, tanh and what the losses build from them: one polynomial each, with explicit fma, so
// that every instruction set and device computes the same bits. Included inside the namespace of
// each backend, after its vector type V and the functions fma, max, min, abs, round, select, less,
// scale, exponent and mantissa; with V = float it is the scalar version. PLUMB_FORMULA is `inline`
// there, and on a GPU `__device__ inline`. Coefficients: Cephes
// (Moshier, netlib.org/cephes, expf logf tanhf); erf's are fitted here. Not here: anything
// correctly rounded; the largest errors stated are those over all floats
// (tests/test_elementary.cpp).

/// e^x, to 1.02 ulp. Overflows to infinity above 88.73, underflows gradually to zero below -87.34.
[[gnu::always_inline]] PLUMB_FORMULA V exp(V x) {
  x = min(set(89.0F), max(set(-104.0F), x));
  const V n = round(x * set(1.44269504088896341F));
  V r = fma(n, set(-0.693359375F), x);
  r = fma(n, set(2.12194440e-4F), r);
  V p = set(1.9875691500e-4F);
  p = fma(p, r, set(1.3981999507e-3F));
  p = fma(p, r, set(8.3334519073e-3F));
  p = fma(p, r, set(4.1665795894e-2F));
  p = fma(p, r, set(1.6666665459e-1F));
  p = fma(p, r, set(5.0000001201e-1F));
  return scale(fma(p, r * r, r) + set(1.0F), n);
}

/// x, or a finite number where x is -infinity, so that a weight of 0 times it is 0. NaN stays.
[[gnu::always_inline]] PLUMB_FORMULA V not_below(float lowest, V x) { return max(set(lowest), x); }

/// Natural logarithm, to 0.83 ulp. log(0) is -infinity, of a negative number NaN.
PLUMB_FORMULA V log(V x) {
  const Mask tiny = less(x, set(0x1p-126F));
  const V scaled = select(tiny, x * set(0x1p23F), x);
  V e = exponent(scaled) - select(tiny, set(23.0F), set(0.0F));
  V m = mantissa(scaled);
  const Mask low = less(m, set(0.70710678F));
  e = e - select(low, set(1.0F), set(0.0F));
  m = (select(low, m, set(0.0F)) + m) - set(1.0F);
  const V z = m * m;
  V p = set(7.0376836292e-2F);
  p = fma(p, m, set(-1.1514610310e-1F));
  p = fma(p, m, set(1.1676998740e-1F));
  p = fma(p, m, set(-1.2420140846e-1F));
  p = fma(p, m, set(1.4249322787e-1F));
  p = fma(p, m, set(-1.6668057665e-1F));
  p = fma(p, m, set(2.0000714765e-1F));
  p = fma(p, m, set(-2.4999993993e-1F));
  p = fma(p, m, set(3.3333331174e-1F));
  p = p * m * z;
  p = fma(e, set(-2.12194440e-4F), p);
  p = fma(z, set(-0.5F), p);
  V y = fma(e, set(0.693359375F), m + p);
  const V infinity = set(__builtin_inff());
  y = select(less(x, infinity), y, x);  // log(inf) = inf, log(NaN) = NaN
  y = select(less(x, set(0.0F)), set(__builtin_nanf("")), y);
  const Mask positive = less(set(0.0F), abs(x));
  return select(positive, y, select(less(abs(x), infinity), set(0.0F) - infinity, y));
}

/// Hyperbolic tangent, to 1.34 ulp.
PLUMB_FORMULA V tanh(V x) {
  const V a = abs(x);
  const V z = x * x;
  V p = set(-5.70498872745e-3F);
  p = fma(p, z, set(2.06390887954e-2F));
  p = fma(p, z, set(-5.37397155531e-2F));
  p = fma(p, z, set(1.33314422036e-1F));
  p = fma(p, z, set(-3.33332819422e-1F));
  const V small = fma(p * z, x, x);
  const V far = set(1.0F) - set(2.0F) / (exp(a + a) + set(1.0F));
  const V large = select(less(x, set(0.0F)), set(0.0F) - far, far);
  return select(less(a, set(0.625F)), small, large);
}

/// Error function 2/√π ∫₀ˣ e^(-t²) dt, to 1.06 ulp. Two minimax fits of our own: of erf(x)/x - 1 in
/// x² over [0, 0.875], and of -log(1 - erf(x))/x - 1 in x over [0.875, 4], where erf rounds to 1.
PLUMB_FORMULA V erf(V x) {
  const V z = x * x;
  V p = set(-6.203323137e-4F);
  p = fma(p, z, set(5.032193847e-3F));
  p = fma(p, z, set(-2.679147013e-2F));
  p = fma(p, z, set(1.128245518e-1F));
  p = fma(p, z, set(-3.761255145e-1F));
  p = fma(p, z, set(1.283791661e-1F));
  const V small = fma(p, x, x);
  const V a = min(set(4.0F), abs(x));
  V q = set(-2.152217057e-4F);
  q = fma(q, a, set(3.225098830e-3F));
  q = fma(q, a, set(-2.292231098e-2F));
  q = fma(q, a, set(1.053119898e-1F));
  q = fma(q, a, set(6.356804967e-1F));
  q = fma(q, a, set(1.285254657e-1F));
  const V far = set(1.0F) - exp(set(0.0F) - fma(q, a, a));
  const V large = select(less(x, set(0.0F)), set(0.0F) - far, far);
  return select(less(a, set(0.875F)), small, large);
}

/// 1 / (1 + e^-x).
PLUMB_FORMULA V sigmoid(V x) { return set(1.0F) / (set(1.0F) + exp(set(0.0F) - x)); }

/// log(1 + x) for x ≥ 0, accurate for small x (the rounding of 1 + x is put back).
PLUMB_FORMULA V log1p(V x) {
  const V u = set(1.0F) + x;
  const V lost = x - (u - set(1.0F));
  return select(less(u, set(__builtin_inff())), log(u) + lost / u, u);
}

/// log(1 + e^x), never overflowing.
PLUMB_FORMULA V softplus(V x) { return max(set(0.0F), x) + log1p(exp(set(0.0F) - abs(x))); }
