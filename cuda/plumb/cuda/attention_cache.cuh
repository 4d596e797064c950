// Attention to a key/value cache, and what fills it, bitwise as on the CPU: formula and order are those of
// cpu/attention.hpp. As in "flash-decoding" (Dao et al. 2023) a row's keys are divided among blocks of
// threads, here in the chunks of 512 positions that are part of the order; a second kernel merges them. Slots
// and positions lie on the device and the host reads neither: the grid is that of a full cache, and blocks
// with nothing to do end at once. So one captured graph serves every step of decoding. What this is not: a
// fast way to prefill long prompts; four neighbouring rows of a prompt share what is read, not a tile of 64.
#pragma once

#include <plumb/cuda/attention_tile.cuh>
#include <plumb/cuda/elementwise.cuh>

#include <algorithm>
#include <cassert>

namespace plumb::inline v0_1 {
namespace kernels {

namespace gpu {

struct KvAppend {
  float *keys, *values;
  const float *k, *v;
  const std::int32_t *slots, *positions;
  Index head_step;  ///< floats from a head's keys (or values) to the next's
  int kv_heads, size;
};

/// A block a token. No FLOPs; 16 · D bytes a head: bound by memory, and by the launch when rows are few. A key's
/// elements go 32 floats apart, each a write of its own, so that attention may read keys side by side.
template <int kThreads>
__global__ void __launch_bounds__(kThreads) kv_append_kernel(KvAppend t) {
  const Index row = blockIdx.x;
  const int position = t.positions[row];
  const Index slot = t.slots[row];
  for (int i = static_cast<int>(threadIdx.x); i < t.kv_heads * t.size; i += kThreads) {
    const int d = i % t.size;
    const Index base = (slot * t.kv_heads + i / t.size) * t.head_step;
    const Index from = row * t.kv_heads * t.size + i;
    t.keys[base + (static_cast<Index>(position / kBlockKeys) * t.size + d) * kBlockKeys +
           position % kBlockKeys] = t.k[from];
    t.values[base + static_cast<Index>(position) * t.size + d] = t.v[from];
  }
}

struct KvCopy {
  float *keys, *values;
  Index from, to, head_step, key_count, value_count;  ///< counts: floats a head
  __device__ void operator()(Index i) const {
    const Index head = i / key_count * head_step;
    const Index at = i % key_count;
    keys[to + head + at] = keys[from + head + at];
    if (at < value_count) values[to + head + at] = values[from + head + at];
  }
};

struct AttentionDecode {
  float* out;
  float* acc;     ///< (rows, H, chunks, D), of rows with more than one chunk
  float* m;       ///< (rows, H, chunks)
  float* l;
  const float *q, *keys, *values;
  const std::int32_t *slots, *positions;
  Index rows, head_step;
  int share;  ///< rows next to one another that one block takes if their slots are equal
  int heads, kv_heads, size, chunks;
  float scale;
};

inline constexpr int kDecodeThreads = 256;
inline constexpr int kDecodeWarps = kDecodeThreads / kWarp;

/// What a block knows of the queries that it works on side by side, and their softmax, in shared memory.
template <int kQueries>
struct DecodeShared {
  alignas(16) float q[kMaxHeadSize * kQueries];  ///< [d][query]
  alignas(16) float s[kQueries][kChunkKeys];     ///< scores, then weights
  float most[kQueries][kChunkBlocks];            ///< largest score of a block
  float change[kQueries][kChunkBlocks];          ///< e^(m before - m) at a block
  float sum[kQueries][kChunkBlocks];             ///< of a block's weights
  int count[kQueries];                           ///< keys in this chunk, may be none
  Index row[kQueries];                           ///< of out, in heads
};

/// Scores of the chunk's keys, a block of 32 keys a warp, a key a lane.
template <int kQueries>
__device__ void decode_scores(DecodeShared<kQueries>& shared, const float* keys, int blocks,
                              int size, float scale) {
  for (int block = static_cast<int>(threadIdx.x) / kWarp; block < blocks; block += kDecodeWarps) {
    const float* key = keys + static_cast<Index>(block) * size * kBlockKeys + lane();
    float s[kQueries] = {};
#pragma unroll 8
    for (int d = 0; d < size; ++d) {
      const float element = key[d * kBlockKeys];
#pragma unroll
      for (int u = 0; u < kQueries; ++u) s[u] = fma(shared.q[d * kQueries + u], element, s[u]);
    }
    const int at = block * kBlockKeys + lane();
#pragma unroll
    for (int u = 0; u < kQueries; ++u) {
      const float score = at < shared.count[u] ? s[u] * scale : -__builtin_inff();
      shared.s[u][at] = score;
      const float most = warp_max(score);
      if (lane() == 0) shared.most[u][block] = most;
    }
  }
}

/// The largest score of the chunk up to and including a block.
template <int kQueries>
__device__ float most_until(const DecodeShared<kQueries>& shared, int u, int block) {
  float m = -__builtin_inff();
  for (int b = 0; b <= block; ++b) m = shared.most[u][b] > m ? shared.most[u][b] : m;
  return m;
}

/// Scores become weights. All blocks' largest scores are known, so no block waits for the one before it.
template <int kQueries>
__device__ void decode_weights(DecodeShared<kQueries>& shared, int blocks) {
  for (int block = static_cast<int>(threadIdx.x) / kWarp; block < blocks; block += kDecodeWarps) {
    const int at = block * kBlockKeys + lane();
    for (int u = 0; u < kQueries; ++u) {
      if (block * kBlockKeys >= shared.count[u]) continue;
      const float before = most_until(shared, u, block - 1);
      const float most = shared.most[u][block] > before ? shared.most[u][block] : before;
      const float weight = at < shared.count[u] ? exp(shared.s[u][at] - most) : 0.0F;
      shared.s[u][at] = weight;
      const float sum = warp_sum(weight);
      if (lane() != 0) continue;
      shared.sum[u][block] = sum;
      shared.change[u][block] = exp(before - most);
    }
  }
}

/// One element of several queries' sums of values, kEach of them from query `first` on, `step` apart.
template <int kQueries, int kEach>
__device__ void decode_values(const DecodeShared<kQueries>& shared, float (&acc)[kEach], int first,
                              int step, const float* values, int keys, int size) {
  int counts[kEach];
#pragma unroll
  for (int e = 0; e < kEach; ++e) {
    acc[e] = 0.0F;
    counts[e] = shared.count[first + e * step];
  }
  for (int start = 0; start < keys; start += kBlockKeys) {
#pragma unroll
    for (int e = 0; e < kEach; ++e)
      if (start < counts[e])
        acc[e] = acc[e] * shared.change[first + e * step][start / kBlockKeys];
    const int end = keys < start + kBlockKeys ? keys : start + kBlockKeys;
#pragma unroll 16
    for (int j = start; j < end; ++j) {
      const float value = values[static_cast<Index>(j) * size];
#pragma unroll
      for (int e = 0; e < kEach; ++e)
        if (j < counts[e])
          acc[e] = fma(shared.s[first + e * step][j], value, acc[e]);
    }
  }
}

/// A block: the queries of one key/value head's group, for the row blockIdx.x and those after it that it
/// leads, against the chunk blockIdx.z of the cache.
/// FLOPs 4 · D a query and key; bytes 8 · D a key, once for all queries of the block: 1/2 FLOP/B for one query
/// (heads without a group), 1/2 · group with one. Bound by memory. Loads in flight hide its latency: 8 keys'
/// elements a thread, 16 values.
template <int kSize, int kQueries>
__global__ void __launch_bounds__(kDecodeThreads) attention_decode_kernel(AttentionDecode t) {
  constexpr int kSlots = kDecodeThreads / kSize;  // queries whose sums grow side by side
  constexpr int kEach = kQueries > kSlots ? kQueries / kSlots : 1;
  __shared__ DecodeShared<kQueries> shared;
  const Index row = blockIdx.x;
  const int slot = t.slots[row];
  const int start = static_cast<int>(blockIdx.z) * kChunkKeys;
  if (row % t.share != 0 && t.slots[row - 1] == slot) return;  // another row leads it
  int members = 1;
  int last = t.positions[row];
  while ((row + members) % t.share != 0 && row + members < t.rows &&
         t.slots[row + members] == slot) {
    const int position = t.positions[row + members];
    last = position > last ? position : last;
    ++members;
  }
  if (last < start) return;

  const int group = t.heads / t.kv_heads;
  const int kv_head = static_cast<int>(blockIdx.y);
  const int thread = static_cast<int>(threadIdx.x);
  const Index base = (static_cast<Index>(slot) * t.kv_heads + kv_head) * t.head_step +
                     static_cast<Index>(start) * t.size;
  const int keys = last + 1 - start < kChunkKeys ? last + 1 - start : kChunkKeys;
  const int blocks = (keys + kBlockKeys - 1) / kBlockKeys;
  for (int first = 0; first < members * group; first += kQueries) {
    __syncthreads();  // what the queries before left in shared memory was read
    if (thread < kQueries) {
      const int u = first + thread;
      const bool there = u < members * group;
      const Index of = row + (there ? u / group : 0);
      const int left = t.positions[of] + 1 - start;
      shared.count[thread] = there ? (left < kChunkKeys ? left : kChunkKeys) : 0;
      shared.row[thread] = of * t.heads + kv_head * group + u % group;
    }
    __syncthreads();
    for (int i = thread; i < kQueries * t.size; i += kDecodeThreads) {
      const int u = i / t.size;
      const int d = i % t.size;
      shared.q[d * kQueries + u] =
          first + u < members * group ? t.q[shared.row[u] * t.size + d] : 0.0F;
    }
    __syncthreads();
    decode_scores(shared, t.keys + base, blocks, t.size, t.scale);
    __syncthreads();
    decode_weights(shared, blocks);
    __syncthreads();
    const int d = thread % kSize;
    if (d >= t.size || thread / kSize >= kQueries) continue;
    float acc[kEach];
    decode_values<kQueries, kEach>(shared, acc, thread / kSize, kSlots, t.values + base + d, keys,
                                   t.size);
    for (int e = 0; e < kEach; ++e) {
      const int u = thread / kSize + e * kSlots;
      if (shared.count[u] <= 0) continue;
      float l = 0.0F;
      const int own = (shared.count[u] + kBlockKeys - 1) / kBlockKeys;
      for (int b = 0; b < own; ++b) l = l * shared.change[u][b] + shared.sum[u][b];
      if (t.positions[shared.row[u] / t.heads] < kChunkKeys) {
        t.out[shared.row[u] * t.size + d] = acc[e] / l;
        continue;
      }
      const Index to = shared.row[u] * t.chunks + blockIdx.z;
      t.acc[to * t.size + d] = acc[e];
      if (d != 0) continue;
      t.m[to] = most_until(shared, u, own - 1);
      t.l[to] = l;
    }
  }
}

/// One element of out: its row's chunks, merged in order. 4 FLOPs and two exponentials for each chunk's 4
/// bytes: bound by memory, of which it needs a 512th of what the chunks needed.
struct MergeChunks {
  float* out;
  const float *acc, *m, *l;
  const std::int32_t* positions;
  int heads, size, chunks;
  __device__ void operator()(Index i) const {
    const Index row = i / size;
    const int position = positions[row / heads];
    if (position < kChunkKeys) return;
    const Index first = row * chunks;
    float total_m = m[first];
    float total_l = l[first];
    float total = acc[first * size + i % size];
    for (int c = 1; c <= position / kChunkKeys; ++c) {
      const float most = m[first + c] > total_m ? m[first + c] : total_m;
      const float before = exp(total_m - most);
      const float after = exp(m[first + c] - most);
      total_m = most;
      total_l = fma(l[first + c], after, total_l * before);
      total = fma(acc[(first + c) * size + i % size], after, total * before);
    }
    out[i] = total / total_l;
  }
};

}  // namespace gpu

/// Writes the keys and values of `rows` new tokens, k, v (rows, Hkv·D), at positions[r] of slots[r].
inline void kv_append(Cuda device, float* keys, float* values, const float* k, const float* v,
                      const std::int32_t* slots, const std::int32_t* positions, Index rows,
                      KvShape shape) {
  if (rows == 0) return;
  constexpr int kThreads = 128;
  const gpu::KvAppend call{keys,
                           values,
                           k,
                           v,
                           slots,
                           positions,
                           shape.rounded_capacity() * shape.attention.head_size,
                           static_cast<int>(shape.attention.kv_heads),
                           static_cast<int>(shape.attention.head_size)};
  PLUMB_LAUNCH((gpu::kv_append_kernel<kThreads>), static_cast<unsigned>(rows), kThreads, 0,
               device.stream, call);
}

/// Copies the first `length` positions of one slot to another: one prompt, prefilled once, for several
/// responses. Bound by memory.
inline void kv_copy(Cuda device, float* keys, float* values, Index from_slot, Index to_slot,
                    Index length, KvShape shape) {
  if (length == 0) return;
  const Index size = shape.attention.head_size;
  const Index key_blocks = (length + kKeyBlock - 1) / kKeyBlock;
  const gpu::KvCopy call{keys,
                         values,
                         from_slot * shape.slot_size(),
                         to_slot * shape.slot_size(),
                         shape.rounded_capacity() * size,
                         key_blocks * kKeyBlock * size,
                         length * size};
  gpu::map(device, call, shape.attention.kv_heads * call.key_count);
}

/// The chunks of some rows, and the merge. kQueries: queries that share keys, worked on side by side.
template <int kQueries>
void attention_decode(Cuda device, const gpu::AttentionDecode& call) {
  const dim3 grid(static_cast<unsigned>(call.rows), static_cast<unsigned>(call.kv_heads),
                  static_cast<unsigned>(call.chunks));
  with_head_class(call.size, [&]<int kSize>() {
    PLUMB_LAUNCH((gpu::attention_decode_kernel<kSize, kQueries>), grid, gpu::kDecodeThreads, 0,
                 device.stream, call);
  });
  if (call.chunks > 1)
    gpu::map(device,
             gpu::MergeChunks{call.out, call.acc, call.m, call.l, call.positions, call.heads,
                              call.size, call.chunks},
             call.rows * call.heads * call.size);
}

/// Floats of partial results that a call may keep at once.
inline constexpr Index kPartialFloats = Index{1} << 24;

/// out (rows, H·D): row r attends to positions 0 … positions[r] of slots[r], its own key and value
/// already appended. Bitwise equal to attention_forward's row. slots and positions lie on the device: the
/// grid is that of a full cache.
inline void attention_cached_forward(Cuda device, float* out, const float* q, const float* keys,
                                     const float* values, const std::int32_t* slots,
                                     const std::int32_t* positions, Index rows, KvShape shape) {
  const AttentionShape& heads = shape.attention;
  const Index size = heads.head_size;
  assert(size >= 1 && size <= kMaxHeadSize && heads.heads % heads.kv_heads == 0);
  if (rows == 0) return;
  const Index chunks = (shape.capacity + kAttentionChunk - 1) / kAttentionChunk;
  // More rows than slots: some are a prompt's, and neighbours share keys.
  const Index share = rows > shape.slots ? 4 : 1;
  const Index queries = share * (heads.heads / heads.kv_heads);
  const Index partials = heads.heads * chunks;
  const Index at_once =
      chunks == 1 ? rows : std::max<Index>(1, kPartialFloats / (partials * size) / share) * share;
  const Index most = std::min(rows, at_once);
  const DeviceScratch<float> room(device, chunks == 1 ? 1 : most * partials * (size + 2));
  for (Index row = 0; row < rows; row += at_once) {
    const Index count = std::min(at_once, rows - row);
    const gpu::AttentionDecode call{out + row * heads.heads * size,
                                    room.data(),
                                    room.data() + most * partials * size,
                                    room.data() + most * partials * (size + 1),
                                    q + row * heads.heads * size,
                                    keys,
                                    values,
                                    slots + row,
                                    positions + row,
                                    count,
                                    shape.rounded_capacity() * size,
                                    static_cast<int>(share),
                                    static_cast<int>(heads.heads),
                                    static_cast<int>(heads.kv_heads),
                                    static_cast<int>(size),
                                    static_cast<int>(chunks),
                                    heads.scale};
    if (queries == 1)
      attention_decode<1>(device, call);
    else if (queries <= 4)
      attention_decode<4>(device, call);
    else
      attention_decode<8>(device, call);
  }
}

}  // namespace kernels
}  // namespace plumb::inline v0_1
