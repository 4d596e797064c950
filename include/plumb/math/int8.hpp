// Weights in eight bits: the sizes that all devices share. See cpu/int8.hpp.
#pragma once

#include <plumb/core/shape.hpp>

namespace plumb { inline namespace v0_1 {

inline constexpr Index kInt8Block = 32;  ///< columns that share a scale

/// Scales of a row of k columns.
constexpr Index int8_blocks(Index k) { return (k + kInt8Block - 1) / kInt8Block; }

}}  // namespace plumb::v0_1
