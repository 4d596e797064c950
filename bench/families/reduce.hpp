// Sums, softmax and transposition of rows, groups of rows, a matrix with a row or column beside it,
// on any device. The oracle of each is the same call in double (cpu/double.hpp).
#pragma once

#include <plumb/bench.hpp>
#include <plumb/cpu/double.hpp>

#include <cmath>

#include "cases/reduce.hpp"
#include "families/support.hpp"

namespace families {

using plumb::Arithmetic;
using plumb::Operand;

/// Of a row's sum of values of size 1.
inline double row_rounding(const cases::reduce::Case& k) {
  return 4e-6 * std::sqrt(static_cast<double>(k.c));
}

/// Adds `run`, which takes (device, y, x, n, c) in float or in double; y has y_size(case) values.
template <class D, class Table, class Run, class Size, class WorkOf>
void add_of_rows(const Table& table, const char* name, Run run, Size y_size, WorkOf work) {
  using cases::reduce::Case;
  add(
      name, [=](D device, float* y, const float* x, Index n, Index c) { run(device, y, x, n, c); },
      each_of(table,
              [=](const Case& k) {
                return arguments(out(y_size(k), row_rounding(k)), in(k.n * k.c, -4, 4), k.n, k.c);
              }),
      [=](std::span<double> y, Doubles x, Index n, Index c) {
        run(Cpu{}, y.data(), x.data(), n, c);
      },
      work);
}

/// The same of (device, dx, dy, y, n, c), which adds to dx; y are shares of a row, or logarithms.
template <class D, class Table, class Run, class WorkOf>
void add_of_rows_backward(const Table& table, const char* name, Run run, bool shares, WorkOf work) {
  using cases::reduce::Case;
  add(
      name,
      [=](D device, float* dx, const float* dy, const float* y, Index n, Index c) {
        run(device, dx, dy, y, n, c);
      },
      each_of(table,
              [=](const Case& k) {
                const Index size = k.n * k.c;
                const auto y = shares ? in(size, 0, 1.0 / double(k.c)) : in(size, -4, 0);
                return arguments(inout(size, row_rounding(k)), in(size), y, k.n, k.c);
              }),
      [=](std::span<double> dx, Doubles dy, Doubles y, Index n, Index c) {
        run(Cpu{}, dx.data(), dy.data(), y.data(), n, c);
      },
      work);
}

/// Groups of about eight rows.
inline std::vector<std::int32_t> eights(Index n) {
  std::vector<std::int32_t> offsets;
  for (Index at = 0; at < n; at += 8) offsets.push_back(static_cast<std::int32_t>(at));
  offsets.push_back(static_cast<std::int32_t>(n));
  return offsets;
}

template <class D, class Table, class Run, class WorkOf>
void add_of_groups(const Table& table, const char* name, Run run, WorkOf work) {
  using cases::reduce::Case;
  add(
      name,
      [=](D device, float* y, const float* x, const std::int32_t* offsets, Index groups, Index c) {
        run(device, y, x, offsets, groups, c);
      },
      each_of(table,
              [](const Case& k) {
                const Index groups = (k.n + 7) / 8;
                return arguments(out(groups * k.c, 1e-5), in(k.n * k.c, -4, 4), fixed(eights(k.n)),
                                 groups, k.c);
              }),
      [=](std::span<double> y, Doubles x, std::span<const std::int32_t> offsets, Index groups,
          Index c) { run(Cpu{}, y.data(), x.data(), offsets.data(), groups, c); },
      work);
}

template <class D, class Table>
void add_softmax(const Table& table) {
  using namespace cases::reduce;
  for (const bool log : {false, true}) {
    add_of_rows<D>(
        table, log ? "log_softmax" : "softmax",
        [=](auto d, auto* y, auto* x, Index n, Index c) { softmax_rows(d, y, x, n, c, log); },
        [](const Case& k) { return k.n * k.c; }, softmax_work);
    add_of_rows_backward<D>(
        table, log ? "log_softmax_backward" : "softmax_backward",
        [=](auto d, auto* dx, auto* dy, auto* y, Index n, Index c) {
          softmax_rows_backward(d, dx, dy, y, n, c, log);
        },
        !log, softmax_backward_work);
  }
}

template <class D, class Table>
void add_row_sums(const Table& table) {
  using namespace cases::reduce;
  add_of_rows<D>(
      table, "row_sums",
      [](auto d, auto* y, auto* x, Index n, Index c) { row_sums(d, y, x, n, c, false); },
      [](const Case& k) { return k.n; }, sums_work);
}

template <class D, class Table>
void add_transpose(const Table& table) {
  using namespace cases::reduce;
  add_of_rows<D>(
      table, "transpose",
      [](auto d, auto* y, auto* x, Index n, Index c) { transpose(d, y, x, 1, n, c); },
      [](const Case& k) { return k.n * k.c; }, move_work);
}

template <class D, class Table>
void add_groups(const Table& table) {
  using namespace cases::reduce;
  add_of_groups<D>(
      table, "group_sums",
      [](auto d, auto* y, auto* x, auto* offsets, Index groups, Index c) {
        group_sums(d, y, x, offsets, groups, c);
      },
      [](const Case& k) {
        return sums_work({k.n, k.c});
      });
  add_of_groups<D>(
      table, "group_logsumexp",
      [](auto d, auto* y, auto* x, auto* offsets, Index groups, Index c) {
        group_logsumexp(d, y, x, offsets, groups, c);
      },
      logsumexp_work);
}

/// A matrix times a row or a column that stands beside it.
template <class D, class Table>
void add_beside(const Table& table) {
  using namespace cases::reduce;
  for (const bool row : {true, false})
    add_of_rows_backward<D>(
        table, row ? "times_row" : "times_column",
        [=](auto d, auto* y, auto* vector, auto* x, Index n, Index c) {
          using T = std::decay_t<decltype(*y)>;
          combine_forward(d, y, Operand<T>{x, c, 1},
                          row ? Operand<T>{vector, 0, 1} : Operand<T>{vector, 1, 0},
                          Arithmetic::Multiply, n, c);
        },
        false, move_work);
}

/// The largest of each row; and of each row the value that an id names.
template <class D, class Table>
void add_argmax_and_pick(const Table& table) {
  using namespace cases::reduce;
  add(
      "argmax_rows",
      [](D device, std::int32_t* best, const float* x, Index n, Index c) {
        argmax_rows(device, best, x, n, c);
      },
      each_of(table,
              [](const Case& k) {
                return arguments(out<std::int32_t>(k.n, 0), in(k.n * k.c, -4, 4), k.n, k.c);
              }),
      [](std::span<std::int32_t> best, Doubles x, Index n, Index c) {
        argmax_rows(Cpu{}, best.data(), x.data(), n, c);
      },
      argmax_work);
  add(
      "pick_forward",
      [](D device, float* y, const float* x, const std::int32_t* chosen, Index n, Index c) {
        pick_forward(device, y, x, chosen, n, c);
      },
      each_of(table,
              [](const Case& k) {
                return arguments(out(k.n, 0), in(k.n * k.c), ids(k.n, k.c), k.n, k.c);
              }),
      [](Results y, Doubles x, Ids chosen, Index n, Index c) {
        pick_forward(Cpu{}, y.data(), x.data(), chosen.data(), n, c);
      },
      pick_work);
  add(
      "pick_backward",
      [](D device, float* dx, const float* dy, const std::int32_t* chosen, Index n, Index c) {
        pick_backward(device, dx, dy, chosen, n, c);
      },
      each_of(table,
              [](const Case& k) {
                return arguments(inout(k.n * k.c), in(k.n), ids(k.n, k.c), k.n, k.c);
              }),
      [](Results dx, Doubles dy, Ids chosen, Index n, Index c) {
        pick_backward(Cpu{}, dx.data(), dy.data(), chosen.data(), n, c);
      },
      pick_backward_work);
}

}  // namespace families
