// Whole files: reading one, and replacing one so that a reader, a crash or a full disk never meets
// half of it.
//
// write_atomically: write PATH.tmp, check every write, fsync, rename over PATH, fsync the
// directory. Until the rename the previous file is whole; after the last fsync the new one survives
// a power cut. What this is not: a lock. Two processes writing one PATH at once share PATH.tmp.
#pragma once

#include <plumb/core/check.hpp>

#include <cerrno>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace plumb { inline namespace v0_1 {

namespace detail {

[[noreturn]] inline void fail_io(std::string_view action, const std::string& path, int error,
                                 Where where) {
  const char* hint = error == ENOSPC || error == EDQUOT || error == EFBIG
                         ? ". HINT: free some space, or write to another disk"
                     : error == ENOENT ? ". HINT: check the path; its directory must exist"
                     : error == EACCES || error == EROFS ? ". HINT: choose a path you may write"
                                                         : "";
  fail<IoError>(str("[file] cannot ", action, " ", path, ": ", std::strerror(error), hint), where);
}

/// A POSIX descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  /// Closes now, for callers to whom a failing close matters; returns close()'s result.
  int close() { return ::close(std::exchange(fd_, -1)); }

 private:
  int fd_;
};

inline void write_all(int fd, std::string_view bytes, const std::string& path, Where where) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail_io("write", path, n < 0 ? errno : ENOSPC, where);
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
}

inline void sync_directory_of(const std::string& path, Where where) {
  const std::size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const Descriptor fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  // EINVAL: a file system that cannot sync directories; the rename itself is done.
  if (fd.get() < 0 || (::fsync(fd.get()) != 0 && errno != EINVAL))
    fail_io("sync the directory of", path, errno, where);
}

}  // namespace detail

/// The bytes of `values` as they lie in memory.
template <class T>
std::string_view as_text(std::span<const T> values) {
  static_assert(std::is_trivially_copyable_v<T>);
  return {reinterpret_cast<const char*>(values.data()), values.size_bytes()};
}

/// All bytes of a file. IoError if it cannot be read.
inline std::string read_file(const std::string& path, Where where = Where::here()) {
  const detail::Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) detail::fail_io("open", path, errno, where);
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) detail::fail_io("examine", path, errno, where);
  std::string out;
  // One byte more than the size, so that the common case meets its end without growing; pipes and
  // /proc files say 0 and grow.
  out.resize(static_cast<std::size_t>(status.st_size > 0 ? status.st_size : 0) + 1);
  std::size_t used = 0;
  for (;;) {
    if (used == out.size()) out.resize(out.size() * 2);
    const ssize_t n = ::read(fd.get(), out.data() + used, out.size() - used);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) detail::fail_io("read", path, errno, where);
    if (n == 0) break;
    used += static_cast<std::size_t>(n);
  }
  out.resize(used);
  return out;
}

/// Replaces PATH by what `content(put)` puts, where `put(std::string_view)` appends bytes. IoError
/// with the system's words if anything fails; then PATH is as it was and no PATH.tmp is left. An
/// exception thrown by `content` does the same and passes through.
template <class Content>
  requires std::is_invocable_v<Content, void (&)(std::string_view)>
void write_atomically(const std::string& path, Content&& content, Where where = Where::here()) {
  const std::string temporary = path + ".tmp";
  detail::Descriptor fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (fd.get() < 0) detail::fail_io("create", temporary, errno, where);
  try {
    content([&](std::string_view bytes) { detail::write_all(fd.get(), bytes, temporary, where); });
    if (::fsync(fd.get()) != 0) detail::fail_io("sync", temporary, errno, where);
    if (fd.close() != 0) detail::fail_io("close", temporary, errno, where);
    if (::rename(temporary.c_str(), path.c_str()) != 0)
      detail::fail_io("rename to", path, errno, where);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  detail::sync_directory_of(path, where);
}

/// Replaces PATH by `bytes`, as above.
inline void write_atomically(const std::string& path, std::string_view bytes,
                             Where where = Where::here()) {
  write_atomically(
      path, [bytes](auto put) { put(bytes); }, where);
}

}}  // namespace plumb::v0_1
