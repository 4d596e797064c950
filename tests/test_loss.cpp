// PPO policy, value and ranking losses against double precision oracles, central differences of
// those, and their own definitions at the edges.
#include "support.hpp"

#include <plumb/cpu/kernels.hpp>
#include <plumb/cpu/reference_loss.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

using namespace plumb;
using namespace test;

namespace {

std::vector<double> widened(const std::vector<float>& x) { return {x.begin(), x.end()}; }

/// df/dx by central differences.
template <class F>
std::vector<double> differences(std::vector<double> x, F&& f) {
  std::vector<double> gradient;
  for (double& value : x) {
    const double at = value, step = 1e-6;
    value = at + step;
    const double above = f(x);
    value = at - step;
    const double below = f(x);
    value = at;
    gradient.push_back((above - below) / (2 * step));
  }
  return gradient;
}

std::vector<float> positive(Index n, std::uint64_t seed) {
  std::vector<float> w = random_vector(n, seed);
  for (float& x : w) x = std::abs(x) / static_cast<float>(n);
  return w;
}

const std::vector<Index> kSizes = {0, 1, 2, 7, 31, 255, 256, 257, 600};

}  // namespace

TEST_CASE("ppo_policy_loss and its derivative, for every clip") {
  const PpoClip clips[] = {{},
                           {.low = 0.1F, .high = 0.3F},
                           {.dual = 1.5F},
                           {.log_ratio_limit = 0.6F},
                           {.low = 0.2F, .high = 0.28F, .dual = 3.0F, .log_ratio_limit = 20.0F}};
  for (const Index n : kSizes)
    for (const PpoClip& clip : clips) {
      const auto logprob = random_vector(n, 1, 0.5F), old = random_vector(n, 2, 0.5F);
      const auto advantage = random_vector(n, 3), weight = positive(n, 4);
      std::vector<float> d(logprob.size());
      float loss = -1;
      PolicyStats stats;
      kernels::ppo_policy_loss(Cpu{}, &loss, d.data(), &stats, logprob.data(), old.data(),
                               advantage.data(), weight.data(), n, clip);
      const auto oracle = [&](const std::vector<double>& x) {
        return reference::ppo_policy_loss(x.data(), old.data(), advantage.data(), weight.data(), n,
                                          clip);
      };
      CAPTURE(n);
      CHECK(std::abs(static_cast<double>(loss) - oracle(widened(logprob))) < 2e-6);
      CHECK(max_error(d, differences(widened(logprob), oracle)) < 1e-6);
      double kl = 0, k3 = 0, total = 0, ratios = 0, squares = 0, most = 0;
      for (std::size_t i = 0; i < d.size(); ++i) {
        const double w = weight[i], limit = clip.log_ratio_limit > 0 ? clip.log_ratio_limit : 1e9F;
        const double delta = std::clamp(static_cast<double>(logprob[i] - old[i]), -limit, limit);
        total += w;
        kl += w * delta * delta / 2;
        k3 += w * (std::expm1(delta) - delta);
        ratios += w * std::exp(delta);
        squares += w * std::exp(2 * delta);
        most = std::max(most, std::abs(std::expm1(delta)));
      }
      CHECK(stats.weight == doctest::Approx(total).epsilon(1e-12));
      CHECK(stats.approx_kl == doctest::Approx(kl).epsilon(1e-12));
      CHECK(stats.approx_kl_k3 == doctest::Approx(k3).epsilon(1e-6));
      CHECK(stats.ratio == doctest::Approx(ratios).epsilon(1e-6));
      CHECK(stats.ratio_squared == doctest::Approx(squares).epsilon(1e-6));
      CHECK(stats.ratio_max_deviation == doctest::Approx(most).epsilon(1e-6));
    }
}

TEST_CASE("at equal log-probs the ratio is exactly 1 and the derivative is -A") {
  const auto logprob = random_vector(300, 1), advantage = random_vector(300, 2);
  const std::vector<float> ones(300, 1.0F);
  std::vector<float> d(300), expected;
  for (const float a : advantage) expected.push_back(-a);
  float loss = 0;
  PolicyStats stats;
  kernels::ppo_policy_loss(Cpu{}, &loss, d.data(), &stats, logprob.data(), logprob.data(),
                           advantage.data(), ones.data(), 300, {});
  CHECK(same_bits(d, expected));
  CHECK(stats.ratio_max_deviation == 0.0);
  CHECK(stats.approx_kl == 0.0);
  CHECK(stats.approx_kl_k3 == 0.0);
  CHECK(stats.clipfrac == 0.0);
  CHECK(stats.ratio == 300.0);
}

TEST_CASE("the policy loss clips where the formula says, by hand") {
  // ratios: 2 clipped (A > 0), 2 not clipped (A < 0), 1/2 not clipped (A > 0), 1/2 clipped (A < 0)
  const float two = std::log(2.0F);
  const std::vector<float> logprob = {two, two, -two, -two}, old(4, 0.0F), ones(4, 1.0F);
  const std::vector<float> advantage = {1, -1, 1, -1};
  std::vector<float> d(4);
  float loss = 0;
  PolicyStats stats;
  kernels::ppo_policy_loss(Cpu{}, &loss, d.data(), &stats, logprob.data(), old.data(),
                           advantage.data(), ones.data(), 4, {.low = 0.25F, .high = 0.5F});
  CHECK(max_error(d, std::vector<double>{0, 2, -0.5, 0}) < 1e-6);
  CHECK(loss == doctest::Approx(-1.5 + 2 - 0.5 + 0.75));
  CHECK(stats.clipfrac == 2.0);
}

TEST_CASE("approx_kl_k3 is accurate for tiny and for large differences") {
  for (const float delta : {1e-6F, -1e-4F, 0.01F, -0.499F, 0.501F, 3.0F, -8.0F}) {
    const float zero = 0, one = 1;
    float loss = 0, d = 0;
    PolicyStats stats;
    kernels::ppo_policy_loss(Cpu{}, &loss, &d, &stats, &delta, &zero, &one, &one, 1, {});
    const long double x = delta;
    CHECK(stats.approx_kl_k3 ==
          doctest::Approx(static_cast<double>(std::expm1(x) - x)).epsilon(1e-6));
  }
}

TEST_CASE("a NaN log-prob shows in the loss and in every statistic of the ratio") {
  const float nan = std::numeric_limits<float>::quiet_NaN(), zero = 0, one = 1;
  float loss = 0, d = 0;
  PolicyStats stats;
  kernels::ppo_policy_loss(Cpu{}, &loss, &d, &stats, &nan, &zero, &one, &one, 1,
                           {.dual = 3, .log_ratio_limit = 20});
  CHECK(std::isnan(loss));
  CHECK(std::isnan(d));
  CHECK(std::isnan(stats.ratio_max_deviation));
  CHECK(std::isnan(stats.approx_kl_k3));
}

TEST_CASE("ppo_value_loss and its derivative") {
  for (const Index n : kSizes)
    for (const float clip : {0.0F, 0.2F, 0.7F}) {
      const auto value = random_vector(n, 1), old = random_vector(n, 2),
                 returns = random_vector(n, 3);
      const auto weight = positive(n, 4);
      std::vector<float> d(value.size());
      float loss = -1;
      ValueStats stats;
      kernels::ppo_value_loss(Cpu{}, &loss, d.data(), &stats, value.data(),
                              clip > 0 ? old.data() : nullptr, returns.data(), weight.data(), n,
                              clip);
      const auto oracle = [&](const std::vector<double>& x) {
        return reference::ppo_value_loss(x.data(), old.data(), returns.data(), weight.data(), n,
                                         static_cast<double>(clip));
      };
      CAPTURE(n);
      CHECK(std::abs(static_cast<double>(loss) - oracle(widened(value))) < 2e-6);
      CHECK(max_error(d, differences(widened(value), oracle)) < 1e-6);
      double clipped = 0, error = 0, mean = 0, returned = 0, squared = 0;
      for (std::size_t i = 0; i < d.size(); ++i) {
        const double w = weight[i], v = value[i], r = returns[i];
        clipped += d[i] == 0.0F && w > 0 ? w : 0;
        error += w * (v - r) * (v - r);
        mean += w * v;
        returned += w * r;
        squared += w * r * r;
      }
      CHECK(stats.clipfrac == doctest::Approx(clipped).epsilon(1e-12));
      CHECK(stats.error == doctest::Approx(error).epsilon(1e-12));
      CHECK(stats.mean == doctest::Approx(mean).epsilon(1e-12));
      CHECK(stats.returns_mean == doctest::Approx(returned).epsilon(1e-12));
      CHECK(stats.returns_squared == doctest::Approx(squared).epsilon(1e-12));
    }
}

TEST_CASE("weighted_sum: chunks of 256, each a chain, added in order") {
  for (const Index n : kSizes) {
    const auto x = random_vector(n, 1), weight = random_vector(n, 2);
    float total = 0, chunk = 0, sum = -1;
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (i % 256 == 0) total += std::exchange(chunk, 0.0F);
      chunk = std::fma(weight[i], x[i], chunk);
    }
    total += chunk;
    kernels::weighted_sum(Cpu{}, &sum, x.data(), weight.data(), n);
    CHECK(sum == total);
  }
}

TEST_CASE("ranking_loss against the oracle and its differences") {
  Rng rng(5);
  for (const auto& [kind, with_levels] : {std::pair{RankingLossKind::BradleyTerry, false},
                                          {RankingLossKind::BradleyTerry, true},
                                          {RankingLossKind::PlackettLuce, false}})
    for (const float center : {0.0F, 0.05F})
      for (const Index prompts : {0, 1, 3, 40, 300}) {
        const RankingLoss settings{.kind = kind,
                                   .margin = kind == RankingLossKind::BradleyTerry ? 0.3F : 0.0F,
                                   .center = center};
        std::vector<std::int32_t> offsets = {0}, rank;
        for (Index p = 0; p < prompts; ++p) {
          const std::uint32_t count = rng.below(7);  // 0 and 1 responses, ties, unjudged: all occur
          for (std::uint32_t i = 0; i < count; ++i)
            rank.push_back(static_cast<std::int32_t>(rng.below(5)) - 1);
          offsets.push_back(static_cast<std::int32_t>(rank.size()));
        }
        const auto score = random_vector(static_cast<Index>(rank.size()), 6, 2.0F);
        const auto weight = positive(prompts, 7);
        const auto levels = random_vector(static_cast<Index>(rank.size()), 8, 2.0F);
        const float* level = with_levels ? levels.data() : nullptr;
        std::vector<float> d(score.size(), 77.0F);  // overwritten
        float loss = -1;
        RankingStats stats;
        kernels::ranking_loss(Cpu{}, &loss, d.data(), &stats, score.data(), rank.data(), level,
                              offsets.data(), weight.data(), prompts, settings);
        const auto oracle = [&](const std::vector<double>& x) {
          return reference::ranking_loss(x.data(), rank.data(), level, offsets.data(),
                                         weight.data(), prompts, settings);
        };
        CAPTURE(prompts);
        CHECK(std::abs(static_cast<double>(loss) - oracle(widened(score))) < 4e-6);
        CHECK(max_error(d, differences(widened(score), oracle)) < 2e-6);
      }
}

namespace {
struct Ranked {
  float loss = 0;
  std::vector<float> d;
  RankingStats stats;
};
Ranked rank_one(const std::vector<float>& score, const std::vector<std::int32_t>& rank,
                const RankingLoss& settings, const std::vector<float>& level = {}) {
  Ranked r;
  r.d.resize(score.size());
  const std::int32_t offsets[] = {0, static_cast<std::int32_t>(score.size())};
  const float one = 1;
  kernels::ranking_loss(Cpu{}, &r.loss, r.d.data(), &r.stats, score.data(), rank.data(),
                        level.empty() ? nullptr : level.data(), offsets, &one, 1, settings);
  return r;
}
}  // namespace

TEST_CASE("ranking_loss: definitions by hand") {
  const RankingLoss bt, pl{.kind = RankingLossKind::PlackettLuce};
  SUBCASE("two responses: Bradley–Terry is Plackett–Luce") {
    const Ranked a = rank_one({0.3F, -0.4F}, {1, 0}, bt), b = rank_one({0.3F, -0.4F}, {1, 0}, pl);
    CHECK(a.loss == doctest::Approx(std::log1p(std::exp(0.7))));
    CHECK(b.loss == doctest::Approx(static_cast<double>(a.loss)));
    CHECK(a.stats.pairs == 1.0);
    CHECK(a.stats.correct == 0.0);
    CHECK(a.stats.margin_sum == doctest::Approx(-0.7));
  }
  SUBCASE("best of K is the softmax's cross-entropy") {
    const Ranked r = rank_one({0.5F, 2.0F, -1.0F, 0.0F}, {1, 0, 1, 1}, pl);
    const double total = std::exp(0.5) + std::exp(2.0) + std::exp(-1.0) + 1.0;
    CHECK(r.loss == doctest::Approx(std::log(total) - 2.0));
    CHECK(r.d[1] == doctest::Approx(std::exp(2.0) / total - 1.0));
    CHECK(r.d[3] == doctest::Approx(1.0 / total));
    CHECK(r.stats.pairs == 3.0);
    CHECK(r.stats.correct == 3.0);
  }
  SUBCASE("a tie pulls scores together; equal scores count half") {
    const Ranked r = rank_one({1.0F, 0.0F}, {0, 0}, bt);
    CHECK(r.d[0] > 0.0F);
    CHECK(r.d[1] == -r.d[0]);
    CHECK(r.stats.pairs == 0.0);
    CHECK(rank_one({1.0F, 1.0F}, {0, 1}, bt).stats.correct == 0.5);
  }
  SUBCASE("margins by levels: of a pair their difference and the constant; none of a tie") {
    // Computed by Python's floats, term by term, from the definition.
    const std::vector<float> score{0.5F, -1.25F, 2.0F, 0.75F}, level{4.5F, 7.0F, 1.5F, 3.0F};
    const Ranked r = rank_one(score, {1, 0, 2, 1}, {.margin = 0.25F, .center = 0.125F}, level);
    CHECK(r.loss == doctest::Approx(5.060831832576216).epsilon(1e-6));
    const double d[] = {0.11423567364955345, -0.5186604880216822, 0.7406455411387892,
                        0.16377927323333955};
    for (std::size_t i = 0; i < 4; ++i) CHECK(r.d[i] == doctest::Approx(d[i]).epsilon(1e-6));
    // The same levels are none, and what they differ by is a constant's bits.
    for (const PairLoss pair : {PairLoss::Logistic, PairLoss::Square, PairLoss::Hinge}) {
      const Ranked flat = rank_one(score, {1, 0, 2, 1}, {.pair = pair}, {3, 3, 3, 3}),
                   none = rank_one(score, {1, 0, 2, 1}, {.pair = pair}),
                   by_level = rank_one({0.5F, 0.1F}, {0, 1}, {.pair = pair}, {1.5F, 0.75F}),
                   constant = rank_one({0.5F, 0.1F}, {0, 1}, {.pair = pair, .margin = 0.75F});
      CHECK(flat.loss == none.loss);
      CHECK(flat.d == none.d);
      CHECK(by_level.loss == constant.loss);
      CHECK(by_level.d == constant.d);
    }
    CHECK(rank_one({0.5F, 0.1F}, {0, 1}, pl, {9, 1}).d == rank_one({0.5F, 0.1F}, {0, 1}, pl).d);
  }
  SUBCASE("nothing to learn from") {
    for (const RankingLoss& loss : {bt, pl}) {
      CHECK(rank_one({1.0F, 2.0F}, {0, -1}, loss).loss == 0.0F);
      CHECK(rank_one({1.0F, 2.0F}, {-1, -1}, loss).loss == 0.0F);
      CHECK(rank_one({}, {}, loss).loss == 0.0F);
    }
    CHECK(
        rank_one({1.0F, 2.0F}, {3, 3}, {.kind = RankingLossKind::PlackettLuce, .center = 1}).loss ==
        0.0F);
  }
  SUBCASE("ranks are an order, not a distance; unjudged responses get no gradient") {
    const Ranked a = rank_one({1, 2, 3}, {0, 1, 2}, pl),
                 b = rank_one({1, 2, 3, 9}, {4, 7, 50, -1}, pl);
    CHECK(a.loss == b.loss);
    CHECK(b.d[3] == 0.0F);
  }
  SUBCASE("scores far apart neither overflow nor vanish") {
    for (const RankingLoss& loss : {bt, pl}) {
      const Ranked r = rank_one({-500.0F, 500.0F}, {0, 1}, loss);
      CHECK(r.loss == doctest::Approx(1000.0));
      CHECK(r.d[0] == doctest::Approx(-1.0));
      CHECK(rank_one({500.0F, -500.0F}, {0, 1}, loss).loss == 0.0F);
    }
  }
}

TEST_CASE("losses are the same bits for every instruction set") {
  const Index n = 700;
  const auto x = random_vector(n, 1), y = random_vector(n, 2), z = random_vector(n, 3);
  const auto weight = positive(n, 4);
  std::vector<std::int32_t> rank, offsets{0};
  for (std::int32_t i = 0; i < 700; ++i) rank.push_back(i * 7 % 5 - 1);
  while (offsets.back() < 700) offsets.push_back(offsets.back() + 4);
  std::vector<std::vector<float>> results;
  for_each_isa([&](Isa) {
    std::vector<float> out(static_cast<std::size_t>(3 * n + 3));
    PolicyStats policy;
    ValueStats value;
    RankingStats ranking;
    kernels::ppo_policy_loss(Cpu{}, &out[0], &out[2], &policy, x.data(), y.data(), z.data(),
                             weight.data(), n, {.dual = 2});
    kernels::ppo_value_loss(Cpu{}, &out[1], &out[702], &value, x.data(), y.data(), z.data(),
                            weight.data(), n, 0.2F);
    kernels::ranking_loss(Cpu{}, &out[1402], &out[1403], &ranking, x.data(), rank.data(), y.data(),
                          offsets.data(), weight.data(), n / 4, {.margin = 0.1F, .center = 0.02F});
    results.push_back(out);
  });
  for (const auto& result : results) CHECK(same_bits(result, results[0]));
}

TEST_CASE("a ratio that is not finite stays visible in the statistics") {
  const float logprob[] = {NAN, 0.0F}, zero[] = {0.0F, 0.0F}, one[] = {1.0F, 1.0F};
  float loss, derivative[2];
  PolicyStats stats;
  ppo_policy_loss(Cpu{}, &loss, derivative, &stats, logprob, zero, one, one, 2, PpoClip{});
  CHECK(std::isnan(stats.ratio_max_deviation));
}
