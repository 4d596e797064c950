// Intervals of clustered outcomes: Student's quantile, worked examples, edges, and coverage by
// simulation where an interval that takes outcomes as independent fails.
#include <plumb/core/random.hpp>
#include <plumb/run/statistics.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

using namespace plumb;

TEST_CASE("statistics: Student's quantile") {
  // Any table of the distribution, P(|T| < t) = 0.95.
  const std::vector<std::pair<double, double>> table = {
      {1, 12.7062},  {2, 4.30265},  {3, 3.18245},  {4, 2.77645},   {5, 2.57058},
      {10, 2.22814}, {29, 2.04523}, {30, 2.04227}, {100, 1.98397}, {1000, 1.96234}};
  for (const auto& [degrees, t] : table)
    CHECK(student_t95(degrees) == doctest::Approx(t).epsilon(1e-5));
  CHECK(student_t95(1e6) == doctest::Approx(1.959964).epsilon(1e-6));
  CHECK(std::isinf(student_t95(0)));
}

TEST_CASE("statistics: a clustered mean by hand") {
  // 3 of 4, 1 of 2, 0 of 2: the mean 4/8; residuals 1, 0, -1; variance 3/2 · 2 / 64.
  const std::vector<ClusterSum> clusters = {{3, 4}, {1, 2}, {0, 2}, {0, 0}};
  const ClusteredMean m = clustered_mean(clusters);
  CHECK(m.mean == 0.5);
  CHECK(m.count == 8);
  CHECK(m.clusters == 3);  // one without outcomes is none
  CHECK(m.variance == doctest::Approx(3.0 / 64));
  const Interval i = clustered_mean_interval(clusters);
  CHECK(i.high - 0.5 == doctest::Approx(4.30265 * std::sqrt(3.0 / 64)).epsilon(1e-5));
  CHECK(0.5 - i.low == doctest::Approx(i.high - 0.5));
  // The share: with half a cluster more (8/3 outcomes each on average, a quarter of them won, a
  // quarter lost), 4 2/3 of 9 1/3; that is ½ again, and so are the residuals 1, 0, -1 and ± 4/3.
  const double variance = 3.5 / 2.5 * (2 + 0.5 * 16.0 / 9) / (28.0 / 3 * 28 / 3);
  const double design = variance / (0.25 / (28.0 / 3));
  const Interval share = clustered_share_interval(clusters);
  const Interval wilson = wilson_interval(4 / design, 8 / design, student_t95(2));
  CHECK(share.low == doctest::Approx(wilson.low));
  CHECK(share.high == doctest::Approx(wilson.high));
  // Means of anything, shifted and scaled, move with it.
  std::vector<ClusterSum> moved;
  for (const ClusterSum& c : clusters) moved.push_back({-3 * c.sum + 10 * c.count, c.count});
  const Interval j = clustered_mean_interval(moved);
  CHECK(j.low == doctest::Approx(10 - 3 * i.high));
  CHECK(j.high == doctest::Approx(10 - 3 * i.low));
}

TEST_CASE("statistics: a share's edges") {
  // One outcome a cluster: Wilson's own, ties included.
  std::vector<ClusterSum> single;
  for (int i = 0; i < 50; ++i) single.push_back({i % 5 == 0 ? 0.5 : i % 3 == 0 ? 1.0 : 0.0, 1});
  double sum = 0;
  for (const ClusterSum& c : single) sum += c.sum;
  const Interval wilson = wilson_interval(sum, 50), clustered = clustered_share_interval(single);
  CHECK(clustered.low == wilson.low);
  CHECK(clustered.high == wilson.high);
  // 0 % and 100 %: as many trials as there are clusters, not as there are outcomes.
  const std::vector<ClusterSum> none(20, {0, 6}), all(20, {6, 6});
  CHECK(clustered_share_interval(none).low == 0.0);
  CHECK(clustered_share_interval(none).high > wilson_interval(0, 20).high);
  CHECK(clustered_share_interval(none).high < 0.25);
  // … and next to them the interval is nearly the same.
  std::vector<ClusterSum> nearly = none;
  nearly[7].sum = 1e-6;
  CHECK(clustered_share_interval(nearly).high ==
        doctest::Approx(clustered_share_interval(none).high).epsilon(1e-3));
  CHECK(clustered_share_interval(all).high == 1.0);
  CHECK(clustered_share_interval(all).low ==
        doctest::Approx(1 - clustered_share_interval(none).high));
  // Clusters alike by luck: never surer than that many independent outcomes.
  const std::vector<ClusterSum> alike(10, {3, 6});
  const Interval lucky = clustered_share_interval(alike);
  CHECK(lucky.high - lucky.low > wilson_interval(30, 60).high - wilson_interval(30, 60).low);
  // One cluster, or none, tells nothing.
  for (const auto& few : {std::vector<ClusterSum>{{3, 6}}, std::vector<ClusterSum>{}}) {
    CHECK(clustered_share_interval(few).low == 0.0);
    CHECK(clustered_share_interval(few).high == 1.0);
    CHECK(std::isinf(clustered_mean_interval(few).high));
  }
  CHECK(std::isnan(clustered_mean({}).mean));
  CHECK_THROWS_AS(clustered_share_interval(std::vector<ClusterSum>{{7, 6}}), ShapeError);
  CHECK_THROWS_AS(clustered_mean(std::vector<ClusterSum>{{std::nan(""), 6}}), ShapeError);
}

TEST_CASE("statistics: the clustered interval covers where the naive one does not") {
  // Each pair of a prompt copies the prompt's own outcome with probability `copies`, otherwise it
  // is drawn by itself: an intra-cluster correlation of copies².
  const double copies = 0.6;
  for (const double truth : {0.5, 0.7, 0.9})
    for (const int prompts : {30, 80, 200}) {
      CAPTURE(truth);
      CAPTURE(prompts);
      constexpr int kSimulations = 4000;
      int covered = 0, naive = 0;
      for (int s = 0; s < kSimulations; ++s) {
        Rng rng(7, Stage::Test, static_cast<std::uint32_t>(s),
                static_cast<std::uint32_t>(prompts + 1000 * truth));
        std::vector<ClusterSum> clusters;
        double sum = 0, count = 0;
        for (int p = 0; p < prompts; ++p) {
          const bool own = rng.uniform() < truth;
          ClusterSum c;
          c.count = 3.0 + rng.below(6);  // three to eight pairs
          for (int k = 0; k < static_cast<int>(c.count); ++k)
            c.sum += (rng.uniform() < copies ? own : rng.uniform() < truth) ? 1 : 0;
          sum += c.sum;
          count += c.count;
          clusters.push_back(c);
        }
        const Interval i = clustered_share_interval(clusters), w = wilson_interval(sum, count);
        covered += i.low <= truth && truth <= i.high;
        naive += w.low <= truth && truth <= w.high;
      }
      const double share = static_cast<double>(covered) / kSimulations;
      MESSAGE("coverage ", share, ", taken as independent ",
              static_cast<double>(naive) / kSimulations);
      CHECK(share > 0.93);
      CHECK(share < 0.97);
      CHECK(static_cast<double>(naive) / kSimulations < 0.85);
    }
}

TEST_CASE("statistics: shifts from ranks, against tables and against counting") {
  // The binomial distribution: of 10 pairs P(at most 1) = 11 / 1024 <= 0.025 < P(at most 2), so
  // that the second of them encloses; of 5, none does.
  std::vector<double> tenth;
  for (int i = 10; i >= 1; --i) tenth.push_back(i * i);
  const Shift paired = sign_shift(tenth, 0.95);
  CHECK(paired.interval.low == 4);
  CHECK(paired.interval.high == 81);
  CHECK(paired.estimate == 30.5);
  CHECK(std::isinf(sign_shift(std::span(tenth).first(5), 0.95).interval.high));
  // Mann and Whitney's table: of 5 and 6, P(U <= 3) <= 0.025 < P(U <= 4).
  const std::vector<double> a = {0, 10, 20, 30, 40}, b = {1, 13, 26, 34, 47, 58};
  std::vector<double> differences;
  for (const double y : b)
    for (const double x : a) differences.push_back(y - x);
  std::sort(differences.begin(), differences.end());
  const Shift two = rank_sum_shift(a, b, 0.95);
  CHECK(two.interval.low == differences[3]);
  CHECK(two.interval.high == differences[30 - 4]);
  CHECK(std::isnan(rank_sum_shift({}, b, 0.95).estimate));
}
