#include "episodes.hpp"

#include "models.hpp"
#include "run_directory.hpp"
#include "screen.hpp"

#include <plumb/io/settings.hpp>

#include <charconv>
#include <cmath>
#include <fstream>
#include <utility>

namespace plumb { inline namespace v0_1 {

namespace {

constexpr std::string_view kBefore = "{\"step\":";

// Calls body(line, bytes) on each whole line, `bytes` with its end, until it says false. Returns
// what stands after the last one.
template <class Body>
std::string for_lines(const std::string& path, Body body) {
  std::ifstream file(path, std::ios::binary);
  std::string line;
  while (std::getline(file, line)) {
    if (file.eof()) return line;
    if (!body(line, line.size() + 1)) return {};
  }
  return {};
}

std::string numbers(const std::vector<float>& values) {
  std::string out = "[";
  for (const float x : values) {
    if (out.size() > 1) out += ',';
    out += std::isfinite(x) ? number_text(x) : "null";
  }
  return out + "]";
}

std::string as_json(const std::string& text) { return json_text(Json(text)); }

std::string episode_text(const Language& language, const Episode& e, const double* judged) {
  std::string out =
      str("{\"prompt\":", as_json(repaired_utf8(language.tokenizer->decode(e.prompt))),
          ",\"group\":", e.group, ",\"finished\":", e.finished ? "true" : "false",
          ",\"raw_score\":", number_text(e.raw_score), ",\"score\":", number_text(e.score));
  if (judged != nullptr) out += str(",\"judge\":", number_text(*judged));
  std::string texts, ids;
  for (const std::string& text : token_texts(language, e))
    texts += (texts.empty() ? "" : ",") + as_json(text);
  for (const std::int32_t token : e.response) ids += str(ids.empty() ? "" : ",", token);
  out += str(",\"text\":[", texts, "],\"tokens\":[", ids, "]");
  const auto add = [&](const char* name, const std::vector<float>& values) {
    if (!values.empty()) out += str(",\"", name, "\":", numbers(values));
  };
  add("logprobs", e.logprobs);
  add("ref_logprobs", e.ref_logprobs);
  add("kl_exact", e.kl_exact);
  add("values", e.values);
  add("rewards", e.rewards);
  add("advantages", e.advantages);
  return out + "}";
}

// A file's line of a step, or its last one.
std::optional<Json> line_of(const std::string& path, std::optional<Index> step) {
  std::string found;
  for_lines(path, [&](std::string& line, std::size_t) {
    const Index at = step_of_line(line);
    if (!step || at == *step) found = std::move(line);
    return !step || at < *step;
  });
  if (found.empty()) return {};
  Json json = parse_json(found, shown(path));
  if (!json.is_object() || !json.contains("episodes") || !json["episodes"].is_array())
    fail<DataError>(str("[episodes] ", shown(path),
                        " has a line without \"episodes\". HINT: the file was edited, or is of "
                        "something else; move it away"));
  return std::optional<Json>(std::in_place, std::move(json));
}

}  // namespace

Index step_of_line(std::string_view line) {
  Index step = -1;
  if (!line.starts_with(kBefore)) return -1;
  line.remove_prefix(kBefore.size());
  std::from_chars(line.data(), line.data() + line.size(), step);
  return step;
}

std::vector<std::string> token_texts(const Language& language, const Episode& episode) {
  std::vector<std::string> out;
  std::string waiting;
  std::int32_t before = episode.prompt.back();
  for (const std::int32_t token : episode.response) {
    out.emplace_back();
    if (detail::is_stop(language, token)) continue;
    waiting += bytes_after(language, before, token);
    before = token;
    std::string_view rest = waiting;
    while (!rest.empty()) {
      const detail::Utf8Character c = detail::first_character(rest);
      if (c.cut) break;
      out.back() += repaired_utf8(rest.substr(0, c.bytes));
      rest.remove_prefix(c.bytes);
    }
    waiting = std::string(rest);
  }
  if (!out.empty()) out.back() += repaired_utf8(waiting);
  return out;
}

std::string episodes_line(const Language& language, Index step, double beta,
                          std::span<const Episode> episodes, const std::vector<double>& judged) {
  std::string out =
      str(kBefore, step, ",\"beta\":", number_text(static_cast<float>(beta)), ",\"episodes\":[");
  for (std::size_t i = 0; i < episodes.size(); ++i)
    out += (i == 0 ? "" : ",") +
           episode_text(language, episodes[i], i < judged.size() ? &judged[i] : nullptr);
  return out + "]}\n";
}

void EpisodeRecords::truncate_after(Index step) {
  const std::string& path = file_.path();
  const auto bad = [&](std::string_view line) {
    fail<DataError>(str("[episodes] ", shown(path), " has a line without a step: \"",
                        shown(line.substr(0, 60)),
                        "\". HINT: the file was edited, or is of something else; move it away"));
  };
  std::size_t keep = 0;
  bool beyond = false;
  const std::string tail = for_lines(path, [&](const std::string& line, std::size_t bytes) {
    const Index at = step_of_line(line);
    if (at < 0) bad(line);
    beyond = beyond || at > step;
    if (!beyond) keep += bytes;
    return true;
  });
  if (!detail::torn_line(tail, kBefore)) bad(tail);
  file_.truncate(keep);
}

std::string episodes_path(const std::string& path) {
  return detail::directory_of(path) + "episodes.jsonl";
}

std::optional<Json> recorded_episodes(const std::string& run, std::optional<Index> step) {
  if (const std::string path = run + "/episodes.jsonl"; detail::file_exists(path))
    return line_of(path, step);
  std::vector<std::string> rounds;
  for (std::string round = round_directory(run, 0);
       detail::file_exists(round + "/candidates.jsonl");
       round = round_directory(run, static_cast<Index>(rounds.size())))
    rounds.push_back(round + "/episodes.jsonl");
  for (; !rounds.empty(); rounds.pop_back())
    if (detail::file_exists(rounds.back()))
      if (auto found = line_of(rounds.back(), step)) return found;
  return {};
}

}}  // namespace plumb::v0_1
