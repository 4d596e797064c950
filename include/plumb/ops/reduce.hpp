// Sums, means, maxima and softmax over the rows of a matrix, over its columns, or over all of a
// tensor; and the same over groups of rows, of any lengths, which responses of a prompt are.
#pragma once

#include <plumb/ops/arithmetic.hpp>
#include <plumb/ops/arrange.hpp>

namespace plumb { inline namespace v0_1 {

namespace detail {

template <class D, class T>
void check_axis(const char* op, const Tensor<D, T>& x, int axis, Where where) {
  require_backend<D>();
  if (x.shape().rank() != 2 || axis < 0 || axis > 1)
    fail(str("[", op, "] expected a matrix and axis 0 (down the columns) or 1 (along the rows); ",
             "got ", x.shape(), " and ", axis),
         where);
}

/// Σ of n values: rows of 4096, then their sums likewise.
template <class D, class T>
void sum_all(T* y, const T* x, Index n) {
  constexpr Index kRow = 4096;
  if (n <= kRow) return row_sums(D{}, y, x, 1, n, false);
  const Index whole = n / kRow, rest = n % kRow, count = whole + (rest > 0 ? 1 : 0);
  const auto sums = Tensor<D, T>::empty({count});
  row_sums(D{}, sums.data(), x, whole, kRow, false);
  if (rest > 0) row_sums(D{}, sums.data() + whole, x + whole * kRow, 1, rest, false);
  sum_all<D>(y, static_cast<const T*>(sums.data()), count);
}

}  // namespace detail

/// The sum of all elements. x, any shape -> ().
template <class D, class T>
Tensor<D, T> sum(const Tensor<D, T>& x) {
  detail::require_backend<D>();
  auto y = Tensor<D, T>::empty({});
  detail::sum_all<D>(y.data(), static_cast<const T*>(x.data()), x.size());
  if (recording(x))
    record(y, [y, x] {
      assign(D{}, x.grad(), x.size(), Operand<T>{y.grad(), 0, 0}, T{1}, true, 1, x.size());
    });
  return detail::checked("sum", y);
}

/// The sum over an axis: x (N, C) -> (C) for axis 0, (N) for axis 1.
template <class D, class T>
Tensor<D, T> sum(const Tensor<D, T>& x, int axis, Where where = Where::here()) {
  detail::check_axis("sum", x, axis, where);
  const Index n = x.dim(0), c = x.dim(1);
  auto y = Tensor<D, T>::zeros({axis == 0 ? c : n});
  if (axis == 0)
    sum_rows(D{}, y.data(), x.data(), n, c);
  else
    row_sums(D{}, y.data(), x.data(), n, c, false);
  if (recording(x))
    record(y, [y, x, axis, n, c] {
      const auto dy = axis == 0 ? Operand<T>{y.grad(), 0, 1} : Operand<T>{y.grad(), 1, 0};
      assign(D{}, x.grad(), c, dy, T{1}, true, n, c);
    });
  return detail::checked("sum", y);
}

/// The mean of all elements, or over an axis.
template <class D, class T>
Tensor<D, T> mean(const Tensor<D, T>& x) {
  return scale(sum(x), T{1} / static_cast<T>(x.size()));
}
template <class D, class T>
Tensor<D, T> mean(const Tensor<D, T>& x, int axis, Where where = Where::here()) {
  detail::check_axis("mean", x, axis, where);
  return scale(sum(x, axis, where), T{1} / static_cast<T>(x.dim(axis)));
}

/// Where the largest element of each row is: the first of equals, or the first NaN. x (N, C) ->
/// (N).
template <class D, class T>
Tensor<D, std::int32_t> argmax(const Tensor<D, T>& x, int axis, Where where = Where::here()) {
  detail::check_axis("argmax", x, axis, where);
  if (axis == 0) return argmax(transpose(x.detach()), 1, where);
  if (x.dim(1) == 0 && x.dim(0) > 0) fail(str("[argmax] ", x.shape(), " has no columns"), where);
  auto ids = Tensor<D, std::int32_t>::empty({x.dim(0)});
  argmax_rows(D{}, ids.data(), x.data(), x.dim(0), x.dim(1));
  return ids;
}
/// Of all elements, in row-major order -> ().
template <class D, class T>
Tensor<D, std::int32_t> argmax(const Tensor<D, T>& x, Where where = Where::here()) {
  return argmax(x.reshape({1, x.size()}), 1, where).reshape({});
}

/// The element of each row that ids name: x (N, C), ids (N) in [0, C) -> (N). The caller vouches
/// for the range.
template <class D, class T>
Tensor<D, T> pick(const Tensor<D, T>& x, const Tensor<D, std::int32_t>& ids,
                  Where where = Where::here()) {
  detail::require_backend<D>();
  if (x.shape().rank() != 2 || ids.shape() != Shape{x.dim(0)})
    fail(str("[pick] expected a matrix (N, C) and ids (N); got ", x.shape(), " and ", ids.shape()),
         where);
  const Index n = x.dim(0), c = x.dim(1);
  auto y = Tensor<D, T>::empty({n});
  pick_forward(D{}, y.data(), x.data(), ids.data(), n, c);
  if (recording(x)) record(y, [=] { pick_backward(D{}, x.grad(), y.grad(), ids.data(), n, c); });
  return detail::checked("pick", y);
}

/// The largest element over an axis, or of all: the gradient goes to the first of equals.
template <class D, class T>
Tensor<D, T> max(const Tensor<D, T>& x, int axis, Where where = Where::here()) {
  if (axis == 0) return max(transpose(x, where), 1, where);
  return pick(x, argmax(x, axis, where), where);
}
template <class D, class T>
Tensor<D, T> max(const Tensor<D, T>& x, Where where = Where::here()) {
  return max(x.reshape({1, x.size()}), 1, where).reshape({});
}

namespace detail {
template <class D, class T>
Tensor<D, T> softmax(const char* op, const Tensor<D, T>& x, bool log, Where where) {
  check_axis(op, x, 1, where);
  const Index n = x.dim(0), c = x.dim(1);
  auto y = Tensor<D, T>::empty(x.shape());
  softmax_rows(D{}, y.data(), x.data(), n, c, log);
  if (recording(x))
    record(y, [=] { softmax_rows_backward(D{}, x.grad(), y.grad(), y.data(), n, c, log); });
  return checked(op, y);
}

template <class D, class T>
std::pair<Index, Index> check_groups(const char* op, const Tensor<D, T>& x,
                                     const Tensor<D, std::int32_t>& offsets, Where where) {
  require_backend<D>();
  const int rank = x.shape().rank();
  if (rank < 1 || rank > 2 || offsets.shape().rank() != 1 || offsets.size() < 1)
    fail(str("[", op, "] expected rows (N, C) or (N) and offsets (G + 1); got ", x.shape(), " and ",
             offsets.shape()),
         where);
  return {offsets.size() - 1, rank == 2 ? x.dim(1) : 1};
}

template <class D, class T>
Shape grouped(const Tensor<D, T>& x, Index groups) {
  return x.shape().rank() == 2 ? Shape{groups, x.dim(1)} : Shape{groups};
}
}  // namespace detail

/// e^x over its sum along each row, or the logarithm of that: with pick(), the log-probability of a
/// target, bit for bit as the fused one's of ops/loss.hpp. x (N, C) -> (N, C).
template <class D, class T>
Tensor<D, T> softmax(const Tensor<D, T>& x, Where where = Where::here()) {
  return detail::softmax("softmax", x, false, where);
}
template <class D, class T>
Tensor<D, T> log_softmax(const Tensor<D, T>& x, Where where = Where::here()) {
  return detail::softmax("log_softmax", x, true, where);
}

/// The sum of each group of rows: x (N, C) or (N) -> (G, C) or (G). Group g is rows offsets[g] …
/// offsets[g + 1] - 1; offsets (G + 1) rise from 0 to N, for which the caller vouches.
template <class D, class T>
Tensor<D, T> segment_sum(const Tensor<D, T>& x, const Tensor<D, std::int32_t>& offsets,
                         Where where = Where::here()) {
  const auto [groups, c] = detail::check_groups("segment_sum", x, offsets, where);
  auto y = Tensor<D, T>::empty(detail::grouped(x, groups));
  group_sums(D{}, y.data(), x.data(), offsets.data(), groups, c);
  if (recording(x))
    record(y, [y, x, offsets, groups = groups, c = c] {
      group_sums_backward(D{}, x.grad(), y.grad(), offsets.data(), groups, c);
    });
  return detail::checked("segment_sum", y);
}

/// The mean of each group of rows; ShapeError if one is empty. Reads the offsets on the host.
template <class D, class T>
Tensor<D, T> segment_mean(const Tensor<D, T>& x, const Tensor<D, std::int32_t>& offsets,
                          Where where = Where::here()) {
  const auto [groups, c] = detail::check_groups("segment_mean", x, offsets, where);
  const auto at = offsets.to_vector();
  std::vector<T> lengths;
  for (std::size_t g = 0; g + 1 < at.size(); ++g) {
    lengths.push_back(static_cast<T>(at[g + 1] - at[g]));
    if (at[g + 1] <= at[g]) fail(str("[segment_mean] group ", g, " has no rows"), where);
  }
  const auto sums = segment_sum(x, offsets, where).reshape({groups, c});
  return div(sums, Tensor<D, T>::from(lengths, {groups, 1})).reshape(detail::grouped(x, groups));
}

/// log Σ e^x of each group of rows, in each column; -infinity of a group without rows.
template <class D, class T>
Tensor<D, T> segment_logsumexp(const Tensor<D, T>& x, const Tensor<D, std::int32_t>& offsets,
                               Where where = Where::here()) {
  const auto [groups, c] = detail::check_groups("segment_logsumexp", x, offsets, where);
  auto y = Tensor<D, T>::empty(detail::grouped(x, groups));
  group_logsumexp(D{}, y.data(), x.data(), offsets.data(), groups, c);
  if (recording(x))
    record(y, [y, x, offsets, groups = groups, c = c] {
      group_logsumexp_backward(D{}, x.grad(), y.grad(), x.data(), y.data(), offsets.data(), groups,
                               c);
    });
  return detail::checked("segment_logsumexp", y);
}

}}  // namespace plumb::v0_1
