// Gather, scatter-add, sums over tokens and rotary positions against the oracle, and their bits.
#include <plumb/cpu/kernels.hpp>
#include <plumb/cpu/reference_rows.hpp>

#include <doctest/doctest.h>

#include "cases/rows.hpp"
#include "support.hpp"

using namespace plumb;
using namespace cases::rows;
using test::random_vector;

namespace {

std::vector<std::int32_t> random_ids(Index n, Index v, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(n));
  for (auto& id : ids) id = static_cast<std::int32_t>(rng.below(static_cast<std::uint32_t>(v)));
  return ids;
}

template <class F>
void for_each_embedding(F f) {
  for (const Index n : kSmallRows)
    for (const Index c : kSmallChannels)
      for (const Index v : kSmallTables) f(n, c, v);
}

struct Angles {
  std::vector<float> cosine, sine;
  Angles(Index positions, Index head_size) {
    for (Index t = 0; t < positions; ++t)
      for (Index i = 0; i < head_size / 2; ++i) {
        const double turn =
            static_cast<double>(t) *
            std::pow(1e4, -2.0 * static_cast<double>(i) / static_cast<double>(head_size));
        cosine.push_back(static_cast<float>(std::cos(turn)));
        sine.push_back(static_cast<float>(std::sin(turn)));
      }
  }
};

}  // namespace

TEST_CASE("embedding_forward copies rows") {
  for_each_embedding([](Index n, Index c, Index v) {
    const auto table = random_vector(v * c, 1);
    const auto ids = random_ids(n, v, 2);
    std::vector<float> y(static_cast<std::size_t>(n * c));
    embedding_forward(Cpu{}, y.data(), table.data(), ids.data(), n, c);
    bool equal = true;
    for (Index i = 0; i < n * c; ++i)
      equal = equal &&
              y[static_cast<std::size_t>(i)] ==
                  table[static_cast<std::size_t>(ids[static_cast<std::size_t>(i / c)] * c + i % c)];
    CHECK(equal);
  });
}

TEST_CASE("embedding_backward adds in token order on every instruction set and thread count") {
  Pool one(1), two(2), three(3);
  for_each_embedding([&](Index n, Index c, Index v) {
    const auto dy = random_vector(n * c, 1), before = random_vector(v * c, 2);
    const auto ids = random_ids(n, v, 3);
    auto expected = before;  // the order itself: plain float additions, token by token
    for (Index i = 0; i < n; ++i)
      for (Index j = 0; j < c; ++j)
        expected[static_cast<std::size_t>(ids[static_cast<std::size_t>(i)] * c + j)] +=
            dy[static_cast<std::size_t>(i * c + j)];
    test::for_each_isa([&](Isa) {
      for (Pool* pool : {&one, &two, &three}) {
        auto dtable = before;
        embedding_backward(Cpu{pool}, dtable.data(), dy.data(), ids.data(), n, c, v);
        CHECK(test::same_bits(dtable, expected));
      }
    });
    auto exact = reference::embedding_backward(dy.data(), ids.data(), n, c, v);
    for (std::size_t i = 0; i < exact.size(); ++i) exact[i] += double{before[i]};
    const double terms = static_cast<double>(n) / static_cast<double>(v);  // Σ|dy| of a row
    CHECK(test::max_error(expected, exact, 1.0 + terms) < kTolerance / 2);
  });
}

TEST_CASE("sum_rows keeps the chunked order on every instruction set and thread count") {
  Pool one(1), two(2), three(3);
  for (const Index n : kSmallRows)
    for (const Index c : kSmallChannels) {
      CAPTURE(n);
      CAPTURE(c);
      const auto x = random_vector(n * c, 1), before = random_vector(c, 2);
      auto expected = before;
      for (Index j = 0; j < c; ++j)
        for (Index first = 0; first < n; first += 256) {
          float chunk = 0;
          for (Index i = first; i < std::min<Index>(n, first + 256); ++i)
            chunk += x[static_cast<std::size_t>(i * c + j)];
          expected[static_cast<std::size_t>(j)] += chunk;
        }
      test::for_each_isa([&](Isa) {
        for (Pool* pool : {&one, &two, &three}) {
          auto total = before;
          sum_rows(Cpu{pool}, total.data(), x.data(), n, c);
          CHECK(test::same_bits(total, expected));
        }
      });
      auto exact = reference::sum_rows(x.data(), n, c);
      for (std::size_t i = 0; i < exact.size(); ++i) exact[i] += double{before[i]};
      CHECK(test::max_error(expected, exact, 1.0 + static_cast<double>(n)) <
            kTolerance / 2);  // Σ|x|
    }
}

TEST_CASE("rope agrees with the oracle and keeps its bits") {
  Pool one(1), two(2), three(3);
  const Index positions = 50;
  for (const Index n : kSmallRopeRows)
    for (const Index head_size : kSmallHeadSizes)
      for (const Index heads : kSmallHeads) {
        CAPTURE(n);
        CAPTURE(head_size);
        const Angles angles(positions, head_size);
        const auto at = random_ids(n, positions, 1);
        const auto x = random_vector(n * heads * head_size, 2),
                   before = random_vector(n * heads * head_size, 3);
        std::vector<float> y(x.size());
        auto dx = before;
        const auto forward = [&](Cpu device, std::vector<float>& out, const float* in) {
          rope_forward(device, out.data(), in, angles.cosine.data(), angles.sine.data(), at.data(),
                       n, heads, head_size);
        };
        const auto backward = [&](Cpu device, std::vector<float>& out) {
          rope_backward(device, out.data(), x.data(), angles.cosine.data(), angles.sine.data(),
                        at.data(), n, heads, head_size);
        };
        forward(Cpu{&one}, y, x.data());
        backward(Cpu{&one}, dx);
        test::for_each_isa([&](Isa) {
          for (Pool* pool : {&one, &two, &three}) {
            auto in_place = x, other = before;
            forward(Cpu{pool}, in_place, in_place.data());
            backward(Cpu{pool}, other);
            CHECK(test::same_bits(in_place, y));
            CHECK(test::same_bits(other, dx));
          }
        });
        const auto oracle = [&](double direction) {
          return reference::rope(x.data(), angles.cosine.data(), angles.sine.data(), at.data(), n,
                                 heads, head_size, direction);
        };
        CHECK(test::max_error(y, oracle(1), 5.0) < 2e-7);  // |x| up to 5; two roundings
        auto exact = oracle(-1);
        for (std::size_t i = 0; i < exact.size(); ++i) exact[i] += double{before[i]};
        CHECK(test::max_error(dx, exact, 5.0) < 3e-7);
      }
}

TEST_CASE("rope's gradient is its transpose") {
  // Turning is linear, so <R x, y> = <x, Rᵀ y> says that backward is the gradient of forward.
  const Index n = 4, heads = 2, head_size = 10;
  const Angles angles(9, head_size);
  const std::vector<std::int32_t> at{0, 3, 8, 1};
  const auto x = random_vector(n * heads * head_size, 1),
             dy = random_vector(n * heads * head_size, 2);
  const auto y = reference::rope(x.data(), angles.cosine.data(), angles.sine.data(), at.data(), n,
                                 heads, head_size, 1);
  const auto dx = reference::rope(dy.data(), angles.cosine.data(), angles.sine.data(), at.data(), n,
                                  heads, head_size, -1);
  double a = 0, b = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    a += y[i] * double{dy[i]};
    b += dx[i] * double{x[i]};
  }
  CHECK(a == doctest::Approx(b).epsilon(1e-12));
}

TEST_CASE("rope at position 0 changes nothing and pairs neighbours") {
  const Angles angles(2, 4);
  const std::vector<float> x{1, 2, 3, 4, 1, 0, 0, 1};
  std::vector<float> y(8);
  const std::vector<std::int32_t> at{0, 1};
  rope_forward(Cpu{}, y.data(), x.data(), angles.cosine.data(), angles.sine.data(), at.data(), 2, 1,
               4);
  CHECK(test::same_bits(std::span(y).first(4), std::span(x).first(4)));
  CHECK(y[4] == static_cast<float>(std::cos(1.0)));
  CHECK(y[5] == static_cast<float>(std::sin(1.0)));
  CHECK(y[6] == -static_cast<float>(std::sin(0.01)));
  CHECK(y[7] == static_cast<float>(std::cos(0.01)));
}
