// The atlas's exact cases: where methods come to rest, and what their sampled gradients are worth.
#include "atlas.hpp"

#include <plumb/core/real.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

namespace plumb { inline namespace v0_1 { namespace atlas {

namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr double kBeta = 0.5;
constexpr double kSpreadBeta = 2;  // at kBeta methods that divide by the spread have no rest inside

const Problem& bandit() {
  static const Problem problem({8, 1}, -1, 5);
  return problem;
}
const Problem& sequences() {
  static const Problem problem({3, 3}, 0, 6);
  return problem;
}

// Compares a trained policy with its own resting point, and this with J's optimum.
void compare(Rest& rest, const Problem& problem, const std::vector<double>& reward,
             const std::vector<double>& trained, const std::vector<double>& own) {
  const auto best = tilted(problem.all.logprobs, reward, rest.beta);
  const auto j = [&](const std::vector<double>& p) {
    return objective(p, problem.all.logprobs, reward, rest.beta);
  };
  rest.distance = total_variation(trained, own);
  rest.from_optimum = total_variation(own, best);
  rest.gap = rest.from_optimum < 1e-9 ? j(best) - j(trained) : kNone;
  rest.holds = rest.distance < 0.03 && !(rest.gap > 0.01);
}

Rest rest_of(const Problem& problem, PolicyMethod method, bool quick) {
  const bool divides = divides_by_spread(method), single = problem.longest() == 1;
  Rest rest;
  rest.method = choice_name(method);
  rest.beta = divides ? kSpreadBeta : kBeta;
  PpoConfig config = table_config(method, problem, rest.beta);
  config.iterations = quick ? 100 : 500;
  // Groups large enough that a group's own mean and spread are nearly the policy's.
  config.sampling.responses = 64;
  const auto trained = problem.of(train_table(problem, method, config, 8, problem.reward));
  const auto own = single ? closed_form(method, config, problem.all.logprobs, problem.reward)
                          : Responses(standstill(method, config, TableLogits::of(problem.reference),
                                                 Problem::kPrompt, problem.stop, problem.reward),
                                      Problem::kPrompt, problem.stop)
                                .probabilities;
  compare(rest, problem, problem.reward, trained.probabilities, own);
  rest.target =
      !std::isnan(rest.gap) ? "π_ref e^(r/β)"
      : single ? (config.kl == KlEstimator::K3 ? "π_ref / (1 − (r/σ − λ)/β)" : "π_ref e^(r/(βσ))")
               : "solved";
  return rest;
}

Rest rest_of(const Variant& variant, bool quick) {
  const PreferenceMethod method = variant.method;
  const Problem& problem = bandit();
  std::vector<double> reward = problem.reward;
  for (double& r : reward) r *= 0.5;
  PreferenceConfig config;
  config.method = method;
  config.beta = static_cast<float>(kBeta);
  config.smoothing = variant.smoothing;
  config.batch = 100;
  config.epochs = 2;
  config.optimizer = {.lr = 0.05F, .max_grad_norm = 0};
  const bool k_wise = method == PreferenceMethod::PlackettLuce;
  const auto prompts =
      ranked(problem, reward, quick ? 3000 : 40000, k_wise ? 4 : 2, 17, false, variant.flipped());
  Table<Cpu> policy = problem.reference.clone();
  PreferenceTrainer<Table<Cpu>>(policy, config.needs_reference() ? &problem.reference : nullptr,
                                prompts, config)
      .train();
  Rest rest;
  rest.method = variant.name;
  rest.beta = kBeta;
  const WinRates win = win_rates(reward, variant.flipped());
  auto own = closed_form(config, problem.all.logprobs, reward, win);
  rest.target = method == PreferenceMethod::Ipo     ? "π_ref e^(E p(y ≻ y')/β)"
                : method == PreferenceMethod::SimPo ? "e^(r/β)"
                : own.empty()                       ? "solved"
                                                    : "π_ref e^(r/β)";
  if (own.empty()) own = least_preference_loss(config, problem.all.logprobs, win);
  compare(rest, problem, reward, problem.of(policy).probabilities, own);
  return rest;
}

// The best of n of a table, kept `count` times and learned by imitation: rejection sampling.
Rest rest_of_best_of_n(Index n, bool quick) {
  const Problem& problem = bandit();
  const BestOfN law = best_of_n_law(problem.all.probabilities, problem.reward, n);
  SampleOptions options;
  options.responses = n;
  options.max_new_tokens = 1;
  options.seed = 7;
  const std::vector<Tokens> prompts(quick ? 500 : 20000, Tokens{Problem::kPrompt});
  std::vector<double> kept(problem.all.size());
  const auto drawn = sample(problem.reference, prompts, options);
  for (std::size_t i = 0; i < drawn.size(); i += static_cast<std::size_t>(n)) {
    std::size_t best = 0;
    for (std::size_t j = 0; j < static_cast<std::size_t>(n); ++j) {
      const std::size_t place = problem.all.place(drawn[i + j].tokens);
      if (j == 0 || problem.reward[place] > problem.reward[best]) best = place;
    }
    kept[best] += 1.0 / static_cast<double>(prompts.size());
  }
  Rest rest;
  rest.method = str("best of ", n);
  rest.target = str("its law, KL ", fixed(law.kl, 4), " ≤ ", fixed(best_of_n_kl_bound(n), 4));
  rest.beta = kNone;
  rest.distance = total_variation(kept, law.probabilities);
  rest.gap = kNone;
  rest.from_optimum = kNone;
  rest.holds = rest.distance < 0.03 && law.kl <= best_of_n_kl_bound(n);
  return rest;
}

// ‖ȳ − c x‖² / ‖c x‖², c by least squares; `noise`: the square of ȳ's own error, taken off.
double relative_error(const std::vector<double>& y, const std::vector<double>& x, double noise) {
  double xx = 0, xy = 0, yy = 0;
  for (std::size_t i = 0; i < y.size(); ++i)
    xx += x[i] * x[i], xy += x[i] * y[i], yy += y[i] * y[i];
  const double c = xy / xx;
  return std::sqrt(std::max(yy - c * xy - noise, 0.0) / (c * xy));
}

// Gradients of `batches` minibatches, from a trainer that never steps.
GradientRow gradient_row(const std::string& name, const Problem& problem, PpoConfig config,
                         const Table<Cpu>& at, const Table<Cpu>* sampler,
                         const std::vector<double>& truth, const std::vector<double>& own,
                         Index batches) {
  Table<Cpu> policy = at.clone();
  config.optimizer.lr = 0;
  std::vector<std::vector<double>> drawn;
  config.before_step = [&] {
    const auto g = policy.parameters()["table"].grad_tensor().to_vector();
    drawn.emplace_back(g.begin(), g.end());
    for (double& x : drawn.back()) x = -x;  // of what is to grow
  };
  PpoTrainer<Cpu, Table<Cpu>> trainer(policy, problem.reference, problem.score(problem.reward),
                                      config);
  if (sampler != nullptr) trainer.sample_from(*sampler);
  const Index prompts = 4;
  for (Index i = 0; i < batches; ++i)
    trainer.step(std::vector<Tokens>(static_cast<std::size_t>(prompts), Tokens{Problem::kPrompt}));
  const auto n = static_cast<double>(drawn.size());
  const std::size_t size = truth.size();
  std::vector<double> sum(size);
  double squares = 0;
  for (const auto& g : drawn)
    for (std::size_t i = 0; i < size; ++i) sum[i] += g[i], squares += g[i] * g[i];
  const auto mean_without = [&](std::size_t first, std::size_t end) {
    std::vector<double> mean = sum;
    for (std::size_t b = first; b < end; ++b)
      for (std::size_t i = 0; i < size; ++i) mean[i] -= drawn[b][i];
    for (double& x : mean) x /= n - static_cast<double>(end - first);
    return mean;
  };
  const auto mean = mean_without(0, 0);
  double norm = 0;
  for (const double x : mean) norm += x * x;
  const double variance = squares / n - norm;  // of a minibatch
  GradientRow row;
  row.method = name;
  row.bias = relative_error(mean, truth, variance / n);
  row.own = own.empty() ? kNone : relative_error(own, truth, 0);
  row.variance = variance / norm * static_cast<double>(prompts * config.sampling.responses);
  // Its interval by leaving out a twentieth at a time.
  const std::size_t parts = 20;
  double average = 0, square = 0;
  for (std::size_t k = 0; k < parts; ++k) {
    const double x =
        relative_error(mean_without(k * drawn.size() / parts, (k + 1) * drawn.size() / parts),
                       truth, variance / (n * (1 - 1.0 / static_cast<double>(parts))));
    average += x / static_cast<double>(parts);
    square += x * x / static_cast<double>(parts);
  }
  const double error =
      std::sqrt(std::max(square - average * average, 0.0) * (static_cast<double>(parts) - 1));
  row.low = std::max(row.bias - 1.96 * error, 0.0);
  row.high = row.bias + 1.96 * error;
  return row;
}

// A table between the reference and where it is led, so that no term of a gradient is zero.
Table<Cpu> on_the_way(const Problem& problem, double noise, std::uint64_t seed) {
  Table<Cpu> policy = problem.reference.clone();
  const auto& table = policy.parameters()["table"];
  Rng rng(seed);
  auto values = table.to_vector();
  for (float& x : values) x += static_cast<float>(noise) * rng.normal();
  copy_from_host(Cpu{}, table.data(), values.data(), table.bytes());
  return policy;
}

}  // namespace

Problem::Problem(const TableShape& shape, std::int32_t stop_token, std::uint64_t seed)
    : reference(shape, 11), stop(stop_token), all(reference, kPrompt, stop_token) {
  Rng rng(seed);
  for (std::size_t y = 0; y < all.size(); ++y) reward.push_back(static_cast<double>(rng.normal()));
}

ScoreFunction Problem::score(const std::vector<double>& rewards) const {
  return [this, &rewards](const std::vector<Episode>& episodes) {
    std::vector<float> scores;
    for (const Episode& e : episodes)
      scores.push_back(static_cast<float>(rewards[all.place(e.response)]));
    return scores;
  };
}

PpoConfig table_config(PolicyMethod method, const Problem& problem, double beta) {
  PpoConfig config;
  use_method(config, method);
  config.beta = static_cast<float>(beta);
  if (config.kl_place == KlPlace::Loss && method != PolicyMethod::Grpo) config.kl = KlEstimator::K2;
  config.epochs = 1;
  config.minibatches = 1;
  config.lambda = 1.0F;
  config.sampling.max_new_tokens = problem.longest();
  config.sampling.stops.clear();
  if (problem.stop >= 0) config.sampling.stops = {problem.stop};
  config.sampling.seed = 3;
  config.optimizer = {.lr = 0.05F, .max_grad_norm = 0};
  config.value_lr = 0.1F;
  return config;
}

Table<Cpu> train_table(const Problem& problem, PolicyMethod method, PpoConfig config, Index prompts,
                       const std::vector<double>& reward, const Watch& watch) {
  Table<Cpu> policy = problem.reference.clone();
  Table<Cpu> values = problem.reference.clone(ScalarHead::Value, 1);
  config.advantage = advantages_of(method, config);
  const bool critic = method == PolicyMethod::Ppo;
  PpoTrainer<Cpu, Table<Cpu>> trainer(policy, problem.reference, problem.score(reward), config,
                                      critic ? &values : nullptr);
  const std::vector<Tokens> batch(static_cast<std::size_t>(prompts), Tokens{Problem::kPrompt});
  for (Index i = 0; i < config.iterations; ++i) {
    if (watch) watch(i, policy);
    trainer.step(batch);
  }
  if (watch) watch(config.iterations, policy);
  return policy;
}

std::vector<RankedPrompt> ranked(const Problem& problem, const std::vector<double>& reward,
                                 Index count, Index k, std::uint64_t seed, bool from_reference,
                                 double flipped) {
  std::vector<Response> drawn;
  if (from_reference) {
    SampleOptions options;
    options.responses = k;
    options.max_new_tokens = problem.longest();
    if (problem.stop >= 0) options.stops = {problem.stop};
    options.seed = seed;
    drawn = sample(problem.reference,
                   std::vector<Tokens>(static_cast<std::size_t>(count), Tokens{Problem::kPrompt}),
                   options);
  }
  Rng rng(seed);
  const auto uniform = [&] { return static_cast<double>(rng.uniform()) + 1e-9; };
  std::vector<RankedPrompt> prompts;
  for (Index i = 0; i < count; ++i) {
    RankedPrompt p;
    std::vector<std::size_t> places;
    if (from_reference) {
      for (Index j = 0; j < k; ++j)
        places.push_back(problem.all.place(drawn[static_cast<std::size_t>(i * k + j)].tokens));
    } else {
      const auto order = permutation(static_cast<Index>(problem.all.size()),
                                     Rng(seed, Stage::Split, static_cast<std::uint32_t>(i)));
      for (Index j = 0; j < k; ++j)
        places.push_back(static_cast<std::size_t>(order[static_cast<std::size_t>(j)]));
    }
    std::vector<std::pair<double, std::size_t>> keys;  // Gumbel: the order of noisy rewards
    for (std::size_t j = 0; j < places.size(); ++j)
      keys.emplace_back(-reward[places[j]] + real::log(-real::log(uniform())), j);
    std::sort(keys.begin(), keys.end());
    if (uniform() < flipped) std::reverse(keys.begin(), keys.end());
    p.rank.resize(places.size());
    for (std::size_t r = 0; r < keys.size(); ++r)
      p.rank[keys[r].second] = static_cast<std::int32_t>(r);
    for (const std::size_t place : places) {
      Tokens sequence{Problem::kPrompt};
      const Tokens& response = problem.all.responses[place];
      sequence.insert(sequence.end(), response.begin(), response.end());
      p.begins.push_back(1);
      p.lengths.push_back(static_cast<Index>(response.size()));
      p.sequences.push_back(std::move(sequence));
    }
    prompts.push_back(std::move(p));
  }
  return prompts;
}

std::vector<Rest> rests(bool quick) {
  std::vector<Rest> all;
  for (const auto& [name, method] : choices(PolicyMethod{}))
    all.push_back(rest_of(bandit(), method, quick));
  for (const Variant& variant : kVariants) all.push_back(rest_of(variant, quick));
  all.push_back(rest_of_best_of_n(4, quick));
  return all;
}

std::vector<Rest> sequence_rests(bool quick) {
  std::vector<Rest> all;
  for (const auto& [name, method] : choices(PolicyMethod{}))
    all.push_back(rest_of(sequences(), method, quick));
  return all;
}

std::vector<GradientRow> gradients(bool quick) {
  const Problem& problem = sequences();
  const Table<Cpu> at = on_the_way(problem, 0.7, 21);
  const Responses policy = problem.of(at);
  std::vector<GradientRow> rows;
  for (const auto& [name, method] : choices(PolicyMethod{})) {
    if (method == PolicyMethod::Ppo) continue;  // its critic would have to be right first
    PpoConfig config = table_config(method, problem, kBeta);
    config.advantage = advantages_of(method, config);
    config.sampling.responses = 8;
    const auto truth = objective_gradient(policy, problem.all, problem.reward, kBeta);
    const auto own = policy.gradient(
        expected_update(method, config, policy, problem.all, problem.reward, problem.longest()));
    rows.push_back(gradient_row(name, problem, config, at, nullptr, truth, own, quick ? 40 : 2000));
  }
  return rows;
}

std::vector<GradientRow> corrected_gradients(bool quick) {
  const Problem& problem = sequences();
  const Table<Cpu> at = on_the_way(problem, 0.7, 21), sampler = on_the_way(problem, 1.0, 22);
  const auto truth = objective_gradient(problem.of(at), problem.all, problem.reward, 0.0);
  std::vector<GradientRow> rows;
  const float none = 1e6F, cap = 2;
  const std::tuple<const char*, Correction, float> cases[] = {
      {"none", Correction::None, none},
      {"recompute", Correction::Recompute, none},
      {"by token, no cap", Correction::TokenTruncate, none},
      {"token-truncate, 2", Correction::TokenTruncate, cap},
      {"token-mask, 2", Correction::TokenMask, cap},
      {"by sequence, no cap", Correction::SequenceTruncate, none},
      {"sequence-truncate, 2", Correction::SequenceTruncate, cap},
      {"sequence-mask, 2", Correction::SequenceMask, cap}};
  for (const auto& [name, correction, most] : cases) {
    PpoConfig config = table_config(PolicyMethod::DrGrpo, problem, 0.0);
    config.advantage = advantages_of(PolicyMethod::DrGrpo, config);
    config.sampling.responses = 8;
    config.allow_off_policy = true;
    config.correction = correction;
    config.correction_cap = most;
    rows.push_back(gradient_row(name, problem, config, at, &sampler, truth, {}, quick ? 40 : 2000));
  }
  return rows;
}

std::vector<SpreadRow> spreads() {
  const Problem& problem = bandit();
  const auto top = static_cast<std::size_t>(
      std::max_element(problem.reward.begin(), problem.reward.end()) - problem.reward.begin());
  std::vector<SpreadRow> rows;
  for (const double beta : {0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 8.0}) {
    const PpoConfig config = table_config(PolicyMethod::Dapo, problem, beta);
    const auto own = closed_form(PolicyMethod::Dapo, config, problem.all.logprobs, problem.reward);
    const auto best = tilted(problem.all.logprobs, problem.reward, beta);
    rows.push_back({beta, beta * deviation_under(own, problem.reward), best[top], own[top],
                    total_variation(own, best)});
  }
  return rows;
}

}}}  // namespace plumb::v0_1::atlas
