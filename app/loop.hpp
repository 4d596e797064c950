// The page that drives a run: `plumb studio RUN --loop`. Its rounds are those of `plumb align`
// (align.hpp), with people at the page in place of the terminal: generate, rank, fit and train,
// and so on, each begun and stopped there. Either of the two goes on with what the other left, to
// the same bits.
//
// Actions, beside those of the desk (studio.hpp) while people rank or judge, and of the run that is
// watched (watch.hpp):
//   open     that this is a loop; of a run that has not begun, its "settings" as a form
//   begin    "settings" as texts by name, or none to go on; refused with words if they do not fit
//   stop     the step under way ends, and what it has is kept
//   train    nobody is asked any more: on with the rankings that there are
// The stream's events have a "loop" besides: what is under way (LoopStudio::state).
#pragma once

#include "align.hpp"
#include "studio.hpp"
#include "watch.hpp"

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

namespace plumb { inline namespace v0_1 {

/// What the page asks for, without HTTP, and the run that it drives. handle() and after() are
/// called by the server's threads, work() by the one that trains.
class LoopStudio {
 public:
  /// The run begins with these settings, which the page may change, or goes on with them.
  LoopStudio(AlignSettings settings, std::string instructions);

  StudioReply handle(const std::string& action, const std::string& body);
  StudioEvent after(const std::string& id);

  /// Runs as often as the page says begin, until Ctrl-C: Interrupted if a run was under way then.
  /// `results` are those of a run that has ended.
  void work(Json& results);

 private:
  enum class State { Waits, Runs, Stops, Stopped, Failed, Ended };
  struct Place {
    Index round = 0;
    AlignStep step = AlignStep::Start;
  };

  StudioReply act(const std::string& action, const std::string& body);
  StudioReply begin(const std::string& body);
  StudioReply train();
  Json state() const;
  Json steps() const;
  void change(State state);
  AlignGuide guide();
  void have_ranked(const RankOptions& options);
  std::string have_judged(const std::vector<Candidates>& pairs, const std::string& answers);
  void seat(std::unique_ptr<DeskStudio> desk);
  void wait_while_asking();

  const std::string instructions_;
  WatchStudio watch_;

  mutable std::mutex mutex_;  // of all below
  AlignSettings settings_;
  State state_ = State::Waits;
  Place at_;
  Json progress_ = nullptr, results_ = nullptr;
  std::string error_;
  std::size_t version_ = 0;  // of what is above: what an event's id says
  std::unique_ptr<DeskStudio> desk_;
  bool asked_enough_ = false;
};

/// The settings of a list as a form: "name", "help", "unit", "group", "range", "value" as text, and
/// "choices" where there are some.
Json settings_form(const AlignSettings& settings);

/// Serves the run at options.candidates until Ctrl-C. Results: those of the run, if it has ended.
Json loop_command(const StudioOptions& options);

}}  // namespace plumb::v0_1
