// The update loop: what it leaves behind when something is refused, what its errors name, the hook,
// and that settings are held to their ranges by the library itself.
#include "tiny.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <set>
#include <string>
#include <vector>

using namespace plumb;
using namespace test;

namespace {

std::vector<Example> counted_examples(Index n) {
  std::vector<Example> examples;
  for (Index i = 0; i < n; ++i)
    examples.push_back({random_tokens(3, 19, static_cast<std::uint64_t>(i)),
                        random_tokens(4, 19, static_cast<std::uint64_t>(50 + i))});
  return examples;
}

std::vector<RankedPrompt> counted_rankings(Index n) {
  std::vector<RankedPrompt> prompts;
  for (Index i = 0; i < n; ++i) {
    const auto seed = static_cast<std::uint64_t>(i);
    prompts.push_back(
        {{random_tokens(5, 19, seed), random_tokens(6, 19, seed + 70)}, {0, 1}, {5, 6}});
  }
  return prompts;
}

std::vector<float> weights_of(const Model<Cpu>& model) {
  return model.parameters().flat().to_vector();
}
void spoil_gradient(const Model<Cpu>& model) { model.parameters().flat().grad()[5] = HUGE_VALF; }
bool no_gradient(const Model<Cpu>& model) {
  for (const float g : model.parameters().flat().grad_tensor().to_vector())
    if (g != 0) return false;
  return true;
}

// The three trainers, each for one iteration of a few updates, with a hook.
struct Trainer {
  const char* name;
  ScalarHead head;
  std::function<void(Model<Cpu>&, float lr, BeforeStep)> run;
};
const std::vector<Trainer> kTrainers{
    {"[sft] update", ScalarHead::None,
     [](Model<Cpu>& model, float lr, BeforeStep hook) {
       sft_train(model, counted_examples(6),
                 {.batch = 2, .optimizer = {.lr = lr}, .before_step = std::move(hook)});
     }},
    {"[reward] update", ScalarHead::Reward,
     [](Model<Cpu>& model, float lr, BeforeStep hook) {
       reward_train(model, counted_rankings(6),
                    {.batch = 2, .optimizer = {.lr = lr}, .before_step = std::move(hook)});
     }},
    {"[ppo] iteration 0, epoch", ScalarHead::Value,
     [](Model<Cpu>& model, float lr, BeforeStep hook) {
       const auto reference = tiny_model(tiny_llama(), 8);
       PpoConfig config;
       config.sampling.max_new_tokens = 6;
       config.optimizer.lr = lr;
       config.before_step = std::move(hook);
       PpoTrainer<Cpu>(model, reference, even_share, config).step(some_prompts(4, 19));
     }},
};

}  // namespace

TEST_CASE("gradients are cleared on entry: what a caller left there changes nothing") {
  for (const Trainer& trainer : kTrainers) {
    CAPTURE(trainer.name);
    auto clean = tiny_model(tiny_llama(), 7, trainer.head), dirty = clean.clone();
    spoil_gradient(dirty);
    trainer.run(clean, 1e-3F, {});
    trainer.run(dirty, 1e-3F, {});
    CHECK(weights_of(clean) == weights_of(dirty));
  }
}

TEST_CASE("the hook sees a minibatch's gradients before its step, and may change them") {
  for (const Trainer& trainer : kTrainers) {
    CAPTURE(trainer.name);
    auto model = tiny_model(tiny_llama(), 7, trainer.head);
    const auto frozen = model.parameters()["embedding"].to_vector(), before = weights_of(model);
    int calls = 0;
    trainer.run(model, 1e-3F, [&] {
      ++calls;
      CHECK(!no_gradient(model));
      model.parameters()["embedding"].zero_grad();
    });
    CHECK(calls >= 3);
    CHECK(model.parameters()["embedding"].to_vector() == frozen);
    CHECK(weights_of(model) != before);
  }
}

TEST_CASE("a refused minibatch names itself, clears its gradients, and leaves the weights") {
  for (const Trainer& trainer : kTrainers) {
    CAPTURE(trainer.name);
    auto model = tiny_model(tiny_llama(), 7, trainer.head);
    std::vector<float> before;
    int calls = 0;
    const auto message = message_of<NumericError>([&] {
      trainer.run(model, 1e-3F, [&] {
        if (++calls != 2) return;
        before = weights_of(model);
        spoil_gradient(model);
      });
    });
    CHECK(contains(message, trainer.name));
    CHECK(contains(message, "gradient norm"));
    CHECK(no_gradient(model));
    CHECK(weights_of(model) == before);
    // Whatever else is thrown passes through, the gradients cleared too.
    CHECK_THROWS_AS(trainer.run(model, 1e-3F, [] { throw std::length_error("mine"); }),
                    std::length_error);
    CHECK(no_gradient(model));
  }
}

TEST_CASE("weights that a step made non-finite are found at once, the last step's too") {
  for (const Trainer& trainer : kTrainers) {
    CAPTURE(trainer.name);
    auto model = tiny_model(tiny_llama(), 7, trainer.head);
    const auto message = message_of<NumericError>([&] { trainer.run(model, 1e38F, {}); });
    CHECK(contains(message, trainer.name));
    CHECK(contains(message, "after the step: weight '"));
    CHECK(contains(message, "HINT"));
  }
}

TEST_CASE(
    "settings out of range are refused by the library, by the name they have in every command") {
  auto model = tiny_model(tiny_llama(), 7);
  const auto reference = tiny_model(tiny_llama(), 8);
  const auto sft = [&](const SftConfig& config) {
    return message_of<DataError>([&] { sft_train(model, counted_examples(4), config); });
  };
  CHECK(contains(sft({.epochs = -3}), "[sft] epochs must be at least 0; it is -3"));
  CHECK(contains(sft({.batch = 0}), "[sft] batch must be at least 1"));
  CHECK(contains(sft({.optimizer = {.lr = NAN}}), "[sft] lr must be a finite number"));
  CHECK(sft({.epochs = 0}).empty());  // nothing is trained, and nothing is wrong
  auto reward = tiny_model(tiny_llama(), 7, ScalarHead::Reward);
  const auto fit = [&](const RewardConfig& config) {
    return message_of<DataError>([&] { reward_train(reward, counted_rankings(4), config); });
  };
  CHECK(contains(fit({.batch = 0}), "[reward] batch must be at least 1"));
  CHECK(contains(fit({.loss = {.margin = NAN}}), "[reward] margin must be a finite number"));
  CHECK(contains(fit({.loss = {.kind = static_cast<RankingLossKind>(7)}}),
                 "[reward] loss must be one of bt, pl"));
  const auto ppo = [&](auto change) {
    PpoConfig config;
    change(config);
    auto policy = model.clone(ScalarHead::Value);
    return message_of<DataError>([&] { PpoTrainer<Cpu>(policy, reference, even_share, config); });
  };
  CHECK(contains(ppo([](auto& c) { c.iterations = -1; }), "[ppo] iterations must be at least 0"));
  CHECK(contains(ppo([](auto& c) { c.optimizer.lr = -1; }),
                 "[ppo] ppo-lr must be at least 0; it is -1"));
  CHECK(contains(ppo([](auto& c) { c.clip.low = -1; }), "[ppo] clip must be"));
  CHECK(contains(ppo([](auto& c) { c.clip.dual = 0.5F; }), "dual-clip must be above 1"));
  CHECK(contains(ppo([](auto& c) { c.micro_tokens = -1; }), "[ppo] micro-tokens must be"));
  CHECK(
      contains(ppo([](auto& c) { c.gamma = 1.5F; }), "[ppo] gamma must be from 0 to 1; it is 1.5"));
  CHECK(contains(ppo([](auto& c) { c.sampling.responses = 0; }), "[ppo] ppo-responses must be"));
  CHECK(contains(ppo([](auto& c) { c.sampling.sampling.temperature = 1e-40F; }),
                 "inverse is not finite"));
  CHECK(contains(ppo([](auto& c) { c.sampling.sampling.top_k = 3; }), "allow_off_policy"));
  CHECK(ppo([](auto&) {}).empty());
}

TEST_CASE("every list of settings: names are unique, texts are short, defaults are in range") {
  const auto look = [](auto config) {
    std::set<std::string> names;
    fields(config, [&](const Field& field, const auto& member) {
      CAPTURE(std::string(field.name));
      CHECK(names.insert(field.name).second);
      CHECK(std::string(field.help).size() <= 90);
      CHECK(field_complaint(field, member).empty());
    });
    CHECK(names.size() >= 5);
  };
  look(SampleOptions{});
  look(SftConfig{});
  look(RewardConfig{});
  look(PpoConfig{});
  look(AdamWConfig{});
  look(TransformerConfig{});
}

TEST_CASE("an episode without a response is refused before its rewards are shaped") {
  PpoConfig config;
  std::vector<Episode> episodes(2);
  episodes[0].response = {1, 2};
  episodes[0].steps = 2;
  episodes[0].logprobs = episodes[0].ref_logprobs = episodes[0].kl_exact = {0, 0};
  episodes[0].values = {0, 0};
  CHECK(contains(message_of<DataError>([&] { shape_rewards(episodes, config, 0.1F); }),
                 "[ppo] episode 1 has a response of 0 tokens"));
}
