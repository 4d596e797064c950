// What the kernels of matrix products share: their operands, which tile a block works on, and the
// way of a sum to C: added to what is there, then + bias, then + residual, then the activation.
// Cost of the way out: 4 bytes written per element of C, 4 read of each operand given; with an
// activation 4 more written and 4 read back, of what the same thread has just written.
#pragma once

#include <plumb/core/bf16.hpp>
#include <plumb/cuda/elementwise.cuh>
#include <plumb/math/activation.hpp>
#include <plumb/math/bf16.hpp>
#include <plumb/math/gemm.hpp>

#include <cstdint>

namespace plumb { inline namespace v0_1 {
namespace kernels {
namespace gpu {

inline constexpr int kGemmChunk = 256;  // the CPU's kChunk

/// f of four values.
template <Activation f>
__device__ inline float4 activation4(float4 x) {
  return {activation<f>(x.x), activation<f>(x.y), activation<f>(x.z), activation<f>(x.w)};
}
__device__ inline float4 activation4(Activation f, float4 x) {
  switch (f) {
    case Activation::Gelu: return activation4<Activation::Gelu>(x);
    case Activation::Silu: return activation4<Activation::Silu>(x);
    case Activation::Tanh: return activation4<Activation::Tanh>(x);
    case Activation::Relu: return activation4<Activation::Relu>(x);
    case Activation::GeluErf: return activation4<Activation::GeluErf>(x);
  }
  return x;
}
__device__ inline float4 add4(float4 a, float4 b) {
  return {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w};
}

/// bf16 is the upper half of a float. Stored as its bits: a shared array cannot have a constructor.
using Bf16Bits = std::uint16_t;
__device__ inline float from_bf16(std::uint32_t bits) { return __uint_as_float(bits << 16); }
__device__ inline float4 load_quad(const Bf16Bits* p, int count, bool) {
  float4 x{0.0F, 0.0F, 0.0F, 0.0F};
  if (count > 0) x.x = from_bf16(p[0]);
  if (count > 1) x.y = from_bf16(p[1]);
  if (count > 2) x.z = from_bf16(p[2]);
  if (count > 3) x.w = from_bf16(p[3]);
  return x;
}

/// What a product's sums are made of: the operands as they are, k ascending; or rounded to bf16 and
/// added in pairs of k, the second first (math/bf16.hpp), zeros where k ends amid a pair.
struct FloatSum {
  static constexpr bool kPairs = false;
  static __device__ float operand(float x) { return x; }
  static __device__ float add(float a, float b, float sum) { return fmaf(a, b, sum); }
};
struct Bf16Sum {
  static constexpr bool kPairs = true;
  static __device__ float operand(float x) {
    const float size = fabsf(x) < kLeastNormal ? x * 0.0F : x;
    return from_bf16(bf16_pair(size, 0.0F) & 0xffffU);
  }
  static __device__ float add(float a, float b, float sum) { return flushed_fma(a, b, sum); }
};
template <class Sum>
__device__ inline float4 operand4(float4 x) {
  return {Sum::operand(x.x), Sum::operand(x.y), Sum::operand(x.z), Sum::operand(x.w)};
}

/// Begins to copy 16 bytes to shared memory, elements from `left` on as zeros. `wide`: by
/// cp_async_16, none or all. What is not aligned is loaded and stored at once.
template <class T>
__device__ inline void copy16(T* to, const T* from, int left, bool wide) {
  if (wide) {
    cp_async_16(to, from, left > 0 ? 16 : 0);
    return;
  }
#pragma unroll
  for (int j = 0; j < 16 / static_cast<int>(sizeof(T)); ++j) to[j] = j < left ? from[j] : T{};
}

/// C and what happens to a sum on its way there. Threads own quads: four columns of a row.
struct ProductOutput {
  float* c;
  Index m, n;
  bool accumulate;
  bool wide;  ///< quads lie at 16-byte boundaries in C and the epilogue's matrices, and are whole
  Epilogue epilogue;

  __device__ int count(Index row, Index column) const {
    return row < m ? quad_count(n - column) : 0;
  }
  /// Adds a sum to what C holds (`add`) and stores it; if it is the last one, with bias and
  /// residual.
  __device__ void put(Index row, Index column, float4 x, bool add, bool last) const {
    const int left = count(row, column);
    if (left == 0) return;
    const Index at = row * n + column;
    if (add) x = add4(load_quad(c + at, left, wide), x);
    if (last && epilogue.bias != nullptr)
      x = add4(x, load_quad(epilogue.bias + column, left, wide));
    if (last && epilogue.residual != nullptr)
      x = add4(x, load_quad(epilogue.residual + at, left, wide));
    store_quad(c + at, x, left, wide);
  }
  /// f of a quad that this thread has put. Read back: a loop over quads, where the sums, being in
  /// registers, would have to be unrolled with f in each copy.
  __device__ void activate(Index row, Index column) const {
    const int left = count(row, column);
    if (left == 0) return;
    const Index at = row * n + column;
    const float4 x = load_quad(c + at, left, wide);
    store_quad(epilogue.activated + at, activation4(epilogue.activation, x), left, wide);
  }
};

/// A product's operands on the device; T is what B's elements are stored as.
template <class T>
struct Product {
  ProductOutput out;
  const float* a;
  const T* b;
  int k;
  bool a_wide,
      b_wide;  ///< quads along the contiguous direction are whole and at 16-byte boundaries
};

/// Which tile of C a block works on. Blocks go down 2^kGroupBits rows of tiles, then to the next
/// column, so that those that run side by side share both operands in the L2 cache; the last rows
/// of a group may not exist. Without a division, all of it stays in uniform registers.
struct TilePlace {
  unsigned row, column;  ///< in tiles
};
inline constexpr int kMaxGroupBits = 3;
__device__ inline TilePlace tile_place(int group_bits) {
  return {blockIdx.y << group_bits | (blockIdx.x & ((1U << group_bits) - 1U)),
          blockIdx.x >> group_bits};
}

/// Packed values as kernels see them.
inline const float* stored(const float* packed) { return packed; }
inline const Bf16Bits* stored(const bf16* packed) {
  return reinterpret_cast<const Bf16Bits*>(packed);
}

/// What kernels are told of a product. T is float or Bf16Bits.
template <class T>
Product<T> product(float* c, const float* a, const T* b, Index m, Index n, Index k, Form form,
                   bool accumulate, Epilogue epilogue) {
  constexpr Index kVector = 16 / static_cast<Index>(sizeof(T));
  const bool wide_c = n % 4 == 0 && at_16_bytes(c) && at_16_bytes(epilogue.bias) &&
                      at_16_bytes(epilogue.residual) && at_16_bytes(epilogue.activated);
  check(k < (Index{1} << 30), "[matmul] inner dimension of 2^30 or more");
  return {{c, m, n, accumulate, wide_c, epilogue},
          a,
          b,
          static_cast<int>(k),
          (form == Form::TN ? m : k) % 4 == 0 && at_16_bytes(a),
          (form == Form::NT ? k : n) % kVector == 0 && at_16_bytes(b)};
}

/// The grid of tile_place, and its group_bits.
struct TileGrid {
  dim3 blocks;
  int group_bits = 0;
};
inline TileGrid tile_grid(Index m, Index n, Index tile) {
  const Index rows = (m + tile - 1) / tile, columns = (n + tile - 1) / tile;
  TileGrid grid;
  while (grid.group_bits < kMaxGroupBits && rows >> grid.group_bits > 1) ++grid.group_bits;
  const Index x = columns << grid.group_bits;
  const Index y = (rows + (Index{1} << grid.group_bits) - 1) >> grid.group_bits;
  check(x < (Index{1} << 31) && y < 65536, "[matmul] more tiles of C than a grid holds");
  grid.blocks = dim3(static_cast<unsigned>(x), static_cast<unsigned>(y));
  return grid;
}

}  // namespace gpu
}  // namespace kernels
}}  // namespace plumb::v0_1
