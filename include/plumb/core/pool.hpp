// A small thread pool for kernels. Work is a count of independent tasks, claimed one after another
// from a counter: which thread runs which task is left to chance, which no result can depend on,
// because a task writes outputs of its own and every reduction has a fixed order inside one task.
// What a task throws reaches the caller of run, and leaves the pool as it was. What this is not: a
// scheduler. A kernel called inside a task, or while another thread holds the
// pool, runs on its caller's thread alone.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/core/device.hpp>
#include <plumb/core/environment.hpp>
#include <plumb/core/floats.hpp>
#include <plumb/core/fork.hpp>
#include <plumb/core/threads.hpp>

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

namespace detail {

// The threads of a pool, and the job that they are at.
class Team {
 public:
  /// As many threads as asked for, or as the system gives.
  explicit Team(int threads) {
    try {
      for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { loop(); });
    } catch (const std::exception&) {  // no more
    }
  }
  ~Team() { stop(); }
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }
  /// Whether its threads are of this process: after fork() the child has none of them.
  bool here() const { return process_ == process_count(); }

  static bool& inside_task() {
    static thread_local bool inside = false;
    return inside;
  }

  /// Whether the job was taken on; all tasks are then done, or one threw, whose exception this
  /// throws; those that had not begun are then left out.
  bool run(Index count, void (*job)(void*, Index), void* context) {
    const std::unique_lock lock(busy_, std::try_to_lock);
    if (workers_.empty() || !lock) return false;
    job_ = job;
    context_ = context;
    count_ = count;
    next_.store(0, std::memory_order_relaxed);
    open_.store(true);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
    work();
    // All tasks are claimed. Only workers that came are waited for: one that has no core to run on
    // holds nobody up. Closing before looking for them, as they come before looking whether it is
    // open (in one total order), leaves no way to slip in between. A task that forked comes here in
    // the child too, where no worker is.
    open_.store(false);
    for (int spin = 0; active_.load() != 0 && here(); ++spin) {
      pause();
      if (spin > kSpins) std::this_thread::yield();
    }
    if (thrown_.exchange(false)) std::rethrow_exception(std::exchange(exception_, nullptr));
    return true;
  }

  Team* abandoned = nullptr;  ///< the team of the parent process, whose threads are not here

 private:
  static constexpr int kSpins = 4000;

  void work() {
    inside_task() = true;
    for (Index i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) try {
        job_(context_, i);
      } catch (...) {
        next_.store(count_, std::memory_order_relaxed);
        if (!thrown_.exchange(true)) exception_ = std::current_exception();
      }
    inside_task() = false;
  }

  void loop() {
    const DefaultFloats floats;  // a thread begins with the environment of the one that started it
    unsigned seen = 0;
    for (;;) {
      for (int spin = 0; spin < kSpins && generation_.load(std::memory_order_acquire) == seen;
           ++spin)
        pause();
      generation_.wait(seen, std::memory_order_acquire);
      seen = generation_.load(std::memory_order_acquire);
      if (stopping_.load(std::memory_order_acquire)) return;
      active_.fetch_add(1);
      if (open_.load()) {
        const DefaultFloats again;  // whatever a task of before left behind
        work();
      }
      active_.fetch_sub(1);
    }
  }

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }

  void stop() {
    stopping_.store(true, std::memory_order_release);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
  }

  const unsigned process_ = process_count();
  std::vector<std::thread> workers_;
  std::mutex busy_;
  void (*job_)(void*, Index) = nullptr;
  void* context_ = nullptr;
  Index count_ = 0;
  std::atomic<bool> thrown_{false};
  std::exception_ptr exception_;  // the first that was thrown; read when no worker is in a job
  alignas(64) std::atomic<Index> next_{0};
  alignas(64) std::atomic<int> active_{0};  // workers in, or about to look at, a job
  std::atomic<bool> open_{false};           // whether there is one
  alignas(64) std::atomic<unsigned> generation_{0};
  std::atomic<bool> stopping_{false};
};

}  // namespace detail

class Pool {
 public:
  /// A pool that runs `threads` tasks at a time, the caller's thread among them; fewer where the
  /// system starts no more threads.
  explicit Pool(int threads, Where where = Where::here())
      : team_(new detail::Team(checked(threads, where))), threads_(team_.load()->threads()) {}
  ~Pool() { drop(team_.load()); }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return threads_; }

  /// Ends the workers and starts others. Not while a task runs.
  void set_threads(int threads, Where where = Where::here()) {
    checked(threads, where);
    drop(team_.exchange(nullptr));
    threads_ = 1;
    team_.store(new detail::Team(1));
    if (threads > 1) drop(team_.exchange(new detail::Team(threads)));
    threads_ = team_.load()->threads();
  }

  /// Calls task(i) for every i in [0, count), in the default floating-point environment, and
  /// returns when all are done. Throws what one of them threw, if one did; others may then not have
  /// run.
  template <class Task>
  void run(Index count, Task&& task) {
    const DefaultFloats floats;
    if (count > 1 && threads_ > 1 && !detail::Team::inside_task()) {
      const auto job = [](void* context, Index i) {
        (*static_cast<std::remove_reference_t<Task>*>(context))(i);
      };
      if (team().run(count, job, const_cast<void*>(static_cast<const void*>(&task)))) return;
    }
    for (Index i = 0; i < count; ++i) task(i);
  }

 private:
  static int checked(int threads, Where where) {
    if (threads < 1 || threads > kMaxThreads)
      fail(str("[pool] threads must be from 1 to ", kMaxThreads, "; got ", threads), where);
    return threads;
  }

  // The team; a new one in a process that was forked since. Several threads may come at once: one
  // wins.
  detail::Team& team() {
    detail::Team* team = team_.load(std::memory_order_acquire);
    if (team->here()) return *team;
    auto renewed = std::make_unique<detail::Team>(threads_);
    renewed->abandoned = team;
    if (team_.compare_exchange_strong(team, renewed.get())) return *renewed.release();
    return *team;
  }

  // Ends a team's threads, if they are this process's. Those of a parent cannot be joined; what
  // they were is left in place.
  static void drop(detail::Team* team) {
    if (team != nullptr && team->here()) delete team;
  }

  static constexpr int kMaxThreads = 1024;

  std::atomic<detail::Team*> team_;
  int threads_;
};

/// The process's pool: PLUMB_NUM_THREADS threads, by default as many as it can keep busy.
inline Pool& default_pool() {
  static Pool pool(static_cast<int>(
      environment_integer("PLUMB_NUM_THREADS", 1, 1024, std::min(available_threads(), 1024))));
  return pool;
}

namespace kernels {

inline Pool& pool_of(Cpu device) { return device.pool != nullptr ? *device.pool : default_pool(); }

/// Calls body(first, last) on consecutive parts of [0, n), each of at least half of `grain` items
/// (but the last): what a part costs should dwarf a microsecond. Small work runs inline.
template <class Body>
void parallel_for(Cpu device, Index n, Index grain, Body&& body) {
  grain = std::max<Index>(grain, 1);
  if (n <= grain) {
    const DefaultFloats floats;
    if (n > 0) body(Index{0}, n);
    return;
  }
  Pool& pool = pool_of(device);
  const Index parts = std::min<Index>((n + grain - 1) / grain, Index{4} * pool.threads());
  const Index part = (n + parts - 1) / parts;
  pool.run((n + part - 1) / part, [&](Index i) { body(i * part, std::min(n, (i + 1) * part)); });
}

/// Calls body(task, lane) for every task in [0, tasks), where lane < lanes: tasks of one lane run
/// one after another, so that each lane can own scratch memory.
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
