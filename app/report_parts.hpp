// What the parts of a report (report.hpp) are drawn with: escaped text, axes, and values with
// intervals as rows of a table.
#pragma once

#include "format.hpp"

#include <plumb/core/check.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// A value and what it lies within; bounds that are not finite are not drawn.
struct NamedInterval {
  std::string name;
  double value = 0.0, low = std::nan(""), high = std::nan("");
  std::string note{};  ///< behind the numbers, such as of how many
};

namespace detail {

inline std::string escape_html(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else if (c == '\'')
      out += "&#39;";
    else if (static_cast<unsigned char>(c) >= 32 || c == '\n' || c == '\t')
      out += c;
  }
  return out;
}

// The power of ten at or below x > 0.
inline double power_of_ten(double x) {
  double up = 1.0, down = 1.0;
  while (up * 10.0 <= x && up < 1e300) up *= 10.0;
  while (1.0 / down > x && down < 1e300) down *= 10.0;
  return up / down;
}

// A range of values with about `count` ticks at multiples of 1, 2 or 5 · 10^n; `tight` ends at the
// values, otherwise the range ends at ticks.
struct Axis {
  double low, high, step;

  Axis(double smallest, double largest, int count, bool tight, bool whole)
      : low(smallest), high(largest) {
    if (!(high > low)) {  // one value only: show it in the middle of something
      const double around = whole ? 1.0 : low == 0.0 ? 1.0 : std::abs(low) * 0.1;
      low -= around;
      high += around;
    }
    const double raw = (high - low) / count;
    const double power = power_of_ten(raw);
    const double lead = raw / power;
    step = (lead <= 1.0 ? 1.0 : lead <= 2.0 ? 2.0 : lead <= 5.0 ? 5.0 : 10.0) * power;
    if (whole) step = std::max(1.0, step);
    if (tight) return;
    low = std::floor(low / step + 1e-9) * step;
    high = std::ceil(high / step - 1e-9) * step;
  }
  double share(double value) const { return (value - low) / (high - low); }
  std::vector<double> ticks() const {
    std::vector<double> out;
    for (double i = std::ceil(low / step - 1e-9); i * step <= high + step * 1e-9; ++i)
      out.push_back(i * step + 0.0);  // + 0.0: no -0
    return out;
  }
  std::string label(double value) const {
    const double size = std::max(std::abs(low), std::abs(high));
    if (size < 1e-4 && size > 0.0)
      return value == 0.0 ? "0" : number_as(value, std::chars_format::scientific, 1);
    const double scale = size >= 1e6 ? 1e6 : size >= 1e5 ? 1e3 : 1.0;
    int decimals = 0;
    for (double s = step / scale; s < 1.0 - 2e-9 && decimals < 6; s *= 10.0) ++decimals;
    return str(fixed(value / scale, decimals), scale == 1e6 ? "M" : scale == 1e3 ? "k" : "");
  }
};

/// Rows of a name, a dot with its interval, and the numbers; ticks below. Rows without a finite
/// value are left out.
inline std::string intervals_html(std::string_view x_label, const std::vector<NamedInterval>& rows,
                                  double mark, int decimals) {
  double low = mark, high = mark;
  const auto reach = [&](double x) {
    if (!std::isfinite(x)) return;
    low = std::isfinite(low) ? std::min(low, x) : x;
    high = std::isfinite(high) ? std::max(high, x) : x;
  };
  for (const NamedInterval& row : rows)
    for (const double x : {row.value, row.low, row.high})
      if (std::isfinite(row.value)) reach(x);
  if (!std::isfinite(low)) return "<p class=\"sub\">no values</p>";
  const Axis axis(low, high, 3, false, false);  // its labels have room on a phone
  const auto at = [&](double x) { return fixed(100.0 * axis.share(x), 2); };
  std::string grid, ticks, out = "<table class=\"intervals\">";
  for (const double tick : axis.ticks()) {
    grid += str("<path class=\"grid\" d=\"M", at(tick), " 0V10\"/>");
    ticks += str("<span style=\"left:", at(tick), "%\">", axis.label(tick), "</span>");
  }
  if (std::isfinite(mark)) grid += str("<path class=\"mark\" d=\"M", at(mark), " 0V10\"/>");
  for (const NamedInterval& row : rows) {
    if (!std::isfinite(row.value)) continue;
    const bool within = std::isfinite(row.low) && std::isfinite(row.high);
    std::string said = fixed(row.value, decimals);
    if (within) said += str(" (", fixed(row.low, decimals), " to ", fixed(row.high, decimals), ')');
    out += "<tr><th scope=\"row\">" + escape_html(row.name) +
           "</th><td class=\"plot\"><svg viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" "
           "aria-hidden=\"true\">" +
           grid;
    if (within)
      out +=
          str("<path style=\"stroke:var(--s0)\" d=\"M", at(row.low), " 5H", at(row.high), "\"/>");
    out += str("<path class=\"dot\" d=\"M", at(row.value), " 5h0\"/></svg></td><td>", said,
               row.note.empty() ? "" : " <small>" + escape_html(row.note) + "</small>",
               "</td></tr>\n");
  }
  return out + "<tr class=\"axis\"><th></th><td class=\"plot\"><div>" + ticks +
         "</div></td><td></td></tr></table><div class=\"legend\"><span>" + escape_html(x_label) +
         "</span></div>";
}

}  // namespace detail

}}  // namespace plumb::v0_1
