// Drawing the next token on the device: distribution, filters, orders and bits of cpu/sampling.hpp.
//
// A block draws for a row (logits.cuh: exponentials by all its warps but one, which adds them in
// the canonical order; the others also sum the blocks of 256 tokens in which a draw is looked up,
// out of the same tile of shared memory). Without a filter no weight leaves the multiprocessor:
// those of the drawn block are computed again. The tokens that top-k keeps are found without
// sorting the vocabulary: by a radix selection of the k-th largest 64-bit key (logit, then the
// lower token), eight bits a pass. top-p gathers the 64 likeliest (then 512, …), sorts those
// (bitonic), and adds their mass in order until it is enough.
// Cost: 8 bytes read a token, without a filter and greedily; a filter writes and reads weights, 4
// bytes each, and makes eight passes over the logits. Bound by latency for few rows. Counting uses
// integer atomics in shared memory: sums of ones have no order, nor has the least of some places.
#pragma once

#include <plumb/core/random.hpp>
#include <plumb/cuda/device.cuh>
#include <plumb/cuda/logits.cuh>
#include <plumb/cuda/rows.cuh>
#include <plumb/math/sampling.hpp>

namespace plumb { inline namespace v0_1 {
namespace kernels {

namespace gpu {

inline constexpr Index kDrawBlock = 256;  // tokens whose weights are summed by one warp

using TokenKey = unsigned long long;

/// Greater for a greater logit and, among equals, for a lower token; never 0.
__device__ inline TokenKey token_key(float logit, Index token) {
  const auto bits = static_cast<std::uint32_t>(__float_as_int(logit + 0.0F));  // -0 as +0
  const std::uint32_t ordered = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
  return static_cast<TokenKey>(ordered) << 32 |
         static_cast<TokenKey>(~static_cast<std::uint32_t>(token));
}

/// The count-th largest key of a row, count ≥ 1. All threads call it, and get it, and meet at a
/// barrier before they call it again. `histogram`: 256 counts.
template <int kThreads>
__device__ TokenKey select_key(const float* logits, Index v, Index count, unsigned* histogram) {
  __shared__ TokenKey chosen;
  __shared__ unsigned left;
  const int t = static_cast<int>(threadIdx.x);
  if (t == 0) {
    chosen = 0;
    left = static_cast<unsigned>(count);
  }
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (int i = t; i < 256; i += kThreads) histogram[i] = 0;
    __syncthreads();
    const TokenKey above = chosen;
    for (Index i = t; i < v; i += kThreads) {
      const TokenKey key = token_key(logits[i], i);
      if (shift == 56 || key >> (shift + 8) == above >> (shift + 8))
        atomicAdd(&histogram[key >> shift & 255U], 1U);
    }
    __syncthreads();
    if (t == 0) {
      int digit = 255;
      while (left > histogram[digit]) left -= histogram[digit--];
      chosen = above | static_cast<TokenKey>(digit) << shift;
    }
    __syncthreads();
  }
  return chosen;
}

/// Sorts n keys (a power of two) in global memory from the largest down. All threads call it.
template <int kThreads>
__device__ void sort_down(TokenKey* keys, Index n) {
  for (Index run = 2; run <= n; run *= 2)
    for (Index apart = run / 2; apart > 0; apart /= 2) {
      for (Index i = threadIdx.x; i < n / 2; i += kThreads) {
        const Index low = 2 * i - (i & (apart - 1));
        order_pair(keys[low + apart], keys[low], low, run);
      }
      __syncthreads();
    }
}

/// sums[b] = the weights of block b of 256 tokens, by the row reduction. All threads call it.
template <int kThreads>
__device__ void block_sums(float* sums, const float* weights, Index v) {
  const Index blocks = (v + kDrawBlock - 1) / kDrawBlock;
  for (Index b = threadIdx.x / kWarp; b < blocks; b += kThreads / kWarp) {
    const Index first = b * kDrawBlock;
    const Index count = v - first < kDrawBlock ? v - first : kDrawBlock;
    const float sum =
        row_sum(count, [=](Index i, float total) { return total + weights[first + i]; });
    if (lane() == 0) sums[b] = sum;
  }
  __syncthreads();
}

/// The sum of `count` sums in order. All lanes of a warp call it, and get it.
__device__ inline float add_in_order(const float* sums, Index count) {
  float total = 0.0F;
  for (Index first = 0; first < count; first += kWarp)
    run_on(first + lane() < count ? sums[first + lane()] : 0.0F, total);
  return total;
}

/// Zeroes the weights of tokens whose key is below `least`.
template <int kThreads>
__device__ void keep_from(float* weights, const float* logits, Index v, TokenKey least) {
  for (Index i = threadIdx.x; i < v; i += kThreads)
    if (token_key(logits[i], i) < least) weights[i] = 0.0F;
  __syncthreads();
}

/// The key of the last token of the nucleus: the smallest set of the likeliest of mass `enough`.
/// All threads call it, once in a kernel: `last` is read after the loop's last barrier, and written
/// only behind those of a further turn.
template <int kThreads>
__device__ TokenKey nucleus_key(const float* weights, const float* logits, Index v, Index most,
                                double enough, TokenKey* keys, unsigned* histogram) {
  __shared__ unsigned gathered;
  __shared__ TokenKey last;
  const int t = static_cast<int>(threadIdx.x);
  for (Index sorted = most < 64 ? most : 64;; sorted = 8 * sorted < most ? 8 * sorted : most) {
    const TokenKey least = select_key<kThreads>(logits, v, sorted, histogram);
    Index padded = 1;
    while (padded < sorted) padded *= 2;
    if (t == 0) gathered = 0;
    __syncthreads();
    for (Index i = t; i < v; i += kThreads) {
      const TokenKey key = token_key(logits[i], i);
      if (key >= least) keys[atomicAdd(&gathered, 1U)] = key;
    }
    for (Index i = sorted + t; i < padded; i += kThreads) keys[i] = 0;
    __syncthreads();
    sort_down<kThreads>(keys, padded);
    if (t == 0) {
      double mass = 0.0;
      Index nucleus = 0;
      while (nucleus < sorted && (nucleus == 0 || mass < enough))
        mass = mass + static_cast<double>(weights[~static_cast<std::uint32_t>(keys[nucleus++])]);
      last = nucleus < sorted || mass >= enough || sorted == most ? keys[nucleus - 1] : 0;
    }
    __syncthreads();
    if (const TokenKey found = last; found != 0) return found;
  }
}

/// Zeroes the weights that the filters exclude; sums (blocks of 256 tokens) and keys are scratch.
/// All threads call it.
template <int kThreads>
__device__ void filter_weights(float* weights, const float* logits, Index v,
                               const SamplingSettings& settings, float* sums, TokenKey* keys) {
  __shared__ unsigned histogram[256];
  const bool by_rank = settings.top_k > 0 && settings.top_k < v;
  if (by_rank)
    keep_from<kThreads>(weights, logits, v,
                        select_key<kThreads>(logits, v, settings.top_k, histogram));
  if (settings.top_p < 1.0F) {
    block_sums<kThreads>(sums, weights, v);
    const double enough =
        static_cast<double>(settings.top_p) *
        static_cast<double>(add_in_order(sums, (v + kDrawBlock - 1) / kDrawBlock));
    const Index most = by_rank ? settings.top_k : v;
    keep_from<kThreads>(
        weights, logits, v,
        nucleus_key<kThreads>(weights, logits, v, most, enough, keys, histogram));
  }
  if (settings.min_p > 0.0F) {
    for (Index i = threadIdx.x; i < v; i += kThreads)
      if (weights[i] < settings.min_p) weights[i] = 0.0F;
    __syncthreads();
  }
}

/// The token at u of the running sum of weight(i), i < v, `sums` being the blocks' and `total`
/// theirs. Zeros change no running sum, so lanes without a weight take part with one. All lanes of
/// a warp call it, and get it.
template <class Weight>
__device__ std::int32_t draw_token(Weight weight, const float* sums, float total, int v, float u) {
  const int blocks = static_cast<int>((v + kDrawBlock - 1) / kDrawBlock);
  const float threshold = u * total;
  float running = 0.0F, before = 0.0F;
  int first = 0, end = v;
  for (int b = 0; b < blocks; b += kWarp) {
    before = running;
    const float as_far = run_on(b + lane() < blocks ? sums[b + lane()] : 0.0F, running);
    const unsigned over = __ballot_sync(kAllLanes, as_far > threshold);
    if (over == 0) {
      before = running;
      continue;
    }
    const int chosen = __ffs(static_cast<int>(over)) - 1;
    if (chosen > 0) before = __shfl_sync(kAllLanes, as_far, chosen - 1);
    first = (b + chosen) * static_cast<int>(kDrawBlock);
    end = v - first < kDrawBlock ? v : first + static_cast<int>(kDrawBlock);
    break;
  }
  const float rest = threshold - before;
  running = 0.0F;
  int drawn = first;
  for (int i = first; i < end; i += kWarp) {
    const float w = i + lane() < end ? weight(i + lane()) : 0.0F;
    const float as_far = run_on(w > 0.0F ? w : 0.0F, running);
    const unsigned some = __ballot_sync(kAllLanes, w > 0.0F);
    const unsigned over = __ballot_sync(kAllLanes, w > 0.0F && as_far > rest);
    if (over != 0) return i + __ffs(static_cast<int>(over)) - 1;
    if (some != 0) drawn = i + kWarp - 1 - __clz(static_cast<int>(some));
  }
  return drawn;
}

/// Scratch of a row: the blocks' sums; for filters v weights, and for top-p v rounded up to a power
/// of two keys.
struct SampleRoom {
  float *weights, *sums;
  TokenKey* keys;
  Index key_count;
};

// With filters, registers are given for 512 threads on a multiprocessor: for more, ptxas spills.
template <int kThreads, bool kFilters>
__global__ void __launch_bounds__(kThreads, (kFilters ? 512 : 1024) / kThreads)
    sample_kernel(std::int32_t* token, float* logprob, const float* logits, int v,
                  SamplingSettings settings, const SampleKey* sample_keys, SampleRoom room) {
  using Tiles = TermTiles<kThreads, 1, 8>;
  static_assert(Tiles::kSize == kDrawBlock * (Tiles::kMakers / kWarp));  // a warp a block of a tile
  __shared__ Tiles tiles;
  __shared__ float shared_lse;
  __shared__ int first_top;
  const Index row = blockIdx.x, blocks = (v + kDrawBlock - 1) / kDrawBlock;
  const int t = static_cast<int>(threadIdx.x);
  const bool greedy = settings.temperature == 0.0F;
  const float scale = greedy ? 1.0F : 1.0F / settings.temperature;
  const float* z = logits + row * v;
  float* weights = room.weights + row * v;
  float* sums = room.sums + row * blocks;

  if (t == 0) first_top = v - 1;
  const float top = largest_logit<kThreads>(z, v, scale);
  float total = 0.0F;
  ordered_sums(
      tiles, v, [=](int i) { return z[i]; },
      [&](int i, float logit, float (&term)[1]) {
        term[0] = exp(scale * logit - top);
        if (kFilters && i < v) weights[i] = term[0];
        if (!kFilters && greedy && logit == top && i < v) atomicMin(&first_top, i);
      },
      [&](const float (&term)[1]) { total = total + term[0]; },
      [=](const float* tile, int first, int count) {
        const int at = (t / kWarp - 1) * static_cast<int>(kDrawBlock);
        if (kFilters || at >= count) return;
        const Index size = count - at < kDrawBlock ? count - at : kDrawBlock;
        const float sum =
            row_sum(size, [=](Index i, float so_far) { return so_far + tile[at + i]; });
        if (lane() == 0) sums[(first + at) / kDrawBlock] = sum;
      });
  if (t < kWarp) {
    const float lse = top + log(warp_sum(total));
    if (t == 0) shared_lse = lse;
  }
  __syncthreads();
  const float lse = shared_lse;
  const bool finite = lse == lse;  // the same in all threads

  if constexpr (kFilters) {
    if (finite) {
      filter_weights<kThreads>(weights, z, v, settings, sums, room.keys + row * room.key_count);
      block_sums<kThreads>(sums, weights, v);
    }
  }

  if (t >= kWarp) return;
  const auto weight = [=](int i) { return kFilters ? weights[i] : exp(scale * z[i] - top); };
  std::int32_t drawn = 0;
  float all = 1.0F;
  if (finite && greedy) {
    drawn = first_top;
  } else if (finite) {
    const SampleKey key = sample_keys[row];
    const auto words = philox(key.seed, Stage::Sample, key.step, key.sequence, key.token);
    all = add_in_order(sums, blocks);
    drawn = draw_token(weight, sums, all, v, uniform_from(words[0]));
  }
  if (t != 0) return;
  token[row] = drawn;
  if (!finite || !settings.filtered_logprob || !settings.filters())
    logprob[row] = finite ? scale * z[drawn] - lse : lse;
  else
    logprob[row] = greedy ? 0.0F : log(weight(drawn) / all);
}

}  // namespace gpu

/// token[i] and logprob[i] as the CPU's, drawn with keys[i]: these three (N) on the host, which
/// waits; logits (N, V) on the device.
inline void sample_rows(Cuda device, std::int32_t* token, float* logprob, const float* logits,
                        Index n, Index v, const SamplingSettings& settings, const SampleKey* keys) {
  if (n == 0) return;
  const Index blocks = (v + gpu::kDrawBlock - 1) / gpu::kDrawBlock;
  const bool filters = settings.filters() && settings.temperature != 0.0F;
  Index key_count = filters && settings.top_p < 1.0F ? 1 : 0;
  while (key_count > 0 && key_count < v) key_count *= 2;
  const DeviceScratch<float> weights(device, filters ? n * v : 0), sums(device, n * blocks);
  const DeviceScratch<gpu::TokenKey> room(device, n * key_count);
  const DeviceScratch<SampleKey> device_keys(device, n);
  const DeviceScratch<std::int32_t> drawn(device, 2 * n);  // tokens, then log-probs
  auto* const logprobs = reinterpret_cast<float*>(drawn.data() + n);
  copy_from_host(device, device_keys.data(), keys, static_cast<std::size_t>(n) * sizeof(SampleKey));
  const gpu::SampleRoom scratch{weights.data(), sums.data(), room.data(), key_count};
  gpu::with_logit_threads(v, [&]<int kThreads>() {
    if (filters)
      PLUMB_LAUNCH((gpu::sample_kernel<kThreads, true>), static_cast<unsigned>(n), kThreads, 0,
                   device.stream, drawn.data(), logprobs, logits, static_cast<int>(v), settings,
                   device_keys.data(), scratch);
    else
      PLUMB_LAUNCH((gpu::sample_kernel<kThreads, false>), static_cast<unsigned>(n), kThreads, 0,
                   device.stream, drawn.data(), logprobs, logits, static_cast<int>(v), settings,
                   device_keys.data(), scratch);
  });
  const std::size_t bytes = static_cast<std::size_t>(n) * sizeof(float);
  const Scratch<std::int32_t> on_host(2 * n);
  copy_to_host(device, on_host.data(), drawn.data(), 2 * bytes);
  std::memcpy(token, on_host.data(), bytes);
  std::memcpy(logprob, on_host.data() + n, bytes);
  require_drawn(logprob, n);
}

}  // namespace kernels
}}  // namespace plumb::v0_1
