// The four steps of RLHF as the commands run them: on text and files, with progress on the screen.
// The algorithms themselves are in include/plumb/rlhf/.
#pragma once

#include "models.hpp"
#include "settings.hpp"

#include <plumb/data/jsonl.hpp>
#include <plumb/run/interrupt.hpp>
#include <plumb/run/metrics.hpp>
#include <plumb/run/statistics.hpp>

#include <functional>
#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// The trainer's configuration. DataError naming the setting that makes no sense.
PpoConfig ppo_config(const PpoSettings& settings, const Loaded& like);

/// Step 0. Fine-tunes a model on demonstrations (completion-only loss).
void train_sft(const Loaded& loaded, const std::vector<Demonstration>& demonstrations,
               const SftSettings& settings);

/// Step 1. Responses to prompts; `step` is part of their random keys.
std::vector<Candidates> generate_candidates(const Loaded& loaded,
                                            const std::vector<std::string>& prompts,
                                            const GenerateSettings& settings, std::uint32_t step,
                                            const std::string& label);

/// How a reward model did on rankings that it was not fitted to, with its baselines beside it.
struct RewardReport {
  RewardEvaluation held_out;
  double shuffled_accuracy =
      std::nan("");   ///< of a model fitted to shuffled labels; NaN if not asked for
  Index prompts = 0;  ///< held out

  Json json() const;
  void print() const;
};

/// Step 3. Fits a reward model, its trunk that of `base`.
std::shared_ptr<DeviceModel> train_reward(const Loaded& base, const std::vector<RankedPrompt>& train,
                                       const RewardSettings& settings, const std::string& label);

/// k-fold evaluation by group, with the baselines: longer response wins, shuffled labels.
RewardReport cross_validate(const Loaded& base, const std::vector<Ranking>& rankings, int folds,
                            const RewardSettings& settings);

/// One held-out split: trains on the rest and evaluates; with `control`, also a model fitted to
/// shuffled labels. Returns the model fitted to the true ones, normalised.
std::shared_ptr<DeviceModel> train_and_evaluate(const Loaded& base,
                                             const std::vector<Ranking>& rankings,
                                             const RewardSettings& settings, bool control,
                                             RewardReport& report, const std::string& label);

/// Step 4. Trains `policy` (which has a value head, or `value` is given) by PPO from where the
/// checkpoint at `path` stands, if there is one; writes it every few iterations and at the end.
/// `metrics_offset` is added to iteration numbers.
void run_ppo(const Loaded& like, DeviceModel& policy, const DeviceModel& reference, DeviceModel* value,
             const ScoreFunction& score, const std::vector<std::string>& prompts,
             const PpoSettings& settings, const std::string& path, MetricsWriter& metrics,
             Index metrics_offset, const std::string& label);

/// Scores by a reward model, of prompt and response together.
ScoreFunction reward_function(std::shared_ptr<const DeviceModel> reward);
/// Scores by the stated rule `warm`.
ScoreFunction rule_function(const Loaded& loaded);

/// After against before: per prompt one response of each, judged by the rule.
struct WinRate {
  double wins = 0, ties = 0, n = 0;
  Interval interval() const { return wilson_interval(wins + ties / 2, n); }
  double rate() const { return n > 0 ? (wins + ties / 2) / n : 0; }
};
WinRate compare_by_rule(const std::vector<Candidates>& before,
                        const std::vector<Candidates>& after);

/// Mean exact full-vocabulary KL(policy‖reference) per response of the policy, nats.
double exact_kl(const Loaded& policy, const DeviceModel& reference,
                const std::vector<std::string>& prompts, const GenerateSettings& settings);

}}  // namespace plumb::v0_1
