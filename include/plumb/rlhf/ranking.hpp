// Step 2, as data: rankings of token sequences, and what each weighs. A ranked prompt is one batch
// element: all its pairs stay together, so no prompt is over-fitted by being drawn once per pair
// (Ouyang et al. 2022, section 3.5).
#pragma once

#include <plumb/core/random.hpp>
#include <plumb/data/packing.hpp>
#include <plumb/math/loss.hpp>

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// K responses to one prompt and how they were ranked.
struct RankedPrompt {
  std::vector<Tokens> sequences;  ///< (K) prompt and response, the end token included if it ended
  Tokens rank;                    ///< (K) 0 best, equal = tie, −1 = not judged
  std::vector<Index> lengths;     ///< (K) length of the response alone
  std::vector<Index> begins{};    ///< (K) where in its sequence each response begins
  std::vector<float> level{};     ///< (K) how good each is, for the margins of pairs; empty: unsaid
};

/// Pairs that a ranking decides: both judged, not tied.
inline Index decided_pairs(const RankedPrompt& prompt) {
  Index pairs = 0;
  for (std::size_t i = 0; i < prompt.rank.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      if (prompt.rank[i] >= 0 && prompt.rank[j] >= 0 && prompt.rank[i] != prompt.rank[j]) ++pairs;
  return pairs;
}

/// What a ranking's loss is the mean of: its judged pairs, tied ones among them, or the stages of
/// Plackett–Luce, one for each response that is judged and not of the last rank.
inline Index comparisons(const Tokens& rank, RankingLossKind kind) {
  const auto judged = std::count_if(rank.begin(), rank.end(), [](auto r) { return r >= 0; });
  if (kind == RankingLossKind::BradleyTerry) return judged * (judged - 1) / 2;
  return judged == 0 ? 0
                     : judged - std::count(rank.begin(), rank.end(),
                                           *std::max_element(rank.begin(), rank.end()));
}

/// What a ranking's loss, a mean, weighs beside that of others.
inline double ranking_weight(const Tokens& rank, const RankingLoss& loss) {
  return loss.weight == RankingWeight::Ranking ? 1.0
                                               : static_cast<double>(comparisons(rank, loss.kind));
}

/// Levels of some rankings for a loss: of those that say none 0; empty where it asks none.
inline std::vector<float> levels(std::span<const RankedPrompt* const> prompts,
                                 const RankingLoss& loss) {
  std::vector<float> all;
  if (loss.margin_by == MarginBy::Constant) return all;
  for (const RankedPrompt* p : prompts) {
    all.insert(all.end(), p->level.begin(), p->level.end());
    if (p->level.empty()) all.resize(all.size() + p->rank.size());
  }
  return all;
}

/// Complains about levels that are not one for each response, and where margins by the data are
/// asked for and there are none.
inline void check_levels(std::span<const RankedPrompt* const> prompts, const RankingLoss& loss,
                         Where where = Where::here()) {
  if (loss.margin_by == MarginBy::Constant) return;
  check<DataError>(loss.kind == RankingLossKind::BradleyTerry,
                   "[reward] margin-by data is of pairs, and Plackett-Luce (loss pl) has none. "
                   "HINT: loss bt",
                   where);
  bool any = false;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    any = any || !prompts[i]->level.empty();
    if (!prompts[i]->level.empty() && prompts[i]->level.size() != prompts[i]->rank.size())
      fail(str("[reward] ranking ", i, " has ", prompts[i]->level.size(), " levels for ",
               prompts[i]->rank.size(), " responses"),
           where);
  }
  check<DataError>(any,
                   "[reward] margin-by is data, and no ranking says a margin. HINT: pairs with a "
                   "number \"margin\" or scores, rankings with \"level\"; or margin-by constant",
                   where);
}

/// The same responses with ranks, and their levels, that say nothing: shuffled among the judged
/// ones. A reward model fitted to these must score one half on held-out prompts.
inline std::vector<RankedPrompt> shuffle_labels(std::vector<RankedPrompt> prompts,
                                                std::uint64_t seed) {
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    Tokens& rank = prompts[p].rank;
    std::vector<float>& level = prompts[p].level;
    std::vector<std::pair<std::int32_t, float>> judged;
    for (std::size_t k = 0; k < rank.size(); ++k)
      if (rank[k] >= 0) judged.emplace_back(rank[k], level.empty() ? 0.0F : level[k]);
    Rng rng(seed, Stage::Split, 1, static_cast<std::uint32_t>(p));
    rng.shuffle(judged);
    std::size_t next = 0;
    for (std::size_t k = 0; k < rank.size(); ++k) {
      if (rank[k] < 0) continue;
      rank[k] = judged[next].first;
      if (!level.empty()) level[k] = judged[next].second;
      ++next;
    }
  }
  return prompts;
}

}}  // namespace plumb::v0_1
