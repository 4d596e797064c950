// Steps 3 and 4 of steps.hpp in one: a policy learns from rankings directly.
#include "format.hpp"
#include "progress.hpp"
#include "steps.hpp"

#include <optional>

namespace plumb { inline namespace v0_1 {

DirectTraining train_on_rankings(DeviceModel& policy, const DeviceModel& reference,
                                 const std::vector<RankedPrompt>& prompts,
                                 const PreferenceConfig& config, const std::string& label) {
  const DeviceModel* near = config.needs_reference() ? &reference : nullptr;
  PreferenceTrainer<DeviceModel> trainer(policy, near, prompts, config);
  DirectTraining done{trainer.items(), 0, {}};
  std::optional<Progress> progress;
  trainer.train([&](Index update, Index total, float loss) {
    if (!progress) progress.emplace(label, total, "update");
    progress->update(update + 1, str("loss ", fixed(loss, 3)));
    done.loss += loss / static_cast<double>(total);
    stop_if_interrupted("Training");
  });
  done.after = trainer.evaluate();
  return done;
}

Metrics preference_metrics(const PreferenceStats& stats) {
  const double pairs = stats.ranking.pairs, n = stats.prompts;
  return {{"rewards/chosen", stats.wanted / n},
          {"rewards/rejected", stats.unwanted / n},
          {"rewards/accuracies", stats.ranking.correct / pairs},
          {"rewards/margins", stats.ranking.margin_sum / pairs},
          {"logps/chosen", stats.chosen_logprob / n}};
}

}}  // namespace plumb::v0_1
