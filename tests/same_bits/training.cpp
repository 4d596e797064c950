// A short training, and a fingerprint of each of its parts, a line each: initial weights, rotary
// tables, fine-tuning, a reward model, PPO in two forms, statistics. Two machines, instruction sets
// or systems' libraries that print other lines differ in a bit. Standard library and engine alone,
// so that it compiles wherever Plumb does. What is compared: tests/scripts/libm.py and aarch64.sh.
#include <plumb/io/llama.hpp>
#include <plumb/plumb.hpp>
#include <plumb/rlhf/reward_head.hpp>
#include <plumb/run/statistics.hpp>

#include <cstdio>
#include <numeric>

using namespace plumb;

namespace {

/// FNV-1a over bytes.
class Fingerprint {
 public:
  template <class T>
  void add(std::span<const T> values) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(values.data());
    for (std::size_t i = 0; i < values.size_bytes(); ++i)
      hash_ = (hash_ ^ bytes[i]) * 1099511628211U;
  }
  template <class T>
  void add(const std::vector<T>& values) {
    add(std::span<const T>(values));
  }
  template <class D>
  void add(const Tensor<D>& x) {
    add(x.to_vector());
  }
  void add(double x) { add(std::span<const double>(&x, 1)); }
  /// Metrics, but for times.
  void add(const Metrics& metrics) {
    for (const auto& [name, value] : metrics)
      if (!name.starts_with("time/")) add(static_cast<double>(value));
  }
  void print(const char* part) const {
    std::printf("%016llx %s\n", static_cast<unsigned long long>(hash_), part);
  }

 private:
  std::uint64_t hash_ = 14695981039346656037U;
};

Tokens random_tokens(Index n, std::uint64_t seed) {
  Rng rng(seed);
  Tokens tokens(static_cast<std::size_t>(n));
  for (auto& token : tokens) token = static_cast<std::int32_t>(rng.below(64));
  return tokens;
}

TransformerConfig config_of(Family family) {
  return {.family = family,
          .vocab = 64,
          .context = 512,
          .channels = 32,
          .layers = 2,
          .heads = 4,
          .kv_heads = family == Family::Llama ? 2 : 4,
          .hidden = 72};
}

std::vector<RankedPrompt> rankings_of(Index n) {
  std::vector<RankedPrompt> rankings;
  for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(n); ++i) {
    RankedPrompt p;
    for (std::uint64_t k = 0; k < 3; ++k) {
      p.sequences.push_back(random_tokens(10 + static_cast<Index>(3 * k), 100 + 3 * i + k));
      p.lengths.push_back(8);
      p.begins.push_back(2 + static_cast<Index>(3 * k));
      p.rank.push_back(static_cast<std::int32_t>((i + k) % 3));
    }
    rankings.push_back(std::move(p));
  }
  return rankings;
}

PpoConfig ppo_config() {
  PpoConfig c;
  c.iterations = 6;
  c.epochs = 2;
  c.minibatches = 2;
  c.micro_tokens = 4096;
  c.sampling.max_new_tokens = 16;
  c.sampling.responses = 3;
  c.sampling.stops = {3, 40};
  c.kl = KlEstimator::K3;
  c.kl_target = 0.5F;
  c.kl_horizon = 100;
  c.whiten_rewards = Whitening::Unbiased;
  c.entropy_coef = 0.01F;
  c.optimizer.lr = 3e-3F;
  c.optimizer.weight_decay = 0.01F;
  return c;
}

template <class D>
void train(const char* device, Family family, bool groups) {
  const std::string name = std::string(family == Family::Llama ? "llama, " : "gpt2, ") + device;
  Fingerprint hash;
  Model<D> policy(config_of(family), 1);
  hash.add(policy.parameters().flat());
  hash.print((name + ": initial weights").c_str());

  std::vector<Example> examples;
  for (std::uint64_t i = 0; i < 12; ++i)
    examples.push_back({random_tokens(4, i), random_tokens(9 + static_cast<Index>(i), 50 + i)});
  sft_train(policy, examples, {.batch = 6, .optimizer = {.lr = 3e-3F, .weight_decay = 0.01F}});
  hash.add(policy.parameters().flat());
  hash.print((name + ": fine-tuned").c_str());

  Model<D> reward = policy.clone(ScalarHead::Reward, 2);
  const auto rankings = rankings_of(8);
  reward_train(reward, rankings, {.batch = 4});
  normalise_rewards(reward, rankings[0].sequences);
  const RewardEvaluation quality = reward_evaluate(reward, rankings);
  hash.add(reward.parameters().flat());
  hash.add(quality.nll);
  hash.print((name + ": reward model").c_str());

  const HeadConfig head_config;
  std::vector<std::size_t> all(rankings.size());
  std::iota(all.begin(), all.end(), std::size_t{0});
  const auto features = response_features(policy, answered(rankings), {1, 2});
  LinearHead head = fit_head(rankings, features, all, 1, head_config, {}, 0.01);
  normalise_head(head, head_scores(head, features));
  hash.add(head.weight);
  hash.print((name + ": linear head").c_str());

  const Model<D> reference = policy.clone();
  Model<D> value = reward.clone(ScalarHead::Value);
  const auto score = [&](const std::vector<Episode>& e) { return score_episodes(reward, e); };
  PpoConfig config = ppo_config();
  if (groups) {
    config.advantage = group_advantages(Whitening::Unbiased);
    config.correction = Correction::TokenTruncate;
    config.sampling.sampling.top_k = 20;
  }
  PpoTrainer<D> trainer(policy, reference, score, config, groups ? nullptr : &value);
  std::vector<Tokens> prompts;
  for (Index i = 0; i < 6; ++i)
    prompts.push_back(random_tokens(2 + i, static_cast<std::uint64_t>(i)));
  for (int step = 0; step < 3; ++step) hash.add(trainer.step(prompts));
  hash.add(policy.parameters().flat());
  hash.add(value.parameters().flat());
  hash.print((name + (groups ? ": groups, off policy" : ": PPO")).c_str());
}

void figures() {
  Fingerprint tables;
  TransformerConfig scaled = config_of(Family::Llama);
  for (const RopeScaling scaling : {RopeScaling::None, RopeScaling::Linear, RopeScaling::Llama3}) {
    scaled.rope_scaling = scaling;
    scaled.rope_factor = 4;
    scaled.rope_original = 128;
    for (const double f : rotary_frequencies(scaled)) tables.add(f);
  }
  tables.add(detail::llama_rope_tables({.channels = 32,
                                        .hidden = 8,
                                        .layers = 1,
                                        .heads = 2,
                                        .kv_heads = 2,
                                        .vocab = 8,
                                        .context = 300,
                                        .tied = true}));
  Rng rng(5);
  std::vector<float> normal(100000);
  for (float& x : normal) x = rng.normal();
  tables.add(normal);
  tables.print("rotary tables, normal numbers");

  Fingerprint constants;
  for (Index step = 1; step < 2000; ++step) {
    const AdamWScalars s = adamw_scalars({1e-3F, 0.9F, 0.999F, 1e-8F, 0.01F, 1.0F, step, true});
    constants.add(static_cast<double>(s.minus_step_size));
    constants.add(kl_estimate(KlEstimator::K3, -1e-3F * static_cast<float>(step), -1.0F));
  }
  constants.print("AdamW's constants, k3");

  Fingerprint statistics;
  for (int degrees = 1; degrees < 60; ++degrees) statistics.add(student_t95(degrees));
  for (Index n = 1; n < 40; ++n) {
    const std::vector<double> p = {0.1, 0.2, 0.3, 0.4}, s = {1, 3, 2, 3};
    statistics.add(best_of_n_kl_bound(n));
    statistics.add(best_of_n_law(p, s, n).kl);
  }
  statistics.print("statistics");
}

}  // namespace

int main() {
  figures();
  train<Cpu>("float", Family::Llama, false);
  train<Cpu>("float", Family::Gpt2, true);
  train<CpuBf16>("bf16", Family::Llama, true);
}
