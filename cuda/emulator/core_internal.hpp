// What the emulator's own files share of the core: its clocks, for telling which accesses are
// ordered, and the tracer's hooks. The tracer is linked only into programs that are traced.
#pragma once

#include <emulator/core.hpp>

namespace plumb::emulator {

/// Two accesses of one block are ordered if a barrier lies between them (other epoch), two of one
/// warp if a __syncwarp does (other segment).
struct Clock {
  std::uint32_t epoch = 2;        ///< advances with each barrier and each block
  std::uint32_t block_first = 2;  ///< the first epoch of this block
  std::uint32_t launch_first = 2;
};
extern Clock clock;
std::uint16_t warp_segment(unsigned warp) noexcept;
unsigned current_thread() noexcept;  ///< index in the block
const Launch& current_launch() noexcept;
/// Of the block that runs, starting at shared_memory().
std::size_t shared_bytes() noexcept;
constexpr std::size_t shared_capacity = 227 * 1024;

struct TraceHooks {
  void (*access)(const void* address, std::size_t bytes, Access access, const void* pc);
  void (*segment_end)(int warp);  ///< of all warps if negative
  void (*launch_end)();
};
extern TraceHooks trace_hooks;

/// Marks code of the emulator that runs in a kernel's thread: its accesses are not the kernel's.
/// (Instrumented and plain translation units share inline functions, and the linker keeps one.)
struct Quiet {
  Quiet() { ++depth; }
  ~Quiet() { --depth; }
  static constinit thread_local int depth;
};

/// A variable of static storage that is a kernel's `static __shared__`, from the symbol table.
struct SharedVariable {
  char* address;
  std::size_t bytes;
  std::string name;
};
/// The ones declared in this kernel itself; those of functions it calls are not known.
const std::vector<SharedVariable>& shared_variables(const void* function);
/// The variable declared in some function at this address, or null.
const SharedVariable* find_shared_variable(const void* address);

/// Ranges of addresses that accesses are told apart by.
struct Range {
  const char* begin = nullptr;
  const char* end = nullptr;
  bool contains(const void* p) const {
    return static_cast<const char*>(p) >= begin && static_cast<const char*>(p) < end;
  }
};
extern Range fiber_stacks;
extern Range device_addresses;
extern const Range static_storage;  ///< of the program: .data, .bss
extern const Range program_image;   ///< its code and constants
/// file:line of an address of code, by addr2line.
std::string describe_code(const void* pc);

bool is_device_address(const void* p) noexcept;

/// Sees to it that a fault of the host's memory protection is explained.
void install_fault_handler();

/// Sets the error that the next synchronising call returns.
void set_device_error(cudaError_t error);
void heal_device();
/// Prints what a refused call is not recorded as an error for.
[[gnu::format(printf, 1, 2)]] void remark(const char* format, ...);

}  // namespace plumb::emulator
