// RMSNorm and LayerNorm in plain loops and double precision: the oracle of norm.hpp's tests, and
// the shortest way to read what they compute; of float or double arrays. Not for use in a program:
// slow, and in no canonical order.
#pragma once

#include <plumb/core/check.hpp>

#include <cmath>
#include <type_traits>
#include <vector>

namespace plumb { inline namespace v0_1 {

namespace reference {

/// What the backward pass needs to know of a row, and the normalised values x̂ (C).
struct NormRow {
  double mean, rstd;
  std::vector<double> normal;
};

/// centred: LayerNorm, else RMSNorm.
template <class T>
NormRow norm_row(const T* x, Index c, double eps, bool centred) {
  NormRow row{0, 0, std::vector<double>(static_cast<std::size_t>(c))};
  double squares = 0;
  if (centred)
    for (Index j = 0; j < c; ++j) row.mean += double{x[j]} / static_cast<double>(c);
  for (Index j = 0; j < c; ++j) squares += (double{x[j]} - row.mean) * (double{x[j]} - row.mean);
  row.rstd = 1 / std::sqrt(squares / static_cast<double>(c) + eps);
  for (Index j = 0; j < c; ++j)
    row.normal[static_cast<std::size_t>(j)] = (double{x[j]} - row.mean) * row.rstd;
  return row;
}

/// y (N, C) of either norm; bias null for RMSNorm, which also decides on centring.
template <class T>
std::vector<double> norm_forward(const T* x, const T* weight, const std::type_identity_t<T>* bias,
                                 Index n, Index c, double eps) {
  std::vector<double> y;
  for (Index i = 0; i < n; ++i) {
    const NormRow row = norm_row(x + i * c, c, eps, bias != nullptr);
    for (Index j = 0; j < c; ++j)
      y.push_back(row.normal[static_cast<std::size_t>(j)] * double{weight[j]} +
                  (bias != nullptr ? double{bias[j]} : 0.0));
  }
  return y;
}

struct NormGradients {
  std::vector<double> dx, dweight, dbias;  ///< (N, C), (C), (C)
};

/// Adds to dweight and dbias (C) what a row gives, and to dx (C) its gradient.
template <class T>
void add_norm_gradients(double* dx, double* dweight, double* dbias, const T* dy, const T* weight,
                        const NormRow& row, Index c, bool centred) {
  double level = 0, along = 0;
  for (Index j = 0; j < c; ++j) {
    const double x = row.normal[static_cast<std::size_t>(j)];
    const double d = dy[j], g = d * double{weight[j]};
    dweight[j] += d * x;
    dbias[j] += d;
    level += centred ? g / static_cast<double>(c) : 0.0;
    along += g * x / static_cast<double>(c);
  }
  for (Index j = 0; j < c; ++j)
    dx[j] += row.rstd * (double{dy[j]} * double{weight[j]} - level -
                         along * row.normal[static_cast<std::size_t>(j)]);
}

template <class T>
NormGradients norm_backward(const T* dy, const T* x, const T* weight, Index n, Index c, double eps,
                            bool centred) {
  const auto columns = static_cast<std::size_t>(c);
  NormGradients result{std::vector<double>(static_cast<std::size_t>(n * c)),
                       std::vector<double>(columns), std::vector<double>(columns)};
  for (Index i = 0; i < n; ++i)
    add_norm_gradients(result.dx.data() + i * c, result.dweight.data(), result.dbias.data(),
                       dy + i * c, weight, norm_row(x + i * c, c, eps, centred), c, centred);
  return result;
}

}  // namespace reference
}}  // namespace plumb::v0_1
