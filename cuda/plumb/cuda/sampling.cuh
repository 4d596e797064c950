// Drawing the next token on the device: distribution, filters, orders and bits of cpu/sampling.hpp.
//
// A block draws for a row. Exponentials by all threads; the sum over 32 lanes by one warp, in the
// canonical order. The tokens that top-k keeps are found without sorting the vocabulary: by a radix
// selection of the k-th largest 64-bit key (logit, then the lower token), eight bits a pass. top-p
// gathers the 64 likeliest
// (then 512, …), sorts those (bitonic), and adds their mass in order until it is enough.
// Cost: about five passes over a row of logits or weights (20 bytes a token), a filter eight more;
// bound by latency for few rows. Counting uses integer atomics in shared memory: sums of ones have
// no order.
#pragma once

#include <plumb/core/random.hpp>
#include <plumb/cuda/head.cuh>
#include <plumb/cuda/rows.cuh>
#include <plumb/math/sampling.hpp>

namespace plumb { inline namespace v0_1 {
namespace kernels {

namespace gpu {

inline constexpr int kSampleThreads = 256;
inline constexpr Index kDrawBlock = 256;  // tokens whose weights are summed by one warp

using TokenKey = unsigned long long;

/// Greater for a greater logit and, among equals, for a lower token; never 0.
__device__ inline TokenKey token_key(float logit, Index token) {
  const auto bits = static_cast<std::uint32_t>(__float_as_int(logit + 0.0F));  // -0 as +0
  const std::uint32_t ordered = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
  return static_cast<TokenKey>(ordered) << 32 |
         static_cast<TokenKey>(~static_cast<std::uint32_t>(token));
}

/// The count-th largest key of a row, count ≥ 1. All threads call it, and get it. `histogram`: 256
/// counts.
__device__ inline TokenKey select_key(const float* logits, Index v, Index count,
                                      unsigned* histogram) {
  __shared__ TokenKey chosen;
  __shared__ unsigned left;
  const int t = static_cast<int>(threadIdx.x);
  if (t == 0) {
    chosen = 0;
    left = static_cast<unsigned>(count);
  }
  for (int shift = 56; shift >= 0; shift -= 8) {
    histogram[t] = 0;
    __syncthreads();
    const TokenKey above = chosen;
    for (Index i = t; i < v; i += kSampleThreads) {
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
  const TokenKey key = chosen;
  __syncthreads();
  return key;
}

/// Sorts n keys (a power of two) in global memory from the largest down. All threads call it.
__device__ inline void sort_down(TokenKey* keys, Index n) {
  for (Index run = 2; run <= n; run *= 2)
    for (Index apart = run / 2; apart > 0; apart /= 2) {
      for (Index i = threadIdx.x; i < n / 2; i += kSampleThreads) {
        const Index low = 2 * i - (i & (apart - 1));
        order_pair(keys[low + apart], keys[low], low, run);
      }
      __syncthreads();
    }
}

/// sums[b] = the weights of block b of 256 tokens, by the row reduction. All threads call it.
__device__ inline void block_sums(float* sums, const float* weights, Index v) {
  const Index blocks = (v + kDrawBlock - 1) / kDrawBlock;
  for (Index b = threadIdx.x / kWarp; b < blocks; b += kSampleThreads / kWarp) {
    const Index first = b * kDrawBlock;
    const Index count = v - first < kDrawBlock ? v - first : kDrawBlock;
    const float sum =
        row_sum(count, [=](Index i, float total) { return total + weights[first + i]; });
    if (lane() == 0) sums[b] = sum;
  }
  __syncthreads();
}

__device__ inline float add_in_order(const float* sums, Index count) {
  float total = 0.0F;
  for (Index i = 0; i < count; ++i) total = total + sums[i];
  return total;
}

/// Zeroes the weights of tokens whose key is below `least`.
__device__ inline void keep_from(float* weights, const float* logits, Index v, TokenKey least) {
  for (Index i = threadIdx.x; i < v; i += kSampleThreads)
    if (token_key(logits[i], i) < least) weights[i] = 0.0F;
  __syncthreads();
}

/// The key of the last token of the nucleus: the smallest set of the likeliest of mass `enough`.
__device__ inline TokenKey nucleus_key(const float* weights, const float* logits, Index v,
                                       Index most, double enough, TokenKey* keys,
                                       unsigned* histogram) {
  __shared__ unsigned gathered;
  __shared__ TokenKey last;
  const int t = static_cast<int>(threadIdx.x);
  for (Index sorted = most < 64 ? most : 64;; sorted = 8 * sorted < most ? 8 * sorted : most) {
    const TokenKey least = select_key(logits, v, sorted, histogram);
    Index padded = 1;
    while (padded < sorted) padded *= 2;
    if (t == 0) gathered = 0;
    __syncthreads();
    for (Index i = t; i < v; i += kSampleThreads) {
      const TokenKey key = token_key(logits[i], i);
      if (key >= least) keys[atomicAdd(&gathered, 1U)] = key;
    }
    for (Index i = sorted + t; i < padded; i += kSampleThreads) keys[i] = 0;
    __syncthreads();
    sort_down(keys, padded);
    if (t == 0) {
      double mass = 0.0;
      Index nucleus = 0;
      while (nucleus < sorted && (nucleus == 0 || mass < enough))
        mass = mass + static_cast<double>(weights[~static_cast<std::uint32_t>(keys[nucleus++])]);
      last = nucleus < sorted || mass >= enough || sorted == most ? keys[nucleus - 1] : 0;
    }
    __syncthreads();
    const TokenKey found = last;
    __syncthreads();
    if (found != 0) return found;
  }
}

/// The token at u of the weights' running sum; called by one thread, `sums` being the blocks' and
/// `total` theirs.
__device__ inline std::int32_t draw_token(const float* weights, const float* sums, float total,
                                          Index v, float u) {
  const Index blocks = (v + kDrawBlock - 1) / kDrawBlock;
  const float threshold = u * total;
  float before = 0.0F;
  Index first = 0, end = v;
  for (Index b = 0; b < blocks; ++b) {
    const float after = before + sums[b];
    if (after > threshold) {
      first = b * kDrawBlock;
      end = v - first < kDrawBlock ? v : first + kDrawBlock;
      break;
    }
    before = after;
  }
  const float rest = threshold - before;
  float running = 0.0F;
  Index drawn = first;
  for (Index i = first; i < end; ++i) {
    if (!(weights[i] > 0.0F)) continue;
    drawn = i;
    running = running + weights[i];
    if (running > rest) break;
  }
  return static_cast<std::int32_t>(drawn);
}

/// Scratch of a row: v weights, the blocks' sums, and for a filter v rounded up to a power of two
/// keys.
struct SampleRoom {
  float *weights, *sums;
  TokenKey* keys;
  Index key_count;
};

// Four blocks of it on a multiprocessor: by itself, ptxas takes registers for five, and spills.
template <int kThreads>
__global__ void __launch_bounds__(kThreads, 4)
    sample_kernel(std::int32_t* token, float* logprob, const float* logits, Index v,
                  SamplingSettings settings, const SampleKey* sample_keys, SampleRoom room) {
  __shared__ unsigned histogram[kThreads];
  __shared__ float shared_lse, shared_top;
  const Index row = blockIdx.x, blocks = (v + kDrawBlock - 1) / kDrawBlock;
  const int t = static_cast<int>(threadIdx.x);
  const bool greedy = settings.temperature == 0.0F;
  const float scale = greedy ? 1.0F : 1.0F / settings.temperature;
  const float* z = logits + row * v;
  float* weights = room.weights + row * v;
  float* sums = room.sums + row * blocks;
  TokenKey* keys = room.keys + row * room.key_count;

  if (t < kWarp) {
    const float top = head_maximum(z, v, scale);
    if (t == 0) shared_top = top;
  }
  __syncthreads();
  const float top = shared_top;
  for (Index i = t; i < v; i += kThreads) weights[i] = exp(scale * z[i] - top);
  __syncthreads();
  if (t < kWarp) {
    const float total = row_sum(v, [=](Index i, float so_far) { return so_far + weights[i]; });
    if (t == 0) shared_lse = top + log(total);
  }
  __syncthreads();
  const float lse = shared_lse;
  const bool finite = lse == lse;  // the same in all threads

  if (finite && !greedy && settings.top_k > 0 && settings.top_k < v)
    keep_from(weights, z, v, select_key(z, v, settings.top_k, histogram));
  if (finite && !greedy && settings.top_p < 1.0F) {
    block_sums(sums, weights, v);
    const double enough =
        static_cast<double>(settings.top_p) * static_cast<double>(add_in_order(sums, blocks));
    const Index most = settings.top_k > 0 && settings.top_k < v ? settings.top_k : v;
    keep_from(weights, z, v, nucleus_key(weights, z, v, most, enough, keys, histogram));
  }

  if (finite && !greedy && settings.min_p > 0.0F) {
    for (Index i = t; i < v; i += kThreads)
      if (weights[i] < settings.min_p) weights[i] = 0.0F;
    __syncthreads();
  }
  if (finite && !greedy) block_sums(sums, weights, v);

  if (t != 0) return;
  std::int32_t drawn = 0;
  float total = 1.0F;
  if (finite && greedy) {
    while (drawn < v - 1 && z[drawn] != top) ++drawn;
  } else if (finite) {
    const SampleKey key = sample_keys[row];
    const auto words = philox(key.seed, Stage::Sample, key.step, key.sequence, key.token);
    total = add_in_order(sums, blocks);
    drawn = draw_token(weights, sums, total, v, uniform_from(words[0]));
  }
  token[row] = drawn;
  if (!finite || !settings.filtered_logprob || !settings.filters())
    logprob[row] = finite ? scale * z[drawn] - lse : lse;
  else
    logprob[row] = greedy ? 0.0F : log(weights[drawn] / total);
}

}  // namespace gpu

/// token[i] and logprob[i] as the CPU's, drawn with keys[i]: these three (N) on the host, which
/// waits; logits (N, V) on the device.
inline void sample_rows(Cuda device, std::int32_t* token, float* logprob, const float* logits,
                        Index n, Index v, const SamplingSettings& settings, const SampleKey* keys) {
  if (n == 0) return;
  const Index blocks = (v + gpu::kDrawBlock - 1) / gpu::kDrawBlock;
  Index key_count = settings.top_p < 1.0F ? 1 : 0;
  while (key_count > 0 && key_count < v) key_count *= 2;
  const DeviceScratch<float> weights(device, n * v), sums(device, n * blocks);
  const DeviceScratch<gpu::TokenKey> room(device, n * key_count);
  const DeviceScratch<SampleKey> device_keys(device, n);
  const DeviceScratch<std::int32_t> drawn(device, 2 * n);  // tokens, then log-probs
  auto* const logprobs = reinterpret_cast<float*>(drawn.data() + n);
  copy_from_host(device, device_keys.data(), keys, static_cast<std::size_t>(n) * sizeof(SampleKey));
  PLUMB_LAUNCH((gpu::sample_kernel<gpu::kSampleThreads>), static_cast<unsigned>(n),
               gpu::kSampleThreads, 0, device.stream, drawn.data(), logprobs, logits, v, settings,
               device_keys.data(),
               gpu::SampleRoom{weights.data(), sums.data(), room.data(), key_count});
  const std::size_t bytes = static_cast<std::size_t>(n) * sizeof(float);
  const Scratch<std::int32_t> on_host(2 * n);
  copy_to_host(device, on_host.data(), drawn.data(), 2 * bytes);
  std::memcpy(token, on_host.data(), bytes);
  std::memcpy(logprob, on_host.data() + n, bytes);
  require_drawn(logprob, n);
}

}  // namespace kernels
}}  // namespace plumb::v0_1
