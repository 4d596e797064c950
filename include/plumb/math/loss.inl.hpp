// Terms of the PPO, value and ranking losses, each with its derivative and what it adds to the
// statistics, in the number Real of whoever includes this: float, after elementary.inl.hpp (loss
// arrays hold one number per token), or double (cpu/double_loss.hpp).
//
// Sources: Schulman et al. 2017 (PPO); Ye et al. 2020 (dual clip); MiniMax 2025, "MiniMax-M1"
// (weights that are clipped); OpenAI lm-human-preferences and
// Hugging Face TRL (value clip, ½ (v − R)²); Schulman, "Approximating KL divergence" (k3).

/// One token of the policy loss.
struct PpoTerm {
  Real value;
  Real derivative;  // of value by logprob
  Real ratio;       // new over old probability, after the limit on its logarithm
  Real delta;       // its logarithm
  bool clipped;     // the clipped branch is the larger
};

/// max(−Aρ, −A·clip(ρ, 1 − low, 1 + high)), ρ = exp(logprob − old_logprob); for A < 0 and dual > 0
/// at most −dual·A. Where a branch is constant its derivative is 0; on an edge it is the inner one.
/// ClipKind::Weight: −A·clip(ρ)·logprob, the weight clip(ρ) being a constant.
PLUMB_FORMULA PpoTerm ppo_policy_term(Real logprob, Real old_logprob, Real advantage,
                                      const PpoClip& clip) {
  PpoTerm term;
  const Real difference = logprob - old_logprob;
  const Real limit = clip.log_ratio_limit > 0.0F ? clip.log_ratio_limit : __builtin_inff();
  term.delta = min(limit, max(-limit, difference));
  term.ratio = exp(term.delta);
  const Real inner = -advantage * term.ratio;
  const Real bounded = min(1.0F + clip.upper(), max(1.0F - clip.low, term.ratio));
  const Real outer = -advantage * bounded;
  if (clip.kind == ClipKind::Weight) {
    term.clipped = bounded < term.ratio || bounded > term.ratio;
    term.value = outer * logprob;
    term.derivative = outer;
    return term;
  }
  term.clipped = outer > inner;
  term.value = term.clipped ? outer : inner;
  term.derivative = term.clipped || abs(difference) > limit ? 0.0F : inner;
  if (clip.dual > 0.0F && advantage < 0.0F && term.value > -clip.dual * advantage) {
    term.value = -clip.dual * advantage;
    term.derivative = 0.0F;
  }
  return term;
}

/// What one token of the policy loss adds to the statistics.
PLUMB_FORMULA PolicyStats ppo_policy_stats(const PpoTerm& term, Real weight) {
  const double w = weight, delta = term.delta, ratio = term.ratio;
  return {.weight = w,
          .approx_kl = w * 0.5 * delta * delta,
          .approx_kl_k3 = w * kl_k3(delta, ratio),
          .clipfrac = term.clipped ? w : 0.0,
          .ratio = w * ratio,
          .ratio_squared = w * ratio * ratio,
          .ratio_max_deviation = ratio > 1.0 ? ratio - 1.0 : 1.0 - ratio};
}

/// One token of a divergence from the reference that stands in the loss (math/kl.hpp).
struct KlTerm {
  Real value;
  Real derivative;  // of value by logprob
};
PLUMB_FORMULA KlTerm kl_loss_term(Real logprob, Real ref_logprob, KlEstimator kind) {
  const Real x = logprob - ref_logprob;
  if (kind == KlEstimator::K1) return {x, 1.0F};
  if (kind == KlEstimator::K2) return {0.5F * x * x, x};
  const Real ratio = exp(-x);
  return {static_cast<Real>(kl_k3(-static_cast<double>(x), ratio)), 1.0F - ratio};
}

/// One token of the value loss.
struct ValueTerm {
  Real value;
  Real derivative;  // of value by the prediction
  bool clipped;
};

/// ½ max((v − R)², (clip(v, old − clip, old + clip) − R)²); clip = 0: no clipping.
PLUMB_FORMULA ValueTerm ppo_value_term(Real v, Real old_value, Real returns, Real clip) {
  const Real error = v - returns;
  const Real near = clip > 0.0F ? min(old_value + clip, max(old_value - clip, v)) : v;
  const Real inner = error * error;
  const Real outer = (near - returns) * (near - returns);
  const bool clipped = outer > inner;
  return {0.5F * (clipped ? outer : inner), clipped ? 0.0F : error, clipped};
}

/// What one step of the value loss adds to the statistics.
PLUMB_FORMULA ValueStats ppo_value_stats(const ValueTerm& term, Real value, Real returns,
                                         Real weight) {
  const double w = weight, v = value, r = returns;
  return {.weight = w,
          .clipfrac = term.clipped ? w : 0.0,
          .error = w * (v - r) * (v - r),
          .mean = w * v,
          .returns_mean = w * r,
          .returns_squared = w * r * r};
}

/// One pair of the Bradley–Terry loss (1952): a better than b by `difference` = s_a − s_b.
struct PairTerm {
  Real value;
  Real derivative;  // of value by the difference
};

/// −log σ(difference − margin), or what else RankingLoss names; the margin is this pair's.
PLUMB_FORMULA PairTerm preferred_pair_term(Real difference, Real margin,
                                           const RankingLoss& settings) {
  const Real x = margin - difference, e = settings.smoothing;
  if (settings.pair == PairLoss::Square) return {x * x, -2.0F * x};
  if (settings.pair == PairLoss::Hinge)
    return x > 0.0F ? PairTerm{x, -1.0F} : PairTerm{0.0F, 0.0F};
  if (e == 0.0F) return {softplus(x), -sigmoid(x)};
  // The other order's share, which Robust takes off.
  const Real sign = settings.pair == PairLoss::Robust ? -1.0F : 1.0F;
  const Real scale = settings.pair == PairLoss::Robust ? 1.0F / (1.0F - 2.0F * e) : 1.0F;
  const Real other = sign * e;
  return {scale * fma(1.0F - e, softplus(x), other * softplus(difference)),
          scale * fma(other, sigmoid(difference), (e - 1.0F) * sigmoid(x))};
}

/// The mean of both orders, without a margin: −½ log σ(difference) − ½ log σ(−difference), least,
/// log 2, where the scores are equal; the square of the difference; for Hinge half its size.
PLUMB_FORMULA PairTerm tied_pair_term(Real difference, const RankingLoss& settings) {
  if (settings.pair == PairLoss::Square) return {difference * difference, 2.0F * difference};
  if (settings.pair == PairLoss::Hinge)
    return {0.5F * abs(difference),
            difference > 0.0F ? 0.5F : difference < 0.0F ? -0.5F : 0.0F};
  return {0.5F * (softplus(difference) + softplus(-difference)), sigmoid(difference) - 0.5F};
}

/// One response of the KTO loss (Ethayarajh et al. 2024): 1 − σ(±(score − reference)), + for one
/// that is wanted.
PLUMB_FORMULA PairTerm kto_term(Real score, Real reference, Real sign) {
  const Real gain = sigmoid(sign * (score - reference));
  return {1.0F - gain, -sign * gain * (1.0F - gain)};
}

/// log(p / (1 − p)) of p = e^x, x < 0, and its slope 1 / (1 − p) (ORPO, Hong et al. 2024). Beyond
/// p = 1 − 2⁻²⁰ (in double 2⁻⁴⁹), where the number cannot tell, as there.
PLUMB_FORMULA PairTerm log_odds_term(Real x) {
  constexpr Real kLeast = sizeof(Real) == sizeof(float) ? 0x1p-20F : static_cast<Real>(0x1p-49);
  const Real rest = max(1.0F - exp(x), kLeast);
  return {x - log(rest), 1.0F / rest};
}

/// Mean over the judged pairs of one prompt of K responses; adds `weight` · its gradient to d. By
/// how much the better response's level is above the worse's is added to the pair's margin; null:
/// there are none.
PLUMB_FORMULA Real bradley_terry(Real* d, const Real* s, const std::int32_t* rank,
                                 const Real* level, Index count, Real weight,
                                 const RankingLoss& settings) {
  Index pairs = 0;
  for (Index i = 0; i < count; ++i)
    for (Index j = i + 1; j < count; ++j) pairs += rank[i] >= 0 && rank[j] >= 0;
  if (pairs == 0) return 0.0F;
  const Real share = 1.0F / static_cast<Real>(pairs);
  const Real step = weight * share;
  Real sum = 0.0F;
  for (Index i = 0; i < count; ++i)
    for (Index j = i + 1; j < count; ++j) {
      if (rank[i] < 0 || rank[j] < 0) continue;
      const bool swap = rank[j] < rank[i];
      const Index better = swap ? j : i, worse = swap ? i : j;
      const Real difference = s[better] - s[worse];
      const Real margin = level == nullptr ? settings.margin
                                            : settings.margin + (level[better] - level[worse]);
      const PairTerm term = rank[i] == rank[j]
                                ? tied_pair_term(difference, settings)
                                : preferred_pair_term(difference, margin, settings);
      const Real both = s[i] + s[j];
      const Real pull = 2.0F * settings.center * both;
      d[better] = fma(step, term.derivative + pull, d[better]);
      d[worse] = fma(step, pull - term.derivative, d[worse]);
      sum += fma(settings.center * both, both, term.value);
    }
  return sum * share;
}

/// Mean over the members of all groups but the last; adds `weight` · its gradient to d. Quadratic
/// in the K of a prompt, which is small.
PLUMB_FORMULA Real plackett_luce(Real* d, const Real* s, const std::int32_t* rank, Index count,
                                 Real weight, const RankingLoss& settings) {
  std::int32_t last = -1;
  Index judged = 0, members = 0;
  for (Index i = 0; i < count; ++i) {
    judged += rank[i] >= 0;
    last = rank[i] > last ? rank[i] : last;
  }
  for (Index i = 0; i < count; ++i) members += rank[i] >= 0 && rank[i] < last;
  if (members == 0) return 0.0F;
  const Real share = 1.0F / static_cast<Real>(members);
  const Real step = weight * share;
  Real sum = 0.0F;
  for (Index i = 0; i < count; ++i) {
    if (rank[i] < 0 || rank[i] == last) continue;
    Real top = s[i], total = 0.0F;
    for (Index j = 0; j < count; ++j)
      if (rank[j] >= rank[i]) top = max(top, s[j]);
    for (Index j = 0; j < count; ++j)
      if (rank[j] >= rank[i]) total += exp(s[j] - top);
    for (Index j = 0; j < count; ++j)
      if (rank[j] >= rank[i]) d[j] = fma(step, exp(s[j] - top) / total, d[j]);
    d[i] -= step;
    sum += log(total) + (top - s[i]);
  }
  Real squares = 0.0F;
  const Real pull = settings.center / static_cast<Real>(judged);
  for (Index i = 0; i < count; ++i) {
    if (rank[i] < 0) continue;
    squares = fma(s[i], s[i], squares);
    d[i] = fma(weight * pull, 2.0F * s[i], d[i]);
  }
  return fma(pull, squares, sum * share);
}

/// The term of one prompt and, in d, `weight` · its gradient. Levels (or null) are of pairs alone.
PLUMB_FORMULA Real ranking_term(Real* d, const Real* s, const std::int32_t* rank,
                                const Real* level, Index count, Real weight,
                                const RankingLoss& settings) {
  for (Index i = 0; i < count; ++i) d[i] = 0.0F;
  return settings.kind == RankingLossKind::BradleyTerry
             ? bradley_terry(d, s, rank, level, count, weight, settings)
             : plackett_luce(d, s, rank, count, weight, settings);
}

/// What one prompt adds to the counts.
PLUMB_FORMULA RankingStats ranking_stats(const Real* s, const std::int32_t* rank, Index count) {
  RankingStats stats;
  for (Index i = 0; i < count; ++i)
    for (Index j = i + 1; j < count; ++j) {
      if (rank[i] < 0 || rank[j] < 0 || rank[i] == rank[j]) continue;
      const Real lead = rank[i] < rank[j] ? s[i] - s[j] : s[j] - s[i];
      stats.pairs += 1.0;
      stats.correct += lead > 0.0F ? 1.0 : lead == 0.0F ? 0.5 : 0.0;
      stats.margin_sum += static_cast<double>(lead);
    }
  return stats;
}
