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
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 { namespace detail {

/// The parts of `text` and their ids. `gain(id, length)`: a piece's score, or nothing if it may not
/// be used. A character that is no piece is a part of id `unknown`, of a score below `lowest`.
template <class Real, class Gain>
std::vector<std::pair<std::string_view, std::int32_t>> best_pieces(std::string_view text,
                                                                   const DoubleArray& pieces,
                                                                   const Gain& gain,
                                                                   std::int32_t unknown,
                                                                   double lowest) {
  struct Node {  // the best way to where it stands
    Real sum = 0;
    std::int32_t id = -1;
    std::uint32_t length = 0;  // of the last piece; 0: no way yet
  };
  constexpr Real kFar = 100000, kPenalty = 10;
  const Real unknown_score = static_cast<Real>(lowest) - kPenalty;
  std::vector<Node> nodes(text.size() + 1);
  std::size_t reach = 0;
  const auto offer = [&](std::size_t from, std::size_t length, std::int32_t id, double sum) {
    reach = std::max(reach, from + length);
    Node& node = nodes[from + length];
    if (node.length == 0 || sum > static_cast<double>(node.sum))
      node = {static_cast<Real>(sum), id, static_cast<std::uint32_t>(length)};
  };
  for (std::size_t at = 0; at < text.size();) {
    const Real far = nodes[at].sum;
    if (std::is_same_v<Real, float> && std::abs(far) > kFar)
      for (std::size_t i = at; i <= reach; ++i)
        if (nodes[i].length > 0) nodes[i].sum -= far;
    const Real before = nodes[at].sum;
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
  std::vector<std::pair<std::string_view, std::int32_t>> path;
  for (std::size_t end = text.size(); end > 0; end -= nodes[end].length)
    path.emplace_back(text.substr(end - nodes[end].length, nodes[end].length), nodes[end].id);
  std::reverse(path.begin(), path.end());
  return path;
}

}  // namespace detail
}}  // namespace plumb::v0_1
