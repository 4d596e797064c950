// Device memory: allocations from one reserved range of addresses, which the host cannot touch
// except while the emulator works. New memory is NaN, freed memory too, and its addresses are used
// again only when the range is exhausted. What was written past an allocation's end shows when it
// is freed. Allocations are aligned to 256 bytes, as CUDA promises, and not to 512; at least 256
// bytes lie between two.
//
// Cost: 4 bytes of index per 256 of memory, two mprotect of what is in use each time that queued
// work runs (some 10 ns a page of 4 KiB); not where more than 16 MiB are in use: then the host can
// touch it at any time, and nobody says so.
#include <emulator/core_internal.hpp>
#include <emulator/fiber.hpp>
#include <emulator/memory.hpp>
#include <emulator/setting.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <utility>

#include <sys/mman.h>

namespace plumb::emulator {

Range device_addresses;

namespace memory {

TraceHooks trace_hooks{};

namespace {

constexpr std::size_t reserved = std::size_t{128} << 30;
constexpr std::size_t granule = 256;
constexpr char margin_byte = 0x3A;  // 0.0007 as a float: what is added to it shows, too
constexpr std::size_t quarantine_bytes = std::size_t{8} << 20;
// Opening and closing costs time for each page in use: with more than this the range stays open.
constexpr std::size_t guarded_bytes = std::size_t{16} << 20;

char* base = nullptr;
std::uint32_t* owners = nullptr;  // for each granule: index of its allocation plus 1
std::deque<Allocation> allocations;
std::deque<Allocation*> quarantine;  // freed, contents still poison
std::size_t quarantined = 0;
std::size_t high_water = 0;  // offset of the first address never used
std::size_t live_bytes = 0;
int accesses = 0;
bool open_to_host = false;  // the range up to high_water

std::size_t read_limit() {
  return setting("PLUMB_EMULATOR_MEMORY", 4096, 1 << 20) << 20;  // MiB
}
std::size_t memory_limit = read_limit();

void* reserve(std::size_t bytes, int protection) {
  void* p = mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) {
    std::perror("plumb emulator: mmap of device memory");
    std::abort();
  }
  return p;
}

// Opens or closes a part of the range; a page that is shared with a neighbour goes with it.
void protect(std::size_t begin, std::size_t end, int protection) {
  begin = begin / 4096 * 4096;
  end = (end + 4095) / 4096 * 4096;
  if (end > begin) mprotect(base + begin, end - begin, protection);
}

// Addresses of freed memory that left the quarantine, by number of granules.
std::multimap<std::size_t, std::size_t> reusable;

/// The bytes from the end of an allocation to the granule after it, where nobody writes.
char* margin(const Allocation& a, std::size_t& bytes) {
  const std::size_t end = (a.bytes + granule - 1) / granule * granule + granule;
  bytes = end - a.bytes;
  return a.address + a.bytes;
}

void check_margin(const Allocation& a) {
  if (under_asan()) return;
  std::size_t room;
  const char* after = margin(a, room);
  const Access access;
  if (std::all_of(after, after + room, [](char c) { return c == margin_byte; })) return;
  report("out-of-bounds", "something was written past the end of the %zu bytes at %p", a.bytes,
         static_cast<void*>(a.address));
  set_device_error(cudaErrorIllegalAddress);
}

/// Offset of so many granules, or 0.
std::size_t take_addresses(std::size_t granules) {
  // An odd granule from the last one, and one between at least.
  const std::size_t offset = (high_water + 2 * granule) / (2 * granule) * (2 * granule) + granule;
  const std::size_t end = offset + (granules + 1) * granule;
  if (end <= reserved) {
    poison(base + high_water, end - high_water);
    if (open_to_host) protect(high_water, end, PROT_READ | PROT_WRITE);
    high_water = end;
    return offset;
  }
  const auto it = reusable.lower_bound(granules);
  if (it == reusable.end()) return 0;
  const std::size_t found = it->second;
  reusable.erase(it);
  return found;
}

void let_go(Allocation& a) {
  const std::size_t granules = (a.bytes + granule - 1) / granule;
  const std::size_t offset = static_cast<std::size_t>(a.address - base);
  reusable.emplace(granules, offset);
  const std::size_t begin = (offset + 4095) / 4096 * 4096;
  const std::size_t end = (offset + a.bytes) / 4096 * 4096;
  if (end > begin) madvise(base + begin, end - begin, MADV_DONTNEED);
  std::free(a.shadow);
  a.shadow = nullptr;
}

}  // namespace

Access::Access() {
  install_fault_handler();
  ++accesses;
  if (!std::exchange(open_to_host, true)) protect(0, high_water, PROT_READ | PROT_WRITE);
}
Access::~Access() {
  if (--accesses != 0 || live_bytes + quarantined > guarded_bytes) return;
  open_to_host = false;
  protect(0, high_water, PROT_NONE);
}

Allocation* allocate(std::size_t bytes) {
  install_fault_handler();
  if (base == nullptr) {
    base = static_cast<char*>(reserve(reserved, PROT_NONE));
    device_addresses = {base, base + reserved};
    owners = static_cast<std::uint32_t*>(
        reserve(reserved / granule * sizeof owners[0], PROT_READ | PROT_WRITE));
  }
  if (bytes > memory_limit || live_bytes + bytes > memory_limit) return nullptr;
  const std::size_t granules = (bytes + granule - 1) / granule;
  const std::size_t offset = take_addresses(granules);
  if (offset == 0) return nullptr;
  allocations.push_back({base + offset, bytes, allocations.size() + 1, true, nullptr});
  for (std::size_t g = 0; g < granules && !OnlyEnds::here(); ++g)
    owners[offset / granule + g] = static_cast<std::uint32_t>(allocations.size());
  live_bytes += bytes;
  std::size_t room;
  char* after = margin(allocations.back(), room);
  if (!under_asan()) fill(after, margin_byte, room);
  unpoison(base + offset, bytes);
  return &allocations.back();
}

void release(Allocation& a) {
  check_margin(a);
  if (!OnlyEnds::here()) fill(a.address, 0xFF, a.bytes);
  poison(a.address, a.bytes);
  a.live = false;
  live_bytes -= a.bytes;
  if (trace_hooks.released != nullptr) trace_hooks.released(a);
  quarantine.push_back(&a);
  quarantined += a.bytes;
  for (; quarantined > quarantine_bytes; quarantine.pop_front()) {
    quarantined -= quarantine.front()->bytes;
    let_go(*quarantine.front());
  }
}

Allocation* find(const void* p) noexcept {
  if (!is_device_address(p)) return nullptr;
  const auto offset = static_cast<std::size_t>(static_cast<const char*>(p) - base);
  if (OnlyEnds::here()) {  // whose memory the index does not hold: it would be large itself
    const auto covers = [p](const Allocation& a) {
      return p >= a.address && p < a.address + a.bytes;
    };
    const auto last = std::find_if(allocations.rbegin(), allocations.rend(), covers);
    if (last != allocations.rend()) return &*last;
  }
  const std::uint32_t owner = owners[offset / granule];
  return owner == 0 ? nullptr : &allocations[owner - 1];
}

void fill(void* p, int byte, std::size_t n) {
  const auto offset = static_cast<std::size_t>(static_cast<char*>(p) - base);
  if (!open_to_host) protect(offset, offset + n, PROT_READ | PROT_WRITE);
  std::memset(p, byte, n);
  if (!open_to_host) protect(offset, offset + n, PROT_NONE);
}

std::size_t used() { return live_bytes; }
std::size_t limit() { return memory_limit; }

const std::deque<Allocation>& all() { return allocations; }

}  // namespace memory

bool is_device_address(const void* p) noexcept { return device_addresses.contains(p); }

bool is_live_device_range(const void* p, std::size_t bytes) noexcept {
  const memory::Allocation* a = memory::find(p);
  return a != nullptr && a->live && static_cast<const char*>(p) + bytes <= a->address + a->bytes;
}

void note_host_write(const void* p, std::size_t bytes) {
  if (memory::trace_hooks.initialised == nullptr || bytes == 0) return;
  if (memory::Allocation* a = memory::find(p)) memory::trace_hooks.initialised(*a, p, bytes);
}

void set_memory_limit(std::size_t bytes) { memory::memory_limit = bytes; }

}  // namespace plumb::emulator
