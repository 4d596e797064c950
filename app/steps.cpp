#include "steps.hpp"

#include "format.hpp"
#include "progress.hpp"
#include "screen.hpp"

#include <plumb/data/prompts.hpp>
#include <plumb/run/interrupt.hpp>

#include <cstdio>
#include <optional>

namespace plumb { inline namespace v0_1 {

void note(const std::string& text) {
  if (text.empty()) return;
  std::fflush(stdout);  // what was printed before it stands before it
  std::fprintf(stderr, "note: %s\n", harmless(text).c_str());
}

std::vector<Prompt> noted_prompts(const std::string& path) {
  Lines<Prompt> lines = read_prompt_file(path);
  return lines.said.empty() ? std::move(lines.records) : noted(path, std::move(lines));
}

void stop_if_interrupted(const char* what) {
  if (interrupted()) throw Interrupted(str(what, " was interrupted. The same command goes on."));
}

EncodingCount train_sft(Loaded& loaded, const std::vector<Demonstration>& demonstrations,
                        const SftConfig& config) {
  EncodingCount count;
  std::vector<Example> examples;
  for (const Demonstration& d : demonstrations)
    examples.push_back(encode_example(loaded, d, count));
  std::optional<Progress> progress;
  if (loaded.lora.rank > 0) loaded.model = trainable(loaded, ScalarHead::None, config.seed);
  const auto after_update = [&](Index update, Index total, float loss) {
    if (!progress) progress.emplace("fine-tuning", total, "update");
    progress->update(update + 1, str("loss ", fixed(loss, 3), " nats/token"));
    stop_if_interrupted("Fine-tuning");
  };
  const PackedPasses passes = sft_train(*loaded.model, examples, config, after_update);
  if (config.micro_tokens > 0)
    note(str("packed into ", passes.count, " forward passes of at most ", config.micro_tokens,
             " tokens, ", percent(passes.fill()), " full"));
  return count;
}

namespace {

// A model's file and the beginning of its fingerprint: two models may lie in files of one name.
std::string readable_name(const std::string& source, const std::string& fingerprint) {
  std::string name = source.substr(0, source.find_last_not_of('/') + 1);
  name = name.substr(name.rfind('/') + 1);
  for (const std::string_view ending : {".safetensors", ".gguf", ".bin"})
    if (name.ends_with(ending)) name.resize(name.size() - ending.size());
  return str(name, '-', fingerprint.substr(0, 6));
}

}  // namespace

std::vector<Candidates> generate_candidates(const Loaded& loaded,
                                            const std::vector<Prompt>& prompts,
                                            const GenerateSettings& s, std::uint32_t step,
                                            const std::string& label) {
  SampleOptions options = s.sampling;
  check_sampling(options, "generate");
  for (const std::string& text : s.stop) {
    check<DataError>(!text.empty(), "[generate] a stop text is empty, and would stop everything");
    if (!is_utf8(text))
      fail<DataError>(str("[generate] the stop text \"", shown(text), "\" is not UTF-8"));
  }
  std::vector<Tokens> tokens;
  for (const Prompt& prompt : prompts)
    tokens.push_back(encode_prompt(loaded, prompt, options.max_new_tokens));
  options.stops = loaded.stops;
  if (!s.stop.empty()) options.stop_when = stop_at_texts(loaded, s.stop);
  options.step = step;
  Progress progress(label, static_cast<Index>(prompts.size()) * options.responses, "response");
  options.progress = [&](Index done, Index) {
    progress.update(done);
    stop_if_interrupted("Generation");
  };
  const auto responses = sample(*loaded.model, tokens, options);

  const std::string model = fingerprint(loaded);
  const Json sampling = {{"temperature", setting_json(options.sampling.temperature)},
                         {"top_k", options.sampling.top_k},
                         {"top_p", setting_json(options.sampling.top_p)},
                         {"min_p", setting_json(options.sampling.min_p)},
                         {"max_new_tokens", options.max_new_tokens},
                         {"stop", s.stop},
                         {"seed", options.seed},
                         {"step", step},
                         {"precision", kPrecision}};
  std::vector<Candidates> result(prompts.size());
  for (std::size_t i = 0; i < prompts.size(); ++i)
    result[i] = {str("r", step, "-", i),
                 prompts[i].text,
                 {},
                 {},
                 model,
                 json_text(sampling),
                 {},
                 prompts[i].turns,
                 {},
                 0.0,
                 readable_name(loaded.source, model)};
  for (const Response& response : responses) {
    const auto i = static_cast<std::size_t>(response.prompt);
    // A response may end within a character. What a file would keep of it is what everybody sees.
    result[i].responses.push_back(repaired_utf8(response_text(loaded, tokens[i], response.tokens)));
    result[i].finished.push_back(response.finished);
    result[i].tokens.push_back(response.tokens);
  }
  return result;
}

float kl_temperature(const SampleOptions& sampling) {
  return sampling.sampling.temperature > 0 ? sampling.sampling.temperature : 1.0F;
}

double exact_kl(const Loaded& policy, const DeviceModel& reference,
                const std::vector<Prompt>& prompts, const GenerateSettings& s) {
  std::vector<Tokens> tokens;
  for (const Prompt& prompt : prompts)
    tokens.push_back(encode_prompt(policy, prompt, s.sampling.max_new_tokens));
  SampleOptions options;
  options.sampling.temperature = kl_temperature(s.sampling);
  options.max_new_tokens = s.sampling.max_new_tokens;
  options.stops = policy.stops;
  options.seed = s.sampling.seed;
  std::vector<Episode> episodes;
  for (Response& response : sample(*policy.model, tokens, options)) {
    Episode e;
    e.prompt = tokens[static_cast<std::size_t>(response.prompt)];
    e.response = std::move(response.tokens);
    episodes.push_back(std::move(e));
  }
  evaluate(episodes, *policy.model, reference, Critic::None,
           static_cast<const DeviceModel*>(nullptr), options.sampling.temperature);
  double total = 0;
  for (const Episode& e : episodes)
    for (const float kl : e.kl_exact) total += kl;
  return total / static_cast<double>(episodes.size());
}

}}  // namespace plumb::v0_1
