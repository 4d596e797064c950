// Rows: gathering and scattering rows of a table, sums over tokens, rotary positions. Bound by
// memory: one or two FLOPs per element. What this is not: nothing here looks at which sequence a
// token is of.
//
// Orders. sum_rows: chunks of 256 tokens from token 0, one chain from +0 inside a chunk, the
// chunks' sums added in order onto the total. embedding_backward: token order within each row of
// the table. Source of the rotation: Su et al. 2021, "RoFormer", in the pairing of llama2.c: (2i,
// 2i + 1).
#pragma once

#include <plumb/core/device.hpp>
#include <plumb/core/memory.hpp>
#include <plumb/core/pool.hpp>
#include <plumb/cpu/isa.hpp>
#include <plumb/math/rows.hpp>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstdint>
#include <cstring>

namespace plumb { inline namespace v0_1 {

namespace kernels {

struct RowsTable {
  void (*column_sums)(float* sums, const float* x, Index rows, Index columns, Index stride);
  void (*add_row)(float* y, const float* x, Index c);
  void (*add_chunks)(float* total, const float* chunks, Index count, Index columns, Index stride);
  void (*rope_forward)(float* y, const float* x, const float* cosine, const float* sine,
                       const std::int32_t* positions, Index n, Index heads, Index head_size);
  void (*rope_backward)(float* dx, const float* dy, const float* cosine, const float* sine,
                        const std::int32_t* positions, Index n, Index heads, Index head_size);
};

// Rows that make a part of parallel_for worth its cost.
inline Index row_grain(Index c) { return std::max<Index>(1, 16384 / std::max<Index>(c, 1)); }

// total (c) += the sums over n tokens in canonical order, where chunk_sums(sums, token, tokens,
// column, columns) writes the sums of one chunk for some columns. Tasks are chunks × column blocks.
template <class ChunkSums>
void sum_over_tokens(Cpu device, float* total, Index n, Index c, ChunkSums&& chunk_sums) {
  constexpr Index kColumns = 256;
  const Index chunks = (n + kTokenChunk - 1) / kTokenChunk;
  const Index blocks = (c + kColumns - 1) / kColumns;
  if (chunks == 0 || blocks == 0) return;
  const Scratch<float> sums(chunks * c);
  parallel_for(
      device, chunks * blocks, n * c <= 16384 ? chunks * blocks : 1, [&](Index task, Index end) {
        for (; task < end; ++task) {
          const Index chunk = task / blocks, column = task % blocks * kColumns;
          const Index token = chunk * kTokenChunk;
          chunk_sums(sums.data() + chunk * c + column, token, std::min(kTokenChunk, n - token),
                     column, std::min(kColumns, c - column));
        }
      });
  parallel_for(device, c, row_grain(chunks), [&](Index i, Index end) {
    dispatch<RowsTable>().add_chunks(total + i, sums.data() + i, chunks, end - i, c);
  });
}

/// y = rows of a table: y (N, C), table (V, C), ids (N) in [0, V). Also gathers rows of
/// activations.
inline void embedding_forward(Cpu device, float* y, const float* table, const std::int32_t* ids,
                              Index n, Index c) {
  parallel_for(device, n, row_grain(c), [&](Index i, Index end) {
    for (; i < end; ++i) {
      assert(ids[i] >= 0);
      std::memcpy(y + i * c, table + ids[i] * c, static_cast<std::size_t>(c) * sizeof(float));
    }
  });
}

/// dtable += dy at the rows ids, in token order: dtable (V, C), dy (N, C), ids (N) in [0, V). Also
/// scatters and adds rows of activations. A task owns the rows of some ids, so there are no
/// atomics.
inline void embedding_backward(Cpu device, float* dtable, const float* dy, const std::int32_t* ids,
                               Index n, Index c, [[maybe_unused]] Index v) {
  const bool small = n * c <= 16384;
  const unsigned owners = small ? 1U : std::bit_ceil(2U * unsigned(pool_of(device).threads()));
  pool_of(device).run(static_cast<Index>(owners), [&](Index owner) {
    const auto add_row = dispatch<RowsTable>().add_row;
    for (Index i = 0; i < n; ++i) {
      assert(ids[i] >= 0 && ids[i] < v);
      if ((static_cast<unsigned>(ids[i]) & (owners - 1)) == static_cast<unsigned>(owner))
        add_row(dtable + ids[i] * c, dy + i * c, c);
    }
  });
}

/// total += sums of the rows of x: total (C), x (N, C). The gradient of a bias.
inline void sum_rows(Cpu device, float* total, const float* x, Index n, Index c) {
  sum_over_tokens(device, total, n, c,
                  [&](float* sums, Index token, Index tokens, Index column, Index columns) {
                    dispatch<RowsTable>().column_sums(sums, x + token * c + column, tokens, columns,
                                                      c);
                  });
}

/// y = x with each pair of channels of each head turned by the angle of its token's position:
/// (y0, y1) = (x0 cos - x1 sin, x1 cos + x0 sin). x, y (N, heads · head_size), cosine and sine
/// (T, head_size / 2), positions (N) in [0, T); head_size is even; y may be x.
inline void rope_forward(Cpu device, float* y, const float* x, const float* cosine,
                         const float* sine, const std::int32_t* positions, Index n, Index heads,
                         Index head_size) {
  assert(head_size % 2 == 0);
  const Index c = heads * head_size;
  parallel_for(device, n, row_grain(c), [&](Index i, Index end) {
    dispatch<RowsTable>().rope_forward(y + i * c, x + i * c, cosine, sine, positions + i, end - i,
                                       heads, head_size);
  });
}

/// dx += dy turned back; sizes as in rope_forward.
inline void rope_backward(Cpu device, float* dx, const float* dy, const float* cosine,
                          const float* sine, const std::int32_t* positions, Index n, Index heads,
                          Index head_size) {
  assert(head_size % 2 == 0);
  const Index c = heads * head_size;
  parallel_for(device, n, row_grain(c), [&](Index i, Index end) {
    dispatch<RowsTable>().rope_backward(dx + i * c, dy + i * c, cosine, sine, positions + i,
                                        end - i, heads, head_size);
  });
}

}  // namespace kernels
}}  // namespace plumb::v0_1
