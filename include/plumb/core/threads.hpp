// How many threads this process may use: the processors that it is allowed to run on, or fewer
// where its control groups grant it less time than that (a container's --cpus).
#pragma once

#include <plumb/core/check.hpp>

#include <algorithm>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include <sched.h>

namespace plumb { inline namespace v0_1 {

namespace detail {

/// Processors in this process's affinity mask, or 0 where the system does not tell.
inline int allowed_processors() {
#if defined(__linux__)
  for (std::size_t sets = 1; sets <= 64; sets *= 2) {  // of 1024 processors
    // Words, not a vector of cpu_set_t, a nameless struct's typedef, on which nvcc 13 breaks.
    std::vector<unsigned long> words(sets * sizeof(cpu_set_t) / sizeof(unsigned long));
    auto* const mask = reinterpret_cast<cpu_set_t*>(words.data());
    if (sched_getaffinity(0, sets * sizeof(cpu_set_t), mask) == 0)
      return CPU_COUNT_S(sets * sizeof(cpu_set_t), mask);
  }
#endif
  return 0;
}

/// Processors' worth of time that one control group grants, rounded up, or 0 if it sets no limit.
/// Version 2 says "max 100000" or "150000 100000" in one file, version 1 has a file for each
/// number.
inline int group_limit(const std::string& directory) {
  double quota = 0, period = 0;
  const auto read = [&](const char* name, const char* format, double* first, double* second) {
    std::FILE* file = std::fopen((directory + name).c_str(), "r");
    if (file == nullptr) return 0;
    const int count = std::fscanf(file, format, first, second);
    std::fclose(file);
    return count;
  };
  if (read("/cpu.max", "%lf %lf", &quota, &period) != 2 &&
      (read("/cpu.cfs_quota_us", "%lf", &quota, nullptr) != 1 ||
       read("/cpu.cfs_period_us", "%lf", &period, nullptr) != 1))
    return 0;
  if (!(quota > 0) || !(period > 0)) return 0;
  return static_cast<int>(std::clamp((quota + period - 1) / period, 1.0, 1e6));
}

/// The least that the groups of this process grant, from its own up to the root; 0: no limit.
/// `list` is /proc/self/cgroup, lines "0::/path" and "4:cpu,cpuacct:/path"; `mount` where groups
/// are mounted.
inline int granted_processors(const std::string& list = "/proc/self/cgroup",
                              const std::string& mount = "/sys/fs/cgroup") {
  std::FILE* file = std::fopen(list.c_str(), "r");
  if (file == nullptr) return 0;
  int least = 0;
  for (char buffer[4096]; std::fgets(buffer, sizeof buffer, file) != nullptr;) {
    std::string line = buffer;
    if (line.ends_with('\n')) line.pop_back();
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (!controllers.empty() && (',' + controllers + ',').find(",cpu,") == std::string::npos)
      continue;
    std::string path = line.substr(second + 1);
    for (;;) {
      const std::string root = controllers.empty() ? mount : mount + '/' + controllers;
      const int limit = group_limit(root + path);
      if (limit > 0 && (least == 0 || limit < least)) least = limit;
      const auto slash = path.rfind('/');
      if (path.empty() || slash == std::string::npos) break;
      path.resize(slash);
    }
  }
  std::fclose(file);
  return least;
}

}  // namespace detail

/// Threads that this process can keep busy; at least 1.
inline int available_threads() {
  int threads = detail::allowed_processors();
  if (threads < 1) threads = static_cast<int>(std::thread::hardware_concurrency());
  if (const int granted = detail::granted_processors(); granted > 0)
    threads = std::min(threads, granted);
  return std::max(threads, 1);
}

}}  // namespace plumb::v0_1
