// Pieces in Hugging Face's tokenizer.json: a Unigram model, or BPE that falls back to bytes, with
// the normalizers and pre-tokenizers that stand for SentencePiece's settings there.
//
// Ids are the package tokenizers', which departs from SentencePiece: BPE merges by its list, a
// unigram's sums are double and end with a word. Anything else is refused by its name. Source:
// huggingface/tokenizers, tokenizers/src/{models/{bpe,unigram},normalizers,pre_tokenizers}.
#pragma once

#include <plumb/text/bpe_files.hpp>
#include <plumb/text/pieces.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

namespace detail {

/// Whether the model in a tokenizer.json is one of pieces.
inline bool is_pieces_json(const Json& json) {
  const Json* model = member(json, "model");
  return model != nullptr &&
         (text_of(member(*model, "type")) == "Unigram" || true_in(*model, "byte_fallback"));
}

class PieceJson {
 public:
  PieceJson(const Json& json, const std::string& name, Where where)
      : json_(json), model_(json["model"]), where_(where) {
    v_.name = name;
    v_.space_first = v_.collapse = v_.repair = false;
    v_.unknown_text.clear();
  }

  PieceVocabulary read() {
    v_.unigram = text_of(member(model_, "type")) == "Unigram";
    v_.byte_fallback = true_in(model_, "byte_fallback");
    read_normalizers();
    read_pre_tokenizers();
    v_.unigram ? read_scores() : read_vocabulary();
    read_added();
    if (v_.unigram) return std::move(v_);
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (!text_of(member(model_, key)).empty()) bad(str("'", key, "' is unknown"));
    if (member(model_, "dropout") != nullptr) bad("'dropout' is unknown");
    if (true_in(model_, "ignore_merges")) bad("'ignore_merges' is unknown with pieces");
    read_merges();
    return std::move(v_);
  }

 private:
  using Kind = PieceVocabulary::Kind;
  static constexpr std::string_view kSpace = PieceNormalizer::kSpace;

  [[noreturn]] void bad(const std::string& what) const {
    fail<DataError>(str("[tokenizer] ", v_.name, ": ", what), where_);
  }
  static std::string pattern_of(const Json& step, const char* kind) {
    const Json* pattern = member(step, "pattern");
    return pattern != nullptr ? text_of(member(*pattern, kind)) : std::string();
  }

  void read_normalizers() {
    bool runs = false, strips = false;
    for (const Json* step : steps_of(member(json_, "normalizer"), "normalizers")) {
      const std::string type = text_of(member(*step, "type"));
      const std::string content = text_of(member(*step, "content"));
      if (type == "Precompiled") {
        if (!read_base64(text_of(member(*step, "precompiled_charsmap")), v_.rules))
          bad("its rules of normalisation are not base64");
        v_.graphemes = true;
      } else if (type == "Prepend" && text_of(member(*step, "prepend")) == kSpace) {
        v_.space_first = each_part_ = true;
      } else if (type == "Replace" && pattern_of(*step, "Regex") == " {2,}" &&
                 (content == kSpace || content == " ")) {
        runs = true;
      } else if (type == "Strip" && true_in(*step, "strip_right")) {
        strips = true;
      } else if (type != "Replace" || pattern_of(*step, "String") != " " || content != kSpace) {
        bad(str("its normalizer '", shown(type),
                "' is unknown; Precompiled, Prepend and Replace of spaces by ▁ are known"));
      }
    }
    if (runs != strips)
      bad("it replaces runs of spaces and keeps the last, or the other way round");
    v_.collapse = runs;
  }

  void read_pre_tokenizers() {
    for (const Json* step : steps_of(member(json_, "pre_tokenizer"), "pretokenizers")) {
      const std::string type = text_of(member(*step, "type"));
      if (type == "Metaspace" && text_of(member(*step, "replacement")) == kSpace) {
        std::string scheme = text_of(member(*step, "prepend_scheme"));
        if (scheme.empty()) scheme = true_in(*step, "add_prefix_space", true) ? "always" : "never";
        v_.space_first = v_.space_once = scheme != "never";
        each_part_ = each_part_ || scheme == "always";
        v_.words = true_in(*step, "split", true);
      } else if (type == "WhitespaceSplit") {
        v_.collapse = v_.any_space = true;
      } else if (type != "Split" || pattern_of(*step, "String") != " ") {
        bad(str("its pre-tokenizer '", shown(type),
                "' is unknown with pieces; Metaspace and WhitespaceSplit are known"));
      }
    }
  }

  void place(std::int64_t id, std::size_t most, PieceVocabulary::Piece piece) {
    if (id < 0 || id >= static_cast<std::int64_t>(2 * most + 1024))
      bad(str("the token id ", id, " is far outside a vocabulary of ", most));
    const auto at = static_cast<std::size_t>(id);
    while (at >= v_.pieces.size()) v_.pieces.push_back({"", 0, Kind::Control});  // of no text
    v_.pieces[at] = std::move(piece);
  }

  void read_scores() {
    const Json *list = member(model_, "vocab"), *unknown = member(model_, "unk_id");
    if (list == nullptr || !list->is_array()) bad("its model has no list \"vocab\"");
    for (const Json& entry : *list) {
      if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number())
        bad(str("piece ", v_.pieces.size(), " is no text with its score"));
      v_.pieces.push_back(
          {entry[0].get<std::string>(), entry[1].get<double>(), piece_kind(entry[0])});
    }
    if (unknown == nullptr || !unknown->is_number_integer()) return;
    const auto id = unknown->get<std::int64_t>();
    if (id < 0 || id >= std::ssize(v_.pieces))
      bad(str("its unknown piece ", id, " does not exist"));
    v_.pieces[static_cast<std::size_t>(id)].kind = Kind::Unknown;
  }
  Kind piece_kind(const std::string& text) const {
    return v_.byte_fallback && text.size() == 6 && text.starts_with("<0x") ? Kind::Byte
                                                                           : Kind::Normal;
  }

  void read_vocabulary() {
    const Json* vocab = member(model_, "vocab");
    const std::string unknown = text_of(member(model_, "unk_token"));
    if (vocab == nullptr || !vocab->is_object()) bad("its model has no \"vocab\"");
    for (const auto& [text, id] : vocab->items()) {
      if (!id.is_number_integer()) bad(str("the token '", shown(text), "' has no whole id"));
      place(id.template get<std::int64_t>(), vocab->size(),
            {text, 0, !unknown.empty() && text == unknown ? Kind::Unknown : piece_kind(text)});
    }
  }

  void read_added() {
    const Json* added = member(json_, "added_tokens");
    if (added == nullptr) return;
    for (const Json& token : *added) {
      const Json* id = member(token, "id");
      const std::string text = text_of(member(token, "content"));
      if (id == nullptr || !id->is_number_integer() || text.empty())
        bad("an added token has no whole id, or no text");
      const bool special = true_in(token, "special");
      if (!special && each_part_)
        bad(str("its added token '", shown(text),
                "' is not special, and a space is put after it, which is unknown"));
      const auto at = id->get<std::int64_t>();
      const bool there = at >= 0 && at < std::ssize(v_.pieces);
      if (there && v_.pieces[static_cast<std::size_t>(at)].kind == Kind::Unknown) continue;
      place(at, v_.pieces.size() + added->size(),
            {text, 0, special ? Kind::Control : Kind::Defined});
    }
  }

  void read_merges() {
    StringMap<std::int32_t> ids;
    for (std::size_t id = 0; id < v_.pieces.size(); ++id)
      ids.emplace(v_.pieces[id].text, static_cast<std::int32_t>(id));
    const auto id_in = [&](const std::string& text) {
      const auto found = ids.find(text);
      if (found == ids.end())
        bad(str("merge ", v_.merges.size(), " needs a token '", shown(text), "', which is none"));
      return found->second;
    };
    const Json* merges = member(model_, "merges");
    if (merges == nullptr || !merges->is_array()) bad("its model has no \"merges\"");
    for (const Json& merge : *merges) {
      std::string left, right;
      if (merge.is_string()) {
        const std::string line = merge.get<std::string>();
        left = line.substr(0, line.find(' '));
        right = line.substr(std::min(left.size() + 1, line.size()));
      } else if (merge.is_array() && merge.size() == 2) {
        left = text_of(&merge[0]);
        right = text_of(&merge[1]);
      }
      if (left.empty() || right.empty()) bad(str("merge ", v_.merges.size(), " is not two tokens"));
      v_.merges.push_back({id_in(left), id_in(right), id_in(left + right)});
    }
  }

  const Json &json_, &model_;
  Where where_;
  PieceVocabulary v_;
  bool each_part_ = false;  ///< a space is also put after an added token
};

}  // namespace detail

/// Reads the text of a tokenizer.json of pieces. DataError if it asks for what is not known.
inline PieceVocabulary read_pieces_json(const Json& json, const std::string& name,
                                        Where where = Where::here()) {
  return detail::PieceJson(json, name, where).read();
}

}}  // namespace plumb::v0_1
