// A run's report as one HTML file that needs nothing else: no network, no fonts, no library.
//
// Numbers, line charts (SVG), samples side by side, notices, configuration. It reads on a phone, in
// light and dark, and with scripts off: the script only shows values under the pointer. All text
// that comes in is escaped. Line colours: Okabe and Ito 2008, "Color universal design".
#pragma once

#include "format.hpp"
#include "report_parts.hpp"
#include "report_style.hpp"

#include <plumb/core/check.hpp>
#include <plumb/run/metrics.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// One line of a chart; a value that is not finite breaks it.
struct Series {
  std::string name;
  std::vector<double> x, y;
};

/// A vertical line in a chart, such as where a round begins, with its name at the top.
struct Mark {
  double x = 0.0;
  std::string name;
};

/// The column `metric` of metric rows as a line named `name`; rows without a value are left out.
inline Series metric_series(std::string name, const std::vector<MetricRow>& rows,
                            std::string_view metric) {
  Series series{std::move(name), {}, {}};
  for (const MetricRow& row : rows)
    for (const auto& [key, value] : row.values)
      if (key == metric && std::isfinite(value)) {
        series.x.push_back(static_cast<double>(row.step));
        series.y.push_back(value);
      }
  return series;
}

/// Collects the parts of a report, which appear in the order of the calls, and writes its HTML.
class Report {
 public:
  explicit Report(std::string title, std::string subtitle = {})
      : title_(std::move(title)), subtitle_(std::move(subtitle)) {}

  /// A banner that must not be missed, such as who or what made the rankings.
  void add_notice(std::string_view text) {
    part("notice", "");
    body_ += "<div class=\"notice\">" + detail::escape_html(text) + "</div>\n";
  }

  /// A heading for what follows.
  void add_heading(std::string_view text) {
    part("heading", "");
    body_ += "<h2>" + detail::escape_html(text) + "</h2>\n";
  }

  /// One number with its name and, if there is one, a note; consecutive ones share a table.
  void add_summary(std::string_view name, std::string_view value, std::string_view note = {}) {
    part("summary", "</table>\n", "<table class=\"summary\">\n");
    body_ += "<tr><td>" + detail::escape_html(name) + "</td><td>" + detail::escape_html(value) +
             "</td><td>" + detail::escape_html(note) + "</td></tr>\n";
  }

  /// A sentence about what is beside it.
  void add_text(std::string_view text) {
    part("text", "");
    body_ += "<p>" + detail::escape_html(text) + "</p>\n";
  }

  /// A line chart; consecutive ones stand side by side where the screen is wide enough. Marks
  /// beyond the values are left out.
  void add_chart(std::string_view title, std::string_view x_label, std::string_view y_label,
                 const std::vector<Series>& series, const std::vector<Mark>& marks = {}) {
    for (const Series& line : series)
      check(line.x.size() == line.y.size(), "[report] a series needs one y for each x");
    part("charts", "</div>\n", "<div class=\"charts\">\n");
    body_ += "<figure><figcaption>" + detail::escape_html(title) + "</figcaption>";
    body_ += legend(y_label, series) + chart(title, x_label, series, marks);
    body_ += "<div class=\"tip\"></div></figure>\n";
  }

  /// Values by name, each a dot with its interval on one axis, and as text: a table that reads
  /// without a picture, too. `mark`, if finite, is a line through all, such as what chance gives.
  void add_intervals(std::string_view title, std::string_view x_label,
                     const std::vector<NamedInterval>& rows, double mark = std::nan(""),
                     int decimals = 2) {
    part("charts", "</div>\n", "<div class=\"charts\">\n");
    body_ += "<figure><figcaption>" + detail::escape_html(title) + "</figcaption>" +
             detail::intervals_html(x_label, rows, mark, decimals) + "</figure>\n";
  }

  /// A table of texts, such as prompt | before | after; each row has one cell for each column.
  void add_samples(const std::vector<std::string>& columns,
                   const std::vector<std::vector<std::string>>& rows) {
    part("samples", "");
    body_ += "<table class=\"samples\"><thead><tr>";
    for (const std::string& column : columns)
      body_ += "<th>" + detail::escape_html(column) + "</th>";
    body_ += "</tr></thead>\n";
    for (const auto& row : rows) {
      check(row.size() == columns.size(), "[report] a sample needs one cell for each column");
      body_ += "<tr>";
      for (std::size_t i = 0; i < row.size(); ++i)
        body_ += "<td data-name=\"" + detail::escape_html(columns[i]) + "\">" +
                 detail::escape_html(row[i]) + "</td>";
      body_ += "</tr>\n";
    }
    body_ += "</table>\n";
  }

  /// Text folded away under a title, such as the configuration.
  void add_details(std::string_view title, std::string_view text) {
    part("details", "");
    body_ += "<details><summary>" + detail::escape_html(title) + "</summary><pre>" +
             detail::escape_html(text) + "</pre></details>\n";
  }

  /// The same chart as a file of its own (SVG), with its title and its legend, in light colours.
  static std::string svg_file(std::string_view title, std::string_view x_label,
                              std::string_view y_label, const std::vector<Series>& series) {
    const std::string page = chart(title, x_label, series, {});
    const std::size_t begin = page.find("</title>") + 8;
    const double height = kHeight + 52 + 16 * static_cast<double>((series.size() + 1) / 2);
    std::string out = str("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 ", kWidth, ' ',
                          height, "\" width=\"", 1.6 * kWidth, "\"><title>",
                          detail::escape_html(title), "</title><style>", detail::kChartStyle,
                          "</style><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>");
    out += str("<text x=\"8\" y=\"18\" style=\"fill:#1b1f24;font-weight:600\">",
               detail::escape_html(title), "</text>", label_at(8, 34, "start", y_label));
    out += "<g transform=\"translate(0,40)\">" + page.substr(begin, page.find("</svg>") - begin) +
           "</g>";
    for (std::size_t i = 0; i < series.size(); ++i) {
      const double x = i % 2 == 0 ? kLeft : (kLeft + kRight) / 2;
      const double y = kHeight + 50 + 16 * static_cast<double>(i / 2);
      out += str("<path d=\"M", x, ' ', y, "h18\" style=\"stroke:", color(i), "\"/>",
                 label_at(x + 24, y + 4, "start", series[i].name));
    }
    // Not every reader of SVG knows variables.
    constexpr const char* kColors[] = {"#0072b2", "#d55e00", "#009e73",
                                       "#cc79a7", "#e69f00", "#56b4e9"};
    for (std::size_t i = 0; i < 6; ++i)
      for (std::size_t at; (at = out.find(color(i))) != std::string::npos;)
        out.replace(at, color(i).size(), kColors[i]);
    return out + "</svg>\n";
  }

  /// The whole page.
  std::string html() const {
    const std::string title = detail::escape_html(title_);
    std::string page =
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
        "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>" +
        title + "</title>\n<style>\n" + detail::kReportStyle + "\n</style></head><body>\n<h1>" +
        title + "</h1>\n";
    if (!subtitle_.empty()) page += "<p class=\"sub\">" + detail::escape_html(subtitle_) + "</p>\n";
    return page + body_ + close_ + "<script>\n" + detail::kReportScript +
           "\n</script>\n</body></html>\n";
  }

 private:
  // The drawing's size and its plot area, in SVG units: about one CSS pixel on a phone.
  static constexpr double kWidth = 420, kHeight = 240, kLeft = 68, kRight = 408, kTop = 10,
                          kBottom = 196;
  static constexpr std::size_t kMostPoints = 500;

  // Parts of one kind share an element; another kind closes it.
  void part(const char* kind, const char* close, const char* open = "") {
    if (open_ == kind) return;
    body_ += close_ + open;
    close_ = close;
    open_ = *open ? kind : "";
  }

  static std::string color(std::size_t line) { return str("var(--s", line % 6, ")"); }

  static std::string legend(std::string_view y_label, const std::vector<Series>& series) {
    std::string out = "<div class=\"legend\"><span>" + detail::escape_html(y_label) + "</span>";
    if (series.size() > 1)
      for (std::size_t i = 0; i < series.size(); ++i)
        out += "<span><i style=\"border-color:" + color(i) + "\"></i>" +
               detail::escape_html(series[i].name) + "</span>";
    return out + "</div>";
  }

  static double x_at(const detail::Axis& axis, double x) {
    return kLeft + (kRight - kLeft) * axis.share(x);
  }
  static double y_at(const detail::Axis& axis, double y) {
    return kBottom - (kBottom - kTop) * axis.share(y);
  }

  static detail::Axis axis_of(const std::vector<Series>& series, bool is_x) {
    double low = 0, high = 0;
    bool any = false, whole = is_x;
    for (const Series& line : series)
      for (std::size_t i = 0; i < line.x.size(); ++i) {
        if (!std::isfinite(line.x[i]) || !std::isfinite(line.y[i])) continue;
        const double value = is_x ? line.x[i] : line.y[i];
        whole = whole && value == std::floor(value);
        low = any ? std::min(low, value) : value;
        high = any ? std::max(high, value) : value;
        any = true;
      }
    return {low, high, 5, is_x, whole};
  }

  static std::string label_at(double x, double y, const char* anchor, std::string_view text) {
    return str("<text x=\"", fixed(x, 1), "\" y=\"", fixed(y, 1), "\" text-anchor=\"", anchor,
               "\">", detail::escape_html(text), "</text>");
  }
  static std::string line_from(const char* kind, double x1, double y1, double x2, double y2) {
    return str("<line class=\"", kind, "\" x1=\"", fixed(x1, 1), "\" x2=\"", fixed(x2, 1),
               "\" y1=\"", fixed(y1, 1), "\" y2=\"", fixed(y2, 1), "\"/>");
  }

  static std::string frame(std::string_view x_label, const detail::Axis& x, const detail::Axis& y,
                           const std::vector<Mark>& marks) {
    std::string out;
    for (const double tick : y.ticks()) {
      const double at = y_at(y, tick);
      out += line_from("grid", kLeft, at, kRight, at);
      out += label_at(kLeft - 6, at + 4, "end", y.label(tick));
    }
    for (const double tick : x.ticks())
      out += label_at(x_at(x, tick), kBottom + 17, "middle", x.label(tick));
    for (const Mark& mark : marks) {
      if (!(mark.x >= x.low && mark.x <= x.high)) continue;
      const double at = x_at(x, mark.x);
      out += line_from("mark", at, kTop, at, kBottom) +
             label_at(at + 3, kTop + 10, "start", mark.name);
    }
    return out + label_at((kLeft + kRight) / 2, kHeight - 6, "middle", x_label);
  }

  // One line as an SVG path, and its points [px, py, "x", "y"] for the script.
  struct Drawn {
    std::string path, points;
  };
  static Drawn draw(const Series& line, const detail::Axis& x, const detail::Axis& y) {
    Drawn out;
    const std::size_t stride = (line.x.size() + kMostPoints - 1) / kMostPoints;
    bool pen = false;
    for (std::size_t j = 0; j < line.x.size(); ++j) {
      if (j % stride != 0 && j + 1 != line.x.size()) continue;
      const bool finite = std::isfinite(line.x[j]) && std::isfinite(line.y[j]);
      if (finite) {
        const double px = x_at(x, line.x[j]), py = y_at(y, line.y[j]);
        // h0: a point between gaps shows as a dot
        out.path += str(pen ? "L" : "M", fixed(px, 1), ' ', fixed(py, 1), pen ? "" : "h0");
        out.points += str(out.points.empty() ? "" : ",", '[', fixed(px, 2), ',', fixed(py, 1),
                          ",\"", general(line.x[j], 6), "\",\"", general(line.y[j], 4), "\"]");
      }
      pen = finite;
    }
    return out;
  }

  static std::string chart(std::string_view title, std::string_view x_label,
                           const std::vector<Series>& series, const std::vector<Mark>& marks) {
    const detail::Axis x = axis_of(series, true), y = axis_of(series, false);
    std::string svg = str("<svg viewBox=\"0 0 ", kWidth, ' ', kHeight, "\" role=\"img\"><title>",
                          detail::escape_html(title), "</title>", frame(x_label, x, y, marks));
    std::string data = str("{\"w\":", kWidth, ",\"x\":", json_text(x_label), ",\"s\":[");
    bool any = false;
    for (std::size_t i = 0; i < series.size(); ++i) {
      const Drawn line = draw(series[i], x, y);
      const bool dots = line.path.find('L') == std::string::npos;
      any = any || !line.path.empty();
      svg += "<path d=\"" + line.path + "\" style=\"stroke:" + color(i) +
             (dots ? ";stroke-width:7\"/>" : "\"/>");
      data += (i ? "," : "") + std::string("{\"n\":") +
              json_text(series.size() > 1 ? series[i].name : "") + ",\"c\":\"" + color(i) +
              "\",\"p\":[" + line.points + "]}";
    }
    if (!any) svg += label_at((kLeft + kRight) / 2, (kTop + kBottom) / 2, "middle", "no values");
    svg += str("<line class=\"hair\" y1=\"", kTop, "\" y2=\"", kBottom,
               "\" style=\"display:none\"/></svg>");
    return svg + "<script type=\"application/json\">" + data + "]}</script>";
  }

  // A JSON string that is safe inside <script>: no angle bracket survives.
  static std::string json_text(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
      if (c == '"' || c == '\\' || c == '<' || c == '>' || static_cast<unsigned char>(c) < 32)
        out += str("\\u00", "0123456789abcdef"[static_cast<unsigned char>(c) >> 4],
                   "0123456789abcdef"[c & 15]);
      else
        out += c;
    }
    return out + '"';
  }

  std::string title_, subtitle_, body_, close_;
  std::string_view open_;
};

}}  // namespace plumb::v0_1
