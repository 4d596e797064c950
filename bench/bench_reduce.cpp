// Sums, softmax and transposition of rows, groups of rows, a matrix with a row or column beside it.
// The oracle of each is the same call in double (cpu/double.hpp).
#include <plumb/bench.hpp>
#include <plumb/cpu/kernels.hpp>

#include <cmath>

#include "cases/reduce.hpp"

using namespace plumb::bench;
using plumb::Arithmetic;
using plumb::Cpu;
using plumb::Index;
using plumb::Operand;

namespace {

using cases::reduce::Case;
using Doubles = std::span<const double>;

/// Of a row's sum of values of size 1.
double rounding(const Case& k) { return 4e-6 * std::sqrt(static_cast<double>(k.c)); }

/// Adds `run`, which takes (device, y, x, n, c) in float or in double; y has y_size(case) values.
template <class Run, class Size, class WorkOf>
void kernel(const char* name, Run run, Size y_size, WorkOf work) {
  add(
      name,
      [=](Cpu device, float* y, const float* x, Index n, Index c) { run(device, y, x, n, c); },
      each_of(cases::reduce::kTimed,
              [=](const Case& k) {
                return arguments(out(y_size(k), rounding(k)), in(k.n * k.c, -4, 4), k.n, k.c);
              }),
      [=](std::span<double> y, Doubles x, Index n, Index c) {
        run(Cpu{}, y.data(), x.data(), n, c);
      },
      work);
}

/// The same of (device, dx, dy, y, n, c), which adds to dx; y are shares of a row, or logarithms.
template <class Run, class WorkOf>
void backward(const char* name, Run run, bool shares, WorkOf work) {
  add(
      name,
      [=](Cpu device, float* dx, const float* dy, const float* y, Index n, Index c) {
        run(device, dx, dy, y, n, c);
      },
      each_of(cases::reduce::kTimed,
              [=](const Case& k) {
                const Index size = k.n * k.c;
                const auto y = shares ? in(size, 0, 1.0 / double(k.c)) : in(size, -4, 0);
                return arguments(inout(size, rounding(k)), in(size), y, k.n, k.c);
              }),
      [=](std::span<double> dx, Doubles dy, Doubles y, Index n, Index c) {
        run(Cpu{}, dx.data(), dy.data(), y.data(), n, c);
      },
      work);
}

/// Groups of about eight rows.
std::vector<std::int32_t> eights(Index n) {
  std::vector<std::int32_t> offsets;
  for (Index at = 0; at < n; at += 8) offsets.push_back(static_cast<std::int32_t>(at));
  offsets.push_back(static_cast<std::int32_t>(n));
  return offsets;
}

template <class Run, class WorkOf>
void of_groups(const char* name, Run run, WorkOf work) {
  add(
      name,
      [=](Cpu device, float* y, const float* x, const std::int32_t* offsets, Index groups,
          Index c) { run(device, y, x, offsets, groups, c); },
      each_of(cases::reduce::kTimed,
              [](const Case& k) {
                const Index groups = (k.n + 7) / 8;
                return arguments(out(groups * k.c, 1e-5), in(k.n * k.c, -4, 4), fixed(eights(k.n)),
                                 groups, k.c);
              }),
      [=](std::span<double> y, Doubles x, std::span<const std::int32_t> offsets, Index groups,
          Index c) { run(Cpu{}, y.data(), x.data(), offsets.data(), groups, c); },
      work);
}

const auto all = [](const Case& k) { return k.n * k.c; };

void add_all() {
  using namespace cases::reduce;
  namespace kernels = plumb::kernels;
  kernel(
      "row_sums", [](Cpu d, auto* y, auto* x, Index n, Index c) { row_sums(d, y, x, n, c, false); },
      [](const Case& k) { return k.n; }, sums_work);
  for (const bool log : {false, true}) {
    kernel(
        log ? "log_softmax" : "softmax",
        [=](Cpu d, auto* y, auto* x, Index n, Index c) { softmax_rows(d, y, x, n, c, log); }, all,
        softmax_work);
    backward(
        log ? "log_softmax_backward" : "softmax_backward",
        [=](Cpu d, auto* dx, auto* dy, auto* y, Index n, Index c) {
          softmax_rows_backward(d, dx, dy, y, n, c, log);
        },
        !log, softmax_backward_work);
  }
  kernel(
      "transpose",
      [](Cpu d, auto* y, auto* x, Index n, Index c) { kernels::transpose(d, y, x, 1, n, c); }, all,
      move_work);
  of_groups(
      "group_sums",
      [](Cpu d, auto* y, auto* x, auto* offsets, Index groups, Index c) {
        group_sums(d, y, x, offsets, groups, c);
      },
      [](const Case& k) {
        return sums_work({k.n, k.c});
      });
  of_groups(
      "group_logsumexp",
      [](Cpu d, auto* y, auto* x, auto* offsets, Index groups, Index c) {
        group_logsumexp(d, y, x, offsets, groups, c);
      },
      logsumexp_work);
  for (const bool row : {true, false})
    backward(
        row ? "times_row" : "times_column",
        [=](Cpu d, auto* y, auto* vector, auto* x, Index n, Index c) {
          using T = std::decay_t<decltype(*y)>;
          combine_forward(d, y, Operand<T>{x, c, 1},
                          row ? Operand<T>{vector, 0, 1} : Operand<T>{vector, 1, 0},
                          Arithmetic::Multiply, n, c);
        },
        false, move_work);
}

}  // namespace

int main(int argc, char** argv) {
  add_all();
  return plumb::bench::run(argc, argv);
}
