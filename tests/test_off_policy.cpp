// Rollouts that are not the policy's own: weights against their formulas, the on-policy case to the
// bit, and that what is not permitted is refused. What the weights make of a gradient's bias:
// test_exact.cpp.
#include "tiny.hpp"

#include <plumb/rlhf/group.hpp>

#include <doctest/doctest.h>

#include <map>

using namespace plumb;
using namespace test;

namespace {

PpoConfig off_policy_config(Correction correction) {
  PpoConfig config;
  use_method(config, PolicyMethod::DrGrpo);
  config.correction = correction;
  config.epochs = 2;
  config.minibatches = 2;
  config.sampling.max_new_tokens = 9;
  config.sampling.responses = 3;
  config.sampling.stops = {2};
  config.sampling.seed = 5;
  return config;
}

std::vector<float> share_of_even(const std::vector<Episode>& episodes) {
  std::vector<float> scores;
  for (const Episode& e : episodes) {
    float even = 0;
    for (const std::int32_t t : e.response) even += t % 2 == 0 ? 1.0F : 0.0F;
    scores.push_back(even / static_cast<float>(e.response.size()));
  }
  return scores;
}

const std::vector<Tokens> kFourPrompts{{4, 1}, {7}, {3, 8, 6}, {1, 5}};

constexpr Correction kWeighted[] = {Correction::TokenTruncate, Correction::TokenMask,
                                    Correction::SequenceTruncate, Correction::SequenceMask};

/// Three iterations; `sampler`: of other weights, if there is one.
struct OffPolicyRun {
  std::vector<float> weights;
  std::vector<Metrics> rows;
  std::vector<Episode> episodes;

  double last(const char* name) const {
    for (const auto& [key, value] : rows.back())
      if (key == name) return value;
    return NAN;
  }
};
OffPolicyRun run(const PpoConfig& config, const Model<Cpu>* sampler = nullptr) {
  auto policy = tiny_model(tiny_llama(), 7);
  const auto reference = policy.clone();
  PpoTrainer<Cpu> trainer(policy, reference, share_of_even, config);
  if (sampler != nullptr) trainer.sample_from(*sampler);
  OffPolicyRun result;
  for (int i = 0; i < 3; ++i) result.rows.push_back(trainer.step(kFourPrompts));
  result.weights = policy.parameters().flat().to_vector();
  result.episodes = trainer.episodes();
  return result;
}

}  // namespace

TEST_CASE("weights of importance are their formulas, and the mismatch is said") {
  // log π − log μ of two responses.
  const std::vector<std::vector<float>> apart{{0.5F, -0.25F, 1.0F}, {-1.0F, 0.125F}};
  for (const Correction correction : kWeighted) {
    CAPTURE(choice_name(correction));
    PpoConfig config = off_policy_config(correction);
    config.correction_cap = 2.0F;
    std::vector<Episode> episodes(2);
    for (std::size_t i = 0; i < 2; ++i) {
      episodes[i].response.resize(apart[i].size());
      for (const float x : apart[i]) {
        episodes[i].logprobs.push_back(-2.0F);
        episodes[i].policy_logprobs.push_back(-2.0F + x);
      }
    }
    const Metrics metrics = correct_mismatch(episodes, config);
    const bool sequence =
        correction == Correction::SequenceTruncate || correction == Correction::SequenceMask;
    const bool mask = correction == Correction::TokenMask || correction == Correction::SequenceMask;
    const double beyond = mask ? 0.0 : 2.0;
    const std::vector<std::vector<double>> expected =
        sequence ? std::vector<std::vector<double>>{{beyond, beyond, beyond},
                                                    {std::exp(-0.875), std::exp(-0.875)}}
                 : std::vector<std::vector<double>>{{std::exp(0.5), std::exp(-0.25), beyond},
                                                    {std::exp(-1.0), std::exp(0.125)}};
    for (std::size_t i = 0; i < 2; ++i) {
      CHECK(episodes[i].logprobs == episodes[i].policy_logprobs);
      REQUIRE(episodes[i].weights.size() == apart[i].size());
      for (std::size_t t = 0; t < apart[i].size(); ++t)
        CHECK(episodes[i].weights[t] == doctest::Approx(expected[i][t]).epsilon(1e-6));
    }
    std::map<std::string, double> by_name(metrics.begin(), metrics.end());
    CHECK(by_name.at("sampling/sampling_logp_difference/mean") == doctest::Approx(2.875 / 5));
    CHECK(by_name.at("sampling/sampling_logp_difference/max") == doctest::Approx(1.0));
    CHECK(by_name.at("sampling/importance_sampling_ratio/max") ==
          doctest::Approx(mask ? (sequence ? std::exp(-0.875) : std::exp(0.5)) : 2.0));
    CHECK(by_name.at("sampling/beyond_cap") == doctest::Approx(sequence ? 0.5 : 0.2));
  }
}

TEST_CASE("where the policy samples, every correction leaves a run as it is, to the bit") {
  const OffPolicyRun plain = run(off_policy_config(Correction::None));
  for (const auto& [name, correction] : choices(Correction{})) {
    CAPTURE(name);
    const OffPolicyRun corrected = run(off_policy_config(correction));
    CHECK(same_bits(corrected.weights, plain.weights));
    if (correction == Correction::None) continue;
    CHECK(corrected.last("sampling/sampling_logp_difference/max") == 0.0);
    CHECK(corrected.last("sampling/importance_sampling_ratio/min") == 1.0);
    CHECK(corrected.last("sampling/importance_sampling_ratio/max") == 1.0);
  }
  // By its own model, which is the same: not by the address.
  const auto twin = tiny_model(tiny_llama(), 7);
  PpoConfig config = off_policy_config(Correction::SequenceTruncate);
  config.sampling.seed = 9;
  auto policy = tiny_model(tiny_llama(), 7);
  PpoTrainer<Cpu> trainer(policy, twin, share_of_even, config);
  trainer.sample_from(twin);
  const auto first = trainer.step(kFourPrompts);
  for (const auto& [name, value] : first)
    if (name == "sampling/sampling_logp_difference/max") CHECK(value == 0.0);
}

TEST_CASE("another sampler: first ratios are 1, the weights are not, and threads change nothing") {
  const auto stale = tiny_model(tiny_llama(), 7, ScalarHead::None, 0.2F);
  for (const Correction correction : kWeighted) {
    CAPTURE(choice_name(correction));
    const OffPolicyRun one = run(off_policy_config(correction), &stale);
    CHECK(one.last("val/ratio_first_minibatch_max_deviation") == 0.0);
    CHECK(one.last("sampling/sampling_logp_difference/mean") > 0.01);
    CHECK(one.last("sampling/importance_sampling_ratio/min") <
          one.last("sampling/importance_sampling_ratio/max"));
    for (const int threads : {1, 3})
      with_threads(threads, [&] {
        CHECK(same_bits(run(off_policy_config(correction), &stale).weights, one.weights));
      });
  }
  // Uncorrected, the recorded log-probs are the ratio's, and are seen not to be the policy's.
  PpoConfig config = off_policy_config(Correction::None);
  config.allow_off_policy = true;
  CHECK(run(config, &stale).last("val/ratio_first_minibatch_max_deviation") > 0.0);
  CHECK(run(config, &stale).last("sampling/sampling_logp_difference/mean") > 0.01);
}

TEST_CASE("a filter's draws are weighed by the filtered distribution's own log-probs") {
  PpoConfig config = off_policy_config(Correction::SequenceTruncate);
  config.sampling.sampling.min_p = 0.3F;
  const OffPolicyRun filtered = run(config);
  // The policy gives each kept token less than the filter does: no weight above 1.
  CHECK(filtered.last("sampling/importance_sampling_ratio/max") <= 1.0);
  CHECK(filtered.last("sampling/importance_sampling_ratio/min") < 0.9);
  CHECK(filtered.last("sampling/beyond_cap") == 0.0);
  config = off_policy_config(Correction::TokenTruncate);
  config.sampling.kv_cache = CacheType::Bf16;
  CHECK(run(config).last("sampling/sampling_logp_difference/max") > 0.0);
}

TEST_CASE("what is off-policy is refused unless a correction or the permission is named") {
  auto policy = tiny_model(tiny_llama(), 7);
  const auto reference = policy.clone();
  const PpoConfig plain = off_policy_config(Correction::None);
  PpoTrainer<Cpu> trainer(policy, reference, share_of_even, plain);
  CHECK(contains(message_of<DataError>([&] { trainer.sample_from(reference); }), "off-policy"));
  const auto error = [&](const PpoConfig& config) {
    return message_of<DataError>(
        [&] { PpoTrainer<Cpu>(policy, reference, share_of_even, config); });
  };
  PpoConfig config = plain;
  config.sampling.sampling.min_p = 0.1F;
  CHECK(contains(error(config), "top-k, top-p and min-p"));
  config = plain;
  config.correction_cap = 0.5F;
  CHECK(contains(error(config), "correction-cap"));
  config = plain;
  use_method(config, PolicyMethod::Gspo);
  config.correction = Correction::TokenMask;
  CHECK(contains(error(config), "correction must be by sequence"));
}
