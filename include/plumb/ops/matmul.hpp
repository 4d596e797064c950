// Products of matrices, or of as many pairs as a batch has, either operand transposed or not. A
// layer with its weight is linear() of linear.hpp, which has a bias and more.
#pragma once

#include <plumb/math/gemm.hpp>
#include <plumb/ops/arrange.hpp>

namespace plumb { inline namespace v0_1 {

/// Which operands of matmul are transposed first.
struct Transposed {
  bool a = false, b = false;
};

/// A·B, with the operands that `transposed` names as Aᵀ or Bᵀ: (M, K), (K, N) -> (M, N), or with a
/// batch in front of all three, (B, M, K), (B, K, N) -> (B, M, N).
template <class D, class T>
Tensor<D, T> matmul(const Tensor<D, T>& a, const Tensor<D, T>& b, Transposed transposed = {},
                    Where where = Where::here()) {
  detail::require_backend<D>();
  if (transposed.a && transposed.b) return matmul(a, transpose(b, where), {.a = true}, where);
  const int rank = a.shape().rank();
  const auto refuse = [&] {
    fail(str("[matmul] ", a.shape(), transposed.a ? " transposed" : "", " and ", b.shape(),
             transposed.b ? " transposed" : "", " do not multiply. HINT: (M, K) and (K, N), or ",
             "batches of them"),
         where);
  };
  if ((rank != 2 && rank != 3) || b.shape().rank() != rank) refuse();
  const Index batch = rank == 3 ? a.dim(0) : 1;
  const Index m = transposed.a ? a.dim(-1) : a.dim(-2), k = transposed.a ? a.dim(-2) : a.dim(-1);
  const Index n = transposed.b ? b.dim(-2) : b.dim(-1);
  if ((transposed.b ? b.dim(-1) : b.dim(-2)) != k || (rank == 3 && b.dim(0) != batch)) refuse();

  const Form form = transposed.a ? Form::TN : transposed.b ? Form::NT : Form::NN;
  auto y = Tensor<D, T>::empty(rank == 3 ? Shape{batch, m, n} : Shape{m, n});
  matmul_batched(D{}, y.data(), a.data(), b.data(), batch, m, n, k, form, false);
  if (recording(a, b))
    record(y, [=] {
      const auto product = [&](T* to, const T* left, const T* right, Index rows, Index columns,
                               Index inner, Form of) {
        matmul_batched(D{}, to, left, right, batch, rows, columns, inner, of, true);
      };
      const T* const dy = y.grad();
      if (a.requires_grad()) {
        if (form == Form::NN) product(a.grad(), dy, b.data(), m, k, n, Form::NT);
        if (form == Form::NT) product(a.grad(), dy, b.data(), m, k, n, Form::NN);
        if (form == Form::TN) product(a.grad(), b.data(), dy, k, m, n, Form::NT);
      }
      if (b.requires_grad()) {
        if (form == Form::NN) product(b.grad(), a.data(), dy, k, n, m, Form::TN);
        if (form == Form::NT) product(b.grad(), dy, a.data(), n, k, m, Form::TN);
        if (form == Form::TN) product(b.grad(), a.data(), dy, k, n, m, Form::NN);
      }
    });
  return detail::checked("matmul", y);
}

}}  // namespace plumb::v0_1
