// Text on its way to a terminal: harmless, and wrapped to its width.
//
// What a model or a file says can command a terminal: clear it, rename its window, answer in the
// user's place, or show an order that the bytes do not have. So each of these becomes '?': controls
// (C0, DEL, C1 as U+0080 … U+009F), line and paragraph separators, the marks, overrides and
// isolates of bidirectional text (U+061C, U+200E, U+200F, U+202A … U+202E, U+2066 … U+206F), and
// each byte that is not UTF-8, which covers C1 as raw bytes. Line feed and tab stay where asked.
// What this is not: a guard against texts that look alike, or against what a terminal makes of
// letters.
#pragma once

#include <plumb/io/utf8.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

namespace plumb { inline namespace v0_1 {

/// What a line of output may keep of its text's layout.
enum class Layout { OneLine, Lines };

namespace detail {

/// The first character of a text that is not empty. Of a byte that begins none, bytes = 1 and code
/// < 0; `cut` where the text ends inside a sequence that is valid so far.
struct Utf8Character {
  std::size_t bytes = 1;
  long code = -1;
  bool cut = false;
};

inline Utf8Character first_character(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const Utf8Start start = utf8_start(text);
  const bool leads = byte(0) >= 0xC2 && byte(0) <= 0xF4;  // a sequence of several bytes
  if (!start.whole) return {1, -1, leads && start.bytes == text.size()};
  unsigned code = start.bytes == 1 ? byte(0) : byte(0) & (0x7FU >> start.bytes);
  for (std::size_t i = 1; i < start.bytes; ++i) code = code << 6U | (byte(i) & 0x3FU);
  return {start.bytes, static_cast<long>(code), false};
}

inline bool commands_a_terminal(long code) {
  return code < 0x20 || (code >= 0x7F && code <= 0x9F) || code == 0x061C || code == 0x200E ||
         code == 0x200F || (code >= 0x2028 && code <= 0x202E) || (code >= 0x2066 && code <= 0x206F);
}

inline void append_harmless(std::string& out, std::string_view bytes, long code, Layout layout) {
  const bool kept = layout == Layout::Lines && (code == '\n' || code == '\t');
  if (commands_a_terminal(code) && !kept)
    out += '?';
  else
    out += bytes;
}

}  // namespace detail

/// A text that arrives in pieces, made harmless. The beginning of a UTF-8 sequence at the end of a
/// piece waits for its rest.
class HarmlessStream {
 public:
  explicit HarmlessStream(Layout layout) : layout_(layout) {}

  /// What may be shown now.
  std::string add(std::string_view piece) {
    waiting_ += piece;
    std::string out;
    std::string_view rest = waiting_;
    while (!rest.empty()) {
      const detail::Utf8Character c = detail::first_character(rest);
      if (c.cut) break;
      detail::append_harmless(out, rest.substr(0, c.bytes), c.code, layout_);
      rest.remove_prefix(c.bytes);
    }
    waiting_ = std::string(rest);
    return out;
  }

  /// The text ends here: what still waits never got its rest.
  std::string end() {
    const std::string out(waiting_.size(), '?');
    waiting_.clear();
    return out;
  }

 private:
  Layout layout_;
  std::string waiting_;
};

/// A text made harmless.
inline std::string harmless(std::string_view text, Layout layout = Layout::OneLine) {
  HarmlessStream stream(layout);
  std::string out = stream.add(text);
  return out + stream.end();
}

/// Breaks text into lines of at most `width` columns, each after `indent` and ended by a newline;
/// its own line breaks stay, and it is made harmless. A character counts as one column.
inline std::string wrap(std::string_view text, int width, std::string_view indent) {
  const std::size_t room = static_cast<std::size_t>(std::max(width, 20)) - indent.size();
  std::string out, line, word;
  std::size_t line_columns = 0, word_columns = 0;
  const auto end_line = [&] {
    out.append(line.empty() ? "" : indent).append(line) += '\n';
    line.clear();
    line_columns = 0;
  };
  const auto end_word = [&] {
    if (word.empty()) return;
    if (!line.empty() && line_columns + 1 + word_columns > room) end_line();
    if (!line.empty()) line += ' ', ++line_columns;
    line += word;
    line_columns += word_columns;
    word.clear();
    word_columns = 0;
  };
  while (!text.empty()) {
    detail::Utf8Character c = detail::first_character(text);
    if (c.cut) c = {};  // no rest will come
    if (c.code == ' ' || c.code == '\t' || c.code == '\r' || c.code == '\n') {
      end_word();
      if (c.code == '\n') end_line();
    } else {
      if (word_columns == room) end_word();  // longer than a line: broken
      detail::append_harmless(word, text.substr(0, c.bytes), c.code, Layout::OneLine);
      ++word_columns;
    }
    text.remove_prefix(c.bytes);
  }
  end_word();
  if (!line.empty() || out.empty()) end_line();
  return out;
}

}}  // namespace plumb::v0_1
