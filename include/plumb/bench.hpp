// A benchmark of your kernel in one line, over Google Benchmark, which the program links
// (libbenchmark-dev, -lbenchmark):
//
//     #include <plumb/bench.hpp>
//     using namespace plumb::bench;
//     PLUMB_BENCH(my_gelu, my_cases, my_oracle, my_flops, my_bytes)
//     PLUMB_BENCH_MAIN()
//
// At each case the kernel is held to its oracle (check.hpp) and then timed, with its arrays in the
// caches and without (/cold). Reported: GFLOP/s, GB/s, and the share of the bound: the time that
// the machine's measured limits (probe.hpp) allow for the least work, over the time taken; the
// limit that binds is named; instructions a cycle and cache misses where the system lets us count.
// A case that is wrong is not timed, and the program then ends with 1. docs/performance.md has the
// rest: --save, --compare, --roofline.
//
// A kernel that takes a `Cuda` before its arguments is the same line in a .cu file, which includes
// <plumb/cuda/bench.cuh>, too: its arrays lie on the device. On a GPU it is timed by events, with
// the datasheet's bound; in a program that is built for the emulator what it does is counted.
//
// Times are means; of one thread by its CPU time (the column CPU; of `cold`, whose calls are timed
// one by one, the column Time), of several by the wall clock (the column Time).
#pragma once

#include <plumb/core/version.hpp>

#if !__has_include(<benchmark/benchmark.h>)
#include "Plumb's bench.hpp needs Google Benchmark. HINT: apt-get install libbenchmark-dev"
#endif
#include <benchmark/benchmark.h>

#include <plumb/bench/count.hpp>
#include <plumb/bench/counters.hpp>
#include <plumb/bench/roofline.hpp>
#include <plumb/bench/session.hpp>
#include <plumb/bench/suite.hpp>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace plumb { inline namespace v0_1 { namespace bench {

/// What was timed in this program.
inline std::vector<Dot>& dots() {
  static std::vector<Dot> all;
  return all;
}

/// Reports of each case of `kernel` how many times as fast it is as the same case of `peer`, which
/// was added before it.
inline void beside(const std::string& kernel, const std::string& peer) { peers()[kernel] = peer; }

namespace detail {
/// Seconds of a warm call, of what was timed in this program.
inline std::map<std::string, double>& times() {
  static std::map<std::string, double> all;
  return all;
}
inline void report_peer(benchmark::State& state, const Entry& entry, double seconds) {
  times()[entry.full()] = seconds;
  const auto peer = peers().find(entry.kernel);
  if (peer == peers().end()) return;
  const auto theirs = times().find(peer->second + entry.full().substr(entry.kernel.size()));
  if (theirs != times().end()) state.counters["x" + peer->second] = theirs->second / seconds;
}
inline void report(benchmark::State& state, const Entry& entry, bool cold, double seconds) {
  const Work work = Holder::instance().hold(entry).work();
  const Bound bound = Holder::instance().hold(entry).bound(entry.threads, cold);
  if (work.flops > 0) state.counters["GFLOP/s"] = work.flops / seconds * 1e-9;
  state.counters["GB/s"] = work.bytes() / seconds * 1e-9;
  if (bound.seconds > 0) state.counters["%bound"] = 100 * bound.seconds / seconds;
  for (const auto& [what, value] : Holder::instance().hold(entry).more())
    state.counters[what] = value;
  state.SetLabel(bound.name);
  if (cold) return;
  report_peer(state, entry, seconds);
  if (entry.side) return;  // the roofline is the host's
  // Google Benchmark comes here several times, the last time for longest.
  const Dot dot{entry.name,   entry.threads, work.flops + 2 * work.extra,
                work.bytes(), seconds,       bound.seconds};
  const auto known = std::find_if(dots().begin(), dots().end(), [&](const Dot& each) {
    return each.name == dot.name && each.threads == dot.threads;
  });
  if (known == dots().end())
    dots().push_back(dot);
  else
    *known = dot;
}

inline bool skipped(benchmark::State& state) {
  const Refusal& refusal = Holder::instance().refusal();
  if (refusal) state.SkipWithError(refusal.what.c_str());
  return static_cast<bool>(refusal);
}
inline void end_with_check(benchmark::State& state, const Entry& entry) {
  Holder& holder = Holder::instance();
  if (const Refusal refusal = holder.hold(entry).last_call(holder.device())) {
    holder.refuse(entry, refusal);
    skipped(state);
  }
}
}  // namespace detail

/// Times a case, its arrays in whatever cache they fit.
inline void time_warm(benchmark::State& state, const Entry& entry) {
  Holder& holder = Holder::instance();
  Subject& subject = holder.hold(entry);
  if (detail::skipped(state)) return;
  const Cpu device = holder.device();
  const Counters counters;
  const double start = holder.now();
  for ([[maybe_unused]] auto _ : state) {
    subject.run(device);
    benchmark::ClobberMemory();
  }
  const double seconds = holder.now() - start;
  const Counts counts = counters.read();
  const auto calls = static_cast<double>(state.iterations());
  detail::report(state, entry, false, seconds / calls);
  for (const auto& [what, value] : counts.figures(calls)) state.counters[what] = value;
  detail::end_with_check(state, entry);
}
/// Times it with its arrays in no cache.
inline void time_cold(benchmark::State& state, const Entry& entry) {
  Holder& holder = Holder::instance();
  Subject& subject = holder.hold(entry);
  if (detail::skipped(state)) return;
  const Cpu device = holder.device();
  double all = 0;
  for ([[maybe_unused]] auto _ : state) {
    subject.flush();
    const double start = holder.now();
    subject.run(device);
    benchmark::ClobberMemory();
    const double seconds = holder.now() - start;
    state.SetIterationTime(seconds);
    all += seconds;
  }
  detail::report(state, entry, true, all / static_cast<double>(state.iterations()));
}

/// Times it on a device that is not the host, by the device's clock: ten calls at a time, or one
/// with nothing in its caches.
inline void time_on_device(benchmark::State& state, const Entry& entry, bool cold) {
  Holder& holder = Holder::instance();
  Subject& subject = holder.hold(entry);
  if (detail::skipped(state)) return;
  const Index calls = cold ? 1 : 10;
  double all = 0;
  for ([[maybe_unused]] auto _ : state) {
    if (cold) subject.flush();
    const double seconds = subject.device_seconds(calls) / static_cast<double>(calls);
    state.SetIterationTime(seconds);
    all += seconds;
  }
  detail::report(state, entry, cold, all / static_cast<double>(state.iterations()));
  if (!cold) detail::end_with_check(state, entry);
}

namespace detail {
/// The limits, into the head of the printed and of the JSON output.
inline void add_limits(int threads) {
  const auto say = [](double value, const char* unit) {
    char text[32];
    std::snprintf(text, sizeof text, "%.0f%s", value, unit);
    return value == 0 ? std::string("INVALID") : std::string(text);
  };
  std::string limits = "fma " + say(fma_peak(threads), " GFLOP/s");
  if (dot_peak(threads) > 0) limits += ", vdpbf16ps " + say(dot_peak(threads), " GFLOP/s");
  limits += "; read/update GB/s";
  for (const std::size_t level : {1U, 2U, 3U, 4U}) {
    const double bytes = cache_level_bytes(level, threads);
    limits += std::string(", ") + level_of(bytes, threads) + " " +
              say(bandwidth(bytes, Access::Read, threads), "") + "/" +
              say(bandwidth(bytes, Access::Update, threads), "");
  }
  benchmark::AddCustomContext(str("limits, threads:", threads), limits);
}
inline void add_counters() {
  benchmark::AddCustomContext("hardware counters", Counters().describe());
}

inline void register_on_device(const Entry& entry) {
  for (const bool cold : {false, true})
    benchmark::RegisterBenchmark(
        (entry.full() + (cold ? "/cold" : "")).c_str(),
        [&entry, cold](benchmark::State& state) { time_on_device(state, entry, cold); })
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond);
}
inline void register_entries() {
  for (const Entry& entry : entries()) {
    if (entry.side) {
      if (!entry.side->counts && entry.side->missing().empty()) register_on_device(entry);
      continue;
    }
    benchmark::RegisterBenchmark(entry.full().c_str(),
                                 [&entry](benchmark::State& state) { time_warm(state, entry); })
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
    if (entry.flushes)
      benchmark::RegisterBenchmark((entry.full() + "/cold").c_str(),
                                   [&entry](benchmark::State& state) { time_cold(state, entry); })
          ->UseManualTime()
          ->Unit(benchmark::kMicrosecond);
  }
}

/// The dots of this program, and before them those that others left in PLUMB_BENCH_DOTS.
inline void draw_roofline(const std::string& path) {
  std::vector<Dot> all;
  if (const char* shared = std::getenv("PLUMB_BENCH_DOTS")) {
    std::ofstream more(shared, std::ios::app);
    more.precision(9);
    for (const Dot& d : dots())
      more << d.name << '\t' << d.threads << ' ' << d.flops << ' ' << d.bytes << ' ' << d.seconds
           << ' ' << d.bound_seconds << '\n';
    more.close();
    std::ifstream file(shared);
    for (std::string line; std::getline(file, line);) {
      Dot d{line.substr(0, line.find('\t'))};
      std::istringstream(line.substr(line.find('\t') + 1)) >> d.threads >> d.flops >> d.bytes >>
          d.seconds >> d.bound_seconds;
      all.push_back(d);
    }
  } else {
    all = dots();
  }
  std::vector<Roofs> roofs;
  for (const int threads : thread_counts()) roofs.push_back(measured_roofs(threads));
  std::ofstream file(path);
  file << roofline_svg(machine(), roofs, all);
  if (!file.flush()) fail<IoError>(str("[bench] cannot write ", path));
}

/// Of a program whose device is not there: what test runners take for skipped.
inline constexpr int kNothingMeasured = 77;

/// What the program itself is asked for; the rest of the arguments is Google Benchmark's.
struct Asked {
  bool serve = false, list = false;
  std::string save, roofline, a, b;
  SessionSettings session;
};
inline Asked take_arguments(int& argc, char** argv) {
  Asked asked;
  int kept = 1;
  const auto value = [&](int& i, const char* flag) {
    if (i + 1 >= argc) fail(str("[bench] ", flag, " needs a value"));
    return std::string(argv[++i]);
  };
  for (int i = 1; i < argc; ++i) {
    const std::string_view flag = argv[i];
    if (flag == "--serve") {
      asked.serve = true;
    } else if (flag == "--save") {
      asked.save = value(i, "--save");
    } else if (flag == "--roofline") {
      asked.roofline = value(i, "--roofline");
    } else if (flag == "--compare") {
      asked.a = value(i, "--compare A B");
      asked.b = value(i, "--compare A B");
    } else if (flag == "--rounds") {
      asked.session.rounds = std::atoi(value(i, "--rounds").c_str());
    } else {
      constexpr std::string_view kFilter = "--benchmark_filter=";
      if (flag.starts_with(kFilter)) asked.session.filter = flag.substr(kFilter.size());
      asked.list = asked.list || flag.starts_with("--benchmark_list_tests");
      argv[kept++] = argv[i];
    }
  }
  argc = kept;
  return asked;
}
template <class Is>
bool any(Is is) {
  return std::any_of(entries().begin(), entries().end(), is);
}
/// What the cases' devices are, into the head of what is timed; whether one of them is not there,
/// which is said.
inline bool say_sides(bool list) {
  bool some_missing = false;
  for (const Side* side : sides()) {
    const std::string why = side->missing();
    if (!why.empty()) {
      some_missing = true;
      std::printf("%s: nothing was measured\n", why.c_str());
    } else if (!side->counts && !list) {
      benchmark::AddCustomContext(side->name, side->describe());
    }
  }
  return some_missing;
}
inline void count_or_list(const Asked& asked) {
  const auto wanted = [&](const std::string& each) { return chosen(each, asked.session); };
  if (!asked.list) return count_entries(wanted);
  for (const Entry& entry : entries())
    if (entry.side && entry.side->counts && wanted(entry.full()))
      std::printf("%s\n", entry.full().c_str());
}
inline int run_asked(const Asked& asked, int argc, char** argv,
                     benchmark::BenchmarkReporter* reporter) {
  if (asked.serve) return serve();
  if (!asked.a.empty()) return compare(asked.a, asked.b, asked.session), 0;
  if (!asked.save.empty()) return save(argv[0], asked.save, asked.session), 0;
  register_entries();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  const bool some_on_host = any([](const Entry& entry) { return entry.side == nullptr; });
  const bool some_timed = any([](const Entry& entry) {
    return !entry.side || (!entry.side->counts && entry.side->missing().empty());
  });
  if (some_on_host) benchmark::AddCustomContext("instruction set", name(current_isa()));
  if (some_on_host && !asked.list) {
    for (const int threads : thread_counts()) add_limits(threads);
    add_counters();
  }
  const bool some_missing = say_sides(asked.list);
  if (some_timed) benchmark::RunSpecifiedBenchmarks(reporter);
  benchmark::Shutdown();
  count_or_list(asked);
  if (!asked.roofline.empty()) draw_roofline(asked.roofline);
  const bool nothing = some_missing && !some_timed;
  return Holder::instance().any_refused() ? 1 : nothing ? kNothingMeasured : 0;
}
}  // namespace detail

/// The whole of main: 1 if a case was refused, 77 if there was no device to run any on. Printed by
/// `reporter`, or by the one that the arguments name.
inline int run(int argc, char** argv, benchmark::BenchmarkReporter* reporter = nullptr) try {
  for (const auto& add : pending()) add();
  pending().clear();
  const detail::Asked asked = detail::take_arguments(argc, argv);
  return detail::run_asked(asked, argc, argv, reporter);
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}

}}}  // namespace plumb::v0_1::bench

#define PLUMB_BENCH_JOIN_(a, b) a##b
#define PLUMB_BENCH_JOIN(a, b) PLUMB_BENCH_JOIN_(a, b)

/// PLUMB_BENCH(kernel, cases, oracle, flops, bytes), at namespace scope: flops(key) and bytes(key)
/// of a case, or every_array_once for bytes. PLUMB_BENCH(kernel, cases, oracle, work): work(key) is
/// a Work.
#define PLUMB_BENCH(kernel, ...)                                                   \
  [[maybe_unused]] static const bool PLUMB_BENCH_JOIN(plumb_bench_, __COUNTER__) = \
      plumb::bench::later([] { plumb::bench::add(#kernel, kernel, __VA_ARGS__); });

#define PLUMB_BENCH_MAIN() \
  int main(int argc, char** argv) { return plumb::bench::run(argc, argv); }
