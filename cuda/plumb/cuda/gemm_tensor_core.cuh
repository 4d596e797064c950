// Matrix products on tensor cores (PTX's mma.sync): operands rounded on their way into shared
// memory, to bf16
// (8 bits: CudaTensorCore) or tf32 (11 bits: CudaTf32); sums, bias, residual and activation in
// float. Few rows: gemm_tensor_few_rows.cuh. Not here: Hopper's wgmma and TMA.
// Order of reduction: one chain over k of mma instructions, 16 (bf16) or 8 (tf32) k each,
// ascending, k padded with zeros to a multiple of 32 or 16; then to C's old value. The order within
// an instruction is the hardware's. No tile shape changes the chain, so a row's result does not
// depend on how many others there are, provided that the hardware treats the rows of an instruction
// alike.
//
// Cost: 2·M·N·K FLOPs by tiles of T × T, T = 128 or 64, four warps with a quarter each.
//   Global memory: 4·M·N·K·(1/T + 1/T) + 4·M·N bytes: T/4 FLOP/B before any cache, 32 at T = 128;
//   with B packed as bf16 43. From DRAM, 8 × 8 tiles side by side: 256.
//   Instructions per warp, T = 128 and 32 k of bf16: 16 loads of 16 bytes a lane, 32 roundings of a
//   pair, 16 stores of 8 bytes; 16 ldmatrix; 64 mma of 4096 FLOPs. Rounding when fragments are
//   loaded instead would round each value twice and read twice the bytes.
//   Shared memory per 32 k: 16 KiB written and 32 read for 1 MFLOP: 384 cycles of 128 bytes. The
//   tensor cores of an A100 (2048 FLOPs per SM and cycle) take 512, an H100's (4096) 256.
//   Bound: an A100 (312 TFLOP/s) would need 9.8 TB/s from its L2 cache, which gives 7.2 (5120 bytes
//   a cycle at
//   1.41 GHz): at most 74 % of the peak, with packed B 99 %. An H100 (990 TFLOP/s, which takes
//   wgmma) is bound by shared memory and the L2 cache. tf32: half the FLOPs for the same bytes of
//   shared memory.
#pragma once

#include <plumb/cuda/gemm.cuh>
#include <plumb/cuda/gemm_tensor_few_rows.cuh>
#include <plumb/math/gemm.hpp>

namespace plumb { inline namespace v0_1 {
namespace kernels {

namespace gpu {

/// A tile of an operand in shared memory, rows being those of A or columns of B. Stored along k:
/// lines of 64 bytes, a row each, whose four chunks of 16 bytes are swapped by an exclusive or with
/// the line's number. Across k: lines of kRows elements, a k each, 4 banks (tf32: 8) more than a
/// multiple of 32 apart. Both put the 8 chunks of an ldmatrix, or of a phase of stores, into
/// different banks.
template <class E, int kRows, bool kAlongK>
struct SharedOperand {
  static constexpr int kLineWords = kAlongK ? 16 : E::kPerChunk == 8 ? kRows / 2 + 4 : kRows + 8;
  static constexpr int kLines = kAlongK ? kRows : E::kDepth;

  std::uint32_t words[kLines * kLineWords];

  static __device__ int place(int line, int chunk) {
    return line * kLineWords + (kAlongK ? chunk ^ (line / 2 % 4) : chunk) * 4;
  }
  /// Rounds four elements of a line from `first` on.
  __device__ void store(int line, int first, float4 x) {
    if constexpr (E::kPerChunk == 8)
      store2(&words[place(line, first / 8) + first % 8 / 2], bf16_pair(x.x, x.y),
             bf16_pair(x.z, x.w));
    else
      store4(reinterpret_cast<float*>(&words[place(line, first / 4)]),
             {__uint_as_float(to_tf32(x.x)), __uint_as_float(to_tf32(x.y)),
              __uint_as_float(to_tf32(x.z)), __uint_as_float(to_tf32(x.w))});
  }
  /// 16 rows from `row`, a multiple of 16, × one instruction's k. As A's fragment: rows 0 to 7 and
  /// 8 to 15 of the lower half of k, then of the upper; as B's two: both halves of k of columns 0
  /// to 7, then 8 to 15.
  template <bool kOfB>
  __device__ void fragment(std::uint32_t (&r)[4], int row, int step) const {
    const int l = lane();
    // The 8 × 8 matrices' lines, which lane l gives the address of, and their chunks.
    const bool lines_first = kOfB != kAlongK;
    const int line = lines_first ? l % 16 : l % 8 + l / 16 * 8,
              chunk = lines_first ? l / 16 : l / 8 % 2;
    if constexpr (kAlongK) {
      ldmatrix_x4(r, &words[row * kLineWords + place(line, 2 * step + chunk)]);
    } else if constexpr (E::kPerChunk == 8) {
      ldmatrix_x4_transposed(r, &words[16 * step * kLineWords + row / 2 + place(line, chunk)]);
    } else {  // ldmatrix transposes 16 bits only
      const std::uint32_t* from = &words[(8 * step + l % 4) * kLineWords + row + l / 4];
      r[0] = from[0];
      r[kOfB ? 2 : 1] = from[8];
      r[kOfB ? 1 : 2] = from[4 * kLineWords];
      r[3] = from[4 * kLineWords + 8];
    }
  }
};

/// One thread's part in staging an operand: kQuads quads of each tile, through registers.
template <class E, class T, int kRows, bool kAlongK, int kThreads>
class OperandStage {
 public:
  static constexpr bool kAsync = false;
  using Shared = SharedOperand<E, kRows, kAlongK>;

  __device__ OperandStage(const T* operand, Index first_row, Index rows, int k, bool wide)
      : k_(k), wide_(wide) {
    const int thread = static_cast<int>(threadIdx.x);
    line_ = thread / kPerLine;
    first_ = thread % kPerLine * 4;
    const Index left = rows - first_row;
    if constexpr (kAlongK) {
#pragma unroll
      for (int i = 0; i < kQuads; ++i)
        if (line_ + i * kLinesApart < left) inside_ |= 1U << i;
    } else {
      count_ = quad_count(left - first_);
    }
    const Index line_size = kAlongK ? k : rows;
    from_ = operand + line_ * line_size + first_ + (kAlongK ? first_row * k : first_row);
    apart_ = kLinesApart * line_size;
    step_ = kAlongK ? E::kDepth : E::kDepth * rows;
  }
  /// Begins to read the next tile, which begins at k0; store() awaits it.
  __device__ void load(int k0) {
    const int count = kAlongK ? quad_count(k_ - k0 - first_) : count_;
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      const bool inside = kAlongK ? (inside_ >> i & 1U) != 0 : k0 + line_ + i * kLinesApart < k_;
      quads_[i] = load_quad(from_, inside ? count : 0, wide_);
      from_ += apart_;
    }
    from_ += step_ - kQuads * apart_;
  }
  __device__ void store(Shared& to) const {
#pragma unroll
    for (int i = 0; i < kQuads; ++i) to.store(line_ + i * kLinesApart, first_, quads_[i]);
  }

 private:
  static constexpr int kPerLine = (kAlongK ? E::kDepth : kRows) / 4;  // quads
  static constexpr int kQuads = kRows * E::kDepth / 4 / kThreads;
  static constexpr int kLinesApart = kThreads / kPerLine;
  static_assert(kThreads % kPerLine == 0 && kQuads * kThreads * 4 == kRows * E::kDepth);

  float4 quads_[kQuads];
  const T* from_;
  Index apart_, step_;
  int k_, line_, first_, count_ = 0;
  unsigned inside_ = 0;  ///< bit i: the line of quad i exists
  bool wide_;
};

/// The same of B packed as bf16, along k: copied as it is, asynchronously where it is aligned.
template <int kRows, int kThreads>
class PackedStage {
 public:
  static constexpr bool kAsync = true;
  using Shared = SharedOperand<Bf16Operand, kRows, true>;

  __device__ PackedStage(const Bf16Bits* operand, Index first_row, Index rows, int k, bool wide)
      : from_(operand + first_row * k), k_(k), wide_(wide) {
    const Index left = rows - first_row;
    rows_ = left < kRows ? static_cast<int>(left) : kRows;
  }
  __device__ void copy(Shared& to, int k0) const {
#pragma unroll
    for (int i = 0; i < kRows * 4 / kThreads; ++i) {
      const int unit = static_cast<int>(threadIdx.x) + i * kThreads;
      const int row = unit / 4, at = k0 + unit % 4 * 8;
      const int left = row < rows_ ? k_ - at : 0;
      copy16(reinterpret_cast<Bf16Bits*>(&to.words[Shared::place(row, unit % 4)]),
             from_ + (left > 0 ? static_cast<Index>(row) * k_ + at : 0), left, wide_);
    }
  }

 private:
  const Bf16Bits* from_;
  int k_, rows_;
  bool wide_;
};

inline constexpr int kTensorThreads = 128;  // four warps, each a quarter of a tile

template <class E, Form form, int kTile, class T>
struct TensorTile {
  static constexpr int kWarpRows = kTile / 2, kWarpColumns = kTile / 2;
  static constexpr int kSteps = E::kDepth / E::kStep;
  static constexpr bool kPacked = std::is_same_v<T, Bf16Bits> && std::is_same_v<E, Bf16Operand>;
  static constexpr int kStages = kPacked ? 3 : 2;
  using A = OperandStage<E, float, kTile, form != Form::TN, kTensorThreads>;
  using B = std::conditional_t<kPacked, PackedStage<kTile, kTensorThreads>,
                               OperandStage<E, T, kTile, form == Form::NT, kTensorThreads>>;
  struct Stage {
    typename A::Shared a;
    typename B::Shared b;
  };

  float sum[kWarpRows / 16][kWarpColumns / 8][4] = {};
  int row, column;  ///< of the warp, in the tile

  __device__ TensorTile() {
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    row = warp / 2 * kWarpRows;
    column = warp % 2 * kWarpColumns;
  }
  /// One instruction's k for all elements.
  __device__ void add(const Stage& from, int step) {
    std::uint32_t b[kWarpColumns / 16][4];
#pragma unroll
    for (int j = 0; j < kWarpColumns / 16; ++j)
      from.b.template fragment<true>(b[j], column + 16 * j, step);
#pragma unroll
    for (int i = 0; i < kWarpRows / 16; ++i) {
      std::uint32_t a[4];
      from.a.template fragment<false>(a, row + 16 * i, step);
#pragma unroll
      for (int j = 0; j < kWarpColumns / 8; ++j) {
        const std::uint32_t pair[2] = {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]};
        E::multiply(sum[i][j], a, pair);
      }
    }
  }
  /// A loop in which rows move up, as in TileSums.
  __device__ void put(const ProductOutput& out, TilePlace tile) {
#pragma unroll 1
    for (int i = 0; i < kWarpRows / 16; ++i) {
#pragma unroll
      for (int j = 0; j < kWarpColumns / 8; ++j)
        put_fragment(out, Index{tile.row} * kTile + row + 16 * i,
                     Index{tile.column} * kTile + column + 8 * j, sum[0][j]);
#pragma unroll
      for (int r = 0; r + 1 < kWarpRows / 16; ++r)
#pragma unroll
        for (int j = 0; j < kWarpColumns / 8; ++j)
#pragma unroll
          for (int e = 0; e < 4; ++e) sum[r][j][e] = sum[r + 1][j][e];
    }
    if (out.epilogue.activated == nullptr) return;
#pragma unroll 1
    for (int i = 0; i < kWarpRows / 16 * (kWarpColumns / 8); ++i)
      activate_fragment(out, Index{tile.row} * kTile + row + i / (kWarpColumns / 8) * 16,
                        Index{tile.column} * kTile + column + i % (kWarpColumns / 8) * 8);
  }
};

/// A tile of kTile × kTile. While one tile of operands is multiplied, A's next is read to registers
/// during the first half of the instructions, B's during the second, so that half the registers do;
/// packed B comes by asynchronous copies, two tiles ahead.
template <class E, Form form, int kTile, class T>
__global__ void __launch_bounds__(kTensorThreads, 2)
    tensor_tile_kernel(Product<T> p, int group_bits) {
  using Tile = TensorTile<E, form, kTile, T>;
  constexpr int kStages = Tile::kStages, kDepth = E::kDepth;
  __shared__ __align__(16) typename Tile::Stage stages[kStages];
  const TilePlace place = tile_place(group_bits);
  if (Index{place.row} * kTile >= p.out.m) return;  // the whole block
  typename Tile::A a(p.a, Index{place.row} * kTile, p.out.m, p.k, p.a_wide);
  typename Tile::B b(p.b, Index{place.column} * kTile, p.out.n, p.k, p.b_wide);
  Tile tile;
  if constexpr (Tile::B::kAsync) {
#pragma unroll
    for (int s = 0; s < kStages - 1; ++s) {
      if (s * kDepth < p.k) b.copy(stages[s].b, s * kDepth);
      cp_async_commit();
    }
    cp_async_wait<kStages - 2>();
  } else {
    b.load(0);
    b.store(stages[0].b);
  }
  a.load(0);
  a.store(stages[0].a);
  __syncthreads();
  int now = 0, next = 1;
#pragma unroll 1
  for (int k = 0; k < p.k; k += kDepth) {
    const bool more = k + kDepth < p.k;
    if (more) a.load(k + kDepth);
    if constexpr (Tile::B::kAsync) {
      if (const int ahead = k + (kStages - 1) * kDepth; ahead < p.k)
        b.copy(stages[now == 0 ? kStages - 1 : now - 1].b, ahead);
      cp_async_commit();
    }
    tile.add(stages[now], 0);
    if (more) a.store(stages[next].a);
    if constexpr (!Tile::B::kAsync)
      if (more) b.load(k + kDepth);
    tile.add(stages[now], 1);
    if constexpr (!Tile::B::kAsync)
      if (more) b.store(stages[next].b);
    if constexpr (Tile::B::kAsync) cp_async_wait<kStages - 2>();
    __syncthreads();
    now = next;
    next = next + 1 == kStages ? 0 : next + 1;
  }
  tile.put(p.out, place);
}

template <class E, Form form, int kTile, class T>
void launch_tensor_tile(Cuda device, const Product<T>& p) {
  const TileGrid grid = tile_grid(p.out.m, p.out.n, kTile);
  PLUMB_LAUNCH((tensor_tile_kernel<E, form, kTile, T>), grid.blocks, kTensorThreads, 0,
               device.stream, p, grid.group_bits);
}
template <class E, Form form, class T>
void launch_tensor_tiles(Cuda device, const Product<T>& p) {
  if (p.out.m * p.out.n >= kLargeTilesFrom)
    launch_tensor_tile<E, form, 128>(device, p);
  else
    launch_tensor_tile<E, form, 64>(device, p);
}
template <class E, class T>
void launch_tensor_nt(Cuda device, const Product<T>& p) {
  if (p.out.m <= kTensorFewRows)
    launch_tensor_few_rows<E>(device, p);
  else
    launch_tensor_tiles<E, Form::NT>(device, p);
}

template <class E>
void tensor_matmul(Cuda device, float* c, const float* a, const float* b, Index m, Index n, Index k,
                   Form form, bool accumulate, Epilogue epilogue) {
  if (m == 0 || n == 0) return;
  const auto p = product(c, a, b, m, n, k, form, accumulate, epilogue);
  switch (form) {
    case Form::NN: return launch_tensor_tiles<E, Form::NN>(device, p);
    case Form::NT: return launch_tensor_nt<E>(device, p);
    case Form::TN: return launch_tensor_tiles<E, Form::TN>(device, p);
  }
}
template <class E, class T>
void tensor_matmul_packed(Cuda device, float* c, const float* a, const T* packed, Index m, Index n,
                          Index k, Epilogue epilogue) {
  if (m == 0 || n == 0) return;
  launch_tensor_nt<E>(device, product(c, a, stored(packed), m, n, k, Form::NT, false, epilogue));
}

}  // namespace gpu

/// As matmul(Cuda, …), with each operand rounded to the nearest bf16 and sums in float.
inline void matmul(CudaTensorCore device, float* c, const float* a, const float* b, Index m,
                   Index n, Index k, Form form, bool accumulate, Epilogue epilogue) {
  gpu::tensor_matmul<gpu::Bf16Operand>(device, c, a, b, m, n, k, form, accumulate, epilogue);
}
/// As matmul(Cuda, …), with each operand rounded to the nearest tf32 and sums in float.
inline void matmul(CudaTf32 device, float* c, const float* a, const float* b, Index m, Index n,
                   Index k, Form form, bool accumulate, Epilogue epilogue) {
  gpu::tensor_matmul<gpu::Tf32Operand>(device, c, a, b, m, n, k, form, accumulate, epilogue);
}
/// The bits of matmul in the form NT, B packed as float or bf16: in the mode CudaTensorCore the
/// same.
template <class T>
void matmul_packed(CudaTensorCore device, float* c, const float* a, const T* packed, Index m,
                   Index n, Index k, Epilogue epilogue) {
  gpu::tensor_matmul_packed<gpu::Bf16Operand>(device, c, a, packed, m, n, k, epilogue);
}
template <class T>
void matmul_packed(CudaTf32 device, float* c, const float* a, const T* packed, Index m, Index n,
                   Index k, Epilogue epilogue) {
  gpu::tensor_matmul_packed<gpu::Tf32Operand>(device, c, a, packed, m, n, k, epilogue);
}

}  // namespace kernels
}}  // namespace plumb::v0_1
