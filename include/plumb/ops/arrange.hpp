// What puts elements elsewhere: transposition, columns cut out, tensors joined, rows scattered.
// Rows [first, last) are a view and no op (Tensor::rows); rows by number are embedding() of
// basic.hpp.
#pragma once

#include <plumb/math/elementwise.hpp>
#include <plumb/ops/basic.hpp>

#include <initializer_list>
#include <span>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// The last two dimensions exchanged: x (N, C) -> (C, N), (B, N, C) -> (B, C, N).
template <class D, class T>
Tensor<D, T> transpose(const Tensor<D, T>& x, Where where = Where::here()) {
  detail::require_backend<D>();
  const int rank = x.shape().rank();
  if (rank != 2 && rank != 3)
    fail(str("[transpose] expected a matrix or a batch of them; got ", x.shape()), where);
  const Index batch = rank == 3 ? x.dim(0) : 1, n = x.dim(-2), c = x.dim(-1);
  auto y = Tensor<D, T>::empty(rank == 3 ? Shape{batch, c, n} : Shape{c, n});
  transpose(D{}, y.data(), x.data(), batch, n, c);
  if (recording(x))
    record(y, [y, x, batch, n, c] {
      const auto back = Tensor<D, T>::empty(x.shape());
      transpose(D{}, back.data(), y.grad(), batch, c, n);
      accumulate(D{}, x.grad(), back.data(), T{1}, x.size());
    });
  return y;
}

/// Columns [first, last): x (N, C) -> (N, last - first).
template <class D, class T>
Tensor<D, T> columns(const Tensor<D, T>& x, Index first, Index last, Where where = Where::here()) {
  detail::require_backend<D>();
  if (x.shape().rank() != 2 || first < 0 || last < first || last > x.dim(1))
    fail(str("[columns] [", first, ", ", last, ") is not within the columns of ", x.shape()),
         where);
  const Index n = x.dim(0), c = x.dim(1), width = last - first;
  auto y = Tensor<D, T>::empty({n, width});
  assign(D{}, y.data(), width, Operand<T>{x.data() + first, c, 1}, T{1}, false, n, width);
  if (recording(x))
    record(y, [=] {
      assign(D{}, x.grad() + first, c, Operand<T>{y.grad(), width, 1}, T{1}, true, n, width);
    });
  return y;
}

/// Matrices below one another (axis 0) or side by side (axis 1).
template <class D, class T>
Tensor<D, T> concat(std::span<const Tensor<D, T>> parts, int axis, Where where = Where::here()) {
  detail::require_backend<D>();
  if (parts.empty() || axis < 0 || axis > 1)
    fail(str("[concat] expected at least one matrix and axis 0 or 1; got ", parts.size(), " and ",
             axis),
         where);
  const int other = 1 - axis;
  Index extent[2] = {};
  bool gradient = false;
  for (const auto& part : parts) {
    if (part.shape().rank() != 2 || part.dim(other) != parts[0].dim(other))
      fail(str("[concat] ", part.shape(), " does not fit ", parts[0].shape(), " on axis ", axis),
           where);
    extent[axis] += part.dim(axis);
    gradient = gradient || recording(part);
  }
  extent[other] = parts[0].dim(other);
  auto y = Tensor<D, T>::empty({extent[0], extent[1]});
  const Index row = extent[1];
  Index at = 0;  // of the part, in y
  for (const auto& part : parts) {
    const Index c = part.dim(1);
    assign(D{}, y.data() + at, row, Operand<T>{part.data(), c, 1}, T{1}, false, part.dim(0), c);
    at += axis == 0 ? part.size() : c;
  }
  if (gradient)
    record(y, [y, axis, row, all = std::vector<Tensor<D, T>>(parts.begin(), parts.end())] {
      Index from = 0;
      for (const auto& part : all) {
        const Index c = part.dim(1);
        if (part.requires_grad())
          assign(D{}, part.grad(), c, Operand<T>{y.grad() + from, row, 1}, T{1}, true, part.dim(0),
                 c);
        from += axis == 0 ? part.size() : c;
      }
    });
  return y;
}
template <class D, class T>
Tensor<D, T> concat(std::initializer_list<Tensor<D, T>> parts, int axis,
                    Where where = Where::here()) {
  return concat(std::span<const Tensor<D, T>>(parts.begin(), parts.size()), axis, where);
}
template <class D, class T>
Tensor<D, T> concat(const std::vector<Tensor<D, T>>& parts, int axis,
                    Where where = Where::here()) {
  return concat(std::span<const Tensor<D, T>>(parts), axis, where);
}

/// The matrix in parts of these extents along an axis: views for axis 0, copies for axis 1.
template <class D, class T>
std::vector<Tensor<D, T>> split(const Tensor<D, T>& x, std::span<const Index> extents, int axis,
                                Where where = Where::here()) {
  Index all = 0;
  for (const Index extent : extents) all += extent;
  if (x.shape().rank() != 2 || axis < 0 || axis > 1 || all != x.dim(axis))
    fail(str("[split] extents of ", all, " in all do not divide axis ", axis, " of ", x.shape()),
         where);
  std::vector<Tensor<D, T>> parts;
  Index at = 0;
  for (const Index extent : extents) {
    parts.push_back(axis == 0 ? x.rows(at, at + extent, where)
                              : columns(x, at, at + extent, where));
    at += extent;
  }
  return parts;
}

/// Rows added up where ids say: y[ids[i]] += x[i], y (rows, C), zero at first; x (N, C), ids (N) in
/// [0, rows). The caller vouches for the range.
template <class D, class T>
Tensor<D, T> scatter_rows(const Tensor<D, T>& x, const Tensor<D, std::int32_t>& ids, Index rows,
                          Where where = Where::here()) {
  detail::require_backend<D>();
  if (x.shape().rank() != 2 || ids.shape() != Shape{x.dim(0)})
    fail(str("[scatter_rows] expected rows (N, C) and ids (N); got ", x.shape(), " and ",
             ids.shape()),
         where);
  const Index n = x.dim(0), c = x.dim(1);
  auto y = Tensor<D, T>::zeros({rows, c});
  embedding_backward(D{}, y.data(), x.data(), ids.data(), n, c, rows);
  if (recording(x))
    record(y, [y, x, ids, n, c] {
      const auto back = Tensor<D, T>::empty(x.shape());
      embedding_forward(D{}, back.data(), y.grad(), ids.data(), n, c);
      accumulate(D{}, x.grad(), back.data(), T{1}, x.size());
    });
  return detail::checked("scatter_rows", y);
}

}}  // namespace plumb::v0_1
