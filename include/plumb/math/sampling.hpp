// How a token is drawn, for the kernels of every backend and the sampler above them.
#pragma once

#include <plumb/core/check.hpp>

#include <cstdint>

namespace plumb { inline namespace v0_1 {

/// How the next token is drawn. temperature 0 is greedy: the largest logit, the lowest index on
/// ties.
struct SamplingSettings {
  float temperature = 1.0F;
  Index top_k = 0;     ///< keep the k most probable; 0: all
  float top_p = 1.0F;  ///< then the smallest set of at least this mass; 1: all
  float min_p = 0.0F;  ///< then those at least so likely as a share of the likeliest; 0: all
  bool filtered_logprob = false;  ///< log-probabilities of what the filters leave, not of the whole

  /// Whether the draw is from another distribution than softmax(logits / temperature).
  constexpr bool filters() const {
    return top_k > 0 || top_p < 1.0F || min_p > 0.0F || temperature == 0.0F;
  }
};

/// NumericError naming the first of n drawn rows whose log-probability is NaN.
inline void require_drawn(const float* logprob, Index n) {
  for (Index i = 0; i < n; ++i)
    if (logprob[i] != logprob[i])
      fail<NumericError>(
          str("[sample_rows] row ", i,
              ": a logit is NaN or +infinity, so nothing can be drawn. HINT: are the "
              "model's weights finite, and the temperature not too small?"));
}

/// Where a draw stands: its random number is a function of this alone.
struct SampleKey {
  std::uint64_t seed;
  std::uint32_t step, sequence, token;
};

}}  // namespace plumb::v0_1
