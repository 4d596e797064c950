// Output: the one way in which files are written, so that a reader, a crash or a full disk never
// meets half of one, and so that a path that cannot be written is refused before the work for it
// begins.
//
// A regular file is written under no name at all where the system can do that (O_TMPFILE), else
// under one of its own; fsync, rename over PATH, fsync the directory. Until the rename the previous
// file is whole, after the last fsync the new one survives a power cut, and a failure leaves
// nothing behind. Links are followed: what they point at is replaced, they stay. The replaced
// file's mode is kept and, where the system permits, its owner; further hard links keep the old
// contents.
//
// A device, a pipe, an open descriptor (/dev/stdout, /proc/self/fd/1) or "-", standard output, is
// never renamed over: it is written through, as the bytes come. What this is not: a lock. Of two
// writers of one PATH the later commit stays, whole; see io/lock.hpp.
#pragma once

#include <plumb/io/file.hpp>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include <linux/magic.h>
#include <sys/vfs.h>

namespace plumb { inline namespace v0_1 {

namespace detail {

/// Where bytes for a path go.
struct OutputTarget {
  std::string path;                   ///< links followed; empty if it is an open descriptor
  int descriptor = -1;                ///< of this process, to be shared
  bool regular = true;                ///< to be replaced as a whole; else written through
  std::optional<struct stat> before;  ///< the file that is there
};

/// N if `link`, a symbolic link, is this process's own descriptor N (/proc/self/fd/N); -1
/// otherwise.
inline int own_descriptor(const std::string& link) {
  struct stat here {
  }, mine{};
  if (::stat(directory_of(link).c_str(), &here) != 0 || ::stat("/proc/self/fd", &mine) != 0 ||
      here.st_dev != mine.st_dev || here.st_ino != mine.st_ino)
    return -1;
  return std::atoi(link.c_str() + link.rfind('/') + 1);
}

/// Follows links by their text, since rename() does not. What /proc shows as links are doors to
/// open files rather than names of them, and are not followed.
inline OutputTarget output_target(const std::string& path, Where where) {
  OutputTarget out;
  if (path == "-") {
    out.descriptor = STDOUT_FILENO;
    out.regular = false;
    return out;
  }
  out.path = path;
  struct stat status {};
  for (int links = 0; ::lstat(out.path.c_str(), &status) == 0 && S_ISLNK(status.st_mode); ++links) {
    struct statfs system {};
    if (::statfs(directory_of(out.path).c_str(), &system) == 0 &&
        system.f_type == PROC_SUPER_MAGIC) {
      out.descriptor = own_descriptor(out.path);
      out.regular = false;
      break;
    }
    std::array<char, 4096> text;
    const ssize_t length = ::readlink(out.path.c_str(), text.data(), text.size());
    if (length < 0 || links == 40) fail_io("follow", path, length < 0 ? errno : ELOOP, where);
    const std::string next(text.data(), static_cast<std::size_t>(length));
    out.path = next.starts_with('/') ? next : directory_of(out.path) + next;
  }
  if (out.descriptor >= 0) return out;
  if (::stat(out.path.c_str(), &status) == 0) {
    if (S_ISDIR(status.st_mode)) fail_io("write", path, EISDIR, where);
    if (::faccessat(AT_FDCWD, out.path.c_str(), W_OK, AT_EACCESS) != 0)
      fail_io("write", path, errno, where);
    out.regular = out.regular && S_ISREG(status.st_mode);
    out.before = status;
    struct statx more {};
    if (::statx(AT_FDCWD, out.path.c_str(), 0, 0, &more) == 0 && out.regular &&
        (more.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0)
      fail<IoError>(str("[file] cannot write ", shown(path),
                        ": it is mounted by itself, and cannot be replaced. HINT: name a file in a "
                        "directory"),
                    where);
  } else if (errno != ENOENT || path.empty() || path.ends_with('/')) {
    fail_io("write", path, path.ends_with('/') ? EISDIR : errno, where);
  }
  return out;
}

inline void check_writable(int fd, const std::string& path, Where where) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY)
    fail<IoError>(str("[file] cannot write ", path == "-" ? "standard output" : shown(path),
                      ": it is closed. HINT: open it, or name a file"),
                  where);
}

}  // namespace detail

class Output {
 public:
  /// Opens PATH for writing; what stands there is untouched until commit(). IoError with the
  /// system's reason if it cannot be written.
  explicit Output(std::string path, Where where = Where::here())
      : path_(std::move(path)), target_(detail::output_target(path_, where)) {
    if (target_.regular)
      open_temporary(where);
    else
      open_through(where);
  }
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;
  /// Without a commit nothing has happened to a regular file.
  ~Output() { discard(); }

  /// Appends bytes. IoError if the system refuses; then there is nothing to commit.
  void write(std::string_view bytes, Where where = Where::here()) {
    try {
      detail::write_all(fd_.get(), bytes, path_, where);
    } catch (const IoError&) {
      discard();
      throw;
    }
  }

  /// Puts what was written in place. With `previous`, the file that is replaced stays under that
  /// name, in the same directory; at every instant one of the two names is of a whole file.
  void commit(const std::string& previous = {}, Where where = Where::here()) {
    // A pipe cannot be synchronised, and need not be.
    if (::fsync(fd_.get()) != 0 && (target_.regular || (errno != EINVAL && errno != EROFS)))
      detail::fail_io("sync", path_, errno, where);
    if (target_.regular && temporary_.empty()) name_temporary(where);
    if (fd_.close() != 0) detail::fail_io("close", path_, errno, where);
    if (!target_.regular) return;
    if (!previous.empty() && target_.before) keep(previous, where);
    if (::rename(temporary_.c_str(), target_.path.c_str()) != 0)
      detail::fail_io("replace", path_, errno, where);
    temporary_.clear();
    detail::sync_directory_of(target_.path, where);
  }

  /// PATH as it was given.
  const std::string& path() const { return path_; }

 private:
  // A name that no file has, beside the target; not made from the target's, which may be as long as
  // names can be.
  std::string fresh_name() const {
    static std::atomic<unsigned> count{0};
    return str(detail::directory_of(target_.path), ".plumb-", ::getpid(), '-', ++count);
  }

  std::string own_link() const { return str("/proc/self/fd/", fd_.get()); }

  void open_temporary(Where where) {
    // The mode of what is replaced, and never, not for a moment, a wider one.
    const mode_t mode = target_.before ? 0600 : 0666;
    const std::string directory = detail::directory_of(target_.path);
    fd_ = detail::Descriptor(::open(directory.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, mode));
    // Without /proc it could never be given a name.
    if (fd_.get() >= 0 && ::access(own_link().c_str(), F_OK) != 0) fd_ = detail::Descriptor();
    for (int tries = 0; fd_.get() < 0 && tries < 1000; ++tries) {
      const std::string name = fresh_name();
      fd_ = detail::Descriptor(
          ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode));
      if (fd_.get() >= 0)
        temporary_ = name;
      else if (errno != EEXIST)
        break;
    }
    if (fd_.get() < 0) detail::fail_io("create", path_, errno, where);
    if (target_.before) take_mode_and_owner(*target_.before, where);
  }

  void take_mode_and_owner(const struct stat& before, Where where) {
    mode_t mode = before.st_mode & 07777;
    if (::fchown(fd_.get(), before.st_uid, before.st_gid) != 0 &&
        ::fchown(fd_.get(), static_cast<uid_t>(-1), before.st_gid) != 0)
      mode &= ~static_cast<mode_t>(S_ISGID | S_IRWXG);  // what was one group's is not another's
    if (::fchmod(fd_.get(), mode) != 0) {
      const int error = errno;
      discard();
      detail::fail_io("keep the mode of", path_, error, where);
    }
  }

  void open_through(Where where) {
    std::fflush(stdout);  // what was printed before comes first
    if (target_.descriptor >= 0) {
      detail::check_writable(target_.descriptor, path_, where);
      fd_ = detail::Descriptor(::fcntl(target_.descriptor, F_DUPFD_CLOEXEC, 3));
    } else {
      // A pipe that nobody reads would hold us up for ever: it is given a moment, then refused.
      for (int tries = 0; tries < 50; ++tries) {
        fd_ = detail::Descriptor(
            ::open(target_.path.c_str(), O_WRONLY | O_APPEND | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
        if (fd_.get() >= 0 || errno != ENXIO) break;
        ::usleep(10000);
        errno = ENXIO;
      }
      if (fd_.get() >= 0) ::fcntl(fd_.get(), F_SETFL, O_APPEND);
    }
    if (fd_.get() >= 0) return;
    if (errno == ENXIO)
      fail<IoError>(str("[file] cannot write ", shown(path_),
                        ": nobody reads it. HINT: start its reader first, or name a file"),
                    where);
    detail::fail_io("open", path_, errno, where);
  }

  // Gives the nameless file a name, for rename() to take.
  void name_temporary(Where where) {
    for (int tries = 0; tries < 1000; ++tries) {
      const std::string name = fresh_name();
      if (::linkat(AT_FDCWD, own_link().c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0) {
        temporary_ = name;
        return;
      }
      if (errno != EEXIST) break;
    }
    detail::fail_io("create", path_, errno, where);
  }

  void keep(const std::string& previous, Where where) {
    const std::string name = fresh_name();
    if (::link(target_.path.c_str(), name.c_str()) == 0) {
      if (::rename(name.c_str(), previous.c_str()) == 0) {
        ::unlink(name.c_str());  // rename() does nothing where both names were of one file already
        return;
      }
      ::unlink(name.c_str());
    } else if (errno == ENOENT || ::rename(target_.path.c_str(), previous.c_str()) == 0) {
      return;  // gone meanwhile; or a file system without links, which has one of the two names
    }
    detail::fail_io("keep the previous file as", previous, errno, where);
  }

  void discard() {
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
    temporary_.clear();
    fd_ = detail::Descriptor();
  }

  std::string path_;
  detail::OutputTarget target_;
  detail::Descriptor fd_;
  std::string temporary_;  ///< its name; empty if it has none
};

/// Replaces PATH by what `content(put)` puts, where `put(std::string_view)` appends bytes. IoError
/// if anything fails; then PATH is as it was. An exception thrown by `content` passes through and
/// does the same.
template <class Content>
  requires std::is_invocable_v<Content, void (&)(std::string_view)>
void write_atomically(const std::string& path, Content&& content, Where where = Where::here()) {
  Output out(path, where);
  content([&](std::string_view bytes) { out.write(bytes, where); });
  out.commit({}, where);
}

/// Replaces PATH by `bytes`, as above.
inline void write_atomically(const std::string& path, std::string_view bytes,
                             Where where = Where::here()) {
  write_atomically(
      path, [bytes](auto put) { put(bytes); }, where);
}

/// The file that writing to PATH would replace: PATH with its links followed.
inline std::string followed_links(const std::string& path, Where where = Where::here()) {
  const detail::OutputTarget target = detail::output_target(path, where);
  return target.regular ? target.path : path;
}

/// Refuses, before any work, an output that cannot be written (IoError) or that is one of the
/// inputs
/// (DataError). Leaves nothing behind and changes nothing; an empty path is no output.
inline void check_output(const std::string& path, std::span<const std::string> inputs = {},
                         Where where = Where::here()) {
  if (path.empty()) return;
  for (const std::string& input : inputs)
    if (path != "-" && same_file(path, input))
      fail<DataError>(str("[file] the output ", shown(path), " is also the input ", shown(input),
                          ", which it would replace. HINT: name another file"),
                      where);
  const detail::OutputTarget target = detail::output_target(path, where);
  if (target.regular)
    Output(path, where);
  else if (target.descriptor >= 0)
    detail::check_writable(target.descriptor, path, where);
}

/// Hands what was printed to the system. IoError if it, or anything printed before, was not taken:
/// a full disk, or a standard output that is closed.
inline void flush_standard_output(Where where = Where::here()) {
  errno = 0;
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
    detail::fail_io("write", "standard output", errno != 0 ? errno : EIO, where);
}

}}  // namespace plumb::v0_1
