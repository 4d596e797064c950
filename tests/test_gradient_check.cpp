// gradient_check finds what is right right, and each kind of wrong backward pass wrong.
#include "tiny.hpp"

#include <plumb/ops/gradient_check.hpp>

#include <doctest/doctest.h>

#include <limits>

using namespace plumb;
using namespace test;

namespace {

// y = x², its backward pass times `factor` and, if `skip`, without the last element.
Tensor<Cpu> square_wrongly(const Tensor<Cpu>& x, float factor, bool skip = false) {
  auto y = Tensor<Cpu>::empty(x.shape());
  for (Index i = 0; i < x.size(); ++i) y.data()[i] = x.data()[i] * x.data()[i];
  if (recording(x))
    record(y, [x, y, factor, skip] {
      for (Index i = 0; i < x.size() - (skip ? 1 : 0); ++i)
        x.grad()[i] += factor * 2.0F * x.data()[i] * y.grad()[i];
    });
  return y;
}

Tensor<Cpu> summed(const Tensor<Cpu>& x) {
  return weighted_sum(x.reshape({x.size()}), random_tensor({x.size()}, 3));
}

}  // namespace

TEST_CASE("gradient_check: ops that are right, alone and one after another") {
  const auto x = random_tensor({3, 5}, 1), w = random_tensor({4, 5}, 2), b = random_tensor({4}, 5);
  const auto before = x.to_vector();
  const auto result = gradient_check<Cpu>([&] { return summed(gelu(linear(x, w, b))); }, {x, w, b});
  CHECK(result.right);
  CHECK(result.worst < 2e-3);
  CHECK(x.to_vector() == before);
  CHECK(grad_of(x) == std::vector<float>(15, 0.0F));
  // Within the scope of a tape of somebody else's, which it leaves as it was.
  Tape outer;
  CHECK(gradient_check<Cpu>([&] { return summed(tanh(x)); }, {x}).right);
  outer.backward(summed(x));
}

TEST_CASE("gradient_check: what is wrong is found, with its place") {
  const auto x = random_tensor({4, 3}, 1);
  CHECK(gradient_check<Cpu>([&] { return summed(square_wrongly(x, 1.0F)); }, {x}).right);
  for (const float factor : {0.0F, 0.9F, -1.0F, 2.0F}) {
    CAPTURE(factor);
    const auto result = gradient_check<Cpu>([&] { return summed(square_wrongly(x, factor)); }, {x});
    CHECK_FALSE(result.right);
    CHECK(result.worst > 0.05);
  }
  const auto result =
      gradient_check<Cpu>([&] { return summed(square_wrongly(x, 1.0F, true)); }, {x});
  CHECK_FALSE(result.right);
  CHECK(result.element == 11);
  CHECK(result.recorded == 0.0);
  CHECK(result.differences != 0.0);
  // The second input's fault is the second's, and is not hidden by the first's larger gradients.
  const auto large = random_tensor({5}, 7, 100.0F);
  const auto second = gradient_check<Cpu>(
      [&] { return add(summed(scale(large, 50.0F)), summed(square_wrongly(x, 1.2F))); }, {large, x},
      {.step = 0.25F});
  CHECK_FALSE(second.right);
  CHECK(second.input == 1);
  const auto nan = gradient_check<Cpu>(
      [&] { return summed(square_wrongly(x, std::numeric_limits<float>::quiet_NaN())); }, {x});
  CHECK_FALSE(nan.right);
}

TEST_CASE("gradient_check refuses what is no loss") {
  const auto x = random_tensor({2, 2}, 1);
  CHECK(contains(message_of<ShapeError>([&] { gradient_check<Cpu>([&] { return gelu(x); }, {x}); }),
                 "[gradient_check] the loss must have one element; its shape is (2, 2)"));
  const auto other = random_tensor({2}, 2);
  CHECK(contains(message_of<DataError>([&] {
                   const auto fixed = random_tensor({2}, 4);
                   gradient_check<Cpu>([&] { return summed(fixed); }, {other});
                 }),
                 "depends on none of the inputs"));
}

TEST_CASE("gradient_check in double sees nine digits") {
  Rng rng(3);
  const auto x = Tensor<Cpu, double>::randn({4, 3}, rng),
             w = Tensor<Cpu, double>::randn({5, 3}, rng);
  const auto found = gradient_check<Cpu, double>(
      [&] { return mean(log_softmax(plumb::tanh(linear(x, w)))); }, {x, w}, {.tolerance = 1e-7});
  CHECK(found.right);
  CHECK(found.worst < 1e-8);
  const auto wrong = gradient_check<Cpu, double>(
      [&] {
        auto y = sum(x);
        if (recording(y)) record(y, [x] { x.grad()[0] += 1e-5; });
        return y;
      },
      {x}, {.tolerance = 1e-7});
  CHECK(!wrong.right);
}
