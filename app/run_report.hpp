// What a run leaves to read: the printout and the HTML report of its outcome.
#pragma once

#include "judge.hpp"
#include "shortcut.hpp"
#include "steps.hpp"

#include <plumb/run/metrics.hpp>

#include <cmath>
#include <optional>
#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// Held-out responses of the first policy and the last, and what a judge and the models say of
/// them.
struct Outcome {
  std::vector<Candidates> before, after;
  Verdict verdict;
  Shortcut shortcut;
  double kl = 0, perplexity_before = 0, perplexity_after = 0;
  /// The first that is not 1, or 1; NaN of a method that has no ratios.
  double ratio_first_minibatch = std::nan("");

  Json json() const;
};

/// What a run trained towards, in words: the rule, or a person's rankings.
std::string trained_towards(const AlignSettings& settings);

/// One sentence a round: how the reward model's score moved, and the rule's true score with it.
std::string curves_in_words(const std::vector<MetricRow>& rows, Index rounds, Index iterations);

/// The best policy of a round within the KL budget, if there is one.
std::optional<Best> best_of_round(const AlignSettings& settings, const std::vector<MetricRow>& rows,
                                  Index round);

/// Prints samples and results. `rewards`: of all rounds' reward models; none, if there were none.
void print_outcome(const AlignSettings& settings, const Outcome& outcome,
                   const std::vector<RewardReport>& rewards);

/// Writes report.html into the run's directory, from the outcome, the reward models of all rounds,
/// and the metrics there. Returns its path.
std::string write_report(const AlignSettings& settings, const std::string& title,
                         const Outcome& outcome, const std::vector<RewardReport>& rewards,
                         const Json& results, const Json& config);

}}  // namespace plumb::v0_1
