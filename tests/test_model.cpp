// Parameters, models with their heads, and AdamW over the flat buffer.
#include "tiny.hpp"

#include <doctest/doctest.h>

#include <limits>

using namespace plumb;
using namespace test;

TEST_CASE("parameters: one flat buffer, aligned views, names that are found once") {
  Parameters<Cpu> p;
  const auto a = p.add("a", {3, 5}, {1.0F, 0.5F}), b = p.add("b", {17}, {2.0F, 0.0F});
  CHECK(contains(message_of([&] { p.add("a", {1}, {}); }), "two tensors are named 'a'"));
  p.allocate(4);
  CHECK(p.size() == 16 + 32);
  CHECK(p.count() == 32);
  CHECK(a.data() == p.flat().data());
  CHECK(b.data() == a.data() + 16);
  CHECK(reinterpret_cast<std::uintptr_t>(b.data()) % 64 == 0);
  CHECK(a.data()[15] == 0.0F);  // padding
  for (const float x : b.to_vector()) CHECK(x == 2.0F);
  CHECK(p["b"].data() == b.data());
  CHECK(contains(message_of<DataError>([&] { p["c"]; }), "no tensor is named 'c'"));
  CHECK(contains(message_of([&] { p.add("d", {1}, {}); }), "after allocate"));
  CHECK(a.requires_grad());
  b.grad()[2] = 3;
  CHECK(p.flat().grad()[18] == 3.0F);
}

TEST_CASE("initial values depend on seed and name, not on what else there is") {
  const Model<Cpu> small(tiny_llama(), 5), same(tiny_llama(), 5), other(tiny_llama(), 6);
  auto deeper = tiny_llama();
  deeper.layers = 3;
  const Model<Cpu> deep(deeper, 5, ScalarHead::Reward);
  const auto query = [](const Model<Cpu>& m) {
    return m.parameters()["blocks.1.query"].to_vector();
  };
  CHECK(same_bits(query(small), query(same)));
  CHECK(same_bits(query(small), query(deep)));
  CHECK_FALSE(same_bits(query(small), query(other)));
  double square = 0;
  for (const float x : query(small)) square += double{x} * double{x} / (24 * 24);
  CHECK(std::sqrt(square) == doctest::Approx(0.02).epsilon(0.1));
}

TEST_CASE("heads: a value starts at zero, a reward is drawn, both are affine in the hidden state") {
  const Model<Cpu> value(tiny_llama(), 5, ScalarHead::Value);
  for (const float x : value.parameters()["scalar_head"].to_vector()) CHECK(x == 0.0F);
  auto reward = tiny_model(tiny_llama(), 5, ScalarHead::Reward);
  const auto h = random_tensor({6, 24}, 1);
  const auto before = reward.scalar(h).to_vector();
  reward.rescale_scalar(2.5F, -1.0F);
  const auto after = reward.scalar(h).to_vector();
  for (std::size_t i = 0; i < 6; ++i)
    CHECK(after[i] == doctest::Approx(2.5 * before[i] - 1.0).epsilon(1e-5));
  CHECK(reward.scalar(h).shape() == Shape{6});
}

TEST_CASE("clone: memory of its own, the weights common to both, a new head from the seed") {
  const auto model = tiny_model(tiny_gpt2(), 5);
  const auto reward = model.clone(ScalarHead::Reward, 3);
  for (const auto& entry : model.parameters().entries())
    CHECK(same_bits(entry.tensor.to_vector(), reward.parameters()[entry.name].to_vector()));
  CHECK(reward.parameters().flat().data() != model.parameters().flat().data());
  const auto again = reward.clone();
  CHECK(again.head_kind() == ScalarHead::Reward);
  CHECK(same_bits(again.parameters().flat().to_vector(), reward.parameters().flat().to_vector()));
  CHECK_FALSE(same_bits(model.clone(ScalarHead::Reward, 4).parameters()["scalar_head"].to_vector(),
                        reward.parameters()["scalar_head"].to_vector()));
  Parameters<Cpu> mine;
  mine.add("blocks.0.up", {42, 21}, {});
  mine.allocate(0);
  CHECK(contains(message_of([&] { mine.copy_common(model.parameters()); }),
                 "'blocks.0.up' is (42, 21)"));
}

TEST_CASE("AdamW: decay of matrices alone, clipping by the global norm, gradients cleared") {
  Parameters<Cpu> p;
  const auto matrix = p.add("m", {2, 3}, {1.0F, 0.0F}), bias = p.add("b", {5}, {1.0F, 0.0F}),
             second = p.add("m2", {1, 4}, {1.0F, 0.0F});
  p.allocate(0);
  AdamW<Cpu> decays(p, {.weight_decay = 0.1F});
  CHECK(decays.step(0.5F) == 0.0F);  // no gradient: decay alone, 1 − lr · decay
  for (const float x : matrix.to_vector()) CHECK(x == doctest::Approx(0.95));
  for (const float x : second.to_vector()) CHECK(x == doctest::Approx(0.95));
  for (const float x : bias.to_vector()) CHECK(x == 1.0F);
  CHECK(decays.steps() == 1);

  AdamW<Cpu> clips(p, {.beta1 = 0, .max_grad_norm = 1});
  matrix.grad()[1] = 3;
  bias.grad()[4] = 4;
  CHECK(clips.step() == doctest::Approx(5));
  CHECK(clips.m().to_vector()[1] == doctest::Approx(0.6));
  CHECK(clips.m().to_vector()[16 + 4] == doctest::Approx(0.8));
  for (const float g : grad_of(p.flat())) CHECK(g == 0.0F);
  matrix.grad()[1] = 0.3F;  // below the limit: as it is
  CHECK(clips.step() == doctest::Approx(0.3));
  CHECK(clips.m().to_vector()[1] == doctest::Approx(0.3));
}

TEST_CASE("AdamW refuses a gradient that is not finite and changes nothing") {
  Parameters<Cpu> p;
  const auto w = p.add("w", {4}, {1.0F, 0.0F});
  p.allocate(0);
  AdamW<Cpu> optimizer(p, {});
  w.grad()[2] = std::numeric_limits<float>::quiet_NaN();
  CHECK(contains(message_of<NumericError>([&] { optimizer.step(); }),
                 "[adamw] the gradient norm is nan at step 1"));
  for (const float x : w.to_vector()) CHECK(x == 1.0F);
  CHECK(optimizer.steps() == 0);
}
