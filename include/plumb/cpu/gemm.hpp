// Matrix product C (M, N) = A·B, with either operand stored transposed, added to C or stored, and a
// bias, a residual and an activation on the way out. Blocked and packed as in Goto and van de Geijn
// 2008, "Anatomy of high-performance matrix multiplication". Bodies: gemm.inl.hpp. Not here:
// strided products, a k split over threads.
// Order of reduction: k in chunks of 256 from 0; within a chunk one chain acc = fma(a, b, acc) from
// +0, k ascending; chunk results added in order, to C's old value first if accumulating. A row of C
// depends on no other row. In the mode CpuBf16 both operands are rounded, and a chunk's chain is
// that of math/bf16.hpp: pairs of k, the second first, zeros where a chunk ends amid a pair.
// Cost: 2·M·N·K FLOPs; B is copied once if more than one block of rows reads it. Few rows are bound
// by reading B, fastest when it was packed before (pack_matrix).
#pragma once

#include <plumb/core/bf16.hpp>
#include <plumb/core/memory.hpp>
#include <plumb/core/pool.hpp>
#include <plumb/cpu/isa.hpp>
#include <plumb/math/activation.hpp>
#include <plumb/math/gemm.hpp>

#include <algorithm>
#include <concepts>
#include <type_traits>

namespace plumb { inline namespace v0_1 { namespace kernels {

/// Rows of C, columns of consecutive panels, += or = A·B over one chunk of k. A is read as
/// a[row · a_row + step · a_k], where a_row or a_k is 1; B's panel j as b[j · b_panel + step · b_k
/// + column]. A step is one k, or of bf16 two, in words of 32 bits.
struct GemmPanels {
  float* c;
  Index ldc;
  const float* a;
  Index a_row, a_k;
  const float* b;
  Index b_k, b_panel;
  /// Where the values lie that are read after panel j: while step k of panel j is multiplied, two
  /// cache lines are prefetched from ahead[j · ahead_panel + k / 8 · ahead_8k + k % 8 · ahead_k],
  /// three where they lie across; and, of bf16, as many ahead_second further on.
  const float* ahead;
  Index ahead_panel, ahead_k, ahead_8k, ahead_second;
  Index rows, columns, k;
  bool add;               ///< to c; otherwise store
  const float* bias;      ///< of the columns, or null
  const float* residual;  ///< shaped and placed like c, or null
  float* activated;       ///< likewise: activation of what c then holds
  Activation activation;
};

struct GemmTable {
  Index tile_rows, tile_columns;  ///< of the tile of C kept in registers; a panel has its columns
  /// to [k][tile_columns] = k rows of B from b on, zeros beyond `columns`; transposed: B is (N, K).
  void (*pack)(float* to, const float* b, Index ldb, bool transposed, Index k, Index columns);
  void (*panels)(const GemmPanels& panels);
};

/// A table of its own, so that programs without bf16 do not compile it. B's panels are words
/// [k / 2][tile_columns], the lower half of a word being k, the upper k + 1, zero beyond the end.
struct GemmBf16Table {
  struct Products {
    void (*pack)(float* words, const float* b, Index ldb, bool transposed, Index k, Index columns);
    Index a_words;  ///< that two k of A take: the pair, or each as a float, the second first
    /// to = rows of A (rows, k) rounded, row after row; lda: from one to the next
    void (*round_rows)(float* to, const float* a, Index lda, Index rows, Index k);
    /// The same of A (k, rows): to [words][rows].
    void (*round_columns)(float* to, const float* a, Index lda, Index rows, Index k);
    void (*panels)(const GemmPanels& panels);
  };
  Products chain, dot;                                        ///< dot: by vdpbf16ps, or null
  void (*expand)(float* panel, const float* words, Index k);  ///< to a panel of floats
  void (*mixed)(const GemmPanels& panels);                    ///< A in float, as are the sums

  const Products& products() const { return current_isa() == Isa::Avx512Bf16 ? dot : chain; }
};

/// What a product reads its operands as.
struct FloatProduct {
  using Packed = float;
  static constexpr bool kRounds = false;
};
struct MixedProduct {  ///< the bits of FloatProduct with the values that B was rounded to
  using Packed = bf16;
  static constexpr bool kRounds = false;
};
struct Bf16Product {
  using Packed = bf16;
  static constexpr bool kRounds = true;
};

inline constexpr Index kCacheLine = 16;   // floats
inline constexpr Index kGemmRows = 96;    // of A per block: 96 KiB a chunk, in the L2 cache
inline constexpr Index kGemmAlone = 256;  // rows up to which each panel is packed where it is used
inline constexpr Index kGemmGroup = 8;    // panels that meet all of k while C's part is in L2
inline constexpr Index kGemmPacked = 1 << 20;   // floats of B packed at once: 4 MiB, in L3
inline constexpr Index kGemmParallel = 100000;  // FMAs below which threads cost more than they give

/// One product: its operands, and how it is split into blocks. B is packed in panels [k][width] of
/// tile_columns columns: piece by piece, unless the caller did it before (`packed`).
template <class Product>
struct Gemm {
  using Packed = typename Product::Packed;
  static constexpr Index kPerWord = std::is_same_v<Packed, float> ? 1 : 2;  // k of B

  float* c;
  const float* a;
  const float* b;        ///< or null, if packed
  const Packed* packed;  ///< all of B: panel after panel, each (K, width)
  Index m, n, k;
  Form form;
  bool accumulate;
  Epilogue epilogue;

  /// Panels [panel, panel_end) and k from k0 to k_end of B: what is packed together.
  struct Piece {
    Index panel, panel_end, k0, k_end;
  };
  struct PackedB {
    const float* data;
    Index panel_stride;
  };

  const GemmTable& table = dispatch<GemmTable>();

  static Index words(Index ks) { return (ks + kPerWord - 1) / kPerWord; }
  Index width() const { return table.tile_columns; }
  Index panels() const { return (n + width() - 1) / width(); }
  Index columns(Index panel) const { return std::min(width(), n - panel * width()); }
  /// Where a panel's values from k0 on begin in B.
  const float* source(Index panel, Index k0) const {
    return form == Form::NT ? b + panel * width() * k + k0 : b + k0 * n + panel * width();
  }
  void pack(float* to, Index panel, Index k0, Index k_end) const {
    const float* from = source(panel, k0);
    const Index ldb = form == Form::NT ? k : n, depth = k_end - k0;
    if constexpr (kPerWord == 1)
      table.pack(to, from, ldb, form == Form::NT, depth, columns(panel));
    else
      dispatch<GemmBf16Table>().products().pack(to, from, ldb, form == Form::NT, depth,
                                                columns(panel));
  }
  /// A packed panel, (K, width), as rows of B again, (columns, K).
  void unpack(float* to, const float* packed_panel, Index panel) const {
    const Scratch<float> exact(kPerWord == 1 ? 0 : k * width());
    if constexpr (kPerWord == 2) {
      dispatch<GemmBf16Table>().expand(exact.data(), packed_panel, k);
      packed_panel = exact.data();
    }
    constexpr Index kBlock = 16;  // of k: a block is read and written by cache lines
    for (Index k0 = 0; k0 < k; k0 += kBlock)
      for (Index column = 0; column < columns(panel); ++column)
        for (Index i = k0; i < std::min(k, k0 + kBlock); ++i)
          to[column * k + i] = packed_panel[i * width() + column];
  }

  /// A piece of B, panel after panel, each (k of the piece, width).
  void pack_piece(Cpu device, float* to, const Piece& piece) const {
    const Index panel_size = words(piece.k_end - piece.k0) * width();
    parallel_for(device, piece.panel_end - piece.panel, 1 + 65536 / (panel_size + 1),
                 [&](Index j, Index end) {
                   for (; j < end; ++j)
                     pack(to + j * panel_size, piece.panel + j, piece.k0, piece.k_end);
                 });
  }

  /// Whether blocks of A are copied: to be rounded; or columns far apart in memory, and read again
  /// for each panel.
  bool copies_a() const {
    return Product::kRounds || (form == Form::TN && m >= 256 && n > 2 * width());
  }
  /// A block's chunk of A, where and as it is read.
  struct BlockOfA {
    const float* data;
    Index row, k;  ///< from one to the next
  };
  BlockOfA block_of_a(Index row, Index rows, Index k0, Index kc, float* copy) const {
    const bool columns = form == Form::TN;
    const float* from = columns ? a + k0 * m + row : a + row * k + k0;
    if constexpr (Product::kRounds) {
      const auto& products = dispatch<GemmBf16Table>().products();
      (columns ? products.round_columns : products.round_rows)(copy, from, columns ? m : k, rows,
                                                               kc);
      return {copy, columns ? 1 : products.a_words * words(kc), columns ? rows : 1};
    } else {
      if (!copies_a()) return {from, columns ? 1 : k, columns ? m : 1};
      for (Index i = 0; i < kc; ++i) std::copy_n(from + i * m, rows, copy + i * rows);
      return {copy, 1, rows};
    }
  }

  /// C's rows [row, row_end), panels [panel, panel_end), one chunk of k, from B's panels at b_from.
  /// What B's own matrix holds at `next`, if any, will be packed after this.
  void multiply(Index row, Index row_end, Index panel, Index panel_end, Index k0, Index kc,
                const BlockOfA& from, const float* b_from, Index b_k, Index b_panel,
                const float* next = nullptr) const {
    const Index column = panel * width();
    const Index at = row * n + column;
    const bool last = k0 + kc == k;
    const bool transposed = next != nullptr && form == Form::NT;
    const Index ahead_k = transposed ? 2 * kCacheLine : next != nullptr ? kPerWord * n : b_k;
    const GemmPanels work{
        .c = c + at,
        .ldc = n,
        .a = from.data,
        .a_row = from.row,
        .a_k = from.k,
        .b = b_from,
        .b_k = b_k,
        .b_panel = b_panel,
        .ahead = next != nullptr ? next : b_from + b_panel,
        .ahead_panel = next != nullptr ? 0 : b_panel,
        .ahead_k = ahead_k,
        .ahead_8k = transposed ? kPerWord * k : 8 * ahead_k,
        .ahead_second = transposed        ? k
                        : next != nullptr ? n
                                          : 0,
        .rows = row_end - row,
        .columns = std::min(panel_end * width(), n) - column,
        .k = kc,
        .add = accumulate || k0 > 0,
        .bias = last && epilogue.bias != nullptr ? epilogue.bias + column : nullptr,
        .residual = last && epilogue.residual != nullptr ? epilogue.residual + at : nullptr,
        .activated = last && epilogue.activated != nullptr ? epilogue.activated + at : nullptr,
        .activation = epilogue.activation};
    if constexpr (Product::kRounds)
      dispatch<GemmBf16Table>().products().panels(work);
    else if constexpr (kPerWord == 2)
      dispatch<GemmBf16Table>().mixed(work);
    else
      table.panels(work);
  }

  /// One block of rows times some panels of a piece. `from` holds the piece's panels, from its
  /// first one on; without it B is packed or read here, `room` taking one panel's chunk. a_copy is
  /// room for a block's chunk if copies_a().
  void block(Index row, Index row_end, const Piece& piece, Index panel, Index panel_end,
             PackedB from, float* room, float* a_copy) const {
    const Index rows = row_end - row;
    // k = 0 is one empty chunk: C = 0 and the epilogue.
    for (Index k0 = piece.k0; k0 == 0 || k0 < piece.k_end; k0 += kChunk) {
      const Index kc = std::min(kChunk, piece.k_end - k0);
      const BlockOfA part = block_of_a(row, rows, k0, kc, a_copy);
      if (from.data != nullptr) {
        multiply(
            row, row_end, panel, panel_end, k0, kc, part,
            from.data + (panel - piece.panel) * from.panel_stride + words(k0 - piece.k0) * width(),
            width(), from.panel_stride);
        continue;
      }
      // A copy of B pays once several tiles of rows read it; an edge needs its zeros.
      Index j = panel;
      if (kPerWord == 1 && form != Form::NT && rows <= 2 * table.tile_rows) {
        j = std::min(panel_end, n / width());
        if (j > panel)
          multiply(row, row_end, panel, j, k0, kc, part, b + k0 * n + panel * width(), n, width());
      }
      for (; j < panel_end; ++j) {
        pack(room, j, k0, k0 + kc);
        multiply(row, row_end, j, j + 1, k0, kc, part, room, width(), 0,
                 j + 1 < panel_end ? source(j + 1, k0) : source(panel, k0 + kc));
      }
    }
  }

  /// Tasks are blocks of rows × groups of panels. Rows are split evenly into tiles, tiles into
  /// blocks.
  void multiply_piece(Cpu device, const Piece& piece, Index threads, PackedB from) const {
    const Index blocks = from.data == nullptr ? 1 : (m + kGemmRows - 1) / kGemmRows;
    const Index tiles = (m + table.tile_rows - 1) / table.tile_rows;
    const auto first_row = [&](Index i) { return i * tiles / blocks * m / tiles; };
    const Index panels = piece.panel_end - piece.panel;
    // Four tasks a thread or more, and as many for each.
    Index groups = threads == 1 ? 1 : (4 * threads + blocks - 1) / blocks;
    while (blocks * groups % threads != 0) ++groups;
    if (from.data == nullptr) groups = std::max(groups, panels / kGemmGroup);
    groups = std::min(groups, panels);
    const Index lanes = std::min(threads, blocks * groups);
    const Index b_room = from.data != nullptr ? 0 : kChunk * width();
    const Index a_room =
        copies_a() ? kChunk * std::min(m, from.data != nullptr ? kGemmRows : kGemmAlone) : 0;
    const Scratch<float> rooms(lanes * b_room), a_copies(lanes * a_room);
    run_lanes(device, blocks * groups, lanes, [&](Index task, Index lane) {
      const Index i = task / groups, group = task % groups;
      block(first_row(i), first_row(i + 1), piece, piece.panel + group * panels / groups,
            piece.panel + (group + 1) * panels / groups, from, &rooms[lane * b_room],
            &a_copies[lane * a_room]);
    });
  }

  void run(Cpu device) const {
    const Index threads = m * n * k < kGemmParallel ? 1 : pool_of(device).threads();
    if (packed != nullptr)
      return multiply_piece(device, {0, panels(), 0, k}, threads,
                            {reinterpret_cast<const float*>(packed), words(k) * width()});
    if (m <= (form == Form::TN ? kGemmRows : kGemmAlone))
      return multiply_piece(device, {0, panels(), 0, k}, threads, {nullptr, 0});
    // Many blocks of rows read B: it is packed in pieces that stay in the cache.
    // With A copied a chunk at a time, more panels share a copy.
    const Index deep = std::min(k, (copies_a() ? 4 : 16) * kChunk);
    const Index wide = std::clamp<Index>(kGemmPacked / (deep * width() + 1), 1, panels());
    const Scratch<float> copy(wide * width() * words(deep));
    for (Index k0 = 0; k0 == 0 || k0 < k; k0 += deep)
      for (Index panel = 0; panel < panels(); panel += wide) {
        const Piece piece{panel, std::min(panels(), panel + wide), k0, std::min(k, k0 + deep)};
        pack_piece(device, copy.data(), piece);
        multiply_piece(device, piece, threads, {copy.data(), words(piece.k_end - k0) * width()});
      }
  }
};

namespace detail {
template <class Product>
void multiply(Cpu device, float* c, const float* a, const float* b,
              const typename Product::Packed* packed, Index m, Index n, Index k, Form form,
              bool accumulate, const Epilogue& epilogue) {
  if (m == 0 || n == 0) return;
  Gemm<Product>{c, a, b, packed, m, n, k, form, accumulate, epilogue}.run(device);
}
template <class T>
using ProductWith = std::conditional_t<std::is_same_v<T, float>, FloatProduct, MixedProduct>;
}  // namespace detail

/// C (M, N) = A·B (+= if accumulate), then + bias (N), then + residual (M, N); activated = f(C).
/// NN: A (M, K), B (K, N); NT: A (M, K), B (N, K); TN: A (K, M), B (K, N). Row-major, contiguous; C
/// overlaps no other operand. K = 0 is a sum of nothing.
inline void matmul(Cpu device, float* c, const float* a, const float* b, Index m, Index n, Index k,
                   Form form, bool accumulate = false, Epilogue epilogue = {}) {
  detail::multiply<FloatProduct>(device, c, a, b, nullptr, m, n, k, form, accumulate, epilogue);
}
/// The same in bf16: see the head of this file.
inline void matmul(CpuBf16 device, float* c, const float* a, const float* b, Index m, Index n,
                   Index k, Form form, bool accumulate = false, Epilogue epilogue = {}) {
  detail::multiply<Bf16Product>(device, c, a, b, nullptr, m, n, k, form, accumulate, epilogue);
}

/// Values that pack_matrix writes for a matrix of n columns and k rows.
inline Index packed_size(Cpu, Index n, Index k) { return (n + 31) / 32 * 32 * ((k + 1) / 2 * 2); }

/// B, given as (N, K) (a weight), in the order that matmul_packed reads it: once for many products
/// of few rows, which are bound by reading it. T = bf16 halves what they read. `packed` lies at an
/// address that is a multiple of 4. Valid for the instruction set in use.
template <class T>
void pack_matrix(Cpu device, T* packed, const float* b, Index n, Index k) {
  const Gemm<detail::ProductWith<T>> gemm{nullptr, nullptr, b,        nullptr, 0,
                                          n,       k,       Form::NT, false,   {}};
  gemm.pack_piece(device, reinterpret_cast<float*>(packed), {0, gemm.panels(), 0, k});
}

/// The (N, K) values of a packed matrix.
template <class T>
void unpack_matrix(Cpu device, float* b, const T* packed, Index n, Index k) {
  const Gemm<detail::ProductWith<T>> gemm{nullptr, nullptr, nullptr,  packed, 0,
                                          n,       k,       Form::NT, false,  {}};
  const Index panel_size = gemm.words(k) * gemm.width();
  const float* const from = reinterpret_cast<const float*>(packed);
  parallel_for(device, gemm.panels(), 1 + 65536 / (k * gemm.width() + 1),
               [&](Index panel, Index end) {
                 for (; panel < end; ++panel)
                   gemm.unpack(b + panel * gemm.width() * k, from + panel * panel_size, panel);
               });
}

/// C (M, N) = A·Bᵀ with B (N, K) packed, + bias, + residual: the bits of matmul in the form NT with
/// the values that were packed, for bf16 those rounded.
template <class T>
void matmul_packed(Cpu device, float* c, const float* a, const T* packed, Index m, Index n, Index k,
                   Epilogue epilogue = {}) {
  detail::multiply<detail::ProductWith<T>>(device, c, a, nullptr, packed, m, n, k, Form::NT, false,
                                           epilogue);
}
/// The bits of matmul in bf16.
inline void matmul_packed(CpuBf16 device, float* c, const float* a, const bf16* packed, Index m,
                          Index n, Index k, Epilogue epilogue = {}) {
  detail::multiply<Bf16Product>(device, c, a, nullptr, packed, m, n, k, Form::NT, false, epilogue);
}
void matmul_packed(CpuBf16 device, float* c, const float* a, const float* packed, Index m, Index n,
                   Index k, Epilogue epilogue = {}) = delete;  // it would be a product in float

/// Products of `batch` pairs of matrices, one behind the other: each with the bits of matmul.
/// Small ones are divided among threads, large ones divide their own work.
template <std::derived_from<Cpu> D>
void matmul_batched(D device, float* c, const float* a, const float* b, Index batch, Index m,
                    Index n, Index k, Form form, bool accumulate) {
  const auto one = [&](Index i) {
    matmul(device, c + i * m * n, a + i * m * k, b + i * k * n, m, n, k, form, accumulate);
  };
  const Index work = m * n * k;
  if (batch < 2 || work >= (Index{1} << 22)) {
    for (Index i = 0; i < batch; ++i) one(i);
    return;
  }
  parallel_for(device, batch, 1 + (Index{1} << 16) / (work + 1), [&](Index i, Index end) {
    for (; i < end; ++i) one(i);
  });
}

}  // namespace kernels
}}  // namespace plumb::v0_1
