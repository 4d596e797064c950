// Attention to a key/value cache, and what fills it, bitwise as on the CPU: formula and order are
// those of cpu/attention.hpp. As in "flash-decoding" (Dao et al. 2023) a row's keys are divided
// among blocks of threads, here in the chunks of 512 positions that are part of the order; a second
// kernel merges them. Slots and positions lie on the device and the host reads neither: the grid is
// that of a full cache, and blocks with nothing to do end at once. So one captured graph serves
// every step of decoding. What this is not: a fast way to prefill long prompts; four neighbouring
// rows of a prompt share what is read, not a tile of 64.
#pragma once

#include <plumb/cuda/attention_tile.cuh>
#include <plumb/cuda/elementwise.cuh>
#include <plumb/cuda/gemm_output.cuh>
#include <plumb/math/attention.hpp>

#include <algorithm>
#include <cassert>
#include <type_traits>

namespace plumb { inline namespace v0_1 {
namespace kernels {

namespace gpu {

/// An element of a cache of float or of bf16, and what it keeps of a number.
__device__ inline float cached(float x) { return x; }
__device__ inline float cached(Bf16Bits x) { return from_bf16(x); }
template <class T>
__device__ T to_cached(float x) {
  if constexpr (std::is_same_v<T, float>)
    return x;
  else
    return static_cast<T>(__float_as_uint(Bf16Sum::operand(x)) >> 16);
}

template <class T>
struct KvAppend {
  T *keys, *values;
  const float *k, *v;
  const std::int32_t *slots, *positions;
  Index head_step;  ///< floats from a head's keys (or values) to the next's
  int kv_heads, size;
};

/// A block a token. No FLOPs; 16 · D bytes a head: bound by memory, and by the launch when rows are
/// few. A key's elements go 32 floats apart, each a write of its own, so that attention may read
/// keys side by side.
template <int kThreads, class T>
__global__ void __launch_bounds__(kThreads) kv_append_kernel(KvAppend<T> t) {
  const Index row = blockIdx.x;
  const int position = t.positions[row];
  const Index slot = t.slots[row];
  for (int i = static_cast<int>(threadIdx.x); i < t.kv_heads * t.size; i += kThreads) {
    const int d = i % t.size;
    const Index base = (slot * t.kv_heads + i / t.size) * t.head_step;
    const Index from = row * t.kv_heads * t.size + i;
    t.keys[base + (static_cast<Index>(position / kBlockKeys) * t.size + d) * kBlockKeys +
           position % kBlockKeys] = to_cached<T>(t.k[from]);
    t.values[base + static_cast<Index>(position) * t.size + d] = to_cached<T>(t.v[from]);
  }
}

template <class T>
struct KvCopy {
  T *keys, *values;
  Index from, to, head_step, key_count, value_count;  ///< counts: floats a head
  __device__ void operator()(Index i) const {
    const Index head = i / key_count * head_step;
    const Index at = i % key_count;
    keys[to + head + at] = keys[from + head + at];
    if (at < value_count) values[to + head + at] = values[from + head + at];
  }
};

template <class T>
struct AttentionDecode {
  float* out;
  float* acc;  ///< (rows, H, chunks, D), of rows with more than one chunk
  float* m;    ///< (rows, H, chunks)
  float* l;
  const float* q;
  const T *keys, *values;
  const std::int32_t *slots, *positions;
  Index rows, head_step;
  int share;  ///< rows next to one another that one block takes if their slots are equal
  int heads, kv_heads, size, chunks;
  float scale;
  bool aligned;
};

inline constexpr int kDecodeThreads = 256;
inline constexpr int kDecodeWarps = kDecodeThreads / kWarp;

/// What a block knows of the queries that it works on side by side, and their softmax, in shared
/// memory.
template <int kSize, int kQueries>
struct DecodeShared {
  static constexpr int kTileKeys = 2048 / kSize;  ///< values pass through in tiles of 8 KiB
  static constexpr int kStride = kSize + kRowPad;

  alignas(16) float values[2][kTileKeys * kStride];
  alignas(16) float q[kSize * kQueries];      ///< [d][query]
  alignas(16) float s[kQueries][kChunkKeys];  ///< scores, then weights
  float most[kQueries][kChunkBlocks];         ///< largest score of a block
  float change[kQueries][kChunkBlocks];       ///< e^(m before - m) at a block
  float sum[kQueries][kChunkBlocks];          ///< of a block's weights
  int count[kQueries];                        ///< keys in this chunk, may be none
  Index row[kQueries];                        ///< of out, in heads

  /// Begins to copy a tile of the chunk's values. Those of bf16 are copied at once, as floats.
  template <class T>
  __device__ void stage(int tile, const T* from, int keys, int size, bool aligned) {
    const int first = tile * kTileKeys;
    from += static_cast<Index>(first) * size;
    if constexpr (std::is_same_v<T, float>) {
      if (first < keys)
        stage_rows<kDecodeThreads, kTileKeys, kSize>(values[tile % 2], from, size, keys - first,
                                                     size, aligned);
      cp_async_commit();
    } else {
      const int left = keys - first < kTileKeys ? keys - first : kTileKeys;
      for (int i = static_cast<int>(threadIdx.x); i < left * size; i += kDecodeThreads)
        values[tile % 2][i / size * kStride + i % size] = cached(from[i]);
    }
  }
};

/// Which rows the block works on: the row blockIdx.x and those after it that it leads; none if
/// another row leads it.
struct DecodeRows {
  int members = 0;
  int last = -1;  ///< the largest position

  template <class T>
  __device__ DecodeRows(const AttentionDecode<T>& t, Index row) {
    const int slot = t.slots[row];
    if (row % t.share != 0 && t.slots[row - 1] == slot) return;
    do {
      const int position = t.positions[row + members];
      last = position > last ? position : last;
      ++members;
    } while ((row + members) % t.share != 0 && row + members < t.rows &&
             t.slots[row + members] == slot);
  }
};

/// Queries `first` and on, of `total`, of the rows from `row` on. All threads call it.
template <int kSize, int kQueries, class T>
__device__ void decode_queries(DecodeShared<kSize, kQueries>& shared, const AttentionDecode<T>& t,
                               Index row, int first, int total, int start) {
  const int thread = static_cast<int>(threadIdx.x);
  const int group = t.heads / t.kv_heads;
  __syncthreads();  // what the queries before left in shared memory was read
  if (thread < kQueries) {
    const int u = first + thread;
    const Index of = row + (u < total ? u / group : 0);
    const int left = t.positions[of] + 1 - start;
    shared.count[thread] = u < total ? (left < kChunkKeys ? left : kChunkKeys) : 0;
    shared.row[thread] = of * t.heads + static_cast<int>(blockIdx.y) * group + u % group;
  }
  __syncthreads();
#pragma unroll 1
  for (int i = thread; i < kQueries * t.size; i += kDecodeThreads) {
    const int u = i / t.size;
    const int d = i % t.size;
    shared.q[d * kQueries + u] = first + u < total ? t.q[shared.row[u] * t.size + d] : 0.0F;
  }
  __syncthreads();
}

/// Scores of the chunk's keys, a block of 32 keys a warp, a key a lane.
template <int kSize, int kQueries, class T>
__device__ void decode_scores(DecodeShared<kSize, kQueries>& shared, const T* keys, int blocks,
                              int size, float scale) {
  for (int block = static_cast<int>(threadIdx.x) / kWarp; block < blocks; block += kDecodeWarps) {
    const T* key = keys + static_cast<Index>(block) * size * kBlockKeys + lane();
    float s[kQueries] = {};
#pragma unroll 8
    for (int d = 0; d < size; ++d) {
      const float element = cached(key[d * kBlockKeys]);
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
template <int kSize, int kQueries>
__device__ float most_until(const DecodeShared<kSize, kQueries>& shared, int u, int block) {
  float m = -__builtin_inff();
#pragma unroll 1
  for (int b = 0; b <= block; ++b) m = shared.most[u][b] > m ? shared.most[u][b] : m;
  return m;
}

/// Scores become weights. All blocks' largest scores are known, so no block waits for the one
/// before it.
template <int kSize, int kQueries>
__device__ void decode_weights(DecodeShared<kSize, kQueries>& shared, int blocks) {
  for (int block = static_cast<int>(threadIdx.x) / kWarp; block < blocks; block += kDecodeWarps) {
    const int at = block * kBlockKeys + lane();
#pragma unroll 1
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

/// A thread's sums of values: the element d of kEach queries, u and those kSlots after one another.
template <int kSize, int kQueries>
struct DecodeSums {
  static constexpr int kSlots = kDecodeThreads / kSize;  // queries whose sums grow side by side
  static constexpr int kEach = kQueries > kSlots ? kQueries / kSlots : 1;
  using Shared = DecodeShared<kSize, kQueries>;

  const int d = static_cast<int>(threadIdx.x) % kSize;
  const int u = static_cast<int>(threadIdx.x) / kSize;
  float acc[kEach] = {};

  /// A tile's keys below counts[e].
  __device__ void add(const Shared& shared, int tile, const int (&counts)[kEach]) {
    constexpr int kRun = Shared::kTileKeys < kBlockKeys ? Shared::kTileKeys : kBlockKeys;
    const float* value = shared.values[tile % 2] + d;
    for (int start = tile * Shared::kTileKeys; start < (tile + 1) * Shared::kTileKeys;
         start += kRun, value += kRun * Shared::kStride) {
      if (start % kBlockKeys == 0)
#pragma unroll
        for (int e = 0; e < kEach; ++e)
          if (start < counts[e])
            acc[e] = acc[e] * shared.change[u + e * kSlots][start / kBlockKeys];
#pragma unroll 8
      for (int j = 0; j < kRun; ++j)
#pragma unroll
        for (int e = 0; e < kEach; ++e)
          if (start + j < counts[e])
            acc[e] = fma(shared.s[u + e * kSlots][start + j], value[j * Shared::kStride], acc[e]);
    }
  }

  /// All tiles, of which the first is under way. All threads call it.
  template <class T>
  __device__ void gather(Shared& shared, const T* values, int keys, int size, bool aligned) {
    int counts[kEach];
#pragma unroll
    for (int e = 0; e < kEach; ++e)
      counts[e] = u < kQueries && d < size ? shared.count[u + e * kSlots] : 0;
    for (int tile = 0; tile * Shared::kTileKeys < keys; ++tile) {
      cp_async_wait<0>();
      __syncthreads();
      shared.stage(tile + 1, values, keys, size, aligned);
      add(shared, tile, counts);
    }
  }

  /// To out, or to the partial results of the block's chunk.
  template <class T>
  __device__ void store(const Shared& shared, const AttentionDecode<T>& t) const {
    if (d >= t.size || u >= kQueries) return;
#pragma unroll
    for (int e = 0; e < kEach; ++e) {
      const int query = u + e * kSlots;
      if (shared.count[query] <= 0) continue;
      float l = 0.0F;
      const int own = (shared.count[query] + kBlockKeys - 1) / kBlockKeys;
#pragma unroll 1
      for (int b = 0; b < own; ++b) l = l * shared.change[query][b] + shared.sum[query][b];
      if (t.positions[shared.row[query] / t.heads] < kChunkKeys) {
        t.out[shared.row[query] * t.size + d] = acc[e] / l;
        continue;
      }
      const Index to = shared.row[query] * t.chunks + blockIdx.z;
      t.acc[to * t.size + d] = acc[e];
      if (d != 0) continue;
      t.m[to] = most_until(shared, query, own - 1);
      t.l[to] = l;
    }
  }
};

/// A block: the queries of the key/value head blockIdx.y's group, for some rows of one slot,
/// against the chunk blockIdx.z of the cache. All scores first, a key a thread; then the weights,
/// block by block of keys; then the sums of values, an element a thread, one chain over all keys:
/// 512 steps of 4 cycles, less than a chunk takes to arrive.
/// FLOPs 4 · D a query and key; bytes 8 · D a key, of bf16 half of that, once for all queries of
/// the block: 1/2 FLOP/B for one query (heads without a group), 1/2 · group with one. Bound by
/// memory. Loads in flight hide its latency: of keys, 8 times 128 bytes a warp; of values, a tile
/// of 8 KiB, the first
/// already during the scores.
template <int kSize, int kQueries, class T>
__global__ void __launch_bounds__(kDecodeThreads, 4)
    attention_decode_kernel(AttentionDecode<T> t) {
  __shared__ DecodeShared<kSize, kQueries> shared;
  const Index row = blockIdx.x;
  const int start = static_cast<int>(blockIdx.z) * kChunkKeys;
  const DecodeRows rows(t, row);
  if (rows.last < start) return;

  const Index head = static_cast<Index>(t.slots[row]) * t.kv_heads + blockIdx.y;
  const Index base = head * t.head_step + static_cast<Index>(start) * t.size;
  const int left = rows.last + 1 - start;
  const int keys = left < kChunkKeys ? left : kChunkKeys;
  const int blocks = (keys + kBlockKeys - 1) / kBlockKeys;
  const int total = rows.members * (t.heads / t.kv_heads);
  for (int first = 0; first < total; first += kQueries) {
    decode_queries(shared, t, row, first, total, start);
    shared.stage(0, t.values + base, keys, t.size, t.aligned);
    decode_scores(shared, t.keys + base, blocks, t.size, t.scale);
    __syncthreads();
    decode_weights(shared, blocks);
    DecodeSums<kSize, kQueries> sums;
    sums.gather(shared, t.values + base, keys, t.size, t.aligned);
    sums.store(shared, t);
  }
}

/// One element of out: its row's chunks, merged in order. 4 FLOPs and two exponentials for each
/// chunk's 4 bytes: bound by memory, of which it needs a 512th of what the chunks needed.
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

/// Of a cache of bf16 the bits, of one of float the numbers.
inline float* elements(float* cache) { return cache; }
inline const float* elements(const float* cache) { return cache; }
inline gpu::Bf16Bits* elements(bf16* cache) { return reinterpret_cast<gpu::Bf16Bits*>(cache); }
inline const gpu::Bf16Bits* elements(const bf16* cache) {
  return reinterpret_cast<const gpu::Bf16Bits*>(cache);
}

/// Writes the keys and values of `rows` new tokens, k, v (rows, Hkv·D), at positions[r] of
/// slots[r]. T: float, or bf16, to which they are then rounded.
template <class T>
void kv_append(Cuda device, T* keys, T* values, const float* k, const float* v,
               const std::int32_t* slots, const std::int32_t* positions, Index rows,
               KvShape shape) {
  if (rows == 0) return;
  constexpr int kThreads = 128;
  const gpu::KvAppend call{elements(keys),
                           elements(values),
                           k,
                           v,
                           slots,
                           positions,
                           shape.rounded_capacity() * shape.attention.head_size,
                           static_cast<int>(shape.attention.kv_heads),
                           static_cast<int>(shape.attention.head_size)};
  using Element = std::remove_pointer_t<decltype(call.keys)>;
  PLUMB_LAUNCH((gpu::kv_append_kernel<kThreads, Element>), static_cast<unsigned>(rows), kThreads,
               0, device.stream, call);
}

/// Copies the first `length` positions of one slot to another: one prompt, prefilled once, for
/// several responses. Bound by memory.
template <class T>
void kv_copy(Cuda device, T* keys, T* values, Index from_slot, Index to_slot, Index length,
             KvShape shape) {
  if (length == 0) return;
  const Index size = shape.attention.head_size;
  const Index key_blocks = (length + kKeyBlock - 1) / kKeyBlock;
  const gpu::KvCopy call{elements(keys),
                         elements(values),
                         from_slot * shape.slot_size(),
                         to_slot * shape.slot_size(),
                         shape.rounded_capacity() * size,
                         key_blocks * kKeyBlock * size,
                         length * size};
  gpu::map(device, call, shape.attention.kv_heads * call.key_count);
}

/// The chunks of some rows, and the merge. kQueries: queries that share keys, worked on side by
/// side.
template <int kQueries, class T>
void attention_decode(Cuda device, const gpu::AttentionDecode<T>& call) {
  const dim3 grid(static_cast<unsigned>(call.rows), static_cast<unsigned>(call.kv_heads),
                  static_cast<unsigned>(call.chunks));
  with_head_class(call.size, [&]<int kSize>() {
    PLUMB_LAUNCH((gpu::attention_decode_kernel<kSize, kQueries, T>), grid, gpu::kDecodeThreads, 0,
                 device.stream, call);
  });
  if (call.chunks > 1)
    gpu::map(device,
             gpu::MergeChunks{call.out, call.acc, call.m, call.l, call.positions, call.heads,
                              call.size, call.chunks},
             call.rows * call.heads * call.size);
}

/// Floats of partial results that a call may keep at once.
inline constexpr Index kPartialFloats = Index{1} << 20;

/// out (rows, H·D): row r attends to positions 0 … positions[r] of slots[r], its own key and value
/// already appended. Bitwise equal to attention_forward's row, of keys and values that were rounded
/// if the cache is of bf16. slots and positions lie on the device: the grid is that of a full
/// cache.
template <class T>
void attention_cached_forward(Cuda device, float* out, const float* q, const T* keys,
                              const T* values, const std::int32_t* slots,
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
                                    elements(keys),
                                    elements(values),
                                    slots + row,
                                    positions + row,
                                    count,
                                    shape.rounded_capacity() * size,
                                    static_cast<int>(share),
                                    static_cast<int>(heads.heads),
                                    static_cast<int>(heads.kv_heads),
                                    static_cast<int>(size),
                                    static_cast<int>(chunks),
                                    heads.scale,
                                    attention_aligned(size, values)};
    if (queries == 1)
      attention_decode<1>(device, call);
    else if (queries <= 4)
      attention_decode<4>(device, call);
    else
      attention_decode<8>(device, call);
  }
}

}  // namespace kernels
}}  // namespace plumb::v0_1
