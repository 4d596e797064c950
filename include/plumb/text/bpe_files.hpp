// The files of byte-level BPE vocabularies: Hugging Face's tokenizer.json, GPT-2's vocabulary with
// its merges (vocab.json and merges.txt, or encoder.json and vocab.bpe), tiktoken's ranks.
//
// What a file asks for that is not computed here is refused by its name. What this is not: a reader
// of what lies beside it (which tokens end a text, the chat form): models/tokenizers.hpp. Sources:
// huggingface/tokenizers, tokenizers/src/models/bpe and pre_tokenizers; openai/gpt-2, encoder.py;
// openai/tiktoken, load.py and openai_public.py.
#pragma once

#include <plumb/io/file.hpp>
#include <plumb/io/json.hpp>
#include <plumb/text/bpe.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// How GPT-2, Llama 3, Qwen2 and cl100k split text into words; and single digits, as SmolLM does
/// first.
inline constexpr const char* kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr const char* kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr const char* kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr const char* kDigitPattern = R"(\p{N})";

namespace detail {

/// GPT-2 writes a byte as one printable character: those that print as themselves, the others as
/// what follows U+0100.
class ByteLetters {
 public:
  ByteLetters() {
    bytes_.fill(-1);
    int next = 256;
    for (int byte = 0; byte < 256; ++byte) {
      const bool prints = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
      letters_[static_cast<std::size_t>(byte)] = prints ? byte : next++;
      bytes_[static_cast<std::size_t>(letters_[static_cast<std::size_t>(byte)])] = byte;
    }
  }

  /// Appends the bytes that `letters` stand for; false if a character stands for none.
  bool read(std::string_view letters, std::string& out) const {
    for (std::size_t at = 0; at < letters.size();) {
      unsigned code = static_cast<unsigned char>(letters[at]);
      std::size_t length = 1;
      if (code >= 0x80) {
        if (code < 0xC2 || code > 0xC5 || at + 1 == letters.size()) return false;
        code = (code & 0x1F) << 6 | (static_cast<unsigned char>(letters[at + 1]) & 0x3F);
        length = 2;
      }
      if (code >= bytes_.size() || bytes_[code] < 0) return false;
      out += static_cast<char>(bytes_[code]);
      at += length;
    }
    return true;
  }

  std::string write(std::string_view bytes) const {
    std::string out;
    for (const char c : bytes) {
      const int letter = letters_[static_cast<unsigned char>(c)];
      if (letter < 0x80) {
        out += static_cast<char>(letter);
      } else {
        out += static_cast<char>(0xC0 | letter >> 6);
        out += static_cast<char>(0x80 | (letter & 0x3F));
      }
    }
    return out;
  }

 private:
  std::array<int, 512> bytes_{};
  std::array<int, 256> letters_{};
};

/// Builds a vocabulary from tokens and merges in letters, checking that they fit together.
class BpeBuilder {
 public:
  BpeBuilder(std::string name, Where where) : where_(where) { v.name = std::move(name); }

  [[noreturn]] void bad(const std::string& what) const {
    fail<DataError>(str("[tokenizer] ", v.name, ": ", what), where_);
  }

  /// `most`: how many tokens there are, which ids may not outnumber by far.
  void token(std::string_view letters, std::int64_t id, std::size_t most) {
    std::string bytes;
    if (!letters_.read(letters, bytes)) bytes = letters;  // an added token is as it is written
    place(std::move(bytes), id, most);
  }
  void added(std::string_view text, std::int64_t id, bool special, std::size_t most) {
    if (text.empty()) bad(str("its added token ", id, " is empty"));
    place(std::string(text), id, most);
    v.added.push_back({std::string(text), static_cast<std::int32_t>(id), special});
  }
  /// Once all tokens are known. A merge of tokens that do not exist is refused.
  void merge(std::string_view left, std::string_view right) {
    if (ids_.empty()) {
      ids_.reserve(v.tokens.size());
      for (std::size_t id = 0; id < v.tokens.size(); ++id)
        ids_.emplace(v.tokens[id], static_cast<std::int32_t>(id));
    }
    std::string a, b;
    if (!letters_.read(left, a) || !letters_.read(right, b))
      bad(str("merge ", v.merges.size(), " has a character that stands for no byte"));
    const auto id = [&](const std::string& bytes) {
      const auto found = ids_.find(bytes);
      if (found == ids_.end())
        bad(str("merge ", v.merges.size(), " (", shown(std::string(left)), " ",
                shown(std::string(right)), ") needs a token that does not exist"));
      return found->second;
    };
    v.merges.push_back({id(a), id(b), id(a + b)});
  }
  /// A line "left right".
  void merge_line(std::string_view line) {
    const std::size_t space = line.find(' ');
    if (space == 0 || space == line.npos || space + 1 == line.size())
      bad(str("merge ", v.merges.size(), " is not two tokens: \"", shown(std::string(line)), '"'));
    merge(line.substr(0, space), line.substr(space + 1));
  }

  BpeVocabulary v;

 private:
  void place(std::string bytes, std::int64_t id, std::size_t most) {
    if (id < 0 || id >= static_cast<std::int64_t>(2 * most + 1024))
      bad(str("the token id ", id, " is far outside a vocabulary of ", most));
    const auto at = static_cast<std::size_t>(id);
    if (at >= v.tokens.size()) v.tokens.resize(at + 1);
    v.tokens[at] = std::move(bytes);
  }

  Where where_;
  ByteLetters letters_;
  StringMap<std::int32_t> ids_;
};

/// What a member says, or null.
inline const Json* member(const Json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return object.is_object() && found != object.end() && !found->is_null() ? &*found : nullptr;
}
inline std::string text_of(const Json* json) {
  return json != nullptr && json->is_string() ? json->get<std::string>() : std::string();
}
inline bool true_in(const Json& object, const char* key, bool otherwise = false) {
  const Json* json = member(object, key);
  return json != nullptr && json->is_boolean() ? json->get<bool>() : otherwise;
}

/// The steps of a part of tokenizer.json that may be one step or a sequence of them.
inline std::vector<const Json*> steps_of(const Json* part, const char* list) {
  if (part == nullptr) return {};
  if (text_of(member(*part, "type")) != "Sequence") return {part};
  std::vector<const Json*> steps;
  if (const Json* inner = member(*part, list); inner != nullptr && inner->is_array())
    for (const Json& step : *inner) steps.push_back(&step);
  return steps;
}

inline void read_pre_tokenizer(BpeBuilder& to, const Json* part) {
  bool byte_level = false;
  for (const Json* step : steps_of(part, "pretokenizers")) {
    const std::string type = text_of(member(*step, "type"));
    if (type == "ByteLevel") {
      byte_level = true;
      to.v.space_first = true_in(*step, "add_prefix_space");
      if (true_in(*step, "use_regex", true)) to.v.patterns.emplace_back(kGpt2Pattern);
    } else if (type == "Digits") {
      to.v.patterns.emplace_back(true_in(*step, "individual_digits") ? kDigitPattern : R"(\p{N}+)");
    } else if (type == "Split" && text_of(member(*step, "behavior")) == "Isolated") {
      const Json* pattern = member(*step, "pattern");
      const std::string regex = pattern != nullptr ? text_of(member(*pattern, "Regex")) : "";
      if (regex.empty()) to.bad("a split without a regular expression");
      to.v.patterns.push_back(regex);
    } else {
      to.bad(str("its pre-tokenizer '", shown(type),
                 "' is unknown; ByteLevel, Digits and Split (isolated, by a regular expression) "
                 "are known"));
    }
  }
  if (!byte_level)
    to.bad("it is not byte-level (there is no ByteLevel pre-tokenizer), which alone is known");
}

}  // namespace detail

/// Reads the text of a tokenizer.json. DataError if it is none, or asks for what is not known.
inline BpeVocabulary read_tokenizer_json(const Json& json, const std::string& name,
                                         Where where = Where::here()) {
  detail::BpeBuilder to(name, where);
  const Json* model = detail::member(json, "model");
  if (model == nullptr) to.bad("there is no \"model\" in it");
  const std::string type = detail::text_of(detail::member(*model, "type"));
  if (!type.empty() && type != "BPE") to.bad(str("its model is '", shown(type), "'; BPE is known"));
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix", "unk_token"})
    if (!detail::text_of(detail::member(*model, key)).empty())
      to.bad(str("'", key, "' is unknown"));
  if (detail::member(*model, "dropout") != nullptr) to.bad("'dropout' is unknown");
  for (const Json* step : detail::steps_of(detail::member(json, "normalizer"), "normalizers")) {
    const std::string form = detail::text_of(detail::member(*step, "type"));
    if (form != "NFC") to.bad(str("its normalizer '", shown(form), "' is unknown; NFC is known"));
    to.v.compose = true;
  }
  detail::read_pre_tokenizer(to, detail::member(json, "pre_tokenizer"));
  to.v.whole_words = detail::true_in(*model, "ignore_merges");

  const Json *vocab = detail::member(*model, "vocab"), *merges = detail::member(*model, "merges"),
             *added = detail::member(json, "added_tokens");
  if (vocab == nullptr || !vocab->is_object() || merges == nullptr || !merges->is_array())
    to.bad("its model has no \"vocab\" or no \"merges\"");
  const std::size_t most = vocab->size() + (added != nullptr ? added->size() : 0);
  for (const auto& [token, id] : vocab->items()) {
    if (!id.is_number_integer()) to.bad(str("the token '", shown(token), "' has no whole id"));
    to.token(token, id.template get<std::int64_t>(), most);
  }
  if (added != nullptr)
    for (const Json& token : *added) {
      const Json* id = detail::member(token, "id");
      if (id == nullptr || !id->is_number_integer()) to.bad("an added token has no whole id");
      to.added(detail::text_of(detail::member(token, "content")), id->get<std::int64_t>(),
               detail::true_in(token, "special"), most);
    }
  for (const Json& merge : *merges) {
    if (merge.is_string())
      to.merge_line(merge.get_ref<const std::string&>());
    else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string())
      to.merge(merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>());
    else
      to.bad(str("merge ", to.v.merges.size(), " is not two tokens"));
  }
  return std::move(to.v);
}

/// Reads GPT-2's two files: the vocabulary as JSON, and its merges, a pair a line.
inline BpeVocabulary read_vocab_and_merges(const Json& vocab, std::string_view merges,
                                           const std::string& name, Where where = Where::here()) {
  detail::BpeBuilder to(name, where);
  to.v.patterns = {kGpt2Pattern};
  for (const auto& [token, id] : vocab.items()) {
    if (!id.is_number_integer()) to.bad(str("the token '", shown(token), "' has no whole id"));
    if (token.starts_with("<|") && token.ends_with("|>"))
      to.added(token, id.template get<std::int64_t>(), true, vocab.size());
    else
      to.token(token, id.template get<std::int64_t>(), vocab.size());
  }
  while (!merges.empty()) {
    std::string_view line = merges.substr(0, merges.find('\n'));
    merges.remove_prefix(std::min(merges.size(), line.size() + 1));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || line.starts_with("#version")) continue;
    to.merge_line(line);
  }
  if (!to.v.added.empty()) to.v.eos = to.v.added.back().id;
  if (to.v.eos >= 0) to.v.stops = {to.v.eos};
  return std::move(to.v);
}

namespace detail {

/// The bytes that base64 spells; false if it does not.
inline bool read_base64(std::string_view text, std::string& out) {
  unsigned bits = 0;
  int held = 0;
  while (text.ends_with('=')) text.remove_suffix(1);
  for (const char c : text) {
    const int digit = c >= 'A' && c <= 'Z'   ? c - 'A'
                      : c >= 'a' && c <= 'z' ? c - 'a' + 26
                      : c >= '0' && c <= '9' ? c - '0' + 52
                      : c == '+'             ? 62
                      : c == '/'             ? 63
                                             : -1;
    if (digit < 0) return false;
    bits = bits << 6 | static_cast<unsigned>(digit);
    held += 6;
    if (held < 8) continue;
    held -= 8;
    out += static_cast<char>(bits >> held & 255U);
  }
  return true;
}

}  // namespace detail

/// Reads tiktoken's ranks: a token in base64 and its id, a line each. Any two tokens whose bytes
/// together are a token merge, the one of the lower id first. The file says nothing of the pattern,
/// which is that of the vocabulary's size: GPT-2's, cl100k's, Llama 3's.
inline BpeVocabulary read_tiktoken(std::string_view text, const std::string& name,
                                   Where where = Where::here()) {
  detail::BpeBuilder to(name, where);
  const auto lines = static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')) + 1;
  detail::StringMap<std::int32_t> ids;
  for (std::size_t line = 1; !text.empty(); ++line) {
    std::string_view said = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), said.size() + 1));
    if (said.ends_with('\r')) said.remove_suffix(1);
    if (said.empty()) continue;
    std::string bytes;
    const std::size_t space = said.find(' ');
    std::int64_t id = -1;
    if (space == said.npos || !detail::read_base64(said.substr(0, space), bytes) || bytes.empty() ||
        std::from_chars(said.data() + space + 1, said.data() + said.size(), id).ptr !=
            said.data() + said.size() ||
        id < 0 || id >= static_cast<std::int64_t>(2 * lines + 1024))
      to.bad(str("line ", line, " is no token in base64 with its rank"));
    const auto at = static_cast<std::size_t>(id);
    if (at >= to.v.tokens.size()) to.v.tokens.resize(at + 1);
    ids[bytes] = static_cast<std::int32_t>(id);
    to.v.tokens[at] = std::move(bytes);
  }
  for (std::size_t id = 0; id < to.v.tokens.size(); ++id) {
    const std::string_view token = to.v.tokens[id];
    for (std::size_t cut = 1; cut < token.size(); ++cut) {
      const auto left = ids.find(token.substr(0, cut)), right = ids.find(token.substr(cut));
      if (left != ids.end() && right != ids.end())
        to.v.merges.push_back({left->second, right->second, static_cast<std::int32_t>(id)});
    }
  }
  to.v.whole_words = true;  // as tiktoken: a word that is a token is that
  const std::size_t count = ids.size();
  if (count == 50256)
    to.v.patterns = {kGpt2Pattern};
  else if (count == 100256 || count == 128000)
    to.v.patterns = {kLlama3Pattern};  // cl100k_base's and Llama 3's are the same
  else
    to.bad(str(count,
               " ranks: with how many of them which pattern goes is known for GPT-2 (50256), "
               "cl100k (100256) and Llama 3 (128000)"));
  return std::move(to.v);
}

}}  // namespace plumb::v0_1
