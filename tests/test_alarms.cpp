// Alarms: said once each, of metrics alone, compared with the first iteration.
#include "../app/alarms.hpp"

#include "support.hpp"

#include <plumb/core/random.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <functional>

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

namespace {
// Where a series of 60 iterations rings that the judge falls, and what is said; noise of deviation
// 1 on both means.
std::string rung(std::uint64_t seed, const std::function<double(double)>& score,
                 const std::function<double(double)>& judge) {
  Rng rng(seed);
  Alarms alarms;
  std::string all;
  for (Index i = 0; i < 60; ++i) {
    const auto x = static_cast<double>(i);
    const Metrics row{{"objective/scores", score(x) + rng.normal()},
                      {"judge/total", judge(x) + rng.normal()}};
    for (const std::string& said : alarms.watch(i, row)) all += said;
  }
  return all;
}
}  // namespace

TEST_CASE("alarms: the score rises while the judge falls, beyond noise") {
  const auto rises = [](double i) { return 0.2 * i; };
  const auto turns = [](double i) { return 6 - 0.2 * std::abs(i - 30); };
  const auto flat = [](double) { return 0.0; };
  Index found = 0, noise = 0, both = 0, falls = 0;
  for (std::uint64_t seed = 0; seed < 1000; ++seed) {
    const std::string said = rung(seed, rises, turns);
    found += contains(said, "while the judge's has fallen") ? 1 : 0;
    noise += rung(seed, flat, flat).empty() ? 0 : 1;
    both += rung(seed, rises, rises).empty() ? 0 : 1;
    falls += rung(seed, turns, turns).empty() ? 0 : 1;
  }
  CHECK(found >= 980);
  CHECK(noise <= 5);
  CHECK(both <= 5);
  CHECK(falls <= 5);  // both fall: bad, but not this
  const std::string said = rung(1, rises, turns);
  for (const char* part : {"iteration ", ": since iteration ", "fresh round of rankings", "beta"})
    CHECK(contains(said, part));
}

TEST_CASE("alarms: without noise the parting is said when the judge's window is below its best") {
  Alarms alarms;
  std::string said;
  for (Index i = 0; i < 40 && said.empty(); ++i) {
    const auto x = static_cast<double>(i);
    for (const std::string& one :
         alarms.watch(i, {{"objective/scores", x}, {"judge/total", -std::abs(x - 20)}}))
      said += one;
  }
  CHECK(contains(said, "since iteration 22 the score has risen from 20.00"));
}
