#include "ranking_session.hpp"

#include <plumb/core/random.hpp>
#include <plumb/io/hash.hpp>
#include <plumb/run/statistics.hpp>

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

using RankingsById = std::map<std::string, const Ranking*>;

Agreement::Pair agreement_between(const RankingsById& a, const RankingsById& b) {
  Agreement::Pair out;
  std::vector<double> taus, shares;
  for (const auto& [id, ranking] : a) {
    const auto found = b.find(id);
    if (found == b.end()) continue;
    if (ranking->responses != found->second->responses) {
      ++out.other_responses;
      continue;
    }
    const double tau = kendall_tau_b(ranking->rank, found->second->rank);
    const double share = pairwise_agreement(ranking->rank, found->second->rank);
    if (!std::isnan(tau)) taus.push_back(tau);
    if (!std::isnan(share)) shares.push_back(share);
  }
  out.tau = mean(taus);
  out.pairwise = mean(shares);
  out.prompts = shares.size();
  return out;
}

Agreement::Position position_of(const std::string& annotator, const RankingsById& rankings) {
  Agreement::Position out{annotator};
  for (const auto& [id, r] : rankings) {
    if (r->labeller != "person" || r->shown.empty()) continue;
    const auto best = static_cast<double>(std::count(r->rank.begin(), r->rank.end(), 0));
    if (r->rank[static_cast<std::size_t>(r->shown[0])] == 0) out.first_best += 1.0 / best;
    out.expected += 1.0 / static_cast<double>(r->rank.size());
    out.rankings += 1.0;
  }
  return out;
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

void RankingsFile::append(const Candidates& c, std::vector<int> rank, std::vector<int> shown) {
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
  file_.append(c, std::move(rank), shown);
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
  return past.answered ? Undone::Answer : Undone::Skip;
}

Agreement agreement_of(const std::vector<Ranking>& rankings) {
  std::map<std::string, RankingsById> by_annotator;
  for (const Ranking& r : rankings)
    by_annotator[r.annotator.empty() ? "(unnamed)" : r.annotator][r.id] = &r;
  Agreement out;
  out.annotators = by_annotator.size();
  for (auto a = by_annotator.begin(); a != by_annotator.end(); ++a)
    for (auto b = std::next(a); b != by_annotator.end(); ++b) {
      out.pairs.push_back(agreement_between(a->second, b->second));
      out.pairs.back().a = a->first;
      out.pairs.back().b = b->first;
    }
  for (const auto& [annotator, mine] : by_annotator) {
    const Agreement::Position position = position_of(annotator, mine);
    if (position.rankings > 0.0) out.positions.push_back(position);
  }
  return out;
}

Json Agreement::json() const {
  Json between = Json::array(), first = Json::array();
  for (const Pair& p : pairs)
    between.push_back({{"annotators", {p.a, p.b}},
                       {"kendall_tau_b", p.tau},
                       {"pairwise", p.pairwise},
                       {"prompts", p.prompts},
                       {"other_responses", p.other_responses}});
  for (const Position& p : positions) {
    const Interval interval = wilson_interval(p.first_best, p.rankings);
    first.push_back({{"annotator", p.annotator},
                     {"shown_first_ranked_best", p.first_best / p.rankings},
                     {"low", interval.low},
                     {"high", interval.high},
                     {"without_bias", p.expected / p.rankings},
                     {"rankings", p.rankings}});
  }
  return {{"annotators", annotators}, {"agreement", between}, {"position_bias", first}};
}

}}  // namespace plumb::v0_1
