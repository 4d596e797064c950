// The episodes of a run that are kept to be looked at: of each iteration the first few, with what
// the trainer itself made of each token. They are its own arrays (rlhf/episode.hpp), written down
// after the step, so that no bit of training depends on whether they are kept.
//
// episodes.jsonl beside a checkpoint: an iteration a line, `{"step":N,"beta":B,"episodes":[…]}`, N
// being its step in metrics.csv. Of an episode: "prompt"; "group", equal for responses to the same
// prompt; "finished"; "raw_score" as the reward model or rule gave it, "score" with what settings
// make of it, "judge" the true rule's, where that is another; and by token of the response "text",
// "tokens" (ids), "logprobs", "ref_logprobs", "kl_exact" (where it was computed), "values" (where
// there is a critic), "rewards", "advantages". Rewards and values have one more where a step after
// the end is valued. Texts joined are the response; a character that several tokens make stands
// with the last of them. Numbers are the shortest that read back as the same float. Nothing of
// clocks: a run that was stopped and resumed leaves the bytes of one that never stopped.
#pragma once

#include <plumb/io/json.hpp>
#include <plumb/models/language.hpp>
#include <plumb/rlhf/episode.hpp>
#include <plumb/run/metrics.hpp>

#include <optional>
#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// The step that a line of episodes.jsonl, metrics.jsonl or timing.jsonl begins with; -1: none.
Index step_of_line(std::string_view line);

/// What each token of a response adds to its text: (R) pieces, UTF-8; empty for one that ends it.
std::vector<std::string> token_texts(const Language& language, const Episode& episode);

/// An iteration's line. `judged`: what a true rule says of each episode, or nothing.
std::string episodes_line(const Language& language, Index step, double beta,
                          std::span<const Episode> episodes, const std::vector<double>& judged);

/// Appends lines to a file, which is begun or gone on with.
class EpisodeRecords {
 public:
  explicit EpisodeRecords(const std::string& path) : file_(path) {}

  /// Drops every line beyond `step`, and one that a crash tore. DataError of another file.
  void truncate_after(Index step);
  void write(const std::string& line) { file_.append(line); }
  /// Waits until the lines are on disk: before the checkpoint that counts on them.
  void sync() { file_.sync(); }

 private:
  detail::RowFile file_;
};

/// Where run_ppo keeps episodes, beside the checkpoint at `path`.
std::string episodes_path(const std::string& path);

/// The line of a step of a run of `plumb ppo`, `grpo` or `align`, whose rounds have a file each;
/// none: it keeps none of that step. Without a step, the newest. DataError where it is none.
std::optional<Json> recorded_episodes(const std::string& run, std::optional<Index> step);

}}  // namespace plumb::v0_1
