// The time that this machine's measured limits (probe.hpp) allow for the least work that a kernel
// must do: the bound that every benchmark states its share of.
#pragma once

#include <plumb/bench/device.hpp>
#include <plumb/bench/probe.hpp>
#include <plumb/core/check.hpp>

#include <algorithm>
#include <cstdio>
#include <string>

namespace plumb { inline namespace v0_1 { namespace bench {

/// With `cold` the work begins with nothing in the caches: memory feeds it.
inline Bound bound_of(const Work& work, int threads, bool cold = false) {
  const bool by_dot = work.bf16 && dot_peak(threads) > fma_peak(threads);
  const double fma = by_dot ? dot_peak(threads) : fma_peak(threads);
  // A kernel that writes much of its traffic is held to what such a mix reaches: more than reads.
  const Access access = 4 * work.written >= work.bytes() ? Access::Update : Access::Read;
  const double footprint = cold ? kMemoryBytes : work.footprint;
  const double stream = bandwidth(footprint, access, threads);
  if (fma == 0 || stream == 0) return {"INVALID", 0};
  const double compute = (work.flops + 2 * work.extra) / fma * 1e-9;
  const double move = work.bytes() / stream * 1e-9;
  char name[64];
  if (compute >= move)
    std::snprintf(name, sizeof name, "%s (%.0f GFLOP/s)", by_dot ? "vdpbf16ps" : "fma", fma);
  else
    std::snprintf(name, sizeof name, "%s %s (%.0f GB/s)",
                  cold ? "memory" : level_of(footprint, threads),
                  access == Access::Read ? "read" : "update", stream);
  return {name, std::max(compute, move)};
}

}}}  // namespace plumb::v0_1::bench
