// `plumb chat`: continues texts that are typed, or one that is given.
#include "commands.hpp"
#include "screen.hpp"

#include <plumb/io/output.hpp>

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <iostream>

namespace plumb { inline namespace v0_1 {

namespace {

void print(const std::string& text) { std::fputs(text.c_str(), stdout); }

// One response is shown as it comes, token by token; several, one after another, when all are
// there.
double answer(const Loaded& loaded, const std::string& line, const GenerateSettings& settings,
              std::uint32_t turn) {
  const Tokens prompt = encode_prompt(loaded, line, 1);
  SampleOptions options = settings.sampling;
  options.stops = loaded.stops;
  options.step = turn;
  const auto stops = stop_at_texts(loaded, settings.stop);
  const bool streams = options.responses == 1;
  std::size_t shown = 0;
  HarmlessStream terminal(Layout::Lines);
  options.stop_when = [&](std::span<const std::int32_t> response) {
    if (streams) {
      const std::string text = response_text(loaded, prompt, response);
      print(terminal.add(std::string_view(text).substr(std::min(shown, text.size()))));
      std::fflush(stdout);
      shown = text.size();
    }
    return !settings.stop.empty() && stops(response);
  };
  // A model without a chat form goes on with the text; one with it answers.
  const std::string begun = loaded.chat == ChatForm{} ? line : std::string();
  if (streams) print(terminal.add(begun));
  const auto responses = sample(*loaded.model, {prompt}, options);
  double tokens = 0;
  if (streams) print(terminal.end() + "\n");
  for (std::size_t i = 0; i < responses.size(); ++i) {
    tokens += static_cast<double>(responses[i].tokens.size());
    if (!streams)
      print(str("[", i + 1, "] ",
                harmless(begun + response_text(loaded, prompt, responses[i].tokens), Layout::Lines),
                "\n"));
  }
  return tokens;
}

}  // namespace

void chat_command(const ChatCommand& c, Json& results) {
  check_sampling(c.settings.sampling, "chat");
  const Loaded loaded = load_model(c.from.model, c.from.tokenizer, c.from.chat);
  GenerateSettings settings = c.settings;
  take_temperature_of_form(settings.sampling.sampling, c.temperature_said, loaded);
  const bool person = ::isatty(STDIN_FILENO) == 1 && c.prompt.empty();
  if (person)
    std::printf("%s: type %s; an empty line or Ctrl-D ends.\n", harmless(loaded.source).c_str(),
                loaded.chat == ChatForm{} ? "how a text begins" : "a question");
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
      tokens += answer(loaded, line, settings, turn);
    } catch (const DataError& error) {
      if (!person) throw;
      std::printf("%s\n", harmless(error.what()).c_str());
    }
    flush_standard_output();
    seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (!c.prompt.empty()) break;
  }
  results.update({{"turns", turn + (c.prompt.empty() ? 0U : 1U)},
                  {"tokens", tokens},
                  {"tokens_per_second", seconds > 0 ? tokens / seconds : 0.0}});
}

}}  // namespace plumb::v0_1
