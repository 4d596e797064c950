#include "align.hpp"

#include "judge.hpp"
#include "rank.hpp"
#include "run_report.hpp"
#include "screen.hpp"

#include <plumb/data/text.hpp>
#include <plumb/io/file.hpp>
#include <plumb/run/interrupt.hpp>

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

struct Inputs {
  std::vector<std::string> prompts, held_out_prompts, held_out_stories;
};

Inputs load_inputs(const AlignSettings& s) {
  Inputs in;
  in.prompts = load_prompts(s.prompts.empty() ? data_path("tinystories_train.txt") : s.prompts);
  const std::set<std::string> seen(in.prompts.begin(), in.prompts.end());
  const std::string path = s.held_out.empty() ? data_path("tinystories_heldout.txt") : s.held_out;
  in.held_out_stories = split_stories(read_text(path));
  for (std::string& prompt : load_prompts(path))
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
  const std::string candidates_path = directory + "/candidates.jsonl";
  if (s.labeller == "person") {
    RankOptions options;
    options.candidates = candidates_path;
    options.output = path;
    options.annotator = s.annotator;
    options.seed = seed;
    if (rank_command(options).at("status") != 0)
      throw Interrupted("Ranking was interrupted. The same command takes it up again.");
  } else {
    const Rule& rule = rule_of(s.labeller);
    const std::vector<Candidates> candidates = load_candidates(candidates_path);
    RankingsFile file(path, candidates, rule.name, rule.name);
    append_by_rule(rule, candidates, file);
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
  const Json said = Json::parse(read_file(path), nullptr, false);
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
               harmless(s.labeller).c_str());

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
  run_ppo(
      reference, *result.policy, *reference.model, value.get(), reward_function(reward), in.prompts,
      ppo, directory + "/policy.safetensors", metrics, round * ppo.iterations, tag("4 PPO"),
      s.labeller == "person" ? EpisodeObserver{} : rule_observer(reference, rule_of(s.labeller)));
  policy.model = result.policy;
  return result;
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
  const std::string name = s.labeller == "person" ? kDefaultRule : s.labeller;
  const auto judge = make_judge(name);
  o.verdict = judge->compare(o.before, o.after);
  o.shortcut = find_shortcut(o.before, o.after, *judge, o.verdict, &rule_of(name));
  o.kl = exact_kl(policy, *reference.model, in.held_out_prompts, g);
  const auto stories = encode_stories(reference, in.held_out_stories);
  o.perplexity_before = std::exp(mean_nll(*reference.model, stories));
  o.perplexity_after = std::exp(mean_nll(*policy.model, stories));
  for (const MetricRow& row : read_metrics(s.run + "/metrics.csv"))
    for (const auto& [name, value] : row.values)
      if (name == "val/ratio_first_minibatch_max_deviation" && value != 0)
        o.ratio_first_minibatch = 1 + value;
  return o;
}

}  // namespace

void begin_run(const std::string& directory, const Json& config) {
  make_directory(directory);
  const std::string path = directory + "/config.json";
  if (!exists(path)) return write_atomically(path, config.dump(2) + "\n");
  const Json before = Json::parse(read_file(path), nullptr, false);
  for (const auto& [key, value] : config.items())
    if (!before.is_object() || !before.contains(key) || before[key] != value)
      fail<DataError>(str("[run] ", path, " holds a run with another '", key, "' (",
                          before.is_object() && before.contains(key) ? before[key].dump() : "none",
                          ", now ", value.dump(),
                          "). HINT: name another directory with --run, or delete this one"));
}

std::vector<std::string> load_prompts(const std::string& path) {
  std::vector<std::string> all;
  if (path.ends_with(".jsonl")) {
    all = read_prompts(path).records;
  } else {
    const std::string text = read_text(path);
    if (text.find("<|endoftext|>") != std::string::npos) {
      for (const std::string& story : split_stories(text)) {
        std::string first = opening(story);
        if (first.size() <= 160) all.push_back(std::move(first));
      }
    } else {
      for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = std::min(text.find('\n', at), text.size());
        if (end > at) all.push_back(text.substr(at, end - at));
        at = end + 1;
      }
    }
  }
  std::set<std::string> seen;
  std::vector<std::string> distinct;
  for (std::string& prompt : all)
    if (seen.insert(prompt).second) distinct.push_back(std::move(prompt));
  return distinct;
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
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  Json results = {{"seconds", seconds.count()}};
  results.update(o.json());
  results.update(last.reward.json());
  results["policy_fingerprint"] = fingerprint(*policy.model);
  results["labeller"] = s.labeller;

  print_outcome(s, o, last.reward);
  std::vector<RewardReport> rewards;
  for (Index round = 0; round < s.rounds; ++round)
    rewards.push_back(read_reward_report(str(s.run, "/round-", round)));
  const std::string report = write_report(s, title, o, rewards, results, config);
  std::printf("report: %s\nmodel:  %s/round-%lld/policy.safetensors\n", harmless(report).c_str(),
              harmless(s.run).c_str(), static_cast<long long>(s.rounds - 1));
  return results;
}

}}  // namespace plumb::v0_1
