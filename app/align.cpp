#include "align.hpp"

#include "alarms.hpp"
#include "rank.hpp"
#include "run_directory.hpp"
#include "run_report.hpp"
#include "screen.hpp"

#include <plumb/core/real.hpp>
#include <plumb/data/prompts.hpp>
#include <plumb/io/output.hpp>
#include <plumb/nn/likelihood.hpp>
#include <plumb/run/interrupt.hpp>

#include <chrono>
#include <cstdio>
#include <set>

namespace plumb { inline namespace v0_1 {

namespace {

struct Inputs {
  std::vector<Prompt> prompts, held_out_prompts;
  std::vector<std::string> held_out_stories;
};

std::string prompts_path(const AlignSettings& s) {
  return s.prompts.empty() ? data_path("tinystories_train.txt") : s.prompts;
}
std::string held_out_path(const AlignSettings& s) {
  return s.held_out.empty() ? data_path("tinystories_heldout.txt") : s.held_out;
}

Inputs load_inputs(const AlignSettings& s) {
  Inputs in;
  in.prompts = noted_prompts(prompts_path(s));
  std::set<std::string> seen;
  for (const Prompt& prompt : in.prompts) seen.insert(prompt.text);
  in.held_out_stories = split_stories(read_text(held_out_path(s)));
  for (Prompt& prompt :
       noted_prompts(s.held_out_prompts.empty() ? held_out_path(s) : s.held_out_prompts))
    if (!seen.contains(prompt.text) &&
        static_cast<Index>(in.held_out_prompts.size()) < s.eval_prompts)
      in.held_out_prompts.push_back(std::move(prompt));
  const auto stories = static_cast<std::size_t>(s.eval_stories);
  if (in.held_out_stories.size() > stories) in.held_out_stories.resize(stories);
  check<DataError>(!in.prompts.empty() && !in.held_out_prompts.empty(),
                   "[run] there are no prompts, or none held out that is not a prompt of training");
  return in;
}

// The first policy: the model that was opened, fine-tuned on demonstrations if there are any.
Loaded first_policy(const AlignSettings& s, const std::string& directory, Loaded loaded) {
  const std::string path = directory + "/sft.safetensors";
  if (!s.sft.empty() && !detail::file_exists(path)) {
    prepare_adapters(loaded, s.ppo.lora);
    const EncodingCount count =
        train_sft(loaded, noted(s.sft, read_demonstrations(s.sft)), s.supervised);
    note(count.text(loaded.context));
    save_model(path, *loaded.model, loaded);
  }
  if (!s.sft.empty()) loaded = load_model(path, s.tokenizer, s.chat);
  prepare_adapters(loaded, s.ppo.lora);
  return loaded;
}

// Of every round's reward model; nothing of a method that has none.
std::vector<RewardReport> reward_reports(const AlignSettings& s) {
  std::vector<RewardReport> reports;
  for (Index round = 0; round < s.rounds && !s.directly(); ++round) {
    const std::string path = round_directory(s.run, round) + "/reward.json";
    reports.push_back(RewardReport::from(parse_json(read_file(path), path), path));
  }
  return reports;
}

double mean_tokens(const std::vector<Candidates>& candidates) {
  std::vector<double> lengths;
  for (const Candidates& one : candidates)
    for (const Tokens& response : one.tokens)
      lengths.push_back(static_cast<double>(response.size()));
  return mean(lengths);
}

// A round of a run: where its files are, and what is said of its steps.
struct Round {
  const AlignSettings& s;
  Index number;
  const AlignGuide& guide;
  std::string directory = round_directory(s.run, number);

  std::string file(const char* name) const { return str(directory, "/", name); }
  void begins(AlignStep step) const { guide.begins(number, step); }
  // What was learned from its rankings: nobody adds to them any more.
  bool was_learned_from() const {
    return detail::file_exists(file("reward.safetensors")) ||
           detail::file_exists(file("policy.safetensors"));
  }
  std::string tag(const std::string& step) const {
    return s.rounds > 1 ? str("round ", number + 1, "/", s.rounds, ": ", step) : step;
  }
};

// 1. Generate.
void generate_stage(const Round& round, const Inputs& in, const Loaded& policy) {
  const AlignSettings& s = round.s;
  const std::string path = round.file("candidates.jsonl");
  round.begins(AlignStep::Generate);
  if (detail::file_exists(path)) return;
  const auto count = static_cast<Index>(in.prompts.size());
  const auto order = permutation(count, Rng(s.generate.sampling.seed, Stage::Split));
  std::vector<Prompt> chosen;
  for (Index i = 0; i < std::min(count, s.rank_prompts); ++i)
    chosen.push_back(in.prompts[static_cast<std::size_t>(
        order[static_cast<std::size_t>((round.number * s.rank_prompts + i) % count)])]);
  write_jsonl(
      path, generate_candidates(policy, chosen, s.generate,
                                static_cast<std::uint32_t>(round.number), round.tag("1 generate")));
}

// 2. Rank. Where a stage after it has begun, it is over.
std::vector<Ranking> rank_stage(const Round& round) {
  const AlignSettings& s = round.s;
  const std::string path = round.file("rankings.jsonl");
  const std::string candidates_path = round.file("candidates.jsonl");
  round.begins(AlignStep::Rank);
  if (s.labeller != "person") {
    const Rule& rule = rule_of(s.labeller);
    const std::vector<Candidates> candidates = load_candidates(candidates_path);
    RankingsFile file(path, candidates);
    append_by_rule(rule, candidates, file);
  } else if (!round.was_learned_from()) {
    RankOptions options;
    options.candidates = candidates_path;
    options.output = path;
    options.annotator = s.annotator;
    options.asking.plan.seed = s.generate.sampling.seed;
    round.guide.rank(options);
  }
  auto rankings = read_rankings(path).records;
  if (rankings.size() < s.fewest_rankings())
    fail<DataError>(str("[align] ", path, " holds ", rankings.size(), " rankings; ",
                        s.directly() ? "to learn from them" : "a reward model", " needs at least ",
                        s.fewest_rankings(), ". HINT: the same command goes on ranking"));
  return rankings;
}

// 3. Reward model, on the rankings of all rounds so far.
Reward reward_stage(const Round& round, const Loaded& reference,
                    const std::vector<Ranking>& rankings) {
  const AlignSettings& s = round.s;
  const std::string path = round.file("reward.safetensors");
  round.begins(AlignStep::Reward);
  if (detail::file_exists(path)) return load_reward(path, &reference, s.tokenizer);
  const RankedData data(reference, rankings);
  note(data.count.text(reference.context));
  const RewardFitter fitter(reference, data, s.reward, s.run + "/features.safetensors");
  RewardReport report;
  Reward reward = train_and_test(fitter, s.reward.full.seed, round.number + 1 == s.rounds, report,
                                 round.tag("3 reward model"));
  write_atomically(round.file("reward.json"), json_text(report.json(), 2) + "\n");
  save_reward(path, reward, reference);
  return reward;
}

// 4. PPO, or what else is named, from the round's policy, held near the first one.
std::shared_ptr<DeviceModel> policy_stage(const Round& round, const Inputs& in,
                                          const Loaded& reference, const Loaded& policy,
                                          const Reward& reward, MetricsWriter& metrics) {
  const AlignSettings& s = round.s;
  round.begins(AlignStep::Policy);
  PpoSettings ppo = s.ppo;
  const std::uint64_t seed = ppo.config.sampling.seed;
  auto trained = trainable(policy, ppo.head(), seed);
  std::shared_ptr<DeviceModel> value;
  if (ppo.critic() && ppo.separate_value) value = trainable(reward.loaded, ScalarHead::Value, seed);
  // Other draws every round.
  ppo.config.sampling.seed = seed + static_cast<std::uint64_t>(round.number);
  PpoTask task{reference, *trained, *reference.model, value.get(), reward_function(reward),
               in.prompts};
  if (s.labeller != "person") task.observe = rule_observer(reference, rule_of(s.labeller));
  if (round.number == 0) note_memory(*trained, value.get(), ppo);
  run_ppo(task, ppo, round.file("policy.safetensors"), metrics,
          round.number * ppo.config.iterations, round.tag(str("4 ", ppo.label())));
  return trained;
}

// 3 and 4 in one, by a method that has no reward model: from the round's policy, on the rankings of
// its own responses, held near the first policy. One row of metrics a round: of what the policy
// sampled before, and of what it makes of these rankings after.
std::shared_ptr<DeviceModel> direct_stage(const Round& round, const Loaded& reference,
                                          const Loaded& policy,
                                          const std::vector<Ranking>& rankings,
                                          MetricsWriter& metrics) {
  const AlignSettings& s = round.s;
  const std::string path = round.file("policy.safetensors");
  round.begins(AlignStep::Policy);
  PreferenceConfig config = s.direct;
  auto trained = trainable(policy, ScalarHead::None, config.seed);
  if (detail::file_exists(path)) {
    copy_parameters(CheckpointView(path), *trained, "");
    return trained;
  }
  config.seed += static_cast<std::uint64_t>(round.number);  // other shuffles every round
  const RankedData data(reference, rankings);
  note(data.count.text(reference.context));
  const DirectTraining done = train_on_rankings(*trained, *reference.model, data.prompts, config,
                                                round.tag(str("3 ", choice_name(config.method))));
  Metrics row = preference_metrics(done.after);
  row.emplace_back("loss", done.loss);
  const auto candidates = load_candidates(round.file("candidates.jsonl"));
  row.emplace_back("response/length", mean_tokens(candidates));
  if (s.labeller != "person")
    row.emplace_back("judge/total", mean(scores_by(rule_of(s.labeller), candidates)));
  metrics.truncate_after(round.number - 1);
  metrics.write(round.number, row);
  metrics.sync();
  Alarms alarms("round");
  for (const MetricRow& one : metrics.rows())
    for (const std::string& alarm : alarms.watch(one.step + 1, one.values))
      if (one.step == round.number) note("warning: " + alarm);
  save_model(path, *trained, reference);
  return trained;
}

void run_round(const Round& round, const Inputs& in, const Loaded& reference, Loaded& policy,
               std::vector<Ranking>& rankings, MetricsWriter& metrics) {
  const AlignSettings& s = round.s;
  make_directory(round.directory);
  generate_stage(round, in, policy);
  const auto fresh = rank_stage(round);
  rankings.insert(rankings.end(), fresh.begin(), fresh.end());
  std::fprintf(stderr, "%s: %zu rankings by %s\n", round.tag("2 rank").c_str(), fresh.size(),
               harmless(s.labeller).c_str());
  policy.model = s.directly() ? direct_stage(round, reference, policy, fresh, metrics)
                              : policy_stage(round, in, reference, policy,
                                             reward_stage(round, reference, rankings), metrics);
}

Outcome compare(const AlignSettings& s, const Inputs& in, const Loaded& reference,
                const Loaded& policy, Judge& judge) {
  Outcome o;
  GenerateSettings g = s.generate;
  g.sampling.responses = s.eval_responses;
  const std::uint32_t evaluation_step = 1000000;  // draws that no round uses
  o.before = generate_candidates(reference, in.held_out_prompts, g, evaluation_step,
                                 "held-out responses before");
  o.after = generate_candidates(policy, in.held_out_prompts, g, evaluation_step,
                                "held-out responses after");
  o.verdict = judge.compare(o.before, o.after);
  const bool by_rule = s.judge_spec().starts_with("rule:");
  o.shortcut = find_shortcut(o.before, o.after, judge, o.verdict,
                             by_rule ? &rule_of(s.judge_spec()) : nullptr);
  o.kl = exact_kl(policy, *reference.model, in.held_out_prompts, g);
  const auto stories = encode_texts(reference, in.held_out_stories);
  o.perplexity_before = real::exp(mean_nll(*reference.model, stories));
  o.perplexity_after = real::exp(mean_nll(*policy.model, stories));
  if (s.directly()) return o;
  o.ratio_first_minibatch = 1;
  for (const MetricRow& row : read_metrics(s.run + "/metrics.csv"))
    for (const auto& [name, value] : row.values)
      if (name == "val/ratio_first_minibatch_max_deviation" && value != 0)
        o.ratio_first_minibatch = 1 + value;
  return o;
}

// What a run depends on, beside its settings.
Json inputs_of(const AlignSettings& s, const Loaded& first) {
  return {{"model", fingerprint(first)},
          {"tokenizer", hex64(first.tokenizer->fingerprint())},
          {"prompts", contents_hash(prompts_path(s))},
          {"held-out", contents_hash(held_out_path(s))},
          {"held-out-prompts", contents_hash(s.held_out_prompts)},
          {"sft", contents_hash(s.sft)}};
}

// Tokens of a pass in an update, where the settings leave them to the program. All steps take what
// fits the one that needs most: full training has a policy, its optimizer, and a critic.
void fix_micro_tokens(AlignSettings& s, const Loaded& reference) {
  const bool adapters = reference.lora.rank > 0;
  const auto trained = adapters ? trainable(reference, ScalarHead::Value, 1) : reference.model;
  const auto fit = [&] {
    return update_tokens(*trained, 0, adapters && !s.ppo.separate_value ? nullptr : trained.get());
  };
  const auto fix = [&](const char* setting, Index& tokens) {
    tokens = kept_number(s.run, setting, tokens, fit);
  };
  fix("micro-tokens", s.ppo.config.micro_tokens);
  fix("reward-micro-tokens", s.reward.full.micro_tokens);
  fix("sft-micro-tokens", s.supervised.micro_tokens);
  fix("dpo-micro-tokens", s.direct.micro_tokens);
}

}  // namespace

void read_align(AlignSettings& s, Json config, const std::string& source) {
  if (config.is_object()) config.erase("inputs");
  read_settings(s, config, source);
  use_method(s);
  read_settings(s, config, source);
  s.generate_temperature_said = s.ppo_temperature_said = true;
}

void check_align(const AlignSettings& s) {
  check_fields(s, "align");
  check_ppo(s.ppo);
  check<DataError>(!s.directly() || s.ppo.kl_budget == 0,
                   "[align] kl-budget chooses among iterations, which a method that learns from "
                   "rankings directly has none of. HINT: leave it out, or raise dpo-beta");
  check_sampling(s.generate.sampling, "generate");
  check<DataError>(s.generate.sampling.responses >= 2,
                   "[align] generate-responses must be at least 2: one response cannot be ranked");
  if (s.labeller != "person") rule_of(s.labeller);
}

void AlignGuide::rank_at_terminal(const RankOptions& options) {
  if (rank_command(options).at("status") != 0)
    throw Interrupted("Ranking was interrupted. The same command goes on.");
}

void align_command(const AlignSettings& given, const std::string& title, Json& results,
                   const AlignGuide& guide) {
  const auto start = std::chrono::steady_clock::now();
  const InterruptGuard guard;
  check_align(given);
  const Inputs in = load_inputs(given);
  Loaded reference = load_model(given.model, given.tokenizer, given.chat);
  AlignSettings s = given;
  take_temperature_of_form(s.generate.sampling.sampling, s.generate_temperature_said, reference);
  take_temperature_of_form(s.ppo.config.sampling.sampling, s.ppo_temperature_said, reference);
  guide.begins(0, AlignStep::Start);
  const auto judge = make_judge(
      s.judge_spec(),
      {[&](const std::string& path) { return candidate_scores(load_reward(path, &reference)); },
       s.run + "/judgements.jsonl", s.annotator, s.generate.sampling.seed, terminal_screen,
       guide.judge});
  const Json inputs = inputs_of(s, reference);
  if (s.sft.empty()) prepare_adapters(reference, s.ppo.lora);
  fix_micro_tokens(s, reference);
  Json config = settings_json(s);
  config["inputs"] = inputs;
  const RunLock lock = begin_run(s.run, config);

  reference = first_policy(s, s.run, std::move(reference));
  Loaded policy = reference;
  {
    std::vector<Ranking> rankings;
    MetricsWriter metrics(s.run, tensorboard_of(s.tensorboard));
    for (Index round = 0; round < s.rounds; ++round)
      run_round({s, round, guide}, in, reference, policy, rankings, metrics);
  }
  if (guide.instead) return guide.instead(in.held_out_prompts, reference);
  const std::vector<RewardReport> rewards = reward_reports(s);
  if (!rewards.empty()) results.update(rewards.back().json());
  results["method"] = choice_name(s.method);
  const auto rows = read_metrics(s.run + "/metrics.csv");
  if (s.directly() && !rows.empty())
    for (const auto& [name, value] : rows.back().values) results[name] = value;
  results.update(best_json(best_of_round(s, rows, s.rounds - 1), s.ppo.kl_budget));
  results["policy_fingerprint"] = fingerprint(policy);
  results["labeller"] = s.labeller;

  guide.begins(s.rounds, AlignStep::Compare);
  const Outcome o = compare(s, in, reference, policy, *judge);
  write_jsonl(s.run + "/samples-before.jsonl", o.before);
  write_jsonl(s.run + "/samples-after.jsonl", o.after);
  results.update(o.json());
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  results["seconds"] = seconds.count();

  print_outcome(s, o, rewards);
  const std::string report = write_report(s, title, o, rewards, results, config);
  std::printf("report: %s\nmodel:  %s/round-%lld/policy.safetensors\n", harmless(report).c_str(),
              harmless(s.run).c_str(), static_cast<long long>(s.rounds - 1));
}

}}  // namespace plumb::v0_1
