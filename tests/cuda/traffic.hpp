// What a call's kernels move together, from the emulator's tracer.
#pragma once

#include <plumb/cuda/device.cuh>

#include <emulator/trace.hpp>

#include <doctest/doctest.h>

namespace test {

struct Traffic {
  double loaded = 0, stored = 0;                ///< bytes of global memory, as threads ask for them
  double sectors = 0, sectors_ideal = 0;        ///< of 32 bytes
  double wavefronts = 0, wavefronts_ideal = 0;  ///< passes over the banks of shared memory
};

template <class Call>
Traffic traffic_of(Call call) {
  using namespace plumb;
  REQUIRE(emulator::traced());
  kernels::synchronize(Cuda{});
  emulator::trace_counts().clear();
  emulator::trace_transactions(true);
  call();
  kernels::synchronize(Cuda{});
  emulator::trace_transactions(false);
  const emulator::TraceCounts total = emulator::trace_total();
  const auto number = [](std::uint64_t n) { return static_cast<double>(n); };
  return {number(total.global_load_bytes), number(total.global_store_bytes),
          number(total.global_sectors),    number(total.global_ideal),
          number(total.shared_wavefronts), number(total.shared_ideal)};
}

}  // namespace test
