#include "ranking_session.hpp"

#include <plumb/core/random.hpp>
#include <plumb/io/hash.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <iterator>
#include <utility>

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

constexpr std::size_t kRepeatAfter = 10;  // answers, so that the first one is forgotten
constexpr std::chrono::minutes kHeldFor{30};
constexpr std::size_t kLongestComment = 4000;  // bytes

// Whether a draw by seed and texts falls into a share.
bool drawn(double share, std::uint64_t seed, const char* what, const std::string& id,
           const std::string& annotator) {
  const std::uint64_t draw = Hash64(seed).field(what).field(id).field(annotator).value();
  return static_cast<double>(draw >> 11U) * 0x1p-53 < share;
}

// What an answer says, made regular. DataError if it does not fit `k` responses.
Answer checked(const Answer& said, std::size_t k) {
  Answer out = said;
  if (said.rank.size() != k)
    fail<DataError>(str("[rank] ", said.rank.size(), " ranks came for ", k, " responses"));
  for (const int rank : said.rank)
    if (rank < -1 || rank >= static_cast<int>(k))
      fail<DataError>(str("[rank] a rank is -1 or from 0 to ", k - 1, "; not ", rank));
  std::sort(out.unusable.begin(), out.unusable.end());
  out.unusable.erase(std::unique(out.unusable.begin(), out.unusable.end()), out.unusable.end());
  for (const int place : out.unusable) {
    if (place < 0 || static_cast<std::size_t>(place) >= k)
      fail<DataError>(str("[rank] there is no response ", place + 1, "; there are ", k));
    if (said.rank[static_cast<std::size_t>(place)] >= 0)
      fail<DataError>(str("[rank] response ", place + 1,
                          " is marked as unusable, and ranked. HINT: one of the two"));
  }
  const auto ranked =
      k - static_cast<std::size_t>(std::count(said.rank.begin(), said.rank.end(), -1));
  if (ranked < 2 && out.unusable.empty())
    fail<DataError>("[rank] one response alone is compared with nothing. HINT: name two or more");
  out.rank = ranks_from_groups(groups_from_ranks(said.rank), k);
  if (said.strength < 0 || said.strength > 3 ||
      (said.strength > 0 && (k != 2 || ranked != 2 || said.rank[0] == said.rank[1])))
    fail<DataError>(
        "[rank] how much better, 1 to 3, is said of two responses of which one is better");
  if (said.comment.size() > kLongestComment || !is_utf8(said.comment))
    fail<DataError>(str("[rank] a comment is text in UTF-8 of at most ", kLongestComment,
                        " bytes; this one has ", said.comment.size()));
  if (!std::isfinite(said.seconds) || said.seconds < 0.0)
    fail<DataError>(str("[rank] a time is from 0 seconds; not ", said.seconds));
  if (said.seconds > 0.0) out.seconds = std::max(1.0, std::round(1000.0 * said.seconds)) / 1000.0;
  return out;
}

}  // namespace

std::string persons_name(const std::string& annotator) {
  if (annotator.empty() || annotator.size() > 80 || annotator.starts_with("rule:") ||
      !is_utf8(annotator))
    fail<DataError>(str("[rank] \"", repaired_utf8(annotator.substr(0, 80)),
                        "\" is not a person's name in UTF-8. HINT: --annotator NAME"));
  return annotator;
}

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

std::vector<Candidates> pairs_of_responses(const std::vector<Candidates>& candidates) {
  std::vector<std::vector<Candidates>> rounds;
  for (const Candidates& c : candidates) {
    std::size_t round = 0;
    for (std::size_t j = 1; j < c.responses.size(); ++j)
      for (std::size_t i = 0; i < j; ++i) {
        Candidates pair = c;
        pair.id = str(c.id, "/", i, "-", j);
        pair.responses = {c.responses[i], c.responses[j]};
        pair.finished = {c.finished[i], c.finished[j]};
        if (!c.tokens.empty()) pair.tokens = {c.tokens[i], c.tokens[j]};
        if (!c.systems.empty()) pair.systems = {c.systems[i], c.systems[j]};
        if (round == rounds.size()) rounds.emplace_back();
        rounds[round++].push_back(std::move(pair));
      }
  }
  std::vector<Candidates> pairs;
  for (std::vector<Candidates>& round : rounds)
    pairs.insert(pairs.end(), std::make_move_iterator(round.begin()),
                 std::make_move_iterator(round.end()));
  return pairs;
}

// --- The file ------------------------------------------------------------------------------------

RankingsFile::RankingsFile(const std::string& path, const std::vector<Candidates>& candidates)
    : file_(path) {
  std::map<std::string, const Candidates*> by_id;
  for (const Candidates& c : candidates) by_id[c.id] = &c;
  for (const Ranking& r : read_rankings(path).records) {  // read under the lock
    const auto found = by_id.find(r.id);
    if (found == by_id.end()) continue;
    if (found->second->responses != r.responses)
      fail<DataError>(str("[rank] ", path, " ranks other responses under the id ", r.id,
                          " than the candidates have. HINT: give the new rankings another file"));
    note(r);
  }
}

void RankingsFile::note(const Ranking& r) {
  std::vector<Entry>& entries = by_[r.annotator];
  Entry entry{r.id, r.repeat, r.seconds, r.rank};
  if (!made_[r.annotator].insert({r.id, r.repeat}).second) {
    const auto before = std::find_if(entries.begin(), entries.end(), [&](const Entry& e) {
      return e.id == r.id && e.repeat == r.repeat;
    });
    entry.lines += before->lines;
    entries.erase(before);
  } else if (r.labeller == "person") {
    persons_[r.id].insert(r.annotator);
  }
  entries.push_back(std::move(entry));
}

const std::vector<RankingsFile::Entry>& RankingsFile::by(const std::string& annotator) const {
  static const std::vector<Entry> none;
  const auto found = by_.find(annotator);
  return found == by_.end() ? none : found->second;
}

bool RankingsFile::has(const std::string& annotator, const std::string& id, int repeat) const {
  const auto found = made_.find(annotator);
  return found != made_.end() && found->second.contains({id, repeat});
}

bool RankingsFile::by_another(const std::string& annotator, const std::string& id) const {
  const auto found = persons_.find(id);
  return found != persons_.end() && found->second.count(annotator) < found->second.size();
}

std::size_t RankingsFile::rankings() const {
  std::size_t count = 0;
  for (const auto& [annotator, entries] : by_) count += entries.size();
  return count;
}

void RankingsFile::append(const Candidates& c, Ranking said) {
  said.id = c.id;
  said.prompt = c.prompt;
  said.group = c.prompt;
  said.responses = c.responses;
  said.finished = c.finished;
  said.tokens = c.tokens;
  said.turns = c.turns;
  said.systems = c.systems;
  said.probability = c.probability;
  said.time = utc_now();
  file_.append(to_json(said));
  note(said);
}

std::optional<Ranking> RankingsFile::undo(const std::string& annotator) {
  if (by(annotator).empty()) return std::nullopt;
  std::vector<Entry>& entries = by_.at(annotator);
  Entry& last = entries.back();
  std::vector<Ranking> withdrawn;
  const Where where = Where::here();
  file_.remove_last([&](const Json& line) {
    const detail::JsonRecord record{line, 0, where};
    if (!line.is_object() || !record.has("ranking") || record.id() != last.id ||
        record.text_or("annotator", "") != annotator || record.whole("repeat", 1) != last.repeat)
      return false;
    detail::ranking_from(record, withdrawn);
    return true;
  });
  if (withdrawn.empty())
    fail<DataError>(str("[rank] the ranking of ", last.id, " by ", annotator,
                        " is on no line of its own in the file. HINT: edit the file"));
  if (--last.lines == 0) {
    made_[annotator].erase({last.id, last.repeat});
    std::multiset<std::string>& persons = persons_[last.id];
    if (const auto found = persons.find(annotator); found != persons.end()) persons.erase(found);
    entries.pop_back();
  }
  return withdrawn.back();
}

RankingDesk::RankingDesk(std::vector<Candidates> of, const std::string& output, RankingPlan how)
    : candidates(std::move(of)), plan(how), file(output, candidates) {
  check<DataError>(
      plan.overlap >= 0.0 && plan.overlap <= 1.0 && plan.repeats >= 0.0 && plan.repeats <= 1.0,
      "[rank] overlap and repeats are shares, from 0 to 1");
  for (std::size_t i = 0; i < candidates.size(); ++i) place[candidates[i].id] = i;
}

bool RankingDesk::shared(std::size_t i) const {
  return drawn(plan.overlap, plan.seed, "overlap", candidates[i].id, "");
}

bool RankingDesk::repeated(std::size_t i, const std::string& annotator) const {
  return drawn(plan.repeats, plan.seed, "repeats", candidates[i].id, annotator);
}

// --- A sitting -----------------------------------------------------------------------------------

Answer parse_answer(std::string_view text, std::size_t k) {
  Answer out;
  const std::size_t end = text.find_last_not_of("+ \t");
  const std::string_view order = text.substr(0, end == text.npos ? 0 : end + 1);
  out.strength = static_cast<int>(std::count(text.begin(), text.end(), '+'));
  out.rank = parse_order(order, k);
  return out;
}

RankingSession::RankingSession(std::shared_ptr<RankingDesk> desk, const std::string& annotator)
    : desk_(std::move(desk)), annotator_(persons_name(annotator)) {
  for (const RankingsFile::Entry& e : desk_->file.by(annotator_))
    history_.push_back({{desk_->place.at(e.id), e.repeat}, true});
  ask(choose());
}

RankingSession::RankingSession(std::vector<Candidates> candidates, const std::string& output,
                               const std::string& annotator, std::uint64_t seed)
    : RankingSession(
          (persons_name(annotator),  // before the file is opened, which creates it
           std::make_shared<RankingDesk>(std::move(candidates), output, RankingPlan{.seed = seed})),
          annotator) {}

// Not this annotator's yet, and theirs to answer.
bool RankingSession::is_open(std::size_t i) const {
  const std::string& id = desk_->candidates[i].id;
  if (desk_->file.has(annotator_, id)) return false;
  if (desk_->shared(i)) return true;
  if (desk_->file.by_another(annotator_, id)) return false;
  const auto held = desk_->holds.find(i);
  return held == desk_->holds.end() || held->second.annotator == annotator_ ||
         std::chrono::steady_clock::now() - held->second.since > kHeldFor;
}

// Questions to come again, of which at least `gap` answers were made since.
std::vector<RankingSession::Asked> RankingSession::open_repeats(std::size_t gap) const {
  std::vector<Asked> out;
  const std::vector<RankingsFile::Entry>& made = desk_->file.by(annotator_);
  for (std::size_t at = 0; at + gap < made.size(); ++at) {
    const Asked again{desk_->place.at(made[at].id), 1};
    if (made[at].repeat == 0 && desk_->repeated(again.candidate, annotator_) &&
        !desk_->file.has(annotator_, made[at].id, 1))
      out.push_back(again);
  }
  return out;
}

std::optional<RankingSession::Asked> RankingSession::choose() const {
  const auto first = [&](const std::vector<Asked>& of) -> std::optional<Asked> {
    for (const Asked& asked : of)
      if (!skipped_.contains(asked)) return asked;
    return std::nullopt;
  };
  if (const auto due = first(open_repeats(kRepeatAfter))) return due;
  for (std::size_t i = 0; i < desk_->candidates.size(); ++i)
    if (!skipped_.contains({i, 0}) && is_open(i)) return Asked{i, 0};
  return first(open_repeats(0));
}

std::vector<int> RankingSession::display_order(const Asked& asked) const {
  const Candidates& c = desk_->candidates[asked.candidate];
  Hash64 hash;
  hash.field(c.id).field(annotator_);
  if (asked.repeat > 0) hash.field("again");
  const std::uint64_t place = hash.value();
  const Rng rng(desk_->plan.seed, Stage::Order, static_cast<std::uint32_t>(place),
                static_cast<std::uint32_t>(place >> 32));
  const std::vector<Index> order = permutation(std::ssize(c.responses), rng);
  return {order.begin(), order.end()};
}

std::string RankingSession::key_of(const Asked& asked) const {
  Hash64 key(desk_->plan.seed);
  key.field(desk_->candidates[asked.candidate].id).field(annotator_);
  return hex64(key.add(static_cast<std::uint64_t>(asked.repeat)).value());
}

bool RankingSession::turn_to(const std::string& key) {
  if (question_ && question_->key == key) return true;
  std::vector<Asked> open = open_repeats(0);
  for (std::size_t i = 0; i < desk_->candidates.size(); ++i)
    if (is_open(i)) open.push_back({i, 0});
  for (const Asked& asked : open) {
    if (key_of(asked) != key) continue;
    skipped_.erase(asked);
    std::erase_if(history_,
                  [&](const Past& past) { return !past.answered && past.asked == asked; });
    ask(asked);
    return true;
  }
  return false;
}

void RankingSession::ask(std::optional<Asked> asked) {
  std::erase_if(desk_->holds,
                [&](const auto& held) { return held.second.annotator == annotator_; });
  asked_ = asked;
  question_.reset();
  withdrawn_.reset();
  if (!asked) return;
  const Candidates& c = desk_->candidates[asked->candidate];
  if (!desk_->shared(asked->candidate))
    desk_->holds[asked->candidate] = {annotator_, std::chrono::steady_clock::now()};
  Question q{.id = c.id,
             .prompt = c.prompt,
             .responses = {},
             .finished = {},
             .shown = display_order(*asked),
             .number = done() + skipped() + 1,
             .key = key_of(*asked)};
  for (const int i : q.shown) {
    q.responses.push_back(c.responses[static_cast<std::size_t>(i)]);
    q.finished.push_back(c.finished[static_cast<std::size_t>(i)]);
  }
  question_ = std::move(q);
}

void RankingSession::look_again() {
  if (!asked_) ask(choose());
}

void RankingSession::answer(const Answer& said) {
  check(asked_.has_value(), "[rank] no question waits for an answer");
  const Candidates& c = desk_->candidates[asked_->candidate];
  const Answer fits = checked(said, c.responses.size());
  Ranking r;
  r.shown = question_->shown;
  const auto response = [&](std::size_t place) { return static_cast<std::size_t>(r.shown[place]); };
  r.rank.resize(fits.rank.size());
  for (std::size_t i = 0; i < fits.rank.size(); ++i) r.rank[response(i)] = fits.rank[i];
  for (const int place : fits.unusable)
    r.unusable.push_back(r.shown[static_cast<std::size_t>(place)]);
  std::sort(r.unusable.begin(), r.unusable.end());
  r.annotator = annotator_;
  r.labeller = "person";
  r.seconds = fits.seconds;
  r.strength = fits.strength;
  r.comment = fits.comment;
  r.repeat = asked_->repeat;
  desk_->file.append(c, std::move(r));
  history_.push_back({*asked_, true});
  ask(choose());
}

Answer RankingSession::answer(std::string_view typed) {
  check(asked_.has_value(), "[rank] no question waits for an answer");
  Answer said = parse_answer(typed, question_->responses.size());
  answer(said);
  return said;
}

void RankingSession::skip() {
  check(asked_.has_value(), "[rank] no question waits for an answer");
  skipped_.insert(*asked_);
  history_.push_back({*asked_, false});
  ask(choose());
}

void RankingSession::ask_skipped() {
  skipped_.clear();
  std::erase_if(history_, [](const Past& past) { return !past.answered; });
  look_again();
}

RankingSession::Undone RankingSession::undo() {
  if (history_.empty()) return Undone::Nothing;
  const Past past = history_.back();
  std::optional<Answer> withdrawn;
  if (past.answered) {
    const std::optional<Ranking> r = desk_->file.undo(annotator_);
    check(
        r && r->id == desk_->candidates[past.asked.candidate].id && r->repeat == past.asked.repeat,
        "[rank] the file's last ranking by this annotator is not the sitting's last");
    withdrawn.emplace();
    const std::vector<int> shown = r->shown.empty() ? display_order(past.asked) : r->shown;
    for (std::size_t place = 0; place < shown.size(); ++place) {
      withdrawn->rank.push_back(r->rank[static_cast<std::size_t>(shown[place])]);
      if (std::count(r->unusable.begin(), r->unusable.end(), shown[place]) > 0)
        withdrawn->unusable.push_back(static_cast<int>(place));
    }
    withdrawn->comment = r->comment;
    withdrawn->strength = r->strength;
    withdrawn->seconds = r->seconds;
  }
  history_.pop_back();
  skipped_.erase(past.asked);
  ask(past.asked);
  withdrawn_ = std::move(withdrawn);
  return past.answered ? Undone::Answer : Undone::Skip;
}

std::size_t RankingSession::left() const {
  std::size_t count = 0;
  for (std::size_t i = 0; i < desk_->candidates.size(); ++i) {
    const bool open = is_open(i), made = desk_->file.has(annotator_, desk_->candidates[i].id);
    count += open ? 1 : 0;
    if ((open || made) && desk_->repeated(i, annotator_) &&
        !desk_->file.has(annotator_, desk_->candidates[i].id, 1))
      ++count;
  }
  return count;
}

double RankingSession::seconds_each() const {
  std::vector<double> seconds;
  for (const RankingsFile::Entry& e : desk_->file.by(annotator_))
    if (e.seconds > 0.0) seconds.push_back(e.seconds);
  if (seconds.empty()) return 0.0;
  const auto middle = seconds.begin() + std::ssize(seconds) / 2;
  std::nth_element(seconds.begin(), middle, seconds.end());
  return *middle;
}

}}  // namespace plumb::v0_1
