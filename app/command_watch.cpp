// `plumb watch`: what the page of `plumb studio --watch` shows of one iteration of a run, as text
// and as JSON.
#include "commands.hpp"
#include "format.hpp"
#include "screen.hpp"
#include "watch.hpp"

#include <cstdio>

namespace plumb { inline namespace v0_1 {

namespace {

// A column of the table; the log-ratio is made of two others.
struct Column {
  const char* name;
  const char* key;
  const char* minus = nullptr;
};
constexpr Column kColumns[] = {{"log-prob", "logprobs"},
                               {"reference", "ref_logprobs"},
                               {"log-ratio", "logprobs", "ref_logprobs"},
                               {"exact KL", "kl_exact"},
                               {"value", "values"},
                               {"reward", "rewards"},
                               {"advantage", "advantages"}};

std::string cell(const Json& episode, const Column& column, std::size_t t) {
  const auto at = [&](const char* key) {
    const Json& values = episode.at(key);
    return t < values.size() && values[t].is_number() ? values[t].get<double>() : std::nan("");
  };
  const double value = at(column.key) - (column.minus != nullptr ? at(column.minus) : 0.0);
  return std::isnan(value) ? "" : fixed(value, 4);
}

void print_line(const std::string& place, const std::string& text,
                const std::vector<std::string>& cells) {
  std::printf("  %5s  %-16s", place.c_str(), text.c_str());
  for (const std::string& one : cells) std::printf(" %10s", one.c_str());
  std::printf("\n");
}

void print_episode(const Json& e, std::size_t number, std::size_t of) {
  const std::size_t tokens = e.at("tokens").size();
  std::printf("\nresponse %zu of %zu: score %s", number, of,
              fixed(e.at("score").get<double>(), 4).c_str());
  if (e.at("raw_score") != e.at("score"))
    std::printf(" (as given %s)", fixed(e.at("raw_score").get<double>(), 4).c_str());
  if (e.contains("judge")) std::printf(", rule %s", fixed(e.at("judge").get<double>(), 4).c_str());
  std::printf(", %zu tokens, %s\n", tokens,
              e.at("finished").get<bool>() ? "ended" : "cut at the longest length");
  std::printf("prompt: %s\n", harmless(e.at("prompt").get<std::string>()).c_str());
  std::vector<Column> columns;
  std::vector<std::string> names;
  std::size_t steps = tokens;
  for (const Column& column : kColumns)
    if (e.contains(column.key)) {
      columns.push_back(column);
      names.emplace_back(column.name);
      steps = std::max(steps, e.at(column.key).size());
    }
  print_line("token", "", names);
  for (std::size_t t = 0; t < steps; ++t) {
    std::vector<std::string> cells;
    for (const Column& column : columns) cells.push_back(cell(e, column, t));
    const std::string text =
        t < tokens ? harmless(json_text(e.at("text").at(t))) : std::string("(after the end)");
    print_line(str(t), text, cells);
  }
}

}  // namespace

void watch_command(const WatchCommand& c, Json& results) {
  const std::optional<Index> step = c.iteration < 0 ? std::optional<Index>() : c.iteration;
  const std::optional<Json> found = step_json(c.run, step);
  if (!found)
    fail<DataError>(str("[watch] ", shown(c.run), " keeps no episodes",
                        step ? str(" of iteration ", *step) : std::string(),
                        ". HINT: plumb ppo, grpo and align by a reward model keep so many of each "
                        "iteration as --episodes-kept says"));
  const Json& episodes = found->at("episodes");
  const std::size_t count = episodes.size();
  if (c.sample >= 0 && static_cast<std::size_t>(c.sample) >= count)
    fail<DataError>(str("[watch] --sample ", c.sample, ": the iteration keeps ", count,
                        " responses, 0 to ", count - 1));
  try {
    std::printf("%s, iteration %lld\n", harmless(c.run).c_str(),
                static_cast<long long>(found->at("step").get<Index>()));
    for (const auto& item : found->at("values").items())
      std::printf("  %-42s %s\n", harmless(item.key()).c_str(),
                  general(item.value().get<double>(), 6).c_str());
    for (const Json& alarm : found->at("alarms"))
      std::printf("alarm: %s\n", harmless(alarm.get<std::string>()).c_str());
    for (std::size_t i = 0; i < count; ++i)
      if (c.sample < 0 || static_cast<std::size_t>(c.sample) == i)
        print_episode(episodes[i], i, count);
  } catch (const nlohmann::json::exception& error) {
    fail<DataError>(str("[watch] ", shown(c.run), ": its episodes are not as they are written: ",
                        error.what(), ". HINT: the file was edited"));
  }
  results.update(*found);
}

}}  // namespace plumb::v0_1
