// The emulator's settings from the environment: whole, or the program ends with a sentence that
// names the variable. (They are read before main, where nobody could catch an exception.)
#pragma once

#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace plumb::emulator {

[[noreturn]] inline void refuse_setting(const char* name, const char* text, const char* expected) {
  std::fprintf(stderr, "plumb emulator: %s is '%s'; expected %s. HINT: unset it for the default\n",
               name, text, expected);
  std::exit(2);
}

/// The word that a variable holds, one of `words`, or null where it is not set.
inline const char* setting(const char* name, std::initializer_list<const char*> words) {
  const char* text = std::getenv(name);
  if (text == nullptr) return nullptr;
  char expected[128] = "one of";
  for (const char* word : words) {
    if (std::strcmp(text, word) == 0) return text;
    std::strncat(expected, " ", sizeof expected - std::strlen(expected) - 1);
    std::strncat(expected, word, sizeof expected - std::strlen(expected) - 1);
  }
  refuse_setting(name, text, expected);
}

/// The whole number from 1 to `most` that a variable holds, or `fallback` where it is not set.
inline std::uint64_t setting(const char* name, std::uint64_t fallback, std::uint64_t most) {
  const char* text = std::getenv(name);
  if (text == nullptr) return fallback;
  const char* end = text + std::strlen(text);
  std::uint64_t value = 0;
  const auto [rest, error] = std::from_chars(text, end, value);
  char expected[64];
  std::snprintf(expected, sizeof expected, "a whole number from 1 to %llu",
                static_cast<unsigned long long>(most));
  if (error != std::errc{} || rest != end || value < 1 || value > most)
    refuse_setting(name, text, expected);
  return value;
}

}  // namespace plumb::emulator
