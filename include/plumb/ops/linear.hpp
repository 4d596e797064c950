// The linear layer, with its bias and a residual in one pass.
#pragma once

#include <plumb/core/bf16.hpp>
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
/// Rounded to bf16, it is half as long to read; sums stay in float.
template <class D>
struct PackedWeight {
  Tensor<D> exact;          ///< this,
  Tensor<D, bf16> rounded;  ///< or this
  Index out = 0, in = 0;

  PackedWeight() = default;
  explicit PackedWeight(const Tensor<D>& weight, bool to_bf16 = false) {
    if (!weight) return;
    out = weight.dim(0);
    in = weight.dim(1);
    const Shape shape{packed_size(D{}, out, in)};
    if (to_bf16) {
      rounded = Tensor<D, bf16>::empty(shape);
      pack_matrix(D{}, rounded.data(), weight.data(), out, in);
    } else {
      exact = Tensor<D>::empty(shape);
      pack_matrix(D{}, exact.data(), weight.data(), out, in);
    }
  }
  explicit operator bool() const { return exact || rounded; }
};

/// The bits that the weight itself gives, or for bf16 the weight rounded. x (N, in) -> y (N, out).
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
  const auto multiply = [&](const auto* packed) {
    matmul_packed(D{}, y.data(), x.data(), packed, n, weight.out, weight.in,
                  Epilogue{bias ? bias.data() : nullptr, residual ? residual.data() : nullptr});
  };
  if (weight.rounded)
    multiply(weight.rounded.data());
  else
    multiply(weight.exact.data());
  return detail::checked("linear", y);
}

}  // namespace plumb::inline v0_1
