// What tests of files share: messages that must say something, a disk that is full, a child
// process.
#pragma once

#include "temporary.hpp"

#include <plumb/io/arrays.hpp>
#include <plumb/io/file.hpp>

#include <doctest/doctest.h>

#include <clocale>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

inline bool says(const std::string& message, const std::string& what) {
  INFO(message, " should say: ", what);
  const bool ok = message.find(what) != std::string::npos;
  CHECK(ok);
  return ok;
}

/// While alive, no file of this process may grow beyond `bytes`: a disk that is full.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    handler_ = ::signal(SIGXFSZ, SIG_IGN);
    const struct rlimit limit { bytes, before_.rlim_max };
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;
  ~FullDisk() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    ::signal(SIGXFSZ, handler_);
  }

 private:
  struct rlimit before_ {};
  sighandler_t handler_;
};

/// The exit status of `action()` run in a child, which returns it; 99 if it throws. No test macros
/// in it.
template <class Action>
int status_in_child(Action&& action) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(60);  // so that what hangs fails the test and does not hang it
    int status = 99;
    try {
      status = action();
    } catch (...) {
    }
    ::_exit(status);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/// While alive, this process's locale has a decimal comma; `is_set` unless the system cannot make
/// one.
class CommaLocale {
 public:
  CommaLocale() {
    const std::string make =
        "localedef -i de_DE -f UTF-8 '" + (directory_ / "de_DE.UTF-8") + "' > /dev/null 2>&1";
    [[maybe_unused]] const int status = std::system(make.c_str());
    ::setenv("LOCPATH", (directory_ / "").c_str(), 1);
    is_set = std::setlocale(LC_ALL, "de_DE.UTF-8") != nullptr;
    if (!is_set) MESSAGE("localedef makes no locale with a decimal comma here: not tested");
  }
  CommaLocale(const CommaLocale&) = delete;
  CommaLocale& operator=(const CommaLocale&) = delete;
  ~CommaLocale() {
    std::setlocale(LC_ALL, "C");
    ::unsetenv("LOCPATH");
  }
  bool is_set = false;

 private:
  Temporary directory_;
};

/// Arrays with every kind of number and shape in them.
inline std::vector<plumb::OwnedArray> small_arrays() {
  return {{"weight", {2, 3}, {1.5f, -2.0f, 0.0f, -0.0f, 1e-42f, 3e38f}},
          {"empty", {0, 4}, {}},
          {"scalar", {}, {std::numeric_limits<float>::quiet_NaN()}},
          {"bias", {3}, {7.0f, 8.0f, 9.0f}}};
}

inline bool same_bits(const std::vector<plumb::OwnedArray>& a,
                      const std::vector<plumb::OwnedArray>& b) {
  const auto bits = [](const plumb::OwnedArray& array) {
    return plumb::as_text(std::span<const float>(array.data));
  };
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (a[i].name != b[i].name || a[i].shape != b[i].shape || bits(a[i]) != bits(b[i]))
      return false;
  return true;
}
