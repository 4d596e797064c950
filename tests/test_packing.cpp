#include <plumb/data/packing.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

using namespace plumb;

TEST_CASE("packing: sequences lie one after another, positions begin anew") {
  PackedBatch batch;
  CHECK(batch.sequences() == 0);
  CHECK(batch.size() == 0);
  CHECK(batch.positions().empty());
  batch.add(Tokens{5, 6, 7});
  batch.add(Tokens{8});
  batch.add(Tokens{9, 1});
  CHECK(batch.sequences() == 3);
  CHECK(batch.size() == 6);
  CHECK(batch.tokens == Tokens{5, 6, 7, 8, 9, 1});
  CHECK(batch.offsets == Tokens{0, 3, 4, 6});
  CHECK(batch.positions() == Tokens{0, 1, 2, 0, 0, 1});
  const auto last = batch.sequence(2);
  CHECK(Tokens(last.begin(), last.end()) == Tokens{9, 1});
}

TEST_CASE("packing: a token id of 0 or -1 is data, not padding") {
  PackedBatch batch;
  batch.add(Tokens{0, 0});
  batch.add(Tokens{-1});
  CHECK(batch.size() == 3);
  CHECK(batch.offsets == Tokens{0, 2, 3});
}

TEST_CASE("packing: an empty sequence and an unknown one are refused") {
  PackedBatch batch;
  CHECK_THROWS_AS(batch.add({}), ShapeError);
  CHECK(batch.sequences() == 0);
  batch.add(Tokens{1});
  CHECK_THROWS_AS(batch.sequence(1), ShapeError);
  CHECK_THROWS_AS(batch.sequence(-1), ShapeError);
}

TEST_CASE("packing: items that come one by one fill the same runs") {
  const std::vector<Index> lengths{5, 3, 8, 2, 2, 2, 20, 1};
  TokenRuns runs(8);
  CHECK(runs.fill() == 0.0);
  for (const Index n : lengths) runs.add(n);
  Index count = 0;
  const auto length = [&](std::size_t i) { return lengths[i]; };
  for_token_runs(lengths.size(), 8, length, [&](std::size_t, std::size_t) { ++count; });
  CHECK(count == 5);
  CHECK(runs.runs() == count);
  CHECK(runs.fill() == doctest::Approx(43.0 / 40.0));
}
