// Every choice of PPO for language models, with the variants that implementations differ in and where
// each comes from. Defaults: TRL's, where it has one.
#pragma once

#include <plumb/optim/adamw.hpp>
#include <plumb/rlhf/episode.hpp>
#include <plumb/rlhf/gae.hpp>
#include <plumb/rlhf/kl.hpp>

#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// Named numbers in a fixed order.
using Metrics = std::vector<std::pair<std::string, double>>;

/// Where the score enters. LastToken: with the response's last token. AfterEnd: one step later if
/// the response is shorter than the limit, reaching its tokens through the value of the state after
/// the end (TRL's layout).
enum class ScorePosition { LastToken, AfterEnd };

/// What happens to the score of a response that did not end. Subtract: score − penalty (TRL);
/// Replace: −penalty (lm-human-preferences).
enum class MissingEos { Subtract, Replace };

struct PpoConfig {
  Index iterations = 100;      ///< length of the linear schedule of the learning rate
  Index epochs = 4;            ///< passes over an iteration's episodes
  Index minibatches = 4;       ///< optimizer steps per epoch
  Index micro_sequences = 0;   ///< sequences per forward in an update; 0: the whole minibatch
  SampleOptions sampling;      ///< responses, length, temperature, stops, seed
  bool allow_filters = false;  ///< permit top-k, top-p or greedy rollouts, which are off-policy
  KlEstimator kl = KlEstimator::K1;  ///< of the penalty in the reward
  float beta = 0.05F;                ///< its coefficient, initially
  float kl_target = 0.0F;            ///< nats per response; 0: beta stays fixed
  float kl_horizon = 10000.0F;       ///< episodes
  float gamma = 1.0F, lambda = 0.95F;
  Whitening whiten_rewards = Whitening::None;
  Whitening whiten_advantages = Whitening::Population;
  PpoClip clip;
  float value_clip = 0.2F;  ///< 0: off
  float value_coef = 0.1F;
  float entropy_coef = 0.0F;
  float score_clip = 0.0F;  ///< scores are clipped to ± this; 0: off
  float missing_eos_penalty = 0.0F;
  MissingEos missing_eos = MissingEos::Subtract;
  ScorePosition score_position = ScorePosition::LastToken;
  float target_kl = 0.0F;  ///< an epoch whose mean approx_kl exceeds this is the last; 0: off
  bool linear_lr = true;   ///< learning rates fall to zero over `iterations`
  AdamWConfig optimizer{.lr = 1e-4F, .eps = 1e-5F};
  float value_lr = 1e-3F;  ///< of a separate value model
};

/// Scores for episodes: a reward model, or a rule.
using ScoreFunction = std::function<std::vector<float>(const std::vector<Episode>&)>;

}}  // namespace plumb::v0_1
