// The merging that byte-pair encodings share: adjacent symbols join, the pair that comes first in
// the vocabulary's order first and the leftmost on ties, until no pair joins. Pairs wait in a heap
// and symbols in a linked list: O(n log n), where trying all pairs after each merge is O(n²).
#pragma once

#include <plumb/core/version.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <queue>
#include <vector>

namespace plumb { inline namespace v0_1 { namespace detail {

/// What two symbols join to, and when: the lowest `order` first.
template <class Order>
struct Joined {
  Order order;
  std::int32_t symbol;
};

/// `join(left, right)` is a std::optional<Joined<Order>>.
template <class Join>
void merge_symbols(std::vector<std::int32_t>& symbols, const Join& join) {
  using Found = typename decltype(join(0, 0))::value_type;
  // A possible merge of the symbols at `left` and after it. Stale once either has changed.
  struct Pair {
    Found found;
    std::size_t left;
    std::int32_t left_symbol, right_symbol;
    bool operator<(const Pair& other) const {
      if (found.order != other.found.order) return found.order > other.found.order;
      return left > other.left;
    }
  };
  constexpr std::int32_t kGone = -1;
  const std::size_t n = symbols.size();
  std::vector<std::size_t> next(n), previous(n);
  std::priority_queue<Pair> pairs;
  const auto offer = [&](std::size_t left) {
    if (next[left] == n) return;
    const std::int32_t a = symbols[left], b = symbols[next[left]];
    if (const auto found = join(a, b)) pairs.push({*found, left, a, b});
  };
  for (std::size_t i = 0; i < n; ++i) {
    next[i] = i + 1;
    previous[i] = i - 1;
  }
  for (std::size_t i = 0; i < n; ++i) offer(i);
  while (!pairs.empty()) {
    const Pair pair = pairs.top();
    pairs.pop();
    const std::size_t right = next[pair.left];
    if (symbols[pair.left] != pair.left_symbol || right == n || symbols[right] != pair.right_symbol)
      continue;
    symbols[pair.left] = pair.found.symbol;
    symbols[right] = kGone;
    next[pair.left] = next[right];
    if (next[right] != n) previous[next[right]] = pair.left;
    offer(pair.left);
    if (pair.left > 0) offer(previous[pair.left]);
  }
  std::erase(symbols, kGone);
}

}  // namespace detail
}}  // namespace plumb::v0_1
