// The oracle of attention.hpp: plain loops in double precision over the full row of scores.
#pragma once

#include <plumb/math/attention.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

namespace plumb { inline namespace v0_1 {

namespace reference {

struct Attention {
  std::vector<double> out, lse;
};

/// Of one query q (D): shares of the `count` keys from k on, `stride` apart, and the logarithm of
/// their sum.
struct AttentionRow {
  std::vector<double> p;
  double lse = 0;
};
template <class T>
AttentionRow attention_row(const T* q, const T* k, Index count, Index stride, Index size,
                           double scale) {
  AttentionRow row;
  for (Index j = 0; j < count; ++j) {
    double dot = 0;
    for (Index d = 0; d < size; ++d)
      dot += static_cast<double>(q[d]) * static_cast<double>(k[j * stride + d]);
    row.p.push_back(dot * scale);
  }
  const double most = *std::max_element(row.p.begin(), row.p.end());
  double total = 0;
  for (double& x : row.p) total += x = std::exp(x - most);
  for (double& x : row.p) x /= total;
  row.lse = most + std::log(total);
  return row;
}

/// out (N, H·D) and lse (N, H).
inline Attention attention_forward(const float* q, const float* k, const float* v,
                                   const std::int32_t* offsets, Index sequences,
                                   AttentionShape shape) {
  const auto [heads, kv_heads, size, scale] = shape;
  const auto rows = static_cast<std::size_t>(offsets[sequences]);
  Attention y{std::vector<double>(rows * static_cast<std::size_t>(heads * size)),
              std::vector<double>(rows * static_cast<std::size_t>(heads))};
  for (Index b = 0; b < sequences; ++b)
    for (Index i = offsets[b]; i < offsets[b + 1]; ++i)
      for (Index h = 0; h < heads; ++h) {
        const Index at = (i * heads + h) * size, stride = kv_heads * size;
        const Index keys = (offsets[b] * kv_heads + h / (heads / kv_heads)) * size;
        const AttentionRow row = attention_row(q + at, k + keys, i - offsets[b] + 1, stride, size,
                                               static_cast<double>(scale));
        y.lse[static_cast<std::size_t>(i * heads + h)] = row.lse;
        for (std::size_t j = 0; j < row.p.size(); ++j)
          for (Index d = 0; d < size; ++d)
            y.out[static_cast<std::size_t>(at + d)] +=
                row.p[j] * static_cast<double>(v[keys + static_cast<Index>(j) * stride + d]);
      }
  return y;
}

struct AttentionGradient {
  std::vector<double> dq, dk, dv;
};

/// The analytic gradient of Σ dout · out.
inline AttentionGradient attention_backward(const float* dout, const float* q, const float* k,
                                            const float* v, const std::int32_t* offsets,
                                            Index sequences, AttentionShape shape) {
  const auto [heads, kv_heads, size, scale] = shape;
  const Attention y = attention_forward(q, k, v, offsets, sequences, shape);
  const auto rows = static_cast<std::size_t>(offsets[sequences]);
  const std::size_t kv_elements = rows * static_cast<std::size_t>(kv_heads * size);
  AttentionGradient g{std::vector<double>(y.out.size()), std::vector<double>(kv_elements),
                      std::vector<double>(kv_elements)};
  for (Index b = 0; b < sequences; ++b)
    for (Index i = offsets[b]; i < offsets[b + 1]; ++i)
      for (Index h = 0; h < heads; ++h)
        for (Index j = offsets[b]; j <= i; ++j) {
          const Index qi = (i * heads + h) * size;
          const Index kj = (j * kv_heads + h / (heads / kv_heads)) * size;
          double s = 0;
          double dp = 0;
          double delta = 0;
          for (Index d = 0; d < size; ++d) {
            s += static_cast<double>(q[qi + d]) * static_cast<double>(k[kj + d]);
            dp += static_cast<double>(dout[qi + d]) * static_cast<double>(v[kj + d]);
            delta += static_cast<double>(dout[qi + d]) * y.out[static_cast<std::size_t>(qi + d)];
          }
          const double p = std::exp(s * static_cast<double>(scale) -
                                    y.lse[static_cast<std::size_t>(i * heads + h)]);
          const double ds = p * (dp - delta) * static_cast<double>(scale);
          for (Index d = 0; d < size; ++d) {
            g.dq[static_cast<std::size_t>(qi + d)] += ds * static_cast<double>(k[kj + d]);
            g.dk[static_cast<std::size_t>(kj + d)] += ds * static_cast<double>(q[qi + d]);
            g.dv[static_cast<std::size_t>(kj + d)] += p * static_cast<double>(dout[qi + d]);
          }
        }
  return g;
}

}  // namespace reference
}}  // namespace plumb::v0_1
