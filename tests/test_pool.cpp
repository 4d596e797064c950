// The thread pool: every task once, whoever calls; in a child process too, and in any
// floating-point environment.
#include <plumb/core/memory.hpp>
#include <plumb/core/pool.hpp>

#include "support.hpp"
#include "temporary.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <cfenv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

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

TEST_CASE("what a task throws reaches the caller, and the pool works on") {
  for (const int threads : {1, 2, 4}) {
    Pool pool(threads);
    for (int round = 0; round < 200; ++round) {
      const Index bad = round % 40;
      CHECK_THROWS_WITH_AS(pool.run(40,
                                    [&](Index i) {
                                      if (i == bad) throw DataError("task 40");
                                    }),
                           "task 40", DataError);
    }
    // All of them throw: one exception arrives.
    CHECK_THROWS_AS(pool.run(64, [](Index) { throw NumericError("each"); }), NumericError);
    // Kernels run on several threads again, and every task once.
    std::vector<std::atomic<int>> done(1000);
    std::set<std::thread::id> ids;
    std::mutex mutex;
    pool.run(1000, [&](Index i) {
      ++done[static_cast<std::size_t>(i)];
      if (i % 10 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
      const std::lock_guard lock(mutex);
      ids.insert(std::this_thread::get_id());
    });
    for (const auto& count : done) CHECK(count == 1);
    CHECK((threads == 1 || ids.size() > 1));
  }
  // Out of a task within a task, and of a kernel's.
  Pool pool(3);
  CHECK_THROWS_AS(pool.run(8, [&](Index) { pool.run(4, [](Index) { throw DataError("inner"); }); }),
                  DataError);
  CHECK_THROWS_AS(kernels::parallel_for(Cpu{&pool}, 100, 1,
                                        [](Index first, Index) {
                                          if (first > 0) throw DataError("part");
                                        }),
                  DataError);
}

TEST_CASE("where the system starts no more threads a pool has fewer, and works") {
  if (std::getenv("PLUMB_TEST_SANITIZED") != nullptr) return;  // their memory is not limited so
  const pid_t child = fork();
  if (child == 0) {
    rlimit limit{};
    getrlimit(RLIMIT_AS, &limit);
    // Room for two stacks of 64 MB or so, beside what is there.
    long pages = 0;
    if (std::FILE* file = std::fopen("/proc/self/statm", "r")) {
      if (std::fscanf(file, "%ld", &pages) != 1) pages = 0;
      std::fclose(file);
    }
    limit.rlim_cur = static_cast<rlim_t>(pages) * 4096 + (rlim_t{48} << 20);
    setrlimit(RLIMIT_AS, &limit);
    Pool pool(64);
    std::atomic<Index> sum{0};
    pool.run(100, [&](Index i) { sum += i; });
    _exit(pool.threads() >= 1 && pool.threads() < 64 && sum == 4950 ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(status == 0);
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

TEST_CASE("threads: as many as the processors that the process may run on") {
  cpu_set_t before;
  REQUIRE(sched_getaffinity(0, sizeof before, &before) == 0);
  CHECK(available_threads() <= CPU_COUNT(&before));
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++i)
    if (CPU_ISSET(i, &before)) CPU_SET(i, &one);
  REQUIRE(sched_setaffinity(0, sizeof one, &one) == 0);
  CHECK(available_threads() == 1);
  sched_setaffinity(0, sizeof before, &before);
}

TEST_CASE("threads: no more than control groups grant, in both versions, from any level") {
  const Temporary directory;
  const std::string mount = directory / "groups", list = directory / "list";
  REQUIRE(std::system(("mkdir -p " + mount + "/a/b " + mount + "/cpu,cpuacct/c").c_str()) == 0);
  const auto write = [](const std::string& path, const char* text) { std::ofstream(path) << text; };
  const auto granted = [&](const char* groups) {
    write(list, groups);
    return detail::granted_processors(list, mount);
  };
  CHECK(granted("0::/a/b\n") == 0);
  write(mount + "/a/b/cpu.max", "max 100000\n");
  CHECK(granted("0::/a/b\n") == 0);
  write(mount + "/a/cpu.max", "250000 100000\n");
  CHECK(granted("0::/a/b\n") == 3);  // of the parent, rounded up
  write(mount + "/a/b/cpu.max", "50000 100000\n");
  CHECK(granted("0::/a/b\n") == 1);
  CHECK(granted("0::/\n") == 0);
  write(mount + "/cpu,cpuacct/c/cpu.cfs_quota_us", "-1\n");
  write(mount + "/cpu,cpuacct/c/cpu.cfs_period_us", "100000\n");
  CHECK(granted("9:memory:/a\n4:cpu,cpuacct:/c\n") == 0);
  write(mount + "/cpu,cpuacct/c/cpu.cfs_quota_us", "400000\n");
  CHECK(granted("9:memory:/a\n4:cpu,cpuacct:/c\n") == 4);
  CHECK(granted("not a line of this kind\n") == 0);
  CHECK(detail::granted_processors(directory / "none", mount) == 0);
}

TEST_CASE("numbers in the environment are whole, or refused by name") {
  const char* name = "PLUMB_TEST_NUMBER";
  const auto read = [&] { return environment_integer(name, 1, 1024, 7); };
  unsetenv(name);
  CHECK(read() == 7);
  setenv(name, "12", 1);
  CHECK(read() == 12);
  for (const char* text : {"", " ", "2abc", "2.5", "1e3", "0", "-1", "1025", " 2", "2 ", "+2",
                           "0x2", "99999999999999999999999"}) {
    setenv(name, text, 1);
    std::string message;
    try {
      read();
    } catch (const DataError& e) {
      message = e.what();
    }
    CAPTURE(text);
    CHECK(message.find(name) != std::string::npos);
  }
  unsetenv(name);
  CHECK(environment_choice(name, {"scalar", "avx2"}) == -1);
  setenv(name, "avx2", 1);
  CHECK(environment_choice(name, {"scalar", "avx2"}) == 1);
  for (const char* text : {"", "AVX2", "avx", "avx2 "}) {
    setenv(name, text, 1);
    CHECK_THROWS_AS(environment_choice(name, {"scalar", "avx2"}), DataError);
  }
  unsetenv(name);
}

// ThreadSanitizer lets no forked process start threads.
#if !defined(__SANITIZE_THREAD__)
namespace {

// What a child that runs `body` exits with; -1 if it had to be ended after some seconds.
template <class Body>
int in_child(Body body) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    _exit(body() ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

TEST_CASE("a forked process has a pool that works, with as many threads") {
  Pool pool(3);
  const auto two_meet = [&] {
    std::atomic<int> arrived{0};
    pool.run(2, [&](Index) {
      ++arrived;
      while (arrived < 2) std::this_thread::yield();
    });
    return pool.threads() == 3 && every_task_once(pool, 100);
  };
  for (int round = 0; round < 200; ++round) {
    every_task_once(pool, 2);  // a worker is about to look for more
    REQUIRE(in_child([&] { return every_task_once(pool, 4); }) == 0);
  }
  CHECK(in_child(two_meet) == 0);
  CHECK(in_child([&] { return in_child(two_meet) == 0 && two_meet(); }) == 0);
  CHECK(in_child([&] {
          pool.set_threads(2);
          return pool.threads() == 2 && every_task_once(pool, 100);
        }) == 0);
  CHECK(in_child([] {  // one that ends in the child: its threads cannot be waited for
          Pool inner(2);
          return in_child([&] { return (inner.~Pool(), new (&inner) Pool(1), true); }) == 0;
        }) == 0);
  CHECK(two_meet());
}

TEST_CASE("a process forked while other threads work and allocate goes on alone") {
  Pool pool(3);
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    while (!stop) pool.run(64, [](Index) { const Scratch<float> memory(1000); });
  });
  // A sanitizer's own allocator may be locked when a thread forks (gcc 12): then the child waits
  // for ever, about once in some thousand times.
  for (int round = 0; round < (test::sanitized() ? 10 : 100); ++round)
    REQUIRE(in_child([&] {
              const Scratch<float> memory(1000);
              return every_task_once(pool, 100);
            }) == 0);
  stop = true;
  busy.join();
  // From inside a task: the child's run returns, whatever the other tasks were.
  std::atomic<int> children{0};
  pool.run(4, [&](Index) { children += in_child([&] { return every_task_once(pool, 10); }) == 0; });
  CHECK(children == 4);
}
#endif

#if defined(__x86_64__)
TEST_CASE("tasks compute in the default floating-point environment, which run restores") {
  volatile float tiny = 1e-30F;
  const auto right = [&] {  // nothing flushed to zero, rounded to nearest
    volatile float product = tiny * 1e-10F, third = 1.0F / 3.0F;
    return product != 0.0F && product == 1e-40F && third == 0x1.555556p-2F;
  };
  REQUIRE(right());
  const unsigned normal = _mm_getcsr();
  for (const unsigned mode : {0x8000U, 0x0040U, 0x8040U, 0x2000U, 0x4000U, 0x6000U}) {
    _mm_setcsr(0x1F80U | mode);
    Pool pool(3);  // its threads begin with this environment
    std::atomic<int> wrong{0};
    for (const Index count : {1, 2, 100}) pool.run(count, [&](Index) { wrong += !right(); });
    kernels::parallel_for(Cpu{&pool}, 5, 100, [&](Index, Index) { wrong += !right(); });
    pool.run(3,
             [&](Index) { _mm_setcsr(0x1F80U | mode); });  // what a task sets is not the next one's
    pool.run(100, [&](Index) { wrong += !right(); });
    const unsigned after = _mm_getcsr() & ~0x3FU;
    _mm_setcsr(normal);
    CHECK(wrong == 0);
    CHECK(after == (0x1F80U | mode));
  }
}
#endif
