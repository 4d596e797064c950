// The command line: commands, flags, help and errors. What the commands do is in the files beside
// this one; what a setting is called and may be, in the lists of settings.
#include "commands.hpp"
#include "device.hpp"
#include "flags.hpp"
#include "format.hpp"
#include "rank.hpp"
#include "screen.hpp"
#include "studio.hpp"

#include <plumb/io/output.hpp>
#include <plumb/run/interrupt.hpp>
#include <plumb/run/machine.hpp>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <unistd.h>

using namespace plumb;

namespace {

// The value of --device or --precision, which are read before the other flags: another program may
// have to read them.
std::string early_flag(int argc, char** argv, const std::string& flag) {
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == flag && i + 1 < argc) return argv[i + 1];
    if (argument.starts_with(flag + "=")) return argument.substr(flag.size() + 1);
  }
  return {};
}

// Becomes the program of another device or precision, which lies beside this one.
void switch_program(std::string device, std::string precision, char** argv) {
  if (device.empty()) device = kDeviceName;
  if (precision.empty()) precision = kPrecision;
  if (device != "cpu" && device != "cuda" && device != "emulated")
    fail<DataError>(str("[device] '", device, "' is not one of: cpu, cuda, emulated"));
  if (precision != "float" && precision != "bf16")
    fail<DataError>(str("[precision] '", precision, "' is not one of: float, bf16"));
  if (device == kDeviceName && precision == kPrecision) return;
  std::string path(4096, '\0');
  const ssize_t length = ::readlink("/proc/self/exe", path.data(), path.size());
  path.resize(length > 0 ? static_cast<std::size_t>(length) : 0);
  path = path.substr(0, path.rfind('/') + 1) + "plumb" + (device == "cpu" ? "" : "-" + device) +
         (precision == "float" ? "" : "-" + precision);
  ::execv(path.c_str(), argv);
  fail<IoError>(str("[device] this needs the program ", path, ", which was not built. HINT: ",
                    device == "cuda" ? "with the CUDA toolkit installed, ./plumb build --cuda"
                                     : "./plumb build"));
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
  s.generate.sampling.max_new_tokens = 224;
  s.reward.full.epochs = 3;
  s.reward.full.optimizer.lr = 3e-3F;
  s.ppo.config.iterations = 12;
  s.ppo.prompts = 96;
  s.ppo.config.sampling.responses = 1;
  s.ppo.config.sampling.max_new_tokens = 224;
  s.ppo.config.beta = 0.1F;
  s.ppo.config.kl_target = 15.0F;
  s.ppo.config.kl_horizon = 500.0F;
  s.ppo.config.optimizer.lr = 2e-4F;
  // The emulator runs each GPU thread by itself, hundreds of times slower than the CPU's kernels:
  // enough to see every step, not to learn much.
  if (std::string_view(kDeviceName) == "emulated") {
    s.rounds = 1;
    s.rank_prompts = 12;
    s.eval_prompts = 12;
    s.eval_stories = 3;
    s.generate.sampling.max_new_tokens = s.ppo.config.sampling.max_new_tokens = 32;
    s.reward.full.epochs = 1;
    s.ppo.config.iterations = 2;
    s.ppo.prompts = 8;
  }
  return s;
}

// The demo on a model that was not made for it: one round in which it learns to explain to a child.
// Sized for SmolLM2-135M, six minutes on two cores and 2.5 GB. Adapters in the upper third of the
// blocks: what lies below is computed once an iteration, for the policy and the reference.
AlignSettings story_settings(const std::string& model) {
  AlignSettings s;
  s.model = model;
  s.prompts = data_path("explain_to_a_child.jsonl");
  s.held_out_prompts = data_path("explain_to_a_child_heldout.jsonl");
  s.labeller = "rule:child";
  s.rank_prompts = 64;
  s.eval_responses = 4;
  s.eval_stories = 20;
  s.generate.sampling.max_new_tokens = 80;
  s.ppo.lora.rank = 16;
  s.ppo.lora.top_layers = 10;
  s.ppo.config.iterations = 8;
  s.ppo.prompts = 8;
  s.ppo.config.epochs = 2;
  s.ppo.config.minibatches = 2;
  s.ppo.config.sampling.responses = 4;
  s.ppo.config.sampling.max_new_tokens = 80;
  s.ppo.config.optimizer.lr = 5e-4F;
  return s;
}

// The program's commands, and what was asked of one of them.
class Program {
 public:
  /// `demo_model`: what the demo is to train; empty: the shipped stories260K.
  explicit Program(const std::string& demo_model)
      : demo_(demo_model.empty() ? demo_settings() : story_settings(demo_model)),
        app_("Plumb " PLUMB_VERSION
             ": trains language models towards human rankings.\n"
             "Sample responses, rank them, fit a reward model, train the policy by PPO.") {
    app_.require_subcommand(1);
    app_.set_version_flag("--version", PLUMB_VERSION);
    app_.add_option("--device", device_,
                    "cpu; cuda: an NVIDIA GPU; emulated: the CUDA kernels on the CPU, slowly")
        ->capture_default_str();
    app_.add_option("--precision", precision_,
                    "of matrix products: float; bf16: operands rounded, sums in float")
        ->capture_default_str();
    app_.add_option("--memory", memory_,
                    "what training may take, such as 4GB; default: what the machine has free");
    app_.fallthrough();
    app_.get_formatter()->column_width(34);
    add_demo();
    add_generate();
    add_rank();
    add_studio();
    add_watch();
    add_whatif();
    add_sft();
    add_reward();
    add_score();
    add_next();
    add_ratings();
    add_ppo();
    add_group();
    add_best_of_n();
    add_preference();
    add_align();
    add_eval();
    add_chat();
    add_data();
    add_tokenizer();
    add_convert();
    add_info();
    add_atlas();
  }

  int run(int argc, char** argv) {
    try {
      app_.parse(argc, argv);
    } catch (const CLI::ParseError& error) {  // help and version, too
      return say(error);
    }
    Command& command = *commands_.at(app_.get_subcommands().front()->get_name());
    command.flags.apply();
    set_memory(memory_.empty() ? available_memory() : parse_bytes(memory_));
    if (!json_.empty()) check_output(json_, command.inputs ? command.inputs() : Paths{});
    Json results = Json::object();
    try {
      command.body(results);
      flush_standard_output();
    } catch (const std::exception& error) {
      // What is known already is not lost with the part that failed.
      if (!json_.empty() && !results.empty()) {
        results["error"] = shown(error.what());
        write_atomically(json_, json_text(results, 2) + "\n");
      }
      throw;
    }
    if (!json_.empty()) write_atomically(json_, json_text(results, 2) + "\n");
    return status_;
  }

 private:
  using Paths = std::vector<std::string>;
  struct Command {
    explicit Command(CLI::App& app) : flags(app) {}
    Flags flags;
    std::function<void(Json&)> body;
    std::function<Paths()> inputs;  // files that --json must not replace; optional
  };

  CLI::App& command(const char* name, const char* what, std::function<void(Json&)> body,
                    std::function<Paths()> inputs = {}) {
    CLI::App* sub = app_.add_subcommand(name, what);
    sub->add_option("--json", json_, "write the results here as named numbers");
    auto one = std::make_unique<Command>(*sub);
    one->body = std::move(body);
    one->inputs = std::move(inputs);
    commands_[name] = std::move(one);
    return *sub;
  }
  Flags& flags(const CLI::App& sub) { return commands_.at(sub.get_name())->flags; }
  bool says(const char* command, const char* setting) const {
    return commands_.at(command)->flags.says(setting);
  }

  void model_flags(CLI::App& sub, ModelOptions& from) {
    sub.add_option("--model", from.model,
                   "a model's file or folder; default: the shipped stories260K");
    sub.add_option("--tokenizer", from.tokenizer,
                   "tokenizer file, or bytes; default: what the model says");
    sub.add_option("--chat", from.chat, chat_help_);
    sub.add_option("--base", from.base,
                   "what the model's adapters stand beside; default: what their file says");
  }
  static void tensorboard_flag(CLI::App& sub, std::string& folder) {
    sub.add_option("--tensorboard", folder,
                   "also add the metrics to TensorBoard's events in this folder, a run's own")
        ->group("Recording");
  }
  const std::string chat_help_ =
      str("chat form of the prompts: ", chat_form_names(), "; default: what the model says");
  static constexpr const char* kPromptsHelp =
      "prompts: data in any form, stories, or one a line; default: shipped story openings";

  // Help goes to standard output; a complaint names the word, and the nearest that is known.
  int say(const CLI::ParseError& error) {
    std::ostringstream out, err;
    const int code = app_.exit(error, out, err);
    std::string complaint = err.str();
    if (code != 0) {
      std::vector<std::string> known;
      const CLI::App* at = &app_;
      for (const CLI::App* sub : app_.get_subcommands()) at = sub;
      for (const CLI::App* app : {static_cast<const CLI::App*>(&app_), at})
        for (const CLI::Option* option : app->get_options())
          for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
      if (at == &app_)
        for (const auto& [name, unused] : commands_) known.push_back(name);
      // An unknown word is the cause; that something required is missing, its consequence.
      for (const std::string& word : app_.remaining(true))
        if (word.starts_with("-") || at == &app_) {
          const std::string bare = word.substr(0, word.find('='));
          complaint = str("unknown ", word.starts_with("-") ? "flag " : "command ", bare,
                          nearest_hint(bare, known), "\nRun with --help for more information.\n");
          break;
        }
    }
    std::fputs(harmless(out.str(), Layout::Lines).c_str(), stdout);
    std::fputs(harmless(complaint, Layout::Lines).c_str(), stderr);
    if (code == 0) flush_standard_output();
    return code;
  }

  void add_demo() {
    demo_.run = run_name("plumb-demo");
    CLI::App& sub = command(
        "demo",
        "train stories260K towards ranked stories, or --model smollm2 to explain to a child; from "
        "nothing to a report",
        [this](Json& results) {
          refuse_beta_of_ppo("demo", demo_);
          if (!demo_.model.empty()) return explain_to_a_child(results);
          if (quick_ && std::string_view(kDeviceName) != "emulated") {
            demo_.rank_prompts = 100;
            demo_.ppo.config.iterations = 8;
            demo_.ppo.prompts = 64;
            demo_.eval_prompts = 100;
          }
          if (person_) {
            demo_.labeller = "person";
            demo_.rounds = 1;
            demo_.rank_prompts = std::min<Index>(demo_.rank_prompts, 40);
          }
          std::printf("A 260K-parameter model of children's stories learns to please.\n\n%s\n",
                      person_ ? "You rank its stories." : rule_of(demo_.labeller).text.c_str());
          align_command(demo_, "Plumb demo: stories260K", results);
        });
    sub.add_flag("--quick", quick_, "a third of the work");
    sub.add_flag("--rank", person_, "you rank the stories instead of the rule");
    tensorboard_flag(sub, demo_.tensorboard);
    add_with_method(sub, demo_);
  }

  // Who says --beta beside a method that learns directly means that method's.
  void refuse_beta_of_ppo(const char* command, const AlignSettings& s) const {
    if (s.directly() && says(command, "beta"))
      fail<DataError>(str("[", command, "] beta is PPO's, and the method ", choice_name(s.method),
                          " has its own. HINT: --dpo-beta"));
  }

  // The demo of story_settings. The policy is left behind as other programs read it, too.
  void explain_to_a_child(Json& results) {
    if (quick_) {
      demo_.rank_prompts = 24;
      demo_.ppo.config.iterations = 3;
    }
    demo_.judge = demo_.labeller;
    if (person_) {
      demo_.labeller = "person";
      demo_.rank_prompts = std::min<Index>(demo_.rank_prompts, 24);
    }
    if (memory_.empty()) set_memory(std::min(available_memory(), parse_bytes("2GB")));
    std::printf("%s learns to explain things to a child of six.\n\n%s\n",
                harmless(demo_.model).c_str(),
                person_ ? "You rank its answers." : rule_of(demo_.labeller).text.c_str());
    align_command(demo_, str("Plumb demo: ", demo_.model), results);
    const std::string policy = str(demo_.run, "/round-", demo_.rounds - 1, "/policy.safetensors");
    release_cached_memory();  // the policy is opened anew, with every weight
    ConvertCommand convert;
    convert.from.model = policy;
    Json unused;
    for (const char* form : {"/policy/", "/policy.q8_0.gguf"}) {
      convert.out = demo_.run + form;
      convert_command(convert, unused);
    }
    if (!person_) return;
    std::printf("\nNow judge blind: which answer would a child follow better?\n");
    const auto samples = [&](const char* file) {
      return read_candidates(demo_.run + file).records;
    };
    const Verdict verdict =
        make_judge("person", {{}, demo_.run + "/my-judgements.jsonl", demo_.annotator, 1})
            ->compare(samples("/samples-before.jsonl"), samples("/samples-after.jsonl"));
    std::printf("win rate by you, after against before: %s of %s\n",
                percent(verdict.rate()).c_str(), fixed(verdict.n(), 0).c_str());
    results["judged_by_person"] = verdict.json();
  }

  void add_generate() {
    CLI::App& sub = command(
        "generate", "sample responses to prompts",
        [this](Json& results) {
          generate_.temperature_said = says("generate", "temperature");
          generate_command(generate_, results);
        },
        [this] {
          return Paths{generate_.prompts, generate_.out, generate_.from.model};
        });
    model_flags(sub, generate_.from);
    sub.add_option("--prompts", generate_.prompts, kPromptsHelp);
    sub.add_option("--out", generate_.out, "candidates, JSON Lines; -: standard output")
        ->required();
    sub.add_option("--name", generate_.name,
                   "whose the responses are called, in ratings; default: the model's file");
    flags(sub).add_one(Field{"limit", "use the first so many prompts; 0: all", at_least(0)},
                       generate_.limit);
    flags(sub).add_one(Field{"force", "replace a file that is there"}, generate_.force);
    flags(sub).add(generate_.settings);
  }

  void add_rank() {
    rank_.annotator = "me";
    rank_.finished_too = true;
    CLI::App& sub = command(
        "rank", "rank responses at the terminal, or by a stated rule",
        [this](Json& results) {
          results = rank_command(rank_);
          status_ = results.at("status");
        },
        [this] {
          return Paths{rank_.candidates, rank_.output, rank_.report};
        });
    sub.add_option("candidates", rank_.candidates, "file made by `plumb generate`");
    sub.add_option("--out", rank_.output, "rankings, appended to this file")->required();
    sub.add_option("--annotator", rank_.annotator, "your name")->capture_default_str();
    sub.add_option("--labeller", rank_.labeller, "person, or rule:NAME")->capture_default_str();
    sub.add_option("--others", rank_.others, "more rankings, for agreement between annotators");
    asking_flags(sub, rank_.asking);
    flags(sub).add_one(
        Field{"agreement", "report agreement, what answers lean on, and haste; ask nothing"},
        rank_.agreement);
    sub.add_option("--report", rank_.report, "with --agreement: also as HTML here, with plots");
  }

  void add_studio() {
    CLI::App& sub = command(
        "studio", "rank responses on a page in the browser, several people at once",
        [this](Json& results) {
          studio_.temperature_said = says("studio", "temperature");
          if (says("studio", "seed")) studio_.talk.sampling.seed = studio_.asking.plan.seed;
          results = studio_command(studio_);
        },
        [this] {
          return Paths{studio_.candidates, studio_.output, studio_.before, studio_.after};
        });
    sub.add_option("candidates", studio_.candidates,
                   "file made by `plumb generate`, or a run of `plumb align`");
    sub.add_option("--out", studio_.output,
                   "answers, appended to this file; of a run: its newest round's rankings");
    flags(sub).add_one(Field{"loop",
                             "drive a run of `plumb align` from the page, a new one or one "
                             "that was stopped, with people who rank there"},
                       studio_.loop);
    sub.add_option("--config", studio_.config, "of a new run: settings as a JSON object");
    flags(sub).add_one(Field{"judge", "of a run: compare its last policy with its first, blind"},
                       studio_.judge);
    sub.add_option("--before", studio_.before, "or compare two files of candidates, blind: this");
    sub.add_option("--after", studio_.after, "with this, the first response to each prompt");
    sub.add_option("--watch", studio_.watch, "or watch these runs, while they train or afterwards");
    sub.add_option("--chat", studio_.chat, "or talk to this model, or to two side by side");
    sub.add_option("--tokenizer", studio_.tokenizer,
                   "of --chat: tokenizer file, or bytes; default: what the model says");
    studio_.talk = chat_.settings;
    fields(studio_.talk, [&](Field field, auto& member) {
      for (const char* no_choice : {"responses", "seed", "slots", "kv-cache"})
        if (std::string_view(field.name) == no_choice) return;
      field.group = "Chat";
      flags(sub).add_one(field, member);
    });
    flags(sub).add_one(
        Field{"port", "of the page's address; 0: any that is free", between(0, 65535)},
        studio_.port);
    sub.add_option("--host", studio_.host, "address to serve; beyond 127.0.0.1 with --token only")
        ->capture_default_str();
    sub.add_option("--token", studio_.token,
                   "a word of yours, part of the address, without which nobody gets in");
    asking_flags(sub, studio_.asking);
  }

  void add_watch() {
    CLI::App& sub =
        command("watch", "print what a run made of each token of an iteration's samples",
                [this](Json& results) { watch_command(watch_, results); });
    sub.add_option("run", watch_.run, "run of plumb ppo, grpo or align, which may be under way")
        ->required();
    flags(sub).add_one(
        Field{"iteration", "a step of its metrics; -1: the newest one kept", at_least(-1)},
        watch_.iteration);
    flags(sub).add_one(Field{"sample", "one of its responses; -1: all", at_least(-1)},
                       watch_.sample);
  }

  void add_whatif() {
    CLI::App& sub = command(
        "whatif", "train a round of a run again with one ranking turned round: which tokens change",
        [this](Json& results) { whatif_command(whatif_, results); });
    sub.add_option("run", whatif_.run, "run of plumb align; it is only read")->required();
    flags(sub).add_one(Field{"round", "of the run, from 0", at_least(0)}, whatif_.round);
    flags(sub).add_one(Field{"ranking", "line of the round's rankings.jsonl, from 0", at_least(0)},
                       whatif_.ranking);
    sub.add_option("--out", whatif_.out,
                   "a new directory for this; default: RUN-whatif-ROUND-RANKING");
    flags(sub).add_one(
        Field{"check", "also train without the change, which must be the run itself to the bit"},
        whatif_.check);
  }

  void asking_flags(CLI::App& sub, AskingOptions& asking) {
    flags(sub).add_one(Field{"seed", "seed of the order in which responses are shown"},
                       asking.plan.seed);
    flags(sub).add_one(Field{"overlap",
                             "share of the questions that every annotator gets; the "
                             "others go to one each",
                             between(0, 1)},
                       asking.plan.overlap);
    flags(sub).add_one(Field{"repeats",
                             "share of the questions that come again unmarked, to see "
                             "how far annotators agree with themselves",
                             between(0, 1)},
                       asking.plan.repeats);
    flags(sub).add_one(Field{"pairs", "ask about two responses at a time"}, asking.pairs);
    sub.add_option("--instructions", asking.instructions,
                   "a text file for the annotators, one key away");
  }

  void add_sft() {
    CLI::App& sub = command(
        "sft", "fine-tune on demonstrations (completion-only loss)",
        [this](Json& results) { sft_command(sft_, results); },
        [this] {
          return Paths{sft_.data, sft_.out, sft_.from.model};
        });
    sub.add_option("data", sft_.data,
                   "prompts with completions, in any form; of rankings, the best")
        ->required();
    sub.add_option("--out", sft_.out, "the fine-tuned model")->required();
    model_flags(sub, sft_.from);
    sub.add_option("--before-prompt", sft_.before,
                   "put before each prompt, now and whenever the model answers");
    sub.add_option("--after-prompt", sft_.after, "and after it");
    sub.add_flag("--skip-bad-lines", sft_.skip_bad_lines, "leave malformed lines out, naming them");
    flags(sub).add(sft_.settings);
  }

  void add_reward() {
    CLI::App& sub = command(
        "reward", "fit a reward model to rankings, test one; accuracy by cross-validation",
        [this](Json& results) { reward_command(reward_, results); },
        [this] {
          Paths paths = reward_.rankings;
          paths.insert(paths.end(), {reward_.out, reward_.from.model});
          return paths;
        });
    sub.add_option("rankings", reward_.rankings,
                   "rankings or pairs, in any form: `plumb data FILE` says which");
    sub.add_option("--out", reward_.out, "also fit to all rankings and write the model here");
    sub.add_option(
        "--test", reward_.test,
        "rankings to test on: of a model fitted to all others or, without others, of the "
        "reward model that --model names");
    model_flags(sub, reward_.from);
    flags(sub).add_one(
        Field{"folds", "folds of the cross-validation, by prompt; 0: none", between(0, 100)},
        reward_.folds);
    flags(sub).add_one(Field{"control", "fit to shuffled labels, too"}, reward_.control);
    sub.add_flag("--skip-bad-lines", reward_.skip_bad_lines,
                 "leave malformed lines out, naming them");
    flags(sub).add(reward_.settings);
  }

  void add_score() {
    CLI::App& sub = command(
        "score", "score the responses of a file by a reward model or rule",
        [this](Json& results) { score_command(score_, results); },
        [this] {
          return Paths{score_.file, score_.out, score_.judge};
        });
    sub.add_option("file", score_.file, "candidates or rankings, in any form")->required();
    sub.add_option("--out", score_.out, "the same lines with \"scores\"; -: standard output")
        ->required();
    sub.add_option("--judge", score_.judge, "reward model file, or rule:NAME")
        ->capture_default_str();
    sub.add_option("--tokenizer", score_.tokenizer, "of the reward model, if it cannot find it");
  }

  void add_next() {
    CLI::App& sub = command(
        "next", "choose what to rank next: where an ensemble of heads is least sure, or at random",
        [this](Json& results) { next_command(next_, results); },
        [this] {
          Paths paths = next_.files;
          paths.insert(paths.end(), next_.ranked.begin(), next_.ranked.end());
          paths.insert(paths.end(), {next_.out, next_.judge});
          return paths;
        });
    sub.add_option("files", next_.files,
                   "candidates; of several files, each a system's, responses to one prompt are "
                   "ranked together, blind")
        ->required();
    sub.add_option(
           "--out", next_.out,
           "what to rank by `plumb rank`, each with its \"probability\"; -: standard output")
        ->required();
    sub.add_option("--judge", next_.judge,
                   "a reward model of several heads; default: all sets have the same chance");
    sub.add_option("--ranked", next_.ranked, "rankings: what they rank is not asked again");
    sub.add_option("--tokenizer", next_.tokenizer, "of the reward model, if it cannot find it");
    flags(sub).add(next_.settings);
  }

  void add_ratings() {
    CLI::App& sub = command(
        "ratings", "rate systems by rankings of their responses, with intervals and fragility",
        [this](Json& results) { ratings_command(ratings_, results); },
        [this] {
          Paths paths = ratings_.rankings;
          paths.push_back(ratings_.report);
          return paths;
        });
    sub.add_option("rankings", ratings_.rankings,
                   "rankings that say whose each response is: \"systems\", or UltraFeedback's")
        ->required();
    sub.add_option("--reference", ratings_.reference,
                   "the system whose rating is 0; default: the mean of all is");
    sub.add_option("--report", ratings_.report, "and write it here as HTML, with plots");
    sub.add_flag("--skip-bad-lines", ratings_.skip_bad_lines,
                 "leave malformed lines out, naming them");
    flags(sub).add(ratings_.settings);
  }

  void add_ppo() {
    CLI::App& sub = command("ppo", "train a policy by PPO against a reward model or rule",
                            [this](Json& results) {
                              ppo_.temperature_said = says("ppo", "ppo-temperature");
                              ppo_command(ppo_, results);
                            });
    flags_of_run(sub, ppo_);
    add_with_method(sub, ppo_.settings);
  }

  void add_group() {
    group_.ppo.run = "grpo-run";
    group_.settings.ppo.method = PolicyMethod::Grpo;
    group_.settings.ppo.config.sampling.responses = 8;
    CLI::App& sub =
        command("grpo", "train a policy without a critic: GRPO and its relatives, by --method",
                [this](Json& results) {
                  group_.ppo.temperature_said = says("grpo", "ppo-temperature");
                  group_command(group_, results);
                });
    flags_of_run(sub, group_.ppo);
    add_with_method(sub, group_.settings);
  }

  // Flags of settings, of which --method chooses the defaults of others.
  template <class Settings>
  void add_with_method(CLI::App& sub, Settings& settings) {
    flags(sub).preset([&settings] { use_method(settings); });
    flags(sub).add(settings);
  }

  void flags_of_run(CLI::App& sub, PpoCommand& c) {
    sub.add_option("--reward", c.reward, "reward model file, or rule:NAME")->capture_default_str();
    sub.add_option("--prompts", c.prompts, kPromptsHelp);
    sub.add_option("--run", c.run,
                   "run directory; one that was stopped goes on, with more --iterations too")
        ->capture_default_str();
    tensorboard_flag(sub, c.tensorboard);
    model_flags(sub, c.from);
    sub.add_option("--reference", c.reference,
                   "the policy is held near this model; default: near --model");
  }

  void add_best_of_n() {
    CLI::App& sub = command(
        "best-of-n", "keep the best response to each prompt, for `plumb sft`; what n is worth",
        [this](Json& results) { best_of_n_command(best_of_n_, results); },
        [this] {
          return Paths{best_of_n_.file, best_of_n_.out, best_of_n_.judge};
        });
    sub.add_option("file", best_of_n_.file, "candidates, in any form: `plumb generate` makes them")
        ->required();
    sub.add_option("--out", best_of_n_.out, "prompts with their best; -: standard output")
        ->required();
    sub.add_option("--judge", best_of_n_.judge, "reward model file, or rule:NAME")
        ->capture_default_str();
    sub.add_option("--tokenizer", best_of_n_.tokenizer,
                   "of the reward model, if it cannot find it");
  }

  void add_preference() {
    CLI::App& sub = command(
        "dpo", "train a policy on rankings directly (DPO and its relatives, by --method)",
        [this](Json& results) { preference_command(preference_, results); },
        [this] {
          Paths paths = preference_.rankings;
          paths.insert(paths.end(), {preference_.out, preference_.from.model});
          return paths;
        });
    sub.add_option("rankings", preference_.rankings,
                   "rankings or pairs, in any form: `plumb data FILE` says which")
        ->required();
    sub.add_option("--out", preference_.out, "the trained model")->required();
    sub.add_option("--test", preference_.test, "rankings on which to try its own scores");
    model_flags(sub, preference_.from);
    sub.add_flag("--skip-bad-lines", preference_.skip_bad_lines,
                 "leave malformed lines out, naming them");
    flags(sub).add(preference_.settings);
  }

  void add_align() {
    CLI::App& sub = command(
        "align", "rounds of generate, rank, learn: all steps at once", [this](Json& results) {
          refuse_beta_of_ppo("align", align_);
          align_.generate_temperature_said = says("align", "generate-temperature");
          align_.ppo_temperature_said = says("align", "ppo-temperature");
          align_command(align_, "Plumb run", results);
        });
    tensorboard_flag(sub, align_.tensorboard);
    add_with_method(sub, align_);
  }

  void add_eval() {
    CLI::App& sub = command(
        "eval",
        "compare two models: win rate by a judge, KL, perplexity; or one model's perplexity",
        [this](Json& results) {
          eval_.temperature_said = says("eval", "temperature");
          eval_command(eval_, results);
        },
        [this] {
          return Paths{eval_.prompts, eval_.held_out, eval_.before, eval_.after};
        });
    sub.add_option("--before,--model", eval_.before, "default: the shipped stories260K");
    sub.add_option("--after", eval_.after, "the trained model; without it: the one's perplexity");
    sub.add_option("--judge", eval_.judge,
                   "rule:NAME, person (blind), command:PROGRAM ARGS, or a reward model's file")
        ->capture_default_str();
    sub.add_option("--prompts", eval_.prompts, "prompts; default: the openings of --held-out");
    flags(sub).add_one(Field{"limit", "use the first so many prompts", at_least(1)}, eval_.limit);
    sub.add_option("--held-out", eval_.held_out, "stories; default: the shipped held-out ones");
    sub.add_option("--answers", eval_.answers, "where a person's answers are kept")
        ->capture_default_str();
    sub.add_option("--annotator", eval_.annotator, "that person's name")->capture_default_str();
    sub.add_option("--tokenizer", eval_.tokenizer,
                   "tokenizer file, or bytes; default: what the models say");
    sub.add_option("--chat", eval_.chat, chat_help_);
    flags(sub).add(eval_.settings);
  }

  void add_chat() {
    CLI::App& sub = command(
        "chat", "continue texts that you begin",
        [this](Json& results) {
          chat_.temperature_said = says("chat", "temperature");
          chat_command(chat_, results);
        },
        [this] {
          return Paths{chat_.from.model, chat_.beside};
        });
    model_flags(sub, chat_.from);
    sub.add_option("--prompt", chat_.prompt, "continue this and end, instead of asking");
    sub.add_option("--beside", chat_.beside, "another model, to see where the two differ");
    flags(sub).add_one(
        Field{"probabilities", "show how probable each token was, and what else was"},
        chat_.probabilities);
    flags(sub).add(chat_.settings);
  }

  void add_data() {
    CLI::App& sub = command(
        "data", "what files of data hold: forms, lengths, ties, duplicates, leaks, samples",
        [this](Json& results) { data_command(data_, results); },
        [this] {
          Paths paths = data_.files;
          paths.push_back(data_.out);
          return paths;
        });
    sub.add_option("files", data_.files,
                   "data in any form; with several, what later ones share with earlier ones")
        ->required();
    model_flags(sub, data_.from);
    sub.add_flag("--skip-bad-lines", data_.skip_bad_lines,
                 "leave malformed records out, naming them");
    flags(sub).add_one(Field{"budget", "pack into batches of so many", at_least(1), "tokens"},
                       data_.budget);
    flags(sub).add_one(Field{"tokens", "count tokens, too: most of the work"}, data_.tokens);
    flags(sub).add_one(Field{"samples", "records to show of each file", between(0, 1000)},
                       data_.samples);
    sub.add_option("--export", data_.as,
                   "write the rankings in another form, and say nothing else: rankings, Plumb's "
                   "own; trl or hh-rlhf, the pairs that they decide");
    sub.add_option("--out", data_.out, "where to; -: standard output");
  }

  void add_tokenizer() {
    CLI::App& sub = command(
        "tokenizer", "train a byte-level BPE vocabulary of your own texts",
        [this](Json& results) { tokenizer_command(tokenizer_, results); },
        [this] {
          Paths paths = tokenizer_.files;
          paths.push_back(tokenizer_.out);
          return paths;
        });
    sub.add_option("action", tokenizer_.action, "train")
        ->required()
        ->check(CLI::IsMember({"train"}));
    sub.add_option("files", tokenizer_.files, "texts, UTF-8")->required();
    sub.add_option("--out", tokenizer_.out, "FOLDER, or its tokenizer.json")->required();
    flags(sub).add(tokenizer_.settings);
  }

  void add_convert() {
    CLI::App& sub = command(
        "convert", "write a model in another format",
        [this](Json& results) { convert_command(convert_, results); },
        [this] {
          return Paths{convert_.out, convert_.from.model};
        });
    model_flags(sub, convert_.from);
    sub.add_option("--out", convert_.out,
                   "FOLDER/: Hugging Face; .gguf, .f16.gguf, .q8_0.gguf: GGUF; .bin: llama2.c; "
                   ".safetensors: Plumb's own")
        ->required();
    sub.add_flag("--adapters", convert_.adapters,
                 "write the model's adapters alone, as a folder of PEFT's");
  }

  void add_info() {
    CLI::App& sub = command(
        "info", "what a model file holds, and this machine",
        [this](Json& results) { info_command(info_, results); },
        [this] { return Paths{info_.from.model}; });
    model_flags(sub, info_.from);
    sub.add_flag("--compare", info_.compare,
                 "what keeping frozen weights as bf16 or int8 saves and changes");
    sub.add_option("--held-out", info_.held_out, "texts for --compare; default: shipped stories");
  }

  void add_atlas() {
    CLI::App& sub = command(
        "atlas", "every method beside the truth: where it comes to rest, how fast, at what cost",
        [this](Json& results) { atlas_command(atlas_, results); });
    sub.add_option("--out", atlas_.out,
                   "folder for methods.md and its figures; default: print only");
    sub.add_flag("--quick", atlas_.quick,
                 "a fraction of the work: that it runs, not what it finds");
  }

  AlignSettings demo_;
  CLI::App app_;
  std::map<std::string, std::unique_ptr<Command>> commands_;
  std::string device_ = kDeviceName, precision_ = kPrecision, json_, memory_;
  int status_ = 0;
  AlignSettings align_;
  bool quick_ = false, person_ = false;
  GenerateCommand generate_;
  RankOptions rank_;
  StudioOptions studio_;
  WatchCommand watch_;
  WhatIfCommand whatif_;
  SftCommand sft_;
  RewardCommand reward_;
  ScoreCommand score_;
  NextCommand next_;
  RatingsCommand ratings_;
  PpoCommand ppo_;
  GroupCommand group_;
  BestOfNCommand best_of_n_;
  PreferenceCommand preference_;
  EvalCommand eval_;
  ChatCommand chat_;
  DataCommand data_;
  TokenizerCommand tokenizer_;
  ConvertCommand convert_;
  InfoCommand info_;
  AtlasCommand atlas_;
};

}  // namespace

int main(int argc, char** argv) try {
  switch_program(early_flag(argc, argv, "--device"), early_flag(argc, argv, "--precision"), argv);
  const bool demo = argc > 1 && std::string_view(argv[1]) == "demo";
  return Program(demo ? early_flag(argc, argv, "--model") : "").run(argc, argv);
} catch (const Interrupted& stopped) {
  std::fprintf(stderr, "\n%s\n", harmless(stopped.what()).c_str());
  return 128 + interrupt_signal();
} catch (const std::exception& error) {
  std::fprintf(stderr, "plumb: %s\n", harmless(error.what()).c_str());
  return 1;
}
