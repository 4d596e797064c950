// The models of examples 11 to 14, which are no transformers: losses of five updates beside
// PyTorch's in double (golden/make_examples.py).
#include "../examples/small_data.hpp"
#include "../examples/votes.hpp"

#include <doctest/doctest.h>

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "support.hpp"

// Each example as it is, its names kept apart.
#define main example_main
namespace logistic {
#include "../examples/11_logistic.cpp"
}
namespace lstm {
#include "../examples/12_lstm.cpp"
}
namespace convolution {
#include "../examples/13_convolution.cpp"
}
namespace two_towers {
#include "../examples/14_two_towers.cpp"
}
#undef main

using namespace plumb;

namespace {

/// Numbers in [-scale/2, scale/2).
Tensor<Cpu> grid(const Shape& shape, Index seed, double scale) {
  std::vector<float> values;
  for (Index i = 0; i < shape.size(); ++i)
    values.push_back(static_cast<float>(
        (static_cast<double>((i * 7919 + seed * 104729) % 1009) / 1009 - 0.5) * scale));
  return Tensor<Cpu>::from(values, shape);
}

std::vector<std::int32_t> some_ids(Index count, Index below, Index seed) {
  std::vector<std::int32_t> ids;
  for (Index i = 0; i < count; ++i)
    ids.push_back(static_cast<std::int32_t>((i * 31 + i * i * 7 + seed) % below));
  return ids;
}

/// Five updates from the golden file's weights, each loss beside PyTorch's.
template <class Optimizer, class Config, class Loss>
void check_training(const char* name, const Parameters<Cpu>& parameters, Config config, Loss loss) {
  CAPTURE(name);
  std::ifstream file(PLUMB_SOURCE_DIR "/tests/golden/examples.json");
  const auto expected = nlohmann::json::parse(file)[name].get<std::vector<double>>();
  Index seed = 0;
  for (const auto& entry : parameters.entries()) {
    const auto values = grid(entry.tensor.shape(), seed++, 0.5);
    std::copy_n(values.data(), values.size(), entry.tensor.data());
  }
  Optimizer optimizer(parameters, config);
  for (const double exact : expected) {
    Tape tape;
    const auto value = loss();
    CHECK(static_cast<double>(value.item()) == doctest::Approx(exact).epsilon(2e-5));
    tape.backward(value);
    optimizer.step();
  }
  CHECK(expected.size() == 5);
}

}  // namespace

TEST_CASE("models that are no transformers train as PyTorch's do") {
  const logistic::Logistic votes;
  auto y = grid({20, 1}, 8, 1.0);
  for (Index i = 0; i < 20; ++i) y.data()[i] = y.data()[i] > 0 ? 1.0F : -1.0F;
  const Votes data{grid({20, 3}, 7, 4.0), y};
  check_training<Sgd<Cpu>>("logistic", votes.parameters, SgdConfig{.lr = 0.5F},
                           [&] { return votes.loss(data); });

  const lstm::Lstm recurrent(1, 6);
  const auto bytes = Ids::from(some_ids(18, 128, 3), {18});
  check_training<AdamW<Cpu>>("lstm", recurrent.parameters, AdamWConfig{.lr = 0.05F},
                             [&] { return recurrent.loss(bytes, 5, 3); });

  const convolution::Network network(1);
  const auto pixels = grid({256, 1}, 5, 2.0);
  const auto labels = Ids::from(some_ids(4, 10, 1), {4});
  check_training<AdamW<Cpu>>("convolution", network.parameters, AdamWConfig{.lr = 0.05F},
                             [&] { return cross_entropy(network(pixels), network.head, labels); });

  const two_towers::Towers towers(1, 50, 8);
  Pairs pairs;
  pairs.prompts = {some_ids(11, 50, 1), {0, 2, 7, 8, 11}};
  pairs.replies = {some_ids(11, 50, 2), {0, 2, 7, 8, 11}};
  pairs.better = {0, 1, 3};
  pairs.worse = {1, 2, 2};
  check_training<AdamW<Cpu>>("two_towers", towers.parameters, AdamWConfig{.lr = 0.05F},
                             [&] { return towers.loss(pairs); });
}
