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
  bool add;               ///< to c; otherwise store
  const float* bias;      ///< of the panel's columns, or null
  const float* residual;  ///< shaped and placed like c, or null
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

  /// Whether blocks of A are copied: columns far apart in memory, and read again for each panel.
  bool copies_a() const { return form == Form::TN && m >= 256 && n > 2 * table.tile_columns; }

  /// C's rows [row, row_end) of one panel, one chunk of k.
  void multiply(Index row, Index row_end, Index panel, Index k0, Index kc, const float* a_from,
                Index a_row, Index a_k, const float* b_from, Index b_k) const {
    const Index column = panel * table.tile_columns;
    const Index at = row * n + column;
    const bool last = k0 + kc == k;
    table.panel(
        {.c = c + at,
         .ldc = n,
         .a = a_from,
         .a_row = a_row,
         .a_k = a_k,
         .b = b_from,
         .b_k = b_k,
         .rows = row_end - row,
         .columns = columns(panel),
         .k = kc,
         .add = accumulate || k0 > 0,
         .bias = last && epilogue.bias != nullptr ? epilogue.bias + column : nullptr,
         .residual = last && epilogue.residual != nullptr ? epilogue.residual + at : nullptr});
  }

  /// One block of rows times panels [panel, panel_end). `packed` is all of B if `shared`, room for
  /// one panel's chunk otherwise; a_copy is room for a block's chunk if copies_a().
  void block(Index row, Index row_end, Index panel, Index panel_end, float* packed, bool shared,
             float* a_copy) const {
    const Index width = table.tile_columns;
    const Index rows = row_end - row;
    // k = 0 is one empty chunk: C = 0 + bias + residual.
    for (Index k0 = 0; k0 == 0 || k0 < k; k0 += kChunk) {
      const Index kc = std::min(kChunk, k - k0);
      const float* a_from = form == Form::TN ? a + k0 * m + row : a + row * k + k0;
      Index a_k = form == Form::TN ? m : 1;
      if (copies_a()) {
        for (Index i = 0; i < kc; ++i) std::copy_n(a_from + i * m, rows, a_copy + i * rows);
        a_from = a_copy;
        a_k = rows;
      }
      for (Index j = panel; j < panel_end; ++j) {
        // A copy of B pays once several tiles of rows read it; an edge needs its zeros.
        const bool in_place =
            !shared && form != Form::NT && columns(j) == width && rows <= 2 * table.tile_rows;
        float* copy = shared ? packed + (j * k + k0) * width : packed;
        if (!shared && !in_place) pack(copy, j, k0, kc);
        multiply(row, row_end, j, k0, kc, a_from, form == Form::TN ? 1 : k, a_k,
                 in_place ? b_at(j, k0) : copy, in_place ? n : width);
      }
    }
  }

  void run(Cpu device) const {
    const Index width = table.tile_columns;
    const Index panels = (n + width - 1) / width;
    const Index blocks = (m + kGemmRows - 1) / kGemmRows;
    const Index threads = m * n * k < kGemmParallel ? 1 : pool_of(device).threads();
    // Fewer blocks of rows than keep the threads busy: columns are split, too.
    const Index groups = std::clamp<Index>(threads == 1 ? 1 : 4 * threads / blocks, 1, panels);
    const Index group = (panels + groups - 1) / groups;
    const Index lanes = std::min(threads, blocks * groups);
    const bool shared = blocks > 1;
    const Index b_room = shared ? 0 : kChunk * width;
    const Index a_room = copies_a() ? kChunk * kGemmRows : 0;
    const Scratch<float> packed(shared ? panels * width * k : lanes * b_room);
    const Scratch<float> a_copies(lanes * a_room);
    if (shared)
      parallel_for(device, panels, threads == 1 ? panels : 1 + 65536 / (k * width + 1),
                   [&](Index j, Index end) {
                     for (; j < end; ++j)
                       for (Index k0 = 0; k0 < k; k0 += kChunk)
                         pack(&packed[(j * k + k0) * width], j, k0, std::min(kChunk, k - k0));
                   });
    run_lanes(device, blocks * groups, lanes, [&](Index task, Index lane) {
      const Index row = task / groups * kGemmRows;
      const Index panel = task % groups * group;
      block(row, std::min(m, row + kGemmRows), std::min(panels, panel),
            std::min(panels, panel + group), &packed[lane * b_room], shared,
            &a_copies[lane * a_room]);
    });
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
