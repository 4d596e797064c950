// `plumb studio`: people rank responses on a page in the browser, several at once. The page is one
// face of the RankingSessions at one RankingDesk, the terminal's (rank.hpp) another; what is on the
// wire is in studio/server.hpp, and the page itself in studio/.
//
// Actions, each a POST with a JSON body that has the annotator's "name"; each replies with where
// they are (DeskStudio::state):
//   open                 (without a name) that this is a desk, and no run to be watched (watch.hpp)
//                        and no model to talk to (studio_chat.hpp)
//   sit                  come to the desk, or back to it
//   answer               "key" of the question, "rank" by place (0 best, equal a tie, -1 unranked),
//                        "unusable" places, "comment", "strength", "seconds"; and "once", a word
//                        that the reply has as "last" where this was the last answer
//   skip, undo           "key" of the question that is shown; empty where none is
//   skipped              ask again what was skipped
// Where two models are compared, nothing tells whose a response is or how they stand until it is
// decided (blind_test.hpp) or no pair is left; then the reply has the "verdict", and no answer can
// be changed.
// A reply of 409 says that the question shown is not the one that waits, and where they are now:
// an action that is sent twice is done once.
#pragma once

#include "blind_test.hpp"
#include "rank.hpp"
#include "settings.hpp"
#include "studio/server.hpp"

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// Two models of which a person says which answers better: the desk's pairs are of one response
/// each to a prompt of its own, before and after.
struct Contest {
  std::string before, after;  ///< what they are called in the end
  std::size_t alike = 0;      ///< pairs of the same text twice, which nobody is asked about: ties
};

/// The desk for a contest between two files of candidates with the same prompts, of which the first
/// response to each counts. DataError or IoError for files that do not fit.
std::shared_ptr<RankingDesk> contest_desk(Contest& contest, const std::string& output,
                                          const RankingPlan& plan);

/// What a refused action replies: "kind", by which the page knows it, and "error" in words.
StudioReply refusal(int status, const char* kind, const std::string& what);

/// What the page asks for, without HTTP. Thread-safe: actions take turns.
class DeskStudio {
 public:
  DeskStudio(std::shared_ptr<RankingDesk> desk, std::string instructions,
             std::optional<Contest> contest = {});

  /// Does an action on its body. Never throws: 400 says what does not fit, 507 what could not be
  /// saved, each with "error" in words.
  StudioReply handle(const std::string& action, const std::string& body);

  std::size_t rankings() const;   ///< in the file, of these questions
  std::size_t questions() const;  ///< that there are
  /// Whose comparison of two models is over; empty as long as nobody's is.
  std::string judged_by() const;

 private:
  struct Sitting {
    RankingSession session;
    std::string last{};  ///< what the last answer was sent with as "once"
  };
  StudioReply act(const std::string& action, const Json& body);
  Sitting& sitting(const std::string& name);
  Json state(const Sitting& at) const;
  BlindTest tally(const RankingSession& session) const;
  bool is_over(const RankingSession& session) const;

  std::shared_ptr<RankingDesk> desk_;
  std::string instructions_;
  std::optional<Contest> contest_;
  mutable std::mutex mutex_;
  std::map<std::string, Sitting> sittings_;
};

struct StudioOptions {
  std::string candidates;     // a file of candidates, or the directory of a run
  std::string output;         // rankings are appended to this file; a run's: the round's own
  bool loop = false;          // drive the run, which may not have begun, from the page
  std::string config;         // settings of a run that has not begun
  bool judge = false;         // of a run: its first and last policy's answers to held-out prompts
  std::string before, after;  // two files of candidates to be compared blind, instead
  std::vector<std::string> watch;  // runs to be watched, instead
  std::vector<std::string> chat;   // or one model or two to talk to
  std::string tokenizer;           // theirs; empty: what they say
  GenerateSettings talk;           // how they are sampled
  bool temperature_said = false;   // else it is the chat form's, if there is one
  std::string host = "127.0.0.1";
  std::string token;
  Index port = 7325;  // 0: any that is free
  AskingOptions asking;
};

inline StudioAddress address_of(const StudioOptions& options) {
  return {options.host, static_cast<int>(options.port), options.token};
}

/// Serves until Ctrl-C or SIGTERM. Results: the "rankings" there are then and the "questions", or
/// how many "runs" were watched, or "models" talked to. DataError or IoError for files and
/// addresses that do not fit.
Json studio_command(const StudioOptions& options);

}}  // namespace plumb::v0_1
