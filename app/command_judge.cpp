#include "command_judge.hpp"

#include <plumb/data/jsonl.hpp>
#include <plumb/io/file.hpp>
#include <plumb/run/interrupt.hpp>

#include <cmath>
#include <csignal>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

namespace plumb { inline namespace v0_1 {

namespace {

// A program that ends early must not end this one when it is written to.
class IgnoredPipeSignal {
 public:
  IgnoredPipeSignal() : before_(std::signal(SIGPIPE, SIG_IGN)) {}
  ~IgnoredPipeSignal() { std::signal(SIGPIPE, before_); }
  IgnoredPipeSignal(const IgnoredPipeSignal&) = delete;
  IgnoredPipeSignal& operator=(const IgnoredPipeSignal&) = delete;

 private:
  void (*before_)(int);
};

std::vector<std::string> words_of_command(const std::string& command) {
  std::vector<std::string> words;
  for (std::size_t at = 0; (at = command.find_first_not_of(' ', at)) != std::string::npos;) {
    const std::size_t end = std::min(command.find(' ', at), command.size());
    words.push_back(command.substr(at, end - at));
    at = end;
  }
  check<DataError>(!words.empty(), "[judge] \"command:\" names no program");
  return words;
}

// The program, and this side's ends of its standard input and output. It is ended and waited for
// when this goes, unless its end was seen.
class Child {
 public:
  explicit Child(const std::string& command) : words_(words_of_command(command)) {
    int to_child[2], from_child[2];
    if (::pipe2(to_child, O_CLOEXEC) != 0)
      detail::fail_io("open a pipe to", words_[0], errno, Where::here());
    const detail::Descriptor its_input(to_child[0]);
    input_ = detail::Descriptor(to_child[1]);
    if (::pipe2(from_child, O_CLOEXEC) != 0)
      detail::fail_io("open a pipe from", words_[0], errno, Where::here());
    output_ = detail::Descriptor(from_child[0]);
    const detail::Descriptor its_output(from_child[1]);
    ::fcntl(input_.get(), F_SETFL, O_NONBLOCK);
    start(its_input.get(), its_output.get());
  }
  ~Child() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    wait();
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  int input() const { return input_.get(); }
  int output() const { return output_.get(); }
  const std::string& program() const { return words_[0]; }
  void close_input() { input_ = detail::Descriptor(-1); }

  /// Closes both ends and waits for it; a signal to this program ends it. Its wait status.
  int wait() {
    close_input();
    output_ = detail::Descriptor(-1);
    int status = 0;
    // Looks again and again: a wait that blocks would go on over the signal.
    while (::waitpid(pid_, &status, WNOHANG) == 0) {
      if (interrupted()) ::kill(pid_, SIGKILL);
      ::usleep(5000);
    }
    pid_ = -1;
    return status;
  }

 private:
  void start(int its_input, int its_output) {
    posix_spawn_file_actions_t files;
    ::posix_spawn_file_actions_init(&files);
    ::posix_spawn_file_actions_adddup2(&files, its_input, STDIN_FILENO);
    ::posix_spawn_file_actions_adddup2(&files, its_output, STDOUT_FILENO);
    posix_spawnattr_t attributes;
    ::posix_spawnattr_init(&attributes);
    sigset_t defaults;
    ::sigemptyset(&defaults);
    ::sigaddset(&defaults, SIGPIPE);
    ::posix_spawnattr_setsigdefault(&attributes, &defaults);
    ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    std::vector<char*> arguments;
    for (std::string& word : words_) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    const int error =
        ::posix_spawnp(&pid_, arguments[0], &files, &attributes, arguments.data(), environ);
    ::posix_spawnattr_destroy(&attributes);
    ::posix_spawn_file_actions_destroy(&files);
    if (error == 0) return;
    pid_ = -1;
    fail<DataError>(str("[judge] the program ", words_[0], " cannot be started: ",
                        std::strerror(error), ". HINT: is it in PATH, and executable?"));
  }

  std::vector<std::string> words_;
  pid_t pid_ = -1;
  detail::Descriptor input_{-1}, output_{-1};
};

// Writes all of `text` and reads until the program closes its output. `written` is false where it
// stopped reading before the end.
std::string exchange(Child& child, std::string_view text, bool& written) {
  std::string answers;
  char buffer[65536];
  if (text.empty()) child.close_input();
  while (true) {
    pollfd ends[2] = {{child.output(), POLLIN, 0}, {child.input(), POLLOUT, 0}};
    // The limit is for a signal that comes between the question and the waiting.
    const int ready = ::poll(ends, 2, 200);
    if (interrupted()) throw Interrupted(str("Judging by ", child.program(), " was interrupted."));
    if (ready < 0 && errno != EINTR)
      detail::fail_io("wait for", child.program(), errno, Where::here());
    if (ready <= 0) continue;
    if (ends[1].revents != 0) {
      const ssize_t n = ::write(child.input(), text.data(), text.size());
      if (n > 0) text.remove_prefix(static_cast<std::size_t>(n));
      const bool closed = n < 0 && errno == EPIPE;
      if (n < 0 && !closed && errno != EAGAIN && errno != EINTR)
        detail::fail_io("write to", child.program(), errno, Where::here());
      if (closed || text.empty()) child.close_input();
    }
    if (ends[0].revents != 0) {
      const ssize_t n = ::read(child.output(), buffer, sizeof buffer);
      if (n < 0 && errno != EINTR)
        detail::fail_io("read from", child.program(), errno, Where::here());
      if (n > 0) answers.append(buffer, static_cast<std::size_t>(n));
      if (n == 0) break;
    }
  }
  written = text.empty();
  return answers;
}

PairAnswer answer_of(std::string_view line, std::size_t number, const std::string& program) {
  const Json json = Json::parse(line, nullptr, false);
  if (json.is_array() && json.size() == 2 && json[0].is_number() && json[1].is_number()) {
    const PairAnswer answer{json[0].get<double>(), json[1].get<double>(), true};
    if (std::isfinite(answer.first) && std::isfinite(answer.second)) return answer;
  }
  if (json.is_number_integer() && json >= 0 && json <= 2)
    return {json == 1 ? 1.0 : 0.0, json == 2 ? 1.0 : 0.0, false};
  fail<DataError>(str("[judge] line ", number, " of ", program,
                      " is neither two scores nor 0, 1 or "
                      "2: \"",
                      line.substr(0, 80),
                      "\". HINT: [0.3, 1.2] prefers the second; 0 is a "
                      "tie, 1 the first, 2 the second"));
}

}  // namespace

std::vector<PairAnswer> ask_command(const std::string& command,
                                    const std::vector<std::string>& questions) {
  const IgnoredPipeSignal ignored;
  std::string text;
  for (const std::string& question : questions) text += question;
  Child child(command);
  bool written = false;
  const std::string output = exchange(child, text, written);
  const int status = child.wait();
  if (interrupted()) throw Interrupted(str("Judging by ", child.program(), " was interrupted."));
  if (WIFSIGNALED(status))
    fail<DataError>(str("[judge] ", child.program(), " was ended by signal ", WTERMSIG(status)));
  if (WEXITSTATUS(status) != 0)
    fail<DataError>(str("[judge] ", child.program(), " ended with ", WEXITSTATUS(status),
                        ". HINT: what it wrote to its standard error is above"));
  std::vector<PairAnswer> answers;
  std::string_view rest = output;
  for (std::size_t number = 1; !rest.empty(); ++number) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    answers.push_back(answer_of(rest.substr(0, end), number, child.program()));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  if (answers.size() != questions.size())
    fail<DataError>(str("[judge] ", child.program(), " gave ", answers.size(), " answers to ",
                        questions.size(), " questions",
                        written ? "" : ", and stopped reading before the last",
                        ". HINT: one line for each line that it reads"));
  return answers;
}

}}  // namespace plumb::v0_1
