// Row bodies of head.hpp. Included once per instruction set. z is always scale · logit, one
// rounding, so that every pass over a row sees the same z.

inline float head_maximum(const float* logits, Index v, float scale) {
  const V factor = set(scale);
  Lanes most = all_lanes(-__builtin_inff());
  for_lanes(
      v, [&](Index r, Index i) { most.v[r] = max(most.v[r], factor * load(logits + i)); },
      [&](Index r, Index i, Index left) {
        const Mask real = less(set(0.0F), keep(set(1.0F), left));
        const V z = factor * load(logits + i, left);
        most.v[r] = max(most.v[r], select(real, z, set(-__builtin_inff())));
      });
  return largest(most);
}

/// log x of one number: every lane computes it, the first is taken.
inline float head_log(float x) {
  float lanes[kWidth];
  store(lanes, log(set(x)));
  return lanes[0];
}

inline void head_logprob(float* logprob, float* entropy, float* lse, const float* logits,
                         std::int32_t target, Index v, float scale) {
  const V factor = set(scale);
  const float maximum = head_maximum(logits, v, scale);
  const V top = set(maximum);
  Lanes total = all_lanes(0.0F);
  // The exponentials leave time to fetch the row after this one.
  const float* next = logits + v;
  if (entropy == nullptr) {
    for_lanes(
        v,
        [&](Index r, Index i) {
          __builtin_prefetch(next + i, 0, 2);
          total.v[r] = total.v[r] + exp(factor * load(logits + i) - top);
        },
        [&](Index r, Index i, Index left) {
          total.v[r] = total.v[r] + keep(exp(factor * load(logits + i, left) - top), left);
        });
  } else {
    Lanes moment = all_lanes(0.0F);  // Σ e^s · s, s = z − max: entropy = log Σ e^s − moment / Σ e^s
    for_lanes(
        v,
        [&](Index r, Index i) {
          __builtin_prefetch(next + i, 0, 2);
          const V s = not_below(kLowestLogit, factor * load(logits + i) - top);
          const V e = exp(s);
          total.v[r] = total.v[r] + e;
          moment.v[r] = fma(e, s, moment.v[r]);
        },
        [&](Index r, Index i, Index left) {
          const V s = not_below(kLowestLogit, factor * load(logits + i, left) - top);
          const V e = keep(exp(s), left);
          total.v[r] = total.v[r] + e;
          moment.v[r] = fma(e, s, moment.v[r]);
        });
    const float sum_of_exp = sum(total);
    *entropy = head_log(sum_of_exp) - sum(moment) / sum_of_exp;
  }
  *lse = maximum + head_log(sum(total));
  *logprob = scale * logits[target] - *lse;
}

inline void head_logprob_backward(float* row, float dlogprob, float dentropy, std::int32_t target,
                                  float lse, float entropy, Index v, float scale) {
  const V factor = set(scale), norm = set(lse), bits = set(entropy);
  const V dchosen = set(-dlogprob), dspread = set(-dentropy);
  const auto slope = [&](V logits) {
    const V log_p = not_below(kRareLogit, factor * logits - norm);
    return factor * (exp(log_p) * fma(dspread, log_p + bits, dchosen));
  };
  for_vectors(
      v, [&](Index i) { store(row + i, slope(load(row + i))); },
      [&](Index i, Index left) { store(row + i, slope(load(row + i, left)), left); });
  row[target] += scale * dlogprob;
}

inline float head_kl(const float* logits_p, const float* logits_q, std::int32_t target,
                     float* logprob_q, Index v, float scale) {
  float norm_p, norm_q, unused;
  head_logprob(&unused, nullptr, &norm_p, logits_p, 0, v, scale);
  head_logprob(logprob_q != nullptr ? logprob_q : &unused, nullptr, &norm_q, logits_q, target, v,
               scale);
  const V factor = set(scale), lse_p = set(norm_p), lse_q = set(norm_q);
  const auto add = [&](V z_p, V z_q, V so_far) {
    const V log_p = not_below(kLowestLogit, factor * z_p - lse_p);
    const V log_q = not_below(kLowestLogit, factor * z_q - lse_q);
    const V p = exp(log_p);
    return fma(p, log_p - log_q, so_far) + (exp(log_q) - p);
  };
  Lanes total = all_lanes(0.0F);
  for_lanes(
      v,
      [&](Index r, Index i) {
        total.v[r] = add(load(logits_p + i), load(logits_q + i), total.v[r]);
      },
      [&](Index r, Index i, Index left) {
        const V more = add(load(logits_p + i, left), load(logits_q + i, left), total.v[r]);
        // A lane past the end keeps its sum: it may hold any number, so zeroing is not enough.
        total.v[r] = select(less(set(0.0F), keep(set(1.0F), left)), more, total.v[r]);
      });
  return sum(total);
}

inline const HeadTable& head_table() {
  static constexpr HeadTable table{
      .logprob = head_logprob,
      .logprob_backward = head_logprob_backward,
      .kl = head_kl,
  };
  return table;
}
