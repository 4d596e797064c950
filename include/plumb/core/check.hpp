// Errors: what was expected, what came, where, and what to do.
//
// Every error that Plumb throws reads `[op] rule; what came. HINT: what to do (file:line)`, where
// file:line is the caller's. Kernels only assert; the layers above them check. Loaders trust no
// size that they read. What this file is not: a logging or formatting library.
#pragma once

#include <plumb/core/version.hpp>

#include <charconv>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

namespace plumb { inline namespace v0_1 {

/// Sizes, offsets and loop counters.
using Index = std::int64_t;

/// Base of every exception that Plumb throws.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
/// Sizes or arguments that do not fit together: a mistake in the calling code.
struct ShapeError : Error {
  using Error::Error;
};
/// Input that is malformed or inconsistent: a mistake in a file or a setting.
struct DataError : Error {
  using Error::Error;
};
/// The operating system refused: missing file, full disk, no permission.
struct IoError : Error {
  using Error::Error;
};
/// A loss, gradient or logit that is not finite.
struct NumericError : Error {
  using Error::Error;
};

namespace detail {
inline void append(std::string& out, std::string_view text) { out += text; }
inline void append(std::string& out, const char* text) { out += text; }
inline void append(std::string& out, char c) { out += c; }
template <class T>
  requires std::is_integral_v<T>
void append(std::string& out, T value) {
  if constexpr (std::is_same_v<T, bool>)
    out += value ? "true" : "false";
  else
    out += std::to_string(value);
}
inline void append(std::string& out, double value) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::general,
                                 7);  // in every locale alike
  out.append(buffer, end.ptr);
}
}  // namespace detail

/// Concatenates text, numbers and shapes: `str("x is ", x.shape())`.
template <class... Parts>
std::string str(const Parts&... parts) {
  using detail::append;
  std::string out;
  (append(out, parts), ...);
  return out;
}

/// A place in the source. As a defaulted last parameter it is the caller's: functions that check
/// their arguments take one and pass it on. (clang 14 lacks std::source_location.)
struct Where {
  const char* file;
  int line;
  static constexpr Where here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

/// Throws E with the message and the place.
template <class E = ShapeError>
[[noreturn]] void fail(const std::string& message, Where where = Where::here()) {
  const std::string_view file = where.file;
  throw E(str(message, " (", file.substr(file.rfind('/') + 1), ':', where.line, ')'));
}

/// Throws E unless `ok`. Messages that cost something to build belong in `if (!ok) fail(...)`.
template <class E = ShapeError>
void check(bool ok, const char* message, Where where = Where::here()) {
  if (!ok) [[unlikely]]
    fail<E>(message, where);
}

}}  // namespace plumb::v0_1
