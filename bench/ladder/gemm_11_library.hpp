// Rung 11: the library's product, on one thread. Rung 10 with what a library needs: operands stored
// transposed, adding to C, bias, residual and activation on the way out, any instruction set, for
// few rows no packing (reading B is then all there is to do), and what comes next fetched ahead.
// See docs/kernels/gemm.md.
//
// Why it helps: all of K is packed at once, up to 4 MiB, and a block of rows goes through all its
// chunks before the next block begins: a large C is added to while it is in the second cache. The
// rest costs a little.
// What binds: the multiply-adds of one core.
// Bits: for every instruction set, number of threads and number of rows the same.
#pragma once

#include <plumb/cpu/kernels.hpp>

namespace ladder::gemm_11_library {

using plumb::Index;

inline void matmul(plumb::Cpu device, float* c, const float* a, const float* b, Index m, Index n,
                   Index k) {
  plumb::kernels::matmul(device, c, a, b, m, n, k, plumb::Form::NN);
}

}  // namespace ladder::gemm_11_library
