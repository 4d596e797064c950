// A run's report as one HTML file that needs nothing else: no network, no fonts, no library.
//
// Numbers, line charts (SVG), samples side by side, notices, configuration. It reads on a phone, in
// light and dark, and with scripts off: the script only shows values under the pointer. All text
// that comes in is escaped. Line colours: Okabe and Ito 2008, "Color universal design".
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/run/metrics.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
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

template <class... Arguments>
std::string format(const char* pattern, Arguments... arguments) {
  char buffer[512];
  std::snprintf(buffer, sizeof buffer, pattern, arguments...);
  return buffer;
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
    const double power = std::pow(10.0, std::floor(std::log10(raw)));
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
    if (size < 1e-4 && size > 0.0) return value == 0.0 ? "0" : format("%.1e", value);
    const double scale = size >= 1e6 ? 1e6 : size >= 1e5 ? 1e3 : 1.0;
    const int decimals =
        std::clamp(static_cast<int>(std::ceil(-std::log10(step / scale) - 1e-9)), 0, 6);
    return format("%.*f%s", decimals, value / scale, scale == 1e6 ? "M" : scale == 1e3 ? "k" : "");
  }
};

inline constexpr const char* kReportStyle =
    R"(:root{color-scheme:light dark;--ink:#1b1f24;--soft:#59636e;--line:#d5dae0;--page:#fff;
--card:#f6f8fa;--warn:#fff4d6;--edge:#b07d00;--s0:#0072b2;--s1:#d55e00;--s2:#009e73;--s3:#cc79a7;
--s4:#e69f00;--s5:#56b4e9}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#9aa4af;--line:#343b44;--page:#12161b;
--card:#1b2027;--warn:#352a0b;--edge:#e0a82e;--s0:#56b4e9;--s1:#f0843c;--s2:#2fc79b;--s3:#e09cc3;
--s4:#f0b53c;--s5:#8fb7ff}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem 1rem 4rem;max-width:72rem;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 .2rem}h2{font-size:1.15rem;margin:2rem 0 .6rem}
.sub{color:var(--soft);margin:0 0 1rem}
.notice{background:var(--warn);border-left:4px solid var(--edge);padding:.6rem .9rem;margin:1rem 0;
border-radius:4px;white-space:pre-wrap}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.4rem .7rem .4rem 0;
border-bottom:1px solid var(--line)}
th{color:var(--soft);font-weight:600;font-size:.85rem}
.summary td:nth-child(2){font-weight:600;white-space:nowrap;font-variant-numeric:tabular-nums}
.summary td:last-child{color:var(--soft)}
.samples{table-layout:fixed}.samples td{white-space:pre-wrap;overflow-wrap:anywhere;font-size:.92rem}
.charts{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(min(22rem,100%),1fr))}
figure{margin:0;padding:.7rem .8rem .4rem;background:var(--card);border-radius:8px;min-width:0;
position:relative}
figcaption{font-weight:600}.legend{font-size:.85rem;color:var(--soft);min-height:1.3rem}
.legend span{margin-right:.9rem;white-space:nowrap}
.legend i{display:inline-block;width:1.1em;height:0;border-top:3px solid;vertical-align:middle;
margin-right:.35em}
svg{display:block;width:100%;height:auto}svg text{font-size:13px;fill:var(--soft)}
path{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.grid{stroke:var(--line);stroke-width:1}.hair{stroke:var(--soft);stroke-dasharray:3 3}
.tip{position:absolute;pointer-events:none;background:var(--page);border:1px solid var(--line);
border-radius:4px;padding:.2rem .5rem;font-size:.8rem;white-space:nowrap;display:none;
font-variant-numeric:tabular-nums}
details{margin:1.5rem 0}summary{cursor:pointer;font-weight:600}
pre{background:var(--card);padding:.8rem;border-radius:8px;overflow:auto;font-size:.85rem}
@media(max-width:40rem){.samples thead{display:none}.samples tr{display:block;padding:.6rem 0;
border-bottom:2px solid var(--line)}.samples td{display:block;border:0;padding:.2rem 0}
.samples td::before{content:attr(data-name);display:block;color:var(--soft);font-size:.8rem;
font-weight:600}
.summary,.summary tbody{display:block}.summary tr{display:grid;grid-template-columns:1fr auto;
gap:0 .8rem;padding:.4rem 0;border-bottom:1px solid var(--line)}
.summary td{border:0;padding:0}.summary td:last-child{grid-column:1/3;font-size:.9rem}})";

// Shows every line's value at the x nearest to the pointer, where one line has a value.
inline constexpr const char* kReportScript =
    R"(document.querySelectorAll('figure').forEach(f=>{
const s=f.querySelector('svg'),t=f.querySelector('.tip'),h=f.querySelector('.hair'),
d=JSON.parse(f.querySelector('script').textContent),show=e=>{
const r=s.getBoundingClientRect(),k=d.w/r.width,px=(e.clientX-r.left)*k;
let best=null;d.s.forEach(l=>l.p.forEach(p=>{if(best===null||Math.abs(p[0]-px)<Math.abs(best[0]-px))
best=p}));if(!best)return;h.setAttribute('x1',best[0]);h.setAttribute('x2',best[0]);
h.style.display='';t.replaceChildren();const add=(x,c)=>{const n=document.createElement('div');
n.textContent=x;if(c)n.style.color=c;t.append(n)};add(d.x+' '+best[2]);
d.s.forEach(l=>{const p=l.p.find(p=>p[0]===best[0]);if(p)add((l.n?l.n+'  ':'')+p[3],l.c)});
t.style.display='block';const o=f.getBoundingClientRect(),a=r.left-o.left+best[0]/k,w=t.offsetWidth;
t.style.left=(a+12+w>f.clientWidth?Math.max(0,a-w-12):a+12)+'px';t.style.top=r.top-o.top+8+'px'};
s.addEventListener('pointermove',show);s.addEventListener('pointerdown',show);
s.addEventListener('pointerleave',()=>{t.style.display='none';h.style.display='none'})}))";

}  // namespace detail

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

  /// A line chart; consecutive ones stand side by side where the screen is wide enough.
  void add_chart(std::string_view title, std::string_view x_label, std::string_view y_label,
                 const std::vector<Series>& series) {
    for (const Series& line : series)
      check(line.x.size() == line.y.size(), "[report] a series needs one y for each x");
    part("charts", "</div>\n", "<div class=\"charts\">\n");
    body_ += "<figure><figcaption>" + detail::escape_html(title) + "</figcaption>";
    body_ += legend(y_label, series) + chart(title, x_label, series);
    body_ += "<div class=\"tip\"></div></figure>\n";
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

  static std::string color(std::size_t line) { return detail::format("var(--s%zu)", line % 6); }

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

  static std::string frame(std::string_view x_label, const detail::Axis& x, const detail::Axis& y) {
    std::string out;
    for (const double tick : y.ticks()) {
      const double at = y_at(y, tick);
      out += detail::format("<line class=\"grid\" x1=\"%g\" x2=\"%g\" y1=\"%.1f\" y2=\"%.1f\"/>",
                            kLeft, kRight, at, at);
      out += detail::format("<text x=\"%g\" y=\"%.1f\" text-anchor=\"end\">%s</text>", kLeft - 6,
                            at + 4, y.label(tick).c_str());
    }
    for (const double tick : x.ticks())
      out += detail::format("<text x=\"%.1f\" y=\"%g\" text-anchor=\"middle\">%s</text>",
                            x_at(x, tick), kBottom + 17, x.label(tick).c_str());
    return out +
           detail::format("<text x=\"%g\" y=\"%g\" text-anchor=\"middle\">", (kLeft + kRight) / 2,
                          kHeight - 6) +
           detail::escape_html(x_label) + "</text>";
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
        out.path += detail::format(pen ? "L%.1f %.1f" : "M%.1f %.1fh0", px, py);
        out.points += (out.points.empty() ? "" : ",") +
                      detail::format("[%.2f,%.1f,\"%.6g\",\"%.4g\"]", px, py, line.x[j], line.y[j]);
      }
      pen = finite;
    }
    return out;
  }

  static std::string chart(std::string_view title, std::string_view x_label,
                           const std::vector<Series>& series) {
    const detail::Axis x = axis_of(series, true), y = axis_of(series, false);
    std::string svg = detail::format("<svg viewBox=\"0 0 %g %g\" role=\"img\">", kWidth, kHeight) +
                      "<title>" + detail::escape_html(title) + "</title>" + frame(x_label, x, y);
    std::string data = detail::format("{\"w\":%g,\"x\":", kWidth) + json_text(x_label) + ",\"s\":[";
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
    if (!any)
      svg += detail::format("<text x=\"%g\" y=\"%g\" text-anchor=\"middle\">no values</text>",
                            (kLeft + kRight) / 2, (kTop + kBottom) / 2);
    svg += detail::format("<line class=\"hair\" y1=\"%g\" y2=\"%g\" style=\"display:none\"/></svg>",
                          kTop, kBottom);
    return svg + "<script type=\"application/json\">" + data + "]}</script>";
  }

  // A JSON string that is safe inside <script>: no angle bracket survives.
  static std::string json_text(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
      if (c == '"' || c == '\\' || c == '<' || c == '>' || static_cast<unsigned char>(c) < 32)
        out += detail::format("\\u%04x", static_cast<unsigned>(static_cast<unsigned char>(c)));
      else
        out += c;
    }
    return out + '"';
  }

  std::string title_, subtitle_, body_, close_;
  std::string_view open_;
};

}}  // namespace plumb::v0_1
