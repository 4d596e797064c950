// Numbers as text, the same in every locale: in a report "0,5" would break a chart, and a reader of
// logs would take it for two columns. Digits are printf's in the C locale; the source is
// std::to_chars.
#pragma once

#include <charconv>
#include <string>

namespace plumb { inline namespace v0_1 {

namespace detail {

inline std::string number_as(double value, std::chars_format format, int precision) {
  char buffer[512];  // the longest: %.Nf of 1e308, N up to 100
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, format, precision);
  return end.ec == std::errc() ? std::string(buffer, end.ptr) : "?";
}

}  // namespace detail

/// With so many digits after the point: printf's %.Nf. Not finite: "nan", "inf".
inline std::string fixed(double value, int decimals) {
  return detail::number_as(value, std::chars_format::fixed, decimals);
}

/// With so many significant digits, and an exponent where that is shorter: printf's %.Ng.
inline std::string general(double value, int digits) {
  return detail::number_as(value, std::chars_format::general, digits);
}

/// A share as "81.0 %".
inline std::string percent(double share) { return fixed(100.0 * share, 1) + " %"; }

}}  // namespace plumb::v0_1
