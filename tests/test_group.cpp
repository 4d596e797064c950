// Methods without a critic: advantages, losses and gradients against PyTorch in double precision
// (tests/golden/make_methods.py), and what a training by them must keep.
#include "tiny.hpp"

#include <plumb/rlhf/group.hpp>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <fstream>
#include <map>

using namespace plumb;
using namespace test;

namespace {

std::vector<float> joined(const nlohmann::json& lists) {
  std::vector<float> all;
  for (const auto& list : lists)
    for (const double x : list) all.push_back(static_cast<float>(x));
  return all;
}
std::vector<double> exact(const nlohmann::json& lists) {
  std::vector<double> all;
  for (const auto& list : lists)
    for (const double x : list) all.push_back(x);
  return all;
}

/// The golden file's episodes, prompt by prompt.
std::vector<Episode> golden_episodes(const nlohmann::json& golden) {
  std::vector<Episode> episodes;
  const auto& scores = golden["scores"];
  for (std::size_t group = 0; group < scores.size(); ++group)
    for (const float score : scores[group]) {
      Episode e;
      const std::size_t i = episodes.size();
      e.prompt = {1};
      e.group = static_cast<Index>(group);
      e.logprobs = golden["old"][i].get<std::vector<float>>();
      e.ref_logprobs = golden["ref"][i].get<std::vector<float>>();
      e.response.assign(e.logprobs.size(), 2);
      e.steps = static_cast<Index>(e.response.size());
      e.score = score;
      episodes.push_back(std::move(e));
    }
  return episodes;
}

std::vector<const Episode*> pointers(const std::vector<Episode>& episodes) {
  std::vector<const Episode*> all;
  for (const Episode& e : episodes) all.push_back(&e);
  return all;
}

PpoConfig small(PolicyMethod method) {
  PpoConfig config;
  use_method(config, method);
  config.epochs = 2;
  config.minibatches = 2;
  config.sampling.max_new_tokens = 10;
  config.sampling.responses = 4;
  config.sampling.stops = {2, 5};
  config.sampling.seed = 5;
  config.linear_lr = false;
  config.optimizer.lr = 3e-3F;
  return config;
}

std::map<std::string, double> as_map(const Metrics& metrics) {
  return {metrics.begin(), metrics.end()};
}

}  // namespace

TEST_CASE("groups: advantages, loss and gradient of each method are PyTorch's") {
  std::ifstream file(PLUMB_SOURCE_DIR "/tests/golden/methods.json");
  const auto golden = nlohmann::json::parse(file);
  for (const auto& [name, method] : choices(PolicyMethod{})) {
    if (method == PolicyMethod::Ppo) continue;
    CAPTURE(std::string(name));
    const auto& expected = golden["methods"][name];
    PpoConfig config;
    config.sampling.max_new_tokens = golden["longest"];
    use_method(config, method);
    auto episodes = golden_episodes(golden);
    shape_rewards(episodes, config, config.beta);
    const auto members = pointers(episodes);
    CHECK(max_error(gathered<Cpu>(members, &Episode::advantages).to_vector(),
                    exact(expected["advantages"])) < 2e-6);

    // Whole, and in parts whose shares are of the whole.
    const auto minibatch = MinibatchSize::of(members);
    const auto logprobs = joined(golden["new"]);
    for (const std::size_t parts : {1U, 3U, 8U}) {
      double loss = 0;
      std::vector<float> gradient;
      std::size_t token = 0;
      for (std::size_t part = 0; part < parts; ++part) {
        const std::size_t first = part * members.size() / parts,
                          last = (part + 1) * members.size() / parts;
        const auto some = std::span(members).subspan(first, last - first);
        std::size_t n = 0;
        for (const Episode* e : some) n += e->response.size();
        const auto logprob = device_vector<Cpu>(
            std::vector<float>(logprobs.begin() + static_cast<std::ptrdiff_t>(token),
                               logprobs.begin() + static_cast<std::ptrdiff_t>(token + n)));
        token += n;
        logprob.set_requires_grad(true);
        const PolicyLoss<Cpu> of_policy(some, config, minibatch, config.beta);
        PolicyStats stats;
        loss += backpropagate([&] {
          auto sum = of_policy.clipped(logprob, &stats);
          if (const auto more = of_policy.divergence(logprob)) sum = add(sum, more);
          return sum;
        });
        for (const float g : grad_of(logprob)) gradient.push_back(g);
        // What the head is told beforehand is the same.
        if (const auto slope = of_policy.slope()) {
          const LogProbs<Cpu> out{logprob, {}};
          const auto d = Tensor<Cpu>::empty(logprob.shape()),
                     entropy = Tensor<Cpu>::empty(d.shape());
          slope(0, d.size(), out, d.data(), entropy.data());
          CHECK(max_error(d.to_vector(), exact(nlohmann::json::array({grad_of(logprob)}))) < 1e-7);
        }
      }
      CHECK(loss == doctest::Approx(expected["loss"].get<double>()).epsilon(2e-6));
      CHECK(max_error(gradient, exact(expected["gradient"])) < 1e-6);
    }
  }
}

TEST_CASE_TEMPLATE("groups: every method trains on what it samples, whatever the micro-batches", D,
                   Cpu, CpuBf16) {
  const auto reference = tiny_model<D>(tiny_llama(), 8);
  const auto prompts = some_prompts(5, 19);
  for (const auto& [name, method] : choices(PolicyMethod{})) {
    if (method == PolicyMethod::Ppo) continue;
    CAPTURE(std::string(name));
    std::vector<float> weights[2];
    for (const Index micro : {0, 16}) {
      auto policy = tiny_model<D>(tiny_llama(), 7);
      PpoConfig config = small(method);
      config.micro_tokens = micro;
      PpoTrainer<D> trainer(policy, reference, even_share, config);
      auto metrics = as_map(trainer.step(prompts));
      CHECK(metrics.at("val/ratio_first_minibatch") == 1.0);
      CHECK(metrics.at("val/ratio_first_minibatch_max_deviation") == 0.0);
      CHECK(metrics.count("loss/value_avg") == 0);
      trainer.step(prompts);
      weights[micro > 0 ? 1 : 0] = policy.parameters().flat().to_vector();
    }
    // In bf16 a last bit may round an operand otherwise, and Adam's first steps have one size.
    if constexpr (!rounds_products<D>)
      CHECK(max_error(weights[0], std::vector<double>(weights[1].begin(), weights[1].end())) <
            2e-3);
  }
}

TEST_CASE("groups: every method finds what is rewarded") {
  const auto reference = tiny_model(tiny_llama(), 8, ScalarHead::None, 0.05F);
  const auto prompts = some_prompts(8, 19);
  for (const auto& [name, method] : choices(PolicyMethod{})) {
    if (method == PolicyMethod::Ppo) continue;
    CAPTURE(std::string(name));
    auto policy = tiny_model(tiny_llama(), 8, ScalarHead::None, 0.05F);
    PpoConfig config = small(method);
    config.optimizer.lr = 1e-2F;
    PpoTrainer<Cpu> trainer(policy, reference, even_share, config);
    const double before = as_map(trainer.step(prompts)).at("objective/scores");
    double after = 0;
    for (int i = 0; i < 25; ++i) after = as_map(trainer.step(prompts)).at("objective/scores");
    CHECK(after > before + 0.5);
  }
}

TEST_CASE("groups that agree are counted, and left out if asked, unless all do") {
  const auto reference = tiny_model(tiny_llama(), 8);
  const auto prompts = some_prompts(6, 19);
  const auto by_prompt = [](const std::vector<Episode>& episodes) {
    std::vector<float> scores;
    for (const Episode& e : episodes)
      scores.push_back(e.group % 3 == 0 ? 1.0F : static_cast<float>(e.response.size()));
    return scores;
  };
  auto policy = tiny_model(tiny_llama(), 7);
  PpoConfig config = small(PolicyMethod::Dapo);
  config.sampling.responses = 6;
  {
    PpoTrainer<Cpu> trainer(policy, reference, by_prompt, config);
    const auto metrics = as_map(trainer.step(prompts));
    CHECK(metrics.at("group/agreeing") == doctest::Approx(2.0 / 6));
    CHECK(metrics.at("group/kept") == 4);
    for (const Episode& e : trainer.episodes()) CHECK(e.group % 3 != 0);
  }
  config.keep_groups = 3;
  {
    PpoTrainer<Cpu> trainer(policy, reference, by_prompt, config);
    CHECK(as_map(trainer.step(prompts)).at("group/kept") == 3);
    CHECK(trainer.episodes().back().group == 4);
  }
  config.drop_agreeing = false;
  config.keep_groups = 0;
  {
    PpoTrainer<Cpu> trainer(policy, reference, by_prompt, config);
    const auto metrics = as_map(trainer.step(prompts));
    CHECK(metrics.at("group/agreeing") > 0.3);
    CHECK(metrics.at("group/kept") == 6);
  }
  config.drop_agreeing = true;
  PpoTrainer<Cpu> trainer(
      policy, reference,
      [](const auto& episodes) { return std::vector<float>(episodes.size(), 1.0F); }, config);
  const auto before = policy.parameters().flat().to_vector();
  const auto metrics = as_map(trainer.step(prompts));
  CHECK(metrics.at("group/agreeing") == 1);
  CHECK(metrics.at("group/kept") == 6);
  CHECK(metrics.at("grad_norm") == 0);
  CHECK(same_bits(policy.parameters().flat().to_vector(), before));
}

TEST_CASE("groups: the last tokens of the longest length cost up to one") {
  PpoConfig config;
  config.sampling.max_new_tokens = 10;
  config.overlong = 4;
  std::vector<Episode> episodes(4);
  const std::size_t lengths[] = {6, 7, 9, 10};
  for (std::size_t i = 0; i < 4; ++i) episodes[i].response.assign(lengths[i], 1);
  set_scores(
      episodes, [](const auto& all) { return std::vector<float>(all.size(), 2.0F); }, config);
  const float expected[] = {2.0F, 1.75F, 1.25F, 1.0F};
  for (std::size_t i = 0; i < 4; ++i) CHECK(episodes[i].score == expected[i]);
}

TEST_CASE("groups: what does not go together is refused") {
  auto policy = tiny_model(tiny_llama(), 7, ScalarHead::Value);
  const auto reference = tiny_model(tiny_llama(), 8);
  const auto error = [&](auto change) {
    PpoConfig config = small(PolicyMethod::Grpo);
    change(config);
    return message_of<DataError>([&] { PpoTrainer<Cpu>(policy, reference, even_share, config); });
  };
  CHECK(contains(error([](PpoConfig& c) { c.sampling.responses = 1; }), "needs at least 2"));
  CHECK(contains(error([](PpoConfig& c) {
                   c.ratio = RatioOf::Sequence;
                   c.reduction = Reduction::Token;
                 }),
                 "reduction must be sequences"));
  CHECK(contains(error([](PpoConfig& c) {
                   c.advantage = gae_advantages(1.0F, 0.95F);
                   c.ratio = RatioOf::SequenceMean;
                 }),
                 "one advantage a response"));
  CHECK(contains(error([](PpoConfig& c) { c.overlong = 11; }), "overlong"));
}
