// SeenWords: words that a thread has encoded, with their tokens: a language repeats itself.
#pragma once

#include <plumb/io/hash.hpp>

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 { namespace detail {

/// So that a view finds a string in a map.
struct StringHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const {
    return static_cast<std::size_t>(hash64(text));
  }
};
template <class Value>
using StringMap = std::unordered_map<std::string, Value, StringHash, std::equal_to<>>;

class SeenWords {
 public:
  using Map = StringMap<std::vector<std::int32_t>>;

  /// Those of the tokenizer that this belongs to; another tokenizer of the thread begins anew.
  Map& of_this_thread() const {
    static thread_local std::uint64_t owner = 0;
    static thread_local Map words;
    if (std::exchange(owner, number_) != number_) words.clear();
    return words;
  }
  static void keep(Map& seen, std::string_view word, std::vector<std::int32_t>&& tokens) {
    constexpr std::size_t kMost = 1 << 16, kLongest = 64;
    if (word.size() <= kLongest && seen.size() < kMost)
      seen.emplace(std::string(word), std::move(tokens));
  }

 private:
  static std::uint64_t next_number() {
    static std::atomic<std::uint64_t> last{0};
    return ++last;
  }
  std::uint64_t number_ = next_number();  ///< of all tokenizers of this process
};

}  // namespace detail
}}  // namespace plumb::v0_1
