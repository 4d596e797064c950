// How fast methods learn on a table, over seeds, and what a token costs them on a real model.
#include "atlas.hpp"
#include "models.hpp"

#include <plumb/data/forms.hpp>
#include <plumb/data/prompts.hpp>
#include <plumb/run/statistics.hpp>

#include <algorithm>
#include <cmath>
#include <ctime>

namespace plumb { inline namespace v0_1 { namespace atlas {

namespace {

constexpr double kCurveBeta = 0.25;
constexpr Index kResponses = 16384;  // that every method sees

/// J of a policy as a share of the way from the reference to the optimum.
double progress_of(const Problem& problem, const std::vector<double>& policy) {
  const auto j = [&](const std::vector<double>& p) {
    return objective(p, problem.all.logprobs, problem.reward, kCurveBeta);
  };
  const double start = j(problem.all.probabilities);
  const double end = j(tilted(problem.all.logprobs, problem.reward, kCurveBeta));
  return (j(policy) - start) / (end - start);
}

using Points = std::vector<std::pair<double, double>>;  // responses seen, progress

Points policy_curve(const Problem& problem, PolicyMethod method, std::uint64_t seed, bool quick) {
  PpoConfig config = table_config(method, problem, kCurveBeta);
  config.sampling.seed = seed;
  config.sampling.responses = 8;
  const Index prompts = 8, each = prompts * config.sampling.responses;
  config.iterations = (quick ? kResponses / 8 : kResponses) / each;
  Points points;
  train_table(problem, method, config, prompts, problem.reward,
              [&](Index i, const Table<Cpu>& policy) {
                if (i % 16 == 0)
                  points.emplace_back(static_cast<double>(i * each),
                                      progress_of(problem, problem.of(policy).probabilities));
              });
  return points;
}

Points preference_curve(const Problem& problem, const Variant& variant, std::uint64_t seed,
                        bool quick) {
  const Index k = variant.method == PreferenceMethod::PlackettLuce ? 4 : 2;
  PreferenceConfig config;
  config.method = variant.method;
  config.smoothing = variant.smoothing;
  config.beta = static_cast<float>(kCurveBeta);
  config.batch = 64 / k;
  config.seed = seed;
  config.optimizer = {.lr = 0.05F, .max_grad_norm = 0};
  const Index responses = quick ? kResponses / 8 : kResponses;
  const auto prompts =
      ranked(problem, problem.reward, responses / k, k, seed, true, variant.flipped());
  Table<Cpu> policy = problem.reference.clone();
  PreferenceTrainer<Table<Cpu>> trainer(
      policy, config.needs_reference() ? &problem.reference : nullptr, prompts, config);
  Points points{{0.0, 0.0}};
  trainer.train([&](Index update, Index, float) {
    if ((update + 1) % 16 == 0)
      points.emplace_back(static_cast<double>((update + 1) * 64),
                          progress_of(problem, problem.of(policy).probabilities));
  });
  return points;
}

// Half of the 95 % interval of the mean of a few runs; of one, 0.
double half_interval(const std::vector<double>& values) {
  const auto n = static_cast<double>(values.size());
  return n > 1 ? student_t95(n - 1) * standard_deviation(values) / std::sqrt(n) : 0.0;
}

LearningCurve over_seeds(const std::string& name, bool quick,
                         const std::function<Points(std::uint64_t)>& run) {
  LearningCurve curve{name, {}, {}, {}};
  const int seeds = quick ? 1 : 5;
  std::vector<Points> all;
  for (int seed = 0; seed < seeds; ++seed)
    all.push_back(run(static_cast<std::uint64_t>(100 + seed)));
  for (std::size_t i = 0; i < all[0].size(); ++i) {
    std::vector<double> values;
    for (const Points& points : all) values.push_back(points[i].second);
    curve.seen.push_back(all[0][i].first);
    curve.mean.push_back(mean(values));
    curve.half.push_back(half_interval(values));
  }
  return curve;
}

double processor_seconds() {
  return static_cast<double>(std::clock()) / static_cast<double>(CLOCKS_PER_SEC);
}

// The shipped model of stories, and openings for it.
struct Stories {
  LanguageModel<Cpu> stories = open_model<Cpu>(data_path("stories260K.bin"));
  std::vector<Tokens> prompts, held_out;
  SampleOptions options;

  Stories(std::size_t count, Index tokens) {
    options.responses = 4;
    options.max_new_tokens = tokens;
    options.stops = stories.stops;
    options.seed = 3;
    const auto read = [&](const char* file, std::size_t most) {
      std::vector<Tokens> out;
      for (const Prompt& prompt : load_prompts(data_path(file)))
        if (out.size() < most && prompt.text.size() <= 60)
          out.push_back(encode_prompt(stories, prompt, tokens));
      return out;
    };
    prompts = read("tinystories_train.txt", count);
    held_out = read("tinystories_heldout.txt", 64);
  }
  /// How many friendly words a response holds.
  float score(const Tokens& prompt, const Tokens& response) const {
    const std::string text = response_text(stories, prompt, response);
    float sum = 0;
    for (const char* word : {"happy", "smile", "fun", "friend", "love", "play", "hug", "thank"})
      sum += text.find(word) != std::string::npos ? 1.0F : 0.0F;
    return sum;
  }
  /// Rankings of each prompt's responses by their scores, equal ones tied.
  std::vector<RankedPrompt> ranked_by_score(const std::vector<Tokens>& of,
                                            std::uint64_t seed) const {
    SampleOptions drawing = options;
    drawing.seed = seed;
    std::vector<RankedPrompt> out(of.size());
    std::vector<std::vector<double>> scores(of.size());
    for (const Response& r : sample(*stories.model, of, drawing)) {
      const auto p = static_cast<std::size_t>(r.prompt);
      scores[p].push_back(static_cast<double>(score(of[p], r.tokens)));
      out[p].begins.push_back(static_cast<Index>(of[p].size()));
      out[p].lengths.push_back(static_cast<Index>(r.tokens.size()));
      out[p].sequences.push_back(of[p]);
      out[p].sequences.back().insert(out[p].sequences.back().end(), r.tokens.begin(),
                                     r.tokens.end());
    }
    for (std::size_t p = 0; p < of.size(); ++p) {
      const auto rank = detail::ranks_from_scores(scores[p]);
      out[p].rank.assign(rank.begin(), rank.end());
    }
    return out;
  }
};

Cost policy_cost(const Stories& s, PolicyMethod method) {
  Model<Cpu> policy =
      s.stories.model->clone(method == PolicyMethod::Ppo ? ScalarHead::Value : ScalarHead::None);
  PpoConfig config;
  use_method(config, method);
  config.drop_agreeing = false;
  config.epochs = 1;
  config.minibatches = 2;
  config.sampling = s.options;
  const ScoreFunction by_length = [](const std::vector<Episode>& episodes) {
    std::vector<float> scores;
    for (const Episode& e : episodes)
      scores.push_back(static_cast<float>(e.response[0] % 7) -
                       static_cast<float>(e.response.size()));
    return scores;
  };
  PpoTrainer<Cpu> trainer(policy, *s.stories.model, by_length, config);
  trainer.step(s.prompts);
  double tokens = 0;
  const double start = processor_seconds();
  for (int i = 0; i < 3; ++i) {
    trainer.step(s.prompts);
    for (const Episode& e : trainer.episodes()) tokens += static_cast<double>(e.response.size());
  }
  return {choice_name(method), 1e6 * (processor_seconds() - start) / tokens};
}

Cost preference_cost(const Stories& s, const Variant& variant) {
  auto prompts = s.ranked_by_score(s.prompts, 3);
  double tokens = 0;
  for (RankedPrompt& prompt : prompts)
    for (std::size_t k = 0; k < prompt.rank.size(); ++k) {
      prompt.rank[k] = static_cast<std::int32_t>(k);  // none is left out as undecided
      tokens += static_cast<double>(prompt.lengths[k]);
    }
  PreferenceConfig config;
  config.method = variant.method;
  config.smoothing = variant.smoothing;
  double least = 1e30;
  for (int i = 0; i < 3; ++i) {
    Model<Cpu> policy = s.stories.model->clone();
    const double start = processor_seconds();
    PreferenceTrainer<Model<Cpu>>(
        policy, config.needs_reference() ? s.stories.model.get() : nullptr, prompts, config)
        .train();
    least = std::min(least, processor_seconds() - start);
  }
  return {variant.name, 1e6 * least / tokens};
}

Cost sampling_cost(const Stories& s) {
  double tokens = 0;
  const double start = processor_seconds();
  for (int i = 0; i < 3; ++i)
    for (const Response& r : sample(*s.stories.model, s.prompts, s.options))
      tokens += static_cast<double>(r.tokens.size());
  return {"best of 4", 1e6 * (processor_seconds() - start) / tokens};
}

// Score and exact KL of a policy's responses to prompts that were kept out.
std::pair<double, double> held_out_score(const Stories& s, const Model<Cpu>& policy) {
  SampleOptions options = s.options;
  options.responses = 2;
  options.seed = 99;
  std::vector<Episode> episodes;
  double score = 0, kl = 0;
  for (Response& r : sample(policy, s.held_out, options)) {
    Episode e;
    e.prompt = s.held_out[static_cast<std::size_t>(r.prompt)];
    e.response = std::move(r.tokens);
    score += static_cast<double>(s.score(e.prompt, e.response));
    episodes.push_back(std::move(e));
  }
  evaluate(episodes, policy, *s.stories.model, Critic::None,
           static_cast<const Model<Cpu>*>(nullptr), 1.0F);
  for (const Episode& e : episodes)
    for (const float x : e.kl_exact) kl += static_cast<double>(x);
  const auto n = static_cast<double>(episodes.size());
  return {score / n, kl / n};
}

constexpr Index kRealIterations = 12;  // of 16 prompts with 4 responses

std::pair<double, double> real_policy(const Stories& s, PolicyMethod method, std::uint64_t seed,
                                      Index iterations) {
  const bool critic = method == PolicyMethod::Ppo;
  Model<Cpu> policy = s.stories.model->clone(critic ? ScalarHead::Value : ScalarHead::None, seed);
  PpoConfig config;
  use_method(config, method);
  config.iterations = iterations;
  config.epochs = 2;
  config.minibatches = 2;
  config.sampling = s.options;
  config.sampling.seed = seed;
  config.kl_every = 0;
  const ScoreFunction score = [&](const std::vector<Episode>& episodes) {
    std::vector<float> scores;
    for (const Episode& e : episodes) scores.push_back(s.score(e.prompt, e.response));
    return scores;
  };
  PpoTrainer<Cpu> trainer(policy, *s.stories.model, score, config);
  for (Index i = 0; i < iterations; ++i) {
    const auto first = s.prompts.begin() + i * 16 % static_cast<Index>(s.prompts.size());
    trainer.step({first, first + 16});
  }
  return held_out_score(s, policy);
}

std::pair<double, double> real_preference(const Stories& s, const Variant& variant,
                                          std::uint64_t seed, Index iterations) {
  Model<Cpu> policy = s.stories.model->clone();
  PreferenceConfig config;
  config.method = variant.method;
  config.smoothing = variant.smoothing;
  config.epochs = 2;
  config.optimizer.lr = 5e-4F;
  config.seed = seed;
  const std::vector<Tokens> prompts(s.prompts.begin(), s.prompts.begin() + iterations * 16);
  auto data = s.ranked_by_score(prompts, seed);
  Rng rng(seed);
  for (RankedPrompt& p : data)  // flipped labels: the whole order turned round
    if (static_cast<double>(rng.uniform()) < variant.flipped()) {
      const std::int32_t last = *std::max_element(p.rank.begin(), p.rank.end());
      for (std::int32_t& rank : p.rank) rank = last - rank;
    }
  PreferenceTrainer<Model<Cpu>>(policy, config.needs_reference() ? s.stories.model.get() : nullptr,
                                data, config)
      .train();
  return held_out_score(s, policy);
}

// The best of 4 by the rule itself, and the bound on its divergence.
std::pair<double, double> real_best_of_n(const Stories& s, std::uint64_t seed) {
  SampleOptions options = s.options;
  options.seed = seed;
  std::vector<float> best(s.held_out.size(), -1.0F);
  for (const Response& r : sample(*s.stories.model, s.held_out, options)) {
    const auto p = static_cast<std::size_t>(r.prompt);
    best[p] = std::max(best[p], s.score(s.held_out[p], r.tokens));
  }
  double score = 0;
  for (const float x : best) score += static_cast<double>(x) / static_cast<double>(best.size());
  return {score, best_of_n_kl_bound(options.responses)};
}

}  // namespace

std::vector<LearningCurve> learning_curves(bool quick) {
  const Problem problem({4, 4}, 0, 8);
  std::vector<LearningCurve> curves;
  for (const auto& [name, method] : choices(PolicyMethod{}))
    curves.push_back(over_seeds(name, quick, [&, m = method](std::uint64_t seed) {
      return policy_curve(problem, m, seed, quick);
    }));
  for (const Variant& variant : kVariants)
    curves.push_back(over_seeds(variant.name, quick, [&](std::uint64_t seed) {
      return preference_curve(problem, variant, seed, quick);
    }));
  // The best of 4 learns nothing: what is drawn so is what it is.
  const BestOfN law = best_of_n_law(problem.all.probabilities, problem.reward, 4);
  LearningCurve best = curves.front();
  best.method = "best of 4";
  std::fill(best.mean.begin(), best.mean.end(), progress_of(problem, law.probabilities));
  std::fill(best.half.begin(), best.half.end(), 0.0);
  curves.push_back(std::move(best));
  return curves;
}

std::vector<RealScore> real_scores(bool quick) {
  const Index iterations = quick ? 1 : kRealIterations;
  const Stories s(static_cast<std::size_t>(iterations) * 16, quick ? 12 : 48);
  const int seeds = quick ? 1 : 5;
  std::vector<RealScore> all;
  const auto add = [&](const char* name, auto run) {
    std::vector<double> scores, kls;
    for (int seed = 0; seed < seeds; ++seed) {
      const auto [score, kl] = run(static_cast<std::uint64_t>(100 + seed));
      scores.push_back(score);
      kls.push_back(kl);
    }
    all.push_back({name, mean(scores), half_interval(scores), mean(kls)});
  };
  all.push_back({"the model itself", held_out_score(s, *s.stories.model).first, 0.0, 0.0});
  for (const auto& [name, method] : choices(PolicyMethod{}))
    add(name, [&, m = method](std::uint64_t seed) { return real_policy(s, m, seed, iterations); });
  for (const Variant& variant : kVariants)
    add(variant.name,
        [&](std::uint64_t seed) { return real_preference(s, variant, seed, iterations); });
  add("best of 4", [&](std::uint64_t seed) { return real_best_of_n(s, seed); });
  return all;
}

std::vector<Cost> costs(bool quick) {
  const Stories setting(16, quick ? 8 : 48);
  std::vector<Cost> all;
  for (const auto& [name, method] : choices(PolicyMethod{}))
    all.push_back(policy_cost(setting, method));
  for (const Variant& variant : kVariants) all.push_back(preference_cost(setting, variant));
  all.push_back(sampling_cost(setting));
  return all;
}

}}}  // namespace plumb::v0_1::atlas
