// Vectors of four floats in NEON registers, which every 64-bit ARM processor has. Included inside
// namespace …::kernels::neon. See vec_avx2.inl.hpp for the contract.
//
// Flushing is done by hand: ARM's own mode takes a result for too small before it is rounded, and
// so makes a zero of some that x86, a GPU and math/bf16.hpp round up to the least normal number.

using V = float32x4_t;
using Mask = uint32x4_t;
using Flushed = plumb::NothingFlushed;
inline constexpr Index kWidth = 4;

inline V set(float x) { return vdupq_n_f32(x); }
inline V load(const float* p) { return vld1q_f32(p); }
inline void store(float* p, V x) { vst1q_f32(p, x); }
inline Mask first(Index n) {
  const std::int32_t places[kWidth] = {0, 1, 2, 3};
  const auto count = static_cast<std::int32_t>(n < 0 ? 0 : n > kWidth ? kWidth : n);
  return vcltq_s32(vld1q_s32(places), vdupq_n_s32(count));
}
inline V load(const float* p, Index n) {
  if (n >= kWidth) return load(p);
  float some[kWidth] = {};
  for (Index i = 0; i < n; ++i) some[i] = p[i];
  return load(some);
}
inline void store(float* p, V x, Index n) {
  if (n >= kWidth) return store(p, x);
  float some[kWidth];
  store(some, x);
  for (Index i = 0; i < n; ++i) p[i] = some[i];
}
inline V load(const plumb::bf16* p) {
  const uint16x4_t bits = vld1_u16(reinterpret_cast<const std::uint16_t*>(p));
  return vreinterpretq_f32_u32(vshll_n_u16(bits, 16));
}
inline V load(const plumb::bf16* p, Index n) {
  plumb::bf16 some[kWidth] = {};
  for (Index i = 0; i < n && i < kWidth; ++i) some[i] = p[i];
  return load(some);
}
inline V select(Mask m, V a, V b) { return vbslq_f32(m, a, b); }
inline V keep(V x, Index n) { return select(first(n), x, set(0.0F)); }
inline V fma(V a, V b, V c) { return vfmaq_f32(c, a, b); }
inline V max(V a, V b) { return select(vcgtq_f32(a, b), a, b); }
inline V min(V a, V b) { return select(vcltq_f32(a, b), a, b); }
inline V sqrt(V x) { return vsqrtq_f32(x); }
inline V abs(V x) { return vabsq_f32(x); }
inline V round(V x) { return (x + set(0x1.8p23F)) - set(0x1.8p23F); }
inline Mask less(V a, V b) { return vcltq_f32(a, b); }
inline V power_of_two(V n) {
  const int32x4_t biased = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
  return vreinterpretq_f32_s32(vshlq_n_s32(biased, 23));
}
inline V scale(V x, V n) {  // in two steps: 2^n alone may leave the normal range
  const V half = round(n * set(0.5F));
  return (x * power_of_two(half)) * power_of_two(n - half);
}
inline V exponent(V x) {
  const int32x4_t biased = vshrq_n_s32(vreinterpretq_s32_f32(x), 23);
  return vcvtq_f32_s32(vsubq_s32(biased, vdupq_n_s32(126)));
}
inline V mantissa(V x) {
  const uint32x4_t bits = vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0x007fffff));
  return vreinterpretq_f32_u32(vorrq_u32(bits, vdupq_n_u32(0x3f000000)));
}
inline V even(V a, V b) { return vuzp1q_f32(a, b); }
inline V odd(V a, V b) { return vuzp2q_f32(a, b); }
inline V interleave_low(V a, V b) { return vzip1q_f32(a, b); }
inline V interleave_high(V a, V b) { return vzip2q_f32(a, b); }
inline float fold_sum(V x) {
  const float32x2_t y = vget_low_f32(x) + vget_high_f32(x);
  return vget_lane_f32(y, 0) + vget_lane_f32(y, 1);
}
inline float fold_max(V x) {
  const float32x2_t low = vget_low_f32(x), high = vget_high_f32(x);
  const float32x2_t y = vbsl_f32(vcgt_f32(low, high), low, high);
  const float a = vget_lane_f32(y, 0), b = vget_lane_f32(y, 1);
  return a > b ? a : b;
}
inline V fma_flushed(V a, V b, V c) {
  const V y = fma(a, b, c), least = set(0x1p-126F);
  const Mask small = vcleq_f32(abs(y), least);  // false for NaN
  if (vmaxvq_u32(small) == 0) return y;
  // The least normal number itself may have been rounded up to: see math/bf16.hpp.
  const V up = set(0x1p64F);
  const Mask whole = vandq_u32(vceqq_f32(abs(y), least),
                               vcgeq_f32(abs(fma(a * up, b, c * up)), set(0x1p-62F)));
  const uint32x4_t sign = vandq_u32(vreinterpretq_u32_f32(y), vdupq_n_u32(0x80000000U));
  return select(vbicq_u32(small, whole), vreinterpretq_f32_u32(sign), y);
}
inline V lower(V words) {
  return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(words), 16));
}
inline V upper(V words) {
  return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(words), vdupq_n_u32(0xffff0000U)));
}
inline uint32x4_t upper_half(V x) {
  const uint32x4_t bits = vreinterpretq_u32_f32(x);
  const uint32x4_t odd_bit = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd_bit, vdupq_n_u32(0x7fff)));
  const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x00400000));
  const uint32x4_t sign = vandq_u32(bits, vdupq_n_u32(0x80000000U));
  const uint32x4_t kept = vbslq_u32(vceqq_f32(x, x), rounded, quiet);
  return vshrq_n_u32(vbslq_u32(less(abs(x), set(0x1p-126F)), sign, kept), 16);
}
inline V bf16_pairs(V low, V high) {
  return vreinterpretq_f32_u32(vorrq_u32(upper_half(low), vshlq_n_u32(upper_half(high), 16)));
}
