// Rung 12: the library's own kernel (plumb/cuda/gemm_tensor_core.cuh). Its operands stay float in
// memory, as weights and activations are kept, and are rounded to bf16 on their way to shared
// memory, once each: twice the bytes of rung 11, through registers instead of by cp.async, in two
// stages. The swizzle is rung 11's. Where weights are packed as bf16 before, they come by cp.async
// in three stages, and only the activations are rounded.
//
// What it adds is what rung 9 adds, but for the CPU's bits: those of its twin on the CPU, by the
// published model of how tensor cores round (emulator/tensor_core.hpp).
#pragma once

#include <plumb/cuda/gemm_tensor_core.cuh>

namespace plumb { inline namespace v0_1 { namespace ladder::gemm_12 {

/// c (m, n) = a (m, k) · b (k, n), a and b rounded to bf16.
inline void matmul(Cuda device, float* c, const float* a, const float* b, Index m, Index n,
                   Index k) {
  kernels::matmul(kernels::CudaTensorCore{device}, c, a, b, m, n, k, Form::NN, false, {});
}

}}}  // namespace plumb::v0_1::ladder::gemm_12
