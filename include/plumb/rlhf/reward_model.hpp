// Step 3: a reward model learns the rankings. Its score is a linear function of the hidden state of
// a sequence's last token. Two epochs over the prompts by default (Ziegler et al. 2019 and Ouyang
// et al. 2022 take one, of far more data), learning rate falling to zero. Loss: cpu/loss.hpp.
#pragma once

#include <plumb/core/fields.hpp>
#include <plumb/core/real.hpp>
#include <plumb/math/loss.hpp>
#include <plumb/optim/schedule.hpp>
#include <plumb/rlhf/episode.hpp>
#include <plumb/rlhf/ranking.hpp>
#include <plumb/rlhf/update.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

constexpr std::array<std::pair<const char*, RankingLossKind>, 2> choices(RankingLossKind) {
  return {{{"bt", RankingLossKind::BradleyTerry}, {"pl", RankingLossKind::PlackettLuce}}};
}

struct RewardConfig {
  Index epochs = 2;
  Index batch = 8;         ///< prompts per update
  Index micro_tokens = 0;  ///< tokens per forward in an update; 0: see update_tokens
  RankingLoss loss{.center = 0.01F};
  AdamWConfig optimizer{.lr = 1e-3F, .eps = 1e-5F};
  std::uint64_t seed = 1;
  BeforeStep before_step{};  ///< between an update's last gradient and its step; optional
};

template <class F>
void fields(RewardConfig& c, F&& f) {
  f(Field{"loss", "bt (pairwise Bradley-Terry) or pl (K-wise Plackett-Luce)"}, c.loss.kind);
  f(Field{"epochs", "passes over the rankings", at_least(0)}, c.epochs);
  f(Field{"batch", "prompts per update, each with all its pairs", at_least(1)}, c.batch);
  f(Field{"weight",
          "what counts alike: each ranking, or each comparison, pair or stage (maximum likelihood)",
          {},
          "",
          "Loss"},
    c.loss.weight);
  f(Field{"margin", "Bradley-Terry: margin between the scores of a pair", {}, "", "Loss"},
    c.loss.margin);
  f(Field{"margin-by",
          "constant: margin; data: and how much better the data's levels, scores or margin say",
          {},
          "",
          "Loss"},
    c.loss.margin_by);
  f(Field{"center", "coefficient of the regulariser that centres scores on 0", at_least(0), "",
          "Loss"},
    c.loss.center);
  f(Field{"micro-tokens", "tokens of one pass of an update; 0: as memory allows; not the loss",
          at_least(0), "", "Memory"},
    c.micro_tokens);
  fields(c.optimizer, f);
  f(Field{"seed", "seed of the head, the shuffles and the split"}, c.seed);
}

namespace detail {
/// Scores of packed sequences, numbers `places` of `frozen`, read at each one's last token: (B).
template <Policy P>
Tensor<typename P::Device> score_packed(const P& model, const PackedBatch& packed,
                                        const FrozenStates<typename P::Device>& frozen = {},
                                        std::span<const std::size_t> places = {}) {
  using D = typename P::Device;
  Tokens last;
  for (std::size_t s = 1; s < packed.offsets.size(); ++s) last.push_back(packed.offsets[s] - 1);
  const ReadRows read = read_rows(packed, {&last});
  auto batch = Batch<D>::from(packed, read);
  frozen.attach(batch, packed, places);
  const auto hidden = model.hidden(batch);
  return model.scalar(embedding(hidden, device_vector<D>(last)));
}

/// levels() on the device, or no tensor.
template <class D>
Tensor<D> levels_on(std::span<const RankedPrompt* const> prompts, const RankingLoss& loss) {
  const std::vector<float> all = levels(prompts, loss);
  return all.empty() ? Tensor<D>{} : device_vector<D>(all);
}
}  // namespace detail

/// Scores of sequences (prompt and response): (B). DataError, naming the sequence, where the model
/// cannot read one.
template <Policy P>
std::vector<float> reward_scores(const P& model, const std::vector<Tokens>& sequences,
                                 Where where = Where::here()) {
  std::vector<float> scores;
  const auto add = [&](PackedBatch& packed, std::size_t i) {
    require_readable(model, sequences[i], "reward", "sequence", i, 0, where);
    packed.add(sequences[i]);
  };
  for_packed_runs(partial_batches<P>, sequences.size(), forward_tokens(model), add,
                  [&](const PackedBatch& packed, std::size_t, std::size_t) {
                    for (const float score : detail::score_packed(model, packed).to_vector())
                      scores.push_back(score);
                  });
  return scores;
}

/// Scores of episodes: what PPO is trained on when a reward model gives the score.
template <Policy P>
std::vector<float> score_episodes(const P& model, const std::vector<Episode>& episodes) {
  std::vector<Tokens> sequences;
  for (const Episode& e : episodes) {
    sequences.push_back(e.prompt);
    sequences.back().insert(sequences.back().end(), e.response.begin(), e.response.end());
  }
  return reward_scores(model, sequences);
}

/// Appends a prompt's responses to a batch.
inline void pack(PackedBatch& packed, const RankedPrompt& prompt) {
  for (const Tokens& sequence : prompt.sequences) packed.add(sequence);
}

/// Adds the gradient of the ranking loss of some prompts, whose responses are packed so, each
/// weighted `share` · ranking_weight(). Returns their part of the loss and adds their counts to
/// `stats`.
template <Policy P>
float reward_gradient(const P& model, const PackedBatch& packed,
                      std::span<const RankedPrompt* const> prompts, const RankingLoss& settings,
                      float share, RankingStats& stats,
                      const FrozenStates<typename P::Device>& frozen = {},
                      std::span<const std::size_t> places = {}) {
  using D = typename P::Device;
  Tokens rank, offsets{0};
  std::vector<float> weight;
  for (const RankedPrompt* prompt : prompts) {
    rank.insert(rank.end(), prompt->rank.begin(), prompt->rank.end());
    offsets.push_back(static_cast<std::int32_t>(rank.size()));
    weight.push_back(share * static_cast<float>(ranking_weight(prompt->rank, settings)));
  }
  HostReads<D> reads;
  RankingStats part;
  const float loss = backpropagate([&] {
    return ranking_loss(detail::score_packed(model, packed, frozen, places), device_vector<D>(rank),
                        detail::levels_on<D>(prompts, settings), device_vector<D>(offsets),
                        device_vector<D>(weight), settings, reads.room(&part));
  });
  reads.fetch();
  add_stats(stats, part);
  return loss;
}

/// The same in one batch.
template <Policy P>
float reward_gradient(const P& model, std::span<const RankedPrompt* const> prompts,
                      const RankingLoss& settings, float share, RankingStats& stats) {
  PackedBatch packed(partial_batches<P>);
  for (const RankedPrompt* prompt : prompts) pack(packed, *prompt);
  return reward_gradient(model, packed, prompts, settings, share, stats);
}

/// The same of one prompt whose responses together are more than `tokens`: its loss's derivative by
/// the scores first, from forwards without gradient, then a part of the responses at a time.
template <Policy P>
float reward_gradient_in_parts(const P& model, const RankedPrompt& prompt,
                               const RankingLoss& settings, float share, Index tokens,
                               RankingStats& stats) {
  using D = typename P::Device;
  const auto score = device_vector<D>(reward_scores(model, prompt.sequences));
  score.set_requires_grad(true);
  const auto count = static_cast<std::int32_t>(prompt.rank.size());
  const RankedPrompt* const one_prompt = &prompt;
  const float weight = share * static_cast<float>(ranking_weight(prompt.rank, settings));
  HostReads<D> reads;
  RankingStats part;
  const float loss = backpropagate([&] {
    return ranking_loss(score, device_vector<D>(prompt.rank),
                        detail::levels_on<D>(std::span(&one_prompt, 1), settings),
                        device_vector<D>(Tokens{0, count}),
                        device_vector<D>(std::vector<float>{weight}), settings, reads.room(&part));
  });
  reads.fetch();
  add_stats(stats, part);
  const std::vector<float> derivative = score.grad_tensor().to_vector();
  const auto add = [&](PackedBatch& packed, std::size_t i) { packed.add(prompt.sequences[i]); };
  for_packed_runs(
      partial_batches<P>, prompt.sequences.size(), tokens, add,
      [&](const PackedBatch& packed, std::size_t i, std::size_t end) {
        const auto first = derivative.begin() + static_cast<std::ptrdiff_t>(i);
        const std::vector<float> weights(first, first + static_cast<std::ptrdiff_t>(end - i));
        backpropagate([&] {
          return weighted_sum(detail::score_packed(model, packed), device_vector<D>(weights));
        });
      });
  return loss;
}

/// Fits the model to the rankings. Prompts that decide no pair are left out. A minibatch of B is
/// divided by B times the mean weight of a ranking in all of the data, and not by its own weights:
/// so its gradient is, in the mean, that of the mean over all.
template <Policy P>
void reward_train(P& model, const std::vector<RankedPrompt>& prompts, const RewardConfig& config,
                  const UpdateCallback& after_update = {}, Where where = Where::here()) {
  using D = typename P::Device;
  check_fields(config, "reward", where);
  std::vector<const RankedPrompt*> decided;
  std::vector<const Tokens*> sequences;  // of these
  std::vector<std::size_t> begins;       // each one's first among them
  std::size_t all_tokens = 0;
  double all_weight = 0;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    for (const Tokens& sequence : prompts[i].sequences)
      require_readable(model, sequence, "reward", "prompt", i, 0, where);
    if (decided_pairs(prompts[i]) == 0) continue;
    decided.push_back(&prompts[i]);
    all_weight += ranking_weight(prompts[i].rank, config.loss);
    begins.push_back(sequences.size());
    for (const Tokens& sequence : prompts[i].sequences) {
      sequences.push_back(&sequence);
      all_tokens += sequence.size();
    }
  }
  check<DataError>(!decided.empty(), "[reward] no ranking decides between two responses", where);
  check_levels(decided, config.loss, where);
  const auto minibatches = Minibatches::of(static_cast<Index>(decided.size()), config.batch,
                                           config.epochs, config.seed, 1);
  const auto mean_weight = static_cast<float>(all_weight / static_cast<double>(decided.size()));
  const Index total = minibatches.parts * config.epochs;
  const Index tokens = update_tokens(model, config.micro_tokens);
  AdamW<D> optimizer(model.parameters(), config.optimizer, where);
  const auto frozen =
      frozen_states_of_data(model, config.epochs, static_cast<Index>(all_tokens), sequences.size(),
                            [&](PackedBatch& packed, std::size_t i) { packed.add(*sequences[i]); });
  minibatches.run([&](Index epoch, Index part, const std::vector<std::size_t>& places) {
    const Index update = epoch * minibatches.parts + part;
    std::vector<const RankedPrompt*> members;
    for (const std::size_t place : places) members.push_back(decided[place]);
    const Trained<D> trained{&model.parameters(), &optimizer,
                             linear_schedule(config.optimizer.lr, update, total)};
    const auto add = [&](PackedBatch& packed, std::size_t i) { pack(packed, *members[i]); };
    RankingStats stats;
    const float share = 1.0F / (static_cast<float>(members.size()) * mean_weight);
    float loss = 0;
    const auto gradients = [&] {
      for_packed_runs(
          partial_batches<P>, members.size(), tokens, add,
          [&](const PackedBatch& packed, std::size_t i, std::size_t end) {
            const auto some = std::span<const RankedPrompt* const>(members).subspan(i, end - i);
            std::vector<std::size_t> numbers;
            for (std::size_t j = i; j < end; ++j)
              for (std::size_t k = 0; k < members[j]->sequences.size(); ++k)
                numbers.push_back(begins[places[j]] + k);
            loss += packed.size() > tokens ? reward_gradient_in_parts(model, *some[0], config.loss,
                                                                      share, tokens, stats)
                                           : reward_gradient(model, packed, some, config.loss,
                                                             share, stats, frozen, numbers);
          });
    };
    update_step<D>(
        std::span(&trained, 1), gradients, [&] { return str("[reward] update ", update); },
        config.before_step);
    if (after_update) after_update(update, total, loss);
  });
}

/// s ↦ gain·s + shift.
struct ScoreScale {
  double gain = 1, shift = 0;
};

/// What gives these scores mean 0 and population standard deviation 1.
inline ScoreScale normal_scale(const std::vector<float>& scores, Where where = Where::here()) {
  check<DataError>(scores.size() >= 2, "[reward] normalisation needs at least two sequences",
                   where);
  double mean = 0, square = 0;
  for (const float s : scores) mean += s;
  mean /= static_cast<double>(scores.size());
  for (const float s : scores) square += (s - mean) * (s - mean);
  const double std = std::sqrt(square / static_cast<double>(scores.size()));
  if (!(std > 1e-8))
    fail<NumericError>(str("[reward] all ", scores.size(), " scores equal ", mean,
                           ": the model tells no response from another"),
                       where);
  return {1.0 / std, -mean / std};
}

/// Shifts and scales the head so that scores of these sequences (responses of the initial policy)
/// have mean 0 and population standard deviation 1: gain and bias of Ziegler et al. 2019, folded
/// into the head. It gives the KL coefficient its meaning.
template <Policy P>
void normalise_rewards(P& model, const std::vector<Tokens>& sequences,
                       Where where = Where::here()) {
  const ScoreScale scale = normal_scale(reward_scores(model, sequences, where), where);
  model.rescale_scalar(static_cast<float>(scale.gain), static_cast<float>(scale.shift));
}

/// How well scores agree with rankings, over the pairs that these decide. Shares of no pairs are
/// NaN.
struct RewardEvaluation {
  double pairs = 0;
  double correct = 0;         ///< equal scores count one half
  double refused = 0;         ///< pairs with a score that is not finite: in `pairs`, never correct
  double length_correct = 0;  ///< the baseline: the longer response wins
  double nll = 0;             ///< mean −log σ(margin) of the pairs that are not refused, nats
  double brier = 0;           ///< mean (1 − σ(margin))² of these
  double ece = 0;             ///< expected calibration error of σ(difference), ten bins, of these
  double mean_margin = 0;     ///< of these
  std::vector<double> prompt_pairs, prompt_correct;  ///< per prompt: what intervals cluster by

  double accuracy() const { return correct / pairs; }
  double length_accuracy() const { return length_correct / pairs; }
};

/// Evaluates given scores of each prompt's sequences, prompt after prompt. ShapeError unless there
/// is one for each.
inline RewardEvaluation evaluate_scores(const std::vector<RankedPrompt>& prompts,
                                        const std::vector<float>& scores,
                                        Where where = Where::here()) {
  struct Bin {
    double confidence = 0, correct = 0;
  };
  std::size_t expected = 0;
  for (const RankedPrompt& p : prompts) expected += p.rank.size();
  if (scores.size() != expected)
    fail(str("[reward] ", scores.size(), " scores for ", expected, " ranked sequences"), where);
  std::array<Bin, 10> bins{};
  RewardEvaluation result;
  const auto wins = [](auto a, auto b) { return a > b ? 1.0 : a == b ? 0.5 : 0.0; };
  std::size_t at = 0;
  for (const RankedPrompt& p : prompts) {
    double pairs = 0, correct = 0;
    for (std::size_t i = 0; i < p.rank.size(); ++i)
      for (std::size_t j = 0; j < p.rank.size(); ++j) {
        if (p.rank[i] < 0 || p.rank[j] < 0 || p.rank[i] >= p.rank[j]) continue;
        pairs += 1;
        result.length_correct += wins(p.lengths[i], p.lengths[j]);
        const double margin = static_cast<double>(scores[at + i]) - scores[at + j];
        if (!std::isfinite(scores[at + i]) || !std::isfinite(scores[at + j])) {
          result.refused += 1;
          continue;
        }
        const double win = wins(margin, 0.0);
        correct += win;
        result.mean_margin += margin;
        const double wrong = 1.0 / (1.0 + real::exp(margin));  // 1 − σ(margin)
        result.nll += std::max(0.0, -margin) + real::log1p(real::exp(-std::abs(margin)));
        result.brier += wrong * wrong;
        const double confidence = 1.0 / (1.0 + real::exp(-std::abs(margin)));  // in [½, 1)
        Bin& bin =
            bins[std::min<std::size_t>(static_cast<std::size_t>((confidence - 0.5) * 20), 9)];
        bin.confidence += confidence;
        bin.correct += win;
      }
    at += p.rank.size();
    result.pairs += pairs;
    result.correct += correct;
    result.prompt_pairs.push_back(pairs);
    result.prompt_correct.push_back(correct);
  }
  const double judged = result.pairs - result.refused;
  for (const Bin& bin : bins) result.ece += std::abs(bin.confidence - bin.correct);
  for (double* mean : {&result.ece, &result.mean_margin, &result.nll, &result.brier})
    *mean = judged > 0 ? *mean / judged : std::numeric_limits<double>::quiet_NaN();
  return result;
}

/// Two evaluations as one, of the pairs of both.
inline RewardEvaluation merged(const RewardEvaluation& a, const RewardEvaluation& b) {
  RewardEvaluation sum = a;
  const double n = a.pairs - a.refused, m = b.pairs - b.refused;
  const auto mean = [&](double x, double y) {
    return n == 0 ? y : m == 0 ? x : (x * n + y * m) / (n + m);
  };
  sum.pairs += b.pairs;
  sum.correct += b.correct;
  sum.refused += b.refused;
  sum.length_correct += b.length_correct;
  sum.nll = mean(a.nll, b.nll);
  sum.brier = mean(a.brier, b.brier);
  sum.ece = mean(a.ece, b.ece);
  sum.mean_margin = mean(a.mean_margin, b.mean_margin);
  sum.prompt_pairs.insert(sum.prompt_pairs.end(), b.prompt_pairs.begin(), b.prompt_pairs.end());
  sum.prompt_correct.insert(sum.prompt_correct.end(), b.prompt_correct.begin(),
                            b.prompt_correct.end());
  return sum;
}

/// Evaluates a reward model on rankings it was not fitted to.
template <Policy P>
RewardEvaluation reward_evaluate(const P& model, const std::vector<RankedPrompt>& prompts,
                                 Where where = Where::here()) {
  std::vector<Tokens> sequences;
  for (const RankedPrompt& p : prompts)
    sequences.insert(sequences.end(), p.sequences.begin(), p.sequences.end());
  return evaluate_scores(prompts, reward_scores(model, sequences, where), where);
}

}}  // namespace plumb::v0_1
