// Matrix products C (M, N) = A·B in float, bitwise the CPU's (cpu/gemm.hpp): either operand may be
// stored transposed, C is stored or added to, and a bias, a residual and an activation come on the
// way out. Not here: tensor cores (gemm_tensor_core.cuh), cuBLAS (gemm_vendor.cuh), batches. Order
// of reduction: k in chunks of 256 from 0; within a chunk one thread's chain acc = fma(a, b, acc)
// from +0, k ascending; chunk results added in order, to C's old value first if accumulating. No
// kernel splits a chunk, so all have the same bits. Cost: 2·M·N·K FLOPs; bytes: gemm_few_rows.cuh
// for few rows in the form NT, else gemm_tile.cuh.
#pragma once

#include <plumb/core/bf16.hpp>
#include <plumb/cuda/gemm_few_rows.cuh>
#include <plumb/cuda/gemm_output.cuh>
#include <plumb/cuda/gemm_tile.cuh>
#include <plumb/math/gemm.hpp>
#include <plumb/math/int8.hpp>

#include <concepts>
#include <type_traits>

namespace plumb { inline namespace v0_1 {
namespace kernels {

namespace gpu {

struct RoundToBf16 {
  Bf16Bits* y;
  const float* x;
  __device__ float load(Index i) const { return x[i]; }
  __device__ void store(Index i, float of) const {
    y[i] = static_cast<Bf16Bits>(__float_as_uint(Bf16Sum::operand(of)) >> 16);
  }
};

struct RoundOperand {
  __device__ void operator()(const float (&x)[1], float (&y)[1]) const {
    y[0] = Bf16Sum::operand(x[0]);
  }
};

struct ExpandBf16 {
  float* y;
  const Bf16Bits* x;
  __device__ Bf16Bits load(Index i) const { return x[i]; }
  __device__ void store(Index i, Bf16Bits of) const { y[i] = from_bf16(of); }
};

/// One block of a row: its scale and codes, cpu/int8.hpp.
struct Quantize {
  std::int8_t* codes;
  float* scales;
  const float* w;
  Index k, blocks;
  __device__ void operator()(Index i) const {
    const Index column = i % blocks * kInt8Block, first = i / blocks * k + column;
    const Index count = k - column < kInt8Block ? k - column : kInt8Block;
    float most = 0;
    for (Index j = 0; j < count; ++j) most = fmaxf(most, fabsf(w[first + j]));
    const float scale = most / 127.0F;
    scales[i] = scale;
    for (Index j = 0; j < count; ++j) {
      const float q = scale == 0.0F ? 0.0F : w[first + j] / scale;
      codes[first + j] = static_cast<std::int8_t>((q + 0x1.8p23F) - 0x1.8p23F);
    }
  }
};
struct Expand {
  float* w;
  const std::int8_t* codes;
  const float* scales;
  Index k, blocks;
  __device__ void operator()(Index i) const {
    w[i] = static_cast<float>(codes[i]) * scales[i / k * blocks + i % k / kInt8Block];
  }
};

/// The form NT, of which few rows have a kernel of their own (with 32-bit offsets into 32 rows of
/// B).
template <class Sum, class T>
void launch_nt(Cuda device, const Product<T>& p) {
  if (p.out.m > kFewRows<Sum> || p.k >= 1 << 25) return launch_tiles<Sum, Form::NT>(device, p);
  if constexpr (Sum::kPairs) {  // rounded once: each of a column's lanes would do it again
    const Index size = p.out.m * p.k;
    const DeviceScratch<float> a(device, size);
    pointwise<1, 1>(device, RoundOperand{}, {p.a}, {a.data()}, size);
    Product<T> rounded = p;
    rounded.a = a.data();
    rounded.a_wide = p.k % 4 == 0;
    launch_few_rows<Sum>(device, rounded);
  } else {
    launch_few_rows<Sum>(device, p);
  }
}

template <class Sum>
void launch_product(Cuda device, float* c, const float* a, const float* b, Index m, Index n,
                    Index k, Form form, bool accumulate, const Epilogue& epilogue) {
  if (m == 0 || n == 0) return;
  const auto p = product(c, a, b, m, n, k, form, accumulate, epilogue);
  switch (form) {
    case Form::NN: return launch_tiles<Sum, Form::NN>(device, p);
    case Form::NT: return launch_nt<Sum>(device, p);
    case Form::TN: return launch_tiles<Sum, Form::TN>(device, p);
  }
}

}  // namespace gpu

/// C (M, N) = A·B (+= if accumulate), then + bias (N), then + residual (M, N); activated = f(C).
/// NN: A (M, K), B (K, N); NT: A (M, K), B (N, K); TN: A (K, M), B (K, N). Row-major, contiguous; C
/// overlaps no other operand. K = 0 is a sum of nothing. Any alignment; fastest at 16 bytes and
/// with sizes that are multiples of 4.
inline void matmul(Cuda device, float* c, const float* a, const float* b, Index m, Index n, Index k,
                   Form form, bool accumulate = false, Epilogue epilogue = {}) {
  gpu::launch_product<gpu::FloatSum>(device, c, a, b, m, n, k, form, accumulate, epilogue);
}
/// The same in bf16, bitwise CpuBf16's.
inline void matmul(CudaBf16 device, float* c, const float* a, const float* b, Index m, Index n,
                   Index k, Form form, bool accumulate = false, Epilogue epilogue = {}) {
  gpu::launch_product<gpu::Bf16Sum>(device, c, a, b, m, n, k, form, accumulate, epilogue);
}

/// Values that pack_matrix writes for a matrix of n columns and k rows.
inline Index packed_size(Cuda, Index n, Index k) { return n * k; }

/// B, given as (N, K) (a weight), as T: float, a copy, or bf16, rounded to nearest even, which
/// halves what products of few rows read. In the same order: a GPU's threads can read rows side by
/// side.
template <class T>
void pack_matrix(Cuda device, T* packed, const float* b, Index n, Index k) {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, bf16>);
  if constexpr (std::is_same_v<T, float>)
    copy(device, packed, b, static_cast<std::size_t>(n * k) * sizeof(float));
  else
    gpu::map(device, gpu::RoundToBf16{reinterpret_cast<gpu::Bf16Bits*>(packed), b}, n * k);
}

/// The (N, K) values of a packed matrix.
template <class T>
void unpack_matrix(Cuda device, float* b, const T* packed, Index n, Index k) {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, bf16>);
  if constexpr (std::is_same_v<T, float>)
    copy(device, b, packed, static_cast<std::size_t>(n * k) * sizeof(float));
  else
    gpu::map(device, gpu::ExpandBf16{b, reinterpret_cast<const gpu::Bf16Bits*>(packed)}, n * k);
}

/// See cpu/int8.hpp.
inline void quantize_rows(Cuda device, std::int8_t* codes, float* scales, const float* w, Index n,
                          Index k) {
  gpu::map(device, gpu::Quantize{codes, scales, w, k, int8_blocks(k)}, n * int8_blocks(k));
}
inline void expand_rows(Cuda device, float* w, const std::int8_t* codes, const float* scales,
                        Index n, Index k) {
  gpu::map(device, gpu::Expand{w, codes, scales, k, int8_blocks(k)}, n * k);
}

/// C (M, N) = A·Bᵀ with B (N, K) packed, + bias, + residual: the bits of matmul in the form NT with
/// the values that were packed, for bf16 those rounded.
template <class T>
void matmul_packed(Cuda device, float* c, const float* a, const T* packed, Index m, Index n,
                   Index k, Epilogue epilogue = {}) {
  if (m == 0 || n == 0) return;
  gpu::launch_nt<gpu::FloatSum>(
      device, gpu::product(c, a, gpu::stored(packed), m, n, k, Form::NT, false, epilogue));
}
/// The bits of matmul in bf16.
inline void matmul_packed(CudaBf16 device, float* c, const float* a, const bf16* packed, Index m,
                          Index n, Index k, Epilogue epilogue = {}) {
  if (m == 0 || n == 0) return;
  gpu::launch_nt<gpu::Bf16Sum>(
      device, gpu::product(c, a, gpu::stored(packed), m, n, k, Form::NT, false, epilogue));
}
void matmul_packed(CudaBf16 device, float* c, const float* a, const float* packed, Index m, Index n,
                   Index k, Epilogue epilogue = {}) = delete;  // it would be a product in float

// The other modes' products: gemm_vendor.cuh and gemm_tensor_core.cuh. Declared here, so that
// without those files a program does not link, where it would else be given the exact mode.
void matmul(CudaVendor device, float* c, const float* a, const float* b, Index m, Index n, Index k,
            Form form, bool accumulate = false, Epilogue epilogue = {});
void matmul(CudaTensorCore device, float* c, const float* a, const float* b, Index m, Index n,
            Index k, Form form, bool accumulate = false, Epilogue epilogue = {});
void matmul(CudaTf32 device, float* c, const float* a, const float* b, Index m, Index n, Index k,
            Form form, bool accumulate = false, Epilogue epilogue = {});
template <class T>
void matmul_packed(CudaVendor device, float* c, const float* a, const T* packed, Index m, Index n,
                   Index k, Epilogue epilogue = {});
template <class T>
void matmul_packed(CudaTensorCore device, float* c, const float* a, const T* packed, Index m,
                   Index n, Index k, Epilogue epilogue = {});
template <class T>
void matmul_packed(CudaTf32 device, float* c, const float* a, const T* packed, Index m, Index n,
                   Index k, Epilogue epilogue = {});

/// Products of `batch` pairs of matrices, one behind the other: a launch each, with its bits.
template <std::derived_from<Cuda> D>
void matmul_batched(D device, float* c, const float* a, const float* b, Index batch, Index m,
                    Index n, Index k, Form form, bool accumulate) {
  for (Index i = 0; i < batch; ++i)
    matmul(device, c + i * m * n, a + i * m * k, b + i * k * n, m, n, k, form, accumulate);
}

}  // namespace kernels
}}  // namespace plumb::v0_1
