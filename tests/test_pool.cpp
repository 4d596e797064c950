// The thread pool: every task once, whoever calls.
#include <plumb/core/pool.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <set>
#include <thread>
#include <vector>

using namespace plumb;

namespace {

// Whether pool.run(count) calls every task exactly once.
bool every_task_once(Pool& pool, Index count) {
  std::vector<std::atomic<int>> calls(static_cast<std::size_t>(count));
  pool.run(count, [&](Index i) { ++calls[static_cast<std::size_t>(i)]; });
  for (const auto& c : calls)
    if (c != 1) return false;
  return true;
}

}  // namespace

TEST_CASE("every task runs exactly once, for any number of threads") {
  for (const int threads : {1, 2, 3, 8}) {
    Pool pool(threads);
    CHECK(pool.threads() == threads);
    for (const Index count : {0, 1, 2, 3, 7, 64, 1000}) CHECK(every_task_once(pool, count));
  }
}

TEST_CASE("what the tasks wrote is there when run returns") {
  Pool pool(3);
  std::vector<Index> x(64);
  for (Index round = 0; round < 2000; ++round) {
    pool.run(64, [&](Index i) { x[static_cast<std::size_t>(i)] += i; });
    if (round % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));  // to sleep
  }
  bool right = true;
  for (Index i = 0; i < 64; ++i) right = right && x[static_cast<std::size_t>(i)] == 2000 * i;
  CHECK(right);
}

TEST_CASE("several threads work at once") {
  // Both tasks wait for each other: with a single thread they never would meet.
  Pool pool(2);
  std::atomic<int> arrived{0};
  pool.run(2, [&](Index) {
    ++arrived;
    while (arrived < 2) std::this_thread::yield();
  });
  CHECK(arrived == 2);
}

TEST_CASE("a run inside a task runs inline, on the task's thread") {
  Pool pool(3), other(2);
  std::atomic<int> calls{0};
  std::atomic<bool> same_thread{true};
  pool.run(8, [&](Index) {
    const auto self = std::this_thread::get_id();
    const auto inner = [&](Index) {
      ++calls;
      if (std::this_thread::get_id() != self) same_thread = false;
    };
    pool.run(5, inner);
    other.run(5, inner);
  });
  CHECK(calls == 80);
  CHECK(same_thread);
  CHECK(every_task_once(pool, 100));
}

TEST_CASE("callers from several threads share a pool") {
  Pool pool(3);
  std::atomic<int> failures{0};
  const auto call = [&] {
    for (int round = 0; round < 500; ++round)
      if (!every_task_once(pool, 40)) ++failures;
  };
  std::thread a(call), b(call);
  call();
  a.join();
  b.join();
  CHECK(failures == 0);
}

TEST_CASE("set_threads changes the number of threads and nothing else") {
  Pool pool(1);
  for (const int threads : {4, 2, 1, 3}) {
    pool.set_threads(threads);
    CHECK(pool.threads() == threads);
    CHECK(every_task_once(pool, 100));
  }
  CHECK_THROWS_AS(Pool(0), ShapeError);
  CHECK_THROWS_AS(Pool(1025), ShapeError);
  CHECK_THROWS_AS(pool.set_threads(0), ShapeError);
  CHECK(every_task_once(pool, 100));
}

TEST_CASE("a pool that never worked ends") {
  for (int i = 0; i < 50; ++i) Pool pool(3);
}

TEST_CASE("parallel_for covers its range with parts of at least half the grain") {
  for (const int threads : {1, 3}) {
    Pool pool(threads);
    for (const Index n : {0, 1, 9, 10, 11, 100, 1001})
      for (const Index grain : {0, 1, 10, 2000}) {
        std::vector<std::atomic<int>> calls(static_cast<std::size_t>(n));
        std::atomic<int> short_parts{0};
        kernels::parallel_for(Cpu{&pool}, n, grain, [&](Index first, Index last) {
          if (2 * (last - first) < grain && last != n) ++short_parts;
          for (Index i = first; i < last; ++i) ++calls[static_cast<std::size_t>(i)];
        });
        bool once = true;
        for (const auto& c : calls) once = once && c == 1;
        CHECK(once);
        CHECK(short_parts == 0);
      }
  }
}

TEST_CASE("the default pool serves a Cpu that names none") {
  CHECK(&kernels::pool_of(Cpu{}) == &default_pool());
  Pool pool(1);
  CHECK(&kernels::pool_of(Cpu{&pool}) == &pool);
}
