// Small differentiable ops: embedding and row gathering, activations, SwiGLU, rotary positions,
// weighted sums. Each is: check, allocate, forward kernel, recorded backward kernel. The others:
// arithmetic.hpp, reduce.hpp, arrange.hpp.
#pragma once

#include <plumb/core/tape.hpp>
#include <plumb/math/activation.hpp>
#include <plumb/math/backend.hpp>

#include <cmath>
#include <type_traits>

namespace plumb { inline namespace v0_1 {

namespace detail {

// With it on, every op verifies that its result is finite: how a trainer that met a NaN finds the
// op.
inline thread_local bool check_finite = false;

template <class D, class T>
Tensor<D, T> checked(const char* op, Tensor<D, T> y) {
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
template <class D, class T>
Tensor<D, T> embedding(const Tensor<D, T>& table, const Tensor<D, std::int32_t>& ids,
                       Where where = Where::here()) {
  detail::require_backend<D>();
  if (table.shape().rank() != 2 || ids.shape().rank() != 1)
    fail(str("[embedding] expected a table (V, C) and ids (N); got ", table.shape(), " and ",
             ids.shape()),
         where);
  const Index n = ids.dim(0), c = table.dim(1);
  auto y = Tensor<D, T>::empty({n, c});
  embedding_forward(D{}, y.data(), table.data(), ids.data(), n, c);
  if (recording(table))
    record(y, [y, table, ids, n, c] {
      embedding_backward(D{}, table.grad(), y.grad(), ids.data(), n, c, table.dim(0));
    });
  return detail::checked("embedding", y);
}

/// y = factor · x.
template <class D, class T>
Tensor<D, T> scale(const Tensor<D, T>& x, std::type_identity_t<T> factor) {
  detail::require_backend<D>();
  auto y = Tensor<D, T>::empty(x.shape());
  scale_forward(D{}, y.data(), x.data(), factor, y.size());
  if (recording(x))
    record(y, [y, x, factor] { accumulate(D{}, x.grad(), y.grad(), factor, y.size()); });
  return detail::checked("scale", y);
}

/// y = f(x), element by element.
template <class D, class T>
Tensor<D, T> activate(const Tensor<D, T>& x, Activation f) {
  detail::require_backend<D>();
  auto y = Tensor<D, T>::empty(x.shape());
  activation_forward(D{}, y.data(), x.data(), f, y.size());
  if (recording(x))
    record(y, [y, x, f] { activation_backward(D{}, x.grad(), y.grad(), x.data(), f, y.size()); });
  return detail::checked("activate", y);
}

/// GELU, tanh form (Hendrycks and Gimpel 2016; GPT-2).
template <class D, class T>
Tensor<D, T> gelu(const Tensor<D, T>& x) {
  return activate(x, Activation::Gelu);
}
/// GELU without the approximation, x · Φ(x).
template <class D, class T>
Tensor<D, T> gelu_erf(const Tensor<D, T>& x) {
  return activate(x, Activation::GeluErf);
}
template <class D, class T>
Tensor<D, T> tanh(const Tensor<D, T>& x) {
  return activate(x, Activation::Tanh);
}
template <class D, class T>
Tensor<D, T> relu(const Tensor<D, T>& x) {
  return activate(x, Activation::Relu);
}
/// x · sigmoid(x).
template <class D, class T>
Tensor<D, T> silu(const Tensor<D, T>& x) {
  return activate(x, Activation::Silu);
}

/// y = silu(gate) · up (Shazeer 2020).
template <class D, class T>
Tensor<D, T> swiglu(const Tensor<D, T>& gate, const Tensor<D, T>& up, Where where = Where::here()) {
  detail::require_backend<D>();
  if (gate.shape() != up.shape())
    fail(str("[swiglu] shapes differ: gate ", gate.shape(), ", up ", up.shape()), where);
  auto y = Tensor<D, T>::empty(gate.shape());
  swiglu_forward(D{}, y.data(), gate.data(), up.data(), y.size());
  if (recording(gate, up))
    record(y, [y, gate, up] {
      swiglu_backward(D{}, gate.grad(), up.grad(), y.grad(), gate.data(), up.data(), y.size());
    });
  return detail::checked("swiglu", y);
}

/// Rotary position embedding (Su et al. 2021) on pairs (2i, 2i+1), as llama2.c.
/// x (N, H·D), cosine and sine (T, D/2), positions (N) in [0, T) -> y (N, H·D).
template <class D, class T>
Tensor<D, T> rope(const Tensor<D, T>& x, const Tensor<D, T>& cosine, const Tensor<D, T>& sine,
                  const Tensor<D, std::int32_t>& positions, Where where = Where::here()) {
  detail::require_backend<D>();
  const Index n = positions.dim(0), head_size = 2 * cosine.dim(1);
  if (x.shape().rank() != 2 || x.dim(0) != n || x.dim(1) % head_size != 0)
    fail(str("[rope] x ", x.shape(), " does not consist of ", n, " rows of heads of ", head_size),
         where);
  const Index heads = x.dim(1) / head_size;
  auto y = Tensor<D, T>::empty(x.shape());
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
template <class D, class T>
Tensor<D, T> weighted_sum(const Tensor<D, T>& x, const Tensor<D, T>& weight,
                          Where where = Where::here()) {
  detail::require_backend<D>();
  if (x.size() != weight.size())
    fail(str("[weighted_sum] x ", x.shape(), " and weight ", weight.shape(), " differ in size"),
         where);
  auto y = Tensor<D, T>::empty({});
  weighted_sum(D{}, y.data(), x.data(), weight.data(), x.size());
  if (recording(x))
    record(y, [y, x, weight] { accumulate_by(D{}, x.grad(), weight.data(), y.grad(), x.size()); });
  return detail::checked("weighted_sum", y);
}

}}  // namespace plumb::v0_1
