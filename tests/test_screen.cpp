// What may reach a terminal: every class of what could command it, whole and in pieces, and the
// text around it untouched.
#include "../app/screen.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <string>

using namespace plumb;

namespace {

std::string utf8(std::uint32_t code) {
  const auto tail = [](std::uint32_t bits) { return static_cast<char>(0x80U | (bits & 0x3FU)); };
  if (code < 0x80) return {static_cast<char>(code)};
  if (code < 0x800) return {static_cast<char>(0xC0U | code >> 6U), tail(code)};
  if (code < 0x10000) return {static_cast<char>(0xE0U | code >> 12U), tail(code >> 6U), tail(code)};
  return {static_cast<char>(0xF0U | code >> 18U), tail(code >> 12U), tail(code >> 6U), tail(code)};
}

// The text in pieces of n bytes.
std::string in_pieces(std::string_view text, std::size_t n) {
  HarmlessStream stream(Layout::Lines);
  std::string out;
  for (std::size_t at = 0; at < text.size(); at += n) out += stream.add(text.substr(at, n));
  return out + stream.end();
}

}  // namespace

TEST_CASE("screen: controls, separators and bidirectional marks become '?'") {
  for (std::uint32_t code = 0; code < 0x20; ++code) {
    CAPTURE(code);
    CHECK(harmless("a" + utf8(code) + "b") == "a?b");
    const bool kept = code == '\n' || code == '\t';
    CHECK(harmless("a" + utf8(code) + "b", Layout::Lines) ==
          (kept ? "a" + utf8(code) + "b" : "a?b"));
  }
  for (std::uint32_t code = 0x7F; code <= 0x9F; ++code) {  // DEL, and C1 as UTF-8
    CAPTURE(code);
    CHECK(harmless("a" + utf8(code) + "b", Layout::Lines) == "a?b");
  }
  for (const std::uint32_t code : {0x061CU, 0x200EU, 0x200FU, 0x2028U, 0x2029U, 0x202AU, 0x202BU,
                                   0x202CU, 0x202DU, 0x202EU, 0x2066U, 0x2067U, 0x2068U, 0x2069U}) {
    CAPTURE(code);
    CHECK(harmless("a" + utf8(code) + "b", Layout::Lines) == "a?b");
    CHECK(wrap("a" + utf8(code) + "b", 40, "") == "a?b\n");
  }
  CHECK(harmless("\x1b]0;title\x07\x1b[2J") == "?]0;title??[2J");
}

TEST_CASE("screen: what is not UTF-8 becomes '?', byte by byte") {
  for (int byte = 0x80; byte < 0x100; ++byte) {  // raw C1 among them
    const std::string text = std::string("a") + static_cast<char>(byte) + "b";
    CAPTURE(byte);
    CHECK(harmless(text) == "a?b");
    CHECK(wrap(text, 40, "") == "a?b\n");
  }
  CHECK(harmless("\xC0\x9B[2J") == "??[2J");      // an over-long escape
  CHECK(harmless("\xE0\x82\x9B") == "???");       // an over-long C1
  CHECK(harmless("\xED\xA0\x80") == "???");       // a surrogate
  CHECK(harmless("\xF4\x90\x80\x80") == "????");  // beyond U+10FFFF
  CHECK(harmless("\xF0\x80\x80\x9B") == "????");
  CHECK(harmless("\xE2\x82") == "??");  // its rest never comes
  CHECK(harmless("\xE2\x82"
                 "a\xE2\x82\xAC") == "??a\xE2\x82\xAC");
  CHECK(wrap("x\xE2\x82", 40, "") == "x??\n");
}

TEST_CASE("screen: every other character passes") {
  std::string text =
      "\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x90\xBB \xE4\xB8\xAD \xD7\xA9\xD7\x9C\xD7\x95\xD7\x9D";
  CHECK(harmless(text) == text);
  for (const std::uint32_t code : {0x20U, 0x7EU, 0xA0U, 0x7FFU, 0x800U, 0x200DU, 0x2027U, 0x202FU,
                                   0x2065U, 0xD7FFU, 0xE000U, 0xFFFDU, 0x10000U, 0x10FFFFU}) {
    CAPTURE(code);
    CHECK(harmless(utf8(code)) == utf8(code));
  }
}

TEST_CASE("screen: a text in pieces is what it is whole") {
  const std::string text =
      "caf\xC3\xA9\n\tbear \xF0\x9F\x90\xBB \xC2\x9B"
      "2J \x9B \xE2\x80\xAE"
      "abc \xE2\x82";
  const std::string whole = harmless(text, Layout::Lines);
  for (std::size_t n = 1; n <= text.size(); ++n) CHECK(in_pieces(text, n) == whole);
  HarmlessStream stream(Layout::Lines);
  CHECK(stream.add("\xF0\x9F") == "");  // waits
  CHECK(stream.add("\x90") == "");
  CHECK(stream.add("\xBB!") == "\xF0\x9F\x90\xBB!");
  CHECK(stream.add("\xF0\x9F") == "");
  CHECK(stream.add("x") == "??x");  // another character came instead
  CHECK(stream.end() == "");
}
