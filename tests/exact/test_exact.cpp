// Methods beside the truth: on a policy that is a table every response can be enumerated, so the
// optimum and the exact gradient are known. Trained by the trainers that everything else uses.
#include "../tiny.hpp"

#include <plumb/exact/policy_updates.hpp>
#include <plumb/exact/preference_updates.hpp>
#include <plumb/rlhf/best_of_n.hpp>

#include <doctest/doctest.h>

#include <functional>

using namespace plumb;
using namespace test;

namespace {

constexpr double kBeta = 0.5;

std::vector<double> some_rewards(std::size_t n, std::uint64_t seed) {
  const auto r = random_vector(static_cast<Index>(n), seed, 1.0F);
  return {r.begin(), r.end()};
}

ScoreFunction score_of(const Responses& all, const std::vector<double>& reward) {
  return [&](const std::vector<Episode>& episodes) {
    std::vector<float> scores;
    for (const Episode& e : episodes)
      scores.push_back(static_cast<float>(reward[all.place(e.response)]));
    return scores;
  };
}

PpoConfig exact_config(PolicyMethod method, Index length) {
  PpoConfig config;
  use_method(config, method);
  config.iterations = 400;
  config.epochs = 1;
  config.minibatches = 1;
  config.sampling.max_new_tokens = length;
  config.sampling.responses = 32;
  config.sampling.stops = {};
  config.sampling.seed = 3;
  config.beta = static_cast<float>(kBeta);
  config.clip.high = 0;
  config.optimizer = {.lr = 0.05F, .max_grad_norm = 0};
  return config;
}

/// What is left of the way from the reference to the optimum after a training by `config`.
struct Outcome {
  double distance, gap;  ///< total variation to π*; J(π*) − J(π)
};
Outcome outcome(const TableShape& shape, const PpoConfig& config) {
  const Table<Cpu> reference(shape, 11);
  Table<Cpu> policy = reference.clone();
  const Responses all(reference, 1);
  const auto reward = some_rewards(all.size(), 5);
  PpoTrainer<Cpu, Table<Cpu>> trainer(policy, reference, score_of(all, reward), config);
  const std::vector<Tokens> prompts(8, Tokens{1});
  for (Index i = 0; i < config.iterations; ++i) trainer.step(prompts);
  const Responses now(policy, 1);
  const auto best = tilted(all.logprobs, reward, kBeta);
  return {total_variation(now.probabilities, best),
          objective(best, all.logprobs, reward, kBeta) -
              objective(now.probabilities, all.logprobs, reward, kBeta)};
}

}  // namespace

TEST_CASE("exact: a table samples what it holds") {
  const Table<Cpu> policy({4, 2}, 11);
  const Responses all(policy, 1);
  CHECK(all.size() == 16);
  double total = 0;
  for (const double x : all.logprobs) total += std::exp(x);
  CHECK(total == doctest::Approx(1.0));
  SampleOptions options;
  options.responses = 2000;
  options.max_new_tokens = 2;
  for (const Response& r : sample(policy, {{1}}, options)) {
    REQUIRE(r.tokens.size() == 2);
    CHECK(r.logprobs[0] + r.logprobs[1] ==
          doctest::Approx(all.logprobs[all.place(r.tokens)]).epsilon(1e-5));
  }
}

TEST_CASE("exact: methods with the divergence of whole sequences reach the tilted optimum") {
  for (const Index length : {1, 2}) {
    CAPTURE(length);
    const TableShape shape{length == 1 ? 8 : 4, length};
    {
      const Outcome rloo = outcome(shape, exact_config(PolicyMethod::Rloo, length));
      CHECK(rloo.distance < 0.03);
      CHECK(rloo.gap < 0.01);
    }
    {
      PpoConfig config = exact_config(PolicyMethod::ReinforcePlusPlus, length);
      config.whiten_advantages = Whitening::None;  // which would scale the reward against β
      const Outcome reinforce = outcome(shape, config);
      CHECK(reinforce.distance < 0.03);
      CHECK(reinforce.gap < 0.01);
    }
  }
  // k2 in the loss has the gradient of KL(π‖π_ref) for single tokens.
  PpoConfig config = exact_config(PolicyMethod::DrGrpo, 1);
  config.kl = KlEstimator::K2;
  const Outcome bandit = outcome({8, 1}, config);
  CHECK(bandit.distance < 0.03);
  CHECK(bandit.gap < 0.01);
}

TEST_CASE("exact: k3 in the loss, and division by a group's spread, move the optimum") {
  // k3's gradient on the policy's own samples is that of KL(π_ref‖π).
  const auto distance = [](PolicyMethod method, KlEstimator kl) {
    PpoConfig config = exact_config(method, 1);
    config.kl = kl;
    return outcome({8, 1}, config).distance;
  };
  CHECK(distance(PolicyMethod::DrGrpo, KlEstimator::K3) > 0.05);
  CHECK(distance(PolicyMethod::Grpo, KlEstimator::K2) > 0.05);
}

TEST_CASE("exact: DPO and its K-wise form on rankings without end reach the tilted optimum") {
  const TableShape shape{8, 1};
  const Table<Cpu> reference(shape, 11);
  const Responses all(reference, 1);
  auto reward = some_rewards(all.size(), 5);
  for (double& r : reward) r *= 0.5;
  const auto best = tilted(all.logprobs, reward, kBeta);
  for (const PreferenceMethod method : {PreferenceMethod::Dpo, PreferenceMethod::PlackettLuce}) {
    CAPTURE(choice_name(method));
    // Rankings of responses drawn alike, by Plackett–Luce with the rewards.
    const Index k = method == PreferenceMethod::Dpo ? 2 : 4;
    Rng rng(17);
    std::vector<RankedPrompt> prompts;
    for (int i = 0; i < 30000; ++i) {
      RankedPrompt p;
      auto places = permutation(8, Rng(23, Stage::Split, static_cast<std::uint32_t>(i)));
      places.resize(static_cast<std::size_t>(k));
      std::vector<std::pair<double, std::size_t>> keys;  // Gumbel: the order of noisy rewards
      for (std::size_t j = 0; j < places.size(); ++j) {
        const double u = (rng.below(1U << 30) + 0.5) / (1U << 30);
        keys.emplace_back(-reward[static_cast<std::size_t>(places[j])] + std::log(-std::log(u)), j);
      }
      std::sort(keys.begin(), keys.end());
      p.rank.resize(places.size());
      for (std::size_t r = 0; r < keys.size(); ++r)
        p.rank[keys[r].second] = static_cast<std::int32_t>(r);
      for (const Index place : places) {
        p.sequences.push_back({1, static_cast<std::int32_t>(place)});
        p.begins.push_back(1);
        p.lengths.push_back(1);
      }
      prompts.push_back(std::move(p));
    }
    Table<Cpu> policy = reference.clone();
    PreferenceConfig config;
    config.method = method;
    config.beta = static_cast<float>(kBeta);
    config.batch = 100;
    config.epochs = 2;
    config.optimizer = {.lr = 0.05F, .max_grad_norm = 0};
    PreferenceTrainer<Table<Cpu>>(policy, &reference, prompts, config).train();
    CHECK(total_variation(Responses(policy, 1).probabilities, best) < 0.03);
  }
}

TEST_CASE(
    "exact: the best of n has the law that is computed, and no more divergence than the bound") {
  const Table<Cpu> policy({4, 2}, 11);
  const Responses all(policy, 1);
  std::vector<double> p;
  for (const double x : all.logprobs) p.push_back(std::exp(x));
  auto reward = some_rewards(all.size(), 5);
  reward[3] = reward[7];  // responses that score alike
  const Index n = 4;
  const BestOfN law = best_of_n_law(p, reward, n);
  double total = 0;
  for (const double x : law.probabilities) total += x;
  CHECK(total == doctest::Approx(1.0));
  // Its divergence and win rate, by their definitions.
  double kl = 0, win = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    kl += law.probabilities[i] * std::log(law.probabilities[i] / p[i]);
    for (std::size_t j = 0; j < p.size(); ++j)
      win += law.probabilities[i] * p[j] *
             (reward[i] > reward[j]    ? 1.0
              : reward[i] == reward[j] ? 0.5
                                       : 0.0);
  }
  CHECK(law.kl == doctest::Approx(kl).epsilon(1e-12));
  CHECK(law.win_rate == doctest::Approx(win).epsilon(1e-12));
  CHECK(law.kl < best_of_n_kl_bound(n));
  // Many responses, none likely, none alike: the bound itself, and n / (n + 1).
  const std::vector<double> even(4096, 1.0 / 4096);
  std::vector<double> apart(4096);
  for (std::size_t i = 0; i < apart.size(); ++i) apart[i] = static_cast<double>(i);
  const BestOfN fine = best_of_n_law(even, apart, n);
  CHECK(fine.kl == doctest::Approx(best_of_n_kl_bound(n)).epsilon(1e-3));
  CHECK(fine.win_rate == doctest::Approx(0.8).epsilon(1e-3));
  // Samples: the best of each n, and the mean that all K of a prompt give.
  SampleOptions options;
  options.responses = 8000;
  options.max_new_tokens = 2;
  std::vector<double> scores;
  for (const Response& r : sample(policy, {{1}}, options))
    scores.push_back(reward[all.place(r.tokens)]);
  double expected = 0, mean = 0;
  for (std::size_t i = 0; i < p.size(); ++i) expected += law.probabilities[i] * reward[i];
  for (std::size_t i = 0; i < scores.size(); i += 16)
    mean += best_of_n_mean({scores.begin() + static_cast<std::ptrdiff_t>(i),
                            scores.begin() + static_cast<std::ptrdiff_t>(i + 16)},
                           n) *
            16 / static_cast<double>(scores.size());
  CHECK(mean == doctest::Approx(expected).epsilon(0.05));
  // By hand: of three scores, the best of two is the middle one in one set of three.
  CHECK(best_of_n_mean({1.0, 2.0, 4.0}, 2) == doctest::Approx((2.0 + 4.0 + 4.0) / 3));
  CHECK(best_of_n_mean({1.0, 2.0, 4.0}, 3) == 4.0);
  CHECK(best_of_n_mean({1.0, 2.0, 4.0}, 1) == doctest::Approx(7.0 / 3));
}
