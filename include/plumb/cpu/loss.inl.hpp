// Bodies of loss.hpp. Included after math/loss.inl.hpp, whose number Real is theirs: float once, in
// the scalar namespace, as every instruction set uses these; and double (double_loss.hpp).

/// Σ term(i) over [0, n) where term(i, sum) adds its part to the chunk's chain; end_chunk() follows
/// each chunk.
template <class Term, class EndChunk>
inline Real loss_sum(Index n, Term term, EndChunk end_chunk) {
  Real total = 0.0F;
  for (Index first = 0; first < n; first += kLossChunk) {
    const Index end = first + kLossChunk < n ? first + kLossChunk : n;
    Real chunk = 0.0F;
    for (Index i = first; i < end; ++i) chunk = term(i, chunk);
    total += chunk;
    end_chunk();
  }
  return total;
}

inline void ppo_policy(Real* loss, Real* dlogprob, PolicyStats* stats, const Real* logprob,
                       const Real* old_logprob, const Real* advantage, const Real* weight,
                       Index n, const PpoClip& clip) {
  PolicyStats all, chunk_stats;
  *loss = loss_sum(
      n,
      [&](Index i, Real chunk) {
        const PpoTerm term = ppo_policy_term(logprob[i], old_logprob[i], advantage[i], clip);
        dlogprob[i] = weight[i] * term.derivative;
        add_stats(chunk_stats, ppo_policy_stats(term, weight[i]));
        return fma(weight[i], term.value, chunk);
      },
      [&] {
        add_stats(all, chunk_stats);
        chunk_stats = {};
      });
  if (stats != nullptr) *stats = all;
}

inline void ppo_value(Real* loss, Real* dvalue, ValueStats* stats, const Real* value,
                      const Real* old_value, const Real* returns, const Real* weight, Index n,
                      Real clip) {
  ValueStats all, chunk_stats;
  *loss = loss_sum(
      n,
      [&](Index i, Real chunk) {
        const Real old = clip > 0.0F ? old_value[i] : 0.0F;
        const ValueTerm term = ppo_value_term(value[i], old, returns[i], clip);
        dvalue[i] = weight[i] * term.derivative;
        add_stats(chunk_stats, ppo_value_stats(term, value[i], returns[i], weight[i]));
        return fma(weight[i], term.value, chunk);
      },
      [&] {
        add_stats(all, chunk_stats);
        chunk_stats = {};
      });
  if (stats != nullptr) *stats = all;
}

inline void kl(Real* loss, Real* dlogprob, const Real* logprob, const Real* ref_logprob,
               const Real* weight, Index n, KlEstimator kind) {
  *loss = loss_sum(
      n,
      [&](Index i, Real chunk) {
        const KlTerm term = kl_loss_term(logprob[i], ref_logprob[i], kind);
        dlogprob[i] = weight[i] * term.derivative;
        return fma(weight[i], term.value, chunk);
      },
      [] {});
}

inline void weighted_sum(Real* sum, const Real* x, const Real* weight, Index n) {
  *sum = loss_sum(
      n, [&](Index i, Real chunk) { return fma(weight[i], x[i], chunk); }, [] {});
}

inline void segment_sum(Real* sums, const Real* x, const Real* weight,
                        const std::int32_t* offsets, Index segments) {
  for (Index s = 0; s < segments; ++s)
    weighted_sum(sums + s, x + offsets[s], weight + offsets[s], offsets[s + 1] - offsets[s]);
}

inline void segment_spread(Real* dx, const Real* dsums, const Real* weight,
                           const std::int32_t* offsets, Index segments) {
  for (Index s = 0; s < segments; ++s)
    for (Index i = offsets[s]; i < offsets[s + 1]; ++i) dx[i] = fma(weight[i], dsums[s], dx[i]);
}

inline void kto(Real* loss, Real* dscore, const Real* score, const Real* sign,
                const Real* weight, Index n, Real reference) {
  *loss = loss_sum(
      n,
      [&](Index i, Real chunk) {
        const PairTerm term = kto_term(score[i], reference, sign[i]);
        dscore[i] = weight[i] * term.derivative;
        return fma(weight[i], term.value, chunk);
      },
      [] {});
}

inline void log_odds_forward(Real* y, const Real* x, Index n) {
  for (Index i = 0; i < n; ++i) y[i] = log_odds_term(x[i]).value;
}
inline void log_odds_backward(Real* dx, const Real* dy, const Real* x, Index n) {
  for (Index i = 0; i < n; ++i) dx[i] = fma(dy[i], log_odds_term(x[i]).derivative, dx[i]);
}

inline void ranking(Real* loss, Real* dscore, RankingStats* stats, const Real* score,
                    const std::int32_t* rank, const Real* level, const std::int32_t* offsets,
                    const Real* weight, Index prompts, const RankingLoss& settings) {
  RankingStats all, chunk_stats;
  *loss = loss_sum(
      prompts,
      [&](Index p, Real chunk) {
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
  if (stats != nullptr) *stats = all;
}
