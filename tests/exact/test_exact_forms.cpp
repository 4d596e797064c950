// The proof room's own proofs: closed forms against solvers that know nothing of them, gradients
// against central differences, in double throughout.
#include "../tiny.hpp"

#include <plumb/exact/policy_updates.hpp>
#include <plumb/exact/preference_updates.hpp>

#include <doctest/doctest.h>

using namespace plumb;
using namespace test;

namespace {

constexpr double kExact = 1e-10;

std::vector<double> doubles(Index n, std::uint64_t seed, float scale = 1.0F) {
  const auto x = random_vector(n, seed, scale);
  return {x.begin(), x.end()};
}

TableLogits some_table(const TableShape& shape) {
  return {shape, doubles(shape.nodes() * shape.vocab, 11)};
}

PpoConfig method_config(PolicyMethod method, double beta) {
  PpoConfig config;
  use_method(config, method);
  config.beta = static_cast<float>(beta);
  if (config.kl_place == KlPlace::Loss && method != PolicyMethod::Grpo) config.kl = KlEstimator::K2;
  return config;
}

}  // namespace

TEST_CASE("exact: responses that end, and those that do not, have all the probability") {
  for (const std::int32_t stop : {-1, 0}) {
    const TableLogits table = some_table({3, 3});
    const Responses all(table, 1, stop);
    CHECK(all.size() == (stop < 0 ? 27U : 15U));
    double total = 0;
    for (std::size_t y = 0; y < all.size(); ++y) {
      total += all.probabilities[y];
      CHECK(all.place(all.responses[y]) == y);
      CHECK((stop < 0 || all.responses[y].back() == stop || all.responses[y].size() == 3));
    }
    CHECK(std::abs(total - 1) < kExact);
  }
  CHECK(contains(message_of<DataError>([] { Responses(some_table({11, 5}), 1); }), "100000"));
}

TEST_CASE("exact: the gradient of J is that of differences, and zero at its optimum") {
  const double beta = 0.5;
  for (const std::int32_t stop : {-1, 2}) {
    TableLogits table = some_table({3, 3});
    const Responses reference(some_table({3, 3}), 1, stop);
    const auto reward = doubles(static_cast<Index>(reference.size()), 5);
    for (double& x : table.at) x *= 0.7;
    const auto j = [&] {
      const Responses now(table, 1, stop);
      return objective(now.probabilities, reference.logprobs, reward, beta);
    };
    const auto gradient = objective_gradient(Responses(table, 1, stop), reference, reward, beta);
    for (std::size_t i = 0; i < table.at.size(); i += 5) {
      const double h = 1e-4, at = table.at[i];
      table.at[i] = at + h;
      const double above = j();
      table.at[i] = at - h;
      const double below = j();
      table.at[i] = at;
      CHECK(gradient[i] == doctest::Approx((above - below) / (2 * h)).epsilon(1e-6).scale(1e-4));
    }
    // A table that holds π*: each node's logits are the logarithms of what passes through it.
    const auto best = tilted(reference.logprobs, reward, beta);
    TableLogits optimal = some_table({3, 3});
    std::vector<double> through(optimal.at.size());
    for (std::size_t y = 0; y < best.size(); ++y)
      for (std::size_t t = 0; t < reference.nodes[y].size(); ++t)
        through[static_cast<std::size_t>(reference.nodes[y][t] * 3 + reference.responses[y][t])] +=
            best[y];
    for (std::size_t i = 0; i < through.size(); ++i)
      if (through[i] > 0) optimal.at[i] = std::log(through[i]);
    const Responses there(optimal, 1, stop);
    CHECK(total_variation(there.probabilities, best) < kExact);
    for (const double g : objective_gradient(there, reference, reward, beta))
      CHECK(std::abs(g) < kExact);
  }
}

TEST_CASE("exact: policy methods stand still where their closed forms say") {
  const TableLogits start = some_table({8, 1});
  const Responses reference(start, 1);
  const auto reward = doubles(8, 5);
  for (const auto& [name, method] : choices(PolicyMethod{})) {
    CAPTURE(name);
    const bool divides = divides_by_spread(method);
    const PpoConfig config = method_config(method, divides ? 2.0 : 0.5);
    const Responses there(standstill(method, config, start, 1, -1, reward), 1);
    const auto expected = closed_form(method, config, reference.logprobs, reward);
    CHECK(total_variation(there.probabilities, expected) < kExact);
    // Only those that do not divide find the optimum of J.
    const double apart =
        total_variation(expected, tilted(reference.logprobs, reward, double{config.beta}));
    CHECK((divides ? apart > 0.03 : apart < kExact));
  }
}

TEST_CASE("exact: division by the spread has no optimum inside for a small beta") {
  // The likelier the best becomes, the less the rewards spread, and the more a difference counts.
  const Responses reference(some_table({8, 1}), 1);
  const auto reward = doubles(8, 5);
  const PpoConfig config = method_config(PolicyMethod::Dapo, 0.5);
  const auto end = closed_form(PolicyMethod::Dapo, config, reference.logprobs, reward);
  CHECK(*std::max_element(end.begin(), end.end()) > 0.999);
  const auto best = tilted(reference.logprobs, reward, 0.5);
  CHECK(*std::max_element(best.begin(), best.end()) < 0.9);
}

TEST_CASE("exact: of sequences only the divergence of the whole finds the optimum of J") {
  const double beta = 0.5;
  const TableLogits start = some_table({3, 3});
  const Responses reference(start, 1, 0);
  const auto reward = doubles(static_cast<Index>(reference.size()), 5);
  const auto best = tilted(reference.logprobs, reward, beta);
  const auto distance = [&](PolicyMethod method) {
    const TableLogits there = standstill(method, method_config(method, beta), start, 1, 0, reward);
    return total_variation(Responses(there, 1, 0).probabilities, best);
  };
  CHECK(distance(PolicyMethod::Rloo) < kExact);
  CHECK(distance(PolicyMethod::ReinforcePlusPlus) < kExact);
  CHECK(distance(PolicyMethod::Ppo) < kExact);
  // k2 of each token knows nothing of the divergence that follows.
  CHECK(distance(PolicyMethod::DrGrpo) > 1e-3);
}

TEST_CASE("exact: preference methods are least where their closed forms say") {
  const auto reference = normalised(doubles(6, 3));
  std::vector<double> log_reference;
  for (const double p : reference) log_reference.push_back(std::log(p));
  const auto reward = doubles(6, 5, 0.5F);
  for (const auto& [name, method] : choices(PreferenceMethod{})) {
    CAPTURE(name);
    PreferenceConfig config;
    config.method = method;
    config.beta = 0.5F;
    if (method == PreferenceMethod::Robust) config.smoothing = 0.25F;
    const WinRates win = win_rates(reward, static_cast<double>(config.smoothing));
    const auto expected = closed_form(config, log_reference, reward, win);
    if (expected.empty()) continue;
    CHECK(total_variation(least_preference_loss(config, log_reference, win), expected) < kExact);
  }
}

TEST_CASE("exact: a preference loss's slopes are those of differences") {
  // By the trainer's own loss, in float: the one formula that both have to be.
  const Index n = 5;
  const auto log_policy = [&] {
    auto p = normalised(doubles(n, 8));
    for (double& x : p) x = std::log(x);
    return p;
  }();
  const auto log_reference = [&] {
    auto p = normalised(doubles(n, 9));
    for (double& x : p) x = std::log(x);
    return p;
  }();
  const WinRates win = win_rates(doubles(n, 5));
  for (const auto& [name, method] : choices(PreferenceMethod{})) {
    if (method == PreferenceMethod::PlackettLuce) continue;  // of two, DPO
    CAPTURE(name);
    PreferenceConfig config;
    config.method = method;
    config.beta = 0.5F;
    if (method == PreferenceMethod::Robust) config.smoothing = 0.2F;
    const auto slopes = preference_slopes(config, log_policy, log_reference, win);
    std::vector<double> expected(static_cast<std::size_t>(n));
    double z = 0;
    for (std::size_t i = 0; i < expected.size(); ++i)
      z += 0.5 * (log_policy[i] - log_reference[i]) / static_cast<double>(n);
    for (std::size_t i = 0; i < expected.size(); ++i)
      for (std::size_t j = 0; j < expected.size(); ++j) {
        if (i == j) continue;
        auto x = Tensor<Cpu>::from(
            {static_cast<float>(log_policy[i]), static_cast<float>(log_policy[j])}, {2});
        x.set_requires_grad(true);
        detail::Compared pair{
            {0, 1},
            {1, 1},
            {static_cast<float>(log_reference[i]), static_cast<float>(log_reference[j])}};
        const detail::Compared* one = &pair;
        PreferenceStats stats;
        backpropagate([&] {
          return preference_loss(x, std::span<const detail::Compared* const>(&one, 1), config, 1.0F,
                                 static_cast<float>(std::max(z, 0.0)), stats);
        });
        const double share = 2 * win[i][j] / static_cast<double>(n * (n - 1));
        const auto g = grad_of(x);
        expected[i] += share * double{g[0]};
        expected[j] += share * double{g[1]};
      }
    for (std::size_t i = 0; i < expected.size(); ++i)
      CHECK(slopes[i] == doctest::Approx(expected[i]).epsilon(1e-5).scale(1e-2));
  }
}
