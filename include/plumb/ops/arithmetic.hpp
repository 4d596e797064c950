// Arithmetic of tensors, element by element: two of one shape, or a matrix (N, C) with a row vector
// (C) or (1, C), or with a column vector (N, 1), on either side. There is no other broadcasting: a
// shape that was not meant is an error and no larger result.
#pragma once

#include <plumb/math/elementwise.hpp>
#include <plumb/ops/basic.hpp>

namespace plumb { inline namespace v0_1 {

namespace detail {

/// Whether x is a row or a column for a matrix of this shape.
inline bool stands_beside(const Shape& x, const Shape& matrix) {
  if (matrix.rank() != 2) return false;
  const bool row = x == Shape{matrix[1]} || x == Shape{1, matrix[1]};
  return row || x == Shape{matrix[0], 1};
}

/// x as the operand of a result (n, c) of this shape.
template <class D, class T>
Operand<T> operand(const Tensor<D, T>& x, const Shape& shape, Index c) {
  if (x.shape() == shape) return {x.data(), c, 1};
  const bool row = x.dim(-1) == c && x.size() == c;
  return row ? Operand<T>{x.data(), 0, 1} : Operand<T>{x.data(), 1, 0};
}

/// x.grad() += what of dy · ∂f/∂x falls on it, summed over the rows or columns that it stands for.
template <class D, class T>
void combine_gradient(const Tensor<D, T>& x, const T* dy, Operand<T> a, Operand<T> b, Arithmetic f,
                      bool by_a, Index n, Index c) {
  if (!x.requires_grad()) return;
  const Operand<T> own = by_a ? a : b;
  if (own.whole(c)) return combine_backward(D{}, x.grad(), dy, a, b, f, by_a, n, c);
  const auto each = Tensor<D, T>::zeros({n, c});
  combine_backward(D{}, each.data(), dy, a, b, f, by_a, n, c);
  if (own.column == 1)
    sum_rows(D{}, x.grad(), each.data(), n, c);
  else
    row_sums(D{}, x.grad(), each.data(), n, c, true);
}

template <class D, class T>
Tensor<D, T> combine(const char* op, const Tensor<D, T>& a, const Tensor<D, T>& b, Arithmetic f,
                     Where where) {
  require_backend<D>();
  const bool a_leads = a.shape() == b.shape() || stands_beside(b.shape(), a.shape());
  if (!a_leads && !stands_beside(a.shape(), b.shape()))
    fail(str("[", op, "] shapes differ: ", a.shape(), " and ", b.shape(),
             ". HINT: beside a matrix (N, C) may stand (C), (1, C) or (N, 1)"),
         where);
  const Shape shape = a_leads ? a.shape() : b.shape();
  const Index c = shape.rank() == 2 ? shape[1] : shape.size(), n = c == 0 ? 0 : shape.size() / c;
  auto y = Tensor<D, T>::empty(shape);
  combine_forward(D{}, y.data(), operand(a, shape, c), operand(b, shape, c), f, n, c);
  if (recording(a, b))
    record(y, [y, a, b, f, n, c] {
      const auto of_a = operand(a, y.shape(), c), of_b = operand(b, y.shape(), c);
      combine_gradient(a, y.grad(), of_a, of_b, f, true, n, c);
      combine_gradient(b, y.grad(), of_a, of_b, f, false, n, c);
    });
  return checked(op, y);
}

template <class D, class T>
Tensor<D, T> apply(const char* op, const Tensor<D, T>& x, Function f) {
  require_backend<D>();
  auto y = Tensor<D, T>::empty(x.shape());
  function_forward(D{}, y.data(), x.data(), f, y.size());
  if (recording(x))
    record(y, [y, x, f] { function_backward(D{}, x.grad(), y.grad(), x.data(), f, y.size()); });
  return checked(op, y);
}

}  // namespace detail

/// a + b.
template <class D, class T>
Tensor<D, T> add(const Tensor<D, T>& a, const Tensor<D, T>& b, Where where = Where::here()) {
  return detail::combine("add", a, b, Arithmetic::Add, where);
}
/// a - b.
template <class D, class T>
Tensor<D, T> sub(const Tensor<D, T>& a, const Tensor<D, T>& b, Where where = Where::here()) {
  return detail::combine("sub", a, b, Arithmetic::Subtract, where);
}
/// a · b, element by element.
template <class D, class T>
Tensor<D, T> mul(const Tensor<D, T>& a, const Tensor<D, T>& b, Where where = Where::here()) {
  return detail::combine("mul", a, b, Arithmetic::Multiply, where);
}
/// a / b.
template <class D, class T>
Tensor<D, T> div(const Tensor<D, T>& a, const Tensor<D, T>& b, Where where = Where::here()) {
  return detail::combine("div", a, b, Arithmetic::Divide, where);
}
/// The smaller of the two; NaN if either is. Where they are equal, half of the gradient goes to
/// each, as PyTorch's.
template <class D, class T>
Tensor<D, T> minimum(const Tensor<D, T>& a, const Tensor<D, T>& b, Where where = Where::here()) {
  return detail::combine("minimum", a, b, Arithmetic::Minimum, where);
}
/// The larger of the two; see minimum.
template <class D, class T>
Tensor<D, T> maximum(const Tensor<D, T>& a, const Tensor<D, T>& b, Where where = Where::here()) {
  return detail::combine("maximum", a, b, Arithmetic::Maximum, where);
}

/// x + term.
template <class D, class T>
Tensor<D, T> shift(const Tensor<D, T>& x, std::type_identity_t<T> term) {
  detail::require_backend<D>();
  auto y = Tensor<D, T>::empty(x.shape());
  shift_forward(D{}, y.data(), x.data(), term, y.size());
  if (recording(x)) record(y, [y, x] { accumulate(D{}, x.grad(), y.grad(), T{1}, y.size()); });
  return detail::checked("shift", y);
}

/// x within [low, high]; no gradient where it is outside.
template <class D, class T>
Tensor<D, T> clamp(const Tensor<D, T>& x, std::type_identity_t<T> low, std::type_identity_t<T> high,
                   Where where = Where::here()) {
  detail::require_backend<D>();
  if (!(low <= high))
    fail(str("[clamp] the bounds ", low, " and ", high, " enclose nothing"), where);
  auto y = Tensor<D, T>::empty(x.shape());
  clamp_forward(D{}, y.data(), x.data(), low, high, y.size());
  if (recording(x))
    record(y, [y, x, low, high] {
      clamp_backward(D{}, x.grad(), y.grad(), x.data(), low, high, y.size());
    });
  return detail::checked("clamp", y);
}

template <class D, class T>
Tensor<D, T> neg(const Tensor<D, T>& x) {
  return scale(x, T{-1});
}
template <class D, class T>
Tensor<D, T> exp(const Tensor<D, T>& x) {
  return detail::apply("exp", x, Function::Exp);
}
/// Natural logarithm.
template <class D, class T>
Tensor<D, T> log(const Tensor<D, T>& x) {
  return detail::apply("log", x, Function::Log);
}
template <class D, class T>
Tensor<D, T> erf(const Tensor<D, T>& x) {
  return detail::apply("erf", x, Function::Erf);
}
template <class D, class T>
Tensor<D, T> sqrt(const Tensor<D, T>& x) {
  return detail::apply("sqrt", x, Function::Sqrt);
}
/// 1 / (1 + e^-x).
template <class D, class T>
Tensor<D, T> sigmoid(const Tensor<D, T>& x) {
  return detail::apply("sigmoid", x, Function::Sigmoid);
}
/// log(1 + e^x).
template <class D, class T>
Tensor<D, T> softplus(const Tensor<D, T>& x) {
  return detail::apply("softplus", x, Function::Softplus);
}

template <class D, class T>
Tensor<D, T> operator+(const Tensor<D, T>& a, const Tensor<D, T>& b) {
  return add(a, b);
}
template <class D, class T>
Tensor<D, T> operator-(const Tensor<D, T>& a, const Tensor<D, T>& b) {
  return sub(a, b);
}
template <class D, class T>
Tensor<D, T> operator*(const Tensor<D, T>& a, const Tensor<D, T>& b) {
  return mul(a, b);
}
template <class D, class T>
Tensor<D, T> operator/(const Tensor<D, T>& a, const Tensor<D, T>& b) {
  return div(a, b);
}
template <class D, class T>
Tensor<D, T> operator-(const Tensor<D, T>& x) {
  return neg(x);
}
template <class D, class T>
Tensor<D, T> operator+(const Tensor<D, T>& x, std::type_identity_t<T> term) {
  return shift(x, term);
}
template <class D, class T>
Tensor<D, T> operator-(const Tensor<D, T>& x, std::type_identity_t<T> term) {
  return shift(x, -term);
}
template <class D, class T>
Tensor<D, T> operator*(const Tensor<D, T>& x, std::type_identity_t<T> factor) {
  return scale(x, factor);
}
template <class D, class T>
Tensor<D, T> operator*(std::type_identity_t<T> factor, const Tensor<D, T>& x) {
  return scale(x, factor);
}

}}  // namespace plumb::v0_1
