// Rung 4: both products on tensor cores (Dao 2023, "FlashAttention-2"). q, k and v are bf16, sums
// float. A block of 4 warps takes 64 queries and walks over the keys 32 at a time; a warp has 16
// queries. The scores of mma lie as its result does, two neighbouring columns in a lane; rounded to
// bf16 in pairs, that is just the order in which the next mma wants its first operand. So weights
// go from product to product in registers.
//
// Why it helps: one instruction of a warp does 2048 multiply-adds, where rung 3's does 32. No
// weight passes through shared memory; a row's largest and sum need exchanges among 4 lanes only.
// Work: 2·T²·D FLOPs, and as much again in masked halves of tiles on the diagonal: 134 million for
// T = 1024, D = 64.
// Global memory: 4·T²/2·D/64 bytes, 2.1 MB, and 0.5 MB for queries and output: 52 FLOP/B.
// Shared memory: a warp reads a tile's keys and values, 4·32·D bytes, for 2·16·32·D multiply-adds:
// 0.125 bytes each. Rows are padded by 16 bytes: the 8 rows that ldmatrix reads together meet all
// 32 banks.
// What it costs: operands and weights rounded to bf16, up to 2⁻⁸ of their size; sums of weights are
// not rounded.
// What binds: for D = 64 the e^x. A key and query cost 128 multiply-adds, 0.125 clocks of an A100's
// tensor cores, and one e^x, 0.06 clocks of a unit that gives 16 a clock; with the largest, the
// masks and the conversions around it, more than the products. And each tile is waited for: see
// gemm_11.
#pragma once

#include <plumb/core/bf16.hpp>
#include <plumb/cuda/device.cuh>

#include <cmath>
#include <cstdint>
#include <limits>

namespace plumb { inline namespace v0_1 { namespace ladder::attention_4 {

using namespace kernels;

inline constexpr int kWarps = 4, kThreads = kWarps * 32, kQueries = kWarps * 16, kKeys = 32;

/// Begins to bring kRows rows of x (t, kSize), from row first on, to rows of kSize + 8; zeros
/// beyond t.
template <int kRows, int kSize>
__device__ inline void fetch(std::uint16_t* tile, const bf16* x, Index first, Index t) {
#pragma unroll
  for (int part = 0; part < kRows * kSize / 8; part += kThreads) {
    const int e = part + static_cast<int>(threadIdx.x);
    const int row = e / (kSize / 8), column = e % (kSize / 8) * 8;
    const bool inside = first + row < t;
    cp_async_16(tile + row * (kSize + 8) + column, inside ? x + (first + row) * kSize + column : x,
                inside ? 16 : 0);
  }
}

/// What a lane holds of its warp's 16 queries, of rows lane / 4 and 8 further: halves 0 and 1.
template <int kSize>
struct Queries {
  std::uint32_t query[kSize / 16][4];
  float largest[2], sum[2], total[kSize / 8][4];
};

/// score = the warp's queries · the tile's keys, 16 × 32 as 4 results of mma.
template <int kSize>
__device__ inline void scores(float (&score)[kKeys / 8][4], const Queries<kSize>& own,
                              const std::uint16_t* keys, int lane) {
#pragma unroll
  for (int j = 0; j < kKeys / 8; ++j) score[j][0] = score[j][1] = score[j][2] = score[j][3] = 0.0F;
#pragma unroll
  for (int d = 0; d < kSize / 16; ++d)
#pragma unroll
    for (int j = 0; j < kKeys / 16; ++j) {
      std::uint32_t y[4];  // keys 0-7 and channels 0-7, 8-15; then keys 8-15
      ldmatrix_x4(
          y, keys + (j * 16 + lane / 16 * 8 + lane % 8) * (kSize + 8) + d * 16 + lane / 8 % 2 * 8);
      const std::uint32_t low[2] = {y[0], y[1]}, high[2] = {y[2], y[3]};
      mma_bf16(score[j * 2], own.query[d], low);
      mma_bf16(score[j * 2 + 1], own.query[d], high);
    }
}

/// The online softmax: scores become weights, and what is summed so far shrinks to the new largest.
/// `ahead` is the number of keys, from this lane's first on, up to the query of half 0 and with it.
template <int kSize>
__device__ inline void weigh(float (&score)[kKeys / 8][4], Queries<kSize>& own, int ahead,
                             float scale) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float largest = own.largest[half];
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& s = score[j][half * 2 + e];
        s = j * 8 + e < ahead + half * 8 ? scale * s : -INFINITY;
        largest = fmaxf(largest, s);
      }
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 2));
    const float shrink = expf(own.largest[half] - largest);
    own.largest[half] = largest;
    own.sum[half] *= shrink;  // of this lane's keys; joined at the end
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& s = score[j][half * 2 + e];
        s = expf(s - largest);
        own.sum[half] += s;
      }
#pragma unroll
    for (int d = 0; d < kSize / 8; ++d) {
      own.total[d][half * 2] *= shrink;
      own.total[d][half * 2 + 1] *= shrink;
    }
  }
}

/// total += weights · the tile's values.
template <int kSize>
__device__ inline void add_values(Queries<kSize>& own, const float (&weight)[kKeys / 8][4],
                                  const std::uint16_t* values, int lane) {
#pragma unroll
  for (int j = 0; j < kKeys / 16; ++j) {
    const auto& low = weight[j * 2];
    const auto& high = weight[j * 2 + 1];
    const std::uint32_t x[4] = {bf16_pair(low[0], low[1]), bf16_pair(low[2], low[3]),
                                bf16_pair(high[0], high[1]), bf16_pair(high[2], high[3])};
#pragma unroll
    for (int d = 0; d < kSize / 16; ++d) {
      std::uint32_t y[4];
      ldmatrix_x4_transposed(y,
                             values + (j * 16 + lane % 16) * (kSize + 8) + d * 16 + lane / 16 * 8);
      const std::uint32_t left[2] = {y[0], y[1]}, right[2] = {y[2], y[3]};
      mma_bf16(own.total[d * 2], x, left);
      mma_bf16(own.total[d * 2 + 1], x, right);
    }
  }
}

template <int kSize>
__global__ void __launch_bounds__(kThreads)
    attention_kernel(float* out, const bf16* q, const bf16* k, const bf16* v, Index t,
                     float scale) {
  static_assert(kSize % 32 == 0, "every thread brings as many pieces of a tile");
  __shared__ __align__(16) std::uint16_t q_tile[kQueries * (kSize + 8)];
  __shared__ __align__(16) std::uint16_t k_tile[kKeys * (kSize + 8)];
  __shared__ __align__(16) std::uint16_t v_tile[kKeys * (kSize + 8)];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const Index first_query = static_cast<Index>(blockIdx.x) * kQueries;
  const Index query = first_query + warp * 16 + lane / 4;  // and query + 8
  Queries<kSize> own;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    own.largest[half] = std::numeric_limits<float>::lowest();
    own.sum[half] = 0.0F;
  }
#pragma unroll
  for (int d = 0; d < kSize / 8; ++d)
    own.total[d][0] = own.total[d][1] = own.total[d][2] = own.total[d][3] = 0.0F;
  fetch<kQueries, kSize>(q_tile, q, first_query, t);
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
#pragma unroll
  for (int d = 0; d < kSize / 16; ++d)
    ldmatrix_x4(own.query[d],
                q_tile + (warp * 16 + lane % 16) * (kSize + 8) + d * 16 + lane / 16 * 8);

  for (Index first = 0; first < first_query + kQueries && first < t; first += kKeys) {
    fetch<kKeys, kSize>(k_tile, k, first, t);
    fetch<kKeys, kSize>(v_tile, v, first, t);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    float score[kKeys / 8][4];
    scores<kSize>(score, own, k_tile, lane);
    weigh<kSize>(score, own, static_cast<int>(query + 1 - first) - lane % 4 * 2, scale);
    add_values<kSize>(own, score, v_tile, lane);
    __syncthreads();
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float sum = own.sum[half];
    sum += __shfl_xor_sync(0xffffffffU, sum, 1);
    sum += __shfl_xor_sync(0xffffffffU, sum, 2);
    const Index i = query + half * 8;
#pragma unroll
    for (int d = 0; d < kSize / 8; ++d)
#pragma unroll
      for (int e = 0; e < 2; ++e)
        if (i < t) out[i * kSize + d * 8 + lane % 4 * 2 + e] = own.total[d][half * 2 + e] / sum;
  }
}

/// Causal attention of one head: q, k, v (t, kSize), each at a 16-byte boundary, and out (t,
/// kSize), scale 1 / sqrt(kSize).
template <int kSize>
void attention(Cuda device, float* out, const bf16* q, const bf16* k, const bf16* v, Index t) {
  const auto places = reinterpret_cast<std::uintptr_t>(q) | reinterpret_cast<std::uintptr_t>(k) |
                      reinterpret_cast<std::uintptr_t>(v);
  check(places % 16 == 0, "[attention] q, k and v begin at 16-byte boundaries");
  if (t > 0)
    PLUMB_LAUNCH(attention_kernel<kSize>, blocks_for(t, kQueries), kThreads, 0, device.stream, out,
                 q, k, v, t, 1.0F / std::sqrt(static_cast<float>(kSize)));
}

}}}  // namespace plumb::v0_1::ladder::attention_4
