// The losses of RLHF over one number per token, value or score: PPO policy and value loss, pairwise
// and K-wise ranking loss. Each computes the loss and its derivative in one pass. Bodies:
// loss.inl.hpp, math/loss.inl.hpp.
//
// Every loss is Σ weight · term. The weights carry the denominator of the *whole* batch (1 /
// tokens, or what reduction a configuration names), so that splitting a batch into parts never
// changes it. Order: terms in chunks of 256 from 0, one fma chain per chunk, chunks added in order.
// Statistics are sums in double precision in the same order; Σ weight · x over `weight` is a mean.
// One thread: these arrays are small. What this is not: a place for masks (what takes no part is
// not in the array) or for means.
#pragma once

#include <plumb/core/device.hpp>
#include <plumb/core/floats.hpp>
#include <plumb/cpu/isa.hpp>
#include <plumb/math/loss.hpp>

#include <cstdint>

namespace plumb { inline namespace v0_1 { namespace kernels {

struct LossTable {
  void (*ppo_policy)(float* loss, float* dlogprob, PolicyStats* stats, const float* logprob,
                     const float* old_logprob, const float* advantage, const float* weight, Index n,
                     const PpoClip& clip);
  void (*ppo_value)(float* loss, float* dvalue, ValueStats* stats, const float* value,
                    const float* old_value, const float* returns, const float* weight, Index n,
                    float clip);
  void (*kl)(float* loss, float* dlogprob, const float* logprob, const float* ref_logprob,
             const float* weight, Index n, KlEstimator kind);
  void (*weighted_sum)(float* sum, const float* x, const float* weight, Index n);
  void (*segment_sum)(float* sums, const float* x, const float* weight, const std::int32_t* offsets,
                      Index segments);
  void (*segment_spread)(float* dx, const float* dsums, const float* weight,
                         const std::int32_t* offsets, Index segments);
  void (*kto)(float* loss, float* dscore, const float* score, const float* sign,
              const float* weight, Index n, float reference);
  void (*log_odds_forward)(float* y, const float* x, Index n);
  void (*log_odds_backward)(float* dx, const float* dy, const float* x, Index n);
  void (*ranking)(float* loss, float* dscore, RankingStats* stats, const float* score,
                  const std::int32_t* rank, const float* level, const std::int32_t* offsets,
                  const float* weight, Index prompts, const RankingLoss& settings);
};

/// PPO's clipped policy loss Σ w·max(−Aρ, −A·clip(ρ, 1 − low, 1 + high)), ρ = e^(logprob −
/// old_logprob), in nats; see PpoClip for the dual clip, and for a clipped weight. All arrays (N),
/// of tokens or of whole sequences; loss (1), dlogprob and *stats, if given, are overwritten.
inline void ppo_policy_loss(Cpu, float* loss, float* dlogprob, PolicyStats* stats,
                            const float* logprob, const float* old_logprob, const float* advantage,
                            const float* weight, Index n, const PpoClip& clip) {
  const DefaultFloats floats;
  dispatch<LossTable>().ppo_policy(loss, dlogprob, stats, logprob, old_logprob, advantage, weight,
                                   n, clip);
}

/// Value loss Σ w·½·max((v − R)², (clip(v, old ± clip) − R)²); clip = 0 is plain ½ (v − R)², and
/// old_value may then be null. All arrays (N); loss (1), dvalue and *stats, if given, overwritten.
inline void ppo_value_loss(Cpu, float* loss, float* dvalue, ValueStats* stats, const float* value,
                           const float* old_value, const float* returns, const float* weight,
                           Index n, float clip) {
  const DefaultFloats floats;
  dispatch<LossTable>().ppo_value(loss, dvalue, stats, value, old_value, returns, weight, n, clip);
}

/// A divergence from the reference in the loss, Σ w·k with the estimator k of math/kl.hpp. All
/// arrays (N); loss (1) and dlogprob are overwritten. k1's gradient has expectation zero: it is the
/// score function alone, and holds nothing near the reference.
inline void kl_loss(Cpu, float* loss, float* dlogprob, const float* logprob,
                    const float* ref_logprob, const float* weight, Index n, KlEstimator kind) {
  const DefaultFloats floats;
  dispatch<LossTable>().kl(loss, dlogprob, logprob, ref_logprob, weight, n, kind);
}

/// sums (S): of each segment Σ w·x, in the order of the losses. x and weight (N), offsets (S + 1)
/// where segments begin, and the last one's end.
inline void segment_sum(Cpu, float* sums, const float* x, const float* weight,
                        const std::int32_t* offsets, Index segments) {
  const DefaultFloats floats;
  dispatch<LossTable>().segment_sum(sums, x, weight, offsets, segments);
}
/// dx (N) += w · dsums of each one's segment.
inline void segment_spread(Cpu, float* dx, const float* dsums, const float* weight,
                           const std::int32_t* offsets, Index segments) {
  const DefaultFloats floats;
  dispatch<LossTable>().segment_spread(dx, dsums, weight, offsets, segments);
}

/// sum[0] = Σ w·x, in the order of the losses. x and weight (N).
inline void weighted_sum(Cpu, float* sum, const float* x, const float* weight, Index n) {
  const DefaultFloats floats;
  dispatch<LossTable>().weighted_sum(sum, x, weight, n);
}

/// KTO's loss of single responses, Σ w·(1 − σ(sign·(score − reference))), sign 1 for a response
/// that is wanted and −1 for one that is not. All arrays (N); loss (1) and dscore are overwritten.
inline void kto_loss(Cpu, float* loss, float* dscore, const float* score, const float* sign,
                     const float* weight, Index n, float reference) {
  const DefaultFloats floats;
  dispatch<LossTable>().kto(loss, dscore, score, sign, weight, n, reference);
}

/// y = log(p / (1 − p)) with p = e^x: x (N), mean log-probs of responses. dx (N) += dy / (1 − p).
inline void log_odds_forward(Cpu, float* y, const float* x, Index n) {
  const DefaultFloats floats;
  dispatch<LossTable>().log_odds_forward(y, x, n);
}
inline void log_odds_backward(Cpu, float* dx, const float* dy, const float* x, Index n) {
  const DefaultFloats floats;
  dispatch<LossTable>().log_odds_backward(dx, dy, x, n);
}

/// Ranking loss Σ over prompts of weight · term. Prompt p has responses offsets[p] …
/// offsets[p+1]−1; rank (n): 0 is best, equal ranks tie, −1 was not judged and takes no part.
///
/// BradleyTerry: the mean over all judged pairs of −log σ(better − worse − margin), or of what
/// else PairLoss names, a tied pair giving −½ log σ(d) − ½ log σ(−d); plus center · the mean over
/// the pairs of (s_i + s_j)², as in TRL. level (n) or null: by how much that of the better response
/// is above that of the worse is added to the pair's margin; a tied pair has none.
///
/// PlackettLuce: over groups of equal rank from the best, each member gives log Σ e^(s of this and
/// later groups) − its s (ties by Breslow's approximation); the last group gives nothing; the mean
/// over the members that gave; plus center · the mean of s² over the judged. With one best and all
/// others tied it is the softmax cross-entropy of best-of-K in lm-human-preferences. It knows no
/// margin and reads no level.
///
/// Prompts with fewer than two judged responses, for PlackettLuce also those all tied, give 0.
/// score (n), weight (prompts), offsets (prompts + 1); loss (1), dscore (n) and *stats, if given,
/// are overwritten.
inline void ranking_loss(Cpu, float* loss, float* dscore, RankingStats* stats, const float* score,
                         const std::int32_t* rank, const float* level, const std::int32_t* offsets,
                         const float* weight, Index prompts, const RankingLoss& settings) {
  const DefaultFloats floats;
  dispatch<LossTable>().ranking(loss, dscore, stats, score, rank, level, offsets, weight, prompts,
                                settings);
}

}  // namespace kernels
}}  // namespace plumb::v0_1
