// Prompts of a file, each with an id: of records in any form (data/forms.hpp), openings of stories
// (with <|endoftext|> marks), or the lines of a text. A prompt that comes again is left out.
// Records are what begins as JSON does, or is called .jsonl, .json or .csv.
//
// Ids are the source's own where it has them, otherwise the number of the line or story; candidates
// keep them, so that what was made of a prompt can be led back to it.
#pragma once

#include <plumb/data/jsonl.hpp>

#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/stat.h>

namespace plumb { inline namespace v0_1 {

namespace detail {

/// Openings longer than this are sentences that nobody split, or no stories.
inline constexpr std::size_t kLongestOpening = 160;

inline std::vector<Prompt> prompts_of_text(const std::string& text, const std::string& path,
                                           Where where) {
  if (const std::size_t bad = find_not_utf8(text); bad != text.npos)
    fail<DataError>(
        str("[prompts] ", shown(path), ":",
            1 + std::count(text.begin(), text.begin() + static_cast<Index>(bad), '\n'),
            ": the text is not UTF-8. HINT: if it is Latin-1, iconv -f LATIN1 -t UTF-8 ",
            shown(path)),
        where);
  std::vector<Prompt> out;
  Index number = 0;
  if (text.find("<|endoftext|>") != text.npos) {
    for (const std::string& story : split_stories(text)) {
      ++number;
      std::string first = opening(story);
      if (first.size() <= kLongestOpening) out.push_back({str(number), std::move(first)});
    }
    return out;
  }
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = std::string_view(text).substr(at, end - at);
    if (line.ends_with('\r')) line.remove_suffix(1);  // the last line, if nothing ends it
    ++number;
    if (!trimmed(line).empty()) out.push_back({str(number), std::string(line)});
    at = end + 1;
  }
  return out;
}

}  // namespace detail

namespace detail {

/// Whether a file holds records, by its name (and what compressed it) or its first letters.
inline bool holds_records(const std::string& path, Where where) {
  std::string_view name = path;
  for (const std::string_view end : {".gz", ".zst", ".zstd"})
    if (name.ends_with(end)) name.remove_suffix(end.size());
  for (const std::string_view end : {".jsonl", ".json", ".csv"})
    if (name.ends_with(end)) return true;
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return false;
  TextBlocks text(path, where);
  const std::string_view begin = trimmed(text.rest());
  const std::size_t key = begin.starts_with('[') ? begin.find_first_not_of(" \t\r\n[") : 0;
  return key < begin.size() && begin[key] == '{' && trimmed(begin.substr(key + 1)).starts_with('"');
}

}  // namespace detail

/// The distinct prompts of a file, in its order, the first id of each, and what was read. DataError
/// naming file and line for what cannot be read, and for two prompts of one id.
inline Lines<Prompt> read_prompt_file(const std::string& path, Where where = Where::here()) {
  Lines<Prompt> all;
  if (detail::holds_records(path, where))
    all = read_prompts(path, BadLine::Refuse, where);
  else
    all.records = detail::prompts_of_text(read_text(path, where), path, where);
  std::set<std::string> texts, ids;
  std::vector<Prompt> distinct;
  for (Prompt& prompt : all.records) {
    if (!texts.insert(prompt.text).second) continue;
    if (!ids.insert(prompt.id).second)
      fail<DataError>(str("[prompts] ", shown(path), " has two prompts with the id ", prompt.id,
                          ". HINT: give each an id of its own, or none to any"),
                      where);
    distinct.push_back(std::move(prompt));
  }
  all.records = std::move(distinct);
  return all;
}

/// The prompts alone.
inline std::vector<Prompt> load_prompts(const std::string& path, Where where = Where::here()) {
  return read_prompt_file(path, where).records;
}

/// Their texts, without the ids.
inline std::vector<std::string> texts_of(const std::vector<Prompt>& prompts) {
  std::vector<std::string> out;
  for (const Prompt& prompt : prompts) out.push_back(prompt.text);
  return out;
}

}}  // namespace plumb::v0_1
