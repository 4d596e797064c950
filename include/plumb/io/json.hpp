// JSON: one parser and one printer for every file here, around nlohmann/json.
//
// Stricter than the parser alone: nesting is bounded before it is followed, a key that comes twice
// is refused rather than one of its values dropped, and a zero byte is not the end. Numbers beyond
// what a double holds, NaN and text that is not UTF-8 are refused by the parser itself.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/io/utf8.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// JSON that keeps the order of its keys.
using Json = nlohmann::ordered_json;

namespace detail {

inline constexpr std::size_t kDeepestJson = 64;

/// Receives the parser's events and builds the value. With a `taker`, the members of the outermost
/// object are handed to that one by one, and not kept.
class JsonBuilder : public nlohmann::json_sax<Json> {
 public:
  using Taker = std::function<void(const std::string& key, const Json& value)>;
  explicit JsonBuilder(Taker taker = {}) : taker_(std::move(taker)) {}

  Json root;
  std::string problem;

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, const string_t&) override { return put(value); }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t&) override { return false; }  // JSON has none
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_array() override { return close(); }
  bool end_object() override {
    keys_.pop_back();
    return close();
  }
  bool key(string_t& name) override {
    if (is_repeated(name)) {
      problem = "it says \"" + name.substr(0, 60) + "\" twice";
      return false;
    }
    key_ = std::move(name);
    return true;
  }
  bool parse_error(std::size_t, const std::string&,
                   const nlohmann::detail::exception& error) override {
    problem = error.what();
    if (const auto end = problem.find("] "); end != problem.npos) problem.erase(0, end + 2);
    if (problem.size() > 300) problem = problem.substr(0, 300) + "…";  // it quotes what it read
    return false;
  }

 private:
  using Members = std::vector<std::pair<const std::string, Json>>;
  static constexpr std::size_t kFewMembers = 16;

  bool put(Json value) {
    add(std::move(value));
    hand_over();
    return true;
  }
  bool open(Json value) {
    if (open_.size() == kDeepestJson) {
      problem = str("it is nested more than ", kDeepestJson, " deep");
      return false;
    }
    if (value.is_object()) keys_.emplace_back();
    open_.push_back(add(std::move(value)));
    return true;
  }
  bool close() {
    open_.pop_back();
    hand_over();
    return true;
  }
  // The map's own insertion would compare the key with every other one.
  Members& members() { return open_.back()->get_ref<Json::object_t&>(); }
  bool taken() const { return taker_ && open_.size() == 1 && open_[0]->is_object(); }

  // Appends to the innermost open value; what is open above it does not move meanwhile.
  Json* add(Json value) {
    if (open_.empty()) return &(root = std::move(value));
    if (open_.back()->is_array())
      return &open_.back()->get_ref<Json::array_t&>().emplace_back(std::move(value));
    return &members().emplace_back(std::move(key_), std::move(value)).second;
  }
  void hand_over() {
    if (!taken()) return;
    taker_(members().back().first, members().back().second);
    members().clear();
  }
  // Few keys are compared, many are looked up.
  bool is_repeated(const std::string& name) {
    std::unordered_set<std::string>& seen = keys_.back();
    if (seen.empty() && !taken()) {
      if (members().size() < kFewMembers)
        return std::any_of(members().begin(), members().end(),
                           [&](const auto& member) { return member.first == name; });
      for (const auto& member : members()) seen.insert(member.first);
    }
    return !seen.insert(name).second;
  }

  Taker taker_;
  std::vector<Json*> open_;
  std::vector<std::unordered_set<std::string>> keys_;  ///< of each open object, once it has many
  std::string key_;
};

inline Json parse_with(JsonBuilder builder, std::string_view text, std::string_view source,
                       Where where) {
  if (text.find('\0') != text.npos)
    builder.problem = "it holds a zero byte";
  else
    Json::sax_parse(text, &builder);
  if (!builder.problem.empty()) {
    const std::string what = "not JSON: " + repaired_utf8(builder.problem);
    if (source.empty()) throw DataError(what);
    fail<DataError>(str("[json] ", repaired_utf8(source), " is ", what), where);
  }
  return std::move(builder.root);
}

}  // namespace detail

/// The value that `text` is. DataError, beginning "[json] SOURCE", if it is none; without a source
/// the message is the bare reason, for callers who know the place.
inline Json parse_json(std::string_view text, std::string_view source = {},
                       Where where = Where::here()) {
  return detail::parse_with(detail::JsonBuilder(), text, source, where);
}

/// Calls take(key, value) for every member of the object that `text` is, in its order, and keeps
/// none of them. DataError if it is no object; an exception of `take` passes through.
template <class Take>
void parse_json_members(std::string_view text, Take&& take, std::string_view source = {},
                        Where where = Where::here()) {
  const Json root = detail::parse_with(detail::JsonBuilder(take), text, source, where);
  if (root.is_object()) return;
  if (source.empty()) throw DataError("not a JSON object");
  fail<DataError>(str("[json] ", repaired_utf8(source), " is not a JSON object"), where);
}

/// JSON as text, on one line or with `indent` spaces a level. What is not UTF-8, which a byte model
/// may sample and a path may hold, becomes U+FFFD.
inline std::string json_text(const Json& json, int indent = -1) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}}  // namespace plumb::v0_1
