// RMSNorm and LayerNorm over the last dimension, a warp a row: the CPU's formulas, orders and bits
// (see cpu/norm.hpp). Cost: the row is read two or three times, from the L1 cache after the first:
// 8 bytes and 5 to 8 FLOPs an element forward, 16 and 12 backward. Bound by memory (0.6 FLOP/B at
// most).
#pragma once

#include <plumb/cuda/rows.cuh>

namespace plumb { inline namespace v0_1 {
namespace kernels {

namespace gpu {

template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    rms_norm_kernel(float* y, float* rstd, const float* x, const float* weight, Index n, Index c,
                    float eps) {
  const Index row = warp_row<kThreads>();
  if (row >= n) return;
  x += row * c, y += row * c;
  const float squares = row_sum(c, [=](Index i, float total) { return fma(x[i], x[i], total); });
  const float r = 1.0F / sqrt(squares / static_cast<float>(c) + eps);
  if (lane() == 0) rstd[row] = r;
  for (Index i = lane(); i < c; i += kWarp) y[i] = weight[i] * (x[i] * r);
}

template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    rms_norm_backward_kernel(float* dx, const float* dy, const float* x, const float* weight,
                             const float* rstd, Index n, Index c) {
  const Index row = warp_row<kThreads>();
  if (row >= n) return;
  dx += row * c, dy += row * c, x += row * c;
  const float r = rstd[row];
  const float along =
      row_sum(c, [=](Index i, float total) { return fma(weight[i] * dy[i], x[i] * r, total); });
  const float minus_mean = -(along / static_cast<float>(c));
  for (Index i = lane(); i < c; i += kWarp) {
    const float g = weight[i] * dy[i];
    dx[i] = fma(r, fma(minus_mean, x[i] * r, g), dx[i]);
  }
}

template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    layer_norm_kernel(float* y, float* mean, float* rstd, const float* x, const float* weight,
                      const float* bias, Index n, Index c, float eps) {
  const Index row = warp_row<kThreads>();
  if (row >= n) return;
  x += row * c, y += row * c;
  const float channels = static_cast<float>(c);
  const float m = row_sum(c, [=](Index i, float total) { return total + x[i]; }) / channels;
  const float squares = row_sum(c, [=](Index i, float total) {
    const float d = x[i] - m;
    return fma(d, d, total);
  });
  const float r = 1.0F / sqrt(squares / channels + eps);
  if (lane() == 0) mean[row] = m, rstd[row] = r;
  for (Index i = lane(); i < c; i += kWarp) y[i] = fma((x[i] - m) * r, weight[i], bias[i]);
}

template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    layer_norm_backward_kernel(float* dx, const float* dy, const float* x, const float* weight,
                               const float* mean, const float* rstd, Index n, Index c) {
  const Index row = warp_row<kThreads>();
  if (row >= n) return;
  dx += row * c, dy += row * c, x += row * c;
  const float channels = static_cast<float>(c);
  const float m = mean[row], r = rstd[row];
  const float level =
      row_sum(c, [=](Index i, float total) { return fma(weight[i], dy[i], total); });
  const float along = row_sum(
      c, [=](Index i, float total) { return fma(weight[i] * dy[i], (x[i] - m) * r, total); });
  const float mean_g = level / channels, minus_mean = -(along / channels);
  for (Index i = lane(); i < c; i += kWarp) {
    const float g = weight[i] * dy[i] - mean_g;
    dx[i] = fma(r, fma(minus_mean, (x[i] - m) * r, g), dx[i]);
  }
}

/// dy · x̂ of one token and channel; mean null: RMSNorm.
struct NormWeightTerm {
  const float *dy, *x, *mean, *rstd;
  Index c;
  __device__ float operator()(Index token, Index column, float sum) const {
    const Index at = token * c + column;
    if (mean == nullptr) return fma(dy[at], x[at] * rstd[token], sum);
    return fma(dy[at], (x[at] - mean[token]) * rstd[token], sum);
  }
};

}  // namespace gpu

/// y = weight · (x · rstd): x, y (N, C), weight (C); rstd (N) is kept for the backward pass.
inline void rms_norm_forward(Cuda device, float* y, float* rstd, const float* x,
                             const float* weight, Index n, Index c, float eps) {
  if (n > 0)
    PLUMB_LAUNCH((gpu::rms_norm_kernel<gpu::kRowThreads>), blocks_for(n, gpu::kRowThreads / kWarp),
                 gpu::kRowThreads, 0, device.stream, y, rstd, x, weight, n, c, eps);
}

/// y = weight · (x - mean) · rstd + bias: x, y (N, C), weight, bias (C); mean, rstd (N) are kept.
inline void layer_norm_forward(Cuda device, float* y, float* mean, float* rstd, const float* x,
                               const float* weight, const float* bias, Index n, Index c,
                               float eps) {
  if (n > 0)
    PLUMB_LAUNCH((gpu::layer_norm_kernel<gpu::kRowThreads>),
                 blocks_for(n, gpu::kRowThreads / kWarp), gpu::kRowThreads, 0, device.stream, y,
                 mean, rstd, x, weight, bias, n, c, eps);
}

/// dx += rstd · (g - x̂ · mean(g · x̂)) with g = weight · dy; dweight += Σ_tokens dy · x̂. A
/// gradient that is null is not computed.
inline void rms_norm_backward(Cuda device, float* dx, float* dweight, const float* dy,
                              const float* x, const float* weight, const float* rstd, Index n,
                              Index c) {
  if (dx != nullptr && n > 0)
    PLUMB_LAUNCH((gpu::rms_norm_backward_kernel<gpu::kRowThreads>),
                 blocks_for(n, gpu::kRowThreads / kWarp), gpu::kRowThreads, 0, device.stream, dx,
                 dy, x, weight, rstd, n, c);
  if (dweight != nullptr)
    gpu::sum_over_tokens(device, dweight, gpu::NormWeightTerm{dy, x, nullptr, rstd, c}, n, c);
}

/// dx += rstd · (g - mean(g) - x̂ · mean(g · x̂)) with g = weight · dy; dweight += Σ_tokens dy ·
/// x̂; dbias += Σ_tokens dy. A gradient that is null is not computed.
inline void layer_norm_backward(Cuda device, float* dx, float* dweight, float* dbias,
                                const float* dy, const float* x, const float* weight,
                                const float* mean, const float* rstd, Index n, Index c) {
  if (dx != nullptr && n > 0)
    PLUMB_LAUNCH((gpu::layer_norm_backward_kernel<gpu::kRowThreads>),
                 blocks_for(n, gpu::kRowThreads / kWarp), gpu::kRowThreads, 0, device.stream, dx,
                 dy, x, weight, mean, rstd, n, c);
  if (dweight != nullptr)
    gpu::sum_over_tokens(device, dweight, gpu::NormWeightTerm{dy, x, mean, rstd, c}, n, c);
  if (dbias != nullptr) sum_rows(device, dbias, dy, n, c);
}

}  // namespace kernels
}}  // namespace plumb::v0_1
