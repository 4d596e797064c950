// Whether a kernel may be timed: held to its oracle on fresh random inputs, several times over and
// in ways that tell what is the matter, since a benchmark is the one place where a wrong kernel
// looks good. Each way of cheating, meant or not, is refused by its own name (Cheat).
//
// What this is not: a proof. A kernel that is right on every call seen here, and wrong on another,
// passes; that is why the call that was timed last is held to the oracle once more.
#pragma once

#include <plumb/bench/buffers.hpp>
#include <plumb/bench/device.hpp>
#include <plumb/core/pool.hpp>

#include <chrono>
#include <ctime>
#include <thread>

namespace plumb { inline namespace v0_1 { namespace bench {

enum class Cheat {
  None,
  WritesOutside,
  ChangesInput,
  LeavesUnwritten,
  ReadsOutput,
  Wrong,
  WrongForSize,
  LessPrecise,
  Cached,
  CachedByAddress,
  KnowsItsInputs,
  DependsOnCall,
  DependsOnPlace,
  DependsOnThreads,
  ReturnsEarly,
  Throws
};
inline constexpr const char* kCheatNames[] = {"",
                                              "writes outside",
                                              "changes an input",
                                              "leaves elements unwritten",
                                              "reads the output's old content",
                                              "wrong",
                                              "wrong for this size",
                                              "less precise than claimed",
                                              "cached result",
                                              "cached by address",
                                              "computed at set-up",
                                              "depends on the call",
                                              "depends on where arrays lie",
                                              "depends on the threads",
                                              "returns early",
                                              "throws"};
inline const char* name(Cheat cheat) { return kCheatNames[static_cast<int>(cheat)]; }

/// Why a kernel may not be timed; of None, it may.
struct Refusal {
  Cheat cheat = Cheat::None;
  std::string what;
  explicit operator bool() const { return cheat != Cheat::None; }
};

/// Seconds of the clock that names it: CLOCK_MONOTONIC, of a thread, of the whole process.
inline double clock_seconds(clockid_t clock = CLOCK_MONOTONIC) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// One kernel at one case. `Kernel` is called as kernel(arrays and values…), or with a Cpu before
/// them, whose pool it then uses, or with the tag of another device (Called); `Oracle` with spans
/// of double in their place, outputs to be written, and Places before them if it does not compute
/// every element. A Cpu that is given says which threads to use; other devices have their own.
template <class Kernel, class Oracle, class... A>
class Checked {
 public:
  using Device = typename Called<Kernel, A...>::Device;
  static constexpr bool kOnHost = on_host<Device>;

  Checked(Kernel kernel, Oracle oracle, Arguments<A...> arguments)
      : kernel_(std::move(kernel)),
        oracle_(std::move(oracle)),
        arguments_(std::move(arguments)),
        buffers_(arguments_, 0) {}

  Buffers<Device, A...>& buffers() { return buffers_; }
  /// Whether it ran on threads of its own when it was checked.
  bool own_threads() const { return own_threads_; }

  /// `seed` is another each time; `right_before` says that a smaller case of this kernel was right.
  Refusal check(const Cpu& device, std::uint64_t seed, bool right_before) {
    try {
      call_number_ = 0;
      const Cpu all{};  // with every thread that there is it takes least
      if (Refusal r = first_calls(all, seed, right_before)) return r;
      if (Refusal r = new_inputs(all, seed + 1)) return r;
      if (Refusal r = another_place(all, seed + 1)) return r;
      if (Refusal r = other_threads()) return r;
      if (Refusal r = known_inputs(all)) return r;
      own_threads_ = kOnHost && has_threads(device);
      return slow() ? Refusal{} : last_call(device);  // which comes again after the timed calls
    } catch (const std::exception& error) {
      return {Cheat::Throws, str("call ", call_number_, " threw: ", error.what())};
    }
  }

  /// Inputs without a check, of a kernel that was checked in another process.
  void trust() { buffers_.fill(1, 0); }

  /// The call that is timed: one element of each input is another each time.
  void run(const Cpu& device) {
    buffers_.redraw();
    buffers_.advance();
    call_again(device);
  }
  /// The same with the inputs of the call before.
  void call_again(const Cpu& device) { buffers_.call(kernel_, on(device)); }

  /// After the timed calls: what the last one left is still what the oracle says.
  Refusal last_call(const Cpu& device) {
    if (buffers_.accumulates()) buffers_.again(0);
    buffers_.redraw();
    call_again(device);
    buffers_.fetch();
    const Snapshot now = buffers_.outputs();
    if (Refusal r = damage(buffers_, now)) return r;
    if (const auto spot = wrong(buffers_))
      return {Cheat::DependsOnCall,
              str("right before, and after the calls that were timed ", what(*spot))};
    return {};
  }

 private:
  static constexpr double kGrace = 1e-3, kSuspicion = 40e-3;  // seconds

  /// A call takes so long that its own time says what others would, and as few are made as will do.
  bool slow() const { return known_seconds_ > 0.1 && fresh_seconds_ > 0.1; }

  Snapshot call(Buffers<Device, A...>& buffers, const Cpu& device) {
    ++call_number_;
    if constexpr (!kOnHost) Instruments<Device>::wait();  // for what was sent, on whatever stream
    const double start = clock_seconds();
    buffers.call(kernel_, on(device));
    buffers.fetch();
    seconds_ = clock_seconds() - start;
    return buffers.outputs();
  }
  static Device on(const Cpu& device) {
    if constexpr (kOnHost)
      return Device{device};
    else
      return Device{};
  }
  std::optional<Spot> wrong(const Buffers<Device, A...>& buffers) {
    auto numbers = buffers.exact_of(oracle_);
    return buffers.wrong(oracle_, numbers);
  }
  static std::string what(const Spot& spot) {
    return str("element ", spot.element, " of argument ", spot.argument, " is ", spot.got,
               "; expected ", spot.expected, " ± ", spot.allowed);
  }

  /// What needs no oracle: still at work, fences, inputs.
  Refusal damage(const Buffers<Device, A...>& buffers, const Snapshot& now,
                 double wait = kGrace) const {
    std::this_thread::sleep_for(std::chrono::duration<double>(wait));
    if constexpr (!kOnHost) {
      Instruments<Device>::wait();
      buffers.fetch();
    }
    if (buffers.outputs() != now)
      return {Cheat::ReturnsEarly,
              str("call ", call_number_, ": the output changed after the call had returned")};
    if (const auto spot = buffers.outside())
      return {Cheat::WritesOutside,
              str("call ", call_number_, ": argument ", spot->argument, " was written at element ",
                  spot->element, ", which is outside of it")};
    if (const auto spot = buffers.changed_input())
      return {Cheat::ChangesInput, str("call ", call_number_, ": element ", spot->element,
                                       " of argument ", spot->argument, ", an input, was changed")};
    return {};
  }
  /// `refusal`, unless the kernel turns out to have been at work yet.
  Refusal unless_late(const Buffers<Device, A...>& buffers, const Snapshot& now,
                      Refusal refusal) const {
    if (Refusal late = damage(buffers, now, kSuspicion)) return late;
    return refusal;
  }

  /// The same inputs twice, with two poisons in the output.
  Refusal first_calls(const Cpu& device, std::uint64_t seed, bool right_before) {
    buffers_.fill(seed, 0);
    const Snapshot one = call(buffers_, device);
    if (Refusal r = damage(buffers_, one)) return r;
    const auto first_wrong = wrong(buffers_);
    if (first_wrong)
      if (Refusal late = damage(buffers_, one, kSuspicion)) return late;
    buffers_.again(1);
    const Snapshot two = call(buffers_, device);
    known_seconds_ = seconds_;
    if (Refusal r = damage(buffers_, two)) return r;
    if (const auto spot = buffers_.unwritten(1))  // that poison is no number that comes by chance
      return unless_late(
          buffers_, two,
          {Cheat::LeavesUnwritten,
           str("call ", call_number_, ": element ", spot->element, " of argument ", spot->argument,
               " was not written (the output still holds the poison)")});
    const auto second_wrong = wrong(buffers_);
    if (arguments_.same_bits && one != two) {
      buffers_.again(0);
      const Snapshot three = call(buffers_, device);
      buffers_.again(0);
      const Snapshot four = call(buffers_, device);
      if (three == one && four == one)
        return {Cheat::ReadsOutput, "the result depends on what the output held before the call"};
      return unless_late(buffers_, four,
                         {Cheat::DependsOnCall, "two calls with the same inputs differ"});
    }
    if (first_wrong || second_wrong)
      return unless_late(buffers_, two,
                         judged(first_wrong ? *first_wrong : *second_wrong, right_before));
    first_result_ = two;
    return {};
  }
  Refusal judged(const Spot& spot, bool right_before) const {
    const double off = std::abs(spot.got - spot.expected) / std::max(1.0, std::abs(spot.expected));
    if (buffers_.rounded() && off < 0x1p-6)
      return {Cheat::LessPrecise,
              str("every result has 12 bits or fewer, float's 24 were claimed; ", what(spot))};
    if (right_before)
      return {Cheat::WrongForSize, str("right for an earlier case, not for this; ", what(spot))};
    return {Cheat::Wrong, what(spot)};
  }

  /// Other inputs in the same place.
  Refusal new_inputs(const Cpu& device, std::uint64_t seed) {
    const Snapshot old = first_result_;
    buffers_.fill(seed, 0);
    reference_ = call(buffers_, device);
    fresh_seconds_ = seconds_;
    if (Refusal r = damage(buffers_, reference_)) return r;
    const auto spot = wrong(buffers_);
    if (!spot) return {};
    if (reference_ != old)
      return {Cheat::DependsOnCall,
              str("right in call 1, and in call ", call_number_, ' ', what(*spot))};
    Buffers<Device, A...> elsewhere(arguments_, 0);
    elsewhere.fill(seed, 0);
    call(elsewhere, device);
    if (wrong(elsewhere))
      return {Cheat::Cached,
              str("the result of an earlier call came back for new inputs; ", what(*spot))};
    return {Cheat::CachedByAddress,
            str("the result of an earlier call came back for new inputs at the same address; ",
                what(*spot))};
  }

  /// The same inputs elsewhere, an element past a cache line.
  Refusal another_place(const Cpu& device, std::uint64_t seed) {
    Buffers<Device, A...> elsewhere(arguments_, 1);
    elsewhere.fill(seed, 1);
    const Snapshot there = call(elsewhere, device);
    if (Refusal r = damage(elsewhere, there)) return r;
    const auto spot = wrong(elsewhere);
    if (!spot && (!arguments_.same_bits || there == reference_)) return {};
    buffers_.again(0);
    const Snapshot here = call(buffers_, device);
    if (here != reference_ && arguments_.same_bits)
      return {Cheat::DependsOnCall, "two calls with the same inputs differ"};
    return {Cheat::DependsOnPlace,
            spot ? str("right in arrays that begin a cache line; an element further ", what(*spot))
                 : "other bits in arrays that begin an element past a cache line"};
  }

  /// The same on 1, 2 and 3 threads, if it takes a Cpu; of a device that lets us, in other orders
  /// of its threads.
  Refusal other_threads() {
    if constexpr (kOnHost && !Called<Kernel, A...>::kBare) {
      for (const int threads : {1, 2, 3}) {
        if (slow() && threads == 2) continue;
        Pool pool(threads);
        if (Refusal r = by_threads(Cpu{&pool}, threads, str("with ", threads, " threads")))
          return r;
      }
    } else if constexpr (!kOnHost) {
      Refusal refusal;
      for (int turn = 1; !refusal; ++turn) {
        const char* order = Instruments<Device>::reorder(turn);
        if (order == nullptr) break;
        refusal = by_threads(Cpu{}, turn, str("with its threads in ", order, " order"));
      }
      Instruments<Device>::reorder(0);
      return refusal;
    }
    return {};
  }
  Refusal by_threads(const Cpu& device, int turn, const std::string& how) {
    buffers_.again(turn);
    const Snapshot now = call(buffers_, device);
    if (Refusal r = damage(buffers_, now)) return r;
    if (now == reference_) return {};
    if (const auto spot = wrong(buffers_))
      return {Cheat::DependsOnThreads, str(how, ' ', what(*spot))};
    if (arguments_.same_bits) return {Cheat::DependsOnThreads, "other bits " + how};
    return {};
  }

  /// Calls with inputs that it had before are no faster than those with one new element.
  Refusal known_inputs(const Cpu& device) {
    if (slow() && fresh_seconds_ < 2.5 * known_seconds_) return {};
    for (int attempt = 0;; ++attempt) {
      double known = INFINITY, fresh = INFINITY;
      const double begin = clock_seconds();
      for (int i = 0; i < 9 && (i < 1 || clock_seconds() - begin < 0.3); ++i) {
        buffers_.redraw();
        fresh = std::min(fresh, seconds_of_call(device));
        known = std::min(known, seconds_of_call(device));
      }
      if (fresh < 2.5 * known || fresh - known < 5e-6) return {};
      if (attempt == 2)
        return {Cheat::KnowsItsInputs,
                str("a call with inputs that it had before takes ", 1e6 * known,
                    " µs, with one new element ", 1e6 * fresh, " µs")};
    }
  }
  double seconds_of_call(const Cpu& device) {
    ++call_number_;
    if constexpr (!kOnHost) Instruments<Device>::wait();
    const double start = clock_seconds();
    call_again(device);
    if constexpr (!kOnHost) Instruments<Device>::wait();
    return clock_seconds() - start;
  }
  /// Whether it is others than its caller's thread that spend the time.
  bool has_threads(const Cpu& device) {
    double thread = 0, process = 0;
    const double begin = clock_seconds();
    for (int i = 0; i < 3 && (i < 1 || clock_seconds() - begin < 0.3); ++i) {
      const double of_process = clock_seconds(CLOCK_PROCESS_CPUTIME_ID);
      const double of_thread = clock_seconds(CLOCK_THREAD_CPUTIME_ID);
      run(device);
      thread += clock_seconds(CLOCK_THREAD_CPUTIME_ID) - of_thread;
      process += clock_seconds(CLOCK_PROCESS_CPUTIME_ID) - of_process;
    }
    return process > 1.3 * thread + 1e-4;
  }

  Kernel kernel_;
  Oracle oracle_;
  Arguments<A...> arguments_;
  Buffers<Device, A...> buffers_;
  Snapshot first_result_, reference_;
  double seconds_ = 0, known_seconds_ = 0, fresh_seconds_ = 0;  // of a call
  int call_number_ = 0;
  bool own_threads_ = false;
};

}}}  // namespace plumb::v0_1::bench
