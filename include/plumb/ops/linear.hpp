// The linear layer, with its bias and a residual in one pass; its weight trained, or packed and
// constant.
#pragma once

#include <plumb/core/bf16.hpp>
#include <plumb/math/activation.hpp>
#include <plumb/math/gemm.hpp>
#include <plumb/math/int8.hpp>
#include <plumb/ops/basic.hpp>

namespace plumb { inline namespace v0_1 {

namespace detail {

template <class D, class T>
void check_linear(const Tensor<D, T>& x, const Tensor<D, T>& weight, Where where) {
  require_backend<D>();
  if (x.shape().rank() != 2 || weight.shape().rank() != 2 || x.dim(1) != weight.dim(1))
    fail(str("[linear] inner sizes differ: x is ", x.shape(), ", weight is ", weight.shape(),
             ". HINT: weight is (out, in), x is (rows, in)"),
         where);
}

template <class D, class T>
void check_epilogue(const Tensor<D, T>& bias, const Tensor<D, T>& residual, Index n, Index out,
                    Where where) {
  if (bias && bias.size() != out)
    fail(str("[linear] bias is ", bias.shape(), ", expected (", out, ")"), where);
  if (residual && residual.shape() != Shape{n, out})
    fail(str("[linear] residual is ", residual.shape(), ", expected ", Shape{n, out}), where);
}

template <class D, class T>
EpilogueOf<T> epilogue(const Tensor<D, T>& bias, const Tensor<D, T>& residual) {
  return {.bias = bias ? bias.data() : nullptr, .residual = residual ? residual.data() : nullptr};
}

/// The gradients of y = x·Wᵀ + bias, from dy (N, out).
template <class D, class T>
void linear_backward(const T* dy, const Tensor<D, T>& x, const Tensor<D, T>& weight,
                     const Tensor<D, T>& bias) {
  const Index n = x.dim(0), in = x.dim(1), out = weight.dim(0);
  if (weight.requires_grad()) matmul(D{}, weight.grad(), dy, x.data(), out, in, n, Form::TN, true);
  if (bias.requires_grad()) sum_rows(D{}, bias.grad(), dy, n, out);
  if (x.requires_grad()) {
    const auto dx = x.grad_target();
    matmul(D{}, dx.data, dy, weight.data(), n, in, out, Form::NN, dx.accumulate);
  }
}

}  // namespace detail

/// y = x·Wᵀ (+ bias) (+ residual).
/// x (N, in), weight (out, in), bias (out) or none, residual (N, out) or none -> y (N, out).
template <class D, class T>
Tensor<D, T> linear(const Tensor<D, T>& x, const Tensor<D, T>& weight,
                    const Tensor<D, T>& bias = {}, const Tensor<D, T>& residual = {},
                    Where where = Where::here()) {
  detail::check_linear(x, weight, where);
  const Index n = x.dim(0), in = x.dim(1), out = weight.dim(0);
  detail::check_epilogue(bias, residual, n, out, where);

  auto y = Tensor<D, T>::empty({n, out});
  matmul(D{}, y.data(), x.data(), weight.data(), n, out, in, Form::NT, false,
         detail::epilogue(bias, residual));
  if (recording(x, weight, bias, residual))
    record(y, [y, x, weight, bias, residual] {
      detail::linear_backward(y.grad(), x, weight, bias);
      if (residual.requires_grad()) accumulate(D{}, residual.grad(), y.grad(), T{1}, y.size());
    });
  return detail::checked("linear", y);
}

/// y += x·Wᵀ, where it stands: y (N, out) is what a linear() has just computed, and nobody has
/// read yet; neither its backward nor its residual's reads y. x (N, in), weight (out, in). Up to
/// kChunk inputs the bits are those of linear(x, weight, {}, y).
template <class D, class T>
void add_linear(const Tensor<D, T>& y, const Tensor<D, T>& x, const Tensor<D, T>& weight,
                Where where = Where::here()) {
  detail::check_linear(x, weight, where);
  const Index n = x.dim(0), in = x.dim(1), out = weight.dim(0);
  if (y.shape() != Shape{n, out})
    fail(str("[add_linear] y is ", y.shape(), ", expected ", Shape{n, out}), where);
  matmul(D{}, y.data(), x.data(), weight.data(), n, out, in, Form::NT, true);
  if (recording(x, weight))
    record(y, [y, x, weight] { detail::linear_backward(y.grad(), x, weight, Tensor<D, T>{}); });
  detail::checked("add_linear", y);
}

/// y = f(x·Wᵀ + bias), each part while it is in the cache; the bits of linear and the activation.
/// x (N, in), weight (out, in), bias (out) or none -> y (N, out).
template <class D, class T>
Tensor<D, T> activated_linear(const Tensor<D, T>& x, const Tensor<D, T>& weight,
                              const Tensor<D, T>& bias, Activation f, Where where = Where::here()) {
  detail::check_linear(x, weight, where);
  const Index n = x.dim(0), in = x.dim(1), out = weight.dim(0);
  detail::check_epilogue(bias, Tensor<D, T>{}, n, out, where);

  const bool recorded = recording(x, weight, bias);
  auto y = Tensor<D, T>::empty({n, out});
  const auto z = recorded ? Tensor<D, T>::empty({n, out}) : y;  // before the activation
  EpilogueOf<T> epilogue = detail::epilogue(bias, Tensor<D, T>{});
  epilogue.activated = y.data();
  epilogue.activation = f;
  matmul(D{}, z.data(), x.data(), weight.data(), n, out, in, Form::NT, false, epilogue);
  if (recorded)
    record(y, [y, z, x, weight, bias, f] {
      const auto dz = Tensor<D, T>::zeros(z.shape());
      activation_backward(D{}, dz.data(), y.grad(), z.data(), f, z.size());
      detail::linear_backward(dz.data(), x, weight, bias);
    });
  return detail::checked("activated_linear", y);
}

/// A weight (out, in) in the order that products of few rows read fastest, with the values that it
/// had when it was packed: for generation, where the weights stay as they are, and for weights that
/// are not trained. No gradient flows to it, but through it. Rounded to bf16, as devices whose
/// products are in bf16 keep it always, it is half as long to read; in eight bits (cpu/int8.hpp) it
/// takes least, and is expanded for each product. On other devices what it is multiplied by stays
/// in float.
template <class D>
struct PackedWeight {
  Tensor<D> exact;               ///< this,
  Tensor<D, bf16> rounded;       ///< or this,
  Tensor<D, std::int8_t> codes;  ///< or this, with
  Tensor<D> scales;              ///< these
  Index out = 0, in = 0;

  PackedWeight() = default;
  explicit PackedWeight(const Tensor<D>& weight, bool to_bf16 = false) {
    if (!weight) return;
    out = weight.dim(0);
    in = weight.dim(1);
    const Shape shape{packed_size(D{}, out, in)};
    if (to_bf16 || rounds_products<D>) {
      rounded = Tensor<D, bf16>::empty(shape);
      pack_matrix(D{}, rounded.data(), weight.data(), out, in);
    } else {
      exact = Tensor<D>::empty(shape);
      pack_matrix(D{}, exact.data(), weight.data(), out, in);
    }
  }
  explicit operator bool() const { return exact || rounded || codes; }

  static PackedWeight int8(const Tensor<D>& weight) {
    PackedWeight packed;
    packed.out = weight.dim(0);
    packed.in = weight.dim(1);
    packed.codes = Tensor<D, std::int8_t>::empty(weight.shape());
    packed.scales = Tensor<D>::empty({packed.out, int8_blocks(packed.in)});
    quantize_rows(D{}, packed.codes.data(), packed.scales.data(), weight.data(), packed.out,
                  packed.in);
    return packed;
  }

  /// Its values as a matrix again, (out, in).
  Tensor<D> dense() const {
    auto weight = Tensor<D>::empty({out, in});
    if (codes)
      expand_rows(D{}, weight.data(), codes.data(), scales.data(), out, in);
    else if (rounded)
      unpack_matrix(D{}, weight.data(), rounded.data(), out, in);
    else
      unpack_matrix(D{}, weight.data(), exact.data(), out, in);
    return weight;
  }
};

namespace detail {
template <class D>
Tensor<D> packed_linear(const Tensor<D>& x, const PackedWeight<D>& weight, Epilogue epilogue,
                        const Activation* f, Where where) {
  if (x.shape().rank() != 2 || x.dim(1) != weight.in)
    fail(str("[linear] inner sizes differ: x is ", x.shape(), ", the packed weight ",
             Shape{weight.out, weight.in}),
         where);
  auto y = Tensor<D>::empty({x.dim(0), weight.out});
  if (f != nullptr) epilogue.activated = y.data(), epilogue.activation = *f;
  const auto multiply = [&](const auto* packed) {
    matmul_packed(D{}, y.data(), x.data(), packed, x.dim(0), weight.out, weight.in, epilogue);
  };
  if (weight.codes)
    matmul(D{}, y.data(), x.data(), weight.dense().data(), x.dim(0), weight.out, weight.in,
           Form::NT, false, epilogue);
  else if (weight.rounded)
    multiply(weight.rounded.data());
  else if constexpr (!rounds_products<D>)
    multiply(weight.exact.data());
  return checked("linear", y);
}
}  // namespace detail

/// The bits that the weight itself gives, or for bf16 the weight rounded. x (N, in) -> y (N, out).
/// Backward unpacks the weight into memory that it gives back.
template <class D>
Tensor<D> linear(const Tensor<D>& x, const PackedWeight<D>& weight, const Tensor<D>& bias = {},
                 const Tensor<D>& residual = {}, Where where = Where::here()) {
  detail::check_epilogue(bias, residual, x.dim(0), weight.out, where);
  const auto y = detail::packed_linear(x, weight, detail::epilogue(bias, residual), nullptr, where);
  if (recording(x, bias, residual))
    record(y, [y, x, weight, bias, residual] {
      if (x.requires_grad())
        detail::linear_backward(y.grad(), x, weight.dense(), bias);
      else if (bias.requires_grad())
        sum_rows(D{}, bias.grad(), y.grad(), y.dim(0), weight.out);
      if (residual.requires_grad()) accumulate(D{}, residual.grad(), y.grad(), 1.0F, y.size());
    });
  return y;
}
template <class D>
Tensor<D> activated_linear(const Tensor<D>& x, const PackedWeight<D>& weight, const Tensor<D>& bias,
                           Activation f, Where where = Where::here()) {
  if (recording(x, bias)) return activate(linear(x, weight, bias, {}, where), f);
  detail::check_epilogue(bias, {}, x.dim(0), weight.out, where);
  return detail::packed_linear(x, weight, detail::epilogue(bias, Tensor<D>{}), &f, where);
}

}}  // namespace plumb::v0_1
