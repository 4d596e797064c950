// Rung 12: threads. The library's product again, on all threads of the pool: they take tasks, which
// are blocks of rows × groups of panels.
//
// Why it helps: tasks write different tiles of C and share nothing but what they read, and a core
// brings its own multiply-adds and its own first two caches. K is never split: that would change
// the order of the additions with the number of threads.
// What binds: the multiply-adds of all cores; then the third cache and memory, which they share.
// Bits: the library's.
#pragma once

#include <plumb/cpu/kernels.hpp>

namespace ladder::gemm_12_threads {

using plumb::Index;

/// `device` has all threads here, and one on the other rungs.
inline void matmul(plumb::Cpu device, float* c, const float* a, const float* b, Index m, Index n,
                   Index k) {
  plumb::kernels::matmul(device, c, a, b, m, n, k, plumb::Form::NN);
}

}  // namespace ladder::gemm_12_threads
