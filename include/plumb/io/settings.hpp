// Settings as JSON and as text, by the list that core/fields.hpp describes: what a settings file, a
// run directory, a model file's configuration and a flag have in common.
//
// Strict: a whole number is refused if it has a fraction, a sign that its type lacks, or too many
// digits; NaN, infinity and numbers out of range are refused; unknown keys are named with the
// nearest known one. Numbers are printed as they were given: 0.05 held as a float comes out as
// 0.05.
#pragma once

#include <plumb/core/fields.hpp>
#include <plumb/io/json.hpp>

#include <algorithm>
#include <charconv>
#include <concepts>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// The shortest decimal number that reads back as this float or double.
template <std::floating_point T>
std::string number_text(T value) {
  char buffer[40];
  return {buffer, std::to_chars(buffer, buffer + sizeof buffer, value).ptr};
}

/// The word among `known` that is least many letters away, if it is near enough to be meant; else
/// empty.
inline std::string nearest_word(std::string_view word, const std::vector<std::string>& known) {
  std::string best;
  std::size_t least = std::max<std::size_t>(2, word.size() / 3) + 1;
  std::vector<std::size_t> row;
  for (const std::string& candidate : known) {
    row.resize(candidate.size() + 1);
    for (std::size_t j = 0; j < row.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= word.size(); ++i) {
      std::size_t diagonal = row[0];
      row[0] = i;
      for (std::size_t j = 1; j < row.size(); ++j) {
        const std::size_t changed = diagonal + (word[i - 1] == candidate[j - 1] ? 0 : 1);
        diagonal = row[j];
        row[j] = std::min({changed, row[j] + 1, row[j - 1] + 1});
      }
    }
    if (row.back() < least) {
      least = row.back();
      best = candidate;
    }
  }
  return best;
}

/// " HINT: did you mean 'lr'?", or nothing.
inline std::string nearest_hint(std::string_view word, const std::vector<std::string>& known) {
  const std::string near = nearest_word(word, known);
  return near.empty() ? std::string() : str(". HINT: did you mean '", near, "'?");
}

/// Sets `member` from text; returns what is wrong with it, such as "must be a whole number; it is
/// '2.5'", or nothing. A list of texts grows by one.
template <class T>
std::string parse_setting(const Field& field, T& member, std::string_view text) {
  const auto not_a = [&](const std::string& what) {
    return str("must be ", what, "; it is '", repaired_utf8(text), "'");
  };
  if constexpr (std::is_same_v<T, std::string>) {
    member = text;
  } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
    member.emplace_back(text);
  } else if constexpr (std::is_same_v<T, bool>) {
    if (text != "true" && text != "false") return not_a("true or false");
    member = text == "true";
  } else if constexpr (Choice<T>) {
    for (const auto& [name, choice] : choices(T{}))
      if (text == name) {
        member = choice;
        return {};
      }
    return not_a("one of " + choice_names<T>());
  } else {
    T value{};
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (error == std::errc::result_out_of_range) return not_a("a number that fits");
    if (error != std::errc() || stop != end)
      return not_a(std::is_integral_v<T>
                       ? (std::is_unsigned_v<T> ? "a whole number without sign" : "a whole number")
                       : "a number");
    const std::string complaint = field_complaint(field, value);
    if (!complaint.empty()) return complaint;
    member = value;
  }
  return {};
}

/// The value of a setting as JSON.
template <class T>
Json setting_json(const T& value) {
  if constexpr (Choice<T>) {
    return choice_name(value);
  } else if constexpr (std::is_same_v<T, float>) {
    const std::string text = number_text(value);
    double same = value;
    std::from_chars(text.data(), text.data() + text.size(), same);
    return same;
  } else {
    return value;
  }
}

/// Sets `member` from JSON; returns what is wrong with it, or nothing.
template <class T>
std::string read_setting(const Field& field, T& member, const Json& json) {
  const auto not_a = [&](const char* what) {
    return str("must be ", what, "; it is ", json_text(json).substr(0, 60));
  };
  if constexpr (std::is_same_v<T, std::string>) {
    if (!json.is_string()) return not_a("text");
    member = json.get<std::string>();
  } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
    const auto is_text = [](const Json& item) { return item.is_string(); };
    if (!json.is_array() || !std::all_of(json.begin(), json.end(), is_text))
      return not_a("a list of texts");
    member = json.get<std::vector<std::string>>();
  } else if constexpr (std::is_same_v<T, bool>) {
    if (!json.is_boolean()) return not_a("true or false");
    member = json.get<bool>();
  } else if constexpr (Choice<T>) {
    if (!json.is_string()) return not_a(("one of " + choice_names<T>()).c_str());
    return parse_setting(field, member, json.get<std::string>());
  } else {
    if (!json.is_number()) return not_a(std::is_integral_v<T> ? "a whole number" : "a number");
    // Through the text: the same rules for signs, fractions and digits as a flag's.
    return parse_setting(field, member, json.dump());
  }
  return {};
}

/// All settings, in the order of their list.
template <class Config>
Json settings_json(const Config& config) {
  Config copy = config;
  Json json = Json::object();
  fields(copy,
         [&](const Field& field, const auto& member) { json[field.name] = setting_json(member); });
  return json;
}

/// Sets those settings that a JSON object names. DataError naming `source` and the key where a
/// value does not fit or a key is unknown; `all`: also where one is missing. Then `config` is as
/// before.
template <class Config>
void read_settings(Config& config, const Json& json, const std::string& source, bool all = false,
                   Where where = Where::here()) {
  if (!json.is_object())
    fail<DataError>(str("[settings] ", source, " is not a JSON object of settings"), where);
  Config result = config;
  std::vector<std::string> known;
  fields(result, [&](const Field& field, auto& member) {
    known.emplace_back(field.name);
    const auto found = json.find(field.name);
    if (found == json.end()) {
      if (all)
        fail<DataError>(str("[settings] ", source, " does not say '", field.name, "'"), where);
      return;
    }
    const std::string complaint = read_setting(field, member, *found);
    if (!complaint.empty())
      fail<DataError>(str("[settings] ", source, ": '", field.name, "' ", complaint), where);
  });
  for (const auto& item : json.items())
    if (std::find(known.begin(), known.end(), item.key()) == known.end()) {
      const std::string hint = nearest_hint(item.key(), known);
      fail<DataError>(str("[settings] ", source, " sets '", item.key(), "', which is not known",
                          hint.empty() ? ". HINT: --help lists the settings" : hint),
                      where);
    }
  config = std::move(result);
}

}}  // namespace plumb::v0_1
