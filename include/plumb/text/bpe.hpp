// BpeTokenizer: byte-level byte-pair encoding, of GPT-2, Llama 3, Qwen2, SmolLM and their kin.
//
// Encoding: the text is split into words by the vocabulary's patterns, one after another; each word
// becomes its bytes' tokens; then the adjacent pair that was learned first is merged, the leftmost
// on ties, until no pair is left (text/merge.hpp); words that were seen are looked up. Text that is
// not UTF-8 is split where it is not, and loses no byte; a byte that has no token, which some
// vocabularies lack for control characters, is dropped (as in the original: huggingface/tokenizers,
// models/bpe).
//
// Special tokens (a turn's end, say) stand for themselves in encode_form(), which reads the text of
// a chat form, and never in encode(): a user who types their name types letters. What this is not:
// a reader of files (text/bpe_files.hpp). Sources: Sennrich et al. 2016; openai/gpt-2, encoder.py.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/io/hash.hpp>
#include <plumb/text/merge.hpp>
#include <plumb/text/normal_form.hpp>
#include <plumb/text/pattern.hpp>
#include <plumb/text/seen_words.hpp>
#include <plumb/text/tokenizer.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// What defines a byte-level BPE tokenizer.
struct BpeVocabulary {
  /// A token that merges do not make.
  struct Added {
    std::string text;
    std::int32_t id = 0;
    bool special = false;  ///< of the chat form: never in a user's text
  };

  std::string name;
  std::vector<std::string> tokens;  ///< the bytes of each; empty where an id has no token
  /// Pairs of ids and what they become, the one to merge first in front.
  std::vector<std::array<std::int32_t, 3>> merges;
  std::vector<Added> added;
  std::vector<std::string> patterns;  ///< each splits the pieces that the one before left
  bool whole_words = false;           ///< a word that is a token is not merged (Llama 3)
  bool space_first = false;           ///< a text begins with a space
  bool compose = false;               ///< to Unicode's composed form (NFC) first (Qwen2)
  std::int32_t bos = -1;              ///< put before a sequence; -1: nothing
  std::int32_t eos = -1;
  std::vector<std::int32_t> stops;  ///< tokens that end a response
};

class BpeTokenizer final : public Tokenizer {
 public:
  /// DataError if most bytes have no token, a merge names none, or a pattern is malformed. `vocab`:
  /// the model's, which may be larger: what is beyond the tokens decodes to nothing.
  BpeTokenizer(BpeVocabulary vocabulary, Index vocab, Where where = Where::here())
      : v_(std::move(vocabulary)), vocab_(vocab), patterns_(v_.patterns, where, v_.name) {
    const auto bad = [&](const std::string& what) {
      fail<DataError>(str("[tokenizer] ", v_.name, ": ", what), where);
    };
    if (static_cast<Index>(v_.tokens.size()) > vocab)
      bad(str("it has ", v_.tokens.size(), " tokens, the model ", vocab,
              ". HINT: is it the model's own?"));
    const auto known = [&](std::int32_t id) {
      return id >= 0 && static_cast<std::size_t>(id) < v_.tokens.size();
    };
    byte_tokens_.fill(-1);
    is_special_.resize(v_.tokens.size());
    std::vector<bool> is_added(v_.tokens.size());
    for (const auto& added : v_.added) {
      if (!known(added.id) || added.text.empty())
        bad(str("its added token ", added.id, " is none"));
      is_added[static_cast<std::size_t>(added.id)] = true;
      is_special_[static_cast<std::size_t>(added.id)] = added.special;
      has_typed_ = has_typed_ || !added.special;
    }
    ids_.reserve(v_.tokens.size());
    for (std::size_t id = 0; id < v_.tokens.size(); ++id) {
      if (v_.tokens[id].empty() || is_added[id]) continue;
      ids_.emplace(v_.tokens[id], static_cast<std::int32_t>(id));
      if (v_.tokens[id].size() == 1)
        byte_tokens_[static_cast<unsigned char>(v_.tokens[id][0])] = static_cast<std::int32_t>(id);
    }
    const auto missing = std::count(byte_tokens_.begin(), byte_tokens_.end(), -1);
    if (missing > 128) bad(str(missing, " of 256 bytes have no token: not byte-level BPE"));
    merges_.reserve(v_.merges.size());
    for (std::size_t rank = 0; rank < v_.merges.size(); ++rank) {
      const auto& [left, right, merged] = v_.merges[rank];
      if (!known(left) || !known(right) || !known(merged))
        bad(str("merge ", rank, " names a token that does not exist"));
      merges_.emplace(pair_key(left, right), Merge{static_cast<std::int32_t>(rank), merged});
    }
    for (const std::int32_t id : v_.stops)
      if (!known(id)) bad(str("its end token ", id, " does not exist"));
    if ((v_.bos != -1 && !known(v_.bos)) || (v_.eos != -1 && !known(v_.eos)))
      bad("its first or its last token does not exist");
    std::sort(v_.added.begin(), v_.added.end(),
              [](const auto& a, const auto& b) { return a.text.size() > b.text.size(); });
  }

  Index vocab() const override { return vocab_; }
  std::int32_t bos() const override { return v_.bos; }
  std::int32_t eos() const override { return v_.eos; }
  std::vector<std::int32_t> stops() const override { return v_.stops; }
  std::string name() const override { return v_.name; }
  const BpeVocabulary& vocabulary() const { return v_; }

  std::uint64_t fingerprint() const override {
    Hash64 hash;
    for (const std::string& token : v_.tokens) hash.field(token);
    hash.add(as_text(std::span<const std::array<std::int32_t, 3>>(v_.merges)));
    for (const auto& added : v_.added) hash.field(added.text).field(str(added.id, added.special));
    for (const std::string& pattern : v_.patterns) hash.field(pattern);
    return hash.field(str(v_.whole_words, v_.space_first, v_.compose)).value();
  }

  std::vector<std::int32_t> encode(std::string_view text) const override {
    return encoded(text, v_.space_first && !text.empty() && text.front() != ' ', false);
  }
  std::vector<std::int32_t> encode_more(std::string_view text) const override {
    return encoded(text, false, false);
  }
  std::vector<std::int32_t> encode_form(std::string_view text) const override {
    return encoded(text, false, true);
  }

  std::size_t special_at(std::string_view text) const override {
    const auto* added = added_at(text, 0, true);
    return added != nullptr ? added->text.size() : 0;
  }

  std::string decode(std::span<const std::int32_t> tokens) const override {
    std::string out;
    for (const std::int32_t token : tokens) {
      const std::size_t at = index(token);
      if (at < v_.tokens.size() && !is_special_[at]) out += v_.tokens[at];
    }
    return out;
  }

 private:
  using Merge = detail::Joined<std::int32_t>;  // by rank
  using Words = detail::SeenWords::Map;

  static std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
           static_cast<std::uint32_t>(right);
  }

  std::vector<std::int32_t> encoded(std::string_view text, bool space_first,
                                    bool with_special) const {
    std::vector<std::int32_t> out;
    out.reserve(text.size() / 3 + 1);
    Words& seen = seen_.of_this_thread();
    std::string spaced;
    const auto plain = [&](std::string_view piece) {
      if (piece.empty()) return;
      std::string composed;
      if (v_.compose) piece = composed = normal_form_c(piece);
      patterns_.split(piece, [&](std::string_view word) { append_word(out, word, seen); });
    };
    if (space_first) {
      spaced = str(' ', text);
      text = spaced;
    }
    std::size_t begin = 0;
    const bool any = with_special ? !v_.added.empty() : has_typed_;
    for (std::size_t at = 0; any && at < text.size();) {
      const auto* added = added_at(text, at, with_special);
      if (added == nullptr) {
        ++at;
        continue;
      }
      plain(text.substr(begin, at - begin));
      out.push_back(added->id);
      begin = at += added->text.size();
    }
    plain(text.substr(begin));
    return out;
  }

  /// The longest added token that stands at `at`; null if there is none.
  const BpeVocabulary::Added* added_at(std::string_view text, std::size_t at,
                                       bool with_special) const {
    for (const auto& added : v_.added)
      if ((with_special || !added.special) && text.substr(at).starts_with(added.text))
        return &added;
    return nullptr;
  }

  void append_word(std::vector<std::int32_t>& out, std::string_view word, Words& seen) const {
    if (word.size() == 1) {
      const std::int32_t token = byte_tokens_[static_cast<unsigned char>(word[0])];
      if (token >= 0) out.push_back(token);
      return;
    }
    const auto known = seen.find(word);
    if (known != seen.end()) {
      out.insert(out.end(), known->second.begin(), known->second.end());
      return;
    }
    std::vector<std::int32_t> tokens;
    const auto whole = v_.whole_words ? ids_.find(word) : ids_.end();
    if (whole != ids_.end()) {
      tokens = {whole->second};
    } else {
      for (const char c : word) tokens.push_back(byte_tokens_[static_cast<unsigned char>(c)]);
      std::erase(tokens, -1);
      merge(tokens);
    }
    out.insert(out.end(), tokens.begin(), tokens.end());
    detail::SeenWords::keep(seen, word, std::move(tokens));
  }

  void merge(std::vector<std::int32_t>& symbols) const {
    detail::merge_symbols(symbols, [&](std::int32_t left, std::int32_t right) {
      const auto found = merges_.find(pair_key(left, right));
      return found == merges_.end() ? std::optional<Merge>() : found->second;
    });
  }

  BpeVocabulary v_;
  detail::SeenWords seen_;
  Index vocab_;
  std::array<std::int32_t, 256> byte_tokens_{};
  std::vector<bool> is_special_;
  bool has_typed_ = false;  ///< whether a user's text may hold an added token
  detail::StringMap<std::int32_t> ids_;
  std::unordered_map<std::uint64_t, Merge> merges_;
  Patterns patterns_;
};

}}  // namespace plumb::v0_1
