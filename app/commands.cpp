#include "commands.hpp"

#include "screen.hpp"

#include <plumb/data/prompts.hpp>
#include <plumb/io/file.hpp>
#include <plumb/run/interrupt.hpp>

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <iostream>

namespace plumb { inline namespace v0_1 {

namespace {

Loaded load(const ModelOptions& from) {
  return load_model(from.model.empty() ? data_path("stories260K.bin") : from.model, from.tokenizer);
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

template <class Record>
std::vector<Record> kept(Lines<Record> lines) {
  for (const std::string& message : lines.skipped)
    std::fprintf(stderr, "skipped: %s\n", harmless(message).c_str());
  return std::move(lines.records);
}

BadLine policy_of(bool skip) { return skip ? BadLine::Skip : BadLine::Refuse; }

}  // namespace

Json generate_command(const GenerateCommand& c) {
  const auto start = std::chrono::steady_clock::now();
  const InterruptGuard guard;
  const Loaded loaded = load(c.from);
  auto prompts = load_prompts(c.prompts.empty() ? data_path("tinystories_heldout.txt") : c.prompts);
  if (c.limit > 0 && static_cast<Index>(prompts.size()) > c.limit)
    prompts.resize(static_cast<std::size_t>(c.limit));
  check<DataError>(!prompts.empty(), "[generate] the prompts file holds no prompt");
  auto candidates = generate_candidates(loaded, texts_of(prompts), c.settings, 0, "generate");
  for (std::size_t i = 0; i < candidates.size(); ++i) candidates[i].id = prompts[i].id;
  write_jsonl(c.out, candidates);
  double responses = 0, finished = 0, characters = 0;
  for (const Candidates& candidate : candidates)
    for (std::size_t i = 0; i < candidate.responses.size(); ++i) {
      responses += 1;
      finished += candidate.finished[i] ? 1 : 0;
      characters += static_cast<double>(candidate.responses[i].size());
    }
  std::printf("%zu prompts, %.0f responses, %.1f %% ended by themselves -> %s\n", candidates.size(),
              responses, 100 * finished / responses, harmless(c.out).c_str());
  return {{"seconds", seconds_since(start)},
          {"prompts", candidates.size()},
          {"responses", responses},
          {"ended", finished / responses},
          {"mean_characters", characters / responses}};
}

Json sft_command(const SftCommand& c) {
  const auto start = std::chrono::steady_clock::now();
  const InterruptGuard guard;
  const Loaded loaded = load(c.from);
  const auto data = kept(read_demonstrations(c.data, policy_of(c.skip_bad_lines)));
  train_sft(loaded, data, c.settings);
  save_model(c.out, *loaded.model, loaded);
  std::printf("fine-tuned on %zu demonstrations -> %s\n", data.size(), harmless(c.out).c_str());
  return {{"seconds", seconds_since(start)},
          {"demonstrations", data.size()},
          {"model_fingerprint", fingerprint(*loaded.model)}};
}

Json reward_command(const RewardCommand& c) {
  const auto start = std::chrono::steady_clock::now();
  const InterruptGuard guard;
  const Loaded base = load(c.from);
  std::vector<Ranking> rankings;
  for (const std::string& path : c.rankings) {
    if (path.find("hh_harmless") != std::string::npos)
      std::fprintf(stderr, "warning: %s holds offensive text; nothing of it is shown\n",
                   harmless(path).c_str());
    const auto more = kept(read_rankings(path, policy_of(c.skip_bad_lines)));
    rankings.insert(rankings.end(), more.begin(), more.end());
  }
  double by_rule = 0;
  for (const Ranking& ranking : rankings) by_rule += ranking.labeller == "person" ? 0 : 1;
  if (by_rule > 0)
    std::printf("%.0f of %zu rankings were made by a rule, not by people\n", by_rule,
                rankings.size());
  const RewardReport report = cross_validate(base, rankings, c.folds, c.settings);
  std::printf("%d folds by prompt, %zu rankings\n", c.folds, rankings.size());
  report.print();
  Json results = report.json();
  if (!c.out.empty()) {
    std::vector<RankedPrompt> prompts;
    std::vector<Tokens> seen;
    for (const Ranking& ranking : rankings) {
      prompts.push_back(ranked_prompt(base, ranking));
      seen.insert(seen.end(), prompts.back().sequences.begin(), prompts.back().sequences.end());
    }
    const auto model = train_reward(base, prompts, c.settings, "all rankings");
    normalise_rewards(*model, seen);
    save_model(c.out, *model, base);
    std::printf("reward model fitted to all rankings -> %s\n", harmless(c.out).c_str());
  }
  results["seconds"] = seconds_since(start);
  results["rankings"] = rankings.size();
  results["rankings_by_rule"] = by_rule;
  return results;
}

Json ppo_command(const PpoCommand& c) {
  const auto start = std::chrono::steady_clock::now();
  const InterruptGuard guard;
  const Loaded reference = load(c.from);
  const auto prompts =
      texts_of(load_prompts(c.prompts.empty() ? data_path("tinystories_train.txt") : c.prompts));
  std::shared_ptr<DeviceModel> reward;
  const bool by_rule = c.reward.starts_with("rule:");
  if (!by_rule) {
    const Loaded loaded = load_model(c.reward, c.from.tokenizer);
    if (loaded.tokenizer->fingerprint() != reference.tokenizer->fingerprint())
      fail<DataError>(str("[ppo] the reward model ", c.reward,
                          " has another tokenizer than the "
                          "policy ",
                          reference.source,
                          ". HINT: fit it on the policy's model, `plumb reward --model …`"));
    check<DataError>(loaded.model->head_kind() == ScalarHead::Reward,
                     "[ppo] the reward model's file holds a policy. HINT: `plumb reward --out …` "
                     "makes a reward model");
    reward = loaded.model;
  }
  ppo_config(c.settings, reference);  // refuse settings that make no sense before a run begins
  Json config = settings_json(c.settings);
  config["model"] = fingerprint(*reference.model);
  config["reward"] = reward ? fingerprint(*reward) : c.reward;
  config["prompts"] = c.prompts;
  begin_run(c.run, config);
  const ScalarHead head = c.settings.separate_value ? ScalarHead::None : ScalarHead::Value;
  DeviceModel policy = reference.model->clone(head, c.settings.seed);
  std::unique_ptr<DeviceModel> value;
  if (c.settings.separate_value)
    value = std::make_unique<DeviceModel>(
        (reward ? reward : reference.model)->clone(ScalarHead::Value, c.settings.seed));
  MetricsWriter metrics(c.run);
  run_ppo(reference, policy, *reference.model, value.get(),
          by_rule ? rule_function(reference, rule_of(c.reward)) : reward_function(reward), prompts,
          c.settings, c.run + "/policy.safetensors", metrics, 0, "PPO");
  const auto rows = read_metrics(c.run + "/metrics.csv");
  Json results = {{"seconds", seconds_since(start)}, {"policy_fingerprint", fingerprint(policy)}};
  if (!rows.empty())
    for (const auto& [name, number] : rows.back().values) results[name] = number;
  std::printf("policy after %lld iterations: %s/policy.safetensors (metrics beside it)\n",
              static_cast<long long>(c.settings.iterations), harmless(c.run).c_str());
  return results;
}

Json eval_command(const EvalCommand& c) {
  const auto start = std::chrono::steady_clock::now();
  const InterruptGuard guard;
  const Loaded before = load(c.before), after = load_model(c.after.model, c.after.tokenizer);
  if (before.tokenizer->fingerprint() != after.tokenizer->fingerprint())
    fail<DataError>(
        str("[eval] ", before.source, " and ", after.source,
            " have different tokenizers; their responses can be compared only under one"));
  const std::string path = c.held_out.empty() ? data_path("tinystories_heldout.txt") : c.held_out;
  auto prompts = texts_of(load_prompts(path));
  if (static_cast<Index>(prompts.size()) > c.prompts)
    prompts.resize(static_cast<std::size_t>(c.prompts));
  const auto old_responses = generate_candidates(before, prompts, c.settings, 0, "before");
  const auto new_responses = generate_candidates(after, prompts, c.settings, 0, "after");
  const Verdict verdict = make_judge(kDefaultRule)->compare(old_responses, new_responses);
  const Interval win = verdict.interval();
  const double kl = exact_kl(after, *before.model, prompts, c.settings);
  Json results = verdict.json();
  results["kl"] = kl;
  std::printf(
      "win rate by %s, after against before: %.1f %% (95 %% interval %.1f to "
      "%.1f, %.0f responses)\nKL(after || before), exact: %.2f nats per response\n",
      harmless(verdict.judge).c_str(), 100 * verdict.rate(), 100 * win.low, 100 * win.high,
      verdict.n(), kl);
  const auto stories = split_stories(read_text(path));
  const auto sequences = encode_stories(before, stories);
  results["perplexity_before"] = std::exp(mean_nll(*before.model, sequences));
  results["perplexity_after"] = std::exp(mean_nll(*after.model, sequences));
  std::printf("perplexity of %zu held-out stories: %.3f before, %.3f after\n", stories.size(),
              results["perplexity_before"].get<double>(),
              results["perplexity_after"].get<double>());
  results["seconds"] = seconds_since(start);
  return results;
}

Json chat_command(const ChatCommand& c) {
  const Loaded loaded = load(c.from);
  const bool person = ::isatty(STDIN_FILENO) == 1 && c.prompt.empty();
  if (person)
    std::printf("%s: type how a text begins; an empty line or Ctrl-D ends.\n",
                harmless(loaded.source).c_str());
  double tokens = 0, seconds = 0;
  std::uint32_t turn = 0;
  std::string line = c.prompt;
  for (;; ++turn) {
    if (c.prompt.empty()) {
      if (person) std::printf("> ");
      std::fflush(stdout);
      if (!std::getline(std::cin, line) || line.empty()) break;
    }
    const auto start = std::chrono::steady_clock::now();
    try {
      const Tokens prompt = encode_prompt(loaded, line, 1);
      SampleOptions options;
      options.sampling = {c.settings.temperature, c.settings.top_k, c.settings.top_p};
      options.max_new_tokens = c.settings.max_new_tokens;
      options.stops = loaded.tokenizer->stops();
      options.seed = c.settings.seed;
      options.step = turn;
      options.bf16_weights = c.bf16;
      std::size_t shown = 0;
      HarmlessStream terminal(Layout::Lines);
      const auto print = [](const std::string& text) { std::fputs(text.c_str(), stdout); };
      // Called after each token: prints what is new of the text.
      options.stop_when = [&](std::span<const std::int32_t> response) {
        const std::string text =
            response_text(loaded, prompt, Tokens(response.begin(), response.end()));
        print(terminal.add(std::string_view(text).substr(std::min(shown, text.size()))));
        std::fflush(stdout);
        shown = text.size();
        for (const std::string& stop : c.settings.stop)
          if (text.find(stop) != std::string::npos) return true;
        return false;
      };
      print(terminal.add(line));
      const auto responses = sample(*loaded.model, {prompt}, options);
      tokens += static_cast<double>(responses.front().tokens.size());
      print(terminal.end() + "\n");
    } catch (const DataError& error) {
      if (!person) throw;
      std::printf("%s\n", harmless(error.what()).c_str());
    }
    seconds += seconds_since(start);
    if (!c.prompt.empty()) break;
  }
  return {{"turns", turn + (c.prompt.empty() ? 0U : 1U)},
          {"tokens", tokens},
          {"tokens_per_second", seconds > 0 ? tokens / seconds : 0.0}};
}

Json info_command(const ModelOptions& from) {
  const Loaded loaded = load(from);
  const TransformerConfig& c = loaded.model->config();
  const Json results = {
      {"plumb", PLUMB_VERSION},
      {"device", kDeviceName},
      {"isa", name(current_isa())},
      {"threads", default_pool().threads()},
      {"model", loaded.source},
      {"family", c.family == Family::Llama ? "llama" : "gpt2"},
      {"parameters", loaded.model->parameters().count()},
      {"layers", c.layers},
      {"channels", c.channels},
      {"heads", c.heads},
      {"kv_heads", c.kv_heads},
      {"hidden", c.hidden},
      {"vocab", c.vocab},
      {"context", c.context},
      {"tokenizer", loaded.tokenizer->name()},
      {"head", loaded.model->head_kind() == ScalarHead::Reward  ? "reward"
               : loaded.model->head_kind() == ScalarHead::Value ? "value"
                                                                : "none"},
      {"fingerprint", fingerprint(*loaded.model)},
      {"generate_kv_cache_bytes_per_token", 2 * c.layers * c.kv_heads * c.head_size() * 4},
      {"train_bytes_weights_gradients_moments", 16 * loaded.model->parameters().size()}};
  for (const auto& [key, value] : results.items())
    std::printf("%-38s %s\n", key.c_str(),
                harmless(value.is_string() ? value.get<std::string>() : value.dump()).c_str());
  return results;
}

}}  // namespace plumb::v0_1
