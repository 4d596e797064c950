// Rankings out of Label Studio's exports: a task with its annotations,
//
//   {"data":{…},"annotations":[{"result":[{"type":"ranker","value":{"ranker":{"rank":["id1",…]}}}],
//   "completed_by","was_cancelled","lead_time"},…]}
//
// and JSON-MIN, one annotation a record, flattened into the task. Of a Ranker's result the items of
// the task's list in the order of their ids, of a Pairwise one "left" or "right" of two texts.
// Several buckets are refused: the file does not say which is better. Sources: Label Studio, "Task
// format", tags Ranker and Pairwise; label-studio-converter.
#pragma once

#include <plumb/data/annotation.hpp>

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 { namespace detail {

/// The value of a result that ranks, in a list of results that each have a "value" or, in JSON-MIN,
/// are one; null if there is none.
inline const Json* ranking_result(const Json& results, const JsonRecord& r, std::string* compared) {
  const Json* found = nullptr;
  for (const Json& result : results) {
    if (!result.is_object()) bad_record("expected only objects as results", r.where);
    const JsonRecord one{result, r.line, r.where};
    const Json& value = compared != nullptr ? one.at("value") : result;
    if (!value.is_object() || !(value.contains("ranker") || value.contains("selected"))) continue;
    if (found != nullptr)
      bad_record(
          "an annotation ranks twice, and one Ranker or Pairwise is read. HINT: export a "
          "project that has one",
          r.where);
    found = &value;
    if (compared != nullptr) *compared = name_of(one.at("to_name"));
  }
  return found;
}

inline std::vector<Annotation> label_studio_annotations(const JsonRecord& r) {
  std::vector<Annotation> out;
  for (const Json& annotation : r.list("annotations")) {
    if (!annotation.is_object()) bad_record("expected only objects in \"annotations\"", r.where);
    const JsonRecord a{annotation, r.line, r.where};
    Annotation one{annotator_of(a.at("completed_by")),
                   a.text_or("created_at", ""),
                   0.0,
                   a.at("was_cancelled") == true,
                   "",
                   nullptr,
                   ""};
    if (a.at("lead_time").is_number()) one.seconds = a.at("lead_time").get<double>();
    if (!one.withdrawn && !a.list("result").empty()) {
      one.value = ranking_result(a.at("result"), r, &one.compared);
      if (one.value == nullptr)
        bad_record(str("an annotation has no result of a Ranker or a Pairwise, but of \"",
                       shown(name_of(JsonRecord{a.at("result")[0], r.line, r.where}.at("type"))),
                       "\", of which the file does not say what is better. HINT: export a project "
                       "whose labelling ranks"),
                   r.where);
    }
    out.push_back(std::move(one));
  }
  return out;
}

inline std::vector<Annotation> json_min_annotations(const JsonRecord& r) {
  Annotation one{
      annotator_of(r.at("annotator")), r.text_or("created_at", ""), 0.0, false, "", nullptr, ""};
  if (r.at("lead_time").is_number()) one.seconds = r.at("lead_time").get<double>();
  for (const auto& [key, column] : r.json.items()) {
    if (!column.is_array() || column.empty() || !column[0].is_object() ||
        !(column[0].contains("ranker") || column[0].contains("selected")))
      continue;
    if (one.value != nullptr)
      bad_record(
          "an annotation ranks twice, and one Ranker or Pairwise is read. HINT: export a "
          "project that has one",
          r.where);
    one.value = ranking_result(column, r, nullptr);
  }
  return {std::move(one)};
}

/// The list in a task whose items a Ranker ranks: objects with "id" and "body" or "title".
inline Ranked ranker_items(const JsonRecord& data) {
  Ranked out;
  for (const auto& [key, list] : data.json.items()) {
    if (!list.is_array() || list.empty() ||
        !std::all_of(list.begin(), list.end(), [](const Json& item) {
          return item.is_object() && item.contains("id") && !name_of(item["id"]).empty();
        }))
      continue;
    if (!out.names.empty())
      bad_record("two lists of items with \"id\" are in the task, and one can be ranked",
                 data.where);
    for (const Json& item : list) {
      const JsonRecord one{item, data.line, data.where};
      const std::string id = name_of(item["id"]);
      if (!out.add(id, one.text(one.has("body") ? "body" : "title")))
        bad_record(str("two items have the \"id\" \"", shown(id.substr(0, 80)), "\""), data.where);
    }
  }
  if (out.names.empty())
    bad_record(
        "expected a list of items, {\"id\",\"title\",\"body\"}, in the task that a Ranker "
        "ranks",
        data.where);
  require_few(out.names.size(), data.where);
  return out;
}

/// A Ranker's order: a list, or an object of one list; what is in none ("_" is the list from which
/// nothing was taken) is unranked.
inline std::vector<int> ranks_of_ranker(const Json& said, const Ranked& items,
                                        const JsonRecord& r) {
  const Json* order = said.is_array() ? &said : nullptr;
  std::string buckets;
  if (said.is_object())
    for (const auto& [name, list] : said.items()) {
      if (name == "_") continue;
      if (order != nullptr)
        bad_record(str("a Ranker sorted into buckets, \"", shown(buckets), "\", \"", shown(name),
                       "\"…, of which the file does not say what is better. HINT: a Ranker without "
                       "buckets, or of one"),
                   r.where);
      buckets = name;
      order = &list;
    }
  if (order == nullptr && said.is_object()) return std::vector<int>(items.names.size(), -1);
  if (order == nullptr || !order->is_array())
    bad_record("expected a list of ids as what a Ranker says", r.where);
  std::vector<std::pair<std::string, std::optional<double>>> places;
  for (const Json& id : *order) {
    if (name_of(id).empty()) bad_record("expected only ids in what a Ranker says", r.where);
    places.emplace_back(name_of(id), static_cast<double>(places.size()));
  }
  return ranks_from_places(places, items, said.is_array(), r);
}

/// The two texts of a task that a Pairwise compares: those that it names, or the only two whose
/// names differ in their end, 1 and 2, a and b, left and right.
inline std::pair<std::string, std::string> compared_texts(const JsonRecord& data,
                                                          const std::string& names) {
  const std::size_t comma = names.find(',');
  if (comma != names.npos) {
    const std::string left = names.substr(0, comma), right = names.substr(comma + 1);
    if (data.has_text(left.c_str()) && data.has_text(right.c_str())) return {left, right};
  }
  std::vector<std::pair<std::string, std::string>> found;
  constexpr std::pair<std::string_view, std::string_view> kEnds[] = {
      {"1", "2"}, {"a", "b"}, {"A", "B"}, {"left", "right"}};
  for (const auto& [key, value] : data.json.items())
    for (const auto& [left, right] : kEnds) {
      if (!key.ends_with(left)) continue;
      const std::string other = key.substr(0, key.size() - left.size()) + std::string(right);
      if (data.has_text(key.c_str()) && data.has_text(other.c_str()))
        found.emplace_back(key, other);
    }
  if (found.size() != 1)
    bad_record(
        "which texts a Pairwise compares cannot be told. HINT: name the task's texts, and "
        "the tags that show them, \"answer1\" and \"answer2\"",
        data.where);
  return found[0];
}

inline void rankings_of_label_studio(const JsonRecord& r, DataForm form, Ranking& out,
                                     const std::vector<Annotation>& answers,
                                     std::vector<std::vector<int>>& ranks) {
  const bool flat = form == DataForm::LabelStudioMin;
  const JsonRecord data{flat ? r.json : r.at("data"), r.line, r.where};
  std::optional<Ranked> items;
  std::pair<std::string, std::string> pair;
  for (const Annotation& a : answers) {
    if (a.withdrawn || a.value == nullptr) {
      ranks.emplace_back();
      continue;
    }
    const bool ranker = a.value->contains("ranker");
    if (items && ranker != pair.first.empty())
      bad_record("of one task, an annotation ranks a list and another compares a pair", r.where);
    if (!items && ranker) {
      items = ranker_items(data);
    } else if (!items) {
      pair = compared_texts(data, a.compared);
      items.emplace();
      items->add("left", data.text(pair.first.c_str()));
      items->add("right", data.text(pair.second.c_str()));
    }
    if (ranker) {
      ranks.push_back(ranks_of_ranker((*a.value)["ranker"], *items, r));
      continue;
    }
    const Json& side = (*a.value)["selected"];
    if (side != "left" && side != "right" && side != "none" && !side.is_null())
      bad_record("expected \"left\" or \"right\" as what a Pairwise says", r.where);
    const int left = side == "left" ? 0 : side == "right" ? 1 : -1;
    ranks.push_back({left, left < 0 ? -1 : 1 - left});
  }
  if (!items) return;
  out.responses = std::move(items->texts);
  prompt_of_annotated(data, {"prompt", "instruction", "question"}, out,
                      [&](const std::string& name, const Json& value) {
                        return !flat && value.is_string() && name != pair.first &&
                               name != pair.second;
                      });
}

}}}  // namespace plumb::v0_1::detail
