// Losses, the head and sampling on the device: the CPU's bits, statistics included.
#include <plumb/core/host_reads.hpp>
#include <plumb/cuda/gemm.cuh>
#include <plumb/cuda/head.cuh>
#include <plumb/cuda/loss.cuh>
#include <plumb/cuda/sampling.cuh>

#include "cases/head.hpp"
#include "cases/sampling.hpp"
#include "cuda/support.cuh"

using namespace plumb;
using test::check_same_bits;
using test::random_ids;
using test::random_vector;

namespace {

/// Statistics among the arrays whose bits are compared.
template <class At, class Stats>
void keep(At& at, const Stats& stats) {
  std::vector<float> words(sizeof(Stats) / sizeof(float));
  std::memcpy(words.data(), &stats, sizeof(Stats));
  at.out(words);
}

constexpr Index kSizes[] = {0, 1, 2, 31, 255, 256, 257, 700};

}  // namespace

TEST_CASE("PPO's losses have the CPU's bits") {
  for (const Index n : kSizes) {
    INFO("n = ", n);
    const auto logprob = random_vector(n, 1), old = random_vector(n, 2), a = random_vector(n, 3);
    auto weight = random_vector(n, 4);
    for (float& w : weight) w = std::abs(w) / 7.0F;
    for (const PpoClip& clip : {PpoClip{}, PpoClip{.low = 0.1F, .high = 0.3F, .dual = 3.0F},
                                PpoClip{.log_ratio_limit = 0.5F}})
      check_same_bits(Cuda{}, [&](auto device, auto& at) {
        HostReads<decltype(device)> reads;
        PolicyStats stats;
        ppo_policy_loss(device, at.out(1), at.out(n), reads.room(&stats), at.in(logprob),
                        at.in(old), at.in(a), at.in(weight), n, clip);
        reads.fetch();
        keep(at, stats);
      });
    for (const float clip : {0.0F, 0.2F})
      check_same_bits(Cuda{}, [&](auto device, auto& at) {
        HostReads<decltype(device)> reads;
        ValueStats stats;
        ppo_value_loss(device, at.out(1), at.out(n), reads.room(&stats), at.in(logprob),
                       clip > 0 ? at.in(old) : nullptr, at.in(a), at.in(weight), n, clip);
        reads.fetch();
        keep(at, stats);
        weighted_sum(device, at.out(1), at.in(a), at.in(weight), n);
      });
  }
}

TEST_CASE("losses of groups have the CPU's bits") {
  for (const Index n : kSizes) {
    INFO("n = ", n);
    const auto logprob = random_vector(n, 1), old = random_vector(n, 2), a = random_vector(n, 3),
               weight = random_vector(n, 4);
    check_same_bits(Cuda{}, [&](auto device, auto& at) {
      HostReads<decltype(device)> reads;
      PolicyStats stats;
      ppo_policy_loss(device, at.out(1), at.out(n), reads.room(&stats), at.in(logprob), at.in(old),
                      at.in(a), at.in(weight), n,
                      {.low = 1.0F, .high = 0.5F, .kind = ClipKind::Weight});
      reads.fetch();
      keep(at, stats);
    });
    for (const KlEstimator kind : {KlEstimator::K1, KlEstimator::K2, KlEstimator::K3})
      check_same_bits(Cuda{}, [&](auto device, auto& at) {
        kl_loss(device, at.out(1), at.out(n), at.in(logprob), at.in(old), at.in(weight), n, kind);
      });
    // Segments, an empty one among them, and one that is longer than a chunk.
    const auto end = static_cast<std::int32_t>(n);
    const std::vector<std::int32_t> offsets{0, end / 3, end / 3, end, end};
    check_same_bits(Cuda{}, [&](auto device, auto& at) {
      segment_sum(device, at.out(4), at.in(logprob), at.in(weight), at.in(offsets), 4);
      segment_spread(device, at.out(n, 0.5F), at.in(random_vector(4, 5)), at.in(weight),
                     at.in(offsets), 4);
    });
  }
}

TEST_CASE("a ratio that is not finite stays visible in the statistics") {
  HostReads<Cuda> reads;
  PolicyStats stats;
  test::Arrays<Cuda> at;
  ppo_policy_loss(Cuda{}, at.out(1), at.out(2), reads.room(&stats),
                  at.in(std::vector<float>{NAN, 0.0F}), at.in(std::vector<float>{0.0F, 0.0F}),
                  at.in(std::vector<float>{1.0F, 1.0F}), at.in(std::vector<float>{1.0F, 1.0F}), 2,
                  PpoClip{});
  reads.fetch();
  CHECK(std::isnan(stats.ratio_max_deviation));
}

TEST_CASE("the ranking losses have the CPU's bits") {
  Rng rng(5);
  for (const Index prompts : {Index{0}, Index{1}, Index{3}, Index{40}, Index{300}}) {
    std::vector<std::int32_t> offsets{0}, rank;
    for (Index p = 0; p < prompts; ++p) {
      const std::uint32_t responses = rng.below(6);
      for (std::uint32_t i = 0; i < responses; ++i)
        rank.push_back(static_cast<std::int32_t>(rng.below(5)) - 1);
      offsets.push_back(static_cast<std::int32_t>(rank.size()));
    }
    const auto n = static_cast<Index>(rank.size());
    const auto score = random_vector(n, 1), weight = random_vector(prompts, 2);
    const auto level = random_vector(n, 3);
    for (const auto& [kind, with_levels] : {std::pair{RankingLossKind::BradleyTerry, false},
                                            {RankingLossKind::BradleyTerry, true},
                                            {RankingLossKind::PlackettLuce, false}})
      for (const float center : {0.0F, 0.01F}) {
        const RankingLoss settings{.kind = kind, .margin = 0.1F, .center = center};
        const bool leveled = with_levels;  // nvcc's lambdas take no structured binding
        INFO("prompts = ", prompts, ", center = ", center);
        check_same_bits(Cuda{}, [&](auto device, auto& at) {
          HostReads<decltype(device)> reads;
          RankingStats stats;
          ranking_loss(device, at.out(1), at.out(n, 9.0F), reads.room(&stats), at.in(score),
                       at.in(rank), leveled ? at.in(level) : nullptr, at.in(offsets), at.in(weight),
                       prompts, settings);
          reads.fetch();
          keep(at, stats);
        });
      }
  }
}

TEST_CASE("the head has the CPU's bits") {
  for (const auto& one : cases::head::kSmall) {
    const Index n = one.n, c = one.c, v = one.v;
    const float scale = one.scale;
    INFO("n = ", n, ", c = ", c, ", v = ", v);
    const auto x = random_vector(n * c, 1), w = random_vector(v * c, 2, scale);
    const auto dlogprob = random_vector(n, 3), dentropy = random_vector(n, 4);
    const auto targets = random_ids(n, v, 5);
    for (const bool with_entropy : {false, true})
      for (const bool kept : {false, true})
        check_same_bits(Cuda{}, [&](auto device, auto& at) {
          const float *xs = at.in(x), *ws = at.in(w), *g = at.in(dlogprob);
          const float* ge = with_entropy ? at.in(dentropy) : nullptr;
          const std::int32_t* t = at.in(targets);
          float *logprob = at.out(n), *lse = at.out(n);
          float* entropy = with_entropy ? at.out(n) : nullptr;
          float* logits = kept ? at.out(n * v) : nullptr;
          head_logprob_forward(device, logprob, entropy, lse, xs, ws, t, n, c, v, 0.8F, logits);
          head_logprob_backward(device, at.out(n * c, 0.5F), at.out(v * c, 0.5F), g, ge, xs, ws, t,
                                lse, entropy, n, c, v, 0.8F, logits);
        });
    const auto other = random_vector(v * c, 6, scale);
    check_same_bits(Cuda{}, [&](auto device, auto& at) {
      head_kl_forward(device, at.out(n), at.in(x), at.in(w), c, at.in(x), at.in(other), c, n, v,
                      1.0F);
      head_kl_forward(device, at.out(n), at.in(x), at.in(w), c, at.in(x), at.in(other), c, n, v,
                      0.7F, at.in(targets), at.out(n));
    });
  }
}

TEST_CASE("rows of many logits have the CPU's bits: where tiles of a row end, and beyond") {
  // Tiles: 96 makers of 2, 4 and 8 terms; from 4097 logits on, 480.
  for (const Index v : {191, 193, 384, 385, 768, 1537, 4096, 4097, 5760, 5761, 7680, 7937}) {
    const Index n = 3, c = 5;
    INFO("v = ", v);
    auto logits = random_vector(n * v, 1, 4.0F);
    for (Index i = 0; i < v; i += 7) logits[static_cast<std::size_t>(v + i)] = -INFINITY;
    for (Index i = 0; i < v; ++i)  // zeros of either sign are the largest
      logits[static_cast<std::size_t>(2 * v + i)] = i % 3 == 0 ? 0.0F : i % 3 == 1 ? -0.0F : -1.0F;
    const auto targets = random_ids(n, v, 2);
    const auto x = random_vector(n * c, 3), w = random_vector(v * c, 4),
               other = random_vector(v * c, 5);
    check_same_bits(Cuda{}, [&](auto device, auto& at) {
      const float* z = at.in(logits);
      const std::int32_t* t = at.in(targets);
      logprob_rows(device, at.out(n), nullptr, at.out(n), z, t, n, v, 0.8F);
      logprob_rows(device, at.out(n), at.out(n), at.out(n), z, t, n, v, 1.0F);
      head_kl_forward(device, at.out(n), at.in(x), at.in(w), c, at.in(x), at.in(other), c, n, v,
                      0.7F, t, at.out(n));
    });
    const std::vector<SampleKey> keys{{3, 1, 0, 0}, {3, 1, 1, 0}, {3, 1, 2, 0}};
    for (const SamplingSettings& settings :
         {SamplingSettings{}, SamplingSettings{.temperature = 0.0F},
          SamplingSettings{.top_k = 40, .top_p = 0.9F, .filtered_logprob = true}})
      check_same_bits(Cuda{}, [&](auto device, auto& at) {
        std::vector<std::int32_t> token(3);
        std::vector<float> logprob(3);
        sample_rows(device, token.data(), logprob.data(), at.in(logits), n, v, settings,
                    keys.data());
        at.out(logprob);
        at.out(std::vector<float>(token.begin(), token.end()));
      });
  }
}

TEST_CASE("many draws from one row are the CPU's: each block, and its last token") {
  const Index n = 400, v = 520;
  const auto row = random_vector(v, 1, 1.5F);
  std::vector<float> logits;
  std::vector<SampleKey> keys;
  for (Index i = 0; i < n; ++i) {
    logits.insert(logits.end(), row.begin(), row.end());
    keys.push_back({.seed = 5, .step = 0, .sequence = static_cast<std::uint32_t>(i), .token = 1});
  }
  for (const SamplingSettings& settings : {SamplingSettings{}, SamplingSettings{.top_k = 3}})
    check_same_bits(Cuda{}, [&](auto device, auto& at) {
      std::vector<std::int32_t> token(keys.size());
      std::vector<float> logprob(keys.size());
      sample_rows(device, token.data(), logprob.data(), at.in(logits), n, v, settings, keys.data());
      at.out(logprob);
      at.out(std::vector<float>(token.begin(), token.end()));
    });
}

TEST_CASE("draws and their log-probs are the CPU's, filters included") {
  for (const auto& one : cases::sampling::kSmall) {
    const auto& kind = one.kind;
    const Index n = one.n, v = one.v;
    if (n == 9 && v > 300) continue;
    auto logits = random_vector(n * v, 7, 2.5F);
    if (v > 3) logits[1] = logits[2] = logits[3];  // equal ones: the lower token comes first
    std::vector<SampleKey> keys;
    for (Index i = 0; i < n; ++i)
      keys.push_back(
          {.seed = 11, .step = 2, .sequence = static_cast<std::uint32_t>(i), .token = 4});
    INFO(kind.name, ", n = ", n, ", v = ", v);
    for (const bool filtered : {false, true}) {
      SamplingSettings settings = kind.settings;
      settings.filtered_logprob = filtered;
      check_same_bits(Cuda{}, [&](auto device, auto& at) {
        std::vector<std::int32_t> token(keys.size());
        std::vector<float> logprob(keys.size());
        sample_rows(device, token.data(), logprob.data(), at.in(logits), n, v, settings,
                    keys.data());
        at.out(logprob);
        at.out(std::vector<float>(token.begin(), token.end()));
      });
    }
  }
}

TEST_CASE("a nucleus of nearly the whole vocabulary") {
  const Index v = 1500;
  std::vector<float> logits(static_cast<std::size_t>(2 * v), 0.25F);  // all alike: order by token
  const auto noise = random_vector(v, 1, 0.01F);
  std::copy(noise.begin(), noise.end(), logits.begin() + v);
  const std::vector<SampleKey> keys{{3, 1, 0, 0}, {3, 1, 1, 0}};
  for (const float top_p : {0.3F, 0.999F})
    check_same_bits(Cuda{}, [&](auto device, auto& at) {
      std::vector<std::int32_t> token(2);
      std::vector<float> logprob(2);
      sample_rows(device, token.data(), logprob.data(), at.in(logits), 2, v, {.top_p = top_p},
                  keys.data());
      at.out(logprob);
      at.out(std::vector<float>(token.begin(), token.end()));
    });
}

TEST_CASE("a row that nothing can be drawn from is named on either device") {
  const Index v = 1500;
  const std::vector<SampleKey> keys{{3, 1, 0, 0}, {3, 1, 1, 0}, {3, 1, 2, 0}};
  for (const float bad : {NAN, INFINITY})
    for (const float top_p : {0.3F, 1.0F}) {
      std::vector<float> logits(static_cast<std::size_t>(3 * v), 0.25F);
      logits[static_cast<std::size_t>(2 * v + 17)] = bad;
      check_same_bits(Cuda{}, [&](auto device, auto& at) {
        std::vector<std::int32_t> token(3);
        std::vector<float> logprob(3);
        CHECK_THROWS_WITH_AS(sample_rows(device, token.data(), logprob.data(), at.in(logits), 3, v,
                                         {.top_p = top_p}, keys.data()),
                             doctest::Contains("row 2"), NumericError);
        logprob.pop_back();  // the sign of a NaN is nobody's promise
        token.pop_back();
        at.out(logprob);
        at.out(std::vector<float>(token.begin(), token.end()));
      });
    }
}
