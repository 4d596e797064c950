// What a benchmark program holds: kernels at their cases, each ready to be made, checked and called
// by its name. Whoever times them (bench.hpp by Google Benchmark, session.hpp for comparisons)
// finds them here.
#pragma once

#include <plumb/bench/check.hpp>
#include <plumb/bench/work.hpp>
#include <plumb/core/memory.hpp>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <map>
#include <memory>
#include <random>

namespace plumb { inline namespace v0_1 { namespace bench {

/// One kernel at one case, in memory.
class Subject {
 public:
  virtual ~Subject() = default;
  virtual Work work() const = 0;
  /// Whether it may be timed; `right_before`: an earlier case of it was right.
  virtual Refusal check(const Cpu& device, bool right_before) = 0;
  /// The same with another number of threads.
  virtual Refusal recheck(const Cpu& device) { return check(device, false); }
  /// Made ready without a check, which was in another process.
  virtual void trust() {}
  /// The call that is timed.
  virtual void run(const Cpu& device) = 0;
  /// After the timed calls.
  virtual Refusal last_call(const Cpu&) { return {}; }
  /// What else is to be reported.
  virtual std::vector<std::pair<std::string, double>> more() const { return {}; }
  /// All arrays out of the caches; false if it cannot.
  virtual bool flush() { return false; }
  /// What binds it, and how much.
  virtual Bound bound(int threads, bool cold) const { return bound_of(work(), threads, cold); }
  /// On a device that is not the host: seconds that so many calls take by its clock, and what a
  /// call does there.
  virtual double device_seconds(Index) { fail("[bench] it runs on the host"); }
  virtual Counted device_counts() { fail("[bench] it runs on the host"); }
  /// Whether it has threads of its own, and so the wall clock alone knows how long it took.
  virtual bool own_threads() const { return false; }
};

/// A case of the list that a program has.
struct Entry {
  std::string kernel, name;  ///< kernel; kernel/case
  int threads = 1;
  bool flushes = false;  ///< it has a cold form, too
  std::function<std::unique_ptr<Subject>()> make;
  const Side* side = nullptr;  ///< the device, if it is not the host

  std::string full() const {
    return side ? str(name, '/', side->name) : str(name, "/threads:", threads);
  }
};
inline std::vector<Entry>& entries() {
  static std::vector<Entry> all;
  return all;
}

/// The devices of those cases that are not for the host.
inline std::vector<const Side*> sides() {
  std::vector<const Side*> all;
  for (const Entry& entry : entries())
    if (entry.side && std::find(all.begin(), all.end(), entry.side) == all.end())
      all.push_back(entry.side);
  return all;
}

/// A kernel that another is compared with, in the same run and at the cases of one name.
inline std::map<std::string, std::string>& peers() {
  static std::map<std::string, std::string> all;
  return all;
}

/// What PLUMB_BENCH registers, before the program's main; done when it runs.
inline std::vector<std::function<void()>>& pending() {
  static std::vector<std::function<void()>> all;
  return all;
}
inline bool later(std::function<void()> add) {
  pending().push_back(std::move(add));
  return true;
}

/// 1 and all threads of the default pool (PLUMB_NUM_THREADS).
inline std::vector<int> thread_counts() {
  const int all = default_pool().threads();
  return all == 1 ? std::vector{1} : std::vector{1, all};
}

/// Another number in every process: fresh inputs. PLUMB_BENCH_SEED gives those of a refusal again.
inline std::uint64_t fresh_seed() {
  static const std::uint64_t seed = [] {
    const char* given = std::getenv("PLUMB_BENCH_SEED");
    return given ? std::strtoull(given, nullptr, 10) : std::random_device{}() % 1000000 + 1;
  }();
  return seed;
}

/// The one case in memory at a time; what is timed was checked, with as many threads, before.
class Holder {
 public:
  static Holder& instance() {
    static Holder holder;
    return holder;
  }
  /// Made and, with `check`, looked at, unless it is the one that is here.
  Subject& hold(const Entry& entry, bool check = true) {
    const bool made = name_ != entry.name;
    if (made) {
      subject_.reset();
      release_cached_memory();
      subject_ = entry.make();
      name_ = entry.name;
      threads_ = 0;
    }
    if (threads_ != entry.threads) {
      pool_ = std::make_unique<Pool>(entry.threads);
      threads_ = entry.threads;
      // With other threads than it was checked with, a call is enough: the check has been there.
      bool& right = right_[entry.kernel];
      if (!check) subject_->trust();
      refusal_ = !check ? Refusal{}
                 : made ? subject_->check(device(), right)
                        : subject_->recheck(device());
      if (refusal_)
        refuse(entry, refusal_);
      else
        right |= check;
    }
    return *subject_;
  }
  Cpu device() const { return Cpu{pool_.get()}; }
  const Refusal& refusal() const { return refusal_; }
  void refuse(const Entry& entry, Refusal refusal) {
    refusal.what = str("[bench] ", entry.name, ": ", name(refusal.cheat), ": ", refusal.what,
                       " (PLUMB_BENCH_SEED=", fresh_seed(), ")");
    refusal_ = refusal;
    any_refused_ = true;
  }
  bool any_refused() const { return any_refused_; }
  /// Of one thread its CPU time; of several, the wall clock.
  double now() const {
    return clock_seconds(threads_ == 1 && !subject_->own_threads() ? CLOCK_THREAD_CPUTIME_ID
                                                                   : CLOCK_MONOTONIC);
  }

 private:
  std::string name_;
  int threads_ = 0;
  std::unique_ptr<Pool> pool_;
  std::unique_ptr<Subject> subject_;
  Refusal refusal_;
  std::map<std::string, bool> right_;
  bool any_refused_ = false;
};

// --- A kernel, its cases and its oracle ---------------------------------------------------------

/// Cases of a kernel: keys, such as sizes, and the arguments that a key makes.
template <class Key, class Make>
struct Cases {
  std::vector<Key> keys;
  Make make;
};
/// A case for each size.
template <class Make>
Cases<Index, Make> each_of(std::initializer_list<Index> sizes, Make make) {
  return {sizes, std::move(make)};
}
/// A case for each member of a table, whose type has a name(key).
template <class Table, class Make>
auto each_of(const Table& table, Make make) {
  using Key = std::decay_t<decltype(*std::begin(table))>;
  return Cases<Key, Make>{{std::begin(table), std::end(table)}, std::move(make)};
}

/// For `bytes`: every array read once, and written once.
struct EveryArrayOnce {};
inline constexpr EveryArrayOnce every_array_once;

template <class Key>
std::string name_of_case(const Key& key) {
  if constexpr (std::is_arithmetic_v<Key>)
    return str("n=", key);
  else
    return name(key);
}

template <class Kernel, class Oracle, class... A>
class Declared : public Subject {
 public:
  Declared(Kernel kernel, Oracle oracle, Arguments<A...> arguments, Work work)
      : checked_(std::move(kernel), std::move(oracle), std::move(arguments)), work_(work) {
    // Bytes in all are shared out as the arrays' are.
    const std::pair<double, double> arrays = checked_.buffers().traffic();
    const double sum = arrays.first + arrays.second;
    if (work_.written == 0 && sum > 0) {
      const double all = work_.read == 0 ? sum : work_.read;
      work_.written = all * arrays.second / sum;
      work_.read = all - work_.written;
    }
    if (work_.footprint == 0) work_.footprint = checked_.buffers().footprint();
  }
  Work work() const override { return work_; }
  Refusal check(const Cpu& device, bool right_before) override {
    return checked_.check(device, fresh_seed(), right_before);
  }
  Refusal recheck(const Cpu& device) override { return checked_.last_call(device); }
  void trust() override { checked_.trust(); }
  void run(const Cpu& device) override { checked_.run(device); }
  Refusal last_call(const Cpu& device) override { return checked_.last_call(device); }
  bool flush() override {
    if constexpr (kOnHost)
      return checked_.buffers().flush();
    else
      return Instruments<Device>::flush(), true;
  }
  bool own_threads() const override { return checked_.own_threads(); }
  Bound bound(int threads, bool cold) const override {
    if constexpr (kOnHost)
      return bound_of(work_, threads, cold);
    else
      return Instruments<Device>::bound(work_);
  }
  /// One element of each input is another than in the calls before.
  double device_seconds(Index calls) override {
    if constexpr (kOnHost) {
      return Subject::device_seconds(calls);
    } else {
      checked_.buffers().redraw();
      return Instruments<Device>::seconds([&] { checked_.call_again({}); }, calls);
    }
  }
  Counted device_counts() override {
    if constexpr (kOnHost) {
      return Subject::device_counts();
    } else {
      checked_.buffers().redraw();
      return Instruments<Device>::counted([&] { checked_.call_again({}); });
    }
  }

 private:
  using Device = typename Checked<Kernel, Oracle, A...>::Device;
  static constexpr bool kOnHost = on_host<Device>;

  Checked<Kernel, Oracle, A...> checked_;
  Work work_;
};

namespace detail {
template <class Kernel, class Oracle, class... A>
std::unique_ptr<Subject> declared(Kernel kernel, Oracle oracle, Arguments<A...> arguments,
                                  const Work& work) {
  return std::make_unique<Declared<Kernel, Oracle, A...>>(std::move(kernel), std::move(oracle),
                                                          std::move(arguments), work);
}
template <class Kernel, class... A>
Called<Kernel, A...> called(const Arguments<A...>&);
/// The device's side, or null of the host.
template <class D>
const Side* side_of() {
  if constexpr (on_host<D>) {
    return nullptr;
  } else {
    static_assert(
        requires { Instruments<D>::side(); },
        "[bench] a kernel for a GPU needs #include <plumb/cuda/bench.cuh>, too");
    return &Instruments<D>::side();
  }
}
}  // namespace detail

/// Adds a kernel: at each case, held to the oracle, with the least work `work(key)`.
template <class Kernel, class Key, class Make, class Oracle, class WorkOf>
bool add(const std::string& kernel_name, Kernel kernel, const Cases<Key, Make>& cases,
         Oracle oracle, WorkOf work) {
  using How = decltype(detail::called<Kernel>(cases.make(cases.keys.front())));
  const Side* side = detail::side_of<typename How::Device>();
  const bool flushes = side == nullptr || !side->counts;
  for (const Key& key : cases.keys)
    for (const int threads : How::kBare || side ? std::vector{1} : thread_counts())
      entries().push_back({kernel_name, str(kernel_name, '/', name_of_case(key)), threads, flushes,
                           [=, make = cases.make] {
                             return detail::declared(kernel, oracle, make(key), Work(work(key)));
                           },
                           side});
  return true;
}
/// The same, of flops(key) and bytes(key).
template <class Kernel, class Key, class Make, class Oracle, class Flops, class Bytes>
bool add(const std::string& kernel_name, Kernel kernel, const Cases<Key, Make>& cases,
         Oracle oracle, Flops flops, Bytes bytes) {
  return add(kernel_name, kernel, cases, oracle, [=](const Key& key) {
    Work work;
    work.flops = static_cast<double>(flops(key));
    if constexpr (!std::is_same_v<Bytes, EveryArrayOnce>)
      work.read = static_cast<double>(bytes(key));
    return work;
  });
}

// --- Benchmarks that are structs ----------------------------------------------------------------

/// A benchmark that makes and checks its inputs by itself, where arguments and an oracle cannot say
/// what is right: of sampling, near whose draw more than one token is; of the ladder, whose rungs
/// are also held to sizes that are not timed and to the library's bits. `Case`; a constructor that
/// makes a case's inputs; `work()`; `error(device)`, one call held to an oracle, 1 being the
/// largest error allowed; `run(device)`; and, if there is more to report, `more()`.
template <class Bench>
class Adapted : public Subject {
 public:
  explicit Adapted(const typename Bench::Case& c) : bench_(c) {}
  Work work() const override { return bench_.work(); }
  Refusal check(const Cpu& device, bool) override {
    const double error = bench_.error(device);
    if (error <= 1) return {};
    return {Cheat::Wrong, str("the error is ", error, " times the tolerance")};
  }
  void run(const Cpu& device) override { bench_.run(device); }
  std::vector<std::pair<std::string, double>> more() const override {
    if constexpr (requires { bench_.more(); })
      return bench_.more();
    else
      return {};
  }

 private:
  Bench bench_;
};

/// Adds `op`/case/threads:t for each case of a table and number of threads.
template <class Bench, class Table>
void add(const std::string& op, const Table& table) {
  for (const auto& c : table)
    for (const int threads : thread_counts())
      entries().push_back({op, str(op, '/', name(c)), threads, false,
                           [c] { return std::make_unique<Adapted<Bench>>(c); }, nullptr});
}

}}}  // namespace plumb::v0_1::bench
