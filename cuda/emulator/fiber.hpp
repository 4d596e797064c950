// Context switch between fibers, and what the sanitizers must be told about it. Of the sanitizers
// only weak symbols are used: one object file serves programs with and without them.
#pragma once

#include <cstddef>

#if !defined(__x86_64__)
#error "The emulator's context switch is written for x86-64; build with -DPLUMB_EMULATOR=OFF here"
#endif

extern "C" {
// Saves the callee-saved registers on the stack and its pointer in *save, then continues at `load`.
void plumb_emulator_switch(void** save, void* load);

[[gnu::weak]] void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom,
                                                  std::size_t size);
[[gnu::weak]] void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom_old,
                                                   std::size_t* size_old);
[[gnu::weak]] void __asan_poison_memory_region(const volatile void* p, std::size_t n);
[[gnu::weak]] void __asan_unpoison_memory_region(const volatile void* p, std::size_t n);
[[gnu::weak]] void __asan_loadN(void* p, std::size_t n);
[[gnu::weak]] void __asan_storeN(void* p, std::size_t n);
[[gnu::weak]] void* __tsan_create_fiber(unsigned flags);
[[gnu::weak]] void __tsan_destroy_fiber(void* fiber);
[[gnu::weak]] void* __tsan_get_current_fiber();
[[gnu::weak]] void __tsan_switch_to_fiber(void* fiber, unsigned flags);
[[gnu::weak]] void __tsan_set_fiber_name(void* fiber, const char* name);
[[gnu::weak]] void __tsan_acquire(void* address);
[[gnu::weak]] void __tsan_release(void* address);
}

namespace plumb::emulator {

inline bool under_asan() { return &__asan_poison_memory_region != nullptr; }
inline bool under_tsan() { return &__tsan_create_fiber != nullptr; }

inline void poison(const void* p, std::size_t n) {
  if (under_asan()) __asan_poison_memory_region(p, n);
}
inline void unpoison(const void* p, std::size_t n) {
  if (under_asan()) __asan_unpoison_memory_region(p, n);
}
// What came before a release of `p` happens before what follows a later acquire of it.
inline void release(void* p) {
  if (under_tsan()) __tsan_release(p);
}
inline void acquire(void* p) {
  if (under_tsan()) __tsan_acquire(p);
}

/// A stack with its saved stack pointer. The host's own is one, too.
struct Context {
  void* stack_pointer = nullptr;
  const void* bottom = nullptr;
  std::size_t size = 0;
  void* fake_stack = nullptr;  ///< AddressSanitizer's
  void* tsan = nullptr;
};

/// Called first thing on a stack that was switched to; `from` was left for it.
inline void arrived(Context& self, Context& from) {
  if (under_asan()) __sanitizer_finish_switch_fiber(self.fake_stack, &from.bottom, &from.size);
}

/// Leaves `from`, to come back when somebody switches to it again.
inline void switch_context(Context& from, Context& to, Context*& previous) {
  if (under_tsan()) __tsan_switch_to_fiber(to.tsan, 1);  // 1: it orders nothing
  if (under_asan()) __sanitizer_start_switch_fiber(&from.fake_stack, to.bottom, to.size);
  previous = &from;
  plumb_emulator_switch(&from.stack_pointer, to.stack_pointer);
  arrived(from, *previous);
}

}  // namespace plumb::emulator
