// Rung 5: the library's own kernel (plumb/cuda/attention.cuh), in float: rung 3 with the register
// tile that it lacks. A thread has 4 queries and 4 keys of a block of 32, so that 8 loads of 16
// bytes serve 64 multiply-adds; 64 queries a block; keys and values come in slices by cp.async, the
// next while one is worked on.
//
// What it adds: many heads, grouped ones too, of any size to 256, over packed sequences whose
// lengths the host does not read; the logarithm of each row's sum, for the backward pass. And the
// CPU's bits: e^x is its polynomial, and the softmax begins anew every 512 keys, where a decoding
// step divides a row among blocks. Tensor cores (rung 4) have other bits, and the library does
// without them here.
#pragma once

#include <plumb/cuda/attention.cuh>

#include <cmath>
#include <vector>

namespace plumb { inline namespace v0_1 { namespace ladder::attention_5 {

/// Causal attention of one head: q, k, v and out (t, kSize), scale 1 / sqrt(kSize).
template <int kSize>
void attention(Cuda device, float* out, const float* q, const float* k, const float* v, Index t) {
  const std::vector<std::int32_t> ends{0, static_cast<std::int32_t>(t)};
  const kernels::DeviceScratch<std::int32_t> offsets(device, 2);
  const kernels::DeviceScratch<float> lse(device, t);
  kernels::copy_from_host(device, offsets.data(), ends.data(), 2 * sizeof(std::int32_t));
  kernels::attention_forward(device, out, lse.data(), q, k, v, offsets.data(), offsets.data(), 1, t,
                             t, {1, 1, kSize, 1.0F / std::sqrt(static_cast<float>(kSize))});
}

}}}  // namespace plumb::v0_1::ladder::attention_5
