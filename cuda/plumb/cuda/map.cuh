// A function of every element, by threads that read all they need before they write: which the
// compiler may not arrange by itself, as what is written may be what is read. A thread of
// `pointwise` has four neighbours of each array, in one access of 16 bytes where they lie at such a
// boundary, and eight where one array is read: two to five accesses under way, 48 KB and more in a
// multiprocessor that is three quarters full, of which an H100 (3.35 TB/s, 700 ns, 132 of them)
// needs 18 KB. A thread of `map`, for functions of an index, has kPerThread elements a block's
// width apart.
#pragma once

#include <plumb/cuda/device.cuh>
#include <plumb/cuda/lanes.cuh>

#include <cstdint>

namespace plumb { inline namespace v0_1 {
namespace kernels {
namespace gpu {

inline constexpr int kMapThreads = 256;
inline constexpr int kPerThread = 4;

/// max(0, min(4, n)).
__device__ inline int quad_count(Index n) { return n >= 4 ? 4 : n > 0 ? static_cast<int>(n) : 0; }

/// `count` floats (at most four) as a quad, the rest zeros. `wide`: at a 16-byte boundary, none or
/// four.
__device__ inline float4 load_quad(const float* p, int count, bool wide) {
  float4 x{0.0F, 0.0F, 0.0F, 0.0F};
  if (wide) {
    if (count > 0) x = load4(p);
    return x;
  }
  if (count > 0) x.x = p[0];
  if (count > 1) x.y = p[1];
  if (count > 2) x.z = p[2];
  if (count > 3) x.w = p[3];
  return x;
}
__device__ inline void store_quad(float* p, float4 x, int count, bool wide) {
  if (wide) return store4(p, x);
  p[0] = x.x;
  if (count > 1) p[1] = x.y;
  if (count > 2) p[2] = x.z;
  if (count > 3) p[3] = x.w;
}

/// Whether p is null or at a 16-byte boundary.
inline bool at_16_bytes(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

/// Calls f(i) for every i < n. With f.load(i) and f.store(i, loaded) in place of f(i), a thread's
/// loads are all made before its first store: no place that is stored to is another i's.
template <int kThreads, class F>
__global__ void __launch_bounds__(kThreads) map_kernel(F f, Index n) {
  const Index first = static_cast<Index>(blockIdx.x) * (kThreads * kPerThread) + threadIdx.x;
  if constexpr (requires { f.load(first); }) {
    decltype(f.load(first)) loaded[kPerThread] = {};
#pragma unroll
    for (int j = 0; j < kPerThread; ++j)
      if (first + j * kThreads < n) loaded[j] = f.load(first + j * kThreads);
#pragma unroll
    for (int j = 0; j < kPerThread; ++j)
      if (first + j * kThreads < n) f.store(first + j * kThreads, loaded[j]);
  } else {
#pragma unroll
    for (int j = 0; j < kPerThread; ++j)
      if (first + j * kThreads < n) f(first + j * kThreads);
  }
}

template <class F>
void map(Cuda device, const F& f, Index n) {
  if (n > 0)
    PLUMB_LAUNCH((map_kernel<kMapThreads, F>), blocks_for(n, kMapThreads * kPerThread), kMapThreads,
                 0, device.stream, f, n);
}

/// Arrays of n elements each.
template <int kIn>
struct Inputs {
  const float* at[kIn];
};
template <int kOut>
struct Outputs {
  float* at[kOut];
};

/// f(x, y) for each element: x its numbers in the arrays read, y those to be in the arrays written,
/// which may be arrays that are read. A thread has kQuads times four neighbours; `wide`: all arrays
/// are at 16-byte boundaries.
template <int kThreads, int kQuads, int kIn, int kOut, class F>
__global__ void __launch_bounds__(kThreads)
    pointwise_kernel(F f, Inputs<kIn> from, Outputs<kOut> to, Index n, bool wide) {
  const Index first = (static_cast<Index>(blockIdx.x) * (kThreads * kQuads) + threadIdx.x) * 4;
  float4 read[kQuads][kIn];
  wide = wide && first + (kQuads - 1) * kThreads * 4 + 4 <= n;
  if (wide) {
#pragma unroll
    for (int q = 0; q < kQuads; ++q)
#pragma unroll
      for (int k = 0; k < kIn; ++k) read[q][k] = load4(from.at[k] + first + q * kThreads * 4);
  } else {
#pragma unroll
    for (int q = 0; q < kQuads; ++q)
#pragma unroll
      for (int k = 0; k < kIn; ++k) {
        const Index i = first + q * kThreads * 4;
        read[q][k] = load_quad(from.at[k] + i, quad_count(n - i), false);
      }
  }
#pragma unroll
  for (int q = 0; q < kQuads; ++q) {
    const Index i = first + q * kThreads * 4;
    float result[kOut][4];
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      float x[kIn], y[kOut];
#pragma unroll
      for (int k = 0; k < kIn; ++k) {
        const float4 v = read[q][k];
        x[k] = e == 0 ? v.x : e == 1 ? v.y : e == 2 ? v.z : v.w;
      }
      f(x, y);
#pragma unroll
      for (int k = 0; k < kOut; ++k) result[k][e] = y[k];
    }
    const int count = wide ? 4 : quad_count(n - i);
#pragma unroll
    for (int k = 0; k < kOut; ++k)
      if (count > 0)
        store_quad(to.at[k] + i, {result[k][0], result[k][1], result[k][2], result[k][3]}, count,
                   wide);
  }
}

template <int kIn, int kOut, class F>
void pointwise(Cuda device, const F& f, const float* const (&x)[kIn], float* const (&y)[kOut],
               Index n) {
  if (n == 0) return;
  constexpr int kQuads = kIn == 1 ? 2 : 1, kThreads = kMapThreads / kQuads;
  Inputs<kIn> from;
  Outputs<kOut> to;
  bool wide = true;
  for (int k = 0; k < kIn; ++k) {
    from.at[k] = x[k];
    wide = wide && at_16_bytes(x[k]);
  }
  for (int k = 0; k < kOut; ++k) {
    to.at[k] = y[k];
    wide = wide && at_16_bytes(y[k]);
  }
  PLUMB_LAUNCH((pointwise_kernel<kThreads, kQuads, kIn, kOut, F>),
               blocks_for(n, kThreads * kQuads * 4), kThreads, 0, device.stream, f, from, to, n,
               wide);
}

}  // namespace gpu
}  // namespace kernels
}}  // namespace plumb::v0_1
