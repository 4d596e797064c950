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

inline std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

/// What kind of file these bytes are, if it is one that plain text readers would misread.
inline std::string not_plain_text(std::string_view bytes) {
  if (bytes.starts_with("\x1f\x8b")) return "compressed";
  // By its byte-order mark, or by a first letter beside a zero byte.
  const auto zero = [&](std::size_t i) { return bytes[i] == '\0'; };
  if (bytes.starts_with("\xff\xfe") || bytes.starts_with("\xfe\xff") ||
      (bytes.size() >= 4 && zero(0) == zero(2) && zero(1) == zero(3) && zero(0) != zero(1)))
    return "UTF-16";
  const std::size_t cr = bytes.find('\r');
  if (cr != bytes.npos && bytes.find('\n') == bytes.npos &&
      bytes.find_first_not_of('\r', cr) != bytes.npos)
    return "ended line by line by carriage returns alone, as on an old Mac";
  return {};
}

/// The contents of a file as text: without a byte-order mark, lines ended by \n alone. Refused if
/// they are not plain text.
inline std::string plain_text(std::string text, const std::string& path, Where where) {
  const std::string kind = not_plain_text(text);
  const std::string name = shown(path);
  if (!kind.empty())
    fail<DataError>(str("[text] ", name, " is ", kind, "; plain UTF-8 text is read. HINT: ",
                        kind == "compressed" ? "gunzip -k " + name
                        : kind == "UTF-16"   ? "iconv -f UTF-16 -t UTF-8 " + name
                                             : "tr '\\r' '\\n' < " + name),
                    where);
  if (text.starts_with("\xef\xbb\xbf")) text.erase(0, 3);
  if (text.find("\r\n") == text.npos) return text;
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i)
    if (text[i] != '\r' || i + 1 == text.size() || text[i + 1] != '\n') out += text[i];
  return out;
}

}  // namespace detail

/// A plain text file, without a byte-order mark and with \n for the line ends of Windows. IoError
/// if it cannot be read, DataError if it is gzip-compressed, UTF-16 or has the line ends of an old
/// Mac.
inline std::string read_text(const std::string& path, Where where = Where::here()) {
  return detail::plain_text(read_file(path, where), path, where);
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
