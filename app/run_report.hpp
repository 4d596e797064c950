// What a run leaves to read: the printout and the HTML report of its outcome.
#pragma once

#include "judge.hpp"
#include "shortcut.hpp"
#include "steps.hpp"

#include <plumb/run/metrics.hpp>

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
  double ratio_first_minibatch = 1;  ///< the first that is not 1, or 1

  Json json() const;
};

/// What a run trained towards, in words: the rule, or a person's rankings.
std::string trained_towards(const AlignSettings& settings);

/// One sentence a round: how the reward model's score moved, and the rule's true score with it.
std::string curves_in_words(const std::vector<MetricRow>& rows, Index rounds, Index iterations);

/// Prints samples and results.
void print_outcome(const AlignSettings& settings, const Outcome& outcome,
                   const RewardReport& reward);

/// Writes report.html into the run's directory, from the outcome, the last round's reward model,
/// those of all rounds, and the metrics there. Returns its path.
std::string write_report(const AlignSettings& settings, const std::string& title,
                         const Outcome& outcome, const std::vector<RewardReport>& rewards,
                         const Json& results, const Json& config);

}}  // namespace plumb::v0_1
