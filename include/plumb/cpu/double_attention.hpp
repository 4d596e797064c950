// Attention in double precision, as plain loops over the full row of scores: see double.hpp.
#pragma once

#include <plumb/core/device.hpp>
#include <plumb/core/real.hpp>
#include <plumb/math/attention.hpp>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace plumb { inline namespace v0_1 { namespace kernels {

namespace in_double {

inline double dot(const double* a, const double* b, Index n) {
  double sum = 0;
  for (Index i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

/// Calls body(query row, head, offset of its key and value head, first key, end of keys).
template <class Body>
void for_queries(const std::int32_t* offsets, const std::int32_t* key_offsets, Index sequences,
                 const AttentionShape& shape, Body body) {
  for (Index b = 0; b < sequences; ++b)
    for (Index i = offsets[b]; i < offsets[b + 1]; ++i)
      for (Index h = 0; h < shape.heads; ++h)
        body(i, h, h / (shape.heads / shape.kv_heads) * shape.head_size, Index{key_offsets[b]},
             key_offsets[b + 1] - (offsets[b + 1] - 1 - i));
}

}  // namespace in_double

inline void attention_forward(Cpu, double* out, double* lse, const double* q, const double* k,
                              const double* v, const std::int32_t* offsets,
                              const std::int32_t* key_offsets, Index sequences, Index, Index,
                              AttentionShape shape) {
  const Index size = shape.head_size, stride = shape.kv_heads * size;
  const double scale = shape.scale;
  std::vector<double> scores;
  in_double::for_queries(
      offsets, key_offsets, sequences, shape,
      [&](Index i, Index h, Index kv, Index first, Index end) {
        const Index at = i * shape.heads + h;
        scores.clear();
        for (Index j = first; j < end; ++j)
          scores.push_back(scale * in_double::dot(q + at * size, k + j * stride + kv, size));
        const double most = *std::max_element(scores.begin(), scores.end());
        double total = 0;
        for (const double score : scores) total += real::exp(score - most);
        lse[at] = most + real::log(total);
        std::fill_n(out + at * size, size, 0.0);
        for (Index j = first; j < end; ++j) {
          const double p = real::exp(scores[static_cast<std::size_t>(j - first)] - lse[at]);
          for (Index d = 0; d < size; ++d) out[at * size + d] += p * v[j * stride + kv + d];
        }
      });
}

inline void attention_backward(Cpu, double* dq, double* dk, double* dv, const double* dout,
                               const double* out, const double* lse, const double* q,
                               const double* k, const double* v, const std::int32_t* offsets,
                               const std::int32_t* key_offsets, Index sequences, Index, Index,
                               AttentionShape shape) {
  const Index size = shape.head_size, stride = shape.kv_heads * size;
  const double scale = shape.scale;
  in_double::for_queries(
      offsets, key_offsets, sequences, shape,
      [&](Index i, Index h, Index kv, Index first, Index end) {
        const Index row = i * shape.heads + h, at = row * size;
        const double along = in_double::dot(dout + at, out + at, size);
        for (Index j = first; j < end; ++j) {
          const Index key = j * stride + kv;
          const double p = real::exp(scale * in_double::dot(q + at, k + key, size) - lse[row]);
          const double ds = scale * p * (in_double::dot(dout + at, v + key, size) - along);
          for (Index d = 0; d < size; ++d) {
            dq[at + d] += ds * k[key + d];
            dk[key + d] += ds * q[at + d];
            dv[key + d] += p * dout[at + d];
          }
        }
      });
}

}}}  // namespace plumb::v0_1::kernels
