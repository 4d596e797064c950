// Whole training runs: the same weights, bit for bit, whatever the instruction set and number of
// threads, and whether or not the run was stopped and restored; and no system allocation once warm.
#include "tiny.hpp"

#include <plumb/io/hash.hpp>

#include <doctest/doctest.h>

#include <memory>
#include <set>
#include <string_view>

using namespace plumb;
using namespace test;

namespace {

template <class D>
std::uint64_t hash_of(const Tensor<D>& x, std::uint64_t hash = 0) {
  return hash64({reinterpret_cast<const char*>(x.data()), x.bytes()}, hash);
}

/// Large enough that every kernel splits its work over threads.
TransformerConfig run_config(Family family) {
  TransformerConfig config{.family = family,
                           .vocab = 64,
                           .context = 64,
                           .channels = 32,
                           .layers = 2,
                           .heads = 4,
                           .kv_heads = family == Family::Llama ? 2 : 4,
                           .hidden = 72};
  return config;
}

std::vector<Tokens> prompts_of(Index n) {
  std::vector<Tokens> prompts;
  for (Index i = 0; i < n; ++i)
    prompts.push_back(random_tokens(2 + i % 7, 64, static_cast<std::uint64_t>(i)));
  return prompts;
}

PpoConfig ppo_config() {
  PpoConfig config;
  config.iterations = 5;
  config.epochs = 2;
  config.minibatches = 2;
  config.sampling.max_new_tokens = 16;
  config.sampling.responses = 2;
  config.sampling.stops = {3, 40};
  config.kl_target = 0.5F;
  config.kl_horizon = 100;
  config.entropy_coef = 0.01F;
  config.optimizer.lr = 3e-3F;
  config.optimizer.weight_decay = 0.01F;
  return config;
}

/// SFT, a reward model, its normalisation, PPO against it with a separate value model: the hash of
/// all weights at the end.
template <class D>
std::uint64_t whole_run(Family family) {
  Model<D> policy(run_config(family), 1);
  std::vector<Example> examples;
  for (std::uint64_t i = 0; i < 12; ++i)
    examples.push_back(
        {random_tokens(4, 64, i), random_tokens(9 + static_cast<Index>(i), 64, 50 + i)});
  sft_train(policy, examples, {.batch = 6, .optimizer = {.lr = 3e-3F, .weight_decay = 0.01F}});

  Model<D> reward = policy.clone(ScalarHead::Reward, 2);
  std::vector<RankedPrompt> rankings;
  for (std::uint64_t i = 0; i < 8; ++i) {
    RankedPrompt p;
    for (std::uint64_t k = 0; k < 3; ++k) {
      p.sequences.push_back(random_tokens(10 + static_cast<Index>(3 * k), 64, 100 + 3 * i + k));
      p.lengths.push_back(10);
      p.rank.push_back(static_cast<std::int32_t>((i + k) % 3));
    }
    rankings.push_back(std::move(p));
  }
  reward_train(reward, rankings, {.batch = 4});
  normalise_rewards(reward, rankings[0].sequences);

  const Model<D> reference = policy.clone();
  Model<D> value = reward.clone(ScalarHead::Value);
  const auto score = [&](const std::vector<Episode>& episodes) {
    return score_episodes(reward, episodes);
  };
  PpoTrainer<D> trainer(policy, reference, score, ppo_config(), &value);
  const auto prompts = prompts_of(6);
  trainer.step(prompts);
  trainer.step(prompts);
  std::uint64_t hash = hash_of(policy.parameters().flat());
  hash = hash_of(value.parameters().flat(), hash);
  hash = hash_of(trainer.optimizer().m(), hash);
  hash = hash_of(trainer.optimizer().v(), hash);
  return hash_of(reward.parameters().flat(), hash);
}

std::vector<float> long_answers(const std::vector<Episode>& episodes) {
  std::vector<float> scores;
  for (const Episode& e : episodes)
    scores.push_back(0.1F * static_cast<float>(e.response.size()) +
                     (e.response[0] % 2 == 0 ? 1.0F : 0.0F));
  return scores;
}

}  // namespace

TEST_CASE_TEMPLATE("SFT, reward model and PPO end with the same bits for every instruction set", D,
                   Cpu, CpuBf16) {
  for (const Family family : {Family::Llama, Family::Gpt2}) {
    std::set<std::uint64_t> hashes;
    for_each_isa<D>([&](Isa isa) {
      for (const int threads : {1, 2, 3}) {
        // Slow under a sanitizer, which sees the same code at one number of threads, and the scalar
        // kernels in their own tests.
        if (sanitized() && (threads != 3 || isa == Isa::Scalar)) continue;
        with_threads(threads, [&] {
          hashes.insert(whole_run<D>(family));
          CAPTURE(name(isa));
          CAPTURE(threads);
          CHECK(hashes.size() == 1);
        });
      }
    });
  }
}

TEST_CASE("the number of slots changes no bit of a run") {
  const auto run = [](Index slots) {
    Model<Cpu> policy(run_config(Family::Llama), 1, ScalarHead::Value);
    const Model<Cpu> reference = policy.clone(ScalarHead::None);
    PpoConfig config = ppo_config();
    config.sampling.slots = slots;
    PpoTrainer<Cpu> trainer(policy, reference, long_answers, config);
    trainer.step(prompts_of(6));
    trainer.step(prompts_of(6));
    return hash_of(policy.parameters().flat());
  };
  const std::uint64_t hash = run(64);
  CHECK(run(1) == hash);
  CHECK(run(5) == hash);
}

TEST_CASE_TEMPLATE("a run restored after any iteration ends with the weights of one never stopped",
                   D, Cpu, CpuBf16) {
  for (const bool separate : {false, true}) {
    struct Run {
      Model<D> policy, reference, value;
      std::unique_ptr<PpoTrainer<D>> trainer;

      explicit Run(bool separate)
          : policy(run_config(Family::Llama), 1, separate ? ScalarHead::None : ScalarHead::Value),
            reference(policy.clone(ScalarHead::None)),
            value(run_config(Family::Gpt2), 2, ScalarHead::Value),
            trainer(std::make_unique<PpoTrainer<D>>(policy, reference, long_answers, ppo_config(),
                                                    separate ? &value : nullptr)) {}
    };
    const auto prompts = prompts_of(6);
    Run whole(separate);
    for (int i = 0; i < 4; ++i) whole.trainer->step(prompts);

    for (const int stop : {1, 3}) {
      Run before(separate);
      for (int i = 0; i < stop; ++i) before.trainer->step(prompts);
      Run after(separate);
      const auto take = [](const Tensor<D>& to, const Tensor<D>& from) {
        std::copy_n(from.data(), from.size(), to.data());
      };
      take(after.policy.parameters().flat(), before.policy.parameters().flat());
      take(after.trainer->optimizer().m(), before.trainer->optimizer().m());
      take(after.trainer->optimizer().v(), before.trainer->optimizer().v());
      if (separate) {
        take(after.value.parameters().flat(), before.value.parameters().flat());
        take(after.trainer->value_optimizer()->m(), before.trainer->value_optimizer()->m());
        take(after.trainer->value_optimizer()->v(), before.trainer->value_optimizer()->v());
      }
      after.trainer->restore(before.trainer->state());
      CHECK(after.trainer->iteration() == stop);
      Metrics last;
      for (int i = stop; i < 4; ++i) last = after.trainer->step(prompts);
      CHECK(hash_of(after.policy.parameters().flat()) == hash_of(whole.policy.parameters().flat()));
      CHECK(hash_of(after.value.parameters().flat()) == hash_of(whole.value.parameters().flat()));
      CHECK(after.trainer->state().beta == whole.trainer->state().beta);
      CHECK(after.trainer->state().episodes == 48);
    }
  }
}

TEST_CASE("once warm, PPO asks the system for no memory") {
  Model<Cpu> policy(run_config(Family::Llama), 1, ScalarHead::Value);
  const Model<Cpu> reference = policy.clone(ScalarHead::None);
  PpoConfig config = ppo_config();
  config.sampling.stops = {};  // responses of one length: the same batches in every iteration
  PpoTrainer<Cpu> trainer(policy, reference, long_answers, config);
  const auto prompts = prompts_of(6);
  for (int i = 0; i < 3; ++i) trainer.step(prompts);
  const auto before = memory_counters();
  trainer.step(prompts);
  const auto after = memory_counters();
  CHECK(after.system_calls == before.system_calls);
  CHECK(after.used_bytes == before.used_bytes);  // and leaks none
}

TEST_CASE("once warm, a training step asks the system for no memory") {
  for (const Family family : {Family::Llama, Family::Gpt2}) {
    Model<Cpu> model(run_config(family), 1);
    AdamW<Cpu> optimizer(model.parameters(), {});
    const Example example{random_tokens(5, 64, 1), random_tokens(40, 64, 2)};
    const Example* const examples[] = {&example, &example};
    const auto step = [&] {
      sft_gradient(model, examples, 1.0F / 80);
      optimizer.step();
    };
    step();
    step();
    const auto before = memory_counters();
    for (int i = 0; i < 3; ++i) step();
    CHECK(memory_counters().system_calls == before.system_calls);
    CHECK(memory_counters().used_bytes == before.used_bytes);
  }
}
