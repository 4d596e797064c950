// AdamW on one flat buffer and the sum of squares that gradient clipping needs; formulas, orders
// and bits of cpu/optimizer.hpp. Cost: 16 bytes read and 12 written per parameter, 12 FLOPs: 0.4
// FLOP/B, bound by memory. What this is not: a launch per tensor; a model's parameters are one
// array.
#pragma once

#include <plumb/cuda/elementwise.cuh>
#include <plumb/math/adamw.hpp>

namespace plumb { inline namespace v0_1 {
namespace kernels {

namespace gpu {

inline constexpr Index kSquaresBlock = 4096;  // elements per row reduction
inline constexpr int kSquaresThreads = 128;

/// parameter, m, v; gradient.
struct AdamWUpdate {
  AdamWScalars scalars;
  __device__ void operator()(const float (&x)[4], float (&y)[3]) const {
    const AdamWElement next = adamw_element({x[0], x[1], x[2]}, x[3], scalars);
    y[0] = next.parameter;
    y[1] = next.m;
    y[2] = next.v;
  }
};

/// parameter, m; gradient.
struct SgdUpdate {
  SgdStep step;
  __device__ void operator()(const float (&x)[3], float (&y)[2]) const {
    const MomentumElement next = sgd_element({x[0], x[1]}, x[2], step);
    y[0] = next.parameter;
    y[1] = next.m;
  }
};
struct LionUpdate {
  LionStep step;
  __device__ void operator()(const float (&x)[3], float (&y)[2]) const {
    const MomentumElement next = lion_element({x[0], x[1]}, x[2], step);
    y[0] = next.parameter;
    y[1] = next.m;
  }
};

/// sums[b] = Σ x² of block b, a warp a block.
template <int kThreads>
__global__ void __launch_bounds__(kThreads) squares_kernel(float* sums, const float* x, Index n) {
  const Index block = warp_row<kThreads>();
  const Index first = block * kSquaresBlock;
  if (first >= n) return;
  const float* from = x + first;
  const Index count = n - first < kSquaresBlock ? n - first : kSquaresBlock;
  float total = 0.0F;
#pragma unroll 8
  for (Index i = lane(); i < count; i += kWarp) total = fma(from[i], from[i], total);
  total = warp_sum(total);
  if (lane() == 0) sums[block] = total;
}

/// The blocks' sums in order, in double.
template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    squares_total_kernel(double* total, const float* sums, Index blocks) {
  double all = 0;
#pragma unroll 32  // so many loads at once: one by one they take longer than the additions
  for (Index block = 0; block < blocks; ++block) all += static_cast<double>(sums[block]);
  *total = all;
}

}  // namespace gpu

/// One step of AdamW on n parameters: `m` and `v` are the moments, zero before step 1.
inline void adamw_update(Cuda device, float* parameter, const float* grad, float* m, float* v,
                         Index n, const AdamWStep& step) {
  gpu::pointwise<4, 3>(device, gpu::AdamWUpdate{adamw_scalars(step)}, {parameter, m, v, grad},
                       {parameter, m, v}, n);
}

/// One step of gradient descent or of Lion on n parameters: m is the momentum, zero before step 1.
inline void sgd_update(Cuda device, float* parameter, const float* grad, float* m, Index n,
                       const SgdStep& step) {
  gpu::pointwise<3, 2>(device, gpu::SgdUpdate{step}, {parameter, m, grad}, {parameter, m}, n);
}
inline void lion_update(Cuda device, float* parameter, const float* grad, float* m, Index n,
                        const LionStep& step) {
  gpu::pointwise<3, 2>(device, gpu::LionUpdate{step}, {parameter, m, grad}, {parameter, m}, n);
}

/// *total, on the device, = Σ x²: blocks of 4096 elements by the 32-lane row reduction in float,
/// their sums in order in double, by one thread: 30,000 additions for a model of 124 million.
inline void sum_of_squares(Cuda device, double* total, const float* x, Index n) {
  const Index blocks = (n + gpu::kSquaresBlock - 1) / gpu::kSquaresBlock;
  const DeviceScratch<float> sums(device, blocks);
  if (blocks > 0)
    PLUMB_LAUNCH((gpu::squares_kernel<gpu::kSquaresThreads>),
                 blocks_for(blocks, gpu::kSquaresThreads / kWarp), gpu::kSquaresThreads, 0,
                 device.stream, sums.data(), x, n);
  PLUMB_LAUNCH((gpu::squares_total_kernel<1>), 1, 1, 0, device.stream, total, sums.data(), blocks);
}
/// The same on the host: this waits.
inline double sum_of_squares(Cuda device, const float* x, Index n) {
  const DeviceScratch<double> total(device, 1);
  sum_of_squares(device, total.data(), x, n);
  double on_host = 0;
  copy_to_host(device, &on_host, total.data(), sizeof on_host);
  return on_host;
}

}  // namespace kernels
}}  // namespace plumb::v0_1
