// Host memory that is kept for reuse: after its first steps a training loop asks the system for
// nothing. Blocks are cut out of arenas (core/arena.hpp), small and large ones out of different
// ones, so that sequences of varied lengths use one another's. They are 64-byte aligned (a cache
// line, one AVX-512 register); large ones ask for huge pages, without which a pass over weights
// waits for address translations. Not a general allocator: no realloc, no statistics beyond a few
// counters; freed blocks are kept until release_cached_memory(), or until a limit that was set
// would be passed, or the system has no more.
#pragma once

#include <plumb/core/arena.hpp>
#include <plumb/core/check.hpp>
#include <plumb/core/device.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <mutex>
#include <new>
#include <string>
#include <type_traits>
#include <vector>

#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <pthread.h>
#include <sys/resource.h>

namespace plumb { inline namespace v0_1 {

/// Bytes asked from the system so far, how often, and the most bytes in use at once.
struct MemoryCounters {
  std::size_t system_calls = 0;
  std::size_t system_bytes = 0;
  std::size_t used_bytes = 0;
  std::size_t peak_bytes = 0;
};

namespace detail {

/// What could not be allocated, what is in use, and what was tried.
class OutOfMemory : public std::bad_alloc {
 public:
  OutOfMemory(std::size_t bytes, const MemoryCounters& counters)
      : text_(str("[memory] the system gives no ", bytes, " bytes more; ", counters.used_bytes,
                  " are in use, and of what was kept for reuse ",
                  counters.system_bytes - counters.used_bytes,
                  " are left. HINT: shorter sequences, fewer at a time, or --memory")) {}
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  std::string text_;
};

class HostMemory {
 public:
  static HostMemory& instance() {
    static HostMemory& memory = *new HostMemory;  // tensors of static storage outlive all others
    return memory;
  }

  void* allocate(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    if (bytes > kMost) throw OutOfMemory(bytes, all_counters());
    void* block = take(bytes);
    if (block == nullptr) {  // what is kept may be what is missing
      trim_all();
      block = take(bytes);
    }
    if (block == nullptr) throw OutOfMemory(bytes, all_counters());
    used_ += size_of(bytes);
    peak_ = std::max(peak_, used_);
    return block;
  }

  void release(void* block, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    used_ -= size_of(bytes);
    bytes > kSmall ? give(large_, block, bytes) : give(small_, block, bytes);
  }

  void trim() {
    const std::lock_guard lock(mutex_);
    trim_all();
  }

  void set_limit(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    limit_ = bytes;
  }
  std::size_t limit() {
    const std::lock_guard lock(mutex_);
    return limit_;
  }

  MemoryCounters counters() {
    const std::lock_guard lock(mutex_);
    return all_counters();
  }

  void reset_peak() {
    const std::lock_guard lock(mutex_);
    peak_ = used_;
  }

 private:
  // Small blocks are cut by cache lines. Large ones by a page and a cache line, so that they do not
  // all begin at the same place of a page, where accesses to them would hinder one another.
  using Small = Arena<64>;
  using Large = Arena<4096 + 64>;
  static constexpr std::size_t kSmall = std::size_t{32} << 10;
  // No machine has it; what is less can be counted in granules.
  static constexpr std::size_t kMost = std::size_t{1} << 43;

  static std::size_t size_of(std::size_t bytes) {
    return bytes > kSmall ? Large::rounded(bytes) : Small::rounded(bytes);
  }

  void* take(std::size_t bytes) {
    return bytes > kSmall ? take_from(large_, bytes) : take_from(small_, bytes);
  }
  template <class A>
  void* take_from(std::vector<A*>& arenas, std::size_t bytes) {
    const auto fits = [bytes](const A* arena) { return arena->fits(bytes); };
    if (limit_ > 0 && std::none_of(arenas.begin(), arenas.end(), fits)) keep_limit(bytes);
    for (A* arena : arenas)
      if (void* block = arena->take(bytes)) return block;
    if (!add_arena(arenas, bytes)) return nullptr;
    if (void* block = arenas.back()->take(bytes)) return block;
    delete arenas.back();  // addresses there were, memory not
    arenas.pop_back();
    return nullptr;
  }
  template <class A>
  static void give(const std::vector<A*>& arenas, void* block, std::size_t bytes) {
    for (A* arena : arenas)
      if (arena->owns(block)) return arena->give(block, bytes);
  }

  // A range of addresses. For large blocks twice the machine's memory, of which as much is taken as
  // is used; of a process that may not have so many, an eighth of what it may. For small ones a
  // sixty-fourth of that, and another when it is full. Arenas live as long as the process.
  template <class A>
  static bool add_arena(std::vector<A*>& arenas, std::size_t bytes) {
    rlimit addresses{};
    getrlimit(RLIMIT_AS, &addresses);
    const auto pages = static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES));
    const std::size_t least = 2 * A::rounded(bytes) + (std::size_t{4} << 20);
    const std::size_t wanted = addresses.rlim_cur == RLIM_INFINITY
                                   ? 2 * pages * static_cast<std::size_t>(sysconf(_SC_PAGESIZE))
                                   : static_cast<std::size_t>(addresses.rlim_cur) / 8;
    const std::size_t share = std::is_same_v<A, Small> ? wanted / 64 : wanted;
    try {
      arenas.push_back(new A(std::max(share, least), A::rounded(bytes)));
    } catch (const std::bad_alloc&) {
      return false;
    }
    return true;
  }

  // What another step left is given back before more is asked for than may be.
  void keep_limit(std::size_t more) {
    if (limit_ > 0 && all_counters().system_bytes + more > limit_) trim_all();
  }

  MemoryCounters all_counters() const {
    MemoryCounters all{0, 0, used_, peak_};
    const auto add = [&all](const auto& arenas) {
      for (const auto* arena : arenas) {
        all.system_calls += arena->calls();
        all.system_bytes += arena->held();
      }
    };
    add(small_);
    add(large_);
    return all;
  }

  void trim_all() {
    for (Small* arena : small_) arena->trim();
    for (Large* arena : large_) arena->trim();
#ifdef __GLIBC__
    malloc_trim(0);  // free() alone keeps what lies between blocks in use
#endif
  }

  HostMemory() {
    pthread_atfork([] { instance().mutex_.lock(); }, [] { instance().mutex_.unlock(); },
                   [] { instance().mutex_.unlock(); });
  }
  std::mutex mutex_;
  std::vector<Small*> small_;
  std::vector<Large*> large_;
  std::size_t used_ = 0, peak_ = 0, limit_ = 0;
};

}  // namespace detail

inline MemoryCounters memory_counters() { return detail::HostMemory::instance().counters(); }
inline void reset_peak_memory() { detail::HostMemory::instance().reset_peak(); }
/// What the process means to take of the host's memory, bytes; 0, as at first: no limit. Blocks
/// that nobody uses go back to the system before more is taken, and what may be computed in parts
/// is (nn/budget.hpp). What must be there at once is taken all the same.
inline void set_memory_limit(std::size_t bytes) { detail::HostMemory::instance().set_limit(bytes); }
inline std::size_t memory_limit() { return detail::HostMemory::instance().limit(); }
/// Gives the blocks that nobody uses back to the system.
inline void release_cached_memory() { detail::HostMemory::instance().trim(); }

// What a backend must offer to Tensor; found by argument-dependent lookup on the device.
namespace kernels {
inline void* allocate(Cpu, std::size_t bytes) {
  return detail::HostMemory::instance().allocate(bytes);
}
inline void release(Cpu, void* pointer, std::size_t bytes) {
  detail::HostMemory::instance().release(pointer, bytes);
}
inline void zero(Cpu, void* pointer, std::size_t bytes) {
  if (bytes > 0) std::memset(pointer, 0, bytes);
}
inline void copy_from_host(Cpu, void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}
inline void copy_to_host(Cpu, void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}
inline void copy(Cpu, void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}
}  // namespace kernels

/// Uninitialised host scratch memory of n elements, given back at the end of scope.
template <class T>
class Scratch {
 public:
  explicit Scratch(Index n)
      : bytes_(static_cast<std::size_t>(n) * sizeof(T)),
        data_(static_cast<T*>(kernels::allocate(Cpu{}, bytes_))) {}
  ~Scratch() { kernels::release(Cpu{}, data_, bytes_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* data() const { return data_; }
  T& operator[](Index i) const { return data_[i]; }

 private:
  std::size_t bytes_;
  T* data_;
};

}}  // namespace plumb::v0_1
