// Locks between processes, by flock(2): advice that everyone here takes, gone with the process that
// holds it, however it ends. Not a protection against programs that do not ask.
#pragma once

#include <plumb/io/file.hpp>

#include <string>

#include <sys/file.h>

namespace plumb { inline namespace v0_1 {

namespace detail {

/// Takes the lock of an open file, for as long as it is open; false if someone else has it.
inline bool try_lock(int fd, std::string_view path, Where where) {
  while (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return false;
    if (errno != EINTR) fail_io("lock", path, errno, where);
  }
  return true;
}

/// Whether `path` still names the file that `fd` has open.
inline bool still_names(const std::string& path, int fd) {
  struct stat open {
  }, named{};
  return ::fstat(fd, &open) == 0 && ::stat(path.c_str(), &named) == 0 &&
         open.st_dev == named.st_dev && open.st_ino == named.st_ino;
}

}  // namespace detail

/// Holds a run directory, so that two processes never write one run: a lock on its file `lock`,
/// which stays there.
class RunLock {
 public:
  /// IoError if another process uses the run, or if the directory cannot be written.
  explicit RunLock(const std::string& directory, Where where = Where::here()) {
    const std::string path = directory + "/lock";
    fd_ = detail::Descriptor(
        ::open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666));
    if (fd_.get() < 0) detail::fail_io("open", path, errno, where);
    if (!detail::try_lock(fd_.get(), path, where))
      fail<IoError>(str("[run] another process uses this run, ", shown(directory),
                        ". HINT: wait until it has ended, or name another directory with --run"),
                    where);
  }

 private:
  detail::Descriptor fd_;
};

}}  // namespace plumb::v0_1
