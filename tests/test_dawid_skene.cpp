// Annotators' error rates: the data and the estimates of Dawid and Skene 1979, a run of the same
// in numpy to more digits, and annotators who are simulated.
#include <plumb/core/random.hpp>
#include <plumb/data/dawid_skene.hpp>

#include "support.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <string_view>
#include <vector>

using namespace plumb;

namespace {

// Their table 1: 45 patients, of each seven assessments, three of them by the first anaesthetist.
std::vector<Label> anaesthetists() {
  constexpr std::string_view kSaid =
      "111111133343341122122222312122232222223322122211133334332222223232222344444442223343111111"
      "122232121211111111211111111111111111222222122213222222222222222122232222212222111111111111"
      "112322222111111111111111121121111111133332331111111222222222232324334343221223223232333333"
      "432111111111111111212111232222212111112222222";
  std::vector<Label> out;
  for (std::size_t i = 0; i < kSaid.size(); ++i)
    out.push_back({i / 7, i % 7 < 3 ? 0 : i % 7 - 2, static_cast<std::size_t>(kSaid[i] - '1')});
  return out;
}

}  // namespace

TEST_CASE("dawid-skene: the anaesthetists of 1979") {
  const std::vector<Label> labels = anaesthetists();
  REQUIRE(labels.size() == 315);
  const Reliability fit = dawid_skene(labels, 45, 5, 4);
  // Published, to two digits: classes 0.40, 0.42, 0.11, 0.07, and the first one's error rates.
  const double published[4] = {0.40, 0.42, 0.11, 0.07};
  const double first[4][4] = {
      {0.89, 0.11, 0, 0}, {0.07, 0.88, 0.05, 0}, {0, 0.34, 0.66, 0}, {0, 0, 0.56, 0.44}};
  for (std::size_t v = 0; v < 4; ++v) {
    CHECK(std::abs(fit.prevalence[v] - published[v]) <= 0.005);
    for (std::size_t l = 0; l < 4; ++l) CHECK(std::abs(fit.said[0](v, l) - first[v][l]) <= 0.005);
  }
  const double numpy[4] = {0.39955475, 0.42198339, 0.11179519, 0.06666667};
  const double rates[5] = {0.82876328, 0.77886884, 0.77664845, 0.86694346, 0.84237195};
  for (std::size_t v = 0; v < 4; ++v) CHECK(std::abs(fit.prevalence[v] - numpy[v]) < 1e-7);
  for (std::size_t a = 0; a < 5; ++a) CHECK(std::abs(fit.rate(a) - rates[a]) < 1e-7);
  CHECK(fit.log_likelihood == doctest::Approx(-192.8908812142).epsilon(1e-10));

  const Reliability one = dawid_skene(labels, 45, 5, 4, ErrorModel::OneRate);
  const double one_rate[5] = {0.88543049, 0.70072488, 0.81146501, 0.85306773, 0.80891976};
  for (std::size_t a = 0; a < 5; ++a) CHECK(std::abs(one.rate(a) - one_rate[a]) < 1e-6);
  CHECK(one.log_likelihood == doctest::Approx(-242.505987).epsilon(1e-8));
}

TEST_CASE("dawid-skene: what does not fit together is refused") {
  const std::vector<Label> labels{{0, 0, 0}, {0, 1, 1}};
  CHECK_THROWS_AS(dawid_skene(labels, 2, 2, 2), ShapeError);  // item 1 has no label
  CHECK_THROWS_AS(dawid_skene(labels, 1, 1, 2), ShapeError);
  CHECK_THROWS_AS(dawid_skene(labels, 1, 2, 1), ShapeError);
  CHECK(dawid_skene(labels, 1, 2, 2).truth[0][0] == doctest::Approx(0.5));
}

TEST_CASE("dawid-skene: people who are right more or less often are told apart") {
  // Three who order pairs as they truly are in 95, 80 and 60 of 100, and one in 50.
  const double right[4] = {0.95, 0.8, 0.6, 0.5};
  Rng rng(3);
  std::vector<Ranking> all;
  for (int p = 0; p < 2000; ++p) {
    const bool first = rng.below(2) == 0;
    for (std::size_t a = 0; a < 4; ++a) {
      const bool says = (static_cast<double>(rng.uniform()) < right[a]) == first;
      Ranking r;
      r.id = str(p);
      r.prompt = r.id;
      r.responses = {"x", "y"};
      r.rank = says ? std::vector<int>{0, 1} : std::vector<int>{1, 0};
      r.annotator = str("person ", a);
      r.labeller = "person";
      all.push_back(r);
    }
  }
  const AnnotatorRates out = annotator_rates(all);
  CHECK(out.pairs == 2000);
  REQUIRE(out.rate.size() == 4);
  for (std::size_t a = 0; a < 4; ++a)
    CHECK(std::abs(out.rate.at(str("person ", a)) - right[a]) < 0.05);
  // Nothing tells two people's errors apart; a rule or the unnamed are no third.
  std::vector<Ranking> two;
  for (Ranking& r : all) {
    if (r.annotator == "person 2") r.labeller = "rule:warm";
    if (r.annotator == "person 3") r.annotator.clear();
    two.push_back(r);
  }
  CHECK(annotator_rates(two).rate.empty());
  CHECK(annotator_rates(two).pairs == 2000);
}
