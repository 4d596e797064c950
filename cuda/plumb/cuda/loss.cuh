// The losses of RLHF, with the CPU's terms, orders and bits (cpu/loss.hpp): a block a chunk of 256
// terms, whose threads compute a term each; one thread then runs the loss's fma chain, others
// beside it one statistic each. Bound by latency: the arrays are a few thousand numbers, and a
// chain of 256 takes some microseconds however many chunks run side by side.
#pragma once

#include <plumb/cuda/device.cuh>
#include <plumb/cuda/elementwise.cuh>
#include <plumb/cuda/lanes.cuh>
#include <plumb/math/loss.hpp>

namespace plumb { inline namespace v0_1 {
namespace kernels {

namespace gpu {

inline constexpr int kLossThreads = static_cast<int>(kLossChunk);

struct NoStats {};

/// One term of a loss: weight · value, and what it adds to the statistics.
template <class Stats>
struct LossTerm {
  float weight, value;
  Stats stats;
};

/// Statistics as an array of doubles: all are sums, but PolicyStats' last is a maximum.
template <class Stats>
inline constexpr int kStatistics = std::is_same_v<Stats, NoStats>
                                       ? 0
                                       : static_cast<int>(sizeof(Stats) / sizeof(double));

template <class Stats>
__device__ void add_statistic(double& sum, double more, int which) {
  if (std::is_same_v<Stats, PolicyStats> && which == kStatistics<Stats> - 1) {
    if (sum == sum && !(more <= sum)) sum = more;  // a NaN stays
  } else {
    sum = sum + more;
  }
}

/// Statistic `which` of `count` terms or chunks, in order.
template <class Stats>
__device__ double sum_statistic(const Stats* stats, Index count, int which) {
  double sum = 0.0;
  for (Index i = 0; i < count; ++i)
    add_statistic<Stats>(sum, reinterpret_cast<const double*>(stats + i)[which], which);
  return sum;
}

/// Blocks that must fit on a multiprocessor; 0: as the compiler likes. For the ranking term, which
/// loops over a prompt's pairs, it likes too many on newer architectures, and spills registers.
template <class Stats>
inline constexpr int kLossBlocks = std::is_same_v<Stats, RankingStats> ? 4 : 0;

/// sums[chunk] and stats[chunk] of the terms term(i), i < n.
template <class Stats, class Term>
__global__ void __launch_bounds__(kLossThreads, kLossBlocks<Stats>)
    loss_chunk_kernel(float* sums, Stats* stats, Term term, Index n) {
  __shared__ float weight[kLossThreads], value[kLossThreads];
  __shared__ __align__(8) unsigned char bytes[kLossThreads * sizeof(Stats)];
  Stats* own = reinterpret_cast<Stats*>(bytes);
  const int t = static_cast<int>(threadIdx.x);
  const Index first = static_cast<Index>(blockIdx.x) * kLossChunk;
  const Index count = n - first < kLossChunk ? n - first : kLossChunk;
  if (t < count) {
    const LossTerm<Stats> one = term(first + t);
    weight[t] = one.weight;
    value[t] = one.value;
    if constexpr (kStatistics < Stats >> 0) own[t] = one.stats;
  }
  __syncthreads();
  if (t == 0) {
    float chunk = 0.0F;
    for (int i = 0; i < count; ++i) chunk = fma(weight[i], value[i], chunk);
    sums[blockIdx.x] = chunk;
  }
  if constexpr (kStatistics < Stats >> 0) {
    const int which = t - kWarp;  // a warp of its own
    if (which >= 0 && which < kStatistics<Stats>)
      reinterpret_cast<double*>(stats + blockIdx.x)[which] = sum_statistic(own, count, which);
  }
}

/// The chunks in order.
template <class Stats>
__global__ void __launch_bounds__(kWarp)
    loss_total_kernel(float* loss, Stats* total, const float* sums, const Stats* stats,
                      Index chunks) {
  const int t = static_cast<int>(threadIdx.x);
  if (t == kWarp - 1) {
    float sum = 0.0F;
    for (Index i = 0; i < chunks; ++i) sum = sum + sums[i];
    *loss = sum;
  }
  if constexpr (kStatistics < Stats >> 0)
    if (total != nullptr && t < kStatistics<Stats>)
      reinterpret_cast<double*>(total)[t] = sum_statistic(stats, chunks, t);
}

/// loss[0] = Σ of n terms, and *stats, if given, on the device.
template <class Stats, class Term>
void sum_loss(Cuda device, float* loss, Stats* stats, const Term& term, Index n) {
  const Index chunks = (n + kLossChunk - 1) / kLossChunk;
  const DeviceScratch<float> sums(device, chunks);
  const DeviceScratch<Stats> chunk_stats(device, chunks);
  if (chunks > 0)
    PLUMB_LAUNCH((loss_chunk_kernel<Stats, Term>), static_cast<unsigned>(chunks), kLossThreads, 0,
                 device.stream, sums.data(), chunk_stats.data(), term, n);
  PLUMB_LAUNCH((loss_total_kernel<Stats>), 1, kWarp, 0, device.stream, loss, stats, sums.data(),
               chunk_stats.data(), chunks);
}

struct PolicyTerm {
  float* dlogprob;
  const float *logprob, *old_logprob, *advantage, *weight;
  PpoClip clip;
  __device__ LossTerm<PolicyStats> operator()(Index i) const {
    const PpoTerm term = ppo_policy_term(logprob[i], old_logprob[i], advantage[i], clip);
    dlogprob[i] = weight[i] * term.derivative;
    return {weight[i], term.value, ppo_policy_stats(term, weight[i])};
  }
};

struct ValueLossTerm {
  float* dvalue;
  const float *value, *old_value, *returns, *weight;
  float clip;
  __device__ LossTerm<ValueStats> operator()(Index i) const {
    const float old = clip > 0.0F ? old_value[i] : 0.0F;
    const ValueTerm term = ppo_value_term(value[i], old, returns[i], clip);
    dvalue[i] = weight[i] * term.derivative;
    return {weight[i], term.value, ppo_value_stats(term, value[i], returns[i], weight[i])};
  }
};

struct WeightedTerm {
  const float *x, *weight;
  __device__ LossTerm<NoStats> operator()(Index i) const { return {weight[i], x[i], {}}; }
};

struct KlLossTerm {
  float* dlogprob;
  const float *logprob, *ref_logprob, *weight;
  KlEstimator kind;
  __device__ LossTerm<NoStats> operator()(Index i) const {
    const KlTerm term = kl_loss_term(logprob[i], ref_logprob[i], kind);
    dlogprob[i] = weight[i] * term.derivative;
    return {weight[i], term.value, {}};
  }
};

/// A thread a segment: some hundred terms of 8 bytes, one chain a chunk, bound by latency as the
/// losses are.
struct SegmentSum {
  float* sums;
  const float *x, *weight;
  const std::int32_t* offsets;
  __device__ void operator()(Index s) const {
    float total = 0.0F;
    for (Index first = offsets[s]; first < offsets[s + 1]; first += kLossChunk) {
      const Index end = first + kLossChunk < offsets[s + 1] ? first + kLossChunk : offsets[s + 1];
      float chunk = 0.0F;
      for (Index i = first; i < end; ++i) chunk = fma(weight[i], x[i], chunk);
      total = total + chunk;
    }
    sums[s] = total;
  }
};
struct SegmentSpread {
  float* dx;
  const float *dsums, *weight;
  const std::int32_t* offsets;
  __device__ void operator()(Index s) const {
    for (Index i = offsets[s]; i < offsets[s + 1]; ++i) dx[i] = fma(weight[i], dsums[s], dx[i]);
  }
};

struct KtoTerm {
  float* dscore;
  const float *score, *sign, *weight;
  float reference;
  __device__ LossTerm<NoStats> operator()(Index i) const {
    const PairTerm term = kto_term(score[i], reference, sign[i]);
    dscore[i] = weight[i] * term.derivative;
    return {weight[i], term.value, {}};
  }
};
struct LogOdds {
  float* y;
  const float* x;
  __device__ void operator()(Index i) const { y[i] = log_odds_term(x[i]).value; }
};
struct LogOddsBackward {
  float* dx;
  const float *dy, *x;
  __device__ void operator()(Index i) const {
    dx[i] = fma(dy[i], log_odds_term(x[i]).derivative, dx[i]);
  }
};

struct RankingTerm {
  float* dscore;
  const float* score;
  const std::int32_t* rank;
  const float* level;  // or null
  const std::int32_t* offsets;
  const float* weight;
  RankingLoss settings;
  __device__ LossTerm<RankingStats> operator()(Index p) const {
    const Index first = offsets[p], count = offsets[p + 1] - offsets[p];
    const RankingStats stats = ranking_stats(score + first, rank + first, count);
    return {weight[p],
            ranking_term(dscore + first, score + first, rank + first,
                         level == nullptr ? nullptr : level + first, count, weight[p], settings),
            stats};
  }
};

}  // namespace gpu

/// PPO's clipped policy loss; see the CPU's. All arrays (N) on the device; loss (1) and dlogprob
/// are overwritten, and *stats on the device, or null.
inline void ppo_policy_loss(Cuda device, float* loss, float* dlogprob, PolicyStats* stats,
                            const float* logprob, const float* old_logprob, const float* advantage,
                            const float* weight, Index n, const PpoClip& clip) {
  gpu::sum_loss(device, loss, stats,
                gpu::PolicyTerm{dlogprob, logprob, old_logprob, advantage, weight, clip}, n);
}

/// Value loss; see the CPU's. All arrays (N) on the device; loss (1) and dvalue are overwritten,
/// and
/// *stats on the device, or null.
inline void ppo_value_loss(Cuda device, float* loss, float* dvalue, ValueStats* stats,
                           const float* value, const float* old_value, const float* returns,
                           const float* weight, Index n, float clip) {
  gpu::sum_loss(device, loss, stats,
                gpu::ValueLossTerm{dvalue, value, old_value, returns, weight, clip}, n);
}

/// A divergence in the loss; see the CPU's.
inline void kl_loss(Cuda device, float* loss, float* dlogprob, const float* logprob,
                    const float* ref_logprob, const float* weight, Index n, KlEstimator kind) {
  gpu::sum_loss<gpu::NoStats>(device, loss, nullptr,
                              gpu::KlLossTerm{dlogprob, logprob, ref_logprob, weight, kind}, n);
}

/// sums (S): of each segment Σ w·x; see the CPU's.
inline void segment_sum(Cuda device, float* sums, const float* x, const float* weight,
                        const std::int32_t* offsets, Index segments) {
  gpu::map(device, gpu::SegmentSum{sums, x, weight, offsets}, segments);
}
/// dx (N) += w · dsums of each one's segment.
inline void segment_spread(Cuda device, float* dx, const float* dsums, const float* weight,
                           const std::int32_t* offsets, Index segments) {
  gpu::map(device, gpu::SegmentSpread{dx, dsums, weight, offsets}, segments);
}

/// sum[0] = Σ w·x, in the order of the losses. x and weight (N).
inline void weighted_sum(Cuda device, float* sum, const float* x, const float* weight, Index n) {
  gpu::sum_loss<gpu::NoStats>(device, sum, nullptr, gpu::WeightedTerm{x, weight}, n);
}

/// KTO's loss of single responses; see the CPU's.
inline void kto_loss(Cuda device, float* loss, float* dscore, const float* score, const float* sign,
                     const float* weight, Index n, float reference) {
  gpu::sum_loss<gpu::NoStats>(device, loss, nullptr,
                              gpu::KtoTerm{dscore, score, sign, weight, reference}, n);
}

/// Log odds; see the CPU's.
inline void log_odds_forward(Cuda device, float* y, const float* x, Index n) {
  gpu::map(device, gpu::LogOdds{y, x}, n);
}
inline void log_odds_backward(Cuda device, float* dx, const float* dy, const float* x, Index n) {
  gpu::map(device, gpu::LogOddsBackward{dx, dy, x}, n);
}

/// Ranking loss; see the CPU's. score, rank, level (n; may be null), weight (prompts), offsets
/// (prompts + 1) on the device; loss (1) and dscore (n) are overwritten, and *stats, or null.
inline void ranking_loss(Cuda device, float* loss, float* dscore, RankingStats* stats,
                         const float* score, const std::int32_t* rank, const float* level,
                         const std::int32_t* offsets, const float* weight, Index prompts,
                         const RankingLoss& settings) {
  gpu::sum_loss(device, loss, stats,
                gpu::RankingTerm{dscore, score, rank, level, offsets, weight, settings}, prompts);
}

}  // namespace kernels
}}  // namespace plumb::v0_1
