// Unicode's normalisation form C, by the library utf8proc, whose only user this header is (link
// with -lutf8proc).
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

}}  // namespace plumb::v0_1
