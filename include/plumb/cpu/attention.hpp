// Causal self-attention over packed sequences, and the same over a key/value cache. Query head h
// reads key/value head h / (heads / kv_heads) (grouped queries, Ainslie et al. 2023). The online
// softmax of Milakov and Gimelshein 2018, in blocks as in Dao et al. 2022, "FlashAttention": scores
// live 32 keys at a time, so memory is linear in the length. Bodies: attention.inl.hpp. Not here:
// positions' encoding, dropout, windows, masks other than the causal one.
//
// Order, for one row: keys in blocks of 32 from position 0. Score s = (chain fma(q_d, k_d, ·) from
// +0, d ascending) · scale. Per block: m' = max(m, largest s); p = e^(s - m'), masked keys +0;
// l = l · e^(m - m') + (sum of p by the butterfly); each output d: acc · e^(m - m'), then a chain
// fma(p_j, v_jd, ·), j ascending over the row's own keys only. The state (m, l, acc) begins anew,
// as
// (-infinity, 0, 0), at each chunk of 512 positions. The first chunk's is the total; each next
// one's is merged into it: M' = max(M, m); L = fma(l, e^(m - M'), L · e^(M - M')), and each ACC
// from acc likewise. Out = ACC / L; lse = M + log L. The chunks are there for GPUs, on which a
// token's decoding would otherwise be as slow as one block that walks all positions. The training
// and the cached forward run this one body, so their bits agree.
// Backward: p = e^(s - lse); delta = the row reduction of dout · out; dp as s, from dout and v,
// unscaled; ds = p · (dp - delta) · scale. dq: chain over j ascending, from 0. dk, dv: chain from 0
// over the group's heads ascending and, within a head, queries ascending, masked queries of a tile
// as +0. Each is then added once to the gradient.
// Cost for a sequence of T: 2·T²·D FLOPs a head forward, 5·T²·D backward.
//
// A sequence may have fewer queries than keys: its queries are then the last of its positions. So
// sequences that begin alike can be computed from where they part: rows' bits are those of the
// whole sequence, and dk and dv sums over the queries that are there (ops/attention.hpp).
#pragma once

#include <plumb/core/bf16.hpp>
#include <plumb/core/memory.hpp>
#include <plumb/core/pool.hpp>
#include <plumb/cpu/isa.hpp>
#include <plumb/math/attention.hpp>
#include <plumb/math/bf16.hpp>

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <type_traits>

namespace plumb { inline namespace v0_1 {

namespace kernels {

/// Floats from row to row of the sums that a kernel keeps: whole vectors of any width.
inline constexpr Index padded_head_size(Index head_size) { return (head_size + 15) / 16 * 16; }
inline constexpr Index kAttentionParallel =
    50000;  // FMAs below which threads cost more than they give

/// Query rows: row r stands at position + r · step and reads the keys from 0 to itself. All rows
/// end in one block of keys. They read the same keys and values, or (step 0) each those of its own
/// head. T: of keys and values, float or bf16.
template <class T>
struct AttentionRows {
  float* out;
  float* lse;  ///< or null
  const float* q;
  Index q_stride, lse_stride;  ///< out is strided as q
  const T* keys;               ///< [block][D][32]
  const T* values;             ///< [position][stride]
  Index value_stride;
  Index head_step;  ///< from a row's keys and values to the next row's; 0: the same ones
  Index position, step, rows, head_size;
  float scale;
};

/// One key/value head of one sequence, with the `group` query heads that read it.
struct AttentionUnit {
  float* dq;
  float* dk;
  float* dv;
  const float* dout;
  const float* out;
  const float* lse;
  const float* q;
  const float* k;
  const float* v;
  Index q_stride, kv_stride, lse_stride;
  Index length, first;  ///< keys; the first query's position
  Index group, head_size;
  float scale;
  float* scratch;  ///< 4 · (length rounded up to 32) · padded_head_size(D)
};

struct AttentionTable {
  /// `count` rows to [block][D][32], the last block filled with zeros.
  void (*pack)(float* to, const float* rows, Index stride, Index count, Index head_size);
  void (*forward)(const AttentionRows<float>& rows);
  void (*forward_bf16)(const AttentionRows<bf16>& rows);
  void (*backward)(const AttentionUnit& unit);
  // The same in parts: keys and values transposed first; then dq of a head's block of queries from
  // a position on, dk and dv of a block of keys. The sums are the same, scores are computed twice.
  void (*backward_pack)(const AttentionUnit& unit);
  void (*backward_queries)(const AttentionUnit& unit, Index head, Index row);
  void (*backward_keys)(const AttentionUnit& unit, Index first);
};

/// Where sequence b's blocks of keys start in an array that has room for offsets[B] / 32 + B
/// blocks.
inline Index first_block(const std::int32_t* offsets, Index b) {
  return (offsets[b] - offsets[0]) / kKeyBlock + b;
}

/// The rows of one query block, tile by tile, for every head of the group of kv_head: positions
/// `first` to `last`, the first of which is row `row`. v: the sequence's values.
inline void attention_query_block(float* out, float* lse, const float* q, const float* packed,
                                  const float* v, Index row, Index first, Index last, Index kv_head,
                                  AttentionShape shape) {
  const Index width = shape.heads * shape.head_size;
  const Index group = shape.heads / shape.kv_heads;
  for (Index head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    const Index at = row * width + head * shape.head_size;
    dispatch<AttentionTable>().forward(
        {.out = out + at,
         .lse = lse + row * shape.heads + head,
         .q = q + at,
         .q_stride = width,
         .lse_stride = shape.heads,
         .keys = packed,
         .values = v + kv_head * shape.head_size,
         .value_stride = shape.kv_heads * shape.head_size,
         .head_step = 0,
         .position = first,
         .step = 1,
         .rows = last - first,
         .head_size = shape.head_size,
         .scale = shape.scale});
  }
}

/// out (N, H·D), lse (N, H) from q (N, H·D), k, v (K, Hkv·D); sequence b holds the rows offsets[b]
/// to offsets[b + 1], and sees the keys key_offsets[b] to key_offsets[b + 1], of which its own are
/// the last. `rows` = N and `keys` = K are the totals, which a GPU's host knows only if it is told.
/// lse is the log of the softmax's denominator, which the backward pass needs.
inline void attention_forward(Cpu device, float* out, float* lse, const float* q, const float* k,
                              const float* v, const std::int32_t* offsets,
                              const std::int32_t* key_offsets, Index sequences,
                              [[maybe_unused]] Index rows, [[maybe_unused]] Index keys,
                              AttentionShape shape) {
  const Index size = shape.head_size;
  assert(size >= 1 && size <= kMaxHeadSize && shape.heads % shape.kv_heads == 0);
  if (sequences == 0) return;
  assert(rows == offsets[sequences] - offsets[0]);
  assert(keys == key_offsets[sequences] - key_offsets[0]);
  const auto length_of = [&](Index b) { return Index{key_offsets[b + 1] - key_offsets[b]}; };
  const Index blocks = first_block(key_offsets, sequences);
  const Index block_size = kKeyBlock * size;
  const Scratch<std::int32_t> owner(blocks);
  std::fill_n(owner.data(), blocks, -1);
  Index work = 0;
  for (Index b = 0; b < sequences; ++b) {
    const Index length = length_of(b);
    work += length * (offsets[b + 1] - offsets[b]) * shape.heads * size;
    std::fill_n(&owner[first_block(key_offsets, b)], (length + kKeyBlock - 1) / kKeyBlock,
                static_cast<std::int32_t>(b));
  }
  const Scratch<float> packed(blocks * shape.kv_heads * block_size);
  const auto keys_of = [&](Index b, Index kv_head, Index block) {
    const Index own = (length_of(b) + kKeyBlock - 1) / kKeyBlock;
    return packed.data() +
           (first_block(key_offsets, b) * shape.kv_heads + kv_head * own + block) * block_size;
  };
  // Calls body(sequence, kv_head, block, first position, last position) on each block of positions.
  const auto each_block = [&](auto body) {
    const Index tasks = blocks * shape.kv_heads;
    parallel_for(device, tasks, work < kAttentionParallel ? tasks : 1, [&](Index i, Index end) {
      for (; i < end; ++i) {
        const Index b = owner[i / shape.kv_heads];
        if (b < 0) continue;
        const Index block = i / shape.kv_heads - first_block(key_offsets, b);
        body(b, i % shape.kv_heads, block, block * kKeyBlock,
             std::min(length_of(b), (block + 1) * kKeyBlock));
      }
    });
  };
  each_block([&](Index b, Index kv_head, Index block, Index first, Index last) {
    const float* from = k + ((key_offsets[b] + first) * shape.kv_heads + kv_head) * size;
    dispatch<AttentionTable>().pack(keys_of(b, kv_head, block), from, shape.kv_heads * size,
                                    last - first, size);
  });
  each_block([&](Index b, Index kv_head, Index, Index first, Index last) {
    const Index position = length_of(b) - (offsets[b + 1] - offsets[b]);  // of the first query
    first = std::max(first, position);
    if (first < last)
      attention_query_block(out, lse, q, keys_of(b, kv_head, 0),
                            v + key_offsets[b] * shape.kv_heads * size,
                            offsets[b] + first - position, first, last, kv_head, shape);
  });
}

/// Whether units of the backward pass are too few for the threads, and are split: by blocks of 32
/// queries and of 32 keys, each the owner of its sums. That computes scores twice, 7·T²·D FLOPs a
/// head, so it pays where there are two threads or more to a unit.
inline bool attention_splits(Index units, Index threads) { return 2 * units <= threads; }

/// dq (N, H·D), dk, dv (K, Hkv·D) += the gradients, from dout (N, H·D) and what the forward pass
/// took and gave.
inline void attention_backward(Cpu device, float* dq, float* dk, float* dv, const float* dout,
                               const float* out, const float* lse, const float* q, const float* k,
                               const float* v, const std::int32_t* offsets,
                               const std::int32_t* key_offsets, Index sequences,
                               [[maybe_unused]] Index rows, [[maybe_unused]] Index keys,
                               AttentionShape shape) {
  const Index size = shape.head_size;
  const Index group = shape.heads / shape.kv_heads;
  assert(size >= 1 && size <= kMaxHeadSize && shape.heads % shape.kv_heads == 0);
  assert(sequences == 0 || rows == offsets[sequences] - offsets[0]);
  assert(sequences == 0 || keys == key_offsets[sequences] - key_offsets[0]);
  Index longest = 0;
  Index work = 0;
  for (Index b = 0; b < sequences; ++b) {
    const Index length = key_offsets[b + 1] - key_offsets[b];
    longest = std::max(longest, length);
    work += length * (offsets[b + 1] - offsets[b]) * shape.heads * size;
  }
  const Index units = sequences * shape.kv_heads;
  const Index threads = work < kAttentionParallel ? 1 : pool_of(device).threads();
  const bool split = attention_splits(units, threads);
  const Index lanes = split ? units : std::min(units, threads);
  const Index room =
      4 * ((longest + kKeyBlock - 1) / kKeyBlock) * kKeyBlock * padded_head_size(size);
  const Scratch<float> scratch(lanes * room);
  const auto unit_of = [&](Index unit, Index lane) {
    const Index b = unit / shape.kv_heads;
    const Index kv_head = unit % shape.kv_heads;
    const Index at_q = (offsets[b] * shape.heads + kv_head * group) * size;
    const Index at_kv = (key_offsets[b] * shape.kv_heads + kv_head) * size;
    const Index length = key_offsets[b + 1] - key_offsets[b];
    return AttentionUnit{.dq = dq + at_q,
                         .dk = dk + at_kv,
                         .dv = dv + at_kv,
                         .dout = dout + at_q,
                         .out = out + at_q,
                         .lse = lse + at_q / size,
                         .q = q + at_q,
                         .k = k + at_kv,
                         .v = v + at_kv,
                         .q_stride = shape.heads * size,
                         .kv_stride = shape.kv_heads * size,
                         .lse_stride = shape.heads,
                         .length = length,
                         .first = length - (offsets[b + 1] - offsets[b]),
                         .group = group,
                         .head_size = size,
                         .scale = shape.scale,
                         .scratch = scratch.data() + lane * room};
  };
  const AttentionTable& table = dispatch<AttentionTable>();
  if (!split) {
    run_lanes(device, units, lanes,
              [&](Index unit, Index lane) { table.backward(unit_of(unit, lane)); });
    return;
  }
  pool_of(device).run(units, [&](Index unit) { table.backward_pack(unit_of(unit, unit)); });
  // The longest tasks first: a unit's last queries, and its first keys.
  for (Index unit = 0; unit < units; ++unit) {
    const AttentionUnit one = unit_of(unit, unit);
    const Index blocks = (one.length + kKeyBlock - 1) / kKeyBlock;
    const Index skipped = one.first / kKeyBlock, query_blocks = blocks - skipped;
    pool_of(device).run(group * query_blocks + blocks, [&](Index task) {
      if (task >= group * query_blocks) {
        table.backward_keys(one, (task - group * query_blocks) * kKeyBlock);
        return;
      }
      const Index row = (blocks - 1 - task / group) * kKeyBlock;
      table.backward_queries(one, task % group, std::max(row, one.first));
    });
  }
}

/// A key's or value's element as a cache of T keeps it.
template <class T>
T cached(float x) {
  if constexpr (std::is_same_v<T, float>)
    return x;
  else
    return product_bf16(x);
}

/// Writes the keys and values of `rows` new tokens, k, v (rows, Hkv·D), at positions[r] of
/// slots[r]. T: float, or bf16, to which they are then rounded.
template <class T>
void kv_append(Cpu device, T* keys, T* values, const float* k, const float* v,
               const std::int32_t* slots, const std::int32_t* positions, Index rows,
               KvShape shape) {
  const Index size = shape.attention.head_size;
  const Index kv_heads = shape.attention.kv_heads;
  parallel_for(device, rows, 1 + 65536 / (kv_heads * size), [&](Index row, Index end) {
    for (; row < end; ++row) {
      const Index position = positions[row];
      for (Index head = 0; head < kv_heads; ++head) {
        const Index base = (slots[row] * kv_heads + head) * shape.rounded_capacity() * size;
        const Index from = (row * kv_heads + head) * size;
        T* key = keys + base + position / kKeyBlock * size * kKeyBlock + position % kKeyBlock;
        for (Index d = 0; d < size; ++d) key[d * kKeyBlock] = cached<T>(k[from + d]);
        T* value = values + base + position * size;
        for (Index d = 0; d < size; ++d) value[d] = cached<T>(v[from + d]);
      }
    }
  });
}

/// Copies the first `length` positions of one slot to another: one prompt, prefilled once, for
/// several responses.
template <class T>
void kv_copy(Cpu, T* keys, T* values, Index from_slot, Index to_slot, Index length,
             KvShape shape) {
  const Index size = shape.attention.head_size;
  const Index head_size = shape.rounded_capacity() * size;
  const Index key_blocks = (length + kKeyBlock - 1) / kKeyBlock;
  for (Index head = 0; head < shape.attention.kv_heads; ++head) {
    const Index from = from_slot * shape.slot_size() + head * head_size;
    const Index to = to_slot * shape.slot_size() + head * head_size;
    std::copy_n(keys + from, key_blocks * kKeyBlock * size, keys + to);
    std::copy_n(values + from, length * size, values + to);
  }
}

/// out (rows, H·D): row r attends to positions 0 … positions[r] of slots[r], its own key and value
/// already appended. Bitwise equal to attention_forward's row, of keys and values that were rounded
/// if the cache is of bf16.
template <class T>
void attention_cached_forward(Cpu device, float* out, const float* q, const T* keys,
                              const T* values, const std::int32_t* slots,
                              const std::int32_t* positions, Index rows, KvShape shape) {
  const AttentionShape& heads = shape.attention;
  const Index size = heads.head_size;
  const Index group = heads.heads / heads.kv_heads;
  const Index width = heads.heads * size;
  assert(size >= 1 && size <= kMaxHeadSize && heads.heads % heads.kv_heads == 0);
  const Index head_step = shape.rounded_capacity() * size;
  void (*const forward)(const AttentionRows<T>&) = [] {
    if constexpr (std::is_same_v<T, float>)
      return dispatch<AttentionTable>().forward;
    else
      return dispatch<AttentionTable>().forward_bf16;
  }();
  // `count` positions of one head, or `head_count` heads of one position.
  const auto attend = [&](Index row, Index count, Index head, Index head_count) {
    const Index base = (slots[row] * heads.kv_heads + head / group) * head_step;
    const Index at = row * width + head * size;
    forward({.out = out + at,
             .lse = nullptr,
             .q = q + at,
             .q_stride = count > 1 ? width : size,
             .lse_stride = 0,
             .keys = keys + base,
             .values = values + base,
             .value_stride = size,
             .head_step = head_count > group ? head_step : 0,
             .position = positions[row],
             .step = count > 1 ? 1 : 0,
             .rows = count > 1 ? count : head_count,
             .head_size = size,
             .scale = heads.scale});
  };
  Index work = 0;
  for (Index row = 0; row < rows; ++row) work += Index{2} * width * (positions[row] + 1);
  parallel_for(device, rows, 1 + rows * kAttentionParallel / (work + 1), [&](Index row, Index end) {
    while (row < end) {
      // Consecutive positions of one slot (a prompt) share keys; otherwise the heads of a group do;
      // heads without a group run side by side, each with its own.
      Index count = 1;
      while (row + count < end && slots[row + count] == slots[row] &&
             positions[row + count] == positions[row] + count &&
             positions[row + count] % kKeyBlock != 0)
        ++count;
      if (count == 1 && group == 1) {
        attend(row, 1, 0, heads.heads);
      } else {
        const Index together = count > 1 ? 1 : group;
        for (Index head = 0; head < heads.heads; head += together)
          attend(row, count, head, together);
      }
      row += count;
    }
  });
}

}  // namespace kernels
}}  // namespace plumb::v0_1
