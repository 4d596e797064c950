// Host memory from free lists by size class: after its first step a training loop asks the system
// for nothing. Blocks are 64-byte aligned (a cache line, one AVX-512 register); those of 2 MiB or
// more ask for huge pages, without which a pass over weights waits for address translations. Not a
// general allocator: no realloc, no statistics beyond two counters; freed blocks are kept for reuse
// until release_cached_memory(), or until a limit that was set would be passed.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/core/device.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>

#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <pthread.h>
#include <sys/mman.h>

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

class FreeLists {
 public:
  static FreeLists& instance() {
    static FreeLists lists;
    return lists;
  }

  void* allocate(std::size_t bytes) {
    const int size_class = SizeClasses::of(bytes);
    const std::size_t capacity = SizeClasses::capacity(size_class);
    const std::lock_guard lock(mutex_);
    counters_.used_bytes += capacity;
    if (counters_.used_bytes > counters_.peak_bytes) counters_.peak_bytes = counters_.used_bytes;
    if (Block* block = heads_[size_class]) {
      heads_[size_class] = block->next;
      return block;
    }
    // What another step left is given back before more is asked for than may be.
    if (limit_ > 0 && counters_.system_bytes + capacity > limit_) trim_all();
    void* block = capacity < kHugePage ? std::aligned_alloc(64, (capacity + 63) / 64 * 64)
                                       : map_pages(capacity);
    if (block == nullptr) {
      counters_.used_bytes -= capacity;
      throw std::bad_alloc();
    }
    ++counters_.system_calls;
    counters_.system_bytes += capacity;
    return block;
  }

  void release(void* pointer, std::size_t bytes) {
    const int size_class = SizeClasses::of(bytes);
    auto* block = static_cast<Block*>(pointer);
    const std::lock_guard lock(mutex_);
    counters_.used_bytes -= SizeClasses::capacity(size_class);
    block->next = heads_[size_class];
    heads_[size_class] = block;
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
    return counters_;
  }

  void reset_peak() {
    const std::lock_guard lock(mutex_);
    counters_.peak_bytes = counters_.used_bytes;
  }

 private:
  struct Block {
    Block* next;
  };
  static constexpr std::size_t kHugePage = std::size_t{2} << 20;

  static std::size_t whole_pages(std::size_t bytes) {
    return (bytes + kHugePage - 1) / kHugePage * kHugePage;
  }

  // Large blocks are the system's pages, not the C library's: so they are gone when given back, and
  // leave no holes. At a boundary of huge pages, by mapping one more and cutting off what is over.
  static void* map_pages(std::size_t bytes) {
    const std::size_t size = whole_pages(bytes);
    void* all = mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) return nullptr;
    char* const begin = static_cast<char*>(all);
    char* const block =
        begin + (kHugePage - reinterpret_cast<std::uintptr_t>(begin) % kHugePage) % kHugePage;
    if (block > begin) munmap(begin, static_cast<std::size_t>(block - begin));
    munmap(block + size, static_cast<std::size_t>(begin + kHugePage - block));
#ifdef MADV_HUGEPAGE
    madvise(block, size, MADV_HUGEPAGE);  // a wish: may fail
#endif
    return block;
  }

  void trim_all() {
    for (int size_class = 0; size_class < SizeClasses::kCount; ++size_class) {
      while (Block* block = heads_[size_class]) {
        heads_[size_class] = block->next;
        counters_.system_bytes -= SizeClasses::capacity(size_class);
        if (SizeClasses::capacity(size_class) < kHugePage)
          std::free(block);
        else
          munmap(block, whole_pages(SizeClasses::capacity(size_class)));
      }
    }
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
  MemoryCounters counters_;
  std::size_t limit_ = 0;
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
