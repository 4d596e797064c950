// Reading files whole, and what every file operation here shares: a descriptor that closes itself,
// and errors that say what the system said. Writing is in io/output.hpp, mapping in io/mapped.hpp.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/io/utf8.hpp>

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

/// A path as messages show it: a path may hold any bytes, a message is text.
inline std::string shown(std::string_view path) { return repaired_utf8(path); }

namespace detail {

[[noreturn]] inline void fail_io(std::string_view action, std::string_view path, int error,
                                 Where where) {
  const char* hint =
      error == ENOSPC || error == EDQUOT || error == EFBIG
          ? ". HINT: free some space, or write to another disk"
      : error == ENOENT || error == ENOTDIR ? ". HINT: check the path; its directory must exist"
      : error == EACCES || error == EPERM || error == EROFS ? ". HINT: choose a path you may write"
                                                            : "";
  fail<IoError>(str("[file] cannot ", action, " ", shown(path), ": ", std::strerror(error), hint),
                where);
}

/// A POSIX descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
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

inline void write_all(int fd, std::string_view bytes, std::string_view path, Where where) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail_io("write", path, n < 0 ? errno : ENOSPC, where);
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
}

/// All that is to be read from `fd`, which stands at its beginning.
inline std::string read_all(int fd, std::string_view path, Where where) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) fail_io("examine", path, errno, where);
  std::string out;
  // One byte more than the size, so that the common case meets its end without growing; pipes and
  // /proc files say 0 and grow.
  out.resize(static_cast<std::size_t>(status.st_size > 0 ? status.st_size : 0) + 1);
  std::size_t used = 0;
  for (;;) {
    if (used == out.size()) out.resize(out.size() * 2);
    const ssize_t n = ::read(fd, out.data() + used, out.size() - used);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_io("read", path, errno, where);
    if (n == 0) break;
    used += static_cast<std::size_t>(n);
  }
  out.resize(used);
  return out;
}

/// Whether there is something at the path, links followed.
inline bool file_exists(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0;
}

/// The directory part of a path, with its slash; "./" if there is none.
inline std::string directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "./" : path.substr(0, slash + 1);
}

/// Waits until the names in the directory of `path` are on disk.
inline void sync_directory_of(const std::string& path, Where where) {
  const Descriptor fd(::open(directory_of(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  // EINVAL: a file system that cannot sync directories; what changed a name is done.
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
  return detail::read_all(fd.get(), path, where);
}

/// Whether two paths name one file, through whatever links. Two that do not exist yet are one if
/// their directory and last name are.
inline bool same_file(const std::string& a, const std::string& b) {
  struct stat x {
  }, y{};
  const bool have_a = ::stat(a.c_str(), &x) == 0, have_b = ::stat(b.c_str(), &y) == 0;
  if (have_a != have_b) return false;
  if (!have_a && (a.substr(a.rfind('/') + 1) != b.substr(b.rfind('/') + 1) ||
                  ::stat(detail::directory_of(a).c_str(), &x) != 0 ||
                  ::stat(detail::directory_of(b).c_str(), &y) != 0))
    return false;
  return x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

}}  // namespace plumb::v0_1
