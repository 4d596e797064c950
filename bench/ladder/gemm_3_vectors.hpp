// Rung 3: vectors by hand. The same loops on AVX2's registers of 8 floats, with the fused
// multiply-add. No compiler flag: the region that simd_begin_avx2.hpp opens turns the instructions
// on, and the caller asks the processor first.
//
// Why it helps: twice the floats per instruction, and one instruction where multiply and add were
// two.
// What binds: memory operations still. 16 FLOPs come with two loads and a store; and B, too large
// for the near caches, passes by once for each row of C: 2 bytes for each FLOP.
// Bits: one chain of fma over all of K: the library's if K <= 256.
#pragma once

#include <plumb/core/device.hpp>
#include <plumb/cpu/isa.hpp>

#include <algorithm>

#include <immintrin.h>

#include <plumb/cpu/simd_begin_avx2.hpp>
namespace ladder::gemm_3_vectors {
using plumb::Index;
#include <plumb/cpu/vec_avx2.inl.hpp>

inline void matmul(plumb::Cpu, float* c, const float* a, const float* b, Index m, Index n,
                   Index k) {
  for (Index i = 0; i < m; ++i) {
    float* row = c + i * n;
    std::fill_n(row, n, 0.0F);
    for (Index p = 0; p < k; ++p) {
      const V x = set(a[i * k + p]);
      const float* from = b + p * n;
      Index j = 0;
      for (; j + kWidth <= n; j += kWidth) store(row + j, fma(x, load(from + j), load(row + j)));
      if (j < n) store(row + j, fma(x, load(from + j, n - j), load(row + j, n - j)), n - j);
    }
  }
}

}  // namespace ladder::gemm_3_vectors
#include <plumb/cpu/simd_end.hpp>
