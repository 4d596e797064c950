// The fiber core: runs the threads of a CUDA block as fibers of one host thread, so that the very
// kernel sources (device.hpp) or nvcc's PTX (ptx_*) run, and are watched, where there is no GPU.
//
// A thread runs until it meets a barrier, a warp operation or its end; who goes next is drawn from
// the schedule, as is the order of the blocks. Blocks run one after another, so a kernel that waits
// for another block hangs here. Everything that a GPU leaves undefined is made unpleasant: shared
// memory starts as NaN, the order of threads changes with the seed, the target of a cp.async is
// garbage until it was waited for.
//
// What it is not: a model of time, caches, or weak memory order; a thread's stores are seen by
// every other thread at once. Cost: 7 to 13 ns for each barrier of a thread, 15 to 26 for a
// shuffle, 10 for an empty thread (test_emulator_runtime prints them).
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace plumb::emulator {

// --- Schedule ----------------------------------------------------------------------------------

enum class Order { forward, reverse, random };

/// How threads, blocks and streams are ordered from the next launch on. Without a call: the
/// environment's PLUMB_EMULATOR_ORDER (forward, reverse, random) and PLUMB_EMULATOR_SEED.
void set_schedule(Order order, std::uint64_t seed = 1);
Order schedule_order();
/// Uniform in [0, n), n > 0, from the schedule's own generator.
std::uint64_t schedule_draw(std::uint64_t n);

// --- The device --------------------------------------------------------------------------------

/// The architecture that the device plays: 80 or 90, from the environment's
/// PLUMB_EMULATOR_ARCHITECTURE (sm_80, the default, or sm_90). It decides how a tensor core rounds
/// (tensor_core.hpp), how much shared memory there is, and what the device says that it is.
int architecture() noexcept;
/// For what runs from now on: call it when nothing is queued.
void set_architecture(int architecture);

// --- Errors ------------------------------------------------------------------------------------

/// kind: one of out-of-bounds, use-after-free, host-pointer, illegal-address, misaligned, race,
/// uninitialised, divergence, deadlock, early-exit, exited-lane, warp-mask, cp-async, stack,
/// invalid-free, double-free, leak; from PTX also trap, assertion.
struct Error {
  std::string kind;
  std::string text;
};

/// The errors since the last call, which also heals the device. Errors that nobody took make the
/// exit status of the process 86.
std::vector<Error> take_errors();

/// Notes an error and prints it; in a kernel the kernel goes on.
[[gnu::format(printf, 2, 3)]] void report(const char* kind, const char* format, ...);
/// Notes an error and ends the launch, as a fault ends it on a GPU. Only in a kernel.
[[noreturn, gnu::format(printf, 2, 3)]] void trap(const char* kind, const char* format, ...);

// --- Launches ----------------------------------------------------------------------------------

/// A place in the source. (std::source_location is missing from clang 14.)
struct Place {
  const char* file;
  int line;
};
#define PLUMB_EMULATOR_PLACE ::plumb::emulator::Place place = {__builtin_FILE(), __builtin_LINE()}

/// What a launch needs to know of a kernel.
struct Kernel {
  std::string name;
  void (*body)(const void* parameters) = nullptr;  ///< what each thread runs
  const void* function = nullptr;                  ///< the host's handle of the kernel
  std::size_t static_shared = 0;  ///< bytes before the dynamic part, if the body takes them there
  unsigned max_threads = 1024;
  unsigned registers = 32;
  std::vector<std::size_t> parameter_offsets;  ///< in the parameter block, for cudaLaunchKernel
  std::vector<std::size_t> parameter_sizes;
};

struct Launch {
  const Kernel* kernel = nullptr;
  dim3 grid{1, 1, 1};
  dim3 block{1, 1, 1};
  std::size_t dynamic_shared = 0;
  const void* parameters = nullptr;
  std::size_t parameter_bytes = 0;
};

/// Runs the launch to its end; false if a trap or a deadlock ended it. Not from a kernel.
bool run(const Launch& launch);

/// While one exists, of a launch of more than 8192 blocks only so many at each end run, and new
/// device memory is given out as it is, untouched, and freed so: tensors of more than 2^32 elements
/// then cost little, and an index that is kept in 32 bits shows at their ends.
class OnlyEnds {
 public:
  explicit OnlyEnds(std::uint64_t blocks = 128);
  ~OnlyEnds();
  OnlyEnds(const OnlyEnds&) = delete;
  OnlyEnds& operator=(const OnlyEnds&) = delete;
  static bool here();
};

struct Counts {
  std::uint64_t launches = 0, blocks = 0, threads = 0, barriers = 0, warp_operations = 0,
                switches = 0;
};
const Counts& counts();

// --- What a kernel's thread calls --------------------------------------------------------------

bool in_kernel() noexcept;
// `const`: for a given thread they never change, so the compiler may call them once.
[[gnu::const]] uint3 thread_index() noexcept;
[[gnu::const]] uint3 block_index() noexcept;
[[gnu::const]] dim3 block_size() noexcept;
[[gnu::const]] dim3 grid_size() noexcept;
[[gnu::const]] unsigned lane() noexcept;

/// The block's shared memory, the same address in every block: the kernel's static_shared bytes
/// first, then the dynamic ones at the next multiple of 16.
char* shared_memory() noexcept;
char* dynamic_shared_memory() noexcept;

enum class Barrier { plain, count, any, all };
/// Waits for all threads of the block, who must have come to the same place.
int barrier(Barrier kind, int predicate, Place place);

/// arguments[l]: what lane l brought, for the lanes of the mask.
using WarpFunction = void (*)(void** arguments, unsigned mask);
/// Waits for the mask's lanes, who must have come to the same place with the same mask; the last
/// one calls `last`. Orders the lanes' memory accesses (for race detection) only if told so.
void warp_collective(unsigned mask, const char* name, void* argument, WarpFunction last,
                     Place place, bool orders_memory = false);
/// Lanes that have not exited; with random order the caller alone, which CUDA allows.
unsigned active_mask() noexcept;

/// An asynchronous copy to shared memory: `bytes` bytes, those from source_bytes on as zeros.
/// pc: for note(), if the caller's address is not what should be named.
void copy_async(void* shared, const void* global, unsigned bytes, unsigned source_bytes,
                Place place, const void* pc = nullptr);
void copy_async_commit();
/// Waits until at most `pending` of the thread's latest groups are unfinished.
void copy_async_wait(unsigned pending, Place place);

enum class Access : std::uint8_t {
  read,
  write,
  atomic,
  arrival  ///< of an asynchronous copy, whose write was told when it was issued
};
/// Tells the tracer or sanitizer, if there is one, of an access which the compiler's
/// instrumentation does not show. pc: an address of code, or a number that describe_site explains.
void note(const void* address, std::size_t bytes, Access access, const void* pc);
/// Traps unless `address` is a multiple of `bytes`.
inline void check_aligned(const void* address, unsigned bytes, Place place) {
  if (reinterpret_cast<std::uintptr_t>(address) % bytes != 0) [[unlikely]]
    trap("misaligned", "%u-byte access of address %p at %s:%d", bytes, address, place.file,
         place.line);
}
/// Explains a `pc` below 2^24 given to note(); set by the PTX way.
extern std::string (*describe_site)(std::uintptr_t site);

}  // namespace plumb::emulator
