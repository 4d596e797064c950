// Rows: gathering and scattering rows of a table, sums over tokens, rotary positions. The CPU's
// bits. Bound by memory: one or two FLOPs per 4-byte element, 0.1 to 0.2 FLOP/B.
//
// Orders. sum_rows: chunks of 256 tokens, one chain from +0 a chunk (a thread a column), then the
// chunks in order. embedding_backward: token order within each row of the table, without atomics:
// (id, token) pairs are sorted, which makes each row's tokens neighbours in order; then one warp
// sums each run. The sort is bitonic (Batcher 1968), n log² n comparisons: keys differ, so that any
// sort gives the one order.
#pragma once

#include <plumb/cuda/device.cuh>
#include <plumb/cuda/lanes.cuh>
#include <plumb/math/rows.hpp>

namespace plumb { inline namespace v0_1 {
namespace kernels {

namespace gpu {

inline constexpr int kRowThreads = 256;  // 8 rows a block, a warp a row
inline constexpr int kColumnThreads = 64;

template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    embedding_kernel(float* y, const float* table, const std::int32_t* ids, Index n, Index c) {
  const Index row = warp_row<kThreads>();
  if (row >= n) return;
  const float* from = table + static_cast<Index>(ids[row]) * c;
  for (Index i = lane(); i < c; i += kWarp) y[row * c + i] = from[i];
}

/// sums[chunk][column] = the chain of one chunk's terms: term(token, column, sum).
template <int kThreads, class Term>
__global__ void __launch_bounds__(kThreads)
    chunk_sums_kernel(float* sums, Term term, Index n, Index c) {
  const Index column = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  const Index first = static_cast<Index>(blockIdx.y) * kTokenChunk;
  if (column >= c) return;
  const Index end = first + kTokenChunk < n ? first + kTokenChunk : n;
  float sum = 0.0F;
#pragma unroll 8
  for (Index token = first; token < end; ++token) sum = term(token, column, sum);
  sums[static_cast<Index>(blockIdx.y) * c + column] = sum;
}

template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    add_chunks_kernel(float* total, const float* sums, Index chunks, Index c) {
  const Index column = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (column >= c) return;
  float sum = total[column];
  for (Index chunk = 0; chunk < chunks; ++chunk) sum = sum + sums[chunk * c + column];
  total[column] = sum;
}

/// total (c) += Σ_tokens term, in canonical order.
template <class Term>
void sum_over_tokens(Cuda device, float* total, const Term& term, Index n, Index c) {
  if (n == 0 || c == 0) return;
  const Index chunks = (n + kTokenChunk - 1) / kTokenChunk;
  const DeviceScratch<float> sums(device, chunks * c);
  const unsigned blocks = blocks_for(c, kColumnThreads);
  PLUMB_LAUNCH((chunk_sums_kernel<kColumnThreads, Term>),
               dim3(blocks, static_cast<unsigned>(chunks)), kColumnThreads, 0, device.stream,
               sums.data(), term, n, c);
  PLUMB_LAUNCH((add_chunks_kernel<kColumnThreads>), blocks, kColumnThreads, 0, device.stream, total,
               sums.data(), chunks, c);
}

struct RowTerm {
  const float* x;
  Index c;
  __device__ float operator()(Index token, Index column, float sum) const {
    return sum + x[token * c + column];
  }
};

using SortKey = unsigned long long;
inline constexpr int kSortTile = 1024;  // keys that a block sorts in shared memory, two a thread

template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    sort_keys_kernel(SortKey* keys, const std::int32_t* ids, Index n, Index padded) {
  const Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= padded) return;
  keys[i] = i < n ? static_cast<SortKey>(static_cast<std::uint32_t>(ids[i])) << 32 |
                        static_cast<SortKey>(i)
                  : ~SortKey{0};
}

/// Puts a and b in the order of the bitonic sequence of length `run` that holds index i.
__device__ inline void order_pair(SortKey& a, SortKey& b, Index i, Index run) {
  const bool up = (i & run) == 0;
  if ((a > b) == up) {
    const SortKey swapped = a;
    a = b;
    b = swapped;
  }
}

/// Merge steps of one tile: `apart` = first_apart, …, 1 for each run from first_run to last_run,
/// the later runs from half of themselves.
template <int kTile>
__global__ void __launch_bounds__(kTile / 2)
    sort_tile_kernel(SortKey* keys, Index first_run, Index last_run, Index first_apart) {
  __shared__ SortKey tile[kTile];
  const Index base = static_cast<Index>(blockIdx.x) * kTile;
  const int t = static_cast<int>(threadIdx.x);
  tile[t] = keys[base + t];
  tile[t + kTile / 2] = keys[base + t + kTile / 2];
  __syncthreads();
  for (Index run = first_run; run <= last_run; run *= 2)
    for (Index apart = run == first_run ? first_apart : run / 2; apart > 0; apart /= 2) {
      const int low = static_cast<int>(2 * t - (t & (apart - 1)));
      order_pair(tile[low], tile[low + apart], base + low, run);
      __syncthreads();
    }
  keys[base + t] = tile[t];
  keys[base + t + kTile / 2] = tile[t + kTile / 2];
}

/// One merge step whose pairs are farther apart than a tile.
template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    sort_step_kernel(SortKey* keys, Index pairs, Index run, Index apart) {
  const Index t = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (t >= pairs) return;
  const Index low = 2 * t - (t & (apart - 1));
  order_pair(keys[low], keys[low + apart], low, run);
}

/// Sorts `padded` keys, a power of two of at least kSortTile.
inline void sort_keys(Cuda device, SortKey* keys, Index padded) {
  const unsigned tiles = static_cast<unsigned>(padded / kSortTile);
  PLUMB_LAUNCH((sort_tile_kernel<kSortTile>), tiles, kSortTile / 2, 0, device.stream, keys,
               Index{2}, Index{kSortTile}, Index{1});
  for (Index run = 2 * kSortTile; run <= padded; run *= 2) {
    for (Index apart = run / 2; apart >= kSortTile; apart /= 2)
      PLUMB_LAUNCH((sort_step_kernel<kRowThreads>), blocks_for(padded / 2, kRowThreads),
                   kRowThreads, 0, device.stream, keys, padded / 2, run, apart);
    PLUMB_LAUNCH((sort_tile_kernel<kSortTile>), tiles, kSortTile / 2, 0, device.stream, keys, run,
                 run, Index{kSortTile / 2});
  }
}

/// The warp at the first of a run of equal ids adds the run's rows of dy, four columns a lane.
template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    scatter_add_kernel(float* dtable, const float* dy, const SortKey* keys, Index n, Index c) {
  constexpr int kColumns = 4;
  const Index first = warp_row<kThreads>();
  if (first >= n) return;
  const SortKey id = keys[first] >> 32;
  if (first > 0 && keys[first - 1] >> 32 == id) return;
  const Index column = static_cast<Index>(blockIdx.y) * (kColumns * kWarp) + lane();
  float* row = dtable + static_cast<Index>(id) * c;
  float sum[kColumns];
#pragma unroll
  for (int j = 0; j < kColumns; ++j)
    sum[j] = column + j * kWarp < c ? row[column + j * kWarp] : 0.0F;
  for (Index i = first; i < n && keys[i] >> 32 == id; ++i) {
    const float* from = dy + static_cast<Index>(keys[i] & 0xffffffffU) * c;
#pragma unroll
    for (int j = 0; j < kColumns; ++j)
      if (column + j * kWarp < c) sum[j] = sum[j] + from[column + j * kWarp];
  }
#pragma unroll
  for (int j = 0; j < kColumns; ++j)
    if (column + j * kWarp < c) row[column + j * kWarp] = sum[j];
}

/// A warp turns one head of one token.
template <int kThreads, bool kBackward>
__global__ void __launch_bounds__(kThreads)
    rope_kernel(float* out, const float* in, const float* cosine, const float* sine,
                const std::int32_t* positions, Index n, Index heads, Index half) {
  const Index row = warp_row<kThreads>();
  if (row >= n * heads) return;
  const Index angle = static_cast<Index>(positions[row / heads]) * half;
  for (Index i = lane(); i < half; i += kWarp) {
    const Index at = row * 2 * half + 2 * i;
    const float c = cosine[angle + i], s = sine[angle + i];
    const float a = in[at], b = in[at + 1];
    if (kBackward) {
      out[at] = out[at] + fma(b, s, a * c);
      out[at + 1] = out[at + 1] + fma(0.0F - a, s, b * c);
    } else {
      out[at] = fma(0.0F - b, s, a * c);
      out[at + 1] = fma(a, s, b * c);
    }
  }
}

template <bool kBackward>
void rope(Cuda device, float* out, const float* in, const float* cosine, const float* sine,
          const std::int32_t* positions, Index n, Index heads, Index head_size) {
  if (n > 0)
    PLUMB_LAUNCH((rope_kernel<kRowThreads, kBackward>), blocks_for(n * heads, kRowThreads / kWarp),
                 kRowThreads, 0, device.stream, out, in, cosine, sine, positions, n, heads,
                 head_size / 2);
}

}  // namespace gpu

/// y = rows of a table: y (N, C), table (V, C), ids (N) in [0, V). Also gathers rows of
/// activations.
inline void embedding_forward(Cuda device, float* y, const float* table, const std::int32_t* ids,
                              Index n, Index c) {
  if (n > 0 && c > 0)
    PLUMB_LAUNCH((gpu::embedding_kernel<gpu::kRowThreads>), blocks_for(n, gpu::kRowThreads / kWarp),
                 gpu::kRowThreads, 0, device.stream, y, table, ids, n, c);
}

/// dtable += dy at the rows ids, in token order: dtable (V, C), dy (N, C), ids (N) in [0, V). Also
/// scatters and adds rows of activations. N is at most 2^32.
inline void embedding_backward(Cuda device, float* dtable, const float* dy, const std::int32_t* ids,
                               Index n, Index c, Index) {
  if (n == 0 || c == 0) return;
  Index padded = gpu::kSortTile;
  while (padded < n) padded *= 2;
  const DeviceScratch<gpu::SortKey> keys(device, padded);
  PLUMB_LAUNCH((gpu::sort_keys_kernel<gpu::kRowThreads>), blocks_for(padded, gpu::kRowThreads),
               gpu::kRowThreads, 0, device.stream, keys.data(), ids, n, padded);
  gpu::sort_keys(device, keys.data(), padded);
  PLUMB_LAUNCH((gpu::scatter_add_kernel<gpu::kRowThreads>),
               dim3(blocks_for(n, gpu::kRowThreads / kWarp), blocks_for(c, 4 * kWarp)),
               gpu::kRowThreads, 0, device.stream, dtable, dy, keys.data(), n, c);
}

/// total += sums of the rows of x: total (C), x (N, C). The gradient of a bias.
inline void sum_rows(Cuda device, float* total, const float* x, Index n, Index c) {
  gpu::sum_over_tokens(device, total, gpu::RowTerm{x, c}, n, c);
}

/// y = x with each pair of channels of each head turned by the angle of its token's position:
/// (y0, y1) = (x0 cos - x1 sin, x1 cos + x0 sin). x, y (N, heads · head_size), cosine and sine
/// (T, head_size / 2), positions (N) in [0, T); head_size is even; y may be x.
inline void rope_forward(Cuda device, float* y, const float* x, const float* cosine,
                         const float* sine, const std::int32_t* positions, Index n, Index heads,
                         Index head_size) {
  gpu::rope<false>(device, y, x, cosine, sine, positions, n, heads, head_size);
}

/// dx += dy turned back; sizes as in rope_forward.
inline void rope_backward(Cuda device, float* dx, const float* dy, const float* cosine,
                          const float* sine, const std::int32_t* positions, Index n, Index heads,
                          Index head_size) {
  gpu::rope<true>(device, dx, dy, cosine, sine, positions, n, heads, head_size);
}

}  // namespace kernels
}}  // namespace plumb::v0_1
