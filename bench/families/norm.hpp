// RMSNorm and LayerNorm, forward and backward, on any device.
#pragma once

#include <plumb/bench.hpp>
#include <plumb/cpu/reference_norm.hpp>

#include <cmath>

#include "cases/norm.hpp"
#include "families/support.hpp"

namespace families {

inline constexpr float kNormEps = 1e-5F;

/// Of a row whose statistics were computed before.
inline plumb::reference::NormRow known_row(const double* x, Index c, double mean, double rstd) {
  plumb::reference::NormRow row{mean, rstd, {}};
  for (Index j = 0; j < c; ++j) row.normal.push_back((x[j] - mean) * rstd);
  return row;
}

template <class D, class Table>
void add_rms_norm(const Table& table) {
  using cases::norm::Case;
  add(
      "rms_norm_forward",
      [](D device, float* y, float* rstd, const float* x, const float* weight, Index n, Index c) {
        rms_norm_forward(device, y, rstd, x, weight, n, c, kNormEps);
      },
      each_of(table,
              [](const Case& k) {
                const double tolerance = cases::norm::kTolerance;
                return arguments(out(k.n * k.c, tolerance), out(k.n, tolerance), in(k.n * k.c),
                                 in(k.c), k.n, k.c);
              }),
      [](Results y, Results rstd, Doubles x, Doubles weight, Index n, Index c) {
        for (Index i = 0; i < n; ++i) {
          const auto row = plumb::reference::norm_row(&x[at(i * c)], c, double{kNormEps}, false);
          rstd[at(i)] = row.rstd;
          for (Index j = 0; j < c; ++j) y[at(i * c + j)] = row.normal[at(j)] * weight[at(j)];
        }
      },
      cases::norm::forward_work);
  add(
      "rms_norm_backward",
      [](D device, float* dx, float* dweight, const float* dy, const float* x, const float* weight,
         const float* rstd, Index n,
         Index c) { rms_norm_backward(device, dx, dweight, dy, x, weight, rstd, n, c); },
      each_of(table,
              [](const Case& k) {
                const double tolerance = cases::norm::kTolerance;
                return arguments(inout(k.n * k.c, 4 * tolerance),
                                 inout(k.c, tolerance * std::sqrt(double(k.n))), in(k.n * k.c),
                                 in(k.n * k.c), in(k.c), in(k.n, 1.6, 1.8), k.n, k.c);
              }),
      [](Results dx, Results dweight, Doubles dy, Doubles x, Doubles weight, Doubles rstd, Index n,
         Index c) {
        std::vector<double> dbias(at(c));
        for (Index i = 0; i < n; ++i)
          plumb::reference::add_norm_gradients(
              &dx[at(i * c)], dweight.data(), dbias.data(), &dy[at(i * c)], weight.data(),
              known_row(&x[at(i * c)], c, 0, rstd[at(i)]), c, false);
      },
      cases::norm::backward_work);
}

template <class D, class Table>
void add_layer_norm(const Table& table) {
  using cases::norm::Case;
  add(
      "layer_norm_forward",
      [](D device, float* y, float* mean, float* rstd, const float* x, const float* weight,
         const float* bias, Index n,
         Index c) { layer_norm_forward(device, y, mean, rstd, x, weight, bias, n, c, kNormEps); },
      each_of(table,
              [](const Case& k) {
                const double tolerance = cases::norm::kTolerance;
                return arguments(out(k.n * k.c, tolerance), out(k.n, tolerance),
                                 out(k.n, tolerance), in(k.n * k.c), in(k.c), in(k.c), k.n, k.c);
              }),
      [](Results y, Results mean, Results rstd, Doubles x, Doubles weight, Doubles bias, Index n,
         Index c) {
        for (Index i = 0; i < n; ++i) {
          const auto row = plumb::reference::norm_row(&x[at(i * c)], c, double{kNormEps}, true);
          mean[at(i)] = row.mean;
          rstd[at(i)] = row.rstd;
          for (Index j = 0; j < c; ++j)
            y[at(i * c + j)] = row.normal[at(j)] * weight[at(j)] + bias[at(j)];
        }
      },
      cases::norm::forward_work);
  add(
      "layer_norm_backward",
      [](D device, float* dx, float* dweight, float* dbias, const float* dy, const float* x,
         const float* weight, const float* mean, const float* rstd, Index n, Index c) {
        layer_norm_backward(device, dx, dweight, dbias, dy, x, weight, mean, rstd, n, c);
      },
      each_of(table,
              [](const Case& k) {
                const double tolerance = cases::norm::kTolerance,
                             sums = tolerance * std::sqrt(double(k.n));
                return arguments(inout(k.n * k.c, 4 * tolerance), inout(k.c, sums),
                                 inout(k.c, sums), in(k.n * k.c), in(k.n * k.c), in(k.c),
                                 in(k.n, -0.1, 0.1), in(k.n, 1.6, 1.8), k.n, k.c);
              }),
      [](Results dx, Results dweight, Results dbias, Doubles dy, Doubles x, Doubles weight,
         Doubles mean, Doubles rstd, Index n, Index c) {
        for (Index i = 0; i < n; ++i)
          plumb::reference::add_norm_gradients(
              &dx[at(i * c)], dweight.data(), dbias.data(), &dy[at(i * c)], weight.data(),
              known_row(&x[at(i * c)], c, mean[at(i)], rstd[at(i)]), c, true);
      },
      cases::norm::backward_work);
}

}  // namespace families
