// The four steps of RLHF as the commands run them: on text and files, with progress on the screen.
// The algorithms themselves are in include/plumb/rlhf/.
#pragma once

#include "judge.hpp"
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
std::shared_ptr<DeviceModel> train_reward(const Loaded& base,
                                          const std::vector<RankedPrompt>& train,
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

/// Adds metrics about an iteration's episodes to its row; the same ones every time.
using EpisodeObserver = std::function<void(const std::vector<Episode>&, Metrics&)>;

/// Step 4. Trains `policy` (which has a value head, or `value` is given) by PPO from where the
/// checkpoint at `path` stands, if there is one; writes it every few iterations and at the end.
/// `metrics_offset` is added to iteration numbers.
void run_ppo(const Loaded& like, DeviceModel& policy, const DeviceModel& reference,
             DeviceModel* value, const ScoreFunction& score,
             const std::vector<std::string>& prompts, const PpoSettings& settings,
             const std::string& path, MetricsWriter& metrics, Index metrics_offset,
             const std::string& label, const EpisodeObserver& observe = {});

/// Scores by a reward model, of prompt and response together.
ScoreFunction reward_function(std::shared_ptr<const DeviceModel> reward);
/// Scores by a stated rule.
ScoreFunction rule_function(const Loaded& loaded, const Rule& rule);
/// Adds judge/<part>: means of a rule's parts, "total" among them, over the episodes.
EpisodeObserver rule_observer(const Loaded& loaded, const Rule& rule);

/// Mean exact full-vocabulary KL(policy‖reference) per response of the policy, nats.
double exact_kl(const Loaded& policy, const DeviceModel& reference,
                const std::vector<std::string>& prompts, const GenerateSettings& settings);

}}  // namespace plumb::v0_1
