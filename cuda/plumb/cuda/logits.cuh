// Rows of logits, a block a row: the largest of a row, and its sums in the canonical order. That
// order is 32 chains, a warp's lanes; so the block's other warps read the row and make the terms
// (an exponential each), tile by tile in shared memory, and the first warp does nothing but add
// those of the tile before. Cost beside the terms: 4 bytes of shared memory written and read a
// term; a row of V takes V/32 additions one after the other, 4 clocks each: 50257, 3.6 µs at 1.75
// GHz, less than 15 warps take for its exponentials. What this is not: for rows that are as many
// and as short as those of norms (norm.cuh: a warp a row).
#pragma once

#include <plumb/cuda/lanes.cuh>

#include <algorithm>

namespace plumb { inline namespace v0_1 {
namespace kernels {
namespace gpu {

/// Threads for a row: the smaller block keeps short rows from leaving most of it idle.
inline constexpr int kLogitThreads = 512, kFewLogitThreads = 128;
inline constexpr Index kFewLogits = 4096;

/// Calls body.template operator()<threads>() with those for a row of v.
template <class Body>
void with_logit_threads(Index v, Body body) {
  if (v > kFewLogits)
    body.template operator()<kLogitThreads>();
  else
    body.template operator()<kFewLogitThreads>();
}

/// The largest that a thread of the block brings, in all of them. All threads call it. Which of two
/// zeros it is, or what it is beside a NaN, depends on the order.
template <int kThreads>
__device__ float block_max(float most) {
  __shared__ float of_warp[kThreads / kWarp];
  most = warp_max(most);
  if (lane() == 0) of_warp[threadIdx.x / kWarp] = most;
  __syncthreads();
  most = of_warp[0];
#pragma unroll
  for (int w = 1; w < kThreads / kWarp; ++w) most = max(most, of_warp[w]);
  __syncthreads();
  return most;
}

/// The largest of scale · z over a row of v. A sum of exponentials has the same bits with either
/// zero as its maximum, and is NaN with a NaN beside any.
template <int kThreads>
__device__ float largest_logit(const float* z, int v, float scale) {
  float most = -__builtin_inff();
#pragma unroll 8
  for (int i = static_cast<int>(threadIdx.x); i < v; i += kThreads) most = max(most, scale * z[i]);
  return block_max<kThreads>(most);
}

/// What passes between the warps: kTerms numbers for each element of two tiles.
template <int kThreads, int kTerms, int kEach>
struct TermTiles {
  static constexpr int kMakers = kThreads - kWarp, kSize = kEach * kMakers;
  float term[2][kTerms][kSize];
};

/// Goes once through a row of v elements. make(i, load(i), terms) writes element i's terms, by the
/// warps after the first; beyond the row's end, too, with an i that is not below v and whatever was
/// loaded: no branch keeps a thread's elements apart. Once a tile is whole, those warps call
/// made(its first terms, its first element, its count), and the first warp adds: add(terms) on lane
/// l for elements l, l + 32, …. All threads call this. Loads are made a tile before their terms.
template <int kThreads, int kTerms, int kEach, class Load, class Make, class Add, class Made>
__device__ void ordered_sums(TermTiles<kThreads, kTerms, kEach>& tiles, int v, Load load, Make make,
                             Add add, Made made) {
  using Tiles = TermTiles<kThreads, kTerms, kEach>;
  const int maker = static_cast<int>(threadIdx.x) - kWarp;
  decltype(load(0)) next[kEach] = {};
  const auto load_tile = [&](int first) {
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      const int i = first + j * Tiles::kMakers + maker;
      if (i < v) next[j] = load(i);
    }
  };
  if (maker >= 0) load_tile(0);
  int now = 0;
  for (int first = 0; first < v + Tiles::kSize; first += Tiles::kSize, now ^= 1) {
    auto& before = tiles.term[now ^ 1];
    const int begin = first - Tiles::kSize;  // of the tile before
    const int count = v - begin < Tiles::kSize ? v - begin : Tiles::kSize;
    if (maker >= 0) {
      auto& to = tiles.term[now];
      decltype(load(0)) loaded[kEach];
#pragma unroll
      for (int j = 0; j < kEach; ++j) loaded[j] = next[j];
      load_tile(first + Tiles::kSize);
#pragma unroll
      for (int j = 0; j < kEach; ++j) {
        const int at = j * Tiles::kMakers + maker;
        float terms[kTerms];
        make(first + at, loaded[j], terms);
#pragma unroll
        for (int k = 0; k < kTerms; ++k) to[k][at] = terms[k];
      }
      if (first > 0) made(before[0], begin, count);
    } else if (first > 0) {
#pragma unroll 8
      for (int at = lane(); at < count; at += kWarp) {
        float terms[kTerms];
#pragma unroll
        for (int k = 0; k < kTerms; ++k) terms[k] = before[k][at];
        add(terms);
      }
    }
    __syncthreads();
  }
}
template <int kThreads, int kTerms, int kEach, class Load, class Make, class Add>
__device__ void ordered_sums(TermTiles<kThreads, kTerms, kEach>& tiles, int v, Load load, Make make,
                             Add add) {
  ordered_sums(tiles, v, load, make, add, [](const float*, int, int) {});
}

/// Adds the lanes' x to `running` in the order of the lanes; returns the sum as far as this lane.
/// All lanes call it, with the same sum.
__device__ inline float run_on(float x, float& running) {
  float mine = 0.0F;
#pragma unroll 8
  for (int l = 0; l < kWarp; ++l) {
    running = running + __shfl_sync(kAllLanes, x, l);
    if (lane() == l) mine = running;
  }
  return mine;
}

}  // namespace gpu
}  // namespace kernels
}}  // namespace plumb::v0_1
