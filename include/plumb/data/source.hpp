// RecordSource: the records of a file one after another, each with the number of its line, whatever
// the file's shape: JSON Lines, one JSON list of objects, or CSV; plain or compressed.
//
// The shape is told by the first letters: a list begins with [, CSV with a row that names a column
// known here (kCsvColumns), all else is JSON Lines. Memory is a block of text and the longest
// record, which is bounded; a file of any size is read through it. What this is not: a reader of
// Parquet, Arrow and archives, which are refused by their first bytes (data/text.hpp).
#pragma once

#include <plumb/data/csv.hpp>
#include <plumb/data/text.hpp>
#include <plumb/io/json_reader.hpp>
#include <plumb/io/source.hpp>

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

namespace detail {

/// A record longer than this is no record, but a file without line ends.
inline constexpr std::size_t kLongestRecord = std::size_t{32} << 20;

/// Values take more memory than their text: a long record of very many of them is refused.
inline constexpr std::ptrdiff_t kMostCommas = std::ptrdiff_t{1} << 20;

/// A record's text, and the character that ended it; 0 where the file did.
struct Piece {
  std::string_view text;
  char end = '\0';
};

/// Text that arrives block by block, taken in pieces that begin where the last one ended.
class TextBlocks {
 public:
  TextBlocks(const std::string& path, Where where) : source_(path, where), where_(where) {
    fill();
    if (const std::string_view mark = "\xef\xbb\xbf"; rest().starts_with(mark)) at_ += mark.size();
    refuse_if_not_text(rest(), path, where);
  }

  /// What has been read and not taken; more() adds to it.
  std::string_view rest() const { return {text_.data() + at_, have_ - at_}; }
  /// False at the end of the text.
  bool more() { return fill(); }
  void drop(std::size_t bytes) {
    line_ += std::count(text_.data() + at_, text_.data() + at_ + bytes, '\n');
    at_ += bytes;
  }

  /// Takes all before what `end` finds, and that character; all that is left if it finds nothing.
  /// The view is good until the next call. DataError if it is longer than a record may be.
  template <class End>
  Piece take(End& end) {
    std::size_t seen = 0, found;
    while ((found = end.find(rest().substr(seen))) == std::string_view::npos) {
      seen = rest().size();
      if (seen > kLongestRecord) break;
      if (!fill()) break;
    }
    const bool ends = found != std::string_view::npos;
    const std::size_t size = ends ? seen + found : rest().size();
    if (size > kLongestRecord)
      fail<DataError>(str("[data] ", shown(path()), ":", line(), ": a record is longer than ",
                          kLongestRecord >> 20,
                          " MiB. HINT: is the file JSON Lines, a JSON list of objects, or CSV?"),
                      where_);
    const Piece piece{rest().substr(0, size), ends ? rest()[size] : '\0'};
    drop(size + (ends ? 1 : 0));
    return piece;
  }

  /// The number of the line on which rest() begins, from 1.
  Index line() const { return line_; }
  const std::string& path() const { return source_.path(); }
  const ByteSource& source() const { return source_; }

 private:
  static constexpr std::size_t kBlock = std::size_t{1} << 18;

  bool fill() {
    if (at_ > 0) {
      std::memmove(text_.data(), text_.data() + at_, have_ - at_);
      have_ -= at_;
      at_ = 0;
    }
    if (text_.size() < have_ + kBlock) text_.resize(std::max(have_ + kBlock, 2 * have_));
    const std::size_t n = source_.read(text_.data() + have_, text_.size() - have_);
    have_ += n;
    return n > 0;
  }

  ByteSource source_;
  Where where_;
  std::vector<char> text_;
  std::size_t at_ = 0, have_ = 0;
  Index line_ = 1;
};

struct LineEnd {
  std::size_t find(std::string_view piece) const { return piece.find('\n'); }
};

/// Looks for the comma or bracket behind an item of a JSON list.
class ItemEnd {
 public:
  std::size_t find(std::string_view piece) {
    for (std::size_t i = 0; i < piece.size(); ++i) {
      const char c = piece[i];
      if (in_text_) {
        if (escaped_)
          escaped_ = false;
        else if (c == '\\')
          escaped_ = true;
        else if (c == '"')
          in_text_ = false;
      } else if (c == '"') {
        in_text_ = true;
      } else if (c == '{' || c == '[') {
        ++depth_;
      } else if (depth_ == 0 && (c == ',' || c == ']')) {
        return i;
      } else if (depth_ > 0 && (c == '}' || c == ']')) {
        --depth_;
      }
    }
    return piece.npos;
  }

 private:
  bool in_text_ = false, escaped_ = false;
  std::size_t depth_ = 0;
};

/// Columns by which a file is known to be CSV.
inline constexpr std::string_view kCsvColumns[] = {"prompt",      "completion", "chosen",
                                                   "rejected",    "response1",  "response2",
                                                   "instruction", "messages",   "responses"};

/// Cells of these columns are JSON; an empty one says nothing.
inline constexpr std::string_view kJsonColumns[] = {
    "messages", "responses", "ranking", "ranked",      "votes",        "finished",
    "tokens",   "shown",     "label",   "completions", "score_chosen", "score_rejected"};

inline bool is_one_of(std::string_view name, std::span<const std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace detail

/// How a file holds its records.
enum class Container { Lines, List, Csv };

class RecordSource {
 public:
  /// Opens a file. IoError if it cannot be read, DataError if it is of a kind that is not read.
  explicit RecordSource(const std::string& path, Where where = Where::here())
      : text_(path, where), where_(where) {
    skip_blanks();
    const std::string_view begin = text_.rest();
    if (begin.starts_with('[')) {
      shape_ = Container::List;
      text_.drop(1);
    } else if (!begin.starts_with('{')) {
      find_header();
    }
  }

  /// Goes to the next record; false if there is none. DataError, with file and line, for what
  /// leaves nothing to go on with.
  bool next() {
    if (shape_ == Container::List) return next_item();
    if (text_.rest().empty() && !text_.more()) return false;
    line_ = text_.line();
    if (shape_ == Container::Lines) {
      detail::LineEnd end;
      piece_ = text_.take(end);
      return true;
    }
    detail::CsvRowEnd end;
    piece_ = text_.take(end);
    if (end.open()) fail_at("a cell's closing quote is missing: the file ended first");
    return true;
  }

  /// The record that next() went to. DataError with the bare reason if it is no object of JSON, or
  /// no row as the header has it.
  Json record() {
    if (shape_ == Container::Csv) return row();
    const std::string_view text = detail::trimmed(piece_.text);
    if (text.empty())
      fail<DataError>(shape_ == Container::Lines ? "the line is empty; expected a JSON object"
                                                 : "nothing is here; expected a JSON object",
                      where_);
    if (std::count(text.begin(), text.end(), ',') > detail::kMostCommas)
      fail<DataError>(str("the record holds more than ", detail::kMostCommas, " values"), where_);
    Json json;
    try {
      json = reader_.parse(text);
    } catch (const DataError& e) {
      fail<DataError>(str("expected a JSON object; ",
                          piece_.end == '\0' ? "the last line was cut short: " : "", e.what()),
                      where_);
    }
    if (!json.is_object())
      fail<DataError>(str("expected a JSON object; the ",
                          shape_ == Container::Lines ? "line" : "item", " is another value"),
                      where_);
    return json;
  }

  /// The line on which the record begins, from 1.
  Index line() const { return line_; }
  /// "[jsonl] FILE:LINE: ", as messages about the record begin.
  std::string place() const {
    const char* op = shape_ == Container::Lines  ? "jsonl"
                     : shape_ == Container::List ? "json"
                                                 : "csv";
    return str("[", op, "] ", shown(text_.path()), ":", line_, ": ");
  }
  /// "gzip, JSON Lines".
  std::string kind() const {
    const Compression c = text_.source().compression();
    return str(c == Compression::Gzip   ? "gzip, "
               : c == Compression::Zstd ? "zstd, "
                                        : "",
               shape_ == Container::Lines  ? "JSON Lines"
               : shape_ == Container::List ? "a JSON list"
                                           : "CSV");
  }
  /// For progress: bytes of the file, and how many of them are behind us.
  const ByteSource& source() const { return text_.source(); }

 private:
  static constexpr std::size_t kMostColumns = 256;

  void skip_blanks() {
    for (;;) {
      const std::size_t blanks = text_.rest().find_first_not_of(" \t\r\n");
      text_.drop(std::min(blanks, text_.rest().size()));
      if (blanks != std::string_view::npos || !text_.more()) return;
    }
  }

  [[noreturn]] void fail_at(const char* what) const { fail<DataError>(place() + what, where_); }

  bool next_item() {
    const bool first = line_ == 0;
    skip_blanks();
    line_ = text_.line();
    if (closed_ || (first && text_.rest().starts_with(']'))) {
      if (!closed_) text_.drop(1);
      closed_ = true;
      skip_blanks();
      if (!text_.rest().empty()) fail_at("something follows the list, which is closed");
      return false;
    }
    detail::ItemEnd end;
    piece_ = text_.take(end);
    if (piece_.end == '\0') fail_at("the list is not closed: the file ended first");
    closed_ = piece_.end == ']';
    return true;
  }

  /// Takes the first row if it names columns.
  void find_header() {
    detail::CsvRowEnd end;
    const std::string_view row = text_.rest().substr(0, end.find(text_.rest()));
    std::vector<std::string> cells;
    try {
      cells = detail::csv_cells(row, where_);
    } catch (const DataError&) {
      return;
    }
    if (cells.size() > kMostColumns ||
        std::none_of(cells.begin(), cells.end(), [](const std::string& cell) {
          return detail::is_one_of(cell, detail::kCsvColumns);
        }))
      return;
    shape_ = Container::Csv;
    line_ = text_.line();
    columns_ = std::move(cells);
    for (std::size_t i = 0; i < columns_.size(); ++i)
      if (std::find(columns_.begin() + static_cast<std::ptrdiff_t>(i) + 1, columns_.end(),
                    columns_[i]) != columns_.end())
        fail_at("two columns have one name");
    text_.drop(std::min(row.size() + 1, text_.rest().size()));
  }

  Json row() {
    if (detail::trimmed(piece_.text).empty())
      fail<DataError>("the line is empty; expected a row", where_);
    if (!is_utf8(piece_.text)) fail<DataError>("the row is not UTF-8", where_);
    std::vector<std::string> cells = detail::csv_cells(piece_.text, where_);
    if (cells.size() != columns_.size())
      fail<DataError>(str("the row has ", cells.size(), " cells, the header ", columns_.size()),
                      where_);
    Json json = Json::object();
    for (std::size_t i = 0; i < cells.size(); ++i)
      if (!detail::is_one_of(columns_[i], detail::kJsonColumns))
        json[columns_[i]] = std::move(cells[i]);
      else if (!cells[i].empty())
        json[columns_[i]] = json_cell(columns_[i], cells[i]);
    return json;
  }

  Json json_cell(const std::string& column, const std::string& cell) {
    if (cell == "True" || cell == "False") return cell == "True";  // as Python writes them
    try {
      return reader_.parse(cell);
    } catch (const DataError& e) {
      fail<DataError>(str("column \"", column, "\" is to hold JSON: ", e.what()), where_);
    }
  }

  detail::TextBlocks text_;
  Where where_;
  JsonReader reader_;
  Container shape_ = Container::Lines;
  detail::Piece piece_;
  std::vector<std::string> columns_;
  Index line_ = 0;
  bool closed_ = false;
};

}}  // namespace plumb::v0_1
