// Generalised advantage estimation (Schulman et al. 2016) over the tokens of a response, and the
// whitening of rewards and advantages.
//
//   δ_t = r_t + γ V_{t+1} − V_t,   A_t = δ_t + γλ A_{t+1},   V_T = A_T = 0,   R_t = A_t + V_t
//
// V_t is the value of the state before token t. Lengths are carried: nothing is masked or padded.
#pragma once

#include <plumb/core/check.hpp>

#include <array>
#include <cmath>
#include <span>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

struct Advantages {
  std::vector<float> advantages;  ///< (T)
  std::vector<float> returns;     ///< (T) before any whitening of the advantages
};

/// rewards and values (T) of one response -> advantages and returns (T).
inline Advantages gae(std::span<const float> rewards, std::span<const float> values, float gamma,
                      float lambda, Where where = Where::here()) {
  if (rewards.size() != values.size())
    fail(str("[gae] ", rewards.size(), " rewards but ", values.size(), " values"), where);
  const std::size_t steps = rewards.size();
  Advantages result{std::vector<float>(steps), std::vector<float>(steps)};
  float next_value = 0, next_advantage = 0;
  for (std::size_t t = steps; t-- > 0;) {
    const float delta = std::fma(gamma, next_value, rewards[t]) - values[t];
    next_advantage = std::fma(gamma * lambda, next_advantage, delta);
    next_value = values[t];
    result.advantages[t] = next_advantage;
    result.returns[t] = next_advantage + values[t];
  }
  return result;
}

/// Which variance whitening divides by. lm-human-preferences and OpenRLHF: Population; TRL and
/// VERL: Unbiased (n - 1). Both over the tokens that exist, never over padding.
enum class Whitening { None, Population, Unbiased };
constexpr std::array<std::pair<const char*, Whitening>, 3> choices(Whitening) {
  return {{{"none", Whitening::None},
           {"population", Whitening::Population},
           {"unbiased", Whitening::Unbiased}}};
}

/// x ← (x − mean) / √(var + 1e-8), over all values given; the mean is added back unless
/// `shift_mean`
/// (rewards keep theirs, advantages do not). Fewer than two values are left as they are.
inline void whiten(std::span<float* const> values, Whitening kind, bool shift_mean) {
  const auto n = static_cast<double>(values.size());
  if (kind == Whitening::None || values.size() < 2) return;
  double mean = 0, square = 0;
  for (const float* x : values) mean += *x;
  mean /= n;
  for (const float* x : values) square += (*x - mean) * (*x - mean);
  const double variance = square / (kind == Whitening::Unbiased ? n - 1 : n);
  const double inverse = 1.0 / std::sqrt(variance + 1e-8);
  for (float* x : values)
    *x = static_cast<float>((*x - mean) * inverse + (shift_mean ? 0.0 : mean));
}

}}  // namespace plumb::v0_1
