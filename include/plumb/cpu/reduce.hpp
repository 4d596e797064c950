// Sums, maxima and softmax of rows; logsumexp and sums of groups of rows; transposition, and one
// element a row. Bound by memory, but for softmax and logsumexp, at an exponential an element.
//
// Orders. A row: 32 lanes, then the butterfly (vec.inl.hpp). A group: its rows in order, one chain
// from +0. What this is not: sums over tokens that go on through a batch (rows.hpp), or a softmax
// with the choice of a target (head.hpp), whose bits log_softmax has.
#pragma once

#include <plumb/core/device.hpp>
#include <plumb/core/pool.hpp>
#include <plumb/cpu/isa.hpp>
#include <plumb/cpu/rows.hpp>

#include <algorithm>
#include <cassert>
#include <cstdint>

namespace plumb { inline namespace v0_1 { namespace kernels {

struct ReduceTable {
  float (*row_sum)(const float* x, Index c);
  Index (*argmax)(const float* x, Index c);
  void (*softmax)(float* y, const float* x, Index c, bool log);
  void (*softmax_backward)(float* dx, const float* dy, const float* y, Index c, bool log);
  void (*logsumexp)(float* y, const float* x, Index rows, Index c);
  void (*logsumexp_backward)(float* dx, const float* dy, const float* x, const float* y, Index rows,
                             Index c);
  void (*transpose)(float* y, Index y_stride, const float* x, Index x_stride, Index rows,
                    Index columns);
};

/// y (N) = or += the sum of each row of x (N, C).
inline void row_sums(Cpu device, float* y, const float* x, Index n, Index c, bool accumulate) {
  parallel_for(device, n, row_grain(c), [&](Index i, Index end) {
    const auto row_sum = dispatch<ReduceTable>().row_sum;
    for (; i < end; ++i) y[i] = (accumulate ? y[i] : 0.0F) + row_sum(x + i * c, c);
  });
}

/// Where the largest of each row of x (N, C) is, the first of equals; the first NaN, if there is
/// one. C > 0.
inline void argmax_rows(Cpu device, std::int32_t* ids, const float* x, Index n, Index c) {
  assert(c > 0 || n == 0);
  parallel_for(device, n, row_grain(c), [&](Index i, Index end) {
    const auto argmax = dispatch<ReduceTable>().argmax;
    for (; i < end; ++i) ids[i] = static_cast<std::int32_t>(argmax(x + i * c, c));
  });
}

/// y = softmax of each row of x (N, C), or its logarithm.
inline void softmax_rows(Cpu device, float* y, const float* x, Index n, Index c, bool log) {
  parallel_for(device, n, row_grain(4 * c), [&](Index i, Index end) {
    for (; i < end; ++i) dispatch<ReduceTable>().softmax(y + i * c, x + i * c, c, log);
  });
}

/// dx += the gradient by x, from y, what softmax_rows gave.
inline void softmax_rows_backward(Cpu device, float* dx, const float* dy, const float* y, Index n,
                                  Index c, bool log) {
  parallel_for(device, n, row_grain(4 * c), [&](Index i, Index end) {
    for (; i < end; ++i)
      dispatch<ReduceTable>().softmax_backward(dx + i * c, dy + i * c, y + i * c, c, log);
  });
}

/// y[i] = x[i, ids[i]], x (N, C), ids (N) in [0, C).
inline void pick_forward(Cpu, float* y, const float* x, const std::int32_t* ids, Index n, Index c) {
  for (Index i = 0; i < n; ++i) y[i] = x[i * c + ids[i]];
}
/// dx[i, ids[i]] += dy[i].
inline void pick_backward(Cpu, float* dx, const float* dy, const std::int32_t* ids, Index n,
                          Index c) {
  const DefaultFloats floats;
  for (Index i = 0; i < n; ++i) dx[i * c + ids[i]] += dy[i];
}

/// y (batch, C, N) = each x (N, C) of x (batch, N, C), transposed.
inline void transpose(Cpu device, float* y, const float* x, Index batch, Index n, Index c) {
  constexpr Index kTile = 32;
  const Index tiles = (n + kTile - 1) / kTile;
  parallel_for(device, batch * tiles, row_grain(kTile * c), [&](Index task, Index end) {
    for (; task < end; ++task) {
      const Index first = task % tiles * kTile, offset = task / tiles * n * c;
      dispatch<ReduceTable>().transpose(y + offset + first, n, x + offset + first * c, c,
                                        std::min(kTile, n - first), c);
    }
  });
}

/// y (G, C) = the sum of each group of rows of x (N, C); group g is rows [offsets[g],
/// offsets[g + 1]).
inline void group_sums(Cpu device, float* y, const float* x, const std::int32_t* offsets,
                       Index groups, Index c) {
  parallel_for(device, groups, row_grain(8 * c), [&](Index g, Index end) {
    const auto add_row = dispatch<RowsTable>().add_row;
    for (; g < end; ++g) {
      std::fill_n(y + g * c, c, 0.0F);
      for (Index i = offsets[g]; i < offsets[g + 1]; ++i) add_row(y + g * c, x + i * c, c);
    }
  });
}
/// dx += dy of each row's group.
inline void group_sums_backward(Cpu device, float* dx, const float* dy, const std::int32_t* offsets,
                                Index groups, Index c) {
  parallel_for(device, groups, row_grain(8 * c), [&](Index g, Index end) {
    const auto add_row = dispatch<RowsTable>().add_row;
    for (; g < end; ++g)
      for (Index i = offsets[g]; i < offsets[g + 1]; ++i) add_row(dx + i * c, dy + g * c, c);
  });
}

/// y (G, C) = log Σ e^x over each group of rows, in each column; -infinity of none.
inline void group_logsumexp(Cpu device, float* y, const float* x, const std::int32_t* offsets,
                            Index groups, Index c) {
  parallel_for(device, groups, row_grain(32 * c), [&](Index g, Index end) {
    for (; g < end; ++g)
      dispatch<ReduceTable>().logsumexp(y + g * c, x + offsets[g] * c, offsets[g + 1] - offsets[g],
                                        c);
  });
}
/// dx += dy · e^(x - y) of each row's group.
inline void group_logsumexp_backward(Cpu device, float* dx, const float* dy, const float* x,
                                     const float* y, const std::int32_t* offsets, Index groups,
                                     Index c) {
  parallel_for(device, groups, row_grain(32 * c), [&](Index g, Index end) {
    for (; g < end; ++g)
      dispatch<ReduceTable>().logsumexp_backward(dx + offsets[g] * c, dy + g * c,
                                                 x + offsets[g] * c, y + g * c,
                                                 offsets[g + 1] - offsets[g], c);
  });
}

}}}  // namespace plumb::v0_1::kernels
