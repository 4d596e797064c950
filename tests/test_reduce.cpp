// Sums, maxima, softmax, groups of rows and what moves values: against the loops in double, and
// their bits on every instruction set and for every number of threads.
#include <plumb/cpu/kernels.hpp>

#include <doctest/doctest.h>

#include <functional>
#include <limits>
#include <string>

#include "cases/reduce.hpp"
#include "support.hpp"

using namespace plumb;
using cases::reduce::kSmall;
using test::random_vector;

namespace {

/// What a case's kernels are given, in float or double.
template <class T>
struct Matrices {
  Index n, c, groups;
  std::vector<T> x, dy, row, column;
  std::vector<std::int32_t> ids, offsets;
};

Matrices<float> matrices(Index n, Index c) {
  const auto offsets = cases::reduce::groups(n);
  const auto groups = static_cast<Index>(offsets.size()) - 1;
  Matrices<float> m{n,
                    c,
                    groups,
                    random_vector(n * c, 1, 3.0F),
                    random_vector((n + groups) * c, 2),
                    random_vector(c, 3),
                    random_vector(n, 4),
                    {},
                    offsets};
  Rng rng(5);
  for (Index i = 0; i < n; ++i)
    m.ids.push_back(static_cast<std::int32_t>(rng.below(static_cast<std::uint32_t>(c))));
  return m;
}

Matrices<double> exact(const Matrices<float>& m) {
  const auto wide = [](const std::vector<float>& x) {
    return std::vector<double>(x.begin(), x.end());
  };
  return {m.n, m.c, m.groups, wide(m.x), wide(m.dy), wide(m.row), wide(m.column), m.ids, m.offsets};
}

/// A kernel into y, of `size` values, ½ each before it; and its largest error relative to
/// max(1, |exact|) · √terms.
struct Kernel {
  std::string name;
  std::function<Index(const Matrices<float>&)> size;
  std::function<void(Cpu, float*, const Matrices<float>&)> run;
  std::function<void(Cpu, double*, const Matrices<double>&)> exact;
  double tolerance;
};

template <class Run>
Kernel kernel(std::string name, std::function<Index(const Matrices<float>&)> size, Run run,
              double tolerance) {
  return {std::move(name), std::move(size),
          [run](Cpu d, float* y, const Matrices<float>& m) { run(d, y, m); },
          [run](Cpu d, double* y, const Matrices<double>& m) { run(d, y, m); }, tolerance};
}

std::vector<Kernel> reductions() {
  const auto all = [](const Matrices<float>& m) { return m.n * m.c; };
  const auto rows = [](const Matrices<float>& m) { return m.n; };
  const auto grouped = [](const Matrices<float>& m) { return m.groups * m.c; };
  std::vector<Kernel> list{
      kernel(
          "row_sums", rows,
          [](Cpu d, auto* y, const auto& m) { row_sums(d, y, m.x.data(), m.n, m.c, false); }, 1e-6),
      kernel(
          "row_sums, added", rows,
          [](Cpu d, auto* y, const auto& m) { row_sums(d, y, m.x.data(), m.n, m.c, true); }, 1e-6),
      kernel(
          "pick", rows,
          [](Cpu d, auto* y, const auto& m) {
            pick_forward(d, y, m.x.data(), m.ids.data(), m.n, m.c);
          },
          0),
      kernel(
          "pick, backward", all,
          [](Cpu d, auto* y, const auto& m) {
            pick_backward(d, y, m.dy.data(), m.ids.data(), m.n, m.c);
          },
          0x1p-24),
      kernel(
          "transpose", all,
          [](Cpu d, auto* y, const auto& m) { transpose(d, y, m.x.data(), 1, m.n, m.c); }, 0),
      kernel(
          "transpose of two", all,
          [](Cpu d, auto* y, const auto& m) {
            if (m.n % 2 == 0) transpose(d, y, m.x.data(), 2, m.n / 2, m.c);
          },
          0),
      kernel(
          "group_sums", grouped,
          [](Cpu d, auto* y, const auto& m) {
            group_sums(d, y, m.x.data(), m.offsets.data(), m.groups, m.c);
          },
          1e-6),
      kernel(
          "group_sums, backward", all,
          [](Cpu d, auto* y, const auto& m) {
            group_sums_backward(d, y, m.dy.data(), m.offsets.data(), m.groups, m.c);
          },
          0x1p-24),
      kernel(
          "group_logsumexp", grouped,
          [](Cpu d, auto* y, const auto& m) {
            group_logsumexp(d, y, m.x.data(), m.offsets.data(), m.groups, m.c);
          },
          1e-6),
      kernel(
          "group_logsumexp, backward", all,
          [](Cpu d, auto* y, const auto& m) {
            auto lse = m.x;
            lse.resize(static_cast<std::size_t>(m.groups * m.c));
            group_logsumexp(d, lse.data(), m.x.data(), m.offsets.data(), m.groups, m.c);
            group_logsumexp_backward(d, y, m.dy.data(), m.x.data(), lse.data(), m.offsets.data(),
                                     m.groups, m.c);
          },
          2e-6),
  };
  for (const bool log : {false, true}) {
    list.push_back(kernel(
        log ? "log_softmax" : "softmax", all,
        [log](Cpu d, auto* y, const auto& m) { softmax_rows(d, y, m.x.data(), m.n, m.c, log); },
        1e-6));
    list.push_back(kernel(
        log ? "log_softmax, backward" : "softmax, backward", all,
        [log](Cpu d, auto* y, const auto& m) {
          auto p = m.x;
          softmax_rows(d, p.data(), m.x.data(), m.n, m.c, log);
          softmax_rows_backward(d, y, m.dy.data(), p.data(), m.n, m.c, log);
        },
        2e-6));
  }
  for (const int beside : {0, 1, 2}) {
    const auto other = [beside](const auto& m) {
      using T = typename std::decay_t<decltype(m.x)>::value_type;
      return beside == 0   ? Operand<T>{m.dy.data(), m.c, 1}
             : beside == 1 ? Operand<T>{m.row.data(), 0, 1}
                           : Operand<T>{m.column.data(), 1, 0};
    };
    for (const Arithmetic f : {Arithmetic::Subtract, Arithmetic::Maximum}) {
      list.push_back(kernel(
          str("combine ", static_cast<int>(f), ", ", beside), all,
          [=](Cpu d, auto* y, const auto& m) {
            combine_forward(d, y, {m.x.data(), m.c, 1}, other(m), f, m.n, m.c);
          },
          0x1p-24));
      list.push_back(kernel(
          str("combine the other way ", static_cast<int>(f), ", ", beside), all,
          [=](Cpu d, auto* y, const auto& m) {
            combine_forward(d, y, other(m), {m.x.data(), m.c, 1}, f, m.n, m.c);
          },
          0x1p-24));
      list.push_back(kernel(
          str("combine, backward ", static_cast<int>(f), ", ", beside), all,
          [=](Cpu d, auto* y, const auto& m) {
            combine_backward(d, y, m.dy.data(), {m.x.data(), m.c, 1}, other(m), f, false, m.n, m.c);
          },
          0x1p-23));
    }
    for (const bool accumulate : {false, true})
      list.push_back(kernel(
          str("assign ", beside, accumulate ? ", added" : ""),
          [](const Matrices<float>& m) { return m.n * (m.c + 3); },
          [=](Cpu d, auto* y, const auto& m) {
            using T = std::decay_t<decltype(*y)>;
            assign(d, y + 2, m.c + 3, other(m), T{0.75}, accumulate, m.n, m.c);
          },
          0x1p-24));
  }
  return list;
}

std::vector<float> run(const Kernel& kernel, Cpu device, const Matrices<float>& m) {
  std::vector<float> y(static_cast<std::size_t>(kernel.size(m)), 0.5F);
  kernel.run(device, y.data(), m);
  return y;
}

}  // namespace

TEST_CASE("reductions agree with the loops in double on every instruction set") {
  test::for_each_isa([&](Isa isa) {
    for (const auto& size : kSmall) {
      const Index n = size.n, c = size.c;
      const auto m = matrices(n, c);
      const auto wide = exact(m);
      for (const Kernel& k : reductions()) {
        INFO(k.name, " on ", name(isa), ", ", n, " x ", c);
        std::vector<double> expected(static_cast<std::size_t>(k.size(m)), 0.5);
        k.exact({}, expected.data(), wide);
        auto got = run(k, {}, m);
        for (std::size_t i = 0; i < got.size(); ++i)  // of groups without rows
          if (expected[i] == -INFINITY && got[i] == -INFINITY) expected[i] = got[i] = 0;
        const double terms = std::sqrt(static_cast<double>(std::max(n, c)));
        CHECK(test::max_relative_error(got, expected) <= k.tolerance * terms);
      }
    }
  });
}

TEST_CASE("reductions give the same bits on every instruction set and thread count") {
  Pool one(1), two(2), three(3);
  for (const auto& size : kSmall) {
    const Index n = size.n, c = size.c;
    const auto m = matrices(n, c);
    for (const Kernel& k : reductions()) {
      const auto expected = run(k, Cpu{&one}, m);
      test::for_each_isa([&](Isa isa) {
        for (Pool* pool : {&one, &two, &three}) {
          INFO(k.name, " on ", name(isa), ", ", n, " x ", c);
          CHECK(test::same_bits(run(k, Cpu{pool}, m), expected));
        }
      });
    }
  }
}

TEST_CASE("argmax is the first of equals, and the first NaN where there is one") {
  const float infinity = std::numeric_limits<float>::infinity(), nan = NAN;
  test::for_each_isa([&](Isa isa) {
    for (Index c = 1; c < 70; ++c)
      for (const Index at : {Index{0}, c / 3, c - 1}) {
        INFO(name(isa), ", ", c, " columns, at ", at);
        const auto find = [&](std::vector<float> x) {
          std::int32_t id = -1, in_double = -1;
          argmax_rows(Cpu{}, &id, x.data(), 1, c);
          const std::vector<double> wide(x.begin(), x.end());
          argmax_rows(Cpu{}, &in_double, wide.data(), 1, c);
          CHECK(id == in_double);
          return Index{id};
        };
        const auto with = [&](float rest, float value) {
          std::vector<float> x(static_cast<std::size_t>(c), rest);
          x[static_cast<std::size_t>(at)] = value;
          return x;
        };
        CHECK(find(with(-5.0F, -4.0F)) == at);
        CHECK(find(with(2.0F, 2.0F)) == 0);
        CHECK(find(with(-infinity, -infinity)) == 0);
        CHECK(find(with(1.0F, infinity)) == at);
        CHECK(find(with(infinity, nan)) == at);
        CHECK(find(with(-infinity, -1e30F)) == at);
        auto two = with(3.0F, nan);
        two.back() = nan;
        CHECK(find(two) == at);
      }
  });
}

TEST_CASE("softmax leaves out what is -infinity, and of large numbers overflows nothing") {
  const float infinity = std::numeric_limits<float>::infinity();
  const float x[] = {-infinity, 1e30F, -infinity, 1e30F};
  test::for_each_isa([&](Isa) {
    float y[4], z[4];
    softmax_rows(Cpu{}, y, x, 1, 4, false);
    softmax_rows(Cpu{}, z, x, 1, 4, true);
    CHECK(y[0] == 0.0F);
    CHECK(y[1] == 0.5F);
    CHECK(z[0] == -infinity);
  });
}

TEST_CASE("a group without rows has a logsumexp of -infinity and no gradient") {
  const std::int32_t offsets[] = {0, 0, 2};
  const float infinity = std::numeric_limits<float>::infinity();
  const float x[] = {-infinity, -infinity}, dy[] = {1, 1};
  test::for_each_isa([&](Isa) {
    float y[2], dx[2] = {};
    group_logsumexp(Cpu{}, y, x, offsets, 2, 1);
    CHECK(y[0] == -infinity);
    CHECK(y[1] == -infinity);
    group_logsumexp_backward(Cpu{}, dx, dy, x, y, offsets, 2, 1);
    CHECK(dx[0] == 0.0F);
  });
}

TEST_CASE("a batch of products has the bits of each") {
  for (const auto& size : {std::array<Index, 3>{3, 5, 7}, {17, 33, 300}, {200, 200, 200}}) {
    const Index batch = 5, rows = size[0], columns = size[1], inner = size[2];
    const auto a = random_vector(batch * rows * inner, 1),
               b = random_vector(batch * inner * columns, 2);
    for (const Form form : {Form::NN, Form::NT, Form::TN}) {
      std::vector<float> expected(static_cast<std::size_t>(batch * rows * columns), 0.25F);
      auto got = expected;
      for (Index i = 0; i < batch; ++i)
        matmul(Cpu{}, expected.data() + i * rows * columns, a.data() + i * rows * inner,
               b.data() + i * inner * columns, rows, columns, inner, form, true);
      matmul_batched(Cpu{}, got.data(), a.data(), b.data(), batch, rows, columns, inner, form,
                     true);
      CHECK(test::same_bits(got, expected));
    }
  }
}
