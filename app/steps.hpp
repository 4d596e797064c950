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

#include <cmath>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// A line on standard error, unless there is nothing to say.
void note(const std::string& text);

/// The records of a file, after saying what file and forms they are of, and what was skipped.
template <class Record>
std::vector<Record> noted(const std::string& path, Lines<Record> lines) {
  for (const std::string& message : lines.skipped) note("skipped: " + message);
  note(shown(path) + ": " + lines.said);
  return std::move(lines.records);
}
/// The prompts of a file, the same said where they are records.
std::vector<Prompt> noted_prompts(const std::string& path);

/// Throws Interrupted if Ctrl-C has come.
void stop_if_interrupted(const char* what);

/// Step 0. Fine-tunes a model, or adapters that it is given, on demonstrations (completion-only
/// loss). Returns what was cut.
EncodingCount train_sft(Loaded& loaded, const std::vector<Demonstration>& demonstrations,
                        const SftConfig& config);

/// Step 1. Responses to prompts; `step` is part of their random keys.
std::vector<Candidates> generate_candidates(const Loaded& loaded,
                                            const std::vector<Prompt>& prompts,
                                            const GenerateSettings& settings, std::uint32_t step,
                                            const std::string& label);

/// How a reward model did on rankings that it was not fitted to, with its baselines beside it. NaN
/// where something was not asked for.
struct RewardReport {
  double pairs = 0, prompts = 0;         ///< held out
  double accuracy = std::nan("");        ///< of these pairs
  Interval interval{0, 1};               ///< 95 %, clustered by prompt
  double longer = std::nan("");          ///< baseline: the longer response wins
  double words = std::nan("");           ///< baseline: bag of words, fitted to the same rankings
  double shuffled = std::nan("");        ///< control: a model fitted to shuffled labels
  double training = std::nan("");        ///< accuracy on the rankings it was fitted to
  double without_length = std::nan("");  ///< of linear heads that do not see the length
  double nll = std::nan(""), brier = std::nan(""), ece = std::nan("");
  double mean_margin = std::nan("");
  /// Of an ensemble of heads: how far they differ about a held-out response, where scores have
  /// deviation 1; the share of pairs in whose order all heads agree, and the accuracy there and on
  /// the others. NaN of one head.
  double disagreement = std::nan(""), agreed = std::nan("");
  double agreed_accuracy = std::nan(""), disputed_accuracy = std::nan("");
  /// Of rankings that were drawn with a known probability ("probability"): the accuracy on all that
  /// they were drawn from, and its 95 % interval, clustered by prompt. NaN of others.
  double of_all = std::nan("");
  Interval of_all_interval{std::nan(""), std::nan("")};
  double sequences = 0, cut = 0, identical = 0;
  std::string fit;  ///< what was fitted, in words

  Json json() const;
  static RewardReport from(const Json& json, const std::string& source);
  void print() const;
};

/// Rankings, and their sequences as a model of `language` reads them.
struct RankedData {
  std::vector<Ranking> rankings;
  std::vector<RankedPrompt> prompts;
  EncodingCount count;

  RankedData() = default;
  RankedData(const Language& language, std::vector<Ranking> rankings);
  std::vector<std::size_t> places() const;  ///< 0, 1, … of all
};

/// Step 3. Fits reward models to rankings, all of one kind: the trunk of `base` trained along, or
/// frozen; then it runs once, here.
class RewardFitter {
 public:
  /// `features`, if not empty, is the file in which a frozen trunk's features are kept. Everything
  /// given outlives the fitter.
  RewardFitter(const Loaded& base, const RankedData& data, const RewardSettings& settings,
               const std::string& features);

  /// A reward model of the rankings at these places of the data. `prompts`: the data's, or the same
  /// with other labels.
  struct Fitted {
    Reward reward;
    double penalty = 0;  ///< of a linear head
    std::string text;    ///< what was fitted, in words
  };
  Fitted fit(const std::vector<std::size_t>& places, const std::vector<RankedPrompt>& prompts,
             const std::string& label) const;
  /// A linear head of the same layer and penalty, fitted to other labels, or without the length.
  Fitted again(const Fitted& fitted, const std::vector<std::size_t>& places,
               const std::vector<RankedPrompt>& prompts, bool length) const;
  bool linear() const { return features_.has_value(); }
  /// Whether it is a linear head that sees the length.
  bool sees_length() const { return linear() && settings_.linear.length; }
  /// Gives its scores of these sequences mean 0 and deviation 1.
  void normalise(Fitted& fitted, const std::vector<std::size_t>& places) const;
  /// Its scores of the sequences at these places, against the rankings there.
  RewardEvaluation evaluate(const Fitted& fitted, const std::vector<std::size_t>& places) const;
  /// The same of an ensemble's heads by each, after scores at the places `normal` get deviation 1;
  /// nothing of one head.
  EnsembleEvaluation evaluate_heads(const Fitted& fitted, const std::vector<std::size_t>& places,
                                    const std::vector<std::size_t>& normal) const;
  const RankedData& data() const { return data_; }

 private:
  std::vector<float> scores(const Fitted& fitted, const std::vector<std::size_t>& places) const;
  std::vector<float> at(const std::vector<float>& all,
                        const std::vector<std::size_t>& places) const;

  const Loaded& base_;
  const RankedData& data_;
  const RewardSettings& settings_;
  std::optional<ResponseFeatures> features_;  // of all of the data; none: the trunk is trained
};

/// What a reward model makes of rankings. `words`, if given, is the baseline beside it.
RewardReport test_reward(const Reward& reward, const RankedData& data,
                         const std::vector<Ranking>* words_fitted_to = nullptr);

/// k-fold evaluation by prompt, with the baselines and, if `control`, a model fitted to shuffled
/// labels.
RewardReport cross_validate(const RewardFitter& fitter, int folds, std::uint64_t seed,
                            bool control);

/// One held-out fifth: fits to the rest and tests. Returns the model fitted to the true labels.
Reward train_and_test(const RewardFitter& fitter, std::uint64_t seed, bool control,
                      RewardReport& report, const std::string& label);

/// Steps 3 and 4 in one: what a policy became that learned from rankings directly.
struct DirectTraining {
  Index rankings = 0;     ///< that decide between two responses
  double loss = 0;        ///< mean over the updates
  PreferenceStats after;  ///< what its own scores make of these rankings now
};

/// Trains a policy on rankings, held near `reference` if the method has one.
DirectTraining train_on_rankings(DeviceModel& policy, const DeviceModel& reference,
                                 const std::vector<RankedPrompt>& prompts,
                                 const PreferenceConfig& config, const std::string& label);
/// A policy's own scores of rankings, as means by TRL's names.
Metrics preference_metrics(const PreferenceStats& stats);

/// Adds metrics about an iteration's episodes to its row, the same ones every time. Returns what it
/// says of each episode.
using EpisodeObserver = std::function<std::vector<double>(const std::vector<Episode>&, Metrics&)>;

/// What PPO trains, and towards what.
struct PpoTask {
  const Loaded& language;        ///< whose prompts and tokens these are
  DeviceModel& policy;           ///< has a value head, unless `value` is given
  const DeviceModel& reference;  ///< what the policy is held near
  DeviceModel* value;            ///< a critic of its own; may be null
  ScoreFunction score;
  std::vector<Prompt> prompts;
  EpisodeObserver observe = {};
};

/// Says what training will take: weights and state, an update's tokens, and each checkpoint.
void note_memory(const DeviceModel& policy, const DeviceModel* value, const PpoSettings& s);

/// Whether a reward model is a linear head on the trunk of `base`, which stays as it is.
bool is_linear(const RewardSettings& settings, const Loaded& base);

/// Step 4. Trains by PPO from where the checkpoint at `path` stands, if there is one; writes it
/// every few iterations and at the end, the one before it kept beside it, and so the best policy
/// within the KL budget, if there is one, and the first episodes of each iteration (episodes.hpp).
/// `metrics_offset` is added to iteration numbers.
void run_ppo(const PpoTask& task, const PpoSettings& settings, const std::string& path,
             MetricsWriter& metrics, Index metrics_offset, const std::string& label);

/// The iteration whose policy did best within a KL budget, by its row of metrics: a mean over the
/// responses of that iteration, so that the highest of many is partly luck.
struct Best {
  Index iteration = 0;
  double score = 0;  ///< judge/total where it is measured, else objective/scores
  double kl = 0;     ///< exact
};
/// The best of the rows of steps `begin` to `end` - 1, counted from `begin`; the first of equals. A
/// row without an exact KL, or beyond the budget, is none.
std::optional<Best> best_within(const std::vector<MetricRow>& rows, Index begin, Index end,
                                double budget);
/// Where run_ppo writes that policy, without its critic, beside the checkpoint at `path`.
std::string best_path(const std::string& path);
/// What is said of it, as numbers and in words; both empty without a budget.
Json best_json(const std::optional<Best>& best, double budget);
std::string best_in_words(const std::optional<Best>& best, double budget);

/// Scores by a reward model, of prompt and response together.
ScoreFunction reward_function(Reward reward);
/// Scores by a stated rule.
ScoreFunction rule_function(const Loaded& loaded, const Rule& rule);
/// What a judge says of responses, one after another.
struct JudgedResponses {
  std::vector<double> scores;
  std::vector<double> disagreement;  ///< of the heads of an ensemble; empty: there is one judge
};
/// Of candidates' responses, by a reward model, of the tokens they were sampled as.
JudgedResponses judge_candidates(const Reward& reward, const std::vector<Candidates>& candidates);
/// By each head of an ensemble: (M) of all responses. DataError of a reward model of one head.
std::vector<std::vector<float>> judge_by_heads(const Reward& reward,
                                               const std::vector<Candidates>& candidates);
/// The scores alone.
ScoreCandidates candidate_scores(Reward reward);
/// Adds judge/<part>: means of a rule's parts, "total" among them, over the episodes. Of each it
/// says the total.
EpisodeObserver rule_observer(const Loaded& loaded, const Rule& rule);

/// Mean exact full-vocabulary KL(policy‖reference) per response of the policy, nats: of the
/// unfiltered distributions at `kl_temperature`, along responses drawn from them.
double exact_kl(const Loaded& policy, const DeviceModel& reference,
                const std::vector<Prompt>& prompts, const GenerateSettings& settings);
/// The temperature at which exact_kl is taken: the sampling one; greedy sampling has none, so 1.
float kl_temperature(const SampleOptions& sampling);

}}  // namespace plumb::v0_1
