// RMSNorm and LayerNorm against the double-precision oracle, and bit for bit against themselves.
#include <plumb/cpu/kernels.hpp>
#include <plumb/cpu/reference_norm.hpp>

#include <doctest/doctest.h>

#include "cases/norm.hpp"
#include "support.hpp"

using namespace plumb;
using cases::norm::kSmall;
using cases::norm::kTolerance;
using test::random_vector;

namespace {

constexpr float kEps = 1e-5F;

// What either norm computes from one set of inputs. Gradients start at `start`.
struct Result {
  std::vector<float> y, mean, rstd, dx, dweight, dbias;
  bool operator==(const Result& other) const {
    return test::same_bits(y, other.y) && test::same_bits(rstd, other.rstd) &&
           test::same_bits(mean, other.mean) && test::same_bits(dx, other.dx) &&
           test::same_bits(dweight, other.dweight) && test::same_bits(dbias, other.dbias);
  }
};

struct Inputs {
  Index n, c;
  std::vector<float> x, dy, weight, bias;
  Inputs(Index rows, Index channels)
      : n(rows),
        c(channels),
        x(random_vector(n * c, 1)),
        dy(random_vector(n * c, 2)),
        weight(random_vector(c, 3)),
        bias(random_vector(c, 4)) {
    for (float& value : x) value += 0.5F;
  }
};

Result run(Cpu device, const Inputs& in, bool centred, float start = 0.0F) {
  const auto rows = static_cast<std::size_t>(in.n), columns = static_cast<std::size_t>(in.c);
  Result r;
  r.y.resize(in.x.size());
  r.mean.resize(rows);
  r.rstd.resize(rows);
  r.dx.assign(in.x.size(), start);
  r.dweight.assign(columns, start);
  r.dbias.assign(columns, start);
  if (centred) {
    layer_norm_forward(device, r.y.data(), r.mean.data(), r.rstd.data(), in.x.data(),
                       in.weight.data(), in.bias.data(), in.n, in.c, kEps);
    layer_norm_backward(device, r.dx.data(), r.dweight.data(), r.dbias.data(), in.dy.data(),
                        in.x.data(), in.weight.data(), r.mean.data(), r.rstd.data(), in.n, in.c);
  } else {
    rms_norm_forward(device, r.y.data(), r.rstd.data(), in.x.data(), in.weight.data(), in.n, in.c,
                     kEps);
    rms_norm_backward(device, r.dx.data(), r.dweight.data(), in.dy.data(), in.x.data(),
                      in.weight.data(), r.rstd.data(), in.n, in.c);
  }
  return r;
}

}  // namespace

TEST_CASE("norms agree with the oracle at odd sizes on every instruction set") {
  test::for_each_isa([&](Isa) {
    for (const auto& [n, c] : kSmall)
      for (const bool centred : {false, true}) {
        const Inputs in(n, c);
        INFO("n = ", in.n, ", c = ", in.c, centred ? ", LayerNorm" : ", RMSNorm");
        const Result r = run({}, in, centred);
        const auto y = reference::norm_forward(in.x.data(), in.weight.data(),
                                               centred ? in.bias.data() : nullptr, n, c, kEps);
        const auto g = reference::norm_backward(in.dy.data(), in.x.data(), in.weight.data(), n, c,
                                                kEps, centred);
        // Values are of order 1 (but up to 6 sigma), a sum over n tokens of order sqrt(n). With one
        // or two channels rstd is up to 1 / sqrt(eps), and its error is magnified with it.
        double largest_rstd = 1;
        for (const float s : r.rstd) largest_rstd = std::max(largest_rstd, static_cast<double>(s));
        const double size = centred ? largest_rstd : std::sqrt(largest_rstd);
        CHECK(test::max_error(r.y, y, size) < kTolerance / 2);
        CHECK(test::max_error(r.dx, g.dx, size * largest_rstd) < kTolerance);
        const double tokens = std::sqrt(static_cast<double>(std::max<Index>(n, 1)));
        CHECK(test::max_error(r.dweight, g.dweight, size * tokens) < kTolerance);
        if (centred) CHECK(test::max_error(r.dbias, g.dbias, tokens) < kTolerance / 2);
      }
  });
}

TEST_CASE("norms give the same bits on every instruction set and for every number of threads") {
  Pool one(1), two(2), three(3);
  for (const auto& [n, c] : kSmall)
    for (const bool centred : {false, true}) {
      const Inputs in(n, c);
      const Result expected = run({&one}, in, centred, 0.25F);
      test::for_each_isa([&](Isa) {
        for (Pool* pool : {&one, &two, &three}) CHECK(run({pool}, in, centred, 0.25F) == expected);
      });
    }
}

TEST_CASE("a token's norm does not depend on the other tokens") {
  const Inputs in(9, 77);
  for (const bool centred : {false, true}) {
    const Result whole = run({}, in, centred);
    for (Index i = 0; i < in.n; ++i) {
      Inputs row(1, in.c);
      std::copy_n(in.x.data() + i * in.c, in.c, row.x.data());
      std::copy_n(in.dy.data() + i * in.c, in.c, row.dy.data());
      const Result alone = run({}, row, centred);
      const auto at = static_cast<std::size_t>(i * in.c), count = static_cast<std::size_t>(in.c);
      CHECK(test::same_bits(alone.y, std::span(whole.y).subspan(at, count)));
      CHECK(test::same_bits(alone.dx, std::span(whole.dx).subspan(at, count)));
    }
  }
}

TEST_CASE("norm gradients are added, and null ones left out") {
  const Inputs in(300, 33);
  for (const bool centred : {false, true}) {
    const Result zero = run({}, in, centred, 0.0F), one = run({}, in, centred, 1.0F);
    // dx accumulates by one fma, so adding 1 afterwards rounds twice; two sums of ≤ 2 ulp each.
    for (const auto& [a, b] : {std::pair{&zero.dx, &one.dx}, {&zero.dweight, &one.dweight}})
      for (std::size_t i = 0; i < a->size(); ++i)
        CHECK(std::abs((*a)[i] + 1.0F - (*b)[i]) <= 3e-7F * (2.0F + std::abs((*a)[i])));

    std::vector<float> only(33, 0.0F);
    if (centred)
      layer_norm_backward(Cpu{}, nullptr, nullptr, only.data(), in.dy.data(), in.x.data(),
                          in.weight.data(), zero.mean.data(), zero.rstd.data(), in.n, in.c);
    else
      rms_norm_backward(Cpu{}, nullptr, only.data(), in.dy.data(), in.x.data(), in.weight.data(),
                        zero.rstd.data(), in.n, in.c);
    CHECK(test::same_bits(only, centred ? zero.dbias : zero.dweight));
    rms_norm_backward(Cpu{}, nullptr, nullptr, in.dy.data(), in.x.data(), in.weight.data(),
                      zero.rstd.data(), in.n, in.c);
  }
}

TEST_CASE("LayerNorm survives a mean far larger than the spread") {
  // 4096 + {0, 1}: exactly representable, so mean ½ away and variance ¼ must come out exactly.
  std::vector<float> x(64);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = 4096.0F + static_cast<float>(i % 2);
  const std::vector<float> weight(64, 1.0F), bias(64, 0.0F);
  std::vector<float> y(64);
  float mean = 0, rstd = 0;
  layer_norm_forward(Cpu{}, y.data(), &mean, &rstd, x.data(), weight.data(), bias.data(), 1, 64,
                     0.0F);
  CHECK(mean == 4096.5F);
  CHECK(rstd == 2.0F);
  CHECK(y[0] == -1.0F);
  CHECK(y[1] == 1.0F);
}
