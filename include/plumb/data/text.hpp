// Plain text: files of stories separated by <|endoftext|>, and their openings, which serve as
// prompts.
//
// What this is not: a sentence splitter; an opening ends at the first . ! or ?, so "Mr. Fox" ends
// one.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/io/file.hpp>

#include <string>
#include <string_view>
#include <vector>

namespace plumb { inline namespace v0_1 {

namespace detail {

inline bool is_gzip(std::string_view bytes) { return bytes.starts_with("\x1f\x8b"); }

inline std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

}  // namespace detail

/// A plain text file. IoError if it cannot be read, DataError if it is gzip-compressed.
inline std::string read_text(const std::string& path, Where where = Where::here()) {
  std::string text = read_file(path, where);
  if (detail::is_gzip(text))
    fail<DataError>(
        str("[text] ", path, " is compressed; plain text is read. HINT: gunzip -k ", path), where);
  return text;
}

/// The stories between <|endoftext|> marks, without surrounding blanks; empty ones are dropped.
inline std::vector<std::string> split_stories(std::string_view text) {
  constexpr std::string_view kMark = "<|endoftext|>";
  std::vector<std::string> out;
  while (!text.empty()) {
    const std::size_t end = text.find(kMark);
    const std::string_view story = detail::trimmed(text.substr(0, end));
    if (!story.empty()) out.emplace_back(story);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + kMark.size());
  }
  return out;
}

/// The first sentence: up to and including the first . ! or ?, or all if there is none.
inline std::string opening(std::string_view story) {
  const std::size_t end = story.find_first_of(".!?");
  return std::string(story.substr(0, end == std::string_view::npos ? end : end + 1));
}

}}  // namespace plumb::v0_1
