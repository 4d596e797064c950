// Writes a byte-level BPE vocabulary as Hugging Face's tokenizer.json, which read_tokenizer_json()
// and the tokenizers package read back to the same ids.
#pragma once

#include <plumb/text/bpe_files.hpp>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// A token as files write it: its bytes in GPT-2's letters, or an added token as it is.
inline std::string token_letters(const BpeVocabulary& v, std::size_t id) {
  for (const auto& added : v.added)
    if (added.id == static_cast<std::int32_t>(id)) return added.text;
  return detail::ByteLetters().write(v.tokens[id]);
}

namespace detail {

/// The splitters, and how bytes are written.
inline Json pre_tokenizer_json(const BpeVocabulary& v) {
  Json steps = Json::array();
  bool by_regex = false;
  for (const std::string& pattern : v.patterns) {
    by_regex = pattern == kGpt2Pattern;
    if (by_regex) continue;
    if (pattern == kDigitPattern)
      steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
    else
      steps.push_back({{"type", "Split"},
                       {"pattern", {{"Regex", pattern}}},
                       {"behavior", "Isolated"},
                       {"invert", false}});
  }
  steps.push_back({{"type", "ByteLevel"},
                   {"add_prefix_space", v.space_first},
                   {"trim_offsets", true},
                   {"use_regex", by_regex}});
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

/// The token that begins a text, put there; null if there is none.
inline Json post_processor_json(const BpeVocabulary& v) {
  Json first = nullptr;
  if (v.bos >= 0) {
    const std::string text = token_letters(v, static_cast<std::size_t>(v.bos));
    first = {{"type", "TemplateProcessing"},
             {"single",
              {{{"SpecialToken", {{"id", text}, {"type_id", 0}}}},
               {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
             {"pair",
              {{{"Sequence", {{"id", "A"}, {"type_id", 0}}}},
               {{"Sequence", {{"id", "B"}, {"type_id", 1}}}}}},
             {"special_tokens", {{text, {{"id", text}, {"ids", {v.bos}}, {"tokens", {text}}}}}}};
  }
  return first;
}

}  // namespace detail

/// The text of a tokenizer.json.
inline std::string tokenizer_json(const BpeVocabulary& v) {
  const detail::ByteLetters letters;
  Json added = Json::array(), vocab = Json::object(), merges = Json::array();
  std::vector<bool> is_added(v.tokens.size());
  auto by_id = v.added;
  std::sort(by_id.begin(), by_id.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  for (const auto& token : by_id) {
    is_added[static_cast<std::size_t>(token.id)] = true;
    added.push_back({{"id", token.id},
                     {"content", token.text},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", token.special}});
  }
  auto& members = vocab.get_ref<Json::object_t&>();  // insertion would look for each name
  for (std::size_t id = 0; id < v.tokens.size(); ++id)
    // Added tokens, too: the package gives those that are not here ids of its own.
    if (!v.tokens[id].empty())
      members.emplace_back(is_added[id] ? v.tokens[id] : letters.write(v.tokens[id]), id);
  for (const auto& [left, right, merged] : v.merges)
    merges.push_back(Json::array({letters.write(v.tokens[static_cast<std::size_t>(left)]),
                                  letters.write(v.tokens[static_cast<std::size_t>(right)])}));
  return json_text({{"version", "1.0"},
                    {"truncation", nullptr},
                    {"padding", nullptr},
                    {"added_tokens", added},
                    {"normalizer", v.compose ? Json({{"type", "NFC"}}) : Json(nullptr)},
                    {"pre_tokenizer", detail::pre_tokenizer_json(v)},
                    {"post_processor", detail::post_processor_json(v)},
                    {"decoder",
                     {{"type", "ByteLevel"},
                      {"add_prefix_space", false},
                      {"trim_offsets", true},
                      {"use_regex", true}}},
                    {"model",
                     {{"type", "BPE"},
                      {"dropout", nullptr},
                      {"unk_token", nullptr},
                      {"continuing_subword_prefix", nullptr},
                      {"end_of_word_suffix", nullptr},
                      {"fuse_unk", false},
                      {"byte_fallback", false},
                      {"ignore_merges", v.whole_words},
                      {"vocab", std::move(vocab)},
                      {"merges", std::move(merges)}}}});
}

}}  // namespace plumb::v0_1
