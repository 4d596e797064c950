// Bodies of loss.hpp. Included once, in the scalar namespace, after math/loss.inl.hpp: every
// instruction set uses these.

/// Σ term(i) over [0, n) where term(i, sum) adds its part to the chunk's chain; end_chunk() follows
/// each chunk.
template <class Term, class EndChunk>
inline float loss_sum(Index n, Term term, EndChunk end_chunk) {
  float total = 0.0F;
  for (Index first = 0; first < n; first += kLossChunk) {
    const Index end = first + kLossChunk < n ? first + kLossChunk : n;
    float chunk = 0.0F;
    for (Index i = first; i < end; ++i) chunk = term(i, chunk);
    total += chunk;
    end_chunk();
  }
  return total;
}

inline void ppo_policy(float* loss, float* dlogprob, PolicyStats* stats, const float* logprob,
                       const float* old_logprob, const float* advantage, const float* weight,
                       Index n, const PpoClip& clip) {
  PolicyStats all, chunk_stats;
  *loss = loss_sum(
      n,
      [&](Index i, float chunk) {
        const PpoTerm term = ppo_policy_term(logprob[i], old_logprob[i], advantage[i], clip);
        dlogprob[i] = weight[i] * term.derivative;
        add_stats(chunk_stats, ppo_policy_stats(term, weight[i]));
        return fma(weight[i], term.value, chunk);
      },
      [&] {
        add_stats(all, chunk_stats);
        chunk_stats = {};
      });
  *stats = all;
}

inline void ppo_value(float* loss, float* dvalue, ValueStats* stats, const float* value,
                      const float* old_value, const float* returns, const float* weight, Index n,
                      float clip) {
  ValueStats all, chunk_stats;
  *loss = loss_sum(
      n,
      [&](Index i, float chunk) {
        const float old = clip > 0.0F ? old_value[i] : 0.0F;
        const ValueTerm term = ppo_value_term(value[i], old, returns[i], clip);
        dvalue[i] = weight[i] * term.derivative;
        add_stats(chunk_stats, ppo_value_stats(term, value[i], returns[i], weight[i]));
        return fma(weight[i], term.value, chunk);
      },
      [&] {
        add_stats(all, chunk_stats);
        chunk_stats = {};
      });
  *stats = all;
}

inline void kl(float* loss, float* dlogprob, const float* logprob, const float* ref_logprob,
               const float* weight, Index n, KlEstimator kind) {
  *loss = loss_sum(
      n,
      [&](Index i, float chunk) {
        const KlTerm term = kl_loss_term(logprob[i], ref_logprob[i], kind);
        dlogprob[i] = weight[i] * term.derivative;
        return fma(weight[i], term.value, chunk);
      },
      [] {});
}

inline void weighted_sum(float* sum, const float* x, const float* weight, Index n) {
  *sum = loss_sum(
      n, [&](Index i, float chunk) { return fma(weight[i], x[i], chunk); }, [] {});
}

inline void segment_sum(float* sums, const float* x, const float* weight,
                        const std::int32_t* offsets, Index segments) {
  for (Index s = 0; s < segments; ++s)
    weighted_sum(sums + s, x + offsets[s], weight + offsets[s], offsets[s + 1] - offsets[s]);
}

inline void segment_spread(float* dx, const float* dsums, const float* weight,
                           const std::int32_t* offsets, Index segments) {
  for (Index s = 0; s < segments; ++s)
    for (Index i = offsets[s]; i < offsets[s + 1]; ++i) dx[i] = fma(weight[i], dsums[s], dx[i]);
}

inline void kto(float* loss, float* dscore, const float* score, const float* sign,
                const float* weight, Index n, float reference) {
  *loss = loss_sum(
      n,
      [&](Index i, float chunk) {
        const PairTerm term = kto_term(score[i], reference, sign[i]);
        dscore[i] = weight[i] * term.derivative;
        return fma(weight[i], term.value, chunk);
      },
      [] {});
}

inline void log_odds_forward(float* y, const float* x, Index n) {
  for (Index i = 0; i < n; ++i) y[i] = log_odds_term(x[i]).value;
}
inline void log_odds_backward(float* dx, const float* dy, const float* x, Index n) {
  for (Index i = 0; i < n; ++i) dx[i] = fma(dy[i], log_odds_term(x[i]).derivative, dx[i]);
}

inline void ranking(float* loss, float* dscore, RankingStats* stats, const float* score,
                    const std::int32_t* rank, const float* level, const std::int32_t* offsets,
                    const float* weight, Index prompts, const RankingLoss& settings) {
  RankingStats all, chunk_stats;
  *loss = loss_sum(
      prompts,
      [&](Index p, float chunk) {
        const Index first = offsets[p], count = offsets[p + 1] - offsets[p];
        add_stats(chunk_stats, ranking_stats(score + first, rank + first, count));
        return fma(weight[p],
                   ranking_term(dscore + first, score + first, rank + first,
                                level == nullptr ? nullptr : level + first, count, weight[p],
                                settings),
                   chunk);
      },
      [&] {
        add_stats(all, chunk_stats);
        chunk_stats = {};
      });
  *stats = all;
}

inline const LossTable& loss_table() {
  static constexpr LossTable table{
      .ppo_policy = ppo_policy,
      .ppo_value = ppo_value,
      .kl = kl,
      .weighted_sum = weighted_sum,
      .segment_sum = segment_sum,
      .segment_spread = segment_spread,
      .kto = kto,
      .log_odds_forward = log_odds_forward,
      .log_odds_backward = log_odds_backward,
      .ranking = ranking,
  };
  return table;
}
