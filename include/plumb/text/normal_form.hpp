// Unicode's normalisation form C, and where what a reader sees as one character ends, by the
// library utf8proc, whose only user this header is (link with -lutf8proc).
#pragma once

#include <plumb/io/utf8.hpp>

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>

namespace plumb { inline namespace v0_1 {

/// `text` in form C: characters composed where Unicode composes them. What is not UTF-8 stays.
inline std::string normal_form_c(std::string_view text) {
  std::string out;
  // ASCII is in every form, and most text is ASCII.
  const auto plain = [](char c) { return static_cast<unsigned char>(c) < 0x80; };
  if (std::all_of(text.begin(), text.end(), plain)) return std::string(text);
  while (!text.empty()) {
    const std::size_t good = std::min(find_not_utf8(text), text.size());
    utf8proc_uint8_t* composed = nullptr;
    const utf8proc_ssize_t length = utf8proc_map(
        reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(good),
        &composed, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    if (length < 0) return out += text;  // no memory: as it was
    out.append(reinterpret_cast<const char*>(composed), static_cast<std::size_t>(length));
    std::free(composed);
    text.remove_prefix(good);
    if (text.empty()) break;
    const std::size_t bad = detail::utf8_start(text).bytes;
    out += text.substr(0, bad);
    text.remove_prefix(bad);
  }
  return out;
}

/// Bytes of what `text`, which is not empty, begins with that a reader sees as one character: a
/// letter with its accents, say (extended grapheme clusters of Unicode's annex 29). A byte that is
/// not UTF-8 is one by itself.
inline std::size_t grapheme_bytes(std::string_view text) {
  std::size_t at = 0;
  utf8proc_int32_t previous = -1, state = 0;
  while (at < text.size()) {
    utf8proc_int32_t code = -1;
    const utf8proc_ssize_t size =
        utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at,
                         static_cast<utf8proc_ssize_t>(text.size() - at), &code);
    if (size <= 0) return at == 0 ? 1 : at;
    if (at > 0 && utf8proc_grapheme_break_stateful(previous, code, &state)) return at;
    previous = code;
    at += static_cast<std::size_t>(size);
  }
  return at;
}

}}  // namespace plumb::v0_1
