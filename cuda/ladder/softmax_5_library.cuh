// Rung 5: the library's own kernel (plumb/cuda/reduce.cuh): rung 2 again, a warp a row and three
// passes, with the CPU's bits. They are the price: lane l adds elements l, l + 32, … in that order,
// and the lanes join by a fixed butterfly; an online sum (rung 3) would scale what is summed by a
// rounded factor whenever a larger value comes, and a block's join (rung 4) would be another order.
// e^x is the CPU's polynomial, 20 FLOPs, and not the GPU's approximation.
//
// Global memory: 16 bytes an element, of which a row that the first cache holds is brought once.
// A row in registers would keep the order; nobody has needed it: softmax on its own is in no step
// of training, where attention and the losses have theirs.
#pragma once

#include <plumb/cuda/reduce.cuh>

namespace plumb { inline namespace v0_1 { namespace ladder::softmax_5 {

/// y (rows, n) = softmax of each row of x (rows, n).
inline void softmax(Cuda device, float* y, const float* x, Index rows, Index n) {
  kernels::softmax_rows(device, y, x, rows, n, false);
}

}}}  // namespace plumb::v0_1::ladder::softmax_5
