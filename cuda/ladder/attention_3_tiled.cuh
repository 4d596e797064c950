// Rung 3: tiles of keys and values in shared memory, several queries (Dao et al. 2022,
// "FlashAttention"). A block of 4 warps takes 32 queries (16 if D > 64) and walks over the keys 32
// at a time. A warp has 8 (4) of the queries. For the scores a lane is a key: 8 whole dot products,
// with nothing to exchange. For the values a lane is D / 32 channels, and the weights come back out
// of shared memory.
//
// Why it helps: a key that is brought once serves 32 queries. And the online softmax, its exchanges
// and its scalings come once for 32 keys and not for each.
// Work: 2·T²·D FLOPs: 134 million for T = 1024, D = 64.
// Global memory: 8·T²/2·D/32 bytes, 8.4 MB, and 1 MB for queries and output: 14 FLOP/B.
// Shared memory: for scores 9 requests of 16 bytes a lane come with 32 multiply-adds, for values 8
// of 16 and 8 of 4 bytes with 64 (D = 64). At 8 lanes a turn those are 0.9 turns a multiply-add,
// though most bring the same 16 bytes to all lanes. Rows of keys are 4 words longer than D, so that
// 8 lanes, which read 8 rows, meet 32 different banks.
// What binds: shared memory, 0.9 turns per multiply-add of a warp, where an A100 needs 0.5 clocks
// for the arithmetic and an H100 0.25. A register tile as in gemm_5, several queries and several
// keys a thread, would be next; tensor cores do it at once.
#pragma once

#include <plumb/cuda/device.cuh>

#include <cmath>
#include <limits>

namespace plumb { inline namespace v0_1 { namespace ladder::attention_3 {

using namespace kernels;

inline constexpr int kWarps = 4, kThreads = kWarps * 32, kKeys = 32;

/// Brings rows first … first + kRows - 1 of x (t, kSize) to a tile whose rows are kStride apart;
/// zeros beyond t.
template <int kRows, int kSize, int kStride>
__device__ inline void fetch(float* tile, const float* x, Index first, Index t) {
#pragma unroll 4
  for (int part = 0; part < kRows * kSize; part += kThreads) {
    const int e = part + static_cast<int>(threadIdx.x);
    const int row = e / kSize, column = e % kSize;
    tile[row * kStride + column] = first + row < t ? x[(first + row) * kSize + column] : 0.0F;
  }
}

/// A warp's queries: what the online softmax keeps of each, the same in all lanes, and each lane's
/// channels.
template <int kRows, int kChannels>
struct Queries {
  float largest[kRows], sum[kRows], total[kRows][kChannels];
};

/// Scores of kRows queries against this lane's key.
template <int kRows, int kSize>
__device__ inline void scores(float (&score)[kRows], const float* queries, const float* key) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) score[r] = 0.0F;
#pragma unroll 4
  for (int d = 0; d < kSize; d += 4) {
    const float4 y = load4(key + d);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float4 x = load4(queries + r * kSize + d);
      score[r] = fmaf(x.x, y.x, score[r]);
      score[r] = fmaf(x.y, y.y, score[r]);
      score[r] = fmaf(x.z, y.z, score[r]);
      score[r] = fmaf(x.w, y.w, score[r]);
    }
  }
}

/// Adds a tile's values (kKeys, kSize) by weights (kRows, kKeys), both in shared memory.
template <int kRows, int kSize>
__device__ inline void add_values(Queries<kRows, kSize / 32>& queries, const float* weights,
                                  const float* values, int lane) {
#pragma unroll 2
  for (int j = 0; j < kKeys; j += 4) {
    float y[4][kSize / 32];
#pragma unroll
    for (int e = 0; e < 4; ++e)
#pragma unroll
      for (int c = 0; c < kSize / 32; ++c) y[e][c] = values[(j + e) * kSize + c * 32 + lane];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float4 w = load4(weights + r * kKeys + j);
#pragma unroll
      for (int c = 0; c < kSize / 32; ++c) {
        float& total = queries.total[r][c];
        total = fmaf(w.x, y[0][c], total);
        total = fmaf(w.y, y[1][c], total);
        total = fmaf(w.z, y[2][c], total);
        total = fmaf(w.w, y[3][c], total);
      }
    }
  }
}

template <int kSize, int kRows>
__global__ void __launch_bounds__(kThreads)
    attention_kernel(float* out, const float* q, const float* k, const float* v, Index t,
                     float scale) {
  static_assert(kSize % 32 == 0, "a lane holds kSize / 32 channels");
  constexpr int kChannels = kSize / 32, kQueries = kWarps * kRows, kStride = kSize + 4;
  __shared__ __align__(16) float q_tile[kQueries * kSize];
  __shared__ __align__(16) float k_tile[kKeys * kStride];
  __shared__ __align__(16) float v_tile[kKeys * kSize];
  __shared__ __align__(16) float p_tile[kQueries * kKeys];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const Index first_query = static_cast<Index>(blockIdx.x) * kQueries;
  float* weights = p_tile + warp * kRows * kKeys;
  Queries<kRows, kChannels> own;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    own.largest[r] = std::numeric_limits<float>::lowest();
    own.sum[r] = 0.0F;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) own.total[r][c] = 0.0F;
  }
  fetch<kQueries, kSize, kSize>(q_tile, q, first_query, t);
  for (Index first = 0; first < first_query + kQueries && first < t; first += kKeys) {
    fetch<kKeys, kSize, kStride>(k_tile, k, first, t);
    fetch<kKeys, kSize, kSize>(v_tile, v, first, t);
    __syncthreads();
    float score[kRows];
    scores<kRows, kSize>(score, q_tile + warp * kRows * kSize, k_tile + lane * kStride);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const bool seen = first + lane <= first_query + warp * kRows + r;
      const float own_score = seen ? scale * score[r] : -INFINITY;
      float largest = fmaxf(own.largest[r], own_score);
#pragma unroll
      for (int apart = 16; apart > 0; apart /= 2)
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, apart));
      const float shrink = expf(own.largest[r] - largest), weight = expf(own_score - largest);
      own.largest[r] = largest;
      own.sum[r] = fmaf(own.sum[r], shrink, weight);  // this lane's keys; joined at the end
#pragma unroll
      for (int c = 0; c < kChannels; ++c) own.total[r][c] *= shrink;
      weights[r * kKeys + lane] = weight;
    }
    __syncwarp();
    add_values<kRows, kSize>(own, weights, v_tile, lane);
    __syncthreads();
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const Index i = first_query + warp * kRows + r;
    float sum = own.sum[r];
#pragma unroll
    for (int apart = 16; apart > 0; apart /= 2) sum += __shfl_xor_sync(0xffffffffU, sum, apart);
#pragma unroll
    for (int c = 0; c < kChannels; ++c)
      if (i < t) out[i * kSize + c * 32 + lane] = own.total[r][c] / sum;
  }
}

/// Causal attention of one head: q, k, v and out (t, kSize), scale 1 / sqrt(kSize).
template <int kSize>
void attention(Cuda device, float* out, const float* q, const float* k, const float* v, Index t) {
  constexpr int kRows = kSize <= 64 ? 8 : 4;
  if (t > 0)
    PLUMB_LAUNCH((attention_kernel<kSize, kRows>), blocks_for(t, kWarps * kRows), kThreads, 0,
                 device.stream, out, q, k, v, t, 1.0F / std::sqrt(static_cast<float>(kSize)));
}

}}}  // namespace plumb::v0_1::ladder::attention_3
