// Learning from rankings directly, without a reward model and without sampling: the policy is its
// own reward model. A response's score is made of its log-prob, and scores are fitted to rankings
// by the losses that reward models are fitted with (cpu/loss.hpp), of pairs or of whole rankings of
// K, partial ones and ties included.
//
//   method   score of response y                    loss
//   dpo      β (log π(y) − log π_ref(y))            −log σ(better − worse); by smoothing ε
//                                                   conservative
//   robust   likewise                               unbiased where a share ε of labels is flipped
//   ipo      log π(y) − log π_ref(y)                (better − worse − 1/(2β))²
//   hinge    β (log π(y) − log π_ref(y))            max(0, 1 − (better − worse)) (SLiC)
//   simpo    β log π(y) / |y|                       −log σ(better − worse − margin)
//   orpo     log odds of e^(log π(y) / |y|)         −β log σ(better − worse) beside imitation
//   pl       β (log π(y) − log π_ref(y))            Plackett–Luce over the ranking: K-wise DPO
//   kto      β (log π(y) − log π_ref(y))            1 − σ(±(score − z)), for single responses: the
//                                                   best are wanted, the last are not
//
// Sources: Rafailov et al. 2023 (dpo; its appendix A.3 for pl), Mitchell 2023 (conservative),
// Chowdhury et al. 2024 (robust), Azar et al. 2023 (ipo; sums of log-probs as in the paper, where
// TRL takes means), Zhao et al. 2023 (hinge), Meng et al. 2024 (simpo), Hong et al. 2024 (orpo),
// Ethayarajh et al. 2024 (kto; z as in TRL: the mean over a minibatch of β log π/π_ref of the
// response to the next prompt of the data, at least 0). The loss of a prompt is the mean over its
// pairs, so a prompt counts once however many responses it has.
// Reference log-probs are computed once, before the first update. Not here: sampling (online
// methods take their data from a round), a reference that moves.
#pragma once

#include <plumb/core/fields.hpp>
#include <plumb/math/loss.hpp>
#include <plumb/ops/arithmetic.hpp>
#include <plumb/optim/schedule.hpp>
#include <plumb/rlhf/episode.hpp>
#include <plumb/rlhf/ranking.hpp>
#include <plumb/rlhf/update.hpp>

#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

enum class PreferenceMethod { Dpo, Robust, Ipo, Hinge, SimPo, Orpo, PlackettLuce, Kto };
constexpr std::array<std::pair<const char*, PreferenceMethod>, 8> choices(PreferenceMethod) {
  return {{{"dpo", PreferenceMethod::Dpo},
           {"robust", PreferenceMethod::Robust},
           {"ipo", PreferenceMethod::Ipo},
           {"hinge", PreferenceMethod::Hinge},
           {"simpo", PreferenceMethod::SimPo},
           {"orpo", PreferenceMethod::Orpo},
           {"pl", PreferenceMethod::PlackettLuce},
           {"kto", PreferenceMethod::Kto}}};
}

struct PreferenceConfig {
  PreferenceMethod method = PreferenceMethod::Dpo;
  float beta = 0.1F;       ///< of the score; ipo: its τ; orpo: of the loss
  float smoothing = 0.0F;  ///< ε: the share of labels taken to be flipped
  float margin = 0.0F;     ///< simpo's γ
  bool per_token = false;  ///< scores of means over tokens, not of sums; simpo and orpo always are
  float imitate = 0.0F;    ///< coefficient of the negative log-likelihood of the best; orpo: 1
  float wanted = 1.0F, unwanted = 1.0F;  ///< kto: weights of the two kinds
  Index epochs = 1;
  Index batch = 8;         ///< prompts per update
  Index micro_tokens = 0;  ///< tokens per forward in an update; 0: see update_tokens
  AdamWConfig optimizer{.lr = 1e-4F};
  bool linear_lr = true;
  std::uint64_t seed = 1;
  BeforeStep before_step{};  ///< between an update's last gradient and its step; optional

  bool needs_reference() const {
    return method != PreferenceMethod::SimPo && method != PreferenceMethod::Orpo;
  }
  bool means() const { return per_token || !needs_reference(); }
};

template <class F>
void fields(PreferenceConfig& c, F&& f) {
  f(Field{"method", "dpo, robust, ipo, hinge, simpo, orpo, pl or kto"}, c.method);
  f(Field{"beta", "of the score: how dear it is to leave the reference", above(0)}, c.beta);
  f(Field{"smoothing", "share of labels taken to be flipped", between(0, 0.49), "", "Loss"},
    c.smoothing);
  f(Field{"margin", "simpo: between the scores of a pair", {}, "", "Loss"}, c.margin);
  f(Field{"per-token", "scores of means over tokens, not of sums", {}, "", "Loss"}, c.per_token);
  f(Field{"imitate", "coefficient of imitating the best response", at_least(0), "", "Loss"},
    c.imitate);
  f(Field{"wanted", "kto: weight of responses that are wanted", at_least(0), "", "Loss"}, c.wanted);
  f(Field{"unwanted", "kto: weight of those that are not", at_least(0), "", "Loss"}, c.unwanted);
  f(Field{"epochs", "passes over the rankings", at_least(0)}, c.epochs);
  f(Field{"batch", "prompts per update", at_least(1)}, c.batch);
  f(Field{"micro-tokens", "tokens of one pass of an update; 0: as memory allows; not the loss",
          at_least(0), "", "Memory"},
    c.micro_tokens);
  fields(c.optimizer, f);
  f(Field{"linear-lr", "the learning rate falls to zero", {}, "", "Optimizer"}, c.linear_lr);
  f(Field{"seed", "seed of the shuffles"}, c.seed);
}

/// What an update reports, summed over its prompts; divide by `prompts` or `pairs`.
struct PreferenceStats {
  double prompts = 0;
  double wanted = 0, unwanted = 0;  ///< Σ mean score of each prompt's best, and of its last
  double chosen_logprob = 0;  ///< Σ log π of each prompt's best: it may fall while pairs are won
  RankingStats ranking;       ///< of scores
};

namespace detail {

/// A prompt's responses, as they are compared.
struct Compared {
  Tokens rank;                   ///< (K) as in RankedPrompt
  std::vector<Index> length;     ///< (K) tokens
  std::vector<float> reference;  ///< (K) log-probs under the reference; or 0

  std::int32_t last() const { return *std::max_element(rank.begin(), rank.end()); }
};

/// A ranked prompt, read once.
struct Preferred {
  const RankedPrompt* prompt;
  Compared compared;
  Tokens other;  ///< kto: this prompt and the response to the next
  Index other_begin = 0;
  float other_reference = 0;
};

/// Log-prob (or its mean a token) of each packed sequence from where its response begins: (B).
template <Policy P>
Tensor<typename P::Device> response_logprobs(const P& policy, const PackedBatch& packed,
                                             std::span<const Tokens* const> sequences,
                                             std::span<const Index> begins, bool mean) {
  using D = typename P::Device;
  Tokens rows, targets, offsets{0};
  std::vector<float> within;
  for (std::size_t b = 0; b < sequences.size(); ++b) {
    const auto length = static_cast<Index>(sequences[b]->size());
    for (Index t = begins[b]; t < length; ++t) {
      rows.push_back(packed.row(static_cast<Index>(b), t - 1));
      targets.push_back((*sequences[b])[static_cast<std::size_t>(t)]);
    }
    const Index own = length - begins[b];
    within.insert(within.end(), static_cast<std::size_t>(own),
                  mean ? 1.0F / static_cast<float>(own) : 1.0F);
    offsets.push_back(static_cast<std::int32_t>(rows.size()));
  }
  const auto batch = Batch<D>::from(packed, read_rows(packed, {&rows}));
  const auto hidden = embedding(policy.hidden(batch), device_vector<D>(rows));
  const auto out = head_logprob(hidden, policy.head(), device_vector<D>(targets));
  return segment_sum(out.logprob, device_vector<D>(within), device_vector<D>(offsets));
}

/// The same of any sequences, without gradient, as many at a time as memory allows.
template <Policy P>
std::vector<float> response_logprobs(const P& policy, std::span<const Tokens* const> sequences,
                                     std::span<const Index> begins, bool mean) {
  std::vector<float> all;
  const auto add = [&](PackedBatch& packed, std::size_t i) { packed.add(*sequences[i]); };
  for_packed_runs(
      partial_batches<P>, sequences.size(), forward_tokens(policy), add,
      [&](const PackedBatch& packed, std::size_t i, std::size_t end) {
        for (const float x : response_logprobs(policy, packed, sequences.subspan(i, end - i),
                                               begins.subspan(i, end - i), mean)
                                 .to_vector())
          all.push_back(x);
      });
  return all;
}

inline void count(std::span<const Compared* const> prompts, const std::vector<float>& scores,
                  const std::vector<float>& logprobs, PreferenceStats& stats) {
  std::size_t at = 0;
  for (const Compared* p : prompts) {
    double best = 0, least = 0, chosen = 0, n = 0, m = 0;
    for (const std::int32_t rank : p->rank) {
      if (rank == 0) {
        best += scores[at];
        chosen += logprobs[at];
        n += 1;
      } else if (rank == p->last()) {
        least += scores[at];
        m += 1;
      }
      ++at;
    }
    stats.prompts += 1;
    stats.wanted += best / n;
    stats.unwanted += least / m;
    stats.chosen_logprob += chosen / n;
  }
}

}  // namespace detail

/// How a method compares scores.
inline RankingLoss score_loss(const PreferenceConfig& c) {
  RankingLoss loss;
  loss.smoothing = c.smoothing;
  switch (c.method) {
    case PreferenceMethod::Robust: loss.pair = PairLoss::Robust; break;
    case PreferenceMethod::Ipo:
      loss.pair = PairLoss::Square;
      loss.margin = 1.0F / (2.0F * c.beta);
      break;
    case PreferenceMethod::Hinge:
      loss.pair = PairLoss::Hinge;
      loss.margin = 1.0F;
      break;
    case PreferenceMethod::SimPo: loss.margin = c.margin; break;
    case PreferenceMethod::PlackettLuce: loss.kind = RankingLossKind::PlackettLuce; break;
    default: break;
  }
  return loss;
}

/// The loss of prompts, each weighted `share`, from their responses' log-probs (config.means():
/// means over tokens), prompt after prompt: (ΣK) -> (). `kto_reference` is KTO's z.
template <class D>
Tensor<D> preference_loss(const Tensor<D>& logprob,
                          std::span<const detail::Compared* const> prompts,
                          const PreferenceConfig& config, float share, float kto_reference,
                          PreferenceStats& stats) {
  const bool orpo = config.method == PreferenceMethod::Orpo;
  const float factor = config.method == PreferenceMethod::Ipo ? 1.0F : config.beta;
  Tokens rank, offsets{0};
  std::vector<float> shift, sign, kto_weight, imitated;
  for (const detail::Compared* p : prompts) {
    const auto best = static_cast<float>(std::count(p->rank.begin(), p->rank.end(), 0));
    const auto least = static_cast<float>(std::count(p->rank.begin(), p->rank.end(), p->last()));
    for (std::size_t k = 0; k < p->rank.size(); ++k) {
      const bool wanted = p->rank[k] == 0, unwanted = p->rank[k] == p->last();
      shift.push_back(config.needs_reference() ? -factor * p->reference[k] : 0.0F);
      sign.push_back(unwanted ? -1.0F : 1.0F);
      kto_weight.push_back(wanted     ? config.wanted * share / (best + least)
                           : unwanted ? config.unwanted * share / (best + least)
                                      : 0.0F);
      const auto tokens = config.means() ? 1.0F : static_cast<float>(p->length[k]);
      imitated.push_back(wanted ? -share / (best * tokens) : 0.0F);
    }
    rank.insert(rank.end(), p->rank.begin(), p->rank.end());
    offsets.push_back(static_cast<std::int32_t>(rank.size()));
  }
  const auto score =
      orpo ? log_odds(logprob) : add(scale(logprob, factor), device_vector<D>(shift));
  HostReads<D> reads;
  RankingStats counts;
  const auto of_rankings = ranking_loss(
      score, device_vector<D>(rank), Tensor<D>{}, device_vector<D>(offsets),
      device_vector<D>(std::vector<float>(prompts.size(), orpo ? share * config.beta : share)),
      score_loss(config), reads.room(&counts));
  auto loss =
      config.method == PreferenceMethod::Kto
          ? kto_loss(score, device_vector<D>(sign), device_vector<D>(kto_weight), kto_reference)
          : of_rankings;
  if (const float imitate = orpo && config.imitate == 0 ? 1.0F : config.imitate; imitate > 0)
    loss = add(loss, scale(weighted_sum(logprob, device_vector<D>(imitated)), imitate));
  reads.fetch();
  add_stats(stats.ranking, counts);
  detail::count(prompts, score.to_vector(), logprob.to_vector(), stats);
  return loss;
}

/// Trains a policy on rankings.
template <Policy P>
class PreferenceTrainer {
 public:
  using D = typename P::Device;

  /// `reference` is what the policy was before, or null for a method that needs none. The data are
  /// read once here, for the reference's log-probs. DataError where settings or data make no sense.
  PreferenceTrainer(P& policy, const P* reference, const std::vector<RankedPrompt>& prompts,
                    const PreferenceConfig& config, Where where = Where::here())
      : policy_(policy), config_(config) {
    check_fields(config, "preference", where);
    check<DataError>(config.needs_reference() == (reference != nullptr),
                     config.needs_reference()
                         ? "[preference] this method needs a reference: the policy before"
                         : "[preference] this method has no reference, but one was given",
                     where);
    check<DataError>(config.smoothing == 0 || config.method == PreferenceMethod::Dpo ||
                         config.method == PreferenceMethod::Robust ||
                         config.method == PreferenceMethod::SimPo,
                     "[preference] smoothing is for dpo, robust and simpo", where);
    for (std::size_t i = 0; i < prompts.size(); ++i) take(prompts[i], i, where);
    check<DataError>(!items_.empty(), "[preference] no ranking decides between two responses",
                     where);
    if (config.method == PreferenceMethod::Kto) pair_with_next();
    if (reference != nullptr) ask(*reference);
  }

  Index items() const { return static_cast<Index>(items_.size()); }

  /// All updates; after each, its number, how many there are, its loss.
  PreferenceStats train(const UpdateCallback& after_update = {}) {
    const auto minibatches =
        Minibatches::of(items(), config_.batch, config_.epochs, config_.seed, 2);
    const Index total = minibatches.parts * config_.epochs;
    const Index tokens = update_tokens(policy_, config_.micro_tokens);
    AdamW<D> optimizer(policy_.parameters(), config_.optimizer);
    PreferenceStats last;
    minibatches.run([&](Index epoch, Index part, const std::vector<std::size_t>& places) {
      const Index update = epoch * minibatches.parts + part;
      std::vector<const detail::Preferred*> members;
      for (const std::size_t place : places) members.push_back(&items_[place]);
      const float lr = config_.linear_lr ? linear_schedule(config_.optimizer.lr, update, total)
                                         : config_.optimizer.lr;
      const Trained<D> trained{&policy_.parameters(), &optimizer, lr};
      float loss = 0;
      last = {};
      update_step<D>(
          std::span(&trained, 1), [&] { loss = gradient(members, tokens, last); },
          [&] { return str("[preference] update ", update); }, config_.before_step);
      if (after_update) after_update(update, total, loss);
    });
    return last;
  }

  /// The policy's scores of the data, without gradient.
  PreferenceStats evaluate() const {
    PreferenceStats stats;
    for (const detail::Preferred& item : items_) {
      std::vector<const Tokens*> sequences;
      for (const Tokens& sequence : item.prompt->sequences) sequences.push_back(&sequence);
      const auto logprob = device_vector<D>(
          detail::response_logprobs(policy_, sequences, item.prompt->begins, config_.means()));
      const detail::Compared* one = &item.compared;
      preference_loss(logprob, std::span<const detail::Compared* const>(&one, 1), config_, 1.0F,
                      0.0F, stats);
    }
    return stats;
  }

  /// The loss of some prompts, each an equal share, and its gradient added to the policy's, at most
  /// `tokens` of them a forward (a prompt's responses stay together).
  float gradient(std::span<const detail::Preferred* const> members, Index tokens,
                 PreferenceStats& stats) {
    const float share = 1.0F / static_cast<float>(members.size());
    const float reference = config_.method == PreferenceMethod::Kto ? kto_reference(members) : 0.0F;
    float loss = 0;
    const auto add = [&](PackedBatch& packed, std::size_t i) {
      for (const Tokens& sequence : members[i]->prompt->sequences) packed.add(sequence);
    };
    for_packed_runs(partial_batches<P>, members.size(), tokens, add,
                    [&](const PackedBatch& packed, std::size_t i, std::size_t end) {
                      loss += part(packed, members.subspan(i, end - i), share, reference, stats);
                    });
    return loss;
  }
  float gradient(Index tokens, PreferenceStats& stats) {
    std::vector<const detail::Preferred*> all;
    for (const detail::Preferred& item : items_) all.push_back(&item);
    return gradient(all, tokens, stats);
  }

 private:
  void take(const RankedPrompt& prompt, std::size_t i, Where where) {
    if (decided_pairs(prompt) == 0) return;
    if (prompt.begins.size() != prompt.sequences.size())
      fail<DataError>(str("[preference] prompt ", i, " does not say where its responses begin"),
                      where);
    detail::Preferred item{&prompt, {prompt.rank, {}, {}}, {}};
    item.compared.reference.resize(prompt.rank.size());
    for (std::size_t k = 0; k < prompt.sequences.size(); ++k) {
      require_readable(policy_, prompt.sequences[k], "preference", "prompt", i, 0, where);
      const auto length = static_cast<Index>(prompt.sequences[k].size());
      if (prompt.begins[k] < 1 || prompt.begins[k] >= length)
        fail<DataError>(
            str("[preference] prompt ", i, ", response ", k, " begins at token ", prompt.begins[k],
                " of ", length, ": expected a prompt token before it and a token of its own"),
            where);
      item.compared.length.push_back(length - prompt.begins[k]);
    }
    items_.push_back(std::move(item));
  }

  // KTO's reference point is the divergence on responses that do not belong to the prompt.
  void pair_with_next() {
    for (std::size_t i = 0; i < items_.size(); ++i) {
      const RankedPrompt& own = *items_[i].prompt;
      const RankedPrompt& next = *items_[(i + 1) % items_.size()].prompt;
      const Tokens& prompt = own.sequences[0];
      const Tokens& response = next.sequences[0];
      items_[i].other.assign(prompt.begin(), prompt.begin() + own.begins[0]);
      items_[i].other.insert(items_[i].other.end(), response.begin() + next.begins[0],
                             response.end());
      const auto most = static_cast<std::size_t>(policy_.context());
      if (items_[i].other.size() > most) items_[i].other.resize(most);
      items_[i].other_begin = own.begins[0];
    }
  }

  // The reference's log-probs, once.
  void ask(const P& reference) {
    std::vector<const Tokens*> sequences;
    std::vector<Index> begins;
    for (const detail::Preferred& item : items_) {
      for (std::size_t k = 0; k < item.prompt->sequences.size(); ++k) {
        sequences.push_back(&item.prompt->sequences[k]);
        begins.push_back(item.prompt->begins[k]);
      }
      if (config_.method != PreferenceMethod::Kto) continue;
      sequences.push_back(&item.other);
      begins.push_back(item.other_begin);
    }
    const auto all = detail::response_logprobs(reference, sequences, begins, config_.means());
    std::size_t at = 0;
    for (detail::Preferred& item : items_) {
      for (float& x : item.compared.reference) x = all[at++];
      if (config_.method == PreferenceMethod::Kto) item.other_reference = all[at++];
    }
  }

  float kto_reference(std::span<const detail::Preferred* const> members) const {
    std::vector<const Tokens*> sequences;
    std::vector<Index> begins;
    for (const detail::Preferred* item : members) {
      sequences.push_back(&item->other);
      begins.push_back(item->other_begin);
    }
    const auto now = detail::response_logprobs(policy_, sequences, begins, config_.means());
    double mean = 0;
    for (std::size_t i = 0; i < members.size(); ++i)
      mean += (static_cast<double>(now[i]) - members[i]->other_reference) /
              static_cast<double>(members.size());
    return config_.beta * static_cast<float>(std::max(mean, 0.0));
  }

  float part(const PackedBatch& packed, std::span<const detail::Preferred* const> members,
             float share, float kto_reference, PreferenceStats& stats) {
    std::vector<const Tokens*> sequences;
    std::vector<Index> begins;
    std::vector<const detail::Compared*> compared;
    for (const detail::Preferred* item : members) {
      for (const Tokens& sequence : item->prompt->sequences) sequences.push_back(&sequence);
      begins.insert(begins.end(), item->prompt->begins.begin(), item->prompt->begins.end());
      compared.push_back(&item->compared);
    }
    return backpropagate([&] {
      const auto logprob =
          detail::response_logprobs(policy_, packed, sequences, begins, config_.means());
      return preference_loss(logprob, std::span<const detail::Compared* const>(compared), config_,
                             share, kto_reference, stats);
    });
  }

  P& policy_;
  PreferenceConfig config_;
  std::vector<detail::Preferred> items_;
};

/// What a policy's own scores make of rankings that it was not trained on.
template <Policy P>
PreferenceStats preference_evaluate(P& policy, const P* reference,
                                    const std::vector<RankedPrompt>& prompts,
                                    const PreferenceConfig& config) {
  PreferenceTrainer<P> trainer(policy, reference, prompts, config);
  return trainer.evaluate();
}

}}  // namespace plumb::v0_1
