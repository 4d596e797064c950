#include "watch.hpp"

#include "alarms.hpp"

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

Json row_json(const MetricRow& row) {
  Json values = Json::object();
  for (const auto& [name, value] : row.values)
    if (std::isfinite(value)) values[name] = value;
  return {{"step", row.step}, {"values", values}};
}

}  // namespace

StudioReply WatchStudio::handle(const std::string& action, const std::string&) const {
  if (action == "open") return {200, "{\"mode\":\"watch\"}"};
  return {404, "{\"kind\":\"path\",\"error\":\"there is no such action\"}"};
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
          if (row >= from) run["rows"].push_back(row_json(rows[row]));
        }
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
