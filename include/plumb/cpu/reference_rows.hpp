// Gather, scatter, sums over tokens and rotary positions in plain loops and double precision: the
// oracle of rows.hpp's tests. Not for use in a program: slow, and in no canonical order.
#pragma once

#include <plumb/core/check.hpp>

#include <cstdint>
#include <vector>

namespace plumb { inline namespace v0_1 {

namespace reference {

/// Sums (C) of the rows of x (N, C).
inline std::vector<double> sum_rows(const float* x, Index n, Index c) {
  std::vector<double> total(static_cast<std::size_t>(c));
  for (Index i = 0; i < n * c; ++i) total[static_cast<std::size_t>(i % c)] += double{x[i]};
  return total;
}

/// The gradient (V, C) of a table whose rows ids (N) were read.
inline std::vector<double> embedding_backward(const float* dy, const std::int32_t* ids, Index n,
                                              Index c, Index v) {
  std::vector<double> dtable(static_cast<std::size_t>(v * c));
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < c; ++j)
      dtable[static_cast<std::size_t>(ids[i] * c + j)] += double{dy[i * c + j]};
  return dtable;
}

/// x (N, heads · head_size) with its pairs turned by direction · the angle of each token's
/// position: direction 1 is the forward pass, -1 the backward one.
template <class T>
std::vector<double> rope(const T* x, const T* cosine, const T* sine, const std::int32_t* positions,
                         Index n, Index heads, Index head_size, double direction) {
  std::vector<double> y;
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < heads * head_size; j += 2) {
      const Index angle = positions[i] * (head_size / 2) + j % head_size / 2;
      const double c = cosine[angle], s = direction * double{sine[angle]};
      const double a = x[i * heads * head_size + j], b = x[i * heads * head_size + j + 1];
      y.push_back(a * c - b * s);
      y.push_back(a * s + b * c);
    }
  return y;
}

}  // namespace reference
}}  // namespace plumb::v0_1
