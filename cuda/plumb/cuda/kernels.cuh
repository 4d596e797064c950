// The CUDA backend in one include: every kernel under the CPU's name, for Cuda (exact),
// CudaTensorCore and CudaTf32. CudaVendor's products, which need cuBLAS, are one include more:
// plumb/cuda/gemm_vendor.cuh. Compile with nvcc -std=c++20 -fmad=false --expt-relaxed-constexpr
// (the CMake target plumb::cuda says so), or with a host compiler and the emulator (target
// plumb::emulated).
#pragma once

#include <plumb/cuda/attention.cuh>
#include <plumb/cuda/device.cuh>
#include <plumb/cuda/elementwise.cuh>
#include <plumb/cuda/gemm.cuh>
#include <plumb/cuda/gemm_tensor_core.cuh>
#include <plumb/cuda/graph.cuh>
#include <plumb/cuda/head.cuh>
#include <plumb/cuda/loss.cuh>
#include <plumb/cuda/norm.cuh>
#include <plumb/cuda/optimizer.cuh>
#include <plumb/cuda/reduce.cuh>
#include <plumb/cuda/rows.cuh>
#include <plumb/cuda/sampling.cuh>
#include <plumb/math/backend.hpp>

namespace plumb { inline namespace v0_1 {

static_assert(Backend<Cuda> && Backend<CudaBf16> && Backend<CudaTensorCore> && Backend<CudaTf32>,
              "the CUDA backend lacks a kernel");

}}  // namespace plumb::v0_1
