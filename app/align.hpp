// `plumb align`: rounds of generate → rank → reward model → PPO in a run directory, and the
// evaluation and report at its end; `plumb demo` is one such run with settings of its own.
//
// By a preference method a round is generate → rank → learn: the policy is trained directly on the
// rankings of its own fresh responses, near the first policy, without a reward model (Guo et al.
// 2024, "Direct language model alignment from online AI feedback").
//
// Run directory: config.json · lock · round-N/{candidates,rankings}.jsonl, reward.safetensors,
// reward.json, policy.safetensors (checkpoint and, at the end, the result; .previous: the one
// before), policy-best.safetensors (with a KL budget), episodes.jsonl (episodes.hpp) · metrics.csv,
// metrics.jsonl, timing.jsonl · samples-{before,after}.jsonl · report.html. A stage whose file
// exists is not done again, a stage that was cut off starts from its last checkpoint (learning
// directly, which keeps none, from its beginning), and every draw is keyed by what it is for: so a
// run stopped at any moment goes on to the same bits.
#pragma once

#include "steps.hpp"

#include <functional>
#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// The steps of a run, in this order: Generate to Policy come in every round, and of a method
/// without a reward model there is no Reward.
enum class AlignStep { Start, Generate, Rank, Reward, Policy, Compare };

/// Who takes part in a run from outside. Default: people at the terminal.
struct AlignGuide {
  /// A step begins; also one whose file exists, which then ends at once.
  std::function<void(Index round, AlignStep step)> begins = [](Index, AlignStep) {};
  /// Has people rank what the options say, and returns when nobody is asked any more. Interrupted
  /// if Ctrl-C came first.
  std::function<void(const RankOptions& options)> rank = rank_at_terminal;
  /// JudgeTools::ask, of the pairs and the file; empty: at the terminal.
  std::function<std::string(const std::vector<Candidates>& pairs, const std::string& answers)>
      judge = {};
  /// What to do once the rounds are done, with the held-out prompts and the first policy, in place
  /// of the evaluation and the report.
  std::function<void(const std::vector<Prompt>&, const Loaded&)> instead = {};

  static void rank_at_terminal(const RankOptions& options);
};

/// Runs, or goes on with a run. Puts its results into `results` as named numbers. `title` heads the
/// report.
void align_command(const AlignSettings& settings, const std::string& title, Json& results,
                   const AlignGuide& guide = {});
/// Settings of a run's config.json, or of a settings file, as flags would say them; the method
/// chooses what `config` leaves out. `source` is named where it does not fit.
void read_align(AlignSettings& settings, Json config, const std::string& source);
/// DataError naming a setting that makes no sense; align_command begins with it.
void check_align(const AlignSettings& settings);

}}  // namespace plumb::v0_1
