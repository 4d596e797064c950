// The engine on the device: the same ops, models and trainers with one type changed. In the exact
// mode whole trainings end with the CPU's weights, bit for bit; the fast modes stay near them.
#include <plumb/cuda/kernels.cuh>
#include <plumb/plumb.hpp>

#include <doctest/doctest.h>

#include <map>
#include <optional>

#include "tiny.hpp"

using namespace plumb;
using namespace test;

namespace {

template <class D, class From>
Model<D> on_device(const Model<From>& model) {
  Model<D> copy(model.config(), 1, model.head_kind());
  const auto values = model.parameters().flat().to_vector();
  copy_from_host(D{}, copy.parameters().flat().data(), values.data(),
                 copy.parameters().flat().bytes());
  return copy;
}

template <class D>
std::vector<float> weights(const Model<D>& model) {
  return model.parameters().flat().to_vector();
}

PpoConfig small_config() {
  PpoConfig config;
  config.epochs = 1;
  config.minibatches = 2;
  config.sampling.max_new_tokens = 8;
  config.sampling.responses = 2;
  config.sampling.slots = 3;
  config.sampling.stops = {2, 5};
  config.sampling.sampling.temperature = 0.8F;
  config.sampling.seed = 5;
  config.entropy_coef = 0.01F;
  config.optimizer.lr = 1e-2F;
  config.optimizer.weight_decay = 0.01F;
  config.linear_lr = false;
  return config;
}

struct PpoRun {
  std::vector<float> policy, value;
  std::vector<std::map<std::string, double>> metrics;
};

/// Iterations of PPO on a copy of `policy`, with a value model of its own or the policy's head.
template <class D>
PpoRun run_ppo(const Model<Cpu>& start, const Model<Cpu>* critic, int iterations) {
  auto policy = on_device<D>(start);
  const auto reference = policy.clone(ScalarHead::None);
  std::optional<Model<D>> value;
  if (critic != nullptr) value.emplace(on_device<D>(*critic));
  PpoTrainer<D> trainer(policy, reference, even_share, small_config(), value ? &*value : nullptr);
  PpoRun run;
  for (int i = 0; i < iterations; ++i) {
    const auto metrics = trainer.step(some_prompts(2, start.config().vocab));
    run.metrics.emplace_back(metrics.begin(), metrics.end());
  }
  run.policy = weights(policy);
  if (value) run.value = weights(*value);
  return run;
}

void check_same_run(const PpoRun& a, const PpoRun& b) {
  CHECK(same_bits(a.policy, b.policy));
  CHECK(same_bits(a.value, b.value));
  REQUIRE(a.metrics.size() == b.metrics.size());
  for (std::size_t i = 0; i < a.metrics.size(); ++i)
    for (const auto& metric : a.metrics[i])
      if (!metric.first.starts_with("time/"))
        CHECK_MESSAGE(metric.second == b.metrics[i].at(metric.first), metric.first);
}

/// A training forward: log-probs and entropies of the given tokens under a model.
template <class D>
std::vector<float> logprobs(const Model<D>& model, const PackedBatch& packed) {
  const auto batch = Batch<D>::from(packed);
  const auto out = head_logprob(model.transformer()(batch), model.transformer().head(),
                                batch.tokens, 0.9F, true);
  auto all = out.logprob.to_vector();
  const auto entropy = out.entropy.to_vector();
  all.insert(all.end(), entropy.begin(), entropy.end());
  return all;
}

}  // namespace

TEST_CASE("adapters beside a frozen trunk: iterations of PPO end with the CPU's adapters") {
  const auto start = tiny_model(tiny_llama(), 7);
  const LoraConfig lora{.rank = 3, .alpha = 6.0F};
  for (const Storage storage : {Storage::Float, Storage::Bf16, Storage::Int8}) {
    const auto run = [&]<class D>(D, const Model<D>& full) {
      const auto frozen = full.frozen(storage);
      auto policy = frozen.adapted(lora, ScalarHead::Value, 5);
      PpoTrainer<D> trainer(policy, frozen, even_share, small_config());
      PpoRun result;
      for (int i = 0; i < 2; ++i) {
        const auto metrics = trainer.step(some_prompts(2, full.vocab()));
        result.metrics.emplace_back(metrics.begin(), metrics.end());
      }
      result.policy = weights(policy);
      result.value = weights(policy.merged());
      return result;
    };
    check_same_run(run(Cpu{}, start), run(Cuda{}, on_device<Cuda>(start)));
  }
}

TEST_CASE(
    "five iterations of PPO end with the CPU's weights: Llama, a value model of another family") {
  const auto policy = tiny_model(tiny_llama(), 7);
  auto config = tiny_gpt2();
  config.vocab = tiny_llama().vocab;
  config.layers = 1;
  const auto critic = tiny_model(config, 8, ScalarHead::Value, 0.1F);
  const auto cpu = run_ppo<Cpu>(policy, &critic, 5);
  check_same_run(cpu, run_ppo<Cuda>(policy, &critic, 5));
  CHECK_FALSE(same_bits(cpu.policy, weights(policy)));
  for (const auto& metrics : cpu.metrics) {
    CHECK(metrics.at("val/ratio_first_minibatch") == 1.0);
    CHECK(metrics.at("val/ratio_first_minibatch_max_deviation") == 0.0);
  }
}

TEST_CASE("two iterations of PPO end with the CPU's weights: GPT-2, the value head on the policy") {
  const auto policy = tiny_model(tiny_gpt2(), 9, ScalarHead::Value, 0.2F);
  check_same_run(run_ppo<Cpu>(policy, nullptr, 2), run_ppo<Cuda>(policy, nullptr, 2));
}

TEST_CASE("in bf16 three iterations of PPO end with the CPU's weights, and the first ratio is 1") {
  const auto policy = tiny_model(tiny_llama(), 7, ScalarHead::Value, 0.2F);
  const auto cpu = run_ppo<CpuBf16>(policy, nullptr, 3);
  check_same_run(cpu, run_ppo<CudaBf16>(policy, nullptr, 3));
  CHECK_FALSE(same_bits(cpu.policy, run_ppo<Cpu>(policy, nullptr, 3).policy));
  for (const auto& metrics : cpu.metrics)
    CHECK(metrics.at("val/ratio_first_minibatch_max_deviation") == 0.0);
}

TEST_CASE("fine-tuning and a reward model's training end with the CPU's weights and features") {
  const auto train = []<class D>(D, const Model<Cpu>& start) {
    auto model = on_device<D>(start);
    std::vector<Example> examples;
    for (std::uint64_t i = 0; i < 4; ++i)
      examples.push_back({random_tokens(20, 19, i / 2), random_tokens(5, 19, 50 + i)});
    sft_train(model, examples, SftConfig{.epochs = 2, .batch = 2});
    std::vector<RankedPrompt> rankings(3);
    for (std::size_t p = 0; p < rankings.size(); ++p)
      for (std::uint64_t i = 0; i < 3; ++i) {
        // One prompt, so that its responses share it; of the second, responses share a token more.
        Tokens sequence = random_tokens(p == 2 ? 2 : 33, 19, 80 + p);
        const Tokens own = random_tokens(4 + static_cast<Index>(i), 19, 90 + 3 * p + i);
        if (p == 1) sequence.push_back(3);
        sequence.insert(sequence.end(), own.begin(), own.end());
        rankings[p].sequences.push_back(sequence);
        rankings[p].rank.push_back(static_cast<std::int32_t>(i));
        rankings[p].lengths.push_back(4 + static_cast<Index>(i));
        rankings[p].begins.push_back(2);
      }
    reward_train(model, rankings, RewardConfig{.epochs = 2, .batch = 2});
    auto result = weights(model);
    const auto scores = reward_scores(model, rankings[0].sequences);
    result.insert(result.end(), scores.begin(), scores.end());
    const auto features = response_features(model, answered(rankings), {0, 2});
    result.insert(result.end(), features.values.begin(), features.values.end());
    return result;
  };
  auto gpt2 = tiny_gpt2();
  gpt2.vocab = 19;
  for (const auto& config : {tiny_llama(), gpt2}) {
    const auto start = tiny_model(config, 3, ScalarHead::Reward, 0.1F);
    CHECK(same_bits(train(Cpu{}, start), train(Cuda{}, start)));
  }
}

TEST_CASE("the fast modes stay near the exact one, and sampled log-probs are still training's") {
  const auto model = tiny_model(tiny_llama(), 7);
  PackedBatch packed;
  for (std::uint64_t i = 0; i < 3; ++i)
    packed.add(random_tokens(5 + static_cast<Index>(7 * i), 19, i));
  const auto exact = logprobs(on_device<Cuda>(model), packed);
  CHECK(same_bits(exact, logprobs(model, packed)));
  const std::vector<double> wide(exact.begin(), exact.end());
  // Two layers of products with operands rounded to 8 or 11 bits.
  CHECK(max_error(logprobs(on_device<CudaTensorCore>(model), packed), wide) < 0.15);
  CHECK(max_error(logprobs(on_device<CudaTf32>(model), packed), wide) < 0.02);
  CHECK(max_error(logprobs(on_device<CudaTensorCore>(model), packed), wide) > 1e-5);
  const auto policy = tiny_model(tiny_llama(), 7, ScalarHead::Value);
  for (const auto& run :
       {run_ppo<CudaTensorCore>(policy, nullptr, 1), run_ppo<CudaTf32>(policy, nullptr, 1)})
    CHECK(run.metrics[0].at("val/ratio_first_minibatch_max_deviation") == 0.0);
}

TEST_CASE("generation in bf16 has the CPU's tokens and log-probs") {
  const auto model = tiny_model(tiny_llama(), 7);
  const auto draw = [](const auto& of) {
    SampleOptions options;
    options.responses = 2;
    options.max_new_tokens = 6;
    options.seed = 3;
    options.sampling.top_k = 7;
    std::vector<float> all;
    for (const Response& r : sample(of, some_prompts(2, 19), options)) {
      all.insert(all.end(), r.tokens.begin(), r.tokens.end());
      all.insert(all.end(), r.logprobs.begin(), r.logprobs.end());
    }
    return all;
  };
  CHECK(same_bits(draw(on_device<CpuBf16>(model)), draw(on_device<CudaBf16>(model))));
}

TEST_CASE("after its first iterations PPO asks the system for no device memory") {
  if (kernels::detail::DevicePool::instance().exact()) {
    MESSAGE("skipped: with exact memory each tensor asks for its own");
    return;
  }
  const auto start = tiny_model(tiny_llama(), 7, ScalarHead::Value);
  auto policy = on_device<Cuda>(start);
  const auto reference = policy.clone(ScalarHead::None);
  auto config = small_config();
  config.optimizer.lr = 0;  // the same responses and so the same sizes each time
  config.sampling.sampling.temperature = 1.0F;
  PpoTrainer<Cuda> trainer(policy, reference, even_share, config);
  config.sampling.stops = {};
  for (int i = 0; i < 2; ++i) trainer.step(some_prompts(2, 19));
  const auto before = cuda_memory_counters();
  CHECK(before.system_calls > 0);
  trainer.step(some_prompts(2, 19));
  // A length not met before may ask for a block of a new size class, but not for many.
  CHECK(cuda_memory_counters().system_calls <= before.system_calls + 4);
}
