// Causal self-attention over packed sequences. The cached form, used for generation, computes the
// same bits per row and is not differentiable.
#pragma once

#include <plumb/math/attention.hpp>
#include <plumb/ops/basic.hpp>

namespace plumb { inline namespace v0_1 {

/// softmax(q·kᵀ · scale)·v per head and sequence, each token seeing itself and what precedes it in
/// its own sequence.
/// q (N, H·D), k and v (N, Hkv·D), offsets (B+1) -> (N, H·D).
template <class D>
Tensor<D> attention(const Tensor<D>& q, const Tensor<D>& k, const Tensor<D>& v,
                    const Tensor<D, std::int32_t>& offsets, const AttentionShape& shape,
                    Where where = Where::here()) {
  detail::require_backend<D>();
  const Index n = q.dim(0), sequences = offsets.dim(0) - 1;
  const Shape keys{n, shape.kv_heads * shape.head_size};
  if (q.dim(1) != shape.heads * shape.head_size || k.shape() != keys || v.shape() != keys ||
      shape.heads % shape.kv_heads != 0)
    fail(str("[attention] q ", q.shape(), ", k ", k.shape(), ", v ", v.shape(), " do not fit ",
             shape.heads, " heads over ", shape.kv_heads, " key/value heads of ", shape.head_size),
         where);
  if (shape.head_size > kMaxHeadSize)
    fail(str("[attention] the head size ", shape.head_size, " exceeds ", kMaxHeadSize), where);
  auto y = Tensor<D>::empty(q.shape());
  auto lse = Tensor<D>::empty({n, shape.heads});
  attention_forward(D{}, y.data(), lse.data(), q.data(), k.data(), v.data(), offsets.data(),
                    sequences, n, shape);
  if (recording(q, k, v))
    record(y, [=] {
      attention_backward(D{}, q.grad(), k.grad(), v.grad(), y.grad(), y.data(), lse.data(),
                         q.data(), k.data(), v.data(), offsets.data(), sequences, n, shape);
    });
  return detail::checked("attention", y);
}

/// Attention of new tokens to the cache of their slots, into which their keys and values go first.
/// q (M, H·D), k and v (M, Hkv·D), slots and positions (M) -> (M, H·D).
template <class D>
Tensor<D> cached_attention(const Tensor<D>& q, const Tensor<D>& k, const Tensor<D>& v,
                           const Tensor<D>& keys, const Tensor<D>& values,
                           const Tensor<D, std::int32_t>& slots,
                           const Tensor<D, std::int32_t>& positions, const KvShape& shape) {
  detail::require_backend<D>();
  const Index rows = q.dim(0);
  kv_append(D{}, keys.data(), values.data(), k.data(), v.data(), slots.data(), positions.data(),
            rows, shape);
  auto y = Tensor<D>::empty(q.shape());
  attention_cached_forward(D{}, y.data(), q.data(), keys.data(), values.data(), slots.data(),
                           positions.data(), rows, shape);
  return detail::checked("cached_attention", y);
}

}}  // namespace plumb::v0_1
