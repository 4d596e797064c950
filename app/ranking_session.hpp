// A sitting in which one annotator ranks candidate responses, without a face: the terminal's is
// rank.hpp. What it keeps: which question is next, in which order its responses are shown, and the
// rankings file, to which every answer is appended, on disk, before answer() returns.
//
// The order is a pure function of seed, id and annotator, and is recorded: a question that is asked
// again looks the same, a liking for what comes first can be measured, and a person who judges two
// models' responses cannot tell which is whose. The file is locked while
// a sitting lasts; two annotators who rank at once need a file each. What this is not: thread-safe.
#pragma once

#include <plumb/data/appender.hpp>

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// Candidates to be ranked. DataError if two have one id, or one has fewer than two responses.
std::vector<Candidates> load_candidates(const std::string& path);

/// Rankings added to a file by one annotator, a person or a rule; the lines of others stay as they
/// are.
class RankingsFile {
 public:
  /// Opens or creates the file, locks it, and reads what the annotator has ranked. DataError if it
  /// ranks other responses under one of the candidates' ids.
  RankingsFile(const std::string& path, const std::vector<Candidates>& candidates,
               std::string annotator, std::string labeller);

  /// Is the one of this id ranked by this annotator?
  bool has(const std::string& id) const { return done_.contains(id); }
  std::size_t done() const { return done_.size(); }
  Index discarded() const { return file_.discarded(); }  ///< bytes of a line cut short by a crash
  const std::string& annotator() const { return annotator_; }

  /// Appends a ranking (rank of each response, in the candidates' order) that took so many seconds
  /// (0: unknown); on disk when it returns.
  void append(const Candidates& candidates, std::vector<int> rank, std::vector<int> shown,
              double seconds = 0.0);
  /// Withdraws the last appended ranking, which must be of these candidates.
  void undo(const Candidates& candidates);

 private:
  std::string annotator_, labeller_;
  JsonlAppender file_;
  std::set<std::string> done_;
};

/// A question as it is shown: the responses in display order.
struct Question {
  std::string id, prompt;
  std::vector<std::string> responses;
  std::vector<bool> finished;  ///< ended by itself rather than by length
  std::vector<int> shown;      ///< the candidates' index of each response
  std::size_t number = 0;      ///< 1-based, of total() questions
};

class RankingSession {
 public:
  /// A person's sitting over `candidates`. DataError for a name that is empty or a rule's.
  RankingSession(std::vector<Candidates> candidates, const std::string& output,
                 const std::string& annotator, std::uint64_t seed);

  /// The question that waits for an answer; none when all are answered or skipped.
  std::optional<Question> question() const;

  /// Answers it: a rank for each response as shown, 0 best, equal is a tie, -1 unranked. Saved when
  /// it returns. DataError, and nothing saved, if fewer than two are ranked.
  void answer(const std::vector<int>& by_place);
  /// The same from text such as "3 1 2=4" (parse_order); returns the ranks as shown.
  std::vector<int> answer(std::string_view typed);
  /// Leaves it for a later sitting.
  void skip();

  enum class Undone { Nothing, Skip, Answer };
  /// Goes back to this sitting's previous question, and withdraws its answer from the file.
  Undone undo();

  std::size_t done() const { return file_.done(); }  ///< in all sittings
  std::size_t total() const { return candidates_.size(); }
  const RankingsFile& file() const { return file_; }

 private:
  struct Past {
    std::size_t candidate;
    bool answered;
  };
  std::vector<int> display_order(const Candidates& c) const;
  void go_on();

  std::vector<Candidates> candidates_;
  std::uint64_t seed_;
  RankingsFile file_;
  std::size_t next_ = 0;
  std::chrono::steady_clock::time_point asked_{};  // when next_ became the question that waits
  std::vector<Past> history_;
};

}}  // namespace plumb::v0_1
