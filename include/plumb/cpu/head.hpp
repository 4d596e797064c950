// Language-model head, log-softmax and gather in one: the log-probability of one target token per
// row.
//
//   z = inverse_temperature · x·wᵀ     lse = max + log Σ exp(z − max)
//   logprob = z[target] − lse          entropy = −Σ p log p, p = exp(z − lse)
//
// Logits are held in chunks of at most kHeadLogits, or 256 rows if those have more: GPT-2's are 52
// MB. If one chunk holds all rows, the backward pass may be given the forward's; otherwise it
// computes each chunk's anew. Targets lie in [0, V); logits must be finite. What this is not:
// cross-entropy
// (that is −logprob, weighted by the caller), label smoothing, a filter of the distribution.
// Order: products as in gemm.hpp; rows in 32 lanes, then the butterfly; dw over chunks of 256 rows.
// Cost: 2·N·V·C FLOPs forward, 4·N·V·C backward, 6 if it computes the logits anew.
#pragma once

#include <plumb/core/device.hpp>
#include <plumb/core/memory.hpp>
#include <plumb/core/pool.hpp>
#include <plumb/cpu/gemm.hpp>
#include <plumb/cpu/isa.hpp>
#include <plumb/math/gemm.hpp>
#include <plumb/math/head.hpp>

#include <algorithm>
#include <concepts>
#include <cstdint>

namespace plumb { inline namespace v0_1 { namespace kernels {

struct HeadTable {
  void (*logprob)(float* logprob, float* entropy, float* lse, const float* logits,
                  std::int32_t target, Index v, float inverse_temperature);
  /// Turns a row of logits into the gradient by those logits.
  void (*logprob_backward)(float* row, float dlogprob, float dentropy, std::int32_t target,
                           float lse, float entropy, Index v, float inverse_temperature);
  /// And the second one's log-probability of the target.
  float (*kl)(const float* logits_p, const float* logits_q, std::int32_t target, float* logprob_q,
              Index v, float inverse_temperature);
};

/// Whether the backward pass is to be given the logits of n rows.
inline bool head_keeps_logits(Cpu, Index n, Index v) { return n * v <= kHeadLogits; }

/// Calls body(row) for every row of v elements, in parallel.
template <class Body>
void for_head_rows(Cpu device, Index rows, Index v, Body&& body) {
  parallel_for(device, rows, 16384 / std::max<Index>(v, 1), [&](Index i, Index end) {
    for (; i < end; ++i) body(i);
  });
}

/// The row part alone: logits (N, V), before the temperature, give the bits of
/// head_logprob_forward. targets (N); logprob, lse (N) and entropy (N, or null) in nats,
/// overwritten.
inline void logprob_rows(Cpu device, float* logprob, float* entropy, float* lse,
                         const float* logits, const std::int32_t* targets, Index n, Index v,
                         float inverse_temperature) {
  const DefaultFloats floats;
  const HeadTable& table = dispatch<HeadTable>();
  for_head_rows(device, n, v, [&](Index i) {
    table.logprob(logprob + i, entropy != nullptr ? entropy + i : nullptr, lse + i, logits + i * v,
                  targets[i], v, inverse_temperature);
  });
}

/// Log-probability of targets (N) under the head w (V, C) at hidden states x (N, C). logprob, lse
/// (N) and entropy (N, or null) in nats, overwritten; and logits (N, V), unless null.
template <std::derived_from<Cpu> D>
void head_logprob_forward(D device, float* logprob, float* entropy, float* lse, const float* x,
                          const float* w, const std::int32_t* targets, Index n, Index c, Index v,
                          float inverse_temperature, float* logits = nullptr) {
  const Index most = logits != nullptr ? n : std::min(n, head_rows(v));
  const Scratch<float> room(logits != nullptr ? 0 : most * v);
  if (logits == nullptr) logits = room.data();
  for (Index i = 0; i < n; i += most) {
    const Index rows = std::min(most, n - i);
    matmul(device, logits, x + i * c, w, rows, v, c, Form::NT);
    logprob_rows(device, logprob + i, entropy != nullptr ? entropy + i : nullptr, lse + i, logits,
                 targets + i, rows, v, inverse_temperature);
  }
}

/// dx (N, C) += dlogits·w and dw (V, C) += dlogitsᵀ·x, where dlogits = inverse_temperature ·
/// (dlogprob·(onehot − p) − dentropy·p·(log p + entropy)). dlogprob (N); dentropy and entropy (N)
/// may be null together; dx or dw may be null. lse, entropy and, unless null, logits (N, V) are the
/// forward's; the logits are overwritten.
template <std::derived_from<Cpu> D>
void head_logprob_backward(D device, float* dx, float* dw, const float* dlogprob,
                           const float* dentropy, const float* x, const float* w,
                           const std::int32_t* targets, const float* lse, const float* entropy,
                           Index n, Index c, Index v, float inverse_temperature,
                           float* logits = nullptr) {
  const DefaultFloats floats;
  const HeadTable& table = dispatch<HeadTable>();
  const bool kept = logits != nullptr;
  const Index most = kept ? n : std::min(n, head_rows(v));
  const Scratch<float> room(kept ? 0 : most * v);
  if (!kept) logits = room.data();
  for (Index i = 0; i < n; i += most) {
    const Index rows = std::min(most, n - i);
    if (!kept) matmul(device, logits, x + i * c, w, rows, v, c, Form::NT);
    for_head_rows(device, rows, v, [&](Index r) {
      const Index at = i + r;
      const bool with_entropy = dentropy != nullptr;
      table.logprob_backward(logits + r * v, dlogprob[at], with_entropy ? dentropy[at] : 0.0F,
                             targets[at], lse[at], with_entropy ? entropy[at] : 0.0F, v,
                             inverse_temperature);
    });
    if (dx != nullptr) matmul(device, dx + i * c, logits, w, rows, c, v, Form::NN, true);
    if (dw != nullptr) matmul(device, dw, logits, x + i * c, v, c, rows, Form::TN, true);
  }
}

/// Exact KL(p‖q) over the whole vocabulary, nats, of two models' heads at their hidden states: x_p
/// (N, C_p), w_p (V, C_p), x_q (N, C_q), w_q (V, C_q); kl (N), overwritten. Summed as Σ p·(log p −
/// log q) − p + q: the same number, but rounding of the two normalisers cancels, which matters
/// while a policy is near its reference. Unless null, logprob_q (N): q's log-probability of targets
/// (N), with the bits of head_logprob_forward.
template <std::derived_from<Cpu> D>
void head_kl_forward(D device, float* kl, const float* x_p, const float* w_p, Index c_p,
                     const float* x_q, const float* w_q, Index c_q, Index n, Index v,
                     float inverse_temperature, const std::int32_t* targets = nullptr,
                     float* logprob_q = nullptr) {
  const DefaultFloats floats;
  const HeadTable& table = dispatch<HeadTable>();
  const Index most = std::min(n, std::max<Index>(1, kHeadLogits / (2 * std::max<Index>(v, 1))));
  const Scratch<float> p(most * v), q(most * v);
  for (Index i = 0; i < n; i += most) {
    const Index rows = std::min(most, n - i);
    matmul(device, p.data(), x_p + i * c_p, w_p, rows, v, c_p, Form::NT);
    matmul(device, q.data(), x_q + i * c_q, w_q, rows, v, c_q, Form::NT);
    for_head_rows(device, rows, v, [&](Index r) {
      kl[i + r] =
          table.kl(p.data() + r * v, q.data() + r * v, targets != nullptr ? targets[i + r] : 0,
                   targets != nullptr ? logprob_q + i + r : nullptr, v, inverse_temperature);
    });
  }
}

}  // namespace kernels
}}  // namespace plumb::v0_1
