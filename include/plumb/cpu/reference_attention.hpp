// The oracle of attention.hpp: the plain loops of double_attention.hpp over these floats.
#pragma once

#include <plumb/cpu/double_attention.hpp>

#include <vector>

namespace plumb { inline namespace v0_1 { namespace reference {

struct Attention {
  std::vector<double> out, lse;
};

/// out (N, H·D) and lse (N, H).
inline Attention attention_forward(const float* q, const float* k, const float* v,
                                   const std::int32_t* offsets, Index sequences,
                                   AttentionShape shape) {
  const Index rows = offsets[sequences], size = rows * shape.heads * shape.head_size;
  const Index kv_size = rows * shape.kv_heads * shape.head_size;
  const std::vector<double> q64(q, q + size), k64(k, k + kv_size), v64(v, v + kv_size);
  Attention y{std::vector<double>(q64.size()),
              std::vector<double>(static_cast<std::size_t>(rows * shape.heads))};
  kernels::attention_forward(Cpu{}, y.out.data(), y.lse.data(), q64.data(), k64.data(), v64.data(),
                             offsets, offsets, sequences, rows, rows, shape);
  return y;
}

struct AttentionGradient {
  std::vector<double> dq, dk, dv;
};

/// The gradient of Σ dout · out.
inline AttentionGradient attention_backward(const float* dout, const float* q, const float* k,
                                            const float* v, const std::int32_t* offsets,
                                            Index sequences, AttentionShape shape) {
  const Index rows = offsets[sequences], size = rows * shape.heads * shape.head_size;
  const Index kv_size = rows * shape.kv_heads * shape.head_size;
  const Attention y = attention_forward(q, k, v, offsets, sequences, shape);
  const std::vector<double> q64(q, q + size), k64(k, k + kv_size), v64(v, v + kv_size),
      dout64(dout, dout + size);
  AttentionGradient g{std::vector<double>(q64.size()), std::vector<double>(k64.size()),
                      std::vector<double>(k64.size())};
  kernels::attention_backward(Cpu{}, g.dq.data(), g.dk.data(), g.dv.data(), dout64.data(),
                              y.out.data(), y.lse.data(), q64.data(), k64.data(), v64.data(),
                              offsets, offsets, sequences, rows, rows, shape);
  return g;
}

}  // namespace reference
}}  // namespace plumb::v0_1
