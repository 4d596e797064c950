// The oracle of norm.hpp: the plain loops of double_rows.hpp over these floats.
#pragma once

#include <plumb/cpu/double_rows.hpp>

#include <vector>

namespace plumb { inline namespace v0_1 { namespace reference {

/// y (N, C) of either norm; bias null for RMSNorm, which also decides on centring.
inline std::vector<double> norm_forward(const float* x, const float* weight, const float* bias,
                                        Index n, Index c, double eps) {
  const std::vector<double> x64(x, x + n * c), w64(weight, weight + c);
  const std::vector<double> b64(bias, bias == nullptr ? bias : bias + c);
  std::vector<double> y(x64.size()), mean(static_cast<std::size_t>(n)), rstd(mean.size());
  kernels::in_double::norm_forward(y.data(), bias == nullptr ? nullptr : mean.data(), rstd.data(),
                                   x64.data(), w64.data(), bias == nullptr ? nullptr : b64.data(),
                                   n, c, eps);
  return y;
}

struct NormGradients {
  std::vector<double> dx, dweight, dbias;  ///< (N, C), (C), (C)
};

/// centred: LayerNorm, else RMSNorm.
inline NormGradients norm_backward(const float* dy, const float* x, const float* weight, Index n,
                                   Index c, double eps, bool centred) {
  const std::vector<double> dy64(dy, dy + n * c), x64(x, x + n * c), w64(weight, weight + c);
  std::vector<double> y(x64.size()), mean(static_cast<std::size_t>(n)), rstd(mean.size());
  double* const means = centred ? mean.data() : nullptr;
  kernels::in_double::norm_forward(y.data(), means, rstd.data(), x64.data(), w64.data(), nullptr, n,
                                   c, eps);
  NormGradients g{std::vector<double>(x64.size()), std::vector<double>(w64.size()),
                  std::vector<double>(w64.size())};
  kernels::in_double::norm_backward(g.dx.data(), g.dweight.data(), dy64.data(), x64.data(),
                                    w64.data(), means, rstd.data(), n, c);
  for (Index i = 0; i < n * c; ++i) g.dbias[static_cast<std::size_t>(i % c)] += double{dy[i]};
  return g;
}

}  // namespace reference
}}  // namespace plumb::v0_1
