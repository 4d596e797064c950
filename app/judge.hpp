// Who says which of two responses is better. A judge is chosen by text:
//
//   rule:NAME             a stated rule, which scores each response
//   person                you, at the terminal, blind to which model wrote what; answers are kept
//                         in a file, and a later sitting goes on; of one response a prompt, it
//                         ends as soon as it is decided (blind_test.hpp)
//   command:PROGRAM ARGS  a program of yours (no shell; words end at spaces). It reads a line of
//                         JSON a pair, {"prompt":…,"responses":[a,b]}, and writes a line a pair:
//                         [score of a, score of b], or 1 (a is better), 2 (b is), 0 (a tie)
//   anything else         a reward model's file, which scores each response
//
// People and programs get the two in a random order, which is undone, so that a liking for the
// first favours neither model. What this is not: a metric of quality; it says what this judge
// prefers.
#pragma once

#include "blind_test.hpp"
#include "rank.hpp"

#include <plumb/data/records.hpp>
#include <plumb/run/statistics.hpp>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

using NamedNumbers = std::vector<std::pair<std::string, double>>;

/// A stated rule: its name as files write it, itself in words, and what it computes.
struct Rule {
  std::string name;  ///< "rule:<short name>"
  std::string text;
  /// The parts of a response's score by name; the last one, "total", is the score.
  std::function<NamedNumbers(const std::string& prompt, const std::string& response, bool finished)>
      parts;

  std::string short_name() const { return name.substr(name.find(':') + 1); }
  double score(const std::string& prompt, const std::string& response, bool finished) const {
    return parts(prompt, response, finished).back().second;
  }
  /// Ranks of the responses to a prompt: 0 is best, equal scores tie.
  std::vector<int> ranks(const std::string& prompt, const std::vector<std::string>& responses,
                         const std::vector<bool>& finished) const;
};

/// The rule of a name. DataError for another, naming what there is.
const Rule& rule_of(const std::string& name);

/// Its scores of all responses, one after another.
std::vector<double> scores_by(const Rule& rule, const std::vector<Candidates>& candidates);

/// The rule that stands in where nobody said who judges.
inline constexpr const char* kDefaultRule = "rule:warm";

/// After against before: response k to a prompt against response k to it.
struct Verdict {
  struct Item {
    std::size_t prompt = 0, response = 0;  ///< where in the candidates
    double preference = 0.5;               ///< 1: after is better, 0: before is, ½: a tie
    double before = 0.0, after = 0.0;      ///< scores, where the judge gives any
  };
  std::string judge;
  bool scored = false;
  std::vector<Item> items;
  std::size_t unjudged = 0;    ///< pairs that the judge left open
  bool stopped_early = false;  ///< since what was judged decides it

  double wins() const { return count(1.0); }
  double ties() const { return count(0.5); }
  double n() const { return static_cast<double>(items.size()); }
  double prompts() const;  ///< that have a pair
  double rate() const;     ///< wins and half the ties, of the pairs judged; NaN of none
  /// 95 %, of the rate, clustered by prompt; where it stopped early, right at all times at once.
  Interval interval() const;
  BlindTest test() const;          ///< wins, ties and losses
  double mean_difference() const;  ///< of the scores, after − before; NaN without
  Interval difference_interval() const;
  Json json() const;  ///< "win_rate" and what belongs to it

 private:
  double count(double preference) const;
};

class Judge {
 public:
  virtual ~Judge() = default;
  virtual std::string name() const = 0;
  /// Compares two lists of candidates that have the same prompts, and as many responses to each.
  /// ShapeError if they do not; Interrupted if Ctrl-C ended it.
  virtual Verdict compare(const std::vector<Candidates>& before,
                          const std::vector<Candidates>& after) = 0;
};

/// The pairs of two lists that a judge compares, as candidates of two responses, before and after,
/// so that a sitting can ask about them. The id is of the texts: an answer is found again whatever
/// else is asked. ShapeError where Judge::compare has it.
std::vector<Candidates> pairs_to_judge(const std::vector<Candidates>& before,
                                       const std::vector<Candidates>& after);
/// The same text twice is a tie, and no question.
bool identical(const Candidates& pair);

/// Scores of all responses, in order: what makes a judge of a reward model.
using ScoreCandidates = std::function<std::vector<double>(const std::vector<Candidates>&)>;

/// What the judges need besides their name.
struct JudgeTools {
  /// Opens a reward model's file; a judge that needs it and has none is a DataError.
  std::function<ScoreCandidates(const std::string& path)> reward_model;
  std::string answers;  ///< the file in which a person's answers are kept
  std::string annotator = "me";
  std::uint64_t seed = 0;  ///< of the order in which two responses are shown
  std::function<Screen()> screen = terminal_screen;  ///< where a person sits
  /// Asks a person about pairs elsewhere, whose answers go to `answers`; returns whose count.
  std::function<std::string(const std::vector<Candidates>& pairs, const std::string& answers)> ask =
      {};
};

/// The judge of a specification. DataError for one that names none.
std::unique_ptr<Judge> make_judge(const std::string& spec, JudgeTools tools = {});

}}  // namespace plumb::v0_1
