// What a benchmark asks of the emulator (plumb/cuda/bench.cuh): what a call's kernels did, and the
// same call with its threads in another order.
#pragma once

#include <emulator/core.hpp>
#include <emulator/runtime.hpp>
#include <emulator/trace.hpp>

#include <stdexcept>
#include <utility>

namespace plumb::emulator {

struct Instruments {
  static constexpr bool kHere = true;
  using Counts = emulator::Counts;
  using Traffic = TraceCounts;

  /// What runs between the two, with every request of warps; std::runtime_error if the program's
  /// kernels are not traced.
  static Counts begin() {
    if (!traced())
      throw std::runtime_error(
          "[bench] nothing counts in this program. HINT: link plumb_emulated_trace");
    drain_all();
    trace_counts().clear();
    trace_transactions(true);
    return counts();
  }
  static std::pair<Counts, Traffic> end() {
    drain_all();
    trace_transactions(false);
    return {counts(), trace_total()};
  }

  /// Sets order number `turn`, from 1 on, and names it; null after the last. 0: that of the
  /// environment, or what was set before turn 1.
  static const char* reorder(int turn) {
    static Order before = Order::forward;
    constexpr const char* kNames[] = {"forward", "reverse", "random"};
    if (turn == 1) before = schedule_order();
    if (turn > 3) return nullptr;
    set_schedule(turn == 0 ? before : static_cast<Order>(turn - 1));
    return turn == 0 ? nullptr : kNames[turn - 1];
  }
};

}  // namespace plumb::emulator
