// The policy is a concept: a network that is no transformer is sampled, fine-tuned, made a reward
// model and trained by PPO through the same code, and keeps the same promises. And what the concept
// rests on: fresh weights, copies, features of the transformer set apart.
#include "tiny.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

using namespace plumb;
using namespace test;

namespace {

// Two-token memory: h = tanh(W·(E₁[token] + E₂[the one before]) + b). Its cache is that last token.
template <class D>
struct PairCache {
  std::vector<std::int32_t> last;
  void copy_slot(Index from, Index to, Index) {
    last[static_cast<std::size_t>(to)] = last[static_cast<std::size_t>(from)];
  }
};

template <class D>
class PairTrunk {
 public:
  struct Config {
    Index vocab = 11, context = 40, channels = 12;
  };
  struct PackedWeights {
    PackedWeight<D> mix, head;
  };
  using Device = D;
  using Cache = PairCache<D>;
  using Packed = PackedWeights;

  PairTrunk(Parameters<D>& parameters, const Config& config) : config_(config) {
    const Index c = config.channels;
    now_ = parameters.add("now", {config.vocab, c}, {0.0F, 0.5F});
    before_ = parameters.add("before", {config.vocab + 1, c}, {0.0F, 0.5F});  // the last: none
    mix_ = parameters.add("mix", {c, c}, {0.0F, 0.3F});
    bias_ = parameters.add("bias", {c}, {});
    head_ = parameters.add("head", {config.vocab, c}, {0.0F, 0.5F});
  }

  const Config& config() const { return config_; }
  Index vocab() const { return config_.vocab; }
  Index context() const { return config_.context; }
  const Tensor<D>& head() const { return head_; }
  Packed pack() const { return {PackedWeight<D>(mix_), PackedWeight<D>(head_)}; }
  Cache make_cache(Index slots, Index) const {
    return {std::vector<std::int32_t>(static_cast<std::size_t>(slots), none())};
  }
  Tensor<D> hidden(const Batch<D>& batch) const {
    const auto tokens = batch.tokens.to_vector(), positions = batch.positions.to_vector();
    Tokens before;
    for (std::size_t i = 0; i < tokens.size(); ++i)
      before.push_back(positions[i] == 0 ? none() : tokens[i - 1]);
    return mixed(batch.tokens, before, mix_);
  }
  Tensor<D> hidden(const CachedBatch<D>& batch, Cache& cache, const Packed& packed) const {
    const auto tokens = batch.tokens.to_vector(), positions = batch.positions.to_vector(),
               slots = batch.slots.to_vector();
    Tokens before;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      std::int32_t& last = cache.last[static_cast<std::size_t>(slots[i])];
      before.push_back(positions[i] == 0 ? none() : last);
      last = tokens[i];
    }
    return mixed(batch.tokens, before, packed.mix);
  }

 private:
  std::int32_t none() const { return static_cast<std::int32_t>(config_.vocab); }
  template <class Weight>
  Tensor<D> mixed(const Tensor<D, std::int32_t>& tokens, const Tokens& before,
                  const Weight& mix) const {
    const auto sum = add(embedding(now_, tokens), embedding(before_, device_vector<D>(before)));
    return activated_linear(sum, mix, bias_, Activation::Tanh);
  }

  Config config_;
  Tensor<D> now_, before_, mix_, bias_, head_;
};

using Pair = Model<Cpu, PairTrunk<Cpu>>;
static_assert(Policy<Pair>);
static_assert(Policy<Model<Cpu>>);
static_assert(!Policy<PairTrunk<Cpu>>, "a trunk has no parameters of its own, and no scalar head");

std::vector<float> few_threes(const std::vector<Episode>& episodes) {
  std::vector<float> scores;
  for (const Episode& e : episodes)
    scores.push_back(-static_cast<float>(std::count(e.response.begin(), e.response.end(), 3)));
  return scores;
}

PpoConfig pair_config() {
  PpoConfig config;
  config.iterations = 30;
  config.sampling.max_new_tokens = 12;
  config.sampling.stops = {0};
  config.sampling.responses = 4;
  config.beta = 0.02F;
  config.optimizer.lr = 0.02F;
  config.linear_lr = false;
  return config;
}

const std::vector<Tokens> kPrompts{{1}, {2, 5}, {7, 3, 3}, {4}};

double threes(const Pair& policy) {
  SampleOptions options = pair_config().sampling;
  options.responses = 64;
  options.seed = 99;
  double count = 0, tokens = 0;
  for (const Response& r : sample(policy, kPrompts, options)) {
    count += static_cast<double>(std::count(r.tokens.begin(), r.tokens.end(), 3));
    tokens += static_cast<double>(r.tokens.size());
  }
  return count / tokens;
}

}  // namespace

TEST_CASE("a policy that is no transformer: sampled log-probs are those of training, bit for bit") {
  const Pair policy({}, 5);
  SampleOptions options = pair_config().sampling;
  for (const Index slots : {1, 3, 64}) {
    options.slots = slots;
    for (const Response& r : sample(policy, kPrompts, options)) {
      Episode e;
      e.prompt = kPrompts[static_cast<std::size_t>(r.prompt)];
      e.response = r.tokens;
      const Episode* one = &e;
      const auto batch = EpisodeBatch<Cpu>::from(std::span(&one, 1));
      const auto out = head_logprob(embedding(policy.hidden(batch.batch), batch.rows),
                                    policy.head(), batch.targets);
      CHECK(out.logprob.to_vector() == r.logprobs);
    }
  }
}

TEST_CASE("PPO trains it: with a shared critic, with one of its own, and without any") {
  const Pair start({}, 5);
  const double before = threes(start);
  CHECK(before > 0.04);
  for (const int kind : {0, 1, 2}) {
    CAPTURE(kind);
    PpoConfig config = pair_config();
    if (kind == 2)
      // No critic: a token is as good as its response was, less the mean of its group.
      config.advantage = {false, [](std::span<Episode> episodes) {
                            std::map<Index, std::pair<double, double>> groups;
                            const auto total = [](const Episode& e) {
                              double sum = 0;
                              for (const float r : e.rewards) sum += r;
                              return sum;
                            };
                            for (const Episode& e : episodes) {
                              groups[e.group].first += total(e);
                              groups[e.group].second += 1;
                            }
                            for (Episode& e : episodes) {
                              const auto [sum, n] = groups[e.group];
                              const double a = total(e) - sum / n;
                              e.advantages.assign(e.response.size(), static_cast<float>(a));
                            }
                          }};
    Pair policy = start.clone(kind == 0 ? ScalarHead::Value : ScalarHead::None);
    std::optional<Pair> critic;
    if (kind == 1) critic.emplace(start.clone(ScalarHead::Value));
    const auto critic_before =
        critic ? critic->parameters().flat().to_vector() : std::vector<float>{};
    PpoTrainer<Cpu, Pair> trainer(policy, start, few_threes, config, critic ? &*critic : nullptr);
    for (Index i = 0; i < config.iterations; ++i) {
      const auto metrics = trainer.step(kPrompts);
      bool value_metric = false;
      for (const auto& [name, value] : metrics) {
        if (name == "val/ratio_first_minibatch_max_deviation") CHECK(value == 0.0);
        value_metric = value_metric || name == "loss/value_avg";
      }
      CHECK(value_metric == (kind != 2));
    }
    for (const Episode& e : trainer.episodes()) {
      CHECK(e.steps == static_cast<Index>(e.response.size()));
      CHECK(e.values.size() == (kind == 2 ? 0 : e.response.size()));
      CHECK(e.prompt == kPrompts[static_cast<std::size_t>(e.group)]);
    }
    CHECK((trainer.value_optimizer() != nullptr) == (kind == 1));
    if (critic) CHECK(critic->parameters().flat().to_vector() != critic_before);
    const double after = threes(policy);
    MESSAGE("threes: ", before, " to ", after);
    CHECK(after < before / 3);
  }
}

TEST_CASE("without a critic, a value model is refused; with GAE, its lack is") {
  Pair policy({}, 5);
  const Pair reference({}, 5);
  Pair critic = policy.clone(ScalarHead::Value);
  PpoConfig config = pair_config();
  CHECK(message_of<ShapeError>([&] {
          PpoTrainer<Cpu, Pair>(policy, reference, few_threes, config);
        }).find("scalar head") != std::string::npos);
  config.advantage = {false, [](std::span<Episode>) {}};
  CHECK(message_of<DataError>([&] {
          PpoTrainer<Cpu, Pair>(policy, reference, few_threes, config, &critic);
        }).find("no critic") != std::string::npos);
}

TEST_CASE("supervised training and a reward model of the same network") {
  Pair policy({}, 5);
  std::vector<Example> examples;
  for (std::int32_t i = 1; i < 9; ++i) examples.push_back({{i}, {i, i, 0}});
  std::vector<float> losses;
  sft_train(policy, examples, {.epochs = 60, .batch = 4, .optimizer = {.lr = 0.02F}},
            [&](Index, Index, float loss) { losses.push_back(loss); });
  CHECK(losses.back() < 0.3F * losses.front());

  Pair reward = policy.clone(ScalarHead::Reward, 3);
  std::vector<RankedPrompt> ranked;
  for (std::int32_t i = 1; i < 9; ++i)
    ranked.push_back({{{i, 5, 6}, {i, 5, 3}}, {0, 1}, {2, 2}});  // an answer ending in 3 is worse
  reward_train(reward, ranked, {.epochs = 20, .optimizer = {.lr = 0.02F}});
  CHECK(reward_evaluate(reward, ranked).accuracy() == 1.0);
}

TEST_CASE("fresh weights are the same bits for any number of threads") {
  const TransformerConfig config{.vocab = 700, .channels = 96, .layers = 2, .hidden = 200};
  const int threads = default_pool().threads();
  std::vector<std::vector<float>> drawn;
  for (const int count : {1, 2, 5}) {
    default_pool().set_threads(count);
    drawn.push_back(Model<Cpu>(config, 3, ScalarHead::Reward).parameters().flat().to_vector());
  }
  default_pool().set_threads(threads);
  CHECK(drawn[0] == drawn[1]);
  CHECK(drawn[0] == drawn[2]);
  // And they are the stream's numbers, one after another, whatever chunks they were drawn in.
  const Model<Cpu> model(config, 3);
  Rng rng(3, Stage::Init, stream_of("embedding"));
  const auto embedding = model.parameters()["embedding"].to_vector();
  bool same = true;
  for (const float value : embedding) same = same && value == 0.0F + 0.02F * rng.normal();
  CHECK(same);
}

TEST_CASE("a clone is a copy: with the head it had, another, or a fresh one") {
  const auto model = tiny_model(tiny_llama(), 4, ScalarHead::Reward);
  const auto same = model.clone();
  CHECK(same.parameters().flat().to_vector() == model.parameters().flat().to_vector());
  CHECK(same.parameters().flat().data() != model.parameters().flat().data());
  const auto value = model.clone(ScalarHead::Value, 1);  // a critic begins as the reward model
  CHECK(value.parameters()["scalar_head"].to_vector() ==
        model.parameters()["scalar_head"].to_vector());
  const auto policy = model.clone(ScalarHead::None);
  CHECK(!policy.parameters().contains("scalar_head"));
  const auto fresh = policy.clone(ScalarHead::Reward, 9),
             again = policy.clone(ScalarHead::Reward, 9);
  CHECK(fresh.parameters()["scalar_head"].to_vector() ==
        Model<Cpu>(tiny_llama(), 9, ScalarHead::Reward).parameters()["scalar_head"].to_vector());
  CHECK(fresh.parameters().flat().to_vector() == again.parameters().flat().to_vector());
}

TEST_CASE(
    "the transformer's features are independent: each changes the tensors and the function alone") {
  const auto names_of = [](const TransformerConfig& config) {
    std::vector<std::string> names;
    const Model<Cpu> model(config, 1);
    for (const auto& entry : model.parameters().entries()) names.push_back(entry.name);
    return names;
  };
  const auto has = [](const std::vector<std::string>& names, const char* name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  auto config = tiny_llama();
  const auto llama = names_of(config);
  CHECK(!has(llama, "blocks.0.query_bias"));
  config.family = Family::Qwen2;
  const auto qwen = names_of(config);
  CHECK(qwen.size() == llama.size() + 6);
  CHECK(has(qwen, "blocks.1.key_bias"));
  CHECK(!has(qwen, "blocks.1.projection_bias"));
  config.family.projection_bias = config.family.feed_forward_bias = true;
  CHECK(has(names_of(config), "blocks.1.gate_bias"));

  // Settings that no named family has: each of them sampled on-policy, and its gradients by
  // differences.
  for (const Norm norm : {Norm::Rms, Norm::Layer})
    for (const Positions positions : {Positions::Rotary, Positions::Learned})
      for (const bool gated : {true, false})
        for (const bool biases : {true, false}) {
          CAPTURE(static_cast<int>(norm));
          CAPTURE(static_cast<int>(positions));
          CAPTURE(gated);
          CAPTURE(biases);
          auto mixed = tiny_llama();
          mixed.layers = 1;
          mixed.family = {norm,
                          positions,
                          biases,
                          !biases,
                          biases,
                          gated,
                          gated ? Activation::Silu : Activation::Relu};
          const auto model = tiny_model(mixed, 6);
          SampleOptions options;
          options.max_new_tokens = 6;
          const auto responses = sample(model, {{1, 2, 3}}, options);
          Episode e;
          e.prompt = {1, 2, 3};
          e.response = responses[0].tokens;
          const Episode* one = &e;
          const auto batch = EpisodeBatch<Cpu>::from(std::span(&one, 1));
          const auto loss = [&] {
            const auto rows = embedding(model.hidden(batch.batch), batch.rows);
            return head_logprob(rows, model.head(), batch.targets).logprob;
          };
          CHECK(loss().to_vector() == responses[0].logprobs);
          const auto n = static_cast<std::size_t>(batch.targets.size());
          const auto weight = device_vector<Cpu>(std::vector<float>(n, 1.0F));
          backpropagate([&] { return weighted_sum(loss(), weight); });
          const auto value = [&] {
            double sum = 0;
            for (const float x : loss().to_vector()) sum += x;
            return sum;
          };
          for (const auto& entry : model.parameters().entries()) {
            CAPTURE(entry.name);
            CHECK(gradient_error(entry.tensor, entry.tensor.grad_tensor().to_vector(), value, 1e-3F,
                                 1, 0.05) < 2e-2);
          }
        }
}
