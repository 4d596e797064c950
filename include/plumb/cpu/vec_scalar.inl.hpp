// Vectors of one lane: the portable kernels, and the reference for the bits of the wider ones.
// Included inside namespace …::kernels::scalar. See vec_avx2.inl.hpp for the contract.

using V = float;
using Mask = bool;
using Flushed = plumb::NothingFlushed;
inline constexpr Index kWidth = 1;

inline V set(float x) { return x; }
inline V load(const float* p) { return *p; }
inline void store(float* p, V x) { *p = x; }
inline V load(const float* p, Index n) { return n > 0 ? *p : 0.0F; }
inline void store(float* p, V x, Index n) {
  if (n > 0) *p = x;
}
inline V load(const plumb::bf16* p) { return static_cast<float>(*p); }
inline V load(const plumb::bf16* p, Index n) { return n > 0 ? load(p) : 0.0F; }
inline V keep(V x, Index n) { return n > 0 ? x : 0.0F; }
inline V fma(V a, V b, V c) { return __builtin_fmaf(a, b, c); }
inline V fma_flushed(V a, V b, V c) { return plumb::fma_flushed(a, b, c); }
inline V max(V a, V b) { return a > b ? a : b; }
inline V min(V a, V b) { return a < b ? a : b; }
inline V sqrt(V x) { return __builtin_sqrtf(x); }
inline V abs(V x) { return __builtin_fabsf(x); }
inline V round(V x) { return (x + 0x1.8p23F) - 0x1.8p23F; }
inline Mask less(V a, V b) { return a < b; }
inline V select(Mask m, V a, V b) { return m ? a : b; }
inline V power_of_two(V n) {
  return __builtin_bit_cast(float, (static_cast<std::int32_t>(n) + 127) << 23);
}
inline V scale(V x, V n) {
  const V half = round(n * 0.5F);
  return (x * power_of_two(half)) * power_of_two(n - half);
}
inline V exponent(V x) {
  return static_cast<float>((__builtin_bit_cast(std::int32_t, x) >> 23) - 126);
}
inline V mantissa(V x) {
  return __builtin_bit_cast(float, (__builtin_bit_cast(std::int32_t, x) & 0x007fffff) | 0x3f000000);
}
inline V even(V a, V) { return a; }
inline V odd(V, V b) { return b; }
inline V interleave_low(V a, V) { return a; }
inline V interleave_high(V, V b) { return b; }
inline float fold_sum(V x) { return x; }
inline float fold_max(V x) { return x; }
inline V lower(V words) {
  return __builtin_bit_cast(float, __builtin_bit_cast(std::uint32_t, words) << 16);
}
inline V upper(V words) {
  return __builtin_bit_cast(float, __builtin_bit_cast(std::uint32_t, words) & 0xffff0000U);
}
inline V bf16_pairs(V low, V high) {
  return __builtin_bit_cast(float, std::uint32_t{plumb::product_bf16(low).bits} |
                                       std::uint32_t{plumb::product_bf16(high).bits} << 16);
}
