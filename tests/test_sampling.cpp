// The sampler against exact probabilities (chi-square), its filters against a full sort, and its
// bits.
#include "cases/sampling.hpp"
#include "support.hpp"

#include <plumb/cpu/kernels.hpp>
#include <plumb/cpu/reference_head.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <set>
#include <vector>

using namespace plumb;
using namespace test;
using namespace cases::sampling;

namespace {

struct Draws {
  std::vector<std::int32_t> token;
  std::vector<float> logprob;
};

Draws sample(const std::vector<float>& logits, Index v, const SamplingSettings& settings,
             const std::vector<SampleKey>& keys, Cpu device = {}) {
  Draws draws{std::vector<std::int32_t>(keys.size(), -1), std::vector<float>(keys.size())};
  kernels::sample_rows(device, draws.token.data(), draws.logprob.data(), logits.data(),
                       static_cast<Index>(keys.size()), v, settings, keys.data());
  return draws;
}

std::vector<SampleKey> keys_of(std::uint32_t n) {
  std::vector<SampleKey> keys;
  for (std::uint32_t i = 0; i < n; ++i)
    keys.push_back({.seed = 7, .step = i / 1000, .sequence = i % 1000, .token = 3});
  return keys;
}

/// How often each token is drawn from one row, n draws.
std::vector<double> counts(const std::vector<float>& row, const SamplingSettings& settings,
                           std::uint32_t n) {
  std::vector<float> rows;
  for (std::uint32_t i = 0; i < n; ++i) rows.insert(rows.end(), row.begin(), row.end());
  std::vector<double> count(row.size(), 0.0);
  for (const std::int32_t t :
       sample(rows, static_cast<Index>(row.size()), settings, keys_of(n)).token)
    count[static_cast<std::size_t>(t)] += 1;
  return count;
}

/// Chi-square of the counts over cells of at least five expected draws, as a normal deviate (Wilson
/// and Hilferty 1931). Infinite if a token of probability 0 was drawn.
double deviate(const std::vector<double>& count, const std::vector<double>& p, double n) {
  double chi2 = 0, cells = 0, rest_count = 0, rest_expected = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    if (p[i] == 0.0 && count[i] > 0) return HUGE_VAL;
    if (p[i] * n < 5) {
      rest_count += count[i];
      rest_expected += p[i] * n;
      continue;
    }
    chi2 += (count[i] - p[i] * n) * (count[i] - p[i] * n) / (p[i] * n);
    cells += 1;
  }
  if (rest_expected >= 5) {
    chi2 += (rest_count - rest_expected) * (rest_count - rest_expected) / rest_expected;
    cells += 1;
  }
  const double k = cells - 1;
  if (k < 1) return 0;
  return (std::cbrt(chi2 / k) - (1 - 2 / (9 * k))) / std::sqrt(2 / (9 * k));
}

}  // namespace

TEST_CASE("draws follow the probabilities, filtered or not (chi-square)") {
  for (const Index v : kSmallSizes)
    for (const Kind& kind : kSmallKinds) {
      const SamplingSettings& settings = kind.settings;
      const auto row = random_vector(v, 11 + static_cast<std::uint64_t>(v), 2.0F);
      const auto p = reference::sampling_probabilities(row.data(), v, settings);
      CAPTURE(v);
      CAPTURE(kind.name);
      const auto count = counts(row, settings, 4000);
      CHECK(deviate(count, p, 4000) < 4.0);
      CHECK(deviate(count, p, 4000) > -4.0);
    }
}

TEST_CASE("the chi-square notices a sampler at the wrong temperature") {
  const auto row = random_vector(33, 1, 2.0F);
  const auto p = reference::sampling_probabilities(row.data(), 33, {.temperature = 1.1F});
  CHECK(deviate(counts(row, {}, 4000), p, 4000) > 4.0);
}

TEST_CASE("log-probs are those of the unfiltered distribution, in the bits of the head") {
  for (const Case& c : kSmall) {
    const auto n = static_cast<std::size_t>(c.n);
    const auto logits = random_vector(c.n * c.v, 3, 3.0F);
    const float temperature = c.kind.settings.temperature;
    const float scale = temperature == 0.0F ? 1.0F : 1.0F / temperature;
    for_each_isa([&](Isa) {
      const Draws draws =
          sample(logits, c.v, c.kind.settings, keys_of(static_cast<std::uint32_t>(c.n)));
      std::vector<float> logprob(n), lse(n);
      kernels::logprob_rows({}, logprob.data(), nullptr, lse.data(), logits.data(),
                            draws.token.data(), c.n, c.v, scale);
      CHECK(same_bits(draws.logprob, logprob));
    });
  }
}

TEST_CASE(
    "draws depend on neither batch, threads nor instruction set, and do on every part of a key") {
  const Index v = 515;
  const std::uint32_t n = 64;
  const auto logits = random_vector(n * v, 5, 2.0F);
  const auto keys = keys_of(n);
  Pool one(1), three(3);
  for (const Kind& kind : kSmallKinds) {
    const SamplingSettings& settings = kind.settings;
    const Draws all = sample(logits, v, settings, keys, Cpu{&one});
    for_each_isa([&](Isa) {
      const Draws again = sample(logits, v, settings, keys, Cpu{&three});
      CHECK(again.token == all.token);
      CHECK(same_bits(again.logprob, all.logprob));
    });
    for (const std::uint32_t i : {0U, 17U, 63U}) {
      const std::vector<float> row(&logits[i * 515], &logits[i * 515] + v);
      const Draws single = sample(row, v, settings, {keys[i]});
      CHECK(single.token[0] == all.token[i]);
      CHECK(single.logprob[0] == all.logprob[i]);
    }
  }
  const std::vector<float> flat(static_cast<std::size_t>(v) * 5, 0.0F);
  const auto tokens =
      sample(flat, v, {}, {{1, 2, 3, 4}, {9, 2, 3, 4}, {1, 9, 3, 4}, {1, 2, 9, 4}, {1, 2, 3, 9}})
          .token;
  CHECK(std::set<std::int32_t>(tokens.begin(), tokens.end()).size() == 5);
}

TEST_CASE("filters keep exactly what they say, of equals the lowest") {
  const auto drawn = [](const std::vector<float>& row, const SamplingSettings& settings) {
    std::set<std::int32_t> set;
    const auto count = counts(row, settings, 400);
    for (std::size_t i = 0; i < count.size(); ++i)
      if (count[i] > 0) set.insert(static_cast<std::int32_t>(i));
    return set;
  };
  const std::vector<float> flat(8, 1.0F);
  CHECK(drawn(flat, {.top_k = 3}) == std::set<std::int32_t>{0, 1, 2});
  CHECK(drawn(flat, {.top_p = 0.5F}) == std::set<std::int32_t>{0, 1, 2, 3});
  CHECK(drawn(flat, {.top_p = 0.51F}) == std::set<std::int32_t>{0, 1, 2, 3, 4});
  CHECK(drawn(flat, {.top_p = 1e-9F}) == std::set<std::int32_t>{0});
  CHECK(drawn(flat, {.top_k = 4, .top_p = 0.5F}) == std::set<std::int32_t>{0, 1});
  CHECK(drawn(flat, {.top_k = 100}).size() == 8);
  CHECK(drawn(flat, {.temperature = 0.0F}) == std::set<std::int32_t>{0});
  const std::vector<float> row = {0, 5, 1, 5, 4, 4, 4};
  CHECK(drawn(row, {.temperature = 9.0F, .top_k = 3}) == std::set<std::int32_t>{1, 3, 4});
  CHECK(drawn(row, {.temperature = 0.0F}) == std::set<std::int32_t>{1});
  // e^-1 = 0.368 of the likeliest: two of 5, three of 4.
  CHECK(drawn(row, {.min_p = 0.36F}) == std::set<std::int32_t>{1, 3, 4, 5, 6});
  CHECK(drawn(row, {.min_p = 0.37F}) == std::set<std::int32_t>{1, 3});
  CHECK(drawn(row, {.min_p = 1.0F}) == std::set<std::int32_t>{1, 3});
  CHECK(drawn(row, {.top_k = 4, .min_p = 0.1F}) == std::set<std::int32_t>{1, 3, 4, 5});
}

TEST_CASE("the filtered distribution's own log-prob, where it is asked for") {
  for (const Case& c : kSmall) {
    const auto logits = random_vector(c.n * c.v, 3, 3.0F);
    SamplingSettings settings = c.kind.settings;
    settings.filtered_logprob = true;
    const auto keys = keys_of(static_cast<std::uint32_t>(c.n));
    const Draws plain = sample(logits, c.v, c.kind.settings, keys);
    for_each_isa([&](Isa) {
      const Draws own = sample(logits, c.v, settings, keys);
      CHECK(own.token == plain.token);
      CHECK((settings.filters() || same_bits(own.logprob, plain.logprob)));
      for (std::size_t i = 0; i < keys.size(); ++i) {
        const auto p = reference::sampling_probabilities(
            logits.data() + static_cast<Index>(i) * c.v, c.v, settings);
        CHECK(own.logprob[i] ==
              doctest::Approx(std::log(p[static_cast<std::size_t>(own.token[i])])).epsilon(1e-5));
      }
    });
  }
}

TEST_CASE("a nucleus larger than the first sorted part is found whole") {
  const Index v = 2000;
  const auto row = random_vector(v, 8, 0.3F);
  const SamplingSettings settings{.top_p = 0.7F};
  const auto p = reference::sampling_probabilities(row.data(), v, settings);
  std::vector<float> weights(row.size()), kept(row.size());
  std::vector<std::int32_t> order(row.size());
  kernels::dispatch<kernels::SamplingTable>().weights(weights.data(), row.data(), v, 1.0F);
  kernels::filter_weights(weights.data(), row.data(), v, settings, order.data(), kept.data());
  Index nucleus = 0;
  for (std::size_t i = 0; i < row.size(); ++i) {
    CHECK((weights[i] > 0.0F) == (p[i] > 0.0));
    nucleus += weights[i] > 0.0F;
  }
  CHECK(nucleus > 600);
}

TEST_CASE("weights are summed in blocks of 256 tokens: 32 lanes, then the butterfly") {
  for (const Index v : {1, 31, 256, 257, 700}) {
    std::vector<float> weights = random_vector(v, 4);
    for (float& w : weights) w = std::abs(w);
    float total = 0;
    for (Index i = 0; i < v; i += 256) {
      float lanes[32] = {};
      for (Index j = i; j < std::min<Index>(v, i + 256); ++j)
        lanes[j % 32] += weights[static_cast<std::size_t>(j)];
      for (int apart = 16; apart > 0; apart /= 2)
        for (int l = 0; l < apart; ++l) lanes[l] += lanes[l + apart];
      total += lanes[0];
    }
    for_each_isa([&](Isa) {
      CHECK(kernels::dispatch<kernels::SamplingTable>().total(weights.data(), v) == total);
    });
  }
}

TEST_CASE("where a block's chain rounds below its sum, its last token that can be drawn is drawn") {
  std::vector<float> weights(300, 0.0F);
  weights[0] =
      1.0F;  // alone in the chain: 1 + 2^-25 rounds to 1, but the lanes add the 2^-25 first
  for (std::size_t i = 1; i <= 200; ++i) weights[i] = 0x1p-25F;
  for_each_isa([&](Isa) {
    CHECK(kernels::dispatch<kernels::SamplingTable>().draw(weights.data(), 300, 1 - 0x1p-24F) ==
          200);
  });
}

TEST_CASE("tokens of vanishing weight are never drawn, u = 0 and u → 1 included") {
  std::vector<float> row(600, -1000.0F);
  row[300] = row[599] = 0.0F;
  std::vector<float> weights(600);
  for_each_isa([&](Isa) {
    const auto& table = kernels::dispatch<kernels::SamplingTable>();
    table.weights(weights.data(), row.data(), 600, 1.0F);
    CHECK(table.draw(weights.data(), 600, 0.0F) == 300);
    CHECK(table.draw(weights.data(), 600, 0.49F) == 300);
    CHECK(table.draw(weights.data(), 600, 0.5F) == 599);
    CHECK(table.draw(weights.data(), 600, 1.0F - 0x1p-24F) == 599);
  });
}

TEST_CASE("a row that is not finite is refused by its number, for every setting") {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), HUGE_VALF}) {
    std::vector<float> rows(3 * 40, 1.0F);
    rows[2 * 40 + 37] = bad;
    for (const Kind& kind : kSmallKinds)
      CHECK(message_of<NumericError>([&] {
              sample(rows, 40, kind.settings, keys_of(3));
            }).find("[sample_rows] row 2") == 0);
  }
  const std::vector<float> nothing(40, -HUGE_VALF);
  CHECK_THROWS_AS(sample(nothing, 40, {}, keys_of(1)), NumericError);
}

TEST_CASE("the likeliest tokens are those of a whole sort, whatever the order of the logits") {
  const Index v = 1000;
  const auto random = random_vector(v, 21);
  std::vector<std::vector<float>> rows(6, random);
  std::sort(rows[1].begin(), rows[1].end());
  std::sort(rows[2].rbegin(), rows[2].rend());
  std::fill(rows[3].begin(), rows[3].end(), 0.25F);
  for (float& x : rows[4]) x = std::round(x);
  for (std::size_t i = 0; i < rows[5].size(); i += 2) rows[5][i] = -INFINITY;
  for (const auto& row : rows) {
    std::vector<std::int32_t> all(row.size()), order(row.size());
    std::iota(all.begin(), all.end(), 0);
    std::stable_sort(all.begin(), all.end(), [&](std::int32_t a, std::int32_t b) {
      return row[static_cast<std::size_t>(a)] > row[static_cast<std::size_t>(b)];
    });
    for (const Index k : {Index{1}, Index{2}, Index{63}, Index{500}, Index{999}, v}) {
      kernels::likeliest(order.data(), row.data(), v, k);
      CHECK(std::equal(all.begin(), all.begin() + k, order.begin()));
    }
  }
}
