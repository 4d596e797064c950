// Cases of cpu/sampling.hpp: the next token of n rows of v logits.
#pragma once

#include <plumb/math/types.hpp>

#include <array>
#include <cstddef>
#include <iterator>
#include <string>

#include "work.hpp"

namespace cases::sampling {

using plumb::SamplingSettings;

struct Kind {
  const char* name;
  SamplingSettings settings;
};
inline constexpr Kind kKinds[] = {{"plain", {}},
                                  {"top_k", {.top_k = 50}},
                                  {"top_p", {.top_p = 0.9F}},
                                  {"greedy", {.temperature = 0.0F}}};

struct Case {
  Kind kind;
  Index n, v;
};

template <std::size_t Rows, std::size_t Sizes>
constexpr auto crossed(const Index (&rows)[Rows], const Index (&sizes)[Sizes]) {
  std::array<Case, std::size(kKinds) * Rows * Sizes> all{};
  std::size_t next = 0;
  for (const Kind& kind : kKinds)
    for (const Index v : sizes)
      for (const Index n : rows) all[next++] = {kind, n, v};
  return all;
}

inline constexpr Index kSmallRows[] = {1, 3};
inline constexpr Index kSmallSizes[] = {1, 2, 33, 63, 255, 257, 1000};
inline constexpr auto kSmall = crossed(kSmallRows, kSmallSizes);

inline constexpr Index kTimedRows[] = {1, 16, 64};
inline constexpr Index kTimedSizes[] = {512, 50257};
inline constexpr auto kTimed = crossed(kTimedRows, kTimedSizes);

/// Every logit once; the normaliser of the log-probability takes an exp of each.
constexpr Work work(const Case& c) {
  return with_extra(streaming(0, floats(c.n * c.v), floats(2 * c.n)), (1 + kExp) * c.n * c.v);
}

/// Of a log-probability, and of the running sum in which a draw is looked up: a lane adds up to
/// 50257 / 32 weights, each sum rounding by 6e-8.
inline constexpr double kTolerance = 1e-5;

inline std::string name(const Case& c) { return plumb::str(c.kind.name, "/", c.n, "x", c.v); }

}  // namespace cases::sampling
