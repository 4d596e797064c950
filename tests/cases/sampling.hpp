// Cases of cpu/sampling.hpp: the next token of n rows of v logits.
#pragma once

#include <plumb/math/sampling.hpp>

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
                                  {"min_p", {.min_p = 0.05F}},
                                  {"greedy", {.temperature = 0.0F}}};

struct Case {
  Kind kind;
  Index n, v;
};

template <std::size_t Kinds, std::size_t Rows, std::size_t Sizes>
constexpr auto crossed(const Kind (&kinds)[Kinds], const Index (&rows)[Rows],
                       const Index (&sizes)[Sizes]) {
  std::array<Case, Kinds * Rows * Sizes> all{};
  std::size_t next = 0;
  for (const Kind& kind : kinds)
    for (const Index v : sizes)
      for (const Index n : rows) all[next++] = {kind, n, v};
  return all;
}

/// Filters alone and together; around the 32 lanes and the blocks of 256 tokens.
inline constexpr Kind kSmallKinds[] = {
    {"plain", {}},
    {"cold", {.temperature = 0.7F}},
    {"hot", {.temperature = 1.6F}},
    {"top_1", {.top_k = 1}},
    {"top_5", {.top_k = 5}},
    {"half", {.top_p = 0.5F}},
    {"most", {.top_p = 0.9F}},
    {"likely", {.min_p = 0.2F}},
    {"all", {.temperature = 1.3F, .top_k = 20, .top_p = 0.8F, .min_p = 0.1F}},
    {"greedy", {.temperature = 0.0F}}};
inline constexpr Index kSmallRows[] = {1, 3, 9};
inline constexpr Index kSmallSizes[] = {1, 2, 7, 31, 33, 63, 65, 255, 257, 300, 700, 1000};
inline constexpr auto kSmall = crossed(kSmallKinds, kSmallRows, kSmallSizes);

inline constexpr Index kTimedRows[] = {1, 16, 64};
inline constexpr Index kTimedSizes[] = {512, 50257};
inline constexpr auto kTimed = crossed(kKinds, kTimedRows, kTimedSizes);

/// Every logit once; the normaliser of the log-probability takes an exp of each.
constexpr Work work(const Case& c) {
  return with_extra(streaming(0, floats(c.n * c.v), floats(2 * c.n)), (1 + kExp) * c.n * c.v);
}

/// Of a log-probability, and of the running sum in which a draw is looked up: a lane adds up to
/// 50257 / 32 weights, each sum rounding by 6e-8.
inline constexpr double kTolerance = 1e-5;

inline std::string name(const Case& c) { return plumb::str(c.kind.name, "/", c.n, "x", c.v); }

}  // namespace cases::sampling
