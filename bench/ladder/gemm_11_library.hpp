// Rung 11: the library's product, on one thread. Rung 10 with what a library needs: operands stored
// transposed, adding to C, bias and residual on the way out, any instruction set; panels of at most
// 4 MiB at once, and for few rows none: reading B is then all there is to do.
// See docs/kernels/gemm.md.
//
// Why it is here: the difference to rung 10 is what all that costs.
// What binds: the multiply-adds of one core.
// Bits: those that it has for every instruction set, number of threads and number of rows.
#pragma once

#include <plumb/cpu/kernels.hpp>

namespace ladder::gemm_11_library {

using plumb::Index;

inline void matmul(plumb::Cpu device, float* c, const float* a, const float* b, Index m, Index n,
                   Index k) {
  plumb::kernels::matmul(device, c, a, b, m, n, k, plumb::Form::NN);
}

}  // namespace ladder::gemm_11_library
