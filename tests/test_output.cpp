// Files as they are written: whole or not at all, to the right place, with the right mode; locks.
#include "files.hpp"

#include <plumb/io/lock.hpp>
#include <plumb/io/mapped.hpp>
#include <plumb/io/output.hpp>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <stdexcept>
#include <string>

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

using namespace plumb;

namespace {

struct stat status_of(const std::string& path) {
  struct stat out {};
  REQUIRE(::lstat(path.c_str(), &out) == 0);
  return out;
}

mode_t mode_of(const std::string& path) { return status_of(path).st_mode & 07777; }

/// Puts `fd` in place of descriptor `at` while it lives.
class Redirected {
 public:
  Redirected(int at, int fd) : at_(at), saved_(::fcntl(at, F_DUPFD_CLOEXEC, 100)) {
    std::fflush(stdout);
    if (fd >= 0)
      ::dup2(fd, at);
    else
      ::close(at);
  }
  Redirected(const Redirected&) = delete;
  Redirected& operator=(const Redirected&) = delete;
  ~Redirected() {
    std::fflush(stdout);
    ::dup2(saved_, at_);
    ::close(saved_);
  }

 private:
  int at_, saved_;
};

int opened(const std::string& path, int flags) {
  return ::open(path.c_str(), flags | O_CLOEXEC, 0666);
}

/// From here on this process is on a file system without nameless files, or without links too.
bool become_poor(bool links) {
  const auto nr = [](int number) { return static_cast<std::uint32_t>(number); };
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr(links ? -1 : __NR_link), 6, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr(links ? -1 : __NR_linkat), 5, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr(__NR_openat), 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[2])),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_TMPFILE & ~O_DIRECTORY, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
  };
  const sock_fprog filter{std::size(program), program};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

/// A path refused before work, with nothing left in the directory but what was there.
std::string refusal(const Temporary& directory, const std::string& path) {
  const auto before = directory.files();
  const std::string by_check = message_of<IoError>([&] { check_output(path); });
  const std::string by_opening = message_of<IoError>([&] { Output out(path); });
  CHECK_FALSE(by_check.empty());
  CHECK_FALSE(by_opening.empty());
  CHECK(is_utf8(by_opening));
  CHECK(directory.files() == before);
  return by_opening;
}

}  // namespace

TEST_CASE("output: what is written is read, whole, and nothing else is left") {
  const Temporary directory;
  const std::string path = directory / "file";
  for (const std::size_t size : {0u, 1u, 4095u, 4096u, 100000u}) {
    const std::string bytes(size, 'x');
    write_atomically(path, bytes);
    CHECK(read_file(path) == bytes);
  }
  write_atomically(path, [](auto put) {
    put("one ");
    put("two");
  });
  CHECK(read_file(path) == "one two");
  CHECK(directory.files() == 1);
  CHECK_FALSE(read_file("/proc/self/stat").empty());  // says it has 0 bytes
}

TEST_CASE("output: a failure names the file and the system's reason") {
  const Temporary directory;
  says(message_of<IoError>([&] { read_file(directory / "absent"); }), "absent: No such file");
  says(message_of<IoError>([&] { read_file(directory / ""); }), "Is a directory");
  says(message_of<IoError>([&] { write_atomically(directory / "no/such", "x"); }), "HINT");
  CHECK_THROWS_AS(write_atomically("/proc/plumb", "x"), IoError);
}

TEST_CASE("output: a full disk leaves the previous file whole and no other") {
  const Temporary directory;
  const std::string path = directory / "file";
  write_atomically(path, "the previous contents");
  std::string error;
  {
    const FullDisk full(4096);
    error = message_of<IoError>([&] { write_atomically(path, std::string(100000, 'x')); });
  }
  says(error, "File too large");
  says(error, "HINT: free some space");
  CHECK(read_file(path) == "the previous contents");
  CHECK(directory.files() == 1);
}

TEST_CASE("output: an exception while writing leaves the previous file whole and no other") {
  const Temporary directory;
  const std::string path = directory / "file";
  write_atomically(path, "before");
  CHECK_THROWS_AS(write_atomically(path,
                                   [](auto put) {
                                     put("half");
                                     throw std::runtime_error("stop");
                                   }),
                  std::runtime_error);
  CHECK(read_file(path) == "before");
  CHECK(directory.files() == 1);
}

TEST_CASE("output: nothing is there before the commit, and nothing of it without one") {
  const Temporary directory;
  const std::string path = directory / "file";
  write_plainly(path, "before");
  {
    Output out(path);
    out.write("half");
    CHECK(read_file(path) == "before");
  }
  CHECK(read_file(path) == "before");
  CHECK(directory.files() == 1);
  Output out(path);
  out.write("after");
  out.write(", whole");
  out.commit();
  CHECK(read_file(path) == "after, whole");
  CHECK(directory.files() == 1);
}

TEST_CASE("output: two writers of one path do not meet") {
  const Temporary directory;
  const std::string path = directory / "file";
  Output a(path), b(path);
  a.write("aaaa");
  b.write("bb");
  a.write("AAAA");
  b.commit();
  CHECK(read_file(path) == "bb");
  a.commit();
  CHECK(read_file(path) == "aaaaAAAA");
  CHECK(directory.files() == 1);
}

TEST_CASE("output: a path that cannot be written is refused before the work") {
  const Temporary directory;
  ::mkdir((directory / "sub").c_str(), 0777);
  write_plainly(directory / "file", "x");
  says(refusal(directory, directory / "no/such"), "No such file or directory");
  says(refusal(directory, directory / "no/such"), "HINT");
  says(refusal(directory, directory / "sub"), "Is a directory");
  says(refusal(directory, directory / "sub/"), "Is a directory");
  says(refusal(directory, directory / "new/"), "Is a directory");
  says(refusal(directory, directory / "file/x"), "Not a directory");
  says(refusal(directory, directory / std::string(300, 'n')), "File name too long");
  ::symlink("round", (directory / "round").c_str());
  says(refusal(directory, directory / "round"), "symbolic links");
  CHECK_FALSE(message_of<IoError>([&] { Output out(""); }).empty());
  check_output(directory / "new");
  check_output(directory / "file");
  check_output("");
  CHECK(read_file(directory / "file") == "x");
  CHECK(directory.files() == 3);
}

TEST_CASE("output: what may not be written is refused, to whom it may not") {
  const Temporary directory;
  ::chmod((directory / "").c_str(), 0755);
  ::mkdir((directory / "closed").c_str(), 0555);
  write_plainly(directory / "read-only", "x");
  ::chmod((directory / "read-only").c_str(), 0444);
  const int status = status_in_child([&] {
    if (::geteuid() == 0 && (::setgid(65534) != 0 || ::setuid(65534) != 0)) return 77;
    const std::string closed = message_of<IoError>([&] { check_output(directory / "closed/new"); });
    const std::string file = message_of<IoError>([&] { check_output(directory / "read-only"); });
    return (closed.find("Permission denied") != closed.npos ? 1 : 0) +
           (file.find("Permission denied") != file.npos ? 2 : 0);
  });
  if (status != 77) CHECK(status == 3);
}

TEST_CASE("output: links stay, and what they point at is replaced") {
  const Temporary directory;
  ::mkdir((directory / "sub").c_str(), 0777);
  write_plainly(directory / "sub/target", "old");
  REQUIRE(::symlink("sub/target", (directory / "link").c_str()) == 0);
  REQUIRE(::symlink((directory / "link").c_str(), (directory / "second").c_str()) == 0);
  REQUIRE(::symlink("sub/absent", (directory / "dangling").c_str()) == 0);
  write_atomically(directory / "second", "new");
  CHECK(S_ISLNK(status_of(directory / "second").st_mode));
  CHECK(S_ISLNK(status_of(directory / "link").st_mode));
  CHECK(read_file(directory / "sub/target") == "new");
  write_atomically(directory / "dangling", "made");
  CHECK(S_ISLNK(status_of(directory / "dangling").st_mode));
  CHECK(read_file(directory / "sub/absent") == "made");
}

TEST_CASE("output: the mode of a file is kept, a new one has the umask's") {
  const Temporary directory;
  const mode_t before = ::umask(027);
  write_atomically(directory / "new", "x");
  for (const mode_t mode : {0600u, 0644u, 0666u, 0755u}) {
    const std::string path = directory / str("m", static_cast<Index>(mode));
    write_plainly(path, "x");
    ::chmod(path.c_str(), mode);
    write_atomically(path, "y");
    CHECK(mode_of(path) == mode);
    CHECK(read_file(path) == "y");
  }
  ::umask(before);
  CHECK(mode_of(directory / "new") == 0640);
}

TEST_CASE("output: root's writing leaves a file its owner") {
  if (::geteuid() != 0) return;
  const Temporary directory;
  const std::string path = directory / "file";
  write_plainly(path, "x");
  REQUIRE(::chown(path.c_str(), 12345, 23456) == 0);
  REQUIRE(::chmod(path.c_str(), 02640) == 0);
  write_atomically(path, "y");
  CHECK(status_of(path).st_uid == 12345);
  CHECK(status_of(path).st_gid == 23456);
  CHECK(mode_of(path) == 02640);
}

TEST_CASE("output: a device is written through, never replaced") {
  const Temporary directory;
  const std::string path = directory / "null";
  if (::mknod(path.c_str(), S_IFCHR | 0666, 1 << 8 | 3) != 0)
    return;  // root's right, not everywhere
  if (const int fd = opened(path, O_WRONLY); fd < 0)
    return;
  else
    ::close(fd);
  check_output(path);
  write_atomically(path, std::string(100000, 'x'));
  CHECK(S_ISCHR(status_of(path).st_mode));
  REQUIRE(::symlink("null", (directory / "link").c_str()) == 0);
  write_atomically(directory / "link", "x");
  CHECK(S_ISLNK(status_of(directory / "link").st_mode));
  CHECK(S_ISCHR(status_of(path).st_mode));
  const std::string full = directory / "full";
  REQUIRE(::mknod(full.c_str(), S_IFCHR | 0666, 1 << 8 | 7) == 0);
  says(message_of<IoError>([&] { write_atomically(full, "x"); }), "No space left");
  CHECK(S_ISCHR(status_of(full).st_mode));
  CHECK(directory.files() == 3);
}

TEST_CASE("output: a pipe gets the bytes if someone reads it, and is refused if nobody does") {
  const Temporary directory;
  const std::string path = directory / "pipe";
  REQUIRE(::mkfifo(path.c_str(), 0666) == 0);
  check_output(path);  // opens nothing: a reader would take that for the end
  says(message_of<IoError>([&] { write_atomically(path, "x"); }), "nobody reads it");
  const int reader = opened(path, O_RDONLY | O_NONBLOCK);
  write_atomically(path, "through");
  char text[20] = {};
  CHECK(::read(reader, text, sizeof text) == 7);
  CHECK(std::string(text) == "through");
  ::close(reader);
  CHECK(S_ISFIFO(status_of(path).st_mode));
  CHECK(directory.files() == 1);
}

TEST_CASE("output: a socket is refused and stays") {
  const Temporary directory;
  const std::string path = directory / "s";
  const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() < sizeof address.sun_path) {
    std::copy(path.begin(), path.end(), address.sun_path);
    REQUIRE(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    CHECK_THROWS_AS(write_atomically(path, "x"), IoError);
    CHECK(S_ISSOCK(status_of(path).st_mode));
  }
  ::close(fd);
}

TEST_CASE("output: - and links to an open descriptor go where it goes, after what was printed") {
  const Temporary directory;
  const std::string log = directory / "log", link = directory / "out";
  REQUIRE(::symlink("/proc/self/fd/1", link.c_str()) == 0);
  const int fd = opened(log, O_WRONLY | O_CREAT | O_TRUNC);
  {
    const Redirected standard_output(STDOUT_FILENO, fd);
    std::printf("printed ");
    write_atomically("-", "dash ");
    write_atomically(link, "link ");
    write_atomically("/proc/self/fd/1", "proc ");
    write_atomically("/dev/fd/1", "dev ");
    std::printf("printed");
  }
  ::close(fd);
  CHECK(read_file(log) == "printed dash link proc dev printed");
  CHECK(S_ISLNK(status_of(link).st_mode));
  CHECK(directory.files() == 2);
}

TEST_CASE("output: standard output that is closed, or not for writing, or full, is an error") {
  const Temporary directory;
  const std::string path = directory / "file";
  write_plainly(path, "x");
  std::string closed, reading, checked;
  {
    const Redirected standard_output(STDOUT_FILENO, -1);
    closed = message_of<IoError>([] { Output out("-"); });
    checked = message_of<IoError>([] { check_output("-"); });
  }
  const int fd = opened(path, O_RDONLY);
  {
    const Redirected standard_output(STDOUT_FILENO, fd);
    reading = message_of<IoError>([] { Output out("-"); });
  }
  ::close(fd);
  says(closed, "standard output: it is closed");
  says(checked, "standard output: it is closed");
  says(reading, "standard output: it is closed");
  // In a child, since the stream's error stays.
  for (const bool full : {true, false})
    CHECK(status_in_child([&] {
            const int file = full ? opened(path, O_WRONLY) : -1;
            if (full) {
              ::signal(SIGXFSZ, SIG_IGN);
              const struct rlimit none { 0, 0 };
              ::setrlimit(RLIMIT_FSIZE, &none);
              ::dup2(file, STDOUT_FILENO);
            } else {
              ::close(STDOUT_FILENO);
            }
            std::printf("a result");
            const std::string error = message_of<IoError>([] { flush_standard_output(); });
            return error.find("cannot write standard output") != error.npos ? 5 : 6;
          }) == 5);
  flush_standard_output();
}

TEST_CASE("output: paths of any bytes work, and messages about them are text") {
  const Temporary directory;
  const std::string odd = directory / "na\xffme\xc3";
  write_atomically(odd, "x");
  CHECK(read_file(odd) == "x");
  CHECK(directory.files() == 1);
  const std::string error = message_of<IoError>([&] { write_atomically(odd + "/no", "x"); });
  CHECK(is_utf8(error));
  says(error, "na\xef\xbf\xbdme\xef\xbf\xbd");
  CHECK(is_utf8(message_of<IoError>([&] { read_file(odd + "2"); })));
  CHECK(is_utf8(message_of<DataError>([&] { check_output(odd, std::vector<std::string>{odd}); })));
}

TEST_CASE("output: one of the inputs is refused, by whatever name, and stays as it was") {
  const Temporary directory;
  const std::string path = directory / "file";
  write_plainly(path, "x");
  REQUIRE(::symlink("file", (directory / "link").c_str()) == 0);
  REQUIRE(::link(path.c_str(), (directory / "hard").c_str()) == 0);
  for (const std::string& other :
       {path, directory / "link", directory / "hard", directory / "./file"}) {
    CHECK(same_file(path, other));
    const std::vector<std::string> inputs{directory / "other", other};
    says(message_of<DataError>([&] { check_output(path, inputs); }), "is also the input");
    CHECK(read_file(path) == "x");
  }
  CHECK_FALSE(same_file(path, directory / "other"));
  CHECK_FALSE(same_file(directory / "no", directory / "other"));
  CHECK(same_file(directory / "no", directory / "./no"));  // neither exists yet
  CHECK_FALSE(same_file("/nowhere/a", "/nowhere/a/b"));
  check_output(directory / "new", std::vector<std::string>{path});
  CHECK(directory.files() == 3);
}

TEST_CASE("output: the previous file is kept, whole, through every step") {
  const Temporary directory;
  const std::string path = directory / "file", previous = directory / "file.previous";
  const auto write = [&](const std::string& bytes) {
    Output out(path);
    out.write(bytes);
    out.commit(previous);
  };
  write("1");
  CHECK(directory.files() == 1);  // there was none to keep
  write("2");
  CHECK(read_file(previous) == "1");
  write("3");
  CHECK(read_file(path) == "3");
  CHECK(read_file(previous) == "2");
  CHECK(directory.files() == 2);
  ::unlink(previous.c_str());
  REQUIRE(::link(path.c_str(), previous.c_str()) == 0);  // as after a crash between the two renames
  write("4");
  CHECK(read_file(path) == "4");
  CHECK(read_file(previous) == "3");
  CHECK(directory.files() == 2);
}

TEST_CASE("output: where a file system lacks nameless files, or links, it is whole all the same") {
  for (const bool links : {true, false}) {
    const Temporary directory;
    const std::string path = directory / "file", previous = directory / "file.previous";
    write_plainly(path, "1");
    ::chmod(path.c_str(), 0640);
    const int status = status_in_child([&] {
      if (!become_poor(links)) return 77;
      check_output(path);
      if (directory.files() != 1) return 1;
      {
        Output out(path);
        out.write("lost");
        if (directory.files() != 2) return 2;  // under a name of its own
      }
      if (directory.files() != 1 || read_file(path) != "1") return 3;
      for (const char* bytes : {"2", "3"}) {
        Output out(path);
        out.write(bytes);
        out.commit(previous);
      }
      return 0;
    });
    CAPTURE(links);
    if (status == 77) return;  // a sandbox that allows no filters
    CHECK(status == 0);
    CHECK(read_file(path) == "3");
    CHECK(read_file(previous) == "2");
    CHECK(mode_of(path) == 0640);
    CHECK(directory.files() == 2);
  }
}

TEST_CASE("output: a file that is mounted by itself is refused before the work") {
  const Temporary directory;
  write_plainly(directory / "file", "x");
  write_plainly(directory / "under", "y");
  const int status = status_in_child([&] {
    if (::unshare(CLONE_NEWNS) != 0 ||
        ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount((directory / "file").c_str(), (directory / "under").c_str(), nullptr, MS_BIND,
                nullptr) != 0)
      return 77;
    const std::string error = message_of<IoError>([&] { check_output(directory / "under"); });
    return error.find("mounted by itself") != error.npos ? 0 : 1;
  });
  if (status != 77) CHECK(status == 0);
}

TEST_CASE("mapped: a file, an empty file, a pipe and what says nothing of its size") {
  const Temporary directory;
  write_plainly(directory / "file", std::string(10000, 'x') + "end");
  MappedFile file(directory / "file");
  CHECK(file.bytes() == std::string(10000, 'x') + "end");
  const char* at = file.bytes().data();
  MappedFile moved = std::move(file);
  CHECK(moved.bytes().data() == at);
  write_plainly(directory / "empty", "");
  CHECK(MappedFile(directory / "empty").bytes().empty());
  CHECK(MappedFile("/proc/self/stat").bytes().size() > 10);
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  REQUIRE(::write(ends[1], "piped", 5) == 5);
  ::close(ends[1]);
  MappedFile piped(str("/proc/self/fd/", ends[0]));
  const MappedFile piped_moved = std::move(piped);
  CHECK(piped_moved.bytes() == "piped");
  ::close(ends[0]);
  CHECK_THROWS_AS(MappedFile(directory / "absent"), IoError);
  CHECK_THROWS_AS(MappedFile(directory / ""), IoError);
}

TEST_CASE("lock: a run is one process's, until that ends, however") {
  const Temporary directory;
  {
    const RunLock mine(directory / "");
    const std::string error = message_of<IoError>([&] { RunLock second(directory / ""); });
    says(error, "another process uses this run");
    says(error, "HINT");
    CHECK(status_in_child([&] {
            return message_of<IoError>([&] { RunLock other(directory / ""); }).empty() ? 1 : 2;
          }) == 2);
  }
  CHECK(status_in_child([&] {
          static const RunLock held(directory / "");
          ::raise(SIGKILL);
          return 0;
        }) == 128 + SIGKILL);
  const RunLock again(directory / "");
  CHECK_THROWS_AS(RunLock("/nowhere"), IoError);
}
