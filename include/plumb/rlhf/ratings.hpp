// How good systems are, from rankings of what they said: ratings on the scale of log-odds, with
// what they are worth.
//
// Models, each fitted by Newton's method on the exact likelihood (run/choice_model.hpp):
//   BradleyTerry  of each pair P(i over j) = σ(θ_i − θ_j) (Bradley and Terry 1952); a tie counts as
//                 half a win for each. A ranking of K is its K(K − 1)/2 pairs.
//   Davidson      the same with ties of their own, P(tie) ∝ ν·√(e^θ_i e^θ_j) (Davidson 1970)
//   PlackettLuce  the best is chosen among all, the next among the rest (Plackett 1975); of equal
//                 ranks each is chosen among all that are no better (Breslow's way), and a last
//                 rank in common says nothing, as in rlhf/ranking.hpp.
// Ratings add up to 0; differences are what data know. Votes on one prompt are not independent:
// intervals are by the sandwich covariance clustered by prompt, and by drawing prompts with
// replacement. Where a group of systems was never beaten by the others no maximum exists (Ford
// 1957): that is refused by name, unless a penalty, ½ penalty·Σθ², holds all near each other.
// Not here: how few votes would change the first place (rlhf/fragility.hpp); reward models, which
// rate responses (rlhf/reward_model.hpp); files.
#pragma once

#include <plumb/core/fields.hpp>
#include <plumb/core/random.hpp>
#include <plumb/run/choice_model.hpp>
#include <plumb/run/statistics.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

enum class RatingModel { BradleyTerry, Davidson, PlackettLuce };
constexpr std::array<std::pair<const char*, RatingModel>, 3> choices(RatingModel) {
  return {{{"bt", RatingModel::BradleyTerry},
           {"davidson", RatingModel::Davidson},
           {"pl", RatingModel::PlackettLuce}}};
}

struct RatingConfig {
  RatingModel model = RatingModel::BradleyTerry;
  float penalty = 0;
  Index bootstrap = 1000;
  std::uint64_t seed = 1;
};

template <class F>
void fields(RatingConfig& c, F&& f) {
  f(Field{"method",
          "bt: Bradley-Terry, a tie is half a win each; davidson: ties of their own; pl: "
          "Plackett-Luce"},
    c.model);
  f(Field{"penalty", "½ penalty·Σ rating² holds ratings together; 0: maximum likelihood",
          at_least(0)},
    c.penalty);
  f(Field{"bootstrap", "draws of prompts with replacement; 0: none", between(0, 1'000'000)},
    c.bootstrap);
  f(Field{"seed", "seed of those draws"}, c.seed);
}

/// One annotator's ranking of responses by systems.
struct Comparison {
  std::vector<std::size_t> systems;  ///< (K) whose each response is
  std::vector<int> rank;             ///< (K) 0 best, equal is a tie, −1 not judged
  std::size_t prompt = 0;            ///< its number: votes on one prompt are not independent
  double weight = 1.0;
};

/// A rating, or a difference of two, in log-odds.
struct RatingEstimate {
  double value = 0.0;
  double error = 0.0;        ///< standard error, clustered by prompt; NaN of a single prompt
  Interval interval{};       ///< 95 %, by Student's t of prompts − 1 degrees
  double model_error = 0.0;  ///< as if every vote were independent
};

struct Ratings {
  std::vector<double> rating;                              ///< (S), of sum 0
  SquareMatrix covariance;                                 ///< (S, S), clustered by prompt
  SquareMatrix model_covariance;                           ///< (S, S), of independent votes
  double ties = std::numeric_limits<double>::quiet_NaN();  ///< Davidson's ν
  double nll = 0.0;                                        ///< −log-likelihood
  std::size_t votes = 0, prompts = 0;

  /// System i's rating: beside `reference`, whose is then 0, or beside the mean of all.
  RatingEstimate estimate(std::size_t i, std::optional<std::size_t> reference = {}) const {
    const auto variance = [&](const SquareMatrix& v) {
      return reference ? v(i, i) + v(*reference, *reference) - 2.0 * v(i, *reference) : v(i, i);
    };
    RatingEstimate out;
    out.value = rating[i] - (reference ? rating[*reference] : 0.0);
    out.error = std::sqrt(std::fmax(0.0, variance(covariance)));
    out.model_error = std::sqrt(std::fmax(0.0, variance(model_covariance)));
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    const bool known = prompts >= 2 && reference != i;
    const double half = known ? student_t95(static_cast<double>(prompts) - 1.0) * out.error
                              : (reference == i ? 0.0 : kInfinity);
    out.interval = {out.value - half, out.value + half};
    if (prompts < 2) out.error = std::numeric_limits<double>::quiet_NaN();
    return out;
  }
  /// The systems, best first.
  std::vector<std::size_t> order() const {
    std::vector<std::size_t> out(rating.size());
    std::iota(out.begin(), out.end(), std::size_t{0});
    std::stable_sort(out.begin(), out.end(),
                     [&](std::size_t a, std::size_t b) { return rating[a] > rating[b]; });
    return out;
  }
};

namespace detail {

/// The choices that comparisons are to a model, in clusters of `cluster(c)` for the c-th of them;
/// to `of`, which comparison each choice belongs to.
template <class Cluster>
Choices rating_choices(std::span<const Comparison> comparisons, std::size_t systems,
                       RatingModel model, Cluster&& cluster, std::vector<std::size_t>& of,
                       Where where) {
  Choices out(systems + (model == RatingModel::Davidson ? 1 : 0));
  const auto add = [&](std::size_t c) {
    out.add(cluster(c), comparisons[c].weight);
    of.push_back(c);
  };
  for (std::size_t c = 0; c < comparisons.size(); ++c) {
    const Comparison& one = comparisons[c];
    if (one.systems.size() != one.rank.size() || !(one.weight >= 0.0) ||
        std::any_of(one.systems.begin(), one.systems.end(),
                    [&](std::size_t s) { return s >= systems; }))
      fail(str("[ratings] comparison ", c, " has ", one.rank.size(), " ranks for ",
               one.systems.size(), " systems, numbered below ", systems, ", and weight ",
               one.weight),
           where);
    const int last = one.rank.empty() ? 0 : *std::max_element(one.rank.begin(), one.rank.end());
    for (std::size_t i = 0; i < one.rank.size(); ++i) {
      if (one.rank[i] < 0) continue;
      const std::size_t a = one.systems[i];
      if (model == RatingModel::PlackettLuce) {
        bool others = false;  // among one system's own responses a choice says nothing
        for (std::size_t j = 0; j < one.rank.size(); ++j)
          others = others || (one.rank[j] >= one.rank[i] && one.systems[j] != a);
        if (one.rank[i] == last || !others) continue;
        add(c);
        for (std::size_t j = 0; j < one.rank.size(); ++j) {
          if (one.rank[j] < one.rank[i]) continue;  // better, or not judged
          const FeatureTerm own[] = {{one.systems[j], 1.0}};
          out.alternative(i == j ? 1.0 : 0.0, own);
        }
        continue;
      }
      for (std::size_t j = 0; j < i; ++j) {
        const std::size_t b = one.systems[j];
        if (one.rank[j] < 0 || a == b) continue;  // of one system's own responses, nothing
        const double first = one.rank[i] < one.rank[j] ? 1.0 : 0.0;
        const double second = one.rank[i] > one.rank[j] ? 1.0 : 0.0, tie = 1.0 - first - second;
        add(c);
        if (model == RatingModel::BradleyTerry) {
          const FeatureTerm of_a[] = {{a, 1.0}}, of_b[] = {{b, 1.0}};
          out.alternative(first + tie / 2, of_a);
          out.alternative(second + tie / 2, of_b);
        } else {
          const FeatureTerm of_a[] = {{a, 0.5}, {b, -0.5}}, of_b[] = {{a, -0.5}, {b, 0.5}};
          const FeatureTerm of_tie[] = {{systems, 1.0}};
          out.alternative(first, of_a);
          out.alternative(second, of_b);
          out.alternative(tie, of_tie);
        }
      }
    }
  }
  return out;
}

inline ChoicePrior rating_prior(std::size_t systems, RatingModel model, double penalty) {
  return {penalty, systems, model == RatingModel::Davidson ? std::size_t{1} : std::size_t{0}};
}

/// C·V·C of the first `systems` parameters, C taking the mean off.
inline SquareMatrix centred(const SquareMatrix& v, std::size_t systems) {
  const auto n = static_cast<double>(systems);
  std::vector<double> row(systems), column(systems);
  double all = 0.0;
  for (std::size_t i = 0; i < systems; ++i)
    for (std::size_t j = 0; j < systems; ++j) {
      row[i] += v(i, j) / n;
      column[j] += v(i, j) / n;
      all += v(i, j) / (n * n);
    }
  SquareMatrix out(systems);
  for (std::size_t i = 0; i < systems; ++i)
    for (std::size_t j = 0; j < systems; ++j) out(i, j) = v(i, j) - row[i] - column[j] + all;
  return out;
}

}  // namespace detail

/// A group of systems to none of which any other was ever preferred, not even by a tie; empty:
/// there is none, and ratings by maximum likelihood exist.
inline std::vector<std::size_t> unbeaten_group(std::span<const Comparison> comparisons,
                                               std::size_t systems, RatingModel model) {
  std::vector<std::vector<bool>> lost_to(systems, std::vector<bool>(systems));
  for (const Comparison& one : comparisons) {
    const int last = one.rank.empty() ? 0 : *std::max_element(one.rank.begin(), one.rank.end());
    for (std::size_t i = 0; i < one.rank.size(); ++i)
      for (std::size_t j = 0; j < one.rank.size(); ++j) {
        if (one.rank[i] < 0 || one.rank[j] < one.rank[i] || !(one.weight > 0.0)) continue;
        if (model == RatingModel::PlackettLuce && one.rank[i] == last) continue;
        lost_to[one.systems[j]][one.systems[i]] = true;  // i is no worse than j
      }
  }
  const auto reached = [&](bool forward) {
    std::vector<bool> seen(systems);
    std::vector<std::size_t> open{0};
    if (systems > 0) seen[0] = true;
    while (!open.empty() && systems > 0) {
      const std::size_t at = open.back();
      open.pop_back();
      for (std::size_t to = 0; to < systems; ++to)
        if (!seen[to] && (forward ? lost_to[at][to] : lost_to[to][at])) {
          seen[to] = true;
          open.push_back(to);
        }
    }
    return seen;
  };
  // Who is reached along losses was beaten by nobody else; who is not reached against them never
  // lost to who is.
  for (const bool forward : {true, false}) {
    const std::vector<bool> seen = reached(forward);
    std::vector<std::size_t> group;
    for (std::size_t s = 0; s < systems; ++s)
      if (seen[s] == forward) group.push_back(s);
    if (!group.empty() && group.size() < systems) return group;
  }
  return {};
}

/// Ratings of systems 0 … S − 1. `names`, one each, are for errors. DataError where no maximum
/// exists: HINT there.
inline Ratings rate(std::span<const Comparison> comparisons, std::span<const std::string> names,
                    const RatingConfig& config = {}, Where where = Where::here()) {
  const std::size_t systems = names.size();
  if (systems < 2)
    fail<DataError>(str("[ratings] ratings are of two systems or more; there are ", systems),
                    where);
  std::vector<std::size_t> of;
  const Choices choices = detail::rating_choices(
      comparisons, systems, config.model, [&](std::size_t c) { return comparisons[c].prompt; }, of,
      where);
  const auto penalty = static_cast<double>(config.penalty);
  if (penalty == 0.0) {
    std::string group;
    for (const std::size_t s : unbeaten_group(comparisons, systems, config.model))
      group += (group.empty() ? "" : ", ") + names[s];
    if (!group.empty())
      fail<DataError>(str("[ratings] no other system was ever preferred to ", group,
                          ", so no finite rating fits best. HINT: --penalty 0.1 holds the ratings "
                          "together; or collect votes between these and the others"),
                      where);
  }
  const ChoiceFit fit =
      fit_choices(choices, detail::rating_prior(systems, config.model, penalty), {}, {}, where);
  if (!fit.converged)
    fail<DataError>(str("[ratings] no finite ratings fit best",
                        config.model == RatingModel::Davidson
                            ? ": with no tie, or with nothing but ties, there is no rate of ties. "
                              "HINT: --method bt"
                            : ". HINT: --penalty 0.1"),
                    where);
  Ratings out;
  out.rating.assign(fit.at.begin(), fit.at.begin() + static_cast<std::ptrdiff_t>(systems));
  out.covariance = detail::centred(sandwich_covariance(choices, fit), systems);
  out.model_covariance = detail::centred(fit.inverse, systems);
  if (config.model == RatingModel::Davidson) out.ties = real::exp(fit.at[systems]);
  out.nll = fit.nll;
  std::sort(of.begin(), of.end());
  out.votes = static_cast<std::size_t>(std::unique(of.begin(), of.end()) - of.begin());
  std::vector<bool> prompts(choices.clusters());
  for (std::size_t c = 0; c < choices.size(); ++c) prompts[choices.cluster(c)] = true;
  out.prompts = static_cast<std::size_t>(std::count(prompts.begin(), prompts.end(), true));
  return out;
}

/// What drawing prompts anew says of the ratings.
struct RatingBootstrap {
  std::vector<Interval> interval;  ///< (S) 95 %, from percentiles
  std::vector<double> first;       ///< (S) share of draws in which it comes first
  Index draws = 0;                 ///< that have ratings
  Index without = 0;               ///< others, in which a group was never beaten; left out
};

/// Fits `config.bootstrap` draws of as many prompts as there are, with replacement, beside
/// `reference` or the mean of all.
inline RatingBootstrap bootstrap_ratings(std::span<const Comparison> comparisons,
                                         std::span<const std::string> names,
                                         const RatingConfig& config,
                                         std::optional<std::size_t> reference = {},
                                         Where where = Where::here()) {
  const std::size_t systems = names.size();
  std::vector<std::size_t> of, seen;
  const Choices choices = detail::rating_choices(
      comparisons, systems, config.model, [&](std::size_t c) { return comparisons[c].prompt; }, of,
      where);
  const ChoicePrior prior =
      detail::rating_prior(systems, config.model, static_cast<double>(config.penalty));
  const ChoiceFit all = fit_choices(choices, prior, {}, {}, where);
  check<DataError>(all.converged, "[ratings] there are no ratings to draw around", where);
  for (std::size_t c = 0; c < choices.size(); ++c) seen.push_back(choices.cluster(c));
  std::sort(seen.begin(), seen.end());
  seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
  RatingBootstrap out{{}, std::vector<double>(systems), 0, 0};
  std::vector<std::vector<double>> drawn(systems);
  std::vector<double> often(choices.clusters()), times(choices.size());
  for (Index draw = 0; draw < config.bootstrap; ++draw) {
    Rng rng(config.seed, Stage::Split, 3, static_cast<std::uint32_t>(draw));
    std::fill(often.begin(), often.end(), 0.0);
    for (std::size_t i = 0; i < seen.size(); ++i)
      often[seen[rng.below(static_cast<std::uint32_t>(seen.size()))]] += 1.0;
    for (std::size_t c = 0; c < choices.size(); ++c) times[c] = often[choices.cluster(c)];
    const ChoiceFit fit = fit_choices(choices, prior, times, all.at, where);
    if (!fit.converged) {
      ++out.without;
      continue;
    }
    ++out.draws;
    for (std::size_t s = 0; s < systems; ++s)
      drawn[s].push_back(fit.at[s] - (reference ? fit.at[*reference] : 0.0));
    const auto best =
        std::max_element(fit.at.begin(), fit.at.begin() + static_cast<std::ptrdiff_t>(systems));
    out.first[static_cast<std::size_t>(best - fit.at.begin())] += 1.0;
  }
  for (std::size_t s = 0; s < systems; ++s) {
    out.first[s] /= static_cast<double>(std::max<Index>(out.draws, 1));
    std::sort(drawn[s].begin(), drawn[s].end());
    if (drawn[s].empty()) drawn[s].push_back(std::numeric_limits<double>::quiet_NaN());
    const auto last = static_cast<double>(drawn[s].size() - 1);
    out.interval.push_back({drawn[s][static_cast<std::size_t>(std::floor(0.025 * last))],
                            drawn[s][static_cast<std::size_t>(std::ceil(0.975 * last))]});
  }
  return out;
}

}}  // namespace plumb::v0_1
