// Kernels with a fault each, and the same kernel without it: `Bug` chooses. What must report which
// is in test_emulator.cu.
#pragma once

#if __has_include(<plumb/cuda/platform.cuh>)
#include <plumb/cuda/platform.cuh>
#else
#include <emulator/device.hpp>
#endif

namespace faults {

using namespace plumb::kernels;

template <bool Bug>
__global__ void static_out_of_bounds(float* out) {
  __shared__ float s[64];
  s[threadIdx.x + (Bug ? 1 : 0)] = 1.0F;
  __syncthreads();
  out[threadIdx.x] = s[Bug ? 1 : threadIdx.x];
}

// Not inlined: here the compiler cannot know what p points to.
__attribute__((noinline)) static __device__ void write_one(float* p) { *p = 1.0F; }

template <bool Bug>
static __global__ void static_out_of_bounds_by_pointer(float* out) {
  __shared__ float s[64];
  write_one(s + threadIdx.x + (Bug ? 1 : 0));
  __syncthreads();
  out[threadIdx.x] = s[Bug ? 1 : threadIdx.x];
}

template <bool Bug>
static __global__ void dynamic_out_of_bounds(float* out) {
  float* s = dynamic_shared<float>();
  s[threadIdx.x] = 1.0F;
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x + (Bug ? 1 : 0)];
}

template <bool Bug>
static __global__ void dynamic_write_out_of_bounds(float* out) {
  float* s = dynamic_shared<float>();
  s[threadIdx.x + (Bug ? 1 : 0)] = 1.0F;
  __syncthreads();
  out[threadIdx.x] = Bug ? 1.0F : s[threadIdx.x];
}

static __global__ void write_up_to(float* out, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) out[i] = 1.0F;
}

// Two threads write one address.
template <bool Bug>
static __global__ void race_in_block(float* out) {
  __shared__ float s[64];
  s[threadIdx.x / (Bug ? 2 : 1)] = static_cast<float>(threadIdx.x);
  __syncthreads();
  out[threadIdx.x] = s[Bug ? threadIdx.x / 2 : threadIdx.x];
}

template <bool Bug>
static __global__ void race_between_blocks(int* out) {
  if (Bug)
    out[threadIdx.x] += 1;
  else
    atomicAdd(&out[threadIdx.x], 1);
}

template <bool Bug>
static __global__ void missing_syncthreads(float* out, const float* in) {
  __shared__ float s[64];
  s[threadIdx.x] = in[threadIdx.x];
  if (!Bug) __syncthreads();
  out[threadIdx.x] = s[63 - threadIdx.x];
}

// A buffer that is written again while others may still read it.
template <bool Bug>
static __global__ void missing_second_barrier(float* out, const float* in) {
  __shared__ float s[64];
  float sum = 0.0F;
  for (int k = 0; k < 2; ++k) {
    s[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    sum += s[63 - threadIdx.x];
    if (!Bug) __syncthreads();
  }
  out[threadIdx.x] = sum;
}

template <bool Bug>
static __global__ void missing_syncwarp(float* out, const float* in) {
  __shared__ float s[32];
  s[threadIdx.x] = in[threadIdx.x];
  if (!Bug) __syncwarp();
  out[threadIdx.x] = s[threadIdx.x ^ 1];
}

// A shuffle makes the lanes meet but orders no memory.
template <bool Bug>
static __global__ void shuffle_as_fence(float* out, const float* in) {
  __shared__ float s[32];
  s[threadIdx.x] = in[threadIdx.x];
  const float v = __shfl_xor_sync(~0U, in[threadIdx.x], 1);
  if (!Bug) __syncwarp();
  out[threadIdx.x] = s[threadIdx.x ^ 1] - v;
}

template <bool Bug>
static __global__ void divergent_barrier(float* out) {
  if (Bug && threadIdx.x < 32) {
    __syncthreads();
    out[threadIdx.x] = 1.0F;
  } else {
    __syncthreads();
    out[threadIdx.x] = 1.0F;
  }
}

template <bool Bug>
static __global__ void early_exit(float* out, int n) {
  const int i = static_cast<int>(threadIdx.x);
  if (Bug && i >= n) return;
  __syncthreads();
  if (i < n) out[i] = 1.0F;
}

template <bool Bug>
static __global__ void shuffle_in_branch(float* out) {
  float v = static_cast<float>(threadIdx.x);
  if (!Bug || threadIdx.x < 16) v = __shfl_xor_sync(~0U, v, 1);
  if (Bug) __syncthreads();
  out[threadIdx.x] = v;
}

template <bool Bug>
static __global__ void exited_lane(float* out) {
  if (Bug && threadIdx.x == 31) return;
  out[threadIdx.x] = __shfl_down_sync(~0U, 1.0F, 1);
}

template <bool Bug>
static __global__ void wrong_mask(float* out) {
  const float v = static_cast<float>(threadIdx.x);
  out[threadIdx.x] = __shfl_xor_sync(Bug ? 0x0000FFFFU : ~0U, v, 1);
}

template <bool Bug>
static __global__ void uninitialised_shared(float* out) {
  __shared__ float s[64];
  if (!Bug || threadIdx.x < 63) s[threadIdx.x] = 1.0F;
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x];
}

template <bool Bug>
static __global__ void misaligned_load4(float* out, const float* in) {
  store4(out + 4 * threadIdx.x, load4(in + 4 * threadIdx.x + (Bug ? 1 : 0)));
}

template <bool Bug>
static __global__ void misaligned_vector(float* out, const float* in) {
  const float2 v = *reinterpret_cast<const float2*>(in + 2 * threadIdx.x + (Bug ? 1 : 0));
  out[threadIdx.x] = v.x + v.y;
}

// Two groups in flight; the second is read, too.
template <bool Bug>
static __global__ void missing_copy_wait(float* out, const float* in) {
  __shared__ __align__(16) float s[2][4 * 32];
  for (int g = 0; g < 2; ++g) {
    cp_async_16(&s[g][4 * threadIdx.x], in + 4 * threadIdx.x, 16);
    cp_async_commit();
  }
  cp_async_wait<Bug ? 1 : 0>();
  __syncthreads();
  out[threadIdx.x] = s[1][127 - threadIdx.x];
  cp_async_wait<0>();
}

template <bool Bug>
static __global__ void never_waits(float* out, const float* in) {
  __shared__ __align__(16) float s[4 * 32];
  cp_async_16(&s[4 * threadIdx.x], in + 4 * threadIdx.x, 16);
  cp_async_commit();
  if (!Bug) cp_async_wait<0>();
  out[threadIdx.x] = 1.0F;
}

static __global__ void copy(float* out, const float* in, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) out[i] = in[i];
}

template <bool Bug>
static __global__ void deep_stack(float* out) {
  volatile char big[Bug ? 300 * 1024 : 1024];
  for (unsigned i = 0; i < sizeof big; i += 512) big[i] = 1;
  out[threadIdx.x] = static_cast<float>(big[0]);
}

}  // namespace faults
