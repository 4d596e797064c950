// The shapes of attention and of its cache, and in which blocks each backend sums over keys.
#pragma once

#include <plumb/core/check.hpp>

#include <array>
#include <utility>

namespace plumb { inline namespace v0_1 {

/// Keys per block of the online softmax; blocks are aligned to absolute position 0.
inline constexpr Index kKeyBlock = 32;

/// Keys whose softmax is computed from a fresh state; the chunks' states are then merged in order.
/// So a GPU may take the chunks of one row side by side.
inline constexpr Index kAttentionChunk = 512;

/// Largest head size that attention kernels take.
inline constexpr Index kMaxHeadSize = 256;

/// Heads of an attention layer: query head h reads key/value head h / (heads / kv_heads).
struct AttentionShape {
  Index heads, kv_heads, head_size;
  float scale;  ///< usually 1 / √head_size
};

/// What a cache keeps keys and values as. Bf16 halves its memory, and what a long text's next token
/// reads; its tokens' log-probs are no longer those of the training forward.
enum class CacheType { Float, Bf16 };
constexpr std::array<std::pair<const char*, CacheType>, 2> choices(CacheType) {
  return {{{"float", CacheType::Float}, {"bf16", CacheType::Bf16}}};
}

/// Key/value cache of one layer: `slots` sequences of up to `capacity` positions (rounded up to
/// kKeyBlock). Keys lie transposed in blocks, [slot][kv_head][block][head_size][kKeyBlock]; values
/// as [slot][kv_head][position][head_size].
struct KvShape {
  Index slots, capacity;
  AttentionShape attention;

  Index rounded_capacity() const { return (capacity + kKeyBlock - 1) / kKeyBlock * kKeyBlock; }
  Index slot_size() const { return attention.kv_heads * rounded_capacity() * attention.head_size; }
  Index keys_size() const { return slots * slot_size(); }
  Index values_size() const { return slots * slot_size(); }
};

}}  // namespace plumb::v0_1
