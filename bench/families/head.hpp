// Log-probability of targets under a language-model head, forward and backward, on any device; and
// of given logits, which is the row part alone.
#pragma once

#include <plumb/bench.hpp>
#include <plumb/cpu/reference_head.hpp>

#include <algorithm>
#include <cmath>

#include "cases/head.hpp"
#include "families/support.hpp"

namespace families {

/// Of few elements: each takes a row of the vocabulary.
inline constexpr Index kHeadPlaces = 3;

/// log softmax of scale · logits, and what its logarithm of the sum is.
inline std::vector<double> log_shares(const std::vector<double>& logits, double scale,
                                      double& lse) {
  std::vector<double> log_p = plumb::reference::log_softmax(logits, scale);
  lse = scale * logits[0] - log_p[0];
  return log_p;
}

/// Weights such that logits are of order 1.
inline auto head_weights(const cases::head::Case& k) {
  const double size = 3.0 / std::sqrt(double(k.c));
  return in(k.v * k.c, -size, size);
}

template <class D, class Table>
void add_head_forward(const Table& table) {
  using cases::head::Case;
  add(
      "head_forward",
      [](D device, float* logprob, float* entropy, float* lse, const float* x, const float* w,
         const std::int32_t* targets, Index n, Index c, Index v, float scale) {
        head_logprob_forward(device, logprob, entropy, lse, x, w, targets, n, c, v, scale);
      },
      each_of(table,
              [](const Case& k) {
                const auto row = out(k.n, cases::head::kTolerance);
                return arguments(row, row, row, in(k.n * k.c), head_weights(k), ids(k.n, k.v), k.n,
                                 k.c, k.v, k.scale)
                    .looked_at(kHeadPlaces);
              }),
      [](const Places& places, Results logprob, Results entropy, Results lse, Doubles x, Doubles w,
         Ids targets, Index n, Index c, Index v, float scale) {
        for (const Index i : places(n)) {
          const auto logits = plumb::reference::head_logits(&x[at(i * c)], w.data(), c, v);
          const auto log_p = log_shares(logits, double{scale}, lse[at(i)]);
          logprob[at(i)] = log_p[at(targets[at(i)])];
          entropy[at(i)] = plumb::reference::entropy_of(log_p);
        }
      },
      cases::head::forward_work);
}

/// What the forward pass left is given, and need not be what it would be: a gradient is a formula.
template <class D, class Table>
void add_head_backward(const Table& table) {
  using cases::head::Case;
  add(
      "head_backward",
      [](D device, float* dx, float* dw, const float* dlogprob, const float* dentropy,
         const float* x, const float* w, const std::int32_t* targets, const float* lse,
         const float* entropy, Index n, Index c, Index v, float scale) {
        head_logprob_backward(device, dx, dw, dlogprob, dentropy, x, w, targets, lse, entropy, n, c,
                              v, scale);
      },
      each_of(
          table,
          [](const Case& k) {
            const double tolerance = cases::head::kGradientTolerance, top = std::log(double(k.v));
            return arguments(inout(k.n * k.c, tolerance), inout(k.v * k.c, tolerance), in(k.n),
                             in(k.n), in(k.n * k.c), head_weights(k), ids(k.n, k.v),
                             in(k.n, top, top + 1), in(k.n, top - 1, top), k.n, k.c, k.v, k.scale)
                .looked_at(kHeadPlaces);
          }),
      [](const Places& places, Results dx, Results dw, Doubles dlogprob, Doubles dentropy,
         Doubles x, Doubles w, Ids targets, Doubles lse, Doubles entropy, Index n, Index c, Index v,
         float scale) {
        // Of row i by the logit of token j.
        const auto slope = [&](Index i, Index j) {
          double logit = 0;
          for (Index k = 0; k < c; ++k) logit += x[at(i * c + k)] * w[at(j * c + k)];
          const double log_p = double{scale} * logit - lse[at(i)], p = std::exp(log_p);
          const double chosen = targets[at(i)] == j ? 1.0 : 0.0;
          return double{scale} *
                 (dlogprob[at(i)] * (chosen - p) - dentropy[at(i)] * p * (log_p + entropy[at(i)]));
        };
        for (const Index to : places(n * c))
          for (Index j = 0; j < v; ++j) dx[at(to)] += slope(to / c, j) * w[at(j * c + to % c)];
        for (const Index to : places(v * c))
          for (Index i = 0; i < n; ++i) dw[at(to)] += slope(i, to / c) * x[at(i * c + to % c)];
      },
      cases::head::backward_work);
}

/// Logits of order 10, as a trained model's.
template <class D, class Table>
void add_head_rows_forward(const Table& table) {
  using cases::head::Case;
  add(
      "head_rows_forward",
      [](D device, float* logprob, float* lse, const float* logits, const std::int32_t* targets,
         Index n, Index v, float scale) {
        logprob_rows(device, logprob, nullptr, lse, logits, targets, n, v, scale);
      },
      each_of(table,
              [](const Case& k) {
                const auto row = out(k.n, cases::head::kTolerance);
                return arguments(row, row, in(k.n * k.v, -10, 10), ids(k.n, k.v), k.n, k.v, k.scale)
                    .looked_at(99);
              }),
      [](const Places& places, Results logprob, Results lse, Doubles logits, Ids targets, Index n,
         Index v, float scale) {
        for (const Index i : places(n)) {
          const double* z = &logits[at(i * v)];
          logprob[at(i)] = log_shares({z, z + v}, double{scale}, lse[at(i)])[at(targets[at(i)])];
        }
      },
      cases::head::rows_forward_work);
}

}  // namespace families
