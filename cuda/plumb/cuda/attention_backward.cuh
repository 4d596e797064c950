// The backward pass of attention.cuh, bitwise as on the CPU (cpu/attention.hpp). Three kernels: delta, a row
// reduction; dq, a block of threads for each tile of queries of a head, over the keys; dk and dv, a block for
// each 32 keys of a key/value head, over its group's heads and, within a head, the queries from the keys on.
// Each sum has one owner and one order, so there are no atomics; the price is that scores and dp are computed
// twice, 7 · T² · D FLOPs a head where 5 are needed. What this is not: deterministic by luck.
#pragma once

#include <plumb/cuda/attention_tile.cuh>

#include <cassert>

namespace plumb::inline v0_1 {
namespace kernels {

namespace gpu {

struct AttentionBackward {
  float *dq, *dk, *dv;
  const float *dout, *out, *lse, *q, *k, *v;
  float* delta;  ///< (N, H), from the first sequence's first row on
  const std::int32_t* offsets;
  Index sequences, rows;
  int heads, kv_heads, size;
  float scale;
  bool aligned;

  __device__ Index width() const { return static_cast<Index>(heads) * size; }
  __device__ Index kv_width() const { return static_cast<Index>(kv_heads) * size; }
};

/// delta = the row reduction of dout · out, a warp for each row and head. 2 · D FLOPs, 8 · D bytes: bound by
/// memory.
template <int kThreads>
__global__ void __launch_bounds__(kThreads) attention_delta_kernel(AttentionBackward t) {
  const Index row = warp_row<kThreads>();
  if (row >= t.rows * t.heads) return;
  const Index at = (t.offsets[0] * static_cast<Index>(t.heads) + row) * t.size;
  const float delta =
      row_sum(t.size, [&](Index d, float total) { return fma(t.dout[at + d], t.out[at + d], total); });
  if (lane() == 0) t.delta[row] = delta;
}

/// Shared memory of attention_dq_kernel: queries and their gradients; two slices of keys or values; slopes.
template <int kSize>
struct QueryGradientTile {
  static constexpr int kRows = kSize <= 64 ? 4 : 2;  ///< a thread's
  static constexpr int kQueries = 16 * kRows;        ///< the block's
  static constexpr int kStride = kSize + kRowPad;
  static constexpr int kSlice = kSliceSize<kSize>;
  static constexpr int kSliceFloats = kBlockKeys * (kSlice + kRowPad);
  static constexpr std::size_t kBytes =
      sizeof(float) * (kQueries * (2 * kStride + kWeightStride) + 2 * kSliceFloats);
};

/// ds = e^(s - lse) · (dp - delta) · scale.
struct Slope {
  float weight, slope;
  __device__ Slope(float dot, float dp, float lse, float delta, float scale, bool valid)
      : weight(valid ? exp(dot * scale - lse) : 0.0F),
        slope(valid ? weight * (dp - delta) * scale : 0.0F) {}
};

/// dq of a tile of queries of the head blockIdx.y.
/// FLOPs 6 · D for each pair of a query and a key up to it; q, dout and dq pass once, k twice and v once for
/// all queries of the block, mostly from the L2 cache: 64 queries make 32 FLOP/B. Bound by FMA units and the
/// issue of shared loads, as the forward pass.
template <int kSize>
__global__ void __launch_bounds__(kAttentionThreads) attention_dq_kernel(AttentionBackward t) {
  using Tile = QueryGradientTile<kSize>;
  constexpr int kRows = Tile::kRows;
  constexpr int kStep = Tile::kSlice + kRowPad;
  constexpr int kParts = Tile::kSlice / 32;
  const SequenceTile tile = find_tile<Tile::kQueries>(
      t.offsets, t.sequences, static_cast<Index>(gridDim.x) - 1 - blockIdx.x);
  if (!tile.exists()) return;

  float* queries = dynamic_shared<float>();
  float* douts = queries + Tile::kQueries * Tile::kStride;
  float* slices = douts + Tile::kQueries * Tile::kStride;
  const int head = static_cast<int>(blockIdx.y);
  const int thread = static_cast<int>(threadIdx.x);
  const int place = lane() % 8;
  const int row = thread / kWarp * 4 * kRows + lane() / 8;  // the thread's first in the tile
  float* slopes = slices + 2 * Tile::kSliceFloats + row * kWeightStride;
  const Index kv_width = t.kv_width();
  const Index kv_at = tile.begin * kv_width + head / (t.heads / t.kv_heads) * t.size;
  const Index first_row = tile.begin + tile.first;
  const Index q_at = first_row * t.width() + head * t.size;
  const int left = tile.length - tile.first;
  const int rows_here = left < Tile::kQueries ? left : Tile::kQueries;
  const int blocks = (tile.first + rows_here + kBlockKeys - 1) / kBlockKeys;
  const int parts = (t.size + Tile::kSlice - 1) / Tile::kSlice;

  // Slices of keys, of values, of keys again, block after block, each copied while the one before it is
  // worked on.
  int step = 0;
  const auto stage = [&](int next) {
    const int block = next / (3 * parts);
    const int part = next % (3 * parts);
    if (block < blocks) {
      const int column = part % parts * Tile::kSlice;
      stage_rows<kAttentionThreads, kBlockKeys, Tile::kSlice>(
          slices + next % 2 * Tile::kSliceFloats,
          (part / parts == 1 ? t.v : t.k) + kv_at + block * kBlockKeys * kv_width + column,
          kv_width, tile.length - block * kBlockKeys, t.size - column, t.aligned);
    }
    cp_async_commit();
  };
  const auto take = [&]() -> const float* {
    cp_async_wait<0>();
    __syncthreads();
    stage(step + 1);
    return slices + step++ % 2 * Tile::kSliceFloats;
  };

  stage_rows<kAttentionThreads, Tile::kQueries, kSize>(queries, t.q + q_at, t.width(), rows_here,
                                                       t.size, t.aligned);
  stage_rows<kAttentionThreads, Tile::kQueries, kSize>(douts, t.dout + q_at, t.width(), rows_here,
                                                       t.size, t.aligned);
  stage(0);
  float lse[kRows], delta[kRows];
  float4 acc[kRows][kSize / 32] = {};
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const Index at = (first_row + row + 4 * i) * t.heads + head;
    const bool there = row + 4 * i < rows_here;
    lse[i] = there ? t.lse[at] : 0.0F;
    delta[i] = there ? t.delta[at - t.offsets[0] * static_cast<Index>(t.heads)] : 0.0F;
  }

  for (int block = 0; block < blocks; ++block) {
    float s[kRows][4] = {};
    float dp[kRows][4] = {};
    int counts[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i)
      counts[i] = tile.first + row + 4 * i + 1 - block * kBlockKeys;
    const int warp_first = tile.first + thread / kWarp * 4 * kRows - block * kBlockKeys;
    const bool any = warp_first + 4 * kRows > 0;
    const bool all = warp_first + 1 >= kBlockKeys;
    const auto dots = [&](float(&to)[kRows][4], const float* x) {
#pragma unroll 1
      for (int part = 0; part < parts; ++part) {
        const float* rows = take() + place * kStep;
        const int n = t.size - part * Tile::kSlice;
        if (any)
          tile_dots<kRows, 4, 4 * Tile::kStride, 8 * kStep>(
              to, x + row * Tile::kStride + part * Tile::kSlice, rows,
              n < Tile::kSlice ? n : Tile::kSlice);
      }
    };
    dots(s, queries);
    dots(dp, douts);
    if (any) {
#pragma unroll
      for (int i = 0; i < kRows; ++i)
#pragma unroll
        for (int k = 0; k < 4; ++k)
          slopes[i * 4 * kWeightStride + place + 8 * k] =
              Slope(s[i][k], dp[i][k], lse[i], delta[i], t.scale, place + 8 * k < counts[i]).slope;
      __syncwarp();
    }
#pragma unroll
    for (int part = 0; part < kSize / Tile::kSlice; ++part) {
      if (part >= parts) break;
      const float* keys = take() + 4 * place;
      if (any && all)
        tile_gather<false, kParts, kStep>(acc, part * kParts, slopes, keys, counts);
      if (any && !all)
        tile_gather<true, kParts, kStep>(acc, part * kParts, slopes, keys, counts);
    }
  }

  float* dq = t.dq + q_at + row * t.width();
#pragma unroll
  for (int i = 0; i < kRows; ++i)
    if (row + 4 * i < rows_here)
      each_element(acc[i], 4 * place, t.size,
                   [&](int d, float x) { dq[4 * i * t.width() + d] += x; });
}

/// Shared memory of attention_dkv_kernel: 32 keys and values; some queries and their gradients; their weights
/// and slopes. In the scores a thread has kRows queries and kKeys keys; in the sums 32 / kGroups keys (a group)
/// and every kColumns-th 4 elements.
template <int kSize>
struct KeyGradientTile {
  static constexpr int kThreads = kSize <= 128 ? 128 : 256;
  static constexpr int kQueries = kSize <= 128 ? 32 : 8;
  static constexpr int kKeys = kSize <= 128 ? 4 : 1;
  static constexpr int kRows = kQueries * kBlockKeys / kKeys / kThreads;
  static constexpr int kColumns = kSize < 64 ? kSize / 4 : 16;
  static constexpr int kGroups = kThreads / kColumns;
  static constexpr int kOwn = kBlockKeys / kGroups;
  static constexpr int kParts = kSize / (4 * kColumns);
  static constexpr int kStride = kSize + kRowPad;
  static constexpr std::size_t kBytes =
      sizeof(float) * (2 * (kBlockKeys + kQueries) * kStride + 2 * kQueries * kWeightStride);
};

/// Where the CPU's tile of queries ends that holds query i of a block of n: tiles of eight, then of four,
/// then of one. Masked queries of a tile are added as zeros, those before the tile are not.
__device__ inline int query_tile_end(int i, int n) {
  if (i < n / 8 * 8) return i / 8 * 8 + 8;
  if (i < n / 4 * 4) return i / 4 * 4 + 4;
  return i + 1;
}

/// dk and dv of 32 keys of the key/value head blockIdx.y.
/// FLOPs 8 · D for each pair of a query and a key up to it; k, v, dk and dv pass once, q and dout once for 32
/// keys, mostly from the L2 cache: 32 · 8 · D FLOPs of 8 · D bytes, 32 FLOP/B. Bound by FMA units and the issue
/// of shared loads. Blocks: one for each 32 rows and key/value head, each as long as its group and the
/// sequence's rest: a small batch of few key/value heads leaves a large GPU idle, which the order of the sums
/// demands.
template <int kSize>
__global__ void __launch_bounds__(KeyGradientTile<kSize>::kThreads)
    attention_dkv_kernel(AttentionBackward t) {
  using Tile = KeyGradientTile<kSize>;
  constexpr int kThreads = Tile::kThreads;
  constexpr int kStride = Tile::kStride;
  constexpr int kPlaces = kBlockKeys / Tile::kKeys;
  const SequenceTile tile = find_tile<kBlockKeys>(t.offsets, t.sequences, blockIdx.x);
  if (!tile.exists()) return;

  float* keys = dynamic_shared<float>();
  float* values = keys + kBlockKeys * kStride;
  float* queries = values + kBlockKeys * kStride;
  float* douts = queries + Tile::kQueries * kStride;
  float* weights = douts + Tile::kQueries * kStride;
  float* slopes = weights + Tile::kQueries * kWeightStride;
  const int thread = static_cast<int>(threadIdx.x);
  const int kv_head = static_cast<int>(blockIdx.y);
  const int group = t.heads / t.kv_heads;
  const Index kv_at = (tile.begin + tile.first) * t.kv_width() + kv_head * t.size;
  const int left = tile.length - tile.first;
  const int keys_here = left < kBlockKeys ? left : kBlockKeys;
  const int place = thread % kPlaces;
  const int row = thread / kPlaces;
  const int column = thread % Tile::kColumns * 4;
  const int own = thread / Tile::kColumns * Tile::kOwn;

  stage_rows<kThreads, kBlockKeys, kSize>(keys, t.k + kv_at, t.kv_width(), keys_here, t.size,
                                          t.aligned);
  stage_rows<kThreads, kBlockKeys, kSize>(values, t.v + kv_at, t.kv_width(), keys_here, t.size,
                                          t.aligned);
  float4 dk[Tile::kOwn][Tile::kParts] = {};
  float4 dv[Tile::kOwn][Tile::kParts] = {};
  for (int head = kv_head * group; head < (kv_head + 1) * group; ++head)
    for (int first = tile.first; first < tile.length; first += Tile::kQueries) {
      const int queries_left = tile.length - first;
      const int count = queries_left < Tile::kQueries ? queries_left : Tile::kQueries;
      const Index first_row = tile.begin + first;
      const Index q_at = first_row * t.width() + head * t.size;
      __syncthreads();  // the tile before was read
      stage_rows<kThreads, Tile::kQueries, kSize>(queries, t.q + q_at, t.width(), count, t.size,
                                                  t.aligned);
      stage_rows<kThreads, Tile::kQueries, kSize>(douts, t.dout + q_at, t.width(), count, t.size,
                                                  t.aligned);
      cp_async_commit();
      cp_async_wait<0>();
      __syncthreads();

      constexpr int kRowStep = kThreads / kPlaces;
      float s[Tile::kRows][Tile::kKeys] = {};
      float dp[Tile::kRows][Tile::kKeys] = {};
      tile_dots<Tile::kRows, Tile::kKeys, kRowStep * kStride, kPlaces * kStride>(
          s, queries + row * kStride, keys + place * kStride, t.size);
      tile_dots<Tile::kRows, Tile::kKeys, kRowStep * kStride, kPlaces * kStride>(
          dp, douts + row * kStride, values + place * kStride, t.size);
#pragma unroll
      for (int i = 0; i < Tile::kRows; ++i) {
        const int query = row + i * kRowStep;
        const Index at = (first_row + query) * t.heads + head;
        const bool there = query < count;
        const float lse = there ? t.lse[at] : 0.0F;
        const float delta =
            there ? t.delta[at - t.offsets[0] * static_cast<Index>(t.heads)] : 0.0F;
#pragma unroll
        for (int k = 0; k < Tile::kKeys; ++k) {
          const int key = place + k * kPlaces;
          const Slope slope(s[i][k], dp[i][k], lse, delta, t.scale,
                            tile.first + key <= first + query);
          weights[query * kWeightStride + key] = slope.weight;
          slopes[query * kWeightStride + key] = slope.slope;
        }
      }
      __syncthreads();

      for (int i = 0; i < count; ++i) {
        const int query = first - tile.first + i;
        const int reach =
            query < kBlockKeys ? query_tile_end(query, keys_here) : kBlockKeys;
        float4 of_q[Tile::kParts], of_dout[Tile::kParts];
#pragma unroll
        for (int c = 0; c < Tile::kParts; ++c) {
          const int from = i * kStride + column + c * 4 * Tile::kColumns;
          of_q[c] = load4(queries + from);
          of_dout[c] = load4(douts + from);
        }
#pragma unroll
        for (int j = 0; j < Tile::kOwn; ++j) {
          if (own + j >= reach) continue;
          const float weight = weights[i * kWeightStride + own + j];
          const float slope = slopes[i * kWeightStride + own + j];
#pragma unroll
          for (int c = 0; c < Tile::kParts; ++c) {
            dv[j][c] = fma4(weight, of_dout[c], dv[j][c]);
            dk[j][c] = fma4(slope, of_q[c], dk[j][c]);
          }
        }
      }
    }

#pragma unroll
  for (int j = 0; j < Tile::kOwn; ++j) {
    if (own + j >= keys_here) continue;
    const Index to = kv_at + (own + j) * t.kv_width();
    each_element<4 * Tile::kColumns>(dk[j], column, t.size,
                                     [&](int d, float x) { t.dk[to + d] += x; });
    each_element<4 * Tile::kColumns>(dv[j], column, t.size,
                                     [&](int d, float x) { t.dv[to + d] += x; });
  }
}

}  // namespace gpu

/// dq (N, H·D), dk, dv (N, Hkv·D) += the gradients, from dout (N, H·D) and what the forward pass took
/// and gave. offsets lie on the device.
inline void attention_backward(Cuda device, float* dq, float* dk, float* dv, const float* dout,
                               const float* out, const float* lse, const float* q, const float* k,
                               const float* v, const std::int32_t* offsets, Index sequences,
                               Index rows, AttentionShape shape) {
  const Index size = shape.head_size;
  assert(size >= 1 && size <= kMaxHeadSize && shape.heads % shape.kv_heads == 0);
  if (rows == 0) return;
  const DeviceScratch<float> delta(device, rows * shape.heads);
  const gpu::AttentionBackward call{dq,
                                    dk,
                                    dv,
                                    dout,
                                    out,
                                    lse,
                                    q,
                                    k,
                                    v,
                                    delta.data(),
                                    offsets,
                                    sequences,
                                    rows,
                                    static_cast<int>(shape.heads),
                                    static_cast<int>(shape.kv_heads),
                                    static_cast<int>(size),
                                    shape.scale,
                                    attention_aligned(size, q, k, v, dout)};
  constexpr int kDeltaThreads = 256;
  PLUMB_LAUNCH((gpu::attention_delta_kernel<kDeltaThreads>),
               blocks_for(rows * shape.heads, kDeltaThreads / kWarp), kDeltaThreads, 0,
               device.stream, call);
  with_head_class(size, [&]<int kSize>() {
    using Queries = gpu::QueryGradientTile<kSize>;
    using Keys = gpu::KeyGradientTile<kSize>;
    allow_shared(reinterpret_cast<const void*>(&gpu::attention_dq_kernel<kSize>), Queries::kBytes);
    allow_shared(reinterpret_cast<const void*>(&gpu::attention_dkv_kernel<kSize>), Keys::kBytes);
    PLUMB_LAUNCH((gpu::attention_dq_kernel<kSize>),
                 dim3(static_cast<unsigned>(rows / Queries::kQueries + sequences),
                      static_cast<unsigned>(shape.heads)),
                 gpu::kAttentionThreads, Queries::kBytes, device.stream, call);
    PLUMB_LAUNCH((gpu::attention_dkv_kernel<kSize>),
                 dim3(static_cast<unsigned>(rows / kKeyBlock + sequences),
                      static_cast<unsigned>(shape.kv_heads)),
                 Keys::kThreads, Keys::kBytes, device.stream, call);
  });
}

}  // namespace kernels
}  // namespace plumb::inline v0_1
