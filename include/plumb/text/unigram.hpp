// The unigram model's segmentation: the pieces of a text whose scores have the highest sum, by
// Viterbi over a trie.
//
// Order: for each character of the text from the left, the pieces that begin there, the shortest
// first; a way replaces another only if its sum is higher. In float, sums are added in double and
// kept in float, and are brought back to zero where they pass 100000, so that near ties fall as in
// the original (sentencepiece 0.2.3; versions without the last rule differ far into a long text).
// Sources: Kudo 2018; google/sentencepiece, src/unigram_model.cc; huggingface/tokenizers,
// models/unigram, whose sums are double.
#pragma once

#include <plumb/io/utf8.hpp>
#include <plumb/text/double_array.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>
#include <vector>

namespace plumb { inline namespace v0_1 { namespace detail {

/// Calls take(part, id) for the parts of `text`, in their order. `gain(id, length)`: a piece's
/// score, or nothing if it may not be used. A character that is no piece is a part of id `unknown`,
/// of a score below `lowest`. Where no piece goes on, all ways meet, and what lies before is
/// settled: so memory is that of a word.
template <class Real, class Gain, class Take>
void best_pieces(std::string_view text, const DoubleArray& pieces, const Gain& gain,
                 std::int32_t unknown, double lowest, const Take& take) {
  struct Node {  // the best way to where it stands
    Real sum = 0;
    std::int32_t id = -1;
    std::uint32_t length = 0;  // of the last piece; 0: no way yet
  };
  constexpr Real kFar = 100000, kPenalty = 10;
  const Real unknown_score = static_cast<Real>(lowest) - kPenalty;
  std::vector<Node> nodes(1);
  std::size_t begin = 0, reach = 0;  // what is not settled, and how far pieces go; nodes from begin
  const auto offer = [&](std::size_t from, std::size_t length, std::int32_t id, double sum) {
    const std::size_t to = from + length - begin;
    reach = std::max(reach, from + length);
    if (to >= nodes.size()) nodes.resize(2 * to);
    if (nodes[to].length == 0 || sum > static_cast<double>(nodes[to].sum))
      nodes[to] = {static_cast<Real>(sum), id, static_cast<std::uint32_t>(length)};
  };
  std::vector<std::size_t> ends;
  const auto settle = [&] {
    for (std::size_t end = reach - begin; end > 0; end -= nodes[end].length) ends.push_back(end);
    for (; !ends.empty(); ends.pop_back()) {
      const Node& last = nodes[ends.back()];
      take(text.substr(begin + ends.back() - last.length, last.length), last.id);
    }
    nodes[0].sum = nodes[reach - begin].sum;
    std::fill(nodes.begin() + 1, nodes.begin() + static_cast<std::ptrdiff_t>(reach - begin) + 1,
              Node{});
    begin = reach;
  };
  for (std::size_t at = 0; at < text.size();) {
    if (reach == at) settle();
    const Real far = nodes[at - begin].sum;
    if (std::is_same_v<Real, float> && std::abs(far) > kFar)
      for (std::size_t i = at; i <= reach; ++i)
        if (i == at || nodes[i - begin].length > 0) nodes[i - begin].sum -= far;
    const Real before = nodes[at - begin].sum;
    const std::string_view rest = text.substr(at);
    const std::size_t character = utf8_start(rest).bytes;
    bool single = false;
    pieces.prefixes(rest, [&](std::int32_t id, std::size_t length) {
      const auto score = gain(id, length);
      if (!score) return;
      offer(at, length, id, *score + static_cast<double>(before));
      single = single || length == character;
    });
    if (!single) offer(at, character, unknown, static_cast<double>(unknown_score + before));
    at += character;
  }
  settle();
}

}  // namespace detail
}}  // namespace plumb::v0_1
