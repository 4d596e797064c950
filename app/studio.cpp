#include "studio.hpp"

#include "judge.hpp"

#include <set>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

namespace {

constexpr std::size_t kSittings = 500;  // more names than a desk has people

const Json& value_at(const Json& body, const char* key) {
  static const Json null;
  const auto found = body.find(key);
  return found == body.end() ? null : *found;
}

std::string text_of(const Json& body, const char* key) {
  const Json& value = value_at(body, key);
  if (value.is_null()) return {};
  if (!value.is_string()) fail<DataError>(str("[studio] expected text as \"", key, "\""));
  return value.get<std::string>();
}

double number_of(const Json& body, const char* key, double most) {
  const Json& value = value_at(body, key);
  if (value.is_null()) return 0.0;
  if (!value.is_number() || !(value.get<double>() >= 0.0) || value.get<double>() > most)
    fail<DataError>(str("[studio] expected a number from 0 to ", most, " as \"", key, "\""));
  return value.get<double>();
}

std::vector<int> integers_of(const Json& body, const char* key) {
  std::vector<int> out;
  const Json& value = value_at(body, key);
  if (value.is_null()) return out;
  for (const Json& item : value) {
    if (!value.is_array() || !item.is_number_integer() || item < -1 || item > 10000)
      fail<DataError>(str("[studio] expected a list of whole numbers from -1 as \"", key, "\""));
    out.push_back(item.get<int>());
  }
  return out;
}

Answer answer_said(const Json& body) {
  Answer said{integers_of(body, "rank")};
  said.unusable = integers_of(body, "unusable");
  said.comment = text_of(body, "comment");
  said.strength = static_cast<int>(number_of(body, "strength", 3));
  said.seconds = number_of(body, "seconds", 86400);
  return said;
}

Json withdrawn_json(const Answer& said) {
  return {{"rank", said.rank},
          {"unusable", said.unusable},
          {"comment", said.comment},
          {"strength", said.strength},
          {"seconds", said.seconds}};
}

}  // namespace

StudioReply refusal(int status, const char* kind, const std::string& what) {
  return {status, json_text({{"kind", kind}, {"error", plain_reason(what)}})};
}

std::shared_ptr<RankingDesk> contest_desk(Contest& contest, const std::string& output,
                                          const RankingPlan& plan) {
  const auto first_responses = [](const std::string& path) {
    std::vector<Candidates> all = read_candidates(path).records;
    for (Candidates& c : all) {
      c.responses.resize(1);
      c.finished.resize(1);
    }
    return all;
  };
  const std::vector<Candidates> before = first_responses(contest.before);
  const std::vector<Candidates> after = first_responses(contest.after);
  bool same = before.size() == after.size() && !before.empty();
  for (std::size_t i = 0; same && i < before.size(); ++i)
    same = before[i].prompt == after[i].prompt;
  if (!same)
    fail<DataError>(str("[studio] ", shown(contest.before), " and ", shown(contest.after),
                        " have other prompts, or none. HINT: sample both with the same --prompts"));
  std::vector<Candidates> pairs;
  std::set<std::string> ids;
  for (Candidates& pair : pairs_to_judge(before, after)) {
    if (identical(pair))
      ++contest.alike;
    else if (ids.insert(pair.id).second)
      pairs.push_back(std::move(pair));
  }
  return std::make_shared<RankingDesk>(std::move(pairs), output, plan);
}

DeskStudio::DeskStudio(std::shared_ptr<RankingDesk> desk, std::string instructions,
                       std::optional<Contest> contest)
    : desk_(std::move(desk)),
      instructions_(std::move(instructions)),
      contest_(std::move(contest)) {}

// What one judge has said so far. What is of no use loses to what is.
BlindTest DeskStudio::tally(const RankingSession& session) const {
  BlindTest out;
  out.ties = static_cast<double>(contest_->alike);
  for (const RankingsFile::Entry& e : desk_->file.by(session.annotator())) {
    if (e.repeat != 0 || e.rank.size() != 2) continue;
    const auto standing = [&](std::size_t i) { return e.rank[i] < 0 ? 2 : e.rank[i]; };
    double& count = standing(0) == standing(1)  ? out.ties
                    : standing(1) < standing(0) ? out.wins
                                                : out.losses;
    count += 1.0;
  }
  return out;
}

bool DeskStudio::is_over(const RankingSession& session) const {
  return contest_ && (session.left() == 0 || tally(session).decided());
}

StudioReply DeskStudio::handle(const std::string& action, const std::string& body) {
  try {
    const Json json = parse_json(body, "the page's request");
    if (!json.is_object()) return refusal(400, "request", "[studio] a body is a JSON object");
    const std::lock_guard lock(mutex_);
    return act(action, json);
  } catch (const IoError& error) {
    return refusal(507, "unsaved", error.what());
  } catch (const std::exception& error) {
    return refusal(400, "request", error.what());
  }
}

std::size_t DeskStudio::rankings() const {
  const std::lock_guard lock(mutex_);
  return desk_->file.rankings();
}
std::size_t DeskStudio::questions() const { return desk_->candidates.size(); }

std::string DeskStudio::judged_by() const {
  const std::lock_guard lock(mutex_);
  for (const auto& [name, one] : sittings_)
    if (is_over(one.session)) return name;
  return {};
}

DeskStudio::Sitting& DeskStudio::sitting(const std::string& name) {
  const auto found = sittings_.find(name);
  if (found != sittings_.end()) return found->second;
  if (sittings_.size() >= kSittings)
    fail<DataError>(str("[studio] ", kSittings,
                        " names have sat down, and that is all there is "
                        "room for. HINT: start the studio again"));
  return sittings_.emplace(name, Sitting{RankingSession(desk_, name)}).first->second;
}

Json DeskStudio::state(const Sitting& at) const {
  const RankingSession& s = at.session;
  Json out = {{"annotator", s.annotator()},
              {"done", s.done()},
              {"left", s.left()},
              {"skipped", s.skipped()},
              {"can_undo", s.can_undo()},
              {"seconds_each", s.seconds_each()},
              {"seconds_left", s.seconds_each() * static_cast<double>(s.left())},
              {"instructions", instructions_},
              {"last", at.last},
              {"question", nullptr}};
  if (is_over(s)) {
    const BlindTest test = tally(s);
    const Interval share = test.interval();
    out["can_undo"] = false;
    out["verdict"] = {
        {"before", contest_->before}, {"after", contest_->after}, {"wins", test.wins},
        {"ties", test.ties},          {"losses", test.losses},    {"rate", test.rate()},
        {"low", share.low},           {"high", share.high},       {"decided", test.decided()}};
    return out;
  }
  if (!s.question()) return out;
  const Question& q = *s.question();
  Json responses = Json::array();
  for (std::size_t i = 0; i < q.responses.size(); ++i)
    responses.push_back({{"text", q.responses[i]}, {"finished", bool{q.finished[i]}}});
  out["question"] = {
      {"key", q.key}, {"number", q.number}, {"prompt", q.prompt}, {"responses", responses}};
  if (s.withdrawn()) out["withdrawn"] = withdrawn_json(*s.withdrawn());
  return out;
}

StudioReply DeskStudio::act(const std::string& action, const Json& body) {
  if (action == "open") return {200, "{\"mode\":\"desk\"}"};
  const std::string name = persons_name(text_of(body, "name"));
  const bool known = action == "sit" || action == "answer" || action == "skip" ||
                     action == "undo" || action == "skipped";
  if (!known) return refusal(404, "path", "[studio] there is no such action");
  Sitting& at = sitting(name);
  RankingSession& session = at.session;
  if (action == "sit") session.look_again();
  if (action != "sit" && is_over(session))
    return refusal(400, "request", "[studio] the verdict is out, and no answer can be changed");
  if (action == "answer" || action == "skip" || action == "undo") {
    // A page that was open while the program ended may ask about another question than the one
    // that comes next now. What was answered is open no more, and is not answered twice.
    const std::string key = text_of(body, "key");
    if (action != "undo" && !key.empty()) session.turn_to(key);
    const std::string waits = session.question() ? session.question()->key : "";
    if (key != waits) return {409, json_text(state(at))};
    if (action != "undo" && waits.empty())
      return refusal(400, "request", "[studio] no question waits for an answer");
    if (action == "answer") {
      session.answer(answer_said(body));
      at.last = text_of(body, "once").substr(0, 64);
    } else if (action == "skip") {
      session.skip();
    } else {
      session.undo();
      at.last.clear();
    }
  }
  if (action == "skipped") session.ask_skipped();
  return {200, json_text(state(at))};
}

}}  // namespace plumb::v0_1
