// A thread of translated PTX: its special registers, its memory accesses, and the operations that it
// shares with its warp and block.
//
// Addresses. Shared memory is a window: a shared address is an offset into the block's shared memory, a
// generic one is the host's address of that byte. Global, constant, local and parameter addresses are the
// host's in every space.
//
// Each access is checked, always: natural alignment of the whole vector, and bounds - shared against the
// block's size, global against a live allocation, local against the thread's own arrays. A violation
// ends the launch as it would on a GPU. Races, uninitialised shared memory and the counts of sectors and
// wavefronts are the tracer's (trace.cpp), which hears of each access if it is linked.
//
// Cost: the check is two loads and two comparisons, for global memory against the allocation that the
// same instruction found last.
#pragma once

#include <emulator/core_internal.hpp>
#include <emulator/ptx_arithmetic.hpp>
#include <emulator/ptx_module.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace plumb::emulator::ptx {

using U8 = std::uint8_t;
using U16 = std::uint16_t;
using U32 = std::uint32_t;
using U64 = std::uint64_t;
using S8 = std::int8_t;
using S16 = std::int16_t;
using S32 = std::int32_t;
using S64 = std::int64_t;
using F32 = float;
using F64 = double;

enum class Space { generic, global, shared, local, constant };
enum class Shuffle { up, down, bfly, idx };
struct Shuffled {
  U32 value;
  bool in_range;
};
using Fragment4 = std::array<U32, 4>;
using Fragment2 = std::array<U32, 2>;
using Sums = std::array<float, 4>;

inline U64 address_of(const void* p) { return reinterpret_cast<U64>(p); }
template <class T> T parameter(const std::byte* bytes, int index) {
  T value;
  std::memcpy(&value, bytes + static_cast<std::size_t>(index) * sizeof(T), sizeof(T));
  return value;
}
template <class T> void set_parameter(std::byte* bytes, int index, T value) {
  std::memcpy(bytes + static_cast<std::size_t>(index) * sizeof(T), &value, sizeof(T));
}
/// Two small floats in a register, the first in the low half.
template <class T> U32 pair_of(T low, T high) { return U32{low.bits} | (U32{high.bits} << 16); }
template <class T> T atomic_add(T a, T b) {
  if constexpr (is_float<T>) return a + b;
  else return int_add<T>(a, b);
}

/// A thread that met `exit` below its entry.
struct ThreadExit {};

/// The local arrays of one call.
struct LocalMemory;

class Thread {
 public:
  Thread(const void* parameters, Module& module);

  const uint3 tid;
  const dim3 ntid;
  const uint3 ctaid;
  const dim3 nctaid;
  const LocalMemory* locals = nullptr;  ///< of the innermost call

  U32 lane() const { return thread_ & 31; }
  U32 warp() const { return thread_ >> 5; }
  U32 warps() const { return (ntid.x * ntid.y * ntid.z + 31) / 32; }
  U32 lane_mask_eq() const { return 1U << lane(); }
  U32 lane_mask_lt() const { return lane_mask_eq() - 1; }
  U32 lane_mask_le() const { return lane_mask_lt() | lane_mask_eq(); }
  U32 lane_mask_ge() const { return ~lane_mask_lt(); }
  U32 lane_mask_gt() const { return ~lane_mask_le(); }
  /// No time passes here: a count of what the emulator did, which grows.
  U64 clock() const { return ++ticks_; }

  std::byte* parameters() const { return const_cast<std::byte*>(parameters_); }
  std::byte* parameter_at(U64 address, U32 bytes, Site* site) const;
  U32 shared_bytes() const { return shared_size_; }
  U32 dynamic_shared_offset() const { return dynamic_offset_; }
  U32 dynamic_shared_bytes() const { return shared_size_ - dynamic_offset_; }
  U64 generic_from_shared(U64 offset) const { return address_of(shared_) + offset; }
  U64 shared_from_generic(U64 address) const { return address - address_of(shared_); }
  bool is_in(Space space, U64 address) const;

  /// Where n values of T may be read, or written. (Translations are compiled without strict aliasing.)
  template <Space space, class T, int n, class Address>
  const T* load(Address address, Site* site) const {
    return static_cast<const T*>(checked<space>(address, sizeof(T) * n, Access::read, site));
  }
  template <Space space, class T, int n, class Address>
  T* store(Address address, Site* site) const {
    return static_cast<T*>(checked<space>(address, sizeof(T) * n, Access::write, site));
  }
  template <Space space, class T, class Address, class F>
  T atomic(Address address, F next, Site* site) const {
    void* p = checked<space>(address, sizeof(T), Access::atomic, site);
    T old;
    std::memcpy(&old, p, sizeof old);
    const T value = next(old);
    std::memcpy(p, &value, sizeof value);
    return old;
  }

  void barrier(Site* site) const;
  U32 barrier_popc(bool predicate, Site* site) const;
  bool barrier_and(bool predicate, Site* site) const;
  bool barrier_or(bool predicate, Site* site) const;
  void warp_barrier(U32 mask, Site* site) const;
  Shuffled shuffle(Shuffle mode, U32 value, U32 lane, U32 clamp, U32 mask, Site* site) const;
  U32 vote_ballot(bool predicate, U32 mask, Site* site) const;
  bool vote_any(bool predicate, U32 mask, Site* site) const;
  bool vote_all(bool predicate, U32 mask, Site* site) const;
  bool vote_uni(bool predicate, U32 mask, Site* site) const;
  U32 active_mask() const;
  U32 match_any(U64 value, U32 mask, Site* site) const;
  U32 match_all(U64 value, U32 mask, Site* site) const;
  template <class T, class F> T reduce(T value, U32 mask, Site* site, F combine) const;
  template <class T> T reduce_add(T v, U32 mask, Site* s) const { return reduce(v, mask, s, int_add<T>); }
  template <class T> T reduce_min(T v, U32 mask, Site* s) const { return reduce(v, mask, s, int_min<T>); }
  template <class T> T reduce_max(T v, U32 mask, Site* s) const { return reduce(v, mask, s, int_max<T>); }
  template <class T> T reduce_and(T v, U32 mask, Site* s) const { return reduce(v, mask, s, [](T a, T b) { return a & b; }); }
  template <class T> T reduce_or(T v, U32 mask, Site* s) const { return reduce(v, mask, s, [](T a, T b) { return a | b; }); }
  template <class T> T reduce_xor(T v, U32 mask, Site* s) const { return reduce(v, mask, s, [](T a, T b) { return a ^ b; }); }

  void copy_async(U32 shared, U64 global, U32 bytes, U32 source_bytes, Site* site) const;
  void copy_commit() const;
  void copy_wait(U32 pending, Site* site) const;
  void copy_wait_all(Site* site) const;
  template <int count, bool transposed>
  std::array<U32, count> load_matrix(U32 row, Site* site) const {
    std::array<U32, count> values;
    load_matrices(values.data(), count, transposed, row, site);
    return values;
  }
  Sums multiply_bf16(Fragment4 a, Fragment2 b, Sums c, Site* site) const;
  Sums multiply_tf32(Fragment4 a, Fragment2 b, Sums c, Site* site) const;

  [[noreturn]] void exit_thread() const { throw ThreadExit{}; }
  [[noreturn]] void trap(Site* site) const;
  [[noreturn]] void bad_branch(Site* site) const;
  [[noreturn]] void assertion_failed(const std::byte* message, const std::byte* file, const std::byte* line,
                                     const std::byte* function, Site* site) const;

 private:
  template <Space space, class Address>
  void* checked(Address address, std::size_t bytes, Access access, Site* site) const {
    // One test on the way through; what it was that failed, and the tracer, are the slow half's.
    if constexpr (space == Space::shared) {
      const U32 offset = static_cast<U32>(address);
      if ((offset & (bytes - 1)) != 0 || U64{offset} + bytes > shared_limit_) [[unlikely]]
        see_shared(offset, bytes, access, site);
      return shared_ + offset;
    } else if constexpr (space == Space::global) {
      if ((address & (bytes - 1)) != 0 || address - site->low >= site->limit) [[unlikely]]
        see_global(address, bytes, access, site);
      return reinterpret_cast<void*>(address);
    } else {
      return checked_slowly(space, address, bytes, access, site);
    }
  }
  void tell(const void* p, std::size_t bytes, Access access, const Site* site) const {
    if (traced_) note(p, bytes, access, reinterpret_cast<const void*>(site->number));
  }
  void see_shared(U32 offset, std::size_t bytes, Access access, Site* site) const;
  void see_global(U64 address, std::size_t bytes, Access access, Site* site) const;
  void* checked_slowly(Space space, U64 address, std::size_t bytes, Access access, Site* site) const;
  /// False for a table of the translation, which is not the tracer's to watch.
  bool find_global(U64 address, std::size_t bytes, Access access, Site* site) const;
  [[noreturn]] void misaligned(const char* space, U64 address, std::size_t bytes, Site* site) const;
  [[noreturn]] void outside_shared(U32 offset, std::size_t bytes, Access access, Site* site) const;
  void load_matrices(U32* values, int count, bool transposed, U32 row, Site* site) const;

  std::byte* const shared_;
  const U32 shared_size_, dynamic_offset_;
  const U32 thread_;
  const bool traced_;
  const U32 shared_limit_;  ///< 0 if traced, so that each access is seen
  const std::byte* const parameters_;
  Module& module_;
  mutable U64 ticks_ = 0;
};

struct LocalMemory {
  LocalMemory(Thread& t, std::byte* start, std::size_t bytes) : thread(t), low(start), high(start + bytes), outer(t.locals) {
    std::memset(start, 0xff, bytes);  // NaN: what a GPU leaves there is anything
    t.locals = this;
  }
  ~LocalMemory() { thread.locals = outer; }
  LocalMemory(const LocalMemory&) = delete;
  LocalMemory& operator=(const LocalMemory&) = delete;

  Thread& thread;
  std::byte *low, *high;
  const LocalMemory* outer;
};

/// What each emulated thread of an entry runs.
template <class Function>
void run_thread(Function* entry, const void* parameters, Module& module) {
  Thread t(parameters, module);
  try {
    entry(t);
  } catch (const ThreadExit&) {
  }
}

/// Combines the mask's values in order of lanes.
U64 reduce_lanes(U64 value, U32 mask, U64 (*combine)(U64, U64, const void*), const void* context, const Site* site);
template <class T, class F>
T Thread::reduce(T value, U32 mask, Site* site, F combine) const {
  const auto erased = [](U64 a, U64 b, const void* f) {
    return static_cast<U64>((*static_cast<const F*>(f))(static_cast<T>(a), static_cast<T>(b)));
  };
  return static_cast<T>(reduce_lanes(static_cast<U64>(value), mask, erased, &combine, site));
}

}  // namespace plumb::emulator::ptx
