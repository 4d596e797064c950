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
