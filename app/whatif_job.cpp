#include "whatif_job.hpp"

#include "run_directory.hpp"
#include "screen.hpp"
#include "whatif.hpp"

#include <plumb/data/jsonl.hpp>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>
#include <cstring>
#include <vector>

namespace plumb { inline namespace v0_1 {

namespace {

std::string rankings_of(const std::string& run, Index round) {
  return round_directory(run, round) + "/rankings.jsonl";
}

std::string result_of(const std::string& directory) { return directory + "/whatif.json"; }

}  // namespace

WhatIfJob::~WhatIfJob() {
  if (process_ > 0) {
    ::kill(process_, SIGTERM);
    ::waitpid(process_, nullptr, 0);
  }
  if (log_ != nullptr) std::fclose(log_);
}

// Whether the process has ended, and how.
void WhatIfJob::look() {
  int status = 0;
  if (process_ <= 0 || ::waitpid(process_, &status, WNOHANG) != process_) return;
  process_ = 0;
  failed_ = !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

// The end of what the process printed: its progress, or what stopped it.
std::string WhatIfJob::last_words() const {
  if (log_ == nullptr) return {};
  char buffer[2048];
  const off_t size = ::lseek(::fileno(log_), 0, SEEK_END);
  const off_t from = size > off_t{sizeof buffer} ? size - off_t{sizeof buffer} : 0;
  const ssize_t n = ::pread(::fileno(log_), buffer, sizeof buffer, from);
  std::string text(buffer, n > 0 ? static_cast<std::size_t>(n) : 0);
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  const std::size_t line = text.find_last_of("\n\r");
  return harmless(line == text.npos ? text : text.substr(line + 1));
}

Json WhatIfJob::ranking(const std::string& run, Index round, Index ranking) {
  const std::string path = rankings_of(run, round);
  if (!detail::file_exists(path))
    fail<DataError>(str("[whatif] the run has no rankings of a round ", round));
  const std::vector<Ranking> all = read_rankings(path).records;
  if (ranking >= static_cast<Index>(all.size()))
    fail<DataError>(str("[whatif] round ", round, " has ", all.size(), " rankings"));
  const Ranking& one = all[static_cast<std::size_t>(ranking)];
  Index rounds = 0;
  while (detail::file_exists(rankings_of(run, rounds))) ++rounds;
  Json out = {{"prompt", one.prompt},   {"responses", one.responses}, {"rank", one.rank},
              {"rankings", all.size()}, {"rounds", rounds},           {"state", "none"}};
  const std::lock_guard lock(mutex_);
  look();
  const std::string directory = whatif_directory(run, round, ranking);
  if (directory == directory_ && process_ > 0) {
    out["state"] = "running";
    out["said"] = last_words();
  } else if (detail::file_exists(result_of(directory))) {
    out["state"] = "done";
    out["result"] = parse_json(read_file(result_of(directory)), shown(directory));
  } else if (directory == directory_ && failed_) {
    out["state"] = "failed";
    out["said"] = last_words();
  }
  return out;
}

void WhatIfJob::start(const std::string& run, Index round, Index ranking) {
  const std::lock_guard lock(mutex_);
  look();
  check<DataError>(process_ <= 0,
                   "[whatif] another one is under way. HINT: wait until it has ended");
  const std::string directory = whatif_directory(run, round, ranking);
  if (detail::file_exists(directory))
    fail<DataError>(str("[whatif] ", shown(directory), " is there already"));
  if (log_ != nullptr) std::fclose(log_);
  log_ = std::tmpfile();
  if (log_ == nullptr) fail<IoError>(str("[whatif] no temporary file: ", std::strerror(errno)));
  std::vector<std::string> words = {"plumb",    "whatif",    run,         "--round",
                                    str(round), "--ranking", str(ranking)};
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&actions, ::fileno(log_), 1);
  ::posix_spawn_file_actions_adddup2(&actions, ::fileno(log_), 2);
  ::posix_spawn_file_actions_addclosefrom_np(&actions, 3);  // the page's connections among them
  const int error =
      ::posix_spawn(&process_, "/proc/self/exe", &actions, nullptr, arguments.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    process_ = 0;
    fail<IoError>(str("[whatif] cannot start: ", std::strerror(error)));
  }
  directory_ = directory;
  failed_ = false;
}

}}  // namespace plumb::v0_1
