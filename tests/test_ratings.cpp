// Ratings of systems: published tables, SciPy's numbers (golden/make_ratings.py), the coverage of
// intervals, and fragility beside brute force.
#include <plumb/io/file.hpp>
#include <plumb/io/json.hpp>
#include <plumb/rlhf/fragility.hpp>
#include <plumb/rlhf/ratings.hpp>

#include "support.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

using namespace plumb;
using test::contains;
using test::message_of;

namespace {

using Names = std::vector<std::string>;

Comparison vote(std::size_t better, std::size_t worse, std::size_t prompt = 0,
                double weight = 1.0) {
  return {{better, worse}, {0, 1}, prompt, weight};
}

double sigma(double x) { return 1.0 / (1.0 + real::exp(-x)); }

}  // namespace

TEST_CASE("ratings: the citations of four journals of statistics") {
  // Stigler 1994, "Citation patterns in the journals of statistics and probability": row cited,
  // column citing. Estimates and errors as R's BradleyTerry2 prints them, beside Biometrika.
  const Names names{"Biometrika", "Comm Statist", "JASA", "JRSS-B"};
  const double cited[4][4] = {
      {714, 730, 498, 221}, {33, 425, 68, 17}, {320, 813, 1072, 142}, {284, 276, 325, 188}};
  std::vector<Comparison> votes;
  for (std::size_t i = 0; i < 4; ++i)
    for (std::size_t j = 0; j < 4; ++j) votes.push_back(vote(i, j, 4 * i + j, cited[i][j]));
  const double value[] = {-2.94907, -0.47957, 0.26895}, error[] = {0.10255, 0.06059, 0.07083};
  for (const RatingModel model : {RatingModel::BradleyTerry, RatingModel::PlackettLuce}) {
    const Ratings out = rate(votes, names, {.model = model});
    for (std::size_t i = 1; i < 4; ++i) {
      const RatingEstimate e = out.estimate(i, 0);
      CHECK(std::abs(e.value - value[i - 1]) < 5.1e-6);
      CHECK(std::abs(e.model_error - error[i - 1]) < 5.1e-6);
    }
    CHECK(out.estimate(0, 0).value == 0.0);
    CHECK(out.estimate(0, 0).interval.high == 0.0);
    CHECK(out.order() == std::vector<std::size_t>{3, 0, 2, 1});
    double sum = 0.0;
    for (const double r : out.rating) sum += r;
    CHECK(std::abs(sum) < 1e-12);
  }
}

TEST_CASE("ratings: beside SciPy, with ties, sets of several and responses that nobody judged") {
  const Json golden =
      parse_json(read_file(PLUMB_SOURCE_DIR "/tests/golden/ratings.json"), "ratings.json");
  std::vector<Comparison> votes;
  for (const Json& v : golden.at("votes"))
    votes.push_back({v.at("systems").get<std::vector<std::size_t>>(),
                     v.at("rank").get<std::vector<int>>(), v.at("prompt").get<std::size_t>()});
  const Names names(golden.at("systems").get<std::size_t>(), "x");
  for (const RatingModel model :
       {RatingModel::BradleyTerry, RatingModel::Davidson, RatingModel::PlackettLuce}) {
    INFO(choice_name(model));
    const Json& expected = golden.at("models").at(choice_name(model));
    const Ratings out = rate(votes, names, {.model = model});
    CHECK(out.prompts == expected.at("prompts").get<std::size_t>());
    CHECK(out.nll == doctest::Approx(expected.at("nll").get<double>()).epsilon(1e-9));
    for (std::size_t i = 0; i < names.size(); ++i) {
      const RatingEstimate e = out.estimate(i, 0);
      CHECK(std::abs(e.value - expected.at("rating")[i].get<double>()) < 1e-7);
      CHECK(std::abs(e.model_error - expected.at("error")[i].get<double>()) < 1e-7);
      CHECK(std::abs(e.error - expected.at("clustered_error")[i].get<double>()) < 1e-7);
    }
    if (model == RatingModel::Davidson)
      CHECK(out.ties == doctest::Approx(expected.at("nu").get<double>()).epsilon(1e-7));
    else
      CHECK(std::isnan(out.ties));
  }
}

TEST_CASE("ratings: where no maximum exists that is said, and who is the cause") {
  const Names names{"ann", "bob", "cem"};
  const auto said = [&](const std::vector<Comparison>& votes, RatingModel model) {
    return message_of<DataError>([&] { rate(votes, names, {.model = model}); });
  };
  std::vector<Comparison> votes{vote(0, 1, 0), vote(0, 2, 1), vote(1, 2, 2), vote(2, 1, 3)};
  for (const RatingModel model : {RatingModel::BradleyTerry, RatingModel::PlackettLuce})
    CHECK(contains(said(votes, model), "was ever preferred to ann, so"));
  CHECK(contains(said({vote(0, 1), vote(1, 0), vote(0, 2)}, RatingModel::BradleyTerry),
                 "preferred to ann, bob"));
  CHECK(contains(said({vote(0, 1), vote(1, 0)}, RatingModel::BradleyTerry), "HINT"));  // no cem
  const Ratings held = rate(votes, names, {.penalty = 0.1F});
  CHECK(held.order().front() == 0);
  CHECK(std::isfinite(held.estimate(0).interval.high));
  votes.push_back({{0, 1}, {0, 0}});  // a tie is half a loss
  CHECK(said(votes, RatingModel::BradleyTerry).empty());
  CHECK(!said(votes, RatingModel::PlackettLuce).empty());  // there it says nothing
  CHECK(said(votes, RatingModel::Davidson).empty());
  votes.back() = vote(1, 0);
  CHECK(said(votes, RatingModel::BradleyTerry).empty());
  CHECK(contains(said(votes, RatingModel::Davidson), "no rate of ties"));
  CHECK(contains(message_of<DataError>([&] { rate(votes, Names{"ann"}); }), "two systems"));
  CHECK_THROWS_AS(rate(std::vector<Comparison>{vote(0, 3)}, names), ShapeError);
  CHECK_THROWS_AS(rate(std::vector<Comparison>{{{0, 1}, {0}}}, names), ShapeError);
}

TEST_CASE("ratings: what a vote weighs, and what says nothing") {
  const Names names{"a", "b"};
  const std::vector<Comparison> thrice{vote(0, 1, 0), vote(0, 1, 0), vote(0, 1, 0), vote(1, 0, 1)};
  const Ratings out = rate(thrice, names);
  CHECK(out.rating[0] - out.rating[1] == doctest::Approx(real::log(3.0)).epsilon(1e-9));
  CHECK(rate(std::vector{vote(0, 1, 0, 3.0), vote(1, 0, 1)}, names).rating[0] ==
        doctest::Approx(out.rating[0]).epsilon(1e-12));
  std::vector<Comparison> more = thrice;
  more.push_back({{0, 0}, {0, 1}});   // one system's own responses
  more.push_back({{0, 1}, {0, -1}});  // compared with nothing
  CHECK(rate(more, names).rating[0] == doctest::Approx(out.rating[0]).epsilon(1e-12));
  CHECK(rate(more, names).votes == 4);
  // All votes on one prompt: nothing says how prompts differ.
  const Ratings one = rate(std::vector{vote(0, 1), vote(0, 1), vote(1, 0)}, names);
  CHECK(std::isnan(one.estimate(0, 1).error));
  CHECK(std::isinf(one.estimate(0, 1).interval.high));
}

namespace {

// Four systems; to each prompt some are better suited than to others: their ratings there are
// off by a normal effect of deviation 1. Six votes a prompt.
constexpr std::size_t kRated = 4, kVotesOfPrompt = 6;
constexpr double kAbility[kRated] = {0.0, 0.4, 0.8, 1.2};

std::vector<Comparison> suited_votes(std::size_t prompts, std::uint64_t seed) {
  Rng rng(seed, Stage::Test, 9);
  std::vector<Comparison> votes;
  for (std::size_t p = 0; p < prompts; ++p) {
    double here[kRated];
    for (std::size_t s = 0; s < kRated; ++s)
      here[s] = kAbility[s] + static_cast<double>(rng.normal());
    for (std::size_t v = 0; v < kVotesOfPrompt; ++v) {
      const std::size_t a = rng.below(kRated);
      const std::size_t b = (a + 1 + rng.below(kRated - 1)) % kRated;
      const bool first = static_cast<double>(rng.uniform()) < sigma(here[a] - here[b]);
      votes.push_back(first ? vote(a, b, p) : vote(b, a, p));
    }
  }
  return votes;
}

// The ratings that such votes come to rest at: those of the mean over prompts of each pair's
// probability, differences there being normal of variance 2.
std::vector<double> ratings_at_rest(const Names& names) {
  std::vector<Comparison> votes;
  for (std::size_t a = 0; a < kRated; ++a)
    for (std::size_t b = 0; b < kRated; ++b) {
      double probability = 0.0, mass = 0.0;
      for (int i = -400; i <= 400; ++i) {
        const double z = 0.02 * i, density = real::exp(-z * z / 2);
        probability += density * sigma(kAbility[a] - kAbility[b] + std::sqrt(2.0) * z);
        mass += density;
      }
      votes.push_back(vote(a, b, 0, probability / mass));
    }
  return rate(votes, names).rating;
}

}  // namespace

TEST_CASE("ratings: in 1,000 simulations the clustered interval covers, and the naive does not") {
  const Names names{"a", "b", "c", "d"};
  const std::vector<double> truth = ratings_at_rest(names);
  const int simulations = test::sanitized() ? 100 : 1000;
  double covered[kRated - 1] = {}, naive[kRated - 1] = {};
  for (int i = 0; i < simulations; ++i) {
    const Ratings out = rate(suited_votes(100, static_cast<std::uint64_t>(i)), names);
    for (std::size_t s = 1; s < kRated; ++s) {
      const RatingEstimate e = out.estimate(s, 0);
      const double off = std::abs(e.value - (truth[s] - truth[0]));
      covered[s - 1] +=
          e.interval.low <= truth[s] - truth[0] && truth[s] - truth[0] <= e.interval.high;
      naive[s - 1] += off <= 1.96 * e.model_error;
    }
  }
  for (std::size_t s = 0; s + 1 < kRated; ++s) {
    const double share = covered[s] / simulations;
    INFO("system ", s + 1, ": clustered ", share, ", naive ", naive[s] / simulations);
    if (simulations == 1000) {
      CHECK(share >= 0.93);
      CHECK(share <= 0.97);
    }
    CHECK(naive[s] / simulations < 0.93);
  }
}

TEST_CASE("ratings: drawing prompts anew says the same as the sandwich") {
  const Names names{"a", "b", "c", "d"};
  const std::vector<Comparison> votes = suited_votes(200, 5);
  const Ratings out = rate(votes, names);
  RatingConfig config;
  config.bootstrap = test::sanitized() ? 100 : 1000;
  const RatingBootstrap drawn = bootstrap_ratings(votes, names, config, 0);
  CHECK(drawn.draws == config.bootstrap);
  CHECK(drawn.without == 0);
  double shares = 0.0;
  for (const double share : drawn.first) shares += share;
  CHECK(shares == doctest::Approx(1.0));
  CHECK(drawn.first[3] > 0.9);
  CHECK(drawn.interval[0].high == 0.0);
  for (std::size_t s = 1; s < kRated && config.bootstrap == 1000; ++s) {
    const RatingEstimate e = out.estimate(s, 0);
    const double width = e.interval.high - e.interval.low;
    // Percentiles of 1,000 draws are off by 7 % of an error, and the two differ in t and skewness.
    CHECK(std::abs(drawn.interval[s].low - e.interval.low) < 0.1 * width);
    CHECK(std::abs(drawn.interval[s].high - e.interval.high) < 0.1 * width);
  }
  // The same draws give the same numbers, and other draws others.
  CHECK(bootstrap_ratings(votes, names, config, 0).interval[1].low == drawn.interval[1].low);
  config.seed = 2;
  CHECK(bootstrap_ratings(votes, names, config, 0).interval[1].low != drawn.interval[1].low);
  // A draw in which one is never beaten has no ratings, and is counted.
  std::vector<Comparison> few{vote(0, 1, 0), vote(1, 0, 1), vote(0, 1, 2)};
  const RatingBootstrap rare = bootstrap_ratings(few, Names{"a", "b"}, config);
  CHECK(rare.draws + rare.without == config.bootstrap);
  CHECK(rare.without > config.bootstrap / 5);  // (2/3)³ + (1/3)³ of all
}

namespace {

// No other is above it; equal but for rounding is not above.
bool comes_first(const std::vector<Comparison>& votes, const Names& names, std::size_t system) {
  const std::vector<double> rating = rate(votes, names, {.penalty = 1e-4F}).rating;
  return *std::max_element(rating.begin(), rating.end()) < rating[system] + 1e-9;
}

// The fewest votes whose withdrawal changes who is first, by trying all sets of up to `most`.
std::size_t fewest_by_trying(const std::vector<Comparison>& votes, const Names& names,
                             std::size_t first, std::size_t most) {
  for (std::size_t k = 1; k <= most; ++k) {
    std::vector<bool> gone(votes.size());
    std::fill(gone.begin(), gone.begin() + static_cast<std::ptrdiff_t>(k), true);
    do {
      std::vector<Comparison> left;
      for (std::size_t v = 0; v < votes.size(); ++v)
        if (!gone[v]) left.push_back(votes[v]);
      if (!comes_first(left, names, first)) return k;
    } while (std::prev_permutation(gone.begin(), gone.end()));
  }
  return most + 1;
}

}  // namespace

TEST_CASE("fragility: beside all sets of votes, on small data") {
  const Names names{"a", "b", "c"};
  int found = 0, fewest = 0;
  for (std::uint64_t seed = 0; seed < (test::sanitized() ? 5U : 40U); ++seed) {
    Rng rng(seed, Stage::Test, 4);
    std::vector<Comparison> votes;
    for (std::size_t v = 0; v < 14; ++v) {
      const std::size_t a = rng.below(3), b = (a + 1 + rng.below(2)) % 3;
      const bool first = static_cast<double>(rng.uniform()) <
                         sigma(0.5 * (static_cast<double>(b) - static_cast<double>(a)));
      votes.push_back(first ? vote(a, b, v) : vote(b, a, v));
    }
    const Fragility f = fragility_of(votes, names, {});
    CHECK(comes_first(votes, names, f.first));
    CHECK(f.votes == 14);
    const std::size_t exact = fewest_by_trying(votes, names, f.first, 4);
    if (exact > 4) continue;
    ++found;
    REQUIRE(!f.withdrawn.empty());
    // Without them the rival is above: what is said to suffice does.
    std::vector<Comparison> left;
    for (std::size_t v = 0; v < votes.size(); ++v)
      if (std::count(f.withdrawn.begin(), f.withdrawn.end(), v) == 0) left.push_back(votes[v]);
    CHECK(!comes_first(left, names, f.first));
    const Ratings after = rate(left, names, {.penalty = 1e-4F});
    CHECK(after.rating[f.rival] > after.rating[f.first]);
    CHECK(f.withdrawn.size() >= exact);
    fewest += f.withdrawn.size() == exact ? 1 : 0;
  }
  INFO(fewest, " of ", found);
  CHECK(found > (test::sanitized() ? 2 : 20));
  CHECK(fewest >= 0.9 * found);
}

TEST_CASE("fragility: of two systems it is the lead, and it is found among many votes") {
  const Names names{"a", "b"};
  std::vector<Comparison> votes;
  for (std::size_t v = 0; v < 1000; ++v) votes.push_back(v < 520 ? vote(0, 1, v) : vote(1, 0, v));
  const Fragility f = fragility_of(votes, names, {});
  CHECK(f.first == 0);
  CHECK(f.rival == 1);
  CHECK(f.withdrawn.size() == 41);  // 479 against 480
  for (const std::size_t v : f.withdrawn) CHECK(v < 520);
  CHECK_THROWS_AS(fragility_of(votes, Names{"a"}, {}), ShapeError);
}
