// The processor's own counters over a stretch of this process: cycles, instructions, and misses of
// the last cache, by perf_event_open of Linux. A distribution's Google Benchmark is often built
// without libpfm, by which it would count the same. Virtual machines and containers refuse as a
// rule; why is said once.
#pragma once

#include <plumb/core/check.hpp>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>

#if defined(__linux__) && __has_include(<linux/perf_event.h>)
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#define PLUMB_BENCH_COUNTS 1
#endif

namespace plumb { inline namespace v0_1 { namespace bench {

struct Counts {
  double cycles = 0, instructions = 0, misses = 0;
};

/// Threads that begin later are counted with the one that made this.
class Counters {
 public:
  Counters() {
#ifdef PLUMB_BENCH_COUNTS
    constexpr std::uint64_t kWhat[] = {PERF_COUNT_HW_CPU_CYCLES, PERF_COUNT_HW_INSTRUCTIONS,
                                       PERF_COUNT_HW_CACHE_MISSES};
    for (std::size_t i = 0; i < files_.size(); ++i) {
      perf_event_attr event{};
      event.type = PERF_TYPE_HARDWARE;
      event.size = sizeof event;
      event.config = kWhat[i];
      event.inherit = 1;
      event.exclude_kernel = 1;
      event.exclude_hv = 1;
      files_[i] = static_cast<int>(syscall(SYS_perf_event_open, &event, 0, -1, -1, 0));
      if (files_[i] < 0) {
        why_ = std::strerror(errno);
        return;
      }
    }
#else
    why_ = "this system has no perf_event_open";
#endif
  }
  ~Counters() {
#ifdef PLUMB_BENCH_COUNTS
    for (const int file : files_)
      if (file >= 0) close(file);
#endif
  }
  Counters(const Counters&) = delete;
  Counters& operator=(const Counters&) = delete;

  bool there() const { return why_.empty(); }
  /// Why there are none.
  const std::string& why() const { return why_; }

  /// Since this object was made.
  Counts read() const {
    std::array<double, 3> values{};
#ifdef PLUMB_BENCH_COUNTS
    for (std::size_t i = 0; i < files_.size(); ++i) {
      std::uint64_t value = 0;
      if (there() && ::read(files_[i], &value, sizeof value) == sizeof value)
        values[i] = static_cast<double>(value);
    }
#endif
    return {values[0], values[1], values[2]};
  }

 private:
  std::array<int, 3> files_{-1, -1, -1};
  std::string why_;
};

}}}  // namespace plumb::v0_1::bench
#undef PLUMB_BENCH_COUNTS
