// The exact products' tiles of shared memory and registers, all forms; tiling as in Volkov and
// Demmel 2008, "Benchmarking GPUs to tune dense linear algebra". Order of reduction: gemm.cuh.
// Tiles of T × T, T = 128 or 64, each by 256 threads of (T/16)² elements:
//   Global memory: 4·M·N·K·(1/T + 1/T) bytes of operands + 8·M·N for every chunk after the first
//   (the total waits in C) + 4·M·N: about T/4 FLOP/B before any cache, 32 at T = 128. Tiles that
//   run side by side share rows and columns through the L2 cache: 8 × 8 tiles of 128 read from DRAM
//   what one of 1024 would, 256 FLOP/B.
//   Shared memory: for each k a thread reads 2·T/16 floats for (T/16)² FMAs, 1 byte per FMA at T =
//   128 and 2 at 64; of a warp's 4 × 8 threads many ask for the same 16 bytes, which are read once.
//   Bound: an A100 (19.5 TFLOP/s, 1.55 to 2.0 TB/s) needs 10 to 13 FLOP/B, an H100 (67, 3.35) needs
//   20: with T = 128 both are bound by FMAs.
// Where C has fewer tiles than an H100 multiprocessors, the chunks of a tile go to blocks of their
// own, and a second kernel adds their sums in order: 4·M·N bytes written for every chunk and as
// many read, from at most kPartialTiles tiles at a time, 6.2 MiB, which the L2 cache holds (A100:
// 40 MB, H100: 50 MB).
#pragma once

#include <plumb/cuda/gemm_output.cuh>
#include <plumb/math/gemm.hpp>

#include <algorithm>

namespace plumb { inline namespace v0_1 {
namespace kernels {
namespace gpu {

inline constexpr int kTileThreads = 256;

/// One thread's part in copying an operand to shared memory as [k][row]: a quad of each tile.
template <class Sum, class T, int kTile, int kDepth, bool kAlongK>
class OperandQuad {
  static_assert(kTile * kDepth == 4 * kTileThreads);

 public:
  /// The operand is (rows, k) if kAlongK, else (k, rows), contiguous; its k from `begin` to `end`.
  __device__ OperandQuad(const T* operand, Index first_row, Index rows, int k, int begin, int end,
                         bool wide)
      : wide_(wide), end_(end) {
    const int thread = static_cast<int>(threadIdx.x);
    if constexpr (kAlongK) {
      // 16 rows × 8 k a warp: whole sectors of 32 bytes, and stores to 32 different banks, rows of
      // k being 16 banks apart four by four.
      row_ = thread / 2 % kTile;
      first_k_ = thread / (2 * kTile) * 8 + thread % 2 * 4;
      count_ = first_row + row_ < rows ? 4 : 0;
      from_ = operand + (first_row + row_) * static_cast<Index>(k) + begin + first_k_;
      step_ = kDepth;
    } else {
      row_ = thread % (kTile / 4) * 4;
      first_k_ = thread / (kTile / 4);
      count_ = quad_count(rows - first_row - row_);
      from_ = operand + (begin + first_k_) * rows + first_row + row_;
      step_ = kDepth * rows;
    }
  }

  /// Begins to read the next tile, which begins at k0; store() awaits it.
  __device__ void load(int k0) {
    const int left = end_ - k0 - first_k_;
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
  int end_, row_, first_k_, count_;
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

/// The k of the blocks with blockIdx.z = 0; those of z = 1 are the `size` after them, and so on.
/// All of k, or one chunk.
struct KRange {
  int first, size;
};

/// A tile of kTile × kTile, of matrix blockIdx.z of C. Two buffers in shared memory: while one is
/// multiplied, registers take what the next will hold. k is never padded but to a pair: fma(0, 0,
/// -0) is +0, and a sum that underflowed may be -0. n: columns of B; C may have more.
template <class Sum, Form form, int kTile, class T>
__global__ void __launch_bounds__(kTileThreads, kTile == 128 ? 2 : 3)
    tile_kernel(Product<T> p, KRange range, Index n, int group_bits) {
  constexpr int kDepth = 4 * kTileThreads / kTile;
  __shared__ __align__(16) float a_tiles[2][kDepth][kTile + 4];
  __shared__ __align__(16) float b_tiles[2][kDepth][kTile + 4];
  const TilePlace tile = tile_place(group_bits);
  if (Index{tile.row} * kTile >= p.out.m) return;  // the whole block
  int k = range.first + static_cast<int>(blockIdx.z) * range.size;
  const int end = p.k - k < range.size ? p.k : k + range.size;
  p.out.c += Index{blockIdx.z} * p.out.m * p.out.n;
  OperandQuad<Sum, float, kTile, kDepth, form != Form::TN> a(p.a, Index{tile.row} * kTile, p.out.m,
                                                             p.k, k, end, p.a_wide);
  OperandQuad<Sum, T, kTile, kDepth, form == Form::NT> b(p.b, Index{tile.column} * kTile, n, p.k, k,
                                                         end, p.b_wide);
  TileSums<Sum, kTile / 64> sums;
  a.load(k);
  b.load(k);
  a.store(a_tiles[0]);
  b.store(b_tiles[0]);
  __syncthreads();
  int now = 0, chunk_end = k;
  bool add = p.out.accumulate;
  do {  // k = 0 is one empty chunk
    chunk_end = end - chunk_end < kGemmChunk ? end : chunk_end + kGemmChunk;
#pragma unroll 1
    for (; k < chunk_end; k += kDepth, now ^= 1) {
      const bool more = k + kDepth < end;
      if (more) {
        a.load(k + kDepth);
        b.load(k + kDepth);
      }
      if (k + kDepth <= end) {
#pragma unroll(kTile == 128 ? 2 : kDepth)  // 4 would take more than 128 registers
        for (int i = 0; i < kDepth; ++i) sums.add(a_tiles[now][i], b_tiles[now][i]);
      } else {
#pragma unroll 1
        for (int i = 0; i < end - k + (Sum::kPairs ? (end - k) % 2 : 0); ++i)
          sums.add(a_tiles[now][i], b_tiles[now][i]);
      }
      if (more) {
        a.store(a_tiles[now ^ 1]);
        b.store(b_tiles[now ^ 1]);
      }
      __syncthreads();
    }
    sums.put(p.out, tile, add, k >= end);
    add = true;
  } while (k < end);
  if (p.out.epilogue.activated != nullptr) sums.activate(p.out, tile);
}

/// Large tiles from so many elements on: 64 tiles, more than half of an A100's or H100's SMs.
inline constexpr Index kLargeTilesFrom = 64 * 128 * 128;

template <class Sum, Form form, int kTile, class T>
void launch_tile(Cuda device, const Product<T>& p) {
  const TileGrid grid = tile_grid(p.out.m, p.out.n, kTile);
  PLUMB_LAUNCH((tile_kernel<Sum, form, kTile, T>), grid.blocks, kTileThreads, 0, device.stream, p,
               KRange{0, p.k}, p.out.n, grid.group_bits);
}

/// Tiles of 64 × 64 with fewer of them than this are split by chunks of k: an H100's
/// multiprocessors.
inline constexpr Index kSplitBelow = 132;
/// Tiles of chunks at once: as many blocks of 256 threads as those multiprocessors hold.
inline constexpr Index kPartialTiles = 3 * kSplitBelow;

/// How a product is split: 0 chunks at once if it is not.
struct Split {
  Index chunks, at_once;
};
inline Split split_of(Index m, Index n, Index k) {
  const Index tiles = ((m + 63) / 64) * ((n + 63) / 64);
  const Index chunks = (k + kGemmChunk - 1) / kGemmChunk;
  if (tiles >= kSplitBelow || chunks < 2) return {chunks, 0};
  return {chunks, std::min(chunks, kPartialTiles / tiles)};
}

/// C + the sums of chunks, in order; if they are the last ones, with the epilogue. partials
/// (chunks, M, columns), columns being N rounded up to a quad. A thread a quad of C, a block some
/// of a row.
template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    add_partials_kernel(ProductOutput out, const float* partials, Index columns, int chunks,
                        bool last) {
  const Index row = blockIdx.y;
  const Index column = (static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x) * 4;
  const int left = out.count(row, column);
  if (left == 0) return;
  const float* from = partials + row * columns + column;
  float4 x = load4(from);
  if (out.accumulate) x = add4(load_quad(out.c + row * out.n + column, left, out.wide), x);
#pragma unroll 4
  for (int chunk = 1; chunk < chunks; ++chunk) x = add4(x, load4(from + chunk * (out.m * columns)));
  out.put(row, column, x, false, last);
  if (last && out.epilogue.activated != nullptr) out.activate(row, column);
}
inline constexpr int kPartialThreads = 64;

template <class Sum, Form form, class T>
void launch_split(Cuda device, const Product<T>& p, Split split) {
  const Index m = p.out.m, n = p.out.n, columns = (n + 3) / 4 * 4;
  const DeviceScratch<float> partials(device, split.at_once * m * columns);
  Product<T> part = p;
  part.out = {partials.data(), m, columns, false, true, {}};
  ProductOutput out = p.out;
  for (Index first = 0; first < split.chunks; first += split.at_once, out.accumulate = true) {
    const Index chunks = std::min(split.at_once, split.chunks - first);
    TileGrid grid = tile_grid(m, n, 64);
    grid.blocks.z = static_cast<unsigned>(chunks);
    PLUMB_LAUNCH((tile_kernel<Sum, form, 64, T>), grid.blocks, kTileThreads, 0, device.stream, part,
                 KRange{static_cast<int>(first * kGemmChunk), kGemmChunk}, n, grid.group_bits);
    PLUMB_LAUNCH((add_partials_kernel<kPartialThreads>),
                 dim3(blocks_for(columns / 4, kPartialThreads), static_cast<unsigned>(m)),
                 kPartialThreads, 0, device.stream, out, partials.data(), columns,
                 static_cast<int>(chunks), first + chunks == split.chunks);
  }
}

template <class Sum, Form form, class T>
void launch_tiles(Cuda device, const Product<T>& p) {
  if (p.out.m * p.out.n >= kLargeTilesFrom) return launch_tile<Sum, form, 128>(device, p);
  const Split split = split_of(p.out.m, p.out.n, p.k);
  if (split.at_once == 0) return launch_tile<Sum, form, 64>(device, p);
  launch_split<Sum, form>(device, p, split);
}

}  // namespace gpu
}  // namespace kernels
}}  // namespace plumb::v0_1
