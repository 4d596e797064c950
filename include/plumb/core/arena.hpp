// Blocks out of one range of addresses: reserved once, taken from the system as it fills, cut
// where a smaller block is wanted, and joined when neighbours come back. So tensors of any lengths
// use one another's memory again, where a list for each size would keep what each of them needed.
// An address sanitizer is told what is free and what no block was asked for. Not here: locks, and
// which arena is whose (core/memory.hpp).
#pragma once

#include <plumb/core/version.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace plumb { inline namespace v0_1 { namespace detail {

#if defined(__SANITIZE_ADDRESS__)
inline constexpr std::size_t kRedZone = 64;  // behind each block, at least
inline void forbid(const void* from, std::size_t bytes) {
  __asan_poison_memory_region(from, bytes);
}
inline void allow(const void* from, std::size_t bytes) {
  __asan_unpoison_memory_region(from, bytes);
}
#else
inline constexpr std::size_t kRedZone = 0;
inline void forbid(const void*, std::size_t) {}
inline void allow(const void*, std::size_t) {}
#endif

/// Sizes and places are multiples of kGranule, itself a multiple of 64 bytes.
template <std::size_t kGranule>
class Arena {
 public:
  /// What a block of so many takes; of none, as much as of one byte.
  static std::size_t rounded(std::size_t bytes) {
    return (std::max<std::size_t>(bytes, 1) + kRedZone + kGranule - 1) / kGranule * kGranule;
  }

  /// A range for `bytes`, or as much of it as the system reserves; of none, bad_alloc.
  explicit Arena(std::size_t bytes, std::size_t least) {
    for (std::size_t size = bytes; base_ == nullptr; size /= 2) {
      if (size < least) throw std::bad_alloc();
      void* all = mmap(nullptr, size + kHugePage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (all == MAP_FAILED) continue;
      mapped_ = all;
      base_ =
          static_cast<char*>(all) + (kHugePage - reinterpret_cast<std::uintptr_t>(all) % kHugePage);
      reserved_ = size;
    }
    // Zero, and pages that are not there until something is noted in them.
    edges_ = static_cast<std::uint32_t*>(std::calloc(reserved_ / kGranule + 1, sizeof *edges_));
    if (edges_ == nullptr) {
      munmap(mapped_, reserved_ + kHugePage);
      throw std::bad_alloc();
    }
  }
  ~Arena() {
    allow(base_, opened_);
    munmap(mapped_, reserved_ + kHugePage);
    std::free(edges_);
  }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  /// What the system has given and not got back; and how often it was asked.
  std::size_t held() const { return held_; }
  std::size_t calls() const { return calls_; }
  bool owns(const void* block) const { return block >= base_ && block < base_ + reserved_; }

  /// Whether a block of so many bytes is there without asking the system.
  bool fits(std::size_t bytes) const {
    const Run* run = find(granules(bytes));
    return run != nullptr && run->front >= granules(bytes);
  }

  /// A block of rounded(bytes), or null where the range or the system has no more.
  void* take(std::size_t bytes) {
    const std::uint32_t n = granules(bytes);
    Run* run = find(n);
    if (run == nullptr) {
      if (!extend(n)) return nullptr;
      run = find(n);
    }
    const std::uint32_t first = place(run);
    Extent rest = unlink(run);
    mark(first, rest.length, 0);
    // Behind its front it is not noted which pages are there: none of them, as far as any are not.
    const std::uint32_t asked = std::min(rest.absent, n - std::min(n, rest.front));
    held_ += asked * kGranule;
    calls_ += asked > 0 ? 1 : 0;
    rest.length -= n;
    rest.absent -= asked;
    rest.front = rest.absent == 0 ? rest.length : rest.front - std::min(n, rest.front);
    allow(at(first), bytes);
    if (rest.length > 0) put(first + n, rest);
    return at(first);
  }

  void give(void* block, std::size_t bytes) {
    forbid(block, bytes);
    std::uint32_t first = place(block);
    Extent free{granules(bytes), 0, granules(bytes)};
    if (first > 0 && edges_[first - 1] > 0) {
      const std::uint32_t before = first - edges_[first - 1];
      free = joined(taken_out(before), free);
      first = before;
    }
    if (const std::uint32_t after = first + free.length; after < end_ && edges_[after] > 0)
      free = joined(free, taken_out(after));
    put(first, free);
  }

  /// Gives the pages of what is free back to the system; what is free at the end of the range is
  /// then as if it had never been used.
  void trim() {
    if (const std::uint32_t tail = end_ > 0 ? edges_[end_ - 1] : 0; tail > 0) {
      const Extent free = taken_out(end_ - tail);
      end_ -= tail;
      held_ -= (free.length - free.absent) * kGranule;
      give_back(at(end_), at(end_ + tail));
    }
    for (Run* head : bins_)
      for (Run* run = head; run != nullptr; run = run->next) {
        give_back(reinterpret_cast<char*>(run) + sizeof(Run),
                  reinterpret_cast<char*>(run) + run->length * kGranule);
        held_ -= (run->length - run->absent) * kGranule;
        run->absent = run->length;
        run->front = 0;
      }
  }

 private:
  static_assert(kGranule % 64 == 0);
  static constexpr std::size_t kHugePage = std::size_t{2} << 20, kPage = 4096;
  static constexpr int kBins = 4 * 32;

  // A number of granules; how many of them the system has, and how many at their beginning it has
  // not.
  struct Extent {
    std::uint32_t length, absent, front;
  };
  // Those that are free and neighbours; noted in their own first one.
  struct Run : Extent {
    Run *next, **link;
  };

  // The whole pages of it.
  static void give_back(const char* first, const char* last) {
    const auto begin = (reinterpret_cast<std::uintptr_t>(first) + kPage - 1) / kPage * kPage;
    const auto end = reinterpret_cast<std::uintptr_t>(last) / kPage * kPage;
    if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  }
  static std::uint32_t granules(std::size_t bytes) {
    return static_cast<std::uint32_t>(rounded(bytes) / kGranule);
  }
  // Four bins a power of two.
  static int bin_of(std::uint32_t length) {
    if (length < 4) return static_cast<int>(length);
    const int exponent = 31 - __builtin_clz(length);
    return 4 * (exponent - 1) + static_cast<int>(length >> (exponent - 2) & 3U);
  }
  char* at(std::uint32_t granule) const { return base_ + granule * kGranule; }
  std::uint32_t place(const void* block) const {
    return static_cast<std::uint32_t>(
        static_cast<std::size_t>(static_cast<const char*>(block) - base_) / kGranule);
  }
  // How long a free run is stands at its two ends, where its neighbours look.
  void mark(std::uint32_t first, std::uint32_t length, std::uint32_t value) {
    edges_[first] = edges_[first + length - 1] = value;
  }

  // The shortest run of at least n granules in the first bin that has one; of those whose first n
  // are there, if there is one.
  Run* find(std::uint32_t n) const {
    Run* other = nullptr;
    for (int bin = bin_of(n); bin < kBins; ++bin) {
      Run* best = nullptr;
      for (Run* run = bins_[bin]; run != nullptr; run = run->next) {
        if (run->length < n) continue;
        Run*& of_kind = run->front < n ? other : best;
        if (of_kind == nullptr || run->length < of_kind->length) of_kind = run;
      }
      if (best != nullptr) return best;
    }
    return other;
  }

  void put(std::uint32_t first, const Extent& free) {
    Run*& head = bins_[bin_of(free.length)];
    allow(at(first), sizeof(Run));
    auto* run = new (at(first)) Run{free, head, &head};
    if (head != nullptr) head->link = &run->next;
    head = run;
    mark(first, free.length, free.length);
  }
  static Extent unlink(Run* run) {
    const Extent free = *run;
    *run->link = run->next;
    if (run->next != nullptr) run->next->link = run->link;
    forbid(run, sizeof(Run));
    return free;
  }
  Extent taken_out(std::uint32_t first) {
    const Extent free = unlink(reinterpret_cast<Run*>(at(first)));
    mark(first, free.length, 0);
    return free;
  }
  static Extent joined(const Extent& a, const Extent& b) {
    return {a.length + b.length, a.absent + b.absent, a.absent == 0 ? a.length + b.front : a.front};
  }

  // Asks the system for what a run of n granules at the end lacks, and for a sixteenth of what is
  // there: lengths that differ a little from one step to the next then ask for nothing.
  bool extend(std::uint32_t n) {
    const std::uint32_t tail = end_ > 0 ? edges_[end_ - 1] : 0;
    const std::size_t enough = (end_ - tail + std::size_t{n}) * kGranule;
    if (enough > reserved_) return false;
    const std::size_t more = std::max(enough, end_ * kGranule + end_ * kGranule / 16);
    const std::size_t open = std::min((more + kHugePage - 1) / kHugePage * kHugePage, reserved_);
    if (open > opened_) {
      if (mprotect(base_, open, PROT_READ | PROT_WRITE) != 0) return false;
      forbid(base_ + opened_, open - opened_);
#ifdef MADV_HUGEPAGE
      madvise(base_ + opened_, open - opened_, MADV_HUGEPAGE);  // a wish: may fail
#endif
      opened_ = open;
    }
    ++calls_;
    const std::uint32_t first = end_;
    end_ = static_cast<std::uint32_t>(open / kGranule);
    Extent free{end_ - first, 0, end_ - first};
    held_ += free.length * kGranule;
    if (tail > 0) free = joined(taken_out(first - tail), free);
    put(first - tail, free);
    return true;
  }

  void* mapped_ = nullptr;
  char* base_ = nullptr;
  std::size_t reserved_ = 0, opened_ = 0;  // bytes from base_ on: that are ours, that may be used
  std::uint32_t end_ = 0;                  // granules that are taken or free
  std::uint32_t* edges_ = nullptr;
  Run* bins_[kBins] = {};
  std::size_t held_ = 0, calls_ = 0;
};

}}}  // namespace plumb::v0_1::detail
