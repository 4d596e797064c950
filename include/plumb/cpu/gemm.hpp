// Matrix product C (M, N) = A·B, with either operand stored transposed, added to C or stored, and a
// bias and a residual added on the way out. Blocked and packed as in Goto and van de Geijn 2008,
// "Anatomy of high-performance matrix multiplication". Bodies: gemm.inl.hpp. Not here: batched or
// strided products, a k split over threads.
// Order of reduction: k in chunks of 256 from 0; within a chunk one chain acc = fma(a, b, acc) from
// +0, k ascending; chunk results added in order, to C's old value first if accumulating. A row of C
// depends on no other row.
// Cost: 2·M·N·K FLOPs; B is copied once if more than one block of rows reads it.
#pragma once

#include <plumb/core/memory.hpp>
#include <plumb/cpu/isa.hpp>
#include <plumb/cpu/pool.hpp>
#include <plumb/math/types.hpp>

#include <algorithm>

namespace plumb::inline v0_1 {

namespace kernels {

/// Products' k per chunk; the tokens per chunk of every sum over tokens, too.
inline constexpr Index kChunk = 256;

/// Rows of C (M, columns of one panel) += or = A·B over one chunk of k. A is read as
/// a[row · a_row + k · a_k], B as b[k · b_k + column].
struct GemmPanel {
  float* c;
  Index ldc;
  const float* a;
  Index a_row, a_k;
  const float* b;
  Index b_k;
  Index rows, columns, k;
  bool add;              ///< to c; otherwise store
  const float* bias;     ///< of the panel's columns, or null
  const float* residual; ///< shaped and placed like c, or null
};

struct GemmTable {
  Index tile_rows, tile_columns;  ///< of the tile of C kept in registers
  /// to [k][tile_columns] = k rows of B from b on, zeros beyond `columns`; transposed: B is (N, K).
  void (*pack)(float* to, const float* b, Index ldb, bool transposed, Index k, Index columns);
  void (*panel)(const GemmPanel& panel);
};

inline constexpr Index kGemmRows = 96;          // of A per block: 96 KiB a chunk, in the L2 cache
inline constexpr Index kGemmParallel = 100000;  // FMAs below which threads cost more than they give

/// One product: its operands, and how it is split into blocks.
struct Gemm {
  const GemmTable& table;
  float* c;
  const float* a;
  const float* b;
  Index m, n, k;
  Form form;
  bool accumulate;
  Epilogue epilogue;

  Index ldb() const { return form == Form::NT ? k : n; }
  Index columns(Index panel) const {
    return std::min(table.tile_columns, n - panel * table.tile_columns);
  }
  const float* b_at(Index panel, Index k0) const {
    const Index column = panel * table.tile_columns;
    return form == Form::NT ? b + column * k + k0 : b + k0 * n + column;
  }
  void pack(float* to, Index panel, Index k0, Index kc) const {
    table.pack(to, b_at(panel, k0), ldb(), form == Form::NT, kc, columns(panel));
  }

  /// C's rows [row, row_end) of one panel, one chunk of k, from B read at `from` in steps of b_k.
  void multiply(Index row, Index row_end, Index panel, Index k0, Index kc, const float* from,
                Index b_k) const {
    const Index column = panel * table.tile_columns;
    const Index at = row * n + column;
    const bool last = k0 + kc == k;
    table.panel({.c = c + at,
                 .ldc = n,
                 .a = form == Form::TN ? a + k0 * m + row : a + row * k + k0,
                 .a_row = form == Form::TN ? 1 : k,
                 .a_k = form == Form::TN ? m : 1,
                 .b = from,
                 .b_k = b_k,
                 .rows = row_end - row,
                 .columns = columns(panel),
                 .k = kc,
                 .add = accumulate || k0 > 0,
                 .bias = last && epilogue.bias != nullptr ? epilogue.bias + column : nullptr,
                 .residual = last && epilogue.residual != nullptr ? epilogue.residual + at
                                                                  : nullptr});
  }

  /// One block of rows times panels [panel, panel_end). `packed` is all of B if `shared`, room for
  /// one panel's chunk otherwise.
  void block(Index row, Index row_end, Index panel, Index panel_end, float* packed,
             bool shared) const {
    const Index width = table.tile_columns;
    // k = 0 is one empty chunk: C = 0 + bias + residual.
    for (Index k0 = 0; k0 == 0 || k0 < k; k0 += kChunk) {
      const Index kc = std::min(kChunk, k - k0);
      for (Index j = panel; j < panel_end; ++j) {
        // A copy pays once several tiles of rows read it; an edge needs its zeros.
        const bool in_place = !shared && form != Form::NT && columns(j) == width &&
                              row_end - row <= 2 * table.tile_rows;
        if (in_place) {
          multiply(row, row_end, j, k0, kc, b_at(j, k0), n);
          continue;
        }
        float* from = shared ? packed + (j * k + k0) * width : packed;
        if (!shared) pack(from, j, k0, kc);
        multiply(row, row_end, j, k0, kc, from, width);
      }
    }
  }

  void run(Cpu device) const {
    const Index width = table.tile_columns;
    const Index panels = (n + width - 1) / width;
    const Index blocks = (m + kGemmRows - 1) / kGemmRows;
    const bool parallel = m * n * k >= kGemmParallel;
    const bool shared = blocks > 1;
    const Index wanted = parallel ? Index{4} * pool_of(device).threads() : 1;
    const Index groups = std::clamp<Index>(wanted / blocks, 1, panels);
    const Index group = (panels + groups - 1) / groups;
    const Index slot = shared ? 0 : std::min(k, kChunk) * width;
    const Scratch<float> packed(shared ? panels * width * k : groups * slot);
    const auto pack_all = [&](Index first, Index last) {
      for (Index j = first; j < last; ++j)
        for (Index k0 = 0; k0 < k; k0 += kChunk)
          pack(&packed[(j * k + k0) * width], j, k0, std::min(kChunk, k - k0));
    };
    const auto multiply_block = [&](Index task) {
      const Index row = task / groups * kGemmRows;
      const Index g = task % groups;
      block(row, std::min(m, row + kGemmRows), std::min(panels, g * group),
            std::min(panels, (g + 1) * group), &packed[g * slot], shared);
    };
    if (shared) parallel_for(device, panels, parallel ? 1 + 65536 / (k * width + 1) : panels, pack_all);
    if (parallel)
      pool_of(device).run(blocks * groups, multiply_block);
    else
      for (Index task = 0; task < blocks * groups; ++task) multiply_block(task);
  }
};

/// C (M, N) = A·B (+= if accumulate), then + bias (N), then + residual (M, N).
/// NN: A (M, K), B (K, N); NT: A (M, K), B (N, K); TN: A (K, M), B (K, N). Row-major, contiguous; C
/// overlaps no other operand. K = 0 is a sum of nothing.
inline void matmul(Cpu device, float* c, const float* a, const float* b, Index m, Index n, Index k,
                   Form form, bool accumulate = false, Epilogue epilogue = {}) {
  if (m == 0 || n == 0) return;
  const Gemm gemm{dispatch<GemmTable>(), c, a, b, m, n, k, form, accumulate, epilogue};
  gemm.run(device);
}

}  // namespace kernels
}  // namespace plumb::inline v0_1
