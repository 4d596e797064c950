// What a benchmark refuses to time: seeded cheats, each by its name; and honest kernels of every
// kind of argument, which it takes.
#include <plumb/bench/check.hpp>
#include <plumb/bench/counters.hpp>
#include <plumb/bench/roofline.hpp>
#include <plumb/bench/session.hpp>
#include <plumb/bench/verdict.hpp>
#include <plumb/core/pool.hpp>
#include <plumb/core/random.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <map>
#include <thread>
#include <vector>

#include "temporary.hpp"

using namespace plumb;
using namespace plumb::bench;

namespace {

/// y = x · |x| + ½: no two inputs have one result in common, none is its own.
float honest(float x) { return x * std::abs(x) + 0.5F; }
void square(float* y, const float* x, Index n) {
  for (Index i = 0; i < n; ++i) y[i] = honest(x[i]);
}
void square_exact(std::span<double> y, std::span<const double> x, Index n) {
  for (Index i = 0; i < n; ++i) {
    const auto at = static_cast<std::size_t>(i);
    y[at] = x[at] * std::abs(x[at]) + 0.5;
  }
}

constexpr Index kSize = 1023;

template <class Kernel>
Refusal refusal_of(Kernel kernel, Index n = kSize, bool right_before = false) {
  Checked checked(std::move(kernel), square_exact, arguments(out(n), in(n, -4, 4), n));
  return checked.check(Cpu{}, 1, right_before);
}

/// Refused by that name, and by no other.
void check_refused(const Refusal& refusal, Cheat cheat) {
  const std::string seen =
      str("expected \"", name(cheat), "\", got \"", name(refusal.cheat), ": ", refusal.what, '"');
  CHECK_MESSAGE(refusal.cheat == cheat, seen);
}
void expensive(float* y, const float* x, Index n) {
  for (Index i = 0; i < n; ++i) {
    float wasted = x[i];
    for (int k = 0; k < 100; ++k) wasted = wasted * 0.75F + x[i];
    y[i] = honest(x[i]) + (wasted > 1e30F ? 1.0F : 0.0F);
  }
}

}  // namespace

TEST_CASE("bench: honest kernels are taken") {
  for (const Index n : {0, 1, 2, 31, 1023, 4096}) check_refused(refusal_of(square, n), Cheat::None);
  check_refused(refusal_of([](Cpu device, float* y, const float* x, Index n) {
                  parallel_for(device, n, 100, [&](Index begin, Index end) {
                    square(y + begin, x + begin, end - begin);
                  });
                }),
                Cheat::None);
}

TEST_CASE("bench: arguments of every kind") {
  // Rows of a table by number, scaled and added to what is there.
  const auto gather = [](float* sum, const double* table, const std::int32_t* rows, Index n,
                         Index c, float factor) {
    for (Index i = 0; i < n; ++i)
      for (Index j = 0; j < c; ++j)
        sum[i * c + j] += factor * static_cast<float>(table[rows[i] * c + j]);
  };
  const auto exact_gather = [](const Places& places, std::span<double> sum,
                               std::span<const double> table, std::span<const std::int32_t> rows,
                               Index n, Index c, float factor) {
    for (const Index at : places(n * c)) {
      const Index row = rows[static_cast<std::size_t>(at / c)];
      sum[static_cast<std::size_t>(at)] +=
          double{factor} * table[static_cast<std::size_t>(row * c + at % c)];
    }
  };
  const Index n = 40, c = 65, v = 11;
  const auto given = arguments(inout(n * c), in<double>(v * c), ids(n, v), n, c, 0.75F);
  Checked checked(gather, exact_gather, given);
  check_refused(checked.check(Cpu{}, 3, false), Cheat::None);
  CHECK(checked.buffers().traffic() ==
        std::pair<double, double>(4.0 * (n * c + n) + 8.0 * v * c, 4.0 * n * c));

  // It forgets to add; it forgets the last row.
  const auto assigns = [&](float* sum, const double* table, const std::int32_t* rows, Index count,
                           Index width, float factor) {
    std::fill_n(sum, count * width, 0.0F);
    gather(sum, table, rows, count, width, factor);
  };
  check_refused(Checked(assigns, exact_gather, given).check(Cpu{}, 3, false), Cheat::Wrong);
  const auto short_of = [&](float* sum, const double* table, const std::int32_t* rows, Index count,
                            Index width,
                            float factor) { gather(sum, table, rows, count - 1, width, factor); };
  check_refused(Checked(short_of, exact_gather, given).check(Cpu{}, 3, false), Cheat::Wrong);
}

TEST_CASE("bench cheat: a result computed once") {
  std::vector<float> kept;
  check_refused(refusal_of([kept](float* y, const float* x, Index n) mutable {
                  if (kept.empty()) {
                    kept.resize(static_cast<std::size_t>(n));
                    square(kept.data(), x, n);
                  }
                  std::copy(kept.begin(), kept.end(), y);
                }),
                Cheat::Cached);
}

TEST_CASE("bench cheat: a result kept for an address") {
  std::map<const float*, std::vector<float>> kept;
  check_refused(refusal_of([kept](float* y, const float* x, Index n) mutable {
                  auto& result = kept[x];
                  if (result.empty()) {
                    result.resize(static_cast<std::size_t>(n));
                    square(result.data(), x, n);
                  }
                  std::copy(result.begin(), result.end(), y);
                }),
                Cheat::CachedByAddress);
}

TEST_CASE("bench cheat: the tail is skipped") {
  const auto tailless = [](float* y, const float* x, Index n) { square(y, x, n / 8 * 8); };
  const Refusal refusal = refusal_of(tailless);
  check_refused(refusal, Cheat::LeavesUnwritten);
  CHECK(refusal.what ==
        "call 2: element 1016 of argument 1 was not written (the output still holds the poison)");
  check_refused(refusal_of(tailless, 1024), Cheat::None);
}

TEST_CASE("bench cheat: an input is changed") {
  check_refused(refusal_of([](float* y, const float* x, Index n) {
                  square(y, x, n);
                  const_cast<float*>(x)[n / 2] += 1.0F;
                }),
                Cheat::ChangesInput);
}

TEST_CASE("bench cheat: the output's old content is read") {
  check_refused(refusal_of([](float* y, const float* x, Index n) {
                  for (Index i = 0; i < n; ++i) y[i] = honest(x[i]) + 0.0F * y[i];
                }),
                Cheat::ReadsOutput);
}

TEST_CASE("bench cheat: another shape on the second call") {
  int calls = 0;
  const Refusal past = refusal_of([calls](float* y, const float* x, Index n) mutable {
    square(y, x, n);
    if (++calls == 2) y[n + 3] = 0.0F;
  });
  check_refused(past, Cheat::WritesOutside);
  CHECK(past.what == "call 2: argument 1 was written at element 1026, which is outside of it");
  check_refused(refusal_of([calls](float* y, const float* x, Index n) mutable {
                  square(y, x, ++calls == 2 ? n - 1 : n);
                }),
                Cheat::LeavesUnwritten);
  check_refused(refusal_of([](float* y, const float* x, Index n) {
                  square(y, x, n);
                  y[-1] = 0.0F;
                }),
                Cheat::WritesOutside);
}

TEST_CASE("bench cheat: right in the first calls alone") {
  int calls = 0;
  check_refused(refusal_of([calls](float* y, const float* x, Index n) mutable {
                  square(y, x, n);
                  if (++calls >= 3) y[0] += 1.0F;
                }),
                Cheat::DependsOnCall);
  check_refused(refusal_of([calls](float* y, const float* x, Index n) mutable {
                  square(y, x, n);
                  if (++calls % 2 == 0) y[0] = std::nextafter(y[0], 100.0F);  // within tolerance
                }),
                Cheat::DependsOnCall);
}

TEST_CASE("bench cheat: wrong after the calls that were timed") {
  int calls = 0;
  Checked checked([calls](float* y, const float* x,
                          Index n) mutable { square(y, x, ++calls > 100 ? n / 2 : n); },
                  square_exact, arguments(out(kSize), in(kSize), kSize));
  check_refused(checked.check(Cpu{}, 1, false), Cheat::None);
  for (int i = 0; i < 100; ++i) checked.run(Cpu{});
  check_refused(checked.last_call(Cpu{}), Cheat::DependsOnCall);
}

TEST_CASE("bench cheat: wrong unless arrays begin a cache line") {
  check_refused(refusal_of([](float* y, const float* x, Index n) {
                  square(y, x, n);
                  if (reinterpret_cast<std::uintptr_t>(x) % 64 != 0) y[0] = 7.0F;
                }),
                Cheat::DependsOnPlace);
}

TEST_CASE("bench cheat: computed once, then copied while the inputs are known") {
  std::vector<float> known, kept;
  check_refused(refusal_of(
                    [known, kept](float* y, const float* x, Index n) mutable {
                      if (!std::equal(known.begin(), known.end(), x, x + n)) {
                        known.assign(x, x + n);
                        kept.resize(known.size());
                        expensive(kept.data(), x, n);
                      }
                      std::copy(kept.begin(), kept.end(), y);
                    },
                    8 * kSize),
                Cheat::KnowsItsInputs);
  check_refused(refusal_of(expensive, 8 * kSize), Cheat::None);
}

TEST_CASE("bench cheat: right for small sizes alone") {
  const auto small = [](float* y, const float* x, Index n) {
    square(y, x, n);
    if (n > 512) y[n - 1] = 0.0F;
  };
  check_refused(refusal_of(small, 511), Cheat::None);
  check_refused(refusal_of(small, 1023, true), Cheat::WrongForSize);
  check_refused(refusal_of(small, 1023, false), Cheat::Wrong);
}

TEST_CASE("bench cheat: bf16 where float is claimed") {
  check_refused(refusal_of([](float* y, const float* x, Index n) {
                  for (Index i = 0; i < n; ++i) y[i] = static_cast<float>(bf16(honest(x[i])));
                }),
                Cheat::LessPrecise);
}

TEST_CASE("bench cheat: bits that depend on the threads") {
  check_refused(refusal_of([](Cpu device, float* y, const float* x, Index n) {
                  square(y, x, n);
                  const int threads = device.pool ? device.pool->threads() : 1;
                  if (threads == 3) y[0] = std::nextafter(y[0], 100.0F);
                }),
                Cheat::DependsOnThreads);
}

TEST_CASE("bench cheat: it returns before the work is done") {
  // Plain writes from another thread: what is tested is a data race, which tsan would report.
#if defined(__SANITIZE_THREAD__)
  MESSAGE("skipped: this cheat is a data race");
#else
  std::vector<std::thread> threads;
  check_refused(refusal_of([&threads](float* y, const float* x, Index n) {
                  square(y, x, n / 2);
                  threads.emplace_back([=] {
                    std::this_thread::sleep_for(std::chrono::milliseconds(10));
                    square(y + n / 2, x + n / 2, n - n / 2);
                  });
                }),
                Cheat::ReturnsEarly);
  for (std::thread& thread : threads) thread.join();
#endif
}

TEST_CASE("bench cheat: it throws") {
  const Refusal refusal =
      refusal_of([](float*, const float*, Index) { throw Error("no such size"); });
  check_refused(refusal, Cheat::Throws);
  CHECK(refusal.what == "call 1 threw: no such size");
}

namespace {

/// A system that counts what it is told; files are numbered from 10, in the order of opening.
struct FakeCounters {
  std::vector<CounterReading> readings{};
  int refused_from = 99;  // the event, from 0
  std::vector<int> opened{}, closed{};

  CounterSystem system() {
    return {[this](Event event) {
              if (static_cast<int>(event) >= refused_from) return errno = EACCES, -1;
              opened.push_back(10 + static_cast<int>(event));
              return opened.back();
            },
            [this](int file, CounterReading& into) {
              const auto at = static_cast<std::size_t>(file - 10);
              if (at >= readings.size()) return false;
              into = readings[at];
              return true;
            },
            [this](int file) { closed.push_back(file); }};
  }
};
using Figures = std::vector<std::pair<std::string, double>>;

}  // namespace

TEST_CASE("bench: instructions a cycle and misses a call, of what the counters' files hold") {
  FakeCounters fake{.readings = {{2000, 100, 100}, {5000, 100, 100}, {30, 100, 100}}};
  {
    const Counters counters(fake.system());
    CHECK(counters.there());
    CHECK(counters.describe() == "instructions a cycle, misses of the last cache");
    CHECK(counters.read().figures(10) == Figures{{"ins/cycle", 2.5}, {"misses", 3}});
    CHECK(fake.closed.empty());
  }
  CHECK(fake.opened == std::vector<int>{10, 11, 12});
  CHECK(fake.closed == fake.opened);
}

TEST_CASE("bench: counters that took turns are scaled, each by its own share of the time") {
  FakeCounters fake{.readings = {{2000, 100, 50}, {1000, 100, 25}, {30, 100, 100}}};
  const Counts counts = Counters(fake.system()).read();
  CHECK(counts.cycles == 4000);
  CHECK(counts.instructions == 4000);
  CHECK(counts.figures(10) == Figures{{"ins/cycle", 1}, {"misses", 3}, {"%counted", 25}});
  // One that never had its turn is not known, and not zero.
  fake.readings[1] = {0, 100, 0};
  CHECK(Counters(fake.system()).read().figures(10) == Figures{{"misses", 3}, {"%counted", 0}});
  fake.readings.pop_back();  // nor one that cannot be read
  CHECK(Counters(fake.system()).read().figures(10).empty());
}

TEST_CASE("bench: a system that refuses to count is quoted, and what was opened closed") {
  for (const int from : {0, 2}) {
    FakeCounters fake{.readings = {{1, 1, 1}, {1, 1, 1}, {1, 1, 1}}, .refused_from = from};
    {
      const Counters counters(fake.system());
      CHECK_FALSE(counters.there());
      CHECK(counters.describe() == "none, the system refuses: Permission denied");
      CHECK(counters.read().figures(10).empty());
    }
    CHECK(static_cast<int>(fake.closed.size()) == from);
  }
  // This one counts, or says why not; either way its figures are numbers.
  const Counters here;
  volatile double x = 1;
  for (int i = 0; i < 1000; ++i) x = x * 1.5;
  CHECK(here.there() == !here.read().figures(1).empty());
}

namespace {

/// Times as shared machines give them: a level of each moment, a part of each process (where its
/// memory lies), noise, and now and then a neighbour that takes half of the time.
struct Times {
  Rng rng;
  double level = 1.0;
  double moment() { return level *= std::exp(0.01 * rng.normal()); }
  double time(double of_moment, double slower = 1.0) {
    const double neighbour = rng.uniform() < 0.1 ? 1.0 + 0.5 * rng.uniform() : 1.0;
    return 1e-4 * slower * of_moment * neighbour * std::exp(0.01 * rng.normal());
  }
};
constexpr int kRounds = 30;

Comparison in_turn(std::uint64_t seed, double slower) {
  Times times{Rng(seed)};
  std::vector<double> ratios;
  for (int round = 0; round < kRounds; ++round) {
    const double moment = times.moment(), a = times.time(moment);
    ratios.push_back(times.time(moment, slower) / a);
  }
  return compare_in_turn(ratios);
}
Comparison by_files(std::uint64_t seed, double slower) {
  Times times{Rng(seed)};
  std::vector<double> a, b;
  for (int round = 0; round < kRounds; ++round) a.push_back(times.time(1.0));
  for (int round = 0; round < kRounds; ++round) b.push_back(times.time(1.0, slower));
  return compare_apart(a, b);
}

}  // namespace

TEST_CASE("bench: A against A gives no false verdict, and 5 % are found") {
  for (const auto& compare : {in_turn, by_files}) {
    int false_verdicts = 0, found = 0, fast = 0, wrong_way = 0;
    for (std::uint64_t seed = 1; seed <= 100; ++seed) {
      const Verdict same = compare(seed, 1.0).verdict;
      false_verdicts += same == Verdict::Faster || same == Verdict::Slower;
      const Comparison slow = compare(1000 + seed, 1.05);
      found += slow.verdict == Verdict::Slower;
      wrong_way += slow.verdict == Verdict::Faster || slow.verdict == Verdict::Same;
      fast += compare(2000 + seed, 1 / 1.05).verdict == Verdict::Faster;
    }
    CHECK(false_verdicts == 0);
    CHECK(wrong_way == 0);
    MESSAGE("5 % slower found ", found, " times of 100, 5 % faster ", fast);
    CHECK(found >= 90);
    CHECK(fast >= 90);
  }
}

TEST_CASE("bench: the four verdicts") {
  const auto times = [](double level, double spread) {
    std::vector<double> all;
    for (int i = 0; i < kRounds; ++i) all.push_back(level * (1 + spread * (i % 5 - 2)));
    return all;
  };
  const auto base = times(1, 1e-4);
  CHECK(compare_apart(base, times(1.001, 1e-4)).verdict == Verdict::Same);
  CHECK(compare_apart(base, times(1.05, 1e-4)).verdict == Verdict::Slower);
  CHECK(compare_apart(base, times(0.95, 1e-4)).verdict == Verdict::Faster);
  CHECK(compare_apart(base, times(1.05, 0.1)).verdict == Verdict::Unsure);
  // Times of two moments differ by what the machine did: 2 % are not taken for the program's.
  CHECK(compare_apart(base, times(1.02, 1e-4)).verdict == Verdict::Unsure);
  CHECK(compare_in_turn(times(1.03, 1e-4)).verdict == Verdict::Slower);
  // Too few for that confidence.
  const auto few = times(1.03, 1e-4);
  CHECK(compare_in_turn(std::span(few).first(10)).verdict == Verdict::Unsure);
  CHECK_THROWS_AS(compare_in_turn(times(-1, 1e-4)), Error);
}

TEST_CASE("bench: saved times come back, and never two machines' in one file") {
  const Temporary folder;
  const std::string path = folder / "times", other = folder / "other";
  Saved saved{"machine one", {{"k/n=1/threads:1", {1e-6, 2.5e-6}}, {"j", {3}}}, {}};
  saved.order = {"k/n=1/threads:1", "j"};
  write_saved(path, saved);
  const Saved again = read_saved(path);
  CHECK(again.machine == saved.machine);
  CHECK(again.times == saved.times);
  CHECK(again.order == saved.order);
  // Of several programs, one after another in a file.
  const auto append = [&](const std::string& from) {
    std::ifstream file(from);
    std::ofstream(path, std::ios::app) << file.rdbuf();
  };
  write_saved(other, {"machine one", {{"i", {4}}}, {"i"}});
  append(other);
  CHECK(read_saved(path).order == std::vector<std::string>{"k/n=1/threads:1", "j", "i"});
  write_saved(other, {"machine two", {{"i", {4}}}, {"i"}});
  append(other);
  CHECK_THROWS_AS(read_saved(path), DataError);
  std::ofstream(other) << "something else\n";
  CHECK_THROWS_AS(read_saved(other), DataError);
  CHECK_THROWS_AS(compare(other, path, {}), Error);
  CHECK_THROWS_AS(read_saved(folder / "none"), IoError);
}

TEST_CASE("bench: a roofline has a dot for each kernel that computes, under its roofs") {
  const Roofs roofs{1, {{"fma, avx2", 64}, {"none", 0}}, {{"L1", 128}, {"memory", 8}}};
  const std::vector<Dot> dots = {{"a<b", 1, 1e9, 1e9, 0.25, 0.125},  // 4 GFLOP/s at 1 FLOP a byte
                                 {"moves", 1, 0, 1e9, 0.5, 0.25},
                                 {"elsewhere", 2, 1e9, 1e9, 1, 1}};
  const std::string svg = roofline_svg("one & two", {roofs}, dots);
  const auto count = [&](const std::string& part) {
    int n = 0;
    for (std::size_t at = 0; (at = svg.find(part, at)) != std::string::npos; ++at) ++n;
    return n;
  };
  CHECK(count("<circle") == 1);
  CHECK(count("class=\"roof\"") == 3);  // a reading of 0 is INVALID, and no roof
  CHECK(svg.find("1  a&lt;b: 4 GFLOP/s, 50 %") != std::string::npos);
  CHECK(svg.find("2  moves: 2 GB/s, no FLOP, 50 %") != std::string::npos);
  CHECK(svg.find("one &amp; two") != std::string::npos);
  CHECK(count("elsewhere") == 0);
  // 4 GFLOP/s is where the fifth of 1/4 … 64 octaves lies; its x is that of 1 FLOP a byte.
  const double x = 60 + 810 * 3.0 / 8;
  CHECK(svg.find(str("<circle cx=\"", x, "\"")) != std::string::npos);
}
