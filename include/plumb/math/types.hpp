// The plain types that kernels of every backend and the ops above them share: enumerations and
// settings structs, and sums of statistics.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/math/kl.hpp>

#include <cstdint>

namespace plumb { inline namespace v0_1 {

/// What a hidden layer does to each element. Gelu is the tanh form, GeluErf the exact one.
enum class Activation : int { Gelu = 0, Silu = 1, Tanh = 2, Relu = 3, GeluErf = 4 };

/// Which operand of a matrix product is stored transposed: A·B, A·Bᵀ, Aᵀ·B.
enum class Form : int { NN, NT, TN };

/// What a matrix product does after its last chunk: (sum + bias) + residual, and f of that.
struct Epilogue {
  const float* bias = nullptr;               ///< (N)
  const float* residual = nullptr;           ///< (M, N)
  float* activated = nullptr;                ///< (M, N), overwritten; it may be the product itself
  Activation activation = Activation::Gelu;  ///< f, where `activated` is given
};

/// Products' k per chunk.
inline constexpr Index kChunk = 256;

/// Tokens per chunk of every sum over tokens.
inline constexpr Index kTokenChunk = 256;

/// Logits that a head holds at once: 48 MiB.
inline constexpr Index kHeadLogits = 12 << 20;

/// Rows in a chunk of a head over V tokens: a multiple of 256, so that chunks change no sum's
/// order.
constexpr Index head_rows(Index v) {
  const Index most = kHeadLogits / (kChunk * (v > 1 ? v : 1));
  return kChunk * (most > 1 ? most : 1);
}

/// What stands for a difference of logits that no float holds: its token has no probability at all.
inline constexpr float kLowestLogit = -0x1.fffffep127F;
/// The same where it is multiplied by a gradient, which leaves room for one.
inline constexpr float kRareLogit = -0x1p100F;

/// Keys per block of the online softmax; blocks are aligned to absolute position 0.
inline constexpr Index kKeyBlock = 32;

/// Keys whose softmax is computed from a fresh state; the chunks' states are then merged in order.
/// So a GPU may take the chunks of one row side by side.
inline constexpr Index kAttentionChunk = 512;

/// Largest head size that attention kernels take.
inline constexpr Index kMaxHeadSize = 256;

/// Heads of an attention layer: query head h reads key/value head h / (heads / kv_heads).
struct AttentionShape {
  Index heads, kv_heads, head_size;
  float scale;  ///< usually 1 / √head_size
};

/// Key/value cache of one layer: `slots` sequences of up to `capacity` positions (rounded up to
/// kKeyBlock). Keys lie transposed in blocks, [slot][kv_head][block][head_size][kKeyBlock]; values
/// as [slot][kv_head][position][head_size].
struct KvShape {
  Index slots, capacity;
  AttentionShape attention;

  Index rounded_capacity() const { return (capacity + kKeyBlock - 1) / kKeyBlock * kKeyBlock; }
  Index slot_size() const { return attention.kv_heads * rounded_capacity() * attention.head_size; }
  Index keys_size() const { return slots * slot_size(); }
  Index values_size() const { return slots * slot_size(); }
};

/// One step of AdamW: see cpu/optimizer.hpp for the order of operations.
struct AdamWStep {
  float lr, beta1, beta2, eps, weight_decay;
  float grad_scale;  ///< clipping factor, multiplied into every gradient
  Index step;        ///< from 1
  bool eps_inside;   ///< false: PyTorch, eps added to √v̂; true: TensorFlow, eps added to √v
};

/// How the next token is drawn. temperature 0 is greedy: the largest logit, the lowest index on
/// ties.
struct SamplingSettings {
  float temperature = 1.0F;
  Index top_k = 0;     ///< keep the k most probable; 0: all
  float top_p = 1.0F;  ///< then the smallest set of at least this mass; 1: all

  /// Whether the draw is from another distribution than softmax(logits / temperature).
  bool filters() const { return top_k > 0 || top_p < 1.0F || temperature == 0.0F; }
};

/// NumericError naming the first of n drawn rows whose log-probability is NaN.
inline void require_drawn(const float* logprob, Index n) {
  for (Index i = 0; i < n; ++i)
    if (logprob[i] != logprob[i])
      fail<NumericError>(
          str("[sample_rows] row ", i,
              ": a logit is NaN or +infinity, so nothing can be drawn. HINT: are the "
              "model's weights finite, and the temperature not too small?"));
}

/// Where a draw stands: its random number is a function of this alone.
struct SampleKey {
  std::uint64_t seed;
  std::uint32_t step, sequence, token;
};

/// Terms per chunk of a loss: its sum is one chain a chunk, the chunks in order; statistics
/// likewise.
inline constexpr Index kLossChunk = 256;

/// Clipping of the PPO policy loss.
struct PpoClip {
  float low = 0.2F;   ///< ratio clipped below at 1 - low
  float high = 0.0F;  ///< and above at 1 + high; 0: as low
  float dual = 0.0F;  ///< dual clip c > 1 for negative advantages (Ye et al. 2020); 0: off
  float log_ratio_limit = 0.0F;  ///< clamp of |log ratio|; 0: off

  constexpr float upper() const { return high > 0.0F ? high : low; }
};

/// Weighted sums over the tokens of a policy loss; Δ = logprob - old_logprob.
struct PolicyStats {
  double weight = 0;               ///< Σ w
  double approx_kl = 0;            ///< Σ w ½Δ²
  double approx_kl_k3 = 0;         ///< Σ w (e^Δ - 1 - Δ)
  double clipfrac = 0;             ///< Σ w [the clipped term was the larger]
  double ratio = 0;                ///< Σ w e^Δ
  double ratio_squared = 0;        ///< Σ w e^2Δ
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

/// Which loss rankings are fitted with.
struct RankingLoss {
  RankingLossKind kind = RankingLossKind::BradleyTerry;
  float margin = 0.0F;  ///< Bradley–Terry: subtracted from the difference of scores
  float center = 0.0F;  ///< coefficient of the mean squared sum of a pair's scores
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
