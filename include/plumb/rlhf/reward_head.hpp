// Step 3 with a frozen trunk: a reward model that is one linear function of a response's pooled
// features (rlhf/features.hpp) and, if asked for, of the logarithm of its length. The trunk runs
// once; a fit (rlhf/head_rows.hpp) then takes a second, so that layer and penalty can be chosen by
// cross-validation inside the rankings that are fitted to, and judged on others. Not here: a
// gradient through the trunk (rlhf/reward_model.hpp), files (models/reward_file.hpp).
#pragma once

#include <plumb/core/fields.hpp>
#include <plumb/rlhf/head_rows.hpp>
#include <plumb/rlhf/ppo_config.hpp>
#include <plumb/rlhf/reward_model.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

struct HeadConfig {
  Index layer = 0;  ///< 0: chosen among head_layers()
  Pooling pool = Pooling::Both;
  bool length = true;
};

template <class F>
void fields(HeadConfig& c, F&& f) {
  f(Field{"layer", "read after so many blocks; 0: chosen by cross-validation", at_least(0), "",
          "Linear head"},
    c.layer);
  f(Field{"pool",
          "read the last token, the mean over the response, or both",
          {},
          "",
          "Linear head"},
    c.pool);
  f(Field{"length", "score the logarithm of a response's length, too", {}, "", "Linear head"},
    c.length);
}

/// The layers that a head is chosen among: a third, a half and two thirds of all, or the one asked
/// for. DataError if there is no such layer.
inline std::vector<Index> head_layers(Index layers, const HeadConfig& config,
                                      Where where = Where::here()) {
  if (config.layer > layers)
    fail<DataError>(
        str("[reward] layer must be at most ", layers, ", the model's; it is ", config.layer),
        where);
  if (config.layer > 0) return {config.layer};
  std::vector<Index> all;
  for (const Index sixths : {2, 3, 4})
    if (const Index layer = std::max<Index>(1, layers * sixths / 6);
        all.empty() || layer > all.back())
      all.push_back(layer);
  return all;
}

/// Penalties among which one is chosen, the strongest first.
inline constexpr std::array<double, 5> kHeadPenalties{0.1, 0.03, 0.01, 0.003, 0.001};

/// A head as it was chosen.
struct FittedHead {
  LinearHead head;
  double penalty = 0;
  double nll = 0;  ///< mean loss of a prompt, or comparison, under heads fitted without its fold
};

/// Scores of the rows of features. ShapeError if they lack the head's layer.
inline std::vector<float> head_scores(const LinearHead& head, const ResponseFeatures& features,
                                      Where where = Where::here()) {
  const auto found = std::find(features.layers.begin(), features.layers.end(), head.layer);
  const auto size = static_cast<Index>(head.weight.size());
  if (found == features.layers.end() || size != detail::pool_size(head.pool, features.channels))
    fail(str("[reward] a head of ", size, " weights for layer ", head.layer,
             " reads features of other layers or of ", features.channels, " channels"),
         where);
  const auto layer = static_cast<std::size_t>(found - features.layers.begin());
  std::vector<float> scores;
  for (std::size_t row = 0; row < features.lengths.size(); ++row) {
    const float* x = features.at(row, layer) + detail::pool_begin(head.pool, features.channels);
    scores.push_back(static_cast<float>(
        dot8(x, head.weight.data(), size) + static_cast<double>(head.bias) +
        static_cast<double>(head.length) * detail::log_length(features.lengths[row])));
  }
  return scores;
}

/// Scores of sequences by a head on the trunk that it was fitted on.
template <Policy P>
std::vector<float> head_scores(const LinearHead& head, const P& trunk,
                               const std::vector<Answered>& sequences,
                               Where where = Where::here()) {
  return head_scores(head, response_features(trunk, sequences, {head.layer}, {}, where), where);
}

/// Rescales the head so that these scores, its own of responses of the initial policy, would have
/// had mean 0 and population standard deviation 1; see normalise_rewards.
inline void normalise_head(LinearHead& head, const std::vector<float>& scores,
                           Where where = Where::here()) {
  const ScoreScale scale = normal_scale(scores, where);
  head.rescale(scale.gain, scale.shift);
}

/// Scores of episodes by a head, for PPO, whose reference may be the trunk: then the head costs no
/// weights of its own. The trunk outlives the function.
template <Policy P>
ScoreFunction head_function(LinearHead head, const P& trunk) {
  return [head = std::move(head), &trunk](const std::vector<Episode>& episodes) {
    return head_scores(head, trunk, answered(episodes));
  };
}

/// The head of a given layer (its place in features.layers), pooling and penalty that fits the
/// prompts at the places `train` best.
inline LinearHead fit_head(const std::vector<RankedPrompt>& prompts,
                           const ResponseFeatures& features, std::span<const std::size_t> train,
                           std::size_t layer, const HeadConfig& config, const RankingLoss& loss,
                           double penalty) {
  const detail::HeadRows rows(prompts, features, train, layer, config.pool, config.length);
  return rows.head(rows.fit(std::vector<double>(train.size(), 1.0), loss, penalty,
                            std::vector<double>(static_cast<std::size_t>(rows.width()))));
}

namespace detail {

/// The loss of each prompt, with its weight, under the head that was fitted without its fold, for
/// each penalty.
inline std::vector<std::vector<double>> left_out_losses(const HeadRows& rows,
                                                        std::span<const int> fold,
                                                        const RankingLoss& settings) {
  const std::vector<double> weight = rows.weights(settings);
  std::vector<std::vector<double>> loss(kHeadPenalties.size(), std::vector<double>(rows.prompts()));
  const int folds = 1 + *std::max_element(fold.begin(), fold.end());
  default_pool().run(folds, [&](Index f) {
    std::vector<double> use(fold.size());
    for (std::size_t p = 0; p < use.size(); ++p) use[p] = fold[p] != f ? 1 : 0;
    std::vector<double> w(static_cast<std::size_t>(rows.width())), s, d;
    for (std::size_t i = 0; i < kHeadPenalties.size(); ++i) {
      w = rows.fit(use, settings, kHeadPenalties[i], std::move(w));
      for (std::size_t p = 0; p < use.size(); ++p) {
        if (use[p] > 0) continue;
        s.resize(rows.rank(p).size());
        d.resize(s.size());
        rows.score(p, w, s.data());
        loss[i][p] = weight[p] * ranked_term(settings, rows.rank(p), rows.level(p, settings),
                                             s.data(), d.data());
      }
    }
  });
  return loss;
}

/// The mean of losses, and its standard error.
inline std::pair<double, double> mean_and_error(const std::vector<double>& loss) {
  const double n = static_cast<double>(loss.size());
  double mean = 0, square = 0;
  for (const double x : loss) mean += x / n;
  for (const double x : loss) square += (x - mean) * (x - mean);
  return {mean, std::sqrt(square / n / std::max(1.0, n - 1))};
}

}  // namespace detail

/// Chooses layer and penalty, each prompt of `train` judged by heads that were fitted without its
/// fold (`fold`, one of each place in `train`), and fits that head to all of them. DataError if
/// they decide nothing.
inline FittedHead choose_head(const std::vector<RankedPrompt>& prompts,
                              const ResponseFeatures& features, std::span<const std::size_t> train,
                              std::span<const int> fold, const HeadConfig& config,
                              const RankingLoss& loss, Where where = Where::here()) {
  check_fields(config, "reward", where);
  check(train.size() == fold.size(), "[reward] one fold for each prompt", where);
  std::vector<std::size_t> decided;
  std::vector<int> decided_fold;
  std::vector<const RankedPrompt*> of_decided;
  for (std::size_t i = 0; i < train.size(); ++i)
    if (decided_pairs(prompts[train[i]]) > 0) {
      decided.push_back(train[i]);
      of_decided.push_back(&prompts[train[i]]);
      decided_fold.push_back(fold[i]);
    }
  check<DataError>(!decided.empty(), "[reward] no ranking decides between two responses", where);
  check_levels(of_decided, loss, where);
  std::size_t layer = 0, penalty = 0;
  std::vector<std::vector<double>> of_layer;
  double least = std::numeric_limits<double>::infinity(), error = 0;
  for (std::size_t l = 0; l < features.layers.size(); ++l) {
    const detail::HeadRows rows(prompts, features, decided, l, config.pool, config.length);
    auto losses = detail::left_out_losses(rows, decided_fold, loss);
    for (std::size_t i = 0; i < losses.size(); ++i)
      if (const auto [mean, its_error] = detail::mean_and_error(losses[i]); mean < least) {
        least = mean;
        error = its_error;
        layer = l;
        penalty = i;
      }
    if (layer == l) of_layer = std::move(losses);
  }
  // Not the best but the strongest penalty that is no more than its standard error worse: what
  // looks best on few prompts is so partly by luck (Breiman et al. 1984, section 3.4.3).
  for (std::size_t i = 0; i <= penalty; ++i)
    if (const double mean = detail::mean_and_error(of_layer[i]).first; mean <= least + error) {
      penalty = i;
      least = mean;
    }
  return {fit_head(prompts, features, decided, layer, config, loss, kHeadPenalties[penalty]),
          kHeadPenalties[penalty], least};
}

}}  // namespace plumb::v0_1
