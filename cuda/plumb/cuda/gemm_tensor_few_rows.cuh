// The tensor-core product of up to 16 rows, form NT: a decoding step. Order of reduction: that of
// gemm_tensor_core.cuh, so a token has the same logits here as in a batch.
// Cost: 2·M·N·K FLOPs, for which B is read once: 4·N·K bytes, or 2·N·K packed as bf16: M/2 or M
// FLOP/B, far below an A100's 156 to 200 or an H100's 295: bound by reading B, and by waiting for
// it where N is small, as k is not split: N/32 blocks.
#pragma once

#include <plumb/cuda/gemm_output.cuh>

namespace plumb { inline namespace v0_1 {
namespace kernels {

namespace gpu {

/// What operands are rounded to: elements per 16 bytes, k per mma instruction, k per tile, and how
/// the registers of a fragment are made of two consecutive k (bf16) or two that are four apart
/// (tf32).
struct Bf16Operand {
  static constexpr int kPerChunk = 8, kStep = 16, kDepth = 32;
  static __device__ void multiply(float (&d)[4], const std::uint32_t (&a)[4],
                                  const std::uint32_t (&b)[2]) {
    mma_bf16(d, a, b);
  }
  /// The lane's part of a row's 16 k from `row` on: k 2q, 2q + 1 and 2q + 8, 2q + 9, q = lane % 4.
  static __device__ void load(std::uint32_t& low, std::uint32_t& high, const float* row) {
    const float2 x = load2(row + lane() % 4 * 2), y = load2(row + lane() % 4 * 2 + 8);
    low = bf16_pair(x.x, x.y);
    high = bf16_pair(y.x, y.y);
  }
  static __device__ void load(std::uint32_t& low, std::uint32_t& high, const Bf16Bits* row) {
    const auto* words = reinterpret_cast<const std::uint32_t*>(row);
    low = words[lane() % 4];
    high = words[lane() % 4 + 4];
  }
};
struct Tf32Operand {
  static constexpr int kPerChunk = 4, kStep = 8, kDepth = 16;
  static __device__ void multiply(float (&d)[4], const std::uint32_t (&a)[4],
                                  const std::uint32_t (&b)[2]) {
    mma_tf32(d, a, b);
  }
  static __device__ void load(std::uint32_t& low, std::uint32_t& high, const float* row) {
    low = to_tf32(row[lane() % 4]);
    high = to_tf32(row[lane() % 4 + 4]);
  }
  static __device__ void load(std::uint32_t& low, std::uint32_t& high, const Bf16Bits* row) {
    low = static_cast<std::uint32_t>(row[lane() % 4]) << 16;  // a bf16 is a tf32
    high = static_cast<std::uint32_t>(row[lane() % 4 + 4]) << 16;
  }
};

/// The place in C of a lane's quad of a 16 × 8 fragment, after neighbours have swapped halves: rows
/// of 32 bytes are stored by two lanes with 16 bytes each, where the fragment's own layout has four
/// with 8.
struct FragmentPlace {
  int row = lane() / 4 + lane() % 2 * 8, column = lane() % 4 / 2 * 4;
};
/// All lanes call it.
__device__ inline void put_fragment(const ProductOutput& out, Index row, Index column,
                                    const float (&d)[4]) {
  const bool odd = lane() % 2 != 0;
  const float x = __shfl_xor_sync(kAllLanes, odd ? d[0] : d[2], 1);
  const float y = __shfl_xor_sync(kAllLanes, odd ? d[1] : d[3], 1);
  const FragmentPlace place;
  out.put(row + place.row, column + place.column,
          odd ? float4{x, y, d[2], d[3]} : float4{d[0], d[1], x, y}, out.accumulate, true);
}
__device__ inline void activate_fragment(const ProductOutput& out, Index row, Index column) {
  const FragmentPlace place;
  out.activate(row + place.row, column + place.column);
}

inline constexpr Index kTensorFewRows = 16;

/// 16 rows × 32 columns: four warps of 8 columns. Pieces of 64 k come as they are by asynchronous
/// copies, two
/// (three of bf16) under way while one is multiplied, 16 KiB (12) of B; they are rounded as
/// fragments are loaded: a value of B once, of A by each warp. Lines are padded so that the 8 rows
/// of a fragment meet different banks.
template <class E, class T>
class TensorFewRows {
 public:
  static constexpr int kPiece = 64, kStages = sizeof(T) == 4 ? 3 : 4;
  static constexpr int kWarps = 4, kColumns = 8 * kWarps;
  static constexpr int kThreads = kWarp * kWarps;

  template <class V>
  static constexpr int kPad = sizeof(V) == 2 || E::kPerChunk == 8 ? 8 : 4;  // elements
  struct Stage {
    float a[16][kPiece + kPad<float>];
    T b[kColumns][kPiece + kPad<T>];
  };

  __device__ explicit TensorFewRows(const Product<T>& p)
      : p_(p), first_column_(static_cast<Index>(blockIdx.x) * kColumns) {}

  __device__ void run(Stage (&stages)[kStages]) {
    const int k_end = (p_.k + E::kDepth - 1) / E::kDepth * E::kDepth;  // as far as tiles go
#pragma unroll
    for (int s = 0; s < kStages - 1; ++s) {
      if (s * kPiece < p_.k) copy(stages[s], s * kPiece);
      cp_async_commit();
    }
    float sum[4] = {};
    int now = 0;
#pragma unroll 1
    for (int k0 = 0; k0 < k_end; k0 += kPiece) {
      cp_async_wait<kStages - 2>();
      __syncthreads();
      if (const int k = k0 + (kStages - 1) * kPiece; k < p_.k)
        copy(stages[(now + kStages - 1) % kStages], k);
      cp_async_commit();
#pragma unroll
      for (int k = 0; k < kPiece; k += E::kStep)
        if (k0 + k < k_end) add(sum, stages[now], k);
      now = (now + 1) % kStages;
    }
    const Index column = first_column_ + warp() * 8;
    put_fragment(p_.out, 0, column, sum);
    if (p_.out.epilogue.activated != nullptr) activate_fragment(p_.out, 0, column);
  }

 private:
  static __device__ int warp() { return static_cast<int>(threadIdx.x) / kWarp; }

  static __device__ void add(float (&sum)[4], const Stage& from, int k) {
    const int line = lane() / 4;
    std::uint32_t a[4], b[2];
    E::load(a[0], a[2], &from.a[line][k]);
    E::load(a[1], a[3], &from.a[line + 8][k]);
    E::load(b[0], b[1], &from.b[warp() * 8 + line][k]);
    E::multiply(sum, a, b);
  }

  /// Begins to copy the pieces that begin at k0.
  __device__ void copy(Stage& to, int k0) const {
    copy_lines<16>(to.a, p_.a, p_.out.m, k0, p_.a_wide);
    copy_lines<kColumns>(to.b, p_.b + first_column_ * p_.k, p_.out.n - first_column_, k0,
                         p_.b_wide);
  }
  template <int kLines, class V, int kLine>
  __device__ void copy_lines(V (&to)[kLines][kLine], const V* from, Index lines, int k0,
                             bool wide) const {
    constexpr int kVector = 16 / static_cast<int>(sizeof(V)), kUnits = kPiece / kVector;
#pragma unroll
    for (int i = 0; i < kLines * kUnits / kThreads; ++i) {
      const int unit = static_cast<int>(threadIdx.x) + i * kThreads;
      const int line = unit / kUnits, at = unit % kUnits * kVector;
      const int left = line < lines ? p_.k - k0 - at : 0;
      copy16(&to[line][at], from + (left > 0 ? static_cast<Index>(line) * p_.k + k0 + at : 0), left,
             wide);
    }
  }

  Product<T> p_;
  Index first_column_;
};

template <class E, class T>
__global__ void __launch_bounds__(TensorFewRows<E, T>::kThreads)
    tensor_few_rows_kernel(Product<T> p) {
  using Work = TensorFewRows<E, T>;
  __shared__ __align__(16) typename Work::Stage stages[Work::kStages];
  Work(p).run(stages);
}

template <class E, class T>
void launch_tensor_few_rows(Cuda device, const Product<T>& p) {
  using Work = TensorFewRows<E, T>;
  PLUMB_LAUNCH((tensor_few_rows_kernel<E, T>), blocks_for(p.out.n, Work::kColumns), Work::kThreads,
               0, device.stream, p);
}

}  // namespace gpu
}  // namespace kernels
}}  // namespace plumb::v0_1
