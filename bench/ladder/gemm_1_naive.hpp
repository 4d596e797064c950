// Rung 1: the definition. C[i][j] is the dot product of a row of A and a column of B.
//
// Why it is slow: each step of the sum waits for the one before, three or four cycles for one
// multiply-add where a core could begin two vectors of them every cycle; the compiler may not
// reorder a sum of floats, so it cannot help. And a column of B is read with a stride of N floats:
// every step touches another cache line, uses 4 of its 64 bytes, and from N = 1024 on another page.
// By the time the next column comes, the lines are gone.
// Bits: its own. Products are rounded before they are added.
#pragma once

#include <plumb/core/device.hpp>

namespace ladder::gemm_1_naive {

using plumb::Index;

inline void matmul(plumb::Cpu, float* c, const float* a, const float* b, Index m, Index n,
                   Index k) {
  for (Index i = 0; i < m; ++i)
    for (Index j = 0; j < n; ++j) {
      float sum = 0;
      for (Index p = 0; p < k; ++p) sum += a[i * k + p] * b[p * n + j];
      c[i * n + j] = sum;
    }
}

}  // namespace ladder::gemm_1_naive
