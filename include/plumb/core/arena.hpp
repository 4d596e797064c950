// Large blocks out of one range of addresses: reserved once, taken from the system as it fills, cut
// where a smaller block is wanted, and joined when neighbours come back. So tensors of any lengths
// use one another's memory again, where a list for each size would keep what each of them needed.
// Not here: small blocks, locks (core/memory.hpp).
#pragma once

#include <plumb/core/version.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#include <sys/mman.h>
#include <unistd.h>

namespace plumb { inline namespace v0_1 { namespace detail {

class Arena {
 public:
  /// Sizes and places are multiples of this: a page and a cache line, so that blocks do not all
  /// begin at the same place of a page, where accesses to them would hinder one another.
  static constexpr std::size_t kGranule = 4096 + 64;

  static std::size_t rounded(std::size_t bytes) {
    return (bytes + kGranule - 1) / kGranule * kGranule;
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
    unlink(run);
    const std::uint32_t first = place(run);
    Extent rest = *run;
    mark(first, rest.length, 0);
    // Behind its front it is not noted which pages are there: none of them, as far as any are not.
    const std::uint32_t asked = std::min(rest.absent, n - std::min(n, rest.front));
    held_ += asked * kGranule;
    calls_ += asked > 0 ? 1 : 0;
    rest.length -= n;
    rest.absent -= asked;
    rest.front = rest.absent == 0 ? rest.length : rest.front - std::min(n, rest.front);
    if (rest.length > 0) put(first + n, rest);
    return at(first);
  }

  void give(void* block, std::size_t bytes) {
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

  /// Gives the pages of what is free back to the system.
  void trim() {
    for (Run* head : bins_)
      for (Run* run = head; run != nullptr; run = run->next) {
        const auto begin =
            whole_page(reinterpret_cast<std::uintptr_t>(run) + sizeof(Run) + kPage - 1);
        const auto end = whole_page(reinterpret_cast<std::uintptr_t>(run) + run->length * kGranule);
        if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
        held_ -= (run->length - run->absent) * kGranule;
        run->absent = run->length;
        run->front = 0;
      }
  }

 private:
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

  static std::uintptr_t whole_page(std::uintptr_t address) { return address / kPage * kPage; }
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
    auto* run = new (at(first)) Run{free, head, &head};
    if (head != nullptr) head->link = &run->next;
    head = run;
    mark(first, free.length, free.length);
  }
  static void unlink(Run* run) {
    *run->link = run->next;
    if (run->next != nullptr) run->next->link = run->link;
  }
  Extent taken_out(std::uint32_t first) {
    auto* run = reinterpret_cast<Run*>(at(first));
    unlink(run);
    mark(first, run->length, 0);
    return *run;
  }
  static Extent joined(const Extent& a, const Extent& b) {
    return {a.length + b.length, a.absent + b.absent, a.absent == 0 ? a.length + b.front : a.front};
  }

  // Lengthens what is used of the range by as much as a run of n granules at its end lacks.
  bool extend(std::uint32_t n) {
    const std::uint32_t tail = end_ > 0 ? edges_[end_ - 1] : 0;
    const std::size_t end = end_ - tail + std::size_t{n}, enough = end * kGranule;
    if (enough > reserved_) return false;
    if (enough > opened_) {
      const std::size_t more = std::max(enough, opened_ + opened_ / 8);
      const std::size_t opened =
          std::min((more + kHugePage - 1) / kHugePage * kHugePage, reserved_);
      if (mprotect(base_, opened, PROT_READ | PROT_WRITE) != 0) return false;
#ifdef MADV_HUGEPAGE
      madvise(base_ + opened_, opened - opened_, MADV_HUGEPAGE);  // a wish: may fail
#endif
      opened_ = opened;
    }
    const std::uint32_t first = end_;
    Extent free{n - tail, 0, n - tail};
    held_ += free.length * kGranule;
    ++calls_;
    end_ += free.length;
    if (tail > 0) free = joined(taken_out(first - tail), free);
    put(first - tail, free);
    return true;
  }

  void* mapped_ = nullptr;
  char* base_ = nullptr;
  std::size_t reserved_ = 0, opened_ = 0;  // bytes from base_ on: that are ours, that may be used
  std::uint32_t end_ = 0;                  // granules that were used
  std::uint32_t* edges_ = nullptr;
  Run* bins_[kBins] = {};
  std::size_t held_ = 0, calls_ = 0;
};

}}}  // namespace plumb::v0_1::detail
