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
    return run != nullptr && run->absent == 0;
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
    const std::uint32_t first = place(run), length = run->length, absent = run->absent;
    mark(first, length, 0);
    // Which of its pages are not there is not noted: those of this block, as far as there are any.
    const std::uint32_t asked = std::min(absent, n);
    held_ += asked * kGranule;
    calls_ += asked > 0 ? 1 : 0;
    if (length > n) put(first + n, length - n, absent - asked);
    return at(first);
  }

  void give(void* block, std::size_t bytes) {
    std::uint32_t first = place(block), length = granules(bytes), absent = 0;
    if (first > 0 && edges_[first - 1] > 0) join(first - edges_[first - 1], first, length, absent);
    if (first + length < end_ && edges_[first + length] > 0)
      join(first + length, first, length, absent);
    put(first, length, absent);
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
      }
  }

 private:
  static constexpr std::size_t kHugePage = std::size_t{2} << 20, kPage = 4096;
  static constexpr int kBins = 4 * 32;

  // A free run of granules; it is noted in its own first one.
  struct Run {
    Run *next, **link;
    std::uint32_t length;
    std::uint32_t absent;  // granules of it that the system has
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

  // The shortest run of at least n granules in the first bin that has one; of those whose pages are
  // all there, if there is one.
  Run* find(std::uint32_t n) const {
    Run* other = nullptr;
    for (int bin = bin_of(n); bin < kBins; ++bin) {
      Run* best = nullptr;
      for (Run* run = bins_[bin]; run != nullptr; run = run->next) {
        if (run->length < n) continue;
        Run*& of_kind = run->absent > 0 ? other : best;
        if (of_kind == nullptr || run->length < of_kind->length) of_kind = run;
      }
      if (best != nullptr) return best;
    }
    return other;
  }

  void put(std::uint32_t first, std::uint32_t length, std::uint32_t absent) {
    Run*& head = bins_[bin_of(length)];
    auto* run = new (at(first)) Run{head, &head, length, absent};
    if (head != nullptr) head->link = &run->next;
    head = run;
    mark(first, length, length);
  }
  static void unlink(Run* run) {
    *run->link = run->next;
    if (run->next != nullptr) run->next->link = run->link;
  }
  void join(std::uint32_t other, std::uint32_t& first, std::uint32_t& length,
            std::uint32_t& absent) {
    auto* run = reinterpret_cast<Run*>(at(other));
    unlink(run);
    mark(other, run->length, 0);
    first = std::min(first, other);
    length += run->length;
    absent += run->absent;
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
    std::uint32_t first = end_, length = n - tail, absent = 0;
    held_ += length * kGranule;
    ++calls_;
    end_ += length;
    if (tail > 0) join(first - tail, first, length, absent);
    put(first, length, absent);
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
