// PPO: the trainer's own gradients against differences of the objective written anew in double
// precision, the invariants that an exact on-policy trainer has, and a case whose solution is
// known.
#include "tiny.hpp"

#include <plumb/cpu/reference_loss.hpp>

#include <doctest/doctest.h>

#include <limits>
#include <map>
#include <optional>

using namespace plumb;
using namespace test;

namespace {

/// Moments that hold the very gradient of the last step: β1 = 0, no clipping of its norm.
PpoConfig small_config() {
  PpoConfig config;
  config.epochs = 1;
  config.minibatches = 1;
  config.sampling.max_new_tokens = 10;
  config.sampling.responses = 2;
  config.sampling.stops = {2, 5};
  config.sampling.sampling.temperature = 0.8F;
  config.sampling.seed = 5;
  config.beta = 0.1F;
  config.optimizer.beta1 = 0;
  config.optimizer.max_grad_norm = 0;
  config.linear_lr = false;
  return config;
}

std::map<std::string, double> as_map(const Metrics& metrics) {
  return {metrics.begin(), metrics.end()};
}

/// PPO's objective on all episodes at the models' present weights, in double from log-probs on.
double objective(const Model<Cpu>& policy, const Model<Cpu>* value_model,
                 const std::vector<Episode>& episodes, const PpoConfig& config) {
  std::vector<const Episode*> members;
  std::vector<float> old_logprob, advantage, old_value, returns;
  const auto append = [](std::vector<float>& to, const std::vector<float>& from) {
    to.insert(to.end(), from.begin(), from.end());
  };
  for (const Episode& e : episodes) {
    members.push_back(&e);
    append(old_logprob, e.logprobs);
    append(advantage, e.advantages);
    append(old_value, e.values);
    append(returns, e.returns);
  }
  const auto batch = EpisodeBatch<Cpu>::from(members);
  const auto hidden = policy.transformer()(batch.batch);
  const auto out = head_logprob(embedding(hidden, batch.rows), policy.transformer().head(),
                                batch.targets, config.sampling.sampling.temperature, true);
  const auto& critic = value_model != nullptr ? *value_model : policy;
  const auto value = critic.scalar(embedding(
      value_model != nullptr ? critic.transformer()(batch.batch) : hidden, batch.value_rows));
  const auto widened = [](const Tensor<Cpu>& x) {
    const auto v = x.to_vector();
    return std::vector<double>(v.begin(), v.end());
  };
  const auto logprobs = widened(out.logprob), entropies = widened(out.entropy),
             values = widened(value);
  const auto tokens = static_cast<double>(logprobs.size()),
             steps = static_cast<double>(values.size());
  const std::vector<float> one_each(std::max(logprobs.size(), values.size()), 1.0F);
  const double policy_loss =
      reference::ppo_policy_loss(logprobs.data(), old_logprob.data(), advantage.data(),
                                 one_each.data(), batch.targets.size(), config.clip) /
      tokens;
  const double value_loss =
      reference::ppo_value_loss(values.data(), old_value.data(), returns.data(), one_each.data(),
                                batch.value_rows.size(), config.value_clip) /
      steps;
  double entropy = 0;
  for (const double e : entropies) entropy += e / tokens;
  return policy_loss + double{config.value_coef} * value_loss -
         double{config.entropy_coef} * entropy;
}

/// Of another family and shape than a policy may be.
TransformerConfig critic_config(Index vocab) {
  auto config = tiny_gpt2();
  config.vocab = vocab;
  config.layers = 1;
  return config;
}

/// The gradient of the trainer's second epoch, when ratios have left 1, against differences there.
/// Returns what it reported.
std::map<std::string, double> check_objective(const TransformerConfig& transformer,
                                              PpoConfig config, bool separate) {
  const auto reference =
      tiny_model(transformer, 8, ScalarHead::None);  // not the policy: a KL to speak of
  const auto head = separate ? ScalarHead::None : ScalarHead::Value;
  const auto prompts = some_prompts(6, transformer.vocab);
  auto policy = tiny_model(transformer, 7, head), ahead = tiny_model(transformer, 7, head);
  std::optional<Model<Cpu>> critic, critic_ahead;
  if (separate) {
    critic.emplace(tiny_model(critic_config(transformer.vocab), 9, ScalarHead::Value));
    critic_ahead.emplace(tiny_model(critic_config(transformer.vocab), 9, ScalarHead::Value));
  }
  config.epochs = 1;
  PpoTrainer<Cpu> one(policy, reference, even_share, config, critic ? &*critic : nullptr);
  one.step(prompts);
  config.epochs = 2;
  PpoTrainer<Cpu> two(ahead, reference, even_share, config,
                      critic_ahead ? &*critic_ahead : nullptr);
  const auto metrics = as_map(two.step(prompts));

  // `policy` now is where the second epoch's gradient was taken.
  const auto check = [&](const Model<Cpu>& model, const AdamW<Cpu>& optimizer) {
    const auto gradient = optimizer.m().to_vector();
    const float* flat = model.parameters().flat().data();
    for (const auto& entry : model.parameters().entries()) {
      CAPTURE(entry.name);
      const auto from = gradient.begin() + (entry.tensor.data() - flat);
      const std::vector<float> part(from, from + entry.tensor.size());
      // A token at the edge of a clip within a step has no one slope, and a small step is noisy: an
      // error must show at both.
      const auto error = [&](float step) {
        return gradient_error(
            entry.tensor, part,
            [&] { return objective(policy, critic ? &*critic : nullptr, two.episodes(), config); },
            step, sanitized() ? 1 : 2, 0.02);
      };
      CHECK(std::min(error(1e-3F), error(5e-4F)) < 8e-3);
    }
  };
  check(policy, two.optimizer());
  if (critic) check(*critic, *two.value_optimizer());
  return metrics;
}

}  // namespace

TEST_CASE("the trainer's gradients are those of the objective, for every clip") {
  PpoConfig config = small_config();
  config.optimizer.lr = 0.01F;
  config.value_lr = 0.01F;
  config.entropy_coef = 0.5F;
  config.value_coef = 0.5F;
  const PpoClip clips[] = {{},
                           {.low = 0.1F, .high = 0.3F},
                           {.dual = 1.2F},
                           {.low = 10, .high = 10, .log_ratio_limit = 0.3F}};
  for (const PpoClip& clip : clips) {
    config.clip = clip;
    const auto metrics = check_objective(tiny_llama(), config, false);
    // Ratios had left 1 for many tokens; else this would test no clip.
    CHECK(metrics.at("val/ratio_var") > 0.01);
    if (clip.low < 1) CHECK(metrics.at("policy/clipfrac_avg") > 0.05);
  }
}

TEST_CASE("the trainer's gradients, of a vocabulary whose logits are not kept") {
  if (sanitized()) return;  // a minute; test_ops.cpp has the op
  PpoConfig config = small_config();
  config.optimizer.lr = 0.01F;
  config.entropy_coef = 0.1F;
  TransformerConfig large = tiny_llama();
  large.vocab = 300000;
  large.layers = 1;
  check_objective(large, config, false);
}

TEST_CASE(
    "the same with GPT-2, a separate value model of another shape, and the score after the end") {
  PpoConfig config = small_config();
  config.optimizer.lr = 0.01F;
  config.value_lr = 0.01F;
  config.value_coef = 0.3F;
  config.score_position = ScorePosition::AfterEnd;
  config.kl = KlEstimator::K3;
  config.whiten_rewards = Whitening::Population;
  config.whiten_advantages = Whitening::Unbiased;
  const auto metrics = check_objective(tiny_gpt2(), config, true);
  CHECK(metrics.at("val/clipfrac_avg") > 0.0);
  config.value_clip = 0;
  check_objective(tiny_gpt2(), config, true);
}

TEST_CASE("learning rate 0: every ratio is exactly 1 in every minibatch of every epoch") {
  for (const auto& transformer : {tiny_llama(), tiny_gpt2()})
    for (const Index micro : {0, 1, 40}) {
      auto policy = tiny_model(transformer, 7, ScalarHead::Value);
      const auto reference = tiny_model(transformer, 8);
      PpoConfig config = small_config();
      config.optimizer.lr = 0;
      config.epochs = 4;
      config.minibatches = 3;
      config.micro_tokens = micro;
      PpoTrainer<Cpu> trainer(policy, reference, even_share, config);
      const auto before = policy.parameters().flat().to_vector();
      for (int iteration = 0; iteration < 2; ++iteration) {
        const auto m = as_map(trainer.step(some_prompts(7, transformer.vocab)));
        CHECK(m.at("policy/approxkl_avg") == 0.0);
        CHECK(m.at("policy/approxkl_k3_avg") == 0.0);
        CHECK(m.at("policy/clipfrac_avg") == 0.0);
        CHECK(m.at("val/ratio") == 1.0);
        CHECK(m.at("val/ratio_var") == 0.0);
        CHECK(m.at("val/ratio_first_minibatch") == 1.0);
        CHECK(m.at("val/ratio_first_minibatch_max_deviation") == 0.0);
      }
      CHECK(same_bits(before, policy.parameters().flat().to_vector()));
    }
}

TEST_CASE("accumulation changes nothing: a minibatch in runs of so many tokens") {
  for (const auto& transformer : {tiny_llama(), tiny_gpt2()}) {
    std::vector<float> whole;
    std::map<std::string, double> metrics;
    for (const Index micro : {0, 200, 60, 1, 25}) {
      CAPTURE(micro);
      auto policy = tiny_model(transformer, 7, ScalarHead::Value);
      const auto reference = tiny_model(transformer, 8);
      PpoConfig config = small_config();
      config.optimizer.lr = 0;
      config.entropy_coef = 0.05F;
      config.micro_tokens = micro;
      PpoTrainer<Cpu> trainer(policy, reference, even_share, config);
      const auto m = as_map(trainer.step(some_prompts(8, transformer.vocab)));
      const auto gradient = trainer.optimizer().m().to_vector();
      if (whole.empty()) {
        whole = gradient;
        metrics = m;
        // Responses of unlike lengths, or a mean per micro-batch would pass.
        std::size_t shortest = 99, longest = 0;
        for (const Episode& e : trainer.episodes()) {
          shortest = std::min(shortest, e.response.size());
          longest = std::max(longest, e.response.size());
        }
        CHECK(longest > 2 * shortest);
      }
      float most = 0, worst = 0;
      for (std::size_t i = 0; i < whole.size(); ++i) {
        most = std::max(most, std::abs(whole[i]));
        worst = std::max(worst, std::abs(whole[i] - gradient[i]));
      }
      CHECK(worst <= 1e-6F * most);
      for (const char* key :
           {"loss/policy_avg", "loss/value_avg", "policy/entropy_avg", "grad_norm"})
        CHECK(m.at(key) == doctest::Approx(metrics.at(key)).epsilon(1e-6));
    }
  }
}

TEST_CASE("metrics bear TRL's names, and say what they mean") {
  auto policy = tiny_model(tiny_llama(), 7, ScalarHead::Value);
  const auto reference = tiny_model(tiny_llama(), 8);
  PpoConfig config = small_config();
  config.epochs = 3;
  config.minibatches = 2;
  config.optimizer.lr = 1e-3F;
  PpoTrainer<Cpu> trainer(policy, reference, even_share, config);
  const auto prompts = some_prompts(6, 19);
  const auto m = as_map(trainer.step(prompts));
  for (const char* key : {"objective/kl",
                          "objective/kl_k3",
                          "objective/kl_exact",
                          "objective/entropy",
                          "objective/non_score_reward",
                          "objective/scores",
                          "objective/rlhf_reward",
                          "objective/kl_coef",
                          "policy/approxkl_avg",
                          "policy/clipfrac_avg",
                          "policy/entropy_avg",
                          "loss/policy_avg",
                          "loss/value_avg",
                          "val/clipfrac_avg",
                          "val/ratio",
                          "val/ratio_var",
                          "val/num_eos_tokens",
                          "val/explained_variance",
                          "lr",
                          "episode",
                          "epochs",
                          "time/sample",
                          "time/evaluate",
                          "time/update"}) {
    CAPTURE(key);
    REQUIRE(m.count(key) == 1);
    CHECK(std::isfinite(m.at(key)));
  }
  CHECK(m.at("val/ratio_first_minibatch") == 1.0);
  CHECK(m.at("episode") == 12);
  CHECK(m.at("epochs") == 3);

  double kl = 0, exact = 0, score = 0, entropy = 0, penalty = 0, finished = 0, length = 0;
  for (const Episode& e : trainer.episodes()) {
    for (std::size_t t = 0; t < e.response.size(); ++t) {
      kl += (double{e.logprobs[t]} - e.ref_logprobs[t]) / 12;
      exact += double{e.kl_exact[t]} / 12;
      entropy -= double{e.logprobs[t]} / 12;
    }
    score += double{e.score} / 12;
    finished += e.finished ? 1 : 0;
    length += static_cast<double>(e.response.size()) / 12;
  }
  penalty = -0.1 * kl;
  CHECK(m.at("objective/kl") == doctest::Approx(kl));
  CHECK(m.at("objective/kl_exact") == doctest::Approx(exact));
  CHECK(m.at("objective/kl_exact") > 0);
  CHECK(m.at("objective/entropy") == doctest::Approx(entropy));
  CHECK(m.at("objective/scores") == doctest::Approx(score));
  CHECK(m.at("objective/non_score_reward") == doctest::Approx(penalty));
  CHECK(m.at("objective/rlhf_reward") == doctest::Approx(score + penalty));
  CHECK(m.at("val/num_eos_tokens") == finished);
  CHECK(m.at("response/length") == doctest::Approx(length));
}

TEST_CASE("reference log-probs, exact KL and values are those of the models") {
  auto policy = tiny_model(tiny_llama(), 7, ScalarHead::Value);
  const auto sampler = policy.clone();
  const auto reference = tiny_model(tiny_llama(), 8);
  PpoConfig config = small_config();
  PpoTrainer<Cpu> trainer(policy, reference, even_share, config);
  trainer.step(some_prompts(6, 19));
  for (const Episode& e : trainer.episodes()) {
    PackedBatch packed;
    Tokens sequence = e.prompt;
    sequence.insert(sequence.end(), e.response.begin(), e.response.end());
    packed.add(sequence);
    const auto batch = Batch<Cpu>::from(packed);
    const auto log_softmax = [&](const Model<Cpu>& model, Index row) {
      const auto h = model.transformer()(batch);
      std::vector<double> z;
      for (const float x : linear(h.rows(row, row + 1), model.transformer().head()).to_vector())
        z.push_back(double{x} / 0.8F);
      double sum = 0;
      for (const double x : z) sum += std::exp(x);
      for (double& x : z) x -= std::log(sum);
      return z;
    };
    const auto values = sampler.scalar(sampler.transformer()(batch)).to_vector();
    for (std::size_t t = 0; t < e.response.size(); ++t) {
      const std::size_t row = e.prompt.size() + t - 1;
      const auto p = log_softmax(sampler, static_cast<Index>(row)),
                 q = log_softmax(reference, static_cast<Index>(row));
      const auto token = static_cast<std::size_t>(e.response[t]);
      double kl = 0;
      for (std::size_t v = 0; v < p.size(); ++v) kl += std::exp(p[v]) * (p[v] - q[v]);
      CHECK(std::abs(e.logprobs[t] - p[token]) < 1e-5);
      CHECK(std::abs(e.ref_logprobs[t] - q[token]) < 1e-5);
      CHECK(std::abs(e.kl_exact[t] - kl) < 1e-5);
      CHECK(e.values[t] == values[row]);
    }
  }
}

namespace {

/// One iteration that changes nothing, with a rule as score; its episodes.
std::vector<Episode> episodes_of(const PpoConfig& config, const ScoreFunction& score = even_share) {
  auto policy = tiny_model(tiny_llama(), 7, ScalarHead::Value);
  const auto reference = tiny_model(tiny_llama(), 8);
  PpoConfig still = config;
  still.optimizer.lr = 0;
  PpoTrainer<Cpu> trainer(policy, reference, score, still);
  trainer.step(some_prompts(8, 19));
  return trainer.episodes();
}

}  // namespace

TEST_CASE("a response that did not end: its score is lowered or replaced") {
  PpoConfig config = small_config();
  const auto plain = episodes_of(config);
  config.missing_eos_penalty = 1.5F;
  const auto less = episodes_of(config);
  config.missing_eos = MissingEos::Replace;
  const auto replaced = episodes_of(config);
  config.missing_eos_penalty = 0;
  config.score_clip = 0.5F;
  const auto clipped = episodes_of(config);
  bool finished = false, cut = false;
  for (std::size_t i = 0; i < plain.size(); ++i) {
    (plain[i].finished ? finished : cut) = true;
    CHECK(less[i].score == plain[i].score - (plain[i].finished ? 0.0F : 1.5F));
    CHECK(replaced[i].score == (plain[i].finished ? plain[i].score : -1.5F));
    CHECK(clipped[i].score == std::clamp(plain[i].score, -0.5F, 0.5F));
  }
  CHECK(finished);
  CHECK(cut);
}

TEST_CASE("rewards: the KL penalty of every token, and the score where it is asked for") {
  PpoConfig config = small_config();
  for (const auto position : {ScorePosition::LastToken, ScorePosition::AfterEnd})
    for (const auto kl : {KlEstimator::K1, KlEstimator::K2, KlEstimator::K3}) {
      config.score_position = position;
      config.kl = kl;
      for (const Episode& e : episodes_of(config)) {
        const std::size_t n = e.response.size();
        const bool after = position == ScorePosition::AfterEnd && n < 10;
        REQUIRE(e.rewards.size() == n + (after ? 1 : 0));
        CHECK(e.values.size() == e.rewards.size());
        CHECK(e.returns.size() == e.rewards.size());
        CHECK(e.advantages.size() == n);
        for (std::size_t t = 0; t < e.rewards.size(); ++t) {
          const float penalty =
              t < n ? -0.1F * kl_estimate(kl, e.logprobs[t], e.ref_logprobs[t]) : 0.0F;
          CHECK(e.rewards[t] == penalty + (t + 1 == e.rewards.size() ? e.score : 0.0F));
        }
      }
    }
}

TEST_CASE("the score after the end gives the advantages of TRL's padded arrays") {
  PpoConfig config = small_config();
  config.score_position = ScorePosition::AfterEnd;
  config.gamma = 0.9F;
  config.lambda = 0.8F;
  config.whiten_advantages = Whitening::None;
  const auto episodes = episodes_of(config);
  const std::size_t columns = 10;  // max_new_tokens: TRL pads all responses to it
  bool shorter = false, full = false;
  for (const Episode& e : episodes) {
    // ppo_trainer.py: sequence_length is the index of the last token kept, p1 the one after it;
    // values beyond p1 are masked to 0, log-probs beyond the sequence equal their reference's.
    const std::size_t sequence_length = e.response.size() - 1, p1 = sequence_length + 1;
    std::vector<double> values(columns), rewards(columns);
    for (std::size_t t = 0; t < columns && t <= p1; ++t) values[t] = e.values[t];
    for (std::size_t t = 0; t <= sequence_length; ++t)
      rewards[t] = -0.1 * (double{e.logprobs[t]} - e.ref_logprobs[t]);
    rewards[p1 < columns ? p1 : sequence_length] += double{e.score};
    (p1 < columns ? shorter : full) = true;
    double last = 0;
    std::vector<double> advantages(columns);
    for (std::size_t t = columns; t-- > 0;) {
      const double next = t + 1 < columns ? values[t + 1] : 0.0;
      last = rewards[t] + double{0.9F} * next - values[t] + double{0.9F} * double{0.8F} * last;
      advantages[t] = last;
    }
    for (std::size_t t = 0; t <= sequence_length; ++t) {
      CHECK(e.advantages[t] == doctest::Approx(advantages[t]).epsilon(1e-5));
      CHECK(e.returns[t] == doctest::Approx(advantages[t] + values[t]).epsilon(1e-5));
    }
  }
  CHECK(shorter);
  CHECK(full);
}

TEST_CASE("whitening spans the tokens of all episodes") {
  PpoConfig config = small_config();
  for (const auto kind : {Whitening::Population, Whitening::Unbiased}) {
    config.whiten_advantages = kind;
    double sum = 0, square = 0, n = 0;
    for (const Episode& e : episodes_of(config))
      for (const float a : e.advantages) {
        sum += double{a};
        square += double{a} * double{a};
        n += 1;
      }
    CHECK(std::abs(sum / n) < 1e-6);
    CHECK(square / (kind == Whitening::Unbiased ? n - 1 : n) == doctest::Approx(1).epsilon(1e-5));
  }
}

TEST_CASE("the KL coefficient adapts after each iteration") {
  auto policy = tiny_model(tiny_llama(), 7, ScalarHead::Value);
  const auto reference = tiny_model(tiny_llama(), 8);
  PpoConfig config = small_config();
  config.kl_target = 0.01F;  // far below what these two are apart
  config.kl_horizon = 100;
  PpoTrainer<Cpu> trainer(policy, reference, even_share, config);
  CHECK(as_map(trainer.step(some_prompts(6, 19))).at("objective/kl_coef") == doctest::Approx(0.1));
  CHECK(as_map(trainer.step(some_prompts(6, 19))).at("objective/kl_coef") ==
        doctest::Approx(0.1 * (1 + 0.2 * 12 / 100)));
}

TEST_CASE("an epoch whose approx_kl exceeds the target is the last") {
  PpoConfig config = small_config();
  config.epochs = 6;
  config.minibatches = 2;
  config.optimizer.lr = 0.02F;
  const auto epochs = [&](float target) {
    config.target_kl = target;
    auto policy = tiny_model(tiny_llama(), 7, ScalarHead::Value);
    const auto reference = tiny_model(tiny_llama(), 8);
    PpoTrainer<Cpu> trainer(policy, reference, even_share, config);
    const auto m = as_map(trainer.step(some_prompts(6, 19)));
    CHECK(trainer.optimizer().steps() == static_cast<Index>(2 * m.at("epochs")));
    return m.at("epochs");
  };
  CHECK(epochs(0) == 6);
  CHECK(epochs(1e-6F) == 1);
  CHECK(epochs(1e6F) == 6);
}

TEST_CASE("learning rates fall linearly over the iterations") {
  PpoConfig config = small_config();
  config.linear_lr = true;
  config.iterations = 4;
  config.optimizer.lr = 8e-4F;
  auto policy = tiny_model(tiny_llama(), 7, ScalarHead::Value);
  const auto reference = tiny_model(tiny_llama(), 8);
  PpoTrainer<Cpu> trainer(policy, reference, even_share, config);
  for (const double expected : {8e-4, 6e-4, 4e-4, 2e-4, 0.0})
    CHECK(as_map(trainer.step(some_prompts(3, 19))).at("lr") == doctest::Approx(expected));
}

TEST_CASE("the exact KL, where it is computed less often, changes nothing but what is reported") {
  for (const bool separate : {false, true}) {
    const auto run = [&](Index every, Index* exact) {
      auto policy =
          tiny_model(tiny_llama(), 7, separate ? ScalarHead::None : ScalarHead::Value, 0.1F);
      auto critic = tiny_model(tiny_llama(), 9, ScalarHead::Value, 0.1F);
      const auto reference = policy.clone(ScalarHead::None);
      PpoConfig config = small_config();
      config.kl_every = every;
      config.optimizer.lr = 1e-3F;
      PpoTrainer<Cpu> trainer(policy, reference, even_share, config, separate ? &critic : nullptr);
      for (int i = 0; i < 5; ++i) {
        const auto m = as_map(trainer.step(some_prompts(4, 19)));
        *exact += m.count("objective/kl_exact") == 1 && m.count("objective/kl_gap_z") == 1 ? 1 : 0;
        CHECK(m.count("objective/kl") == 1);
      }
      return policy.parameters().flat().to_vector();
    };
    Index always = 0, sometimes = 0, never = 0;
    const auto weights = run(1, &always);
    CHECK(same_bits(run(2, &sometimes), weights));
    CHECK(same_bits(run(0, &never), weights));
    CHECK(always == 5);
    CHECK(sometimes == 3);
    CHECK(never == 0);
  }
}

TEST_CASE("rollouts from another distribution are refused, unless asked for by name") {
  auto policy = tiny_model(tiny_llama(), 7, ScalarHead::Value);
  const auto reference = tiny_model(tiny_llama(), 8);
  const auto error = [&](const PpoConfig& config) {
    return message_of<DataError>([&] { PpoTrainer<Cpu>(policy, reference, even_share, config); });
  };
  for (const SamplingSettings settings :
       {SamplingSettings{.top_k = 5}, SamplingSettings{.top_p = 0.9F},
        SamplingSettings{.min_p = 0.1F}}) {
    PpoConfig config = small_config();
    config.sampling.sampling = settings;
    CHECK(contains(error(config), "[ppo] top-k, top-p and min-p"));
    CHECK(contains(error(config), "allow_off_policy"));
  }
  PpoConfig config = small_config();
  config.allow_off_policy = true;
  config.sampling.sampling.temperature = 0;  // nothing can be trained on that
  CHECK(contains(error(config), "[ppo] temperature must be above 0"));
  config = small_config();
  config.sampling.kv_cache = CacheType::Bf16;
  CHECK(contains(error(config), "[ppo] with a cache of bf16"));
  config = small_config();
  config.sampling.sampling.top_k = 5;
  config.allow_off_policy = true;
  PpoTrainer<Cpu> trainer(policy, reference, even_share, config);
  CHECK(as_map(trainer.step(some_prompts(3, 19))).at("val/ratio_first_minibatch") == 1.0);
}

TEST_CASE("what is wrong with a run is said before or instead of training on it") {
  auto policy = tiny_model(tiny_llama(), 7, ScalarHead::Value);
  const auto reference = tiny_model(tiny_llama(), 8);
  const auto prompts = some_prompts(3, 19);
  const PpoConfig config = small_config();
  auto headless = tiny_model(tiny_llama(), 7);
  CHECK(contains(message_of([&] { PpoTrainer<Cpu>(headless, reference, even_share, config); }),
                 "scalar head"));
  {
    PpoTrainer<Cpu> trainer(policy, reference, even_share, config);
    CHECK(contains(message_of<DataError>([&] { trainer.step({}); }), "no prompts"));
  }
  const auto before = policy.parameters().flat().to_vector();
  {
    const auto nan_score = [](const std::vector<Episode>& episodes) {
      std::vector<float> scores(episodes.size());
      scores[1] = std::numeric_limits<float>::quiet_NaN();
      return scores;
    };
    PpoTrainer<Cpu> trainer(policy, reference, nan_score, config);
    CHECK(contains(message_of<NumericError>([&] { trainer.step(prompts); }),
                   "[ppo] iteration 0, the score of episode 1 is nan"));
  }
  {
    const auto too_few = [](const std::vector<Episode>&) { return std::vector<float>(1); };
    PpoTrainer<Cpu> trainer(policy, reference, too_few, config);
    CHECK(contains(message_of<ShapeError>([&] { trainer.step(prompts); }),
                   "1 scores for 6 episodes"));
  }
  CHECK(same_bits(before, policy.parameters().flat().to_vector()));
  {
    auto broken = policy.clone();
    broken.parameters()["scalar_head"].data()[3] = std::numeric_limits<float>::quiet_NaN();
    const auto weights = broken.parameters().flat().to_vector();
    PpoTrainer<Cpu> trainer(broken, reference, even_share, config);
    const auto text = message_of<NumericError>([&] { trainer.step(prompts); });
    CAPTURE(text);
    CHECK(contains(text, "[ppo] iteration 0, evaluation: [linear] element"));
    CHECK(same_bits(weights, broken.parameters().flat().to_vector()));
  }
  {
    const auto broken = reference.clone();
    broken.parameters()["blocks.1.norm2"].data()[3] = std::numeric_limits<float>::infinity();
    PpoTrainer<Cpu> trainer(policy, broken, even_share, config);
    CHECK(contains(message_of<NumericError>([&] { trainer.step(prompts); }),
                   "[ppo] iteration 0, evaluation: [rms_norm] element"));
  }
  {
    auto leaps = policy.clone();
    PpoConfig wild = config;
    wild.minibatches = 2;
    wild.optimizer.lr = 1e38F;
    PpoTrainer<Cpu> trainer(leaps, reference, even_share, wild);
    const auto text = message_of<NumericError>([&] { trainer.step(prompts); });
    CAPTURE(text);
    CHECK(contains(text, "[ppo] iteration 0, epoch 0, minibatch 1: ["));
  }
}

// One prompt token, one response token: a table. With reward r and penalty β the best policy is
// π* ∝ π_ref · e^(r/β), and its objective E r − β·KL is β·log Z, Z = Σ π_ref · e^(r/β).
TEST_CASE("the tabular bandit: PPO reaches the known solution") {
  const TransformerConfig table{.family = Family::Gpt2,
                                .vocab = 8,
                                .context = 2,
                                .channels = 16,
                                .layers = 1,
                                .heads = 2,
                                .kv_heads = 2,
                                .hidden = 32};
  const float beta = 0.5F;
  const double r[] = {0.0, 1.0, -0.5, 0.3, 0.8, -1.0, 0.5, 0.1};
  const auto score = [&](const std::vector<Episode>& episodes) {
    std::vector<float> scores;
    for (const Episode& e : episodes)
      scores.push_back(static_cast<float>(r[static_cast<std::size_t>(e.response[0])]));
    return scores;
  };
  const auto reference = tiny_model(table, 3);
  const auto distribution = [&](const Model<Cpu>& model) {
    PackedBatch packed;
    for (std::int32_t a = 0; a < 8; ++a) packed.add(Tokens{0});
    const auto h = model.transformer()(Batch<Cpu>::from(packed));
    std::vector<double> p;
    for (const float x : head_logprob(h, model.transformer().head(), ids({0, 1, 2, 3, 4, 5, 6, 7}))
                             .logprob.to_vector())
      p.push_back(std::exp(double{x}));
    return p;
  };
  const auto ref = distribution(reference);
  double z = 0;
  for (std::size_t a = 0; a < 8; ++a) z += ref[a] * std::exp(r[a] / beta);

  for (const auto whitening : {Whitening::None, Whitening::Population}) {
    auto policy = reference.clone(ScalarHead::Value);
    PpoConfig config;
    config.iterations = sanitized() ? 100 : 150;
    config.epochs = 4;
    config.minibatches = 4;
    config.sampling.max_new_tokens = 1;
    config.sampling.responses = 256;
    config.sampling.slots = 256;
    config.beta = beta;
    config.whiten_advantages = whitening;
    config.optimizer.lr = 1e-2F;
    PpoTrainer<Cpu> trainer(policy, reference, score, config);
    for (Index i = 0; i < config.iterations; ++i) trainer.step({{0}});

    const auto p = distribution(policy);
    double j = 0, variation = 0;
    for (std::size_t a = 0; a < 8; ++a) {
      j += p[a] * (r[a] - double{beta} * std::log(p[a] / ref[a]));
      variation += 0.5 * std::abs(p[a] - ref[a] * std::exp(r[a] / beta) / z);
    }
    MESSAGE("J ", j, " of ", beta * std::log(z), ", total variation ", variation);
    CHECK(j > double{beta} * std::log(z) - 0.01);
    CHECK(variation < 0.03);
    // The start was far away: this was learned.
    double start = 0;
    for (std::size_t a = 0; a < 8; ++a)
      start += 0.5 * std::abs(ref[a] - ref[a] * std::exp(r[a] / beta) / z);
    CHECK(start > 0.2);
  }
}
