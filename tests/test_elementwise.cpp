// Every element-by-element kernel against the double-precision oracle, and its bits on every
// instruction set and for every number of threads.
#include <plumb/cpu/kernels.hpp>
#include <plumb/cpu/reference_elementwise.hpp>

#include <doctest/doctest.h>

#include <functional>
#include <string>

#include "cases/elementwise.hpp"
#include "support.hpp"

using namespace plumb;
using cases::elementwise::kSmall;
using test::random_vector;

namespace {

// A kernel y = f(y, a, b, c), what each element of y should be, and the largest error allowed
// relative to max(1, |exact|), or also to |b| where that multiplies a derivative and its error.
struct Case {
  std::string name;
  std::function<void(Cpu, float* y, const float* a, const float* b, const float* c, Index n)> run;
  std::function<double(double y, double a, double b, double c)> exact;
  double tolerance;
  bool times_b = false;
};

/// What a kernel in double makes of y.
template <class Kernel>
double in_double(Kernel kernel, double y = 0) {
  kernel(&y);
  return y;
}

std::vector<float> magnitudes(const float* a, Index n) {
  std::vector<float> x(a, a + n);
  for (float& value : x) value = std::abs(value);
  return x;
}

std::vector<Case> element_kernels() {
  const double half_ulp = 0x1p-24;
  std::vector<Case> list{
      {"accumulate",
       [](Cpu d, float* y, const float* a, const float*, const float*, Index n) {
         accumulate(d, y, a, 0.75F, n);
       },
       [](double y, double a, double, double) { return y + 0.75 * a; }, half_ulp},
      {"scale",
       [](Cpu d, float* y, const float* a, const float*, const float*, Index n) {
         scale_forward(d, y, a, 1.1F, n);
       },
       [](double, double a, double, double) { return double{1.1F} * a; }, half_ulp},
      {"scale in place",
       [](Cpu d, float* y, const float*, const float*, const float*, Index n) {
         scale_forward(d, y, y, 1.1F, n);
       },
       [](double y, double, double, double) { return double{1.1F} * y; }, half_ulp},
      {"swiglu_forward",
       [](Cpu d, float* y, const float* a, const float* b, const float*, Index n) {
         swiglu_forward(d, y, a, b, n);
       },
       [](double, double a, double b, double) { return a * reference::sigmoid(a) * b; }, 4e-7},
      {"swiglu_backward of the gate",
       [](Cpu d, float* y, const float* a, const float* b, const float* c, Index n) {
         std::vector<float> dup(static_cast<std::size_t>(n));
         swiglu_backward(d, y, dup.data(), c, a, b, n);
       },
       [](double y, double a, double b, double c) {
         return y + c * b * reference::activation_derivative(Activation::Silu, a);
       },
       2e-6},
      {"swiglu_backward of up",
       [](Cpu d, float* y, const float* a, const float* b, const float* c, Index n) {
         std::vector<float> dgate(static_cast<std::size_t>(n));
         swiglu_backward(d, dgate.data(), y, c, a, b, n);
       },
       [](double y, double a, double, double c) { return y + c * a * reference::sigmoid(a); },
       1e-6},
  };
  const auto whole = [](const float* x, Index n) { return Operand<float>{x, n, 1}; };
  for (const auto& [f, name] : {std::pair{Arithmetic::Add, "add"},
                                {Arithmetic::Subtract, "sub"},
                                {Arithmetic::Multiply, "mul"},
                                {Arithmetic::Divide, "div"},
                                {Arithmetic::Minimum, "minimum"},
                                {Arithmetic::Maximum, "maximum"}}) {
    list.push_back(
        {name,
         [=, f = f](Cpu d, float* y, const float* a, const float* b, const float*, Index n) {
           combine_forward(d, y, whole(a, n), whole(b, n), f, 1, n);
         },
         [f = f](double, double a, double b, double) {
           return in_double([&](double* y) {
             combine_forward(Cpu{}, y, Operand<double>{&a, 1, 1}, Operand<double>{&b, 1, 1}, f, 1,
                             1);
           });
         },
         half_ulp});
    for (const bool by_a : {true, false})
      list.push_back(
          {std::string(name) + (by_a ? " backward by a" : " backward by b"),
           [=, f = f](Cpu d, float* y, const float* a, const float* b, const float* c, Index n) {
             combine_backward(d, y, c, whole(a, n), whole(b, n), f, by_a, 1, n);
           },
           [=, f = f](double y, double a, double b, double c) {
             return in_double(
                 [&](double* d) {
                   combine_backward(Cpu{}, d, &c, Operand<double>{&a, 1, 1},
                                    Operand<double>{&b, 1, 1}, f, by_a, 1, 1);
                 },
                 y);
           },
           8 * half_ulp});
  }
  for (const auto& [f, name] : {std::pair{Function::Exp, "exp"},
                                {Function::Log, "log"},
                                {Function::Erf, "erf"},
                                {Function::Sqrt, "sqrt"},
                                {Function::Sigmoid, "sigmoid"},
                                {Function::Softplus, "softplus"}}) {
    // Of |a|, which all of them take.
    list.push_back({name,
                    [f = f](Cpu d, float* y, const float* a, const float*, const float*, Index n) {
                      const auto x = magnitudes(a, n);
                      function_forward(d, y, x.data(), f, n);
                    },
                    [f = f](double, double a, double, double) {
                      a = std::abs(a);
                      return in_double([&](double* y) { function_forward(Cpu{}, y, &a, f, 1); });
                    },
                    4e-7});
    list.push_back(
        {std::string(name) + " backward",
         [f = f](Cpu d, float* y, const float* a, const float* b, const float*, Index n) {
           const auto x = magnitudes(a, n);
           function_backward(d, y, b, x.data(), f, n);
         },
         [f = f](double y, double a, double b, double) {
           a = std::abs(a);
           return in_double([&](double* dx) { function_backward(Cpu{}, dx, &b, &a, f, 1); }, y);
         },
         7e-7, true});
  }
  list.push_back({"shift",
                  [](Cpu d, float* y, const float* a, const float*, const float*, Index n) {
                    shift_forward(d, y, a, 0.3F, n);
                  },
                  [](double, double a, double, double) { return a + double{0.3F}; }, half_ulp});
  list.push_back({"clamp",
                  [](Cpu d, float* y, const float* a, const float*, const float*, Index n) {
                    clamp_forward(d, y, a, -0.5F, 2.0F, n);
                  },
                  [](double, double a, double, double) { return std::clamp(a, -0.5, 2.0); }, 0});
  list.push_back(
      {"clamp backward",
       [](Cpu d, float* y, const float* a, const float* b, const float*, Index n) {
         clamp_backward(d, y, b, a, -0.5F, 2.0F, n);
       },
       [](double y, double a, double b, double) { return y + (a >= -0.5 && a <= 2.0 ? b : 0); },
       half_ulp});
  for (const auto& [f, name] : {std::pair{Activation::Gelu, "gelu"},
                                {Activation::Silu, "silu"},
                                {Activation::Tanh, "tanh"},
                                {Activation::Relu, "relu"},
                                {Activation::GeluErf, "gelu_erf"}}) {
    list.push_back(
        {std::string(name) + " forward",
         [f = f](Cpu d, float* y, const float* a, const float*, const float*, Index n) {
           activation_forward(d, y, a, f, n);
         },
         [f = f](double, double a, double, double) { return reference::activation(f, a); }, 4e-7});
    list.push_back({std::string(name) + " backward",
                    [f = f](Cpu d, float* y, const float* a, const float* b, const float*,
                            Index n) { activation_backward(d, y, b, a, f, n); },
                    [f = f](double y, double a, double b, double) {
                      return y + b * reference::activation_derivative(f, a);
                    },
                    7e-7, true});
  }
  return list;
}

struct Inputs {
  std::vector<float> y, a, b, c;
  explicit Inputs(Index n)
      : y(random_vector(n, 1)),
        a(random_vector(n, 2, 3.0F)),
        b(random_vector(n, 3)),
        c(random_vector(n, 4)) {}
  std::vector<float> run(const Case& kernel, Cpu device) const {
    auto out = y;
    kernel.run(device, out.data(), a.data(), b.data(), c.data(), static_cast<Index>(y.size()));
    return out;
  }
};

}  // namespace

TEST_CASE("element kernels agree with the oracle on every instruction set") {
  test::for_each_isa([&](Isa isa) {
    for (const Case& kernel : element_kernels())
      for (const Index n : kSmall) {
        const Inputs in(n);
        const auto out = in.run(kernel, {});
        double worst = 0;
        for (std::size_t i = 0; i < out.size(); ++i) {
          const double exact =
              kernel.exact(double{in.y[i]}, double{in.a[i]}, double{in.b[i]}, double{in.c[i]});
          const double factor = kernel.times_b ? std::abs(double{in.b[i]}) : 0.0;
          const double size = std::max({1.0, std::abs(exact), factor});
          worst = std::max(worst, test::max_error({&out[i], 1}, {&exact, 1}, size));
        }
        INFO(kernel.name, " on ", name(isa), ", n = ", n);
        CHECK(worst <= kernel.tolerance);
      }
  });
}

TEST_CASE("element kernels give the same bits on every instruction set and thread count") {
  Pool one(1), two(2), three(3);
  for (const Case& kernel : element_kernels())
    for (const Index n : kSmall) {
      const Inputs in(n);
      const auto expected = in.run(kernel, Cpu{&one});
      test::for_each_isa([&](Isa isa) {
        for (Pool* pool : {&one, &two, &three}) {
          INFO(kernel.name, " on ", name(isa), ", n = ", n);
          CHECK(test::same_bits(in.run(kernel, Cpu{pool}), expected));
        }
      });
    }
}

TEST_CASE("no element kernel writes beyond its n elements") {
  test::for_each_isa([&](Isa) {
    for (const Case& kernel : element_kernels())
      for (Index n = 1; n < 20; ++n) {
        Inputs in(32);
        auto out = in.y;
        kernel.run({}, out.data(), in.a.data(), in.b.data(), in.c.data(), n);
        INFO(kernel.name, ", n = ", n);
        CHECK(test::same_bits(std::span(out).subspan(static_cast<std::size_t>(n)),
                              std::span(in.y).subspan(static_cast<std::size_t>(n))));
      }
  });
}

TEST_CASE("the oracle's derivatives are the slopes of its activations") {
  for (const Activation f : {Activation::Gelu, Activation::Silu, Activation::Tanh, Activation::Relu,
                             Activation::GeluErf})
    for (const double x : {-9.0, -2.0, -0.7, 0.1, 0.5, 1.0, 3.0, 12.0}) {
      const double h = 1e-5;
      const double slope =
          (reference::activation(f, x + h) - reference::activation(f, x - h)) / (2 * h);
      CHECK(std::abs(slope - reference::activation_derivative(f, x)) < 1e-9);
    }
}

TEST_CASE("exact GELU: relative error for x ≥ 0, absolute where 1 + erf cancels") {
  double relative = 0, absolute = 0, slope = 0;
  for (Index i = -80000; i <= 80000; ++i) {
    const float x = static_cast<float>(i) * 1e-4F, one = 1;
    float y = 0, dx = 0;
    activation_forward(Cpu{}, &y, &x, Activation::GeluErf, 1);
    activation_backward(Cpu{}, &dx, &one, &x, Activation::GeluErf, 1);
    const double exact = reference::activation(Activation::GeluErf, double{x});
    const double error = std::abs(double{y} - exact);
    if (i > 0) relative = std::max(relative, error / exact);
    if (i < 0) absolute = std::max(absolute, error);
    slope = std::max(slope, std::abs(double{dx} - reference::activation_derivative(
                                                      Activation::GeluErf, double{x})));
  }
  CHECK(relative <= 2.5 * 0x1p-24);
  CHECK(absolute <= 1.5 * 0x1p-24);
  CHECK(slope <= 2.5 * 0x1p-24);
}

TEST_CASE("activations at the ends of the range") {
  const float infinity = INFINITY;
  const float x[] = {-1e30F, -200.0F, -0.0F, 0.0F, 200.0F, 1e30F, NAN};
  test::for_each_isa([&](Isa) {
    float y[7];
    for (const Activation f :
         {Activation::Gelu, Activation::Silu, Activation::Relu, Activation::GeluErf}) {
      activation_forward(Cpu{}, y, x, f, 7);
      CHECK(std::abs(y[1]) == 0.0F);
      CHECK(std::abs(y[2]) == 0.0F);
      CHECK(y[3] == 0.0F);
      CHECK(y[4] == 200.0F);
      CHECK(y[5] == 1e30F);
      CHECK(std::isnan(y[6]));
      float dx[7] = {};
      const float dy[7] = {1, 1, 1, 1, 1, 1, 1};
      activation_backward(Cpu{}, dx, dy, x, f, 7);
      CHECK(dx[1] == 0.0F);
      CHECK(dx[4] == 1.0F);
    }
    activation_forward(Cpu{}, y, &infinity, Activation::Relu, 1);
    CHECK(y[0] == infinity);
  });
}
