// How a rollout's calls are spread over a GPU, as the emulator counts it: blocks of a launch, and
// launches of a call.
#include <plumb/core/tensor.hpp>
#include <plumb/cuda/gemm.cuh>

#include <emulator/core.hpp>
#include <emulator/runtime.hpp>

#include <doctest/doctest.h>

#include <vector>

#include "support.hpp"

using namespace plumb;

namespace {

constexpr Index kMultiprocessors = 132;  // of an H100

Tensor<Cuda> random_on_device(Index n, std::uint64_t seed) {
  return Tensor<Cuda>::from(test::random_vector(n, seed), {n});
}

struct Launched {
  Index launches, blocks;
};
/// What a call launches.
template <class Call>
Launched launched(Call call) {
  emulator::drain_all();
  const emulator::Counts before = emulator::counts();
  call();
  emulator::drain_all();
  const emulator::Counts& after = emulator::counts();
  return {static_cast<Index>(after.launches - before.launches),
          static_cast<Index>(after.blocks - before.blocks)};
}

}  // namespace

TEST_CASE("products of 17 to 128 rows, 3072 inputs and 768 outputs, fill an H100") {
  const Index n = 768, k = 3072;
  const auto b = random_on_device(n * k, 1);
  for (const Index m : {17, 64, 65, 128}) {
    CAPTURE(m);
    const auto a = random_on_device(m * k, 2), c = random_on_device(m * n, 3);
    const Launched split =
        launched([&] { matmul(Cuda{}, c.data(), a.data(), b.data(), m, n, k, Form::NT); });
    CHECK(split.launches == 2);
    const Index adds = m * (n / 4 / kernels::gpu::kPartialThreads);
    CHECK(split.blocks - adds == (m + 63) / 64 * (n / 64) * (k / 256));
    CHECK(split.blocks - adds >= kMultiprocessors);
  }
}

TEST_CASE("where tiles are as many as multiprocessors, a product is one launch") {
  const Index m = 17, n = 64 * kMultiprocessors, k = 300;
  const auto a = random_on_device(m * k, 1), b = random_on_device(n * k, 2),
             c = random_on_device(m * n, 3);
  const Launched whole =
      launched([&] { matmul(Cuda{}, c.data(), a.data(), b.data(), m, n, k, Form::NT); });
  CHECK(whole.launches == 1);
  CHECK(whole.blocks == kMultiprocessors);
}
