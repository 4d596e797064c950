// What the end-to-end measurements share: the sizes, the command line, timing, memory, results.
//
// A result says what was done as well as how fast: its `work` (shapes, tokens, steps) is compared
// with a peer's before any ratio is printed.
#pragma once

#include <plumb/plumb.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace end_to_end {

using namespace plumb;

/// A model with a tied head; L is GPT-2 of 124 million weights, SmolLM2 that of 135.
struct Size {
  const char* name;
  Family family;
  Index layers, channels, heads, kv_heads, hidden, vocab, context;
  Index batch;  ///< sequences per training step

  TransformerConfig config() const {
    return {.family = family,
            .vocab = vocab,
            .context = context,
            .channels = channels,
            .layers = layers,
            .heads = heads,
            .kv_heads = kv_heads,
            .hidden = hidden,
            .tied_head = true};
  }
};

inline constexpr Size kSizes[] = {{"S", Family::Gpt2, 4, 256, 8, 8, 1024, 512, 256, 16},
                                  {"M", Family::Gpt2, 6, 384, 6, 6, 1536, 4096, 256, 12},
                                  {"L", Family::Gpt2, 12, 768, 12, 12, 3072, 50257, 1024, 4},
                                  {"SmolLM2", Family::Llama, 30, 576, 9, 3, 1536, 49152, 2048, 2}};

inline constexpr const char* kUsage =
    "usage: end_to_end [--size S|M|L|SmolLM2] [--what WHAT] [--precision float|bf16|both]\n"
    "                  [--shape P-R-K] [--threads N] [--repeat N] [--only TEXT] [--json FILE]\n"
    "  --size       which model (S)\n"
    "  --what       train: a training step; generate; ppo: an iteration; reward: a step of a\n"
    "               reward model on pairs; ranked: on rankings; group: an update of GRPO's shape;\n"
    "               tree: updates on several responses to a prompt, with the prompt computed\n"
    "               once and for each of them; all (but tree, and ppo at sizes L and SmolLM2,\n"
    "               which takes a quarter of an hour)\n"
    "  --shape      tree: the one of prompts of P tokens, K responses of R to each, as P-R-K\n"
    "  --precision  of matrix products (float); both: in turn, with the ratio\n"
    "  --threads    of the pool (one per core)\n"
    "  --repeat     timed steps of each, after the warm-up (5)\n"
    "  --only       only the cases whose name contains TEXT: generate/S/b16, ppo/S/shared/full, …\n"
    "  --json       write the results there, too\n";

/// `responses` responses of `response` tokens to each prompt of `prompt`.
struct TreeShape {
  Index prompt, response, responses;
};

struct Options {
  Size size = kSizes[0];
  std::vector<TreeShape> shapes{{512, 64, 4},  {256, 128, 8}, {512, 128, 8},
                                {128, 128, 4}, {256, 64, 2},  {64, 64, 1}};
  std::string what = "all", precision = "float", only, json;
  int threads = 0, repeat = 5;

  bool wants(std::string_view kind) const {
    return what == kind ||
           (what == "all" && kind != "tree" && (kind != "ppo" || size.vocab < 10000));
  }
  bool wants_case(const std::string& name) const { return name.find(only) != std::string::npos; }
};

[[noreturn]] inline void usage(const std::string& problem) {
  std::fprintf(stderr, "end_to_end: %s\n%s", problem.c_str(), kUsage);
  std::exit(2);
}

inline int number(const std::string& name, const std::string& text) {
  char* end = nullptr;
  const long value = std::strtol(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0' || value < 1 || value > 1024)
    usage(str(name, " '", text, "' is not a number from 1 to 1024"));
  return static_cast<int>(value);
}

inline Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (name == "--help" || name == "-h") {
      std::fputs(kUsage, stdout);
      std::exit(0);
    }
    if (i + 1 == argc) usage(name + " needs a value");
    const std::string value = argv[i + 1];
    if (name == "--size") {
      const auto* size = std::find_if(std::begin(kSizes), std::end(kSizes),
                                      [&](const Size& s) { return s.name == value; });
      if (size == std::end(kSizes)) usage("--size is S, M, L or SmolLM2");
      options.size = *size;
    } else if (name == "--what") {
      constexpr std::string_view known[] = {"train",  "generate", "ppo",  "reward",
                                            "ranked", "group",    "tree", "all"};
      if (std::find(std::begin(known), std::end(known), value) == std::end(known))
        usage("--what is train, generate, ppo, reward, ranked, group, tree or all");
      options.what = value;
    } else if (name == "--precision") {
      if (value != "float" && value != "bf16" && value != "both")
        usage("--precision is float, bf16 or both");
      options.precision = value;
    } else if (name == "--shape") {
      long long p = 0, r = 0, k = 0;
      char rest = 0;
      if (std::sscanf(value.c_str(), "%lld-%lld-%lld%c", &p, &r, &k, &rest) != 3 || p < 1 ||
          r < 1 || k < 1 || (p + r) * k > 100000)
        usage("--shape is PROMPT-RESPONSE-RESPONSES, such as 257-64-4");
      options.shapes = {{p, r, k}};
    } else if (name == "--threads") {
      options.threads = number(name, value);
    } else if (name == "--repeat") {
      options.repeat = number(name, value);
    } else if (name == "--only") {
      options.only = value;
    } else if (name == "--json") {
      options.json = value;
    } else {
      usage("unknown argument " + name);
    }
  }
  return options;
}

/// What a case's name ends with on device D.
template <class D>
constexpr const char* kSuffix = rounds_products<D> ? "/bf16" : "";

using Named = std::vector<std::pair<std::string, double>>;

/// One case: what was done, how fast, with how much memory.
struct Result {
  std::string name;
  std::string unit;               ///< a rate ("tokens/s"), or "s": then less is better
  std::vector<double> samples{};  ///< one per timed step
  std::vector<double> busy{};     ///< seconds of processor over seconds of clock, likewise
  Named work{};                   ///< per step; must equal a peer's
  std::vector<Named> phases{};    ///< seconds, one list per timed step; may be empty
  std::vector<std::vector<Index>> lengths{};  ///< of the responses of each step, warm-up included
  double system_calls = 0;  ///< allocations from the system per timed step: 0 is the claim
  double used = 0;          ///< bytes in use at once, at the most
  double resident = 0;      ///< the process's own high-water mark, bytes
  double beside = 0;        ///< what was resident before the first step and is no tensor, bytes
  double estimate = 0;      ///< bytes that the shapes ask for
};

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return n == 0 ? 0 : (values[(n - 1) / 2] + values[n / 2]) / 2;
}

/// Starts the process's high-water mark (VmHWM) again at what is resident now. Linux; no-op
/// elsewhere.
inline void reset_resident_peak() {
  if (std::FILE* file = std::fopen("/proc/self/clear_refs", "w")) {
    std::fputs("5", file);
    std::fclose(file);
  }
}

/// What /proc says of the process under this name, such as "VmHWM:", bytes; 0 where it does not.
inline double resident(std::string_view what) {
  std::FILE* file = std::fopen("/proc/self/status", "r");
  if (file == nullptr) return 0;
  double kilobytes = 0;
  for (char line[256]; std::fgets(line, sizeof line, file) != nullptr;)
    if (std::string_view(line).starts_with(what))
      kilobytes = std::strtod(line + what.size(), nullptr);
  std::fclose(file);
  return kilobytes * 1024;
}

/// Calls step() `warm_up` times, then `repeat` times under the clock: one sample, seconds, per
/// call. Memory is watched throughout, allocations only once warm.
template <class Step>
void measure(Result& result, int warm_up, int repeat, Step step) {
  reset_peak_memory();
  reset_resident_peak();
  result.beside =
      std::max(0.0, resident("VmRSS:") - static_cast<double>(memory_counters().used_bytes));
  for (int i = 0; i < warm_up; ++i) step();
  const std::size_t calls = memory_counters().system_calls;
  for (int i = 0; i < repeat; ++i) {
    const std::clock_t cpu = std::clock();
    const auto start = std::chrono::steady_clock::now();
    step();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    result.samples.push_back(seconds.count());
    result.busy.push_back(static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC /
                          seconds.count());
  }
  result.system_calls = static_cast<double>(memory_counters().system_calls - calls) / repeat;
  result.used = static_cast<double>(memory_counters().peak_bytes);
  result.resident = resident("VmHWM:");
}

/// Adds what one more timed step gave.
inline void append(Result& result, const Result& step) {
  result.samples.insert(result.samples.end(), step.samples.begin(), step.samples.end());
  result.busy.insert(result.busy.end(), step.busy.begin(), step.busy.end());
  result.system_calls = std::max(result.system_calls, step.system_calls);
  result.used = std::max(result.used, step.used);
  result.resident = std::max(result.resident, step.resident);
  result.beside = std::max(result.beside, step.beside);
}

/// Turns samples of seconds into samples of `amount` of something per second.
inline void per_second(Result& result, double amount) {
  for (double& sample : result.samples) sample = amount / sample;
}

inline void print(const Result& r) {
  const auto [low, high] = std::minmax_element(r.samples.begin(), r.samples.end());
  std::printf(
      "%-26s %9.*f %-8s (%.*f … %.*f)  allocations/step %.4g  peak %.0f MB, resident %.0f, "
      "from shapes %.0f\n",
      r.name.c_str(), r.unit == "s" ? 3 : 1, median(r.samples), r.unit.c_str(),
      r.unit == "s" ? 3 : 1, *low, r.unit == "s" ? 3 : 1, *high, r.system_calls, r.used / 1e6,
      r.resident / 1e6, r.estimate / 1e6);
  if (r.phases.empty()) return;
  std::printf("%-26s", "");
  for (std::size_t i = 0; i < r.phases[0].size(); ++i) {
    std::vector<double> seconds;
    for (const Named& step : r.phases) seconds.push_back(step[i].second);
    std::printf("  %s %.3f", r.phases[0][i].first.c_str(), median(seconds));
  }
  std::printf(" s\n");
}

inline std::string json(const std::vector<double>& values) {
  std::string text = "[";
  for (const double value : values) {
    char number[32];
    std::snprintf(number, sizeof number, "%s%.9g", text.size() > 1 ? ", " : "", value);
    text += number;
  }
  return text + "]";
}

inline std::string json(const Named& named) {
  std::string text = "{";
  for (const auto& [name, value] : named) {
    char item[96];
    std::snprintf(item, sizeof item, "%s\"%s\": %.12g", text.size() > 1 ? ", " : "", name.c_str(),
                  value);
    text += item;
  }
  return text + "}";
}

template <class T>
std::string json(const std::vector<T>& items) {
  std::string text = "[";
  for (const T& item : items) text += (text.size() > 1 ? ", " : "") + json(item);
  return text + "]";
}

inline std::string json(const Result& r) {
  std::vector<std::vector<double>> lengths;
  for (const auto& step : r.lengths) lengths.emplace_back(step.begin(), step.end());
  return "{\"name\": \"" + r.name + "\", \"unit\": \"" + r.unit +
         "\", \"samples\": " + json(r.samples) + ", \"busy\": " + json(r.busy) +
         ",\n   \"work\": " + json(r.work) + ",\n   \"phases\": " + json(r.phases) +
         ", \"lengths\": " + json(lengths) + ",\n   \"memory\": " +
         json(Named{{"system_calls", r.system_calls},
                    {"used", r.used},
                    {"resident", r.resident},
                    {"beside", r.beside},
                    {"estimate", r.estimate}}) +
         "}";
}

/// n random tokens: untrained models neither know nor care.
inline Tokens random_tokens(Index n, Index vocab, std::uint32_t sequence) {
  Rng rng(7, Stage::Test, 0, sequence);
  Tokens tokens(static_cast<std::size_t>(n));
  for (std::int32_t& token : tokens)
    token = static_cast<std::int32_t>(rng.below(static_cast<std::uint32_t>(vocab)));
  return tokens;
}

inline std::vector<Tokens> random_sequences(Index count, Index length, Index vocab) {
  std::vector<Tokens> sequences;
  for (Index i = 0; i < count; ++i)
    sequences.push_back(random_tokens(length, vocab, static_cast<std::uint32_t>(i)));
  return sequences;
}

/// Bytes that a model asks for: weights, and in training a gradient and two moments beside each.
inline double model_bytes(Index weights, bool trained) {
  return 4.0 * static_cast<double>(weights) * (trained ? 4 : 1);
}

/// Bytes of activations that backward needs, for n tokens: per layer and token, two norms, q, k, v,
/// the attention's output, two residual sums (8 C), the hidden layer before and after its
/// activation; then the gradients alive at once, those of one layer's hidden part.
inline double training_bytes(const Size& size, double tokens) {
  const auto c = static_cast<double>(size.channels), hidden = 4 * c;
  const auto layer = 8 * c + 2 * hidden + static_cast<double>(size.heads) + 4;
  return 4 * tokens * (static_cast<double>(size.layers) * layer + 4 * c + 2 * hidden + 3 * c);
}

/// Bytes of the head's logits for `tokens` predictions, of which it holds so many rows at a time.
inline double head_bytes(const Size& size, double tokens) {
  const auto rows = static_cast<double>(plumb::head_rows(size.vocab));
  return 4.0 * std::min(rows, tokens) * static_cast<double>(size.vocab);
}

}  // namespace end_to_end
