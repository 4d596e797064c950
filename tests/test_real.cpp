// core/real.hpp against the system's functions in long double: errors in units of the last place,
// edges, and bits written down, which every machine must give.
#include <plumb/core/real.hpp>

#include "support.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>

using namespace plumb;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
// long double is 128 bits, and slow, on some processors.
const int kDraws = test::sanitized() ? 5000 : 100000;

// The largest error of f over draws of an argument, in units of the exact value's last place. The
// reference has 11 bits more, and its own error counts: a two-thousandth.
template <class F, class G, class Draw>
double worst(F f, G exact, Draw draw) {
  std::mt19937_64 random(1);
  double most = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double x = draw(static_cast<double>(random() >> 11) * 0x1p-53);
    const long double y = exact(static_cast<long double>(x));
    int exponent = 0;
    std::frexp(static_cast<double>(y), &exponent);
    const long double place = std::ldexp(1.0L, std::max(exponent - 53, -1074));
    const auto error = static_cast<double>(std::fabs(static_cast<long double>(f(x)) - y) / place);
    if (!(error <= most)) most = error;
  }
  return most;
}

auto drawn_from(double low, double high) {
  return [=](double share) { return low + (high - low) * share; };
}
/// By magnitude: 2^low to 2^high.
auto powers(double low, double high) {
  return [=](double share) { return std::exp2(low + (high - low) * share); };
}

}  // namespace

TEST_CASE("exp and expm1 are within 0.6 units of the last place") {
  const auto e = [](long double x) { return std::exp(x); };
  const auto m = [](long double x) { return std::expm1(x); };
  CHECK(worst(real::exp, e, drawn_from(-708, 709.7)) < 0.6);
  CHECK(worst(real::exp, e, drawn_from(-1, 1)) < 0.6);
  CHECK(worst(real::exp, e, drawn_from(-745, -708)) <= 1.0);  // results of fewer bits
  CHECK(worst(real::expm1, m, drawn_from(-40, 709.7)) < 0.6);
  CHECK(worst(real::expm1, m, drawn_from(-1, 1)) < 0.6);
  CHECK(worst(real::expm1, m, powers(-1000, 0)) < 0.6);
  CHECK(real::exp(0.0) == 1.0);
  CHECK(real::exp(kInfinity) == kInfinity);
  CHECK(real::exp(-kInfinity) == 0.0);
  CHECK(real::exp(710.0) == kInfinity);
  CHECK(real::exp(709.78) < kInfinity);
  CHECK(real::exp(-746.0) == 0.0);
  CHECK(real::exp(-745.0) == 0x1p-1074);
  CHECK(std::isnan(real::exp(kNan)));
  CHECK(real::expm1(kInfinity) == kInfinity);
  CHECK(real::expm1(709.78) < kInfinity);
  CHECK(real::expm1(-kInfinity) == -1.0);
  CHECK(real::expm1(0x1p-1074) == 0x1p-1074);
  CHECK(std::signbit(real::expm1(-0.0)));
  CHECK(std::isnan(real::expm1(kNan)));
}

TEST_CASE("log and log1p are within 0.6 units of the last place") {
  const auto l = [](long double x) { return std::log(x); };
  const auto m = [](long double x) { return std::log1p(x); };
  CHECK(worst(real::log, l, powers(-1074, 1024)) < 0.6);
  CHECK(worst(real::log, l, drawn_from(0.5, 2)) < 0.6);
  CHECK(worst(real::log, l, drawn_from(0.9999, 1.0001)) < 0.6);
  CHECK(worst(real::log1p, m, drawn_from(-1, 1)) < 0.6);
  CHECK(worst(real::log1p, m, powers(-1000, 1020)) < 0.6);
  CHECK(real::log(1.0) == 0.0);
  CHECK(real::log(0.0) == -kInfinity);
  CHECK(real::log(kInfinity) == kInfinity);
  CHECK(std::isnan(real::log(-1.0)));
  CHECK(std::isnan(real::log(kNan)));
  CHECK(real::log1p(-1.0) == -kInfinity);
  CHECK(real::log1p(kInfinity) == kInfinity);
  CHECK(real::log1p(-0x1p-1074) == -0x1p-1074);
  CHECK(std::signbit(real::log1p(-0.0)));
  CHECK(std::isnan(real::log1p(-1.5)));
  CHECK(std::isnan(real::log1p(kNan)));
}

TEST_CASE("pow is within 0.6 units of the last place for a base that is not negative") {
  for (const double base : {10000.0, 0.999, 1024.0, 1.0 + 0x1p-52, 0x1p-1060}) {
    CAPTURE(base);
    const double most = 708.0 / std::fabs(std::log(base));
    CHECK(worst([=](double y) { return real::pow(base, y); },
                [=](long double y) { return std::pow(static_cast<long double>(base), y); },
                drawn_from(-most, most)) < 0.6);
  }
  CHECK(worst([](double x) { return real::pow(x, 17.3); },
              [](long double x) { return std::pow(x, static_cast<long double>(17.3)); },
              drawn_from(0.01, 30)) < 0.6);
  CHECK(real::pow(0.0, 0.0) == 1.0);
  CHECK(real::pow(kNan, 0.0) == 1.0);
  CHECK(real::pow(1.0, kNan) == 1.0);
  CHECK(real::pow(0.0, 2.0) == 0.0);
  CHECK(real::pow(0.0, -2.0) == kInfinity);
  CHECK(real::pow(kInfinity, 0.5) == kInfinity);
  CHECK(real::pow(kInfinity, -0.5) == 0.0);
  CHECK(real::pow(0.5, kInfinity) == 0.0);
  CHECK(real::pow(2.0, kInfinity) == kInfinity);
  CHECK(real::pow(0.5, -kInfinity) == kInfinity);
  CHECK(real::pow(1024.0, 4.0) == 0x1p40);
  CHECK(real::pow(3.0, 20.0) == 3486784401.0);
  CHECK(std::isnan(real::pow(-2.0, 2.0)));
  CHECK(std::isnan(real::pow(kNan, 1.0)));
  CHECK(std::isnan(real::pow(2.0, kNan)));
}

TEST_CASE("sin and cos are within 0.6 units of the last place, at any size") {
  const auto s = [](long double x) { return std::sin(x); };
  const auto c = [](long double x) { return std::cos(x); };
  for (const double turn : {1.0, 7.0, 1e6}) {
    CHECK(worst(real::sin, s, drawn_from(-turn, turn)) < 0.6);
    CHECK(worst(real::cos, c, drawn_from(-turn, turn)) < 0.6);
  }
  CHECK(worst(real::sin, s, powers(-300, 1024)) < 0.6);
  CHECK(worst(real::cos, c, powers(-300, 1024)) < 0.6);
  // The double that is nearest to a multiple of π/2 for its size (Kahan; Muller, "Elementary
  // functions", table 9.2), and the doubles nearest to multiples of π/2 from 1 to 10000.
  CHECK(worst(real::cos, c, [](double) { return 0x1.6ac5b262ca1ffp+849; }) < 0.6);
  double most = 0;
  for (int n = 1; n <= 10000; ++n) {
    const auto at = static_cast<double>(static_cast<long double>(n) * 1.57079632679489661923L);
    const auto y = n % 2 == 0 ? real::sin(at) : real::cos(at);
    const long double exact = n % 2 == 0 ? s(at) : c(at);
    most = std::max(most, static_cast<double>(std::fabs((y - exact) / exact)));
  }
  CHECK(most < 0x1p-53 * 1.2);
  CHECK(real::sin(0.0) == 0.0);
  CHECK(std::signbit(real::sin(-0.0)));
  CHECK(real::sin(0x1p-1074) == 0x1p-1074);
  CHECK(real::cos(0.0) == 1.0);
  CHECK(std::isnan(real::sin(kInfinity)));
  CHECK(std::isnan(real::cos(-kInfinity)));
  CHECK(std::isnan(real::sin(kNan)));
  CHECK(std::isnan(real::cos(kNan)));
}

TEST_CASE("tan and atan are within a few units of the last place") {
  CHECK(worst(
            real::tan, [](long double x) { return std::tan(x); }, drawn_from(-7, 7)) < 2.5);
  CHECK(worst(
            real::atan, [](long double x) { return std::atan(x); }, powers(-26, 60)) < 5);
  CHECK(real::atan(kInfinity) == std::acos(0.0));
  CHECK(real::atan(-1.0) == doctest::Approx(-std::acos(0.0) / 2).epsilon(1e-15));
  CHECK(std::signbit(real::atan(-0.0)));
}

TEST_CASE("the same bits on every machine") {
  // FNV-1a over results, of this file's first run (x86-64, gcc 12).
  std::uint64_t hash = 14695981039346656037U;
  const auto add = [&](double x) {
    hash = (hash ^ __builtin_bit_cast(std::uint64_t, x)) * 1099511628211U;
  };
  std::mt19937_64 random(2);
  for (int i = 0; i < 20000; ++i) {
    const double x = static_cast<double>(random() >> 11) * 0x1p-53, y = 40 * (x - 0.5);
    const double large = y * static_cast<double>(1U << (random() % 31));
    for (const double z :
         {real::exp(y), real::expm1(y), real::log(x), real::log1p(x - 0.5), real::pow(x, y),
          real::sin(large), real::cos(large), real::tan(y), real::atan(y)})
      add(z);
  }
  CHECK(hash == 12165323481240734494U);
}
