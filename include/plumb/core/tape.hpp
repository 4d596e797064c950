// Tape: reverse-mode differentiation in one page.
//
// An op that has an input with a gradient appends a closure to the tape in scope; `backward` walks
// the closures from the last to the first and destroys each after its call, so that activations are
// freed as it goes. Creation order is a topological order: there is no graph and no sort. No tape
// in scope means inference. Closures lie one behind the other in blocks of host memory:
// recording costs no system allocation after the first step.
#pragma once

#include <plumb/core/memory.hpp>
#include <plumb/core/tensor.hpp>

#include <cstddef>
#include <new>
#include <type_traits>
#include <utility>

namespace plumb { inline namespace v0_1 {

class Tape;

namespace detail {
inline thread_local Tape* active_tape = nullptr;
}

/// No op is recorded in this scope (on this thread): inference within a tape's.
class NoTape {
 public:
  NoTape() : outer_(std::exchange(detail::active_tape, nullptr)) {}
  ~NoTape() { detail::active_tape = outer_; }
  NoTape(const NoTape&) = delete;
  NoTape& operator=(const NoTape&) = delete;

 private:
  Tape* outer_;
};

/// Records the ops run in its scope (on this thread).
class Tape {
 public:
  Tape() : outer_(std::exchange(detail::active_tape, this)) {}
  ~Tape() {
    detail::active_tape = outer_;
    while (last_ != nullptr) pop(false);
    release_blocks();
  }
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  /// Appends a backward step.
  template <class F>
  void record(F&& step) {
    using Step = std::decay_t<F>;
    struct Holder final : Entry {
      explicit Holder(F&& f) : step(std::forward<F>(f)) {}
      void run() override { step(); }
      Step step;
    };
    static_assert(sizeof(Holder) <= kBlockBytes / 4 && alignof(Holder) <= 64);
    auto* entry = new (take(sizeof(Holder))) Holder(std::forward<F>(step));
    entry->previous = last_;
    last_ = entry;
  }

  /// Adds d(loss)/d(x) to the gradient of every x that was recorded. `loss` has one element, whose
  /// gradient is `scale`.
  template <class D, class T>
  void backward(const Tensor<D, T>& loss, T scale = T{1}, Where where = Where::here()) {
    if (loss.size() != 1)
      fail(str("[backward] the loss must have one element; its shape is ", loss.shape()), where);
    if (!loss.requires_grad())
      fail(
          "[backward] the loss depends on no tensor with a gradient. HINT: was it computed in the "
          "scope of this tape, from parameters?",
          where);
    if (spent_ && last_ == nullptr)
      fail(
          "[backward] this tape is spent: its steps ran once, and their memory is gone. HINT: "
          "compute the loss anew in its scope",
          where);
    copy_from_host(D{}, loss.grad(), &scale, sizeof scale);
    replay();
  }

  /// Runs the recorded steps, last first, from the gradients that are in place.
  void replay() {
    const NoTape paused;  // backward is not recorded, but what follows is, even if a step throws
    spent_ = true;
    while (last_ != nullptr) pop(true);
    release_blocks();
  }

 private:
  static constexpr std::size_t kBlockBytes = std::size_t{1} << 16;

  struct Entry {
    virtual void run() = 0;
    virtual ~Entry() = default;
    Entry* previous = nullptr;
  };
  struct Block {
    Block* previous;
    std::size_t used;
  };

  void* take(std::size_t bytes) {
    bytes = (bytes + 63) / 64 * 64;
    if (block_ == nullptr || block_->used + bytes > kBlockBytes)
      block_ = new (kernels::allocate(Cpu{}, kBlockBytes)) Block{block_, 64};
    void* place = reinterpret_cast<std::byte*>(block_) + block_->used;
    block_->used += bytes;
    return place;
  }
  void pop(bool run) {
    Entry* entry = std::exchange(last_, last_->previous);
    struct Destroy {
      Entry* entry;
      ~Destroy() { entry->~Entry(); }
    } destroy{entry};
    if (run) entry->run();
  }
  void release_blocks() {
    while (block_ != nullptr)
      kernels::release(Cpu{}, std::exchange(block_, block_->previous), kBlockBytes);
  }

  Tape* outer_;
  Entry* last_ = nullptr;
  Block* block_ = nullptr;
  bool spent_ = false;  // whether its steps ran
};

/// Whether an op on these inputs must be recorded.
template <class... Tensors>
bool recording(const Tensors&... inputs) {
  return detail::active_tape != nullptr && (inputs.requires_grad() || ...);
}

/// Records the backward step of the op that computed `y`.
template <class D, class T, class F>
void record(const Tensor<D, T>& y, F&& step) {
  y.set_requires_grad(true);
  detail::active_tape->record(std::forward<F>(step));
}

}}  // namespace plumb::v0_1
