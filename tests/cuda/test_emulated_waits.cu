// How often the host waits for the device in an iteration of PPO: counted, not timed. (On the
// emulator only, which counts the runtime's calls.)
#include <plumb/cuda/kernels.cuh>
#include <plumb/plumb.hpp>

#include <emulator/runtime.hpp>

#include <doctest/doctest.h>

#include "tiny.hpp"

using namespace plumb;
using namespace test;

namespace {

std::uint64_t waits() {
  return emulator::calls("cudaStreamSynchronize") + emulator::calls("cudaDeviceSynchronize") +
         emulator::calls("cudaEventSynchronize") + emulator::calls("cudaMemcpy") +
         emulator::calls("cudaFree");
}

}  // namespace

TEST_CASE("the host waits once a decoding step, once a forward without gradient, once an update") {
  constexpr Index kDecode = 16;
  for (const bool in_loss : {false, true})
    for (const Index updates : {1, 6}) {
      Model<Cuda> policy(tiny_llama(), 7, ScalarHead::Value);
      const auto reference = policy.clone(ScalarHead::None);
      PpoConfig config;
      config.epochs = updates > 1 ? 2 : 1;
      config.minibatches = updates / config.epochs;
      config.sampling.max_new_tokens = kDecode;
      config.sampling.responses = 2;
      config.sampling.slots = 8;
      config.sampling.stops = {};
      config.sampling.seed = 5;
      if (in_loss) config.kl_place = KlPlace::Loss;
      PpoTrainer<Cuda> trainer(policy, reference, even_share, config);
      trainer.step(some_prompts(4, 19));
      const std::uint64_t before = waits();
      trainer.step(some_prompts(4, 19));
      const auto all = static_cast<Index>(waits() - before);
      std::printf("an iteration of %td updates after %td decoding steps: %td waits\n", updates,
                  kDecode, all);
      constexpr Index kForwards = 1;
      CHECK(all <= 2 + kDecode + kForwards + updates);
    }
}
