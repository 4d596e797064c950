// Causal self-attention over packed sequences, bitwise as on the CPU: formula and order are those of
// cpu/attention.hpp. FlashAttention's loop (Dao et al. 2022), a block of threads for each 64 queries of a
// head (as in Dao 2023), over 32 keys at a time; memory is linear in the length. The sequences' lengths lie on
// the device and the host does not read them: grids cover what there could be, and blocks with nothing to do
// end at once. No atomics, no memory but the pool's. Here: the forward pass; attention_backward.cuh and
// attention_cache.cuh, which this includes, are the rest. What this is not: a product on tensor cores, whose
// sums have other orders.
#pragma once

#include <plumb/cuda/attention_backward.cuh>
#include <plumb/cuda/attention_cache.cuh>
#include <plumb/cuda/attention_tile.cuh>

#include <cassert>

namespace plumb::inline v0_1 {
namespace kernels {

namespace gpu {

struct AttentionForward {
  float *out, *lse;
  const float *q, *k, *v;
  const std::int32_t* offsets;
  Index sequences;
  int heads, kv_heads, size;
  float scale;
  bool aligned;
};

/// Shared memory of attention_forward_kernel: queries; two slices of keys or values; weights.
template <int kSize>
struct ForwardTile {
  static constexpr int kRows = kSize <= 128 ? 4 : 2;  ///< a thread's
  static constexpr int kQueries = 16 * kRows;         ///< the block's
  static constexpr int kStride = kSize + kRowPad;
  static constexpr int kSlice = kSliceSize<kSize>;
  static constexpr int kSliceFloats = kBlockKeys * (kSlice + kRowPad);
  static constexpr std::size_t kBytes =
      sizeof(float) * (kQueries * (kStride + kWeightStride) + 2 * kSliceFloats);
};

/// Rows' softmax over the keys of a chunk: cpu/attention.inl.hpp's AttentionState, a thread's part.
template <int kRows, int kParts>
struct RowState {
  float m[kRows], l[kRows];
  float4 acc[kRows][kParts];

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
      for (int apart = 4; apart > 0; apart /= 2)
        sum = sum + __shfl_xor_sync(kAllLanes, sum, apart);
      l[i] = l[i] * change + sum;
#pragma unroll
      for (int c = 0; c < kParts; ++c) acc[i][c] = scale4(acc[i][c], change);
    }
  }
};

/// Merges a chunk's state into that of all chunks before it, of which acc is in memory: (m, l) and `total`
/// become the merged state's, and the chunk's acc too.
template <int kParts>
__device__ void merge_chunk(float& m, float& l, const float* total, float chunk_m, float chunk_l,
                            float4 (&acc)[kParts], int place, int size) {
  const float most = chunk_m > m ? chunk_m : m;
  const float before = exp(m - most);
  const float after = exp(chunk_m - most);
  m = most;
  l = fma(chunk_l, after, l * before);
  each_element(acc, place, size,
               [&](int d, float& x) { x = fma(x, after, total[d] * before); });
}

/// A block: kQueries queries of one head, which is blockIdx.y, and the keys up to each.
/// FLOPs 4 · D for each pair of a query and a key up to it; bytes from memory: q and out once; k and v once
/// for kQueries queries, mostly from the L2 cache: 64 queries make 2 · 64 · D · 2 FLOPs of 8 · D bytes, 32
/// FLOP/B. Bound by FMA units and the issue of shared loads: in both products 4 rows × 4 keys (or elements)
/// per 8 loads of 16 bytes.
template <int kSize>
__global__ void __launch_bounds__(kAttentionThreads) attention_forward_kernel(AttentionForward t) {
  using Tile = ForwardTile<kSize>;
  constexpr int kRows = Tile::kRows;
  constexpr int kStep = Tile::kSlice + kRowPad;
  // Late positions have the most keys: they begin first.
  const SequenceTile tile = find_tile<Tile::kQueries>(
      t.offsets, t.sequences, static_cast<Index>(gridDim.x) - 1 - blockIdx.x);
  if (!tile.exists()) return;

  float* queries = dynamic_shared<float>();
  float* slices = queries + Tile::kQueries * Tile::kStride;
  const int head = static_cast<int>(blockIdx.y);
  const int thread = static_cast<int>(threadIdx.x);
  const int place = lane() % 8;
  const int row = thread / kWarp * 4 * kRows + lane() / 8;  // the thread's first in the tile
  float* weights = slices + 2 * Tile::kSliceFloats + row * kWeightStride;
  const Index width = static_cast<Index>(t.heads) * t.size;
  const Index kv_width = static_cast<Index>(t.kv_heads) * t.size;
  const Index kv_at = tile.begin * kv_width + head / (t.heads / t.kv_heads) * t.size;
  const int rows_here = tile.length - tile.first < Tile::kQueries ? tile.length - tile.first
                                                                  : Tile::kQueries;
  const int blocks = (tile.first + rows_here + kBlockKeys - 1) / kBlockKeys;
  const int parts = (t.size + Tile::kSlice - 1) / Tile::kSlice;

  // Keys' slices, then values', block after block, each copied while the one before it is worked on.
  int step = 0;
  const auto stage = [&](int next) {
    const int block = next / (2 * parts);
    const int part = next % (2 * parts);
    if (block < blocks) {
      const int column = part % parts * Tile::kSlice;
      const int left = tile.length - block * kBlockKeys;
      stage_rows<kAttentionThreads, kBlockKeys, Tile::kSlice>(
          slices + next % 2 * Tile::kSliceFloats,
          (part < parts ? t.k : t.v) + kv_at + block * kBlockKeys * kv_width + column, kv_width,
          left, t.size - column, t.aligned);
    }
    cp_async_commit();
  };
  const auto take = [&]() -> const float* {
    cp_async_wait<0>();
    __syncthreads();
    stage(step + 1);
    return slices + step++ % 2 * Tile::kSliceFloats;
  };

  const Index first_row = tile.begin + tile.first;
  stage_rows<kAttentionThreads, Tile::kQueries, kSize>(
      queries, t.q + first_row * width + head * t.size, width, rows_here, t.size, t.aligned);
  stage(0);
  RowState<kRows, kSize / 32> state;
  state.clear();
  float m[kRows], l[kRows];  // the chunks' before
  float* out = t.out + (first_row + row) * width + head * t.size;
  const auto merge = [&](bool only) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      if (row + 4 * i >= rows_here) continue;
      float* at = out + 4 * i * width;
      if (only) {
        m[i] = state.m[i];
        l[i] = state.l[i];
      } else {
        merge_chunk(m[i], l[i], at, state.m[i], state.l[i], state.acc[i], 4 * place, t.size);
      }
    }
  };

  for (int block = 0; block < blocks; ++block) {
    if (block > 0 && block % kChunkBlocks == 0) {
      merge(block == kChunkBlocks);
#pragma unroll
      for (int i = 0; i < kRows; ++i)
        if (row + 4 * i < rows_here)
          each_element(state.acc[i], 4 * place, t.size,
                       [&](int d, float x) { out[4 * i * width + d] = x; });
      state.clear();
    }
    float s[kRows][4] = {};
    int counts[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i)
      counts[i] = tile.first + row + 4 * i + 1 - block * kBlockKeys;
    // The warp's rows: none, some or all of the keys come before all of them.
    const int warp_first = tile.first + thread / kWarp * 4 * kRows - block * kBlockKeys;
    const bool any = warp_first + 4 * kRows > 0;
    const bool all = warp_first + 1 >= kBlockKeys;
#pragma unroll
    for (int part = 0; part < kSize / Tile::kSlice; ++part) {
      if (part >= parts) break;
      const float* keys = take() + place * kStep;
      const int n = t.size - part * Tile::kSlice;
      if (any)
        tile_dots<kRows, 4, 4 * Tile::kStride, 8 * kStep>(
            s, queries + row * Tile::kStride + part * Tile::kSlice, keys,
            n < Tile::kSlice ? n : Tile::kSlice);
    }
    if (any) {
      state.weigh(weights + place, s, counts, t.scale, place);
      __syncwarp();
    }
#pragma unroll
    for (int part = 0; part < kSize / Tile::kSlice; ++part) {
      if (part >= parts) break;
      const float* values = take() + 4 * place;
      constexpr int kParts = Tile::kSlice / 32;
      if (any && all)
        tile_gather<false, kParts, kStep>(state.acc, part * kParts, weights, values, counts);
      if (any && !all)
        tile_gather<true, kParts, kStep>(state.acc, part * kParts, weights, values, counts);
    }
  }

  merge(blocks <= kChunkBlocks);
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    if (row + 4 * i >= rows_here) continue;
    each_element(state.acc[i], 4 * place, t.size,
                 [&](int d, float x) { out[4 * i * width + d] = x / l[i]; });
    if (place == 0) t.lse[(first_row + row + 4 * i) * t.heads + head] = m[i] + log(l[i]);
  }
}

}  // namespace gpu

/// out (N, H·D), lse (N, H) from q (N, H·D), k, v (N, Hkv·D); sequence b holds the rows offsets[b] to
/// offsets[b + 1], `rows` = N in all. offsets lie on the device.
inline void attention_forward(Cuda device, float* out, float* lse, const float* q, const float* k,
                              const float* v, const std::int32_t* offsets, Index sequences,
                              Index rows, AttentionShape shape) {
  const Index size = shape.head_size;
  assert(size >= 1 && size <= kMaxHeadSize && shape.heads % shape.kv_heads == 0);
  if (rows == 0) return;
  const gpu::AttentionForward call{out,
                                   lse,
                                   q,
                                   k,
                                   v,
                                   offsets,
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
}  // namespace plumb::inline v0_1
