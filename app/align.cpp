#include "align.hpp"

#include "rank.hpp"
#include "rule.hpp"
#include "screen.hpp"

#include <plumb/data/prompts.hpp>
#include <plumb/io/file.hpp>
#include <plumb/run/interrupt.hpp>
#include "progress.hpp"
#include "report.hpp"

#include <sys/stat.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <set>

namespace plumb { inline namespace v0_1 {

namespace {

bool exists(const std::string& path) {
  struct stat status = {};
  return ::stat(path.c_str(), &status) == 0;
}

void make_directory(const std::string& path) {
  if (::mkdir(path.c_str(), 0777) != 0 && errno != EEXIST)
    fail<IoError>(str("[run] cannot make the directory ", path, ": ", std::strerror(errno)));
}

std::string percent(double share) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.1f %%", 100 * share);
  return buffer;
}
std::string decimal(const char* format, double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, format, value);
  return buffer;
}

struct Inputs {
  std::vector<std::string> prompts, held_out_prompts, held_out_stories;
};

Inputs load_inputs(const AlignSettings& s) {
  Inputs in;
  in.prompts =
      texts_of(load_prompts(s.prompts.empty() ? data_path("tinystories_train.txt") : s.prompts));
  const std::set<std::string> seen(in.prompts.begin(), in.prompts.end());
  const std::string path = s.held_out.empty() ? data_path("tinystories_heldout.txt") : s.held_out;
  in.held_out_stories = split_stories(read_text(path));
  for (std::string& prompt : texts_of(load_prompts(path)))
    if (!seen.contains(prompt) && static_cast<Index>(in.held_out_prompts.size()) < s.eval_prompts)
      in.held_out_prompts.push_back(std::move(prompt));
  const auto stories = static_cast<std::size_t>(std::max<Index>(1, s.eval_stories));
  if (in.held_out_stories.size() > stories) in.held_out_stories.resize(stories);
  check<DataError>(!in.prompts.empty() && !in.held_out_prompts.empty(),
                   "[run] there are no prompts, or none held out that is not a prompt of training");
  return in;
}

// The first policy: a model file, fine-tuned on demonstrations if there are any.
Loaded first_policy(const AlignSettings& s, const std::string& directory) {
  const std::string path = directory + "/sft.safetensors";
  if (exists(path)) return load_model(path, s.tokenizer);
  Loaded loaded = load_model(s.model.empty() ? data_path("stories260K.bin") : s.model, s.tokenizer);
  if (s.sft.empty()) return loaded;
  train_sft(loaded, read_demonstrations(s.sft).records, s.supervised);
  save_model(path, *loaded.model, loaded);
  return loaded;
}

std::vector<Ranking> rank_stage(const AlignSettings& s, const std::string& directory,
                                std::uint64_t seed) {
  const std::string path = directory + "/rankings.jsonl";
  const bool by_rule = s.labeller != "person";
  if (!by_rule || !exists(path)) {
    RankOptions options;
    options.candidates = directory + "/candidates.jsonl";
    options.output = path;
    options.annotator = s.annotator;
    options.labeller = s.labeller;
    options.seed = seed;
    if (by_rule) {
      write_jsonl(path, rank_by_warm(read_candidates(options.candidates).records));
    } else if (rank_command(options) != 0) {
      throw Interrupted("Ranking was interrupted. The same command takes it up again.");
    }
  }
  auto rankings = read_rankings(path).records;
  if (rankings.size() < 5)
    fail<DataError>(
        str("[align] ", path, " holds ", rankings.size(),
            " rankings; a reward model needs at least 5. HINT: the same command goes on "
            "ranking"));
  return rankings;
}

RewardReport read_reward_report(const std::string& directory) {
  const std::string path = directory + "/reward.json";
  const Json said = parse_json(read_file(path), path);
  check<DataError>(said.is_object() && said.contains("pairs"),
                   "[align] reward.json is malformed. HINT: delete reward.safetensors beside it");
  RewardReport report;
  report.held_out.pairs = said.at("pairs");
  report.held_out.correct = said.at("correct");
  report.held_out.length_correct = said.at("length_correct");
  report.held_out.ece = said.at("ece");
  report.held_out.mean_margin = said.at("mean_margin");
  if (said.at("shuffled_accuracy").is_number())
    report.shuffled_accuracy = said.at("shuffled_accuracy");
  report.prompts = said.at("prompts");
  return report;
}

// What a round leaves behind.
struct Round {
  std::shared_ptr<DeviceModel> policy;
  RewardReport reward;
};

Round run_round(const AlignSettings& s, const Inputs& in, const Loaded& reference, Loaded& policy,
                Index round, std::vector<Ranking>& rankings, MetricsWriter& metrics) {
  const std::string directory = str(s.run, "/round-", round);
  make_directory(directory);
  const auto tag = [&](const char* step) {
    return s.rounds > 1 ? str("round ", round + 1, "/", s.rounds, ": ", step) : std::string(step);
  };

  // 1. Generate.
  const std::string candidates_path = directory + "/candidates.jsonl";
  if (!exists(candidates_path)) {
    const auto count = static_cast<Index>(in.prompts.size());
    const auto order = permutation(count, Rng(s.generate.seed, Stage::Split));
    std::vector<std::string> chosen;
    for (Index i = 0; i < std::min(count, s.rank_prompts); ++i)
      chosen.push_back(in.prompts[static_cast<std::size_t>(
          order[static_cast<std::size_t>((round * s.rank_prompts + i) % count)])]);
    write_jsonl(candidates_path,
                generate_candidates(policy, chosen, s.generate, static_cast<std::uint32_t>(round),
                                    tag("1 generate")));
  }

  // 2. Rank.
  const auto fresh = rank_stage(s, directory, s.generate.seed);
  rankings.insert(rankings.end(), fresh.begin(), fresh.end());
  std::fprintf(stderr, "%s: %zu rankings by %s\n", tag("2 rank").c_str(), fresh.size(),
               s.labeller.c_str());

  // 3. Reward model, on the rankings of all rounds so far.
  Round result;
  const std::string reward_path = directory + "/reward.safetensors";
  std::shared_ptr<DeviceModel> reward;
  if (exists(reward_path)) {
    reward = load_model(reward_path, s.tokenizer).model;
    result.reward = read_reward_report(directory);
  } else {
    reward = train_and_evaluate(reference, rankings, s.reward, round + 1 == s.rounds, result.reward,
                                tag("3 reward model"));
    const RewardEvaluation& e = result.reward.held_out;
    write_atomically(directory + "/reward.json",
                     Json{{"pairs", e.pairs},
                          {"correct", e.correct},
                          {"length_correct", e.length_correct},
                          {"ece", e.ece},
                          {"mean_margin", e.mean_margin},
                          {"shuffled_accuracy", result.reward.shuffled_accuracy},
                          {"prompts", result.reward.prompts}}
                             .dump(2) +
                         "\n");
    save_model(reward_path, *reward, reference);
  }

  // 4. PPO from the round's policy, held near the first one.
  const ScalarHead head = s.ppo.separate_value ? ScalarHead::None : ScalarHead::Value;
  result.policy = std::make_shared<DeviceModel>(policy.model->clone(head, s.ppo.seed));
  std::shared_ptr<DeviceModel> value;
  if (s.ppo.separate_value)
    value = std::make_shared<DeviceModel>(reward->clone(ScalarHead::Value, s.ppo.seed));
  PpoSettings ppo = s.ppo;
  ppo.seed = s.ppo.seed + static_cast<std::uint64_t>(round);  // other draws in every round
  run_ppo(reference, *result.policy, *reference.model, value.get(), reward_function(reward),
          in.prompts, ppo, directory + "/policy.safetensors", metrics, round * ppo.iterations,
          tag("4 PPO"));
  policy.model = result.policy;
  return result;
}

struct Outcome {
  std::vector<Candidates> before, after;
  WinRate win;
  double kl = 0, perplexity_before = 0, perplexity_after = 0;
  double length_before = 0, length_after = 0, ended_before = 0, ended_after = 0;
};

void describe(const std::vector<Candidates>& candidates, double& length, double& ended) {
  for (const Candidates& c : candidates) {
    length += static_cast<double>(c.responses[0].size()) / static_cast<double>(candidates.size());
    ended += (c.finished[0] ? 1.0 : 0.0) / static_cast<double>(candidates.size());
  }
}

Outcome evaluate(const AlignSettings& s, const Inputs& in, const Loaded& reference,
                 const Loaded& policy) {
  Outcome o;
  GenerateSettings g = s.generate;
  g.responses = 1;
  const std::uint32_t evaluation_step = 1000000;  // draws that no round uses
  o.before = generate_candidates(reference, in.held_out_prompts, g, evaluation_step,
                                 "held-out responses before");
  o.after = generate_candidates(policy, in.held_out_prompts, g, evaluation_step,
                                "held-out responses after");
  o.win = compare_by_rule(o.before, o.after);
  o.kl = exact_kl(policy, *reference.model, in.held_out_prompts, g);
  const auto stories = encode_stories(reference, in.held_out_stories);
  o.perplexity_before = std::exp(mean_nll(*reference.model, stories));
  o.perplexity_after = std::exp(mean_nll(*policy.model, stories));
  describe(o.before, o.length_before, o.ended_before);
  describe(o.after, o.length_after, o.ended_after);
  return o;
}

std::string rule_score_text(const Candidates& c) {
  const RuleScore score = warm_score(c.prompt, c.responses[0], c.finished[0]);
  return str("[", decimal("%.1f", score.total), "] ", c.responses[0]);
}

void print_samples(const Outcome& o, std::size_t count) {
  const int width = terminal_width(stdout);
  for (std::size_t i = 0; i < std::min(count, o.before.size()); ++i) {
    std::printf("\n--- prompt %zu: %s\n", i + 1, wrap(o.before[i].prompt, width, "").c_str());
    std::printf("before:\n%s", wrap(rule_score_text(o.before[i]), width, "    ").c_str());
    std::printf("after:\n%s", wrap(rule_score_text(o.after[i]), width, "    ").c_str());
  }
}

std::string write_report(const AlignSettings& s, const std::string& title, const Outcome& o,
                         const RewardReport& reward, const Json& results, const Json& config) {
  Report report(title, "Plumb " PLUMB_VERSION ", CPU");
  if (s.labeller != "person")
    report.add_notice(str(
        "The rankings were made by a stated rule, “warm”, not by people. Its text: ", warm_text()));
  const Interval win = o.win.interval();
  report.add_summary("Win rate, after against before", percent(o.win.rate()),
                     str("95 % interval ", percent(win.low), " to ", percent(win.high), "; ",
                         decimal("%.0f", o.win.n), " held-out prompts, judged by the rule"));
  const RewardEvaluation& e = reward.held_out;
  const Interval accuracy = wilson_interval(e.correct, e.pairs);
  report.add_summary("Reward model, held-out pairs", percent(e.accuracy()),
                     str("95 % interval ", percent(accuracy.low), " to ", percent(accuracy.high),
                         "; ", decimal("%.0f", e.pairs), " pairs of ", reward.prompts, " prompts"));
  report.add_summary("  baseline: longer response wins", percent(e.length_accuracy()));
  if (!std::isnan(reward.shuffled_accuracy))
    report.add_summary("  control: fitted to shuffled labels", percent(reward.shuffled_accuracy));
  report.add_summary("KL to the first policy", decimal("%.2f nats", o.kl),
                     "exact, full vocabulary, mean per response");
  report.add_summary(
      "Perplexity of held-out stories",
      str(decimal("%.2f", o.perplexity_before), " → ", decimal("%.2f", o.perplexity_after)),
      "per token, before → after: what alignment cost");
  report.add_summary("Responses that end by themselves",
                     str(percent(o.ended_before), " → ", percent(o.ended_after)));
  report.add_summary("Length",
                     str(decimal("%.0f", o.length_before), " → ", decimal("%.0f", o.length_after)),
                     "characters, mean");
  const auto rows = read_metrics(s.run + "/metrics.csv");
  const auto series = [&](const char* name, const char* metric) {
    return metric_series(name, rows, metric);
  };
  report.add_heading("Training");
  report.add_chart(
      "Score by the reward model", "PPO iteration", "score",
      {series("score", "objective/scores"), series("score − β·KL", "objective/rlhf_reward")});
  report.add_chart("KL to the first policy", "PPO iteration", "nats per response",
                   {series("exact", "objective/kl_exact"), series("sampled (k1)", "objective/kl"),
                    series("sampled (k3)", "objective/kl_k3")});
  report.add_chart("KL coefficient β", "PPO iteration", "β", {series("β", "objective/kl_coef")});
  report.add_chart("Entropy", "PPO iteration", "nats per token",
                   {series("entropy", "policy/entropy_avg")});
  report.add_chart("Clip fraction", "PPO iteration", "share",
                   {series("policy", "policy/clipfrac_avg"), series("value", "val/clipfrac_avg")});
  report.add_chart("Approximate KL of an update", "PPO iteration", "nats per token",
                   {series("approx_kl", "policy/approxkl_avg")});
  Series accuracy_line{"held-out accuracy", {}, {}}, length_line{"longer response wins", {}, {}};
  for (Index round = 0; round < s.rounds; ++round) {
    const RewardEvaluation held_out = read_reward_report(str(s.run, "/round-", round)).held_out;
    accuracy_line.x.push_back(static_cast<double>(round + 1));
    accuracy_line.y.push_back(held_out.accuracy());
    length_line.x.push_back(static_cast<double>(round + 1));
    length_line.y.push_back(held_out.length_accuracy());
  }
  report.add_chart("Reward model", "round", "share of pairs", {accuracy_line, length_line});
  report.add_chart("Value function", "PPO iteration", "explained variance",
                   {series("explained variance", "val/explained_variance")});
  report.add_chart("Response length", "PPO iteration", "tokens",
                   {series("mean", "response/length")});
  report.add_heading("Held-out prompts, before and after (score by the rule in brackets)");
  std::vector<std::vector<std::string>> table;
  for (std::size_t i = 0; i < std::min<std::size_t>(12, o.before.size()); ++i)
    table.push_back(
        {o.before[i].prompt, rule_score_text(o.before[i]), rule_score_text(o.after[i])});
  report.add_samples({"Prompt", "Before", "After"}, table);
  report.add_details("Results", json_text(results, 2));
  report.add_details("Configuration", json_text(config, 2));
  const std::string path = s.run + "/report.html";
  write_atomically(path, report.html());
  return path;
}

}  // namespace

void begin_run(const std::string& directory, const Json& config) {
  make_directory(directory);
  const std::string path = directory + "/config.json";
  if (!exists(path)) return write_atomically(path, json_text(config, 2) + "\n");
  const Json before = parse_json(read_file(path), path);
  const Json now = parse_json(json_text(config));  // as it would be read back
  for (const auto& [key, value] : now.items())
    if (!before.is_object() || !before.contains(key) || before[key] != value)
      fail<DataError>(str("[run] ", path, " holds a run with another '", key, "' (",
                          before.is_object() && before.contains(key) ? before[key].dump() : "none",
                          ", now ", value.dump(),
                          "). HINT: name another directory with --run, or delete this one"));
}

Json align_command(const AlignSettings& s, const std::string& title) {
  const auto start = std::chrono::steady_clock::now();
  const InterruptGuard guard;
  const Json config = settings_json(s);
  begin_run(s.run, config);

  const Inputs in = load_inputs(s);
  const Loaded reference = first_policy(s, s.run);
  Loaded policy = reference;
  std::vector<Ranking> rankings;
  Round last;
  {
    MetricsWriter metrics(s.run);
    for (Index round = 0; round < s.rounds; ++round)
      last = run_round(s, in, reference, policy, round, rankings, metrics);
  }
  policy.model = last.policy;

  const Outcome o = evaluate(s, in, reference, policy);
  write_jsonl(s.run + "/samples-before.jsonl", o.before);
  write_jsonl(s.run + "/samples-after.jsonl", o.after);
  double ratio = 1;
  for (const MetricRow& row : read_metrics(s.run + "/metrics.csv"))
    for (const auto& [name, value] : row.values)
      if (name == "val/ratio_first_minibatch_max_deviation" && value != 0) ratio = 1 + value;
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  const Interval win = o.win.interval();
  Json results = {{"seconds", seconds.count()},
                  {"win_rate", o.win.rate()},
                  {"win_rate_low", win.low},
                  {"win_rate_high", win.high},
                  {"win_rate_prompts", o.win.n},
                  {"kl", o.kl},
                  {"perplexity_before", o.perplexity_before},
                  {"perplexity_after", o.perplexity_after},
                  {"ended_before", o.ended_before},
                  {"ended_after", o.ended_after},
                  {"length_before", o.length_before},
                  {"length_after", o.length_after},
                  {"ratio_first_minibatch", ratio}};
  results.update(last.reward.json());
  results["policy_fingerprint"] = fingerprint(*policy.model);
  results["labeller"] = s.labeller;

  print_samples(o, 3);
  std::printf("\n");
  last.reward.print();
  std::printf(
      "win rate, after against before, %.0f held-out prompts, judged by the rule:\n"
      "  %.1f %%  (95 %% interval %.1f to %.1f)\n",
      o.win.n, 100 * o.win.rate(), 100 * win.low, 100 * win.high);
  std::printf("responses that end by themselves: %.1f %% -> %.1f %%\n", 100 * o.ended_before,
              100 * o.ended_after);
  std::printf("KL(policy || first policy), exact: %.2f nats per response\n", o.kl);
  std::printf("perplexity of held-out stories: %.3f before, %.3f after\n", o.perplexity_before,
              o.perplexity_after);
  std::printf(
      "first-minibatch ratio: %.9g (1 means the sampled log-probs are the trained ones, "
      "bit for bit)\n",
      ratio);
  if (s.labeller != "person")
    std::printf("The rankings were made by the rule 'warm', not by people.\n");
  std::printf("report: %s\nmodel:  %s/round-%lld/policy.safetensors\n",
              write_report(s, title, o, last.reward, results, config).c_str(), s.run.c_str(),
              static_cast<long long>(s.rounds - 1));
  return results;
}

}}  // namespace plumb::v0_1
