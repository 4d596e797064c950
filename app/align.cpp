#include "align.hpp"

#include "rank.hpp"
#include "run_directory.hpp"
#include "run_report.hpp"
#include "screen.hpp"

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
      throw Interrupted("Ranking was interrupted. The same command goes on.");
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
  return RewardReport::from(parse_json(read_file(path), path), path);
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
  const auto tag = [&](const std::string& step) {
    return s.rounds > 1 ? str("round ", round + 1, "/", s.rounds, ": ", step) : step;
  };

  // 1. Generate.
  const std::string candidates_path = directory + "/candidates.jsonl";
  if (!detail::file_exists(candidates_path)) {
    const auto count = static_cast<Index>(in.prompts.size());
    const auto order = permutation(count, Rng(s.generate.sampling.seed, Stage::Split));
    std::vector<Prompt> chosen;
    for (Index i = 0; i < std::min(count, s.rank_prompts); ++i)
      chosen.push_back(in.prompts[static_cast<std::size_t>(
          order[static_cast<std::size_t>((round * s.rank_prompts + i) % count)])]);
    write_jsonl(candidates_path,
                generate_candidates(policy, chosen, s.generate, static_cast<std::uint32_t>(round),
                                    tag("1 generate")));
  }

  // 2. Rank.
  const auto fresh = rank_stage(s, directory, s.generate.sampling.seed);
  rankings.insert(rankings.end(), fresh.begin(), fresh.end());
  std::fprintf(stderr, "%s: %zu rankings by %s\n", tag("2 rank").c_str(), fresh.size(),
               harmless(s.labeller).c_str());

  // 3. Reward model, on the rankings of all rounds so far.
  Round result;
  const std::string reward_path = directory + "/reward.safetensors";
  Reward reward;
  if (detail::file_exists(reward_path)) {
    reward = load_reward(reward_path, &reference, s.tokenizer);
    result.reward = read_reward_report(directory);
  } else {
    const RankedData data(reference, rankings);
    note(data.count.text(reference.context));
    const RewardFitter fitter(reference, data, s.reward, s.run + "/features.safetensors");
    reward = train_and_test(fitter, s.reward.full.seed, round + 1 == s.rounds, result.reward,
                            tag("3 reward model"));
    write_atomically(directory + "/reward.json", json_text(result.reward.json(), 2) + "\n");
    save_reward(reward_path, reward, reference);
  }

  // 4. PPO, or what else is named, from the round's policy, held near the first one.
  PpoSettings ppo = s.ppo;
  const std::uint64_t seed = ppo.config.sampling.seed;
  result.policy = trainable(policy, ppo.head(), seed);
  std::shared_ptr<DeviceModel> value;
  if (ppo.critic() && ppo.separate_value)
    value = trainable(reward.loaded, ScalarHead::Value, seed);
  ppo.config.sampling.seed = seed + static_cast<std::uint64_t>(round);  // other draws every round
  PpoTask task{reference,   *result.policy,          *reference.model,
               value.get(), reward_function(reward), in.prompts};
  if (s.labeller != "person") task.observe = rule_observer(reference, rule_of(s.labeller));
  if (round == 0) note_memory(*result.policy, value.get(), ppo);
  run_ppo(task, ppo, directory + "/policy.safetensors", metrics, round * ppo.config.iterations,
          tag(str("4 ", ppo.label())));
  policy.model = result.policy;
  return result;
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
  o.perplexity_before = std::exp(mean_nll(*reference.model, stories));
  o.perplexity_after = std::exp(mean_nll(*policy.model, stories));
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
}

void check_settings(const AlignSettings& s) {
  check_fields(s, "align");
  check_ppo(s.ppo);
  check_sampling(s.generate.sampling, "generate");
  check<DataError>(s.generate.sampling.responses >= 2,
                   "[align] generate-responses must be at least 2: one response cannot be ranked");
  if (s.labeller != "person") rule_of(s.labeller);
}

}  // namespace

void align_command(const AlignSettings& given, const std::string& title, Json& results) {
  const auto start = std::chrono::steady_clock::now();
  const InterruptGuard guard;
  check_settings(given);
  const Inputs in = load_inputs(given);
  Loaded reference = load_model(given.model, given.tokenizer, given.chat);
  AlignSettings s = given;
  take_temperature_of_form(s.generate.sampling.sampling, s.generate_temperature_said, reference);
  take_temperature_of_form(s.ppo.config.sampling.sampling, s.ppo_temperature_said, reference);
  const auto judge = make_judge(
      s.judge_spec(),
      {[&](const std::string& path) { return candidate_scores(load_reward(path, &reference)); },
       s.run + "/judgements.jsonl", s.annotator, s.generate.sampling.seed});
  const Json inputs = inputs_of(s, reference);
  if (s.sft.empty()) prepare_adapters(reference, s.ppo.lora);
  fix_micro_tokens(s, reference);
  Json config = settings_json(s);
  config["inputs"] = inputs;
  const RunLock lock = begin_run(s.run, config);

  reference = first_policy(s, s.run, std::move(reference));
  Loaded policy = reference;
  std::vector<Ranking> rankings;
  Round last;
  {
    MetricsWriter metrics(s.run);
    for (Index round = 0; round < s.rounds; ++round)
      last = run_round(s, in, reference, policy, round, rankings, metrics);
  }
  policy.model = last.policy;
  results.update(last.reward.json());
  results["policy_fingerprint"] = fingerprint(policy);
  results["labeller"] = s.labeller;

  const Outcome o = compare(s, in, reference, policy, *judge);
  write_jsonl(s.run + "/samples-before.jsonl", o.before);
  write_jsonl(s.run + "/samples-after.jsonl", o.after);
  results.update(o.json());
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  results["seconds"] = seconds.count();

  print_outcome(s, o, last.reward);
  std::vector<RewardReport> rewards;
  for (Index round = 0; round < s.rounds; ++round)
    rewards.push_back(read_reward_report(str(s.run, "/round-", round)));
  const std::string report = write_report(s, title, o, rewards, results, config);
  std::printf("report: %s\nmodel:  %s/round-%lld/policy.safetensors\n", harmless(report).c_str(),
              harmless(s.run).c_str(), static_cast<long long>(s.rounds - 1));
}

}}  // namespace plumb::v0_1
