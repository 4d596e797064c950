// What counts as a word where words are counted.
#pragma once

#include <cctype>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// Lower-case words: runs of letters and inner apostrophes; bytes beyond ASCII count as letters.
inline std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  const auto end_word = [&] {
    while (word.ends_with('\'')) word.pop_back();
    if (!word.empty()) words.push_back(std::move(word));
    word.clear();
  };
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalpha(byte) || byte >= 0x80)
      word += static_cast<char>(std::tolower(byte));
    else if (c == '\'' && !word.empty())
      word += c;
    else
      end_word();
  }
  end_word();
  return words;
}

}}  // namespace plumb::v0_1
