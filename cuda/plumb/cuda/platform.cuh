// What the kernels are compiled by: nvcc, or a host compiler that runs them in the emulator
// (cuda/emulator). The only file that asks which, and the only one with inline assembly; kernels
// themselves are plain CUDA C++.
//
// Rules that the rest relies on: every __global__ function is a template or static, so that two
// translation units link; no device-side globals; sizes are arguments. Minimum architecture: sm_80.
#pragma once

#include <plumb/core/bf16.hpp>
#include <plumb/core/check.hpp>
#include <plumb/math/bf16.hpp>

#include <cstdint>

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#else
#include <emulator/device.hpp>
#include <emulator/instruments.hpp>
#endif

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#error "Plumb's kernels need compute capability 8.0 (A100) or later: nvcc -arch=sm_80"
#endif
#if defined(__USE_FAST_MATH__)
#error "-use_fast_math changes the results that Plumb promises bit for bit; compile without it"
#endif

namespace plumb { inline namespace v0_1 {

/// The CUDA runtime refused or failed: no device, no memory, a kernel that faulted.
struct CudaError : Error {
  using Error::Error;
};

namespace kernels {

/// For what cannot be told to anyone, as in a destructor: the runtime keeps an error until it is
/// asked for, and a later launch, which asks, has nothing to do with this one.
inline void forget_cuda(cudaError_t status) {
  if (status != cudaSuccess) cudaGetLastError();
}

/// Throws CudaError unless `status` is success; told here, it is not told again by a later launch.
inline void check_cuda(cudaError_t status, const char* what, Where where = Where::here()) {
  if (status == cudaSuccess) [[likely]]
    return;
  forget_cuda(status);
  const char* hint = "";
  if (status == cudaErrorMemoryAllocation)
    hint = ". HINT: fewer sequences at once (micro-batches, slots) need less memory";
  if (status == cudaErrorNoDevice || status == cudaErrorInsufficientDriver)
    hint = ". HINT: this needs an NVIDIA GPU and its driver; nvidia-smi shows them";
  fail<CudaError>(str("[cuda] ", what, ": ", cudaGetErrorString(status), hint), where);
}

/// Launches kernel(args…) on a stream; a template with commas goes in parentheses. CudaError if
/// refused.
#if defined(__CUDACC__)
#define PLUMB_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)        \
  do {                                                                      \
    kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__);             \
    ::plumb::kernels::check_cuda(cudaGetLastError(), "launch of " #kernel); \
  } while (false)
#else
#undef PLUMB_LAUNCH
#define PLUMB_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                         \
  do {                                                                                       \
    ::plumb::emulator::launch(#kernel, kernel, grid, block, shared_bytes,                    \
                              stream __VA_OPT__(, ) __VA_ARGS__);                            \
    ::plumb::kernels::check_cuda(cudaGetLastError(), "launch of " #kernel);                  \
  } while (false)
#endif

/// Who counts what kernels do, and orders their threads: the emulator, or nobody.
#if defined(__CUDACC__)
struct Emulation {
  static constexpr bool kHere = false;
};
#else
using Emulation = ::plumb::emulator::Instruments;
#endif

#if defined(__CUDACC__)

/// The block's dynamic shared memory, 16-byte aligned.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char plumb_dynamic_shared[];
  return reinterpret_cast<T*>(plumb_dynamic_shared);
}

/// Four floats at a 16-byte boundary, in one access.
__device__ __forceinline__ float4 load4(const float* p) {
  return *reinterpret_cast<const float4*>(p);
}
/// nvcc may take a plain store of a float4 to global memory apart; where the place is known to be
/// global, as of a kernel's parameter, this test is gone from the PTX.
__device__ __forceinline__ void store4(float* p, float4 x) {
  if (__isGlobal(p))
    asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(p)),
                 "f"(x.x), "f"(x.y), "f"(x.z), "f"(x.w)
                 : "memory");
  else
    *reinterpret_cast<float4*>(p) = x;
}

__device__ __forceinline__ std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

/// Begins to copy `bytes` (0 to 16) to 16 bytes of shared memory, the rest becoming zeros; both
/// places at 16-byte boundaries. The data is there after cp_async_wait and a barrier.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(__cvta_generic_to_global(global)), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void cp_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
/// Waits until at most N of this thread's committed groups are under way.
template <int N>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/// Four 8 × 8 matrices of 16-bit elements, a row's address from each lane: lane i holds elements 2i
/// mod 8 and the next of row i / 4 of each; transposed: of column i / 4.
__device__ __forceinline__ void ldmatrix_x4(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_transposed(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

/// d (16, 8) += a (16, 16) · b (16, 8), bf16 with float sums, in the fragments of PTX's
/// mma.m16n8k16.
__device__ __forceinline__ void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4],
                                         const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/// d (16, 8) += a (16, 8) · b (8, 8), tf32 with float sums, in the fragments of PTX's mma.m16n8k8.
__device__ __forceinline__ void mma_tf32(float (&d)[4], const std::uint32_t (&a)[4],
                                         const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/// The nearest tf32 (ties away from zero), as the bits that mma_tf32 takes.
__device__ __forceinline__ std::uint32_t to_tf32(float x) {
  std::uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
}
/// math/bf16.hpp: a·b + c, subnormals being zeros.
__device__ __forceinline__ float flushed_fma(float a, float b, float c) {
  float sum;
  asm("fma.rn.ftz.f32 %0, %1, %2, %3;" : "=f"(sum) : "f"(a), "f"(b), "f"(c));
  return sum;
}
/// Two floats rounded to the nearest bf16 (ties to even), the first in the lower half.
__device__ __forceinline__ std::uint32_t bf16_pair(float low, float high) {
  std::uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
}

#else

inline float flushed_fma(float a, float b, float c) { return fma_flushed(a, b, c); }
inline std::uint32_t bf16_pair(float low, float high) {
  return bf16(low).bits | static_cast<std::uint32_t>(bf16(high).bits) << 16;
}

#endif

/// Two 32-bit words at an 8-byte boundary, in one access.
__device__ __forceinline__ void store2(std::uint32_t* p, std::uint32_t x, std::uint32_t y) {
  using Pair [[gnu::may_alias]] = std::uint64_t;
  *reinterpret_cast<Pair*>(p) = x | static_cast<std::uint64_t>(y) << 32;
}
__device__ __forceinline__ float2 load2(const float* p) {
  using Pair [[gnu::may_alias]] = std::uint64_t;
  const std::uint64_t pair = *reinterpret_cast<const Pair*>(p);
  return {__uint_as_float(static_cast<std::uint32_t>(pair)),
          __uint_as_float(static_cast<std::uint32_t>(pair >> 32))};
}

}  // namespace kernels
}}  // namespace plumb::v0_1
