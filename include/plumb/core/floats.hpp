// The floating-point environment: rounding to nearest, small numbers kept (neither flushed to zero
// nor read as zero), nothing trapped. A thread may have been given another one, by its caller, by a
// library or by the thread that started it, and results would then depend on who computed them.
#pragma once

#include <plumb/core/version.hpp>

#if defined(__x86_64__)
#include <xmmintrin.h>
#elif defined(__aarch64__)
#include <cstdint>
#else
#include <cfenv>
#endif

namespace plumb { inline namespace v0_1 {

/// In its scope this thread computes in the default environment; after it, in the one before. Some
/// nanoseconds where that is the default already.
class DefaultFloats {
 public:
#if defined(__x86_64__)
  DefaultFloats() : before_(_mm_getcsr()) {
    if ((before_ & ~kFlags) != kDefault) _mm_setcsr(kDefault);
  }
  ~DefaultFloats() {
    if ((before_ & ~kFlags) != kDefault) _mm_setcsr(before_);
  }
#elif defined(__aarch64__)
  DefaultFloats() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    if (before_ != 0) set(0);
  }
  ~DefaultFloats() {
    if (before_ != 0) set(before_);
  }
#else
  DefaultFloats() {
    std::fegetenv(&before_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DefaultFloats() { std::fesetenv(&before_); }
#endif
  DefaultFloats(const DefaultFloats&) = delete;
  DefaultFloats& operator=(const DefaultFloats&) = delete;

 private:
#if defined(__x86_64__)
  static constexpr unsigned kDefault = 0x1F80,
                            kFlags = 0x3F;  // the flags are sticky: any may be set
  unsigned before_;
#elif defined(__aarch64__)
  static void set(std::uint64_t fpcr) { asm volatile("msr fpcr, %0" : : "r"(fpcr) : "memory"); }
  std::uint64_t before_;
#else
  std::fenv_t before_;
#endif
};

/// Where there is nothing to change: what flushes by hand, or not at all.
struct NothingFlushed {
  NothingFlushed() {}
};

#if defined(__x86_64__)
/// In its scope subnormal numbers are read and written as zero. The compiler does not know: compute
/// in a function that is not inlined.
class FlushedFloats {
 public:
  FlushedFloats() : before_(_mm_getcsr()) { _mm_setcsr(before_ | kFlush); }
  ~FlushedFloats() { _mm_setcsr(before_); }
  FlushedFloats(const FlushedFloats&) = delete;
  FlushedFloats& operator=(const FlushedFloats&) = delete;

 private:
  static constexpr unsigned kFlush = 0x8040;  // FTZ, DAZ
  unsigned before_;
};
#endif

}}  // namespace plumb::v0_1
