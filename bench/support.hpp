// What the benchmarks share besides their inputs (arrays.hpp): the comparison with the oracle, and
// add(), which registers a table of cases (tests/cases/) with Google Benchmark.
//
// A benchmark of an op is a struct: `Case`; a constructor that makes a case's inputs; `work()`,
// what a call must do at the least; `error(device)`, one call held against the double-precision
// oracle, 1 being the largest error allowed; and `run(device)`, the call that is timed. A case that
// is wrong is not timed, and the program then ends with 1.
//
// Reported: GFLOP/s and GB/s of the least work, and the share of the bound: the time that the
// machine's limits (probe.hpp) allow for that work, over the time taken. The limit that binds is
// named. They are means; of one thread by its CPU time (the column CPU), of several by the wall
// clock (the column Time).
#pragma once

#include <benchmark/benchmark.h>

#include <plumb/core/memory.hpp>
#include <plumb/core/random.hpp>
#include <plumb/cpu/kernels.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "arrays.hpp"
#include "cases/work.hpp"
#include "probe.hpp"

namespace bench {

using cases::Work;
using plumb::Cpu;

/// n tokens of a vocabulary of v, the same every time.
inline std::vector<std::int32_t> random_ids(Index n, Index v) {
  plumb::Rng rng(7);
  std::vector<std::int32_t> ids;
  for (Index i = 0; i < n; ++i)
    ids.push_back(static_cast<std::int32_t>(rng.below(static_cast<std::uint32_t>(v))));
  return ids;
}

/// The largest error seen, 1 being the largest allowed; infinite after a NaN.
class Worst {
 public:
  void see(double x, double exact, double allowed) {
    const double error = std::abs(x - exact) / allowed;
    value_ = error <= value_ ? value_ : std::isnan(error) ? INFINITY : error;
  }
  double value() const { return value_; }

 private:
  double value_ = 0;
};

/// Up to `count` places of [0, n), the first and the last among them.
inline std::vector<Index> places(Index n, Index count) {
  std::vector<Index> chosen;
  for (Index i = 0; i < std::min(n, count); ++i)
    chosen.push_back(n <= count ? i : i * (n - 1) / (count - 1));
  return chosen;
}

/// 1 and all threads of the default pool (PLUMB_NUM_THREADS).
inline std::vector<int> thread_counts() {
  const int all = plumb::default_pool().threads();
  return all == 1 ? std::vector{1} : std::vector{1, all};
}

/// The limit that binds, and the least seconds that it allows; 0 when a reading is INVALID.
struct Bound {
  std::string name;
  double seconds;
};

inline Bound bound_of(const Work& work, int threads) {
  const bool by_dot = work.bf16 && dot_peak(threads) > fma_peak(threads);
  const double fma = by_dot ? dot_peak(threads) : fma_peak(threads);
  // A kernel that writes much of its traffic is held to what such a mix reaches: more than reads.
  const double bytes = work.read + work.written;
  const Access access = 4 * work.written >= bytes ? Access::Update : Access::Read;
  const double stream = bandwidth(work.footprint, access, threads);
  if (fma == 0 || stream == 0) return {"INVALID", 0};
  const double compute = (work.flops + 2 * work.extra) / fma * 1e-9, move = bytes / stream * 1e-9;
  char name[64];
  if (compute >= move)
    std::snprintf(name, sizeof name, "%s (%.0f GFLOP/s)", by_dot ? "vdpbf16ps" : "fma", fma);
  else
    std::snprintf(name, sizeof name, "%s %s (%.0f GB/s)", level_of(work.footprint, threads),
                  access == Access::Read ? "read" : "update", stream);
  return {name, std::max(compute, move)};
}

/// The one case whose inputs are held: Google Benchmark calls a benchmark several times.
struct Held {
  std::string name;
  int threads = 0;
  double error = 0;
  std::shared_ptr<void> bench;
  bool any_wrong = false;

  static Held& instance() {
    static Held held;
    return held;
  }
};

/// The bench of this case, made if another is held, and compared with the oracle at this number of
/// threads.
template <class Bench>
Bench& prepare(const std::string& name, const typename Bench::Case& c, Cpu device, int threads) {
  Held& held = Held::instance();
  if (held.name != name) {
    held.bench.reset();
    plumb::release_cached_memory();
    held.bench = std::make_shared<Bench>(c);
    held.name = name;
    held.threads = 0;
  }
  auto& bench = *static_cast<Bench*>(held.bench.get());
  if (held.threads != threads) {
    held.error = bench.error(device);
    held.threads = threads;
  }
  return bench;
}

template <class Bench>
void time(benchmark::State& state, const std::string& name, const typename Bench::Case& c,
          int threads) {
  Pool pool(threads);
  const Cpu device{&pool};
  Bench& bench = prepare<Bench>(name, c, device, threads);
  if (const double error = Held::instance().error; !(error <= 1)) {
    Held::instance().any_wrong = true;
    const std::string message = plumb::str("WRONG: error ", error, " times the tolerance");
    return state.SkipWithError(message.c_str());
  }
  const Work work = bench.work();
  const Bound bound = bound_of(work, threads);
  const double start = seconds_now(threads);
  for ([[maybe_unused]] auto _ : state) {
    bench.run(device);
    benchmark::ClobberMemory();
  }
  const double seconds = (seconds_now(threads) - start) / static_cast<double>(state.iterations());
  if (work.flops > 0) state.counters["GFLOP/s"] = work.flops / seconds * 1e-9;
  state.counters["GB/s"] = (work.read + work.written) / seconds * 1e-9;
  if (bound.seconds > 0) state.counters["%bound"] = 100 * bound.seconds / seconds;
  state.SetLabel(bound.name);
}

/// Registers `op`/case/threads:t for each case of a table and number of threads.
template <class Bench>
void add(const std::string& op, std::span<const typename Bench::Case> table) {
  for (const auto& c : table)
    for (const int threads : thread_counts()) {
      const std::string name_of_case = plumb::str(op, "/", name(c));
      const std::string full = plumb::str(name_of_case, "/threads:", threads);
      benchmark::RegisterBenchmark(
          full.c_str(),
          [=, &c](benchmark::State& state) { time<Bench>(state, name_of_case, c, threads); })
          ->UseRealTime()
          ->Unit(benchmark::kMicrosecond);
    }
}

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
    const double bytes = level < 3    ? cache_bytes()[level] / 2 * threads
                         : level == 3 ? cache_bytes()[level] / 2
                                      : kMemoryBytes;
    limits += std::string(", ") + level_of(bytes, threads) + " " +
              say(bandwidth(bytes, Access::Read, threads), "") + "/" +
              say(bandwidth(bytes, Access::Update, threads), "");
  }
  benchmark::AddCustomContext(plumb::str("limits, threads:", threads), limits);
}

/// The end of main, after the calls of add: 1 if a case was wrong. Printed by `reporter`, or by the
/// one that the arguments name.
inline int run(int argc, char** argv, benchmark::BenchmarkReporter* reporter = nullptr) {
  const bool lists = std::any_of(argv, argv + argc, [](const char* argument) {
    return std::string(argument).starts_with("--benchmark_list_tests");
  });
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::AddCustomContext("instruction set", plumb::name(plumb::current_isa()));
  if (!lists)
    for (const int threads : thread_counts()) add_limits(threads);
  benchmark::RunSpecifiedBenchmarks(reporter);
  benchmark::Shutdown();
  return Held::instance().any_wrong ? 1 : 0;
}

}  // namespace bench
