// Bodies of sampling.hpp. Included once per instruction set, after head.inl.hpp.

inline constexpr Index kSampleBlock = 256;

inline float sampling_weights(float* weights, const float* logits, Index v, float scale) {
  const float maximum = head_maximum(logits, v, scale);
  const V factor = set(scale), top = set(maximum);
  Lanes total = all_lanes(0.0F);
  for_lanes(
      v,
      [&](Index r, Index i) {
        const V e = exp(factor * load(logits + i) - top);
        store(weights + i, e);
        total.v[r] = total.v[r] + e;
      },
      [&](Index r, Index i, Index left) {
        const V e = keep(exp(factor * load(logits + i, left) - top), left);
        store(weights + i, e, left);
        total.v[r] = total.v[r] + e;
      });
  return maximum + head_log(sum(total));
}

inline float sampling_block(const float* weights, Index n) {
  Lanes total = all_lanes(0.0F);
  for_lanes(
      n, [&](Index r, Index i) { total.v[r] = total.v[r] + load(weights + i); },
      [&](Index r, Index i, Index left) { total.v[r] = total.v[r] + load(weights + i, left); });
  return sum(total);
}

inline float sampling_total(const float* weights, Index v) {
  float total = 0.0F;
  for (Index i = 0; i < v; i += kSampleBlock)
    total += sampling_block(weights + i, v - i < kSampleBlock ? v - i : kSampleBlock);
  return total;
}

inline std::int32_t sampling_draw(const float* weights, Index v, float u) {
  const float threshold = u * sampling_total(weights, v);
  float before = 0.0F;
  Index first = 0, end = v;
  for (Index i = 0; i < v; i += kSampleBlock) {
    const Index size = v - i < kSampleBlock ? v - i : kSampleBlock;
    const float after = before + sampling_block(weights + i, size);
    if (after > threshold) {
      first = i;
      end = i + size;
      break;
    }
    before = after;
  }
  // The block's chain may round below its sum by lanes: then its last token that can be drawn.
  const float rest = threshold - before;
  float running = 0.0F;
  Index drawn = first;
  for (Index i = first; i < end; ++i) {
    if (!(weights[i] > 0.0F)) continue;
    drawn = i;
    running += weights[i];
    if (running > rest) break;
  }
  return static_cast<std::int32_t>(drawn);
}

/// Here, where nothing is contracted, and not by the caller: the last step of head_logprob.
inline float sampling_logprob(float logit, float lse, float scale) { return scale * logit - lse; }

inline float sampling_log_share(float weight, float total) { return head_log(weight / total); }

inline const SamplingTable& sampling_table() {
  static constexpr SamplingTable table{
      .weights = sampling_weights,
      .total = sampling_total,
      .draw = sampling_draw,
      .logprob = sampling_logprob,
      .log_share = sampling_log_share,
  };
  return table;
}
