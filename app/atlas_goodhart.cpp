// What a proxy costs: reward models of three sizes, fitted to few and many comparisons, optimised
// by the best of n (exactly) and by PPO, and the true reward that comes of it. After Gao, Schulman
// and Hilton 2023, "Scaling laws for reward model overoptimization", whose laws are, d = √KL,
//   best of n   d (α − β d)
//   RL          d (α − β log d)
#include "atlas.hpp"

#include <plumb/core/real.hpp>
#include <plumb/rlhf/reward_model.hpp>

#include <algorithm>
#include <cmath>

namespace plumb { inline namespace v0_1 { namespace atlas {

namespace {

// With mean 0 and deviation 1 of the reference's responses.
std::vector<double> standardised(const Problem& problem, std::vector<double> reward) {
  const double mean = problem.all.mean(reward), deviation = problem.all.deviation(reward);
  for (double& r : reward) r = (r - mean) / deviation;
  return reward;
}

// The true reward: tokens by their place, neighbours, first and last together, and what is in none
// of these; mean 0 and deviation 1 of the reference's responses.
std::vector<double> true_reward(const Problem& problem, std::uint64_t seed) {
  const auto v = static_cast<std::size_t>(problem.reference.vocab());
  Rng rng(seed);
  const auto table = [&](std::size_t n, double scale) {
    std::vector<double> all;
    for (std::size_t i = 0; i < n; ++i) all.push_back(scale * static_cast<double>(rng.normal()));
    return all;
  };
  const auto length = static_cast<std::size_t>(problem.longest());
  const auto place = table(length * v, 0.5), pair = table(v * v, 0.5), ends = table(v * v, 0.5);
  const auto alone = table(problem.all.size(), 0.5);
  std::vector<double> reward;
  for (std::size_t y = 0; y < problem.all.size(); ++y) {
    const Tokens& t = problem.all.responses[y];
    const auto at = [&](std::size_t i) { return static_cast<std::size_t>(t[i]); };
    double sum = alone[y] + ends[at(0) * v + at(length - 1)];
    for (std::size_t i = 0; i < length; ++i) sum += place[i * v + at(i)];
    for (std::size_t i = 1; i < length; ++i) sum += pair[at(i - 1) * v + at(i)];
    reward.push_back(sum);
  }
  return standardised(problem, std::move(reward));
}

struct RewardSize {
  const char* name;
  Index channels, layers;
};
constexpr RewardSize kSizes[] = {{"S", 4, 1}, {"M", 12, 1}, {"L", 32, 2}};

// Scores of every response by a reward model fitted to `labels` comparisons.
std::vector<double> proxy_reward(const Problem& problem, const std::vector<double>& truth,
                                 const RewardSize& size, Index labels, std::uint64_t seed) {
  Model<Cpu> model({.family = Family::Llama,
                    .vocab = problem.reference.vocab(),
                    .context = problem.longest() + 1,
                    .channels = size.channels,
                    .layers = size.layers,
                    .heads = size.channels / 4,
                    .kv_heads = size.channels / 4,
                    .hidden = 2 * size.channels,
                    .tied_head = true},
                   seed, ScalarHead::Reward);
  std::vector<double> surer = truth;  // labels are right more often than by the reward itself
  for (double& r : surer) r *= 2;
  RewardConfig config;
  config.epochs = std::max<Index>(1, 4000 / labels);
  config.batch = std::min<Index>(16, labels);
  config.optimizer.lr = 5e-3F;
  reward_train(model, ranked(problem, surer, labels, 2, seed, true), config);
  std::vector<Tokens> sequences;
  for (const Tokens& response : problem.all.responses) {
    sequences.push_back({Problem::kPrompt});
    sequences.back().insert(sequences.back().end(), response.begin(), response.end());
  }
  const auto scores = reward_scores(model, sequences);
  return standardised(problem, {scores.begin(), scores.end()});
}

// How often it orders two of the reference's responses as the true reward does.
double accuracy(const Problem& problem, const std::vector<double>& truth,
                const std::vector<double>& proxy) {
  Rng rng(47);
  const auto n = static_cast<std::uint32_t>(problem.all.size());
  double right = 0, all = 0;
  for (int i = 0; i < 40000; ++i) {
    const std::size_t a = rng.below(n), b = rng.below(n);
    const double weight = problem.all.probabilities[a] * problem.all.probabilities[b];
    if (truth[a] == truth[b]) continue;
    all += weight;
    right += (truth[a] > truth[b]) == (proxy[a] > proxy[b]) ? weight : 0;
  }
  return right / all;
}

// α and β of truth = d (α − β x(d)) by least squares, and R² about the mean.
void fit(GoodhartCurve& curve) {
  double aa = 0, ab = 0, bb = 0, ay = 0, by = 0, mean = 0, n = 0;
  const auto basis = [&](double d) { return -d * (curve.best_of_n ? d : real::log(d)); };
  for (std::size_t i = 0; i < curve.root_kl.size(); ++i) {
    const double d = curve.root_kl[i], y = curve.truth[i];
    if (d < 0.05) continue;
    const double a = d, b = basis(d);
    aa += a * a, ab += a * b, bb += b * b, ay += a * y, by += b * y, mean += y, n += 1;
  }
  const double det = aa * bb - ab * ab;
  curve.alpha = (ay * bb - by * ab) / det;
  curve.beta = (aa * by - ab * ay) / det;
  mean /= n;
  double rest = 0, total = 0;
  for (std::size_t i = 0; i < curve.root_kl.size(); ++i) {
    const double d = curve.root_kl[i], y = curve.truth[i];
    if (d < 0.05) continue;
    const double apart = y - curve.alpha * d - curve.beta * basis(d);
    rest += apart * apart;
    total += (y - mean) * (y - mean);
  }
  curve.r2 = 1 - rest / total;
}

}  // namespace

namespace {

// The two curves of one reward model: by the best of n, and by PPO.
std::pair<GoodhartCurve, GoodhartCurve> curves_of(const Problem& problem,
                                                  const std::vector<double>& truth,
                                                  const RewardSize& size, Index labels,
                                                  std::uint64_t seed, bool quick) {
  const std::vector<double> proxy = proxy_reward(problem, truth, size, labels, seed);
  GoodhartCurve best{size.name, labels, true, accuracy(problem, truth, proxy), {}, {}, {}};
  GoodhartCurve ppo{size.name, labels, false, best.accuracy, {}, {}, {}};
  const auto add = [&](GoodhartCurve& curve, double kl, const std::vector<double>& p) {
    curve.root_kl.push_back(std::sqrt(std::max(kl, 0.0)));
    curve.proxy.push_back(mean_under(p, proxy));
    curve.truth.push_back(mean_under(p, truth));
  };
  for (double n = 1; n <= 4096; n *= std::sqrt(2.0)) {
    const BestOfN law =
        best_of_n_law(problem.all.probabilities, proxy, static_cast<Index>(std::lround(n)));
    add(best, law.kl, law.probabilities);
  }
  PpoConfig config = table_config(PolicyMethod::Ppo, problem, 0.0);
  config.iterations = quick ? 20 : 120;
  config.sampling.responses = 32;
  config.sampling.seed = seed;
  config.linear_lr = false;
  train_table(problem, PolicyMethod::Ppo, config, 8, proxy, [&](Index i, const Table<Cpu>& policy) {
    if (i % 4 != 0) return;
    const Responses now = problem.of(policy);
    add(ppo, now.kl(problem.all), now.probabilities);
  });
  return {std::move(best), std::move(ppo)};
}

// Adds a curve's share to a mean of `n`.
void add_share(GoodhartCurve& mean, const GoodhartCurve& one, double n) {
  if (mean.root_kl.empty()) {
    mean = one;
    mean.accuracy = 0;
    for (auto* values : {&mean.root_kl, &mean.proxy, &mean.truth})
      std::fill(values->begin(), values->end(), 0.0);
  }
  mean.accuracy += one.accuracy / n;
  for (const auto values : {&GoodhartCurve::root_kl, &GoodhartCurve::proxy, &GoodhartCurve::truth})
    for (std::size_t i = 0; i < one.root_kl.size(); ++i) (mean.*values)[i] += (one.*values)[i] / n;
}

}  // namespace

std::vector<GoodhartCurve> goodhart(bool quick) {
  const Problem problem({8, 4}, -1, 6);
  const int problems = quick ? 1 : 12;
  std::vector<GoodhartCurve> curves;
  for (const RewardSize& size : kSizes)
    for (const Index labels : {32, 128, 512, 2048}) {
      if (quick && (size.channels != 12 || labels != 128)) continue;
      GoodhartCurve best, ppo;
      for (int i = 0; i < problems; ++i) {
        const auto seed = static_cast<std::uint64_t>(41 + i);
        const auto [one, other] =
            curves_of(problem, true_reward(problem, seed), size, labels, seed, quick);
        add_share(best, one, problems);
        add_share(ppo, other, problems);
      }
      for (GoodhartCurve* curve : {&best, &ppo}) {
        fit(*curve);
        curves.push_back(std::move(*curve));
      }
    }
  return curves;
}

}}}  // namespace plumb::v0_1::atlas
