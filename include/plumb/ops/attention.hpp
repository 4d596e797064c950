// Causal self-attention over packed sequences. The cached form, used for generation, computes the
// same bits per row and is not differentiable.
#pragma once

#include <plumb/math/attention.hpp>
#include <plumb/ops/basic.hpp>

namespace plumb { inline namespace v0_1 {

/// Which rows of keys and values each sequence sees, if not just those of its queries: sequence b
/// rows[offsets[b]] … rows[offsets[b + 1] - 1], where beginnings are shared (data/packing.hpp). Its
/// queries are the last of these positions.
template <class D>
struct SharedKeys {
  Tensor<D, std::int32_t> offsets;  ///< (B+1); none: those of the queries
  Tensor<D, std::int32_t> rows;     ///< none: all rows in their order
};

/// softmax(q·kᵀ · scale)·v per head and sequence, each token seeing itself and what precedes it in
/// its own sequence, or in that which it continues. The bits of a row are those that it has in a
/// batch of whole sequences; the gradients of a shared row are added in the order of the sequences
/// that see it.
/// q (N, H·D), k and v (M, Hkv·D), offsets (B+1) of q's rows -> (N, H·D).
template <class D, class T>
Tensor<D, T> attention(const Tensor<D, T>& q, const Tensor<D, T>& k, const Tensor<D, T>& v,
                       const Tensor<D, std::int32_t>& offsets, const AttentionShape& shape,
                       const SharedKeys<D>& shared = {}, Where where = Where::here()) {
  detail::require_backend<D>();
  const Index n = q.dim(0), sequences = offsets.dim(0) - 1, rows = k.dim(0);
  const Shape keys{rows, shape.kv_heads * shape.head_size};
  if (q.dim(1) != shape.heads * shape.head_size || k.shape() != keys || v.shape() != keys ||
      shape.heads % shape.kv_heads != 0)
    fail(str("[attention] q ", q.shape(), ", k ", k.shape(), ", v ", v.shape(), " do not fit ",
             shape.heads, " heads over ", shape.kv_heads, " key/value heads of ", shape.head_size),
         where);
  if (shape.head_size > kMaxHeadSize)
    fail(str("[attention] the head size ", shape.head_size, " exceeds ", kMaxHeadSize), where);
  auto y = Tensor<D, T>::empty(q.shape());
  auto lse = Tensor<D, T>::empty({n, shape.heads});
  const auto of_keys = shared.offsets ? shared.offsets : offsets;
  if (of_keys.dim(0) != sequences + 1 || (of_keys.data() == offsets.data() && rows != n))
    fail(str("[attention] ", n, " queries, ", rows, " keys and offsets ", of_keys.shape(),
             " of these do not fit ", sequences, " sequences"),
         where);
  const bool spread = static_cast<bool>(shared.rows);
  const Index seen = spread ? shared.rows.size() : rows;
  // Keys or values as each sequence sees them, one sequence after another; not kept for backward.
  const auto as_seen = [=](const Tensor<D, T>& x) {
    if (!spread) return x;
    auto all = Tensor<D, T>::empty({seen, x.dim(1)});
    embedding_forward(D{}, all.data(), x.data(), shared.rows.data(), seen, x.dim(1));
    return all;
  };
  attention_forward(D{}, y.data(), lse.data(), q.data(), as_seen(k).data(), as_seen(v).data(),
                    offsets.data(), of_keys.data(), sequences, n, seen, shape);
  if (recording(q, k, v))
    record(y, [=] {
      const auto all_k = as_seen(k), all_v = as_seen(v);
      const auto dk = spread ? Tensor<D, T>::zeros(all_k.shape()) : Tensor<D, T>{};
      const auto dv = spread ? Tensor<D, T>::zeros(all_v.shape()) : Tensor<D, T>{};
      attention_backward(D{}, q.grad(), spread ? dk.data() : k.grad(),
                         spread ? dv.data() : v.grad(), y.grad(), y.data(), lse.data(), q.data(),
                         all_k.data(), all_v.data(), offsets.data(), of_keys.data(), sequences, n,
                         seen, shape);
      if (!spread) return;
      embedding_backward(D{}, k.grad(), dk.data(), shared.rows.data(), seen, k.dim(1), rows);
      embedding_backward(D{}, v.grad(), dv.data(), shared.rows.data(), seen, v.dim(1), rows);
    });
  return detail::checked("attention", y);
}

/// Attention of new tokens to the cache of their slots, into which their keys and values go first.
/// q (M, H·D), k and v (M, Hkv·D), slots and positions (M) -> (M, H·D). T: float, or bf16, to which
/// the cache rounds.
template <class D, class T>
Tensor<D> cached_attention(const Tensor<D>& q, const Tensor<D>& k, const Tensor<D>& v,
                           const Tensor<D, T>& keys, const Tensor<D, T>& values,
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
