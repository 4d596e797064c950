// Pattern: a regular expression that splits text, by the library PCRE2, whose only user this header
// is (link with -lpcre2-8).
//
// Characters have their Unicode properties. White space is Unicode's White_Space, as in the regular
// expressions that vocabularies were trained with; PCRE2's own \s has one character more. What is
// not UTF-8 is matched by nothing. Source: www.pcre.org, pcre2api(3), pcre2unicode(3).
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/io/file.hpp>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace plumb { inline namespace v0_1 {

class Pattern {
 public:
  /// DataError, with the place, if it is malformed. `file`: in which it stands, for the message.
  explicit Pattern(const std::string& text, Where where = Where::here(),
                   const std::string& file = "") {
    const std::string spelled = with_unicode_space(text);
    int error = 0;
    PCRE2_SIZE at = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(spelled.data()), spelled.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF, &error, &at,
                              nullptr));
    if (code_ == nullptr) {
      PCRE2_UCHAR message[160] = {};
      pcre2_get_error_message(error, message, sizeof message);
      fail<DataError>(str("[pattern] ", file, file.empty() ? "\"" : ": \"", shown(text),
                          "\" is no regular expression: ", reinterpret_cast<const char*>(message),
                          " (at ", at, ")"),
                      where);
    }
    pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);  // where there is none, it is interpreted
  }

  /// Calls take(part) for every match and for every stretch between two, in their order; together
  /// they are the text. DataError if matching needs more than the library allows.
  template <class Take>
  void split(std::string_view text, const Take& take) const {
    const std::unique_ptr<pcre2_match_data, FreeMatch> match(pcre2_match_data_create(1, nullptr));
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    std::size_t done = 0;
    for (std::size_t at = 0; at < text.size();) {
      const int found =
          pcre2_match(code_.get(), subject, text.size(), at, PCRE2_NOTEMPTY, match.get(), nullptr);
      if (found == PCRE2_ERROR_NOMATCH) break;
      if (found < 0) fail<DataError>(str("[pattern] a text cannot be split (", found, ")"));
      const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(match.get());
      if (ends[0] > done) take(text.substr(done, ends[0] - done));
      take(text.substr(ends[0], ends[1] - ends[0]));
      at = done = ends[1];
    }
    if (done < text.size()) take(text.substr(done));
  }

 private:
  struct FreeCode {
    void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  };
  struct FreeMatch {
    void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  };

  // \s and \S, inside brackets and outside, spelled out.
  static std::string with_unicode_space(const std::string& text) {
    static constexpr std::string_view kSpace =
        "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"
        "\\x{205f}\\x{3000}";
    std::string out;
    bool in_brackets = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
      const char c = text[i];
      if (c == '\\' && i + 1 < text.size()) {
        const char next = text[++i];
        if (next == 's')
          out += in_brackets ? std::string(kSpace) : str('[', kSpace, ']');
        else if (next == 'S' && !in_brackets)
          out += str("[^", kSpace, ']');
        else
          out += {c, next};
        continue;
      }
      if (c == '[') in_brackets = true;
      if (c == ']') in_brackets = false;
      out += c;
    }
    return out;
  }

  std::unique_ptr<pcre2_code, FreeCode> code_;
};

/// Patterns of which each splits the pieces that the one before left.
class Patterns {
 public:
  explicit Patterns(const std::vector<std::string>& texts, Where where = Where::here(),
                    const std::string& file = "") {
    for (const std::string& text : texts) patterns_.emplace_back(text, where, file);
  }

  /// Calls take(part) for each part, in their order; together they are the text.
  template <class Take>
  void split(std::string_view text, const Take& take, std::size_t from = 0) const {
    if (from == patterns_.size()) return take(text);
    patterns_[from].split(text, [&](std::string_view part) { split(part, take, from + 1); });
  }

 private:
  std::vector<Pattern> patterns_;
};

}}  // namespace plumb::v0_1
