// Bodies of probe.hpp's loops. Included once per instruction set, after its vec_*.inl.hpp.

// Independent chains: enough to hide a latency of 4 cycles at two operations a cycle, few enough
// for AVX2's 16 registers.
inline constexpr Index kChains = 12;

/// x = x · factor + addend, `steps` times in each of kChains vectors.
inline float probe_fma(Index steps, float factor, float addend) {
  V acc[kChains];
  PLUMB_UNROLL for (Index r = 0; r < kChains; ++r) acc[r] = set(static_cast<float>(r));
  const V f = set(factor), a = set(addend);
  for (Index i = 0; i < steps; ++i)
    PLUMB_UNROLL for (Index r = 0; r < kChains; ++r) acc[r] = fma(acc[r], f, a);
  V total = acc[0];
  PLUMB_UNROLL for (Index r = 1; r < kChains; ++r) total = total + acc[r];
  return fold_sum(total);
}

#ifdef PLUMB_DOT
/// The same of vdpbf16ps: x = x + two products, of words of two bf16.
inline float probe_dot(Index steps, float a, float b) {
  V acc[kChains];
  PLUMB_UNROLL for (Index r = 0; r < kChains; ++r) acc[r] = set(static_cast<float>(r));
  const V x = set(a), y = set(b);
  for (Index i = 0; i < steps; ++i)
    PLUMB_UNROLL for (Index r = 0; r < kChains; ++r) acc[r] = dot(x, y, acc[r]);
  V total = acc[0];
  PLUMB_UNROLL for (Index r = 1; r < kChains; ++r) total = total + acc[r];
  return fold_sum(total);
}
#endif

/// Σ x, n elements, a multiple of 8 vectors.
inline float probe_read(const float* x, Index n) {
  V acc[8];
  PLUMB_UNROLL for (Index r = 0; r < 8; ++r) acc[r] = set(0.0F);
  for (Index i = 0; i < n; i += 8 * kWidth)
    PLUMB_UNROLL for (Index r = 0; r < 8; ++r) acc[r] = acc[r] + load(x + i + r * kWidth);
  V total = acc[0];
  PLUMB_UNROLL for (Index r = 1; r < 8; ++r) total = total + acc[r];
  return fold_sum(total);
}

/// AdamW's traffic, next to no arithmetic: three arrays of n elements updated in place, one read.
inline void probe_update(float* p, float* m, float* v, const float* g, Index n) {
  for (Index i = 0; i < n; i += kWidth) {
    const V x = load(g + i);
    store(p + i, load(p + i) + x);
    store(m + i, load(m + i) + x);
    store(v + i, load(v + i) + x);
  }
}

inline const Loops& loops() {
  static constexpr Loops table{.width = kWidth,
                               .chains = kChains,
                               .fma = probe_fma,
#ifdef PLUMB_DOT
                               .dot = probe_dot,
#else
                               .dot = nullptr,
#endif
                               .read = probe_read,
                               .update = probe_update};
  return table;
}
