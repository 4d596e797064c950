// The command line: flags, help and errors. What the commands do is in the files beside this one.
#include "commands.hpp"
#include "device.hpp"
#include "rank.hpp"
#include "rule.hpp"
#include "screen.hpp"

#include <plumb/io/file.hpp>
#include <plumb/run/interrupt.hpp>

#include <CLI/CLI.hpp>

#include <cstdio>
#include <ctime>
#include <exception>
#include <functional>
#include <sstream>
#include <string>

#include <unistd.h>

using namespace plumb;

namespace {

// One flag per listed setting.
template <class Settings>
void add_fields(CLI::App& app, Settings& settings) {
  fields(settings, [&](const char* name, auto& member, const char* help) {
    const std::string flag = std::string("--") + name;
    if constexpr (std::is_same_v<std::decay_t<decltype(member)>, bool>)
      app.add_flag(flag, member, help);
    else
      app.add_option(flag, member, help)->capture_default_str();
  });
}

// Takes settings from a JSON file. Flags given as well win, since they are parsed later.
template <class Settings>
void apply_config(Settings& settings, const std::string& path) {
  const Json json = parse_json(read_file(path), path);
  if (!json.is_object())
    fail<DataError>(str("[config] ", path, " is not a JSON object of settings"));
  std::size_t known = 0;
  fields(settings, [&](const char* name, auto& member, const char*) {
    if (!json.contains(name)) return;
    ++known;
    try {
      json.at(name).get_to(member);
    } catch (const Json::exception&) {
      fail<DataError>(str("[config] ", path, ": '", name, "' is ", json.at(name).dump(),
                          ", of another type than expected"));
    }
  });
  if (known == json.size()) return;
  for (const auto& item : json.items()) {
    bool found = false;
    fields(settings,
           [&](const char* name, auto&, const char*) { found = found || item.key() == name; });
    if (!found)
      fail<DataError>(str("[config] ", path, " sets '", item.key(),
                          "', which this command does not know. HINT: --help lists the settings"));
  }
}

// The value of a flag (--config, --device) that must be read before the others.
std::string early_flag(int argc, char** argv, const std::string& flag) {
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == flag && i + 1 < argc) return argv[i + 1];
    if (argument.starts_with(flag + "=")) return argument.substr(flag.size() + 1);
  }
  return {};
}

// Becomes the program of another device, which lies beside this one.
void switch_device(const std::string& device, char** argv) {
  if (device.empty() || device == kDeviceName) return;
  if (device != "cpu" && device != "cuda" && device != "emulated")
    fail<DataError>(str("[device] '", device, "' is not one of: cpu, cuda, emulated"));
  std::string path(4096, '\0');
  const ssize_t length = ::readlink("/proc/self/exe", path.data(), path.size());
  path.resize(length > 0 ? static_cast<std::size_t>(length) : 0);
  path = path.substr(0, path.rfind('/') + 1) + "plumb" + (device == "cpu" ? "" : "-" + device);
  ::execv(path.c_str(), argv);
  fail<IoError>(str("[device] this needs the program ", path, ", which was not built. HINT: ",
                    device == "cuda" ? "with the CUDA toolkit installed, ./plumb build --cuda"
                                     : "./plumb build"));
}

void add_model(CLI::App& app, ModelOptions& from, const char* what = "model") {
  app.add_option(std::string("--") + what, from.model,
                 "llama2.c .bin or Plumb .safetensors; default: the shipped stories260K");
  if (std::string(what) == "model")
    app.add_option(
        "--tokenizer", from.tokenizer,
        "tokenizer file, or bytes; default: what the model says, or tok512.bin beside it");
}

std::string run_name(const char* stem) {
  char text[64];
  const std::time_t now = std::time(nullptr);
  std::strftime(text, sizeof text, "-%Y%m%d-%H%M%S", std::localtime(&now));
  return std::string(stem) + text;
}

// The demo: three rounds on stories260K, sized for three minutes on two cores. Rounds matter: the
// first reward model has seen no short response, and the policy finds that out; the second one has.
AlignSettings demo_settings() {
  AlignSettings s;
  s.rounds = 3;
  s.rank_prompts = 160;
  s.generate.max_new_tokens = 224;
  s.reward.epochs = 3;
  s.reward.lr = 3e-3F;
  s.ppo.iterations = 12;
  s.ppo.prompts = 96;
  s.ppo.responses = 1;
  s.ppo.max_new_tokens = 224;
  s.ppo.beta = 0.1F;
  s.ppo.kl_target = 15.0F;
  s.ppo.kl_horizon = 500.0F;
  s.ppo.lr = 2e-4F;
  // The emulator runs each GPU thread by itself, hundreds of times slower than the CPU's kernels: enough
  // to see every step, not to learn much.
  if (std::string_view(kDeviceName) == "emulated") {
    s.rounds = 1;
    s.rank_prompts = 12;
    s.eval_prompts = 12;
    s.eval_stories = 3;
    s.generate.max_new_tokens = s.ppo.max_new_tokens = 32;
    s.reward.epochs = 1;
    s.ppo.iterations = 2;
    s.ppo.prompts = 8;
  }
  return s;
}

}  // namespace

int main(int argc, char** argv) try {
  switch_device(early_flag(argc, argv, "--device"), argv);
  CLI::App app("Plumb " PLUMB_VERSION
               ": aligns language models with human rankings.\n"
               "Sample responses, rank them, fit a reward model, train the policy by PPO.");
  app.require_subcommand(1);
  app.set_version_flag("--version", PLUMB_VERSION);
  std::string device = kDeviceName;
  app.add_option("--device", device,
                 "cpu; cuda: an NVIDIA GPU; emulated: the CUDA kernels on the CPU, slowly")
      ->capture_default_str();
  app.fallthrough();
  app.get_formatter()->column_width(34);

  std::string json_path, config = early_flag(argc, argv, "--config");
  std::function<Json()> run;
  const auto command = [&](const char* name, const char* what, auto body) {
    CLI::App* sub = app.add_subcommand(name, what);
    sub->add_option("--json", json_path, "write the results here as named numbers");
    sub->callback([&run, body] { run = body; });
    return sub;
  };
  const auto configurable = [&](CLI::App* sub, auto& settings) {
    sub->add_option("--config", config, "settings as a JSON object; flags win over it");
    if (!config.empty() && argc > 1 && sub->get_name() == argv[1]) apply_config(settings, config);
    add_fields(*sub, settings);
  };

  AlignSettings demo = demo_settings();
  bool quick = false, person = false;
  CLI::App* sub = command(
      "demo", "train stories260K towards ranked stories, from nothing to a report", [&]() -> Json {
        if (quick && std::string_view(kDeviceName) != "emulated") {
          demo.rank_prompts = 100;
          demo.ppo.iterations = 8;
          demo.ppo.prompts = 64;
          demo.eval_prompts = 100;
        }
        if (person) {
          demo.labeller = "person";
          demo.rounds = 1;
          demo.rank_prompts = std::min<Index>(demo.rank_prompts, 40);
        }
        std::printf("A 260K-parameter model of children's stories learns to please.\n\n%s\n",
                    person ? "You rank its stories." : warm_text());
        return align_command(demo, "Plumb demo: stories260K");
      });
  demo.run = run_name("plumb-demo");
  sub->add_flag("--quick", quick, "a third of the work");
  sub->add_flag("--rank", person, "you rank the stories instead of the rule");
  configurable(sub, demo);

  GenerateCommand generate;
  sub = command("generate", "sample responses to prompts",
                [&] { return generate_command(generate); });
  add_model(*sub, generate.from);
  sub->add_option("--prompts", generate.prompts,
                  "prompts: .jsonl, stories, or one a line; default: shipped story openings");
  sub->add_option("--limit", generate.limit, "use the first so many prompts; 0: all");
  sub->add_option("--out", generate.out, "candidates, JSON Lines")->required();
  configurable(sub, generate.settings);

  RankOptions rank;
  int status = 0;
  sub = command("rank", "rank responses at the terminal, or by a stated rule", [&]() -> Json {
    Json results = rank_command(rank);
    status = results.at("status");
    return results;
  });
  sub->add_option("candidates", rank.candidates, "file made by `plumb generate`");
  sub->add_option("--out", rank.output, "rankings, appended to this file")->required();
  sub->add_option("--annotator", rank.annotator, "your name")->default_val("me");
  sub->add_option("--labeller", rank.labeller, "person, or rule:warm")->capture_default_str();
  sub->add_option("--seed", rank.seed, "seed of the order in which responses are shown")
      ->capture_default_str();
  sub->add_option("--others", rank.others, "more rankings, for agreement between annotators");
  sub->add_flag("--agreement", rank.agreement, "report agreement and position bias; ask nothing");

  SftCommand sft;
  sub = command("sft", "fine-tune on demonstrations (completion-only loss)",
                [&] { return sft_command(sft); });
  add_model(*sub, sft.from);
  sub->add_option("data", sft.data, "JSON Lines of {\"prompt\", \"completion\"}")->required();
  sub->add_option("--out", sft.out, "the fine-tuned model")->required();
  sub->add_flag("--skip-bad-lines", sft.skip_bad_lines, "leave malformed lines out, naming them");
  configurable(sub, sft.settings);

  RewardCommand reward;
  sub = command("reward", "fit a reward model to rankings; accuracy by cross-validation",
                [&] { return reward_command(reward); });
  add_model(*sub, reward.from);
  sub->add_option("rankings", reward.rankings,
                  "JSON Lines: Plumb rankings, OpenAssistant, PandaLM or hh-rlhf")
      ->required();
  sub->add_option("--out", reward.out, "also fit to all rankings and write the model here");
  sub->add_option("--folds", reward.folds, "folds of the cross-validation, by prompt")
      ->capture_default_str()
      ->check(CLI::Range(2, 100));
  sub->add_flag("--skip-bad-lines", reward.skip_bad_lines,
                "leave malformed lines out, naming them");
  configurable(sub, reward.settings);

  PpoCommand ppo;
  sub = command("ppo", "train a policy by PPO against a reward model or rule",
                [&] { return ppo_command(ppo); });
  add_model(*sub, ppo.from);
  sub->add_option("--reward", ppo.reward, "reward model file, or rule:warm")->capture_default_str();
  sub->add_option("--prompts", ppo.prompts,
                  "prompts: .jsonl, stories, or one a line; default: shipped story openings");
  sub->add_option("--run", ppo.run, "run directory; one that was stopped is taken up again")
      ->capture_default_str();
  configurable(sub, ppo.settings);

  AlignSettings align;
  sub = command("align", "rounds of generate, rank, reward model, PPO",
                [&] { return align_command(align, "Plumb run"); });
  configurable(sub, align);

  EvalCommand eval;
  eval.settings.responses = 1;
  sub = command("eval", "compare two models: win rate by the rule, KL, perplexity",
                [&] { return eval_command(eval); });
  sub->add_option("--before", eval.before.model, "default: the shipped stories260K");
  sub->add_option("--after", eval.after.model, "the trained model")->required();
  sub->add_option("--held-out", eval.held_out, "stories; default: the shipped held-out ones");
  sub->add_option("--prompts", eval.prompts, "how many story openings to continue")
      ->capture_default_str();
  configurable(sub, eval.settings);

  ChatCommand chat;
  chat.settings.temperature = 0.8F;
  sub = command("chat", "continue texts that you begin", [&] { return chat_command(chat); });
  add_model(*sub, chat.from);
  sub->add_option("--prompt", chat.prompt, "continue this and end, instead of asking");
  sub->add_flag("--bf16", chat.bf16, "read the weights rounded to bf16: faster, nearly the same");
  configurable(sub, chat.settings);

  ModelOptions info;
  sub = command("info", "what a model file holds, and this machine",
                [&] { return info_command(info); });
  add_model(*sub, info);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {  // help and version, too
    std::ostringstream out, err;
    const int code = app.exit(error, out, err);
    std::fputs(harmless(out.str(), Layout::Lines).c_str(), stdout);
    std::fputs(harmless(err.str(), Layout::Lines).c_str(), stderr);
    return code;
  }
  const Json results = run();
  flush_standard_output();
  if (!json_path.empty()) write_atomically(json_path, json_text(results, 2) + "\n");
  return status;
} catch (const Interrupted& stopped) {
  std::fprintf(stderr, "\n%s\n", harmless(stopped.what()).c_str());
  return 128 + interrupt_signal();
} catch (const std::exception& error) {
  std::fprintf(stderr, "plumb: %s\n", harmless(error.what()).c_str());
  return 1;
}
