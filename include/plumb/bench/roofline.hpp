// The roofline of a machine as a drawing (S. Williams, A. Waterman and D. Patterson 2009): what its
// instruction sets compute at most, what its caches and memory feed at most, and every kernel as a
// dot at its operations a byte. One chart for each number of threads; SVG by hand.
#pragma once

#include <plumb/bench/probe.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 { namespace bench {

/// A roof that is level (GFLOP/s), or that rises (GB/s).
struct Roof {
  std::string name;
  double value;
};
struct Roofs {
  int threads = 1;
  std::vector<Roof> level, rising;
};

/// A kernel at a case. `flops` counts what elementary functions multiply, too.
struct Dot {
  std::string name;
  int threads = 1;
  double flops = 0, bytes = 0, seconds = 0, bound_seconds = 0;
};

/// As the probe measures them here.
inline Roofs measured_roofs(int threads) {
  Roofs roofs{threads, {}, {}};
  for (const Isa isa : {Isa::Scalar, Isa::Avx2, Isa::Avx512})
    if (supported(isa) && isa <= current_isa())
      roofs.level.push_back({str("fma, ", name(isa)), fma_peak(threads, isa)});
  if (dot_peak(threads) > 0) roofs.level.push_back({"vdpbf16ps", dot_peak(threads)});
  for (const std::size_t cache : {1U, 2U, 3U, 4U}) {
    const double bytes = cache_level_bytes(cache, threads);
    // Where the third level is larger than what counts as memory, the probe never sees past it.
    const bool known =
        !roofs.rising.empty() && roofs.rising.back().name == level_of(bytes, threads);
    if (!known)
      roofs.rising.push_back({level_of(bytes, threads), bandwidth(bytes, Access::Read, threads)});
  }
  return roofs;
}

namespace detail {
inline std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text)
    out += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '"' ? "&quot;" : std::string(1, c);
  return out;
}

/// One chart: logarithmic in both directions.
class RooflineChart {
 public:
  static constexpr double kWidth = 900, kHeight = 460, kLeft = 60, kRight = 870, kTop = 40,
                          kBottom = 420, kLine = 15;

  RooflineChart(const Roofs& roofs, const std::vector<Dot>& dots) {
    for (const Dot& dot : dots)
      if (dot.threads == roofs.threads && dot.seconds > 0) dots_.push_back(dot);
    set_range(roofs);
    text(kLeft, 20, "start",
         str("GFLOP/s by FLOP a byte; in %: of the bound; ", roofs.threads,
             roofs.threads == 1 ? " thread" : " threads"),
         "title");
    draw_grid();
    draw_roofs(roofs);
    draw_dots();
  }
  const std::string& svg() const { return svg_; }
  double height() const { return height_; }

 private:
  void set_range(const Roofs& roofs) {
    double peak = 1, least = 1e30, left = 0.25, right = 16;
    for (const Roof& roof : roofs.level) peak = std::max(peak, roof.value);
    for (const Dot& dot : dots_)
      if (dot.flops > 0) {
        left = std::min(left, dot.flops / dot.bytes);
        right = std::max(right, dot.flops / dot.bytes);
        least = std::min(least, dot.flops / dot.seconds * 1e-9);
      }
    x0_ = std::floor(std::log2(left)) - 1;
    x1_ = std::ceil(std::log2(right)) + 1;
    y1_ = std::ceil(std::log2(peak)) + 1;
    y0_ = std::min(std::floor(std::log2(least)) - 1, y1_ - 8);
  }
  double x(double intensity) const {
    return kLeft + (std::log2(intensity) - x0_) / (x1_ - x0_) * (kRight - kLeft);
  }
  double y(double gflops) const {
    return kBottom - (std::log2(gflops) - y0_) / (y1_ - y0_) * (kBottom - kTop);
  }
  void text(double at_x, double at_y, const char* anchor, const std::string& what,
            const char* style = "") {
    svg_ += str("<text x=\"", at_x, "\" y=\"", at_y, "\" text-anchor=\"", anchor, "\" class=\"",
                style, "\">", escaped(what), "</text>\n");
  }
  void line(double ax, double ay, double bx, double by, const char* style) {
    svg_ += str("<line x1=\"", ax, "\" y1=\"", ay, "\" x2=\"", bx, "\" y2=\"", by, "\" class=\"",
                style, "\"/>\n");
  }
  static std::string short_number(double value) {
    char out[32];
    std::snprintf(out, sizeof out, value < 1 ? "%.2g" : value < 1000 ? "%.3g" : "%.0f", value);
    return out;
  }
  static std::string power(double exponent) {
    return exponent < 0 ? str("1/", std::exp2(-exponent)) : short_number(std::exp2(exponent));
  }

  void draw_grid() {
    for (double at = x0_; at <= x1_; ++at) {
      const double px = x(std::exp2(at));
      line(px, kTop, px, kBottom, "grid");
      text(px, kBottom + 16, "middle", power(at));
    }
    for (double at = y0_; at <= y1_; ++at) {
      const double py = y(std::exp2(at));
      line(kLeft, py, kRight, py, "grid");
      text(kLeft - 6, py + 4, "end", power(at));
    }
  }
  void draw_roofs(const Roofs& roofs) {
    std::vector<Roof> level = roofs.level;
    std::sort(level.begin(), level.end(),
              [](const Roof& a, const Roof& b) { return a.value > b.value; });
    const double peak = level.empty() ? 0 : level.front().value;
    double above = 0;  // the label before, on which this one must not lie
    for (const Roof& roof : level) {
      if (roof.value <= std::exp2(y0_)) continue;
      line(x(std::exp2(x0_)), y(roof.value), kRight, y(roof.value), "roof");
      above = std::max(y(roof.value) - 4, above + 14);
      text(kRight, above, "end", str(roof.name, ' ', short_number(roof.value)), "name");
    }
    const double bottom = std::exp2(y0_), left = std::exp2(x0_);
    double label = kTop + 14;
    for (const Roof& roof : roofs.rising) {
      if (roof.value <= 0 || peak <= 0) continue;
      const double from = std::max(left, bottom / roof.value);
      line(x(from), y(from * roof.value), x(peak / roof.value), y(peak), "roof");
      text(kLeft + 6, label, "start", str(roof.name, ' ', short_number(roof.value), " GB/s"),
           "name");
      text(x(peak / roof.value), y(peak) - 4, "middle", roof.name, "name");
      label += 14;
    }
  }
  /// Numbered, since names would lie on each other; the names below, in two columns.
  void draw_dots() {
    std::size_t number = 0;
    std::vector<std::string> lines;
    for (const Dot& dot : dots_) {
      ++number;
      const double gflops = dot.flops / dot.seconds * 1e-9, gbps = dot.bytes / dot.seconds * 1e-9;
      const std::string share =
          dot.bound_seconds > 0
              ? str(", ", short_number(100 * dot.bound_seconds / dot.seconds), " %")
              : "";
      const std::string speed =
          dot.flops > 0 ? short_number(gflops) + " GFLOP/s" : short_number(gbps) + " GB/s, no FLOP";
      lines.push_back(str(number, "  ", dot.name, ": ", speed, share));
      if (dot.flops <= 0) continue;
      const double px = x(dot.flops / dot.bytes), py = y(gflops);
      svg_ += str("<circle cx=\"", px, "\" cy=\"", py, "\" r=\"4\"><title>", escaped(lines.back()),
                  "</title></circle>\n");
      text(px + 5, py - 4, "start", str(number), "number");
    }
    const std::size_t rows = (lines.size() + 1) / 2;
    for (std::size_t i = 0; i < lines.size(); ++i)
      text(i < rows ? kLeft : kWidth / 2 + 20,
           kHeight + kLine * static_cast<double>(i % std::max<std::size_t>(rows, 1)) + 8, "start",
           lines[i], "number");
    height_ = kHeight + kLine * static_cast<double>(rows) + 20;
  }

  std::vector<Dot> dots_;
  double x0_ = 0, x1_ = 0, y0_ = 0, y1_ = 0, height_ = kHeight;
  std::string svg_;
};
}  // namespace detail

/// A file: a chart for each of the roofs, with the dots of as many threads.
inline std::string roofline_svg(const std::string& title, const std::vector<Roofs>& roofs,
                                const std::vector<Dot>& dots) {
  std::string charts;
  double height = 30;
  for (const Roofs& each : roofs) {
    const auto is_here = [&](const Dot& dot) { return dot.threads == each.threads; };
    if (std::none_of(dots.begin(), dots.end(), is_here)) continue;
    const detail::RooflineChart chart(each, dots);
    charts += str("<g transform=\"translate(0,", height, ")\">\n", chart.svg(), "</g>\n");
    height += chart.height();
  }
  constexpr double kWidth = detail::RooflineChart::kWidth;
  return str("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 ", kWidth, ' ', height,
             "\" width=\"", kWidth, "\"><title>", detail::escaped(title),
             "</title><style>text{font:12px system-ui,sans-serif;fill:#59636e}"
             ".title{font-weight:600;fill:#1b1f24}.name{fill:#0072b2}.number{font-size:11px;"
             "fill:#1b1f24}.grid{stroke:#e3e7eb}.roof{stroke:#0072b2;stroke-width:2}"
             "circle{fill:#d55e00;fill-opacity:.75}</style><rect width=\"100%\" height=\"100%\" "
             "fill=\"#fff\"/>\n<text x=\"60\" y=\"22\" class=\"title\">",
             detail::escaped(title), "</text>\n", charts, "</svg>\n");
}

}}}  // namespace plumb::v0_1::bench
