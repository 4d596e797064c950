// What the tracer counts, per kernel name; see trace.cpp. Empty in a program that is not traced.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace plumb::emulator {

struct TraceCounts {
  std::uint64_t launches = 0;
  // Accesses of threads and their bytes, as the kernel asks for them: no cache is modelled.
  std::uint64_t global_loads = 0, global_load_bytes = 0;
  std::uint64_t global_stores = 0, global_store_bytes = 0;
  std::uint64_t shared_loads = 0, shared_load_bytes = 0;
  std::uint64_t shared_stores = 0, shared_store_bytes = 0;
  // Only with trace_transactions(true). A request is one access by the lanes of a warp together.
  std::uint64_t global_requests = 0;  ///< each moves whole sectors of 32 bytes
  std::uint64_t global_sectors = 0;
  std::uint64_t global_ideal = 0;  ///< sectors, if each moved only bytes that were asked for
  std::uint64_t shared_requests = 0;
  std::uint64_t shared_wavefronts = 0;  ///< passes over the 32 banks of 4 bytes
  std::uint64_t shared_ideal = 0;       ///< wavefronts without bank conflicts

  TraceCounts& operator+=(const TraceCounts& o) {
    launches += o.launches;
    global_loads += o.global_loads;
    global_load_bytes += o.global_load_bytes;
    global_stores += o.global_stores;
    global_store_bytes += o.global_store_bytes;
    shared_loads += o.shared_loads;
    shared_load_bytes += o.shared_load_bytes;
    shared_stores += o.shared_stores;
    shared_store_bytes += o.shared_store_bytes;
    global_requests += o.global_requests;
    global_sectors += o.global_sectors;
    global_ideal += o.global_ideal;
    shared_requests += o.shared_requests;
    shared_wavefronts += o.shared_wavefronts;
    shared_ideal += o.shared_ideal;
    return *this;
  }
};

/// Whether this program's kernels are traced.
bool traced();
/// The counts since the last reset, by the name that the launch gave.
std::map<std::string, TraceCounts>& trace_counts();
/// Of all kernels together.
inline TraceCounts trace_total() {
  TraceCounts total;
  for (const auto& kernel : trace_counts()) total += kernel.second;
  return total;
}
/// Whether to count requests, which takes several times as long. Off at the start.
void trace_transactions(bool on);
bool trace_transactions();

}  // namespace plumb::emulator
