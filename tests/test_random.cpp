// Philox against the vectors of its authors, and what Rng draws from it.
#include <plumb/core/random.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>

using namespace plumb;
using Words = std::array<std::uint32_t, 4>;

TEST_CASE("philox gives the known answers of Random123") {
  // github.com/DEShawResearch/random123, tests/kat_vectors, philox4x32 10
  CHECK(philox({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox({~0U, ~0U, ~0U, ~0U}, {~0U, ~0U}) ==
        Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("every part of the place is part of the key") {
  const std::uint64_t far = std::uint64_t{1} << 32;
  std::set<Words> drawn{philox(1, Stage::Sample, 2, 3, 4),       philox(2, Stage::Sample, 2, 3, 4),
                        philox(1 + far, Stage::Sample, 2, 3, 4), philox(1, Stage::Shuffle, 2, 3, 4),
                        philox(1, Stage::Sample, 5, 3, 4),       philox(1, Stage::Sample, 2, 5, 4),
                        philox(1, Stage::Sample, 2, 3, 5)};
  CHECK(drawn.size() == 7);
  static_assert(philox(1, Stage::Sample, 2, 3, 4) == philox(1, Stage::Sample, 2, 3, 4));
}

TEST_CASE("a stream is the words of its places in order") {
  Rng rng(9, Stage::Init, 7, 5);
  for (std::uint32_t token = 0; token < 3; ++token)
    for (const std::uint32_t word : philox(9, Stage::Init, 7, 5, token)) CHECK(rng.bits() == word);
}

TEST_CASE("uniform_from covers [0, 1) in steps of 2^-24") {
  CHECK(uniform_from(0) == 0.0F);
  CHECK(uniform_from(255) == 0.0F);
  CHECK(uniform_from(256) == 0x1p-24F);
  CHECK(uniform_from(~0U) == 1.0F - 0x1p-24F);
}

TEST_CASE("uniform and normal have the moments of their distributions") {
  // 2^17 draws: a mean's standard error is σ/362. The seed is fixed, so a bound of four standard
  // errors either always holds or never.
  const int n = 1 << 17;
  const double root = std::sqrt(static_cast<double>(n));
  Rng rng(1);
  double sum = 0, squares = 0;
  bool inside = true;
  for (int i = 0; i < n; ++i) {
    const double u = static_cast<double>(rng.uniform());
    inside = inside && u >= 0 && u < 1;
    sum += u;
    squares += (u - 0.5) * (u - 0.5);
  }
  CHECK(inside);
  CHECK(std::abs(sum / n - 0.5) < 4 * std::sqrt(1.0 / 12) / root);
  CHECK(std::abs(squares / n - 1.0 / 12) < 4 * std::sqrt(1.0 / 180) / root);

  double third = 0, fourth = 0;
  sum = squares = 0;
  for (int i = 0; i < n; ++i) {
    const double x = static_cast<double>(rng.normal());
    sum += x;
    squares += x * x;
    third += x * x * x;
    fourth += x * x * x * x;
  }
  CHECK(std::abs(sum / n) < 4 * 1.0 / root);
  CHECK(std::abs(squares / n - 1) < 4 * std::sqrt(2.0) / root);
  CHECK(std::abs(third / n) < 4 * std::sqrt(15.0) / root);
  CHECK(std::abs(fourth / n - 3) < 4 * std::sqrt(96.0) / root);
}

TEST_CASE("below is uniform over its values") {
  for (const std::uint32_t n : {1U, 2U, 3U, 7U, 10U}) {
    Rng rng(3, Stage::Test, n);
    std::vector<double> counts(n);
    const double draws = 70000;
    for (int i = 0; i < 70000; ++i) counts.at(rng.below(n)) += 1;
    const double expected = draws / n;
    double chi_squared = 0;
    for (const double count : counts)
      chi_squared += (count - expected) * (count - expected) / expected;
    CHECK(chi_squared < n - 1 + 4 * std::sqrt(2.0 * n));  // mean n - 1, variance 2(n - 1)
  }
  // Three quarters of the range: without rejection every third value would be drawn twice as often.
  const std::uint32_t n = 3U << 30;
  Rng rng(4);
  double thirds[3] = {};
  bool inside = true;
  for (int i = 0; i < 60000; ++i) {
    const std::uint32_t x = rng.below(n);
    inside = inside && x < n;
    thirds[x % 3] += 1;
  }
  CHECK(inside);
  for (const double count : thirds) CHECK(std::abs(count - 20000) < 4 * std::sqrt(60000 * 2 / 9.0));
  CHECK_THROWS_AS(rng.below(0), ShapeError);
}

TEST_CASE("a shuffle is a permutation, the same for the same key alone") {
  const auto a = permutation(100, Rng(1, Stage::Shuffle, 0));
  const auto again = permutation(100, Rng(1, Stage::Shuffle, 0));
  const auto b = permutation(100, Rng(1, Stage::Shuffle, 1));
  CHECK(a == again);
  CHECK(a != b);
  auto sorted = a;
  std::sort(sorted.begin(), sorted.end());
  bool complete = a.size() == 100;
  for (std::size_t i = 0; i < sorted.size(); ++i)
    complete = complete && sorted[i] == static_cast<Index>(i);
  CHECK(complete);
  CHECK(permutation(0, Rng(1)).empty());

  // Each of the 6 orders of three items about equally often.
  double counts[6] = {};
  for (std::uint32_t i = 0; i < 6000; ++i) {
    const auto order = permutation(3, Rng(2, Stage::Shuffle, i));
    counts[order[0] * 2 + (order[1] > order[2] ? 1 : 0)] += 1;
  }
  for (const double count : counts) CHECK(std::abs(count - 1000) < 4 * std::sqrt(6000 * 5 / 36.0));
}
