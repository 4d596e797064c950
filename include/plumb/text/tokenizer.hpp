// Tokenizer: text to token ids and back. The interface that the loop and the command line see.
//
// What this is not: the form of a dialogue (models/chat.hpp); its special tokens are read by
// encode_form() alone, never out of a user's text.
#pragma once

#include <plumb/core/check.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace plumb { inline namespace v0_1 {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// Number of token ids: 0 … vocab() - 1.
  virtual Index vocab() const = 0;

  /// Token ids of UTF-8 `text`; no beginning-of-sequence token is added.
  virtual std::vector<std::int32_t> encode(std::string_view text) const = 0;

  /// Token ids of text that goes on where other text ended: nothing is put before it, as some
  /// vocabularies put a space before a text that begins.
  virtual std::vector<std::int32_t> encode_more(std::string_view text) const {
    return encode(text);
  }

  /// The same of the text of a chat form, in which special tokens are written out.
  virtual std::vector<std::int32_t> encode_form(std::string_view text) const {
    return encode_more(text);
  }

  /// Bytes of the special token that `text` begins with; 0 if it begins with none.
  virtual std::size_t special_at(std::string_view /*text*/) const { return 0; }

  /// Text of `tokens`. DataError if one is outside the vocabulary.
  virtual std::string decode(std::span<const std::int32_t> tokens) const = 0;

  /// The token that begins a sequence; -1 if there is none.
  virtual std::int32_t bos() const = 0;

  /// The token that ends a text; -1 if there is none.
  virtual std::int32_t eos() const = 0;

  /// Tokens that end a response: eos(), and what else a model may have learned to end with.
  virtual std::vector<std::int32_t> stops() const = 0;

  virtual std::string name() const = 0;

  /// A hash of the vocabulary: equal only for tokenizers that give equal ids.
  virtual std::uint64_t fingerprint() const = 0;

 protected:
  /// `token` as an index, checked.
  std::size_t index(std::int32_t token) const {
    if (token < 0 || token >= vocab())
      fail<DataError>(str("[tokenizer] token ", token, " is outside the vocabulary of ", vocab(),
                          " of '", name(), "'. HINT: is this the model's own tokenizer?"));
    return static_cast<std::size_t>(token);
  }
};

}}  // namespace plumb::v0_1
