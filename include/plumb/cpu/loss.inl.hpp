// Bodies of loss.hpp. Included once, in the scalar namespace, after math/loss.inl.hpp: every
// instruction set uses these.

inline constexpr Index kLossChunk = 256;

/// Σ term(i) over [0, n) where term(i, sum) adds its part to the chunk's chain.
template <class Term>
inline float loss_sum(Index n, Term term) {
  float total = 0.0F;
  for (Index first = 0; first < n; first += kLossChunk) {
    const Index end = first + kLossChunk < n ? first + kLossChunk : n;
    float chunk = 0.0F;
    for (Index i = first; i < end; ++i) chunk = term(i, chunk);
    total += chunk;
  }
  return total;
}

inline void ppo_policy(float* loss, float* dlogprob, PolicyStats* stats, const float* logprob,
                       const float* old_logprob, const float* advantage, const float* weight,
                       Index n, const PpoClip& clip) {
  PolicyStats s;
  *loss = loss_sum(n, [&](Index i, float chunk) {
    const PpoTerm term = ppo_policy_term(logprob[i], old_logprob[i], advantage[i], clip);
    dlogprob[i] = weight[i] * term.derivative;
    const double w = weight[i], delta = term.delta, ratio = term.ratio;
    const double deviation = ratio > 1.0 ? ratio - 1.0 : 1.0 - ratio;
    s.weight += w;
    s.approx_kl += w * 0.5 * delta * delta;
    s.approx_kl_k3 += w * kl_k3(delta, ratio);
    s.clipfrac += term.clipped ? w : 0.0;
    s.ratio += w * ratio;
    s.ratio_squared += w * ratio * ratio;
    // Not `deviation > max`, which would let a NaN pass as no deviation.
    s.ratio_max_deviation = deviation <= s.ratio_max_deviation ? s.ratio_max_deviation : deviation;
    return fma(weight[i], term.value, chunk);
  });
  *stats = s;
}

inline void ppo_value(float* loss, float* dvalue, ValueStats* stats, const float* value,
                      const float* old_value, const float* returns, const float* weight, Index n,
                      float clip) {
  ValueStats s;
  *loss = loss_sum(n, [&](Index i, float chunk) {
    const float old = clip > 0.0F ? old_value[i] : 0.0F;
    const ValueTerm term = ppo_value_term(value[i], old, returns[i], clip);
    dvalue[i] = weight[i] * term.derivative;
    const double w = weight[i], v = value[i], r = returns[i];
    s.weight += w;
    s.clipfrac += term.clipped ? w : 0.0;
    s.error += w * (v - r) * (v - r);
    s.mean += w * v;
    s.returns_mean += w * r;
    s.returns_squared += w * r * r;
    return fma(weight[i], term.value, chunk);
  });
  *stats = s;
}

inline void weighted_sum(float* sum, const float* x, const float* weight, Index n) {
  *sum = loss_sum(n, [&](Index i, float chunk) { return fma(weight[i], x[i], chunk); });
}

/// Mean over the judged pairs of one prompt of K responses; adds `weight` · its gradient to d.
inline float bradley_terry(float* d, const float* s, const std::int32_t* rank, Index count,
                           float weight, const RankingLoss& settings) {
  Index pairs = 0;
  for (Index i = 0; i < count; ++i)
    for (Index j = i + 1; j < count; ++j) pairs += rank[i] >= 0 && rank[j] >= 0;
  if (pairs == 0) return 0.0F;
  const float share = 1.0F / static_cast<float>(pairs);
  const float step = weight * share;
  float sum = 0.0F;
  for (Index i = 0; i < count; ++i)
    for (Index j = i + 1; j < count; ++j) {
      if (rank[i] < 0 || rank[j] < 0) continue;
      const bool swap = rank[j] < rank[i];
      const Index better = swap ? j : i, worse = swap ? i : j;
      const float difference = s[better] - s[worse];
      const PairTerm term = rank[i] == rank[j] ? tied_pair_term(difference)
                                               : preferred_pair_term(difference, settings.margin);
      const float both = s[i] + s[j];
      const float pull = 2.0F * settings.center * both;
      d[better] = fma(step, term.derivative + pull, d[better]);
      d[worse] = fma(step, pull - term.derivative, d[worse]);
      sum += fma(settings.center * both, both, term.value);
    }
  return sum * share;
}

/// Mean over the members of all groups but the last; adds `weight` · its gradient to d. Quadratic in
/// the K of a prompt, which is small.
inline float plackett_luce(float* d, const float* s, const std::int32_t* rank, Index count,
                           float weight, const RankingLoss& settings) {
  std::int32_t last = -1;
  Index judged = 0, members = 0;
  for (Index i = 0; i < count; ++i) {
    judged += rank[i] >= 0;
    last = rank[i] > last ? rank[i] : last;
  }
  for (Index i = 0; i < count; ++i) members += rank[i] >= 0 && rank[i] < last;
  if (members == 0) return 0.0F;
  const float share = 1.0F / static_cast<float>(members);
  const float step = weight * share;
  float sum = 0.0F;
  for (Index i = 0; i < count; ++i) {
    if (rank[i] < 0 || rank[i] == last) continue;
    float top = s[i], total = 0.0F;
    for (Index j = 0; j < count; ++j)
      if (rank[j] >= rank[i]) top = max(top, s[j]);
    for (Index j = 0; j < count; ++j)
      if (rank[j] >= rank[i]) total += exp(s[j] - top);
    for (Index j = 0; j < count; ++j)
      if (rank[j] >= rank[i]) d[j] = fma(step, exp(s[j] - top) / total, d[j]);
    d[i] -= step;
    sum += log(total) + (top - s[i]);
  }
  float squares = 0.0F;
  const float pull = settings.center / static_cast<float>(judged);
  for (Index i = 0; i < count; ++i) {
    if (rank[i] < 0) continue;
    squares = fma(s[i], s[i], squares);
    d[i] = fma(weight * pull, 2.0F * s[i], d[i]);
  }
  return fma(pull, squares, sum * share);
}

inline void count_pairs(RankingStats& stats, const float* s, const std::int32_t* rank,
                        Index count) {
  for (Index i = 0; i < count; ++i)
    for (Index j = i + 1; j < count; ++j) {
      if (rank[i] < 0 || rank[j] < 0 || rank[i] == rank[j]) continue;
      const float lead = rank[i] < rank[j] ? s[i] - s[j] : s[j] - s[i];
      stats.pairs += 1.0;
      stats.correct += lead > 0.0F ? 1.0 : lead == 0.0F ? 0.5 : 0.0;
      stats.margin_sum += lead;
    }
}

inline void ranking(float* loss, float* dscore, RankingStats* stats, const float* score,
                    const std::int32_t* rank, const std::int32_t* offsets, const float* weight,
                    Index prompts, const RankingLoss& settings) {
  RankingStats counted;
  *loss = loss_sum(prompts, [&](Index p, float chunk) {
    const Index first = offsets[p], count = offsets[p + 1] - offsets[p];
    for (Index i = 0; i < count; ++i) dscore[first + i] = 0.0F;
    count_pairs(counted, score + first, rank + first, count);
    const auto term =
        settings.kind == RankingLossKind::BradleyTerry ? bradley_terry : plackett_luce;
    return fma(weight[p],
               term(dscore + first, score + first, rank + first, count, weight[p], settings),
               chunk);
  });
  *stats = counted;
}

inline const LossTable& loss_table() {
  static constexpr LossTable table{
      .ppo_policy = ppo_policy,
      .ppo_value = ppo_value,
      .weighted_sum = weighted_sum,
      .ranking = ranking,
  };
  return table;
}
