// Settings of the commands: those of the library (`fields` beside each config), and what a command
// adds. From these lists come the flags, --help, the settings files and what a run directory keeps.
#pragma once

#include "judge.hpp"

#include <plumb/io/settings.hpp>
#include <plumb/nn/lora.hpp>
#include <plumb/rlhf/group.hpp>
#include <plumb/rlhf/head_ensemble.hpp>
#include <plumb/rlhf/ppo_config.hpp>
#include <plumb/rlhf/preference.hpp>
#include <plumb/rlhf/sft.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// How responses are sampled. Several, since they are to be ranked.
struct GenerateSettings {
  SampleOptions sampling{.responses = 4};
  std::vector<std::string> stop{};
};

template <class F>
void fields(GenerateSettings& s, F&& f) {
  fields(s.sampling, f);
  f(Field{"stop", "text that ends a response (may be repeated)", {}, "", "Sampling"}, s.stop);
}

/// A step's settings, and those of the adapters that it may train in place of all weights.
template <class Config>
struct WithAdapters {
  Config config;
  LoraConfig lora;
};
template <class Config, class F>
void fields(WithAdapters<Config>& s, F&& f) {
  fields(s.config, f);
  fields(s.lora, f);
}

/// What of a reward model is fitted. Linear: one linear function of a frozen trunk's features;
/// Full: the trunk, too. Auto: Full for models of up to kFullTrunk weights: these are soon trained
/// and know little that a frozen trunk could show.
enum class RewardHead { Auto, Linear, Full };
constexpr std::array<std::pair<const char*, RewardHead>, 3> choices(RewardHead) {
  return {{{"auto", RewardHead::Auto}, {"linear", RewardHead::Linear}, {"full", RewardHead::Full}}};
}
inline constexpr Index kFullTrunk = 10'000'000;

/// A reward model of either kind; loss and seed serve both.
struct RewardSettings {
  RewardHead head = RewardHead::Auto;
  RewardConfig full;
  HeadConfig linear;
  EnsembleConfig ensemble;
};

template <class F>
void fields(RewardSettings& s, F&& f) {
  f(Field{"head",
          "linear: of a frozen trunk; full: the trunk learns, too; auto: full up to 10 million "
          "weights"},
    s.head);
  fields(s.full, f);
  fields(s.linear, f);
  fields(s.ensemble, f);
}

/// PPO on files, or a method without a critic.
struct PpoSettings {
  PolicyMethod method = PolicyMethod::Ppo;
  PpoConfig config;
  LoraConfig lora;  ///< of the policy and, in a run of all steps, of every model
  Index prompts = 64;
  bool separate_value = false;
  Storage sampler = Storage::Float;  ///< of the weights that sample
  Index checkpoint_every = 5;
  Index checkpoints = 2;
  float kl_budget = 0;      ///< of the best policy that is kept beside the last; 0: none is
  Index episodes_kept = 8;  ///< of every iteration, to be looked at

  bool critic() const { return method == PolicyMethod::Ppo; }
  std::string label() const { return critic() ? "PPO" : choice_name(method); }
  ScalarHead head() const {
    return critic() && !separate_value ? ScalarHead::Value : ScalarHead::None;
  }
};

template <class F>
void fields(PpoSettings& s, F&& f) {
  f(Field{"method",
          "ppo; or without a critic: grpo, dr-grpo, rloo, reinforce++, dapo, gspo, cispo",
          {},
          "",
          "Groups"},
    s.method);
  f(Field{"ppo-prompts", "prompts per iteration", at_least(1)}, s.prompts);
  fields(s.config, f);
  f(Field{"separate-value", "a value model of its own instead of a shared trunk", {}, "", "Losses"},
    s.separate_value);
  f(Field{"sampler",
          "weights that sample: float, the policy's own; bf16 or int8, read faster, off-policy",
          {},
          "",
          "Sampling"},
    s.sampler);
  f(Field{"checkpoint-every", "between checkpoints", at_least(1), "iterations", "Memory"},
    s.checkpoint_every);
  f(Field{"kl-budget",
          "beside the last policy keep the best whose exact KL is at most this; 0: none",
          at_least(0), "nats per response", "Divergence from the reference"},
    s.kl_budget);
  f(Field{"checkpoints", "kept: 2, the last and the one before it, or 1", between(1, 2), "",
          "Memory"},
    s.checkpoints);
  f(Field{"episodes-kept",
          "responses of each iteration kept with all numbers of their tokens, for `plumb watch`",
          at_least(0), "", "Memory"},
    s.episodes_kept);
  fields(s.lora, f);
}

/// DataError naming the setting that is out of range or does not go with another.
inline void check_ppo(const PpoSettings& s) {
  check_ppo(s.config);
  check<DataError>(s.sampler == Storage::Float || s.config.off_policy(),
                   "[ppo] weights of fewer bits sample another distribution than the policy's. "
                   "HINT: name a --correction, or --allow-off-policy");
  check<DataError>(s.kl_budget == 0 || s.config.kl_every > 0,
                   "[ppo] kl-budget is of the exact KL, which kl-every 0 never computes. HINT: "
                   "--kl-every 1, or no kl-budget");
}

/// A method without a critic: the settings of PPO but those of a critic.
struct GroupSettings {
  PpoSettings ppo;
};

template <class F>
void fields(GroupSettings& s, F&& f) {
  fields(s.ppo, [&f](Field field, auto& member) {
    for (const char* of_critic : {"gamma", "lambda", "score-position", "value-clip", "value-coef",
                                  "value-lr", "separate-value"})
      if (std::string_view(field.name) == of_critic) return;
    if (std::string_view(field.name) == "method") field.group = "";
    f(field, member);
  });
}

/// What a round learns by: a policy method, from a reward model fitted to its rankings, or a
/// preference method, from its rankings directly. The names are those of both.
enum class AlignMethod : int {};

namespace detail {
inline constexpr std::size_t kPolicyMethods = choices(PolicyMethod{}).size();
}

constexpr AlignMethod align_method(PolicyMethod method) {
  return static_cast<AlignMethod>(static_cast<int>(method));
}
constexpr AlignMethod align_method(PreferenceMethod method) {
  return static_cast<AlignMethod>(static_cast<int>(detail::kPolicyMethods) +
                                  static_cast<int>(method));
}
constexpr auto choices(AlignMethod) {
  constexpr auto by_reward = choices(PolicyMethod{});
  constexpr auto directly = choices(PreferenceMethod{});
  std::array<std::pair<const char*, AlignMethod>, by_reward.size() + directly.size()> all{};
  std::size_t at = 0;
  for (const auto& [name, method] : by_reward) all[at++] = {name, align_method(method)};
  for (const auto& [name, method] : directly) all[at++] = {name, align_method(method)};
  return all;
}

/// The method of either kind that is meant; none: it is of the other kind.
constexpr std::optional<PolicyMethod> policy_method(AlignMethod method) {
  for (const auto& [name, one] : choices(PolicyMethod{}))
    if (align_method(one) == method) return one;
  return {};
}
constexpr std::optional<PreferenceMethod> preference_method(AlignMethod method) {
  for (const auto& [name, one] : choices(PreferenceMethod{}))
    if (align_method(one) == method) return one;
  return {};
}

/// Rounds of the four steps; or of three, where a round learns from its rankings directly.
struct AlignSettings {
  AlignMethod method = align_method(PolicyMethod::Ppo);
  std::string model;  // the first policy; empty: the shipped stories260K
  std::string tokenizer;
  std::string chat;
  std::string sft;               // demonstrations to fine-tune the first policy on
  std::string prompts;           // empty: openings of the shipped stories
  std::string held_out;          // stories for evaluation; empty: the shipped ones
  std::string held_out_prompts;  // for the comparison; empty: openings of held_out
  std::string run = "run";
  std::string tensorboard;  // a folder for TensorBoard's events; empty: none
  std::string labeller = kDefaultRule;
  std::string judge;  // empty: the labeller, if it is a rule
  std::string annotator = "me";
  bool generate_temperature_said = false;  // else it is the chat form's
  bool ppo_temperature_said = false;
  Index rounds = 1;
  Index rank_prompts = 256;
  Index eval_prompts = 200;
  Index eval_responses = 1;  // to each of them, before and after
  Index eval_stories = 200;
  SftConfig supervised;
  GenerateSettings generate;
  RewardSettings reward;
  PpoSettings ppo;
  PreferenceConfig direct;  // of a method without a reward model

  bool directly() const { return preference_method(method).has_value(); }
  /// Of a round, to learn from.
  std::size_t fewest_rankings() const { return directly() ? 1 : 5; }
  /// Who compares the last policy with the first: a person's rankings are compared by the default
  /// rule unless another judge is named.
  std::string judge_spec() const {
    if (!judge.empty()) return judge;
    return labeller.starts_with("rule:") ? labeller : kDefaultRule;
  }
};

template <class F>
void fields(AlignSettings& s, F&& f) {
  f(Field{"model", "first policy: a model file or folder; empty: stories260K"}, s.model);
  f(Field{"prompts", "prompts: data in any form, stories, or one a line; empty: shipped openings"},
    s.prompts);
  f(Field{"run", "run directory; one that was stopped goes on"}, s.run);
  f(Field{"method", "ppo, grpo and on: by a reward model; dpo and on: from rankings directly"},
    s.method);
  f(Field{"labeller", "who ranks: person, or rule:NAME"}, s.labeller);
  f(Field{"judge", "who compares at the end: rule:NAME, person, command:…, a reward model"},
    s.judge);
  f(Field{"annotator", "name of the person who ranks or judges"}, s.annotator);
  f(Field{"rounds", "rounds of generate, rank, learn", at_least(1)}, s.rounds);
  f(Field{"rank-prompts", "prompts ranked per round", at_least(1)}, s.rank_prompts);
  f(Field{"eval-prompts", "held-out prompts for the comparison", at_least(1)}, s.eval_prompts);
  f(Field{"eval-responses", "responses to each of them that are compared", at_least(1)},
    s.eval_responses);
  f(Field{"sft", "demonstrations, in any form, to fine-tune the first policy on"}, s.sft);
  f(Field{"tokenizer", "tokenizer file, or bytes; empty: what the model says", {}, "", "Input"},
    s.tokenizer);
  f(Field{"chat", "chat form of the prompts, by name; empty: what the model says", {}, "", "Input"},
    s.chat);
  f(Field{"held-out", "stories kept out, for evaluation; empty: the shipped ones", {}, "", "Input"},
    s.held_out);
  f(Field{"held-out-prompts",
          "prompts kept out, for the comparison; empty: openings of held-out",
          {},
          "",
          "Input"},
    s.held_out_prompts);
  f(Field{"eval-stories", "held-out stories for the perplexity", at_least(1), "", "Input"},
    s.eval_stories);
  // A step's settings are those of its own command, under a heading of its own; but the method,
  // which is named once for all of them.
  const auto of_step = [&f](const char* prefix, const char* heading) {
    return [&f, prefix, heading](Field field, auto& member) {
      if (std::string_view(field.name) == "method") return;
      const std::string name = std::string(prefix) + field.name;
      const std::string group = *field.group == '\0' ? heading : str(heading, ": ", field.group);
      field.name = name.c_str();
      field.group = group.c_str();
      f(field, member);
    };
  };
  fields(s.supervised, of_step("sft-", "Supervised fine-tuning"));
  fields(s.generate, of_step("generate-", "Generating"));
  fields(s.reward, of_step("reward-", "Reward model"));
  fields(s.ppo, of_step("", "PPO"));
  fields(s.direct, of_step("dpo-", "Learning from rankings directly"));
}

/// Makes the settings that a method chooses those of the one that is named.
inline void use_method(PpoSettings& s) { use_method(s.config, s.method); }
inline void use_method(GroupSettings& s) { use_method(s.ppo); }
inline void use_method(AlignSettings& s) {
  if (const auto method = preference_method(s.method)) s.direct.method = *method;
  s.ppo.method = policy_method(s.method).value_or(s.ppo.method);
  if (!s.directly()) use_method(s.ppo);
}

}}  // namespace plumb::v0_1
