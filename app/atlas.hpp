// `plumb atlas`: every method beside the truth. On tables all responses can be listed, so where a
// method comes to rest, the gradient that it samples and what a proxy reward costs are known
// exactly; the trainers are those of every other command. Prints the tables, and writes them with
// their figures as methods.md. What is exact: plumb/exact/. Not here: real text, but for its cost.
#pragma once

#include "report.hpp"
#include "settings.hpp"

#include <plumb/plumb.hpp>

#include <plumb/exact/policy_updates.hpp>
#include <plumb/exact/preference_updates.hpp>
#include <plumb/rlhf/best_of_n.hpp>
#include <plumb/rlhf/ppo.hpp>

#include <functional>
#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 { namespace atlas {

/// One prompt, a table to begin with, and a reward of every response.
struct Problem {
  Problem(const TableShape& shape, std::int32_t stop, std::uint64_t seed);

  Table<Cpu> reference;
  std::int32_t stop;  // −1: responses end at the table's length
  Responses all;      // of the reference
  std::vector<double> reward;

  static constexpr std::int32_t kPrompt = 1;
  Responses of(const Table<Cpu>& policy) const { return {policy, kPrompt, stop}; }
  /// Scores by a table of rewards, as PPO asks for them.
  ScoreFunction score(const std::vector<double>& rewards) const;
  Index longest() const { return reference.config().length; }
};

/// A policy method's settings for a table: a coefficient of the divergence, k2 in the loss where
/// the method has no estimator of its own there, and no clip that a first ratio could meet.
PpoConfig table_config(PolicyMethod method, const Problem& problem, double beta);

/// Trains a table from the reference; `watch` sees it before each iteration and at the end.
using Watch = std::function<void(Index iteration, const Table<Cpu>&)>;
Table<Cpu> train_table(const Problem& problem, PolicyMethod method, PpoConfig config, Index prompts,
                       const std::vector<double>& reward, const Watch& watch = {});

/// Rankings of `k` responses: drawn alike without repetition, or from the reference; ordered by
/// Plackett–Luce with the rewards. A share `flipped` of them is turned round.
std::vector<RankedPrompt> ranked(const Problem& problem, const std::vector<double>& reward,
                                 Index count, Index k, std::uint64_t seed, bool from_reference,
                                 double flipped = 0);

/// A method on rankings as the atlas has it, and with which share of labels taken to be flipped.
struct Variant {
  const char* name;
  PreferenceMethod method;
  float smoothing = 0;

  /// The share of labels that are flipped in what it is given.
  double flipped() const { return method == PreferenceMethod::Robust ? double{smoothing} : 0.0; }
};
inline constexpr Variant kVariants[] = {{"dpo", PreferenceMethod::Dpo},
                                        {"dpo, conservative", PreferenceMethod::Dpo, 0.1F},
                                        {"robust", PreferenceMethod::Robust, 0.2F},
                                        {"ipo", PreferenceMethod::Ipo},
                                        {"hinge", PreferenceMethod::Hinge},
                                        {"simpo", PreferenceMethod::SimPo},
                                        {"orpo", PreferenceMethod::Orpo},
                                        {"pl", PreferenceMethod::PlackettLuce},
                                        {"kto", PreferenceMethod::Kto}};

/// Where a method comes to rest on responses of one token.
struct Rest {
  std::string method, target;  // what is known of where it should: in words
  double beta = 0;
  double distance = 0;      // total variation, trained policy to its own resting point
  double gap = 0;           // of J, where that point is J's optimum; else NaN
  double from_optimum = 0;  // total variation, its own resting point to J's optimum
  bool holds = false;
};
std::vector<Rest> rests(bool quick);

/// The same of sequences that end: the divergence of tokens, or of the whole.
std::vector<Rest> sequence_rests(bool quick);

/// What a sampled gradient is worth: how far its mean is from ∇J's direction, and how much it
/// varies.
struct GradientRow {
  std::string method;
  double bias = 0, low = 0, high = 0;  // ‖mean − c ∇J‖ / ‖c ∇J‖, c fitted; 95 %
  double own = 0;                      // the same of its own expectation, exact
  double variance = 0;                 // E‖g − mean‖² / ‖mean‖², of one response
};
std::vector<GradientRow> gradients(bool quick);

/// The same with a sampler that is another table, by correction.
std::vector<GradientRow> corrected_gradients(bool quick);

/// What division by the spread makes of the optimum: by β.
struct SpreadRow {
  double beta = 0, effective = 0;     // β times the spread at rest
  double best_optimum = 0, best = 0;  // likelihood of the best response, at J's optimum and at rest
  double distance = 0;
};
std::vector<SpreadRow> spreads();

/// Proxy and true reward against √KL, and the laws fitted to the true one.
struct GoodhartCurve {
  std::string size;
  Index labels = 0;
  bool best_of_n = false;
  double accuracy = 0;  // of the reward model on pairs
  std::vector<double> root_kl, proxy, truth;
  double alpha = 0, beta = 0, r2 = 0;
};
std::vector<GoodhartCurve> goodhart(bool quick);

/// J of a table against the responses seen, over seeds.
struct LearningCurve {
  std::string method;
  std::vector<double> seen, mean, half;  // 95 % interval: mean ± half
};
std::vector<LearningCurve> learning_curves(bool quick);

/// What a method makes of stories260K in a given number of responses: a rule's score of held-out
/// prompts, over seeds, and the exact divergence that it took.
struct RealScore {
  std::string method;
  double score = 0, half = 0;  // 95 % interval: score ± half
  double kl = 0;               // nats a response
};
std::vector<RealScore> real_scores(bool quick);

/// Processor time of a token of a response that is learned from, on stories260K.
struct Cost {
  std::string method;
  double microseconds = 0;
};
std::vector<Cost> costs(bool quick);

}  // namespace atlas
}}  // namespace plumb::v0_1
