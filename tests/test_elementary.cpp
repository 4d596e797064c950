// exp, log, tanh and erf: the largest error and equal bits on every instruction set, over all
// floats; special values.
#include <plumb/cpu/kernels.hpp>

#include <doctest/doctest.h>

#include <bit>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <mutex>
#include <string>

#include "support.hpp"

using namespace plumb;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

using Kernel = void (*)(float*, const float*, Index);
using Forward = void (*)(Cpu, float*, const float*, Index);

template <Function f>
void forward(Cpu device, float* y, const float* x, Index n) {
  function_forward(device, y, x, f, n);
}
constexpr Forward exp_forward = forward<Function::Exp>, log_forward = forward<Function::Log>,
                  erf_forward = forward<Function::Erf>;

void tanh_forward(Cpu device, float* y, const float* x, Index n) {
  activation_forward(device, y, x, Activation::Tanh, n);
}
template <Isa isa>
void tanh_kernel(float* y, const float* x, Index n) {
  kernels::table_for<kernels::ElementwiseTable>(isa).activation_forward(y, x, Activation::Tanh, n);
}

template <Function f, Isa isa>
void function_kernel(float* y, const float* x, Index n) {
  kernels::table_for<kernels::ElementwiseTable>(isa).function_forward(y, x, f, n);
}

// In double precision, each a short series or a constant where that is as exact and quicker.
double exact_exp(double x) {
  if (x >= 104 || x <= -104) return x > 0 ? INFINITY : 0.0;
  return std::abs(x) < 0x1p-27 ? 1 + x : std::exp(x);
}
double exact_log(double x) { return x < 0 ? NAN : std::log(x); }
double exact_tanh(double x) {
  if (std::abs(x) < 0x1p-13) return x - x * x * x / 3;
  return std::abs(x) > 20 ? std::copysign(1.0, x) : std::tanh(x);
}
double exact_erf(double x) {
  if (std::abs(x) < 0x1p-13) return 1.1283791670955126 * (x - x * x * x / 3);
  return std::abs(x) > 6 ? std::copysign(1.0, x) : std::erf(x);
}

// `limit`: largest error allowed, in ulp, as the doc comments of math/elementary.inl.hpp state it.
struct Elementary {
  std::string name;
  Kernel scalar, neon, avx2, avx512;
  double (*exact)(double);
  double limit;

  Kernel of(Isa isa) const {
    return isa >= Isa::Avx512 ? avx512 : isa == Isa::Avx2 ? avx2 : isa == Isa::Neon ? neon : scalar;
  }
};

template <Function f>
Elementary elementary(const char* name, double (*exact)(double), double limit) {
  return {name,
          function_kernel<f, Isa::Scalar>,
          function_kernel<f, Isa::Neon>,
          function_kernel<f, Isa::Avx2>,
          function_kernel<f, Isa::Avx512>,
          exact,
          limit};
}

std::vector<Elementary> functions() {
  return {elementary<Function::Exp>("exp", exact_exp, 1.02),
          elementary<Function::Log>("log", exact_log, 0.83),
          {"tanh", tanh_kernel<Isa::Scalar>, tanh_kernel<Isa::Neon>, tanh_kernel<Isa::Avx2>,
           tanh_kernel<Isa::Avx512>, exact_tanh, 1.34},
          elementary<Function::Erf>("erf", exact_erf, 1.06)};
}

// |y - exact| in units of the last place of a float at `exact`, or ½ for all that are rounded
// correctly; infinite when one is NaN alone.
double ulps(float y, double exact) {
  if (y == static_cast<float>(exact)) return 0.5;
  const auto biased = std::bit_cast<std::int64_t>(exact) >> 52 & 0x7ff;
  const auto ulp_biased = std::max<std::int64_t>(biased, 1023 - 126) - 23;
  const double per_ulp = std::bit_cast<double>((2046 - ulp_biased) << 52);
  const double error = std::abs(static_cast<double>(y) - exact) * per_ulp;
  if (error == error) return error;
  return std::isnan(y) && std::isnan(exact) ? 0 : INFINITY;
}

// Of every `next`-th of n. Inside the sweep gcc keeps the maximum in memory: a quarter of its time.
double worst_of(const std::vector<float>& y, const std::vector<double>& exact, std::size_t n,
                std::size_t next) {
  double worst = 0;
  for (std::size_t i = 0; i < n; i += next) worst = std::max(worst, ulps(y[i], exact[i]));
  return worst;
}

bool same(float a, float b) {  // the payload of a NaN is no result
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}

struct Found {
  double worst = 0;     // error in ulp on the first of the instruction sets
  Index different = 0;  // results on another that are not those of the first
};

// Evaluates f at every `stride`-th float by bit pattern, subnormals, infinities and NaNs included.
Found sweep(const Elementary& f, Index stride, const std::vector<Isa>& sets) {
  constexpr Index kBlock = 4096;
  const auto step = static_cast<std::uint32_t>(stride);
  Found found;
  std::mutex mutex;
  parallel_for(Cpu{}, ((Index{1} << 32) + stride - 1) / stride, kBlock, [&](Index at, Index end) {
    Found mine;
    std::vector<float> x(kBlock), y(kBlock), expected(kBlock);
    std::vector<double> exact(kBlock);
    for (; at < end; at += kBlock) {
      const Index count = std::min(kBlock, end - at);
      const auto n = static_cast<std::size_t>(count);
      auto bits = static_cast<std::uint32_t>(at * stride);
      for (std::size_t i = 0; i < n; ++i, bits += step) x[i] = std::bit_cast<float>(bits);
      f.of(sets[0])(expected.data(), x.data(), count);
      for (std::size_t s = 1; s < sets.size(); ++s) {
        f.of(sets[s])(y.data(), x.data(), count);
        if (!test::same_bits(std::span(y).first(n), std::span(expected).first(n)))
          for (std::size_t i = 0; i < n; ++i) mine.different += !same(y[i], expected[i]);
      }
      // Of a block with one result the ends are the worst, the functions being monotonic.
      const bool constant =
          test::same_bits(std::span(expected).subspan(1, n - 1), std::span(expected).first(n - 1));
      const std::size_t next = constant && n > 1 ? n - 1 : 1;
      for (std::size_t i = 0; i < n; i += next) exact[i] = f.exact(double{x[i]});
      mine.worst = std::max(mine.worst, worst_of(expected, exact, n, next));
    }
    const std::lock_guard lock(mutex);
    found.worst = std::max(found.worst, mine.worst);
    found.different += mine.different;
  });
  return found;
}

// Those of these that the processor has.
std::vector<Isa> supported_of(std::initializer_list<Isa> sets) {
  std::vector<Isa> some;
  std::copy_if(sets.begin(), sets.end(), std::back_inserter(some), supported);
  return some;
}

std::vector<float> evaluate(Forward f, const std::vector<float>& x) {
  std::vector<float> y(x.size());
  f({}, y.data(), x.data(), static_cast<Index>(x.size()));
  return y;
}

float value(Forward f, float x) {
  float y = 0;
  f({}, &y, &x, 1);
  return y;
}

}  // namespace

TEST_CASE("exp, log, tanh and erf err by no more ulp than they state, over all floats") {
  auto sets = supported_of({Isa::Avx512, Isa::Avx2, Isa::Neon});
  // Every float takes minutes: ./plumb test --all.
  Index stride = std::getenv("PLUMB_TEST_ALL") != nullptr ? 1 : 7;
  if (stride > 1) MESSAGE("not all floats but every 7th");
  if (test::sanitized() || sets.empty()) {
    sets = supported_of({Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Scalar});
    stride = 1021;
    MESSAGE(
        "not all floats but every 1021st: under a sanitizer, or without vectors, it takes long");
  }
  for (const Elementary& f : functions()) {
    const Found found = sweep(f, stride, sets);
    MESSAGE("largest error of ", f.name, ": ", found.worst, " ulp");
    CHECK(found.worst <= f.limit);
    CHECK(found.different == 0);
  }
}

TEST_CASE("scalar gives the bits of the vectors, on every 127th float") {
  // At some 17 ns a float, all of them would take five minutes.
  for (const Elementary& f : functions()) {
    const Found found = sweep(f, test::sanitized() ? 1021 : 127,
                              supported_of({Isa::Scalar, Isa::Neon, Isa::Avx2, Isa::Avx512}));
    INFO(f.name);
    CHECK(found.worst <= f.limit);
    CHECK(found.different == 0);
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

    for (const float zero : {0.0F, -0.0F}) {
      CHECK(value(erf_forward, zero) == 0.0F);
      CHECK(std::signbit(value(erf_forward, zero)) == std::signbit(zero));
    }
    CHECK(value(erf_forward, kInfinity) == 1.0F);
    CHECK(value(erf_forward, -kInfinity) == -1.0F);
    CHECK(value(erf_forward, 4.0F) == 1.0F);
    CHECK(value(erf_forward, 3.5F) < 1.0F);
    CHECK(value(erf_forward, 0x1p-149F) == 0x1p-149F);
    CHECK(std::isnan(value(erf_forward, kNan)));
  });
}

TEST_CASE("exp, log, tanh and erf never fall where they must rise") {
  // Neighbouring floats across the joints of the pieces. One ulp back is what the error bound
  // allows.
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
  for (const float at : {0.872F, 3.83F}) CHECK(falls(erf_forward, at) <= 0x1p-23F);
}
