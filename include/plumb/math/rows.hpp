// In which chunks each backend sums over the rows of a batch.
#pragma once

#include <plumb/core/check.hpp>

namespace plumb { inline namespace v0_1 {

/// Tokens per chunk of every sum over tokens.
inline constexpr Index kTokenChunk = 256;

}}  // namespace plumb::v0_1
