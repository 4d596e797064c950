// The contract of a backend: the kernels that ops, models and trainers call with a device's tag,
// found by argument-dependent lookup. cpu/kernels.hpp and cuda/kernels.cuh check that theirs keep
// it.
#pragma once

#include <plumb/core/bf16.hpp>
#include <plumb/core/device.hpp>
#include <plumb/math/activation.hpp>
#include <plumb/math/adamw.hpp>
#include <plumb/math/attention.hpp>
#include <plumb/math/elementwise.hpp>
#include <plumb/math/gemm.hpp>
#include <plumb/math/kl.hpp>

#include <concepts>
#include <cstddef>
#include <type_traits>

namespace plumb { inline namespace v0_1 {

/// Memory of a device.
template <class D>
concept DeviceMemory = requires(D d, void* p, const void* from, std::size_t bytes) {
  { allocate(d, bytes) } -> std::same_as<void*>;
  release(d, p, bytes);
  zero(d, p, bytes);
  copy(d, p, from, bytes);
  copy_from_host(d, p, from, bytes);
  copy_to_host(d, p, from, bytes);
};

/// What the ops call. (x, dx: of an input; y, dy: of an output; n rows of c values.)
template <class D>
concept Backend = DeviceMemory<D> &&
    requires(D d, float* y, const float* x, const std::int32_t* ids, std::int8_t* codes, Index n,
             float f, Operand<float> operand) {
  matmul(d, y, x, x, n, n, n, Form::NT, true, Epilogue{});
  matmul_batched(d, y, x, x, n, n, n, n, Form::NT, true);
  matmul_packed(d, y, x,
                static_cast<const std::conditional_t<rounds_products<D>, bf16, float>*>(nullptr), n,
                n, n, Epilogue{});
  pack_matrix(d, y, x, n, n);
  unpack_matrix(d, y, x, n, n);
  quantize_rows(d, codes, y, x, n, n);
  expand_rows(d, y, codes, x, n, n);
  { packed_size(d, n, n) } -> std::same_as<Index>;
  embedding_forward(d, y, x, ids, n, n);
  embedding_backward(d, y, x, ids, n, n, n);
  sum_rows(d, y, x, n, n);
  assign(d, y, n, operand, f, true, n, n);
  combine_forward(d, y, operand, operand, Arithmetic::Add, n, n);
  combine_backward(d, y, x, operand, operand, Arithmetic::Add, true, n, n);
  function_forward(d, y, x, Function::Exp, n);
  function_backward(d, y, x, x, Function::Exp, n);
  shift_forward(d, y, x, f, n);
  clamp_forward(d, y, x, f, f, n);
  clamp_backward(d, y, x, x, f, f, n);
  row_sums(d, y, x, n, n, true);
  softmax_rows(d, y, x, n, n, true);
  softmax_rows_backward(d, y, x, x, n, n, true);
  pick_forward(d, y, x, ids, n, n);
  pick_backward(d, y, x, ids, n, n);
  transpose(d, y, x, n, n, n);
  group_sums(d, y, x, ids, n, n);
  group_sums_backward(d, y, x, ids, n, n);
  group_logsumexp(d, y, x, ids, n, n);
  group_logsumexp_backward(d, y, x, x, x, ids, n, n);
  scale_forward(d, y, x, f, n);
  accumulate(d, y, x, f, n);
  accumulate_by(d, y, x, x, n);
  activation_forward(d, y, x, Activation::Gelu, n);
  activation_backward(d, y, x, x, Activation::Gelu, n);
  swiglu_forward(d, y, x, x, n);
  swiglu_backward(d, y, y, x, x, x, n);
  rms_norm_forward(d, y, y, x, x, n, n, f);
  layer_norm_forward(d, y, y, y, x, x, x, n, n, f);
  attention_forward(d, y, y, x, x, x, ids, ids, n, n, n, AttentionShape{});
  attention_cached_forward(d, y, x, x, x, ids, ids, n, KvShape{});
  kv_append(d, y, y, x, x, ids, ids, n, KvShape{});
  weighted_sum(d, y, x, x, n);
  segment_sum(d, y, x, x, ids, n);
  segment_spread(d, y, x, x, ids, n);
  kl_loss(d, y, y, x, x, x, n, KlEstimator::K3);
  kto_loss(d, y, y, x, x, x, n, f);
  log_odds_forward(d, y, x, n);
  log_odds_backward(d, y, x, x, n);
  adamw_update(d, y, x, y, y, n, AdamWStep{});
  sgd_update(d, y, x, y, n, SgdStep{});
  lion_update(d, y, x, y, n, LionStep{});
  { sum_of_squares(d, x, n) } -> std::same_as<double>;
  sum_of_squares(d, static_cast<double*>(nullptr), x, n);
};

namespace detail {

/// Fails with one sentence where ops are used on a device whose kernels were not included.
template <class D>
constexpr void require_backend() {
  static_assert(backend_included<D>,
                "include this device's kernels: <plumb/cpu/kernels.hpp>, or <plumb/plumb.hpp>, for "
                "Cpu; <plumb/cuda/kernels.cuh> for Cuda");
}

template <class D>
concept WithoutBackend = std::is_class_v<D> && !requires {
  typename D::Device;
}
&&!backend_included<D>;

}  // namespace detail

// Stand in for kernels that were not included, so that the sentence above is all that is said. Any
// other function that can be called is preferred to one with an ellipsis.
#define PLUMB_STAND_IN(kernel, Result) \
  template <detail::WithoutBackend D>  \
  Result kernel(D, ...) {              \
    detail::require_backend<D>();      \
    return Result();                   \
  }
PLUMB_STAND_IN(accumulate, void)
PLUMB_STAND_IN(accumulate_by, void)
PLUMB_STAND_IN(activation_backward, void)
PLUMB_STAND_IN(activation_forward, void)
PLUMB_STAND_IN(adamw_update, void)
PLUMB_STAND_IN(argmax_rows, void)
PLUMB_STAND_IN(assign, void)
PLUMB_STAND_IN(attention_backward, void)
PLUMB_STAND_IN(attention_cached_forward, void)
PLUMB_STAND_IN(attention_forward, void)
PLUMB_STAND_IN(clamp_backward, void)
PLUMB_STAND_IN(clamp_forward, void)
PLUMB_STAND_IN(combine_backward, void)
PLUMB_STAND_IN(combine_forward, void)
PLUMB_STAND_IN(embedding_backward, void)
PLUMB_STAND_IN(embedding_forward, void)
PLUMB_STAND_IN(expand_rows, void)
PLUMB_STAND_IN(function_backward, void)
PLUMB_STAND_IN(function_forward, void)
PLUMB_STAND_IN(group_logsumexp, void)
PLUMB_STAND_IN(group_logsumexp_backward, void)
PLUMB_STAND_IN(group_sums, void)
PLUMB_STAND_IN(group_sums_backward, void)
PLUMB_STAND_IN(head_keeps_logits, bool)
PLUMB_STAND_IN(head_kl_forward, void)
PLUMB_STAND_IN(head_logprob_backward, void)
PLUMB_STAND_IN(head_logprob_forward, void)
PLUMB_STAND_IN(kl_loss, void)
PLUMB_STAND_IN(kto_loss, void)
PLUMB_STAND_IN(kv_append, void)
PLUMB_STAND_IN(kv_copy, void)
PLUMB_STAND_IN(layer_norm_backward, void)
PLUMB_STAND_IN(layer_norm_forward, void)
PLUMB_STAND_IN(lion_update, void)
PLUMB_STAND_IN(log_odds_backward, void)
PLUMB_STAND_IN(log_odds_forward, void)
PLUMB_STAND_IN(matmul, void)
PLUMB_STAND_IN(matmul_batched, void)
PLUMB_STAND_IN(matmul_packed, void)
PLUMB_STAND_IN(pack_matrix, void)
PLUMB_STAND_IN(packed_size, Index)
PLUMB_STAND_IN(pick_backward, void)
PLUMB_STAND_IN(pick_forward, void)
PLUMB_STAND_IN(ppo_policy_loss, void)
PLUMB_STAND_IN(ppo_value_loss, void)
PLUMB_STAND_IN(quantize_rows, void)
PLUMB_STAND_IN(ranking_loss, void)
PLUMB_STAND_IN(rms_norm_backward, void)
PLUMB_STAND_IN(rms_norm_forward, void)
PLUMB_STAND_IN(rope_backward, void)
PLUMB_STAND_IN(rope_forward, void)
PLUMB_STAND_IN(row_sums, void)
PLUMB_STAND_IN(sample_rows, void)
PLUMB_STAND_IN(scale_forward, void)
PLUMB_STAND_IN(segment_spread, void)
PLUMB_STAND_IN(segment_sum, void)
PLUMB_STAND_IN(sgd_update, void)
PLUMB_STAND_IN(shift_forward, void)
PLUMB_STAND_IN(softmax_rows, void)
PLUMB_STAND_IN(softmax_rows_backward, void)
PLUMB_STAND_IN(sum_of_squares, double)
PLUMB_STAND_IN(sum_rows, void)
PLUMB_STAND_IN(swiglu_backward, void)
PLUMB_STAND_IN(swiglu_forward, void)
PLUMB_STAND_IN(transpose, void)
PLUMB_STAND_IN(unpack_matrix, void)
PLUMB_STAND_IN(weighted_sum, void)
#undef PLUMB_STAND_IN

}}  // namespace plumb::v0_1
