// Several linear heads on one frozen trunk as one judge: all of the layer and penalty that were
// chosen once (rlhf/reward_head.hpp), each fitted to prompts drawn anew, with replacement, from
// those that are fitted to. They agree on what the rankings settle and differ where these are thin,
// which is where a policy finds what a single head is wrong about. The score is their mean less
// `pessimism` standard deviations (Coste et al. 2023, "Reward model ensembles help mitigate
// overoptimization"; Eisenstein et al. 2023). Not here: trunks that differ, which differ more.
#pragma once

#include <plumb/core/random.hpp>
#include <plumb/rlhf/reward_head.hpp>

#include <algorithm>
#include <cmath>
#include <map>
#include <span>
#include <vector>

namespace plumb { inline namespace v0_1 {

struct EnsembleConfig {
  Index heads = 1;
  float pessimism = 0;
};

template <class F>
void fields(EnsembleConfig& c, F&& f) {
  f(Field{"heads", "of an ensemble, each fitted to prompts drawn with replacement; 1: one, to all",
          between(1, 1000), "", "Linear head"},
    c.heads);
  f(Field{"pessimism", "so many standard deviations of the heads are taken off their mean score",
          at_least(0), "", "Linear head"},
    c.pessimism);
}

/// Heads that read the same features; one is a head by itself.
struct HeadEnsemble {
  std::vector<LinearHead> heads;
  float pessimism = 0;

  /// Replaces the score s by gain·s + shift, gain > 0, and the disagreement by gain times it.
  void rescale(double gain, double shift) {
    for (LinearHead& head : heads) head.rescale(gain, shift);
  }
};

/// What an ensemble says of each response.
struct EnsembleScores {
  std::vector<float> mean;          ///< over the heads
  std::vector<float> disagreement;  ///< their population standard deviation
  std::vector<float> score;         ///< mean − pessimism · disagreement
};

/// Scores of the rows of features by each head.
inline std::vector<std::vector<float>> scores_by_head(const HeadEnsemble& ensemble,
                                                      const ResponseFeatures& features,
                                                      Where where = Where::here()) {
  std::vector<std::vector<float>> all;
  for (const LinearHead& head : ensemble.heads) all.push_back(head_scores(head, features, where));
  return all;
}

/// The same as one judge's. ShapeError unless there is a head.
inline EnsembleScores together(const std::vector<std::vector<float>>& by_head, float pessimism,
                               Where where = Where::here()) {
  check(!by_head.empty(), "[reward] an ensemble without a head", where);
  const auto heads = static_cast<double>(by_head.size());
  EnsembleScores out;
  for (std::size_t row = 0; row < by_head[0].size(); ++row) {
    double mean = 0, square = 0;
    for (const auto& scores : by_head) mean += static_cast<double>(scores[row]);
    mean /= heads;
    for (const auto& scores : by_head) {
      const double off = static_cast<double>(scores[row]) - mean;
      square += off * off;
    }
    const float m = out.mean.emplace_back(static_cast<float>(mean));
    const float d = out.disagreement.emplace_back(static_cast<float>(std::sqrt(square / heads)));
    out.score.push_back(static_cast<float>(static_cast<double>(m) - static_cast<double>(pessimism) *
                                                                        static_cast<double>(d)));
  }
  return out;
}

/// What an ensemble makes of the rows of features, or of sequences.
inline EnsembleScores head_scores_of_ensemble(const HeadEnsemble& ensemble,
                                              const ResponseFeatures& features,
                                              Where where = Where::here()) {
  return together(scores_by_head(ensemble, features, where), ensemble.pessimism, where);
}
template <Policy P>
EnsembleScores head_scores_of_ensemble(const HeadEnsemble& ensemble, const P& trunk,
                                       const std::vector<Answered>& sequences,
                                       Where where = Where::here()) {
  check(!ensemble.heads.empty(), "[reward] an ensemble without a head", where);
  return head_scores_of_ensemble(
      ensemble, response_features(trunk, sequences, {ensemble.heads[0].layer}, {}, where), where);
}

/// How often each of some items is drawn when as many groups as they have are drawn with
/// replacement; items of one group stay together. group: a number from 0 of each.
inline std::vector<double> bootstrap_times(std::span<const std::size_t> group, std::uint64_t seed,
                                           Index head) {
  const std::size_t groups = group.empty() ? 0 : 1 + *std::max_element(group.begin(), group.end());
  std::vector<double> drawn(groups), times;
  Rng rng(seed, Stage::Split, 2, static_cast<std::uint32_t>(head));
  for (std::size_t i = 0; i < groups; ++i)
    drawn[rng.below(static_cast<std::uint32_t>(groups))] += 1;
  for (const std::size_t g : group) times.push_back(drawn[g]);
  return times;
}

/// Heads of a given layer (its place in features.layers), pooling and penalty, each fitted to the
/// prompts at the places `train` as bootstrap_times() draws them: `group` has a number of each of
/// these, the same for rankings of one prompt. What decides nothing is left out.
inline std::vector<LinearHead> fit_heads(const std::vector<RankedPrompt>& prompts,
                                         const ResponseFeatures& features,
                                         std::span<const std::size_t> train,
                                         std::span<const std::size_t> group, std::size_t layer,
                                         const HeadConfig& config, const RankingLoss& loss,
                                         double penalty, Index heads, std::uint64_t seed,
                                         Where where = Where::here()) {
  check(train.size() == group.size(), "[reward] one group for each prompt", where);
  std::vector<std::size_t> decided, drawn_as;  // places, and each one's number to be drawn by
  std::map<std::size_t, std::size_t> numbers;  // of the groups that decide anything
  for (std::size_t i = 0; i < train.size(); ++i) {
    if (decided_pairs(prompts[train[i]]) == 0) continue;
    decided.push_back(train[i]);
    drawn_as.push_back(numbers.try_emplace(group[i], numbers.size()).first->second);
  }
  check<DataError>(!decided.empty(), "[reward] no ranking decides between two responses", where);
  const detail::HeadRows rows(prompts, features, decided, layer, config.pool, config.length);
  std::vector<LinearHead> all(static_cast<std::size_t>(heads));
  default_pool().run(heads, [&](Index h) {
    all[static_cast<std::size_t>(h)] =
        rows.head(rows.fit(bootstrap_times(drawn_as, seed, h), loss, penalty,
                           std::vector<double>(static_cast<std::size_t>(rows.width()))));
  });
  return all;
}

/// Whether heads differ where the ensemble is wrong: sums over responses and decided pairs. A pair
/// is agreed on if every head puts the same response first.
struct EnsembleEvaluation {
  double responses = 0, disagreement = 0;  ///< Σ of the standard deviations
  double agreed = 0, agreed_correct = 0;   ///< pairs; equal scores count one half
  double disputed = 0, disputed_correct = 0;
};

/// Evaluates scores by each head of each prompt's sequences, prompt after prompt.
inline EnsembleEvaluation evaluate_ensemble(const std::vector<RankedPrompt>& prompts,
                                            const std::vector<std::vector<float>>& by_head,
                                            float pessimism, Where where = Where::here()) {
  const EnsembleScores scores = together(by_head, pessimism, where);
  EnsembleEvaluation out;
  for (const float d : scores.disagreement) out.disagreement += static_cast<double>(d);
  out.responses = static_cast<double>(scores.disagreement.size());
  std::size_t at = 0;
  for (const RankedPrompt& p : prompts) {
    check(at + p.rank.size() <= scores.score.size(), "[reward] one score for each ranked sequence",
          where);
    for (std::size_t i = 0; i < p.rank.size(); ++i)
      for (std::size_t j = 0; j < p.rank.size(); ++j) {
        if (p.rank[i] < 0 || p.rank[j] < 0 || p.rank[i] >= p.rank[j]) continue;
        const auto first = [&](const std::vector<float>& s) { return s[at + i] > s[at + j]; };
        const auto last = [&](const std::vector<float>& s) { return s[at + i] < s[at + j]; };
        const bool agreed = std::all_of(by_head.begin(), by_head.end(), first) ||
                            std::all_of(by_head.begin(), by_head.end(), last);
        const double win = first(scores.score) ? 1.0 : last(scores.score) ? 0.0 : 0.5;
        (agreed ? out.agreed : out.disputed) += 1;
        (agreed ? out.agreed_correct : out.disputed_correct) += win;
      }
    at += p.rank.size();
  }
  return out;
}

}}  // namespace plumb::v0_1
