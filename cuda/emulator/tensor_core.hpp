// What a tensor core makes of one element of an mma instruction, c + Σ a·b, by the published model
// of its rounding: Xie et al. 2025, "MMA-Sim", arXiv 2511.10909. A model that others found by
// probing GPUs, not a measurement of ours; tests/cuda/test_cuda_tensor_core.cu asks a GPU, where
// there is one.
//
// The rule: exponents of products are those of their operands, added (so a product's significand
// may reach 4). All products and c are aligned to the largest exponent, or to 2^-126 if that is
// larger, and cut toward zero to `fraction` fractional bits there; the sum is exact, and is rounded
// toward zero to float. Beyond float's range it is infinite. Subnormal operands and results count;
// a sum of zero is +0, and a NaN is 0x7fffffff. (The vectors of tests/golden/tensor_core show
// neither infinities nor zeros among operands: those are as in the model's source.)
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace plumb::emulator {

/// How an architecture's tensor cores do so, for bf16 with k = 16 and tf32 with k = 8.
struct TensorCoreRule {
  int fraction;  ///< fractional bits that are kept of each term
  bool halves;   ///< an instruction's k is added in two, one after the other
};
/// `architecture`: compute capability times ten, from 80 to 99.
constexpr TensorCoreRule tensor_core_rule(int architecture) {
  return architecture < 90 ? TensorCoreRule{24, true} : TensorCoreRule{25, false};
}

/// K elements of a row of A or a column of B, as the rule takes them.
template <int K>
struct TensorOperands {
  static constexpr std::int16_t kZero = -4096, kSpecial = 8192;  ///< of zeros; infinities and NaN

  double value[K] = {};
  std::int16_t exponent[K];

  TensorOperands() { std::fill_n(exponent, K, kZero); }
  void set(int i, float x) {
    const auto bits = std::bit_cast<std::uint32_t>(x);
    const int field = static_cast<int>(bits >> 23 & 255);
    value[i] = x;
    exponent[i] = field == 255     ? kSpecial
                  : bits << 1 == 0 ? kZero
                                   : static_cast<std::int16_t>(std::max(field, 1) - 127);
  }
};

/// sum · 2^exponent, toward zero, as a float.
inline float round_toward_zero(std::int64_t sum, int exponent) {
  const std::uint64_t size =
      sum < 0 ? -static_cast<std::uint64_t>(sum) : static_cast<std::uint64_t>(sum);
  const int width = static_cast<int>(std::bit_width(size));
  const int top = std::max(width - 1 + exponent, -126);  // the result's exponent
  const int cut = top - 23 - exponent;
  const auto kept = static_cast<std::uint32_t>(cut >= 0 ? size >> cut : size << -cut);
  if (kept == 0) return 0.0F;
  std::uint32_t bits = top > 127 ? 0x7F800000U
                       : kept >> 23 != 0
                           ? static_cast<std::uint32_t>(top + 127) << 23 | (kept & 0x7FFFFFU)
                           : kept;
  if (sum < 0) bits |= 0x80000000U;
  return std::bit_cast<float>(bits);
}

/// c + Σ a[i]·b[i] over `kLength` of K, from `first` on, added at once. (A product is exact in
/// double, and so are 16 aligned ones in 32 bits: each is below 2^(fraction + 2).)
template <int kLength, int K>
float fused_dot(const TensorOperands<K>& a, const TensorOperands<K>& b, int first, float c,
                int fraction) {
  static_assert(kLength <= 16);
  TensorOperands<1> addend;
  addend.set(0, c);
  std::int16_t largest = std::max(addend.exponent[0], std::int16_t{-126});
  for (int i = first; i < first + kLength; ++i)
    largest = std::max(largest, static_cast<std::int16_t>(a.exponent[i] + b.exponent[i]));
  if (largest > 2048) {
    double sum = c;
    for (int i = first; i < first + kLength; ++i) sum += a.value[i] * b.value[i];
    return sum != sum ? std::bit_cast<float>(0x7FFFFFFFU) : static_cast<float>(sum);
  }
  const int exponent = largest - fraction;  // of the last bit that is kept
  const double scale = std::bit_cast<double>(static_cast<std::uint64_t>(1023 - exponent) << 52);
  std::int32_t products = 0;
  for (int i = first; i < first + kLength; ++i)
    products += static_cast<std::int32_t>(a.value[i] * b.value[i] * scale);
  return round_toward_zero(products + static_cast<std::int64_t>(addend.value[0] * scale), exponent);
}

/// One element of an mma instruction: a row of A and a column of B, K = 16 (bf16) or 8 (tf32).
template <int K>
float tensor_core_dot(const TensorOperands<K>& a, const TensorOperands<K>& b, float c,
                      TensorCoreRule rule) {
  if (rule.halves)
    return fused_dot<K / 2>(a, b, K / 2, fused_dot<K / 2>(a, b, 0, c, rule.fraction),
                            rule.fraction);
  return fused_dot<K>(a, b, 0, c, rule.fraction);
}

}  // namespace plumb::emulator
