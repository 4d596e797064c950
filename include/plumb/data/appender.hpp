// JsonlAppender: adds lines to a JSON Lines file that people's work is in. What append() returned
// from is on disk, under the name that was given, and stays.
//
// One program adds to a file at a time (flock). A line that a crash cut short is removed, a line
// that was acknowledged never: if the file is deleted, replaced or edited meanwhile, the next
// append fails, and acknowledged lines that are no longer in it are saved beside it. A line that a
// person withdraws is removed, not marked: whoever reads the file needs to know nothing of it.
#pragma once

#include <plumb/data/jsonl.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

class JsonlAppender {
 public:
  /// Opens or creates the file. A last line that a crash cut short is removed (see discarded()); a
  /// whole one that only lacks its newline gets it. DataError if the file is not JSON Lines,
  /// IoError if another program adds to it or if it is no regular file.
  explicit JsonlAppender(std::string path, Where where = Where::here()) : path_(std::move(path)) {
    open(where);
    const std::string text = detail::read_all(fd_.get(), path_, where);
    if (const auto kind = detail::not_plain_text(text, shown(path_)); !kind.what.empty())
      fail<DataError>(str("[jsonl] ", shown(path_), " is ", kind.what,
                          ", and lines are added to plain text only; nothing was changed. HINT: ",
                          kind.hint, ", if it is the file that you meant"),
                      where);
    const std::string_view tail = std::string_view(text).substr(text.rfind('\n') + 1);
    size_ = static_cast<off_t>(text.size());
    if (!tail.empty()) repair(tail, where);
    detail::sync_directory_of(followed_links(path_, where), where);
  }

  /// Bytes of an incomplete last line that opening the file removed.
  Index discarded() const { return discarded_; }

  /// Adds one line and waits until it is on disk. IoError if that fails; then the file is as
  /// before.
  void append(const Json& json, Where where = Where::here()) {
    const std::string line = detail::json_line(json);
    expect_unchanged(where);
    add(line, where);
    // Whoever replaced it between the look before and the writing has the file without the line.
    if (!detail::still_names(path_, fd_.get())) fail_changed("deleted or replaced", where);
    added_.push_back(line);
  }

  /// Adds one line per record, after all that others added, and waits once.
  template <class Record>
  void append_all(const std::vector<Record>& records, Where where = Where::here()) {
    std::string lines;
    for (const Record& record : records) lines += detail::json_line(to_json(record));
    expect_unchanged(where);
    add(lines, where);
    if (!detail::still_names(path_, fd_.get())) fail_changed("deleted or replaced", where);
    if (!lines.empty()) added_.push_back(std::move(lines));
  }

  /// Removes the last line that `matches` (a function of its JSON), whoever appended it and when,
  /// for good, and returns it; nothing if none does. The other lines keep their bytes and order. If
  /// it is not the file's last line, the file is replaced as a whole. IoError if someone else has
  /// changed the file meanwhile; then it is as before.
  template <class Matches>
  std::optional<Json> remove_last(Matches&& matches, Where where = Where::here()) {
    expect_unchanged(where);
    const detail::Descriptor reading(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
    if (reading.get() < 0) detail::fail_io("open", path_, errno, where);
    const std::string text = detail::read_all(reading.get(), path_, where);
    for (std::size_t end = text.size(), begin = 0; end > 0; end = begin) {
      begin = end < 2 ? 0 : text.rfind('\n', end - 2) + 1;  // 0 where there is none
      const std::string line = text.substr(begin, end - begin);
      if (line.find_first_not_of(" \t\r\n") == line.npos) continue;
      Json json = parse_json(line, shown(path_), where);
      if (!matches(json)) continue;
      if (end == text.size())
        cut(static_cast<off_t>(begin), where);
      else
        replace(text.substr(0, begin) + text.substr(end), where);
      forget(line);
      return json;
    }
    return std::nullopt;
  }

 private:
  void open(Where where) {
    for (;;) {
      fd_ = detail::Descriptor(
          ::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC, 0666));
      if (fd_.get() < 0) detail::fail_io("open", path_, errno, where);
      struct stat status {};
      if (::fstat(fd_.get(), &status) != 0) detail::fail_io("examine", path_, errno, where);
      if (!S_ISREG(status.st_mode))
        fail<IoError>(str("[jsonl] ", shown(path_),
                          " is no regular file, and lines are added to one "
                          "only. HINT: name a file"),
                      where);
      if (!detail::try_lock(fd_.get(), path_, where)) detail::fail_locked(path_, where);
      // Who held the lock before may have replaced the file: then this one has no name any more.
      if (detail::still_names(path_, fd_.get())) return;
    }
  }

  void repair(std::string_view tail, Where where) {
    bool whole = true;
    try {
      parse_json(tail);
    } catch (const DataError&) {
      whole = false;
    }
    if (whole) return add("\n", where);
    // A crash may leave zeros where data was due. Anything else was never a line of ours.
    if (tail[0] != '{' && tail[0] != '\0')
      fail<DataError>(str("[jsonl] ", shown(path_),
                          " does not end in a JSON line. HINT: is it the "
                          "file that you meant? Nothing was changed"),
                      where);
    discarded_ = static_cast<Index>(tail.size());
    cut(size_ - static_cast<off_t>(tail.size()), where);
  }

  void expect_unchanged(Where where) {
    struct stat status {};
    if (::fstat(fd_.get(), &status) != 0) detail::fail_io("examine", path_, errno, where);
    if (!detail::still_names(path_, fd_.get())) fail_changed("deleted or replaced", where);
    if (status.st_size != size_) fail_changed("changed", where);
  }

  /// Saves the acknowledged lines that the file has lost, and says where.
  [[noreturn]] void fail_changed(const char* what, Where where) {
    const detail::Descriptor now(::open(path_.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    const std::string text =
        "\n" + (now.get() >= 0 ? detail::read_all(now.get(), path_, where) : std::string());
    std::string lost;
    for (const std::string& lines : added_)
      if (text.find("\n" + lines) == text.npos) lost += lines;
    std::string saved;
    for (int n = 1; !lost.empty() && (saved.empty() || ::access(saved.c_str(), F_OK) == 0); ++n)
      saved = str(path_, ".saved-", n);
    if (!lost.empty()) write_atomically(saved, lost, where);
    fail<IoError>(
        str("[jsonl] ", shown(path_), " was ", what, " by another program; nothing more is added",
            lost.empty()
                ? ". HINT: start again"
                : "; what was acknowledged and is no longer in it is in " + shown(saved) +
                      ". HINT: cat " + shown(saved) + " >> " + shown(path_) + ", and start again"),
        where);
  }

  void add(std::string_view bytes, Where where) {
    try {
      detail::write_all(fd_.get(), bytes, path_, where);
      if (::fsync(fd_.get()) != 0) detail::fail_io("sync", path_, errno, where);
    } catch (const IoError&) {
      // Best effort: if even this fails, the next opening removes the partial line.
      if (::ftruncate(fd_.get(), size_) == 0) ::fsync(fd_.get());
      throw;
    }
    size_ += static_cast<off_t>(bytes.size());
  }

  /// Under the lock of what stands there now, until the other has its own.
  void replace(const std::string& text, Where where) {
    write_atomically(path_, text, where);
    size_ = static_cast<off_t>(text.size());
    try {
      open(where);
      expect_unchanged(where);
    } catch (const IoError&) {
      fd_ = detail::Descriptor();  // nothing more is added by whoever has no lock
      throw;
    }
  }

  /// A line that was withdrawn is none that a later loss could take.
  void forget(const std::string& line) {
    for (auto lines = added_.rbegin(); lines != added_.rend(); ++lines) {
      const std::size_t at = ("\n" + *lines).find("\n" + line);
      if (at == lines->npos) continue;
      lines->erase(at, line.size());
      return;
    }
  }

  void cut(off_t size, Where where) {
    if (::ftruncate(fd_.get(), size) != 0 || ::fsync(fd_.get()) != 0)
      detail::fail_io("shorten", path_, errno, where);
    size_ = size;
  }

  std::string path_;
  detail::Descriptor fd_;
  off_t size_ = 0;
  Index discarded_ = 0;
  std::vector<std::string> added_;  ///< what each call appended, acknowledged
};

}}  // namespace plumb::v0_1
