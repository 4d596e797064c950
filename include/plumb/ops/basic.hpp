// Small differentiable ops: embedding and row gathering, addition, activations, SwiGLU, rotary
// positions, weighted sums. Each is: check, allocate, forward kernel, recorded backward kernel.
#pragma once

#include <plumb/core/tape.hpp>
#include <plumb/math/activation.hpp>
#include <plumb/math/backend.hpp>

#include <cmath>

namespace plumb { inline namespace v0_1 {

namespace detail {

// With it on, every op verifies that its result is finite: how a trainer that met a NaN finds the
// op.
inline thread_local bool check_finite = false;

template <class D>
Tensor<D> checked(const char* op, Tensor<D> y) {
  if (check_finite) [[unlikely]] {
    const auto values = y.to_vector();
    for (std::size_t i = 0; i < values.size(); ++i)
      if (!std::isfinite(values[i]))
        fail<NumericError>(str("[", op, "] element ", i, " of the result ", y.shape(), " is ",
                               values[i], ", the first value of the forward pass not finite"));
  }
  return y;
}

}  // namespace detail

/// Every op in this scope verifies that its result is finite and names itself if not. Slow.
class CheckFinite {
 public:
  CheckFinite() : outer_(std::exchange(detail::check_finite, true)) {}
  ~CheckFinite() { detail::check_finite = outer_; }
  CheckFinite(const CheckFinite&) = delete;
  CheckFinite& operator=(const CheckFinite&) = delete;

 private:
  bool outer_;
};

/// Rows of a table: y[i] = table[ids[i]].
/// table (V, C), ids (N) in [0, V) -> y (N, C). The caller vouches for the range of device ids.
template <class D>
Tensor<D> embedding(const Tensor<D>& table, const Tensor<D, std::int32_t>& ids,
                    Where where = Where::here()) {
  detail::require_backend<D>();
  if (table.shape().rank() != 2 || ids.shape().rank() != 1)
    fail(str("[embedding] expected a table (V, C) and ids (N); got ", table.shape(), " and ",
             ids.shape()),
         where);
  const Index n = ids.dim(0), c = table.dim(1);
  auto y = Tensor<D>::empty({n, c});
  embedding_forward(D{}, y.data(), table.data(), ids.data(), n, c);
  if (recording(table))
    record(y, [y, table, ids, n, c] {
      embedding_backward(D{}, table.grad(), y.grad(), ids.data(), n, c, table.dim(0));
    });
  return detail::checked("embedding", y);
}

/// y = a + b, same shape.
template <class D>
Tensor<D> add(const Tensor<D>& a, const Tensor<D>& b, Where where = Where::here()) {
  detail::require_backend<D>();
  if (a.shape() != b.shape())
    fail(str("[add] shapes differ: ", a.shape(), " and ", b.shape()), where);
  auto y = Tensor<D>::empty(a.shape());
  add_forward(D{}, y.data(), a.data(), b.data(), y.size());
  if (recording(a, b))
    record(y, [y, a, b] {
      if (a.requires_grad()) accumulate(D{}, a.grad(), y.grad(), 1.0F, y.size());
      if (b.requires_grad()) accumulate(D{}, b.grad(), y.grad(), 1.0F, y.size());
    });
  return detail::checked("add", y);
}

/// y = factor · x.
template <class D>
Tensor<D> scale(const Tensor<D>& x, float factor) {
  detail::require_backend<D>();
  auto y = Tensor<D>::empty(x.shape());
  scale_forward(D{}, y.data(), x.data(), factor, y.size());
  if (recording(x))
    record(y, [y, x, factor] { accumulate(D{}, x.grad(), y.grad(), factor, y.size()); });
  return detail::checked("scale", y);
}

/// y = f(x), element by element.
template <class D>
Tensor<D> activate(const Tensor<D>& x, Activation f) {
  detail::require_backend<D>();
  auto y = Tensor<D>::empty(x.shape());
  activation_forward(D{}, y.data(), x.data(), f, y.size());
  if (recording(x))
    record(y, [y, x, f] { activation_backward(D{}, x.grad(), y.grad(), x.data(), f, y.size()); });
  return detail::checked("activate", y);
}

/// GELU, tanh form (Hendrycks and Gimpel 2016; GPT-2).
template <class D>
Tensor<D> gelu(const Tensor<D>& x) {
  return activate(x, Activation::Gelu);
}
/// GELU without the approximation, x · Φ(x).
template <class D>
Tensor<D> gelu_erf(const Tensor<D>& x) {
  return activate(x, Activation::GeluErf);
}
template <class D>
Tensor<D> tanh(const Tensor<D>& x) {
  return activate(x, Activation::Tanh);
}
template <class D>
Tensor<D> relu(const Tensor<D>& x) {
  return activate(x, Activation::Relu);
}

/// y = silu(gate) · up (Shazeer 2020).
template <class D>
Tensor<D> swiglu(const Tensor<D>& gate, const Tensor<D>& up, Where where = Where::here()) {
  detail::require_backend<D>();
  if (gate.shape() != up.shape())
    fail(str("[swiglu] shapes differ: gate ", gate.shape(), ", up ", up.shape()), where);
  auto y = Tensor<D>::empty(gate.shape());
  swiglu_forward(D{}, y.data(), gate.data(), up.data(), y.size());
  if (recording(gate, up))
    record(y, [y, gate, up] {
      swiglu_backward(D{}, gate.grad(), up.grad(), y.grad(), gate.data(), up.data(), y.size());
    });
  return detail::checked("swiglu", y);
}

/// Rotary position embedding (Su et al. 2021) on pairs (2i, 2i+1), as llama2.c.
/// x (N, H·D), cosine and sine (T, D/2), positions (N) in [0, T) -> y (N, H·D).
template <class D>
Tensor<D> rope(const Tensor<D>& x, const Tensor<D>& cosine, const Tensor<D>& sine,
               const Tensor<D, std::int32_t>& positions, Where where = Where::here()) {
  detail::require_backend<D>();
  const Index n = positions.dim(0), head_size = 2 * cosine.dim(1);
  if (x.shape().rank() != 2 || x.dim(0) != n || x.dim(1) % head_size != 0)
    fail(str("[rope] x ", x.shape(), " does not consist of ", n, " rows of heads of ", head_size),
         where);
  const Index heads = x.dim(1) / head_size;
  auto y = Tensor<D>::empty(x.shape());
  rope_forward(D{}, y.data(), x.data(), cosine.data(), sine.data(), positions.data(), n, heads,
               head_size);
  if (recording(x))
    record(y, [=] {
      rope_backward(D{}, x.grad(), y.grad(), cosine.data(), sine.data(), positions.data(), n, heads,
                    head_size);
    });
  return detail::checked("rope", y);
}

/// Σ weight[i] · x[i] over all elements: how token losses become one number. The weights carry the
/// denominators of the whole batch, so that splitting a batch never changes its loss.
/// x, weight (N) -> (). No gradient flows to the weights.
template <class D>
Tensor<D> weighted_sum(const Tensor<D>& x, const Tensor<D>& weight, Where where = Where::here()) {
  detail::require_backend<D>();
  if (x.size() != weight.size())
    fail(str("[weighted_sum] x ", x.shape(), " and weight ", weight.shape(), " differ in size"),
         where);
  auto y = Tensor<D>::empty({});
  weighted_sum(D{}, y.data(), x.data(), weight.data(), x.size());
  if (recording(x))
    record(y, [y, x, weight] { accumulate_by(D{}, x.grad(), weight.data(), y.grad(), x.size()); });
  return detail::checked("weighted_sum", y);
}

}}  // namespace plumb::v0_1
