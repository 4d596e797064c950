// RMSNorm and LayerNorm over the channels of each token, forward and backward.
//
//   RMSNorm    y = weight · x̂,         x̂ = x · rstd,          rstd = 1 / √(mean(x²) + eps)
//   LayerNorm  y = weight · x̂ + bias,  x̂ = (x - mean) · rstd,  rstd = 1 / √(var(x) + eps)
//
// with the variance over C (not C - 1) from a second pass over the row, so that a large mean
// cancels nothing. Sources: Zhang and Sennrich 2019; Ba, Kiros and Hinton 2016. Cost: two or three
// passes over a row in the first cache, bound by memory. What this is not: the residual is added
// elsewhere.
//
// Orders. Over channels: the 32-lane row reduction of vec.inl.hpp, divided by C. Over tokens
// (dweight, dbias): sum_over_tokens of rows.hpp. Division and square root are the correctly rounded
// ones.
#pragma once

#include <plumb/cpu/rows.hpp>

namespace plumb { inline namespace v0_1 {

namespace kernels {

struct NormTable {
  void (*rms_forward)(float* y, float* rstd, const float* x, const float* weight, Index n, Index c,
                      float eps);
  void (*rms_backward)(float* dx, const float* dy, const float* x, const float* weight,
                       const float* rstd, Index n, Index c);
  void (*layer_forward)(float* y, float* mean, float* rstd, const float* x, const float* weight,
                        const float* bias, Index n, Index c, float eps);
  void (*layer_backward)(float* dx, const float* dy, const float* x, const float* weight,
                         const float* mean, const float* rstd, Index n, Index c);
  void (*weight_sums)(float* sums, const float* dy, const float* x, const float* mean,
                      const float* rstd, Index rows, Index columns, Index stride);
};

/// y = weight · (x · rstd): x, y (N, C), weight (C); rstd (N) is kept for the backward pass.
inline void rms_norm_forward(Cpu device, float* y, float* rstd, const float* x, const float* weight,
                             Index n, Index c, float eps) {
  parallel_for(device, n, row_grain(c), [&](Index i, Index end) {
    dispatch<NormTable>().rms_forward(y + i * c, rstd + i, x + i * c, weight, end - i, c, eps);
  });
}

/// y = weight · (x - mean) · rstd + bias: x, y (N, C), weight, bias (C); mean, rstd (N) are kept.
inline void layer_norm_forward(Cpu device, float* y, float* mean, float* rstd, const float* x,
                               const float* weight, const float* bias, Index n, Index c,
                               float eps) {
  parallel_for(device, n, row_grain(c), [&](Index i, Index end) {
    dispatch<NormTable>().layer_forward(y + i * c, mean + i, rstd + i, x + i * c, weight, bias,
                                        end - i, c, eps);
  });
}

/// dweight += Σ_tokens dy · x̂, with mean null for RMSNorm.
inline void norm_weight_backward(Cpu device, float* dweight, const float* dy, const float* x,
                                 const float* mean, const float* rstd, Index n, Index c) {
  sum_over_tokens(device, dweight, n, c,
                  [&](float* sums, Index token, Index tokens, Index column, Index columns) {
                    const Index at = token * c + column;
                    dispatch<NormTable>().weight_sums(sums, dy + at, x + at,
                                                      mean == nullptr ? nullptr : mean + token,
                                                      rstd + token, tokens, columns, c);
                  });
}

/// dx += rstd · (g - x̂ · mean(g · x̂)) with g = weight · dy; dweight += Σ_tokens dy · x̂. Sizes as
/// in the forward pass; a gradient that is null is not computed.
inline void rms_norm_backward(Cpu device, float* dx, float* dweight, const float* dy,
                              const float* x, const float* weight, const float* rstd, Index n,
                              Index c) {
  if (dx != nullptr)
    parallel_for(device, n, row_grain(c), [&](Index i, Index end) {
      dispatch<NormTable>().rms_backward(dx + i * c, dy + i * c, x + i * c, weight, rstd + i,
                                         end - i, c);
    });
  if (dweight != nullptr) norm_weight_backward(device, dweight, dy, x, nullptr, rstd, n, c);
}

/// dx += rstd · (g - mean(g) - x̂ · mean(g · x̂)) with g = weight · dy; dweight += Σ_tokens dy ·
/// x̂; dbias += Σ_tokens dy. Sizes as in the forward pass; a gradient that is null is not computed.
inline void layer_norm_backward(Cpu device, float* dx, float* dweight, float* dbias,
                                const float* dy, const float* x, const float* weight,
                                const float* mean, const float* rstd, Index n, Index c) {
  if (dx != nullptr)
    parallel_for(device, n, row_grain(c), [&](Index i, Index end) {
      dispatch<NormTable>().layer_backward(dx + i * c, dy + i * c, x + i * c, weight, mean + i,
                                           rstd + i, end - i, c);
    });
  if (dweight != nullptr) norm_weight_backward(device, dweight, dy, x, mean, rstd, n, c);
  if (dbias != nullptr) sum_rows(device, dbias, dy, n, c);
}

}  // namespace kernels
}}  // namespace plumb::v0_1
