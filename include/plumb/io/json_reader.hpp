// JsonReader: many JSON texts, one after another, by the library simdjson, whose only user this
// header is (link with -lsimdjson). Values, and what is refused, are parse_json's (io/json.hpp).
//
// simdjson says that a text is wrong, not well what is wrong with it; so what it refuses is given
// to parse_json, which either knows the reason or reads it after all (a number beyond 64 bits).
// Keys that come twice are looked for here. What this is not: a reader of long texts, for which
// simdjson's tables would be several times their size; those go to parse_json.
#pragma once

#include <plumb/io/json.hpp>

// The library chooses its instruction set when it runs. Those that the header brings besides are
// for another interface than is used here; nvcc does not compile them, and each takes its time. Who
// wants them includes simdjson.h first.
#ifndef SIMDJSON_VERSION
#define SIMDJSON_IMPLEMENTATION_ICELAKE 0
#define SIMDJSON_IMPLEMENTATION_HASWELL 0
#define SIMDJSON_IMPLEMENTATION_WESTMERE 0
#define SIMDJSON_IMPLEMENTATION_ARM64 0
#define SIMDJSON_IMPLEMENTATION_PPC64 0
#define SIMDJSON_IMPLEMENTATION_FALLBACK 1
#endif
#include <simdjson.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace plumb { inline namespace v0_1 {

class JsonReader {
 public:
  /// The value that `text` is. DataError with the bare reason if it is none.
  Json parse(std::string_view text) {
    if (text.size() <= kLong) {
      // The parser reads beyond the text's end, and wants room there.
      text_.reserve(text.size() + simdjson::SIMDJSON_PADDING);
      text_.assign(text);
      simdjson::dom::element root;
      Json json;
      if (ready() &&
          parser_.parse(text_.data(), text_.size(), false).get(root) == simdjson::SUCCESS &&
          build(root, json))
        return json;
    }
    return parse_json(text);
  }

 private:
  static constexpr std::size_t kLong = std::size_t{1} << 20;
  using Element = simdjson::dom::element;
  using Members = std::vector<std::pair<const std::string, Json>>;

  bool ready() {
    if (text_.size() <= parser_.capacity()) return true;
    // More than is needed now, so that not each longer text makes new tables.
    const std::size_t room = std::min(kLong, std::max<std::size_t>(2 * text_.size(), 1 << 14));
    return parser_.allocate(room, detail::kDeepestJson) == simdjson::SUCCESS;
  }

  /// False where a key comes twice, or for what is not known here.
  static bool build(const Element& from, Json& to) {
    switch (from.type()) {
      case simdjson::dom::element_type::OBJECT: return build_object(from, to);
      case simdjson::dom::element_type::ARRAY: {
        to = Json::array();
        auto& items = to.get_ref<Json::array_t&>();
        for (const Element item : simdjson::dom::array(from.get_array().value_unsafe()))
          if (!build(item, items.emplace_back())) return false;
        return true;
      }
      case simdjson::dom::element_type::STRING:
        to = std::string(from.get_string().value_unsafe());
        return true;
      case simdjson::dom::element_type::INT64: {
        const std::int64_t number = from.get_int64().value_unsafe();
        to = number;  // as parse_json has it, what is not negative is unsigned
        if (number >= 0) to = static_cast<std::uint64_t>(number);
        return true;
      }
      case simdjson::dom::element_type::UINT64: to = from.get_uint64().value_unsafe(); return true;
      case simdjson::dom::element_type::DOUBLE: to = from.get_double().value_unsafe(); return true;
      case simdjson::dom::element_type::BOOL: to = from.get_bool().value_unsafe(); return true;
      case simdjson::dom::element_type::NULL_VALUE: return true;
      default: return false;  // of a later library
    }
  }

  static bool build_object(const Element& from, Json& to) {
    to = Json::object();
    Members& members = to.get_ref<Json::object_t&>();
    for (const auto field : simdjson::dom::object(from.get_object().value_unsafe())) {
      // Many keys, or one that comes twice, are parse_json's affair: it looks them up.
      if (members.size() >= kManyMembers) return false;
      for (const auto& member : members)
        if (member.first == field.key) return false;
      members.emplace_back(std::string(field.key), Json());
      if (!build(field.value, members.back().second)) return false;
    }
    return true;
  }
  static constexpr std::size_t kManyMembers = 64;

  simdjson::dom::parser parser_;
  std::string text_;
};

}}  // namespace plumb::v0_1
