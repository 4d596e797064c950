// Sittings in which annotators rank responses, without a face: the terminal's is rank.hpp, the
// page's studio.hpp. They keep: which question is next, in which order responses are shown, and
// the rankings file, to which every answer is appended, on disk, before answer() returns.
//
// Annotators sit at one desk: the candidates, the plan of who is asked what, and the one file, that
// is locked while the desk is there. The order of the responses is a pure function of seed, id and
// annotator, and is recorded: a question that is asked again looks the same, a liking for what is
// first can be measured, and who judges two models' responses cannot tell which is whose.
// What this is not: thread-safe; who serves several people at once takes turns.
#pragma once

#include <plumb/data/appender.hpp>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// The name. DataError if it is empty, a rule's, or not UTF-8 of at most 80 bytes.
std::string persons_name(const std::string& annotator);

/// Candidates to be ranked. DataError if two have one id, or one has fewer than two responses.
std::vector<Candidates> load_candidates(const std::string& path);

/// Every pair of each one's responses as candidates of its own, with the id "ID/i-j": first one
/// pair of each prompt, then the next of each.
std::vector<Candidates> pairs_of_responses(const std::vector<Candidates>& candidates);

/// Rankings added to a file; the lines of others stay as they are.
class RankingsFile {
 public:
  /// A ranking that is in the file, of one of the candidates.
  struct Entry {
    std::string id;
    int repeat = 0;
    double seconds = 0.0;
    std::vector<int> rank{};  ///< in the candidates' order
    int lines = 1;            ///< of the file that say it, of which the last one counts
  };

  /// Opens or creates the file, locks it, and reads who has ranked what. DataError if it ranks
  /// other responses under one of the candidates' ids.
  RankingsFile(const std::string& path, const std::vector<Candidates>& candidates);

  /// An annotator's rankings, each question once, in the order in which they were made.
  const std::vector<Entry>& by(const std::string& annotator) const;
  bool has(const std::string& annotator, const std::string& id, int repeat = 0) const;
  /// Has a person other than this one ranked it?
  bool by_another(const std::string& annotator, const std::string& id) const;
  std::size_t rankings() const;                          ///< of the candidates, by anyone
  Index discarded() const { return file_.discarded(); }  ///< bytes of a line cut short by a crash

  /// Appends a ranking of these candidates; on disk when it returns. `said` has the rank (in the
  /// candidates' order), the annotator, the labeller and what else was said; the rest is filled in.
  void append(const Candidates& candidates, Ranking said);
  /// Withdraws the annotator's last ranking and returns it; nothing if there is none.
  std::optional<Ranking> undo(const std::string& annotator);

 private:
  void note(const Ranking& r);

  JsonlAppender file_;
  std::map<std::string, std::vector<Entry>> by_;                       ///< annotator
  std::map<std::string, std::set<std::pair<std::string, int>>> made_;  ///< the same, to find
  std::map<std::string, std::multiset<std::string>> persons_;          ///< who ranked an id
};

/// Who is asked what. Both shares are drawn by seed and id: the same in every sitting.
struct RankingPlan {
  std::uint64_t seed = 0;  ///< of the draws, and of the orders in which responses are shown
  double overlap = 1.0;    ///< share of the questions that all annotators get; the others go to one
  double repeats = 0.0;    ///< share of an annotator's questions that come again, unmarked
};

/// The candidates, the plan and the file, at which annotators sit.
struct RankingDesk {
  /// DataError for shares outside 0 to 1; errors of RankingsFile.
  RankingDesk(std::vector<Candidates> of, const std::string& output, RankingPlan how);

  /// Whether all annotators get question i, and whether this one gets it twice.
  bool shared(std::size_t i) const;
  bool repeated(std::size_t i, const std::string& annotator) const;

  std::vector<Candidates> candidates;
  std::map<std::string, std::size_t> place;  ///< of an id among them
  RankingPlan plan;
  RankingsFile file;
  /// Who was handed a question that goes to one, and when; of no account after half an hour.
  struct Hold {
    std::string annotator;
    std::chrono::steady_clock::time_point since;
  };
  std::map<std::size_t, Hold> holds;
};

/// A question as it is shown: the responses in display order.
struct Question {
  std::string id, prompt;
  std::vector<std::string> responses;
  std::vector<bool> finished;  ///< ended by itself rather than by length
  std::vector<int> shown;      ///< the candidates' index of each response
  std::size_t number = 0;      ///< 1-based, of total() questions
  std::string key;             ///< names it, and says neither its id nor whether it is a repeat
};

/// What a person says of a question's responses, by place as shown.
struct Answer {
  std::vector<int> rank;        ///< (K) 0 best, equal is a tie, -1 unranked
  std::vector<int> unusable{};  ///< places of responses that are of no use
  std::string comment{};
  int strength = 0;      ///< Ranking::strength
  double seconds = 0.0;  ///< that it took; 0: not measured
};

/// What a person types: an order as parse_order reads it, and of two responses how much better the
/// better one is, as + to +++ at the end: "2 1 ++".
Answer parse_answer(std::string_view text, std::size_t k);

class RankingSession {
 public:
  /// A person's sitting. DataError for a name that is empty or a rule's.
  RankingSession(std::shared_ptr<RankingDesk> desk, const std::string& annotator);
  /// The same at a desk of their own, where every question is asked once.
  RankingSession(std::vector<Candidates> candidates, const std::string& output,
                 const std::string& annotator, std::uint64_t seed);

  /// The question that waits for an answer; none when all are answered, skipped or others'.
  const std::optional<Question>& question() const { return question_; }

  /// Answers it. Saved when it returns. DataError, and nothing saved, if fewer than two are ranked
  /// and none is marked as unusable, or if what is said does not fit.
  void answer(const Answer& said);
  /// The same from text (parse_answer); returns what was understood.
  Answer answer(std::string_view typed);
  /// Leaves it for a later sitting, or until ask_skipped().
  void skip();
  void ask_skipped();
  /// Makes the question of this key the one that waits, if it is open to this annotator; false if
  /// it is not, as after its answer.
  bool turn_to(const std::string& key);
  /// Looks for a question where none waits: others may have left one since.
  void look_again();

  enum class Undone { Nothing, Skip, Answer };
  /// Goes back to the previous question, this sitting's or an earlier one's, and withdraws its
  /// answer from the file.
  Undone undo();
  /// The answer that the last undo() withdrew, as long as its question waits for another.
  const std::optional<Answer>& withdrawn() const { return withdrawn_; }

  std::size_t done() const { return desk_->file.by(annotator_).size(); }  ///< in all sittings
  std::size_t total() const { return done() + left(); }
  std::size_t left() const;  ///< that wait, or were skipped
  std::size_t skipped() const { return skipped_.size(); }
  bool can_undo() const { return !history_.empty(); }
  /// The median time of an answer, seconds; 0 where none was measured.
  double seconds_each() const;
  const std::string& annotator() const { return annotator_; }
  const RankingsFile& file() const { return desk_->file; }

 private:
  /// One asking of a candidate.
  struct Asked {
    std::size_t candidate;
    int repeat;
    auto operator<=>(const Asked&) const = default;
  };
  struct Past {
    Asked asked;
    bool answered;
  };
  bool is_open(std::size_t candidate) const;
  std::vector<Asked> open_repeats(std::size_t gap) const;
  std::optional<Asked> choose() const;
  std::vector<int> display_order(const Asked& asked) const;
  std::string key_of(const Asked& asked) const;
  void ask(std::optional<Asked> asked);

  std::shared_ptr<RankingDesk> desk_;
  std::string annotator_;
  std::optional<Asked> asked_;
  std::optional<Question> question_;
  std::set<Asked> skipped_;
  std::vector<Past> history_;
  std::optional<Answer> withdrawn_;
};

}}  // namespace plumb::v0_1
