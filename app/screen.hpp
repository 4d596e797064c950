// Text for a terminal: wrapped to its width, and harmless.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

namespace plumb { inline namespace v0_1 {

/// Breaks text into lines of at most `width` columns, each after `indent` and ended by a newline; its
/// own line breaks stay. Control characters, by which a text could command the terminal, become '?'.
/// A UTF-8 sequence counts as one column.
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
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
      end_word();
      if (c == '\n') end_line();
      continue;
    }
    const bool continues = (byte & 0xC0U) == 0x80U;
    if (!continues && word_columns == room) end_word();  // longer than a line: broken
    word += byte < 32 || byte == 127 ? '?' : c;
    if (!continues) ++word_columns;
  }
  end_word();
  if (!line.empty() || out.empty()) end_line();
  return out;
}

}}  // namespace plumb::v0_1
