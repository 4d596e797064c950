// Causal self-attention over packed sequences, bitwise as on the CPU: formula and order are those
// of cpu/attention.hpp. FlashAttention's loop (Dao et al. 2022), a block of threads for each 64
// queries of a head (as in Dao 2023), over 32 keys at a time; memory is linear in the length. The
// sequences' lengths lie on the device and the host does not read them: grids cover what there
// could be, and blocks with nothing to do end at once. No atomics, no memory but the pool's. Here:
// the forward pass; attention_backward.cuh and attention_cache.cuh, which this includes, are the
// rest. What this is not: a product on tensor cores, whose sums have other orders.
#pragma once

#include <plumb/cuda/attention_backward.cuh>
#include <plumb/cuda/attention_cache.cuh>
#include <plumb/cuda/attention_tile.cuh>
#include <plumb/math/attention.hpp>

#include <cassert>

namespace plumb { inline namespace v0_1 {
namespace kernels {

namespace gpu {

struct AttentionForward {
  float *out, *lse;
  const float *q, *k, *v;
  const std::int32_t *offsets, *key_offsets;
  Index sequences;
  int heads, kv_heads, size;
  float scale;
  bool aligned;
};

/// Shared memory of attention_forward_kernel: queries; weights; the stream's slices.
template <int kSize>
struct ForwardTile {
  static constexpr int kRows = kSize <= 128 ? 4 : 2;  ///< a thread's
  static constexpr int kQueries = 16 * kRows;         ///< the block's
  static constexpr int kStride = kSize + kRowPad;
  static constexpr std::size_t kBytes =
      sizeof(float) * (kQueries * (kStride + kWeightStride) + SliceStream<kSize, 2>::kFloats);
};

/// Merges a chunk's state into that of all chunks before it, of which acc is in memory: (m, l)
/// become the merged state's, and the chunk's acc too.
template <int kParts>
__device__ void merge_chunk(float& m, float& l, const float* before_acc, float chunk_m,
                            float chunk_l, float4 (&acc)[kParts], int left) {
  const float most = chunk_m > m ? chunk_m : m;
  const float before = exp(m - most);
  const float after = exp(chunk_m - most);
  m = most;
  l = fma(chunk_l, after, l * before);
  each_element(acc, left, [&](int d, float& x) { x = fma(x, after, before_acc[d] * before); });
}

/// Rows' softmax over the keys of a chunk: cpu/attention.inl.hpp's AttentionState, a thread's part.
template <int kRows, int kParts>
struct RowState {
  float m[kRows], l[kRows];
  float4 acc[kRows][kParts];
  float total_m[kRows], total_l[kRows];  ///< of the chunks before, whose acc is in `out`

  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      m[i] = -__builtin_inff();
      l[i] = 0.0F;
#pragma unroll
      for (int c = 0; c < kParts; ++c) acc[i][c] = {0.0F, 0.0F, 0.0F, 0.0F};
    }
  }

  /// One block's dots become weights, which the gathering then takes from shared memory; keys from
  /// counts[i] on are masked. Which of two zeros is the largest, or of NaNs, no result can tell.
  __device__ void weigh(float* weights, float (&s)[kRows][4], const int (&counts)[kRows],
                        float scale, int place) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
#pragma unroll
      for (int k = 0; k < 4; ++k)
        s[i][k] = place + 8 * k < counts[i] ? s[i][k] * scale : -__builtin_inff();
      float most = max(max(s[i][0], s[i][2]), max(s[i][1], s[i][3]));
#pragma unroll
      for (int apart = 4; apart > 0; apart /= 2)
        most = max(most, __shfl_xor_sync(kAllLanes, most, apart));
      const float before = m[i];
      m[i] = most > before ? most : before;
      const float change = exp(before - m[i]);
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        s[i][k] = place + 8 * k < counts[i] ? exp(s[i][k] - m[i]) : 0.0F;
        weights[i * 4 * kWeightStride + 8 * k] = s[i][k];
      }
      float sum = (s[i][0] + s[i][2]) + (s[i][1] + s[i][3]);
#pragma unroll
      for (int apart = 4; apart > 0; apart /= 2) sum = sum + __shfl_xor_sync(kAllLanes, sum, apart);
      l[i] = l[i] * change + sum;
#pragma unroll
      for (int c = 0; c < kParts; ++c) acc[i][c] = scale4(acc[i][c], change);
    }
  }

  /// Merges the chunk, or the first takes its place; writes acc, and at the end acc / l, to rows of
  /// `out`. Row after row, or the compiler would read all of them first, into registers that it has
  /// not.
  template <bool kLast>
  __device__ void end_chunk(float* out, Index width, int left, const QueryPlace<kRows>& at,
                            bool first) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      if (!at.has(i)) continue;
      float* row = out + 4 * i * width;
      if (first) {
        total_m[i] = m[i];
        total_l[i] = l[i];
      } else {
        merge_chunk(total_m[i], total_l[i], row, m[i], l[i], acc[i], left);
      }
      const float sum = total_l[i];
      each_element(acc[i], left, [&](int d, float x) { row[d] = kLast ? x / sum : x; });
    }
  }
};

/// A block: kQueries queries of one head, which is blockIdx.y, and the keys up to each. FLOPs 4 · D
/// for each pair of a query and a key up to it; bytes from memory: q and out once; k and v once for
/// kQueries queries, mostly from the L2 cache: 64 queries make 2 · 64 · D · 2 FLOPs of 8 · D bytes,
/// 32 FLOP/B. Bound by FMA units and the issue of shared loads: in both products 4 rows × 4 keys
/// (or elements) per 8 loads of 16 bytes.
template <int kSize>
__global__ void __launch_bounds__(kAttentionThreads, kSize <= 64 ? 3 : 2)
    attention_forward_kernel(AttentionForward t) {
  using Tile = ForwardTile<kSize>;
  // Late positions have the most keys: they begin first.
  const SequenceTile tile = find_tile<Tile::kQueries, false>(
      t.offsets, t.key_offsets, t.sequences, static_cast<Index>(gridDim.x) - 1 - blockIdx.x);
  if (!tile.exists()) return;

  const QueryPlace<Tile::kRows> at(tile);
  const int head = static_cast<int>(blockIdx.y);
  const Index width = static_cast<Index>(t.heads) * t.size;
  const Index kv_width = static_cast<Index>(t.kv_heads) * t.size;
  const Index kv_at = tile.begin * kv_width + head / (t.heads / t.kv_heads) * t.size;
  const Index first_row = tile.query_row(tile.first);
  const int blocks = at.blocks();
  float* queries = dynamic_shared<float>();
  float* weights = queries + Tile::kQueries * Tile::kStride;
  SliceStream<kSize, 2> stream{weights + Tile::kQueries * kWeightStride,
                               t.k + kv_at,
                               t.v + kv_at,
                               kv_width,
                               tile.length,
                               blocks,
                               t.size,
                               t.aligned};
  stage_rows<kAttentionThreads, Tile::kQueries, kSize>(
      queries, t.q + first_row * width + head * t.size, width, at.here, t.size, t.aligned);
  stream.stage(0);
  queries += at.row * Tile::kStride;
  weights += at.row * kWeightStride;
  float* out = t.out + (first_row + at.row) * width + head * t.size + 4 * at.place;
  RowState<Tile::kRows, kSize / 32> state;
  state.clear();
  for (int block = 0; block < blocks; ++block) {
    if (block > 0 && block % kChunkBlocks == 0) {
      state.template end_chunk<false>(out, width, t.size - 4 * at.place, at, block == kChunkBlocks);
      state.clear();
    }
    float s[Tile::kRows][4] = {};
    int counts[Tile::kRows];
    at.count(counts, block);
    stream_dots<Tile::kStride>(s, stream, queries, at, at.any(block));
    // Where no key of the block comes before a row, this changes nothing of it.
    state.weigh(weights + at.place, s, counts, t.scale, at.place);
    __syncwarp();
    stream_gather(state.acc, stream, weights, at, counts, block);
  }
  state.template end_chunk<true>(out, width, t.size - 4 * at.place, at, blocks <= kChunkBlocks);
#pragma unroll
  for (int i = 0; i < Tile::kRows; ++i)
    if (at.place == 0 && at.has(i))
      t.lse[(first_row + at.row + 4 * i) * t.heads + head] =
          state.total_m[i] + log(state.total_l[i]);
}

}  // namespace gpu

/// out (N, H·D), lse (N, H) from q (N, H·D), k, v (K, Hkv·D); sequence b holds the rows offsets[b]
/// to offsets[b + 1], `rows` = N in all, and sees the keys key_offsets[b] to key_offsets[b + 1],
/// its own the last. Both offsets lie on the device.
inline void attention_forward(Cuda device, float* out, float* lse, const float* q, const float* k,
                              const float* v, const std::int32_t* offsets,
                              const std::int32_t* key_offsets, Index sequences, Index rows,
                              Index /*keys*/, AttentionShape shape) {
  const Index size = shape.head_size;
  assert(size >= 1 && size <= kMaxHeadSize && shape.heads % shape.kv_heads == 0);
  if (rows == 0) return;
  const gpu::AttentionForward call{out,
                                   lse,
                                   q,
                                   k,
                                   v,
                                   offsets,
                                   key_offsets,
                                   sequences,
                                   static_cast<int>(shape.heads),
                                   static_cast<int>(shape.kv_heads),
                                   static_cast<int>(size),
                                   shape.scale,
                                   attention_aligned(size, q, k, v)};
  with_head_class(size, [&]<int kSize>() {
    using Tile = gpu::ForwardTile<kSize>;
    const dim3 grid(static_cast<unsigned>(rows / Tile::kQueries + sequences),
                    static_cast<unsigned>(shape.heads));
    allow_shared(reinterpret_cast<const void*>(&gpu::attention_forward_kernel<kSize>),
                 Tile::kBytes);
    PLUMB_LAUNCH((gpu::attention_forward_kernel<kSize>), grid, gpu::kAttentionThreads, Tile::kBytes,
                 device.stream, call);
  });
}

}  // namespace kernels
}}  // namespace plumb::v0_1
