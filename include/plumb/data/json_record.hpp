// One record's JSON object, and what is taken out of it: text, lists, messages as turns. Getters
// complain about what is missing or of another type; who reads a file adds the place.
#pragma once

#include <plumb/data/records.hpp>
#include <plumb/io/file.hpp>
#include <plumb/io/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 { namespace detail {

[[noreturn]] inline void bad_record(const std::string& what, Where where) {
  fail<DataError>(what, where);
}

/// One record's object; getters complain about what is missing or of another type.
struct JsonRecord {
  const Json& json;
  Index line;
  Where where;

  bool has(const char* key) const { return json.contains(key); }
  bool has_text(const char* key) const { return has(key) && json[key].is_string(); }
  bool has_list(const char* key) const { return has(key) && json[key].is_array(); }
  /// The value of `key`, or null.
  const Json& at(const char* key) const {
    static const Json null;
    const auto found = json.find(key);
    return found == json.end() ? null : *found;
  }

  std::string text(const char* key) const {
    if (!has_text(key)) bad_record(str("expected text \"", key, "\""), where);
    return json[key].get<std::string>();
  }
  std::string text_or(const char* key, std::string otherwise) const {
    return has(key) && !json[key].is_null() ? text(key) : otherwise;
  }
  /// Other tools number their records; a record without an id is known by its line.
  std::string id() const {
    if (!has("id") || json["id"].is_null()) return str(line);
    return json["id"].is_number_integer() ? json["id"].dump() : text("id");
  }
  std::vector<std::string> texts(const char* key) const {
    std::vector<std::string> out;
    for (const Json& item : list(key)) {
      if (!item.is_string()) bad_record(str("expected only text in \"", key, "\""), where);
      out.push_back(item.get<std::string>());
    }
    if (out.empty()) bad_record(str("\"", key, "\" is empty"), where);
    return out;
  }
  std::vector<int> integers(const Json& items, const char* key) const {
    std::vector<int> out;
    for (const Json& item : items) {
      // Beyond what an int holds, no response or vote has such a number.
      if (!item.is_number_integer() || item < -1'000'000'000 || item > 1'000'000'000)
        bad_record(str("expected only small whole numbers in \"", key, "\""), where);
      out.push_back(item.get<int>());
    }
    return out;
  }
  const Json& list(const char* key) const {
    if (!has_list(key)) bad_record(str("expected a list \"", key, "\""), where);
    return json[key];
  }
  /// Whether it is a number that a float holds.
  static bool is_level(const Json& json) {
    return json.is_number() &&
           std::abs(json.get<double>()) <= double{std::numeric_limits<float>::max()};
  }
  /// Absent: unsaid.
  std::vector<double> levels(std::size_t k) const {
    std::vector<double> out;
    if (!has("level")) return out;
    for (const Json& item : list("level")) {
      if (!is_level(item))
        bad_record("expected only numbers that a float holds in \"level\"", where);
      out.push_back(item.get<double>());
    }
    if (out.size() != k)
      bad_record(str("\"level\" has ", out.size(), " entries for ", k, " responses"), where);
    return out;
  }
  /// A number above 0 and at most `most`; absent: 0, unsaid.
  double positive(const char* key, double most) const {
    if (!has(key)) return 0.0;
    const double value = json[key].is_number() ? json[key].get<double>() : 0.0;
    if (!(value > 0.0 && value <= most))
      bad_record(str("expected a number above 0 and at most ", most, " as \"", key, "\""), where);
    return value;
  }
  /// Whose each response is; absent: unknown.
  std::vector<std::string> systems(std::size_t k) const {
    if (!has("systems")) return {};
    std::vector<std::string> out = texts("systems");
    if (out.size() != k)
      bad_record(str("\"systems\" has ", out.size(), " entries for ", k, " responses"), where);
    return out;
  }
  /// Absent: 0.
  int whole(const char* key, int most) const {
    const Json& value = at(key);
    if (value.is_null()) return 0;
    if (!value.is_number_integer() || value < 0 || value > most)
      bad_record(str("expected \"", key, "\" as a whole number from 0 to ", most), where);
    return value.get<int>();
  }
  /// Some of `k` responses, each once, ascending. Absent: none.
  std::vector<int> some_responses(const char* key, std::size_t k) const {
    if (at(key).is_null()) return {};
    std::vector<int> out = integers(list(key), key);
    std::sort(out.begin(), out.end());
    if (std::adjacent_find(out.begin(), out.end()) != out.end() ||
        (!out.empty() && (out.front() < 0 || static_cast<std::size_t>(out.back()) >= k)))
      bad_record(str("\"", key, "\" does not name some of ", k, " responses, each once, from 0"),
                 where);
    return out;
  }
  /// Absent: unknown.
  ResponseTokens tokens(std::size_t k) const {
    ResponseTokens out;
    if (!has("tokens")) return out;
    for (const Json& response : list("tokens")) {
      if (!response.is_array()) bad_record("expected \"tokens\" as a list of lists", where);
      for (out.emplace_back(); const Json& token : response) {
        if (!token.is_number_unsigned() || token > std::numeric_limits<std::int32_t>::max())
          bad_record("expected only token ids, whole numbers from 0, in \"tokens\"", where);
        out.back().push_back(token.get<std::int32_t>());
      }
    }
    if (out.size() != k)
      bad_record(str("\"tokens\" has ", out.size(), " entries for ", k, " responses"), where);
    return out;
  }
  /// Absent: all true, since texts from elsewhere are taken as whole.
  std::vector<bool> finished(std::size_t k) const {
    if (!has("finished")) return std::vector<bool>(k, true);
    std::vector<bool> out;
    for (const Json& item : list("finished")) {
      if (!item.is_boolean()) bad_record("expected only true and false in \"finished\"", where);
      out.push_back(item.get<bool>());
    }
    if (out.size() != k)
      bad_record(str("\"finished\" has ", out.size(), " entries for ", k, " responses"), where);
    return out;
  }
  /// A list of messages as turns.
  Turns messages(const char* key) const {
    Turns out;
    for (const Json& message : list(key)) {
      const JsonRecord m{message, line, where};
      if (!message.is_object() || !m.has_text("role") || !m.has_text("content"))
        bad_record(str("expected only messages, {\"role\",\"content\"}, in \"", key, "\""), where);
      out.push_back({m.text("role"), m.text("content")});
      const std::string& role = out.back().role;
      if (role != "system" && role != "user" && role != "assistant")
        bad_record(str("the role \"", shown(role.substr(0, 40)),
                       "\" is not one of: system, user, assistant"),
                   where);
    }
    if (out.empty()) bad_record(str("\"", key, "\" is empty"), where);
    return out;
  }
};

}  // namespace detail

}}  // namespace plumb::v0_1
