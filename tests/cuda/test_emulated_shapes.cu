// How a rollout's calls are spread over a GPU, as the emulator counts it: blocks of a launch,
// launches of a call, and how often the host waits.
#include <plumb/cuda/kernels.cuh>
#include <plumb/plumb.hpp>

#include <emulator/core.hpp>
#include <emulator/runtime.hpp>

#include <doctest/doctest.h>

#include <vector>

#include "tiny.hpp"

using namespace plumb;

namespace {

constexpr Index kMultiprocessors = 132;  // of an H100

Tensor<Cuda> random_on_device(Index n, std::uint64_t seed) {
  return Tensor<Cuda>::from(test::random_vector(n, seed), {n});
}

struct Launched {
  Index launches, blocks, threads;
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
          static_cast<Index>(after.blocks - before.blocks),
          static_cast<Index>(after.threads - before.threads)};
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

TEST_CASE("a row of a large vocabulary has a block of 16 warps, and the CPU's bits") {
  const Index n = 2;
  for (const Index v : {50257, 151936}) {
    CAPTURE(v);
    const std::vector<float> values = test::random_vector(n * v, 1, 3.0F);
    const auto here = Tensor<Cpu>::from(values, {n, v});
    const auto there = Tensor<Cuda>::from(values, {n, v});
    const std::vector<std::int32_t> targets{7, static_cast<std::int32_t>(v - 1)};
    const auto ids = Tensor<Cuda, std::int32_t>::from(targets, {n});
    const auto rows = [n, v](auto device, const float* logits, const std::int32_t* of, float* out) {
      logprob_rows(device, out, out + n, out + 2 * n, logits, of, n, v, 0.9F);
    };
    const auto expected = Tensor<Cpu>::zeros({3 * n});
    const auto got = Tensor<Cuda>::zeros({3 * n});
    rows(Cpu{}, here.data(), targets.data(), expected.data());
    const Launched head = launched([&] { rows(Cuda{}, there.data(), ids.data(), got.data()); });
    CHECK(test::same_bits(got.to_vector(), expected.to_vector()));
    const std::vector<SampleKey> keys{{3, 1, 0, 0}, {3, 1, 1, 0}};
    std::vector<std::int32_t> token(2), cpu_token(2);
    std::vector<float> logprob(2), cpu_logprob(2);
    sample_rows(Cpu{}, cpu_token.data(), cpu_logprob.data(), here.data(), n, v, {}, keys.data());
    const Launched drawn = launched([&] {
      sample_rows(Cuda{}, token.data(), logprob.data(), there.data(), n, v, {}, keys.data());
    });
    CHECK(token == cpu_token);
    CHECK(test::same_bits(logprob, cpu_logprob));
    for (const Launched& launch : {head, drawn}) {
      CHECK(launch.launches == 1);
      CHECK(launch.blocks == n);
      CHECK(launch.threads == 512 * n);
    }
    const Launched most = launched([&] { argmax_rows(Cuda{}, ids.data(), there.data(), n, v); });
    CHECK(most.blocks == n);
  }
}

TEST_CASE("first tokens of responses that enter together are one draw, with the CPU's bits") {
  const auto on_cpu = test::tiny_model(test::tiny_llama(), 7);
  Model<Cuda> model(on_cpu.config(), 1);
  const auto weights = on_cpu.parameters().flat().to_vector();
  copy_from_host(Cuda{}, model.parameters().flat().data(), weights.data(),
                 model.parameters().flat().bytes());
  std::vector<Tokens> prompts;
  for (std::uint64_t i = 0; i < 5; ++i)
    prompts.push_back(test::random_tokens(3 + static_cast<Index>(i), 19, i));
  for (const Index slots : {1, 2, 4, 7, 15}) {
    SampleOptions options;
    options.responses = 3;
    options.max_new_tokens = 1;  // a response leaves with its first token
    options.slots = slots;
    CAPTURE(slots);
    const auto expected = sample(on_cpu, prompts, options);
    emulator::drain_all();
    const std::uint64_t before = emulator::calls("cudaStreamSynchronize");
    const auto got = sample(model, prompts, options);
    const auto waits = static_cast<Index>(emulator::calls("cudaStreamSynchronize") - before);
    CHECK(waits == (15 + slots - 1) / slots);
    REQUIRE(got.size() == expected.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      CHECK(got[i].tokens == expected[i].tokens);
      CHECK(test::same_bits(got[i].logprobs, expected[i].logprobs));
    }
  }
}
