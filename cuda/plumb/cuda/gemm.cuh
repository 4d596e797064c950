// Matrix products C (M, N) = A·B in float, bitwise the CPU's (cpu/gemm.hpp): either operand may be
// stored transposed, C is stored or added to, and a bias, a residual and an activation come on the
// way out. Register tiling over shared memory as in Volkov and Demmel 2008, "Benchmarking GPUs to
// tune dense linear algebra". Not here: tensor cores (gemm_tensor_core.cuh), cuBLAS
// (gemm_vendor.cuh), batches. Order of reduction: k in chunks of 256 from 0; within a chunk one
// thread's chain acc = fma(a, b, acc) from +0, k ascending; chunk results added in order, to C's
// old value first if accumulating. No tile shape splits a chunk, so all shapes have the same bits.
// Cost: 2·M·N·K FLOPs. Few rows: gemm_few_rows.cuh. Otherwise tiles of T × T, T = 128 or 64, each
// by 256 threads of (T/16)² elements:
//   Global memory: 4·M·N·K·(1/T + 1/T) bytes of operands + 8·M·N for every chunk after the first
//   (the total waits in C) + 4·M·N: about T/4 FLOP/B before any cache, 32 at T = 128. Tiles that
//   run side by side share rows and columns through the L2 cache: 8 × 8 tiles of 128 read from DRAM
//   what one of 1024 would, 256 FLOP/B.
//   Shared memory: for each k a thread reads 2·T/16 floats for (T/16)² FMAs, 1 byte per FMA at T =
//   128 and 2 at 64; of a warp's 4 × 8 threads many ask for the same 16 bytes, which are read once.
//   Bound: an A100 (19.5 TFLOP/s, 1.55 to 2.0 TB/s) needs 10 to 13 FLOP/B, an H100 (67, 3.35) needs
//   20: with T = 128 both are bound by FMAs.
#pragma once

#include <plumb/core/bf16.hpp>
#include <plumb/cuda/gemm_few_rows.cuh>
#include <plumb/cuda/gemm_output.cuh>
#include <plumb/math/gemm.hpp>
#include <plumb/math/int8.hpp>

#include <concepts>
#include <type_traits>

namespace plumb { inline namespace v0_1 {
namespace kernels {

namespace gpu {

inline constexpr int kTileThreads = 256;

/// One thread's part in copying an operand to shared memory as [k][row]: a quad of each tile.
template <class Sum, class T, int kTile, int kDepth, bool kAlongK>
class OperandQuad {
  static_assert(kTile * kDepth == 4 * kTileThreads);

 public:
  /// The operand is (rows, k) if kAlongK, else (k, rows), contiguous.
  __device__ OperandQuad(const T* operand, Index first_row, Index rows, int k, bool wide)
      : wide_(wide), k_(k) {
    const int thread = static_cast<int>(threadIdx.x);
    if constexpr (kAlongK) {
      // 16 rows × 8 k a warp: whole sectors of 32 bytes, and stores to 32 different banks, rows of
      // k being 16 banks apart four by four.
      row_ = thread / 2 % kTile;
      first_k_ = thread / (2 * kTile) * 8 + thread % 2 * 4;
      count_ = first_row + row_ < rows ? 4 : 0;
      from_ = operand + (first_row + row_) * static_cast<Index>(k) + first_k_;
      step_ = kDepth;
    } else {
      row_ = thread % (kTile / 4) * 4;
      first_k_ = thread / (kTile / 4);
      count_ = quad_count(rows - first_row - row_);
      from_ = operand + first_k_ * rows + first_row + row_;
      step_ = kDepth * rows;
    }
  }

  /// Begins to read the next tile, which begins at k0; store() awaits it.
  __device__ void load(int k0) {
    const int left = k_ - k0 - first_k_;
    const int count = kAlongK ? (count_ > 0 ? quad_count(left) : 0) : (left > 0 ? count_ : 0);
    quad_ = load_quad(from_, count, wide_);
    from_ += step_;
  }
  __device__ void store(float (&to)[kDepth][kTile + 4]) const {
    constexpr int kSwap = Sum::kPairs ? 1 : 0;  // of a pair the second k first
    const float4 x = operand4<Sum>(quad_);
    if constexpr (kAlongK) {
      to[first_k_ + kSwap][row_] = x.x;
      to[first_k_ + (1 ^ kSwap)][row_] = x.y;
      to[first_k_ + 2 + kSwap][row_] = x.z;
      to[first_k_ + 2 + (1 ^ kSwap)][row_] = x.w;
    } else {
      store4(&to[first_k_ ^ kSwap][row_], x);
    }
  }

 private:
  float4 quad_;
  const T* from_;
  Index step_;
  bool wide_;
  int k_, row_, first_k_, count_;
};

/// A thread's elements of C: kQuads × kQuads blocks of 4 × 4, 64 apart.
template <class Sum, int kQuads>
struct TileSums {
  float sum[4 * kQuads][4 * kQuads];
  static constexpr int kTile = 64 * kQuads;
  int row, column;  ///< of the first, in the tile

  /// A warp is 4 × 8 threads: its quads of A and B are read once for all of them, without bank
  /// conflicts.
  __device__ TileSums() {
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    row = (warp / 2 * 4 + lane() / 8) * 4;
    column = (warp % 2 * 8 + lane() % 8) * 4;
#pragma unroll
    for (auto& sums : sum)
#pragma unroll
      for (float& x : sums) x = 0.0F;
  }
  static __device__ void values(float (&to)[4 * kQuads], const float* from) {
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
      const float4 x = load4(from + 64 * q);
      to[4 * q] = x.x;
      to[4 * q + 1] = x.y;
      to[4 * q + 2] = x.z;
      to[4 * q + 3] = x.w;
    }
  }
  /// One step of k for all elements.
  __device__ void add(const float* a, const float* b) {
    float x[4 * kQuads], y[4 * kQuads];
    values(x, a + row);
    values(y, b + column);
#pragma unroll
    for (int i = 0; i < 4 * kQuads; ++i)
#pragma unroll
      for (int j = 0; j < 4 * kQuads; ++j) sum[i][j] = Sum::add(x[i], y[j], sum[i][j]);
  }
  /// Hands over all sums and clears them. A loop in which rows move up by one: unrolled, the
  /// addresses of 64 elements would be kept in registers all along, and spill.
  __device__ void put(const ProductOutput& out, TilePlace tile, bool add, bool last) {
#pragma unroll 1
    for (int i = 0; i < 4 * kQuads; ++i) {
#pragma unroll
      for (int q = 0; q < kQuads; ++q)
        out.put(Index{tile.row} * kTile + i / 4 * 64 + row + i % 4,
                Index{tile.column} * kTile + 64 * q + column,
                {sum[0][4 * q], sum[0][4 * q + 1], sum[0][4 * q + 2], sum[0][4 * q + 3]}, add,
                last);
#pragma unroll
      for (int r = 0; r < 4 * kQuads; ++r)
#pragma unroll
        for (int j = 0; j < 4 * kQuads; ++j) sum[r][j] = r + 1 < 4 * kQuads ? sum[r + 1][j] : 0.0F;
    }
  }
  __device__ void activate(const ProductOutput& out, TilePlace tile) const {
#pragma unroll 1
    for (int i = 0; i < 4 * kQuads * kQuads; ++i)
      out.activate(Index{tile.row} * kTile + i / (4 * kQuads) * 64 + row + i % 4,
                   Index{tile.column} * kTile + i / 4 % kQuads * 64 + column);
  }
};

/// A tile of kTile × kTile. Two buffers in shared memory: while one is multiplied, registers take
/// what the next will hold. k is never padded but to a pair: fma(0, 0, -0) is +0, and a sum that
/// underflowed may be -0.
template <class Sum, Form form, int kTile, class T>
__global__ void __launch_bounds__(kTileThreads, kTile == 128 ? 2 : 3)
    tile_kernel(Product<T> p, int group_bits) {
  constexpr int kDepth = 4 * kTileThreads / kTile;
  __shared__ __align__(16) float a_tiles[2][kDepth][kTile + 4];
  __shared__ __align__(16) float b_tiles[2][kDepth][kTile + 4];
  const TilePlace tile = tile_place(group_bits);
  if (Index{tile.row} * kTile >= p.out.m) return;  // the whole block
  OperandQuad<Sum, float, kTile, kDepth, form != Form::TN> a(p.a, Index{tile.row} * kTile, p.out.m,
                                                             p.k, p.a_wide);
  OperandQuad<Sum, T, kTile, kDepth, form == Form::NT> b(p.b, Index{tile.column} * kTile, p.out.n,
                                                         p.k, p.b_wide);
  TileSums<Sum, kTile / 64> sums;
  a.load(0);
  b.load(0);
  a.store(a_tiles[0]);
  b.store(b_tiles[0]);
  __syncthreads();
  int now = 0, k = 0, chunk_end = 0;
  do {  // k = 0 is one empty chunk
    chunk_end = p.k - chunk_end < kGemmChunk ? p.k : chunk_end + kGemmChunk;
#pragma unroll 1
    for (; k < chunk_end; k += kDepth, now ^= 1) {
      const bool more = k + kDepth < p.k;
      if (more) {
        a.load(k + kDepth);
        b.load(k + kDepth);
      }
      if (k + kDepth <= p.k) {
#pragma unroll(kTile == 128 ? 2 : kDepth)  // 4 would take more than 128 registers
        for (int i = 0; i < kDepth; ++i) sums.add(a_tiles[now][i], b_tiles[now][i]);
      } else {
#pragma unroll 1
        for (int i = 0; i < p.k - k + (Sum::kPairs ? (p.k - k) % 2 : 0); ++i)
          sums.add(a_tiles[now][i], b_tiles[now][i]);
      }
      if (more) {
        a.store(a_tiles[now ^ 1]);
        b.store(b_tiles[now ^ 1]);
      }
      __syncthreads();
    }
    sums.put(p.out, tile, p.out.accumulate || k > kGemmChunk, k >= p.k);
  } while (k < p.k);
  if (p.out.epilogue.activated != nullptr) sums.activate(p.out, tile);
}

struct RoundToBf16 {
  Bf16Bits* y;
  const float* x;
  __device__ void operator()(Index i) const {
    y[i] = static_cast<Bf16Bits>(__float_as_uint(Bf16Sum::operand(x[i])) >> 16);
  }
};

struct RoundOperand {
  float* y;
  const float* x;
  __device__ void operator()(Index i) const { y[i] = Bf16Sum::operand(x[i]); }
};

struct ExpandBf16 {
  float* y;
  const Bf16Bits* x;
  __device__ void operator()(Index i) const { y[i] = from_bf16(x[i]); }
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

/// Large tiles from so many elements on: 64 tiles, more than half of an A100's or H100's SMs.
inline constexpr Index kLargeTilesFrom = 64 * 128 * 128;

template <class Sum, Form form, int kTile, class T>
void launch_tile(Cuda device, const Product<T>& p) {
  const TileGrid grid = tile_grid(p.out.m, p.out.n, kTile);
  PLUMB_LAUNCH((tile_kernel<Sum, form, kTile, T>), grid.blocks, kTileThreads, 0, device.stream, p,
               grid.group_bits);
}
template <class Sum, Form form, class T>
void launch_tiles(Cuda device, const Product<T>& p) {
  if (p.out.m * p.out.n >= kLargeTilesFrom)
    launch_tile<Sum, form, 128>(device, p);
  else
    launch_tile<Sum, form, 64>(device, p);
}

/// The form NT, of which few rows have a kernel of their own (with 32-bit offsets into 32 rows of
/// B).
template <class Sum, class T>
void launch_nt(Cuda device, const Product<T>& p) {
  if (p.out.m > kFewRows<Sum> || p.k >= 1 << 25) return launch_tiles<Sum, Form::NT>(device, p);
  if constexpr (Sum::kPairs) {  // rounded once: each of a column's lanes would do it again
    const Index size = p.out.m * p.k;
    const DeviceScratch<float> a(device, size);
    map(device, RoundOperand{a.data(), p.a}, size);
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
