// The backward pass of attention.cuh, bitwise as on the CPU (cpu/attention.hpp). Three kernels:
// delta, a row reduction; dq, a block of threads for each tile of queries of a head, over the keys;
// dk and dv, a block for each 32 keys of a key/value head, over its group's heads and, within a
// head, the queries from the keys on. Each sum has one owner and one order, so there are no
// atomics; the price is that scores and dp are computed twice, 7 · T² · D FLOPs a head where 5 are
// needed. What this is not: deterministic by luck.
#pragma once

#include <plumb/cuda/attention_tile.cuh>
#include <plumb/math/attention.hpp>

#include <cassert>

namespace plumb { inline namespace v0_1 {
namespace kernels {

namespace gpu {

struct AttentionBackward {
  float *dq, *dk, *dv;
  const float *dout, *out, *lse, *q, *k, *v;
  float* delta;  ///< (N, H), from the first sequence's first row on
  const std::int32_t *offsets, *key_offsets;
  Index sequences, rows;
  int heads, kv_heads, size;
  float scale;
  bool aligned;

  __device__ Index width() const { return static_cast<Index>(heads) * size; }
  __device__ Index kv_width() const { return static_cast<Index>(kv_heads) * size; }
  /// Of one row and head, counted as lse is.
  __device__ float delta_of(Index row) const {
    return delta[row - offsets[0] * static_cast<Index>(heads)];
  }
};

/// delta = the row reduction of dout · out, a warp for each row and head. 2 · D FLOPs, 8 · D bytes:
/// bound by memory.
template <int kThreads>
__global__ void __launch_bounds__(kThreads) attention_delta_kernel(AttentionBackward t) {
  const Index row = warp_row<kThreads>();
  if (row >= t.rows * t.heads) return;
  const Index at = (t.offsets[0] * static_cast<Index>(t.heads) + row) * t.size;
  const float delta = row_sum(
      t.size, [&](Index d, float total) { return fma(t.dout[at + d], t.out[at + d], total); });
  if (lane() == 0) t.delta[row] = delta;
}

/// Shared memory of attention_dq_kernel: queries and their gradients; slopes; the stream's slices.
template <int kSize>
struct QueryGradientTile {
  static constexpr int kRows = kSize <= 64 ? 4 : 2;  ///< a thread's
  static constexpr int kQueries = 16 * kRows;        ///< the block's
  static constexpr int kStride = kSize + kRowPad;
  static constexpr std::size_t kBytes =
      sizeof(float) * (kQueries * (2 * kStride + kWeightStride) + SliceStream<kSize, 3>::kFloats);
};

/// ds = e^(s - lse) · (dp - delta) · scale.
struct Slope {
  float weight, slope;
  __device__ Slope(float dot, float dp, float lse, float delta, float scale, bool valid)
      : weight(valid ? exp(dot * scale - lse) : 0.0F),
        slope(valid ? weight * (dp - delta) * scale : 0.0F) {}
};

/// lse and delta of a thread's rows.
template <int kRows>
struct RowSums {
  float lse[kRows], delta[kRows];

  __device__ RowSums(const AttentionBackward& t, const QueryPlace<kRows>& at, Index first_row,
                     int head) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const Index row = (first_row + at.row + 4 * i) * t.heads + head;
      lse[i] = at.has(i) ? t.lse[row] : 0.0F;
      delta[i] = at.has(i) ? t.delta_of(row) : 0.0F;
    }
  }
  /// One block's slopes to shared memory, those of keys from counts[i] on as zeros.
  __device__ void slopes(float* to, const float (&s)[kRows][4], const float (&dp)[kRows][4],
                         const int (&counts)[kRows], float scale, int place) const {
#pragma unroll
    for (int i = 0; i < kRows; ++i)
#pragma unroll
      for (int k = 0; k < 4; ++k)
        to[i * 4 * kWeightStride + 8 * k] =
            Slope(s[i][k], dp[i][k], lse[i], delta[i], scale, place + 8 * k < counts[i]).slope;
  }
};

/// dq of a tile of queries of the head blockIdx.y.
/// FLOPs 6 · D for each pair of a query and a key up to it; q, dout and dq pass once, k twice and v
/// once for all queries of the block, mostly from the L2 cache: 64 queries make 32 FLOP/B. Bound by
/// FMA units and the issue of shared loads, as the forward pass.
template <int kSize>
__global__ void __launch_bounds__(kAttentionThreads, kSize <= 64 ? 3 : 2)
    attention_dq_kernel(AttentionBackward t) {
  using Tile = QueryGradientTile<kSize>;
  constexpr int kRows = Tile::kRows;
  const SequenceTile tile = find_tile<Tile::kQueries, false>(
      t.offsets, t.key_offsets, t.sequences, static_cast<Index>(gridDim.x) - 1 - blockIdx.x);
  if (!tile.exists()) return;

  const QueryPlace<kRows> at(tile);
  const int head = static_cast<int>(blockIdx.y);
  const Index kv_at = tile.begin * t.kv_width() + head / (t.heads / t.kv_heads) * t.size;
  const Index first_row = tile.query_row(tile.first);
  const Index q_at = first_row * t.width() + head * t.size;
  const int blocks = at.blocks();
  float* queries = dynamic_shared<float>();
  float* douts = queries + Tile::kQueries * Tile::kStride;
  float* slopes = douts + Tile::kQueries * Tile::kStride;
  SliceStream<kSize, 3> stream{slopes + Tile::kQueries * kWeightStride,
                               t.k + kv_at,
                               t.v + kv_at,
                               t.kv_width(),
                               tile.length,
                               blocks,
                               t.size,
                               t.aligned};
  stage_rows<kAttentionThreads, Tile::kQueries, kSize>(queries, t.q + q_at, t.width(), at.here,
                                                       t.size, t.aligned);
  stage_rows<kAttentionThreads, Tile::kQueries, kSize>(douts, t.dout + q_at, t.width(), at.here,
                                                       t.size, t.aligned);
  stream.stage(0);
  slopes += at.row * kWeightStride;
  RowSums<kRows> sums(t, at, first_row, head);
  float4 acc[kRows][kSize / 32] = {};
  for (int block = 0; block < blocks; ++block) {
    float s[kRows][4] = {};
    float dp[kRows][4] = {};
    int counts[kRows];
    at.count(counts, block);
    stream_dots<Tile::kStride>(s, stream, queries + at.row * Tile::kStride, at, at.any(block));
    stream_dots<Tile::kStride>(dp, stream, douts + at.row * Tile::kStride, at, at.any(block));
    sums.slopes(slopes + at.place, s, dp, counts, t.scale, at.place);
    __syncwarp();
    stream_gather(acc, stream, slopes, at, counts, block);
  }

  float* dq = t.dq + q_at + at.row * t.width() + 4 * at.place;
#pragma unroll
  for (int i = 0; i < kRows; ++i)
    if (at.has(i))
      each_element(acc[i], t.size - 4 * at.place,
                   [&](int d, float x) { dq[4 * i * t.width() + d] += x; });
}

/// Shared memory of attention_dkv_kernel: 32 keys and values; some queries and their gradients;
/// their weights and slopes. In the scores a thread has kRows queries and kKeys keys; in the sums
/// 32 / kGroups keys (a group) and every kColumns-th 4 elements.
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

/// attention_dkv_kernel's shared memory, and the block's place.
template <int kSize>
struct KeyGradients {
  using Tile = KeyGradientTile<kSize>;
  static constexpr int kStride = Tile::kStride;
  static constexpr int kPlaces = kBlockKeys / Tile::kKeys;
  static constexpr int kRowStep = Tile::kThreads / kPlaces;
  using Sums = float4[Tile::kOwn][Tile::kParts];

  float *keys, *values, *queries, *douts, *weights, *slopes;
  SequenceTile tile;

  __device__ KeyGradients(float* shared, SequenceTile of)
      : keys(shared),
        values(keys + kBlockKeys * kStride),
        queries(values + kBlockKeys * kStride),
        douts(queries + Tile::kQueries * kStride),
        weights(douts + Tile::kQueries * kStride),
        slopes(weights + Tile::kQueries * kWeightStride),
        tile(of) {}

  __device__ int keys_here() const {
    return tile.length - tile.first < kBlockKeys ? tile.length - tile.first : kBlockKeys;
  }
  /// The thread's first element of a row, and its first key, in the sums.
  __device__ static int column() { return static_cast<int>(threadIdx.x) % Tile::kColumns * 4; }
  __device__ static int own() {
    return static_cast<int>(threadIdx.x) / Tile::kColumns * Tile::kOwn;
  }

  /// Weights and slopes of `count` queries of a head, from position `first` on.
  __device__ void weigh(const AttentionBackward& t, int head, int first, int count) const {
    const int place = static_cast<int>(threadIdx.x) % kPlaces;
    const int row = static_cast<int>(threadIdx.x) / kPlaces;
    float s[Tile::kRows][Tile::kKeys] = {};
    float dp[Tile::kRows][Tile::kKeys] = {};
    tile_dots<Tile::kRows, Tile::kKeys, kRowStep * kStride, kPlaces * kStride>(
        s, queries + row * kStride, keys + place * kStride, t.size);
    tile_dots<Tile::kRows, Tile::kKeys, kRowStep * kStride, kPlaces * kStride>(
        dp, douts + row * kStride, values + place * kStride, t.size);
#pragma unroll
    for (int i = 0; i < Tile::kRows; ++i) {
      const int query = row + i * kRowStep;
      const Index at = (tile.query_row(first) + query) * t.heads + head;
      const float lse = query < count ? t.lse[at] : 0.0F;
      const float delta = query < count ? t.delta_of(at) : 0.0F;
#pragma unroll
      for (int k = 0; k < Tile::kKeys; ++k) {
        const int key = place + k * kPlaces;
        const Slope slope(s[i][k], dp[i][k], lse, delta, t.scale,
                          tile.first + key <= first + query);
        weights[query * kWeightStride + key] = slope.weight;
        slopes[query * kWeightStride + key] = slope.slope;
      }
    }
  }

  /// The first position from the block's keys on that has a query.
  __device__ int first_query() const { return tile.first < tile.own ? tile.own : tile.first; }
  /// Where the CPU's tile of queries ends that holds position i of the block's 32: tiles of eight,
  /// then of four, then of one, from the first query on. Masked queries of a tile are added as
  /// zeros, those before the tile are not.
  __device__ int query_tile_end(int i) const {
    const int from = first_query() - tile.first;
    const int n = keys_here() - from;
    i -= from;
    if (i < n / 8 * 8) return from + i / 8 * 8 + 8;
    if (i < n / 4 * 4) return from + i / 4 * 4 + 4;
    return from + i + 1;
  }

  /// Adds `count` queries' parts to the thread's dk and dv.
  __device__ void add(Sums& dk, Sums& dv, int first, int count) const {
    for (int i = 0; i < count; ++i) {
      const int query = first - tile.first + i;
      const int reach = query < kBlockKeys ? query_tile_end(query) : kBlockKeys;
      float4 of_q[Tile::kParts], of_dout[Tile::kParts];
#pragma unroll
      for (int c = 0; c < Tile::kParts; ++c) {
        const int from = i * kStride + column() + c * 4 * Tile::kColumns;
        of_q[c] = load4(queries + from);
        of_dout[c] = load4(douts + from);
      }
#pragma unroll
      for (int j = 0; j < Tile::kOwn; ++j) {
        if (own() + j >= reach) continue;
        const float weight = weights[i * kWeightStride + own() + j];
        const float slope = slopes[i * kWeightStride + own() + j];
#pragma unroll
        for (int c = 0; c < Tile::kParts; ++c) {
          dv[j][c] = fma4(weight, of_dout[c], dv[j][c]);
          dk[j][c] = fma4(slope, of_q[c], dk[j][c]);
        }
      }
    }
  }
};

/// dk and dv of 32 keys of the key/value head blockIdx.y.
/// FLOPs 8 · D for each pair of a query and a key up to it; k, v, dk and dv pass once, q and dout
/// once for 32 keys, mostly from the L2 cache: 32 · 8 · D FLOPs of 8 · D bytes, 32 FLOP/B. Bound by
/// FMA units and the issue of shared loads. Blocks: one for each 32 rows and key/value head, each
/// as long as its group and the sequence's rest: a small batch of few key/value heads leaves a
/// large GPU idle, which the order of the sums demands.
template <int kSize>
__global__ void __launch_bounds__(KeyGradientTile<kSize>::kThreads, kSize <= 64 ? 3 : 2)
    attention_dkv_kernel(AttentionBackward t) {
  using Tile = KeyGradientTile<kSize>;
  constexpr int kThreads = Tile::kThreads;
  const SequenceTile tile =
      find_tile<kBlockKeys, true>(t.offsets, t.key_offsets, t.sequences, blockIdx.x);
  if (!tile.exists()) return;

  const KeyGradients<kSize> block(dynamic_shared<float>(), tile);
  // Not members: newer architectures' compilers then keep the whole object in local memory.
  typename KeyGradients<kSize>::Sums dk = {}, dv = {};
  const int kv_head = static_cast<int>(blockIdx.y);
  const int group = t.heads / t.kv_heads;
  const Index kv_at = (tile.begin + tile.first) * t.kv_width() + kv_head * t.size;
  stage_rows<kThreads, kBlockKeys, kSize>(block.keys, t.k + kv_at, t.kv_width(), block.keys_here(),
                                          t.size, t.aligned);
  stage_rows<kThreads, kBlockKeys, kSize>(block.values, t.v + kv_at, t.kv_width(),
                                          block.keys_here(), t.size, t.aligned);
  for (int head = kv_head * group; head < (kv_head + 1) * group; ++head)
    for (int first = block.first_query(); first < tile.length; first += Tile::kQueries) {
      const int left = tile.length - first;
      const int count = left < Tile::kQueries ? left : Tile::kQueries;
      const Index q_at = tile.query_row(first) * t.width() + head * t.size;
      __syncthreads();  // the tile before was read
      stage_rows<kThreads, Tile::kQueries, kSize>(block.queries, t.q + q_at, t.width(), count,
                                                  t.size, t.aligned);
      stage_rows<kThreads, Tile::kQueries, kSize>(block.douts, t.dout + q_at, t.width(), count,
                                                  t.size, t.aligned);
      cp_async_commit();
      cp_async_wait<0>();
      __syncthreads();
      block.weigh(t, head, first, count);
      __syncthreads();
      block.add(dk, dv, first, count);
    }

#pragma unroll
  for (int j = 0; j < Tile::kOwn; ++j) {
    if (block.own() + j >= block.keys_here()) continue;
    const Index to = kv_at + (block.own() + j) * t.kv_width() + block.column();
    const int here = t.size - block.column();
    each_element<4 * Tile::kColumns>(dk[j], here, [&](int d, float x) { t.dk[to + d] += x; });
    each_element<4 * Tile::kColumns>(dv[j], here, [&](int d, float x) { t.dv[to + d] += x; });
  }
}

}  // namespace gpu

/// dq (N, H·D), dk, dv (K, Hkv·D) += the gradients, from dout (N, H·D) and what the forward pass
/// took and gave. Both offsets lie on the device.
inline void attention_backward(Cuda device, float* dq, float* dk, float* dv, const float* dout,
                               const float* out, const float* lse, const float* q, const float* k,
                               const float* v, const std::int32_t* offsets,
                               const std::int32_t* key_offsets, Index sequences, Index rows,
                               Index keys, AttentionShape shape) {
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
                                    key_offsets,
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
                 dim3(static_cast<unsigned>(keys / kKeyBlock + sequences),
                      static_cast<unsigned>(shape.kv_heads)),
                 Keys::kThreads, Keys::kBytes, device.stream, call);
  });
}

}  // namespace kernels
}}  // namespace plumb::v0_1
