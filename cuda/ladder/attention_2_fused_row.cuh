// Rung 2: one kernel by the online softmax (Milakov and Gimelshein 2018). A warp takes a query and
// goes over the keys once. It keeps the largest score so far, the sum of e^(score − largest), and
// the sum of values with those weights; when the largest grows, both sums are scaled by e^(old −
// new). A lane holds D / 32 channels; a score is the lanes' parts, joined by five exchanges between
// registers.
//
// Why it helps: no matrix of scores, memory linear in T; keys are read by neighbouring lanes side
// by side.
// Work: 2·T²·D FLOPs: 134 million for T = 1024, D = 64.
// Global memory: a key and a value per query and key, 8·T²/2·D bytes, 268 MB asked for: 0.5 FLOP/B.
// The 8 queries of a block lie beside each other, so the first cache gives most of it.
// What binds: everything beside the arithmetic. For D = 64 a lane does 4 multiply-adds for a key;
// with 5 exchanges and their additions, two e^x, the scalings and addresses these are 70 PTX
// instructions.
#pragma once

#include <plumb/cuda/device.cuh>

#include <cmath>
#include <limits>

namespace plumb { inline namespace v0_1 { namespace ladder::attention_2 {

using namespace kernels;

template <int kSize, int kThreads>
__global__ void __launch_bounds__(kThreads)
    attention_kernel(float* out, const float* q, const float* k, const float* v, Index t,
                     float scale) {
  static_assert(kSize % 32 == 0, "a lane holds kSize / 32 channels");
  constexpr int kChannels = kSize / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const Index i = static_cast<Index>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (i >= t) return;  // the whole warp, and there are no barriers
  float query[kChannels], total[kChannels] = {};
#pragma unroll
  for (int c = 0; c < kChannels; ++c) query[c] = q[i * kSize + c * 32 + lane];
  float largest = std::numeric_limits<float>::lowest(), sum = 0.0F;
  for (Index j = 0; j <= i; ++j) {
    float score = 0.0F;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) score = fmaf(query[c], k[j * kSize + c * 32 + lane], score);
#pragma unroll
    for (int apart = 16; apart > 0; apart /= 2) score += __shfl_xor_sync(0xffffffffU, score, apart);
    score *= scale;
    const float new_largest = fmaxf(largest, score);
    const float shrink = expf(largest - new_largest), weight = expf(score - new_largest);
    largest = new_largest;
    sum = fmaf(sum, shrink, weight);
#pragma unroll
    for (int c = 0; c < kChannels; ++c)
      total[c] = fmaf(weight, v[j * kSize + c * 32 + lane], total[c] * shrink);
  }
#pragma unroll
  for (int c = 0; c < kChannels; ++c) out[i * kSize + c * 32 + lane] = total[c] / sum;
}

/// Causal attention of one head: q, k, v and out (t, kSize), scale 1 / sqrt(kSize).
template <int kSize>
void attention(Cuda device, float* out, const float* q, const float* k, const float* v, Index t) {
  constexpr int kThreads = 256;
  if (t > 0)
    PLUMB_LAUNCH((attention_kernel<kSize, kThreads>), blocks_for(t, kThreads / 32), kThreads, 0,
                 device.stream, out, q, k, v, t, 1.0F / std::sqrt(static_cast<float>(kSize)));
}

}}}  // namespace plumb::v0_1::ladder::attention_2
