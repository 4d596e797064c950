// A tokenizer opened by its bytes: Hugging Face's folder or tokenizer.json, GPT-2's vocab.json or
// encoder.json with its merges, tiktoken's ranks, the one in a GGUF file, SentencePiece's
// tokenizer.model, llama2.c's tok*.bin.
//
// Which tokens begin and end a text stands in files beside a tokenizer.json, and is read from them.
#pragma once

#include <plumb/io/gguf.hpp>
#include <plumb/text/bpe_files.hpp>
#include <plumb/text/bytes.hpp>
#include <plumb/text/piece_files.hpp>
#include <plumb/text/piece_json.hpp>
#include <plumb/text/sentencepiece.hpp>

#include <sys/stat.h>

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

namespace detail {

inline std::string last_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

inline bool is_folder(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}
inline std::string in_folder(const std::string& folder, const char* name) {
  return str(folder, folder.empty() || folder.ends_with('/') ? "" : "/", name);
}

/// The JSON of a file beside others; null if there is no such file.
inline Json json_beside(const std::string& folder, const char* name, Where where) {
  const std::string path = in_folder(folder, name);
  return file_exists(path) ? parse_json(read_file(path, where), shown(path), where) : Json();
}

/// A token's text, which files write as itself or as an object around it.
inline std::string token_text(const Json* json) {
  if (json != nullptr && json->is_object()) json = member(*json, "content");
  return text_of(json);
}

inline std::int32_t id_of(const BpeVocabulary& v, std::string_view text) {
  for (const auto& added : v.added)
    if (added.text == text) return added.id;
  for (std::size_t id = 0; id < v.tokens.size(); ++id)
    if (!text.empty() && v.tokens[id] == text) return static_cast<std::int32_t>(id);
  return -1;
}

inline std::int32_t id_of(const PieceVocabulary& v, std::string_view text) {
  for (std::size_t id = 0; id < v.pieces.size(); ++id)
    if (v.pieces[id].text == text) return static_cast<std::int32_t>(id);
  return -1;
}
inline std::size_t count_of(const BpeVocabulary& v) { return v.tokens.size(); }
inline std::size_t count_of(const PieceVocabulary& v) { return v.pieces.size(); }

template <class Vocabulary>
void add_stop(Vocabulary& v, std::int32_t id) {
  if (id >= 0 && std::find(v.stops.begin(), v.stops.end(), id) == v.stops.end())
    v.stops.push_back(id);
}

/// Which token a TemplateProcessing puts before a text; -1: none.
template <class Vocabulary>
std::int32_t token_put_first(const Vocabulary& v, const Json& json) {
  for (const Json* step : steps_of(member(json, "post_processor"), "processors")) {
    const Json* single = member(*step, "single");
    if (single == nullptr || !single->is_array() || single->empty()) continue;
    if (const Json* special = member((*single)[0], "SpecialToken"); special != nullptr)
      return id_of(v, text_of(member(*special, "id")));
  }
  return -1;
}

/// What the files of a Hugging Face folder say of the ends of a text.
template <class Vocabulary>
void read_ends(Vocabulary& v, const std::string& folder, Where where) {
  const Json settings = json_beside(folder, "tokenizer_config.json", where);
  if (const std::string eos = token_text(member(settings, "eos_token")); !eos.empty())
    v.eos = id_of(v, eos);
  for (const char* name : {"generation_config.json", "config.json"}) {
    const Json said = json_beside(folder, name, where);
    const Json* ids = member(said, "eos_token_id");
    if (ids == nullptr) continue;
    const auto add = [&](const Json& id) {
      if (!id.is_number_integer()) return;
      const auto token = id.get<std::int64_t>();
      if (token < 0 || token >= static_cast<std::int64_t>(count_of(v))) return;
      if (v.eos < 0) v.eos = static_cast<std::int32_t>(token);
      add_stop(v, static_cast<std::int32_t>(token));
    };
    if (ids->is_array())
      for (const Json& id : *ids) add(id);
    else
      add(*ids);
  }
  add_stop(v, v.eos);
}

/// The tokenizer in a JSON file. `vocab`: the model's tokens.
inline std::shared_ptr<const Tokenizer> read_json_tokenizer(const std::string& path, Index vocab,
                                                            Where where) {
  const Json json = parse_json(read_file(path, where), shown(path), where);
  const std::string folder = directory_of(path);
  if (member(json, "model") != nullptr && json["model"].is_object()) {
    const auto complete = [&]<class Vocabulary>(Vocabulary v) {
      v.bos = token_put_first(v, json);
      read_ends(v, folder, where);
      return v;
    };
    const std::string name = shown(last_name(path));
    if (is_pieces_json(json))
      return std::make_shared<PieceTokenizer>(complete(read_pieces_json(json, name, where)), vocab,
                                              where);
    return std::make_shared<BpeTokenizer>(complete(read_tokenizer_json(json, name, where)), vocab,
                                          where);
  }
  for (const char* merges : {"merges.txt", "vocab.bpe", "gpt2_vocab.bpe"})
    if (json.is_object() && file_exists(in_folder(folder, merges))) {
      BpeVocabulary v = read_vocab_and_merges(json, read_file(in_folder(folder, merges), where),
                                              shown(last_name(path)), where);
      read_ends(v, folder, where);
      return std::make_shared<BpeTokenizer>(std::move(v), vocab, where);
    }
  fail<DataError>(str("[tokenizer] ", shown(path),
                      " is neither a tokenizer.json nor a vocabulary with its merges (merges.txt "
                      "or vocab.bpe) beside it"),
                  where);
}

/// A GGUF file's token of that key; -1: it says none.
inline std::int32_t gguf_token(const GgufView& file, const char* key, std::size_t count) {
  const double said = file.number(key).value_or(-1);
  return said >= 0 && said < static_cast<double>(count) ? static_cast<std::int32_t>(said) : -1;
}
/// How a GGUF file's tokens end a text, and begin one if it says so, or says nothing and `begins`.
template <class Vocabulary>
void read_gguf_ends(Vocabulary& v, const GgufView& file, bool begins) {
  const std::size_t count = count_of(v);
  if (file.number("tokenizer.ggml.add_bos_token").value_or(begins ? 1 : 0) != 0)
    v.bos = gguf_token(file, "tokenizer.ggml.bos_token_id", count);
  v.eos = gguf_token(file, "tokenizer.ggml.eos_token_id", count);
  add_stop(v, v.eos);
  add_stop(v, gguf_token(file, "tokenizer.ggml.eot_token_id", count));
}

/// The byte-level BPE in a GGUF file.
inline BpeVocabulary read_gguf_vocabulary(const GgufView& file, const std::string& name,
                                          Where where) {
  BpeBuilder to(name, where);
  const std::string pattern = file.text("tokenizer.ggml.pre").value_or("default");
  if (pattern == "gpt-2" || pattern == "default")
    to.v.patterns = {kGpt2Pattern};
  else if (pattern == "smollm")
    to.v.patterns = {kDigitPattern, kGpt2Pattern};
  else if (pattern == "llama-bpe" || pattern == "llama3")
    to.v.patterns = {kLlama3Pattern}, to.v.whole_words = true;
  else if (pattern == "qwen2")
    to.v.patterns = {kQwen2Pattern}, to.v.compose = true;
  else
    file.bad(str("its pre-tokenizer is '", shown(pattern),
                 "'; gpt-2, smollm, llama-bpe and qwen2 can be read"));
  const auto tokens = file.texts("tokenizer.ggml.tokens");
  const auto types = file.numbers("tokenizer.ggml.token_type");
  if (tokens.empty() || (!types.empty() && types.size() != tokens.size()))
    file.bad(str("it has ", tokens.size(), " tokens and ", types.size(), " types of them"));
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    constexpr double kNormal = 1, kControl = 3, kTyped = 4, kUnused = 5;
    const double type = types.empty() ? kNormal : types[i];
    const auto id = static_cast<std::int64_t>(i);
    if (type == kControl || type == kTyped)
      to.added(tokens[i], id, type == kControl, tokens.size());
    else if (type != kUnused)
      to.token(tokens[i], id, tokens.size());
  }
  for (const std::string_view merge : file.texts("tokenizer.ggml.merges")) to.merge_line(merge);
  to.v.space_first = file.number("tokenizer.ggml.add_space_prefix").value_or(0) != 0;
  read_gguf_ends(to.v, file, false);
  return std::move(to.v);
}

/// The pieces in a GGUF file, as SentencePiece has them: BPE by scores ("llama"), unigram ("t5").
inline PieceVocabulary read_gguf_pieces(const GgufView& file, const std::string& name,
                                        bool unigram) {
  PieceVocabulary v;
  v.name = name;
  v.unigram = unigram;
  const auto tokens = file.texts("tokenizer.ggml.tokens");
  const auto types = file.numbers("tokenizer.ggml.token_type");
  const auto scores = file.numbers("tokenizer.ggml.scores");
  if (tokens.empty() || types.size() != tokens.size() || scores.size() != tokens.size())
    file.bad(str("it has ", tokens.size(), " tokens, ", types.size(), " types and ", scores.size(),
                 " scores of them"));
  bool bytes = false;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (!(types[i] >= 1 && types[i] <= 6)) file.bad(str("its token ", i, " is of no known type"));
    const auto kind = static_cast<PieceVocabulary::Kind>(types[i]);
    bytes = bytes || kind == PieceVocabulary::Kind::Byte;
    v.pieces.push_back({std::string(tokens[i]), static_cast<float>(scores[i]), kind});
  }
  v.byte_fallback = bytes;
  v.repair = unigram;  // llama.cpp's other kind keeps a byte that is no UTF-8
  v.space_first = file.number("tokenizer.ggml.add_space_prefix").value_or(1) != 0;
  v.collapse =
      file.number("tokenizer.ggml.remove_extra_whitespaces").value_or(unigram ? 1 : 0) != 0;
  for (const double byte : file.numbers("tokenizer.ggml.precompiled_charsmap"))
    v.rules += static_cast<char>(static_cast<int>(byte));
  read_gguf_ends(v, file, !unigram);
  return v;
}

/// The tokenizer in a GGUF file. `vocab`: the model's tokens.
inline std::shared_ptr<const Tokenizer> read_gguf_tokenizer(const GgufView& file,
                                                            const std::string& name, Index vocab,
                                                            Where where) {
  const std::string kind = file.text("tokenizer.ggml.model").value_or("");
  if (kind == "gpt2")
    return std::make_shared<BpeTokenizer>(read_gguf_vocabulary(file, name, where), vocab, where);
  if (kind == "llama" || kind == "t5")
    return std::make_shared<PieceTokenizer>(read_gguf_pieces(file, name, kind == "t5"), vocab,
                                            where);
  file.bad(str("its tokenizer is '", shown(kind),
               "'; gpt2 (byte-level BPE), llama and t5 (SentencePiece) can be read"));
}

}  // namespace detail

/// Opens a tokenizer: a file, a Hugging Face folder, or "bytes" (or nothing) for the 256 bytes.
/// `vocab`: the model's tokens, which may be more. DataError if it is of no known kind, or has more
/// tokens than the model.
inline std::shared_ptr<const Tokenizer> read_tokenizer(const std::string& path, Index vocab,
                                                       Where where = Where::here()) {
  if (path.empty() || path == "bytes") {
    if (vocab != 256)
      fail<DataError>(str("[model] the byte tokenizer has 256 tokens, the model ", vocab,
                          ". HINT: name the model's tokenizer with --tokenizer"),
                      where);
    return std::make_shared<ByteTokenizer>();
  }
  std::string file = path;
  if (detail::is_folder(path)) {
    file = detail::in_folder(path, "tokenizer.json");
    for (const char* other : {"tokenizer.model", "vocab.json"})
      if (!detail::file_exists(file)) file = detail::in_folder(path, other);
  }
  const std::string name = shown(detail::last_name(file));
  const MappedFile mapped(file, where);
  std::string_view bytes = mapped.bytes();
  if (bytes.starts_with("GGUF"))
    return detail::read_gguf_tokenizer(GgufView(file, where), name, vocab, where);
  if (bytes.substr(0, 64).find_first_not_of(" \t\r\n") != bytes.npos &&
      bytes[bytes.find_first_not_of(" \t\r\n")] == '{')
    return detail::read_json_tokenizer(file, vocab, where);
  if (detail::is_sentencepiece(bytes)) {
    PieceVocabulary v = read_sentencepiece(bytes, name, where);
    const std::string folder = detail::directory_of(file);
    detail::read_ends(v, folder, where);
    const Json settings = detail::json_beside(folder, "tokenizer_config.json", where);
    if (!detail::true_in(settings, "add_bos_token", true)) v.bos = -1;
    return std::make_shared<PieceTokenizer>(std::move(v), vocab, where);
  }
  std::string first;
  const std::string_view line = bytes.substr(0, std::min(bytes.find('\n'), bytes.size()));
  if (line.size() < 512 && line.find(' ') != line.npos &&
      detail::read_base64(line.substr(0, line.find(' ')), first))
    return std::make_shared<BpeTokenizer>(read_tiktoken(bytes, name, where), vocab, where);
  return std::make_shared<SentencePieceTokenizer>(file, vocab, where);
}

}}  // namespace plumb::v0_1
