// Cases of cpu/reduce.hpp and of arithmetic with what stands beside a matrix.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "work.hpp"

namespace cases::reduce {

/// A matrix of n rows of c.
struct Case {
  Index n, c;
};

/// Around the widths of registers, the 32 lanes, the tiles of 32 rows and the pieces of 1024.
inline constexpr Case kSmall[] = {{0, 3},   {1, 1},   {1, 7},   {7, 1},    {2, 8},   {5, 15},
                                  {16, 16}, {33, 17}, {31, 31}, {32, 33},  {3, 65},  {300, 2},
                                  {64, 64}, {9, 257}, {40, 40}, {2, 1025}, {1, 5003}};

/// Logits of GPT-2, batches of hidden states, and what the second cache holds.
inline constexpr Case kTimed[] = {{32, 50257}, {4096, 256}, {1023, 769}, {128, 256}};

/// Where groups of n rows begin: of 0, 1, 2, … rows and a last one of the rest.
inline std::vector<std::int32_t> groups(Index n) {
  std::vector<std::int32_t> offsets{0};
  for (Index length = 0, at = 0; at < n; ++length) {
    at = at + length < n && length < 9 ? at + length : n;
    offsets.push_back(static_cast<std::int32_t>(at));
  }
  return offsets;
}

constexpr Work sums_work(const Case& c) {
  return streaming(static_cast<double>(c.n * c.c), floats(c.n * c.c), floats(c.n));
}
constexpr Work softmax_work(const Case& c) {
  return with_extra(streaming(0, floats(c.n * c.c), floats(c.n * c.c)), 2 * kExp * c.n * c.c);
}
constexpr Work softmax_backward_work(const Case& c) {
  return updating(0, 3 * floats(c.n * c.c), floats(c.n * c.c), floats(c.n * c.c));
}
constexpr Work move_work(const Case& c) {
  return streaming(0, floats(c.n * c.c), floats(c.n * c.c));
}
constexpr Work logsumexp_work(const Case& c) {
  return with_extra(streaming(0, floats(c.n * c.c), 0), kExp * c.n * c.c);
}

constexpr Work argmax_work(const Case& c) {
  return streaming(0, floats(c.n * c.c), floats(c.n));
}
/// A cache line of each row is touched, for one value.
constexpr Work pick_work(const Case& c) { return streaming(0, floats(2 * c.n), floats(c.n)); }
constexpr Work pick_backward_work(const Case& c) {
  return updating(0, floats(3 * c.n), floats(c.n), floats(c.n));
}

inline std::string name(const Case& c) { return plumb::str(c.n, "x", c.c); }

}  // namespace cases::reduce
