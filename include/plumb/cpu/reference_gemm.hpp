// The oracle of gemm.hpp: plain loops in double precision.
#pragma once

#include <plumb/math/gemm.hpp>

#include <cmath>
#include <vector>

namespace plumb { inline namespace v0_1 {

namespace reference {

/// Σ_k f(a, b) over the terms of each element of C (M, N).
template <class F>
std::vector<double> product(const float* a, const float* b, Index m, Index n, Index k, Form form,
                            F f) {
  std::vector<double> c(static_cast<std::size_t>(m * n));
  for (Index i = 0; i < m; ++i)
    for (Index j = 0; j < n; ++j) {
      double sum = 0;
      for (Index p = 0; p < k; ++p)
        sum += f(static_cast<double>(a[form == Form::TN ? p * m + i : i * k + p]),
                 static_cast<double>(b[form == Form::NT ? j * k + p : p * n + j]));
      c[static_cast<std::size_t>(i * n + j)] = sum;
    }
  return c;
}

/// C (M, N) = A·B in the given form.
inline std::vector<double> matmul(const float* a, const float* b, Index m, Index n, Index k,
                                  Form form) {
  return product(a, b, m, n, k, form, [](double x, double y) { return x * y; });
}

/// Σ |a·b|: the natural scale of each element's rounding error.
inline std::vector<double> matmul_scale(const float* a, const float* b, Index m, Index n, Index k,
                                        Form form) {
  return product(a, b, m, n, k, form, [](double x, double y) { return std::abs(x * y); });
}

}  // namespace reference
}}  // namespace plumb::v0_1
