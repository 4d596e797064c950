// The linear layer, with its bias and a residual in one pass.
#pragma once

#include <plumb/ops/basic.hpp>

namespace plumb::inline v0_1 {

namespace detail {
template <class D>
void check_epilogue(const Tensor<D>& bias, const Tensor<D>& residual, Index n, Index out,
                    Where where) {
  if (bias && bias.size() != out)
    fail(str("[linear] bias is ", bias.shape(), ", expected (", out, ")"), where);
  if (residual && residual.shape() != Shape{n, out})
    fail(str("[linear] residual is ", residual.shape(), ", expected ", Shape{n, out}), where);
}
}  // namespace detail

/// y = x·Wᵀ (+ bias) (+ residual).
/// x (N, in), weight (out, in), bias (out) or none, residual (N, out) or none -> y (N, out).
template <class D>
Tensor<D> linear(const Tensor<D>& x, const Tensor<D>& weight, const Tensor<D>& bias = {},
                 const Tensor<D>& residual = {}, Where where = Where::here()) {
  detail::require_backend<D>();
  if (x.shape().rank() != 2 || weight.shape().rank() != 2 || x.dim(1) != weight.dim(1))
    fail(str("[linear] inner sizes differ: x is ", x.shape(), ", weight is ", weight.shape(),
             ". HINT: weight is (out, in), x is (rows, in)"),
         where);
  const Index n = x.dim(0), in = x.dim(1), out = weight.dim(0);
  detail::check_epilogue(bias, residual, n, out, where);

  auto y = Tensor<D>::empty({n, out});
  matmul(D{}, y.data(), x.data(), weight.data(), n, out, in, Form::NT, false,
         Epilogue{bias ? bias.data() : nullptr, residual ? residual.data() : nullptr});
  if (recording(x, weight, bias, residual))
    record(y, [y, x, weight, bias, residual, n, in, out] {
      const float* dy = y.grad();
      if (weight.requires_grad())
        matmul(D{}, weight.grad(), dy, x.data(), out, in, n, Form::TN, true);
      if (bias.requires_grad()) sum_rows(D{}, bias.grad(), dy, n, out);
      if (x.requires_grad()) {
        const auto dx = x.grad_target();
        matmul(D{}, dx.data, dy, weight.data(), n, in, out, Form::NN, dx.accumulate);
      }
      if (residual.requires_grad()) accumulate(D{}, residual.grad(), dy, 1.0F, n * out);
    });
  return detail::checked("linear", y);
}

/// A weight (out, in) in the order that products of few rows read fastest, with the values that it had
/// when it was packed: for generation, where the weights stay as they are. No gradient flows to it.
template <class D>
struct PackedWeight {
  Tensor<D> packed;
  Index out = 0, in = 0;

  PackedWeight() = default;
  explicit PackedWeight(const Tensor<D>& weight) {
    if (!weight) return;
    out = weight.dim(0);
    in = weight.dim(1);
    packed = Tensor<D>::empty({packed_size(D{}, out, in)});
    pack_matrix(D{}, packed.data(), weight.data(), out, in);
  }
  explicit operator bool() const { return static_cast<bool>(packed); }
};

/// The same bits as with the weight itself. x (N, in) -> y (N, out).
template <class D>
Tensor<D> linear(const Tensor<D>& x, const PackedWeight<D>& weight, const Tensor<D>& bias = {},
                 const Tensor<D>& residual = {}, Where where = Where::here()) {
  if (x.shape().rank() != 2 || x.dim(1) != weight.in)
    fail(str("[linear] inner sizes differ: x is ", x.shape(), ", the packed weight ",
             Shape{weight.out, weight.in}),
         where);
  const Index n = x.dim(0);
  detail::check_epilogue(bias, residual, n, weight.out, where);
  auto y = Tensor<D>::empty({n, weight.out});
  matmul_packed(D{}, y.data(), x.data(), weight.packed.data(), n, weight.out, weight.in,
                Epilogue{bias ? bias.data() : nullptr, residual ? residual.data() : nullptr});
  return detail::checked("linear", y);
}

}  // namespace plumb::inline v0_1
