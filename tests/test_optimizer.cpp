// AdamW and the sum of squares against the double-precision oracle, and their bits.
#include <plumb/cpu/kernels.hpp>
#include <plumb/cpu/reference_optimizer.hpp>
#include <plumb/optim/adamw.hpp>
#include <plumb/optim/momentum.hpp>
#include <plumb/optim/schedule.hpp>

#include <doctest/doctest.h>

#include "cases/optimizer.hpp"
#include "support.hpp"

using namespace plumb;
using namespace cases::optimizer;
using test::random_vector;

namespace {

AdamWStep settings(Index step, bool eps_inside) {
  return {.lr = 1e-2F,
          .beta1 = 0.9F,
          .beta2 = 0.999F,
          .eps = 1e-8F,
          .weight_decay = 0.1F,
          .grad_scale = 0.5F,
          .step = step,
          .eps_inside = eps_inside};
}

struct State {
  std::vector<float> parameter, m, v;
  explicit State(Index n)
      : parameter(random_vector(n, 7)),
        m(static_cast<std::size_t>(n)),
        v(static_cast<std::size_t>(n)) {}
  bool operator==(const State& other) const {
    return test::same_bits(parameter, other.parameter) && test::same_bits(m, other.m) &&
           test::same_bits(v, other.v);
  }
};

State train(Cpu device, Index n, Index steps, bool eps_inside) {
  State state(n);
  for (Index t = 1; t <= steps; ++t) {
    const auto grad = random_vector(n, 100 + static_cast<std::uint64_t>(t));
    adamw_update(device, state.parameter.data(), grad.data(), state.m.data(), state.v.data(), n,
                 settings(t, eps_inside));
  }
  return state;
}

}  // namespace

TEST_CASE("adamw_update agrees with the oracle over many steps, both eps conventions") {
  const Index steps = 20;
  test::for_each_isa([&](Isa) {
    for (const Case& c : kSmall)
      for (const bool eps_inside : {false, true}) {
        const Index n = c.n;
        CAPTURE(n);
        CAPTURE(eps_inside);
        State initial(n);
        reference::AdamWState exact{{initial.parameter.begin(), initial.parameter.end()},
                                    std::vector<double>(static_cast<std::size_t>(n)),
                                    std::vector<double>(static_cast<std::size_t>(n))};
        for (Index t = 1; t <= steps; ++t)
          reference::adamw_update(exact,
                                  random_vector(n, 100 + static_cast<std::uint64_t>(t)).data(),
                                  settings(t, eps_inside));
        const State state = train({}, n, steps, eps_inside);
        CHECK(test::max_relative_error(state.parameter, exact.parameter) < 0.8 * kTolerance);
        CHECK(test::max_error(state.m, exact.m) < 2e-7);
        CHECK(test::max_error(state.v, exact.v, 0.02) < kTolerance);
      }
  });
}

TEST_CASE("adamw_update gives the same bits on every instruction set and thread count") {
  Pool one(1), two(2), three(3);
  for (const Case& c : kSmall) {
    const Index n = c.n;
    const State expected = train({&one}, n, 3, false);
    test::for_each_isa([&](Isa) {
      for (Pool* pool : {&one, &two, &three}) CHECK(train({pool}, n, 3, false) == expected);
    });
  }
}

TEST_CASE("the first step moves by lr against the gradient's sign") {
  // m̂ = g and v̂ = g² at step 1, so the step is lr · g / (|g| + eps).
  for (const bool eps_inside : {false, true}) {
    AdamWStep step = settings(1, eps_inside);
    step.weight_decay = 0;
    step.grad_scale = 1;
    float p[3] = {0, 0, 0}, m[3] = {}, v[3] = {};
    const float grad[3] = {3.0F, -0.25F, 0.0F};
    adamw_update(Cpu{}, p, grad, m, v, 3, step);
    CHECK(p[0] == doctest::Approx(-0.01).epsilon(1e-5));
    CHECK(p[1] == doctest::Approx(0.01).epsilon(1e-5));
    CHECK(p[2] == 0.0F);
  }
}

TEST_CASE("the two eps conventions differ where eps matters") {
  // g = eps: PyTorch's step is lr · g / (g + eps) = lr / 2; TensorFlow's eps is 1 / √(1 - β2) ≈
  // 31.6 times larger in these units.
  for (const bool eps_inside : {false, true}) {
    AdamWStep step = settings(1, eps_inside);
    step.weight_decay = 0;
    step.grad_scale = 1;
    step.eps = 1e-3F;
    float p = 0, m = 0, v = 0;
    const float grad = 1e-3F;
    adamw_update(Cpu{}, &p, &grad, &m, &v, 1, step);
    const double ratio = eps_inside ? std::sqrt(1 - double{0.999F}) : 1.0;
    CHECK(p == doctest::Approx(-0.01 * ratio / (ratio + 1)).epsilon(1e-5));
  }
}

TEST_CASE("sum_of_squares agrees with the oracle and keeps its bits") {
  Pool one(1), two(2), three(3);
  for (const Case& c : kSmall) {
    const Index n = c.n;
    CAPTURE(n);
    const auto x = random_vector(n, 5);
    const double expected = sum_of_squares(Cpu{&one}, x.data(), n);
    const double exact = reference::sum_of_squares(x.data(), n);
    CHECK(std::abs(expected - exact) <= kTolerance * exact);
    test::for_each_isa([&](Isa) {
      for (Pool* pool : {&one, &two, &three})
        CHECK(sum_of_squares(Cpu{pool}, x.data(), n) == expected);
    });
  }
}

TEST_CASE("a refused gradient leaves nothing behind: the step after it is its own") {
  Parameters<Cpu> parameters;
  const auto w = parameters.add("w", {1, 4}, {.std = 0.1F});
  parameters.allocate(1);
  AdamW<Cpu> adamw(parameters, {.lr = 0.05F});
  int refused = 0;
  for (int step = 0; step < 10; ++step) {
    for (int i = 0; i < 4; ++i) w.grad()[i] += 1.0F;
    if (step == 3) w.grad()[2] = HUGE_VALF;
    const auto weights = w.to_vector(), m = adamw.m().to_vector();
    try {
      adamw.step();
    } catch (const NumericError&) {
      ++refused;
      CHECK(w.to_vector() == weights);
      CHECK(adamw.m().to_vector() == m);
      CHECK(w.grad_tensor().to_vector() == std::vector<float>(4, 0.0F));
    }
  }
  CHECK(refused == 1);
  CHECK(adamw.steps() == 9);
}

TEST_CASE("settings of the optimizer that make no sense are refused by name") {
  Parameters<Cpu> parameters;
  parameters.add("w", {1, 4}, {.std = 0.1F});
  parameters.allocate(1);
  const auto error = [&](const AdamWConfig& config) {
    try {
      AdamW<Cpu>(parameters, config);
    } catch (const DataError& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK(error({.lr = NAN}).find("[adamw] lr must be a finite number") == 0);
  CHECK(error({.lr = -1}).find("[adamw] lr must be at least 0; it is -1") == 0);
  CHECK(error({.weight_decay = -0.1F}).find("weight-decay") != std::string::npos);
  CHECK(error({.beta1 = 1.5F}).find("beta1 must be from 0 to 1") != std::string::npos);
}

namespace {

/// PyTorch's SGD, or Lion, of one parameter in double.
struct OneMoment {
  double p, m = 0;
  void sgd(double grad, const SgdStep& s) {
    const double g = grad * double{s.grad_scale} + double{s.weight_decay} * p;
    m = double{s.momentum} * m + g;
    p -= double{s.lr} * (s.nesterov ? g + double{s.momentum} * m : m);
  }
  void lion(double grad, const LionStep& s) {
    const double g = grad * double{s.grad_scale};
    const double mean = m + double{s.one_minus_beta1} * (g - m);
    p += double{s.minus_decay} * p - double{s.lr} * (mean > 0 ? 1 : mean < 0 ? -1 : 0);
    m += double{s.one_minus_beta2} * (g - m);
  }
};

}  // namespace

TEST_CASE("gradient descent and Lion agree with the formulas in double, with the same bits") {
  Pool one(1), three(3);
  const SgdStep plain{0.1F, 0.9F, 0.01F, 0.5F, false}, ahead{0.1F, 0.9F, 0.01F, 0.5F, true};
  const LionStep lion{0.01F, 0.1F, 0.01F, -0.001F, 0.5F};
  for (const int which : {0, 1, 2})
    for (const Case& c : kSmall) {
      const Index n = c.n;
      CAPTURE(which);
      CAPTURE(n);
      const auto start = random_vector(n, 7);
      std::vector<std::vector<float>> gradients;
      for (std::uint64_t t = 1; t <= 6; ++t) gradients.push_back(random_vector(n, 100 + t));
      const auto train = [&](Cpu device) {
        auto p = start, m = std::vector<float>(start.size());
        for (const auto& grad : gradients) {
          if (which < 2)
            sgd_update(device, p.data(), grad.data(), m.data(), n, which == 0 ? plain : ahead);
          else
            lion_update(device, p.data(), grad.data(), m.data(), n, lion);
        }
        p.insert(p.end(), m.begin(), m.end());
        return p;
      };
      std::vector<double> exact(2 * start.size());
      for (std::size_t i = 0; i < start.size(); ++i) {
        OneMoment state{double{start[i]}};
        for (const auto& gradient : gradients) {
          const double grad = double{gradient[i]};
          which < 2 ? state.sgd(grad, which == 0 ? plain : ahead) : state.lion(grad, lion);
        }
        exact[i] = state.p;
        exact[start.size() + i] = state.m;
      }
      const auto expected = train(Cpu{&one});
      CHECK(test::max_relative_error(expected, exact) < 1e-6);
      test::for_each_isa([&](Isa) {
        for (Pool* pool : {&one, &three}) CHECK(test::same_bits(train(Cpu{pool}), expected));
      });
    }
}

TEST_CASE("gradient descent and Lion find the least square, and decay matrices alone") {
  const auto fit = [](auto&& make, float lr, int steps) {
    Parameters<Cpu> parameters;
    const auto w = parameters.add("w", {1, 4}, {.std = 0.1F});
    parameters.allocate(1);
    auto optimizer = make(parameters);
    for (int step = 0; step < steps; ++step) {
      for (Index i = 0; i < 4; ++i) w.grad()[i] = w.data()[i] - static_cast<float>(i);
      optimizer.step(lr * (1 - static_cast<float>(step) / static_cast<float>(steps)));
    }
    double worst = 0;
    for (Index i = 0; i < 4; ++i)
      worst = std::max(worst, std::abs(double{w.data()[i]} - static_cast<double>(i)));
    return worst;
  };
  CHECK(fit([](auto& p) { return Sgd<Cpu>(p, {.max_grad_norm = 0}); }, 0.05F, 200) < 1e-3);
  CHECK(fit([](auto& p) { return Sgd<Cpu>(p, {.nesterov = true}); }, 0.05F, 200) < 1e-3);
  CHECK(fit([](auto& p) { return Lion<Cpu>(p, {}); }, 0.05F, 400) < 1e-2);
  CHECK(fit([](auto& p) { return Sgd<Cpu>(p, {.weight_decay = 1}); }, 0.05F, 200) > 0.5);
  Parameters<Cpu> parameters;
  parameters.add("w", {1, 4}, {});
  parameters.allocate(1);
  CHECK_THROWS_AS(Sgd<Cpu>(parameters, {.momentum = 2}), Error);
  Lion<Cpu> lion(parameters, {});
  parameters.flat().grad()[0] = NAN;
  CHECK(test::contains(test::message_of([&] { lion.step(); }), "[lion] the gradient norm"));
  CHECK(parameters.flat().grad()[0] == 0.0F);
}

TEST_CASE("schedules: a line, half a cosine, a gentle start") {
  CHECK(cosine_schedule(2.0F, 0, 10) == 2.0F);
  CHECK(cosine_schedule(2.0F, 5, 10) == doctest::Approx(1.0));
  CHECK(cosine_schedule(2.0F, 10, 10) == 0.0F);
  CHECK(cosine_schedule(2.0F, 12, 10, 0.5F) == 0.5F);
  CHECK(cosine_schedule(2.0F, 2, 8, 1.0F) == doctest::Approx(1.5 + std::sqrt(0.125)));
  CHECK(warmup_schedule(3.0F, 0, 3) == doctest::Approx(1.0));
  CHECK(warmup_schedule(3.0F, 2, 3) == 3.0F);
  CHECK(warmup_schedule(3.0F, 0, 0) == 3.0F);
}
