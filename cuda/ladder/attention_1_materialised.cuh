// Rung 1: the definition, one product after the other. For each query i of a sequence of T, a score
// for every key j <= i, s = scale · q_i · k_j; the softmax of the scores; the sum of the values by
// those weights. Three kernels, and a matrix (T, T) of memory that carries the scores between them.
// One head of D channels.
//
// Work: 2·T²·D FLOPs, the masked half not counted: 134 million for T = 1024, D = 64.
// Global memory: each product asks for 2 floats per multiply-add, 8·T²·D bytes, 537 MB, 0.25
// FLOP/B; the scores are written once, read three times, written, and read once for each channel.
// Neighbouring lanes read keys D floats apart: 32 sectors a request.
// Memory: 4·T² bytes: 4 MB for T = 1024, 4 GB for 32,768, per head. That, more than the time, is
// what rules it out.
// What binds: the load unit, as in gemm_1.
#pragma once

#include <plumb/cuda/device.cuh>

#include <cmath>
#include <limits>

namespace plumb { inline namespace v0_1 { namespace ladder::attention_1 {

using namespace kernels;

/// p[i][j] = scale · q_i · k_j for j <= i; the rest stays as it is.
template <int kSize, int kThreads>
__global__ void __launch_bounds__(kThreads)
    scores_kernel(float* p, const float* q, const float* k, Index t, float scale) {
  const Index element = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  const Index i = element / t, j = element % t;
  if (i >= t || j > i) return;
  float sum = 0.0F;
  for (int d = 0; d < kSize; ++d) sum = fmaf(q[i * kSize + d], k[j * kSize + d], sum);
  p[i * t + j] = scale * sum;
}

/// The softmax of the first i + 1 elements of row i, in place; a warp a row.
template <int kThreads>
__global__ void __launch_bounds__(kThreads) softmax_kernel(float* p, Index t) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const Index i = static_cast<Index>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (i >= t) return;
  float largest = std::numeric_limits<float>::lowest(), sum = 0.0F;
  for (Index j = lane; j <= i; j += 32) largest = fmaxf(largest, p[i * t + j]);
#pragma unroll
  for (int apart = 16; apart > 0; apart /= 2)
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, apart));
  for (Index j = lane; j <= i; j += 32) sum += expf(p[i * t + j] - largest);
#pragma unroll
  for (int apart = 16; apart > 0; apart /= 2) sum += __shfl_xor_sync(0xffffffffU, sum, apart);
  for (Index j = lane; j <= i; j += 32) p[i * t + j] = expf(p[i * t + j] - largest) / sum;
}

/// out[i] = sum of p[i][j] · v_j over j <= i; a thread a channel.
template <int kSize, int kThreads>
__global__ void __launch_bounds__(kThreads)
    values_kernel(float* out, const float* p, const float* v, Index t) {
  const Index element = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  const Index i = element / kSize, d = element % kSize;
  if (i >= t) return;
  float sum = 0.0F;
  for (Index j = 0; j <= i; ++j) sum = fmaf(p[i * t + j], v[j * kSize + d], sum);
  out[i * kSize + d] = sum;
}

/// Causal attention of one head: q, k, v and out (t, kSize), scale 1 / sqrt(kSize).
template <int kSize>
void attention(Cuda device, float* out, const float* q, const float* k, const float* v, Index t) {
  constexpr int kThreads = 256;
  if (t == 0) return;
  const DeviceScratch<float> p(device, t * t);
  PLUMB_LAUNCH((scores_kernel<kSize, kThreads>), blocks_for(t * t, kThreads), kThreads, 0,
               device.stream, p.data(), q, k, t, 1.0F / std::sqrt(static_cast<float>(kSize)));
  PLUMB_LAUNCH(softmax_kernel<kThreads>, blocks_for(t, kThreads / 32), kThreads, 0, device.stream,
               p.data(), t);
  PLUMB_LAUNCH((values_kernel<kSize, kThreads>), blocks_for(t * kSize, kThreads), kThreads, 0,
               device.stream, out, p.data(), v, t);
}

}}}  // namespace plumb::v0_1::ladder::attention_1
