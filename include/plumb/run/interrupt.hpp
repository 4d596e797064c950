// Ctrl-C and SIGTERM as a question that long work asks between steps: `if (interrupted()) …`.
//
// The first signal only sets a flag, so that the step under way can end and a checkpoint be
// written; the second one kills, as if nothing had been installed. Nothing is thrown by the signal
// itself.
#pragma once

#include <plumb/core/check.hpp>

#include <unistd.h>
#include <atomic>
#include <csignal>

namespace plumb { inline namespace v0_1 {

namespace detail {

inline std::atomic<int> interrupt_signal{0};
inline std::atomic<bool> interrupt_silent{false};
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free,
              "a signal handler may only touch lock-free atomics");

extern "C" inline void plumb_on_interrupt(int signal) {
  if (interrupt_signal.exchange(signal) > 0) {  // the second one: the default action, at once
    std::signal(signal, SIG_DFL);
    std::raise(signal);
    return;
  }
  if (interrupt_silent) return;
  constexpr char kNotice[] = "\nStopping after this step; once more stops at once.\n";
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, kNotice, sizeof kNotice - 1);
}

}  // namespace detail

/// Has Ctrl-C or SIGTERM come since a guard was installed?
inline bool interrupted() { return detail::interrupt_signal != 0; }

/// The signal that came (SIGINT or SIGTERM), 0 if none; a program ends with 128 + this.
inline int interrupt_signal() { return detail::interrupt_signal; }

/// Stops long work of this process as the first Ctrl-C does, without a signal: who asked clears it
/// (clear_interrupt) once the work has ended. A signal that comes later counts as the first one.
inline void ask_to_stop() {
  int none = 0;
  detail::interrupt_signal.compare_exchange_strong(none, -1);
}
/// Whether that, and no signal, is why interrupted() says so.
inline bool asked_to_stop() { return detail::interrupt_signal < 0; }

/// Thrown by long work that ends because of such a signal; what it acknowledged is on disk.
struct Interrupted : Error {
  using Error::Error;
};

/// Forgets a signal that was dealt with.
inline void clear_interrupt() { detail::interrupt_signal = 0; }

/// What a signal does to a read that waits for input.
enum class BlockingReads {
  Continue,  // for work: input and output never see the signal
  Return,    // for a prompt: the read ends as at end of file, and nothing is printed
};

/// Catches SIGINT and SIGTERM while it lives; guards nest, and the flag outlives them.
class InterruptGuard {
 public:
  explicit InterruptGuard(BlockingReads reads = BlockingReads::Continue)
      : outer_silent_(detail::interrupt_silent.exchange(reads == BlockingReads::Return)) {
    struct sigaction action = {};
    action.sa_handler = detail::plumb_on_interrupt;
    action.sa_flags = reads == BlockingReads::Continue ? SA_RESTART : 0;
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < 2; ++i)
      if (::sigaction(kSignals[i], &action, &previous_[i]) != 0)
        fail<IoError>("[interrupt] the signal handler could not be installed");
  }
  ~InterruptGuard() {
    for (int i = 0; i < 2; ++i) ::sigaction(kSignals[i], &previous_[i], nullptr);
    detail::interrupt_silent = outer_silent_;
  }
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

 private:
  static constexpr int kSignals[2] = {SIGINT, SIGTERM};
  bool outer_silent_;
  struct sigaction previous_[2] = {};
};

}}  // namespace plumb::v0_1
