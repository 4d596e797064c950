// Cases of cpu/norm.hpp: (N, C) for RMSNorm and LayerNorm alike.
#pragma once

#include <string>

#include "work.hpp"

namespace cases::norm {

struct Case {
  Index n, c;
};

inline constexpr Case kSmall[] = {{0, 8},    {1, 1},    {2, 2},    {3, 7},   {5, 31},   {4, 33},
                                  {2, 63},   {7, 64},   {3, 65},   {5, 127}, {255, 17}, {256, 3},
                                  {257, 9},  {513, 40}, {2, 255},  {1, 257}, {9, 1031}, {3, 1},
                                  {70, 257}, {300, 65}, {777, 130}};

/// The yardstick's, one that fits the second cache, GPT-2's width, and odd ones.
inline constexpr Case kTimed[] = {{4096, 256}, {256, 256}, {4096, 768}, {4095, 257}, {1023, 65}};

constexpr Work forward_work(const Case& c) {
  return streaming(0, floats(c.n * c.c), floats(c.n * c.c));
}
/// dx is added to; dy and x are read once, although dweight sums along the other dimension.
constexpr Work backward_work(const Case& c) {
  return updating(0, 3 * floats(c.n * c.c), floats(c.n * c.c), floats(c.n * c.c));
}

/// Values are of order 1 and their sums over n tokens of order √n.
inline constexpr double kTolerance = 4e-6;

inline std::string name(const Case& c) { return plumb::str(c.n, "x", c.c); }

}  // namespace cases::norm
