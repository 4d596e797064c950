// Every call of the CUDA runtime may fail. Each in turn is made to, in a run that generates and
// trains: the error must come out as CudaError that names the call, and the same run must then
// succeed, with the same bits. (On the emulator only: a real runtime does not fail on request.)
#include <plumb/cuda/kernels.cuh>
#include <plumb/plumb.hpp>

#include <emulator/runtime.hpp>

#include <doctest/doctest.h>

#include <set>
#include <string>

#include "tiny.hpp"

using namespace plumb;
using namespace test;

namespace {

/// One short generation, which captures and replays a graph, and one training step.
std::vector<float> run() {
  auto config = tiny_llama();
  config.layers = 1;
  Model<Cuda> model(config, 3);
  const std::vector<Tokens> prompts{random_tokens(4, 19, 1)};
  SampleOptions options;
  options.responses = 2;
  options.max_new_tokens = 3;
  options.seed = 3;
  options.sampling.top_p = 0.9F;
  std::vector<float> all;
  for (const Response& r : sample(model, prompts, options))
    all.insert(all.end(), r.logprobs.begin(), r.logprobs.end());
  sft_train(model, {{random_tokens(3, 19, 2), random_tokens(4, 19, 3)}}, SftConfig{});
  const auto weights = model.parameters().flat().to_vector();
  all.insert(all.end(), weights.begin(), weights.end());
  return all;
}

}  // namespace

TEST_CASE("whichever call fails, the error names it and the next run is right") {
  const auto expected = run();
  std::set<std::string> messages;
  int failures = 0, survived = 0;
  for (int after = 0;; ++after) {
    // The first run made the pool; a trimmed one asks for memory again. (Not always: the emulator
    // is slow to reuse what was freed, so that its use is seen.)
    if (after % 8 == 0) kernels::detail::DevicePool::instance().trim();
    emulator::inject("*", after, cudaErrorUnknown);
    try {
      const auto got = run();
      // Not reached any more, or in a destructor, where an error cannot be told.
      CHECK(same_bits(got, expected));
      if (++survived > 40) break;
    } catch (const CudaError& error) {
      ++failures;
      survived = 0;
      const std::string text = error.what();
      messages.insert(text.substr(0, text.find(':')));
      CHECK(text.find("[cuda] ") == 0);
      CHECK_MESSAGE(text.find("unknown error") != std::string::npos, text);
    }
    emulator::clear_injection();
    emulator::drain_all();
    emulator::take_errors();
    REQUIRE(same_bits(run(), expected));
  }
  emulator::clear_injection();
  CHECK(failures > 100);
  for (const char* call : {"cudaMalloc", "cudaMemcpy", "cudaMemset", "cudaStreamSynchronize",
                           "cudaStreamBeginCapture", "cudaGraphInstantiate", "cudaGraphLaunch"})
    CHECK_MESSAGE(messages.contains(std::string("[cuda] ") + call), call);
}

TEST_CASE("a launch beyond the device's limits throws") {
  CHECK_THROWS_AS(kernels::embedding_forward(Cuda{}, nullptr, nullptr, nullptr, Index{1} << 45, 1),
                  CudaError);
}
