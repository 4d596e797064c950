// The operations of ptx_thread.hpp that threads do together, and the slow half of its checks.
#include <emulator/device.hpp>
#include <emulator/memory.hpp>
#include <emulator/ptx_thread.hpp>

#include <cstdlib>

namespace plumb::emulator::ptx {

namespace {

Place place_of(const Site* site) { return {site->file, site->line}; }

template <class F>
void for_each_lane(U32 mask, F f) {
  for (; mask != 0; mask &= mask - 1) f(static_cast<U32>(std::countr_zero(mask)));
}

/// What a lane brings to an operation, and what it takes home.
struct Exchange {
  U64 value, result;
  U32 source;
  bool outside;
};

U64 collect(void (*last)(void**, unsigned), U64 value, U32 mask, const Site* site) {
  Exchange mine{value, 0, 0, false};
  warp_collective(mask, site->opcode, &mine, last, place_of(site));
  return mine.result;
}
Exchange& at(void** lanes, U32 lane) { return *static_cast<Exchange*>(lanes[lane]); }

const char* verb(Access access) {
  return access == Access::read ? "read" : access == Access::write ? "write" : "atomic update";
}

}  // namespace

Thread::Thread(const void* parameters, Module& module)
    : tid(thread_index()), ntid(block_size()), ctaid(block_index()), nctaid(grid_size()),
      shared_(reinterpret_cast<std::byte*>(shared_memory())),
      shared_size_(static_cast<U32>(emulator::shared_bytes())),
      dynamic_offset_(static_cast<U32>(dynamic_shared_memory() - shared_memory())),
      thread_(current_thread()), traced_(trace_hooks.access != nullptr),
      parameters_(static_cast<const std::byte*>(parameters)), module_(module) {
  if (const std::uint64_t launch = counts().launches; module.launch != launch) {
    // What was allocated in the last launch may be free in this one.
    for (std::size_t i = 0; i < module.site_count; ++i) module.sites[i].limit = 0;
    module.launch = launch;
  }
}

// ---- Memory ------------------------------------------------------------------------------------

void Thread::misaligned(const char* space, U64 address, std::size_t bytes, Site* site) const {
  emulator::trap("misaligned", "%s of %zu bytes at the %s address 0x%llx, at %s:%d", site->opcode, bytes, space,
                 static_cast<unsigned long long>(address), site->file, site->line);
}

void Thread::outside_shared(U32 offset, std::size_t bytes, Access access, Site* site) const {
  emulator::trap("out-of-bounds", "shared %s of %zu bytes at offset %u of %u, %s at %s:%d", verb(access), bytes, offset,
                 shared_size_, site->opcode, site->file, site->line);
}

bool Thread::find_global(U64 address, std::size_t bytes, Access access, Site* site) const {
  const auto inside = [&](U64 low, std::size_t size) { return address >= low && bytes <= size && address - low <= size - bytes; };
  for (std::size_t i = 0; i < module_.data_count; ++i) {
    const Data& data = module_.data[i];
    if (!inside(address_of(data.start), data.bytes)) continue;
    if (data.constant && access != Access::read)
      emulator::trap("illegal-address", "%s to constant memory at %s:%d", verb(access), site->file, site->line);
    return false;
  }
  const void* p = reinterpret_cast<const void*>(address);
  const memory::Allocation* found = memory::find(p);
  if (found == nullptr && !is_device_address(p))
    emulator::trap("host-pointer", "global %s of host memory at address %p, %s at %s:%d", verb(access), p, site->opcode,
                   site->file, site->line);
  if (found == nullptr)
    emulator::trap("out-of-bounds", "global %s of %zu bytes at address %p, which is in no allocation, %s at %s:%d",
                   verb(access), bytes, p, site->opcode, site->file, site->line);
  const U64 low = address_of(found->address);
  if (!found->live)
    emulator::trap("use-after-free", "global %s of %zu bytes in allocation %llu, which was freed, %s at %s:%d", verb(access),
                   bytes, static_cast<unsigned long long>(found->serial), site->opcode, site->file, site->line);
  if (!inside(low, found->bytes))
    emulator::trap("out-of-bounds", "global %s of %zu bytes at offset %lld of an allocation of %zu, %s at %s:%d",
                   verb(access), bytes, static_cast<long long>(address - low), found->bytes, site->opcode, site->file, site->line);
  site->low = low;
  site->limit = found->bytes - bytes + 1;
  return true;
}

void* Thread::checked_slowly(Space space, U64 address, std::size_t bytes, Access access, Site* site) const {
  if (space == Space::generic && is_in(Space::shared, address))
    return checked<Space::shared>(static_cast<U32>(shared_from_generic(address)), bytes, access, site);
  const auto* p = reinterpret_cast<const std::byte*>(address);
  if (space == Space::local || fiber_stacks.contains(p)) {
    if ((address & (bytes - 1)) != 0) misaligned("local", address, bytes, site);
    for (const LocalMemory* m = locals; m != nullptr; m = m->outer)
      if (p >= m->low && p + bytes <= m->high) return const_cast<std::byte*>(p);
    emulator::trap("out-of-bounds", "local %s of %zu bytes outside the thread's arrays, %s at %s:%d", verb(access), bytes,
                   site->opcode, site->file, site->line);
  }
  if (p >= parameters_ && p + bytes <= parameters_ + current_launch().parameter_bytes) {
    if (access != Access::read)
      emulator::trap("illegal-address", "%s to a kernel's parameters at %s:%d", verb(access), site->file, site->line);
    return const_cast<std::byte*>(p);
  }
  return checked<Space::global>(address, bytes, access, site);
}

std::byte* Thread::parameter_at(U64 address, U32 bytes, Site* site) const {
  const auto* p = reinterpret_cast<const std::byte*>(address);
  if (p < parameters_ || p + bytes > parameters_ + current_launch().parameter_bytes)
    emulator::trap("out-of-bounds", "%s beyond the kernel's parameters at %s:%d", site->opcode, site->file, site->line);
  return const_cast<std::byte*>(p);
}

bool Thread::is_in(Space space, U64 address) const {
  const auto* p = reinterpret_cast<const std::byte*>(address);
  const bool shared = p >= shared_ && p < shared_ + shared_capacity, local = fiber_stacks.contains(p);
  const bool constant = [&] {
    for (std::size_t i = 0; i < module_.data_count; ++i)
      if (const Data& d = module_.data[i]; d.constant && p >= d.start && p < d.start + d.bytes) return true;
    return false;
  }();
  switch (space) {
    case Space::shared: return shared;
    case Space::local: return local;
    case Space::constant: return constant;
    case Space::global: return !shared && !local && !constant;
    default: return true;
  }
}

// ---- Barriers, votes, shuffles -----------------------------------------------------------------

void Thread::barrier(Site* site) const { emulator::barrier(Barrier::plain, 0, place_of(site)); }
U32 Thread::barrier_popc(bool predicate, Site* site) const {
  return static_cast<U32>(emulator::barrier(Barrier::count, predicate, place_of(site)));
}
bool Thread::barrier_and(bool predicate, Site* site) const { return emulator::barrier(Barrier::all, predicate, place_of(site)) != 0; }
bool Thread::barrier_or(bool predicate, Site* site) const { return emulator::barrier(Barrier::any, predicate, place_of(site)) != 0; }

void Thread::warp_barrier(U32 mask, Site* site) const {
  warp_collective(mask, site->opcode, nullptr, nullptr, place_of(site), true);
}

Shuffled Thread::shuffle(Shuffle mode, U32 value, U32 by, U32 clamp, U32 mask, Site* site) const {
  // PTX ISA, shfl.sync: the segment of the lane, its last (or for `up` first) member, the source.
  const int lane_id = static_cast<int>(lane()), segment = static_cast<int>((clamp >> 8) & 31), c = static_cast<int>(clamp & 31);
  const int last = (lane_id & segment) | (c & ~segment), first = lane_id & segment, b = static_cast<int>(by & 31);
  int source = 0;
  bool in_range = false;
  switch (mode) {
    case Shuffle::up: source = lane_id - b; in_range = source >= last; break;
    case Shuffle::down: source = lane_id + b; in_range = source <= last; break;
    case Shuffle::bfly: source = lane_id ^ b; in_range = source <= last; break;
    case Shuffle::idx: source = first | (b & ~segment); in_range = source <= last; break;
  }
  Exchange mine{value, 0, static_cast<U32>(in_range ? source : lane_id), false};
  warp_collective(mask, site->opcode, &mine, [](void** lanes, unsigned members) {
    for_each_lane(members, [&](U32 l) {
      Exchange& e = at(lanes, l);
      e.outside = (members >> e.source & 1) == 0;
      if (!e.outside) e.result = at(lanes, e.source).value;
    });
  }, place_of(site));
  if (mine.outside)
    emulator::trap("warp-mask", "%s at %s:%d reads from lane %u, which the mask %08x lacks", site->opcode, site->file,
                   site->line, mine.source, mask);
  return {static_cast<U32>(mine.result), in_range};
}

U32 Thread::vote_ballot(bool predicate, U32 mask, Site* site) const {
  return static_cast<U32>(collect([](void** lanes, unsigned members) {
    U64 bits = 0;
    for_each_lane(members, [&](U32 l) { bits |= at(lanes, l).value << l; });
    for_each_lane(members, [&](U32 l) { at(lanes, l).result = bits; });
  }, predicate, mask, site));
}
bool Thread::vote_any(bool predicate, U32 mask, Site* site) const { return vote_ballot(predicate, mask, site) != 0; }
bool Thread::vote_all(bool predicate, U32 mask, Site* site) const { return vote_ballot(!predicate, mask, site) == 0; }
bool Thread::vote_uni(bool predicate, U32 mask, Site* site) const {
  // The first lane's predicate decides what all must equal.
  return collect([](void** lanes, unsigned members) {
    const U64 one = at(lanes, static_cast<U32>(std::countr_zero(members))).value;
    bool same = true;
    for_each_lane(members, [&](U32 l) { same = same && at(lanes, l).value == one; });
    for_each_lane(members, [&](U32 l) { at(lanes, l).result = same; });
  }, predicate, mask, site) != 0;
}

U32 Thread::active_mask() const { return emulator::active_mask(); }

U32 Thread::match_any(U64 value, U32 mask, Site* site) const {
  return static_cast<U32>(collect([](void** lanes, unsigned members) {
    for_each_lane(members, [&](U32 l) {
      Exchange& mine = at(lanes, l);
      for_each_lane(members, [&](U32 k) { mine.result |= U64{at(lanes, k).value == mine.value} << k; });
    });
  }, value, mask, site));
}
U32 Thread::match_all(U64 value, U32 mask, Site* site) const {
  return static_cast<U32>(collect([](void** lanes, unsigned members) {
    const U64 one = at(lanes, static_cast<U32>(std::countr_zero(members))).value;
    bool same = true;
    for_each_lane(members, [&](U32 l) { same = same && at(lanes, l).value == one; });
    for_each_lane(members, [&](U32 l) { at(lanes, l).result = same ? members : 0; });
  }, value, mask, site));
}

U64 reduce_lanes(U64 value, U32 mask, U64 (*combine)(U64, U64, const void*), const void* context, const Site* site) {
  struct Reduce {
    U64 value;
    U64 (*combine)(U64, U64, const void*);
    const void* context;
  } mine{value, combine, context};
  warp_collective(mask, site->opcode, &mine, [](void** lanes, unsigned members) {
    const auto of = [&](U32 l) -> Reduce& { return *static_cast<Reduce*>(lanes[l]); };
    const Reduce first = of(static_cast<U32>(std::countr_zero(members)));
    U64 sum = first.value;
    for_each_lane(members & (members - 1), [&](U32 l) { sum = first.combine(sum, of(l).value, first.context); });
    for_each_lane(members, [&](U32 l) { of(l).value = sum; });
  }, place_of(site));
  return mine.value;
}

// ---- Asynchronous copies and tensor cores ------------------------------------------------------

void Thread::copy_async(U32 shared, U64 global, U32 bytes, U32 source_bytes, Site* site) const {
  if (source_bytes > bytes)
    emulator::trap("cp-async", "%s of %u bytes from a source of %u at %s:%d", site->opcode, bytes, source_bytes, site->file,
                   site->line);
  if ((shared & (bytes - 1)) != 0) misaligned("shared", shared, bytes, site);
  if ((global & (bytes - 1)) != 0) misaligned("global", global, bytes, site);
  if (U64{shared} + bytes > shared_size_) outside_shared(shared, bytes, Access::write, site);
  // The bytes that are read must be there; those that become zeros need not.
  if (source_bytes != 0) find_global(global, source_bytes, Access::read, site);
  emulator::copy_async(shared_ + shared, reinterpret_cast<const void*>(global), bytes, source_bytes, place_of(site),
                       reinterpret_cast<const void*>(site->number));
}
void Thread::copy_commit() const { copy_async_commit(); }
void Thread::copy_wait(U32 pending, Site* site) const { copy_async_wait(pending, place_of(site)); }

void Thread::copy_wait_all(Site* site) const {
  copy_async_commit();  // it waits for copies of no group, too
  copy_async_wait(0, place_of(site));
}

void Thread::load_matrices(U32* values, int count, bool transposed, U32 row, Site* site) const {
  struct Load {
    U32* values;
    const void* row;
    int count;
    bool transposed;
  } mine{values, nullptr, count, transposed};
  // Lane 8m + i brings row i of matrix m; what the other lanes bring is not looked at.
  if (static_cast<int>(lane()) < 8 * count) mine.row = checked<Space::shared>(row, 16, Access::read, site);
  warp_collective(~0U, site->opcode, &mine, [](void** lanes, unsigned) {
    const Load first = *static_cast<Load*>(lanes[0]);
    for (U32 m = 0; m < static_cast<U32>(first.count); ++m) {
      U16 matrix[8][8];
      for (U32 i = 0; i < 8; ++i) std::memcpy(matrix[i], static_cast<Load*>(lanes[8 * m + i])->row, 16);
      for (U32 l = 0; l < 32; ++l) {
        const U32 major = l / 4, minor = l % 4 * 2;
        const U32 low = first.transposed ? matrix[minor][major] : matrix[major][minor];
        const U32 high = first.transposed ? matrix[minor + 1][major] : matrix[major][minor + 1];
        static_cast<Load*>(lanes[l])->values[m] = low | high << 16;
      }
    }
  }, place_of(site));
}

Sums Thread::multiply_bf16(Fragment4 a, Fragment2 b, Sums c, Site* site) const {
  emulator::multiply_bf16(c.data(), a.data(), b.data(), place_of(site));
  return c;
}
Sums Thread::multiply_tf32(Fragment4 a, Fragment2 b, Sums c, Site* site) const {
  emulator::multiply_tf32(c.data(), a.data(), b.data(), place_of(site));
  return c;
}

// ---- Ends --------------------------------------------------------------------------------------

void Thread::trap(Site* site) const { emulator::trap("trap", "trap at %s:%d", site->file, site->line); }
void Thread::bad_branch(Site* site) const {
  emulator::trap("trap", "index of %s beyond its targets at %s:%d", site->opcode, site->file, site->line);
}
void Thread::assertion_failed(const std::byte* message, const std::byte* file, const std::byte* line,
                              const std::byte*, Site*) const {
  emulator::trap("assertion", "%s at %s:%u", reinterpret_cast<const char*>(parameter<U64>(message, 0)),
                 reinterpret_cast<const char*>(parameter<U64>(file, 0)), parameter<U32>(line, 0));
}

}  // namespace plumb::emulator::ptx
