// The arguments of a kernel at one case, in the kernel's own order: arrays that it reads, writes or
// adds to, and plain values. What a kernel is called with lies in memory that is fenced: before and
// behind each array stand guards, inputs are kept a second time, and outputs hold a poison that no
// kernel writes by chance. On a device that is not the host all of it lies there, guards too, and
// what is looked at is a copy.
#pragma once

#include <plumb/bench/probe.hpp>
#include <plumb/core/bf16.hpp>
#include <plumb/core/check.hpp>
#include <plumb/core/device.hpp>
#include <plumb/core/random.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace plumb { inline namespace v0_1 { namespace bench {

enum class Role { In, Out, InOut };

/// An array of a kernel; made by in, out, inout and ids.
template <class T, Role R>
struct Array {
  Index size;
  double low = -1, high = 1;  ///< what an input is drawn from, uniformly: [low, high)
  double tolerance = 1e-6;    ///< of an output: |x − exact| / max(1, |exact|)
  std::vector<T> fixed{};     ///< what an input holds, if it is not drawn
  bool rotates = false;       ///< see rotating
};

/// Read: const T*. Drawn anew for each check from [low, high).
template <class T = float>
Array<T, Role::In> in(Index n, double low = -1, double high = 1) {
  return {.size = n, .low = low, .high = high};
}
/// Written, never read: T*.
template <class T = float>
Array<T, Role::Out> out(Index n, double tolerance = 1e-6) {
  return {.size = n, .tolerance = tolerance};
}
/// Read and written, such as a gradient that is added to: T*.
template <class T = float>
Array<T, Role::InOut> inout(Index n, double tolerance = 1e-6, double low = -1, double high = 1) {
  return {.size = n, .low = low, .high = high, .tolerance = tolerance};
}
/// Numbers of 0 … below − 1: const std::int32_t*.
inline Array<std::int32_t, Role::In> ids(Index n, Index below) {
  return {.size = n, .low = 0, .high = static_cast<double>(below)};
}
/// These numbers, such as where sequences begin: const T*.
template <class T>
Array<T, Role::In> fixed(std::vector<T> values) {
  return {.size = static_cast<Index>(values.size()), .fixed = std::move(values)};
}

/// While it is timed, an array in so many copies, taken in turn, that each has left the caches when
/// its turn comes again, as the weights of a model's layers have.
template <class T, Role R>
Array<T, R> rotating(Array<T, R> array) {
  array.rotates = true;
  return array;
}

/// What a kernel is called with at one case.
template <class... A>
struct Arguments {
  std::tuple<A...> list;
  bool same_bits = true;  ///< whatever threads run it, and however often
  Index places = 997;     ///< of each output, that an oracle which takes Places is asked for

  /// The order of additions is left to chance: results are held to the oracle alone.
  Arguments in_any_order() && {
    same_bits = false;
    return std::move(*this);
  }
  /// For an oracle that has much to do for an element.
  Arguments looked_at(Index count) && {
    places = count;
    return std::move(*this);
  }
};
template <class... A>
Arguments<A...> arguments(A... a) {
  return {std::tuple<A...>(a...)};
}

template <class A>
struct IsArray : std::false_type {};
template <class T, Role R>
struct IsArray<Array<T, R>> : std::true_type {};

/// Poison of call number `turn`: a NaN, or a large number of no special form. Two calls in a row
/// never have the same, so what was not written is known from what is wrong.
template <class T>
T poison(int turn) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(0x6B6B6B6B6B6B6B6B >> (turn % 2));
  } else if constexpr (std::is_same_v<T, bf16>) {
    return bf16(poison<float>(turn));
  } else {
    return turn % 2 == 0 ? std::numeric_limits<T>::quiet_NaN() : static_cast<T>(-7.0123e8);
  }
}

template <class T>
bool same_bits(const T& a, const T& b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}

/// Memory of a device that is not the host; of the host, which needs no second place, nothing.
template <class D>
struct Remote {
  std::shared_ptr<std::byte> block;

  explicit Remote(std::size_t bytes)
      : block(static_cast<std::byte*>(allocate(D{}, bytes)),
              [bytes](std::byte* p) { release(D{}, p, bytes); }) {}
  void send(std::size_t at, const std::byte* from, std::size_t bytes) const {
    copy_from_host(D{}, block.get() + at, from, bytes);
  }
  void fetch(std::byte* to, std::size_t bytes) const { copy_to_host(D{}, to, block.get(), bytes); }
};
template <class D>
  requires on_host<D>
struct Remote<D> {
  explicit Remote(std::size_t) {}
};

/// An array between two guards, `shift` elements past a cache line (of 4 bytes at least, which is
/// what the kernels here ask for); what the kernel gets begins there.
template <class D, class T>
class Fenced {
 public:
  static constexpr Index kGuard = 256;
  static constexpr Index kStep = sizeof(T) < 4 ? static_cast<Index>(4 / sizeof(T)) : 1;

  Fenced(Index n, Index shift)
      : n_(n), begin_(kGuard + shift * kStep), all_(bytes() + 64, std::byte{0}), remote_(bytes()) {
    const auto at = reinterpret_cast<std::uintptr_t>(all_.data());
    base_ = reinterpret_cast<T*>(all_.data() + (64 - at % 64) % 64);
    for (Index i = 0; i < n_ + 2 * kGuard; ++i) base_[i] = poison<T>(1);
    for (Index i = 0; i < n_; ++i) data()[i] = T{};
    send();
  }
  /// On the host; of another device the copy, which is sent and fetched.
  T* data() const { return base_ + begin_; }
  Index size() const { return n_; }
  T& operator[](Index i) const { return data()[i]; }

  /// What the kernel gets.
  T* pass() const {
    if constexpr (on_host<D>)
      return data();
    else
      return reinterpret_cast<T*>(remote_.block.get()) + begin_;
  }
  void send() const {
    if constexpr (!on_host<D>) remote_.send(0, reinterpret_cast<std::byte*>(base_), bytes());
  }
  void send(Index i) const {
    if constexpr (!on_host<D>) {
      const auto at = static_cast<std::size_t>(begin_ + i) * sizeof(T);
      remote_.send(at, reinterpret_cast<std::byte*>(base_) + at, sizeof(T));
    }
  }
  void fetch() const {
    if constexpr (!on_host<D>) remote_.fetch(reinterpret_cast<std::byte*>(base_), bytes());
  }

  /// The first element outside that was written, seen from the array's begin; or 0.
  Index broken() const {
    for (Index i = n_; i < n_ + 2 * kGuard - begin_; ++i)
      if (!same_bits(data()[i], poison<T>(1))) return i;
    for (Index i = -1; i >= -begin_; --i)
      if (!same_bits(data()[i], poison<T>(1))) return i;
    return 0;
  }
  /// No line of it is in a cache then; false where the processor cannot be told.
  bool flush() const {
#if defined(__x86_64__)
    for (Index i = 0; i < n_; i += static_cast<Index>(64 / sizeof(T))) _mm_clflush(data() + i);
    if (n_ > 0) _mm_clflush(data() + n_ - 1);
    _mm_mfence();
    return true;
#else
    return false;
#endif
  }

 private:
  std::size_t bytes() const { return static_cast<std::size_t>(n_ + 2 * kGuard) * sizeof(T); }

  Index n_, begin_;
  std::vector<std::byte> all_;
  T* base_ = nullptr;
  Remote<D> remote_;
};

/// The number that an oracle gets for one of a kernel: doubles, and integers as they are.
template <class T>
using Exact = std::conditional_t<std::is_integral_v<T>, T, double>;

template <class T>
Exact<T> exact(T x) {
  if constexpr (std::is_same_v<T, bf16>)
    return static_cast<double>(static_cast<float>(x));
  else
    return x;
}

/// One argument in D's memory. `given` is what an input, or an array that is added to, held before.
template <class D, class T, Role R>
struct Held {
  static constexpr Role kRole = R;
  using Element = T;
  Array<T, R> is;
  Fenced<D, T> memory;
  std::vector<T> given;
  std::vector<Exact<T>> exact_given;       ///< the same for an oracle
  mutable std::vector<Exact<T>> expected;  ///< an oracle's results; kept, for its memory

  Held(const Array<T, R>& array, Index shift) : is(array), memory(array.size, shift) {}

  /// Values of a seed, and of an argument's number, so that no two arrays hold the same.
  void fill(std::uint64_t seed, int turn) {
    copy_ = 0;
    if constexpr (R == Role::Out) {
      for (Index i = 0; i < is.size; ++i) memory[i] = poison<T>(turn);
      memory.send();
    } else {
      more_.clear();
      given.resize(static_cast<std::size_t>(is.size));
      if (is.fixed.empty())
        for (std::size_t i = 0; i < given.size(); ++i) given[i] = value(mixed(seed, i));
      else
        given = is.fixed;
      exact_given.resize(given.size());
      for (std::size_t i = 0; i < given.size(); ++i) exact_given[i] = exact(given[i]);
      restore();
    }
  }
  void restore() {
    copy_ = 0;
    std::copy(given.begin(), given.end(), memory.data());
    memory.send();
  }
  /// Draws element i of an input anew.
  void redraw(Index i, std::uint64_t& state) {
    if (!is.fixed.empty() || is.rotates) return;
    const auto at = static_cast<std::size_t>(i);
    memory[i] = given[at] = draw(state);
    exact_given[at] = exact(given[at]);
    memory.send(i);
  }
  T draw(std::uint64_t& state) const {
    state = state * 6364136223846793005U + 1442695040888963407U;
    return value(state);
  }
  /// Of each place by itself, so that millions take no time to speak of.
  static std::uint64_t mixed(std::uint64_t seed, std::uint64_t i) {
    std::uint64_t x = (seed << 40) + i + 0x632BE59BD9B4E019U;
    x = (x ^ (x >> 32)) * 0xD6E8FEB86659FD93U;
    return (x ^ (x >> 32)) * 0xD6E8FEB86659FD93U;
  }
  T value(std::uint64_t bits) const {
    const double share = static_cast<double>(bits >> 40) * 0x1p-24;
    const double x = is.low + share * (is.high - is.low);
    if constexpr (std::is_integral_v<T>)
      return static_cast<T>(std::min(x, is.high - 1));
    else if constexpr (std::is_same_v<T, double>)
      return x;
    else
      return T(static_cast<float>(x));
  }

  /// The copy whose turn it is.
  const Fenced<D, T>& now() const { return copy_ == 0 ? memory : more_[copy_ - 1]; }
  /// The next one, if it rotates; they are made when that is first asked for.
  void advance() {
    if (!is.rotates || is.size == 0) return;
    while (1 + more_.size() < copies()) {
      more_.emplace_back(is.size, 0);
      std::copy_n(memory.data(), is.size, more_.back().data());
      more_.back().send();
    }
    copy_ = (copy_ + 1) % copies();
  }
  std::size_t bytes() const { return static_cast<std::size_t>(is.size) * sizeof(T); }
  std::size_t copies() const {
    if (!is.rotates || is.size == 0) return 1;
    const double room = std::clamp(2 * cache_bytes()[3], 64.0 * 1024 * 1024, 512.0 * 1024 * 1024);
    return 1 + static_cast<std::size_t>(room) / bytes();
  }

  /// What the kernel gets.
  auto pass() const {
    if constexpr (R == Role::In)
      return static_cast<const T*>(now().pass());
    else
      return now().pass();
  }

 private:
  std::vector<Fenced<D, T>> more_;
  std::size_t copy_ = 0;
};

/// A value, which is passed as it stands.
template <class T>
struct Plain {
  T value;
  T pass() const { return value; }
};

// --- The device that a kernel is called for ------------------------------------------------------

namespace detail {
template <class A>
struct Passed {
  using type = A;
};
template <class T>
struct Passed<Array<T, Role::In>> {
  using type = const T*;
};
template <class T, Role R>
  requires(R != Role::In)
struct Passed<Array<T, R>> {
  using type = T*;
};

template <class R, class First, class... P>
First first_of(R (*)(First, P...));
template <class R, class K, class First, class... P>
First first_of(R (K::*)(First, P...));
template <class R, class K, class First, class... P>
First first_of(R (K::*)(First, P...) const);

template <class Kernel>
auto first_parameter() {
  if constexpr (requires { first_of(&Kernel::operator()); })
    return std::type_identity<std::decay_t<decltype(first_of(&Kernel::operator()))>>{};
  else if constexpr (requires(Kernel kernel) { first_of(kernel); })
    return std::type_identity<std::decay_t<decltype(first_of(std::declval<Kernel>()))>>{};
  else
    return std::type_identity<void>{};
}
}  // namespace detail

/// How a kernel of these arguments is called: as it stands, with a Cpu before them, or with the tag
/// of another device, if that is its first parameter: then its arrays lie there.
template <class Kernel, class... A>
struct Called {
  static constexpr bool kBare = std::is_invocable_v<Kernel&, typename detail::Passed<A>::type...>;
  static constexpr auto device() {
    if constexpr (kBare || std::is_invocable_v<Kernel&, Cpu, typename detail::Passed<A>::type...>) {
      return std::type_identity<Cpu>{};
    } else {
      using First = typename decltype(detail::first_parameter<Kernel>())::type;
      static_assert(std::is_invocable_v<Kernel&, First, typename detail::Passed<A>::type...>,
                    "[bench] a kernel takes what its cases' arguments() list, in their order, with "
                    "a device before them or without: const T* of an in, T* of an out and an "
                    "inout, values as they are");
      return std::type_identity<First>{};
    }
  }
  using Device = typename decltype(device())::type;
};

}}}  // namespace plumb::v0_1::bench
