// Cases of cpu/head.hpp: log-probabilities of one target per row, from hidden states or logits.
#pragma once

#include <string>

#include "work.hpp"

namespace cases::head {

/// n rows of c channels, v tokens, logits times `scale`.
struct Case {
  Index n, c, v;
  float scale;
};

inline constexpr Case kSmall[] = {{0, 4, 5, 1.0F},    {1, 1, 1, 1.0F},     {2, 7, 2, 0.7F},
                                  {3, 31, 33, 1.0F},  {7, 16, 63, 1.5F},   {5, 65, 127, 1.0F},
                                  {31, 8, 255, 0.5F}, {257, 9, 65, 1.25F}, {3, 260, 1000, 1.0F}};

/// Heads of the yardstick's models: S, M, GPT-2; and one of odd sizes.
inline constexpr Case kTimed[] = {{1024, 768, 50257, 1.0F},
                                  {1024, 384, 4096, 1.0F},
                                  {1024, 256, 512, 1.0F},
                                  {1023, 385, 4097, 0.7F}};

/// The row part alone, cross-entropy on given logits: (N, V), no channels.
inline constexpr Case kTimedRows[] = {
    {1024, 0, 50257, 1.0F}, {3072, 0, 4096, 1.0F}, {4096, 0, 512, 1.0F}, {1023, 0, 4097, 0.7F}};

constexpr double product_flops(const Case& c) {
  return 2.0 * static_cast<double>(c.n) * static_cast<double>(c.v * c.c);
}
constexpr Work forward_work(const Case& c) {
  return streaming(product_flops(c), floats(c.n * c.c) + floats(c.v * c.c), floats(2 * c.n));
}
/// The logits anew, dx and dw.
constexpr Work backward_work(const Case& c) {
  const double once = floats(c.n * c.c) + floats(c.v * c.c);
  return updating(3 * product_flops(c), 2 * once, once, once);
}
constexpr Work rows_forward_work(const Case& c) {
  return with_extra(streaming(0, floats(c.n * c.v), floats(2 * c.n)), (1 + kExp) * c.n * c.v);
}
/// Logits become their gradient in place.
constexpr Work rows_backward_work(const Case& c) {
  const double bytes = floats(c.n * c.v);
  return with_extra(updating(0, bytes, bytes, bytes), (4 + kExp) * c.n * c.v);
}

/// Of log-probabilities of size log V; of a gradient, times the sum of the sizes of its terms.
inline constexpr double kTolerance = 4e-6;
inline constexpr double kGradientTolerance = 1e-5;

inline std::string name(const Case& c) {
  return c.c > 0 ? plumb::str("N", c.n, "C", c.c, "V", c.v) : plumb::str("N", c.n, "V", c.v);
}

}  // namespace cases::head
