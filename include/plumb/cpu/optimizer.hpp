// AdamW (Loshchilov and Hutter 2019) on one flat buffer, gradient descent with momentum and Lion
// (Chen et al. 2023; formulas: math/adamw.hpp), and the sum of squares that clipping needs. Cost:
// 16 bytes read and 12 written per parameter, 10 FLOPs with a division and a square root: bound by
// memory. What this is not: no schedule, no clipping decision, no Adam with L2 in the gradient.
//
// Per element, in this order, every fma fused and every division and square root correctly rounded:
//
//   g = grad · grad_scale
//   p = fma(p, -lr·weight_decay, p)               decoupled decay first, as PyTorch
//   m = fma(1-β1, g - m, m)                       as PyTorch's lerp
//   v = fma((1-β2) · g, g, β2 · v)
//   p = fma(-step_size, m / fma(√v, root_scale, eps), p)
//
//   PyTorch (eps_inside false):    step_size = lr / (1-β1^t),            root_scale = 1 / √(1-β2^t)
//   TensorFlow (eps_inside true):  step_size = lr · √(1-β2^t) / (1-β1^t), root_scale = 1
//
// The scalars are computed in double and rounded once.
#pragma once

#include <plumb/core/device.hpp>
#include <plumb/core/memory.hpp>
#include <plumb/core/pool.hpp>
#include <plumb/cpu/isa.hpp>
#include <plumb/math/adamw.hpp>

#include <algorithm>
#include <cassert>

namespace plumb { inline namespace v0_1 { namespace kernels {

struct OptimizerTable {
  void (*adamw)(float* parameter, const float* grad, float* m, float* v, Index n,
                const AdamWScalars& scalars);
  void (*sgd)(float* parameter, const float* grad, float* m, Index n, const SgdStep& step);
  void (*lion)(float* parameter, const float* grad, float* m, Index n, const LionStep& step);
  float (*squares)(const float* x, Index n);
};

/// One step of AdamW on n parameters: `m` and `v` are the moments, zero before step 1.
inline void adamw_update(Cpu device, float* parameter, const float* grad, float* m, float* v,
                         Index n, const AdamWStep& step) {
  assert(step.step >= 1);
  const DefaultFloats floats;
  const AdamWScalars scalars = adamw_scalars(step);
  parallel_for(device, n, 8192, [&](Index i, Index end) {
    dispatch<OptimizerTable>().adamw(parameter + i, grad + i, m + i, v + i, end - i, scalars);
  });
}

/// One step of gradient descent or of Lion on n parameters: m is the momentum, zero before step 1.
inline void sgd_update(Cpu device, float* parameter, const float* grad, float* m, Index n,
                       const SgdStep& step) {
  parallel_for(device, n, 8192, [&](Index i, Index end) {
    dispatch<OptimizerTable>().sgd(parameter + i, grad + i, m + i, end - i, step);
  });
}
inline void lion_update(Cpu device, float* parameter, const float* grad, float* m, Index n,
                        const LionStep& step) {
  parallel_for(device, n, 8192, [&](Index i, Index end) {
    dispatch<OptimizerTable>().lion(parameter + i, grad + i, m + i, end - i, step);
  });
}

/// Σ x²: blocks of 4096 elements by the 32-lane row reduction in float, their sums in order in
/// double.
inline double sum_of_squares(Cpu device, const float* x, Index n) {
  const DefaultFloats floats;
  constexpr Index kBlock = 4096;
  const Index blocks = (n + kBlock - 1) / kBlock;
  const Scratch<float> sums(blocks);
  parallel_for(device, blocks, 8, [&](Index block, Index end) {
    for (; block < end; ++block)
      sums[block] = dispatch<OptimizerTable>().squares(x + block * kBlock,
                                                       std::min(kBlock, n - block * kBlock));
  });
  double total = 0;
  for (Index block = 0; block < blocks; ++block) total += double{sums[block]};
  return total;
}
/// The same to *total.
inline void sum_of_squares(Cpu device, double* total, const float* x, Index n) {
  *total = sum_of_squares(device, x, n);
}

}  // namespace kernels
}}  // namespace plumb::v0_1
