#include "temporary.hpp"

#include <plumb/data/records.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

using namespace plumb;
using Ranks = std::vector<int>;
using Groups = std::vector<std::vector<int>>;

TEST_CASE("records: groups and ranks are each other's inverse") {
  const Groups groups{{2}, {0}, {1, 3}};
  CHECK(ranks_from_groups(groups, 4) == Ranks{1, 2, 0, 2});
  CHECK(groups_from_ranks(Ranks{1, 2, 0, 2}) == groups);
  CHECK(ranks_from_groups(Groups{{3}}, 4) == Ranks{-1, -1, -1, 0});
  CHECK(groups_from_ranks(Ranks{-1, 7, -1, 3}) == Groups{{3}, {1}});
  CHECK(groups_from_ranks(Ranks{-1, -1}).empty());
}

TEST_CASE("records: impossible groups are refused by number") {
  const auto error = [](const Groups& groups) {
    return message_of<DataError>([&] { ranks_from_groups(groups, 3); });
  };
  CHECK(error({{0}, {3}}).find("response 3 is ranked, but there are 3") != std::string::npos);
  CHECK(error({{-1}}).find("response -1") != std::string::npos);
  CHECK(error({{0, 1}, {1}}).find("response 1 is ranked twice") != std::string::npos);
  CHECK(error({{1, 1}}).find("twice") != std::string::npos);
  CHECK(error({{0}, {}}).find("empty") != std::string::npos);
}

TEST_CASE("records: an order as a person types it") {
  CHECK(parse_order("3 1 2=4", 4) == Ranks{1, 2, 0, 2});
  CHECK(parse_order("3 > 1 > 2 = 4", 4) == Ranks{1, 2, 0, 2});
  CHECK(parse_order("3>1>2=4", 4) == Ranks{1, 2, 0, 2});
  CHECK(parse_order("  3,1 ,2= 4\r\n", 4) == Ranks{1, 2, 0, 2});
  CHECK(parse_order("1=2=3", 3) == Ranks{0, 0, 0});
  CHECK(parse_order("2", 3) == Ranks{-1, 0, -1});
  CHECK(parse_order("12 1", 12)[11] == 0);
}

TEST_CASE("records: an order that makes no sense is refused by its word") {
  const auto error = [](const char* text) {
    return message_of<DataError>([&] { parse_order(text, 4); });
  };
  const auto names = [&](const char* text, const char* what) {
    INFO(text, " gave ", error(text));
    return error(text).find(what) != std::string::npos;
  };
  CHECK(names("3 7", "no response 7; there are 4"));
  CHECK(names("0", "no response 0"));
  CHECK(names("99999999999999999999999", "no response 99999999999999999999999"));
  CHECK(names("1 2 1", "response 1 is named twice"));
  CHECK(names("1=1", "response 1 is named twice"));
  CHECK(names("1 two", "'two' is not a number"));
  CHECK(names("1 2x", "'2x' is not a number"));
  CHECK(names("-1", "'-1' is not a number"));
  CHECK(names("1.5", "'1.5' is not a number"));
  CHECK(names("1 =", "'=' stands at the end"));
  CHECK(names("=1", "'=' stands where a number should"));
  CHECK(names("1==2", "'=' stands where a number should"));
  CHECK(names("1=>2", "'=' is followed by '>'"));
  CHECK(names("", "no response is named"));
  CHECK(names(" , ", "no response is named"));
}

TEST_CASE("records: Kendall's tau-b against values worked out by hand") {
  CHECK(kendall_tau_b(Ranks{0, 1, 2}, Ranks{0, 1, 2}) == 1.0);
  CHECK(kendall_tau_b(Ranks{0, 1, 2}, Ranks{2, 1, 0}) == -1.0);
  // 6 pairs: 5 concordant, 1 discordant.
  CHECK(kendall_tau_b(Ranks{0, 1, 2, 3}, Ranks{0, 1, 3, 2}) == doctest::Approx(4.0 / 6));
  // a ties one of 6 pairs; b orders it; the other 5 agree: 5 / sqrt(5 · 6).
  CHECK(kendall_tau_b(Ranks{0, 1, 2, 2}, Ranks{0, 1, 2, 3}) ==
        doctest::Approx(5 / std::sqrt(30.0)));
  // Only responses 0 and 2 are ranked by both.
  CHECK(kendall_tau_b(Ranks{0, 1, 2, -1}, Ranks{1, -1, 0, 2}) == -1.0);
  CHECK(std::isnan(kendall_tau_b(Ranks{0, 0, 0}, Ranks{0, 1, 2})));
  CHECK(std::isnan(kendall_tau_b(Ranks{0, -1}, Ranks{-1, 0})));
  CHECK_THROWS_AS(kendall_tau_b(Ranks{0}, Ranks{0, 1}), ShapeError);
}

TEST_CASE("records: pairwise agreement, a tie in one ranking counts a half") {
  CHECK(pairwise_agreement(Ranks{0, 1, 2}, Ranks{0, 1, 2}) == 1.0);
  CHECK(pairwise_agreement(Ranks{0, 1}, Ranks{1, 0}) == 0.0);
  CHECK(pairwise_agreement(Ranks{0, 0}, Ranks{1, 0}) == 0.5);
  CHECK(pairwise_agreement(Ranks{0, 0}, Ranks{3, 3}) == 1.0);
  // Pairs (0,1) agree, (0,2) opposed, (1,2) tied in one: (1 + 0 + ½) / 3.
  CHECK(pairwise_agreement(Ranks{0, 1, 1}, Ranks{1, 2, 0}) == doctest::Approx(0.5));
  CHECK(std::isnan(pairwise_agreement(Ranks{0, -1}, Ranks{0, 1})));
}
