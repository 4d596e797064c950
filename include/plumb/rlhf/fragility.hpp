// How few votes must be withdrawn for another system to come first (Broderick, Giordano and Meager
// 2020, "An automatic finite-sample robustness metric"; of ratings Huang et al. 2025, "Dropping
// just a handful of preferences can change top large language model rankings"). An interval says
// how far other prompts could move a rating; this, how much of it hangs on single answers.
#pragma once

#include <plumb/rlhf/ratings.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// The fewest votes that were found whose withdrawal makes another system come first.
struct Fragility {
  std::size_t first = 0, rival = 0;    ///< who comes first, and who then would
  std::vector<std::size_t> withdrawn;  ///< numbers of comparisons; empty: none were found
  std::size_t votes = 0;               ///< of so many
};

namespace detail {

/// Withdraws votes until `rival` is above `first`, those first that hold it up most by one Newton
/// step, and fits anew; fewer than `limit`, or nothing.
inline std::vector<std::size_t> withdraw_for(const Choices& choices,
                                             const std::vector<std::size_t>& of,
                                             const ChoicePrior& prior, ChoiceFit fit,
                                             std::size_t first, std::size_t rival,
                                             std::size_t limit) {
  std::vector<double> times(choices.size(), 1.0);
  std::vector<bool> gone(choices.clusters());
  std::vector<std::size_t> withdrawn;
  const auto count = [&](std::size_t vote, double often) {
    for (std::size_t c = 0; c < of.size(); ++c)
      if (of[c] == vote) times[c] = often;
  };
  // Equal is not above; equal but for rounding is equal.
  const auto overtaken = [&](const ChoiceFit& f) { return f.at[first] < f.at[rival] - 1e-9; };
  while (fit.converged && !overtaken(fit)) {
    const auto scores = cluster_scores(choices, fit.at);
    std::vector<std::pair<double, std::size_t>> pulls;
    for (std::size_t v = 0; v < scores.size(); ++v) {
      double pull = 0.0;
      for (std::size_t i = 0; i < scores[v].size(); ++i)
        pull += (fit.inverse(first, i) - fit.inverse(rival, i)) * scores[v][i];
      if (!gone[v] && pull > 0.0) pulls.emplace_back(-pull, v);
    }
    if (pulls.empty()) return {};
    std::sort(pulls.begin(), pulls.end());
    double left = fit.at[first] - fit.at[rival];
    std::size_t needed = 0;
    while (needed < pulls.size() && left > -1e-9) left += pulls[needed++].first;
    // Half of what one step foresees, since it foresees badly; one by one at the end.
    for (std::size_t i = 0; i < std::max<std::size_t>(1, needed / 2); ++i) {
      gone[pulls[i].second] = true;
      withdrawn.push_back(pulls[i].second);
      count(pulls[i].second, 0.0);
    }
    if (withdrawn.size() >= limit) return {};
    fit = fit_choices(choices, prior, times, fit.at);
  }
  if (!fit.converged) return {};
  // What was not needed after all is put back.
  for (std::size_t i = 0; i < withdrawn.size() && withdrawn.size() <= 200;) {
    count(withdrawn[i], 1.0);
    const ChoiceFit without = fit_choices(choices, prior, times, fit.at);
    if (without.converged && overtaken(without)) {
      withdrawn.erase(withdrawn.begin() + static_cast<std::ptrdiff_t>(i));
    } else {
      count(withdrawn[i], 0.0);
      ++i;
    }
  }
  return withdrawn;
}

}  // namespace detail

/// How few votes must be withdrawn for the first place to change. That these suffice is exact: the
/// ratings are fitted without them. That fewer would not is not: votes are withdrawn greedily, by
/// their influence, and the true number may be less. A penalty of 10⁻⁴ at least, so that ratings
/// exist while votes go. DataError without ratings.
inline Fragility fragility_of(std::span<const Comparison> comparisons,
                              std::span<const std::string> names, const RatingConfig& config,
                              Where where = Where::here()) {
  const std::size_t systems = names.size();
  std::vector<std::size_t> of;
  const Choices choices = detail::rating_choices(
      comparisons, systems, config.model, [](std::size_t c) { return c; }, of, where);
  const ChoicePrior prior = detail::rating_prior(
      systems, config.model, std::fmax(1e-4, static_cast<double>(config.penalty)));
  const ChoiceFit fit = fit_choices(choices, prior, {}, {}, where);
  check<DataError>(fit.converged && systems >= 2, "[ratings] there is no first place to lose",
                   where);
  Fragility out;
  const auto end = fit.at.begin() + static_cast<std::ptrdiff_t>(systems);
  out.first = static_cast<std::size_t>(std::max_element(fit.at.begin(), end) - fit.at.begin());
  out.rival = out.first;
  out.votes = comparisons.size();
  std::vector<std::size_t> rivals(systems);
  std::iota(rivals.begin(), rivals.end(), std::size_t{0});
  std::sort(rivals.begin(), rivals.end(),
            [&](std::size_t a, std::size_t b) { return fit.at[a] > fit.at[b]; });
  std::size_t limit = comparisons.size();
  for (const std::size_t rival : rivals) {
    if (rival == out.first) continue;
    std::vector<std::size_t> votes =
        detail::withdraw_for(choices, of, prior, fit, out.first, rival, limit);
    if (votes.empty()) continue;
    limit = votes.size();
    out.rival = rival;
    out.withdrawn = std::move(votes);
  }
  return out;
}

}}  // namespace plumb::v0_1
