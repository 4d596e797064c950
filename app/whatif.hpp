// `plumb whatif`: a round of a run of `plumb align` again, with one ranking turned round, to see
// what hangs on it. A run is its manifest: config.json and the hashes of its inputs, so that the
// same round without a change is the same to the bit, which --check shows. The run is only read.
//
// A directory of its own: turned/ (and same/, with --check), a run of align with the rounds before
// as they were; whatif.json, what differs:
//   "round", "ranking", "prompt", "responses", "rank_before", "rank_after"
//   "unchanged_is_the_run"   true, where it was checked; else null
//   "policy_before", "policy_after"   fingerprints
//   "ranked_scores_before", "…_after"   of the turned ranking's own responses, by reward models
//   "answers"   to each held-out prompt, drawn with the same random keys before and after: texts of
//               the tokens, "first_difference" (the token from which on they differ; null), and by
//               the two reward models the score of the answer before, "reward_before" and "…_after"
//   "answers_changed", "tokens_changed", "rewards_changed"   counts
#pragma once

#include <plumb/io/json.hpp>

#include <algorithm>
#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// The order turned round: the last is first. Ties stay, and what is unranked (-1). Empty: it has
/// no order.
inline std::vector<int> turned_round(const std::vector<int>& rank) {
  const int last = rank.empty() ? -1 : *std::max_element(rank.begin(), rank.end());
  if (last < 1) return {};
  std::vector<int> out = rank;
  for (int& place : out)
    if (place >= 0) place = last - place;
  return out;
}

/// Where plumb whatif puts its result unless it is told.
inline std::string whatif_directory(const std::string& run, Index round, Index ranking) {
  std::string stem = run;
  while (stem.size() > 1 && stem.back() == '/') stem.pop_back();
  return str(stem, "-whatif-", round, '-', ranking);
}

}}  // namespace plumb::v0_1
