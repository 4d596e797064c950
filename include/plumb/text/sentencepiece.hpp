// SentencePieceTokenizer: llama2.c's tokenizer files and its exact ids.
//
// Encoding: a space is put before a non-empty text; each UTF-8 character becomes its piece, or its
// bytes (id = byte + 3) if it has none; then the adjacent pair whose joined piece has the highest
// score is merged, the leftmost on ties, until no pair joins (text/merge.hpp). What this is not:
// the SentencePiece library; there is no normalisation. A zero byte, which ends the text in
// llama2.c, is an ordinary byte here. Source: karpathy/llama2.c, run.c build_tokenizer(), encode()
// and decode().
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/io/file.hpp>
#include <plumb/io/hash.hpp>
#include <plumb/text/merge.hpp>
#include <plumb/text/tokenizer.hpp>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace plumb { inline namespace v0_1 {

class SentencePieceTokenizer final : public Tokenizer {
 public:
  static constexpr std::int32_t kBos = 1, kEos = 2, kFirstByte = 3;

  /// Reads a tok*.bin file of `vocab` pieces: int32 longest piece, then for each piece float32
  /// score, int32 length and its bytes. DataError if the file is anything else, IoError if
  /// unreadable.
  SentencePieceTokenizer(const std::string& path, Index vocab, Where where = Where::here())
      : name_(shown(path.substr(path.rfind('/') + 1))) {
    const std::string file = read_file(path, where);
    const auto bad = [&](const std::string& what) {
      fail<DataError>(str("[sentencepiece] ", shown(path), ": ", what,
                          ". HINT: expected a llama2.c tokenizer (tok*.bin) of ", vocab,
                          " pieces; give the one that belongs to the model, or fetch it again"),
                      where);
    };
    if (vocab < kFirstByte + 256) bad("a vocabulary needs at least 259 pieces");
    std::size_t at = 0;
    const auto read = [&]<class T>(T& value) {
      if (file.size() - at < sizeof value)
        bad(str("the file ends at byte ", file.size(), " within piece ", pieces_.size()));
      std::memcpy(&value, file.data() + at, sizeof value);
      at += sizeof value;
    };
    std::int32_t longest = 0;
    read(longest);
    while (static_cast<Index>(pieces_.size()) < vocab) {
      float score = 0;
      std::int32_t length = 0;
      read(score);
      read(length);
      if (!std::isfinite(score)) bad(str("piece ", pieces_.size(), " has no finite score"));
      if (length < 1 || length > longest)
        bad(str("piece ", pieces_.size(), " claims ", length, " bytes where 1 to ", longest,
                " are possible"));
      if (file.size() - at < static_cast<std::size_t>(length))
        bad(str("the file ends at byte ", file.size(), " within piece ", pieces_.size()));
      pieces_.push_back(file.substr(at, static_cast<std::size_t>(length)));
      scores_.push_back(score);
      at += static_cast<std::size_t>(length);
      ids_.emplace(pieces_.back(), static_cast<std::int32_t>(pieces_.size() - 1));
    }
    if (at != file.size())
      bad(str(file.size() - at, " bytes are left over after ", vocab, " pieces"));
    for (int byte = 0; byte < 256; ++byte)
      if (byte_of(pieces_[static_cast<std::size_t>(kFirstByte + byte)]) != byte)
        bad(str("piece ", kFirstByte + byte, " does not stand for byte ", byte));
    if (!ids_.contains(" ")) bad("there is no piece for the space");
  }

  Index vocab() const override { return static_cast<Index>(pieces_.size()); }
  std::int32_t bos() const override { return kBos; }
  std::int32_t eos() const override { return kEos; }
  /// llama2.c's models were trained on texts that follow one another, each begun by BOS: so they
  /// end a text with the next one's BOS.
  std::vector<std::int32_t> stops() const override { return {kBos, kEos}; }
  std::string name() const override { return name_; }

  std::uint64_t fingerprint() const override {
    Hash64 hash;
    for (std::size_t i = 0; i < pieces_.size(); ++i)
      hash.field(pieces_[i]).add(as_text(std::span<const float>(&scores_[i], 1)));
    return hash.value();
  }

  std::vector<std::int32_t> encode(std::string_view text) const override {
    std::vector<std::int32_t> symbols;
    if (!text.empty()) symbols.push_back(ids_.at(" "));
    append_characters(symbols, text);
    merge(symbols);
    return symbols;
  }

  std::vector<std::int32_t> encode_more(std::string_view text) const override {
    std::vector<std::int32_t> symbols;
    append_characters(symbols, text);
    merge(symbols);
    return symbols;
  }

  /// Text of a whole sequence. A leading BOS prints nothing and takes the next piece's leading
  /// space with it, as in llama2.c; so encode() after a BOS comes back exactly, and a response
  /// decoded by itself keeps its space. BOS and EOS print nothing elsewhere either.
  std::string decode(std::span<const std::int32_t> tokens) const override {
    std::string out;
    std::int32_t previous = -1;
    for (const std::int32_t token : tokens) {
      if (token != kBos && token != kEos) out += piece(previous, token);
      previous = token;
    }
    return out;
  }

  /// What llama2.c's decode(previous, token) returns: the piece, without its leading space if
  /// `previous` is BOS, and as a raw byte if it reads <0xNN>.
  std::string piece(std::int32_t previous, std::int32_t token) const {
    std::string_view text = pieces_[index(token)];
    if (previous == kBos && text.front() == ' ') text.remove_prefix(1);
    const int byte = byte_of(text);
    return byte >= 0 ? std::string(1, static_cast<char>(byte)) : std::string(text);
  }

 private:
  /// The byte that a piece `<0xNN>` stands for, or -1.
  static int byte_of(std::string_view text) {
    if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return -1;
    int value = 0;
    for (const char c : text.substr(3, 2)) {
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                               : -1;
      if (digit < 0) return -1;
      value = value * 16 + digit;
    }
    return value;
  }

  void append_characters(std::vector<std::int32_t>& out, std::string_view text) const {
    for (std::size_t at = 0; at < text.size();) {
      std::size_t end = at + 1;
      while (end < text.size() && end - at < 4 && (text[end] & 0xC0) == 0x80) ++end;
      const auto found = ids_.find(std::string(text.substr(at, end - at)));
      if (found != ids_.end()) {
        out.push_back(found->second);
      } else {
        for (const char c : text.substr(at, end - at))
          out.push_back(static_cast<unsigned char>(c) + kFirstByte);
      }
      at = end;
    }
  }

  void merge(std::vector<std::int32_t>& symbols) const {
    using Joined = detail::Joined<float>;
    constexpr float kLowest = -1e10f;  // llama2.c never takes a merge that scores no higher
    std::string joined;
    detail::merge_symbols(symbols, [&](std::int32_t left, std::int32_t right) {
      joined = pieces_[static_cast<std::size_t>(left)];
      joined += pieces_[static_cast<std::size_t>(right)];
      const auto found = ids_.find(joined);
      if (found == ids_.end()) return std::optional<Joined>();
      const float score = scores_[static_cast<std::size_t>(found->second)];
      return score > kLowest ? std::optional(Joined{-score, found->second}) : std::nullopt;
    });
  }

  std::string name_;
  std::vector<std::string> pieces_;
  std::vector<float> scores_;
  std::unordered_map<std::string, std::int32_t> ids_;
};

}}  // namespace plumb::v0_1
