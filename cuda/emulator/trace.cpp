// The memory tracer: sees every load and store of kernels compiled with -fsanitize=thread, since it
// defines the hooks that the compiler calls (libtsan is not linked), and checks
//
//   - where: in a live allocation of device memory, or the block's shared memory, aligned;
//   - races: within a block unless a barrier, or in a warp a __syncwarp, lies between, and between
//     blocks of a launch; a shuffle orders nothing. Atomics do not race with each other;
//   - reads of memory that nobody has written: shared since the block's start, global ever.
//
// Each 2 bytes of memory have a shadow cell: who wrote last, and who read. Of several readers only
// what tells whether one of them conflicts is kept. Limits: a variable past whose end another one
// lies looks like that one (static shared memory; UBSan finds it); __syncwarp of a part of a warp
// counts as no order. Cost: 8 bytes of shadow a byte, some 10 ns an access.
#include <emulator/core_internal.hpp>
#include <emulator/memory.hpp>
#include <emulator/trace.hpp>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <set>
#include <unordered_map>

namespace plumb::emulator {

namespace {

constexpr std::size_t cell_bytes = 2;

/// Who made an access, packed so that a cell is compared and copied at once: from the top, 32 bits
/// of the clock's epoch (0: nobody, 1: the host), 16 of the warp's segment, 10 of the thread,
/// flags.
struct Record {
  std::uint64_t bits = 0;
  static constexpr std::uint64_t many_threads = 1, many_warps = 2, many_blocks = 4, atomic = 8,
                                 one_byte = 16,  // only one of the cell's bytes, and which:
      odd = 32;

  static Record of(std::uint32_t epoch, std::uint16_t segment, unsigned thread,
                   std::uint64_t flags) {
    return {std::uint64_t{epoch} << 32 | std::uint64_t{segment} << 16 | thread << 6 | flags};
  }
  std::uint32_t epoch() const { return static_cast<std::uint32_t>(bits >> 32); }
  unsigned segment() const { return bits >> 16 & 0xFFFF; }
  unsigned thread() const { return bits >> 6 & 1023; }
  bool has(std::uint64_t flag) const { return (bits & flag) != 0; }
  bool same_block() const { return epoch() >= clock.block_first; }
};
struct Cell {
  Record writer, reader;
};
static_assert(sizeof(Cell) == 16);

struct Space {
  bool shared;
  Cell* cells;         ///< of the range
  std::size_t offset;  ///< of the access in it
  const char* name;
};

Cell* allocate_cells(std::size_t bytes) {
  void* p = std::calloc(bytes / cell_bytes + 2, sizeof(Cell));
  if (p == nullptr) std::abort();
  return static_cast<Cell*>(p);
}

/// Whether the access `now` is unordered with the recorded one.
bool conflicts(Record r, Record now, bool shared) {
  if (r.epoch() < clock.launch_first || r.bits == now.bits) return false;
  if (r.has(Record::atomic) && now.has(Record::atomic)) return false;
  if (r.has(Record::one_byte) && now.has(Record::one_byte) &&
      r.has(Record::odd) != now.has(Record::odd))
    return false;
  if (!shared && (r.has(Record::many_blocks) || !r.same_block())) return true;
  if (r.epoch() != now.epoch()) return false;  // another block's shared memory, or before a barrier
  if (r.thread() == now.thread() && !r.has(Record::many_threads)) return false;
  if (r.thread() / 32 == now.thread() / 32 && !r.has(Record::many_warps))
    return r.segment() == now.segment();
  return true;
}

/// The readers after one more: of those in the same epoch, what they have in common.
Record with_reader(Record r, Record now) {
  if (r.epoch() < clock.launch_first || r.bits == now.bits) return now;
  std::uint64_t bits = now.bits;
  if (r.has(Record::many_blocks) || !r.same_block()) bits |= Record::many_blocks;
  if (r.epoch() != now.epoch()) return {bits};
  constexpr std::uint64_t many = Record::many_threads | Record::many_warps;
  if (r.has(Record::many_warps) || r.thread() / 32 != now.thread() / 32)
    bits |= many;
  else if (r.segment() == now.segment())
    bits |= r.thread() != now.thread() ? Record::many_threads : r.bits & Record::many_threads;
  if (!r.has(Record::atomic)) bits &= ~Record::atomic;
  if (!r.has(Record::one_byte) || r.has(Record::odd) != now.has(Record::odd))
    bits &= ~Record::one_byte;
  return {bits};
}

// --- Requests of warps ---

struct Request {
  std::uint32_t mask = 0;
  std::uint32_t size = 0;
  std::uintptr_t address[32];
};

struct Site {  // an instruction
  bool shared = false;
  std::vector<std::uint32_t> times = std::vector<std::uint32_t>(1024);  // per thread
  std::vector<std::vector<Request>> requests = std::vector<std::vector<Request>>(32);
};

struct Tracer {
  std::unordered_map<std::uintptr_t, Site> sites;
  Cell* dynamic_shared = nullptr;
  Cell* static_shared = nullptr;
  const SharedVariable* variables[4] = {};  // seen last
  unsigned next_variable = 0;
  TraceCounts* counts = nullptr;                   // of the kernel that runs
  std::set<std::pair<const void*, int>> reported;  // places, and what is wrong there
};
Tracer& tracer() {
  static Tracer* const all = new Tracer;
  return *all;
}

const SharedVariable* variable_at(const void* p, Tracer& t) {
  const char* c = static_cast<const char*>(p);
  for (const SharedVariable* v : t.variables)
    if (v != nullptr && c >= v->address && c < v->address + v->bytes) return v;
  return t.variables[t.next_variable++ % 4] = find_shared_variable(p);
}

void count_sectors(const Request& r) {
  std::uintptr_t sectors[64];
  int n = 0;
  std::uint64_t bytes = 0;
  for (unsigned l = 0; l < 32; ++l) {
    if ((r.mask >> l & 1) == 0) continue;
    bytes += r.size;
    for (std::uintptr_t s = r.address[l] / 32; s <= (r.address[l] + r.size - 1) / 32; ++s)
      if (n < 64 && std::find(sectors, sectors + n, s) == sectors + n) sectors[n++] = s;
  }
  TraceCounts& c = *tracer().counts;
  ++c.global_requests;
  c.global_sectors += static_cast<std::uint64_t>(n);
  c.global_ideal += (bytes + 31) / 32;
}

// Accesses of 8 bytes take two half warps, those of 16 four quarters; in each, a bank serves one
// word of 4 bytes a wavefront, to all lanes that want it.
void count_wavefronts(const Request& r) {
  TraceCounts& c = *tracer().counts;
  ++c.shared_requests;
  const unsigned lanes = r.size <= 4 ? 32 : r.size <= 8 ? 16 : 8;
  for (unsigned first = 0; first < 32; first += lanes) {
    std::uintptr_t words[32][32];
    int count[32] = {}, most = 0;
    for (unsigned l = first; l < first + lanes; ++l) {
      if ((r.mask >> l & 1) == 0) continue;
      for (std::uintptr_t w = r.address[l] / 4; w <= (r.address[l] + r.size - 1) / 4; ++w) {
        auto& bank = words[w % 32];
        int& n = count[w % 32];
        if (n < 32 && std::find(bank, bank + n, w) == bank + n) bank[n++] = w;
        most = std::max(most, n);
      }
    }
    c.shared_wavefronts += static_cast<std::uint64_t>(most);
    c.shared_ideal += most != 0;
  }
}

void add_to_request(const void* address, std::size_t size, bool shared, Access access,
                    const void* pc, unsigned thread) {
  const std::uintptr_t key = reinterpret_cast<std::uintptr_t>(pc) * 4 + (shared ? 2U : 0U) +
                             (access == Access::read ? 1U : 0U);
  Site& site = tracer().sites[key];
  site.shared = shared;
  auto& requests = site.requests[thread / 32];
  const std::uint32_t time = site.times[thread]++;
  if (requests.size() <= time) requests.resize(time + 1);
  Request& r = requests[time];
  r.mask |= 1U << thread % 32;
  r.size = static_cast<std::uint32_t>(size);
  r.address[thread % 32] = reinterpret_cast<std::uintptr_t>(address);
}

void end_segment(int warp) {
  if (!trace_transactions()) return;
  const Quiet quiet;
  for (auto& [key, site] : tracer().sites)
    for (unsigned w = 0; w < 32; ++w) {
      if ((warp >= 0 && w != static_cast<unsigned>(warp)) || site.requests[w].empty()) continue;
      for (const Request& r : site.requests[w])
        if (r.mask != 0) site.shared ? count_wavefronts(r) : count_sectors(r);
      site.requests[w].clear();
      std::fill_n(site.times.begin() + 32 * w, 32, 0);
    }
}

// --- One access ---

const char* verb(Access access) {
  return access == Access::read ? "read" : access == Access::atomic ? "atomic" : "write";
}

/// Where the access goes; traps where it must not, and is false where nothing is to be checked.
bool locate(const void* p, std::size_t n, Access access, const void* pc, Space& space) {
  const char* c = static_cast<const char*>(p);
  const std::size_t dynamic = static_cast<std::size_t>(c - shared_memory());
  if (device_addresses.contains(p)) {
    memory::Allocation* a = memory::find(p);
    if (a != nullptr && !a->live && c < a->address + a->bytes)
      trap("use-after-free", "%s of %zu bytes at %s: %p was freed", verb(access), n,
           describe_code(pc).c_str(), p);
    if (a == nullptr || c + n > a->address + a->bytes)
      trap("out-of-bounds",
           "%s of %zu bytes at %s: %p is outside of all allocations of device memory%s",
           verb(access), n, describe_code(pc).c_str(), p,
           a != nullptr ? ", past the end of one" : "");
    if (a->shadow == nullptr) a->shadow = allocate_cells(a->bytes);
    space = {false, static_cast<Cell*>(a->shadow), static_cast<std::size_t>(c - a->address),
             "global"};
  } else if (c >= shared_memory() && dynamic < shared_capacity) {
    if (dynamic + n > shared_bytes())
      trap("out-of-bounds", "%s of %zu bytes at %s: offset %zu of %zu bytes of shared memory",
           verb(access), n, describe_code(pc).c_str(), dynamic, shared_bytes());
    if (tracer().dynamic_shared == nullptr)
      tracer().dynamic_shared = allocate_cells(shared_capacity);
    space = {true, tracer().dynamic_shared, dynamic, "shared"};
  } else if (static_storage.contains(p)) {
    const SharedVariable* v = variable_at(p, tracer());
    if (v == nullptr || c + n > v->address + v->bytes)
      trap("out-of-bounds", "%s of %zu bytes at %s: no shared variable lies there", verb(access), n,
           describe_code(pc).c_str());
    if (tracer().static_shared == nullptr)
      tracer().static_shared =
          allocate_cells(static_cast<std::size_t>(static_storage.end - static_storage.begin));
    space = {true, tracer().static_shared, static_cast<std::size_t>(c - static_storage.begin),
             "shared"};
  } else {
    const Launch& launch = current_launch();
    const char* parameters = static_cast<const char*>(launch.parameters);
    const bool parameter = c >= parameters && c + n <= parameters + launch.parameter_bytes;
    if (access == Access::read && (parameter || program_image.contains(p))) return false;
    trap("host-pointer", "%s of %zu bytes at %s: %p is host memory", verb(access), n,
         describe_code(pc).c_str(), p);
  }
  return true;
}

void count(const Space& space, std::size_t n, Access access) {
  Tracer& t = tracer();
  if (t.counts == nullptr) {
    t.counts = &trace_counts()[current_launch().kernel->name];
    ++t.counts->launches;
  }
  TraceCounts& c = *t.counts;
  if (access != Access::write) {
    ++(space.shared ? c.shared_loads : c.global_loads);
    (space.shared ? c.shared_load_bytes : c.global_load_bytes) += n;
  }
  if (access != Access::read) {
    ++(space.shared ? c.shared_stores : c.global_stores);
    (space.shared ? c.shared_store_bytes : c.global_store_bytes) += n;
  }
}

[[gnu::noinline]] void report_uninitialised(const Space& space, Access access, const void* pc) {
  if (!tracer().reported.emplace(pc, 0).second) return;
  report("uninitialised", "%s of %s memory at %s that nobody has written", verb(access), space.name,
         describe_code(pc).c_str());
}

[[gnu::noinline]] void report_race(Record other, bool after_write, const Space& space,
                                   Access access, const void* pc) {
  if (!tracer().reported.emplace(pc, after_write ? 1 : 2).second) return;
  report("race",
         "%s of %s memory at %s after a %s by thread %u of %s block, with no barrier between",
         verb(access), space.name, describe_code(pc).c_str(), after_write ? "write" : "read",
         other.thread(),
         other.same_block() && !other.has(Record::many_blocks) ? "the same" : "another");
}

/// The cell after the access.
Cell check_cell(Cell cell, Record now, const Space& space, Access access, const void* pc) {
  const bool writes = access != Access::read, reads = access != Access::write;
  if (reads && !(space.shared ? cell.writer.same_block() : cell.writer.epoch() != 0))
    report_uninitialised(space, access, pc);
  if (conflicts(cell.writer, now, space.shared))
    report_race(cell.writer, true, space, access, pc);
  else if (writes && conflicts(cell.reader, now, space.shared))
    report_race(cell.reader, false, space, access, pc);
  if (writes) cell.writer = now;
  if (reads) cell.reader = with_reader(cell.reader, now);
  return cell;
}

void on_access(const void* p, std::size_t n, Access access, const void* pc) {
  if (!in_kernel() || Quiet::depth != 0 || n == 0 || fiber_stacks.contains(p)) return;
  const Quiet quiet;
  Space space{};
  if (!locate(p, n, access, pc, space)) return;
  const unsigned thread = current_thread();
  if (access == Access::arrival) {
    access = Access::write;  // counted when it was issued
  } else {
    count(space, n, access);
    if (trace_transactions()) add_to_request(p, n, space.shared, access, pc, thread);
  }
  const std::uint64_t flags = (access == Access::atomic ? Record::atomic : 0) |
                              (n == 1 ? Record::one_byte : 0) |
                              (space.offset % 2 != 0 ? Record::odd : 0);
  const Record now = Record::of(clock.epoch, warp_segment(thread / 32), thread, flags);
  // Neighbours mostly have the same history: what holds for one holds for the next.
  Cell* cell = space.cells + space.offset / cell_bytes;
  Cell* const last = space.cells + (space.offset + n - 1) / cell_bytes;
  Cell before = *cell;
  Cell after = *cell = check_cell(before, now, space, access, pc);
  while (++cell <= last) {
    if (cell->writer.bits != before.writer.bits || cell->reader.bits != before.reader.bits) {
      before = *cell;
      after = check_cell(before, now, space, access, pc);
    }
    *cell = after;
  }
}

void on_aligned_access(const void* p, std::size_t n, Access access, const void* pc) {
  if (!in_kernel() || Quiet::depth != 0) return;
  if (reinterpret_cast<std::uintptr_t>(p) % n != 0)
    trap("misaligned", "%s of %zu bytes at address %p at %s", verb(access), n, p,
         describe_code(pc).c_str());
  on_access(p, n, access, pc);
}

void end_launch() {
  tracer().counts = nullptr;
  tracer().reported.clear();
}

void on_initialised(memory::Allocation& a, const void* p, std::size_t n) {
  if (n == 0) return;
  if (a.shadow == nullptr) a.shadow = allocate_cells(a.bytes);
  const std::size_t offset = static_cast<std::size_t>(static_cast<const char*>(p) - a.address);
  Cell host;
  host.writer = Record::of(1, 0, 0, 0);
  auto* cells = static_cast<Cell*>(a.shadow);
  std::fill(cells + offset / cell_bytes, cells + (offset + n - 1) / cell_bytes + 1, host);
}

const bool installed = [] {
  trace_hooks = {on_access, end_segment, end_launch};
  memory::trace_hooks = {nullptr, on_initialised};
  return true;
}();

}  // namespace
}  // namespace plumb::emulator

// --- The compiler's hooks ----------------------------------------------------------------------

using plumb::emulator::Access;
#define PC __builtin_return_address(0)

extern "C" {
// NOLINTBEGIN
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

#define HOOKS(n)                                                                                   \
  void __tsan_read##n(void* p) { plumb::emulator::on_aligned_access(p, n, Access::read, PC); }     \
  void __tsan_write##n(void* p) { plumb::emulator::on_aligned_access(p, n, Access::write, PC); }   \
  void __tsan_unaligned_read##n(void* p) { plumb::emulator::on_access(p, n, Access::read, PC); }   \
  void __tsan_unaligned_write##n(void* p) { plumb::emulator::on_access(p, n, Access::write, PC); } \
  void __tsan_volatile_read##n(void* p) {                                                          \
    plumb::emulator::on_aligned_access(p, n, Access::read, PC);                                    \
  }                                                                                                \
  void __tsan_volatile_write##n(void* p) {                                                         \
    plumb::emulator::on_aligned_access(p, n, Access::write, PC);                                   \
  }
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
#undef HOOKS
void __tsan_read_range(void* p, unsigned long n) {
  plumb::emulator::on_access(p, n, Access::read, PC);
}
void __tsan_write_range(void* p, unsigned long n) {
  plumb::emulator::on_access(p, n, Access::write, PC);
}

#define ATOMICS(bits, T)                                                                    \
  T __tsan_atomic##bits##_load(const volatile T* p, int) {                                  \
    plumb::emulator::on_aligned_access(const_cast<T*>(p), bits / 8, Access::atomic, PC);    \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                            \
  }                                                                                         \
  void __tsan_atomic##bits##_store(volatile T* p, T v, int) {                               \
    plumb::emulator::on_aligned_access(const_cast<T*>(p), bits / 8, Access::atomic, PC);    \
    __atomic_store_n(p, v, __ATOMIC_SEQ_CST);                                               \
  }                                                                                         \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile T* p, T* e, T v, int, int) {   \
    plumb::emulator::on_aligned_access(const_cast<T*>(p), bits / 8, Access::atomic, PC);    \
    return __atomic_compare_exchange_n(p, e, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
  }                                                                                         \
  int __tsan_atomic##bits##_compare_exchange_weak(volatile T* p, T* e, T v, int, int) {     \
    plumb::emulator::on_aligned_access(const_cast<T*>(p), bits / 8, Access::atomic, PC);    \
    return __atomic_compare_exchange_n(p, e, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
  }                                                                                         \
  T __tsan_atomic##bits##_exchange(volatile T* p, T v, int) {                               \
    plumb::emulator::on_aligned_access(const_cast<T*>(p), bits / 8, Access::atomic, PC);    \
    return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);                                     \
  }
#define FETCH(bits, T, operation)                                                        \
  T __tsan_atomic##bits##_fetch_##operation(volatile T* p, T v, int) {                   \
    plumb::emulator::on_aligned_access(const_cast<T*>(p), bits / 8, Access::atomic, PC); \
    return __atomic_fetch_##operation(p, v, __ATOMIC_SEQ_CST);                           \
  }
#define ALL_ATOMICS(bits, T) \
  ATOMICS(bits, T)           \
  FETCH(bits, T, add)        \
  FETCH(bits, T, sub)        \
  FETCH(bits, T, and) FETCH(bits, T, or) FETCH(bits, T, xor)
ALL_ATOMICS(8, unsigned char)
ALL_ATOMICS(16, unsigned short)
ALL_ATOMICS(32, unsigned)
ALL_ATOMICS(64, unsigned long)
void __tsan_atomic_thread_fence(int) {}
void __tsan_atomic_signal_fence(int) {}
// NOLINTEND
}
