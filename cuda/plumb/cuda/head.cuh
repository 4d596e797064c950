// Language-model head, log-softmax and gather in one: functions, chunks, orders and bits of
// cpu/head.hpp. The products are `matmul` of the device's mode; a block then reads a row of logits
// twice, for the maximum and for the sum (logits.cuh); for KL both models' rows three times, the
// last for the sum that needs both normalisers. Cost of the row part: 8 bytes a logit forward, 8
// backward, 20 and 25 FLOPs; 24 bytes a token for KL: bound by memory where rows are many, by a
// multiprocessor's exponentials where they are few, and small beside the products' 2·C FLOPs a
// logit. What this is not: fused into the product's tiles: a row's sum has an order.
#pragma once

#include <plumb/cuda/gemm.cuh>
#include <plumb/cuda/logits.cuh>
#include <plumb/math/gemm.hpp>
#include <plumb/math/head.hpp>

#include <concepts>

namespace plumb { inline namespace v0_1 {
namespace kernels {

namespace gpu {

inline constexpr int kSlopeThreads = 256;
inline constexpr int kSlopeColumns = 1024;

template <int kThreads, bool kEntropy>
__global__ void __launch_bounds__(kThreads)
    logprob_kernel(float* logprob, float* entropy, float* lse, const float* logits,
                   const std::int32_t* targets, int v, float scale) {
  constexpr int kTerms = kEntropy ? 2 : 1;
  __shared__ TermTiles<kThreads, kTerms, 4> tiles;
  const Index row = blockIdx.x;
  const float* z = logits + row * v;
  const float top = largest_logit<kThreads>(z, v, scale);
  float total = 0.0F, moment = 0.0F;  // Σ e^s and Σ e^s · s, s = scale · z − max
  ordered_sums(
      tiles, v, [=](int i) { return z[i]; },
      [=](int, float logit, float (&term)[kTerms]) {
        const float s = not_below(kLowestLogit, scale * logit - top);
        term[0] = exp(s);
        if constexpr (kEntropy) term[1] = s;
      },
      [&](const float (&term)[kTerms]) {
        total = total + term[0];
        if constexpr (kEntropy) moment = fma(term[0], term[1], moment);
      });
  if (threadIdx.x >= kWarp) return;
  const float sum_of_exp = warp_sum(total), norm = top + log(sum_of_exp);
  if constexpr (kEntropy) moment = warp_sum(moment);
  if (threadIdx.x != 0) return;
  if constexpr (kEntropy) entropy[row] = log(sum_of_exp) - moment / sum_of_exp;
  lse[row] = norm;
  logprob[row] = scale * z[targets[row]] - norm;
}

/// Turns logits into the gradient by those logits: blockIdx.x a row, blockIdx.y some columns.
template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    logprob_backward_kernel(float* logits, const float* dlogprob, const float* dentropy,
                            const std::int32_t* targets, const float* lse, const float* entropy,
                            Index v, float scale) {
  const Index row = blockIdx.x;
  const float norm = lse[row], slope = dlogprob[row];
  const float dspread = dentropy != nullptr ? -dentropy[row] : -0.0F;
  const float spread = dentropy != nullptr ? entropy[row] : 0.0F;
  const Index target = targets[row], first = static_cast<Index>(blockIdx.y) * kSlopeColumns;
  float* z = logits + row * v;
#pragma unroll
  for (int j = 0; j < kSlopeColumns / kThreads; ++j) {
    const Index i = first + j * kThreads + threadIdx.x;
    if (i >= v) break;
    const float log_p = not_below(kRareLogit, scale * z[i] - norm);
    float d = scale * (exp(log_p) * fma(dspread, log_p + spread, -slope));
    if (i == target) d = d + scale * slope;
    z[i] = d;
  }
}

template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    kl_kernel(float* kl, const float* logits_p, const float* logits_q, const std::int32_t* targets,
              float* logprob_q, int v, float scale) {
  __shared__ union {
    TermTiles<kThreads, 2, 2> norms;
    TermTiles<kThreads, 3, 2> terms;
  } tiles;
  __shared__ float lse[2];
  const Index row = blockIdx.x;
  const float *p_row = logits_p + row * v, *q_row = logits_q + row * v;
  const float top_p = largest_logit<kThreads>(p_row, v, scale);
  const float top_q = largest_logit<kThreads>(q_row, v, scale);
  const auto load = [=](int i) { return float2{p_row[i], q_row[i]}; };
  float total_p = 0.0F, total_q = 0.0F, total = 0.0F;
  ordered_sums(
      tiles.norms, v, load,
      [=](int, float2 logits, float (&term)[2]) {
        term[0] = exp(not_below(kLowestLogit, scale * logits.x - top_p));
        term[1] = exp(not_below(kLowestLogit, scale * logits.y - top_q));
      },
      [&](const float (&term)[2]) {
        total_p = total_p + term[0];
        total_q = total_q + term[1];
      });
  if (threadIdx.x < kWarp) {
    const float norm_p = top_p + log(warp_sum(total_p)), norm_q = top_q + log(warp_sum(total_q));
    if (threadIdx.x == 0) lse[0] = norm_p, lse[1] = norm_q;
  }
  __syncthreads();
  const float lse_p = lse[0], lse_q = lse[1];
  ordered_sums(
      tiles.terms, v, load,
      [=](int, float2 logits, float (&term)[3]) {
        const float log_p = not_below(kLowestLogit, scale * logits.x - lse_p);
        const float log_q = not_below(kLowestLogit, scale * logits.y - lse_q);
        const float p = exp(log_p);
        term[0] = p;
        term[1] = log_p - log_q;
        term[2] = exp(log_q) - p;
      },
      [&](const float (&term)[3]) { total = fma(term[0], term[1], total) + term[2]; });
  if (threadIdx.x >= kWarp) return;
  total = warp_sum(total);
  if (threadIdx.x != 0) return;
  kl[row] = total;
  if (targets != nullptr) logprob_q[row] = scale * q_row[targets[row]] - lse_q;
}

}  // namespace gpu

/// Whether the backward pass is to be given the logits of n rows.
inline bool head_keeps_logits(Cuda, Index n, Index v) { return n * v <= kHeadLogits; }

/// The row part alone: logits (N, V), before the temperature, give the bits of
/// head_logprob_forward. targets (N); logprob, lse (N) and entropy (N, or null) in nats,
/// overwritten.
inline void logprob_rows(Cuda device, float* logprob, float* entropy, float* lse,
                         const float* logits, const std::int32_t* targets, Index n, Index v,
                         float inverse_temperature) {
  if (n == 0) return;
  const auto blocks = static_cast<unsigned>(n);
  gpu::with_logit_threads(v, [=]<int kThreads>() {
    if (entropy != nullptr)
      PLUMB_LAUNCH((gpu::logprob_kernel<kThreads, true>), blocks, kThreads, 0, device.stream,
                   logprob, entropy, lse, logits, targets, static_cast<int>(v),
                   inverse_temperature);
    else
      PLUMB_LAUNCH((gpu::logprob_kernel<kThreads, false>), blocks, kThreads, 0, device.stream,
                   logprob, entropy, lse, logits, targets, static_cast<int>(v),
                   inverse_temperature);
  });
}

/// Log-probability of targets (N) under the head w (V, C) at hidden states x (N, C). logprob, lse
/// (N) and entropy (N, or null) in nats, overwritten; and logits (N, V), unless null.
template <std::derived_from<Cuda> D>
void head_logprob_forward(D device, float* logprob, float* entropy, float* lse, const float* x,
                          const float* w, const std::int32_t* targets, Index n, Index c, Index v,
                          float inverse_temperature, float* logits = nullptr) {
  const Index most = logits != nullptr ? n : std::min(n, head_rows(v));
  const DeviceScratch<float> room(device, logits != nullptr ? 0 : most * v);
  if (logits == nullptr) logits = room.data();
  for (Index i = 0; i < n; i += most) {
    const Index rows = std::min(most, n - i);
    matmul(device, logits, x + i * c, w, rows, v, c, Form::NT);
    logprob_rows(device, logprob + i, entropy != nullptr ? entropy + i : nullptr, lse + i, logits,
                 targets + i, rows, v, inverse_temperature);
  }
}

/// dx (N, C) += dlogits·w and dw (V, C) += dlogitsᵀ·x; arguments as the CPU's. logits are
/// overwritten.
template <std::derived_from<Cuda> D>
void head_logprob_backward(D device, float* dx, float* dw, const float* dlogprob,
                           const float* dentropy, const float* x, const float* w,
                           const std::int32_t* targets, const float* lse, const float* entropy,
                           Index n, Index c, Index v, float inverse_temperature,
                           float* logits = nullptr) {
  const bool kept = logits != nullptr;
  const Index most = kept ? n : std::min(n, head_rows(v));
  const DeviceScratch<float> room(device, kept ? 0 : most * v);
  if (!kept) logits = room.data();
  const auto from = [](const float* array, Index i) {
    return array != nullptr ? array + i : nullptr;
  };
  for (Index i = 0; i < n; i += most) {
    const Index rows = std::min(most, n - i);
    if (!kept) matmul(device, logits, x + i * c, w, rows, v, c, Form::NT);
    PLUMB_LAUNCH((gpu::logprob_backward_kernel<gpu::kSlopeThreads>),
                 dim3(static_cast<unsigned>(rows), blocks_for(v, gpu::kSlopeColumns)),
                 gpu::kSlopeThreads, 0, device.stream, logits, dlogprob + i, from(dentropy, i),
                 targets + i, lse + i, from(entropy, i), v, inverse_temperature);
    if (dx != nullptr) matmul(device, dx + i * c, logits, w, rows, c, v, Form::NN, true);
    if (dw != nullptr) matmul(device, dw, logits, x + i * c, v, c, rows, Form::TN, true);
  }
}

/// Exact KL(p‖q) over the whole vocabulary; see the CPU's. kl (N), overwritten.
template <std::derived_from<Cuda> D>
void head_kl_forward(D device, float* kl, const float* x_p, const float* w_p, Index c_p,
                     const float* x_q, const float* w_q, Index c_q, Index n, Index v,
                     float inverse_temperature, const std::int32_t* targets = nullptr,
                     float* logprob_q = nullptr) {
  const Index most = std::min(n, std::max<Index>(1, kHeadLogits / (2 * std::max<Index>(v, 1))));
  const DeviceScratch<float> p(device, most * v), q(device, most * v);
  for (Index i = 0; i < n; i += most) {
    const Index rows = std::min(most, n - i);
    matmul(device, p.data(), x_p + i * c_p, w_p, rows, v, c_p, Form::NT);
    matmul(device, q.data(), x_q + i * c_q, w_q, rows, v, c_q, Form::NT);
    const std::int32_t* some_targets = targets != nullptr ? targets + i : nullptr;
    float* some_logprob = targets != nullptr ? logprob_q + i : nullptr;
    gpu::with_logit_threads(v, [&]<int kThreads>() {
      PLUMB_LAUNCH((gpu::kl_kernel<kThreads>), static_cast<unsigned>(rows), kThreads, 0,
                   device.stream, kl + i, p.data(), q.data(), some_targets, some_logprob,
                   static_cast<int>(v), inverse_temperature);
    });
  }
}

}  // namespace kernels
}}  // namespace plumb::v0_1
