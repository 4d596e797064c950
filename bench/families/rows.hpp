// Embedding forward and backward, sums over tokens, rotary positions, on any device.
#pragma once

#include <plumb/bench.hpp>
#include <plumb/cpu/reference_rows.hpp>

#include <cmath>

#include "cases/rows.hpp"
#include "families/support.hpp"

namespace families {

template <class D, class Table>
void add_embedding(const Table& table) {
  using cases::rows::Case;
  add(
      "embedding_forward",
      [](D device, float* y, const float* from, const std::int32_t* ids, Index n, Index c) {
        embedding_forward(device, y, from, ids, n, c);
      },
      each_of(table,
              [](const Case& k) {
                return arguments(out(k.n * k.c, 0), in(k.v * k.c), ids(k.n, k.v), k.n, k.c);
              }),
      [](const Places& places, Results y, Doubles from, Ids tokens, Index n, Index c) {
        for (const Index i : places(n * c)) y[at(i)] = from[at(tokens[at(i / c)] * c + i % c)];
      },
      cases::rows::embedding_forward_work);
  add(
      "embedding_backward",
      [](D device, float* dtable, const float* dy, const std::int32_t* ids, Index n, Index c,
         Index v) { embedding_backward(device, dtable, dy, ids, n, c, v); },
      each_of(table,
              [](const Case& k) {
                const double sums = cases::rows::kTolerance * std::sqrt(double(k.n));
                return arguments(inout(k.v * k.c, sums), in(k.n * k.c), ids(k.n, k.v), k.n, k.c,
                                 k.v);
              }),
      [](const Places& places, Results dtable, Doubles dy, Ids tokens, Index n, Index c, Index v) {
        for (const Index i : places(v * c))
          for (Index token = 0; token < n; ++token)
            if (tokens[at(token)] == i / c) dtable[at(i)] += dy[at(token * c + i % c)];
      },
      cases::rows::embedding_backward_work);
}

template <class D, class Table>
void add_sum_rows(const Table& table) {
  using cases::rows::Case;
  add(
      "sum_rows",
      [](D device, float* total, const float* x, Index n, Index c) {
        sum_rows(device, total, x, n, c);
      },
      each_of(table,
              [](const Case& k) {
                const double sums = cases::rows::kTolerance * std::sqrt(double(k.n));
                return arguments(inout(k.c, sums), in(k.n * k.c), k.n, k.c);
              }),
      [](Results total, Doubles x, Index n, Index c) {
        for (Index i = 0; i < n * c; ++i) total[at(i % c)] += x[at(i)];
      },
      cases::rows::sums_work);
}

/// Tables of any angles: cosine and sine need not belong together to be timed.
template <class D, class Table>
void add_rope(const Table& table) {
  using cases::rows::Rope;
  static constexpr Index kPositions = 1024;
  const auto case_of = [](const Rope& k, auto y) {
    const Index angles = kPositions * k.head_size / 2;
    return arguments(y, in(k.n * k.heads * k.head_size), in(angles), in(angles),
                     ids(k.n, kPositions), k.n, k.heads, k.head_size);
  };
  const auto size = [](const Rope& k) { return k.n * k.heads * k.head_size; };
  const auto exact = [](double direction) {
    return [=](Results y, Doubles x, Doubles cosine, Doubles sine, Ids positions, Index n,
               Index heads, Index head_size) {
      const auto turned = plumb::reference::rope(x.data(), cosine.data(), sine.data(),
                                                 positions.data(), n, heads, head_size, direction);
      for (std::size_t i = 0; i < y.size(); ++i)
        y[i] = direction > 0 ? turned[i] : y[i] + turned[i];
    };
  };
  add(
      "rope_forward",
      [](D device, float* y, const float* x, const float* cosine, const float* sine,
         const std::int32_t* positions, Index n, Index heads, Index head_size) {
        rope_forward(device, y, x, cosine, sine, positions, n, heads, head_size);
      },
      each_of(table,
              [=](const Rope& k) { return case_of(k, out(size(k), cases::rows::kTolerance)); }),
      exact(1), cases::rows::rope_forward_work);
  add(
      "rope_backward",
      [](D device, float* dx, const float* dy, const float* cosine, const float* sine,
         const std::int32_t* positions, Index n, Index heads, Index head_size) {
        rope_backward(device, dx, dy, cosine, sine, positions, n, heads, head_size);
      },
      each_of(table,
              [=](const Rope& k) { return case_of(k, inout(size(k), cases::rows::kTolerance)); }),
      exact(-1), cases::rows::rope_backward_work);
}

}  // namespace families
