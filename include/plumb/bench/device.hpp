// What a benchmark says of a kernel's work, and whom it asks how a device other than the host went
// about it: Instruments<D>, which the device's own header defines (plumb/cuda/bench.cuh). Memory
// there is what Tensor uses: allocate, copy_from_host and the rest, found by the device's tag.
#pragma once

#include <plumb/core/device.hpp>

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
  bool tf32 = false;     ///< products of tf32, for which a GPU has one

  double bytes() const { return read + written; }
};

/// The limit that binds, and the least seconds that it allows; 0 when there is no reading of it.
struct Bound {
  std::string name;
  double seconds = 0;
};

/// What a call's kernels did on a device whose accesses somebody counts: as its threads ask for
/// them, so that what is read twice counts twice, though a cache may have it.
struct Counted {
  double launches = 0, blocks = 0, barriers = 0;
  double read = 0, stored = 0;            ///< bytes of the device's memory
  double sectors = 0, least_sectors = 0;  ///< of 32 bytes that the requests of warps move
  double shared = 0;                      ///< bytes of shared memory, read and stored
  double passes = 0, least_passes = 0;    ///< over its banks; more than least: conflicts
};

/// A device as the program's list of cases names it.
struct Side {
  const char* name;           ///< "cuda": a case is kernel/case/cuda
  bool counts;                ///< its calls are counted; else they are timed
  std::string (*missing)();   ///< why nothing can run on it; empty if it is there
  std::string (*describe)();  ///< what it is, with its limits
};

/// Of D, on which a kernel's arrays then lie. Static members:
///   const Side& side()
///   void wait(): until the whole device is idle, not only D's stream
///   double seconds(F call, Index calls): that `calls` calls take together, by the device's clock
///   Bound bound(const Work&)
///   void flush(): nothing that was used is in the device's caches then
///   const char* reorder(int turn): from 1 on, another order of threads, by its name, or null where
///     there is no choice (any more); 0: the order that there was
///   Counted counted(F call): what the call's kernels do
template <class D>
struct Instruments;

}}}  // namespace plumb::v0_1::bench
