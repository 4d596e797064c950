// Step 2, as data: rankings of token sequences, and their split by prompt. A ranked prompt is one
// batch element: all its pairs stay together, so no prompt is over-fitted by being drawn once per
// pair
// (Ouyang et al. 2022, section 3.5).
#pragma once

#include <plumb/core/random.hpp>
#include <plumb/data/packing.hpp>

#include <vector>

namespace plumb { inline namespace v0_1 {

/// K responses to one prompt and how they were ranked.
struct RankedPrompt {
  std::vector<Tokens> sequences;  ///< (K) prompt and response, the end token included if it ended
  Tokens rank;                    ///< (K) 0 best, equal = tie, −1 = not judged
  std::vector<Index> lengths;     ///< (K) length of the response alone
  std::vector<Index> begins{};    ///< (K) where in its sequence each response begins
};

/// Pairs that a ranking decides: both judged, not tied.
inline Index decided_pairs(const RankedPrompt& prompt) {
  Index pairs = 0;
  for (std::size_t i = 0; i < prompt.rank.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      if (prompt.rank[i] >= 0 && prompt.rank[j] >= 0 && prompt.rank[i] != prompt.rank[j]) ++pairs;
  return pairs;
}

/// The same responses with ranks that say nothing: shuffled among the judged ones. A reward model
/// fitted to these must score one half on held-out prompts.
inline std::vector<RankedPrompt> shuffle_labels(std::vector<RankedPrompt> prompts,
                                                std::uint64_t seed) {
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    Tokens& rank = prompts[p].rank;
    std::vector<std::int32_t> judged;
    for (const std::int32_t r : rank)
      if (r >= 0) judged.push_back(r);
    Rng rng(seed, Stage::Split, 1, static_cast<std::uint32_t>(p));
    rng.shuffle(judged);
    std::size_t next = 0;
    for (std::int32_t& r : rank)
      if (r >= 0) r = judged[next++];
  }
  return prompts;
}

}}  // namespace plumb::v0_1
