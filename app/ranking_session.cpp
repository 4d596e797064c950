#include "ranking_session.hpp"

#include <plumb/core/random.hpp>
#include <plumb/io/hash.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>

namespace plumb { inline namespace v0_1 {

namespace {

std::string utc_now() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm parts = {};
  ::gmtime_r(&now, &parts);
  char buffer[32];
  std::strftime(buffer, sizeof buffer, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return buffer;
}

// Checked before the file is opened, which creates it.
std::string persons_name(const std::string& annotator) {
  if (annotator.empty() || annotator.starts_with("rule:") || !is_utf8(annotator))
    fail<DataError>(str("[rank] \"", repaired_utf8(annotator),
                        "\" is not a person's name in UTF-8. HINT: --annotator NAME"));
  return annotator;
}

}  // namespace

std::vector<Candidates> load_candidates(const std::string& path) {
  std::vector<Candidates> candidates = read_candidates(path).records;
  std::set<std::string> ids;
  for (const Candidates& c : candidates) {
    if (!ids.insert(c.id).second)
      fail<DataError>(str("[rank] ", path, " has two records with the id ", c.id));
    if (c.responses.size() < 2)
      fail<DataError>(str("[rank] ", path, ": record ", c.id, " has ", c.responses.size(),
                          " responses; ranking needs two. HINT: generate with more per prompt"));
  }
  return candidates;
}

RankingsFile::RankingsFile(const std::string& path, const std::vector<Candidates>& candidates,
                           std::string annotator, std::string labeller)
    : annotator_(std::move(annotator)), labeller_(std::move(labeller)), file_(path) {
  std::map<std::string, const Candidates*> by_id;
  for (const Candidates& c : candidates) by_id[c.id] = &c;
  for (const Ranking& r : read_rankings(path).records) {  // read under the lock
    const auto found = by_id.find(r.id);
    if (found == by_id.end()) continue;
    if (found->second->responses != r.responses)
      fail<DataError>(str("[rank] ", path, " ranks other responses under the id ", r.id,
                          " than the candidates have. HINT: give the new rankings another file"));
    if (r.annotator == annotator_) done_.insert(r.id);
  }
}

void RankingsFile::append(const Candidates& c, std::vector<int> rank, std::vector<int> shown,
                          double seconds) {
  Ranking r;
  r.id = c.id;
  r.prompt = c.prompt;
  r.group = c.prompt;
  r.responses = c.responses;
  r.finished = c.finished;
  r.tokens = c.tokens;
  r.turns = c.turns;
  r.rank = std::move(rank);
  r.annotator = annotator_;
  r.labeller = labeller_;
  r.time = utc_now();
  r.shown = std::move(shown);
  r.systems = c.systems;
  r.probability = c.probability;
  r.seconds = seconds;
  file_.append(to_json(r));
  done_.insert(c.id);
}

void RankingsFile::undo(const Candidates& c) {
  file_.undo();
  done_.erase(c.id);
}

RankingSession::RankingSession(std::vector<Candidates> candidates, const std::string& output,
                               const std::string& annotator, std::uint64_t seed)
    : candidates_(std::move(candidates)),
      seed_(seed),
      file_(output, candidates_, persons_name(annotator), "person") {
  go_on();
}

void RankingSession::go_on() {
  while (next_ < candidates_.size() && file_.has(candidates_[next_].id)) ++next_;
  asked_ = std::chrono::steady_clock::now();
}

std::vector<int> RankingSession::display_order(const Candidates& c) const {
  const std::uint64_t place = Hash64().field(c.id).field(file_.annotator()).value();
  const Rng rng(seed_, Stage::Order, static_cast<std::uint32_t>(place),
                static_cast<std::uint32_t>(place >> 32));
  const std::vector<Index> order = permutation(std::ssize(c.responses), rng);
  return {order.begin(), order.end()};
}

std::optional<Question> RankingSession::question() const {
  if (next_ >= candidates_.size()) return std::nullopt;
  const Candidates& c = candidates_[next_];
  Question q{c.id, c.prompt, {}, {}, display_order(c), next_ + 1};
  for (const int i : q.shown) {
    q.responses.push_back(c.responses[static_cast<std::size_t>(i)]);
    q.finished.push_back(c.finished[static_cast<std::size_t>(i)]);
  }
  return q;
}

void RankingSession::answer(const std::vector<int>& by_place) {
  check(next_ < candidates_.size(), "[rank] no question waits for an answer");
  const Candidates& c = candidates_[next_];
  if (by_place.size() != c.responses.size())
    fail<DataError>(
        str("[rank] ", by_place.size(), " ranks came for ", c.responses.size(), " responses"));
  if (std::count_if(by_place.begin(), by_place.end(), [](int rank) { return rank >= 0; }) < 2)
    fail<DataError>("[rank] one response alone is compared with nothing. HINT: name two or more");
  const std::vector<int> shown = display_order(c);
  std::vector<int> rank(shown.size());
  for (std::size_t i = 0; i < shown.size(); ++i)
    rank[static_cast<std::size_t>(shown[i])] = by_place[i];
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - asked_;
  file_.append(c, std::move(rank), shown, std::max(1.0, std::round(took.count())) / 1000.0);
  history_.push_back({next_++, true});
  go_on();
}

std::vector<int> RankingSession::answer(std::string_view typed) {
  check(next_ < candidates_.size(), "[rank] no question waits for an answer");
  std::vector<int> by_place = parse_order(typed, candidates_[next_].responses.size());
  answer(by_place);
  return by_place;
}

void RankingSession::skip() {
  check(next_ < candidates_.size(), "[rank] no question waits for an answer");
  history_.push_back({next_++, false});
  go_on();
}

RankingSession::Undone RankingSession::undo() {
  if (history_.empty()) return Undone::Nothing;
  const Past past = history_.back();
  if (past.answered) file_.undo(candidates_[past.candidate]);
  history_.pop_back();
  next_ = past.candidate;
  asked_ = std::chrono::steady_clock::now();
  return past.answered ? Undone::Answer : Undone::Skip;
}

}}  // namespace plumb::v0_1
