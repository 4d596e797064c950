// Settings from the environment: whole, or refused. A number with anything behind it, an empty text
// or a value out of range is a mistake that would otherwise be a run with other settings than its
// owner thinks.
#pragma once

#include <plumb/core/check.hpp>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <string>
#include <string_view>

namespace plumb { inline namespace v0_1 {

/// The integer that an environment variable holds, or `fallback` where it is not set.
inline Index environment_integer(const char* name, Index least, Index most, Index fallback) {
  const char* text = std::getenv(name);
  if (text == nullptr) return fallback;
  const char* end = text + std::strlen(text);
  Index value = 0;
  const auto [rest, error] = std::from_chars(text, end, value);
  if (error != std::errc{} || rest != end || value < least || value > most)
    fail<DataError>(str("[environment] ", name, " must be a whole number from ", least, " to ",
                        most, "; it is '", text, "'. HINT: unset it for the default"));
  return value;
}

/// Which of the words an environment variable holds, or -1 where it is not set.
inline int environment_choice(const char* name, std::initializer_list<std::string_view> words) {
  const char* text = std::getenv(name);
  if (text == nullptr) return -1;
  std::string all;
  int i = 0;
  for (const std::string_view word : words) {
    if (text == word) return i;
    all += str(i == 0 ? "" : ", ", word);
    ++i;
  }
  fail<DataError>(str("[environment] ", name, " must be one of ", all, "; it is '", text,
                      "'. HINT: unset it for the default"));
}

}}  // namespace plumb::v0_1
