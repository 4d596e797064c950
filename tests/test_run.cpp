// The run's side room: metrics files, progress lines, the HTML report, signals, small statistics.
#include <plumb/run/interrupt.hpp>
#include <plumb/run/metrics.hpp>
#include <plumb/run/statistics.hpp>
#include "../app/progress.hpp"
#include "../app/report.hpp"

#include "temporary.hpp"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <clocale>
#include <cmath>
#include <csignal>
#include <stdexcept>
#include <vector>

using namespace plumb;

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

void append_text(const std::string& path, const char* text) {
  std::FILE* file = std::fopen(path.c_str(), "a");
  REQUIRE(file != nullptr);
  std::fputs(text, file);
  std::fclose(file);
}

std::size_t count_of(const std::string& text, const std::string& what) {
  std::size_t count = 0;
  for (std::size_t at = text.find(what); at != text.npos; at = text.find(what, at + 1)) ++count;
  return count;
}

// Whether this machine has pseudo-terminals, which a chroot may lack.
bool has_terminals() {
  const int master = ::posix_openpt(O_RDWR | O_NOCTTY);
  if (master < 0) MESSAGE("skipped: there are no pseudo-terminals here");
  return master >= 0 && ::close(master) == 0;
}

// What `action(stream)` prints on a terminal of that width.
template <class Action>
std::string on_terminal(unsigned short width, Action action) {
  const int master = ::posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
  REQUIRE(master >= 0);
  REQUIRE(::grantpt(master) == 0);
  REQUIRE(::unlockpt(master) == 0);
  std::FILE* stream = std::fopen(::ptsname(master), "w");
  REQUIRE(stream != nullptr);
  winsize size = {};
  size.ws_col = width;
  ::ioctl(::fileno(stream), TIOCSWINSZ, &size);
  action(stream);
  std::string out;
  char buffer[4096];
  for (ssize_t n; (n = ::read(master, buffer, sizeof buffer)) > 0;)
    out.append(buffer, static_cast<std::size_t>(n));
  std::fclose(stream);
  ::close(master);
  return out;
}

// What `action(stream)` prints where there is no terminal.
template <class Action>
std::string on_file(Action action) {
  char* text = nullptr;
  std::size_t size = 0;
  std::FILE* stream = ::open_memstream(&text, &size);
  action(stream);
  std::fclose(stream);
  std::string out(text, size);
  std::free(text);
  return out;
}

}  // namespace

TEST_CASE("statistics: mean, deviation, Wilson interval") {
  const std::vector<double> values = {2, 4, 4, 4, 5, 5, 7, 9};
  CHECK(mean(values) == 5.0);
  CHECK(standard_deviation(values) == doctest::Approx(std::sqrt(32.0 / 7.0)).epsilon(1e-14));
  CHECK(std::isnan(mean({})));
  CHECK(std::isnan(standard_deviation(std::vector<double>{1.0})));

  // Published example (Newcombe 1998, table I): 81 of 263 gives 0.2553 to 0.3662.
  const Interval interval = wilson_interval(81, 263);
  CHECK(std::abs(interval.low - 0.2553) < 5e-5);
  CHECK(std::abs(interval.high - 0.3662) < 5e-5);
  // … and 0 of 20 gives 0 to 0.1611.
  CHECK(wilson_interval(0, 20).low == 0.0);
  CHECK(std::abs(wilson_interval(0, 20).high - 0.1611) < 5e-5);
  CHECK(wilson_interval(20, 20).high == 1.0);
  CHECK(wilson_interval(0, 0).low == 0.0);
  CHECK(wilson_interval(0, 0).high == 1.0);
  CHECK_THROWS_AS(wilson_interval(3, 2), ShapeError);
  CHECK_THROWS_AS(wilson_interval(kNaN, 2), ShapeError);
}

TEST_CASE("metrics: files, not-finite values, columns") {
  const Temporary directory;
  MetricsWriter writer(directory / "");
  writer.write(1, {{"loss", 0.1}, {"kl", kNaN}, {"time/rollout", 1.5}});
  writer.write(3, {{"kl", -2.0}, {"time/rollout", kInfinity}});
  CHECK(read_file(directory / "metrics.csv") == "step,loss,kl\n1,0.1,\n3,,-2\n");
  CHECK(read_file(directory / "metrics.jsonl") ==
        "{\"step\":1,\"loss\":0.1,\"kl\":null}\n{\"step\":3,\"kl\":-2}\n");
  CHECK(read_file(directory / "timing.jsonl") ==
        "{\"step\":1,\"time/rollout\":1.5}\n{\"step\":3,\"time/rollout\":null}\n");

  CHECK_THROWS_AS(writer.write(3, {{"kl", 0.0}}), ShapeError);
  CHECK_THROWS_AS(writer.write(4, {{"new", 0.0}}), DataError);
  CHECK_THROWS_AS(writer.write(4, {{"a,b", 0.0}}), ShapeError);
  CHECK_THROWS_AS(writer.write(4, {{"step", 0.0}}), ShapeError);
  CHECK(read_file(directory / "metrics.csv") == "step,loss,kl\n1,0.1,\n3,,-2\n");

  const std::vector<MetricRow> rows = read_metrics(directory / "metrics.csv");
  REQUIRE(rows.size() == 2);
  CHECK(rows[1].step == 3);
  CHECK(rows[0].values[0] == std::pair<std::string, double>("loss", 0.1));
  CHECK(std::isnan(rows[1].values[0].second));
  CHECK(rows[1].values[1].second == -2.0);
  CHECK_THROWS_AS(MetricsWriter("/nonexistent/directory"), IoError);
}

TEST_CASE("metrics: a resumed run leaves the bytes of one that never stopped") {
  const auto row = [](Index step) {
    return Metrics{{"loss", 1.0 / static_cast<double>(step)},
                   {"kl", 0.1F * static_cast<double>(step)}};
  };
  for (const Index checkpoint : {Index{0}, Index{4}, Index{7}}) {
    CAPTURE(checkpoint);
    const Temporary whole, stopped;
    {
      MetricsWriter writer(whole / "");
      for (Index step = 1; step <= 10; ++step) writer.write(step, row(step));
    }
    {
      MetricsWriter writer(stopped / "");
      for (Index step = 1; step <= 7; ++step) writer.write(step, row(step));
    }
    append_text(stopped / "metrics.csv", "8,0.1");  // killed in the middle of a row
    append_text(stopped / "metrics.jsonl", "{\"st");
    {
      MetricsWriter writer(stopped / "");
      writer.truncate_after(checkpoint);
      for (Index step = checkpoint + 1; step <= 10; ++step) writer.write(step, row(step));
      writer.sync();
    }
    for (const char* name : {"metrics.csv", "metrics.jsonl"})
      CHECK(read_file(stopped / name) == read_file(whole / name));
  }
}

TEST_CASE("metrics: doubles survive the file") {
  const Temporary directory;
  const std::vector<double> values = {0.1, 1e-300, -1.0 / 3.0, 6.02214076e23, 5e-324, 0.0};
  {
    MetricsWriter writer(directory / "");
    for (std::size_t i = 0; i < values.size(); ++i)
      writer.write(static_cast<Index>(i), {{"x", values[i]}});
  }
  const std::vector<MetricRow> rows = read_metrics(directory / "metrics.csv");
  REQUIRE(rows.size() == values.size());
  for (std::size_t i = 0; i < values.size(); ++i) CHECK(rows[i].values[0].second == values[i]);
}

TEST_CASE("metrics: a damaged file is named by line, or refused") {
  const Temporary directory;
  const std::string path = directory / "metrics.csv";
  append_text(path, "step,loss\n1,2\n2,x\n");
  const std::string message = message_of<DataError>([&] { read_metrics(path); });
  CHECK(message.find("metrics.csv:3: \"x\" is not a number, in column loss") != message.npos);
  append_text(directory / "b.csv", "step,loss\n1,2,3\n");
  CHECK_THROWS_AS(read_metrics(directory / "b.csv"), DataError);
  append_text(directory / "c.csv", "hello\n");
  CHECK_THROWS_AS(read_metrics(directory / "c.csv"), DataError);
  append_text(directory / "metrics.jsonl", "not a row\n");
  CHECK_THROWS_AS(MetricsWriter(directory / ""), DataError);
}

TEST_CASE("progress: the line") {
  CHECK(clock_time(7.4) == "0:07");
  CHECK(clock_time(723) == "12:03");
  CHECK(clock_time(3600) == "1:00:00");

  const ProgressState state{"ppo", "step", "reward 0.42", 0, 50, 200};
  CHECK(progress_line(state, 20.0, 0) == "ppo   25 %  50/200  2.5 step/s  1:00 left  reward 0.42");
  CHECK(progress_line({"ppo", "step", "", 40, 50, 200}, 20.0, 0) ==
        "ppo   25 %  50/200  2.0 s/step  5:00 left");  // 10 of its own in 20 s
  CHECK(progress_line({"ppo", "token", "", 0, 30000, 30000}, 2.0, 0) ==
        "ppo  100 %  30000/30000  15.0k token/s  in 0:02");
  CHECK(progress_line({"ppo", "step", "", 0, 0, 200}, 0.0, 0) == "ppo    0 %  0/200");
  // No total is no share, and nothing done is not everything done.
  CHECK(progress_line({"ppo", "step", "", 0, 0, 0}, 1.0, 0) == "ppo  nothing to do");
  CHECK(progress_line({"ppo", "step", "", 0, 0, 0}, 1.0, 60) == "ppo  nothing to do");
  CHECK(progress_line({"ppo", "step", "", 0, 6, 0}, 2.0, 0) == "ppo  6 step  3.0 step/s  in 0:02");
  CHECK(progress_line({"ppo", "step", "", 0, 6, 0}, 2.0, 80).find('[') == std::string::npos);
  // More than was announced: all of it is done, and no time is left.
  CHECK(progress_line({"ppo", "step", "", 0, 12, 10}, 2.0, 0) ==
        "ppo  100 %  12/10  6.0 step/s  in 0:02");
  CHECK(progress_line({"ppo", "step", "", 0, 12, 10}, 2.0, 80).find("[====") != std::string::npos);
  for (int width = 1; width <= 120; ++width)
    CHECK(progress_line({"ppo", "step", "", 0, 12, 10}, 2.0, width).size() <=
          static_cast<std::size_t>(width));
  CHECK(progress_line({"ppo", "step", "", 0, 199, 200}, 0.0, 0) == "ppo   99 %  199/200");

  const std::string wide = progress_line(state, 20.0, 100);
  CHECK(wide.find("[=======>") != wide.npos);
  for (int width = 1; width <= 120; ++width)
    CHECK(progress_line(state, 20.0, width).size() <= static_cast<std::size_t>(width));
  const std::string cut = progress_line({"pp\xC3\xA9", "s", "", 0, 0, 1}, 0.0, 3);
  CHECK(cut == "pp");  // not half a character
}

TEST_CASE("progress: a terminal is redrawn, and seldom") {
  if (!has_terminals()) return;
  const std::string text = on_terminal(60, [](std::FILE* stream) {
    Progress bar("work", 100000, "it", {.stream = stream});
    for (int i = 0; i < 50000; ++i) bar.add(1, "loss 1");
    bar.message("saved");
    for (int i = 0; i < 50000; ++i) bar.add(1, "loss 1");
  });
  CHECK(text.find("[>") != text.npos);
  CHECK(text.find("\rsaved") != text.npos);
  CHECK(text.find("100 %") != text.npos);
  CHECK(text.ends_with("\r\n"));
  const std::size_t redraws = count_of(text, "work");
  CHECK(redraws >= 3);  // at the start, after the message, at the end
  CHECK(redraws <= 3 + 30);
}

TEST_CASE("progress: plain lines elsewhere, none when silent, a whole line after an exception") {
  const std::string lines = on_file([](std::FILE* stream) {
    Progress bar("work", 1000, "it", {.stream = stream});
    for (int i = 0; i < 1000; ++i) bar.add();
  });
  CHECK(count_of(lines, "\n") == 2);
  CHECK(lines.find('\r') == lines.npos);
  CHECK(lines.find("1000/1000") != lines.npos);

  CHECK(on_file([](std::FILE* stream) {
          Progress bar("work", 10, "it", {.silent = true, .stream = stream});
          bar.add(10);
          bar.message("x");
        }).empty());

  const auto failing = [](std::FILE* stream) {
    try {
      Progress bar("work", 10, "it", {.stream = stream});
      bar.add(3);
      throw std::runtime_error("stop");
    } catch (const std::runtime_error&) {
    }
  };
  CHECK(on_file(failing).find("3/10") != std::string::npos);
  const bool terminals = has_terminals();
  if (terminals) CHECK(on_terminal(60, failing).ends_with("\r\n"));

  const auto empty = [](std::FILE* stream) { Progress bar("work", 0, "it", {.stream = stream}); };
  CHECK(on_file(empty) == "work  nothing to do\n");
  if (terminals) CHECK(on_terminal(60, empty).find('%') == std::string::npos);
}

TEST_CASE("numbers are the same in every locale") {
  const auto texts = [] {
    Report report("Run");
    report.add_chart("c", "x", "y", {{"a", {0, 1, 2.5}, {0.5, 1e-7, 1234567.25}}},
                     {{1.5, "round 1"}});
    return std::vector<std::string>{fixed(-1234.5678, 2),
                                    general(0.000012345678, 4),
                                    general(1e22, 3),
                                    percent(0.8125),
                                    fixed(kNaN, 1),
                                    str("error text: ", 0.5, ' ', 1234567.25, ' ', 1e-9),
                                    progress_line({"ppo", "step", "", 0, 50, 200}, 20.5, 0),
                                    progress_line({"ppo", "step", "", 0, 5, 200}, 20.5, 0),
                                    report.html(),
                                    detail::Axis(0, 1e-6, 5, false, false).label(2e-7)};
  };
  const std::vector<std::string> in_c = texts();
  CHECK(in_c[0] == "-1234.57");
  CHECK(in_c[1] == "1.235e-05");
  CHECK(in_c[2] == "1e+22");
  CHECK(in_c[3] == "81.2 %");
  CHECK(in_c[4] == "nan");
  CHECK(in_c[5] == "error text: 0.5 1234567 1e-09");
  CHECK(in_c[6].find("2.4 step/s") != std::string::npos);
  CHECK(in_c[9] == "2.0e-07");
  const std::string before = std::setlocale(LC_ALL, nullptr);
  const Temporary locales;
  const auto comma = [&] {
    for (const char* name : {"de_DE.UTF-8", "de_DE", "fr_FR.UTF-8", "nl_NL.UTF-8", "cs_CZ.UTF-8"})
      if (std::setlocale(LC_ALL, name) != nullptr) return true;
    const std::string make =
        "localedef -i de_DE -f UTF-8 " + (locales / "de_DE.UTF-8") + " >/dev/null 2>&1";
    ::setenv("LOCPATH", (locales / "").c_str(), 1);
    const bool made =
        std::system(make.c_str()) == 0 && std::setlocale(LC_ALL, "de_DE.UTF-8") != nullptr;
    ::unsetenv("LOCPATH");
    return made;
  };
  if (!comma()) {
    MESSAGE("skipped: there is no locale with a decimal comma, nor localedef to make one");
    return;
  }
  char point[8];
  std::snprintf(point, sizeof point, "%.1f", 0.5);
  const std::vector<std::string> elsewhere = texts();
  std::setlocale(LC_ALL, before.c_str());
  CHECK(std::string(point) == "0,5");  // the locale does what it is here for
  CHECK(elsewhere == in_c);
}

TEST_CASE("report: everything that comes in is escaped") {
  const std::string evil = "<script>alert('x')</script>&\"";
  Report report(evil, evil);
  report.add_notice(evil);
  report.add_heading(evil);
  report.add_summary(evil, evil, evil);
  report.add_chart(evil, evil, evil, {{evil, {1, 2}, {3, 4}}, {"b", {1}, {2}}});
  report.add_samples({evil}, {{evil}});
  report.add_details(evil, evil);
  const std::string html = report.html();
  CHECK(html.find("<script>alert") == html.npos);
  CHECK(count_of(html, "&lt;script&gt;alert(&#39;x&#39;)") >= 12);
  CHECK(count_of(html, "<script") == 2);  // the chart's values and the page's own
  CHECK(count_of(html, "</script>") == 2);
}

TEST_CASE("report: one file, parts grouped in the order of the calls") {
  Report report("Run");
  report.add_notice("Rankings were made by the rule `warm`, not by people.");
  report.add_summary("win rate", "81 %", "of 96");
  report.add_summary("kl", "4.3");
  report.add_chart("Reward", "step", "reward", {{"r", {1, 2, 3}, {0.5, kNaN, 0.7}}});
  report.add_chart("Empty", "step", "reward", {{"r", {}, {}}});
  report.add_samples({"prompt", "after"}, {{"a", "b\nc"}});
  report.add_details("Configuration", "{\"seed\": 1}");
  const std::string html = report.html();
  for (const char* outside : {"http", "src=", "@import", "url("})
    CHECK(html.find(outside) == html.npos);
  CHECK(count_of(html, "<table class=\"summary\">") == 1);
  CHECK(count_of(html, "<div class=\"charts\">") == 1);
  CHECK(count_of(html, "<figure>") == 2);
  CHECK(count_of(html, "no values") == 1);
  CHECK(count_of(html, "<div") == count_of(html, "</div>"));
  CHECK(count_of(html, "<table") == count_of(html, "</table>"));
  CHECK(html.find("nan") == html.npos);
  CHECK(html.find("81 %") < html.find("<svg"));
  CHECK(html.find("<svg") < html.find("b\nc"));
  CHECK_THROWS_AS(report.add_chart("x", "x", "y", {{"r", {1}, {}}}), ShapeError);
  CHECK_THROWS_AS(report.add_samples({"a"}, {{"b", "c"}}), ShapeError);
}

TEST_CASE("report: marks are drawn inside the axis, with their names") {
  Report report("Run");
  report.add_text("a < b");
  report.add_chart("Reward", "step", "reward", {{"r", {0, 10, 20}, {0.5, 0.6, 0.7}}},
                   {{0, "round 1"}, {10, "round <2>"}, {30, "beyond"}});
  const std::string html = report.html();
  CHECK(html.find("<p>a &lt; b</p>") != html.npos);
  CHECK(count_of(html, "class=\"mark\"") == 2);
  CHECK(html.find("round 1</text>") != html.npos);
  CHECK(html.find("round &lt;2&gt;</text>") != html.npos);
  CHECK(html.find("beyond") == html.npos);
  // At 10 of 0 … 20 the mark stands in the middle of the plot area.
  CHECK(html.find("<line class=\"mark\" x1=\"238.0\" x2=\"238.0\"") != html.npos);
}

TEST_CASE("report: ticks are round and inside the axis") {
  const detail::Axis loose(-0.43, 1.38, 5, false, false);
  CHECK(loose.low == -0.5);
  CHECK(loose.high == 1.5);
  CHECK(loose.ticks().size() == 5);
  CHECK(loose.label(0.0) == "0.0");
  const detail::Axis steps(1, 60, 5, true, true);
  CHECK(steps.low == 1.0);
  CHECK(steps.ticks() == std::vector<double>{20, 40, 60});
  CHECK(steps.label(20) == "20");
  CHECK(detail::Axis(0, 2, 5, true, true).ticks() == std::vector<double>{0, 1, 2});
  CHECK(detail::Axis(0, 3e6, 5, false, false).label(1e6) == "1M");
  CHECK(detail::Axis(5, 5, 5, false, false).share(5) == doctest::Approx(0.5));
  const std::vector<MetricRow> rows = {{1, {{"kl", 1.0}}}, {2, {{"kl", kNaN}}}, {5, {{"kl", 3.0}}}};
  CHECK(metric_series("kl", rows, "kl").x == std::vector<double>{1, 5});
  CHECK(metric_series("kl", rows, "other").y.empty());
}

TEST_CASE("interrupt: the first signal asks, the second kills") {
  clear_interrupt();
  {
    const InterruptGuard guard(BlockingReads::Return);
    CHECK(!interrupted());
    std::raise(SIGTERM);
    CHECK(interrupted());
    CHECK(interrupt_signal() == SIGTERM);
  }
  CHECK(interrupted());  // the flag outlives the guard
  ask_to_stop();
  CHECK(!asked_to_stop());  // a signal has come, and stays
  clear_interrupt();
  ask_to_stop();
  CHECK(interrupted());
  CHECK(asked_to_stop());
  {
    const InterruptGuard guard;
    std::raise(SIGTERM);  // the first one: nothing is killed
    CHECK(interrupt_signal() == SIGTERM);
    CHECK(!asked_to_stop());
  }
  clear_interrupt();

  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(10);  // so that a handler which never kills fails the test and does not hang it
    const InterruptGuard guard(BlockingReads::Return);
    std::raise(SIGINT);
    std::raise(SIGINT);
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGINT);
}

TEST_CASE("interrupt: a waiting read goes on or ends, as asked") {
  for (const BlockingReads reads : {BlockingReads::Continue, BlockingReads::Return}) {
    clear_interrupt();
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const pid_t child = ::fork();
    if (child == 0) {  // waits for a byte; 7 if it came, 8 if a signal ended the waiting
      const int null = ::open("/dev/null", O_WRONLY);
      ::dup2(null, STDERR_FILENO);
      const InterruptGuard guard(reads);
      char byte = 0;
      ::alarm(20);
      const ssize_t n = ::read(ends[0], &byte, 1);
      ::_exit(n == 1 ? 7 : 8);
    }
    ::usleep(200000);
    ::kill(child, SIGINT);
    ::usleep(100000);
    REQUIRE(::write(ends[1], "x", 1) == 1);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == (reads == BlockingReads::Continue ? 7 : 8));
    ::close(ends[0]);
    ::close(ends[1]);
  }
}
