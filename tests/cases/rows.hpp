// Cases of cpu/rows.hpp: gathering and scattering rows, rotary positions, sums over tokens.
#pragma once

#include <string>

#include "work.hpp"

namespace cases::rows {

/// n rows of c channels; v rows in the table, or 0 for the kernels that have none.
struct Case {
  Index n, c, v;
};

/// Around the chunk of 256 rows; channels around the widths of registers and the 32 lanes. Each
/// number of rows is meant for each of channels, and of rows in the table.
inline constexpr Index kSmallRows[] = {0, 1, 2, 7, 31, 255, 256, 257, 300, 511, 600, 1030};
inline constexpr Index kSmallChannels[] = {1, 2, 7, 17, 31, 33, 64, 65, 130, 257};
inline constexpr Index kSmallTables[] = {1, 2, 13};

inline constexpr Case kTimedEmbedding[] = {
    {4096, 768, 50257}, {4096, 256, 512}, {1024, 384, 4096}, {1023, 257, 50258}};
inline constexpr Case kTimedSums[] = {
    {4096, 768, 0}, {4096, 256, 0}, {256, 256, 0}, {4095, 257, 0}};

/// (N, heads · head_size) at positions up to 1024.
struct Rope {
  Index n, heads, head_size;
};
inline constexpr Index kSmallRopeRows[] = {0, 1, 5, 700}, kSmallHeads[] = {1, 3};
inline constexpr Index kSmallHeadSizes[] = {2, 6, 8, 30, 32, 34, 64, 66};
inline constexpr Rope kTimedRope[] = {{4096, 8, 32}, {4096, 12, 64}, {256, 8, 32}, {4095, 3, 34}};

constexpr Work embedding_forward_work(const Case& c) {
  return streaming(0, floats(c.n * c.c), floats(c.n * c.c));
}
/// Only the rows that were read are added to; not the whole table.
constexpr Work embedding_backward_work(const Case& c) {
  return updating(0, 2 * floats(c.n * c.c), floats(c.n * c.c), floats(c.n * c.c));
}
constexpr Work sums_work(const Case& c) {
  return streaming(static_cast<double>(c.n * c.c), floats(c.n * c.c), floats(c.c));
}
constexpr Work rope_forward_work(const Rope& c) {
  const double bytes = floats(c.n * c.heads * c.head_size);
  return streaming(0, bytes, bytes);
}
constexpr Work rope_backward_work(const Rope& c) {
  const double bytes = floats(c.n * c.heads * c.head_size);
  return updating(0, 2 * bytes, bytes, bytes);
}

/// Sums over n tokens, of order √n; everything else rounds once or twice.
inline constexpr double kTolerance = 2e-6;

inline std::string name(const Case& c) {
  return c.v > 0 ? plumb::str(c.n, "x", c.c, "of", c.v) : plumb::str(c.n, "x", c.c);
}
inline std::string name(const Rope& c) { return plumb::str(c.n, "x", c.heads, "x", c.head_size); }

}  // namespace cases::rows
