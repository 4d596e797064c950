// Host memory that is kept for reuse: after its first steps a training loop asks the system for
// nothing. Small blocks from lists by size class, large ones cut out of an arena (core/arena.hpp),
// so that sequences of varied lengths use one another's. Blocks are 64-byte aligned (a cache line,
// one AVX-512 register); large ones ask for huge pages, without which a pass over weights waits for
// address translations. Not a general allocator: no realloc, no statistics beyond a few counters;
// freed blocks are kept until release_cached_memory(), or until a limit that was set would be
// passed, or the system has no more.
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

// Four size classes per power of two from 256 bytes up: at most a quarter of a block is unused.
// Class 4(e - 8) + q holds (4 + q)·2^(e-2) bytes: 256, 320, 384, 448, 512, 640, …
struct SizeClasses {
  static constexpr int kCount = 4 * 48;

  static int of(std::size_t bytes) {
    if (bytes <= 256) return 0;
    const int exponent = static_cast<int>(std::bit_width(bytes - 1)) - 1;
    const std::size_t quarter = std::size_t{1} << (exponent - 2);
    const std::size_t steps = (bytes + quarter - 1) / quarter - 4;
    return 4 * (exponent - 8) + static_cast<int>(steps);
  }
  static std::size_t capacity(int size_class) {
    const int exponent = 8 + size_class / 4;
    return static_cast<std::size_t>(4 + size_class % 4) << (exponent - 2);
  }
};

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

class FreeLists {
 public:
  static FreeLists& instance() {
    static FreeLists lists;
    return lists;
  }

  void* allocate(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    if (bytes > kMost) throw OutOfMemory(bytes, all_counters());
    const bool large = bytes > kSmall;
    void* block = large ? take_large(bytes) : take_small(bytes);
    if (block == nullptr) {  // what is kept may be what is missing
      trim_all();
      block = large ? take_large(bytes) : take_small(bytes);
    }
    if (block == nullptr) throw OutOfMemory(bytes, all_counters());
    used_ += size_of(bytes);
    peak_ = std::max(peak_, used_);
    return block;
  }

  void release(void* pointer, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    used_ -= size_of(bytes);
    if (bytes > kSmall) {
      for (Arena* arena : arenas_)
        if (arena->owns(pointer)) return arena->give(pointer, bytes);
    }
    auto* block = static_cast<Block*>(pointer);
    Block*& head = heads_[SizeClasses::of(bytes)];
    block->next = head;
    head = block;
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
  struct Block {
    Block* next;
  };
  // No machine has it; what is less can be counted in granules, and has a size class.
  static constexpr std::size_t kMost = std::size_t{1} << 43;

// An address sanitizer sees what the C library hands out; in an arena it would see one block.
#if defined(__SANITIZE_ADDRESS__)
  static constexpr std::size_t kSmall = std::numeric_limits<std::size_t>::max();
#else
  static constexpr std::size_t kSmall = std::size_t{32} << 10;
#endif

  static std::size_t size_of(std::size_t bytes) {
    return bytes > kSmall ? Arena::rounded(bytes) : SizeClasses::capacity(SizeClasses::of(bytes));
  }

  void* take_small(std::size_t bytes) {
    const int size_class = SizeClasses::of(bytes);
    const std::size_t capacity = SizeClasses::capacity(size_class);
    if (Block* block = heads_[size_class]) {
      heads_[size_class] = block->next;
      return block;
    }
    keep_limit(capacity);
    void* block = std::aligned_alloc(64, (capacity + 63) / 64 * 64);
    if (block == nullptr) return nullptr;
    ++small_calls_;
    small_bytes_ += capacity;
    return block;
  }

  void* take_large(std::size_t bytes) {
    const auto fits = [bytes](const Arena* arena) { return arena->fits(bytes); };
    if (limit_ > 0 && std::none_of(arenas_.begin(), arenas_.end(), fits)) keep_limit(bytes);
    for (Arena* arena : arenas_)
      if (void* block = arena->take(bytes)) return block;
    if (!add_arena(bytes)) return nullptr;
    if (void* block = arenas_.back()->take(bytes)) return block;
    delete arenas_.back();  // addresses there were, memory not
    arenas_.pop_back();
    return nullptr;
  }

  // A range of addresses: twice the machine's memory, of which as much is taken as is used; of a
  // process that may not have so many, an eighth of what it may. Arenas live as long as the
  // process: what outlives this object still lies in them.
  bool add_arena(std::size_t bytes) {
    rlimit addresses{};
    getrlimit(RLIMIT_AS, &addresses);
    const auto pages = static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES));
    const std::size_t least = 2 * Arena::rounded(bytes) + (std::size_t{4} << 20);
    const std::size_t wanted = addresses.rlim_cur == RLIM_INFINITY
                                   ? 2 * pages * static_cast<std::size_t>(sysconf(_SC_PAGESIZE))
                                   : static_cast<std::size_t>(addresses.rlim_cur) / 8;
    try {
      arenas_.push_back(new Arena(std::max(wanted, least), Arena::rounded(bytes)));
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
    MemoryCounters all{small_calls_, small_bytes_, used_, peak_};
    for (const Arena* arena : arenas_) {
      all.system_calls += arena->calls();
      all.system_bytes += arena->held();
    }
    return all;
  }

  void trim_all() {
    for (int size_class = 0; size_class < SizeClasses::kCount; ++size_class) {
      while (Block* block = heads_[size_class]) {
        heads_[size_class] = block->next;
        small_bytes_ -= SizeClasses::capacity(size_class);
        std::free(block);
      }
    }
    for (Arena* arena : arenas_) arena->trim();
#ifdef __GLIBC__
    malloc_trim(0);  // free() alone keeps what lies between blocks in use
#endif
  }

  FreeLists() {
    pthread_atfork([] { instance().mutex_.lock(); }, [] { instance().mutex_.unlock(); },
                   [] { instance().mutex_.unlock(); });
  }
  ~FreeLists() { trim(); }

  std::mutex mutex_;
  Block* heads_[SizeClasses::kCount] = {};
  std::vector<Arena*> arenas_;
  std::size_t small_calls_ = 0, small_bytes_ = 0, used_ = 0, peak_ = 0, limit_ = 0;
};

}  // namespace detail

inline MemoryCounters memory_counters() { return detail::FreeLists::instance().counters(); }
inline void reset_peak_memory() { detail::FreeLists::instance().reset_peak(); }
/// What the process means to take of the host's memory, bytes; 0, as at first: no limit. Blocks
/// that nobody uses go back to the system before more is taken, and what may be computed in parts
/// is (nn/budget.hpp). What must be there at once is taken all the same.
inline void set_memory_limit(std::size_t bytes) { detail::FreeLists::instance().set_limit(bytes); }
inline std::size_t memory_limit() { return detail::FreeLists::instance().limit(); }
/// Gives the blocks that nobody uses back to the system.
inline void release_cached_memory() { detail::FreeLists::instance().trim(); }

// What a backend must offer to Tensor; found by argument-dependent lookup on the device.
namespace kernels {
inline void* allocate(Cpu, std::size_t bytes) {
  return detail::FreeLists::instance().allocate(bytes);
}
inline void release(Cpu, void* pointer, std::size_t bytes) {
  detail::FreeLists::instance().release(pointer, bytes);
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

/// Uninitialised host scratch memory of n elements, returned to the free lists at the end of scope.
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
