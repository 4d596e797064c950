// A small thread pool for kernels. Work is a count of independent tasks, claimed one after another
// from a counter: which thread runs which task is left to chance, which no result can depend on,
// because a task writes outputs of its own and every reduction has a fixed order inside one task.
// What this is not: a scheduler. A kernel called inside a task, or while another thread holds the
// pool, runs on its caller's thread alone.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/core/device.hpp>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace plumb { inline namespace v0_1 {

class Pool {
 public:
  /// A pool that runs `threads` tasks at a time, the caller's thread among them.
  explicit Pool(int threads) { start(threads); }
  ~Pool() { stop(); }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// Ends the workers and starts others. Not while a task runs.
  void set_threads(int threads) {
    stop();
    start(threads);
  }

  /// Calls task(i) for every i in [0, count) and returns when all are done. Tasks must not throw.
  template <class Task>
  void run(Index count, Task&& task) {
    std::unique_lock lock(busy_, std::defer_lock);
    if (count <= 1 || workers_.empty() || inside_task() || !lock.try_lock()) {
      for (Index i = 0; i < count; ++i) task(i);
      return;
    }
    job_ = [](void* context, Index i) { (*static_cast<std::remove_reference_t<Task>*>(context))(i); };
    context_ = const_cast<void*>(static_cast<const void*>(&task));
    count_ = count;
    next_.store(0, std::memory_order_relaxed);
    open_.store(true);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
    work();
    // All tasks are claimed. Only workers that came are waited for: one that has no core to run on
    // holds nobody up. Closing before looking for them, as they come before looking whether it is
    // open (in one total order), leaves no way to slip in between.
    open_.store(false);
    for (int spin = 0; active_.load() != 0; ++spin) {
      pause();
      if (spin > kSpins) std::this_thread::yield();
    }
  }

 private:
  static constexpr int kSpins = 4000;

  static bool& inside_task() {
    static thread_local bool inside = false;
    return inside;
  }

  void work() {
    inside_task() = true;
    for (Index i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) job_(context_, i);
    inside_task() = false;
  }

  void loop() {
    unsigned seen = 0;
    for (;;) {
      for (int spin = 0; spin < kSpins && generation_.load(std::memory_order_acquire) == seen; ++spin)
        pause();
      generation_.wait(seen, std::memory_order_acquire);
      seen = generation_.load(std::memory_order_acquire);
      if (stopping_.load(std::memory_order_acquire)) return;
      active_.fetch_add(1);
      if (open_.load()) work();
      active_.fetch_sub(1);
    }
  }

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }

  void start(int threads) {
    check(threads >= 1 && threads <= 1024, "[pool] threads must be between 1 and 1024");
    stopping_.store(false);
    generation_.store(0);
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { loop(); });
  }

  void stop() {
    stopping_.store(true, std::memory_order_release);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
  }

  std::vector<std::thread> workers_;
  std::mutex busy_;
  void (*job_)(void*, Index) = nullptr;
  void* context_ = nullptr;
  Index count_ = 0;
  alignas(64) std::atomic<Index> next_{0};
  alignas(64) std::atomic<int> active_{0};  // workers in, or about to look at, a job
  std::atomic<bool> open_{false};           // whether there is one
  alignas(64) std::atomic<unsigned> generation_{0};
  std::atomic<bool> stopping_{false};
};

/// The process's pool: PLUMB_NUM_THREADS threads, by default one per core.
inline Pool& default_pool() {
  static Pool pool([] {
    const char* text = std::getenv("PLUMB_NUM_THREADS");
    if (text == nullptr || *text == '\0')
      return static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
    const int threads = std::atoi(text);
    if (threads < 1 || threads > 1024)
      fail<DataError>(str("[pool] PLUMB_NUM_THREADS is '", text, "'; expected 1 … 1024"));
    return threads;
  }());
  return pool;
}

namespace kernels {

inline Pool& pool_of(Cpu device) { return device.pool != nullptr ? *device.pool : default_pool(); }

/// Calls body(first, last) on consecutive parts of [0, n), each of at least half of `grain` items (but
/// the last): what a part costs should dwarf a microsecond. Small work runs inline.
template <class Body>
void parallel_for(Cpu device, Index n, Index grain, Body&& body) {
  grain = std::max<Index>(grain, 1);
  if (n <= grain) {
    if (n > 0) body(Index{0}, n);
    return;
  }
  Pool& pool = pool_of(device);
  const Index parts = std::min<Index>((n + grain - 1) / grain, Index{4} * pool.threads());
  const Index part = (n + parts - 1) / parts;
  pool.run((n + part - 1) / part, [&](Index i) { body(i * part, std::min(n, (i + 1) * part)); });
}

/// Calls body(task, lane) for every task in [0, tasks), where lane < lanes: tasks of one lane run one
/// after another, so that each lane can own scratch memory.
template <class Body>
void run_lanes(Cpu device, Index tasks, Index lanes, Body&& body) {
  std::atomic<Index> next{0};
  pool_of(device).run(lanes, [&](Index lane) {
    for (Index task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;)
      body(task, lane);
  });
}

}  // namespace kernels

}}  // namespace plumb::v0_1
