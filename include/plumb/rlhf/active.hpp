// What to ask next: the sets of responses on which an ensemble of heads (rlhf/head_ensemble.hpp) is
// least sure, each drawn with a probability that is known and recorded.
//
// Of a pair whose scores differ by d in one head, that head gives the first σ(d). What the answer
// would tell is the entropy of their mean less the mean of their entropies (Houlsby et al. 2011,
// "Bayesian active learning for classification and preference learning"): much where heads
// contradict each other, little where all are sure, or all find the two alike. Of a set it is the
// sum over its pairs, since one ranking answers them all.
//
// A set's chance is a share that all have alike, and for the rest in proportion to what its answer
// tells; exactly as many are drawn as were asked for, by one random start and equal steps through a
// random order (Madow 1949; the chances are then the inclusion probabilities, exactly). Since none
// is 0, a mean of what was drawn, each divided by its chance, is unbiased for all (Horvitz and
// Thompson 1952): so sets that were chosen to be learned from can also be tested on. What this is
// not: a choice that knows of what else is chosen; two sets alike may both be drawn.
#pragma once

#include <plumb/core/fields.hpp>
#include <plumb/core/random.hpp>
#include <plumb/run/statistics.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

struct NextConfig {
  Index count = 50;
  float random_share = 0.2F;
  float sharpness = 8;
  std::uint64_t seed = 1;
};

template <class F>
void fields(NextConfig& c, F&& f) {
  f(Field{"count", "sets to ask about", at_least(1)}, c.count);
  f(Field{"random-share", "of them, drawn from all alike, so that each has a chance",
          above_to(0, 1)},
    c.random_share);
  f(Field{"sharpness", "the others by this power of what an answer tells; 0: all alike",
          between(0, 100)},
    c.sharpness);
  f(Field{"seed", "seed of the draw"}, c.seed);
}

/// What the answer about a pair would tell, nats, at most log 2; `differences`: score of the one
/// less that of the other, by each head.
inline double pair_information(std::span<const double> differences) {
  const auto entropy = [](double p) {
    const double q = 1.0 - p;
    return (p > 0.0 ? -p * real::log(p) : 0.0) + (q > 0.0 ? -q * real::log(q) : 0.0);
  };
  double mean = 0.0, entropies = 0.0;
  const auto heads = static_cast<double>(differences.size());
  for (const double d : differences) {
    const double p = 1.0 / (1.0 + real::exp(-d));
    mean += p / heads;
    entropies += entropy(p) / heads;
  }
  return differences.empty() ? 0.0 : std::max(0.0, entropy(mean) - entropies);
}

/// The same of each of some sets: of responses of which each head has a score, (M, all), set after
/// set with `sizes[i]` responses. ShapeError if the sizes do not add up.
inline std::vector<double> set_information(const std::vector<std::vector<float>>& by_head,
                                           std::span<const std::size_t> sizes,
                                           Where where = Where::here()) {
  const std::size_t all = std::accumulate(sizes.begin(), sizes.end(), std::size_t{0});
  for (const auto& scores : by_head)
    if (scores.size() != all)
      fail(str("[next] a head has ", scores.size(), " scores for ", all, " responses"), where);
  std::vector<double> out, differences(by_head.size());
  std::size_t at = 0;
  for (const std::size_t size : sizes) {
    double sum = 0.0;
    for (std::size_t i = 0; i < size; ++i)
      for (std::size_t j = 0; j < i; ++j) {
        for (std::size_t h = 0; h < by_head.size(); ++h)
          differences[h] =
              static_cast<double>(by_head[h][at + i]) - static_cast<double>(by_head[h][at + j]);
        sum += pair_information(differences);
      }
    out.push_back(sum);
    at += size;
  }
  return out;
}

/// The chance of each of N sets to be among `config.count` that are drawn: they add up to that, or
/// are all 1 where there are no more. Each has random_share · count / N, and of the rest as much as
/// its information to the power of `sharpness` is of all, at most 1 together.
inline std::vector<double> chances_of_next(std::span<const double> information,
                                           const NextConfig& config, Where where = Where::here()) {
  check_fields(config, "next", where);
  const std::size_t n = information.size();
  const double count = static_cast<double>(config.count), all = static_cast<double>(n);
  if (count >= all) return std::vector<double>(n, 1.0);
  const double alike = static_cast<double>(config.random_share) * count / all;
  std::vector<double> weight;
  for (const double i : information) {
    if (!(i >= 0.0) || !std::isfinite(i))
      fail(str("[next] expected information of at least 0; got ", i), where);
    weight.push_back(real::pow(i, static_cast<double>(config.sharpness)));
  }
  // What is capped leaves its rest to the others, which may then have to be capped, too.
  std::vector<double> chance(n, alike);
  std::vector<bool> capped(n);
  for (bool again = true; again;) {
    again = false;
    double left = count - alike * all, open = 0.0, members = 0.0;
    for (std::size_t i = 0; i < n; ++i) {
      if (capped[i]) left -= 1.0 - alike;
      open += capped[i] ? 0.0 : weight[i];
      members += capped[i] ? 0.0 : 1.0;
    }
    for (std::size_t i = 0; i < n; ++i) {
      if (capped[i]) continue;
      chance[i] = alike + left * (open > 0.0 ? weight[i] / open : 1.0 / members);
      if (chance[i] <= 1.0) continue;
      chance[i] = 1.0;
      capped[i] = again = true;
    }
  }
  return chance;
}

/// A set that was drawn, and the chance that it had.
struct NextSet {
  std::size_t set;
  double probability;
};

/// Draws min(count, N) of N sets, those that tell most first.
inline std::vector<NextSet> choose_next(std::span<const double> information,
                                        const NextConfig& config, Where where = Where::here()) {
  const std::vector<double> chance = chances_of_next(information, config, where);
  const std::size_t n = information.size();
  Rng rng(config.seed, Stage::Order, 1);
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  rng.shuffle(order);
  const double start = (static_cast<double>(rng.bits()) + 0.5) * 0x1p-32;
  std::vector<NextSet> out;
  double sum = 0.0;
  // Taken where a multiple of 1 plus the start lies within its stretch of the sum.
  for (const std::size_t i : order) {
    const double before = sum;
    sum += chance[i];
    if (chance[i] == 1.0 || std::floor(sum - start) > std::floor(before - start))
      out.push_back({i, chance[i]});
  }
  std::stable_sort(out.begin(), out.end(), [&](const NextSet& a, const NextSet& b) {
    return information[a.set] > information[b.set];
  });
  return out;
}

/// An outcome of what was drawn with a known probability, such as right or wrong; or the sum of
/// `count` outcomes.
struct DrawnOutcome {
  double sum = 0.0;
  double probability = 1.0;
  std::size_t cluster = 0;  ///< its prompt
  double count = 1.0;
};

/// The mean of all outcomes, drawn or not, from those that were drawn.
struct PropensityMean {
  double unbiased = 0.0;  ///< Σ sum/probability over the number of all; its expectation is the mean
  double ratio = 0.0;   ///< Σ sum/probability over Σ count/probability: little bias, and steadier
  Interval interval{};  ///< 95 % of the ratio, clustered by prompt
};

/// `all`: how many outcomes there are, drawn or not; only `unbiased` needs to know. ShapeError for
/// probabilities that are none.
inline PropensityMean propensity_mean(std::span<const DrawnOutcome> drawn, double all,
                                      Where where = Where::here()) {
  std::map<std::size_t, ClusterSum> clusters;
  double total = 0.0, weights = 0.0;
  for (const DrawnOutcome& d : drawn) {
    if (!(d.probability > 0.0 && d.probability <= 1.0))
      fail(str("[next] expected probabilities above 0 and at most 1; got ", d.probability), where);
    total += d.sum / d.probability;
    weights += d.count / d.probability;
    ClusterSum& cluster = clusters[d.cluster];
    cluster.sum += d.sum / d.probability;
    cluster.count += d.count / d.probability;
  }
  std::vector<ClusterSum> sums;
  for (const auto& [number, cluster] : clusters) sums.push_back(cluster);
  return {total / all, total / weights, clustered_mean_interval(sums)};
}

}}  // namespace plumb::v0_1
