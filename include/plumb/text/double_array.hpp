// DoubleArray: a trie in one array, as SentencePiece's rules of normalisation are stored; and the
// same trie made of a vocabulary's pieces.
//
// A node's children lie at offset ^ byte, where the offset stands in the node's unit relative to
// the node itself; the value of a key lies at offset ^ 0. A unit is 32 bits: a label, whether there
// is a value, the offset. A step is a look at one unit. Every step of a trie that was read is
// checked against its size. What this is not: a map of keys with zero bytes. Source of the format:
// s-yata/darts-clone, include/darts.h.
#pragma once

#include <plumb/core/check.hpp>

#include <algorithm>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

class DoubleArray {
 public:
  using Key = std::pair<std::string_view, std::int32_t>;

  DoubleArray() = default;
  /// Of units that were read.
  explicit DoubleArray(std::vector<std::uint32_t> units) : units_(std::move(units)) {}
  /// Of keys and their values, which are not negative. Keys are not empty, differ, and hold no zero
  /// byte.
  explicit DoubleArray(std::vector<Key> keys) {
    if (keys.empty()) return;
    std::sort(keys.begin(), keys.end());
    Builder(units_).build(keys);
  }

  bool empty() const { return units_.empty(); }

  /// Calls take(value, length) for every key that `text` begins with, the shortest first.
  template <class Take>
  void prefixes(std::string_view text, const Take& take) const {
    if (units_.empty()) return;
    std::uint32_t node = offset(units_[0]);
    for (std::size_t i = 0; i < text.size() && text[i] != 0; ++i) {
      const auto byte = static_cast<unsigned char>(text[i]);
      node ^= byte;
      if (node >= units_.size()) return;
      const std::uint32_t unit = units_[node];
      if ((unit & (kValue | 0xFF)) != byte) return;
      node ^= offset(unit);
      if ((unit & kHasValue) == 0) continue;
      if (node >= units_.size()) return;
      take(static_cast<std::int32_t>(units_[node] & ~kValue), i + 1);
    }
  }

  /// The longest key that `text` begins with: its value and length; length 0: none.
  std::pair<std::int32_t, std::size_t> longest(std::string_view text) const {
    std::pair<std::int32_t, std::size_t> found{0, 0};
    prefixes(text, [&](std::int32_t value, std::size_t length) { found = {value, length}; });
    return found;
  }

 private:
  static constexpr std::uint32_t kHasValue = 1U << 8, kValue = 1U << 31;

  static std::uint32_t offset(std::uint32_t unit) {
    return (unit >> 10) << ((unit & (1U << 9)) >> 6);
  }

  class Builder {
   public:
    explicit Builder(std::vector<std::uint32_t>& units) : units_(units) {
      grow();
      occupy(0);
    }

    void build(std::span<const Key> keys) {
      struct Part {  // keys with the same first `depth` bytes, and their node
        std::size_t begin, end, depth;
        std::uint32_t node;
      };
      std::vector<Part> parts{{0, keys.size(), 0, 0}};
      std::vector<std::uint32_t> labels;
      std::vector<std::size_t> begins;
      while (!parts.empty()) {
        const Part part = parts.back();
        parts.pop_back();
        labels.clear();
        begins.clear();
        for (std::size_t i = part.begin; i < part.end; ++i) {
          const std::string_view key = keys[i].first;
          const std::uint32_t label =
              key.size() == part.depth ? 0 : static_cast<unsigned char>(key[part.depth]);
          if (!labels.empty() && labels.back() == label) continue;
          labels.push_back(label);
          begins.push_back(i);
        }
        begins.push_back(part.end);
        const std::uint32_t at = place(labels, part.node);
        const std::uint32_t relative = at ^ part.node;
        units_[part.node] |= relative < 1U << 21 ? relative << 10 : relative << 2 | 1U << 9;
        for (std::size_t k = 0; k < labels.size(); ++k) {
          const std::uint32_t child = at ^ labels[k];
          occupy(child);
          if (labels[k] == 0) {
            units_[part.node] |= kHasValue;
            units_[child] = kValue | static_cast<std::uint32_t>(keys[begins[k]].second);
          } else {
            units_[child] = labels[k];
            parts.push_back({begins[k], begins[k + 1], part.depth + 1, child});
          }
        }
        begun_[at] = true;
      }
    }

   private:
    /// An offset at which all labels find a free unit. Few are tried, the newest units first: a
    /// trie of pieces is filled well enough.
    std::uint32_t place(const std::vector<std::uint32_t>& labels, std::uint32_t node) {
      constexpr int kTries = 48;
      std::uint32_t free = next_[kHead];
      for (int tries = 0; tries < kTries && free != kHead; ++tries, free = next_[free]) {
        const std::uint32_t at = (free - 1) ^ labels[0];
        if (begun_[at] || ((at ^ node) >= 1U << 21 && ((at ^ node) & 0xFF) != 0)) continue;
        if (std::all_of(labels.begin(), labels.end(),
                        [&](auto label) { return !used(at ^ label); }))
          return at;
      }
      const auto at = static_cast<std::uint32_t>(units_.size()) + (node & 0xFF);
      grow();
      return at;
    }

    // The free units are a ring in both directions, by their places + 1; 0 is its head.
    static constexpr std::uint32_t kHead = 0;
    bool used(std::uint32_t unit) const { return next_[unit + 1] == unit + 1; }
    void occupy(std::uint32_t unit) {
      const std::uint32_t at = unit + 1;
      next_[previous_[at]] = next_[at];
      previous_[next_[at]] = previous_[at];
      next_[at] = at;
    }
    void grow() {
      const auto from = static_cast<std::uint32_t>(units_.size());
      units_.resize(from + 256);
      begun_.resize(from + 256);
      next_.resize(from + 257);
      previous_.resize(from + 257);
      for (std::uint32_t at = from + 256; at > from; --at) {
        next_[at] = next_[kHead];
        previous_[at] = kHead;
        previous_[next_[kHead]] = at;
        next_[kHead] = at;
      }
    }

    std::vector<std::uint32_t>& units_;
    std::vector<bool> begun_;  ///< an offset belongs to one node, or children would be mistaken
    std::vector<std::uint32_t> next_ = {0}, previous_ = {0};
  };

  std::vector<std::uint32_t> units_;
};

}}  // namespace plumb::v0_1
