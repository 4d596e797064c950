// How much memory there is, and amounts of memory as people write them.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/core/memory.hpp>
#include <plumb/core/real.hpp>
#include <plumb/io/file.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <string>

#include <unistd.h>

namespace plumb { inline namespace v0_1 {

/// Bytes out of "4GB", "1.5 GiB", "800M", or a number of bytes; B, k, M, G, T are powers of 1024,
/// as memory is counted. DataError naming the text.
inline double parse_bytes(const std::string& text, Where where = Where::here()) {
  double number = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  std::string unit(stop, end);
  unit.erase(0, std::min(unit.find_first_not_of(' '), unit.size()));
  for (char& c : unit) c = static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
  const std::string letters = "BKMGT";
  const std::size_t power = unit.empty() ? 0 : letters.find(unit[0]);
  const std::string rest = unit.empty() ? "" : unit.substr(1);
  const bool known = power != letters.npos && (rest.empty() || rest == "B" || rest == "IB");
  if (error != std::errc() || !known || !std::isfinite(number) || number <= 0)
    fail<DataError>(
        str("[memory] '", shown(text), "' is no amount of memory. HINT: write it as 4GB or 800MB"),
        where);
  return number * real::pow(1024.0, static_cast<double>(power));
}

/// Bytes that this process may still take: what the kernel says is available, or what its control
/// group leaves it, if that is less; 0 if neither can be read.
inline double available_memory() {
  double available = 0;
  std::ifstream info("/proc/meminfo");
  for (std::string word; info >> word;)
    if (word == "MemAvailable:") {
      info >> available;
      available *= 1024;
      break;
    }
  const auto number_in = [](const char* path) {
    std::ifstream file(path);
    double number = 0;
    return file >> number ? number : 0.0;  // "max" is no number
  };
  const double most = number_in("/sys/fs/cgroup/memory.max");
  if (most > 0) {
    const double left = std::max(most - number_in("/sys/fs/cgroup/memory.current"), 1.0);
    available = available > 0 ? std::min(available, left) : left;
  }
  return available;
}

/// Bytes of physical memory that this process has; 0 if that cannot be read.
inline double resident_memory() {
  std::ifstream pages("/proc/self/statm");
  double all = 0, resident = 0;
  return pages >> all >> resident ? resident * static_cast<double>(::sysconf(_SC_PAGESIZE)) : 0.0;
}

/// Sets memory_limit() so that the process stays within `bytes`: what it has beside tensors, such
/// as a tokenizer, is taken off. Said again after much of that was loaded.
inline void limit_process(double bytes) {
  const double lists = static_cast<double>(memory_counters().system_bytes);
  const double beside = std::max(resident_memory() - lists, 0.0);
  set_memory_limit(static_cast<std::size_t>(std::max(bytes - beside, 1.0)));
}

}}  // namespace plumb::v0_1
