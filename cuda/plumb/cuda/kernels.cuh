// The CUDA backend in one include: every kernel under the CPU's name, for Cuda (exact),
// CudaTensorCore and CudaTf32. CudaVendor's products, which need cuBLAS, are one include more:
// plumb/cuda/gemm_vendor.cuh. Compile with nvcc -std=c++20 -fmad=false --expt-relaxed-constexpr
// (the CMake target plumb::cuda says so), or with a host compiler and the emulator (target
// plumb::emulated).
#pragma once

#include <plumb/cuda/device.cuh>

// Before the kernels, which call one another: what is looked up there must not find them missing.
namespace plumb { inline namespace v0_1 {
template <>
inline constexpr bool backend_included<Cuda> = true;
template <>
inline constexpr bool backend_included<CudaVendor> = true;
template <>
inline constexpr bool backend_included<CudaTensorCore> = true;
template <>
inline constexpr bool backend_included<CudaTf32> = true;
}}  // namespace plumb::v0_1

#include <plumb/cuda/attention.cuh>
#include <plumb/cuda/elementwise.cuh>
#include <plumb/cuda/gemm.cuh>
#include <plumb/cuda/gemm_tensor_core.cuh>
#include <plumb/cuda/graph.cuh>
#include <plumb/cuda/head.cuh>
#include <plumb/cuda/loss.cuh>
#include <plumb/cuda/norm.cuh>
#include <plumb/cuda/optimizer.cuh>
#include <plumb/cuda/rows.cuh>
#include <plumb/cuda/sampling.cuh>
#include <plumb/math/backend.hpp>

namespace plumb { inline namespace v0_1 {

static_assert(Backend<Cuda> && Backend<CudaTensorCore> && Backend<CudaTf32>,
              "the CUDA backend lacks a kernel");

}}  // namespace plumb::v0_1
