// A setting is declared once. Beside each settings struct C stands
//
//   template <class F> void fields(C& c, F&& f) { f(Field{"lr", "learning rate", at_least(0)},
//   c.lr); … }
//
// From that list come the flags, the JSON settings, --help and the table in the documentation, and
// the checks of the library itself (check_fields), so that a program and a caller of the headers
// are held to the same ranges and start from the same defaults. What this is not: a parser; text
// and JSON are the affair of io/settings.hpp.
#pragma once

#include <plumb/core/check.hpp>

#include <cmath>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>

namespace plumb { inline namespace v0_1 {

/// The numbers that a setting may have, all of them finite.
struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool above_low = false;  ///< `low` itself is excluded

  constexpr bool contains(double x) const { return (above_low ? x > low : x >= low) && x <= high; }
  /// "at least 0", "above 0", "from 0 to 1", "above 0, at most 1"; empty if all numbers.
  std::string text() const {
    const bool bounded = low > -std::numeric_limits<double>::infinity();
    const bool capped = high < std::numeric_limits<double>::infinity();
    if (bounded && capped && !above_low) return str("from ", low, " to ", high);
    std::string out = bounded ? str(above_low ? "above " : "at least ", low) : std::string();
    if (capped) out += str(out.empty() ? "at most " : ", at most ", high);
    return out;
  }
};
constexpr Range at_least(double low) { return {.low = low}; }
constexpr Range above(double low) { return {.low = low, .above_low = true}; }
constexpr Range between(double low, double high) { return {.low = low, .high = high}; }
constexpr Range above_to(double low, double high) {
  return {.low = low, .high = high, .above_low = true};
}

/// What is said of one setting, beside its value.
struct Field {
  const char* name;       ///< as a flag without its dashes, and as a key of a settings file
  const char* help;       ///< one line, without the unit, range and default
  Range range = {};       ///< of numbers
  const char* unit = "";  ///< "tokens", "nats per response", …
  const char* group =
      "";  ///< heading under which --help lists it; empty: among those that matter most
};

/// A choice of an enumeration has the names that `choices(E{})`, found by argument-dependent
/// lookup, lists as pairs of name and value.
template <class E>
concept Choice = std::is_enum_v<E> && requires(E e) {
  choices(e).begin();
};

/// The name of a choice.
template <Choice E>
const char* choice_name(E value) {
  for (const auto& [name, choice] : choices(E{}))
    if (choice == value) return name;
  return "?";
}

/// All names of a choice: "k1, k2, k3".
template <Choice E>
std::string choice_names() {
  std::string names;
  for (const auto& [name, choice] : choices(E{}))
    names += (names.empty() ? "" : ", ") + std::string(name);
  return names;
}

/// What is wrong with the value of a setting, such as "must be at least 0; it is -1"; empty if
/// nothing.
template <class T>
std::string field_complaint(const Field& field, const T& value) {
  if constexpr (std::is_floating_point_v<T>) {
    if (!std::isfinite(value))
      return str("must be a finite number", field.range.text().empty() ? "" : ", ",
                 field.range.text(), "; it is ", static_cast<double>(value));
  }
  if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>) {
    if (!field.range.contains(static_cast<double>(value)))
      return str("must be ", field.range.text(), "; it is ", value);
  }
  if constexpr (Choice<T>) {
    if (std::string(choice_name(value)) == "?")
      return str("must be one of ", choice_names<T>(), "; it is number ", static_cast<int>(value));
  }
  return {};
}

/// DataError naming the first setting whose value is outside its range: `op` is whose settings they
/// are.
template <class Config>
void check_fields(const Config& config, const char* op, Where where = Where::here()) {
  Config copy =
      config;  // `fields` hands out references that may be written to; this one only reads
  fields(copy, [&](const Field& field, const auto& value) {
    const std::string complaint = field_complaint(field, value);
    if (!complaint.empty()) fail<DataError>(str("[", op, "] ", field.name, " ", complaint), where);
  });
}

}}  // namespace plumb::v0_1
