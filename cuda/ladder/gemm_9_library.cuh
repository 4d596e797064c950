// Rung 9: the library's own kernel (plumb/cuda/gemm.cuh), in float. Rung 8's double buffer, but
// what the next tiles will hold waits in registers: on its way to shared memory A is transposed,
// which a copy by cp.async cannot do, so that a thread's 8 + 8 operands of a step of k are four
// loads of 16 bytes, and need no registers beyond that step. A warp's lanes stand 4 high and 8
// wide.
//
// What it adds: either operand stored transposed, adding to C, a bias, a residual and an activation
// on the way out; an order of blocks that shares rows and columns in the second cache; tiles of 64
// where C is small. And the CPU's bits, for which k goes in chunks of 256 whose sums are added to
// what waits in C: 8 bytes of C for every 256 k.
#pragma once

#include <plumb/cuda/gemm.cuh>

namespace plumb { inline namespace v0_1 { namespace ladder::gemm_9 {

/// c (m, n) = a (m, k) · b (k, n).
inline void matmul(Cuda device, float* c, const float* a, const float* b, Index m, Index n,
                   Index k) {
  kernels::matmul(device, c, a, b, m, n, k, Form::NN, false, {});
}

}}}  // namespace plumb::v0_1::ladder::gemm_9
