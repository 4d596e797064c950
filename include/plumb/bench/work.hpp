// The least work that a kernel must do, and the time that this machine's measured limits
// (probe.hpp) allow for it: the bound that every benchmark states its share of.
#pragma once

#include <plumb/bench/probe.hpp>
#include <plumb/core/check.hpp>

#include <algorithm>
#include <cstdio>
#include <string>

namespace plumb { inline namespace v0_1 { namespace bench {

/// What no implementation can do without: a bound on a kernel's time.
struct Work {
  double flops = 0;    ///< a fused multiply-add counts as two; elementary functions are not counted
  double read = 0;     ///< bytes, every operand once
  double written = 0;  ///< bytes; what is added to counts as read, too
  double footprint = 0;  ///< bytes of distinct memory touched: says which cache feeds the kernel
  double extra = 0;      ///< multiplications, fused or not, that elementary functions take besides
  bool bf16 = false;     ///< products of bf16, for which there may be an instruction of their own

  double bytes() const { return read + written; }
};

/// The limit that binds, and the least seconds that it allows; 0 when a reading is INVALID.
struct Bound {
  std::string name;
  double seconds;
};

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
