// Device memory as a range of addresses of its own (see memory.cpp).
#pragma once

#include <emulator/runtime.hpp>

#include <deque>

namespace plumb::emulator::memory {

struct Allocation {
  char* address = nullptr;
  std::size_t bytes = 0;
  std::uint64_t serial = 0;
  bool live = false;
  void* shadow = nullptr;  ///< the tracer's
};

/// Every allocation there was, in order.
const std::deque<Allocation>& all();
/// Its contents are whatever was there. Null where the limit or the address range is exhausted.
Allocation* allocate(std::size_t bytes);
void release(Allocation& allocation);
/// The latest allocation that covers `p`, live or freed; null where there never was one.
Allocation* find(const void* p) noexcept;
void fill(void* p, int byte, std::size_t n);
std::size_t used();
std::size_t limit();

/// While one exists, the host may read and write device memory.
class Access {
 public:
  Access();
  ~Access();
  Access(const Access&) = delete;
  Access& operator=(const Access&) = delete;
};

struct TraceHooks {
  void (*released)(Allocation&);
  void (*initialised)(Allocation&, const void* p, std::size_t n);
};
extern TraceHooks trace_hooks;

}  // namespace plumb::emulator::memory
