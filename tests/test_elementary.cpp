// exp, log and tanh: the largest error over a sweep of all floats, special values, and equal bits on
// every instruction set.
#include <plumb/cpu/kernels.hpp>

#include <doctest/doctest.h>

#include <bit>
#include <limits>

#include "support.hpp"

using namespace plumb;
using kernels::exp_forward;
using kernels::log_forward;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Every 1021st float by bit pattern: about 8200 in each binade of each sign, subnormals, infinities
// and NaNs included.
std::vector<float> sweep() {
  std::vector<float> x;
  for (std::uint64_t bits = 0; bits < (std::uint64_t{1} << 32); bits += 1021)
    x.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
  return x;
}

// |y - exact| in units of the last place of a float at `exact`; infinite when one is NaN alone.
double ulps(float y, double exact) {
  if (std::isnan(y) || std::isnan(exact)) return std::isnan(y) == std::isnan(exact) ? 0 : INFINITY;
  if (std::isinf(static_cast<float>(exact)) || exact == 0)
    return y == static_cast<float>(exact) ? 0 : INFINITY;
  const int exponent = std::max(std::ilogb(exact), -126);
  return std::abs(static_cast<double>(y) - exact) / std::ldexp(1.0, exponent - 23);
}

using Forward = void (*)(Cpu, float*, const float*, Index);

void tanh_forward(Cpu device, float* y, const float* x, Index n) {
  activation_forward(device, y, x, Activation::Tanh, n);
}

std::vector<float> evaluate(Forward f, const std::vector<float>& x) {
  std::vector<float> y(x.size());
  f({}, y.data(), x.data(), static_cast<Index>(x.size()));
  return y;
}

// Largest error of f over the sweep on the present instruction set.
double worst_ulps(Forward f, double (*exact)(double), const std::vector<float>& x) {
  const auto y = evaluate(f, x);
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i)
    worst = std::max(worst, ulps(y[i], exact(static_cast<double>(x[i]))));
  return worst;
}

float value(Forward f, float x) {
  float y = 0;
  f({}, &y, &x, 1);
  return y;
}

}  // namespace

TEST_CASE("exp, log and tanh are within an ulp or so of the exact value") {
  const auto x = sweep();
  const double exp_error = worst_ulps(exp_forward, std::exp, x);
  const double log_error = worst_ulps(log_forward, std::log, x);
  const double tanh_error = worst_ulps(tanh_forward, std::tanh, x);
  MESSAGE("largest errors in ulp: exp ", exp_error, ", log ", log_error, ", tanh ", tanh_error);
  CHECK(exp_error <= 1.0);
  CHECK(log_error <= 1.0);
  CHECK(tanh_error <= 1.5);
}

TEST_CASE("every instruction set gives the same bits on the sweep") {
  const auto x = sweep();
  for (const Forward f : {Forward{exp_forward}, Forward{log_forward}, Forward{tanh_forward}}) {
    const auto expected = evaluate(f, x);
    test::for_each_isa([&](Isa isa) {
      const auto y = evaluate(f, x);
      std::size_t different = 0;
      for (std::size_t i = 0; i < x.size(); ++i)  // the payload of a NaN is no result
        different +=
            std::bit_cast<std::uint32_t>(y[i]) != std::bit_cast<std::uint32_t>(expected[i]) &&
            !(std::isnan(y[i]) && std::isnan(expected[i]));
      INFO(name(isa));
      CHECK(different == 0);
    });
  }
}

TEST_CASE("special values") {
  test::for_each_isa([&](Isa) {
    CHECK(value(exp_forward, 0.0F) == 1.0F);
    CHECK(value(exp_forward, -0.0F) == 1.0F);
    CHECK(value(exp_forward, kInfinity) == kInfinity);
    CHECK(value(exp_forward, -kInfinity) == 0.0F);
    CHECK(value(exp_forward, 88.8F) == kInfinity);
    CHECK(value(exp_forward, 88.7F) < kInfinity);
    CHECK(value(exp_forward, -103.0F) == 0x1p-149F);  // the smallest subnormal: gradual underflow
    CHECK(value(exp_forward, -104.0F) == 0.0F);
    CHECK(std::isnan(value(exp_forward, kNan)));

    CHECK(value(log_forward, 1.0F) == 0.0F);
    CHECK(value(log_forward, 0.0F) == -kInfinity);
    CHECK(value(log_forward, -0.0F) == -kInfinity);
    CHECK(value(log_forward, kInfinity) == kInfinity);
    CHECK(std::isnan(value(log_forward, -1.0F)));
    CHECK(std::isnan(value(log_forward, -kInfinity)));
    CHECK(std::isnan(value(log_forward, -0x1p-149F)));
    CHECK(std::isnan(value(log_forward, kNan)));
    CHECK(value(log_forward, 0x1p-149F) == static_cast<float>(-149 * std::log(2.0)));

    CHECK(value(tanh_forward, 0.0F) == 0.0F);
    CHECK(value(tanh_forward, -0.0F) == 0.0F);
    CHECK(value(tanh_forward, kInfinity) == 1.0F);
    CHECK(value(tanh_forward, -kInfinity) == -1.0F);
    CHECK(value(tanh_forward, 20.0F) == 1.0F);
    CHECK(value(tanh_forward, 0x1p-149F) == 0x1p-149F);
    CHECK(std::isnan(value(tanh_forward, kNan)));
  });
}

TEST_CASE("exp, log and tanh never fall where they must rise") {
  // Neighbouring floats across the joints of the pieces. One ulp back is what the error bound allows.
  const auto falls = [](Forward f, float from) {
    std::vector<float> x{from};
    for (int i = 0; i < 100000; ++i) x.push_back(std::nextafter(x.back(), kInfinity));
    const auto y = evaluate(f, x);
    float worst = 0;
    for (std::size_t i = 1; i < y.size(); ++i)
      worst = std::max(worst, (y[i - 1] - y[i]) / std::abs(y[i]));
    return worst;
  };
  for (const float at : {-87.34F, -0.3467F, 0.3465F, 1.0397F, 88.7F})
    CHECK(falls(exp_forward, at) <= 0x1p-23F);
  for (const float at : {0.7071F, 1.4142F, 2.8284F}) CHECK(falls(log_forward, at) <= 0x1p-23F);
  CHECK(falls(tanh_forward, 0.622F) <= 0x1p-23F);
}
