// `plumb chat`: continues texts that are typed, or one that is given.
#include "chat_turn.hpp"
#include "commands.hpp"
#include "format.hpp"
#include "screen.hpp"

#include <plumb/core/real.hpp>
#include <plumb/io/output.hpp>

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <iostream>
#include <optional>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

namespace {

void print(const std::string& text) { std::fputs(text.c_str(), stdout); }

// A response that is shown as it comes, token by token.
class Stream {
 public:
  explicit Stream(const std::string& begun) { print(terminal_.add(begun)); }
  /// `text`: the response so far.
  void show(std::string_view text) {
    print(terminal_.add(text.substr(std::min(shown_, text.size()))));
    std::fflush(stdout);
    shown_ = text.size();
  }
  void end() { print(terminal_.end() + "\n"); }

 private:
  HarmlessStream terminal_{Layout::Lines};
  std::size_t shown_ = 0;
};

// A model without a chat form goes on with the text; one with it answers.
std::string begun_by(const Loaded& loaded, const std::string& line) {
  return loaded.chat == ChatForm{} ? line : std::string();
}

// One response is shown as it comes; several, one after another, when all are there.
double answer(const Loaded& loaded, const std::string& line, const GenerateSettings& settings,
              std::uint32_t turn) {
  const Tokens prompt = encode_prompt(loaded, line, 1);
  const std::string begun = begun_by(loaded, line);
  SampleOptions options = settings.sampling;
  options.stops = loaded.stops;
  options.step = turn;
  const auto stops = stop_at_texts(loaded, settings.stop);
  std::optional<Stream> stream;
  if (options.responses == 1) stream.emplace(begun);
  options.stop_when = [&](std::span<const std::int32_t> response) {
    if (stream) stream->show(response_text(loaded, prompt, response));
    return !settings.stop.empty() && stops(response);
  };
  const auto responses = sample(*loaded.model, {prompt}, options);
  double tokens = 0;
  if (stream) stream->end();
  for (std::size_t i = 0; i < responses.size(); ++i) {
    tokens += static_cast<double>(responses[i].tokens.size());
    if (!stream)
      print(str("[", i + 1, "] ",
                harmless(begun + response_text(loaded, prompt, responses[i].tokens), Layout::Lines),
                "\n"));
  }
  return tokens;
}

// Text on one line, in quotation marks.
std::string on_one_line(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '\n')
      out += "\\n";
    else if (c == '\t')
      out += "\\t";
    else
      out += c;
  }
  return harmless(out + '"');
}

std::size_t columns_of(std::string_view text) {
  std::size_t count = 0;
  for (; !text.empty(); ++count) text.remove_prefix(detail::utf8_start(text).bytes);
  return count;
}

// Padded, or cut, to so many columns.
std::string in_columns(std::string text, std::size_t columns, bool right = false) {
  while (columns_of(text) > columns) {
    std::size_t end = text.size() - 1;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) --end;
    text.resize(end);
  }
  const std::string room(columns - columns_of(text), ' ');
  return right ? room + text : text + room;
}

// With a digit left where there is not one in a thousand.
std::string chance(double logprob) {
  const double share = real::exp(logprob);
  return share < 0.001 ? general(100.0 * share, 1) + " %" : percent(share);
}

// A row a token, of at most 80 columns: what it is, how probable under each model, and what else
// its own found likely.
std::string table_of(const ChatTurn& turn, std::size_t side) {
  std::string out = str("   #  token               ",
                        turn.compared ? "     A        B   " : "chance", "    and else\n");
  for (const ChatPiece& piece : turn.responses[side].pieces)
    for (std::size_t i = 0; i < piece.tokens.size(); ++i) {
      const ChatToken& token = piece.tokens[i];
      const bool end = piece.text.empty();  // a name, and no text
      std::string line = in_columns(str(piece.begin + i + 1), 4, true) + "  " +
                         in_columns(end ? token.text : on_one_line(token.text), 18);
      if (turn.compared) {
        line += in_columns(chance(side == 0 ? token.logprob : *token.beside), 8, true) + " " +
                in_columns(chance(side == 0 ? *token.beside : token.logprob), 8, true) +
                (token.differs() ? " *" : "  ");
      } else {
        line += in_columns(chance(token.logprob), 8, true);
      }
      line += "  ";
      for (const LikelyToken& other : token.likely) {
        if (other.id == token.id) continue;
        const std::string more = str("  ", on_one_line(other.text), " ", chance(other.logprob));
        if (columns_of(line) + columns_of(more) > 80) break;
        line += more;
      }
      out += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
    }
  return out;
}

// One response of each model, as they come; then where they differ and how probable they were.
double answer_beside(std::span<const Loaded* const> models, const std::string& line,
                     const GenerateSettings& settings, std::uint32_t number, bool probabilities,
                     Json& exchanges) {
  std::optional<Stream> stream;
  std::size_t shown = models.size();  // nobody's yet
  const auto heading = [&](std::size_t side) {
    return models.size() == 1 ? std::string()
                              : str("AB"[side], ": ", harmless(models[side]->source), "\n");
  };
  const ChatTurn turn =
      chat_turn(models, line, settings, number, [&](std::size_t side, std::string_view text) {
        if (side != shown) {
          if (stream) stream->end();
          print((stream ? "\n" : "") + heading(side));
          stream.emplace(begun_by(*models[side], line));
          shown = side;
        }
        stream->show(text);
        return false;
      });
  stream->end();
  if (models.size() == 2) print("\n" + wrap(difference_in_words(turn), 80, ""));
  double tokens = 0;
  for (std::size_t side = 0; side < models.size(); ++side) {
    tokens += static_cast<double>(turn.responses[side].tokens());
    if (probabilities) print("\n" + heading(side) + table_of(turn, side));
  }
  if (probabilities && turn.compared)
    print("\n*: one model finds it at least twice as probable as the other.\n");
  Json exchange = turn_json(turn);
  exchange["prompt"] = line;
  exchanges.push_back(std::move(exchange));
  return tokens;
}

}  // namespace

void chat_command(const ChatCommand& c, Json& results) {
  check_sampling(c.settings.sampling, "chat");
  const bool looks = c.probabilities || !c.beside.empty();
  check<DataError>(
      !looks || c.settings.sampling.responses == 1,
      "[chat] --beside and --probabilities are of one response. HINT: leave --responses "
      "out");
  const Loaded loaded = load_model(c.from.model, c.from.tokenizer, c.from.chat);
  std::optional<Loaded> beside;
  if (!c.beside.empty()) beside = load_model(c.beside, c.from.tokenizer, c.from.chat);
  std::vector<const Loaded*> models = {&loaded};
  if (beside) models.push_back(&*beside);
  Json exchanges = Json::array();
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
      tokens += looks ? answer_beside(models, line, settings, turn, c.probabilities, exchanges)
                      : answer(loaded, line, settings, turn);
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
  if (looks) results["exchanges"] = std::move(exchanges);
}

}}  // namespace plumb::v0_1
