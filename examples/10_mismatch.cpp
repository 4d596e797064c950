// The mismatch laboratory: one training, bit for bit, but for noise in what samples.
//
// Shows: what becomes of a run whose responses come from weights that are nearly the policy's (of
// fewer bits, of an earlier iteration; here each times 1 + 0.12 of noise), and what corrections
// restore. Each row is the same run by Dr. GRPO, same prompts, same random numbers; only
// `correction` differs, and in the first row the policy itself samples. Taken at their word (none),
// the recorded log-probs make ratios far from 1, which the clip cuts on one side only: the policy
// is led away from what it scored by, at 290 nats. Log-probs computed anew, with weights by token,
// bring it back; so, at a higher price in KL, do they alone (recompute). Weights by sequence would
// be right on average; here they are so small (`weight`) that nothing is learned. Not: a cure for
// the noise.
//
// Prints:
//   sampler   correction         score at 0, 5, 10, 15         KL   clipped   weight
//   policy    none                0.88  3.71  4.69  5.14    108.8     0.023    1.000
//   noisy     none                0.73  1.27  0.74  1.07    290.1     0.035    0.663
//   noisy     recompute           0.73  3.02  4.19  4.99    142.4     0.044    0.004
//   noisy     token-truncate      0.73  2.55  3.16  4.40    118.4     0.059    0.855
//   noisy     sequence-truncate   0.73  1.01  0.34  0.62    137.5     0.001    0.000
//   noise ruins it: yes; weights by token restore it: yes
#include "stories.hpp"

#include <cstdio>
#include <map>

using namespace plumb;

// Weights near the policy's: each times 1 + noise, drawn anew in every iteration.
static void disturb(const Model<Cpu>& sampler, const Model<Cpu>& policy, Index iteration,
                    float noise) {
  auto weights = policy.parameters().flat().to_vector();
  Rng rng(7, Stage::Init, static_cast<std::uint32_t>(iteration));
  for (float& w : weights) w *= 1.0F + noise * rng.normal();
  const auto& to = sampler.parameters().flat();
  copy_from_host(Cpu{}, to.data(), weights.data(), to.bytes());
}

int main() {
  const LanguageModel<Cpu> stories = open_stories();
  const Model<Cpu>& reference = *stories.model;
  PpoConfig config;
  use_method(config, PolicyMethod::DrGrpo);
  config.iterations = 16;
  config.epochs = 1;
  config.minibatches = 2;
  config.linear_lr = false;
  config.optimizer.lr = 1.5e-3F;
  config.allow_off_policy = true;
  config.sampling.max_new_tokens = 48;
  config.sampling.responses = 4;
  config.sampling.stops = stories.stops;
  config.sampling.seed = 3;
  const auto prompts =
      encoded(stories, openings("tinystories_train.txt", 512), config.sampling.max_new_tokens);
  const ScoreFunction score = [&](const std::vector<Episode>& episodes) {
    std::vector<float> scores;
    for (const Episode& e : episodes)
      scores.push_back(friendly(response_text(stories, e.prompt, e.response)));
    return scores;
  };

  std::map<std::string, double> last;  // score of each run, by its name
  const auto train = [&](float noise, Correction correction) {
    config.correction = correction;
    const Model<Cpu> sampler = reference.clone();
    Model<Cpu> policy = reference.clone();
    PpoTrainer<Cpu> trainer(policy, reference, score, config);
    trainer.sample_from(sampler);
    const std::string name = noise > 0 ? choice_name(correction) : "policy";
    std::printf("%-8s  %-18s", noise > 0 ? "noisy" : "policy", choice_name(correction));
    std::map<std::string, double> m;
    for (Index i = 0; i < config.iterations; ++i) {
      disturb(sampler, policy, i, noise);
      const auto first = prompts.begin() + i * 32 % 480;
      const Metrics row = trainer.step({first, first + 32});
      m = {row.begin(), row.end()};
      if (i % 5 == 0) std::printf("%6.2f", m.at("objective/scores"));
    }
    std::printf("  %7.1f  %8.3f  %7.3f\n", m.at("objective/kl_exact"), m.at("policy/clipfrac_avg"),
                m.at("sampling/importance_sampling_ratio/mean"));
    last[name] = m.at("objective/scores");
  };

  std::printf("sampler   correction         score at 0, 5, 10, 15         KL   clipped   weight\n");
  train(0.0F, Correction::None);
  for (const Correction correction : {Correction::None, Correction::Recompute,
                                      Correction::TokenTruncate, Correction::SequenceTruncate})
    train(0.12F, correction);
  const bool ruined = last["none"] < 0.5 * last["policy"];
  const bool restored = last["token-truncate"] > 0.8 * last["policy"];
  std::printf("noise ruins it: %s; weights by token restore it: %s\n", ruined ? "yes" : "no",
              restored ? "yes" : "no");
  return ruined && restored ? 0 : 1;
}
