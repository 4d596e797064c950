// CSV by RFC 4180: cells between commas; a cell in quotes may hold commas, line ends and quotes
// written twice. The first row names the columns.
//
// Stricter than spreadsheets: a quote inside a cell that does not begin with one, or anything
// between a closing quote and the next comma, is refused, since two readers would read two things.
// What this is not: a guess at separators or at types; a cell is text. Source: RFC 4180.
#pragma once

#include <plumb/core/check.hpp>

#include <string>
#include <string_view>
#include <vector>

namespace plumb { inline namespace v0_1 { namespace detail {

/// Looks for the end of a row in text that comes in pieces.
class CsvRowEnd {
 public:
  /// Place of the \n that ends the row; npos if it is not in this piece.
  std::size_t find(std::string_view piece) {
    for (std::size_t i = 0; i < piece.size(); ++i) {
      const char c = piece[i];
      if (state_ == State::Quoted) {
        i = piece.find('"', i);
        if (i == piece.npos) return i;
        state_ = State::Closed;
      } else if (c == '\n') {
        return i;
      } else if (c == '"' && state_ != State::Plain) {
        state_ = State::Quoted;  // the cell's first, or the second of two
      } else {
        state_ = c == ',' ? State::Begin : State::Plain;
      }
    }
    return piece.npos;
  }
  /// Whether a cell was open where the text ended.
  bool open() const { return state_ == State::Quoted; }

 private:
  enum class State { Begin, Plain, Quoted, Closed };
  State state_ = State::Begin;
};

inline void drop_carriage_returns(std::string& text) {
  std::size_t to = 0;
  for (std::size_t i = 0; i < text.size(); ++i)
    if (text[i] != '\r' || i + 1 == text.size() || text[i + 1] != '\n') text[to++] = text[i];
  text.resize(to);
}

/// The cells of a row without its line end. DataError with the bare reason if it is not CSV.
inline std::vector<std::string> csv_cells(std::string_view row, Where where) {
  if (row.ends_with('\r')) row.remove_suffix(1);
  std::vector<std::string> cells;
  for (std::size_t at = 0;; ++at) {
    std::string cell;
    if (at < row.size() && row[at] == '"') {
      for (++at;; at += 2) {
        const std::size_t quote = row.find('"', at);
        if (quote == row.npos) fail<DataError>("a cell's closing quote is missing", where);
        cell.append(row, at, quote - at);
        at = quote;
        if (at + 1 == row.size() || row[at + 1] != '"') break;
        cell += '"';
      }
      ++at;
      if (at < row.size() && row[at] != ',')
        fail<DataError>("something stands between a closing quote and the next comma", where);
      if (cell.find('\r') != cell.npos) drop_carriage_returns(cell);
    } else {
      const std::size_t end = std::min(row.find(',', at), row.size());
      cell = row.substr(at, end - at);
      if (cell.find('"') != cell.npos)
        fail<DataError>("a quote stands inside a cell that does not begin with one", where);
      at = end;
    }
    cells.push_back(std::move(cell));
    if (at >= row.size()) return cells;
  }
}

}  // namespace detail

}}  // namespace plumb::v0_1
