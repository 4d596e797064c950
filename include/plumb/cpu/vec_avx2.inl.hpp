// Vectors of eight floats in AVX2 registers. Included inside namespace …::kernels::avx2.
//
// The contract, the same for every width: + - * / are the compiler's (never contracted); `fma` is
// fused; `max(a, b)` and `min(a, b)` give b when either is NaN, as the x86 instructions do; `round`
// is to nearest-even for |x| < 2^22; `scale(x, n)` is x · 2^n, rounded once, for integral n in
// [-252, 254] and x in [½, 2]; `exponent` and `mantissa` split a positive normal x = mantissa ·
// 2^exponent, mantissa in [½, 1). load/store/keep with a count touch the first n lanes only (n may
// exceed the width, or be ≤ 0); lanes not loaded or kept are zero. bf16 loads as floats. `even` and
// `odd` take every second lane of a followed by b; `interleave_low` and `interleave_high` put them
// back: the halves of a0 b0 a1 b1 …. `bf16_pairs` rounds as math/bf16.hpp says, two numbers to a
// word of 32 bits that `lower` and `upper` expand again. `fma_flushed` is that file's, where the
// environment is a `Flushed`: FlushedFloats, or NothingFlushed if it flushes by itself.

using V = __m256;
using Mask = __m256;
using Flushed = plumb::FlushedFloats;
inline constexpr Index kWidth = 8;

inline V set(float x) { return _mm256_set1_ps(x); }
inline V load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, V x) { _mm256_storeu_ps(p, x); }
inline __m256i first(Index n) {
  const int count = static_cast<int>(n < 0 ? 0 : n > kWidth ? kWidth : n);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline V load(const float* p, Index n) { return _mm256_maskload_ps(p, first(n)); }
inline void store(float* p, V x, Index n) { _mm256_maskstore_ps(p, first(n), x); }
inline V load(const plumb::bf16* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline V load(const plumb::bf16* p, Index n) {
  plumb::bf16 some[kWidth] = {};
  for (Index i = 0; i < n && i < kWidth; ++i) some[i] = p[i];
  return load(some);
}
inline V keep(V x, Index n) { return _mm256_and_ps(x, _mm256_castsi256_ps(first(n))); }
inline V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
inline V fma_flushed(V a, V b, V c) { return fma(a, b, c); }
inline V max(V a, V b) { return _mm256_max_ps(a, b); }
inline V min(V a, V b) { return _mm256_min_ps(a, b); }
inline V sqrt(V x) { return _mm256_sqrt_ps(x); }
inline V abs(V x) { return _mm256_and_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff))); }
inline V round(V x) { return (x + set(0x1.8p23F)) - set(0x1.8p23F); }
inline Mask less(V a, V b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
inline V select(Mask m, V a, V b) { return _mm256_blendv_ps(b, a, m); }
inline V power_of_two(V n) {
  const __m256i biased = _mm256_add_epi32(_mm256_cvttps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}
inline V scale(V x, V n) {  // in two steps: 2^n alone may leave the normal range
  const V half = round(n * set(0.5F));
  return (x * power_of_two(half)) * power_of_two(n - half);
}
inline V exponent(V x) {
  const __m256i biased = _mm256_srai_epi32(_mm256_castps_si256(x), 23);
  return _mm256_cvtepi32_ps(_mm256_sub_epi32(biased, _mm256_set1_epi32(126)));
}
inline V mantissa(V x) {
  const __m256i bits = _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x007fffff));
  return _mm256_castsi256_ps(_mm256_or_si256(bits, _mm256_set1_epi32(0x3f000000)));
}
inline V in_quarters_0213(V x) {
  return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(x), 0xD8));
}
inline V even(V a, V b) { return in_quarters_0213(_mm256_shuffle_ps(a, b, 0x88)); }
inline V odd(V a, V b) { return in_quarters_0213(_mm256_shuffle_ps(a, b, 0xDD)); }
inline V interleave_low(V a, V b) {
  return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x20);
}
inline V interleave_high(V a, V b) {
  return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x31);
}
inline float fold_sum(V x) {
  __m128 y = _mm256_castps256_ps128(x) + _mm256_extractf128_ps(x, 1);
  y = y + _mm_movehl_ps(y, y);
  return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}
inline float fold_max(V x) {
  __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_max_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
}
inline V lower(V words) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(words), 16));
}
inline V upper(V words) {
  const __m256i mask = _mm256_set1_epi32(static_cast<int>(0xffff0000U));
  return _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(words), mask));
}
inline __m256i upper_half(V x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd_bit = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded =
      _mm256_add_epi32(bits, _mm256_add_epi32(odd_bit, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x00400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  const __m256i small = _mm256_castps_si256(less(abs(x), set(0x1p-126F)));
  const __m256i sign = _mm256_and_si256(bits, _mm256_set1_epi32(static_cast<int>(0x80000000U)));
  const __m256i kept = _mm256_blendv_epi8(rounded, quiet, nan);
  return _mm256_srli_epi32(_mm256_blendv_epi8(kept, sign, small), 16);
}
inline V bf16_pairs(V low, V high) {
  return _mm256_castsi256_ps(
      _mm256_or_si256(upper_half(low), _mm256_slli_epi32(upper_half(high), 16)));
}
