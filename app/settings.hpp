// Settings of the commands, each listed once: `fields(settings, f)` calls f(name, member, help) for
// every one, and from that list come the flags, the defaults in --help, the JSON configuration file and
// the effective configuration that a run directory keeps.
#pragma once

#include <plumb/core/check.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 {

struct GenerateSettings {
  Index responses = 4;
  Index max_new_tokens = 160;
  float temperature = 1.0F;
  Index top_k = 0;
  float top_p = 1.0F;
  std::vector<std::string> stop;
  std::uint64_t seed = 1;
  Index slots = 64;
};

template <class F>
void fields(GenerateSettings& s, F&& f) {
  f("responses", s.responses, "responses per prompt");
  f("max-new-tokens", s.max_new_tokens, "longest response, tokens");
  f("temperature", s.temperature, "softmax temperature; 0 takes the likeliest token");
  f("top-k", s.top_k, "sample from the k likeliest tokens; 0: all");
  f("top-p", s.top_p, "then from the fewest tokens of this mass; 1: all");
  f("stop", s.stop, "text that ends a response (may be repeated)");
  f("seed", s.seed, "seed of the random draws");
  f("slots", s.slots, "sequences that run together; changes speed and memory, not results");
}

struct SftSettings {
  Index epochs = 1;
  Index batch = 16;
  float lr = 3e-4F;
  float weight_decay = 0.01F;
  std::uint64_t seed = 1;
};

template <class F>
void fields(SftSettings& s, F&& f) {
  f("epochs", s.epochs, "passes over the demonstrations");
  f("batch", s.batch, "demonstrations per update");
  f("lr", s.lr, "learning rate, falling linearly to 0");
  f("weight-decay", s.weight_decay, "AdamW weight decay");
  f("seed", s.seed, "seed of the shuffles");
}

struct RewardSettings {
  std::string loss = "bt";
  float margin = 0.0F;
  float center = 0.01F;
  Index epochs = 2;
  Index batch = 8;
  float lr = 1e-3F;
  std::uint64_t seed = 1;
};

template <class F>
void fields(RewardSettings& s, F&& f) {
  f("loss", s.loss, "bt (pairwise Bradley-Terry) or pl (K-wise Plackett-Luce)");
  f("margin", s.margin, "Bradley-Terry: margin between the scores of a pair");
  f("center", s.center, "coefficient of the regulariser that centres scores on 0");
  f("epochs", s.epochs, "passes over the rankings");
  f("batch", s.batch, "prompts per update, each with all its pairs");
  f("lr", s.lr, "learning rate, falling linearly to 0");
  f("seed", s.seed, "seed of the head, the shuffles and the split");
}

struct PpoSettings {
  Index iterations = 30;
  Index prompts = 64;
  Index responses = 2;
  Index epochs = 4;
  Index minibatches = 4;
  Index micro_sequences = 0;
  Index max_new_tokens = 160;
  float temperature = 1.0F;
  Index top_k = 0;
  float top_p = 1.0F;
  bool allow_filters = false;
  std::string kl = "k1";
  float beta = 0.05F;
  float kl_target = 0.0F;
  float kl_horizon = 10000.0F;
  float gamma = 1.0F;
  float lambda = 0.95F;
  std::string whiten_rewards = "none";
  std::string whiten_advantages = "population";
  float clip = 0.2F;
  float clip_high = 0.0F;
  float dual_clip = 0.0F;
  float value_clip = 0.2F;
  float value_coef = 0.1F;
  bool separate_value = false;
  float value_lr = 1e-3F;
  float entropy_coef = 0.0F;
  float score_clip = 0.0F;
  float missing_eos_penalty = 0.0F;
  bool missing_eos_replaces = false;
  bool score_after_end = false;
  float target_kl = 0.0F;
  float lr = 5e-4F;
  bool constant_lr = false;
  float eps = 1e-5F;
  bool tf_eps = false;
  float weight_decay = 0.0F;
  float max_grad_norm = 1.0F;
  Index checkpoint_every = 5;
  std::uint64_t seed = 1;
};

template <class F>
void fields(PpoSettings& s, F&& f) {
  f("iterations", s.iterations, "PPO iterations");
  f("ppo-prompts", s.prompts, "prompts per iteration");
  f("ppo-responses", s.responses, "responses per prompt");
  f("ppo-epochs", s.epochs, "passes over an iteration's episodes");
  f("minibatches", s.minibatches, "optimizer steps per epoch");
  f("micro-sequences", s.micro_sequences,
    "sequences per forward pass of an update; 0: the whole minibatch; changes memory, not the "
    "loss");
  f("ppo-max-new-tokens", s.max_new_tokens, "longest response, tokens");
  f("ppo-temperature", s.temperature, "softmax temperature of rollouts and of all log-probs");
  f("ppo-top-k", s.top_k, "filter of rollouts; refused without --allow-filters");
  f("ppo-top-p", s.top_p, "filter of rollouts; refused without --allow-filters");
  f("allow-filters", s.allow_filters, "permit rollouts from a filtered distribution (off-policy)");
  f("kl", s.kl, "estimator in the reward: k1, k2 or k3");
  f("beta", s.beta, "KL coefficient, initially");
  f("kl-target", s.kl_target, "nats per response that beta adapts towards; 0: beta is fixed");
  f("kl-horizon", s.kl_horizon, "episodes over which beta adapts");
  f("gamma", s.gamma, "discount per token");
  f("lambda", s.lambda, "GAE lambda");
  f("whiten-rewards", s.whiten_rewards, "none, population or unbiased");
  f("whiten-advantages", s.whiten_advantages, "none, population or unbiased");
  f("clip", s.clip, "ratio clipped to 1 - clip … 1 + clip");
  f("clip-high", s.clip_high, "upper clip where it differs; 0: as clip");
  f("dual-clip", s.dual_clip, "dual clip for negative advantages, above 1; 0: off");
  f("value-clip", s.value_clip, "value change clipped to this; 0: off");
  f("value-coef", s.value_coef, "weight of the value loss");
  f("separate-value", s.separate_value, "a value model of its own instead of a shared trunk");
  f("value-lr", s.value_lr, "learning rate of a separate value model");
  f("entropy-coef", s.entropy_coef, "weight of the entropy bonus");
  f("score-clip", s.score_clip, "scores clipped to ± this; 0: off");
  f("missing-eos-penalty", s.missing_eos_penalty,
    "taken off the score of a response cut by length");
  f("missing-eos-replaces", s.missing_eos_replaces, "the penalty replaces the score instead");
  f("score-after-end", s.score_after_end, "score enters one step after a short response (TRL)");
  f("target-kl", s.target_kl, "approx_kl at which an iteration's epochs end; 0: off");
  f("ppo-lr", s.lr, "learning rate, falling linearly to 0");
  f("constant-lr", s.constant_lr, "keep the learning rate");
  f("eps", s.eps, "epsilon of AdamW");
  f("tf-eps", s.tf_eps, "TensorFlow's place for epsilon (lm-human-preferences)");
  f("weight-decay", s.weight_decay, "AdamW weight decay");
  f("max-grad-norm", s.max_grad_norm, "gradients scaled down to this norm; 0: never");
  f("checkpoint-every", s.checkpoint_every, "iterations between checkpoints");
  f("ppo-seed", s.seed, "seed of rollouts and shuffles");
}

/// Rounds of the four steps.
struct AlignSettings {
  std::string model;  // the first policy; empty: the shipped stories260K
  std::string tokenizer;
  std::string sft;       // demonstrations to fine-tune the first policy on
  std::string prompts;   // empty: openings of the shipped stories
  std::string held_out;  // stories for evaluation; empty: the shipped ones
  std::string run = "run";
  std::string labeller = "rule:warm";
  std::string annotator = "me";
  Index rounds = 1;
  Index rank_prompts = 256;
  Index eval_prompts = 200;
  Index eval_stories = 200;
  SftSettings supervised;
  GenerateSettings generate;
  RewardSettings reward;
  PpoSettings ppo;
};

template <class F>
void fields(AlignSettings& s, F&& f) {
  f("model", s.model, "first policy: llama2.c .bin or Plumb .safetensors; empty: stories260K");
  f("tokenizer", s.tokenizer, "its tokenizer file, or bytes; empty: beside the model");
  f("sft", s.sft, "demonstrations (JSON Lines: prompt, completion) to fine-tune it on first");
  f("prompts", s.prompts, "prompts: .jsonl, stories, or one a line; empty: shipped story openings");
  f("held-out", s.held_out, "stories kept out, for evaluation; empty: the shipped ones");
  f("run", s.run, "run directory; one that was stopped is taken up again");
  f("labeller", s.labeller, "who ranks: person, or rule:warm");
  f("annotator", s.annotator, "name of the person who ranks");
  f("rounds", s.rounds, "rounds of generate, rank, reward model, PPO");
  f("rank-prompts", s.rank_prompts, "prompts ranked per round");
  f("eval-prompts", s.eval_prompts, "held-out prompts for the comparison");
  f("eval-stories", s.eval_stories, "held-out stories for the perplexity");
  const auto prefixed = [&](const char* prefix) {
    return [&f, prefix](const char* name, auto& member, const char* help) {
      f((std::string(prefix) + name).c_str(), member, help);
    };
  };
  fields(s.supervised, prefixed("sft-"));
  fields(s.generate, prefixed("generate-"));
  fields(s.reward, prefixed("reward-"));
  fields(s.ppo, f);
}

}}  // namespace plumb::v0_1
