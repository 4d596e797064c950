// The settings and the statistics of the losses, and in which chunks each backend sums them.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/math/kl.hpp>

#include <array>
#include <utility>

namespace plumb { inline namespace v0_1 {

/// Terms per chunk of a loss: its sum is one chain a chunk, the chunks in order; statistics
/// likewise.
inline constexpr Index kLossChunk = 256;

/// What is clipped in a policy loss. Objective: the clipped term is taken where it is the larger,
/// and has no gradient (PPO). Weight: the ratio is a weight of the log-prob and not differentiated;
/// clipped, it still teaches (CISPO; MiniMax 2025, "MiniMax-M1").
enum class ClipKind { Objective, Weight };
constexpr std::array<std::pair<const char*, ClipKind>, 2> choices(ClipKind) {
  return {{{"objective", ClipKind::Objective}, {"weight", ClipKind::Weight}}};
}

/// Clipping of the policy loss.
struct PpoClip {
  float low = 0.2F;   ///< ratio clipped below at 1 - low
  float high = 0.0F;  ///< and above at 1 + high; 0: as low
  float dual = 0.0F;  ///< dual clip c > 1 for negative advantages (Ye et al. 2020); 0: off
  float log_ratio_limit = 0.0F;  ///< clamp of |log ratio|; 0: off
  ClipKind kind = ClipKind::Objective;

  constexpr float upper() const { return high > 0.0F ? high : low; }
};

/// Weighted sums over the tokens of a policy loss; Δ = logprob - old_logprob.
struct PolicyStats {
  double weight = 0;         ///< Σ w
  double approx_kl = 0;      ///< Σ w ½Δ²
  double approx_kl_k3 = 0;   ///< Σ w (e^Δ - 1 - Δ)
  double clipfrac = 0;       ///< Σ w [the clipped term was the larger, or the weight clipped]
  double ratio = 0;          ///< Σ w e^Δ
  double ratio_squared = 0;  ///< Σ w e^2Δ
  double ratio_max_deviation = 0;  ///< max |e^Δ - 1|
};

/// Weighted sums over the steps of a value loss.
struct ValueStats {
  double weight = 0;           ///< Σ w
  double clipfrac = 0;         ///< Σ w [the clipped error was the larger]
  double error = 0;            ///< Σ w (v - R)²
  double mean = 0;             ///< Σ w v
  double returns_mean = 0;     ///< Σ w R
  double returns_squared = 0;  ///< Σ w R²
};

enum class RankingLossKind { BradleyTerry, PlackettLuce };

/// What a pair costs, by d = score of the better − score of the worse.
///   Logistic  −log σ(d − margin); smoothing ε mixes in the other order:
///             (1 − ε)·f(d) + ε·f(−d), f without the margin (conservative DPO, Mitchell 2023)
///   Robust    ((1 − ε)·f(d) − ε·f(−d)) / (1 − 2ε): unbiased where a share ε of the labels is
///             flipped (Chowdhury et al. 2024)
///   Square    (d − margin)² (IPO, Azar et al. 2023: margin 1/(2τ))
///   Hinge     max(0, margin − d) (SLiC, Zhao et al. 2023)
enum class PairLoss { Logistic, Robust, Square, Hinge };
constexpr std::array<std::pair<const char*, PairLoss>, 4> choices(PairLoss) {
  return {{{"logistic", PairLoss::Logistic},
           {"robust", PairLoss::Robust},
           {"square", PairLoss::Square},
           {"hinge", PairLoss::Hinge}}};
}

/// What counts alike in the mean over rankings: each of them, or each of their comparisons, which
/// is the fit of maximum likelihood.
enum class RankingWeight { Ranking, Comparison };
constexpr std::array<std::pair<const char*, RankingWeight>, 2> choices(RankingWeight) {
  return {{{"ranking", RankingWeight::Ranking}, {"comparison", RankingWeight::Comparison}}};
}

/// Where the margin of a pair is from: one constant, or besides it the data, whose responses then
/// say a level each (Touvron et al. 2023, section 3.2.2).
enum class MarginBy { Constant, Data };
constexpr std::array<std::pair<const char*, MarginBy>, 2> choices(MarginBy) {
  return {{{"constant", MarginBy::Constant}, {"data", MarginBy::Data}}};
}

/// Which loss rankings are fitted with.
struct RankingLoss {
  RankingLossKind kind = RankingLossKind::BradleyTerry;
  PairLoss pair = PairLoss::Logistic;
  float smoothing = 0.0F;  ///< ε of Logistic and Robust
  float margin = 0.0F;     ///< Bradley–Terry: subtracted from the difference of scores
  float center = 0.0F;     ///< coefficient of the mean squared sum of a pair's scores
  /// For who gives the levels (rlhf/ranking.hpp); a kernel adds those that it is given.
  MarginBy margin_by = MarginBy::Constant;
  /// For who weighs the prompts (rlhf/ranking.hpp); a kernel takes the weights that it is given.
  RankingWeight weight = RankingWeight::Ranking;
};

/// Counts over the judged pairs of a ranking loss; pairs tied in rank are not counted.
struct RankingStats {
  double pairs = 0;
  double correct = 0;     ///< equal scores count one half
  double margin_sum = 0;  ///< Σ (score of the better - score of the worse)
};

// The statistics of two parts of a batch together.
inline void add_stats(PolicyStats& sum, const PolicyStats& more) {
  sum.weight += more.weight;
  sum.approx_kl += more.approx_kl;
  sum.approx_kl_k3 += more.approx_kl_k3;
  sum.clipfrac += more.clipfrac;
  sum.ratio += more.ratio;
  sum.ratio_squared += more.ratio_squared;
  // A NaN is no small deviation, and stays.
  const double most = sum.ratio_max_deviation;
  if (most == most && !(more.ratio_max_deviation <= most))
    sum.ratio_max_deviation = more.ratio_max_deviation;
}
inline void add_stats(ValueStats& sum, const ValueStats& more) {
  sum.weight += more.weight;
  sum.clipfrac += more.clipfrac;
  sum.error += more.error;
  sum.mean += more.mean;
  sum.returns_mean += more.returns_mean;
  sum.returns_squared += more.returns_squared;
}
inline void add_stats(RankingStats& sum, const RankingStats& more) {
  sum.pairs += more.pairs;
  sum.correct += more.correct;
  sum.margin_sum += more.margin_sum;
}

}}  // namespace plumb::v0_1
