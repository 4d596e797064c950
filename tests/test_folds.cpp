// Folds: equal in size, whatever the texts, the seed and the order.
#include "temporary.hpp"

#include <plumb/data/folds.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

using namespace plumb;
using Groups = std::vector<std::string>;

namespace {

Groups prompts(int n) {
  Groups out;
  for (int i = 0; i < n; ++i) out.push_back("prompt " + std::to_string(i));
  return out;
}

}  // namespace

TEST_CASE("folds: sizes differ by at most one, down to one prompt a fold, for any seed") {
  for (const int n : {5, 6, 8, 10, 15, 1003})
    for (const int folds : {1, 2, 5})
      for (std::uint64_t seed = 0; seed < 20; ++seed) {
        std::vector<int> count(static_cast<std::size_t>(folds), 0);
        for (const int fold : deal_folds(prompts(n), folds, seed)) {
          REQUIRE(fold >= 0);
          REQUIRE(fold < folds);
          ++count[static_cast<std::size_t>(fold)];
        }
        const auto [least, most] = std::minmax_element(count.begin(), count.end());
        CHECK(*most - *least <= 1);
      }
}

TEST_CASE("folds: equal groups share one, and count once") {
  Groups groups = prompts(7);
  for (int i = 0; i < 100; ++i) groups.push_back("prompt 3");
  const std::vector<int> fold = deal_folds(groups, 7, 1);
  CHECK(std::count(fold.begin(), fold.end(), fold[3]) == 101);
  std::vector<int> distinct(fold.begin(), fold.begin() + 7);
  std::sort(distinct.begin(), distinct.end());
  CHECK(distinct == std::vector<int>{0, 1, 2, 3, 4, 5, 6});
}

TEST_CASE("folds: they depend on the seed and not on the order of the file") {
  const Groups groups = prompts(1000);
  const std::vector<int> fold = deal_folds(groups, 5, 1), other = deal_folds(groups, 5, 2);
  int moved = 0;
  for (std::size_t i = 0; i < groups.size(); ++i) moved += fold[i] != other[i];
  CHECK(std::abs(moved - 800) < 65);  // 800 expected, standard deviation 13
  Groups reversed(groups.rbegin(), groups.rend());
  std::vector<int> back = deal_folds(reversed, 5, 1);
  std::reverse(back.begin(), back.end());
  CHECK(back == fold);
  // Neighbouring texts are not neighbours in the dealing.
  std::map<int, int> steps;
  for (std::size_t i = 1; i < 1000; ++i) ++steps[(fold[i] - fold[i - 1] + 5) % 5];
  for (const auto& [step, n] : steps) CHECK(std::abs(n - 200) < 65);
  // Pinned: a fold must be the same on every machine and in every version.
  CHECK(deal_folds(Groups{"Once upon a time", "One day", "Lily", "Tom", "The sun"}, 5, 1) ==
        std::vector<int>{4, 0, 1, 3, 2});
}

TEST_CASE("folds: too few prompts are refused by number") {
  Groups groups = prompts(4);
  groups.push_back("prompt 0");
  const std::string error = message_of<DataError>([&] { deal_folds(groups, 5, 1); });
  CHECK(error.find("5 records of 4 distinct prompts do not make 5 folds") != error.npos);
  CHECK(error.find("HINT") != error.npos);
  CHECK_THROWS_AS(deal_folds(Groups{}, 1, 1), DataError);
  CHECK_THROWS_AS(deal_folds(groups, 0, 1), ShapeError);
}
