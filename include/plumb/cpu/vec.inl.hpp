// What all widths share: walking a row in 32 strided lanes, and the butterfly that ends a
// reduction. Included inside each instruction set's namespace, after its vec_*.inl.hpp.
//
// Canonical row reduction: lane l takes elements l, l + 32, l + 64, … in order; then lanes 16 apart
// are combined, then 8, 4, 2, 1. That is one warp of a GPU, two AVX-512 registers, four AVX2 ones.

inline constexpr Index kLanes = 32;
inline constexpr Index kRegisters = kLanes / kWidth;

/// 32 running values of a reduction.
struct Lanes {
  V v[kRegisters];
};

inline Lanes all_lanes(float x) {
  Lanes lanes;
  PLUMB_UNROLL for (Index r = 0; r < kRegisters; ++r) lanes.v[r] = set(x);
  return lanes;
}

/// Calls body(r, i) on whole vectors and tail(r, i, n) on the last, partial one (n lanes), where
/// element i sits in lane register r.
template <class Body, class Tail>
inline void for_lanes(Index n, Body body, Tail tail) {
  Index i = 0;
  for (; i + kLanes <= n; i += kLanes)
    PLUMB_UNROLL_LANES for (Index r = 0; r < kRegisters; ++r) body(r, i + r * kWidth);
  PLUMB_UNROLL_LANES for (Index r = 0; r < kRegisters; ++r) {
    const Index at = i + r * kWidth;
    if (n - at >= kWidth)
      body(r, at);
    else if (n > at)
      tail(r, at, n - at);
  }
}

/// Calls body(i) on whole vectors and tail(i, n) on the last, partial one.
template <class Body, class Tail>
inline void for_vectors(Index n, Body body, Tail tail) {
  Index i = 0;
  for (; i + kWidth <= n; i += kWidth) body(i);
  if (i < n) tail(i, n - i);
}

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

/// The same for several results: `step(at, put)` stores each, put(p, v) storing a vector at p.
template <class Step>
inline void update(Index n, Step step) {
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

inline float sum(const Lanes& lanes) {
  Lanes x = lanes;
  PLUMB_UNROLL for (Index apart = kRegisters / 2; apart > 0; apart /= 2)
    PLUMB_UNROLL for (Index r = 0; r < apart; ++r) x.v[r] = x.v[r] + x.v[r + apart];
  // + 0: a masked tail turns a lane's -0 into +0 on wide registers only; so the sum's -0 always.
  return fold_sum(x.v[0]) + 0.0F;
}
inline float largest(const Lanes& lanes) {
  Lanes x = lanes;
  PLUMB_UNROLL for (Index apart = kRegisters / 2; apart > 0; apart /= 2)
    PLUMB_UNROLL for (Index r = 0; r < apart; ++r) x.v[r] = max(x.v[r], x.v[r + apart]);
  return fold_max(x.v[0]);
}

/// to[c · to_stride + r] = from[r · from_stride + c] for kWidth values of r, those from `rows` on
/// being zeros, and all c < columns.
inline void transpose(float* to, Index to_stride, const float* from, Index from_stride, Index rows,
                      Index columns) {
  for (Index c = 0; c < columns; c += kWidth) {
    const Index count = columns - c < kWidth ? columns - c : kWidth;
    V x[kWidth];
    V y[kWidth];
    PLUMB_UNROLL for (Index r = 0; r < kWidth; ++r)
      x[r] = r >= rows ? set(0.0F)
             : count == kWidth ? load(from + r * from_stride + c)
                               : load(from + r * from_stride + c, count);
    // A perfect shuffle of all the elements, log2(kWidth) times, is a transposition.
    PLUMB_UNROLL for (Index apart = 1; apart < kWidth; apart *= 2) {
      PLUMB_UNROLL for (Index r = 0; r < kWidth / 2; ++r) {
        y[2 * r] = interleave_low(x[r], x[r + kWidth / 2]);
        y[2 * r + 1] = interleave_high(x[r], x[r + kWidth / 2]);
      }
      PLUMB_UNROLL for (Index r = 0; r < kWidth; ++r) x[r] = y[r];
    }
    PLUMB_UNROLL for (Index r = 0; r < kWidth; ++r)
      if (r < count) store(to + (c + r) * to_stride, x[r]);
  }
}
