// Adapters beside frozen weights: the frozen network is the one it was made of, bit for bit; so are
// sampled log-probs and training's, with adapters as without; adapters alone are trained, and
// nothing that is shared changes.
#include "tiny.hpp"

#include <doctest/doctest.h>

#include <map>
#include <memory>

using namespace plumb;
using namespace test;

namespace {

const LoraConfig kSmallLora{.rank = 3, .alpha = 6.0F, .targets = "query,value,projection,up,down"};

/// Adapters away from zero.
template <class D>
Model<D> moved_adapters(const Model<D>& frozen, LoraConfig lora = kSmallLora,
                        ScalarHead head = ScalarHead::None) {
  auto model = frozen.adapted(lora, head, 5);
  for (const auto& entry : model.parameters().entries()) {
    const auto noise = random_vector(entry.tensor.size(), 3 * entry.name.size(), 0.2F);
    for (std::size_t i = 0; i < noise.size(); ++i) entry.tensor.data()[i] += noise[i];
  }
  return model;
}

template <class D = Cpu>
Batch<D> some_batch(Index vocab) {
  PackedBatch packed;
  for (const Index n : {1, 7, 40}) packed.add(random_tokens(n, vocab, 50));
  return Batch<D>::from(packed);
}

/// Hidden states, and the gradient that a fixed loss of them leaves in the parameters.
struct Pass {
  std::vector<float> hidden, gradient;
};
template <class D>
Pass forward_and_backward(const Model<D>& model) {
  const auto batch = some_batch<D>(model.vocab());
  model.parameters().flat().zero_grad();
  Tape tape;
  const auto hidden = model.hidden(batch);
  const auto out = head_logprob(hidden, model.head(), batch.tokens);
  const std::vector<float> ones(static_cast<std::size_t>(out.logprob.size()), 1.0F);
  tape.backward(weighted_sum(out.logprob, device_vector<D>(ones)));
  return {hidden.to_vector(), model.parameters().flat().grad_tensor().to_vector()};
}

SampleOptions lora_sampling() {
  SampleOptions options;
  options.sampling.temperature = 0.8F;
  options.responses = 2;
  options.max_new_tokens = 20;
  options.stops = {2, 5};
  options.slots = 3;
  return options;
}

template <class D>
std::vector<float> episode_logprobs(const Model<D>& model, const std::vector<Tokens>& prompts,
                                    const std::vector<Response>& responses) {
  std::vector<Episode> episodes;
  for (const Response& r : responses) {
    Episode e;
    e.prompt = prompts[static_cast<std::size_t>(r.prompt)];
    e.response = r.tokens;
    episodes.push_back(std::move(e));
  }
  std::vector<const Episode*> members;
  for (const Episode& e : episodes) members.push_back(&e);
  const auto batch = EpisodeBatch<D>::from(members);
  Tape tape;
  const auto rows = embedding(model.hidden(batch.batch), batch.rows);
  const auto out = head_logprob(rows, model.head(), batch.targets, 0.8F, true);
  REQUIRE(out.logprob.requires_grad());
  return out.logprob.to_vector();
}

}  // namespace

TEST_CASE_TEMPLATE("a frozen network is the one that it was made of, and has nothing to train", D,
                   Cpu, CpuBf16) {
  for (const auto& config : {tiny_llama(), tiny_gpt2()}) {
    const auto model = tiny_model<D>(config, 7, ScalarHead::Value);
    const auto frozen = model.frozen();
    CHECK(frozen.parameters().count() == 0);
    CHECK(frozen.head_kind() == ScalarHead::None);
    const auto batch = some_batch<D>(config.vocab);
    for_each_isa<D>([&](Isa) {
      // Packed in this instruction set's order.
      CHECK(same_bits(model.frozen().hidden(batch).to_vector(), model.hidden(batch).to_vector()));
    });
    const auto prompts = some_prompts(5, config.vocab);
    const auto a = sample(model, prompts, lora_sampling());
    const auto b = sample(frozen, prompts, lora_sampling());
    REQUIRE(a.size() == b.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
      CHECK(a[i].tokens == b[i].tokens);
      CHECK(same_bits(a[i].logprobs, b[i].logprobs));
    }
    const auto again = frozen.merged();
    for (const auto& entry : again.parameters().entries()) {
      auto expected = model.parameters()[entry.name].to_vector();
      // What is multiplied in bf16 is kept rounded; the embedding is looked up, too.
      if (rounds_products<D> && contains(entry.name, "blocks.") && entry.tensor.shape().rank() == 2)
        for (float& value : expected) value = static_cast<float>(product_bf16(value));
      CHECK(same_bits(entry.tensor.to_vector(), expected));
    }
  }
}

TEST_CASE_TEMPLATE(
    "fresh adapters change nothing, bit for bit: the reference is the policy without them", D, Cpu,
    CpuBf16) {
  for (const auto& config : {tiny_llama(), tiny_gpt2()})
    for (const Storage storage : {Storage::Float, Storage::Bf16, Storage::Int8}) {
      const auto frozen = tiny_model<D>(config).frozen(storage);
      const auto policy = frozen.adapted(kSmallLora, ScalarHead::Value, 3);
      const auto batch = some_batch<D>(config.vocab);
      CHECK(same_bits(policy.hidden(batch).to_vector(), frozen.hidden(batch).to_vector()));
      // Once moved they do; and taking them off again is the frozen network itself.
      const auto moved = moved_adapters(frozen);
      CHECK(!same_bits(moved.hidden(batch).to_vector(), frozen.hidden(batch).to_vector()));
      const auto off = moved.adapted(LoraConfig{}, ScalarHead::None, 0);
      CHECK(same_bits(off.hidden(batch).to_vector(), frozen.hidden(batch).to_vector()));
    }
}

TEST_CASE("gradients of every adapter agree with central differences") {
  for (const auto& config : {tiny_llama(), tiny_gpt2()}) {
    LoraConfig lora = kSmallLora;
    lora.targets = "all";
    const auto model = moved_adapters(tiny_model(config).frozen(), lora);
    const Pass pass = forward_and_backward(model);
    const auto batch = some_batch(config.vocab);
    const auto loss = [&] {
      double sum = 0;
      for (const float logprob :
           head_logprob(model.hidden(batch), model.head(), batch.tokens).logprob.to_vector())
        sum += logprob;
      return sum;
    };
    CHECK(model.parameters().entries().size() == (config.family.gated ? 28 : 24));
    for (const auto& entry : model.parameters().entries()) {
      CAPTURE(entry.name);
      // A key's gradients are small beside the rounding of a sum of 48 log-probs.
      const double scale = contains(entry.name, "key") ? 1.0 : 0.0;
      CHECK(gradient_error(entry.tensor, grad_of(entry.tensor), loss, 1e-2F, sanitized() ? 2 : 10,
                           scale) < 4e-3);
    }
  }
}

TEST_CASE("gradients of every adapter follow from the merged matrix's: s·dW·Aᵀ and s·Bᵀ·dW") {
  for (const auto& config : {tiny_llama(), tiny_gpt2()}) {
    LoraConfig lora = kSmallLora;
    lora.targets = "all";
    const auto model = moved_adapters(tiny_model(config).frozen(), lora);
    const auto merged = model.merged();
    forward_and_backward(model);
    forward_and_backward(merged);
    for (const auto& entry : merged.parameters().entries()) {
      if (!model.parameters().contains(entry.name + ".lora_a")) continue;
      CAPTURE(entry.name);
      const auto& a = model.parameters()[entry.name + ".lora_a"];
      const auto& b = model.parameters()[entry.name + ".lora_b"];
      const auto dw = grad_of(entry.tensor), da = grad_of(a), db = grad_of(b);
      const Index out = b.dim(0), r = b.dim(1), in = a.dim(1);
      double worst = 0, most = 0;
      const auto compare = [&](double exact, float is) {
        worst = std::max(worst, std::abs(exact - static_cast<double>(is)));
        most = std::max(most, std::abs(exact));
      };
      for (Index o = 0; o < out; ++o)
        for (Index k = 0; k < r; ++k) {
          double exact = 0;
          for (Index i = 0; i < in; ++i)
            exact += 2.0 * dw[static_cast<std::size_t>(o * in + i)] * a.data()[k * in + i];
          compare(exact, db[static_cast<std::size_t>(o * r + k)]);
        }
      for (Index k = 0; k < r; ++k)
        for (Index i = 0; i < in; ++i) {
          double exact = 0;
          for (Index o = 0; o < out; ++o)
            exact += 2.0 * dw[static_cast<std::size_t>(o * in + i)] * b.data()[o * r + k];
          compare(exact, da[static_cast<std::size_t>(k * in + i)]);
        }
      CHECK(worst < 2e-5 * std::max(most, 1.0));
    }
  }
}

TEST_CASE_TEMPLATE(
    "forward and gradient have the same bits for every instruction set and thread count", D, Cpu,
    CpuBf16) {
  for (const Storage storage : {Storage::Float, Storage::Bf16, Storage::Int8}) {
    Pass first;
    for_each_isa<D>([&](Isa) {
      const auto model = moved_adapters(tiny_model<D>(tiny_llama()).frozen(storage));
      for (const int threads : {1, 2, 3})
        with_threads(threads, [&] {
          const Pass pass = forward_and_backward(model);
          if (first.hidden.empty()) first = pass;
          CHECK(same_bits(pass.hidden, first.hidden));
          CHECK(same_bits(pass.gradient, first.gradient));
        });
    });
  }
}

TEST_CASE_TEMPLATE("adapters: sampled log-probs are the training forward's, bit for bit", D, Cpu,
                   CpuBf16) {
  for (const auto& config : {tiny_llama(), tiny_gpt2()})
    for (const Storage storage : {Storage::Float, Storage::Bf16, Storage::Int8})
      for_each_isa<D>([&](Isa) {
        const auto model = moved_adapters(tiny_model<D>(config).frozen(storage));
        const auto prompts = some_prompts(6, config.vocab);
        const auto responses = sample(model, prompts, lora_sampling());
        std::vector<float> sampled;
        for (const Response& r : responses)
          sampled.insert(sampled.end(), r.logprobs.begin(), r.logprobs.end());
        CHECK(same_bits(sampled, episode_logprobs(model, prompts, responses)));
      });
}

TEST_CASE("adapters merged into the matrices give the same model, to rounding") {
  for (const auto& config : {tiny_llama(), tiny_gpt2()}) {
    const auto adapted = moved_adapters(tiny_model(config).frozen(), kSmallLora, ScalarHead::Value);
    const auto merged = adapted.merged();
    CHECK(merged.head_kind() == ScalarHead::Value);
    const auto batch = some_batch(config.vocab);
    const auto a = adapted.hidden(batch).to_vector(), b = merged.hidden(batch).to_vector();
    float worst = 0, most = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      worst = std::max(worst, std::abs(a[i] - b[i]));
      most = std::max(most, std::abs(a[i]));
    }
    CHECK(worst < 2e-5F * most);
    CHECK(same_bits(adapted.scalar(adapted.hidden(batch)).to_vector(),
                    merged.scalar(adapted.hidden(batch)).to_vector()));
    // A frozen copy of an adapted network has the merged matrices.
    CHECK(same_bits(adapted.frozen().hidden(batch).to_vector(), b));
  }
}

TEST_CASE("only the upper blocks: what lies below records nothing and has no adapter") {
  LoraConfig lora = kSmallLora;
  lora.top_layers = 1;
  const auto model = moved_adapters(tiny_model(tiny_llama()).frozen(), lora);
  CHECK(model.parameters().entries().size() == 10);
  for (const auto& entry : model.parameters().entries()) CHECK(contains(entry.name, "blocks.1."));
  const Pass pass = forward_and_backward(model);
  double norm = 0;
  for (const float g : pass.gradient) norm += std::abs(g);
  CHECK(norm > 0);
}

TEST_CASE_TEMPLATE("states of the frozen blocks, kept, change no bit of an iteration", D, Cpu,
                   CpuBf16) {
  for (const auto& config : {tiny_llama(), tiny_gpt2()}) {
    const auto frozen = tiny_model<D>(config).frozen();
    LoraConfig lora = kSmallLora;
    lora.top_layers = 1;
    const auto train = [&](const Model<D>& reference, const Model<D>& base) {
      auto policy = base.adapted(lora, ScalarHead::Value, 5);
      PpoConfig ppo;
      ppo.sampling = lora_sampling();
      ppo.epochs = 2;
      ppo.minibatches = 2;
      ppo.micro_tokens = 50;
      PpoTrainer<D> trainer(policy, reference, even_share, ppo);
      for (int i = 0; i < 2; ++i) trainer.step(some_prompts(6, config.vocab));
      return policy.parameters().flat().to_vector();
    };
    // A reference with a trunk of its own: then nothing is kept.
    const auto apart = tiny_model<D>(config).frozen();
    CHECK(same_bits(train(frozen, frozen), train(apart, frozen)));
    std::vector<Episode> episodes(2);
    episodes[0].prompt = {1, 2};
    episodes[0].response = {3, 4, 5};
    episodes[1].prompt = {6};
    episodes[1].response = {7};
    const auto policy = moved_adapters(frozen, lora);
    CHECK(frozen_states(policy, {&frozen}, episodes).layers == 1);
    CHECK(frozen_states(policy, {&frozen}, episodes).states[0].dim(0) == 5);
    CHECK(frozen_states(policy, {&apart}, episodes).layers == 0);
    CHECK(frozen_states(moved_adapters(frozen), {&frozen}, episodes).layers == 0);
    const auto all_trained = moved_adapters(frozen);
    CHECK(frozen_states(policy, {&frozen, &all_trained}, episodes).layers == 0);
  }
}

TEST_CASE_TEMPLATE("states of the frozen blocks, kept, change no bit of other trainings", D, Cpu,
                   CpuBf16) {
  for (const auto& config : {tiny_llama(), tiny_gpt2()}) {
    const auto frozen = tiny_model<D>(config).frozen();
    LoraConfig lora = kSmallLora;
    lora.top_layers = 1;
    std::vector<Example> examples;
    std::vector<RankedPrompt> rankings;
    for (std::uint64_t i = 0; i < 5; ++i) {
      examples.push_back(
          {random_tokens(3, config.vocab, i), random_tokens(4, config.vocab, 9 + i)});
      RankedPrompt ranked;
      ranked.rank = i == 2 ? Tokens{0, 0, 0} : Tokens{1, 0, 2};
      for (std::uint64_t k = 0; k < 3; ++k) {
        ranked.sequences.push_back(
            random_tokens(4 + static_cast<Index>(k), config.vocab, 7 * i + k));
        ranked.lengths.push_back(2);
      }
      rankings.push_back(ranked);
    }
    std::vector<float> weights[2];
    for (const bool kept : {false, true}) {
      // Within a limit that leaves nothing none are kept.
      set_memory_limit(kept ? 0 : 1);
      auto policy = frozen.adapted(lora, ScalarHead::None, 5);
      SftConfig sft{.epochs = 3, .batch = 2, .micro_tokens = 12};
      sft_train(policy, examples, sft);
      auto reward = frozen.adapted(lora, ScalarHead::Reward, 5);
      RewardConfig fit{.epochs = 3, .batch = 2, .micro_tokens = 40};
      reward_train(reward, rankings, fit);
      for (const Model<D>* model : {&policy, &reward}) {
        const auto all = model->parameters().flat().to_vector();
        weights[kept ? 1 : 0].insert(weights[kept ? 1 : 0].end(), all.begin(), all.end());
      }
      set_memory_limit(0);
    }
    CHECK(same_bits(weights[0], weights[1]));
    const auto policy = moved_adapters(frozen, lora);
    const auto add = [&](PackedBatch& packed, std::size_t i) { pack(packed, examples[i]); };
    CHECK(frozen_states_of_data(policy, 2, 35, examples.size(), add).layers == 1);
    CHECK(frozen_states_of_data(policy, 1, 35, examples.size(), add).layers == 0);
  }
}

TEST_CASE_TEMPLATE(
    "PPO with adapters: the first ratio is 1, the score rises, the frozen trunk stays", D, Cpu,
    CpuBf16) {
  for (const Storage storage : {Storage::Float, Storage::Bf16, Storage::Int8}) {
    const auto frozen = tiny_model<D>(tiny_llama(), 7, ScalarHead::None, 0.1F).frozen(storage);
    const auto batch = some_batch<D>(frozen.vocab());
    const auto before = frozen.hidden(batch).to_vector();
    LoraConfig lora = kSmallLora;
    lora.rank = 6;
    auto policy = frozen.adapted(lora, ScalarHead::Value, 5);
    PpoConfig config;
    config.sampling = lora_sampling();
    config.sampling.responses = 4;
    config.epochs = 2;
    config.minibatches = 2;
    config.optimizer.lr = 2e-2F;
    config.linear_lr = false;
    PpoTrainer<D> trainer(policy, frozen, even_share, config);
    std::vector<double> scores;
    for (int i = 0; i < (sanitized() ? 2 : 25); ++i) {
      const auto row = trainer.step(some_prompts(6, frozen.vocab()));
      std::map<std::string, double> m(row.begin(), row.end());
      CHECK(m.at("val/ratio_first_minibatch") == 1.0);
      CHECK(m.at("val/ratio_first_minibatch_max_deviation") == 0.0);
      if (i == 0) CHECK(m.at("objective/kl_exact") == 0.0);
      scores.push_back(m.at("objective/scores"));
    }
    if (!sanitized()) CHECK(scores.back() > scores.front() + 0.5);
    CHECK(same_bits(frozen.hidden(batch).to_vector(), before));
    CHECK(trainer.optimizer().m().size() == policy.parameters().size());
    // A copy has adapters of its own on the same trunk.
    const auto copy = policy.clone();
    CHECK(same_bits(copy.hidden(batch).to_vector(), policy.hidden(batch).to_vector()));
    CHECK(copy.head().data() == frozen.head().data());
  }
}

TEST_CASE("a reward model of adapters learns, and shares its trunk") {
  const auto frozen = tiny_model(tiny_gpt2()).frozen();
  auto reward = frozen.adapted(kSmallLora, ScalarHead::Reward, 5);
  std::vector<RankedPrompt> prompts;
  for (std::uint64_t i = 0; i < 20; ++i) {
    Tokens good = random_tokens(6, 10, i), bad = random_tokens(6, 10, i + 50);
    bad.back() = 20;
    prompts.push_back({{good, bad}, {0, 1}, {6, 6}});
  }
  RewardConfig config;
  config.epochs = 8;
  config.optimizer.lr = 1e-2F;
  reward_train(reward, prompts, config);
  CHECK(reward_evaluate(reward, prompts).accuracy() > 0.9);
  CHECK(reward.head().data() == frozen.head().data());
}

TEST_CASE("what cannot be adapted is refused by name") {
  const auto model = tiny_model(tiny_llama());
  const auto frozen = model.frozen();
  const auto complaint = [&](const Model<Cpu>& of, auto change) {
    LoraConfig lora = kSmallLora;
    change(lora);
    return message_of<Error>([&] { of.adapted(lora, ScalarHead::None, 1); });
  };
  CHECK(contains(complaint(model, [](LoraConfig&) {}), "beside frozen weights"));
  CHECK(contains(complaint(frozen, [](LoraConfig& c) { c.targets = "query,q_proj"; }),
                 "no matrix 'q_proj'"));
  CHECK(contains(complaint(frozen, [](LoraConfig& c) { c.targets = ""; }), "names no matrix"));
  CHECK(contains(complaint(frozen, [](LoraConfig& c) { c.rank = 257; }), "lora-rank must be"));
  CHECK(contains(complaint(frozen, [](LoraConfig& c) { c.top_layers = 3; }), "has 2 blocks"));
  CHECK(contains(complaint(frozen, [](LoraConfig& c) { c.alpha = 0; }), "lora-alpha must be"));
  CHECK(contains(
      complaint(tiny_model(tiny_gpt2()).frozen(), [](LoraConfig& c) { c.targets = "gate"; }),
      "no matrix 'gate'"));
}
