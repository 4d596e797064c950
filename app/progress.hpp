// Progress of long work on stderr: a bar on a terminal, plain lines elsewhere.
//
//   reward model  [=======>            ]  37 %  74/200  3.2 step/s  0:39 left  loss 0.61
//
// A terminal is redrawn at most ten times a second. A log gets a line when a tenth of the work is
// done (if the last line is 2 s old) or when 10 s have passed, and one at the end. The rate is the
// mean since the start. Not thread-safe: one thread reports.
#pragma once

#include "format.hpp"

#include <plumb/core/check.hpp>

#include <sys/ioctl.h>
#include <unistd.h>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

namespace plumb { inline namespace v0_1 {

/// Columns of the terminal behind a stream; $COLUMNS or 80 where there is none.
inline int terminal_width(std::FILE* stream) {
  winsize size = {};
  if (::ioctl(::fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  const char* columns = std::getenv("COLUMNS");
  const int width = columns ? std::atoi(columns) : 0;
  return width > 0 ? width : 80;
}

/// Seconds as a clock shows them: 0:07, 12:03, 1:00:00.
inline std::string clock_time(double seconds) {
  const auto total = static_cast<long long>(std::llround(std::max(0.0, seconds)));
  const long long hours = total / 3600, minutes = total / 60 % 60;
  const auto two = [](long long value) { return str(value < 10 ? "0" : "", value); };
  return hours > 0 ? str(hours, ':', two(minutes), ':', two(total % 60))
                   : str(minutes, ':', two(total % 60));
}

namespace detail {

// Below one per second the inverse reads better: 3.2 s/step.
inline std::string rate_text(double rate, std::string_view unit) {
  if (rate < 1.0) {
    const double seconds = 1.0 / rate;
    return str(fixed(seconds, seconds < 100.0 ? 1 : 0), " s/", unit);
  }
  const std::string number = rate < 100.0 ? fixed(rate, 1)
                             : rate < 1e4 ? fixed(rate, 0)
                             : rate < 1e7 ? fixed(rate / 1e3, 1) + "k"
                                          : fixed(rate / 1e6, 1) + "M";
  return str(number, ' ', unit, "/s");
}

}  // namespace detail

/// What a progress line shows, apart from time.
struct ProgressState {
  std::string_view label;
  std::string_view unit;
  std::string_view extra;
  Index start = 0;  // done before this run: not in the rate
  Index done = 0;
  Index total = 0;
};

namespace detail {

/// Share of the work that is done, 0 … 1; 0 where there is no total.
inline double done_share(const ProgressState& state) {
  if (state.total <= 0) return 0.0;
  return std::clamp(static_cast<double>(state.done) / static_cast<double>(state.total), 0.0, 1.0);
}

// A total of 0 is no share of anything: what was done is counted, and nothing is said to be
// complete.
inline std::string progress_numbers(const ProgressState& state, double seconds) {
  std::string numbers;
  if (state.total > 0) {
    const std::string percent = str(static_cast<int>(done_share(state) * 100.0), " %");
    numbers =
        str(std::string(5 - percent.size(), ' '), percent, "  ", state.done, '/', state.total);
  } else {
    numbers = state.done > 0 ? str(state.done, ' ', state.unit) : "nothing to do";
  }
  const auto now_done = static_cast<double>(state.done - state.start);
  if (now_done > 0.0 && seconds > 0.0) {
    const double rate = now_done / seconds;
    numbers += "  " + rate_text(rate, state.unit);
    const auto left = static_cast<double>(state.total - state.done);
    numbers += left > 0.0 ? str("  ", clock_time(left / rate), " left")
                          : str("  in ", clock_time(seconds));
  }
  if (!state.extra.empty()) numbers += str("  ", state.extra);
  return numbers;
}

}  // namespace detail

/// One line of at most `width` columns (0: as long as it gets, and no bar); seconds since the
/// start.
inline std::string progress_line(const ProgressState& state, double seconds, int width) {
  const std::string numbers = detail::progress_numbers(state, seconds);
  if (width <= 0) return str(state.label, "  ", numbers);

  std::string line(state.label);
  const int bar = std::min(30, width - static_cast<int>(line.size() + numbers.size()) - 6);
  if (bar >= 8 && state.total > 0) {
    const int filled = static_cast<int>(detail::done_share(state) * bar);
    std::string cells(static_cast<std::size_t>(filled), '=');
    if (filled < bar) cells += '>';
    cells.resize(static_cast<std::size_t>(bar), ' ');
    line += str("  [", cells, ']');
  }
  line += "  " + numbers;
  if (line.size() > static_cast<std::size_t>(width)) {
    std::size_t end = static_cast<std::size_t>(width);
    while (end > 0 && (static_cast<unsigned char>(line[end]) & 0xC0U) == 0x80U) --end;  // UTF-8
    line.resize(end);
  }
  return line;
}

/// Who else is told of progress, on the thread that works: a page, say. Nobody, unless it is set
/// before the work begins.
inline std::function<void(const ProgressState&)> progress_listener;

/// Settings of a Progress that most callers leave alone.
struct ProgressOptions {
  Index start = 0;      // done before this run: a resumed run's rate leaves it out
  bool silent = false;  // print nothing
  std::FILE* stream = stderr;
};

/// Shows how far `total` units of work are; ends its line when it goes, by an exception too.
class Progress {
 public:
  using Options = ProgressOptions;

  Progress(std::string label, Index total, std::string unit, Options options = {})
      : label_(std::move(label)),
        unit_(std::move(unit)),
        total_(total),
        done_(options.start),
        options_(options),
        terminal_(::isatty(::fileno(options.stream)) == 1),
        exceptions_(std::uncaught_exceptions()) {
    tell();
    draw(Clock::now());
  }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress() {
    const bool unwinding = std::uncaught_exceptions() > exceptions_;
    if (unwinding || drawn_ != done_ || terminal_) draw(Clock::now());
    if (terminal_ && !options_.silent) {
      std::fputc('\n', options_.stream);
      std::fflush(options_.stream);
    }
  }

  /// `done` units are behind us; `extra` is a few numbers such as "reward 0.42 kl 1.3".
  void update(Index done, std::string_view extra = {}) {
    const Index tenth_before = tenth();
    done_ = done;
    extra_ = extra;
    tell();
    const Clock::time_point now = Clock::now();
    const double pause = terminal_ ? 0.1 : tenth() > tenth_before ? 2.0 : 10.0;
    if (std::chrono::duration<double>(now - last_draw_).count() >= pause) draw(now);
  }
  /// `count` more units are behind us.
  void add(Index count = 1, std::string_view extra = {}) { update(done_ + count, extra); }

  /// Prints a line of its own, above the bar.
  void message(std::string_view text) {
    if (options_.silent) return;
    std::fprintf(options_.stream, terminal_ ? "\r%.*s\x1b[K\n" : "%.*s\n",
                 static_cast<int>(text.size()), text.data());
    if (terminal_) draw(Clock::now());
  }

 private:
  using Clock = std::chrono::steady_clock;

  Index tenth() const { return total_ > 0 ? done_ * 10 / total_ : 0; }

  ProgressState state() const { return {label_, unit_, extra_, options_.start, done_, total_}; }
  void tell() const {
    if (progress_listener) progress_listener(state());
  }

  void draw(Clock::time_point now) {
    last_draw_ = now;
    drawn_ = done_;
    if (options_.silent) return;
    const double seconds = std::chrono::duration<double>(now - begin_).count();
    const int width = terminal_ ? terminal_width(options_.stream) - 1 : 0;
    const std::string line = progress_line(state(), seconds, width);
    std::fprintf(options_.stream, terminal_ ? "\r%s\x1b[K" : "%s\n", line.c_str());
    std::fflush(options_.stream);
  }

  std::string label_, unit_, extra_;
  Index total_, done_, drawn_ = -1;
  Options options_;
  bool terminal_;
  int exceptions_;
  Clock::time_point begin_ = Clock::now(), last_draw_{};
};

}}  // namespace plumb::v0_1
