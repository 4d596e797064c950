// The processor's own counters over a stretch of this process: cycles, instructions, and misses of
// the last cache, by perf_event_open of Linux. A distribution's Google Benchmark is often built
// without libpfm, by which it would count the same. Virtual machines and containers refuse as a
// rule; why is said once. Where more is counted than the processor has counters, each event has its
// turn, and what is read is scaled to the whole time.
#pragma once

#include <plumb/core/check.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#if defined(__linux__) && __has_include(<linux/perf_event.h>)
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#define PLUMB_BENCH_COUNTS 1
#endif

namespace plumb { inline namespace v0_1 { namespace bench {

/// What a counter's file holds (PERF_FORMAT_TOTAL_TIME_ENABLED and …_RUNNING).
struct CounterReading {
  std::uint64_t value = 0;
  std::uint64_t enabled = 0, running = 0;  ///< nanoseconds: since it began, and of those counted

  /// What it had been, were it counted all the time; NaN if it never had its turn.
  double scaled() const {
    return running == 0 ? NAN
                        : static_cast<double>(value) * static_cast<double>(enabled) /
                              static_cast<double>(running);
  }
  double counted() const {
    return enabled == 0 ? 0 : static_cast<double>(running) / static_cast<double>(enabled);
  }
};

enum class Event { Cycles, Instructions, Misses };

struct Counts {
  double cycles = 0, instructions = 0, misses = 0;
  double counted = 1;  ///< of the time, by the event that had the fewest turns

  /// By the names under which they are printed, of so many calls; none that is not known.
  std::vector<std::pair<std::string, double>> figures(double calls) const {
    std::vector<std::pair<std::string, double>> all;
    if (cycles > 0 && std::isfinite(instructions))
      all.emplace_back("ins/cycle", instructions / cycles);
    if (std::isfinite(misses)) all.emplace_back("misses", misses / calls);
    if (!all.empty() && counted < 0.99) all.emplace_back("%counted", 100 * counted);
    return all;
  }
};

/// The system's calls, in whose place a test puts its own.
struct CounterSystem {
  std::function<int(Event)> open;  ///< a file, or less than 0 and errno
  std::function<bool(int file, CounterReading& into)> read;
  std::function<void(int file)> close;

  static CounterSystem here() {
#ifdef PLUMB_BENCH_COUNTS
    return {[](Event which) {
              constexpr std::uint64_t kWhat[] = {
                  PERF_COUNT_HW_CPU_CYCLES, PERF_COUNT_HW_INSTRUCTIONS, PERF_COUNT_HW_CACHE_MISSES};
              perf_event_attr event{};
              event.type = PERF_TYPE_HARDWARE;
              event.size = sizeof event;
              event.config = kWhat[static_cast<int>(which)];
              event.read_format = PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING;
              event.inherit = 1;  // which a group of events may not have
              event.exclude_kernel = 1;
              event.exclude_hv = 1;
              return static_cast<int>(syscall(SYS_perf_event_open, &event, 0, -1, -1, 0));
            },
            [](int file, CounterReading& into) {
              return ::read(file, &into, sizeof into) == static_cast<ssize_t>(sizeof into);
            },
            [](int file) { ::close(file); }};
#else
    return {[](Event) {
              errno = ENOSYS;
              return -1;
            },
            [](int, CounterReading&) { return false; }, [](int) {}};
#endif
  }
};

/// Threads that begin later are counted with the one that made this.
class Counters {
 public:
  explicit Counters(CounterSystem system = CounterSystem::here()) : system_(std::move(system)) {
    for (const Event event : {Event::Cycles, Event::Instructions, Event::Misses}) {
      const int file = system_.open(event);
      if (file < 0) {
        why_ = std::strerror(errno);
        return;
      }
      files_.push_back(file);
    }
  }
  ~Counters() {
    for (const int file : files_) system_.close(file);
  }
  Counters(const Counters&) = delete;
  Counters& operator=(const Counters&) = delete;

  bool there() const { return why_.empty(); }
  /// What is counted, or why nothing is: for the head of what is printed.
  std::string describe() const {
    return there() ? "instructions a cycle, misses of the last cache"
                   : "none, the system refuses: " + why_;
  }

  /// Since this object was made; NaN for what could not be read.
  Counts read() const {
    std::array<double, 3> values{NAN, NAN, NAN};
    double counted = 1;
    for (std::size_t i = 0; there() && i < files_.size(); ++i) {
      CounterReading reading;
      if (!system_.read(files_[i], reading)) continue;
      values[i] = reading.scaled();
      counted = std::min(counted, reading.counted());
    }
    return {values[0], values[1], values[2], counted};
  }

 private:
  CounterSystem system_;
  std::vector<int> files_;
  std::string why_;
};

}}}  // namespace plumb::v0_1::bench
#undef PLUMB_BENCH_COUNTS
