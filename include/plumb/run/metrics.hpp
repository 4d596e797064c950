// Metrics of a run, one row per step, in three files of its directory:
//
//   metrics.csv     step and every metric; a column that a row lacks, or not finite, is empty
//   metrics.jsonl   the same rows as JSON objects; not finite is null
//   timing.jsonl    the metrics named time/…, which differ from run to run
//
// and wherever else a MetricsSink takes them, such as TensorBoard (run/tensorboard.hpp).
//
// The first two hold nothing of clocks and print doubles as the shortest text that reads back the
// same, so a run that was stopped and resumed leaves the bytes of one that never stopped:
// truncate_after(step) drops the rows beyond the checkpoint that it resumes from.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/io/file.hpp>

#include <fcntl.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// Named numbers, in the order of their columns.
using Metrics = std::vector<std::pair<std::string, double>>;

/// The number of a name; NaN where there is none.
inline double metric(const Metrics& metrics, std::string_view name) {
  for (const auto& [key, value] : metrics)
    if (key == name) return value;
  return std::numeric_limits<double>::quiet_NaN();
}

struct MetricRow {
  Index step = 0;
  Metrics values;
};

namespace detail {

inline std::string number_text(double value, const char* not_finite) {
  if (!std::isfinite(value)) return not_finite;
  char buffer[32];
  return {buffer, std::to_chars(buffer, buffer + sizeof buffer, value).ptr};
}

// Rows end with a newline: what stands after the last one was torn by a crash.
inline std::vector<std::string_view> whole_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  for (std::size_t end; (end = text.find('\n')) != text.npos; text.remove_prefix(end + 1))
    lines.push_back(text.substr(0, end));
  return lines;
}

inline std::vector<std::string> split_columns(std::string_view line) {
  std::vector<std::string> cells;
  for (std::size_t end; (end = line.find(',')) != line.npos; line.remove_prefix(end + 1))
    cells.emplace_back(line.substr(0, end));
  cells.emplace_back(line);
  return cells;
}

// Whether `tail`, the end of a file after its last whole line, may be what a crash left of a line
// that begins with `first` (or, where that is empty, with a digit): a part of it, or zeros.
inline bool torn_line(std::string_view tail, std::string_view first) {
  if (tail.find_first_not_of('\0') == tail.npos) return true;
  if (first.empty()) return tail[0] >= '0' && tail[0] <= '9';
  const std::size_t common = std::min(tail.size(), first.size());
  return tail.substr(0, common) == first.substr(0, common);
}

// An append-only file of rows: each is handed to the system whole, and at once. It is a plain file
// and no link: what a link pointed at would be shortened when a run is taken up again.
class RowFile {
 public:
  explicit RowFile(std::string path)
      : path_(std::move(path)),
        file_(::open(path_.c_str(),
                     O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666)) {
    const int error = errno;
    struct stat status {};
    if (file_.get() < 0 && error != ELOOP && error != ENXIO)
      fail_io("open", path_, error, Where::here());
    if (file_.get() < 0 || ::fstat(file_.get(), &status) != 0 || !S_ISREG(status.st_mode))
      fail<IoError>(str("[metrics] ", shown(path_),
                        " is no plain file, and rows are added to one "
                        "only. HINT: move it away"));
  }
  const std::string& path() const { return path_; }

  // All that is in it.
  std::string read() {
    if (::lseek(file_.get(), 0, SEEK_SET) < 0) fail_io("read", path_, errno, Where::here());
    return read_all(file_.get(), path_, Where::here());
  }
  void append(std::string_view text) { write_all(file_.get(), text, path_, Where::here()); }
  void truncate(std::size_t bytes) {
    if (::ftruncate(file_.get(), static_cast<off_t>(bytes)) != 0)
      fail_io("shorten", path_, errno, Where::here());
  }
  void sync() {
    if (::fsync(file_.get()) != 0) fail_io("sync", path_, errno, Where::here());
  }

 private:
  std::string path_;
  Descriptor file_;
};

}  // namespace detail

/// What takes a run's rows besides its own files.
class MetricsSink {
 public:
  virtual ~MetricsSink() = default;
  virtual void write(Index step, const Metrics& values) = 0;
  /// Rows beyond `step`, which an earlier process may have written, are void.
  virtual void truncate_after(Index step) = 0;
  virtual void sync() = 0;
};

/// Appends the rows of a run to its directory, which must exist.
class MetricsWriter {
 public:
  /// Continues the files that are there, dropping a row torn by a crash; begins them otherwise.
  /// `also`, if there is one, gets what is written from now on.
  explicit MetricsWriter(const std::string& directory, std::unique_ptr<MetricsSink> also = nullptr)
      : csv_(directory + "/metrics.csv"),
        jsonl_(directory + "/metrics.jsonl"),
        timing_(directory + "/timing.jsonl") {
    truncate_after(std::numeric_limits<Index>::max());
    also_ = std::move(also);
    if (also_) also_->truncate_after(last_step_);
  }

  /// Writes one row; steps ascend. The first row of a file names its columns, and a later name that
  /// is not among them is a DataError.
  void write(Index step, const Metrics& values) {
    if (step <= last_step_)
      fail(str("[metrics] steps ascend: got ", step, " after ", last_step_,
               ". HINT: on resume call truncate_after(step of the checkpoint)"));
    Metrics metrics, times;
    for (const auto& value : values) {
      check_name(value.first);
      (value.first.starts_with("time/") ? times : metrics).push_back(value);
    }
    if (columns_.empty()) begin_table(metrics);
    const std::string row = csv_row(step, metrics);
    if (!times.empty()) timing_.append(json_row(step, times));  // there for who sees the row
    jsonl_.append(json_row(step, metrics));
    csv_.append(row);
    if (also_) also_->write(step, values);
    last_step_ = step;
  }

  /// Drops every row beyond `step`; -1 empties the files for a run that begins anew.
  void truncate_after(Index step) {
    columns_.clear();
    last_step_ = -1;
    // All are looked at before one is shortened: a file of something else stays as it was.
    const std::size_t csv = rows_until(csv_, "", step);
    const std::size_t jsonl = rows_until(jsonl_, "{\"step\":", step);
    const std::size_t timing = rows_until(timing_, "{\"step\":", step);
    csv_.truncate(csv);
    jsonl_.truncate(jsonl);
    timing_.truncate(timing);
    if (also_) also_->truncate_after(step);
  }

  /// The rows that are there.
  std::vector<MetricRow> rows() const;

  /// Waits until the rows are on disk: before the checkpoint that counts on them.
  void sync() {
    csv_.sync();
    jsonl_.sync();
    timing_.sync();
    if (also_) also_->sync();
  }

 private:
  static void check_name(const std::string& name) {
    const bool plain = !name.empty() && name != "step" &&
                       std::all_of(name.begin(), name.end(), [](unsigned char c) {
                         return c > ' ' && c != ',' && c != '"' && c != '\\' && c != 0x7F;
                       });
    if (!plain) fail(str("[metrics] not a metric's name: \"", name, "\""));
  }

  void begin_table(const Metrics& metrics) {
    columns_ = {"step"};
    std::string header = "step";
    for (const auto& [name, value] : metrics) {
      columns_.push_back(name);
      header += ',' + name;
    }
    csv_.append(header + '\n');
  }

  std::string csv_row(Index step, const Metrics& metrics) const {
    std::vector<std::string> cells(columns_.size());
    cells[0] = std::to_string(step);
    for (const auto& [name, value] : metrics) {
      const auto column = std::find(columns_.begin(), columns_.end(), name);
      if (column == columns_.end())
        fail<DataError>(str("[metrics] ", shown(csv_.path()), " has no column \"", name,
                            "\". HINT: the first row names every metric (NaN if not yet known)"));
      cells[static_cast<std::size_t>(column - columns_.begin())] = detail::number_text(value, "");
    }
    std::string row;
    for (const std::string& cell : cells) row += (row.empty() ? "" : ",") + cell;
    return row + '\n';
  }

  static std::string json_row(Index step, const Metrics& metrics) {
    std::string row = str("{\"step\":", step);
    for (const auto& [name, value] : metrics)
      row += str(",\"", name, "\":", detail::number_text(value, "null"));
    return row + "}\n";
  }

  // The bytes of the rows up to step `last`: since rows ascend, the beginning of the file.
  std::size_t rows_until(detail::RowFile& file, std::string_view before_step, Index last) {
    const auto bad = [&](std::string_view line) {
      fail<DataError>(str("[metrics] ", shown(file.path()), " has a row without a step: \"",
                          shown(line.substr(0, 60)),
                          "\". HINT: the file was edited, or is of something else; move it away"));
    };
    const bool table = before_step.empty();  // whose first line names the columns
    const std::string text = file.read();
    const std::vector<std::string_view> lines = detail::whole_lines(text);
    std::size_t whole = 0, keep = 0, header = 0;
    bool beyond = false;
    for (const std::string_view line : lines) {
      whole += line.size() + 1;
      if (table && header == 0) {
        columns_ = detail::split_columns(line);
        if (columns_[0] != "step") bad(line);
        keep = header = whole;
        continue;
      }
      Index step = -1;
      if (line.starts_with(before_step)) {
        const std::string_view number = line.substr(before_step.size());
        std::from_chars(number.data(), number.data() + number.size(), step);
      }
      if (step < 0) bad(line);
      beyond = beyond || step > last;
      if (beyond) continue;
      keep = whole;
      last_step_ = std::max(last_step_, step);
    }
    const std::string_view tail = std::string_view(text).substr(whole);
    if (!detail::torn_line(tail, table && header == 0 ? "step," : before_step)) bad(tail);
    if (header != 0 && keep == header) {  // no row left: the next one names the columns anew
      keep = 0;
      columns_.clear();
    }
    return keep;
  }

  detail::RowFile csv_, jsonl_, timing_;
  std::unique_ptr<MetricsSink> also_;
  std::vector<std::string> columns_;
  Index last_step_ = -1;
};

/// Reads a metrics.csv; an empty cell is NaN. Errors name the file and the line.
inline std::vector<MetricRow> read_metrics(const std::string& path) {
  const std::string text = read_file(path);
  std::vector<MetricRow> rows;
  std::vector<std::string> columns;
  for (const std::string_view line : detail::whole_lines(text)) {
    std::vector<std::string> cells = detail::split_columns(line);
    const std::size_t number = rows.size() + (columns.empty() ? 1 : 2);
    if (columns.empty()) {
      if (cells[0] != "step")
        fail<DataError>(str("[metrics] ", shown(path), ":1 is not a metrics header"));
      columns = std::move(cells);
      continue;
    }
    if (cells.size() != columns.size())
      fail<DataError>(str("[metrics] ", shown(path), ':', number, " has ", cells.size(),
                          " cells for ", columns.size(), " columns"));
    MetricRow row;
    for (std::size_t i = 0; i < cells.size(); ++i) {
      const char* end = cells[i].data() + cells[i].size();
      double value = std::numeric_limits<double>::quiet_NaN();
      const auto parsed = i == 0 ? std::from_chars(cells[i].data(), end, row.step)
                                 : std::from_chars(cells[i].data(), end, value);
      if ((i == 0 || !cells[i].empty()) && (parsed.ec != std::errc() || parsed.ptr != end))
        fail<DataError>(str("[metrics] ", shown(path), ':', number, ": \"", shown(cells[i]),
                            "\" is not a number, in column ", columns[i]));
      if (i > 0) row.values.emplace_back(columns[i], value);
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

inline std::vector<MetricRow> MetricsWriter::rows() const { return read_metrics(csv_.path()); }

}}  // namespace plumb::v0_1
