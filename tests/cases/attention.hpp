// Cases of cpu/attention.hpp: batches of packed sequences, and a step of decoding against a cache.
#pragma once

#include <plumb/math/attention.hpp>

#include <array>
#include <cstddef>
#include <span>
#include <string>

#include "work.hpp"

namespace cases::attention {

using plumb::AttentionShape;

struct Case {
  const char* name;
  std::span<const Index> lengths;
  AttentionShape shape;
};

template <std::size_t Sequences>
constexpr std::array<Index, Sequences> each(Index length) {
  std::array<Index, Sequences> lengths{};
  for (Index& one : lengths) one = length;
  return lengths;
}

/// Around the blocks of 32 keys, with an empty sequence; a shape is meant for all of them at once.
inline constexpr Index kSmallLengths[] = {1, 31, 0, 32, 33, 2, 65, 7};
inline constexpr AttentionShape kSmall[] = {
    {8, 4, 8, 0.35F}, {2, 2, 1, 1.0F},    {4, 1, 7, 0.4F},   {2, 1, 16, 0.25F},
    {1, 1, 33, 0.2F}, {6, 3, 64, 0.125F}, {1, 1, 100, 0.1F}, {2, 1, 256, 0.06F}};

/// Around the chunks of 512 keys, for these shapes.
inline constexpr Index kLongLengths[] = {511, 512, 513, 1025};
inline constexpr AttentionShape kLong[] = {{4, 2, 8, 0.35F}, {4, 4, 7, 0.4F}, {1, 1, 33, 0.2F}};

inline constexpr auto k8x256 = each<8>(256), k8x1024 = each<8>(1024);
inline constexpr auto k4x256 = each<4>(256), k4x1024 = each<4>(1024);
inline constexpr auto k1x4096 = each<1>(4096);
inline constexpr Index kRagged[] = {7, 256, 33, 180, 91, 1, 300, 129, 64, 215};
inline constexpr AttentionShape kHeads8 = {8, 8, 32, 0.17677670F};
inline constexpr AttentionShape kHeads12 = {12, 12, 64, 0.125F};
inline constexpr AttentionShape kHead1 = {1, 1, 64, 0.125F};
inline constexpr AttentionShape kGrouped = {8, 2, 32, 0.17677670F};

inline constexpr Case kTimed[] = {
    {"B8H8T256D32", k8x256, kHeads8},
    {"B8H8T1024D32", k8x1024, kHeads8},
    {"B4H12T256D64", k4x256, kHeads12},
    {"B4H12T1024D64", k4x1024, kHeads12},
    {"grouped/B8H8kv2T256D32", k8x256, kGrouped},
    {"grouped/B8H8kv2T1024D32", k8x1024, kGrouped},
    {"ragged/B10H8D32", kRagged, kHeads8},
    {"odd/B8H3T256D33", k8x256, {3, 3, 33, 0.17407766F}},
    {"B1H1T4096D64", k1x4096, kHead1},
};

/// FLOPs forward: causal, so that half of the keys count; backward is 5/2 of it.
constexpr double flops(const Case& c) {
  double pairs = 0;
  for (const Index length : c.lengths) pairs += 0.5 * static_cast<double>(length * (length + 1));
  return 4.0 * pairs * static_cast<double>(c.shape.heads * c.shape.head_size);
}

constexpr Index tokens(const Case& c) {
  Index n = 0;
  for (const Index length : c.lengths) n += length;
  return n;
}

/// Bytes of all queries, of all keys (or values), of all log-sums.
constexpr double query_bytes(const Case& c) {
  return floats(tokens(c) * c.shape.heads * c.shape.head_size);
}
constexpr double key_bytes(const Case& c) {
  return floats(tokens(c) * c.shape.kv_heads * c.shape.head_size);
}
constexpr double lse_bytes(const Case& c) { return floats(tokens(c) * c.shape.heads); }

constexpr Work forward_work(const Case& c) {
  return streaming(flops(c), query_bytes(c) + 2 * key_bytes(c), query_bytes(c) + lse_bytes(c));
}

constexpr Work backward_work(const Case& c) {
  const double gradients = query_bytes(c) + 2 * key_bytes(c);
  return updating(2.5 * flops(c), 3 * query_bytes(c) + 2 * key_bytes(c) + lse_bytes(c) + gradients,
                  gradients, gradients);
}

/// One new token of each of `slots` sequences, which have `length` positions with it.
struct Decode {
  Index slots, length;
  AttentionShape shape;
};

inline constexpr Decode kTimedDecode[] = {
    {1, 256, kHeads8},   {16, 256, kHeads8},   {64, 256, kHeads8},  {16, 250, kHeads8},
    {1, 1024, kHeads12}, {16, 1024, kHeads12}, {16, 256, kGrouped}, {64, 1024, kGrouped},
    {1, 8192, kHeads12}};

/// `cached`: bytes of a value of the cache.
constexpr Work work(const Decode& c, double cached = 4) {
  const double queries = static_cast<double>(c.slots * c.shape.heads * c.shape.head_size);
  const double keys =
      static_cast<double>(c.slots * c.length * c.shape.kv_heads * c.shape.head_size);
  return streaming(4.0 * queries * static_cast<double>(c.length),
                   4.0 * queries + 2.0 * cached * keys, 4.0 * queries);
}

/// Values are of size 1, sums of size √D or √T: tens of roundings of 6e-8 each.
inline constexpr double kTolerance = 2e-6;
inline constexpr double kGradientTolerance = 8e-6;

inline std::string name(const Case& c) { return c.name; }
inline std::string name(const Decode& c) {
  const AttentionShape& s = c.shape;
  return plumb::str("B", c.slots, "H", s.heads, "kv", s.kv_heads, "T", c.length, "D", s.head_size);
}

}  // namespace cases::attention
