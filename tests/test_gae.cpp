// Advantages, whitening, KL estimators and the controller of their coefficient: against PyTorch in
// double precision, and cases worked by hand.
#include "support.hpp"

#include <plumb/optim/schedule.hpp>
#include <plumb/rlhf/gae.hpp>
#include <plumb/rlhf/kl.hpp>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <fstream>

using namespace plumb;
using namespace test;

namespace {

nlohmann::json golden(const char* part) {
  std::ifstream file(PLUMB_SOURCE_DIR "/tests/golden/losses.json");
  return nlohmann::json::parse(file)[part];
}

std::vector<float> floats(const nlohmann::json& j) { return j.get<std::vector<float>>(); }
std::vector<double> doubles(const nlohmann::json& j) { return j.get<std::vector<double>>(); }

void whiten_vector(std::vector<float>& x, Whitening kind, bool shift_mean) {
  std::vector<float*> all;
  for (float& value : x) all.push_back(&value);
  whiten(all, kind, shift_mean);
}

}  // namespace

TEST_CASE("GAE: responses of several lengths, as computed by PyTorch") {
  for (const auto& g : golden("gae")) {
    const auto rewards = floats(g["rewards"]), values = floats(g["values"]);
    std::vector<float> advantages, returns;
    std::size_t at = 0;
    for (const std::size_t n : g["lengths"].get<std::vector<std::size_t>>()) {
      const auto r = gae(std::span(rewards).subspan(at, n), std::span(values).subspan(at, n),
                         g["gamma"], g["lam"]);
      advantages.insert(advantages.end(), r.advantages.begin(), r.advantages.end());
      returns.insert(returns.end(), r.returns.begin(), r.returns.end());
      at += n;
    }
    CHECK(max_error(advantages, doubles(g["advantages"])) < 2e-6);
    CHECK(max_error(returns, doubles(g["returns"])) < 2e-6);
  }
}

TEST_CASE("GAE by hand") {
  const std::vector<float> rewards = {0, 0, 1}, values = {0.5F, 0.25F, 0.5F};
  // λ = 1, γ = 1: the advantage is all that comes, less the value; the return is all that comes.
  auto r = gae(rewards, values, 1, 1);
  CHECK(r.advantages == std::vector<float>{0.5F, 0.75F, 0.5F});
  CHECK(r.returns == std::vector<float>{1, 1, 1});
  // λ = 0: the one-step error.
  r = gae(rewards, values, 1, 0);
  CHECK(r.advantages == std::vector<float>{-0.25F, 0.25F, 0.5F});
  CHECK(r.returns == std::vector<float>{0.25F, 0.5F, 1});
  // γ = λ = ½: δ = (−.375, 0, .5), A_t = δ_t + A_{t+1}/4.
  r = gae(rewards, values, 0.5F, 0.5F);
  CHECK(r.advantages == std::vector<float>{-0.34375F, 0.125F, 0.5F});
  CHECK(gae({}, {}, 1, 1).advantages.empty());
  CHECK_THROWS_AS(gae(rewards, std::span(values).first(2), 1, 1), ShapeError);
}

TEST_CASE("whitening: population and unbiased variance, with and without the mean") {
  for (const auto& g : golden("whitening")) {
    auto x = floats(g["x"]);
    whiten_vector(x, g["unbiased"] ? Whitening::Unbiased : Whitening::Population, g["shift_mean"]);
    CHECK(max_error(x, doubles(g["white"])) < 1e-6);
  }
  std::vector<float> x = {1, 3}, same = x, single = {5}, constant = {2, 2, 2};
  whiten_vector(x, Whitening::Population, true);
  CHECK(x[0] == doctest::Approx(-1));
  CHECK(x[1] == doctest::Approx(1));
  whiten_vector(same, Whitening::None, true);
  CHECK(same == std::vector<float>{1, 3});
  whiten_vector(single, Whitening::Population, true);
  CHECK(single == std::vector<float>{5});
  whiten_vector(constant, Whitening::Population, true);
  CHECK(constant == std::vector<float>{0, 0, 0});
}

TEST_CASE("KL estimators") {
  const auto g = golden("kl_estimators");
  const auto logprob = floats(g["logprob"]), reference = floats(g["reference"]);
  const std::pair<KlEstimator, const char*> kinds[] = {
      {KlEstimator::K1, "k1"}, {KlEstimator::K2, "k2"}, {KlEstimator::K3, "k3"}};
  for (const auto& [kind, key] : kinds) {
    const auto expected = doubles(g[key]);
    for (std::size_t i = 0; i < logprob.size(); ++i)
      CHECK(kl_estimate(kind, logprob[i], reference[i]) ==
            doctest::Approx(expected[i]).epsilon(1e-5));
  }
  CHECK(kl_estimate(KlEstimator::K1, -1, -3) == 2.0F);
  CHECK(kl_estimate(KlEstimator::K2, -1, -3) == 2.0F);
  CHECK(kl_estimate(KlEstimator::K3, -1, -3) == doctest::Approx(std::exp(-2.0) + 1.0));
  // Near zero k3 is x²/2 and never negative, in float too.
  for (const float x : {1e-3F, -1e-3F, 1e-6F, -1e-6F, 0.0F})
    CHECK(kl_estimate(KlEstimator::K3, x, 0) >= 0.0F);
  // All three agree with the exact divergence in the mean over the policy's own draws.
  const double p[] = {0.5, 0.3, 0.2}, q[] = {0.25, 0.25, 0.5};
  double exact = 0, k1 = 0, k3 = 0;
  for (int a = 0; a < 3; ++a) {
    exact += p[a] * std::log(p[a] / q[a]);
    const auto lp = static_cast<float>(std::log(p[a])), lq = static_cast<float>(std::log(q[a]));
    k1 += p[a] * kl_estimate(KlEstimator::K1, lp, lq);
    k3 += p[a] * kl_estimate(KlEstimator::K3, lp, lq);
  }
  CHECK(k1 == doctest::Approx(exact).epsilon(1e-6));
  CHECK(k3 == doctest::Approx(exact).epsilon(1e-6));
}

TEST_CASE("k3 is known to 1e-6 of itself, from differences of 1e-6 to 20") {
  for (double size = 1e-6; size <= 20; size *= 1.07)
    for (const double sign : {1.0, -1.0}) {
      const auto logprob = static_cast<float>(sign * size / 2),
                 ref = static_cast<float>(-sign * size / 2);
      const long double x = static_cast<long double>(logprob) - ref;
      // expm1 in 80 bits, less what cancels: enough down to 1e-6.
      const long double exact = std::abs(x) < 1e-2L
                                    ? x * x / 2 - x * x * x / 6 + x * x * x * x / 24 -
                                          x * x * x * x * x / 120 + x * x * x * x * x * x / 720
                                    : std::expm1(-x) + x;
      CAPTURE(size);
      CHECK(std::abs(kl_estimate(KlEstimator::K3, logprob, ref) / exact - 1) < 1e-6L);
    }
}

TEST_CASE("the KL controller: fixed, and adaptive as Ziegler et al.") {
  KlController fixed(0.1F);
  fixed.update(100, 1000);
  CHECK(fixed.beta() == 0.1F);

  KlController adaptive(0.15F, 6, 10000);
  adaptive.update(6, 512);
  CHECK(adaptive.beta() == doctest::Approx(0.15));
  adaptive.update(6.6F, 500);  // 10 % over: e = 0.1
  CHECK(adaptive.beta() == doctest::Approx(0.15 * 1.005));
  adaptive.set_beta(1);
  adaptive.update(100, 10000);  // clipped at 0.2
  CHECK(adaptive.beta() == doctest::Approx(1.2));
  adaptive.set_beta(1);
  adaptive.update(-3, 10000);
  CHECK(adaptive.beta() == doctest::Approx(0.8));
  CHECK_THROWS_AS(KlController(-1), ShapeError);
  CHECK_THROWS_AS(KlController(1, 6, 0), ShapeError);
}

TEST_CASE("the linear schedule reaches zero, and stays there") {
  CHECK(linear_schedule(0.5F, 0, 4) == 0.5F);
  CHECK(linear_schedule(0.5F, 1, 4) == 0.375F);
  CHECK(linear_schedule(0.5F, 3, 4) == 0.125F);
  CHECK(linear_schedule(0.5F, 4, 4) == 0.0F);
  CHECK(linear_schedule(0.5F, 9, 4) == 0.0F);
  CHECK(linear_schedule(0.5F, 0, 0) == 0.0F);
}
