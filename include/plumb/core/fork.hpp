// What fork() leaves of a process: one thread, and every lock as it was. Threads are started anew
// by whoever sees that the process is another one (pool.hpp); a lock is held by the one that forks
// meanwhile, so that nobody else holds it in the child for ever (memory.hpp).
#pragma once

#include <plumb/core/version.hpp>

#include <atomic>

#include <pthread.h>

namespace plumb { inline namespace v0_1 { namespace detail {

/// How many times this process and those that it was forked from forked, seen from the child.
inline unsigned process_count() {
  static std::atomic<unsigned> count{0};
  [[maybe_unused]] static const int registered =
      pthread_atfork(nullptr, nullptr, [] { count.fetch_add(1); });
  return count.load(std::memory_order_relaxed);
}

}  // namespace detail
}}  // namespace plumb::v0_1
