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

TEST_CASE("packing: a beginning that sequences share is there once") {
  const std::vector<Tokens> sequences{{1, 2, 3, 4}, {1, 2, 5}, {7, 8},       {1, 2, 5, 6, 9},
                                      {1, 2, 5},    {1, 2},    {7, 8, 8, 8}, {1, 2, 3, 4, 4}};
  PackedBatch batch(true), apart;
  for (const Tokens& sequence : sequences) {
    batch.add(sequence);
    apart.add(sequence);
  }
  CHECK(batch.prefixes == Tokens{0, 2, 0, 3, 2, 1, 2, 4});
  CHECK(batch.size() == 4 + 1 + 2 + 2 + 1 + 1 + 2 + 1);
  const auto keys = batch.keys();
  const auto positions = batch.positions();
  for (std::size_t b = 0; b < sequences.size(); ++b) {
    const auto s = static_cast<Index>(b);
    REQUIRE(batch.length(s) == static_cast<Index>(sequences[b].size()));
    REQUIRE(keys.offsets[b + 1] - keys.offsets[b] == batch.length(s));
    for (Index t = 0; t < batch.length(s); ++t) {
      const auto row = static_cast<std::size_t>(batch.row(s, t));
      CHECK(batch.tokens[row] == sequences[b][static_cast<std::size_t>(t)]);
      CHECK(positions[row] == t);
      CHECK(keys.rows[static_cast<std::size_t>(keys.offsets[b] + t)] == batch.row(s, t));
    }
  }
  CHECK(apart.size() == 28);
  CHECK(apart.keys().rows.empty());

  const PackedBatch all = batch;
  batch.keep(3);
  CHECK(batch.size() == 7);
  for (std::size_t b = 3; b < sequences.size(); ++b) batch.add(sequences[b]);
  CHECK(batch.tokens == all.tokens);
  CHECK(batch.offsets == all.offsets);
  CHECK(batch.prefixes == all.prefixes);
}

TEST_CASE("packing: too little in common is not shared") {
  PackedBatch batch(true);
  batch.add(Tokens(20, 1));
  Tokens other(33, 2);
  other[0] = other[1] = 1;
  batch.add(other);
  CHECK(batch.size() == 53);
  other.resize(32);
  batch.add(other);
  CHECK(batch.prefixes == Tokens{0, 0, 31});
}

TEST_CASE("packing: runs are filled up to the budget, shared tokens counted once") {
  const std::vector<Index> lengths{5, 3, 8, 2, 2, 2, 20, 1};
  TokenRuns runs(8);
  CHECK(runs.fill() == 0.0);
  for (const Index n : lengths) runs.add(n);
  Index count = 0, budget = 0;
  std::size_t next = 0;
  const auto add = [&](PackedBatch& batch, std::size_t i) {
    batch.add(Tokens(static_cast<std::size_t>(lengths[i]), 1));
  };
  const auto look = [&](const PackedBatch& batch, std::size_t first, std::size_t last) {
    CHECK(first == next);
    CHECK(batch.sequences() == static_cast<Index>(last - first));
    CHECK((batch.size() <= budget || last - first == 1));
    next = last;
    ++count;
  };
  budget = 12;
  for_packed_runs(true, lengths.size(), budget, add, look);
  CHECK(next == lengths.size());
  // 5 and 8 add 5 and 3, the shorter ones their last: 12 together; then 20, then 1.
  CHECK(count == 3);
  count = 0;
  next = 0;
  budget = 8;
  for_packed_runs(false, lengths.size(), budget, add, look);
  CHECK(count == 5);
  CHECK(runs.runs() == count);
  CHECK(runs.fill() == doctest::Approx(43.0 / 40.0));
}
