// Norms and rotary positions in double precision, as plain loops: see double.hpp.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/core/device.hpp>

#include <cstdint>

namespace plumb { inline namespace v0_1 { namespace kernels {

namespace in_double {

/// y (N, C) and what the backward pass takes: rstd (N), and mean (N); without it, RMSNorm.
inline void norm_forward(double* y, double* mean, double* rstd, const double* x,
                         const double* weight, const double* bias, Index n, Index c, double eps) {
  const auto channels = static_cast<double>(c);
  for (Index i = 0; i < n; ++i, x += c, y += c) {
    double level = 0, squares = 0;
    if (mean != nullptr) {
      for (Index j = 0; j < c; ++j) level += x[j];
      level /= channels;
      mean[i] = level;
    }
    for (Index j = 0; j < c; ++j) squares += (x[j] - level) * (x[j] - level);
    rstd[i] = 1 / __builtin_sqrt(squares / channels + eps);
    for (Index j = 0; j < c; ++j)
      y[j] = weight[j] * ((x[j] - level) * rstd[i]) + (bias != nullptr ? bias[j] : 0);
  }
}

inline void norm_backward(double* dx, double* dweight, const double* dy, const double* x,
                          const double* weight, const double* mean, const double* rstd, Index n,
                          Index c) {
  const auto channels = static_cast<double>(c);
  for (Index i = 0; i < n; ++i) {
    const Index row = i * c;
    const double level = mean != nullptr ? mean[i] : 0;
    double sum = 0, along = 0;  // Σ g and Σ g · x̂ of g = weight · dy
    for (Index j = 0; j < c; ++j) {
      const double g = weight[j] * dy[row + j], normal = (x[row + j] - level) * rstd[i];
      sum += mean != nullptr ? g : 0;
      along += g * normal;
      if (dweight != nullptr) dweight[j] += dy[row + j] * normal;
    }
    for (Index j = 0; j < c && dx != nullptr; ++j) {
      const double normal = (x[row + j] - level) * rstd[i];
      dx[row + j] +=
          rstd[i] * (weight[j] * dy[row + j] - sum / channels - normal * along / channels);
    }
  }
}

/// y = x turned, or += by the angles of the other sign.
inline void turn(double* y, const double* x, const double* cosine, const double* sine,
                 const std::int32_t* positions, Index n, Index heads, Index head_size,
                 bool backward) {
  const Index half = head_size / 2;
  for (Index i = 0; i < n * heads * half; ++i) {
    const Index angle = positions[i / (heads * half)] * half + i % half;
    const double c = cosine[angle], s = backward ? -sine[angle] : sine[angle];
    const double a = x[2 * i], b = x[2 * i + 1];
    y[2 * i] = (backward ? y[2 * i] : 0) + (a * c - b * s);
    y[2 * i + 1] = (backward ? y[2 * i + 1] : 0) + (b * c + a * s);
  }
}

}  // namespace in_double

inline void rms_norm_forward(Cpu, double* y, double* rstd, const double* x, const double* weight,
                             Index n, Index c, double eps) {
  in_double::norm_forward(y, nullptr, rstd, x, weight, nullptr, n, c, eps);
}
inline void rms_norm_backward(Cpu, double* dx, double* dweight, const double* dy, const double* x,
                              const double* weight, const double* rstd, Index n, Index c) {
  in_double::norm_backward(dx, dweight, dy, x, weight, nullptr, rstd, n, c);
}
inline void layer_norm_forward(Cpu, double* y, double* mean, double* rstd, const double* x,
                               const double* weight, const double* bias, Index n, Index c,
                               double eps) {
  in_double::norm_forward(y, mean, rstd, x, weight, bias, n, c, eps);
}
inline void layer_norm_backward(Cpu, double* dx, double* dweight, double* dbias, const double* dy,
                                const double* x, const double* weight, const double* mean,
                                const double* rstd, Index n, Index c) {
  in_double::norm_backward(dx, dweight, dy, x, weight, mean, rstd, n, c);
  for (Index i = 0; i < n * c && dbias != nullptr; ++i) dbias[i % c] += dy[i];
}

inline void rope_forward(Cpu, double* y, const double* x, const double* cosine, const double* sine,
                         const std::int32_t* positions, Index n, Index heads, Index head_size) {
  in_double::turn(y, x, cosine, sine, positions, n, heads, head_size, false);
}
inline void rope_backward(Cpu, double* dx, const double* dy, const double* cosine,
                          const double* sine, const std::int32_t* positions, Index n, Index heads,
                          Index head_size) {
  in_double::turn(dx, dy, cosine, sine, positions, n, heads, head_size, true);
}

}}}  // namespace plumb::v0_1::kernels
