// PieceTokenizer: SentencePiece, BPE and unigram, as Llama 2, Gemma, T5 and XLM-R use it.
//
// Encoding: the text is normalised (text/piece_normal.hpp). BPE: characters merge, the pair whose
// piece has the highest score first, the leftmost on ties; or the pair that is listed first, where
// a list is (text/merge.hpp). Unigram: the pieces of the highest sum of scores (text/unigram.hpp).
// What has no piece becomes its bytes' pieces, or one unknown piece a run.
//
// Control pieces are read by encode_form() alone, never out of a user's text; symbols that the
// vocabulary's maker defined are read everywhere. decode() strips the first space after BOS, as the
// original does for a whole text, so that a response by itself keeps its space; pieces of bytes
// give their bytes, which the original repairs. What this is not: a reader of files
// (text/piece_files.hpp); the models of words and of characters; sampling of segmentations.
// Sources: Kudo and Richardson 2018; google/sentencepiece,
// src/{bpe_model,sentencepiece_processor}.cc; huggingface/tokenizers, models/bpe.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/io/file.hpp>
#include <plumb/io/hash.hpp>
#include <plumb/io/utf8.hpp>
#include <plumb/text/double_array.hpp>
#include <plumb/text/merge.hpp>
#include <plumb/text/piece_normal.hpp>
#include <plumb/text/seen_words.hpp>
#include <plumb/text/tokenizer.hpp>
#include <plumb/text/unigram.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

class PieceTokenizer final : public Tokenizer {
 public:
  /// DataError if the vocabulary contradicts itself, or is larger than `vocab`, the model's.
  PieceTokenizer(PieceVocabulary vocabulary, Index vocab, Where where = Where::here())
      : v_(std::move(vocabulary)), vocab_(vocab), where_(where) {
    if (static_cast<Index>(v_.pieces.size()) > vocab)
      bad(str("it has ", v_.pieces.size(), " pieces, the model ", vocab,
              ". HINT: is it the model's own?"));
    bytes_.fill(-1);
    std::vector<DoubleArray::Key> usable, defined, control;
    for (std::size_t i = 0; i < v_.pieces.size(); ++i) {
      const auto& [text, score, kind] = v_.pieces[i];
      const auto id = static_cast<std::int32_t>(i);
      check_piece(i);
      if (kind == Kind::Unknown) unknown_ = id;
      if (kind == Kind::Byte) bytes_[static_cast<std::size_t>(byte_of(text))] = id;
      if (kind == Kind::Control && !text.empty()) control.emplace_back(text, id);
      if (kind == Kind::Defined) defined.emplace_back(text, id);
      if (kind == Kind::Normal) {
        lowest_ = std::min(lowest_, score);
        highest_ = std::max(highest_, score);
        splits_ = splits_ && !crosses_words(text);
      }
      has_unused_ = has_unused_ || kind == Kind::Unused;
      if (is_usable(kind) && !text.empty() && ids_.emplace(text, id).second)
        usable.emplace_back(text, id);
    }
    if (unknown_ < 0 && !v_.byte_fallback) bad("it has neither an unknown piece nor bytes");
    if (v_.byte_fallback && std::count(bytes_.begin(), bytes_.end(), -1) > 0)
      bad("text without pieces is to become bytes, and some bytes have no piece");
    for (const std::int32_t id : {v_.bos, v_.eos})
      if (id < -1 || id >= std::ssize(v_.pieces)) bad(str("its token ", id, " does not exist"));
    defined_ = DoubleArray(unique(std::move(defined)));
    normalizer_ = PieceNormalizer(v_, defined_, where);
    control_ = DoubleArray(unique(std::move(control)));
    if (v_.unigram)
      usable_ = DoubleArray(std::move(usable));
    else
      list_pairs();
  }

  Index vocab() const override { return vocab_; }
  std::int32_t bos() const override { return v_.bos; }
  std::int32_t eos() const override { return v_.eos; }
  std::vector<std::int32_t> stops() const override { return v_.stops; }
  std::string name() const override { return v_.name; }
  const PieceVocabulary& vocabulary() const { return v_; }

  std::uint64_t fingerprint() const override {
    Hash64 hash;
    for (const auto& [text, score, kind] : v_.pieces)
      hash.field(text)
          .add(as_text(std::span<const double>(&score, 1)))
          .add(as_text(std::span(&kind, 1)));
    hash.add(as_text(std::span<const std::array<std::int32_t, 3>>(v_.merges))).field(v_.rules);
    return hash
        .field(str(v_.unigram, v_.space_first, v_.space_once, v_.collapse, v_.byte_fallback,
                   v_.repair, v_.words, v_.graphemes, v_.any_space))
        .value();
  }

  std::vector<std::int32_t> encode(std::string_view text) const override {
    std::vector<std::int32_t> out;
    append(out, text, true);
    return out;
  }
  /// A space that the text begins with stays; none is put before it.
  std::vector<std::int32_t> encode_more(std::string_view text) const override {
    std::vector<std::int32_t> out;
    append(out, text, false);
    return out;
  }
  std::vector<std::int32_t> encode_form(std::string_view text) const override {
    std::vector<std::int32_t> out;
    std::size_t begin = 0;
    for (std::size_t at = 0; at < text.size();) {
      const auto [id, length] = control_.longest(text.substr(at));
      if (length == 0) {
        ++at;
        continue;
      }
      append(out, text.substr(begin, at - begin), false);
      out.push_back(id);
      begin = at += length;
    }
    append(out, text.substr(begin), false);
    return out;
  }
  std::size_t special_at(std::string_view text) const override {
    return control_.longest(text).second;
  }

  std::string decode(std::span<const std::int32_t> tokens) const override {
    std::string out;
    bool begins = !tokens.empty() && tokens[0] == v_.bos;
    for (const std::int32_t token : tokens) {
      const std::size_t at = index(token);
      if (at >= v_.pieces.size() || v_.pieces[at].kind == Kind::Control) continue;
      const auto& [text, score, kind] = v_.pieces[at];
      std::string_view rest = text;
      if (kind == Kind::Byte) {
        out += static_cast<char>(byte_of(text));
        rest = {};
      } else if (kind == Kind::Unknown) {
        out += v_.unknown_text;
        rest = {};
      } else if (begins && v_.space_first && rest.starts_with(kSpace)) {
        rest.remove_prefix(kSpace.size());
      }
      begins = false;
      for (std::size_t space = rest.find(kSpace); !rest.empty(); space = rest.find(kSpace)) {
        out += rest.substr(0, space);
        rest.remove_prefix(std::min(space, rest.size()));
        if (rest.empty()) break;
        out += ' ';
        rest.remove_prefix(kSpace.size());
      }
    }
    return out;
  }

 private:
  using Kind = PieceVocabulary::Kind;
  using Merge = detail::Joined<std::int32_t>;
  static constexpr std::string_view kSpace = PieceNormalizer::kSpace;

  [[noreturn]] void bad(const std::string& what) const {
    fail<DataError>(str("[tokenizer] ", v_.name, ": ", what), where_);
  }
  static bool is_usable(Kind kind) {
    return kind == Kind::Normal || kind == Kind::Defined || kind == Kind::Unused;
  }

  void check_piece(std::size_t i) const {
    constexpr std::size_t kLongest = 1024;
    const auto& [text, score, kind] = v_.pieces[i];
    if (text.size() > kLongest) bad(str("piece ", i, " has ", text.size(), " bytes"));
    if (text.find('\0') != text.npos) bad(str("piece ", i, " has a zero byte"));
    if (!std::isfinite(score)) bad(str("piece ", i, " has no finite score"));
    if (kind == Kind::Byte && byte_of(text) < 0)
      bad(str("piece ", i, " stands for a byte and does not say for which"));
    if (kind == Kind::Unknown && unknown_ >= 0) bad(str("piece ", i, " is a second unknown one"));
    if (text.empty() && is_usable(kind)) bad(str("piece ", i, " is empty"));
  }

  /// The byte that a piece `<0xNN>` stands for, or -1.
  static int byte_of(std::string_view text) {
    constexpr std::string_view kDigits = "0123456789ABCDEF";
    if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return -1;
    const std::size_t high = kDigits.find(text[3]), low = kDigits.find(text[4]);
    return high == kDigits.npos || low == kDigits.npos ? -1 : static_cast<int>(high * 16 + low);
  }
  /// Whether a space follows another character: then words cannot be encoded one by one.
  static bool crosses_words(std::string_view text) {
    while (text.starts_with(kSpace)) text.remove_prefix(kSpace.size());
    return text.find(kSpace) != text.npos;
  }
  static std::vector<DoubleArray::Key> unique(std::vector<DoubleArray::Key> keys) {
    std::sort(keys.begin(), keys.end());
    const auto same = [](const auto& a, const auto& b) { return a.first == b.first; };
    keys.erase(std::unique(keys.begin(), keys.end(), same), keys.end());
    return keys;
  }

  /// BPE's pairs of symbols that merge, and when. A symbol is a piece, or a character that pieces
  /// consist of and that is none itself: its number is then beyond theirs.
  void list_pairs() {
    symbols_ = ids_;
    for (std::int32_t rank = 0; rank < std::ssize(v_.merges); ++rank) {
      const auto& [left, right, merged] = v_.merges[static_cast<std::size_t>(rank)];
      for (const std::int32_t id : {left, right, merged})
        if (id < 0 || id >= std::ssize(v_.pieces)) bad(str("merge ", rank, " names no piece"));
      pairs_.insert_or_assign(pair_key(left, right), Merge{rank, merged});
    }
    if (!v_.merges.empty()) return;
    std::vector<double> scores;
    for (const auto& [text, id] : ids_) scores.push_back(-score(id));
    std::sort(scores.begin(), scores.end());
    auto next = static_cast<std::int32_t>(v_.pieces.size());
    for (const auto& [text, id] : ids_)
      for_characters(text, [&](std::string_view c) {
        if (symbols_.find(c) == symbols_.end()) symbols_.emplace(c, next++);
      });
    for (const auto& [text, id] : ids_) {
      const auto order = static_cast<std::int32_t>(
          std::lower_bound(scores.begin(), scores.end(), -score(id)) - scores.begin());
      std::size_t cut = 0;
      for_characters(text, [&, whole = std::string_view(text), id = id](std::string_view c) {
        const auto left = symbols_.find(whole.substr(0, cut)),
                   right = symbols_.find(whole.substr(cut));
        if (cut > 0 && left != symbols_.end() && right != symbols_.end())
          pairs_.emplace(pair_key(left->second, right->second), Merge{order, id});
        cut += c.size();
      });
    }
  }
  double score(std::int32_t id) const { return v_.pieces[static_cast<std::size_t>(id)].score; }
  static std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
           static_cast<std::uint32_t>(right);
  }
  template <class Take>
  static void for_characters(std::string_view text, const Take& take) {
    while (!text.empty()) {
      const std::size_t size = detail::utf8_start(text).bytes;
      take(text.substr(0, size));
      text.remove_prefix(size);
    }
  }

  void append(std::vector<std::int32_t>& out, std::string_view text, bool begins) const {
    const std::string normalised = normalizer_.normal(text, begins);
    out.reserve(out.size() + normalised.size() / 3 + 1);
    if (v_.unigram && !v_.words) return append_best<float>(out, normalised);
    // Between two symbols of its maker's, which merge with nothing.
    std::string_view rest = normalised;
    for (std::size_t at = 0; !v_.unigram && !defined_.empty() && at < rest.size();) {
      const auto [id, length] = defined_.longest(rest.substr(at));
      if (length == 0) {
        at += detail::utf8_start(rest.substr(at)).bytes;
        continue;
      }
      append_words(out, rest.substr(0, at));
      push(out, id);
      rest.remove_prefix(at + length);
      at = 0;
    }
    append_words(out, rest);
  }

  void append_words(std::vector<std::int32_t>& out, std::string_view text) const {
    if (!v_.words && (!splits_ || has_unused_)) return append_merged(out, text);
    detail::SeenWords::Map& seen = seen_.of_this_thread();
    while (!text.empty()) {
      const std::string_view word = text.substr(0, word_end(text));
      text.remove_prefix(word.size());
      const auto known = seen.find(word);
      std::vector<std::int32_t> made;
      if (known == seen.end())
        v_.unigram ? append_best<double>(made, word) : append_merged(made, word);
      for (const std::int32_t token : known == seen.end() ? made : known->second) push(out, token);
      if (known == seen.end()) detail::SeenWords::keep(seen, word, std::move(made));
    }
  }
  /// A word goes on to the next space. Spaces in a row begin one word, or a word each.
  std::size_t word_end(std::string_view text) const {
    std::size_t begin = 0;
    while (text.substr(begin).starts_with(kSpace)) {
      begin += kSpace.size();
      if (v_.words) break;
    }
    return std::min(text.find(kSpace, begin), text.size());
  }

  /// Unknown pieces in a row are one.
  void push(std::vector<std::int32_t>& out, std::int32_t id) const {
    if (id != unknown_ || out.empty() || out.back() != unknown_) out.push_back(id);
  }
  void push_unknown(std::vector<std::int32_t>& out, std::string_view text) const {
    if (!v_.byte_fallback) return push(out, unknown_);
    for (const char c : text) out.push_back(bytes_[static_cast<unsigned char>(c)]);
  }

  void append_merged(std::vector<std::int32_t>& out, std::string_view text) const {
    std::vector<std::int32_t> symbols;
    std::map<std::int32_t, std::string> without;  // characters that are only parts of pieces
    for_characters(text, [&](std::string_view c) {
      const auto found = symbols_.find(c);
      if (found == symbols_.end()) return push_unknown(symbols, c);
      symbols.push_back(found->second);
      if (found->second >= std::ssize(v_.pieces)) without.emplace(found->second, c);
    });
    // An unused piece is taken apart again, as it was last put together.
    std::map<std::int32_t, std::pair<std::int32_t, std::int32_t>> apart;
    detail::merge_symbols(symbols, [&](std::int32_t left, std::int32_t right) {
      const auto found = pairs_.find(pair_key(left, right));
      if (found == pairs_.end()) return std::optional<Merge>();
      if (has_unused_ && kind(found->second.symbol) == Kind::Unused)
        apart[found->second.symbol] = {left, right};
      return std::optional(found->second);
    });
    std::vector<std::int32_t> waiting;
    for (const std::int32_t symbol : symbols) {
      for (waiting = {symbol}; !waiting.empty();) {
        const std::int32_t id = waiting.back();
        waiting.pop_back();
        const auto parts = has_unused_ ? apart.find(id) : apart.end();
        if (parts != apart.end())
          waiting.insert(waiting.end(), {parts->second.second, parts->second.first});
        else if (id >= std::ssize(v_.pieces))
          push_unknown(out, without.at(id));
        else
          push(out, id);
      }
    }
  }
  Kind kind(std::int32_t id) const { return v_.pieces[static_cast<std::size_t>(id)].kind; }

  template <class Real>
  void append_best(std::vector<std::int32_t>& out, std::string_view text) const {
    const auto gain = [&](std::int32_t id, std::size_t length) -> std::optional<double> {
      const auto& [piece, score, kind] = v_.pieces[static_cast<std::size_t>(id)];
      if (kind == Kind::Unused) return std::nullopt;
      if (kind != Kind::Defined) return score;
      // Always the better way; the product is a float in the original.
      return static_cast<double>(static_cast<float>(static_cast<double>(length) * highest_)) - 0.1;
    };
    for (const auto& [part, id] :
         detail::best_pieces<Real>(text, usable_, gain, unknown_, lowest_)) {
      if (id == unknown_)
        push_unknown(out, part);
      else
        out.push_back(id);
    }
  }

  PieceVocabulary v_;
  Index vocab_;
  Where where_;
  detail::SeenWords seen_;
  std::array<std::int32_t, 256> bytes_{};
  std::int32_t unknown_ = -1;
  double lowest_ = std::numeric_limits<float>::max(), highest_ = std::numeric_limits<float>::min();
  bool splits_ = true, has_unused_ = false;
  detail::StringMap<std::int32_t> ids_, symbols_;  ///< pieces that text can become; BPE's symbols
  std::unordered_map<std::uint64_t, Merge> pairs_;
  DoubleArray usable_, defined_, control_;
  PieceNormalizer normalizer_;
};

}}  // namespace plumb::v0_1
