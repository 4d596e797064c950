// What attention's kernels share: which tile of which sequence a block works on, tiles of rows in
// shared memory, and the two products, scores (rows · keys, one chain of fma over the head's
// elements) and gatherings (weights · rows, one chain over the keys), on register tiles. Used by
// attention.cuh and attention_backward.cuh. What this is not: a general product (gemm.cuh).
//
// A warp is 4 × 8 threads. A thread has kRows rows, 4 apart, and of a block of 32 keys those 8
// apart, from its place t on: t, t + 8, t + 16, t + 24. So the butterfly over 32 lanes is two
// additions in a thread and three shuffles. Rows in shared memory are 4 floats longer than they
// need be, so that 8 rows read 16 bytes each from 32 different banks. Copies are cp.async where
// head size and addresses allow 16 bytes at a time; otherwise, slower, element by element.
#pragma once

#include <plumb/cuda/device.cuh>
#include <plumb/cuda/lanes.cuh>
#include <plumb/math/attention.hpp>

#include <algorithm>

namespace plumb { inline namespace v0_1 {
namespace kernels {

namespace gpu {

/// Threads of a block of the tiled kernels, unless they say otherwise: 4 warps.
inline constexpr int kAttentionThreads = 128;
inline constexpr int kBlockKeys = static_cast<int>(kKeyBlock);
inline constexpr int kChunkKeys = static_cast<int>(kAttentionChunk);
inline constexpr int kChunkBlocks = kChunkKeys / kBlockKeys;
/// Floats from row to row of the weights: 8 banks on, so that 4 rows' reads and writes do not meet.
inline constexpr int kWeightStride = kBlockKeys + 8;
/// Floats by which a row in shared memory is longer than what it holds.
inline constexpr int kRowPad = 4;
/// Tiles of kTile rows cover sequence b's rows from this one on, in an order of tiles that has room
/// for rows / kTile + sequences of them, some of which are empty.
template <int kTile>
__device__ Index first_tile(const std::int32_t* offsets, Index b) {
  return (offsets[b] - offsets[0]) / kTile + b;
}

/// The rows of a tile: positions from `first` on, of a sequence of `length` whose keys begin at row
/// `begin`, and whose queries, from position `own` on, at row `queries`.
struct SequenceTile {
  Index begin, queries;
  int length, own, first;

  __device__ bool exists() const { return first < length; }
  /// The row of the query at a position.
  __device__ Index query_row(int position) const { return queries + (position - own); }
};

/// Which tile of kTile queries, or keys, `tile` is. By bisection: log₂(sequences) reads, which all
/// threads do alike.
template <int kTile, bool kOfKeys>
__device__ SequenceTile find_tile(const std::int32_t* query_offsets,
                                  const std::int32_t* key_offsets, Index sequences, Index tile) {
  const std::int32_t* offsets = kOfKeys ? key_offsets : query_offsets;
  Index low = 0;
  Index high = sequences;
  while (high - low > 1) {
    const Index middle = (low + high) / 2;
    (first_tile<kTile>(offsets, middle) <= tile ? low : high) = middle;
  }
  const int length = key_offsets[low + 1] - key_offsets[low];
  const int own = length - (query_offsets[low + 1] - query_offsets[low]);
  const int first = static_cast<int>(tile - first_tile<kTile>(offsets, low)) * kTile;
  return {key_offsets[low], query_offsets[low], length, own, kOfKeys ? first : own + first};
}

/// Begins to copy a tile of kRows rows of kColumns elements to shared memory, of which `rows` and
/// `columns` are there (at least one row) and the others become zeros. After cp_async_wait and a
/// barrier it is there.
template <int kThreads, int kRows, int kColumns>
__device__ void stage_rows(float* to, const float* from, Index stride, int rows, int columns,
                           bool aligned) {
  constexpr int kParts = kColumns / 4;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kParts; i += kThreads) {
    const int row = i / kParts;
    const int column = i % kParts * 4;
    float* place = to + row * (kColumns + kRowPad) + column;
    const int left = row < rows ? columns - column : 0;
    const float* source = left > 0 ? from + row * stride + column : from;
    if (aligned) {
      cp_async_16(place, source, 4 * (left < 0 ? 0 : left < 4 ? left : 4));
    } else {
      for (int d = 0; d < 4; ++d) place[d] = d < left ? source[d] : 0.0F;
    }
  }
}

/// s[i][k] continues Σ_d x_i[d] · y_k[d], d < n ascending, with the rows x_i and y_k so many floats
/// apart.
template <int kRows, int kKeys, int kRowStep, int kKeyStep>
__device__ void tile_dots(float (&s)[kRows][kKeys], const float* x, const float* y, int n) {
  int d = 0;
#pragma unroll 2
  for (; d + 4 <= n; d += 4) {
    float4 a[kRows], b[kKeys];
#pragma unroll
    for (int i = 0; i < kRows; ++i) a[i] = load4(x + i * kRowStep + d);
#pragma unroll
    for (int k = 0; k < kKeys; ++k) b[k] = load4(y + k * kKeyStep + d);
#pragma unroll
    for (int i = 0; i < kRows; ++i)
#pragma unroll
      for (int k = 0; k < kKeys; ++k)
        s[i][k] = fma(a[i].w, b[k].w,
                      fma(a[i].z, b[k].z, fma(a[i].y, b[k].y, fma(a[i].x, b[k].x, s[i][k]))));
  }
  for (; d < n; ++d)
#pragma unroll
    for (int i = 0; i < kRows; ++i)
#pragma unroll
      for (int k = 0; k < kKeys; ++k)
        s[i][k] = fma(x[i * kRowStep + d], y[k * kKeyStep + d], s[i][k]);
}

__device__ inline float4 fma4(float a, float4 b, float4 c) {
  return {fma(a, b.x, c.x), fma(a, b.y, c.y), fma(a, b.z, c.z), fma(a, b.w, c.w)};
}
__device__ inline float4 scale4(float4 a, float b) { return {a.x * b, a.y * b, a.z * b, a.w * b}; }

/// acc[i][to + c] continues Σ_j w_i[j] · y_j over the block's keys ascending, c < kCount; those
/// below counts[i] only if kMasked. w_i are 4 · kWeightStride apart, y_j kKeyStep, a row's parts
/// 32. `to` must be known once loops are unrolled: registers have no index.
template <bool kMasked, int kCount, int kKeyStep, int kRows, int kParts>
__device__ __forceinline__ void tile_gather(float4 (&acc)[kRows][kParts], int to, const float* w,
                                            const float* y, const int (&counts)[kRows]) {
#pragma unroll 2
  for (int first = 0; first < kBlockKeys; first += 4) {
    float4 weights[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i) weights[i] = load4(w + i * 4 * kWeightStride + first);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      float4 row[kCount];
#pragma unroll
      for (int c = 0; c < kCount; ++c) row[c] = load4(y + (first + j) * kKeyStep + c * 32);
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const float4& of = weights[i];
        const float weight = j == 0 ? of.x : j == 1 ? of.y : j == 2 ? of.z : of.w;
        if (kMasked && first + j >= counts[i]) continue;
#pragma unroll
        for (int c = 0; c < kCount; ++c) acc[i][to + c] = fma4(weight, row[c], acc[i][to + c]);
      }
    }
  }
}

/// Keys and values of one head of a sequence on their way through shared memory: for block after
/// block of 32 keys up to 64 elements of the keys at a time, then of the values, then (kPasses 3)
/// of the keys again, each slice being copied while the one before it is worked on. All threads
/// call stage and take together.
template <int kSize, int kPasses>
struct SliceStream {
  static constexpr int kSlice = kSize < 64 ? kSize : 64;
  static constexpr int kStride = kSlice + kRowPad;
  static constexpr int kFloats = 2 * kBlockKeys * kStride;  ///< of shared memory

  float* slices;
  const float *k, *v;
  Index width;  ///< from a key to the next
  int length, blocks, size;
  bool aligned;
  int step = 0;

  __device__ int parts() const { return (size + kSlice - 1) / kSlice; }
  /// Elements of a part.
  __device__ int count(int part) const {
    return size - part * kSlice < kSlice ? size - part * kSlice : kSlice;
  }
  __device__ void stage(int next) const {
    const int block = next / (kPasses * parts());
    const int part = next % (kPasses * parts());
    if (block < blocks) {
      const int first = block * kBlockKeys;
      const int column = part % parts() * kSlice;
      stage_rows<kAttentionThreads, kBlockKeys, kSlice>(
          slices + next % 2 * kBlockKeys * kStride,
          (part / parts() == 1 ? v : k) + first * width + column, width, length - first,
          size - column, aligned);
    }
    cp_async_commit();
  }
  /// The next slice; the one before it must not be read any more.
  __device__ const float* take() {
    cp_async_wait<0>();
    __syncthreads();
    stage(step + 1);
    return slices + step++ % 2 * kBlockKeys * kStride;
  }
};

/// Where a thread stands in a tile of 16 · kRows queries.
template <int kRows>
struct QueryPlace {
  SequenceTile tile;
  int here;   ///< the tile's rows that exist
  int place;  ///< the first of the thread's keys in a block
  int row;    ///< the first of the thread's rows in the tile

  __device__ explicit QueryPlace(SequenceTile of)
      : tile(of),
        here(of.length - of.first < 16 * kRows ? of.length - of.first : 16 * kRows),
        place(lane() % 8),
        row(warp_first() + lane() / 8) {}

  __device__ static int warp_first() { return static_cast<int>(threadIdx.x) / kWarp * 4 * kRows; }
  __device__ bool has(int i) const { return row + 4 * i < here; }
  /// Blocks of keys that the tile's rows see.
  __device__ int blocks() const { return (tile.first + here + kBlockKeys - 1) / kBlockKeys; }
  /// Keys of the block that each of the thread's rows sees; from 32 on: all.
  __device__ void count(int (&counts)[kRows], int block) const {
#pragma unroll
    for (int i = 0; i < kRows; ++i) counts[i] = tile.first + row + 4 * i + 1 - block * kBlockKeys;
  }
  /// Whether some, and whether all of the block's keys are seen by some, and by all of the warp's
  /// rows.
  __device__ bool any(int block) const {
    return tile.first + warp_first() + 4 * kRows > block * kBlockKeys;
  }
  __device__ bool all(int block) const {
    return tile.first + warp_first() + 1 >= (block + 1) * kBlockKeys;
  }
};

/// s = rows · the stream's next pass, for a thread's rows from x on.
template <int kStride, int kRows, int kSize, int kPasses>
__device__ void stream_dots(float (&s)[kRows][4], SliceStream<kSize, kPasses>& stream,
                            const float* x, const QueryPlace<kRows>& at, bool any) {
  using Stream = SliceStream<kSize, kPasses>;
#pragma unroll 1
  for (int part = 0; part < stream.parts(); ++part) {
    const float* slice = stream.take() + at.place * Stream::kStride;
    if (any)
      tile_dots<kRows, 4, 4 * kStride, 8 * Stream::kStride>(s, x + part * Stream::kSlice, slice,
                                                            stream.count(part));
  }
}

/// acc continues weights · the stream's next pass, for a thread's rows' weights from w on.
template <int kRows, int kParts, int kSize, int kPasses>
__device__ void stream_gather(float4 (&acc)[kRows][kParts], SliceStream<kSize, kPasses>& stream,
                              const float* w, const QueryPlace<kRows>& at,
                              const int (&counts)[kRows], int block) {
  using Stream = SliceStream<kSize, kPasses>;
  constexpr int kCount = Stream::kSlice / 32;
#pragma unroll
  for (int part = 0; part < kSize / Stream::kSlice; ++part) {
    if (part >= stream.parts()) break;
    const float* slice = stream.take() + 4 * at.place;
    if (at.any(block) && at.all(block))
      tile_gather<false, kCount, Stream::kStride>(acc, part * kCount, w, slice, counts);
    else if (at.any(block))
      tile_gather<true, kCount, Stream::kStride>(acc, part * kCount, w, slice, counts);
  }
}

/// Calls f(d, x) with each element x of a thread's parts of a row that is d < left elements on from
/// the first; the parts are kApart elements apart. d is a constant, so an address is one register's
/// for all.
template <int kApart = 32, int kParts, class F>
__device__ __forceinline__ void each_element(float4 (&parts)[kParts], int left, F f) {
#pragma unroll
  for (int c = 0; c < kParts; ++c) {
    if (c * kApart < left) f(c * kApart, parts[c].x);
    if (c * kApart + 1 < left) f(c * kApart + 1, parts[c].y);
    if (c * kApart + 2 < left) f(c * kApart + 2, parts[c].z);
    if (c * kApart + 3 < left) f(c * kApart + 3, parts[c].w);
  }
}

}  // namespace gpu

/// Whether rows of these arrays can be read 16 bytes at a time.
template <class... Pointers>
bool attention_aligned(Index head_size, const Pointers*... arrays) {
  return head_size % 4 == 0 && ((reinterpret_cast<std::uintptr_t>(arrays) % 16 == 0) && ...);
}

/// Calls body.template operator()<kSize>() with the class of a head size: 32, 64, 128 or 256.
template <class Body>
void with_head_class(Index head_size, Body body) {
  if (head_size <= 32) return body.template operator()<32>();
  if (head_size <= 64) return body.template operator()<64>();
  if (head_size <= 128) return body.template operator()<128>();
  return body.template operator()<256>();
}

/// Lets a kernel have more than 48 KiB of shared memory.
inline void allow_shared(const void* kernel, std::size_t bytes) {
  if (bytes > 48 * 1024)
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(bytes)),
               "cudaFuncSetAttribute");
}

}  // namespace kernels
}}  // namespace plumb::v0_1
