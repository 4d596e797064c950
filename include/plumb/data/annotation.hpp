// What exports of others' pages (data/argilla.hpp, data/label_studio.hpp) have in common: answers
// of several people to one record, items known by names, and a prompt beside them.
#pragma once

#include <plumb/data/forms.hpp>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 { namespace detail {

/// One person's answer to a record.
struct Annotation {
  std::string by, time;
  double seconds = 0.0;  ///< that it took; 0: unsaid
  bool withdrawn = false;
  std::string question;         ///< Argilla's
  const Json* value = nullptr;  ///< what was said; null: nothing
  std::string compared;         ///< Label Studio's "to_name"
};

/// Text, or a whole number as text; nothing for another value.
inline std::string name_of(const Json& json) {
  if (json.is_string()) return json.get<std::string>();
  return json.is_number_integer() ? json.dump() : std::string();
}

/// An annotator: a name or number, or an object with "email" or "id".
inline std::string annotator_of(const Json& json) {
  if (!json.is_object()) return name_of(json);
  for (const char* key : {"email", "id"})
    if (json.contains(key)) return name_of(json[key]);
  return {};
}

inline bool is_annotated(DataForm form) {
  return form == DataForm::Argilla || form == DataForm::ArgillaFlat ||
         form == DataForm::LabelStudio || form == DataForm::LabelStudioMin;
}

/// Texts that are ranked, each with the name under which answers speak of it.
struct Ranked {
  std::vector<std::string> texts, names;
  std::map<std::string, std::size_t> place;  ///< of a name

  /// False if there is one of this name.
  bool add(std::string name, std::string text) {
    if (!place.try_emplace(name, names.size()).second) return false;
    names.push_back(std::move(name));
    texts.push_back(std::move(text));
    return true;
  }
};

/// Ranks of `items` from places (the smaller the better, none is unranked) of names, each once.
inline std::vector<int> ranks_from_places(
    const std::vector<std::pair<std::string, std::optional<double>>>& places, const Ranked& items,
    bool all, const JsonRecord& r) {
  require_few(items.names.size(), r.where);
  std::vector<double> scores(items.names.size(), std::nan(""));
  std::vector<bool> named(items.names.size(), false);
  for (const auto& [name, place] : places) {
    const auto found = items.place.find(name);
    if (found == items.place.end())
      bad_record(str("\"", shown(name.substr(0, 80)), "\" is ranked, and is none of the ",
                     items.names.size(), " items"),
                 r.where);
    const std::size_t i = found->second;
    if (named[i]) bad_record(str("\"", shown(name.substr(0, 80)), "\" is ranked twice"), r.where);
    named[i] = true;
    if (place) scores[i] = -*place;
  }
  const auto missing = std::find(named.begin(), named.end(), false);
  if (all && missing != named.end())
    bad_record(str("a ranking leaves out \"",
                   shown(items.names[static_cast<std::size_t>(missing - named.begin())]), "\""),
               r.where);
  return ranks_from_scores(scores);
}

/// The prompt under the one of `names` that is there first; else, if there is only one text that
/// `is_other` allows, under that.
template <class Other>
void prompt_of_annotated(const JsonRecord& fields, std::initializer_list<const char*> names,
                         Ranking& out, Other&& is_other) {
  std::string key, others;
  std::size_t count = 0;
  for (const auto& [name, value] : fields.json.items()) {
    if (value.is_null() || !is_other(name, value)) continue;
    key = name;
    others += str(count++ > 0 ? ", " : "", '"', shown(name), '"');
  }
  for (auto name = std::rbegin(names); name != std::rend(names); ++name)
    if (fields.has_text(*name) || fields.has_list(*name)) key = *name, count = 1;
  if (count != 1)
    bad_record(
        str("which text is the prompt cannot be told",
            count > 0 ? ", of: " + others : std::string(), ". HINT: one field named \"prompt\""),
        fields.where);
  read_prompt(fields, key.c_str(), out, &Ranking::prompt);
}

}}}  // namespace plumb::v0_1::detail
