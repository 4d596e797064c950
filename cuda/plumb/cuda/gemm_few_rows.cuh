// The exact product of up to 16 rows, form NT: a decoding step. Order of reduction: that of
// gemm.cuh. Cost: 2·M·N·K FLOPs, for which B is read once: 4·N·K bytes, or 2·N·K as bf16. That is
// M/2 FLOP/B (M as bf16): below what an A100 (10 to 13) or an H100 (20) needs to be bound by FMAs:
// bound by reading B.
#pragma once

#include <plumb/cuda/gemm_output.cuh>
#include <plumb/math/gemm.hpp>

namespace plumb { inline namespace v0_1 {
namespace kernels {
namespace gpu {

/// In bf16 16 would not fit into registers.
template <class Sum>
inline constexpr Index kFewRows = Sum::kPairs ? 8 : 16;

/// Up to kRows rows of A times B (N, K); A holds what Sum makes of its operands already. A block is
/// one warp, a lane one chunk of one column: chunks are chains of their own, so `slots` of them (a
/// power of two) go side by side, and a column's are added in order by shuffles. That makes enough
/// lanes of a few thousand columns to keep the memory busy.
///
/// Per 32 k a warp copies 32 rows of B, 128 consecutive bytes each, and slots · kRows ≤ 32 rows of
/// A, which come from the L2 cache: its reads are slots · kRows / 32 of B's. kStages - 1 such
/// pieces of 4 KiB of B are under way in each of up to 5 (A100) or 8 (H100) blocks of an SM; to
/// cover 700 ns at 3.35 TB/s takes 18 KB per SM. Shared memory: 16 · (1 + kRows) bytes read for 4 ·
/// kRows FMAs, without bank conflicts.
template <class Sum, int kRows, class T>
class FewRows {
 public:
  static constexpr int kStep = 32, kStages = 3;  // k per piece; pieces in shared memory
  static constexpr int kVector = 16 / static_cast<int>(sizeof(T));  // elements of B per 16 bytes
  static constexpr int kStepsPerChunk = kGemmChunk / kStep;
  static constexpr bool kSwapped = sizeof(T) == 2;
  struct Piece {
    float a[kWarp][kStep + 4];
    T b[kWarp][kStep + (kSwapped ? 0 : kVector)];
  };

  __device__ FewRows(const Product<T>& p, int slots)
      : p_(p), slots_(slots), columns_(kWarp / slots), k_(p.k) {
    column_ = lane() % columns_;
    slot_ = lane() / columns_;
    first_column_ = static_cast<Index>(blockIdx.x) * columns_;
    chunks_ = k_ == 0 ? 1 : (k_ + kGemmChunk - 1) / kGemmChunk;  // k = 0 is one empty chunk
    rounds_ = (chunks_ + slots - 1) / slots;
#pragma unroll
    for (int i = 0; i < kCopiesA; ++i) {
      const int unit = lane() + i * kWarp, row = unit / kQuads / slots,
                slot = unit / kQuads % slots;
      const int at = slot * kGemmChunk + unit % kQuads * 4;
      a_at_[i] = row * k_ + at;
      a_left_[i] = row < p.out.m && row < kRows ? k_ - at : 0;
    }
#pragma unroll
    for (int i = 0; i < kCopiesB; ++i) {
      const int unit = lane() + i * kWarp, row = unit / kUnitsB;
      const int column = row % columns_,
                at = row / columns_ * kGemmChunk + unit % kUnitsB * kVector;
      b_at_[i] = column * k_ + at;
      b_left_[i] = first_column_ + column < p.out.n ? k_ - at : 0;
    }
  }

  /// Begins to copy the piece of step s.
  __device__ void copy(Piece& to, int s) const {
    const int k0 = s / kStepsPerChunk * slots_ * kGemmChunk + s % kStepsPerChunk * kStep;
    const T* b = p_.b + first_column_ * k_;
#pragma unroll
    for (int i = 0; i < kCopiesA; ++i) {
      const int unit = lane() + i * kWarp;
      float* place = &to.a[unit / kQuads][unit % kQuads * 4];
      const int left = a_left_[i] - k0;
      copy16(place, p_.a + (left > 0 ? a_at_[i] + k0 : 0), left, p_.a_wide);
    }
#pragma unroll
    for (int i = 0; i < kCopiesB; ++i) {
      const int unit = lane() + i * kWarp;
      T* place = &to.b[unit / kUnitsB][place_of(unit / kUnitsB, unit % kUnitsB)];
      const int left = b_left_[i] - k0;
      copy16(place, b + (left > 0 ? b_at_[i] + k0 : 0), left, p_.b_wide);
    }
  }

  __device__ void run(Piece (&pieces)[kStages]) {
    const int last_k0 = (rounds_ - 1) * slots_ * kGemmChunk;
    const int last_steps = (min(kGemmChunk, k_ - last_k0) + kStep - 1) / kStep;
    const int steps = (rounds_ - 1) * kStepsPerChunk + last_steps;
#pragma unroll
    for (int s = 0; s < kStages - 1; ++s) {
      if (s < steps) copy(pieces[s], s);
      cp_async_commit();
    }
    begin();
    int now = 0, next = kStages - 1;
    for (int round = 0, s = 0; round < rounds_; ++round) {
      float sum[kRows] = {};
      const int chunk_left = k_ - (round * slots_ + slot_) * kGemmChunk;
      for (int k0 = 0; k0 < kGemmChunk && s < steps; k0 += kStep, ++s) {
        cp_async_wait<kStages - 2>();
        __syncwarp();
        if (s + kStages - 1 < steps) copy(pieces[next], s + kStages - 1);
        cp_async_commit();
        multiply(sum, pieces[now], chunk_left - k0);
        now = now + 1 == kStages ? 0 : now + 1;
        next = next + 1 == kStages ? 0 : next + 1;
      }
      add_chunks(sum, round * slots_);
    }
    finish();
  }

 private:
  static constexpr int kQuads = kStep / 4, kUnitsB = kStep / kVector;
  static constexpr int kCopiesA = kQuads, kCopiesB = kUnitsB;  // by each lane

  static __device__ int min(int a, int b) { return a < b ? a : b; }

  /// Where a row's 16 bytes lie: lines of 64 bytes would meet the same banks every other row, so
  /// their quarters are swapped by an exclusive or with the row's number; longer ones are padded.
  static __device__ int place_of(int row, int unit) {
    return (kSwapped ? unit ^ (row / 2 % 4) : unit) * kVector;
  }
  static __device__ void vector_of(float (&x)[4], const float* from) {
    const float4 v = load4(from);
    x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
  }
  static __device__ void vector_of(float (&x)[8], const Bf16Bits* from) {
    const float4 v = load4(reinterpret_cast<const float*>(from));
    const float pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const std::uint32_t pair = __float_as_uint(pairs[j]);
      x[2 * j] = from_bf16(pair & 0xffffU);
      x[2 * j + 1] = __uint_as_float(pair & 0xffff0000U);
    }
  }

  /// This lane's steps of k in a piece, of which `left` remain in its chunk.
  __device__ void multiply(float (&sum)[kRows], const Piece& piece, int left) const {
    const float* a = piece.a[slot_];
    const T* b = piece.b[lane()];
#pragma unroll
    for (int k = 0; k < kStep; k += kVector) {
      float y[kVector];
      vector_of(y, b + place_of(lane(), k / kVector));
#pragma unroll
      for (int j = 0; j < kVector; ++j) y[j] = sizeof(T) == 2 ? y[j] : Sum::operand(y[j]);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int q = 0; q < kVector; q += 4) {
          float x[4];
          vector_of(x, a + r * slots_ * (kStep + 4) + k + q);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int j = Sum::kPairs ? i ^ 1 : i, begin = k + q + (Sum::kPairs ? i & ~1 : i);
            sum[r] = begin < left ? Sum::add(x[j], y[q + j], sum[r]) : sum[r];
          }
        }
      }
    }
  }

  /// The running totals: C's old values if accumulating.
  __device__ void begin() {
    have_ = p_.out.accumulate;
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      total_[r] = have_ && inside(r) ? p_.out.c[r * p_.out.n + first_column_ + column_] : 0.0F;
  }
  __device__ bool inside(int r) const { return r < p_.out.m && first_column_ + column_ < p_.out.n; }
  /// Adds the sums of chunks from `first` on, in order, in every lane of a column.
  __device__ void add_chunks(const float (&sum)[kRows], int first) {
    for (int slot = 0; slot < slots_ && first + slot < chunks_; ++slot) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float x = __shfl_sync(kAllLanes, sum[r], slot * columns_ + column_);
        total_[r] = have_ ? total_[r] + x : x;
      }
      have_ = true;
    }
  }
  /// The rows are shared out among a column's lanes.
  __device__ void finish() const {
    const Epilogue& e = p_.out.epilogue;
    const Index column = first_column_ + column_;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r % slots_ != slot_ || !inside(r)) continue;
      const Index at = r * p_.out.n + column;
      float x = total_[r];
      if (e.bias != nullptr) x = x + e.bias[column];
      if (e.residual != nullptr) x = x + e.residual[at];
      p_.out.c[at] = x;
    }
    if (e.activated == nullptr) return;
#pragma unroll 1
    for (int r = slot_; r < kRows; r += slots_) {
      if (!inside(r)) continue;
      const Index at = r * p_.out.n + column;
      e.activated[at] = activation4(e.activation, {p_.out.c[at], 0.0F, 0.0F, 0.0F}).x;
    }
  }

  Product<T> p_;
  int slots_, columns_, k_, column_, slot_, chunks_, rounds_;
  Index first_column_;
  int a_at_[kCopiesA], a_left_[kCopiesA], b_at_[kCopiesB], b_left_[kCopiesB];
  float total_[kRows];
  bool have_;
};

template <class Sum, int kRows, class T>
__global__ void __launch_bounds__(kWarp) few_rows_kernel(Product<T> p, int slots) {
  using Work = FewRows<Sum, kRows, T>;
  __shared__ __align__(16) typename Work::Piece pieces[Work::kStages];
  Work(p, slots).run(pieces);
}

template <class Sum, class T>
void launch_few_rows(Cuda device, const Product<T>& p) {
  const Index rows = p.out.m <= 4 ? 4 : p.out.m <= 8 ? 8 : 16;
  Index slots = 1;
  while (2 * slots * rows <= kWarp && slots * kGemmChunk < p.k) slots *= 2;
  const unsigned blocks = blocks_for(p.out.n, kWarp / slots);
  const int side_by_side = static_cast<int>(slots);
  if (rows == 4)
    PLUMB_LAUNCH((few_rows_kernel<Sum, 4, T>), blocks, kWarp, 0, device.stream, p, side_by_side);
  else if (rows == 8 || kFewRows<Sum> == 8)
    PLUMB_LAUNCH((few_rows_kernel<Sum, 8, T>), blocks, kWarp, 0, device.stream, p, side_by_side);
  else if constexpr (kFewRows<Sum> == 16)
    PLUMB_LAUNCH((few_rows_kernel<Sum, 16, T>), blocks, kWarp, 0, device.stream, p, side_by_side);
}

}  // namespace gpu
}  // namespace kernels
}}  // namespace plumb::v0_1
