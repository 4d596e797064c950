// Cases of cpu/optimizer.hpp: one flat buffer of n parameters.
#pragma once

#include <string>

#include "work.hpp"

namespace cases::optimizer {

struct Case {
  Index n;
};

inline constexpr Case kSmall[] = {{0},   {1},   {2},   {7},    {31},   {33},   {63},    {65},
                                  {127}, {255}, {257}, {4095}, {4096}, {4097}, {20011}, {70001}};

/// The yardstick's S, more than caches hold, and what fits the second one.
inline constexpr Case kTimed[] = {{3'300'000}, {3'300'001}, {16'777'216}, {16'384}};

/// Reads parameter, gradient and both moments; writes all but the gradient: 28 bytes a parameter.
constexpr Work adamw_work(const Case& c) {
  return updating(0, floats(4 * c.n), floats(3 * c.n), floats(3 * c.n));
}
/// One moment: 20 bytes a parameter.
constexpr Work momentum_work(const Case& c) {
  return updating(0, floats(3 * c.n), floats(2 * c.n), floats(2 * c.n));
}
constexpr Work squares_work(const Case& c) {
  return streaming(2.0 * static_cast<double>(c.n), floats(c.n), 0);
}

/// Of a parameter of size 1 after a step; relative, of a sum of squares in blocks of 4096.
inline constexpr double kTolerance = 1e-6;

inline std::string name(const Case& c) { return plumb::str(c.n); }

}  // namespace cases::optimizer
