// Sums, maxima and softmax of rows; logsumexp and sums of groups of rows; transposition, and one
// element a row; formulas, orders and bits of cpu/reduce.hpp. A warp a row, a thread a column of a
// group; a block for the arg-max of a long row, which has no order. Cost: one or two FLOPs per
// 4-byte element, or an exponential (20 FLOPs): bound by memory, but for groups of many rows and
// few columns, whose chains wait for themselves.
#pragma once

#include <plumb/cuda/elementwise.cuh>

namespace plumb { inline namespace v0_1 {
namespace kernels {

namespace gpu {

inline constexpr int kReduceThreads = 256;  // 8 rows a block, a warp a row
inline constexpr Index kWarpColumns = 1024;  // longer rows have a block for their arg-max
inline constexpr int kTransposeTile = 32;

template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    row_sums_kernel(float* y, const float* x, Index n, Index c, bool accumulate) {
  const Index row = warp_row<kThreads>();
  if (row >= n) return;
  const float* from = x + row * c;
  const float sum = row_sum(c, [&](Index i, float total) { return total + from[i]; });
  if (lane() == 0) y[row] = (accumulate ? y[row] : 0.0F) + sum;
}

/// A row's maximum so far and where it stands first; a NaN is more than any number.
struct Most {
  float value;
  std::int32_t at;
};
/// Of two of different places.
__device__ inline Most greater(Most a, Most b) {
  const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
  const bool alike = a_nan == b_nan && (a_nan || a.value == b.value);
  const bool take_b = alike ? b.at < a.at : b_nan || (!a_nan && a.value < b.value);
  return take_b ? b : a;
}

/// The first place of a row's maximum, or of a NaN. A row is read once, by a warp or, if kWhole, by
/// the block.
template <int kThreads, bool kWhole>
__global__ void __launch_bounds__(kThreads)
    argmax_kernel(std::int32_t* ids, const float* x, Index n, Index c) {
  constexpr int kStride = kWhole ? kThreads : kWarp;
  const Index row = kWhole ? static_cast<Index>(blockIdx.x) : warp_row<kThreads>();
  if (row >= n) return;  // the whole block, if kWhole
  const float* from = x + row * c;
  const int t = static_cast<int>(threadIdx.x);
  Most most{-INFINITY, 0x7fffffff};
#pragma unroll 8
  for (Index i = t % kStride; i < c; i += kStride)
    most = greater(most, {from[i], static_cast<std::int32_t>(i)});
#pragma unroll
  for (int apart = kWarp / 2; apart > 0; apart /= 2)
    most = greater(most, {__shfl_xor_sync(kAllLanes, most.value, apart),
                          __shfl_xor_sync(kAllLanes, most.at, apart)});
  if constexpr (kWhole) {
    __shared__ float values[kThreads / kWarp];
    __shared__ std::int32_t places[kThreads / kWarp];
    if (lane() == 0) values[t / kWarp] = most.value, places[t / kWarp] = most.at;
    __syncthreads();
    for (int w = 0; w < kThreads / kWarp; ++w) most = greater(most, {values[w], places[w]});
  }
  if (t % kStride == 0) ids[row] = most.at;
}

template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    softmax_kernel(float* y, const float* x, Index n, Index c, bool of_log) {
  const Index row = warp_row<kThreads>();
  if (row >= n) return;
  const float* from = x + row * c;
  float* to = y + row * c;
  float most = -INFINITY;
  for (Index i = lane(); i < c; i += kWarp) most = max(most, from[i]);
  const float top = warp_max(most);
  const float all = row_sum(c, [&](Index i, float total) { return total + exp(from[i] - top); });
  const float lse = top + log(all);
  for (Index i = lane(); i < c; i += kWarp)
    to[i] = of_log ? from[i] - lse : exp(from[i] - top) / all;
}

template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    softmax_backward_kernel(float* dx, const float* dy, const float* y, Index n, Index c,
                            bool of_log) {
  const Index row = warp_row<kThreads>();
  if (row >= n) return;
  dx += row * c;
  dy += row * c;
  y += row * c;
  const float all = row_sum(
      c, [&](Index i, float total) { return of_log ? total + dy[i] : fma(dy[i], y[i], total); });
  for (Index i = lane(); i < c; i += kWarp)
    dx[i] = of_log ? dx[i] + fma(0.0F - exp(y[i]), all, dy[i]) : fma(y[i], dy[i] - all, dx[i]);
}

struct Pick {
  float* y;
  const float* x;
  const std::int32_t* ids;
  Index c;
  __device__ void operator()(Index i) const { y[i] = x[i * c + ids[i]]; }
};
struct PickBackward {
  float* dx;
  const float* dy;
  const std::int32_t* ids;
  Index c;
  __device__ void operator()(Index i) const { dx[i * c + ids[i]] = dx[i * c + ids[i]] + dy[i]; }
};

/// A block a tile of 32 × 32 through shared memory, so that both sides are walked forwards.
template <int kTile>
__global__ void __launch_bounds__(kTile * 8)
    transpose_kernel(float* y, const float* x, Index n, Index c) {
  __shared__ float tile[kTile][kTile + 1];
  const Index matrix = static_cast<Index>(blockIdx.z) * n * c;
  const Index column = static_cast<Index>(blockIdx.x) * kTile;
  const Index row = static_cast<Index>(blockIdx.y) * kTile;
  const int tx = static_cast<int>(threadIdx.x) % kTile, ty = static_cast<int>(threadIdx.x) / kTile;
  for (int i = ty; i < kTile; i += 8)
    if (row + i < n && column + tx < c) tile[i][tx] = x[matrix + (row + i) * c + column + tx];
  __syncthreads();
  for (int i = ty; i < kTile; i += 8)
    if (column + i < c && row + tx < n) y[matrix + (column + i) * n + row + tx] = tile[tx][i];
}

struct GroupSums {
  float* y;
  const float* x;
  const std::int32_t* offsets;
  Index c;
  __device__ void operator()(Index i) const {
    const Index g = i / c, column = i - g * c;
    float sum = 0.0F;
    for (Index row = offsets[g]; row < offsets[g + 1]; ++row) sum = sum + x[row * c + column];
    y[i] = sum;
  }
};
struct GroupSumsBackward {
  float* dx;
  const float* dy;
  const std::int32_t* offsets;
  Index c;
  __device__ void operator()(Index i) const {
    const Index g = i / c, column = i - g * c;
    for (Index row = offsets[g]; row < offsets[g + 1]; ++row)
      dx[row * c + column] = dx[row * c + column] + dy[i];
  }
};
struct GroupLogsumexp {
  float* y;
  const float* x;
  const std::int32_t* offsets;
  Index c;
  __device__ void operator()(Index i) const {
    const Index g = i / c, column = i - g * c, first = offsets[g], end = offsets[g + 1];
    float most = -3.40282347e38F, total = 0.0F;
    for (Index row = first; row < end; ++row) most = max(most, x[row * c + column]);
    for (Index row = first; row < end; ++row) total = total + exp(x[row * c + column] - most);
    y[i] = most + log(total);
  }
};
struct GroupLogsumexpBackward {
  float* dx;
  const float *dy, *x, *y;
  const std::int32_t* offsets;
  Index c;
  __device__ void operator()(Index i) const {
    const Index g = i / c, column = i - g * c;
    const float lse = not_below(-3.40282347e38F, y[i]);
    for (Index row = offsets[g]; row < offsets[g + 1]; ++row) {
      const Index at = row * c + column;
      dx[at] = fma(dy[i], exp(x[at] - lse), dx[at]);
    }
  }
};

}  // namespace gpu

/// y (N) = or += the sum of each row of x (N, C).
inline void row_sums(Cuda device, float* y, const float* x, Index n, Index c, bool accumulate) {
  if (n > 0)
    PLUMB_LAUNCH((gpu::row_sums_kernel<gpu::kReduceThreads>),
                 blocks_for(n, gpu::kReduceThreads / kWarp), gpu::kReduceThreads, 0, device.stream,
                 y, x, n, c, accumulate);
}

/// Where the largest of each row of x (N, C) is, the first of equals; the first NaN, if any. C > 0.
inline void argmax_rows(Cuda device, std::int32_t* ids, const float* x, Index n, Index c) {
  if (n == 0) return;
  if (c > gpu::kWarpColumns)
    PLUMB_LAUNCH((gpu::argmax_kernel<gpu::kReduceThreads, true>), static_cast<unsigned>(n),
                 gpu::kReduceThreads, 0, device.stream, ids, x, n, c);
  else
    PLUMB_LAUNCH((gpu::argmax_kernel<gpu::kReduceThreads, false>),
                 blocks_for(n, gpu::kReduceThreads / kWarp), gpu::kReduceThreads, 0, device.stream,
                 ids, x, n, c);
}

/// y = softmax of each row of x (N, C), or its logarithm.
inline void softmax_rows(Cuda device, float* y, const float* x, Index n, Index c, bool log) {
  if (n > 0)
    PLUMB_LAUNCH((gpu::softmax_kernel<gpu::kReduceThreads>),
                 blocks_for(n, gpu::kReduceThreads / kWarp), gpu::kReduceThreads, 0, device.stream,
                 y, x, n, c, log);
}
/// dx += the gradient by x, from y, what softmax_rows gave.
inline void softmax_rows_backward(Cuda device, float* dx, const float* dy, const float* y, Index n,
                                  Index c, bool log) {
  if (n > 0)
    PLUMB_LAUNCH((gpu::softmax_backward_kernel<gpu::kReduceThreads>),
                 blocks_for(n, gpu::kReduceThreads / kWarp), gpu::kReduceThreads, 0, device.stream,
                 dx, dy, y, n, c, log);
}

/// y[i] = x[i, ids[i]], x (N, C), ids (N) in [0, C); dx[i, ids[i]] += dy[i].
inline void pick_forward(Cuda device, float* y, const float* x, const std::int32_t* ids, Index n,
                         Index c) {
  gpu::map(device, gpu::Pick{y, x, ids, c}, n);
}
inline void pick_backward(Cuda device, float* dx, const float* dy, const std::int32_t* ids, Index n,
                          Index c) {
  gpu::map(device, gpu::PickBackward{dx, dy, ids, c}, n);
}

/// y (batch, C, N) = each x (N, C) of x (batch, N, C), transposed. At most 65535 of them.
inline void transpose(Cuda device, float* y, const float* x, Index batch, Index n, Index c) {
  if (batch * n * c > 0)
    PLUMB_LAUNCH((gpu::transpose_kernel<gpu::kTransposeTile>),
                 dim3(blocks_for(c, gpu::kTransposeTile), blocks_for(n, gpu::kTransposeTile),
                      static_cast<unsigned>(batch)),
                 gpu::kTransposeTile * 8, 0, device.stream, y, x, n, c);
}

/// y (G, C) = the sum of each group of rows of x (N, C); group g is rows [offsets[g],
/// offsets[g + 1]).
inline void group_sums(Cuda device, float* y, const float* x, const std::int32_t* offsets,
                       Index groups, Index c) {
  gpu::map(device, gpu::GroupSums{y, x, offsets, c}, groups * c);
}
/// dx += dy of each row's group.
inline void group_sums_backward(Cuda device, float* dx, const float* dy,
                                const std::int32_t* offsets, Index groups, Index c) {
  gpu::map(device, gpu::GroupSumsBackward{dx, dy, offsets, c}, groups * c);
}
/// y (G, C) = log Σ e^x over each group of rows, in each column; -infinity of none.
inline void group_logsumexp(Cuda device, float* y, const float* x, const std::int32_t* offsets,
                            Index groups, Index c) {
  gpu::map(device, gpu::GroupLogsumexp{y, x, offsets, c}, groups * c);
}
/// dx += dy · e^(x - y) of each row's group.
inline void group_logsumexp_backward(Cuda device, float* dx, const float* dy, const float* x,
                                     const float* y, const std::int32_t* offsets, Index groups,
                                     Index c) {
  gpu::map(device, gpu::GroupLogsumexpBackward{dx, dy, x, y, offsets, c}, groups * c);
}

}  // namespace kernels
}}  // namespace plumb::v0_1
