// The output head and the losses of RLHF in double precision, as plain loops: see double.hpp. The
// losses are the formulas of float, compiled for another number.
#pragma once

#include <plumb/core/device.hpp>
#include <plumb/core/real.hpp>
#include <plumb/math/loss.hpp>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace plumb { inline namespace v0_1 { namespace kernels {

namespace in_double {

/// What the formulas of math/ call.
using Real = double;
inline double exp(double x) { return real::exp(x); }
inline double log(double x) { return real::log(x); }
inline double abs(double x) { return x < 0 ? -x : x; }
inline double min(double a, double b) { return a < b ? a : b; }
inline double max(double a, double b) { return a > b ? a : b; }
inline double fma(double a, double b, double c) { return a * b + c; }
inline double sigmoid(double x) { return 1 / (1 + exp(-x)); }
inline double softplus(double x) { return max(x, 0) + real::log1p(exp(-abs(x))); }

#define PLUMB_FORMULA inline
#include <plumb/math/loss.inl.hpp>

#include <plumb/cpu/loss.inl.hpp>
#undef PLUMB_FORMULA

/// z (V) = inverse · w·x, and log Σ e^z.
inline double head_row(std::vector<double>& z, const double* x, const double* w, Index c, Index v,
                       double inverse) {
  z.assign(static_cast<std::size_t>(v), 0);
  for (Index j = 0; j < v; ++j)
    for (Index k = 0; k < c; ++k) z[static_cast<std::size_t>(j)] += inverse * x[k] * w[j * c + k];
  const double most = *std::max_element(z.begin(), z.end());
  double total = 0;
  for (const double each : z) total += exp(each - most);
  return most + log(total);
}

}  // namespace in_double

inline void head_logprob_forward(Cpu, double* logprob, double* entropy, double* lse,
                                 const double* x, const double* w, const std::int32_t* targets,
                                 Index n, Index c, Index v, double inverse_temperature,
                                 double* = nullptr) {
  std::vector<double> z;
  for (Index i = 0; i < n; ++i) {
    lse[i] = in_double::head_row(z, x + i * c, w, c, v, inverse_temperature);
    logprob[i] = z[static_cast<std::size_t>(targets[i])] - lse[i];
    if (entropy == nullptr) continue;
    entropy[i] = 0;
    for (const double each : z) entropy[i] -= real::exp(each - lse[i]) * (each - lse[i]);
  }
}
inline void head_logprob_backward(Cpu, double* dx, double* dw, const double* dlogprob,
                                  const double* dentropy, const double* x, const double* w,
                                  const std::int32_t* targets, const double* lse,
                                  const double* entropy, Index n, Index c, Index v,
                                  double inverse_temperature, double* = nullptr) {
  std::vector<double> z;
  for (Index i = 0; i < n; ++i) {
    in_double::head_row(z, x + i * c, w, c, v, inverse_temperature);
    for (Index j = 0; j < v; ++j) {
      const double log_p = z[static_cast<std::size_t>(j)] - lse[i], p = real::exp(log_p);
      double dz = dlogprob[i] * ((j == targets[i] ? 1 : 0) - p);
      if (dentropy != nullptr) dz -= dentropy[i] * p * (log_p + entropy[i]);
      dz *= inverse_temperature;
      for (Index k = 0; k < c; ++k) {
        if (dx != nullptr) dx[i * c + k] += dz * w[j * c + k];
        if (dw != nullptr) dw[j * c + k] += dz * x[i * c + k];
      }
    }
  }
}

inline void ppo_policy_loss(Cpu, double* loss, double* dlogprob, PolicyStats* stats,
                            const double* logprob, const double* old_logprob,
                            const double* advantage, const double* weight, Index n,
                            const PpoClip& clip) {
  in_double::ppo_policy(loss, dlogprob, stats, logprob, old_logprob, advantage, weight, n, clip);
}
inline void ppo_value_loss(Cpu, double* loss, double* dvalue, ValueStats* stats,
                           const double* value, const double* old_value, const double* returns,
                           const double* weight, Index n, double clip) {
  in_double::ppo_value(loss, dvalue, stats, value, old_value, returns, weight, n, clip);
}
inline void kl_loss(Cpu, double* loss, double* dlogprob, const double* logprob,
                    const double* ref_logprob, const double* weight, Index n, KlEstimator kind) {
  in_double::kl(loss, dlogprob, logprob, ref_logprob, weight, n, kind);
}
inline void weighted_sum(Cpu, double* sum, const double* x, const double* weight, Index n) {
  in_double::weighted_sum(sum, x, weight, n);
}
inline void segment_sum(Cpu, double* sums, const double* x, const double* weight,
                        const std::int32_t* offsets, Index segments) {
  in_double::segment_sum(sums, x, weight, offsets, segments);
}
inline void segment_spread(Cpu, double* dx, const double* dsums, const double* weight,
                           const std::int32_t* offsets, Index segments) {
  in_double::segment_spread(dx, dsums, weight, offsets, segments);
}
inline void kto_loss(Cpu, double* loss, double* dscore, const double* score, const double* sign,
                     const double* weight, Index n, double reference) {
  in_double::kto(loss, dscore, score, sign, weight, n, reference);
}
inline void log_odds_forward(Cpu, double* y, const double* x, Index n) {
  in_double::log_odds_forward(y, x, n);
}
inline void log_odds_backward(Cpu, double* dx, const double* dy, const double* x, Index n) {
  in_double::log_odds_backward(dx, dy, x, n);
}
inline void ranking_loss(Cpu, double* loss, double* dscore, RankingStats* stats,
                         const double* score, const std::int32_t* rank, const double* level,
                         const std::int32_t* offsets, const double* weight, Index prompts,
                         const RankingLoss& settings) {
  in_double::ranking(loss, dscore, stats, score, rank, level, offsets, weight, prompts, settings);
}

}}}  // namespace plumb::v0_1::kernels
