// Step 3: a reward model learns the rankings. Its score is a linear function of the hidden state of a
// sequence's last token. One epoch over the prompts by default, learning rate falling to zero (Ziegler
// et al. 2019; Ouyang et al. 2022). Loss: cpu/loss.hpp.
#pragma once

#include <plumb/optim/adamw.hpp>
#include <plumb/optim/schedule.hpp>
#include <plumb/rlhf/episode.hpp>
#include <plumb/rlhf/ranking.hpp>
#include <plumb/rlhf/sft.hpp>

#include <array>
#include <vector>

namespace plumb { inline namespace v0_1 {

struct RewardConfig {
  Index epochs = 1;
  Index batch = 8;  ///< prompts per update
  RankingLoss loss{.center = 0.01F};
  AdamWConfig optimizer{.lr = 5e-4F, .eps = 1e-5F};
  std::uint64_t seed = 0;
};

namespace detail {
/// Scores of packed sequences, read at each one's last token: (B).
template <class D>
Tensor<D> score_packed(const Model<D>& model, const PackedBatch& packed) {
  Tokens last;
  for (std::size_t s = 1; s < packed.offsets.size(); ++s) last.push_back(packed.offsets[s] - 1);
  const auto hidden = model.transformer()(Batch<D>::from(packed));
  return model.scalar(embedding(hidden, device_vector<D>(last)));
}
}  // namespace detail

/// Scores of sequences (prompt and response): (B).
template <class D>
std::vector<float> reward_scores(const Model<D>& model, const std::vector<Tokens>& sequences) {
  std::vector<float> scores;
  const auto length = [&](std::size_t i) { return static_cast<Index>(sequences[i].size()); };
  detail::for_token_runs(
      sequences.size(), kForwardTokens, length, [&](std::size_t i, std::size_t end) {
        PackedBatch packed;
        for (; i < end; ++i) {
          require_readable(model.config(), sequences[i], "reward", "sequence", i);
          packed.add(sequences[i]);
        }
        for (const float score : detail::score_packed(model, packed).to_vector())
          scores.push_back(score);
      });
  return scores;
}

/// Scores of episodes: what PPO is trained on when a reward model gives the score.
template <class D>
std::vector<float> score_episodes(const Model<D>& model, const std::vector<Episode>& episodes) {
  std::vector<Tokens> sequences;
  for (const Episode& e : episodes) {
    sequences.push_back(e.prompt);
    sequences.back().insert(sequences.back().end(), e.response.begin(), e.response.end());
  }
  return reward_scores(model, sequences);
}

/// Adds the gradient of the ranking loss of some prompts, each weighted `share`. Returns their part
/// of the loss and adds their counts to `stats`.
template <class D>
float reward_gradient(const Model<D>& model, std::span<const RankedPrompt* const> prompts,
                      const RankingLoss& settings, float share, RankingStats& stats) {
  PackedBatch packed;
  Tokens rank, offsets{0};
  for (const RankedPrompt* prompt : prompts) {
    for (const Tokens& sequence : prompt->sequences) packed.add(sequence);
    rank.insert(rank.end(), prompt->rank.begin(), prompt->rank.end());
    offsets.push_back(static_cast<std::int32_t>(rank.size()));
  }
  const auto weight = detail::device_vector<D>(std::vector<float>(prompts.size(), share));
  return backpropagate([&] {
    RankingStats part;
    auto loss = ranking_loss(detail::score_packed(model, packed), detail::device_vector<D>(rank),
                             detail::device_vector<D>(offsets), weight, settings, &part);
    add_stats(stats, part);
    return loss;
  });
}

/// Fits the model to the rankings. Prompts that decide no pair are left out.
template <class D>
void reward_train(Model<D>& model, const std::vector<RankedPrompt>& prompts,
                  const RewardConfig& config, const UpdateCallback& after_update = {}) {
  std::vector<const RankedPrompt*> decided;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    for (const Tokens& sequence : prompts[i].sequences)
      require_readable(model.config(), sequence, "reward", "prompt", i);
    if (decided_pairs(prompts[i]) > 0) decided.push_back(&prompts[i]);
  }
  check<DataError>(!decided.empty(), "[reward] no ranking decides between two responses");
  const auto count = static_cast<Index>(decided.size());
  const Index per_epoch = (count + config.batch - 1) / config.batch;
  const Index total = per_epoch * config.epochs;
  AdamW<D> optimizer(model.parameters(), config.optimizer);
  for (Index update = 0; update < total; ++update) {
    const Index epoch = update / per_epoch, part = update % per_epoch;
    const auto order =
        permutation(count, Rng(config.seed, Stage::Shuffle, static_cast<std::uint32_t>(epoch), 1));
    std::vector<const RankedPrompt*> members;
    for (Index i = part * config.batch; i < std::min(count, (part + 1) * config.batch); ++i)
      members.push_back(decided[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])]);
    RankingStats stats;
    const float share = 1.0F / static_cast<float>(members.size());
    float loss = 0;
    const auto length = [&](std::size_t i) {
      Index tokens = 0;
      for (const Tokens& sequence : members[i]->sequences)
        tokens += static_cast<Index>(sequence.size());
      return tokens;
    };
    try {
      detail::for_token_runs(
          members.size(), kForwardTokens, length, [&](std::size_t first, std::size_t last) {
            loss += reward_gradient<D>(model, std::span(members).subspan(first, last - first),
                                       config.loss, share, stats);
          });
    } catch (const NumericError& error) {
      throw NumericError(str("[reward] update ", update, ": ", error.what()));
    }
    optimizer.step(linear_schedule(config.optimizer.lr, update, total));
    if (after_update) after_update(update, total, loss);
  }
}

/// Shifts and scales the head so that scores of these sequences (responses of the initial policy) have
/// mean 0 and population standard deviation 1: gain and bias of Ziegler et al. 2019, folded into the
/// head. It gives the KL coefficient its meaning.
template <class D>
void normalise_rewards(Model<D>& model, const std::vector<Tokens>& sequences) {
  const auto scores = reward_scores(model, sequences);
  check<DataError>(scores.size() >= 2, "[reward] normalisation needs at least two sequences");
  double mean = 0, square = 0;
  for (const float s : scores) mean += s;
  mean /= static_cast<double>(scores.size());
  for (const float s : scores) square += (s - mean) * (s - mean);
  const double std = std::sqrt(square / static_cast<double>(scores.size()));
  if (!(std > 1e-8))
    fail<NumericError>(str("[reward] all ", scores.size(), " scores equal ", mean,
                           ": the model tells no response from another"));
  model.rescale_scalar(static_cast<float>(1.0 / std), static_cast<float>(-mean / std));
}

/// How well scores agree with rankings, over the pairs that these decide.
struct RewardEvaluation {
  double pairs = 0;
  double correct = 0;         ///< equal scores count one half
  double length_correct = 0;  ///< the baseline: the longer response wins
  double ece = 0;             ///< expected calibration error of σ(difference), ten bins
  double mean_margin = 0;

  double accuracy() const { return pairs > 0 ? correct / pairs : 0; }
  double length_accuracy() const { return pairs > 0 ? length_correct / pairs : 0; }
};

/// Evaluates given scores of each prompt's sequences, prompt after prompt.
inline RewardEvaluation evaluate_scores(const std::vector<RankedPrompt>& prompts,
                                        const std::vector<float>& scores) {
  struct Bin {
    double n = 0, confidence = 0, correct = 0;
  };
  std::array<Bin, 10> bins{};
  RewardEvaluation result;
  const auto wins = [](auto a, auto b) { return a > b ? 1.0 : a == b ? 0.5 : 0.0; };
  std::size_t at = 0;
  for (const RankedPrompt& p : prompts) {
    for (std::size_t i = 0; i < p.rank.size(); ++i)
      for (std::size_t j = 0; j < p.rank.size(); ++j) {
        if (p.rank[i] < 0 || p.rank[j] < 0 || p.rank[i] >= p.rank[j]) continue;
        const double margin = static_cast<double>(scores[at + i]) - scores[at + j];
        const double win = wins(margin, 0.0);
        result.pairs += 1;
        result.correct += win;
        result.length_correct += wins(p.lengths[i], p.lengths[j]);
        result.mean_margin += margin;
        const double confidence = 1.0 / (1.0 + std::exp(-std::abs(margin)));  // in [½, 1)
        Bin& bin =
            bins[std::min<std::size_t>(static_cast<std::size_t>((confidence - 0.5) * 20), 9)];
        bin.n += 1;
        bin.confidence += confidence;
        bin.correct += win;
      }
    at += p.rank.size();
  }
  if (result.pairs > 0) {
    for (const Bin& bin : bins) result.ece += std::abs(bin.confidence - bin.correct) / result.pairs;
    result.mean_margin /= result.pairs;
  }
  return result;
}

/// Evaluates a reward model on rankings it was not fitted to.
template <class D>
RewardEvaluation reward_evaluate(const Model<D>& model, const std::vector<RankedPrompt>& prompts) {
  std::vector<Tokens> sequences;
  for (const RankedPrompt& p : prompts)
    sequences.insert(sequences.end(), p.sequences.begin(), p.sequences.end());
  return evaluate_scores(prompts, reward_scores(model, sequences));
}

}}  // namespace plumb::v0_1
