// Every choice of PPO for language models, with the variants that implementations differ in and
// where each comes from. Defaults: TRL's, where it has one.
#pragma once

#include <plumb/core/fields.hpp>
#include <plumb/math/loss.hpp>
#include <plumb/optim/adamw.hpp>
#include <plumb/rlhf/advantage.hpp>
#include <plumb/rlhf/kl.hpp>
#include <plumb/rlhf/update.hpp>

#include <array>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// Named numbers in a fixed order.
using Metrics = std::vector<std::pair<std::string, double>>;

/// Where the score enters. LastToken: with the response's last token. AfterEnd: one step later if
/// the response is shorter than the limit, reaching its tokens through the value of the state after
/// the end (TRL's layout).
enum class ScorePosition { LastToken, AfterEnd };
constexpr std::array<std::pair<const char*, ScorePosition>, 2> choices(ScorePosition) {
  return {{{"last-token", ScorePosition::LastToken}, {"after-end", ScorePosition::AfterEnd}}};
}

/// What happens to the score of a response that did not end. Subtract: score − penalty (TRL);
/// Replace: −penalty (lm-human-preferences).
enum class MissingEos { Subtract, Replace };
constexpr std::array<std::pair<const char*, MissingEos>, 2> choices(MissingEos) {
  return {{{"subtract", MissingEos::Subtract}, {"replace", MissingEos::Replace}}};
}

/// What is compared with the policy that sampled: each token; or the whole response, by the mean of
/// its tokens' log ratios (GSPO) or by their sum (RLOO). The second and third need advantages that
/// are one for a response, as those of a group are.
enum class RatioOf { Token, SequenceMean, Sequence };
constexpr std::array<std::pair<const char*, RatioOf>, 3> choices(RatioOf) {
  return {{{"token", RatioOf::Token},
           {"sequence-mean", RatioOf::SequenceMean},
           {"sequence", RatioOf::Sequence}}};
}

/// What the policy's loss is the mean of, in a minibatch. Token: all its tokens, so that long
/// responses count for more. Sequence: the mean over each response, then over responses.
/// Constant: the sum over each response over the longest length allowed, then over responses, so
/// that a token's weight does not depend on the length of what it stands in.
enum class Reduction { Token, Sequence, Constant };
constexpr std::array<std::pair<const char*, Reduction>, 3> choices(Reduction) {
  return {{{"tokens", Reduction::Token},
           {"sequences", Reduction::Sequence},
           {"constant", Reduction::Constant}}};
}

/// Where the divergence from the reference is charged: in each token's reward, or in the loss.
enum class KlPlace { Reward, Loss };
constexpr std::array<std::pair<const char*, KlPlace>, 2> choices(KlPlace) {
  return {{{"reward", KlPlace::Reward}, {"loss", KlPlace::Loss}}};
}

/// What is made of rollouts that are not the policy's own: rlhf/off_policy.hpp.
enum class Correction { None, Recompute, TokenTruncate, TokenMask, SequenceTruncate, SequenceMask };
constexpr std::array<std::pair<const char*, Correction>, 6> choices(Correction) {
  return {{{"none", Correction::None},
           {"recompute", Correction::Recompute},
           {"token-truncate", Correction::TokenTruncate},
           {"token-mask", Correction::TokenMask},
           {"sequence-truncate", Correction::SequenceTruncate},
           {"sequence-mask", Correction::SequenceMask}}};
}
constexpr bool by_token(Correction c) {
  return c == Correction::TokenTruncate || c == Correction::TokenMask;
}

struct PpoConfig {
  Index iterations = 30;   ///< length of the linear schedule of the learning rate
  Index epochs = 4;        ///< passes over an iteration's episodes
  Index minibatches = 4;   ///< optimizer steps per epoch
  Index micro_tokens = 0;  ///< tokens per forward in an update; 0: see update_tokens
  SampleOptions sampling{.responses = 2};  ///< responses, length, temperature, stops, seed
  bool allow_off_policy = false;  ///< permit rollouts that are not the policy's own, uncorrected
  Correction correction = Correction::None;  ///< of such rollouts; permits them, too
  float correction_cap = 2.0F;               ///< of a weight
  KlEstimator kl = KlEstimator::K1;          ///< of the penalty
  KlPlace kl_place = KlPlace::Reward;
  float beta = 0.05F;           ///< its coefficient, initially
  float kl_target = 0.0F;       ///< nats per response; 0: beta stays fixed
  float kl_horizon = 10000.0F;  ///< episodes
  Index kl_every = 1;  ///< iterations from one exact KL to the next; 0: it is never computed
  float gamma = 1.0F, lambda = 0.95F;
  Whitening whiten_rewards = Whitening::None;
  Whitening whiten_advantages = Whitening::Population;
  PpoClip clip;
  RatioOf ratio = RatioOf::Token;
  Reduction reduction = Reduction::Token;
  float value_clip = 0.2F;  ///< 0: off
  float value_coef = 0.1F;
  float entropy_coef = 0.0F;
  float score_clip = 0.0F;  ///< scores are clipped to ± this; 0: off
  float missing_eos_penalty = 0.0F;
  MissingEos missing_eos = MissingEos::Subtract;
  ScorePosition score_position = ScorePosition::LastToken;
  Index overlong = 0;  ///< last tokens of the longest length that cost up to 1 (DAPO); 0: none
  Whitening group_scale = Whitening::Unbiased;  ///< of a group's scores, where a method divides
  bool drop_agreeing = false;  ///< leave out groups whose scores are all equal (DAPO)
  Index keep_groups = 0;       ///< of those left, the first so many; 0: all
  float target_kl = 0.0F;      ///< an epoch whose mean approx_kl exceeds this is the last; 0: off
  bool linear_lr = true;       ///< learning rates fall to zero over `iterations`
  AdamWConfig optimizer{.lr = 5e-4F, .eps = 1e-5F};
  float value_lr = 1e-3F;       ///< of a separate value model
  AdvantageMethod advantage{};  ///< none named: gae_advantages(gamma, lambda)
  BeforeStep before_step{};     ///< between a minibatch's last gradient and its step; optional

  /// Whether rollouts may be another distribution's.
  bool off_policy() const { return allow_off_policy || correction != Correction::None; }
};

/// PPO's settings, by the names that they have in every command: with "ppo-" where sampling or
/// another step has a setting of the same name.
template <class F>
void fields(PpoConfig& c, F&& f) {
  f(Field{"iterations", "PPO iterations", at_least(0)}, c.iterations);
  f(Field{"ppo-epochs", "passes over an iteration's episodes", at_least(1)}, c.epochs);
  f(Field{"minibatches", "optimizer steps per epoch, each of whole prompts if there are enough",
          at_least(1)},
    c.minibatches);
  f(Field{"micro-tokens", "tokens of one pass of an update; 0: as memory allows; not the loss",
          at_least(0), "", "Memory"},
    c.micro_tokens);
  fields(c.sampling, [&f](Field field, auto& member) {
    const std::string name = std::string("ppo-") + field.name;
    field.name = name.c_str();
    f(field, member);
  });
  f(Field{"allow-off-policy",
          "permit rollouts that are filtered, or read a cache of bf16",
          {},
          "",
          "Sampling"},
    c.allow_off_policy);
  f(Field{"correction",
          "of such rollouts, by importance weights of tokens or sequences; permits them, too",
          {},
          "",
          "Sampling"},
    c.correction);
  f(Field{"correction-cap", "weight beyond which one is cut, or counts as nothing", at_least(1), "",
          "Sampling"},
    c.correction_cap);
  const char* kl = "Divergence from the reference";
  f(Field{"beta", "KL coefficient, initially", at_least(0)}, c.beta);
  f(Field{"kl", "estimator: k1, k2 or k3", {}, "", kl}, c.kl);
  f(Field{"kl-place", "charged in the reward, or in the loss", {}, "", kl}, c.kl_place);
  f(Field{"kl-target", "KL that beta adapts towards; 0: beta is fixed", at_least(0),
          "nats per response", kl},
    c.kl_target);
  f(Field{"kl-horizon", "over which beta adapts", above(0), "episodes", kl}, c.kl_horizon);
  f(Field{"kl-every", "exact KL in every n-th iteration; 0: never", at_least(0), "", kl},
    c.kl_every);
  f(Field{"target-kl", "approx_kl at which an iteration's epochs end; 0: off", at_least(0),
          "nats per token", kl},
    c.target_kl);
  const char* advantage = "Rewards and advantages";
  f(Field{"gamma", "discount per token", between(0, 1), "", advantage}, c.gamma);
  f(Field{"lambda", "GAE lambda", between(0, 1), "", advantage}, c.lambda);
  f(Field{"whiten-rewards", "none, population or unbiased", {}, "", advantage}, c.whiten_rewards);
  f(Field{"whiten-advantages", "none, population or unbiased", {}, "", advantage},
    c.whiten_advantages);
  f(Field{"score-clip", "scores clipped to ± this; 0: off", at_least(0), "", advantage},
    c.score_clip);
  f(Field{"missing-eos-penalty", "taken off the score of a response cut by length", at_least(0), "",
          advantage},
    c.missing_eos_penalty);
  f(Field{"missing-eos", "subtract the penalty, or replace the score by it", {}, "", advantage},
    c.missing_eos);
  f(Field{"score-position",
          "last-token, or after-end: one step after a short response (TRL)",
          {},
          "",
          advantage},
    c.score_position);
  f(Field{"overlong", "last tokens of the longest length that cost up to 1; 0: none", at_least(0),
          "tokens", advantage},
    c.overlong);
  const char* groups = "Groups";
  f(Field{"group-scale",
          "a group's spread, divided by: none, population or unbiased",
          {},
          "",
          groups},
    c.group_scale);
  f(Field{"drop-agreeing", "leave out groups whose scores are all equal", {}, "", groups},
    c.drop_agreeing);
  f(Field{"keep-groups", "of the groups left, the first so many; 0: all", at_least(0), "", groups},
    c.keep_groups);
  const char* losses = "Losses";
  f(Field{"clip", "ratio clipped to 1 - clip … 1 + clip", at_least(0), "", losses}, c.clip.low);
  f(Field{"clip-high", "upper clip where it differs; 0: as clip", at_least(0), "", losses},
    c.clip.high);
  f(Field{"clip-kind",
          "objective (PPO), or weight: still taught where clipped (CISPO)",
          {},
          "",
          losses},
    c.clip.kind);
  f(Field{"ratio", "of a token, of a sequence, or of its mean token", {}, "", losses}, c.ratio);
  f(Field{"reduction", "mean over tokens, over sequences, or by a constant length", {}, "", losses},
    c.reduction);
  f(Field{"dual-clip", "dual clip for negative advantages, above 1; 0: off", at_least(0), "",
          losses},
    c.clip.dual);
  f(Field{"value-clip", "value change clipped to this; 0: off", at_least(0), "", losses},
    c.value_clip);
  f(Field{"value-coef", "weight of the value loss", at_least(0), "", losses}, c.value_coef);
  f(Field{"value-lr", "learning rate of a separate value model", at_least(0), "", losses},
    c.value_lr);
  f(Field{"entropy-coef", "weight of the entropy bonus", {}, "", losses}, c.entropy_coef);
  f(Field{"linear-lr", "learning rates fall to zero over the iterations", {}, "", "Optimizer"},
    c.linear_lr);
  fields(c.optimizer, [&f](Field field, auto& member) {
    const std::string name = field.name == std::string_view("lr") ? "ppo-lr" : field.name;
    field.name = name.c_str();
    f(field, member);
  });
}

/// DataError naming the setting that is out of range or does not go with another.
inline void check_ppo(const PpoConfig& c, Where where = Where::here()) {
  check_fields(c, "ppo", where);
  check_sampling(c.sampling, "ppo", where);
  check<DataError>(c.clip.dual == 0 || c.clip.dual > 1,
                   "[ppo] dual-clip must be above 1, or 0 for none", where);
  check<DataError>(c.ratio == RatioOf::Token || c.reduction == Reduction::Sequence,
                   "[ppo] a ratio of whole sequences has one term a sequence: reduction must be "
                   "sequences",
                   where);
  check<DataError>(c.overlong <= c.sampling.max_new_tokens,
                   "[ppo] overlong must not exceed the longest response, max-new-tokens", where);
  check<DataError>(c.sampling.sampling.temperature > 0,
                   "[ppo] temperature must be above 0: a greedy rollout has no distribution to "
                   "train. HINT: top-k or min-p with a correction come near it",
                   where);
  check<DataError>(!c.sampling.sampling.filters() || c.off_policy(),
                   "[ppo] top-k, top-p and min-p draw from another distribution than the update "
                   "trains: ratios are wrong and the KL can be negative. HINT: sample with "
                   "temperature alone, correct for it (--correction token-truncate), or set "
                   "allow_off_policy (--allow-off-policy)",
                   where);
  check<DataError>(c.sampling.kv_cache == CacheType::Float || c.off_policy(),
                   "[ppo] with a cache of bf16 (kv-cache) the sampled log-probs are not the "
                   "policy's: the first ratio is not 1. HINT: keep it as float, correct for it "
                   "(--correction token-truncate), or set allow_off_policy (--allow-off-policy)",
                   where);
  check<DataError>(c.ratio == RatioOf::Token || !by_token(c.correction),
                   "[ppo] a ratio of whole sequences has one advantage a response: correction must "
                   "be by sequence, too",
                   where);
}

/// Scores for episodes: a reward model, or a rule.
using ScoreFunction = std::function<std::vector<float>(const std::vector<Episode>&)>;

}}  // namespace plumb::v0_1
