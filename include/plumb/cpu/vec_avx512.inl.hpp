// Vectors of sixteen floats in AVX-512 registers. Included inside namespace …::kernels::avx512.
// See vec_avx2.inl.hpp for the contract.

using V = __m512;
using Mask = __mmask16;
using Flushed = plumb::FlushedFloats;
inline constexpr Index kWidth = 16;

inline V set(float x) { return _mm512_set1_ps(x); }
inline V load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, V x) { _mm512_storeu_ps(p, x); }
inline Mask first(Index n) {
  return static_cast<Mask>(n <= 0 ? 0U : n >= kWidth ? 0xffffU : (1U << n) - 1U);
}
inline V load(const float* p, Index n) { return _mm512_maskz_loadu_ps(first(n), p); }
inline void store(float* p, V x, Index n) { _mm512_mask_storeu_ps(p, first(n), x); }
inline V load(const plumb::bf16* p) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
inline V load(const plumb::bf16* p, Index n) {
  const __m256i bits = _mm256_maskz_loadu_epi16(first(n), p);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
inline V keep(V x, Index n) { return _mm512_maskz_mov_ps(first(n), x); }
inline V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
inline V fma_flushed(V a, V b, V c) { return fma(a, b, c); }
inline V max(V a, V b) { return _mm512_max_ps(a, b); }
inline V min(V a, V b) { return _mm512_min_ps(a, b); }
inline V sqrt(V x) { return _mm512_sqrt_ps(x); }
inline V abs(V x) { return _mm512_abs_ps(x); }
inline V round(V x) { return (x + set(0x1.8p23F)) - set(0x1.8p23F); }
inline Mask less(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
inline V select(Mask m, V a, V b) { return _mm512_mask_blend_ps(m, b, a); }
inline V scale(V x, V n) { return _mm512_scalef_ps(x, n); }
inline V exponent(V x) { return _mm512_getexp_ps(x) + set(1.0F); }
inline V mantissa(V x) { return _mm512_getmant_ps(x, _MM_MANT_NORM_p5_1, _MM_MANT_SIGN_src); }
inline V even(V a, V b) {
  return _mm512_permutex2var_ps(
      a, _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30), b);
}
inline V odd(V a, V b) {
  return _mm512_permutex2var_ps(
      a, _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31), b);
}
inline V interleave_low(V a, V b) {
  const __m512i order = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  return _mm512_permutex2var_ps(a, order, b);
}
inline V interleave_high(V a, V b) {
  const __m512i order =
      _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  return _mm512_permutex2var_ps(a, order, b);
}
inline float fold_sum(V x) {
  const __m256 half = _mm512_castps512_ps256(x) + _mm512_extractf32x8_ps(x, 1);
  __m128 y = _mm256_castps256_ps128(half) + _mm256_extractf128_ps(half, 1);
  y = y + _mm_movehl_ps(y, y);
  return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}
inline float fold_max(V x) {
  const __m256 half = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
  __m128 y = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  y = _mm_max_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
}
inline V lower(V words) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(words), 16));
}
inline V upper(V words) {
  const __m512i mask = _mm512_set1_epi32(static_cast<int>(0xffff0000U));
  return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(words), mask));
}
inline __m512i upper_half(V x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd_bit = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded =
      _mm512_add_epi32(bits, _mm512_add_epi32(odd_bit, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x00400000));
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  const __mmask16 small = less(abs(x), set(0x1p-126F));
  const __m512i sign = _mm512_and_si512(bits, _mm512_set1_epi32(static_cast<int>(0x80000000U)));
  const __m512i kept = _mm512_mask_blend_epi32(nan, rounded, quiet);
  return _mm512_srli_epi32(_mm512_mask_blend_epi32(small, kept, sign), 16);
}
inline V bf16_pairs(V low, V high) {
  return _mm512_castsi512_ps(
      _mm512_or_si512(upper_half(low), _mm512_slli_epi32(upper_half(high), 16)));
}

// What a processor with avx512_bf16 has besides. By name, so that this file needs no other target.
#define PLUMB_DOT

/// c + a·b of bf16 pairs, math/bf16.hpp.
inline V dot(V a, V b, V c) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(c) : "v"(a), "v"(b));
  return c;
}
/// 32 consecutive values, rounded, as words of two.
inline V bf16_row(V first, V second) {
  V words;
  asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(words) : "v"(first), "v"(second));
  return words;
}
/// Halves h0 … h15 | h16 … h31 to h0 h16 h1 h17 ….
inline V halves_interleaved(V words) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, _mm512_castps_si512(words)));
}
