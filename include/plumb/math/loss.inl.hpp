// Per-element terms of the PPO, value and ranking losses, each with its derivative. Included like
// elementary.inl.hpp, after it, with V = float only: loss arrays hold one number per token.
//
// Sources: Schulman et al. 2017 (PPO); Ye et al. 2020 (dual clip); OpenAI lm-human-preferences and
// Hugging Face TRL (value clip, ½ (v − R)²); Schulman, "Approximating KL divergence" (k3).

/// One token of the policy loss.
struct PpoTerm {
  float value;
  float derivative;  // of value by logprob
  float ratio;       // new over old probability, after the limit on its logarithm
  float delta;       // its logarithm
  bool clipped;      // the clipped branch is the larger
};

/// max(−Aρ, −A·clip(ρ, 1 − low, 1 + high)), ρ = exp(logprob − old_logprob); for A < 0 and dual > 0
/// at most −dual·A. Where a branch is constant its derivative is 0; on an edge it is the inner one.
PLUMB_FORMULA PpoTerm ppo_policy_term(float logprob, float old_logprob, float advantage,
                               const PpoClip& clip) {
  PpoTerm term;
  const float difference = logprob - old_logprob;
  const float limit = clip.log_ratio_limit > 0.0F ? clip.log_ratio_limit : __builtin_inff();
  term.delta = min(limit, max(-limit, difference));
  term.ratio = exp(term.delta);
  const float inner = -advantage * term.ratio;
  const float outer = -advantage * min(1.0F + clip.high, max(1.0F - clip.low, term.ratio));
  term.clipped = outer > inner;
  term.value = term.clipped ? outer : inner;
  term.derivative = term.clipped || abs(difference) > limit ? 0.0F : inner;
  if (clip.dual > 0.0F && advantage < 0.0F && term.value > -clip.dual * advantage) {
    term.value = -clip.dual * advantage;
    term.derivative = 0.0F;
  }
  return term;
}

/// e^delta − 1 − delta: Schulman's k3, never negative. Near 0, where the difference would cancel, by
/// its Taylor series (eight corrections: relative error below 1e-9 for |delta| < ½).
PLUMB_FORMULA double kl_k3(double delta, double ratio) {
  if (delta > 0.5 || delta < -0.5) return ratio - 1.0 - delta;
  double series = 1.0;
  for (int k = 10; k > 2; --k) series = 1.0 + delta / k * series;
  return 0.5 * delta * delta * series;
}

/// One token of the value loss.
struct ValueTerm {
  float value;
  float derivative;  // of value by the prediction
  bool clipped;
};

/// ½ max((v − R)², (clip(v, old − clip, old + clip) − R)²); clip = 0: no clipping.
PLUMB_FORMULA ValueTerm ppo_value_term(float v, float old_value, float returns, float clip) {
  const float error = v - returns;
  const float near = clip > 0.0F ? min(old_value + clip, max(old_value - clip, v)) : v;
  const float inner = error * error;
  const float outer = (near - returns) * (near - returns);
  const bool clipped = outer > inner;
  return {0.5F * (clipped ? outer : inner), clipped ? 0.0F : error, clipped};
}

/// One pair of the Bradley–Terry loss (1952): a better than b by `difference` = s_a − s_b.
struct PairTerm {
  float value;
  float derivative;  // of value by the difference
};

/// −log σ(difference − margin).
PLUMB_FORMULA PairTerm preferred_pair_term(float difference, float margin) {
  const float x = margin - difference;
  return {softplus(x), -sigmoid(x)};
}

/// −½ log σ(difference) − ½ log σ(−difference): least, log 2, where the scores are equal.
PLUMB_FORMULA PairTerm tied_pair_term(float difference) {
  return {0.5F * (softplus(difference) + softplus(-difference)), sigmoid(difference) - 0.5F};
}
