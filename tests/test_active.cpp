// What to ask next: the chances are what they say, means stay unbiased, and how many labels are
// saved, on shipped human rankings and on simulated annotators (20 and 60 seeds with
// PLUMB_TEST_ALL=1; the figures in docs/experiment-log.md).
#include <plumb/data/folds.hpp>
#include <plumb/data/jsonl.hpp>
#include <plumb/models/open.hpp>
#include <plumb/plumb.hpp>
#include <plumb/rlhf/active.hpp>

#include "support.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <string>
#include <vector>

using namespace plumb;
using test::message_of;

namespace {

// Pairs of responses as two rows of features each, and who says which is better.
struct PairPool {
  std::vector<RankedPrompt> pairs;  // rank alone, as the annotator said or would say
  ResponseFeatures features;        // two rows a pair, one layer
  std::vector<std::string> key;     // its group: pairs of one are held out together
};

// All decided pairs of rankings, by a frozen stories260K after three of its five blocks.
PairPool pool_of(const std::string& file) {
  const LanguageModel<Cpu> stories =
      open_model<Cpu>(PLUMB_SOURCE_DIR "/examples/data/stories260K.bin");
  const std::vector<Ranking> rankings =
      read_rankings(PLUMB_SOURCE_DIR "/examples/data/" + file).records;
  std::vector<RankedPrompt> ranked;
  EncodingCount count;
  for (const Ranking& r : rankings) ranked.push_back(encode_ranking(stories, r, count));
  const ResponseFeatures all = response_features(*stories.model, answered(ranked), {3});
  PairPool pool;
  pool.features = {all.layers, all.channels, {}, {}};
  std::size_t row = 0;
  for (std::size_t p = 0; p < ranked.size(); row += ranked[p++].rank.size())
    for (std::size_t i = 0; i < ranked[p].rank.size(); ++i)
      for (std::size_t j = 0; j < i; ++j) {
        if (ranked[p].rank[i] < 0 || ranked[p].rank[j] < 0 ||
            ranked[p].rank[i] == ranked[p].rank[j])
          continue;
        RankedPrompt pair;
        pair.rank = {ranked[p].rank[i] < ranked[p].rank[j] ? 0 : 1,
                     ranked[p].rank[i] < ranked[p].rank[j] ? 1 : 0};
        pool.pairs.push_back(pair);
        for (const std::size_t r : {row + i, row + j}) {
          pool.features.lengths.push_back(all.lengths[r]);
          pool.features.values.insert(pool.features.values.end(), all.at(r, 0),
                                      all.at(r, 0) + all.width());
        }
        pool.key.push_back(rankings[p].group);
      }
  return pool;
}

// Accuracies at random and where it was chosen, (seeds, labels).
struct Curves {
  std::vector<double> labels;
  std::vector<std::vector<double>> at_random, chosen;
};

struct Trial {
  std::vector<std::size_t> labels;  // at which the accuracy is taken, ascending
  std::vector<double> truth{};      // above 0: the first is truly better; empty: as is said
};

constexpr double kPenalty = 0.01;
// Of 8 the disagreement is itself uncertain, and less is saved.
const Index kHeads = test::sanitized() ? 4 : 32;

// One seed: a third of the groups is held out, the rest is the pool; by `chosen`, what to ask is
// chosen by what is known so far, or at random.
std::vector<double> learning_curve(const PairPool& pool, const Trial& trial, std::uint64_t seed,
                                   bool chosen) {
  const std::vector<int> fold = deal_folds(pool.key, 3, seed);
  std::vector<std::size_t> open, test;
  for (std::size_t i = 0; i < fold.size(); ++i) (fold[i] == 0 ? test : open).push_back(i);
  Rng rng(seed, Stage::Test, 5);
  rng.shuffle(open);
  std::vector<std::size_t> known;
  std::vector<LinearHead> heads;
  std::vector<double> accuracy;
  for (const std::size_t wanted : trial.labels) {
    const std::size_t more = std::min(wanted - known.size(), open.size());
    std::vector<bool> taken(open.size());
    if (heads.empty() || !chosen) {
      std::fill(taken.begin(), taken.begin() + static_cast<std::ptrdiff_t>(more), true);
    } else {
      const auto by_head = scores_by_head({heads, 0}, pool.features);
      std::vector<double> information, differences(heads.size());
      for (const std::size_t i : open) {
        for (std::size_t h = 0; h < heads.size(); ++h)
          differences[h] =
              static_cast<double>(by_head[h][2 * i]) - static_cast<double>(by_head[h][2 * i + 1]);
        information.push_back(pair_information(differences));
      }
      NextConfig next;
      next.count = static_cast<Index>(more);
      next.seed = seed * 100 + known.size();
      for (const NextSet& set : choose_next(information, next)) taken[set.set] = true;
    }
    std::vector<std::size_t> rest;
    for (std::size_t i = 0; i < open.size(); ++i) (taken[i] ? known : rest).push_back(open[i]);
    open = rest;
    std::vector<std::size_t> group(known.size());
    for (std::size_t i = 0; i < group.size(); ++i) group[i] = i;
    heads = fit_heads(pool.pairs, pool.features, known, group, 0, {}, {}, kPenalty, kHeads, seed);
    const EnsembleScores said = together(scores_by_head({heads, 0}, pool.features), 0);
    double right = 0;
    for (const std::size_t i : test) {
      const bool first = trial.truth.empty() ? pool.pairs[i].rank[0] == 0 : trial.truth[i] > 0.0;
      const float d = said.mean[2 * i] - said.mean[2 * i + 1];
      right += d == 0.0F ? 0.5 : (d > 0.0F) == first ? 1.0 : 0.0;
    }
    accuracy.push_back(right / static_cast<double>(test.size()));
  }
  return accuracy;
}

// The mean of some seeds' curves, made to rise, as more labels do.
std::vector<double> rising_mean(const std::vector<std::vector<double>>& curves,
                                const std::vector<std::size_t>& seeds) {
  std::vector<double> out(curves[0].size());
  for (const std::size_t s : seeds)
    for (std::size_t l = 0; l < out.size(); ++l)
      out[l] += curves[s][l] / static_cast<double>(seeds.size());
  for (std::size_t l = 1; l < out.size(); ++l) out[l] = std::max(out[l], out[l - 1]);
  return out;
}

// Labels at which choosing is as good as all labels at random, as a share of these; 1 if it is not
// before.
double share_of_labels(const Curves& c, const std::vector<std::size_t>& seeds) {
  const double target = rising_mean(c.at_random, seeds).back();
  const std::vector<double> chosen = rising_mean(c.chosen, seeds);
  if (chosen[0] >= target) return c.labels[0] / c.labels.back();
  for (std::size_t l = 1; l < chosen.size(); ++l) {
    if (chosen[l] < target) continue;
    const double part = (target - chosen[l - 1]) / (chosen[l] - chosen[l - 1]);
    return (c.labels[l - 1] + part * (c.labels[l] - c.labels[l - 1])) / c.labels.back();
  }
  return 1.0;
}

// By how much the accuracy is higher where it is chosen, mean over the curve, by seed.
std::vector<double> gains(const Curves& c) {
  std::vector<double> out;
  for (std::size_t s = 0; s < c.chosen.size(); ++s) {
    double sum = 0;
    for (std::size_t l = 0; l < c.labels.size(); ++l) sum += c.chosen[s][l] - c.at_random[s][l];
    out.push_back(sum / static_cast<double>(c.labels.size()));
  }
  return out;
}

std::vector<std::size_t> all_seeds(const Curves& c) {
  std::vector<std::size_t> seeds(c.chosen.size());
  std::iota(seeds.begin(), seeds.end(), std::size_t{0});
  return seeds;
}

// Both curves and what is saved, with 95 % intervals from seeds drawn anew.
std::string said_of(const Curves& c) {
  std::string out = "labels, at random, chosen:";
  for (std::size_t l = 0; l < c.labels.size(); ++l) {
    const auto mean_at = [&](const std::vector<std::vector<double>>& curves) {
      double sum = 0;
      for (const auto& curve : curves) sum += curve[l];
      return std::round(1000.0 * sum / static_cast<double>(curves.size())) / 10.0;
    };
    out += str("\n  ", c.labels[l], "  ", mean_at(c.at_random), "  ", mean_at(c.chosen));
  }
  std::vector<double> shares;
  for (std::uint32_t draw = 0; draw < 1000; ++draw) {
    Rng rng(1, Stage::Test, 8, draw);
    std::vector<std::size_t> seeds(c.chosen.size());
    for (std::size_t& s : seeds) s = rng.below(static_cast<std::uint32_t>(seeds.size()));
    shares.push_back(share_of_labels(c, seeds));
  }
  std::sort(shares.begin(), shares.end());
  const std::vector<double> gain = gains(c);
  const double error = standard_deviation(gain) / std::sqrt(static_cast<double>(gain.size()));
  const double half = student_t95(static_cast<double>(gain.size()) - 1.0) * error;
  return out +
         str("\nshare of the labels for the same accuracy: ", share_of_labels(c, all_seeds(c)),
             " (", shares[25], " to ", shares[974], "); accuracy higher by ", mean(gain), " (",
             mean(gain) - half, " to ", mean(gain) + half, "), mean over the curve");
}

Curves learning_curves(const PairPool& pool, const Trial& trial, std::uint64_t seeds) {
  Curves out;
  for (const std::size_t l : trial.labels) out.labels.push_back(static_cast<double>(l));
  PairPool own = pool;
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    Rng rng(seed, Stage::Test, 7);
    for (std::size_t i = 0; i < trial.truth.size(); ++i) {  // what is said is not always true
      const double u = static_cast<double>(rng.uniform());
      const bool first = u < 1.0 / (1.0 + real::exp(-trial.truth[i]));
      own.pairs[i].rank = {first ? 0 : 1, first ? 1 : 0};
    }
    out.at_random.push_back(learning_curve(own, trial, seed, false));
    out.chosen.push_back(learning_curve(own, trial, seed, true));
  }
  return out;
}

// Whether the experiments are made whole. Under a sanitizer only that they run is looked at.
bool whole_experiments() { return !test::sanitized() && std::getenv("PLUMB_TEST_ALL") != nullptr; }
std::uint64_t seeds_of_experiment(std::uint64_t all) {
  return whole_experiments() ? all : test::sanitized() ? 2 : 4;
}

// Any two responses, of any prompts; each pair a group.
PairPool any_pairs(const PairPool& from, std::size_t count) {
  PairPool pool;
  pool.features = {from.features.layers, from.features.channels, {}, {}};
  Rng rng(5, Stage::Test, 6);
  for (std::size_t i = 0; i < count; ++i) {
    RankedPrompt pair;
    pair.rank = {0, 1};
    pool.pairs.push_back(pair);
    for (int k = 0; k < 2; ++k) {
      const std::size_t r = rng.below(static_cast<std::uint32_t>(from.features.rows()));
      pool.features.lengths.push_back(from.features.lengths[r]);
      pool.features.values.insert(pool.features.values.end(), from.features.at(r, 0),
                                  from.features.at(r, 0) + from.features.width());
    }
    pool.key.push_back(str(i));
  }
  return pool;
}

}  // namespace

TEST_CASE("next: what an answer would tell") {
  const auto told = [](std::vector<double> differences) { return pair_information(differences); };
  CHECK(told({}) == 0.0);
  CHECK(told({0.3}) == doctest::Approx(0.0));            // one head is never in two minds,
  CHECK(told({2.0, 2.0, 2.0}) == doctest::Approx(0.0));  // nor are heads that agree,
  CHECK(told({0.0, 0.0}) == doctest::Approx(0.0));       // if it be that the two are alike
  CHECK(told({800.0, -800.0}) == doctest::Approx(real::log(2.0)));
  CHECK(told({1.0, -1.0}) > told({1.0, 0.5}));
  CHECK(told({1.0, -1.0}) == doctest::Approx(told({-1.0, 1.0})));
  // log 2 less the entropy of σ(1).
  const double p = 1.0 / (1.0 + real::exp(-1.0));
  CHECK(told({1.0, -1.0}) ==
        doctest::Approx(real::log(2.0) + p * real::log(p) + (1 - p) * real::log(1 - p)));
  // A set is its pairs: of three responses, heads differ about the first two, and each beside the
  // last.
  const std::vector<std::vector<float>> heads{{9, 9, 1, -1, 0}, {9, 9, -1, 1, 0}};
  const std::vector<std::size_t> sizes{2, 3};
  const std::vector<double> sets = set_information(heads, sizes);
  REQUIRE(sets.size() == 2);
  CHECK(sets[0] == 0.0);
  CHECK(sets[1] == doctest::Approx(told({2.0, -2.0}) + 2.0 * told({1.0, -1.0})));
  CHECK_THROWS_AS(set_information(heads, std::vector<std::size_t>{2, 2}), ShapeError);
}

TEST_CASE("next: chances add up, are capped, and leave out nobody") {
  const std::vector<double> information{0.0, 0.1, 0.2, 0.4, 0.0, 5.0};
  NextConfig config{.count = 3, .random_share = 0.2F, .sharpness = 1};
  const std::vector<double> chance = chances_of_next(information, config);
  double sum = 0.0;
  for (const double c : chance) {
    CHECK(c >= 0.2 * 3 / 6 - 1e-7);
    CHECK(c <= 1.0);
    sum += c;
  }
  CHECK(sum == doctest::Approx(3.0));
  CHECK(chance[5] == 1.0);
  CHECK(chance[0] == chance[4]);
  CHECK(chance[3] - chance[0] == doctest::Approx(4.0 * (chance[1] - chance[0])));
  config.sharpness = 0;
  for (const double c : chances_of_next(information, config)) CHECK(c == doctest::Approx(0.5));
  config.sharpness = 8;
  for (const double c : chances_of_next(std::vector<double>(6), config))  // nothing is known
    CHECK(c == doctest::Approx(0.5));
  config.count = 9;
  for (const double c : chances_of_next(information, config)) CHECK(c == 1.0);
  config.random_share = 0;
  CHECK(test::contains(message_of<DataError>([&] { chances_of_next(information, config); }),
                       "random-share"));
  config.random_share = 1;
  config.count = 2;
  CHECK_THROWS_AS(chances_of_next(std::vector<double>{0.1, -0.1, 0.0}, config), ShapeError);
}

TEST_CASE("next: each is drawn as often as its chance says, and as many as were asked for") {
  std::vector<double> information;
  for (int i = 0; i < 12; ++i) information.push_back(0.05 * i);
  NextConfig config{.count = 4, .random_share = 0.25F, .sharpness = 1};
  const std::vector<double> chance = chances_of_next(information, config);
  std::vector<double> drawn(information.size());
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    config.seed = static_cast<std::uint64_t>(i);
    const std::vector<NextSet> chosen = choose_next(information, config);
    REQUIRE(chosen.size() == 4);
    for (std::size_t c = 0; c < chosen.size(); ++c) {
      drawn[chosen[c].set] += 1.0 / kDraws;
      REQUIRE(chosen[c].probability == chance[chosen[c].set]);
      REQUIRE((c == 0 || information[chosen[c - 1].set] >= information[chosen[c].set]));
    }
  }
  for (std::size_t i = 0; i < drawn.size(); ++i)  // four standard errors at most
    CHECK(std::abs(drawn[i] - chance[i]) < 4.0 * std::sqrt(0.25 / kDraws));
  config.count = 50;
  CHECK(choose_next(information, config).size() == 12);
}

TEST_CASE("next: an accuracy by what was chosen is unbiased for all, and its interval holds") {
  // 400 pairs on 200 prompts; the model is right less often where it is unsure.
  constexpr std::size_t kPairs = 400;
  Rng rng(11);
  std::vector<double> information, right;
  double truth = 0.0;
  for (std::size_t i = 0; i < kPairs; ++i) {
    information.push_back(0.6 * static_cast<double>(rng.uniform()));
    right.push_back(static_cast<double>(rng.uniform()) < 0.95 - information.back() ? 1.0 : 0.0);
    truth += right.back() / kPairs;
  }
  NextConfig config{.count = 100, .random_share = 0.2F, .sharpness = 2};
  double unbiased = 0.0, ratio = 0.0, plain = 0.0, squares = 0.0, covered = 0.0;
  constexpr int kDraws = 2000;
  for (int d = 0; d < kDraws; ++d) {
    config.seed = static_cast<std::uint64_t>(d);
    std::vector<DrawnOutcome> drawn;
    for (const NextSet& one : choose_next(information, config)) {
      drawn.push_back({right[one.set], one.probability, one.set / 2});
      plain += right[one.set] / 100.0 / kDraws;
    }
    const PropensityMean all = propensity_mean(drawn, kPairs);
    unbiased += all.unbiased / kDraws;
    squares += (all.unbiased - truth) * (all.unbiased - truth) / kDraws;
    ratio += all.ratio / kDraws;
    covered += all.interval.low <= truth && truth <= all.interval.high ? 1.0 / kDraws : 0.0;
  }
  CHECK(std::abs(unbiased - truth) < 3.0 * std::sqrt(squares / kDraws));
  CHECK(std::abs(ratio - truth) < 0.01);
  CHECK(plain < truth - 0.05);  // what was chosen is harder than all
  CHECK(covered > 0.93);        // drawn without replacement: the interval is a little long
  CHECK_THROWS_AS(propensity_mean(std::vector<DrawnOutcome>{{1.0, 0.0, 0}}, 1), ShapeError);
  // Sums of several outcomes, such as the pairs of a ranking.
  const PropensityMean sums =
      propensity_mean(std::vector<DrawnOutcome>{{2.0, 0.5, 0, 4.0}, {3.0, 1.0, 1, 3.0}}, 11.0);
  CHECK(sums.unbiased == doctest::Approx(7.0 / 11.0));
  CHECK(sums.ratio == doctest::Approx(7.0 / 11.0));
}

TEST_CASE("next: simulated annotators need fewer labels for the same accuracy") {
  // They follow a linear function of the shipped responses' features, fitted to what people said,
  // and err by its logistic noise; the deviation of differences is 3. Accuracy is against it.
  const PairPool said = pool_of("oasst_kway_rankings_train.jsonl");
  std::vector<std::size_t> all(said.pairs.size());
  std::iota(all.begin(), all.end(), std::size_t{0});
  const LinearHead head = fit_head(said.pairs, said.features, all, 0, {}, {}, 0.003);
  const PairPool pool = any_pairs(said, test::sanitized() ? 300 : 3000);
  const std::vector<float> scores = head_scores(head, pool.features);
  Trial trial{{20, 40, 60, 80, 120, 160, 200, 240, 320, 400}};
  if (test::sanitized()) trial.labels = {20, 40};
  for (std::size_t i = 0; i < pool.pairs.size(); ++i)
    trial.truth.push_back(static_cast<double>(scores[2 * i]) -
                          static_cast<double>(scores[2 * i + 1]));
  const double deviation = standard_deviation(trial.truth);
  for (double& d : trial.truth) d *= 3.0 / deviation;
  const Curves curves = learning_curves(pool, trial, seeds_of_experiment(60));
  MESSAGE(said_of(curves));
  if (test::sanitized()) return;
  CHECK(rising_mean(curves.at_random, all_seeds(curves)).back() > 0.85);  // there is much to learn
  // Of four seeds the mean is good to two points.
  CHECK(mean(gains(curves)) > -0.02);
  if (whole_experiments()) CHECK(share_of_labels(curves, all_seeds(curves)) < 0.6);
}

TEST_CASE("next: on shipped rankings by people choosing costs little, and saves little") {
  for (const char* file : {"oasst_kway_rankings_train.jsonl", "pandalm_votes_train.jsonl"}) {
    const PairPool pool = pool_of(file);
    Trial trial{{20, 40, 60, 80, 120, 160, 200, 240}};
    if (!whole_experiments()) trial.labels = {20, 60, 120};
    if (test::sanitized()) trial.labels = {20, 40};
    const Curves curves = learning_curves(pool, trial, seeds_of_experiment(20));
    MESSAGE(std::string(file), ", ", pool.pairs.size(), " pairs; ", said_of(curves));
    if (test::sanitized()) continue;
    CHECK(rising_mean(curves.chosen, all_seeds(curves)).back() > 0.55);
    CHECK(mean(gains(curves)) > -0.03);
  }
}
