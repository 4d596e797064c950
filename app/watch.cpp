#include "watch.hpp"

#include "alarms.hpp"
#include "episodes.hpp"
#include "run_directory.hpp"
#include "studio.hpp"

#include <plumb/io/file.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string_view>

namespace plumb { inline namespace v0_1 {

namespace {

// Numbers of rows of an event's id, "12,40"; what is no number is 0.
std::vector<std::size_t> counts_in(std::string_view id, std::size_t runs) {
  std::vector<std::size_t> out(runs, 0);
  for (std::size_t& count : out) {
    const std::size_t end = std::min(id.find(','), id.size());
    std::from_chars(id.data(), id.data() + end, count);
    id.remove_prefix(std::min(end + 1, id.size()));
  }
  return out;
}

Json values_json(const Metrics& row) {
  Json values = Json::object();
  for (const auto& [name, value] : row)
    if (std::isfinite(value)) values[name] = value;
  return values;
}

// Adds to rows what timing.jsonl says of the same steps, if there is one.
void add_times(const std::string& run, std::span<Json> rows) {
  const std::string path = run + "/timing.jsonl";
  if (rows.empty() || !detail::file_exists(path)) return;
  const std::string text = read_file(path);
  std::size_t at = 0;
  for (const std::string_view line : detail::whole_lines(text)) {
    const Index step = step_of_line(line);  // of rows that are old not all is read: they are many
    while (at < rows.size() && rows[at]["step"].get<Index>() < step) ++at;
    if (at == rows.size()) return;
    if (rows[at]["step"].get<Index>() != step) continue;
    const Json times = parse_json(line, shown(path));
    for (const auto& item : times.items())
      if (item.key() != "step" && item.value().is_number())
        rows[at]["values"][item.key()] = item.value();
  }
}

}  // namespace

std::optional<Json> step_json(const std::string& run, std::optional<Index> step) {
  std::optional<Json> kept = recorded_episodes(run, step);
  if (!kept) return {};
  Json& out = *kept;
  out["values"] = Json::object();
  out["alarms"] = Json::array();
  const std::string path = run + "/metrics.csv";
  if (!detail::file_exists(path)) return kept;
  Alarms alarms("step");
  for (const MetricRow& row : read_metrics(path)) {
    if (row.step > out["step"].get<Index>()) break;
    for (const std::string& alarm : alarms.watch(row.step, row.values))
      out["alarms"].push_back(alarm);
    if (row.step == out["step"].get<Index>()) out["values"] = values_json(row.values);
  }
  return kept;
}

StudioReply WatchStudio::handle(const std::string& action, const std::string& body) const {
  if (action == "open") return {200, "{\"mode\":\"watch\"}"};
  if (action != "episodes" && action != "ranking" && action != "turn")
    return refusal(404, "path", "[studio] there is no such action");
  try {
    const Json json = parse_json(body, "the page's request");
    const auto number = [&](const char* key) {
      if (!json.is_object() || !json.contains(key) || !json[key].is_number_unsigned())
        fail<DataError>(str("[studio] '", key, "' must be a whole number of 0 or more"));
      return json[key].get<std::uint64_t>();
    };
    const std::uint64_t run = number("run");
    if (run >= runs_.size())
      return refusal(404, "run", str("[studio] there is no run ", run, " of ", runs_.size()));
    if (action != "episodes") {
      constexpr std::uint64_t most = 1 << 30;
      const auto round = static_cast<Index>(std::min(number("round"), most));
      const auto ranking = static_cast<Index>(std::min(number("ranking"), most));
      if (!detail::file_exists(round_directory(runs_[run], round) + "/rankings.jsonl"))
        return refusal(404, "ranking", "[studio] the run has no rankings of that round");
      if (action == "turn") job_->start(runs_[run], round, ranking);
      return {200, json_text(job_->ranking(runs_[run], round, ranking))};
    }
    std::optional<Index> step;
    if (!json.contains("iteration") || !json["iteration"].is_null())
      step = static_cast<Index>(std::min<std::uint64_t>(number("iteration"), 1ULL << 62U));
    const std::optional<Json> found = step_json(runs_[run], step);
    if (!found) return refusal(404, "episodes", "[studio] it keeps no episodes of that iteration");
    return {200, json_text(*found)};
  } catch (const std::exception& error) {
    return refusal(400, "request", error.what());
  }
}

StudioEvent WatchStudio::after(const std::string& id) const {
  const std::vector<std::size_t> before = counts_in(id, runs_.size());
  StudioEvent out;
  bool fresh = id.empty();
  Json all = Json::array();
  for (std::size_t i = 0; i < runs_.size(); ++i) {
    Json run = {
        {"name", runs_[i]}, {"from", 0}, {"rows", Json::array()}, {"alarms", Json::array()}};
    std::size_t count = 0;
    try {
      const std::string path = runs_[i] + "/metrics.csv";
      if (detail::file_exists(path)) {
        const std::vector<MetricRow> rows = read_metrics(path);
        count = rows.size();
        const std::size_t from = before[i] <= count ? before[i] : 0;  // it went back: all anew
        run["from"] = from;
        Alarms alarms("step");
        for (std::size_t row = 0; row < count; ++row) {
          for (const std::string& alarm : alarms.watch(rows[row].step, rows[row].values))
            run["alarms"].push_back(alarm);
          if (row < from) continue;
          run["rows"].push_back(
              {{"step", rows[row].step}, {"values", values_json(rows[row].values)}});
        }
        add_times(runs_[i], run["rows"].get_ref<Json::array_t&>());
      }
    } catch (const Error& error) {  // half a line of another program's, or no metrics at all
      run["error"] = error.what();
      run["from"] = count = before[i];
    }
    fresh = fresh || count != before[i];
    out.id += str(i == 0 ? "" : ",", count);
    all.push_back(std::move(run));
  }
  if (fresh) out.data = json_text({{"runs", all}});
  return out;
}

}}  // namespace plumb::v0_1
