// What a vocabulary of pieces is, and SentencePiece's normalisation of text.
//
// Each place of the text takes the longest rule that fits (a trie, text/double_array.hpp), or the
// character as it is; then runs of spaces become one, those at the ends nothing, a space is put
// before the text, and spaces are written as ▁: each as the vocabulary says. The rules are the
// file's own, so they are its Unicode, too, and no library's: nmt_nfkc, nfkc_cf or others that were
// compiled into it. Source: google/sentencepiece, src/normalizer.cc and sentencepiece_model.proto.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/io/utf8.hpp>
#include <plumb/text/double_array.hpp>
#include <plumb/text/normal_form.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// What defines a tokenizer of pieces.
struct PieceVocabulary {
  /// By their numbers in the files.
  enum class Kind : std::uint8_t { Normal = 1, Unknown, Control, Defined, Unused, Byte };
  struct Piece {
    std::string text;  ///< spaces are ▁
    double score = 0;  ///< a float's but in tokenizer.json
    Kind kind = Kind::Normal;
  };

  std::string name;
  std::vector<Piece> pieces;
  bool unigram = false;
  /// BPE's: ids and what they become, the one to merge first in front; none: the scores say.
  std::vector<std::array<std::int32_t, 3>> merges;
  std::string rules;           ///< of normalisation: a trie and what its values point to; or none
  bool space_first = true;     ///< a space is put before a text
  bool space_once = false;     ///< but not before one that is there (tokenizer.json)
  bool collapse = true;        ///< runs of spaces are one, those at the ends nothing
  bool byte_fallback = false;  ///< what has no piece becomes bytes
  bool graphemes = false;  ///< rules as the package tokenizers applies them (see the normaliser)
  bool any_space = false;  ///< every white space of Unicode's is a space (tokenizer.json)
  bool repair = true;      ///< bytes that are not UTF-8 become U+FFFD
  bool words = false;      ///< each word from its space by itself (tokenizer.json)
  std::string unknown_text = " \xE2\x81\x87 ";  ///< what an unknown piece prints
  std::int32_t bos = -1, eos = -1;
  std::vector<std::int32_t> stops;
};

class PieceNormalizer {
 public:
  static constexpr std::string_view kSpace = "\xE2\x96\x81";  // ▁

  PieceNormalizer() = default;
  /// `defined`: symbols that stay as they are. DataError if the rules are malformed.
  PieceNormalizer(const PieceVocabulary& v, DoubleArray defined, Where where)
      : space_first_(v.space_first),
        space_once_(v.space_once),
        collapse_(v.collapse),
        graphemes_(v.graphemes),
        any_space_(v.any_space),
        repair_(v.repair),
        defined_(std::move(defined)) {
    read_rules(v, where);
  }

  /// The text as it is encoded: normalised, spaces as ▁. `begins`: it begins a sequence.
  std::string normal(std::string_view text, bool begins = true) const {
    std::string out;
    out.reserve(text.size() + text.size() / 2 + kSpace.size());
    bool after_space = collapse_ && begins;
    std::string ruled;
    if (graphemes_) text = ruled = by_graphemes(text);
    while (!text.empty()) {
      auto [part, length] = next_normal(text);
      text.remove_prefix(length);
      if (out.empty() && begins && space_first_ && !(collapse_ && part == " ") &&
          !(space_once_ && (part.starts_with(' ') || part.starts_with(kSpace))))
        out = kSpace;
      while (after_space && part.starts_with(' ')) part.remove_prefix(1);
      if (part.empty()) continue;
      for (const char c : part)
        if (c == ' ')
          out += kSpace;
        else
          out += c;
      after_space = collapse_ && part.ends_with(' ');
    }
    while (collapse_ && out.ends_with(kSpace)) out.resize(out.size() - kSpace.size());
    return out;
  }

 private:
  /// Rules: uint32 bytes of the trie, the trie, then texts that end with a zero byte.
  void read_rules(const PieceVocabulary& v, Where where) {
    const std::string_view all = v.rules;
    if (all.empty()) return;
    const auto bad = [&](const std::string& what) {
      fail<DataError>(str("[tokenizer] ", v.name, ": its rules of normalisation ", what), where);
    };
    std::uint32_t size = 0;
    if (all.size() >= sizeof size) std::memcpy(&size, all.data(), sizeof size);
    if (size == 0 || size % 4 != 0 || size > all.size() - sizeof size)
      bad(str("claim a trie of ", size, " bytes, in ", all.size()));
    std::vector<std::uint32_t> units(size / 4);
    std::memcpy(units.data(), all.data() + sizeof size, size);
    rules_ = DoubleArray(std::move(units));
    texts_ = all.substr(sizeof size + size);
    if (!texts_.ends_with('\0')) bad("do not end");
  }

  /// What a rule puts in a text's place.
  std::string_view text_at(std::int32_t at) const {
    const auto begin = std::min(static_cast<std::size_t>(at), texts_.size());
    const std::string_view rest = std::string_view(texts_).substr(begin);
    return rest.substr(0, rest.find('\0'));
  }

  /// As the package tokenizers does it: what a reader sees as one character, if it has fewer than
  /// six bytes, becomes what the shortest rule for its beginning says, or else each of its
  /// characters does. An accent on a space that is not ASCII's is lost so, as it is there.
  std::string by_graphemes(std::string_view text) const {
    std::string out;
    const auto apply = [&](std::string_view part) {
      std::int32_t rule = -1;
      rules_.prefixes(part, [&](std::int32_t at, std::size_t) { rule = rule < 0 ? at : rule; });
      if (rule >= 0) out += text_at(rule);
      return rule >= 0;
    };
    constexpr std::size_t kLong = 6;
    while (!text.empty()) {
      std::string_view whole = text.substr(0, grapheme_bytes(text));
      text.remove_prefix(whole.size());
      if (whole.size() < kLong && apply(whole)) continue;
      while (!whole.empty()) {
        const std::string_view part = whole.substr(0, detail::utf8_start(whole).bytes);
        if (!apply(part)) out += part;
        whole.remove_prefix(part.size());
      }
    }
    return out;
  }

  /// Whether a character is white space (Unicode's White_Space).
  static bool is_space(std::string_view c) {
    if (c.size() == 1) return c[0] == ' ' || (c[0] >= '\t' && c[0] <= '\r');
    if (c.size() == 2) return c == "\xC2\x85" || c == "\xC2\xA0";
    if (c.starts_with("\xE2\x80")) {
      const auto last = static_cast<unsigned char>(c[2]);
      return last <= 0x8A || last == 0xA8 || last == 0xA9 || last == 0xAF;
    }
    return c == "\xE1\x9A\x80" || c == "\xE2\x81\x9F" || c == "\xE3\x80\x80";
  }

  /// The normal form of what `text` begins with, and how many bytes that is.
  std::pair<std::string_view, std::size_t> next_normal(std::string_view text) const {
    if (const std::size_t length = defined_.longest(text).second; length > 0)
      return {text.substr(0, length), length};
    if (!graphemes_)
      if (const auto [at, length] = rules_.longest(text); length > 0) return {text_at(at), length};
    const detail::Utf8Start start = detail::utf8_start(text);
    if (any_space_ && is_space(text.substr(0, start.bytes))) return {" ", start.bytes};
    if (start.whole) return {text.substr(0, start.bytes), start.bytes};
    return {repair_ ? std::string_view("\xEF\xBF\xBD") : text.substr(0, 1), 1};
  }

  bool space_first_ = true, space_once_ = false, collapse_ = true;
  bool graphemes_ = false, any_space_ = false, repair_ = true;
  DoubleArray rules_, defined_;
  std::string texts_;  ///< what rules put in a text's place, each ended by a zero byte
};

}}  // namespace plumb::v0_1
