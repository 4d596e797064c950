// Drawing the next token: softmax of tempered logits, the filters top-k, top-p and min-p, one
// uniform number.
//
// A draw is a function of its row, its settings and its key (seed, step, sequence, token), and of
// nothing else in the batch. Weights e^(z − max) are summed in blocks of 256 tokens (32 lanes, then
// the butterfly), the block sums in order; the drawn token is the first at which the running sum
// exceeds u · total, first over blocks, then inside one. u has 24 bits:
// a token of probability below 6e-8 may be unreachable, or drawn a little too often.
// What this is not: a change of the distribution that training sees. The log-probability given is
// that of the unfiltered distribution, the bits of head_logprob_forward; with a filter on, samples
// no longer follow it, and filtered_logprob gives that of what they do follow, for a method that
// corrects for it (rlhf/off_policy.hpp). Sources: Fan et al. 2018 (top-k); Holtzman et al. 2020
// (top-p, nucleus); Nguyen et al. 2024 (min-p; last of the three, as in transformers).
// Cost: one exp per logit; filters select without sorting the vocabulary.
#pragma once

#include <plumb/core/device.hpp>
#include <plumb/core/memory.hpp>
#include <plumb/core/pool.hpp>
#include <plumb/core/random.hpp>
#include <plumb/cpu/isa.hpp>
#include <plumb/cpu/reduce.hpp>
#include <plumb/math/sampling.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>

namespace plumb { inline namespace v0_1 { namespace kernels {

struct SamplingTable {
  /// weights = e^(z − max); returns lse.
  float (*weights)(float* weights, const float* logits, Index v, float inverse_temperature);
  float (*total)(const float* weights, Index v);
  /// The token at u of the weights' running sum.
  std::int32_t (*draw)(const float* weights, Index v, float u);
  float (*logprob)(float logit, float lse, float inverse_temperature);
  float (*log_share)(float weight, float total);  ///< log(weight / total)
};

/// order[0, k) = the k likeliest tokens, likeliest first, the lower of equals first. One pass: what
/// does not exceed the k-th of those seen so far is passed over. order has room for v.
inline void likeliest(std::int32_t* order, const float* logits, Index v, Index k) {
  const auto before = [logits](std::int32_t a, std::int32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  };
  const Index room = std::min(v, 2 * k + 64);
  Index held = 0;
  float least = -std::numeric_limits<float>::infinity();
  for (Index i = 0; i < v; ++i) {
    if (held >= k && !(logits[i] > least)) continue;
    if (held == room) {
      std::nth_element(order, order + k - 1, order + held, before);
      held = k;
      least = logits[order[k - 1]];
      if (!(logits[i] > least)) continue;
    }
    order[held++] = static_cast<std::int32_t>(i);
  }
  std::partial_sort(order, order + k, order + held, before);
}

/// Zeroes the weights that top-k and top-p exclude. `order` (v) and `kept` (v) are scratch.
inline void keep_likeliest(float* weights, const float* logits, Index v,
                           const SamplingSettings& settings, std::int32_t* order, float* kept) {
  const auto keep_only = [&](Index count) {
    for (Index i = 0; i < count; ++i) kept[i] = weights[order[i]];
    std::fill_n(weights, v, 0.0F);
    for (Index i = 0; i < count; ++i) weights[order[i]] = kept[i];
  };
  // By logits: weights may be equal where logits are not, having underflowed.
  const bool by_rank = settings.top_k > 0 && settings.top_k < v;
  if (by_rank) {
    likeliest(order, logits, v, settings.top_k);
    keep_only(settings.top_k);
  }
  if (settings.top_p >= 1.0F) return;
  const double enough =
      static_cast<double>(settings.top_p) * dispatch<SamplingTable>().total(weights, v);
  // Most nuclei are small: more tokens are put in order only while their mass falls short.
  const Index most = by_rank ? settings.top_k : v;
  Index nucleus = 0;
  double mass = 0.0;
  for (Index sorted = by_rank ? most : 0; nucleus < most && (nucleus == 0 || mass < enough);) {
    if (nucleus == sorted) {
      sorted = std::min(most, std::max<Index>(64, 8 * sorted));
      likeliest(order, logits, v, sorted);
    }
    mass += static_cast<double>(weights[order[nucleus++]]);
  }
  keep_only(nucleus);
}

/// Zeroes the weights that the filters exclude; the likeliest token's is 1.
inline void filter_weights(float* weights, const float* logits, Index v,
                           const SamplingSettings& settings, std::int32_t* order, float* kept) {
  keep_likeliest(weights, logits, v, settings, order, kept);
  if (settings.min_p <= 0.0F) return;
  for (Index i = 0; i < v; ++i)
    if (weights[i] < settings.min_p) weights[i] = 0.0F;
}

/// token[i], drawn with keys[i] from softmax(logits[i] / temperature) after the filters, and
/// logprob[i], nats: its log-probability in the unfiltered distribution, bitwise that of
/// head_logprob_forward at inverse_temperature 1 / temperature (greedy: 1); with
/// settings.filtered_logprob and a filter, that in what was drawn from (greedy: 0). logits (N, V);
/// token, logprob, keys (N).
/// NumericError naming the first row with a logit that is NaN or +infinity, or with none above
/// -infinity; its token is then 0 and its logprob NaN.
inline void sample_rows(Cpu device, std::int32_t* token, float* logprob, const float* logits,
                        Index n, Index v, const SamplingSettings& settings, const SampleKey* keys) {
  const DefaultFloats floats;
  const SamplingTable& table = dispatch<SamplingTable>();
  const bool greedy = settings.temperature == 0.0F;
  const float scale = greedy ? 1.0F : 1.0F / settings.temperature;
  const bool filtered = !greedy && settings.filters();
  parallel_for(device, n, 16384 / std::max<Index>(v, 1), [&](Index i, Index end) {
    const Scratch<float> weights(v), kept(filtered ? v : 0);
    const Scratch<std::int32_t> order(filtered ? v : 0);
    for (; i < end; ++i) {
      const float* row = logits + i * v;
      const float lse = table.weights(weights.data(), row, v, scale);
      if (lse != lse) {  // NaN, from a logit that is not finite: nothing can be ordered
        token[i] = 0;
        logprob[i] = lse;
        continue;
      }
      if (filtered) filter_weights(weights.data(), row, v, settings, order.data(), kept.data());
      if (greedy) {
        token[i] = static_cast<std::int32_t>(dispatch<ReduceTable>().argmax(row, v));
      } else {
        const SampleKey& key = keys[i];
        const auto words = philox(key.seed, Stage::Sample, key.step, key.sequence, key.token);
        token[i] = table.draw(weights.data(), v, uniform_from(words[0]));
      }
      if (!settings.filtered_logprob || !settings.filters())
        logprob[i] = table.logprob(row[token[i]], lse, scale);
      else if (greedy)
        logprob[i] = 0.0F;
      else
        logprob[i] = table.log_share(weights.data()[token[i]], table.total(weights.data(), v));
    }
  });
  require_drawn(logprob, n);
}

}  // namespace kernels
}}  // namespace plumb::v0_1
