// Plain text: files of stories separated by <|endoftext|>, and their openings, which serve as
// prompts.
//
// What this is not: a sentence splitter; an opening ends at the first . ! or ?, so "Mr. Fox" ends
// one.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/io/file.hpp>
#include <plumb/io/source.hpp>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

namespace detail {

inline std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

/// A kind of file that readers of text would misread, and how to make text of it.
struct NotText {
  std::string what;  ///< empty: it is text
  std::string hint;
};

/// What kind of file begins with these bytes.
inline NotText not_plain_text(std::string_view bytes, const std::string& name) {
  using std::string_view_literals::operator""sv;
  if (bytes.starts_with("\x1f\x8b")) return {"compressed by gzip", "gunzip -k " + name};
  if (bytes.starts_with("\x28\xb5\x2f\xfd")) return {"compressed by zstd", "unzstd " + name};
  if (bytes.starts_with("\xfd\x37zXZ")) return {"compressed by xz", "unxz -k " + name};
  if (bytes.starts_with("BZh") && bytes.substr(4).starts_with("1AY&SY"))
    return {"compressed by bzip2", "bunzip2 -k " + name};
  if (bytes.starts_with("PK\x03\x04")) return {"a zip archive", "unzip " + name};
  if (bytes.starts_with("PAR1") || bytes.starts_with("ARROW1"sv))
    return {str(bytes[0] == 'P' ? "Parquet" : "Arrow",
                ", for which no distribution packages a small library"),
            str("python3 -c 'import pandas; pandas.read_", bytes[0] == 'P' ? "parquet" : "feather",
                "(\"", name, "\").to_json(\"", name, ".jsonl\", orient=\"records\", lines=True)'")};
  // By its byte-order mark, or by a first letter beside a zero byte.
  const auto zero = [&](std::size_t i) { return bytes[i] == '\0'; };
  if (bytes.starts_with("\xff\xfe") || bytes.starts_with("\xfe\xff") ||
      (bytes.size() >= 4 && zero(0) == zero(2) && zero(1) == zero(3) && zero(0) != zero(1)))
    return {"UTF-16", "iconv -f UTF-16 -t UTF-8 " + name};
  const std::size_t cr = bytes.find('\r');
  if (cr != bytes.npos && bytes.find('\n') == bytes.npos &&
      bytes.find_first_not_of('\r', cr) != bytes.npos)
    return {"ended line by line by carriage returns alone, as on an old Mac",
            "tr '\\r' '\\n' < " + name};
  return {};
}

inline void refuse_if_not_text(std::string_view bytes, const std::string& path, Where where) {
  const std::string name = shown(path);
  const NotText kind = not_plain_text(bytes, name);
  if (!kind.what.empty())
    fail<DataError>(
        str("[text] ", name, " is ", kind.what, "; UTF-8 text is read. HINT: ", kind.hint), where);
}

/// `text` without a byte-order mark, lines ended by \n alone.
inline std::string plain_text(std::string text) {
  if (text.starts_with("\xef\xbb\xbf")) text.erase(0, 3);
  if (text.find("\r\n") == text.npos) return text;
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i)
    if (text[i] != '\r' || i + 1 == text.size() || text[i + 1] != '\n') out += text[i];
  return out;
}

/// A text that is read whole is no longer than this if it was compressed: what a small file says
/// that it holds is a claim.
inline constexpr std::size_t kLongestUnpacked = std::size_t{1} << 28;

}  // namespace detail

/// A text file, plain or compressed by gzip or zstd, without a byte-order mark and with \n for the
/// line ends of Windows. IoError if it cannot be read, DataError if it is no such text: UTF-16, the
/// line ends of an old Mac, an archive.
inline std::string read_text(const std::string& path, Where where = Where::here()) {
  ByteSource source(path, where);
  std::string text;
  text.resize(static_cast<std::size_t>(source.file_size()) + 1);
  std::size_t have = 0;
  while (const std::size_t n = source.read(text.data() + have, text.size() - have)) {
    have += n;
    if (source.compression() != Compression::None && have > detail::kLongestUnpacked)
      fail<DataError>(str("[text] ", shown(path), " unpacks to more than ",
                          detail::kLongestUnpacked >> 20, " MiB. HINT: unpack it yourself"),
                      where);
    if (have == text.size()) text.resize(2 * have);
  }
  text.resize(have);
  detail::refuse_if_not_text(text, path, where);
  return detail::plain_text(std::move(text));
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
