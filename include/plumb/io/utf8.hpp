// UTF-8: whether bytes are well-formed, and the nearest text that is. One definition for all that
// is written as JSON, shown in a message, or taken as a name.
//
// Source: The Unicode Standard 15.0, table 3-7 (well-formed sequences) and section 3.9 (one U+FFFD
// for each maximal subpart of an ill-formed one). What this is not: normalisation, or a count of
// columns.
#pragma once

#include <plumb/core/version.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

namespace plumb { inline namespace v0_1 {

namespace detail {

/// How `text`, which is not empty, begins: `bytes` that belong together, and whether they are a
/// character; if not, they are what one replacement character stands for.
struct Utf8Start {
  std::size_t bytes;
  bool whole;
};

inline Utf8Start utf8_start(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {1, true};
  const std::size_t length = lead >= 0xC2 && lead <= 0xDF   ? 2
                             : lead >= 0xE0 && lead <= 0xEF ? 3
                             : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                            : 1;
  if (length == 1) return {1, false};
  // The second byte's range keeps out long forms, surrogates and what lies beyond U+10FFFF.
  const unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (std::size_t i = 1; i < length; ++i)
    if (i == text.size() || byte(i) < (i == 1 ? low : 0x80) || byte(i) > (i == 1 ? high : 0xBF))
      return {i, false};
  return {length, true};
}

}  // namespace detail

/// Place of the first byte that is not part of a UTF-8 character; npos if there is none.
inline std::size_t find_not_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const detail::Utf8Start start = detail::utf8_start(text.substr(at));
    if (!start.whole) return at;
    at += start.bytes;
  }
  return std::string_view::npos;
}

inline bool is_utf8(std::string_view text) { return find_not_utf8(text) == text.npos; }

/// `text` with U+FFFD for what is not UTF-8; text that is comes back as it was.
inline std::string repaired_utf8(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t good = std::min(find_not_utf8(text.substr(at)), text.size() - at);
    out += text.substr(at, good);
    at += good;
    if (at == text.size()) break;
    out += "\xEF\xBF\xBD";
    at += detail::utf8_start(text.substr(at)).bytes;
  }
  return out;
}

}}  // namespace plumb::v0_1
