// All arguments of one call in memory (arguments.hpp), what may be seen of them after it, and the
// oracle's numbers for the same inputs.
#pragma once

#include <plumb/bench/arguments.hpp>
#include <plumb/core/device.hpp>

#include <cmath>
#include <optional>

namespace plumb { inline namespace v0_1 { namespace bench {

/// Up to `count` places of [0, n), the first and the last among them.
inline std::vector<Index> places(Index n, Index count) {
  std::vector<Index> chosen;
  for (Index i = 0; i < std::min(n, count); ++i)
    chosen.push_back(n <= count ? i : i * (n - 1) / (count - 1));
  return chosen;
}

/// Which elements of an output of n an oracle is asked for, if it takes this as its first argument:
/// one that takes it not computes all. Each once, in order.
class Places {
 public:
  explicit Places(Index count, std::uint64_t last = 0) : count_(count), last_(last) {}
  std::vector<Index> operator()(Index n) const {
    std::vector<Index> chosen = places(n, count_);
    if (n == 0) return chosen;
    const auto last = static_cast<Index>(last_ % static_cast<std::uint64_t>(n));
    const auto at = std::lower_bound(chosen.begin(), chosen.end(), last);
    if (at == chosen.end() || *at != last) chosen.insert(at, last);
    return chosen;
  }

 private:
  Index count_;
  std::uint64_t last_;  // which element of an input changed last
};

/// What all outputs held, as a number that another content has by a chance of 2^-64.
using Snapshot = std::uint64_t;

template <class D, class A>
struct Memory {
  using type = Plain<A>;
};
template <class D, class T, Role R>
struct Memory<D, Array<T, R>> {
  using type = Held<D, T, R>;
};

/// What an oracle gets for an argument.
template <class T>
struct Numbers {
  T value;
  explicit Numbers(const Plain<T>& plain) : value(plain.value) {}
  T pass() { return value; }
};
template <class T, Role R>
struct ArrayNumbers {
  const std::vector<Exact<T>>& given;
  std::vector<Exact<T>>& values;  // of an output: NaN, or what was there, where it is asked for

  template <class D>
  ArrayNumbers(const Held<D, T, R>& held, const std::optional<Places>& asked)
      : given(held.exact_given), values(held.expected) {
    if constexpr (R != Role::In) {
      values.resize(static_cast<std::size_t>(held.is.size));
      const auto begin = [&](std::size_t at) {
        if constexpr (R == Role::Out && std::is_integral_v<T>)
          values[at] = std::numeric_limits<T>::min();
        else if constexpr (R == Role::Out)
          values[at] = NAN;
        else
          values[at] = given[at];
      };
      if (asked)
        for (const Index i : (*asked)(held.is.size)) begin(static_cast<std::size_t>(i));
      else
        for (std::size_t at = 0; at < values.size(); ++at) begin(at);
    }
  }
  auto pass() {
    if constexpr (R == Role::In)
      return std::span<const Exact<T>>(given);
    else
      return std::span<Exact<T>>(values);
  }
};
template <class T>
Numbers<T> numbers_of(const Plain<T>& plain, const std::optional<Places>&) {
  return Numbers<T>(plain);
}
template <class D, class T, Role R>
ArrayNumbers<T, R> numbers_of(const Held<D, T, R>& held, const std::optional<Places>& asked) {
  return ArrayNumbers<T, R>(held, asked);
}

/// An element that is not as it should be.
struct Spot {
  std::size_t argument;  ///< counted from 1
  Index element;
  double expected, got, allowed;
};

template <class D, class... A>
class Buffers {
  template <class Each>
  using MemoryOf = typename Memory<D, Each>::type;

 public:
  Buffers(const Arguments<A...>& arguments, Index shift)
      : held_(
            std::apply([&](const A&... a) { return std::tuple<MemoryOf<A>...>(make(a, shift)...); },
                       arguments.list)),
        places_(arguments.places) {}

  /// Inputs of a seed, outputs with the poison of a turn.
  void fill(std::uint64_t seed, int turn) {
    std::uint64_t number = 0;
    each([&](auto& held, std::size_t) { held.fill(seed * 64 + ++number, turn); });
    state_ = seed * 2862933555777941757U + 3037000493U;
  }
  /// The same inputs again, outputs with another poison.
  void again(int turn) {
    each([&](auto& held, std::size_t) {
      if constexpr (std::decay_t<decltype(held)>::kRole == Role::Out)
        held.fill(0, turn);
      else
        held.restore();
    });
  }
  /// One element of each input anew.
  void redraw() {
    last_ = state_ >> 16;
    each([&](auto& held, std::size_t) {
      if constexpr (std::decay_t<decltype(held)>::kRole == Role::In)
        if (held.is.size > 0)
          held.redraw(static_cast<Index>(last_ % static_cast<std::uint64_t>(held.is.size)), state_);
    });
  }
  /// The next copy of what rotates.
  void advance() {
    each([](auto& held, std::size_t) { held.advance(); });
  }
  template <class Kernel>
  void call(Kernel& kernel, const D& device) {
    std::apply(
        [&](auto&... held) {
          if constexpr (Called<Kernel, A...>::kBare)
            kernel(held.pass()...);
          else
            kernel(device, held.pass()...);
        },
        held_);
  }
  /// What a device that is not the host holds now, for everything below.
  void fetch() const {
    if constexpr (!on_host<D>) each([](const auto& held, std::size_t) { held.now().fetch(); });
  }
  /// The oracle's outputs for what the inputs were before the call.
  template <class Oracle>
  auto exact_of(Oracle& oracle) const {
    std::optional<Places> some;
    if constexpr (kAsks<Oracle>) some = asked();
    auto numbers = std::apply(
        [&](const auto&... held) {
          return std::tuple<decltype(numbers_of(held, some))...>(numbers_of(held, some)...);
        },
        held_);
    std::apply(
        [&](auto&... number) {
          if constexpr (kAsks<Oracle>)
            oracle(asked(), number.pass()...);
          else
            oracle(number.pass()...);
        },
        numbers);
    return numbers;
  }

  Snapshot outputs() const {
    Snapshot hash = 0x9E3779B97F4A7C15U;
    each([&](const auto& held, std::size_t) {
      if constexpr (std::decay_t<decltype(held)>::kRole != Role::In) {
        const auto bytes = std::as_bytes(std::span(held.now().data(), size(held)));
        for (std::size_t at = 0; at < bytes.size(); at += sizeof hash) {
          std::uint64_t word = 0;
          std::memcpy(&word, &bytes[at], std::min(sizeof word, bytes.size() - at));
          hash = (hash ^ word) * 0xD6E8FEB86659FD93U;
          hash ^= hash >> 32;
        }
      }
    });
    return hash;
  }
  std::optional<Spot> outside() const {
    return first([](const auto& held) -> std::optional<Index> {
      const Index at = held.now().broken();
      return at != 0 ? std::optional(at) : std::nullopt;
    });
  }
  std::optional<Spot> changed_input() const {
    return first([](const auto& held) -> std::optional<Index> {
      if constexpr (std::decay_t<decltype(held)>::kRole == Role::In) {
        const std::size_t bytes = held.bytes();
        if (bytes == 0 || std::memcmp(held.now().data(), held.given.data(), bytes) == 0)
          return std::nullopt;
        for (Index i = 0; i < held.is.size; ++i)
          if (!same_bits(held.now()[i], held.given[static_cast<std::size_t>(i)])) return i;
      }
      return std::nullopt;
    });
  }
  std::optional<Spot> unwritten(int turn) const {
    return first([turn](const auto& held) -> std::optional<Index> {
      using Type = std::decay_t<decltype(held)>;
      if constexpr (Type::kRole == Role::Out)
        for (Index i = 0; i < held.is.size; ++i)
          if (same_bits(held.now()[i], poison<typename Type::Element>(turn))) return i;
      return std::nullopt;
    });
  }
  /// The first element, of those that the oracle gave, that is further from it than allowed.
  template <class Oracle, class Numbers>
  std::optional<Spot> wrong(const Oracle&, Numbers& numbers) const;

  /// Whether every output that could hold float's 24 bits has 8 alone, as bf16 has.
  bool rounded() const {
    bool any = false, all = true;
    each([&](const auto& held, std::size_t) {
      using Type = std::decay_t<decltype(held)>;
      if constexpr (Type::kRole != Role::In && std::is_same_v<typename Type::Element, float>) {
        for (Index i = 0; i < held.is.size; ++i) {
          std::uint32_t bits;
          std::memcpy(&bits, &held.now()[i], sizeof bits);
          any |= (bits & 0x7FFFFFFFU) != 0;
          all &= (bits & 0x0FFFU) == 0;  // bf16, and half precision
        }
      }
    });
    return any && all;
  }
  bool flush() const {
    bool done = true;
    each([&](const auto& held, std::size_t) { done = held.now().flush() && done; });
    return done;
  }
  /// Bytes that are read and written, each array once.
  std::pair<double, double> traffic() const {
    std::pair<double, double> bytes{0, 0};
    each([&](const auto& held, std::size_t) {
      using Type = std::decay_t<decltype(held)>;
      const double all = static_cast<double>(held.bytes());
      if constexpr (Type::kRole != Role::Out) bytes.first += all;
      if constexpr (Type::kRole != Role::In) bytes.second += all;
    });
    return bytes;
  }
  /// Distinct bytes, in all copies.
  double footprint() const {
    double bytes = 0;
    each([&](const auto& held, std::size_t) {
      bytes += static_cast<double>(held.bytes() * held.copies());
    });
    return bytes;
  }
  bool accumulates() const {
    bool any = false;
    each([&](const auto& held, std::size_t) {
      any |= std::decay_t<decltype(held)>::kRole == Role::InOut;
    });
    return any;
  }

 private:
  template <class T>
  static Plain<T> make(const T& value, Index) {
    return {value};
  }
  template <class T, Role R>
  static Held<D, T, R> make(const Array<T, R>& array, Index shift) {
    return Held<D, T, R>(array, shift);
  }
  template <class H>
  static std::size_t size(const H& held) {
    return static_cast<std::size_t>(held.is.size);
  }
  Places asked() const { return Places(places_, last_); }
  template <class Oracle>
  static constexpr bool kAsks =
      std::is_invocable_v<Oracle&, const Places&,
                          decltype(numbers_of(std::declval<const MemoryOf<A>&>(), {}).pass())...>;

  /// f(array, its number among the arguments from 1), of arrays alone.
  template <class F>
  void each(F f) {
    std::apply(
        [&](auto&... held) {
          std::size_t i = 0;
          (visit(f, held, ++i), ...);
        },
        held_);
  }
  template <class F>
  void each(F f) const {
    std::apply(
        [&](const auto&... held) {
          std::size_t i = 0;
          (visit(f, held, ++i), ...);
        },
        held_);
  }
  template <class F, class H>
  static void visit(F& f, H& held, std::size_t i) {
    if constexpr (requires { held.memory; }) f(held, i);
  }
  template <class F>
  std::optional<Spot> first(F f) const {
    std::optional<Spot> spot;
    each([&](const auto& held, std::size_t i) {
      if (spot) return;
      if (const std::optional<Index> at = f(held)) spot = Spot{i, *at, 0, 0, 0};
    });
    return spot;
  }

  std::tuple<MemoryOf<A>...> held_;
  Index places_;
  std::uint64_t state_ = 1, last_ = 0;
};

template <class D, class... A>
template <class Oracle, class Numbers>
std::optional<Spot> Buffers<D, A...>::wrong(const Oracle&, Numbers& numbers) const {
  std::optional<Spot> spot;
  const auto look = [&](const auto& held, auto& number, std::size_t i) {
    using Type = std::decay_t<decltype(held)>;
    if constexpr (requires { held.memory; }) {
      if constexpr (Type::kRole != Role::In) {
        const auto judge = [&](Index j) {
          const double expected = static_cast<double>(number.values[static_cast<std::size_t>(j)]);
          const double got = static_cast<double>(exact(held.now()[j]));
          const double allowed = held.is.tolerance * std::max(1.0, std::abs(expected));
          const bool right = std::isfinite(expected)
                                 ? std::abs(got - expected) <= allowed
                                 : got == expected || (std::isnan(got) && std::isnan(expected));
          if (!right && !spot) spot = Spot{i, j, expected, got, allowed};
        };
        if constexpr (kAsks<Oracle>)
          for (const Index j : asked()(held.is.size)) judge(j);
        else
          for (Index j = 0; j < held.is.size; ++j) judge(j);
      }
    }
  };
  const auto all = [&]<std::size_t... I>(std::index_sequence<I...>) {
    (look(std::get<I>(held_), std::get<I>(numbers), I + 1), ...);
  };
  all(std::index_sequence_for<A...>{});
  return spot;
}

}}}  // namespace plumb::v0_1::bench
