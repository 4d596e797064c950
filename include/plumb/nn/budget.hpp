// How many tokens one pass may read: from what a token takes in this model, and the memory that
// there is. Splitting a forward changes no bit of it; splitting an update changes its gradient's
// rounding alone, which is why a run writes down the number that it was begun with.
#pragma once

#include <plumb/core/memory.hpp>
#include <plumb/nn/policy.hpp>

#include <algorithm>

namespace plumb { inline namespace v0_1 {

/// Tokens of a pass at most, whatever the memory: more make nothing faster.
inline constexpr Index kMostTokens = 8192;
/// Bytes that a forward without gradient may take.
inline constexpr Index kForwardBytes = Index{256} << 20;
/// Bytes that one whose backward follows takes at most, but for 1024 tokens: enough rows for every
/// product to be as fast as it gets.
inline constexpr Index kUpdateBytes = Index{1} << 30;

/// Bytes that a token of a batch takes in a forward pass, or in one whose backward follows. 0 where
/// the policy does not say.
template <Policy P>
Index token_bytes(const P& policy, bool update) {
  if constexpr (requires { policy.token_floats(update); })
    return policy.token_floats(update) * static_cast<Index>(sizeof(float));
  return 0;
}

namespace detail {
inline Index tokens_in(double bytes, Index each) {
  if (each == 0) return kMostTokens;
  return std::clamp<Index>(static_cast<Index>(bytes / static_cast<double>(each)), 16, kMostTokens);
}
}  // namespace detail

/// Tokens of a forward without gradient.
template <Policy P>
Index forward_tokens(const P& policy) {
  return detail::tokens_in(kForwardBytes, token_bytes(policy, false));
}

/// Tokens of a forward with gradient, for a policy that is about to be trained, and `critic`, if
/// that is another model, beside it: `said`, or, for 0, as many as memory_limit() leaves room for
/// beside what is in use now and what training adds, gradients and two moments. A fifth of the
/// limit is kept free, for kernels, and for blocks that are larger than what lies in them. Only the
/// host's memory is asked.
template <Policy P>
Index update_tokens(const P& policy, Index said, const P* critic = nullptr) {
  if (said > 0) return said;
  double free =
      0.8 * static_cast<double>(memory_limit()) - static_cast<double>(memory_counters().used_bytes);
  Index each = 0;
  for (const P* model : {&policy, critic})
    if (model != nullptr) {
      free -= 12.0 * static_cast<double>(model->parameters().size());
      each += token_bytes(*model, true);
    }
  const Index most =
      std::max<Index>(1024, detail::tokens_in(static_cast<double>(kUpdateBytes), each));
  return memory_limit() == 0 ? most : std::min(most, detail::tokens_in(free, each));
}

/// Sequences of `capacity` tokens that a cache may hold: `wanted`, or fewer where they would take
/// more than half of what memory_limit() leaves.
template <Policy P>
Index cache_slots(const P& policy, Index wanted, Index capacity,
                  CacheType type = CacheType::Float) {
  if constexpr (requires { policy.cache_floats(); }) {
    if (memory_limit() == 0) return wanted;
    const double free =
        static_cast<double>(memory_limit()) - static_cast<double>(memory_counters().used_bytes);
    const double each = (type == CacheType::Bf16 ? 2.0 : 4.0) *
                        static_cast<double>(policy.cache_floats() * capacity);
    return std::clamp<Index>(static_cast<Index>(0.5 * free / each), 1, wanted);
  }
  return wanted;
}

}}  // namespace plumb::v0_1
