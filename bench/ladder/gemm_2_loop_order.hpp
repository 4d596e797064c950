// Rung 2: the order of the loops. The loop over the columns j goes innermost: a row of C gathers
// rows of B, each times one value of A.
//
// Why it helps: B and C are now read along their rows, so all of a cache line is used and the
// prefetcher knows what comes next. The additions of neighbouring j do not wait for one another,
// and the compiler makes vectors of them: of 4 floats, what x86-64 has without flags.
// What binds: memory operations. A multiply-add loads B, loads C and stores C; and all of B, 4·N·K
// bytes, passes through the core for each row of C.
// Bits: its own. Products are rounded before they are added.
#pragma once

#include <plumb/core/device.hpp>

#include <algorithm>

namespace ladder::gemm_2_loop_order {

using plumb::Index;

inline void matmul(plumb::Cpu, float* c, const float* a, const float* b, Index m, Index n,
                   Index k) {
  for (Index i = 0; i < m; ++i) {
    std::fill_n(c + i * n, n, 0.0F);
    for (Index p = 0; p < k; ++p) {
      const float x = a[i * k + p];
      for (Index j = 0; j < n; ++j) c[i * n + j] += x * b[p * n + j];
    }
  }
}

}  // namespace ladder::gemm_2_loop_order
