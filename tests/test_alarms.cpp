// Alarms: said once each, of metrics alone, compared with the first iteration.
#include "../app/alarms.hpp"

#include "support.hpp"

#include <doctest/doctest.h>

using namespace plumb;
using namespace test;

namespace {
Metrics healthy() {
  return {{"objective/kl_exact", 3.0},
          {"objective/kl_gap_z", 0.5},
          {"val/ratio_first_minibatch_max_deviation", 0.0},
          {"policy/entropy_avg", 2.0},
          {"response/length", 40.0},
          {"response/distinct", 1.0},
          {"group/agreeing", 0.1}};
}
Metrics with(const std::string& name, double value) {
  Metrics row = healthy();
  for (auto& [key, number] : row)
    if (key == name) number = value;
  return row;
}
}  // namespace

TEST_CASE("alarms: a healthy run has none, and each kind is said once") {
  struct Case {
    const char *name, *says;
    double value;
  };
  const Case cases[] = {
      {"val/ratio_first_minibatch_max_deviation", "were not drawn from the policy", 0.01},
      {"objective/kl_gap_z", "sampled and exact KL differ", -5.0},
      {"objective/kl_exact", "nats a response from its reference", 25.0},
      {"policy/entropy_avg", "the entropy of a token has fallen", 0.1},
      {"response/length", "see whether length is what is rewarded", 90.0},
      {"response/length", "see whether length is what is rewarded", 15.0},
      {"group/agreeing", "groups all scores are equal", 0.95},
      {"response/distinct", "of the responses to a prompt differ", 0.3}};
  for (const Case& c : cases) {
    CAPTURE(c.name);
    Alarms alarms;
    CHECK(alarms.watch(0, healthy()).empty());
    CHECK(alarms.watch(1, healthy()).empty());
    const auto said = alarms.watch(2, with(c.name, c.value));
    REQUIRE(said.size() == 1);
    CHECK(contains(said[0], "iteration 2: "));
    CHECK(contains(said[0], c.says));
    CHECK(alarms.watch(3, with(c.name, c.value)).empty());
  }
}

TEST_CASE("alarms: what a run does not measure rings nothing") {
  Alarms alarms;
  CHECK(alarms.watch(0, {}).empty());
  CHECK(alarms.watch(1, {{"objective/scores", 1.0}}).empty());
}
