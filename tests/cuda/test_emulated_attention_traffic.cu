// How attention uses memory, counted by the emulator's tracer: sectors of global memory per sector
// that was needed, passes over the banks of shared memory per pass without conflicts, and bytes of
// keys and values per query. For traced programs only.
#include <plumb/core/tensor.hpp>
#include <plumb/cuda/attention.cuh>

#include <doctest/doctest.h>

#include <cstdio>
#include <vector>

#include "support.hpp"
#include "traffic.hpp"

using namespace plumb;

namespace {

struct Use {
  double sectors, passes, loaded;  ///< of the least; of the least; bytes
};

/// What a call's kernels do together.
template <class Call>
Use use_of(const char* name, Call call) {
  const test::Traffic t = test::traffic_of(call);
  const Use use{t.sectors / t.sectors_ideal, t.wavefronts / t.wavefronts_ideal, t.loaded};
  std::printf("%-28s sectors %5.3f, shared passes %5.3f of the least; %.0f bytes loaded\n", name,
              use.sectors, use.passes, use.loaded);
  return use;
}

}  // namespace

TEST_CASE("attention's sectors and banks stay as they are") {
  const Index length = 128, size = 64, heads = 2, n = length, width = heads * size;
  const AttentionShape shape{heads, heads, size, 0.125F};
  const auto array = [&](std::uint64_t seed) {
    return Tensor<Cuda>::from(test::random_vector(n * width, seed), {n, width});
  };
  const auto q = array(1), k = array(2), v = array(3), dout = array(4), out = array(5);
  const auto dq = array(6), dk = array(7), dv = array(8);
  const auto lse = Tensor<Cuda>::zeros({n, heads});
  const auto offsets =
      Tensor<Cuda, std::int32_t>::from({0, static_cast<std::int32_t>(length)}, {2});
  const Cuda device;
  const Use forward = use_of("forward", [&] {
    attention_forward(device, out.data(), lse.data(), q.data(), k.data(), v.data(), offsets.data(),
                      offsets.data(), 1, n, n, shape);
  });
  // Results leave an element at a time, since a view may lie at any address: four requests for each
  // sector.
  CHECK(forward.sectors <= 1.6);
  CHECK(forward.passes == 1.0);
  // Each tile of 64 queries reads the keys and values before its end, 32 at a time, and its
  // queries.
  const double queries = 4.0 * static_cast<double>(n * width);
  const double keys = 2 * 4.0 * static_cast<double>(width) * (64 + 128);
  CHECK(forward.loaded >= queries + keys);
  CHECK(forward.loaded <= 1.1 * (queries + keys));

  const Use backward = use_of("backward", [&] {
    attention_backward(device, dq.data(), dk.data(), dv.data(), dout.data(), out.data(), lse.data(),
                       q.data(), k.data(), v.data(), offsets.data(), offsets.data(), 1, n,
                       n, shape);
  });
  CHECK(backward.sectors <= 1.7);
  CHECK(backward.passes == 1.0);

  const KvShape cache{4, 128, shape};
  const auto keys_cache = Tensor<Cuda>::zeros({cache.keys_size()}),
             values_cache = Tensor<Cuda>::zeros({cache.values_size()});
  const auto slots = Tensor<Cuda, std::int32_t>::from({0, 1, 2, 3}, {4});
  const auto positions = Tensor<Cuda, std::int32_t>::from({127, 95, 127, 63}, {4});
  const Use decode = use_of("decode", [&] {
    attention_cached_forward(device, out.data(), q.data(), keys_cache.data(), values_cache.data(),
                             slots.data(), positions.data(), 4, cache);
  });
  CHECK(decode.sectors <= 1.05);
  CHECK(decode.passes == 1.0);
  // Keys and values of each position once.
  const double cached = 2 * 4.0 * static_cast<double>(width) * (128 + 96 + 128 + 64);
  CHECK(decode.loaded >= cached);
  CHECK(decode.loaded <= 1.25 * cached);
}
