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
  Traffic all;
  for (const auto& kernel : emulator::trace_counts()) {
    all.loaded += static_cast<double>(kernel.second.global_load_bytes);
    all.stored += static_cast<double>(kernel.second.global_store_bytes);
    all.sectors += static_cast<double>(kernel.second.global_sectors);
    all.sectors_ideal += static_cast<double>(kernel.second.global_ideal);
    all.wavefronts += static_cast<double>(kernel.second.shared_wavefronts);
    all.wavefronts_ideal += static_cast<double>(kernel.second.shared_ideal);
  }
  return all;
}

}  // namespace test
