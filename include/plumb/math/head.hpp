// How each backend divides the output head, and the logits that no float holds.
#pragma once

#include <plumb/math/gemm.hpp>

namespace plumb { inline namespace v0_1 {

/// Logits that a head holds at once: 48 MiB.
inline constexpr Index kHeadLogits = 12 << 20;

/// Rows in a chunk of a head over V tokens: a multiple of 256, so that chunks change no sum's
/// order.
constexpr Index head_rows(Index v) {
  const Index most = kHeadLogits / (kChunk * (v > 1 ? v : 1));
  return kChunk * (most > 1 ? most : 1);
}

/// What stands for a difference of logits that no float holds: its token has no probability at all.
inline constexpr float kLowestLogit = -0x1.fffffep127F;
/// The same where it is multiplied by a gradient, which leaves room for one.
inline constexpr float kRareLogit = -0x1p100F;

}}  // namespace plumb::v0_1
