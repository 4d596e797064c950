#include "commands.hpp"

#include "fetch.hpp"
#include "format.hpp"
#include "progress.hpp"
#include "run_directory.hpp"
#include "screen.hpp"

#include <plumb/core/real.hpp>
#include <plumb/data/prompts.hpp>
#include <plumb/io/output.hpp>
#include <plumb/nn/likelihood.hpp>
#include <plumb/run/interrupt.hpp>

#include <chrono>
#include <cstdio>
#include <optional>

namespace plumb { inline namespace v0_1 {

namespace {

Loaded load(const ModelOptions& from, bool keep_adapters = false) {
  return load_model(from.model, from.tokenizer, from.chat, from.base, keep_adapters);
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

BadLine policy_of(bool skip) { return skip ? BadLine::Skip : BadLine::Refuse; }

std::vector<Ranking> load_rankings(const std::vector<std::string>& paths, bool skip_bad_lines) {
  std::vector<Ranking> rankings;
  for (const std::string& path : paths) {
    if (path.find("hh_harmless") != std::string::npos)
      std::fprintf(stderr, "warning: %s holds offensive text; nothing of it is shown\n",
                   harmless(path).c_str());
    const auto more = noted(path, read_rankings(path, policy_of(skip_bad_lines)));
    rankings.insert(rankings.end(), more.begin(), more.end());
  }
  return rankings;
}

template <class T>
void limit_to(std::vector<T>& items, Index limit) {
  if (limit > 0 && static_cast<Index>(items.size()) > limit)
    items.resize(static_cast<std::size_t>(limit));
}

}  // namespace

void generate_command(const GenerateCommand& c, Json& results) {
  const auto start = std::chrono::steady_clock::now();
  const InterruptGuard guard;
  const std::string source = c.prompts.empty() ? data_path("tinystories_heldout.txt") : c.prompts;
  const std::string inputs[] = {source, c.from.model};
  check_output(c.out, inputs);
  struct stat status {};
  if (!c.force && c.out != "-" && ::stat(c.out.c_str(), &status) == 0 && S_ISREG(status.st_mode) &&
      status.st_size > 0)
    fail<DataError>(str("[generate] ", shown(c.out),
                        " exists. HINT: --force replaces it; or name another file"));
  auto prompts = noted_prompts(source);
  limit_to(prompts, c.limit);
  check<DataError>(!prompts.empty(), "[generate] the prompts file holds no prompt");
  const Loaded loaded = load(c.from);
  GenerateSettings settings = c.settings;
  take_temperature_of_form(settings.sampling.sampling, c.temperature_said, loaded);
  auto candidates = generate_candidates(loaded, prompts, settings, 0, "generate");
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    candidates[i].id = prompts[i].id;
    if (!c.name.empty()) candidates[i].name = c.name;
  }
  write_jsonl(c.out, candidates);
  double responses = 0, finished = 0, characters = 0;
  for (const Candidates& candidate : candidates)
    for (std::size_t i = 0; i < candidate.responses.size(); ++i) {
      responses += 1;
      finished += candidate.finished[i] ? 1 : 0;
      characters += static_cast<double>(candidate.responses[i].size());
    }
  std::fprintf(c.out == "-" ? stderr : stdout,
               "%zu prompts, %s responses, %s ended by themselves -> %s\n", candidates.size(),
               fixed(responses, 0).c_str(), percent(finished / responses).c_str(),
               harmless(c.out).c_str());
  results.update({{"seconds", seconds_since(start)},
                  {"prompts", candidates.size()},
                  {"responses", responses},
                  {"ended", finished / responses},
                  {"mean_characters", characters / responses}});
}

void sft_command(const SftCommand& c, Json& results) {
  const auto start = std::chrono::steady_clock::now();
  const InterruptGuard guard;
  const std::string inputs[] = {c.data, c.from.model};
  check_output(c.out, inputs);
  check_fields(c.settings, "sft");
  const auto data = noted(c.data, read_demonstrations(c.data, policy_of(c.skip_bad_lines)));
  Loaded loaded = load(c.from);
  if (!c.before.empty() || !c.after.empty()) loaded.chat = {c.before, c.after};
  prepare_adapters(loaded, c.settings.lora);
  const EncodingCount count = train_sft(loaded, data, c.settings.config);
  note(count.text(loaded.context));
  results.update({{"demonstrations", data.size()},
                  {"sequences_cut", count.cut},
                  {"model_fingerprint", fingerprint(loaded)},
                  {"seconds", seconds_since(start)}});
  save_model(c.out, *loaded.model, loaded);
  std::printf("fine-tuned on %zu demonstrations -> %s\n", data.size(), harmless(c.out).c_str());
}

void reward_command(const RewardCommand& c, Json& results) {
  const auto start = std::chrono::steady_clock::now();
  const InterruptGuard guard;
  std::vector<std::string> inputs = c.rankings;
  inputs.insert(inputs.end(), c.test.begin(), c.test.end());
  inputs.push_back(c.from.model);
  if (!c.out.empty()) check_output(c.out, inputs);
  check_fields(c.settings, "reward");
  check<DataError>(c.folds != 1, "[reward] folds must be 0, for none, or at least 2");
  const std::vector<Ranking> rankings = load_rankings(c.rankings, c.skip_bad_lines);
  const std::vector<Ranking> test = load_rankings(c.test, c.skip_bad_lines);
  check<DataError>(!rankings.empty() || !test.empty(),
                   "[reward] there are no rankings. HINT: name a file of them, or --test FILE");
  check<DataError>(c.out.empty() || !rankings.empty(),
                   "[reward] --out writes a model fitted to rankings, and none are named");
  // --test alone may be of a linear head, whose trunk is what there is to load.
  std::optional<Reward> head_alone;
  if (rankings.empty() && !c.from.model.empty() && is_reward_head(model_file(c.from.model)))
    head_alone = load_reward(c.from.model, nullptr, c.from.tokenizer);
  Loaded base = head_alone ? head_alone->loaded : load(c.from);
  if (!rankings.empty() && !is_linear(c.settings.config, base))
    prepare_adapters(base, c.settings.lora);
  double by_rule = 0;
  for (const Ranking& ranking : rankings) by_rule += ranking.labeller == "person" ? 0 : 1;
  if (by_rule > 0)
    std::printf("%s of %zu rankings were made by a rule, not by people\n",
                fixed(by_rule, 0).c_str(), rankings.size());
  results["rankings"] = rankings.size();
  results["rankings_by_rule"] = by_rule;

  const RankedData data(base, rankings);
  note(data.count.text(base.context));
  std::optional<RewardFitter> fitter;
  if (!rankings.empty())
    fitter.emplace(base, data, c.settings.config,
                   c.out.empty() ? std::string() : c.out + ".features");
  if (fitter && c.folds > 0) {
    const RewardReport report =
        cross_validate(*fitter, static_cast<int>(c.folds), c.settings.config.full.seed, c.control);
    std::printf("%lld folds by prompt, %zu rankings\n", static_cast<long long>(c.folds),
                rankings.size());
    report.print();
    results.update(report.json());
  }
  Reward reward{base, {}};
  double training = std::nan("");
  if (fitter && (!c.out.empty() || !test.empty())) {
    auto fitted = fitter->fit(data.places(), data.prompts, "all rankings");
    fitter->normalise(fitted, data.places());
    training = fitter->evaluate(fitted, data.places()).accuracy();
    reward = fitted.reward;
    if (!fitted.text.empty()) std::printf("of all rankings: %s\n", fitted.text.c_str());
  } else if (!test.empty()) {
    reward = head_alone ? *head_alone : reward;
    check<DataError>(
        reward.head || base.model->head_kind() == ScalarHead::Reward,
        "[reward] --test alone tests a saved reward model, and --model holds a policy. "
        "HINT: name the reward model with --model, or rankings to fit one to");
  }
  if (!test.empty()) {
    const RankedData held_out(base, test);
    note(held_out.count.text(base.context));
    RewardReport report = test_reward(reward, held_out, rankings.empty() ? nullptr : &rankings);
    report.training = training;
    std::printf("on the rankings of --test (%s of %s sequences cut to the context):\n",
                fixed(report.cut, 0).c_str(), fixed(report.sequences, 0).c_str());
    report.print();
    results["test"] = report.json();
  }
  if (!c.out.empty()) {
    save_reward(c.out, reward, base);
    std::printf("reward model fitted to all rankings -> %s\n", harmless(c.out).c_str());
  }
  results["seconds"] = seconds_since(start);
}

namespace {

// What a judge, a rule or a reward model's file, says of all responses, one after another.
JudgedResponses judged(const std::string& judge, const std::string& tokenizer,
                       const std::vector<Candidates>& candidates) {
  if (judge.starts_with("rule:")) return {scores_by(rule_of(judge), candidates), {}};
  return judge_candidates(load_reward(judge, nullptr, tokenizer), candidates);
}

}  // namespace

void best_of_n_command(const BestOfNCommand& c, Json& results) {
  const std::string inputs[] = {c.file, c.judge};
  check_output(c.out, inputs);
  const std::vector<Candidates> candidates = noted(c.file, read_candidates(c.file));
  check<DataError>(!candidates.empty(), "[best-of-n] the file holds no responses");
  const std::vector<double> scores = judged(c.judge, c.tokenizer, candidates).scores;
  // The best of each prompt, as a demonstration; what fewer draws would have given, beside it.
  std::string kept;
  std::size_t at = 0, least = candidates[0].responses.size();
  for (const Candidates& one : candidates) least = std::min(least, one.responses.size());
  std::vector<double> means(least);
  for (const Candidates& one : candidates) {
    const std::vector<double> own(
        scores.begin() + static_cast<std::ptrdiff_t>(at),
        scores.begin() + static_cast<std::ptrdiff_t>(at + one.responses.size()));
    at += own.size();
    const auto best =
        static_cast<std::size_t>(std::max_element(own.begin(), own.end()) - own.begin());
    Json record = {{"prompt", one.prompt}, {"completion", one.responses[best]}};
    kept += json_text(record) + "\n";
    for (std::size_t n = 1; n <= least; ++n)
      means[n - 1] +=
          best_of_n_mean(own, static_cast<Index>(n)) / static_cast<double>(candidates.size());
  }
  write_atomically(c.out, kept);
  std::FILE* const to = c.out == "-" ? stderr : stdout;
  std::fprintf(to, "best of n by %s, mean over %zu prompts:\n", harmless(c.judge).c_str(),
               candidates.size());
  results["curve"] = Json::array();
  for (std::size_t n = 1; n <= least; n = n * 2 > least && n < least ? least : n * 2) {
    const double bound = best_of_n_kl_bound(static_cast<Index>(n));
    std::fprintf(to, "%6zu  score %s, at most %s nats from the policy\n", n,
                 fixed(means[n - 1], 3).c_str(), fixed(bound, 3).c_str());
    results["curve"].push_back({{"n", n}, {"score", means[n - 1]}, {"kl_bound", bound}});
  }
  std::fprintf(to, "the best of each -> %s; `plumb sft` learns from them\n",
               harmless(c.out).c_str());
  results.update(
      {{"judge", c.judge}, {"prompts", candidates.size()}, {"responses", scores.size()}});
}

void score_command(const ScoreCommand& c, Json& results) {
  const std::string inputs[] = {c.file, c.judge};
  check_output(c.out, inputs);
  const std::vector<Candidates> candidates = noted(c.file, read_candidates(c.file));
  check<DataError>(!candidates.empty(), "[score] the file holds no responses");
  const JudgedResponses said = judged(c.judge, c.tokenizer, candidates);
  const std::vector<double>&scores = said.scores, &disagreement = said.disagreement;
  double lengths = 0, products = 0, squares = 0, length_squares = 0;
  const double n = static_cast<double>(scores.size()), average = mean(scores);
  for (const Candidates& one : candidates)
    for (const std::string& response : one.responses)
      lengths += static_cast<double>(response.size()) / n;
  // Each record as it came, whatever else it says, with the scores at its end, and by how much the
  // heads of an ensemble disagree; of a record that is several, each by itself.
  std::string scored;
  std::size_t at = 0;
  const auto add = [&](Json json, const Candidates& one) {
    json["scores"] = Json::array();
    if (!disagreement.empty()) json["disagreement"] = Json::array();
    for (const std::string& response : one.responses) {
      const double x = static_cast<double>(response.size()) - lengths, y = scores.at(at) - average;
      products += x * y;
      length_squares += x * x;
      squares += y * y;
      if (!disagreement.empty()) json["disagreement"].push_back(disagreement.at(at));
      json["scores"].push_back(scores.at(at++));
    }
    scored += json_text(json) + "\n";
  };
  RecordSource source(c.file);
  for_each_record(
      source, BadLine::Refuse,
      [&](const detail::JsonRecord& record) {
        std::vector<Candidates> here;
        detail::candidates_from(record, here);
        for (const Candidates& one : here) add(here.size() == 1 ? record.json : to_json(one), one);
      },
      [](const std::string&) {});
  write_atomically(c.out, scored);
  const double correlation = products / std::sqrt(squares * length_squares);
  std::fprintf(
      c.out == "-" ? stderr : stdout,
      "%s responses scored by %s: mean %s, deviation %s, correlation with length %s -> %s\n",
      fixed(n, 0).c_str(), harmless(c.judge).c_str(), fixed(average, 3).c_str(),
      fixed(standard_deviation(scores), 3).c_str(), fixed(correlation, 2).c_str(),
      harmless(c.out).c_str());
  results.update({{"judge", c.judge},
                  {"responses", n},
                  {"mean_score", average},
                  {"score_deviation", standard_deviation(scores)},
                  {"length_correlation", correlation}});
  if (!disagreement.empty()) results["mean_disagreement"] = mean(disagreement);
}

namespace {

// `named`: the settings as a run keeps them, by the names that its command has.
void train_by_reward(const PpoCommand& c, Json named, Json& results) {
  const auto start = std::chrono::steady_clock::now();
  const InterruptGuard guard;
  check_ppo(c.settings);
  const std::string source = c.prompts.empty() ? data_path("tinystories_train.txt") : c.prompts;
  const auto prompts = noted_prompts(source);
  Loaded first = load(c.from);
  prepare_adapters(first, c.settings.lora);
  PpoSettings settings = c.settings;
  take_temperature_of_form(settings.config.sampling.sampling, c.temperature_said, first);
  Loaded reference = first;
  if (!c.reference.empty()) {
    reference = load_model(c.reference, c.from.tokenizer, c.from.chat);
    prepare_adapters(reference, settings.lora);
  }
  if (first.tokenizer->fingerprint() != reference.tokenizer->fingerprint())
    fail<DataError>(str("[ppo] the reference ", shown(reference.source),
                        " has another tokenizer than the policy ", shown(first.source)));
  const bool by_rule = c.reward.starts_with("rule:");
  std::optional<Reward> reward;
  if (!by_rule) reward = load_reward(c.reward, &reference);
  const std::uint64_t seed = settings.config.sampling.seed;
  const auto policy = trainable(first, settings.head(), seed);
  std::shared_ptr<DeviceModel> value;
  if (settings.critic() && settings.separate_value)
    value = trainable(reward ? reward->loaded : reference, ScalarHead::Value, seed);
  settings.config.micro_tokens =
      kept_number(c.run, "micro-tokens", settings.config.micro_tokens,
                  [&] { return update_tokens(*policy, 0, value.get()); });
  named["micro-tokens"] = settings.config.micro_tokens;
  named["ppo-temperature"] = setting_json(settings.config.sampling.sampling.temperature);
  Json config = std::move(named);
  config["reward"] = c.reward;
  config["inputs"] = {{"model", fingerprint(first)},
                      {"reference", fingerprint(reference)},
                      {"reward", by_rule        ? c.reward
                                 : reward->head ? contents_hash(c.reward)
                                                : fingerprint(*reward->loaded.model)},
                      {"prompts", contents_hash(source)}};
  const RunLock lock = begin_run(c.run, config, {"iterations"});
  note_memory(*policy, value.get(), settings);
  const PpoTask task{first,
                     *policy,
                     *reference.model,
                     value.get(),
                     by_rule ? rule_function(first, rule_of(c.reward)) : reward_function(*reward),
                     prompts};
  {
    MetricsWriter metrics(c.run, tensorboard_of(c.tensorboard));
    run_ppo(task, settings, c.run + "/policy.safetensors", metrics, 0, settings.label());
  }
  first.model = policy;
  results["policy_fingerprint"] = fingerprint(first);
  const auto rows = read_metrics(c.run + "/metrics.csv");
  if (!rows.empty())
    for (const auto& [name, number] : rows.back().values) results[name] = number;
  const auto best = best_within(rows, 0, settings.config.iterations, settings.kl_budget);
  results.update(best_json(best, settings.kl_budget));
  results["method"] = choice_name(settings.method);
  results["seconds"] = seconds_since(start);
  std::printf("policy after %lld iterations: %s/policy.safetensors (metrics beside it)\n",
              static_cast<long long>(settings.config.iterations), harmless(c.run).c_str());
  if (settings.kl_budget > 0)
    std::printf("%s%s\n", best_in_words(best, settings.kl_budget).c_str(),
                best ? (": " + harmless(best_path(c.run + "/policy.safetensors"))).c_str() : "");
}

}  // namespace

void ppo_command(const PpoCommand& c, Json& results) {
  check_fields(c.settings, "ppo");
  train_by_reward(c, settings_json(c.settings), results);
}

void group_command(const GroupCommand& c, Json& results) {
  check_fields(c.settings, "grpo");
  check<DataError>(!c.settings.ppo.critic(),
                   "[grpo] --method ppo has a critic. HINT: plumb ppo, or another method");
  PpoCommand by = c.ppo;
  by.settings = c.settings.ppo;
  train_by_reward(by, settings_json(c.settings), results);
}

void preference_command(const PreferenceCommand& c, Json& results) {
  const auto start = std::chrono::steady_clock::now();
  const InterruptGuard guard;
  std::vector<std::string> inputs = c.rankings;
  inputs.insert(inputs.end(), c.test.begin(), c.test.end());
  inputs.push_back(c.from.model);
  check_output(c.out, inputs);
  check_fields(c.settings, "dpo");
  const PreferenceConfig& config = c.settings.config;
  const auto rankings = load_rankings(c.rankings, c.skip_bad_lines);
  const auto test = load_rankings(c.test, c.skip_bad_lines);
  Loaded base = load(c.from);
  prepare_adapters(base, c.settings.lora);
  const RankedData data(base, rankings), held_out(base, test);
  note(data.count.text(base.context));
  Loaded trained = base;
  trained.model = trainable(base, ScalarHead::None, config.seed);
  const DirectTraining done = train_on_rankings(*trained.model, *base.model, data.prompts, config,
                                                choice_name(config.method));
  save_model(c.out, *trained.model, trained);
  const auto report = [&](const char* name, const PreferenceStats& stats) {
    const double pairs = stats.ranking.pairs, n = stats.prompts;
    const double accuracy = stats.ranking.correct / pairs;
    results[name] = {
        {"pairs", pairs}, {"accuracy", accuracy}, {"margin", stats.ranking.margin_sum / pairs}};
    for (const auto& [metric, value] : preference_metrics(stats)) results[name][metric] = value;
    std::printf("%s: the policy's own score is right on %s of %s pairs; best %s, last %s\n", name,
                percent(accuracy).c_str(), fixed(pairs, 0).c_str(),
                fixed(stats.wanted / n, 3).c_str(), fixed(stats.unwanted / n, 3).c_str());
  };
  report("train", done.after);
  if (!held_out.prompts.empty())
    report("test", preference_evaluate(*trained.model,
                                       config.needs_reference() ? base.model.get() : nullptr,
                                       held_out.prompts, config));
  results.update({{"rankings", done.rankings},
                  {"method", choice_name(config.method)},
                  {"model_fingerprint", fingerprint(trained)},
                  {"seconds", seconds_since(start)}});
  std::printf("%s on %lld rankings -> %s\n", choice_name(config.method),
              static_cast<long long>(done.rankings), harmless(c.out).c_str());
}

void eval_command(const EvalCommand& c, Json& results) {
  const auto start = std::chrono::steady_clock::now();
  const InterruptGuard guard;
  const Loaded before = load_model(c.before, c.tokenizer, c.chat);
  const std::string path = c.held_out.empty() ? data_path("tinystories_heldout.txt") : c.held_out;
  const auto stories = split_stories(read_text(path));
  const auto sequences = encode_texts(before, stories);
  if (c.after.empty()) {
    const double perplexity = real::exp(mean_nll(*before.model, sequences));
    results.update({{"perplexity", perplexity}, {"stories", stories.size()}});
    std::printf("perplexity of %zu held-out stories: %s\n", stories.size(),
                fixed(perplexity, 3).c_str());
    return;
  }
  const Loaded after = load_model(c.after, c.tokenizer, c.chat);
  if (before.tokenizer->fingerprint() != after.tokenizer->fingerprint())
    fail<DataError>(
        str("[eval] ", shown(before.source), " and ", shown(after.source),
            " have different tokenizers; their responses can be compared only under one"));
  GenerateSettings settings = c.settings;
  take_temperature_of_form(settings.sampling.sampling, c.temperature_said, before);
  const auto judge = make_judge(c.judge, {[&](const std::string& model) {
                                            return candidate_scores(load_reward(model, &before));
                                          },
                                          c.answers, c.annotator, settings.sampling.seed});
  auto prompts = noted_prompts(c.prompts.empty() ? path : c.prompts);
  limit_to(prompts, c.limit);
  check<DataError>(!prompts.empty(), "[eval] there are no prompts");
  const auto old_responses = generate_candidates(before, prompts, settings, 0, "before");
  const auto new_responses = generate_candidates(after, prompts, settings, 0, "after");
  const Verdict verdict = judge->compare(old_responses, new_responses);
  const Interval win = verdict.interval();
  results.update(verdict.json());
  std::printf(
      "win rate by %s, after against before: %s (95 %% interval %s to %s, %s responses%s)\n",
      harmless(verdict.judge).c_str(), percent(verdict.rate()).c_str(),
      fixed(100 * win.low, 1).c_str(), fixed(100 * win.high, 1).c_str(),
      fixed(verdict.n(), 0).c_str(),
      verdict.stopped_early
          ? str(", which decided it: ", verdict.unjudged, " were not asked").c_str()
          : "");
  const double kl = exact_kl(after, *before.model, prompts, settings);
  const SampleOptions& sampling = settings.sampling;
  const std::string temperature = number_text(kl_temperature(sampling));
  results["kl"] = kl;
  results["kl_temperature"] = setting_json(kl_temperature(sampling));
  std::printf(
      "KL(after || before), exact: %s nats per response, of the distributions at temperature "
      "%s%s\n",
      fixed(kl, 2).c_str(), temperature.c_str(),
      sampling.sampling.filters() ? " without the filter by which the responses were chosen" : "");
  const double old_perplexity = real::exp(mean_nll(*before.model, sequences));
  const double new_perplexity = real::exp(mean_nll(*after.model, sequences));
  results.update({{"perplexity_before", old_perplexity}, {"perplexity_after", new_perplexity}});
  std::printf("perplexity of %zu held-out stories: %s before, %s after\n", stories.size(),
              fixed(old_perplexity, 3).c_str(), fixed(new_perplexity, 3).c_str());
  results["seconds"] = seconds_since(start);
}

void convert_command(const ConvertCommand& c, Json& results) {
  const auto start = std::chrono::steady_clock::now();
  const std::string inputs[] = {c.from.model};
  const bool folder = c.out.ends_with('/') || detail::is_folder(c.out);
  if (!folder && !c.adapters) check_output(c.out, inputs);
  Loaded loaded = load(c.from, c.adapters);
  const std::string saved = fingerprint(loaded);
  if (c.adapters) {
    save_peft(c.out, *loaded.model, loaded);
  } else {
    if (loaded.model->head_kind() == ScalarHead::Value && (folder || c.out.ends_with(".gguf"))) {
      note("the value head, which belongs to training, is left out");
      loaded.model = std::make_shared<DeviceModel>(loaded.model->clone(ScalarHead::None));
    }
    save_model(c.out, *loaded.model, loaded);
  }
  results.update({{"model_fingerprint", saved}, {"seconds", seconds_since(start)}});
  std::printf("%s -> %s\n", harmless(loaded.source).c_str(), harmless(c.out).c_str());
}

namespace {

// What a model becomes when its frozen matrices are kept in fewer bits: memory, and how far what it
// says of some texts is from what it said.
void compare_storage(const Loaded& loaded, const std::string& held_out, Json& results) {
  auto stories = split_stories(read_text(held_out));
  limit_to(stories, 10);
  std::vector<Episode> episodes;
  double tokens = 0;
  for (const Tokens& text : encode_texts(loaded, stories)) {
    if (text.size() < 2) continue;
    Episode e;
    e.prompt = {text[0]};
    e.response = {text.begin() + 1, text.end()};
    tokens += static_cast<double>(e.response.size());
    episodes.push_back(std::move(e));
  }
  check<DataError>(tokens > 0, "[info] --held-out holds no text");
  std::printf(
      "\nfrozen as   weights      nats a token   KL(float || it), nats a token   (%s tokens)\n",
      fixed(tokens, 0).c_str());
  for (const auto& [name, storage] : choices(Storage{})) {
    const auto before = static_cast<double>(memory_counters().used_bytes);
    const DeviceModel frozen = loaded.model->frozen(storage);
    const double bytes = static_cast<double>(memory_counters().used_bytes) - before;
    evaluate(episodes, *loaded.model, frozen, Critic::None,
             static_cast<const DeviceModel*>(nullptr), 1.0F);
    double nll = 0, kl = 0;
    for (const Episode& e : episodes)
      for (std::size_t t = 0; t < e.response.size(); ++t) {
        nll -= e.ref_logprobs[t] / tokens;
        kl += e.kl_exact[t] / tokens;
      }
    std::printf("%-10s %6s MB   %12s   %16s\n", name, fixed(bytes / (1 << 20), 0).c_str(),
                fixed(nll, 4).c_str(), fixed(kl, 6).c_str());
    results["storage"][name] = {{"bytes", bytes}, {"nll", nll}, {"kl", kl}};
  }
}

void print_info(const Json& results) {
  for (const auto& [key, value] : results.items())
    std::printf("%-38s %s\n", key.c_str(),
                harmless(value.is_string() ? value.get<std::string>() : value.dump()).c_str());
}

// What a linear head says of itself; the model that it reads is not opened.
Json head_info(const std::string& path) {
  const RewardHeadFile file = open_reward_head(path);
  const LinearHead& head = file.ensemble.heads[0];
  Json info = {{"reward_head", "linear"},
               {"layer", head.layer},
               {"pool", choice_name(head.pool)},
               {"weights", head.weight.size()},
               {"weight_of_log_length", head.length},
               {"bias", head.bias},
               {"trunk", shown(file.trunk)},
               {"trunk_fingerprint", shown(file.fingerprint)}};
  if (file.ensemble.heads.size() == 1) return info;
  for (const char* of_one : {"weight_of_log_length", "bias"}) info.erase(of_one);
  info["heads"] = file.ensemble.heads.size();
  info["pessimism"] = file.ensemble.pessimism;
  return info;
}

}  // namespace

void info_command(const InfoCommand& command, Json& results) {
  const std::string model = command.from.model.empty() ? "" : model_file(command.from.model);
  if (!model.empty() && is_reward_head(model)) {
    results = head_info(model);
    return print_info(results);
  }
  const Loaded loaded = load(command.from);
  const TransformerConfig& c = loaded.model->config();
  results = {{"plumb", PLUMB_VERSION},
             {"device", kDeviceName},
             {"precision", kPrecision},
             {"isa", name(current_isa())},
             {"bf16 products by", current_isa() == Isa::Avx512Bf16 ? "vdpbf16ps" : "fma"},
             {"threads", default_pool().threads()},
             {"model", shown(loaded.source)},
             {"parameters", loaded.model->parameters().count()}};
  results.update(settings_json(c));
  results.update(
      {{"tokenizer", loaded.tokenizer->name()},
       {"head", choice_name(loaded.model->head_kind())},
       {"fingerprint", fingerprint(*loaded.model)},
       {"generate_kv_cache_bytes_per_token", 2 * c.layers * c.kv_heads * c.head_size() * 4},
       {"train_bytes_weights_gradients_moments", 16 * loaded.model->parameters().size()}});
  print_info(results);
  if (command.compare)
    compare_storage(
        loaded, command.held_out.empty() ? data_path("tinystories_heldout.txt") : command.held_out,
        results);
}

}}  // namespace plumb::v0_1
