// Two benchmark programs side by side, and what one leaves in a file for another day.
//
// A program started with --serve holds one case at a time and times it when it is asked to. A
// comparison starts a process of A and one of B, asks them in turn some two hundred times, and
// takes the median of the ratios in a turn; then it starts another two, since where memory comes
// to lie is drawn anew for each (verdict.hpp). On a shared machine the fastest times were found to
// say less: of one program twice, those of 200 differed by 12 %, these medians by 1.5 %.
#pragma once

#include <plumb/bench/suite.hpp>
#include <plumb/bench/verdict.hpp>
#include <plumb/core/random.hpp>

#include <csignal>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <map>
#include <regex>
#include <sstream>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace plumb { inline namespace v0_1 { namespace bench {

/// What times are of: those of two machines are never compared.
inline std::string machine() {
  std::string model = "unknown processor";
  std::ifstream cpus("/proc/cpuinfo");
  for (std::string line; std::getline(cpus, line);)
    if (line.starts_with("model name")) {
      model = line.substr(line.find(':') + 2);
      break;
    }
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  std::string all = str(model, ", ", std::thread::hardware_concurrency(), " CPUs, ",
                        name(current_isa()), ", host ", host);
  for (const Side* side : sides())
    if (side->missing().empty()) all += ", " + side->describe();
  return all;
}

// --- One side: a program that answers -----------------------------------------------------------

namespace detail {
inline constexpr double kSampleSeconds = 1e-4;  // or a call, if that takes longer
inline constexpr int kTurns = 200, kLeastTurns = 9;
inline constexpr double kTurnSeconds = 0.3;  // of which a process then takes no more

/// Seconds of a call, over as many as fill a sample.
inline double sample(const Entry& entry, Index& calls) {
  Holder& holder = Holder::instance();
  Subject& subject = holder.hold(entry);
  const auto time = [&] {
    if (entry.side) return subject.device_seconds(calls);
    const double start = holder.now();
    for (Index i = 0; i < calls; ++i) subject.run(holder.device());
    return holder.now() - start;
  };
  if (calls == 0) {
    calls = 1;
    for (double seconds = time(); seconds < kSampleSeconds; seconds = time())
      calls =
          seconds < kSampleSeconds / 20
              ? calls * 10
              : static_cast<Index>(1.2 * kSampleSeconds / seconds * static_cast<double>(calls)) + 1;
  }
  return time() / static_cast<double>(calls);
}
}  // namespace detail

/// Answers on the standard output, a line each, until the standard input ends: `list`; `hold NAME`
/// (checked first) or `trust NAME`; `time`, of the case that is held; `end`, its last check.
inline int serve() {
  const Entry* held = nullptr;
  Index calls = 0;
  Holder& holder = Holder::instance();
  const auto say = [](const std::string& line) { std::cout << line << std::endl; };
  for (std::string line; std::getline(std::cin, line);) try {
      const std::string word = line.substr(0, line.find(' '));
      if (word == "list") {
        for (const Entry& entry : entries())
          if (!entry.side || !entry.side->counts) say(entry.full());
        say("");
      } else if (word == "hold" || word == "trust") {
        const std::string wanted = line.substr(word.size() + 1);
        held = nullptr;
        calls = 0;
        for (const Entry& entry : entries())
          if (entry.full() == wanted) held = &entry;
        if (held) holder.hold(*held, word == "hold");
        say(!held              ? "refused: no such case"
            : holder.refusal() ? "refused: " + holder.refusal().what
                               : "ok");
      } else if (word == "time" && held) {
        char text[32];
        std::snprintf(text, sizeof text, "%.9e", detail::sample(*held, calls));
        say(text);
      } else if (word == "end" && held) {
        const Refusal refusal = holder.hold(*held).last_call(holder.device());
        say(refusal ? "refused: " + refusal.what : "ok");
      } else {
        say("refused: not understood");
      }
    } catch (const std::exception& error) {
      say(str("refused: ", error.what()));
    }
  return 0;
}

/// A program that serves.
class Server {
 public:
  explicit Server(const std::string& program) : program_(program) {
    int to[2], from[2];
    if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0) fail<IoError>("[bench] no pipe");
    std::fflush(stdout);
    std::signal(SIGPIPE, SIG_IGN);  // one that ended is noticed when it gives no answer
    process_ = fork();
    if (process_ < 0) fail<IoError>("[bench] cannot start a process");
    if (process_ == 0) {
      dup2(to[0], 0);
      dup2(from[1], 1);
      execl(program.c_str(), program.c_str(), "--serve", static_cast<char*>(nullptr));
      _exit(127);
    }
    close(to[0]);
    close(from[1]);
    in_ = fdopen(to[1], "w");
    out_ = fdopen(from[0], "r");
  }
  ~Server() {
    std::fclose(in_);
    std::fclose(out_);
    waitpid(process_, nullptr, 0);
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  void say(const std::string& line) {
    std::fputs((line + '\n').c_str(), in_);
    std::fflush(in_);
  }
  std::string hear() {
    std::string line;
    for (int c; (c = std::fgetc(out_)) != '\n';) {
      if (c == EOF)
        fail<IoError>(str("[bench] ", program_, " ended, or is no benchmark program of Plumb"));
      line += static_cast<char>(c);
    }
    return line;
  }
  std::string ask(const std::string& line) {
    say(line);
    return hear();
  }
  std::vector<std::string> list() {
    say("list");
    std::vector<std::string> names;
    for (std::string line; !(line = hear()).empty();) names.push_back(line);
    return names;
  }

 private:
  std::string program_;
  pid_t process_ = 0;
  std::FILE *in_ = nullptr, *out_ = nullptr;
};

// --- Files of times -----------------------------------------------------------------------------

/// Times of cases, one a process, and the machine they are of.
struct Saved {
  std::string machine;
  std::map<std::string, std::vector<double>> times;
  std::vector<std::string> order;
};
inline constexpr const char* kSavedHead = "plumb-bench 1";

/// Several files written one after another into one are one, of one machine.
inline Saved read_saved(const std::string& path) {
  std::ifstream file(path);
  if (!file) fail<IoError>(str("[bench] cannot read ", path));
  Saved saved;
  std::string line;
  if (!std::getline(file, line) || line != kSavedHead)
    fail<DataError>(str("[bench] ", path, " was not written by --save"));
  while (std::getline(file, line)) {
    const std::size_t tab = line.find('\t');
    const std::string word = line.substr(0, tab);
    if (line == kSavedHead) continue;
    if (word == "machine") {
      const std::string of = line.substr(tab + 1);
      if (!saved.machine.empty() && saved.machine != of)
        fail<DataError>(str("[bench] ", path, " holds times of two machines"));
      saved.machine = of;
      continue;
    }
    std::istringstream numbers(tab == std::string::npos ? "" : line.substr(tab + 1));
    std::vector<double>& times = saved.times[word];
    if (times.empty()) saved.order.push_back(word);
    for (double seconds; numbers >> seconds;) times.push_back(seconds);
    if (times.empty()) fail<DataError>(str("[bench] ", path, ": '", word, "' has no times"));
  }
  return saved;
}
inline void write_saved(const std::string& path, const Saved& saved) {
  std::ofstream file(path);
  file << kSavedHead << "\nmachine\t" << saved.machine << '\n';
  for (const std::string& each : saved.order) {
    file << each;
    char text[32];
    char before = '\t';
    for (const double seconds : saved.times.at(each)) {
      std::snprintf(text, sizeof text, "%.9e", seconds);
      file << before << text;
      before = ' ';
    }
    file << '\n';
  }
  if (!file.flush()) fail<IoError>(str("[bench] cannot write ", path));
}

// --- Both sides ---------------------------------------------------------------------------------

struct SessionSettings {
  int rounds = 30;           ///< processes of each side, for a case
  std::string filter = ".";  ///< which cases: an expression that their names contain
};

namespace detail {
inline bool chosen(const std::string& name, const SessionSettings& settings) {
  return std::regex_search(name, std::regex(settings.filter));
}
/// What the server says to `line`, unless it refuses.
inline std::string told(Server& server, const std::string& line) {
  std::string answer = server.ask(line);
  if (answer.starts_with("refused: ")) fail(answer.substr(9));
  return answer;
}
/// Times of each server, in turn, the first of each turn drawn: a neighbour that comes or goes then
/// meets both, and the ratio in one turn says more than either's fastest time.
template <std::size_t N>
std::array<std::vector<double>, N> times_in_turn(std::array<Server*, N> servers, Rng& rng) {
  std::array<std::vector<double>, N> times;
  const double start = clock_seconds();
  for (int i = 0; i < kTurns && (i < kLeastTurns || clock_seconds() - start < kTurnSeconds); ++i) {
    const std::size_t first = rng.below(static_cast<std::uint32_t>(N));
    for (std::size_t j = 0; j < N; ++j) {
      const std::size_t at = (first + j) % N;
      times[at].push_back(std::stod(told(*servers[at], "time")));
    }
  }
  return times;
}
inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
}

inline std::string duration(double seconds) {
  char text[32];
  const bool slow = seconds >= 1e-3, fast = seconds < 1e-6;
  std::snprintf(text, sizeof text, "%.4g %s",
                seconds * (slow   ? 1e3
                           : fast ? 1e9
                                  : 1e6),
                slow   ? "ms"
                : fast ? "ns"
                       : "µs");
  return text;
}
inline void print_comparison(const std::string& name, const std::vector<double>& a,
                             const std::vector<double>& b, const Comparison& c) {
  std::printf("%-44s %10s %10s  %.3f (%.3f … %.3f)  %s\n", name.c_str(),
              duration(median(a)).c_str(), duration(median(b)).c_str(), c.ratio, c.interval.low,
              c.interval.high, bench::name(c.verdict));
  std::fflush(stdout);
}
inline void print_head(const char* how) {
  std::printf(
      "times of A and B, %s; B / A with its 99.9 %% interval; SAME: all of it within 2 %%\n", how);
}

inline void compare_programs(const std::string& a, const std::string& b,
                             const SessionSettings& settings) {
  std::vector<std::string> both, known = Server(b).list();
  for (const std::string& each : Server(a).list())
    if (chosen(each, settings) && std::find(known.begin(), known.end(), each) != known.end())
      both.push_back(each);
  if (both.empty()) fail("[bench] the two have no such case in common");
  print_head("in turn");
  Rng rng(std::random_device{}());
  for (const std::string& each : both) {
    std::vector<double> times_a, times_b, ratios;
    for (int round = 0; round < settings.rounds; ++round) {
      const bool swapped = rng.below(2) == 1;  // which is started first, too
      Server one(swapped ? b : a), two(swapped ? a : b);
      for (Server* server : {&one, &two}) told(*server, (round == 0 ? "hold " : "trust ") + each);
      const auto times = times_in_turn<2>({&one, &two}, rng);
      const std::vector<double>&of_first = times[swapped ? 1 : 0],
            &of_second = times[swapped ? 0 : 1];
      std::vector<double> in_turn;
      for (std::size_t i = 0; i < of_first.size(); ++i)
        in_turn.push_back(of_second[i] / of_first[i]);
      ratios.push_back(median(in_turn));
      times_a.push_back(median(of_first));
      times_b.push_back(median(of_second));
    }
    print_comparison(each, times_a, times_b, compare_in_turn(ratios));
  }
}

inline void compare_files(const std::string& a, const std::string& b,
                          const SessionSettings& settings) {
  const Saved one = read_saved(a), two = read_saved(b);
  print_head("each taken at its own time");
  const bool alike = one.machine == two.machine;
  if (!alike)
    std::printf(
        "UNSURE, all of it: A is of %s; B of %s. Figures of two machines say nothing of "
        "two programs.\n",
        one.machine.c_str(), two.machine.c_str());
  for (const std::string& each : one.order)
    if (chosen(each, settings) && two.times.contains(each)) {
      Comparison c = compare_apart(one.times.at(each), two.times.at(each));
      if (!alike) c = {};
      print_comparison(each, one.times.at(each), two.times.at(each), c);
    }
}
inline bool is_saved(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  return std::getline(file, line) && line == kSavedHead;
}
}  // namespace detail

/// Two files of --save, or two programs.
inline void compare(const std::string& a, const std::string& b, const SessionSettings& settings) {
  if (detail::is_saved(a) != detail::is_saved(b))
    fail("[bench] --compare takes two programs, or two files of --save; got one of each");
  if (detail::is_saved(a))
    detail::compare_files(a, b, settings);
  else
    detail::compare_programs(a, b, settings);
}

/// Times of this program's cases, a process each round.
inline void save(const std::string& program, const std::string& path,
                 const SessionSettings& settings) {
  Saved saved;
  saved.machine = machine();
  Rng rng(std::random_device{}());
  for (const std::string& each : Server(program).list())
    if (detail::chosen(each, settings)) saved.order.push_back(each);
  for (int round = 0; round < settings.rounds; ++round)
    for (const std::string& each : saved.order) {
      Server server(program);
      detail::told(server, (round == 0 ? "hold " : "trust ") + each);
      saved.times[each].push_back(detail::median(detail::times_in_turn<1>({&server}, rng)[0]));
    }
  write_saved(path, saved);
}

}}}  // namespace plumb::v0_1::bench
