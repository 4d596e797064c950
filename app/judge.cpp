#include "judge.hpp"

#include "child_rule.hpp"
#include "command_judge.hpp"
#include "format.hpp"
#include "rule.hpp"

#include <plumb/core/random.hpp>
#include <plumb/io/hash.hpp>
#include <plumb/run/interrupt.hpp>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

namespace plumb { inline namespace v0_1 {

namespace {

constexpr double kSameScore = 1e-9;  // scores this near tie

double preference_of(double before, double after) {
  const double difference = after - before;
  return std::abs(difference) <= kSameScore ? 0.5 : difference > 0.0 ? 1.0 : 0.0;
}

void check_pairs(const std::vector<Candidates>& before, const std::vector<Candidates>& after) {
  bool same = before.size() == after.size();
  for (std::size_t i = 0; same && i < before.size(); ++i)
    same = before[i].prompt == after[i].prompt &&
           before[i].responses.size() == after[i].responses.size() &&
           before[i].finished.size() == before[i].responses.size() &&
           after[i].finished.size() == after[i].responses.size();
  check(same, "[judge] before and after need the same prompts, and as many responses to each");
}

template <class Visit>
void for_each_pair(const std::vector<Candidates>& before, Visit visit) {
  for (std::size_t i = 0; i < before.size(); ++i)
    for (std::size_t k = 0; k < before[i].responses.size(); ++k) visit(i, k);
}

class ScoringJudge : public Judge {
 public:
  ScoringJudge(std::string name, ScoreCandidates score)
      : name_(std::move(name)), score_(std::move(score)) {}
  std::string name() const override { return name_; }
  Verdict compare(const std::vector<Candidates>& before,
                  const std::vector<Candidates>& after) override {
    check_pairs(before, after);
    const std::vector<double> old_scores = score_(before), new_scores = score_(after);
    Verdict verdict{name_, true, {}, 0};
    for_each_pair(before, [&](std::size_t i, std::size_t k) {
      const std::size_t at = verdict.items.size();
      check(at < old_scores.size() && at < new_scores.size(),
            "[judge] a score is missing for a response");
      const double b = old_scores[at], a = new_scores[at];
      if (!std::isfinite(b) || !std::isfinite(a))
        fail<NumericError>(str("[judge] ", name_, " scores a response ", std::isfinite(b) ? a : b));
      verdict.items.push_back({i, k, preference_of(b, a), b, a});
    });
    return verdict;
  }

 private:
  std::string name_;
  ScoreCandidates score_;
};

// What ratings call the model.
const std::string& called(const Candidates& c) { return c.name.empty() ? c.model : c.name; }

// The better, the higher; what is of no use, and has no rank, is below all else.
double standing(int rank) { return rank < 0 ? -2.0 : -rank; }

class PersonJudge : public Judge {
 public:
  explicit PersonJudge(JudgeTools tools) : tools_(std::move(tools)) {
    check<DataError>(!tools_.answers.empty(),
                     "[judge] a person's answers need a file to be kept in");
  }
  std::string name() const override { return "person"; }
  Verdict compare(const std::vector<Candidates>& before,
                  const std::vector<Candidates>& after) override {
    const std::vector<Candidates> pairs = pairs_to_judge(before, after);
    // Pairs of one prompt depend on one another, which an early end does not allow for.
    const bool may_stop = std::none_of(before.begin(), before.end(),
                                       [](const Candidates& c) { return c.responses.size() > 1; });
    const std::string annotator = ask(pairs, may_stop);
    std::map<std::string, double> preferences;
    for (const Ranking& r : read_rankings(tools_.answers).records)
      if (r.annotator == annotator && r.rank.size() == 2)
        preferences[r.id] = preference_of(standing(r.rank[0]), standing(r.rank[1]));
    Verdict verdict{name(), false, {}, 0};
    for_each_pair(before, [&, at = std::size_t{0}](std::size_t i, std::size_t k) mutable {
      const Candidates& pair = pairs[at++];
      const auto found = preferences.find(pair.id);
      if (found == preferences.end() && !identical(pair))
        ++verdict.unjudged;
      else
        verdict.items.push_back({i, k, identical(pair) ? 0.5 : found->second, 0.0, 0.0});
    });
    verdict.stopped_early = may_stop && verdict.unjudged > 0 && verdict.test().decided();
    return verdict;
  }

 private:
  // What was said of these pairs so far.
  BlindTest tally(const RankingSession& session, const std::set<std::string>& ids) const {
    BlindTest out;
    for (const RankingsFile::Entry& e : session.file().by(tools_.annotator)) {
      if (e.rank.size() != 2 || !ids.contains(e.id)) continue;
      const double preference = preference_of(standing(e.rank[0]), standing(e.rank[1]));
      (preference == 0.5 ? out.ties : preference > 0.5 ? out.wins : out.losses) += 1.0;
    }
    return out;
  }

  // Whose answers they are.
  std::string ask(const std::vector<Candidates>& pairs, bool may_stop) const {
    std::vector<Candidates> open;
    std::set<std::string> ids;
    for (const Candidates& pair : pairs)
      if (!identical(pair) && ids.insert(pair.id).second) open.push_back(pair);
    if (tools_.ask) return tools_.ask(open, tools_.answers);
    const InterruptGuard guard(BlockingReads::Return);
    const Screen screen = tools_.screen();
    RankingSession session(std::move(open), tools_.answers, tools_.annotator, tools_.seed);
    screen.out << "Which response is better? 1 2: the first one, 2 1: the second, 1=2: alike. "
               << session.done() << " of " << session.total() << " answered."
               << (may_stop ? " It ends as soon as it is decided." : "") << '\n';
    const auto decided = [&] { return may_stop && tally(session, ids).decided(); };
    ask_on(session, screen, {}, false, decided);
    if (decided() && session.left() > 0) {
      const BlindTest test = tally(session, ids);
      screen.out << "Decided: of " << fixed(test.wins + test.losses, 0)
                 << " pairs of which you prefer one, " << fixed(test.wins, 0)
                 << " are for the second model. " << session.left()
                 << " are not asked: a model that is no better leads by as much, however often one "
                    "looks, in one of "
                 << fixed(BlindTest::kEvidence, 0) << " cases at most.\n";
    }
    if (interrupted())
      throw Interrupted("Judging was interrupted. The same command takes it up again.");
    return tools_.annotator;
  }

  JudgeTools tools_;
};

class CommandJudge : public Judge {
 public:
  CommandJudge(std::string spec, std::string command, std::uint64_t seed)
      : spec_(std::move(spec)), command_(std::move(command)), seed_(seed) {}
  std::string name() const override { return spec_; }
  Verdict compare(const std::vector<Candidates>& before,
                  const std::vector<Candidates>& after) override {
    const std::vector<Candidates> pairs = pairs_to_judge(before, after);
    std::vector<std::string> questions;
    std::vector<bool> turned;
    for (const Candidates& pair : pairs) {
      const std::uint64_t place = hash64(pair.id);
      Rng rng(seed_, Stage::Order, static_cast<std::uint32_t>(place),
              static_cast<std::uint32_t>(place >> 32));
      turned.push_back(rng.below(2) == 1);
      const std::size_t first = turned.back() ? 1 : 0;
      questions.push_back(
          detail::json_line({{"prompt", pair.prompt},
                             {"responses", {pair.responses[first], pair.responses[1 - first]}}}));
    }
    const std::vector<PairAnswer> answers = ask_command(command_, questions);
    Verdict verdict{spec_, !answers.empty(), {}, 0};
    for (const PairAnswer& answer : answers) verdict.scored = verdict.scored && answer.scored;
    for_each_pair(before, [&](std::size_t i, std::size_t k) {
      const std::size_t at = verdict.items.size();
      auto [first, second, scored] = answers[at];
      if (turned[at]) std::swap(first, second);
      verdict.items.push_back({i, k, preference_of(first, second), first, second});
    });
    if (!verdict.scored)
      for (Verdict::Item& item : verdict.items) item.before = item.after = 0.0;
    return verdict;
  }

 private:
  std::string spec_, command_;
  std::uint64_t seed_;
};

// Sums of `value` by prompt: what the intervals are clustered by.
template <class Value>
std::vector<ClusterSum> by_prompt(const Verdict& verdict, Value value) {
  std::map<std::size_t, ClusterSum> sums;
  for (const Verdict::Item& item : verdict.items) {
    sums[item.prompt].sum += value(item);
    sums[item.prompt].count += 1.0;
  }
  std::vector<ClusterSum> out;
  for (const auto& [prompt, sum] : sums) out.push_back(sum);
  return out;
}

}  // namespace

std::vector<Candidates> pairs_to_judge(const std::vector<Candidates>& before,
                                       const std::vector<Candidates>& after) {
  check_pairs(before, after);
  std::vector<Candidates> pairs;
  for_each_pair(before, [&](std::size_t i, std::size_t k) {
    Candidates pair;
    pair.prompt = before[i].prompt;
    pair.responses = {before[i].responses[k], after[i].responses[k]};
    pair.finished = {before[i].finished[k], after[i].finished[k]};
    const std::string &old = called(before[i]), &now = called(after[i]);
    if (!old.empty() && !now.empty() && old != now) pair.systems = {old, now};  // for ratings
    Hash64 hash;
    hash.field(pair.prompt);
    for (const std::string& response : pair.responses) hash.field(response);
    pair.id = hex64(hash.value());
    pairs.push_back(std::move(pair));
  });
  return pairs;
}

bool identical(const Candidates& pair) {
  return pair.responses[0] == pair.responses[1] && pair.finished[0] == pair.finished[1];
}

std::vector<double> scores_by(const Rule& rule, const std::vector<Candidates>& candidates) {
  std::vector<double> scores;
  for (const Candidates& c : candidates)
    for (std::size_t k = 0; k < c.responses.size(); ++k)
      scores.push_back(rule.score(c.prompt, c.responses[k], c.finished[k]));
  return scores;
}

std::vector<int> Rule::ranks(const std::string& prompt, const std::vector<std::string>& responses,
                             const std::vector<bool>& finished) const {
  check(responses.size() == finished.size(), "[rule] one `finished` for each response");
  std::vector<double> totals;
  for (std::size_t i = 0; i < responses.size(); ++i)
    totals.push_back(score(prompt, responses[i], finished[i]));
  return ranks_of(totals);
}

const Rule& rule_of(const std::string& name) {
  static const std::vector<Rule> rules{
      {"rule:warm", warm_text(),
       [](const std::string& prompt, const std::string& response, bool finished) -> NamedNumbers {
         const RuleScore s = warm_score(prompt, response, finished);
         return {{"friendly", s.friendly},
                 {"simple", s.simple},
                 {"ending", s.ending},
                 {"total", s.total}};
       }},
      {"rule:child", child_text(),
       [](const std::string&, const std::string& response, bool finished) -> NamedNumbers {
         const ChildScore s = child_score(response, finished);
         return {{"grade", s.grade}, {"reading", s.reading}, {"picture", s.picture},
                 {"child", s.child}, {"ending", s.ending},   {"total", s.total}};
       }}};
  std::string names;
  for (const Rule& rule : rules) {
    if (name == rule.name) return rule;
    names += str(names.empty() ? "" : ", ", rule.name);
  }
  fail<DataError>(str("[rule] there is no rule \"", name, "\". HINT: ", names));
}

double Verdict::count(double preference) const {
  double found = 0.0;
  for (const Item& item : items) found += item.preference == preference ? 1.0 : 0.0;
  return found;
}

double Verdict::prompts() const {
  return static_cast<double>(by_prompt(*this, [](const Item&) { return 0.0; }).size());
}

double Verdict::rate() const {
  return clustered_mean(by_prompt(*this, [](const Item& item) { return item.preference; })).mean;
}

BlindTest Verdict::test() const { return {wins(), ties(), n() - wins() - ties()}; }

Interval Verdict::interval() const {
  if (stopped_early) {  // of the pairs that prefer one; a tie is half of each
    const Interval share = test().interval();
    const auto of_all = [&](double of) { return (of * (n() - ties()) + 0.5 * ties()) / n(); };
    return {of_all(share.low), of_all(share.high)};
  }
  return clustered_share_interval(by_prompt(*this, [](const Item& i) { return i.preference; }));
}

double Verdict::mean_difference() const {
  if (!scored) return std::nan("");
  return clustered_mean(by_prompt(*this, [](const Item& i) { return i.after - i.before; })).mean;
}

Interval Verdict::difference_interval() const {
  if (!scored) return {std::nan(""), std::nan("")};
  return clustered_mean_interval(
      by_prompt(*this, [](const Item& i) { return i.after - i.before; }));
}

Json Verdict::json() const {
  const Interval i = interval();
  Json out = {{"judge", judge},          {"win_rate", rate()},   {"win_rate_low", i.low},
              {"win_rate_high", i.high}, {"wins", wins()},       {"ties", ties()},
              {"judged", n()},           {"unjudged", unjudged}, {"stopped_early", stopped_early}};
  if (!scored) return out;
  const Interval d = difference_interval();
  out["score_difference"] = mean_difference();
  out["score_difference_low"] = d.low;
  out["score_difference_high"] = d.high;
  return out;
}

std::unique_ptr<Judge> make_judge(const std::string& spec, JudgeTools tools) {
  if (spec.starts_with("rule:")) {
    const Rule& rule = rule_of(spec);
    return std::make_unique<ScoringJudge>(
        spec, [&rule](const std::vector<Candidates>& c) { return scores_by(rule, c); });
  }
  if (spec == "person") return std::make_unique<PersonJudge>(std::move(tools));
  if (spec.starts_with("command:"))
    return std::make_unique<CommandJudge>(spec, spec.substr(spec.find(':') + 1), tools.seed);
  if (spec.empty() || !tools.reward_model)
    fail<DataError>(str("[judge] \"", spec, "\" names no judge. HINT: ", kDefaultRule,
                        ", person, command:PROGRAM, or a reward model's file"));
  return std::make_unique<ScoringJudge>(spec, tools.reward_model(spec));
}

}}  // namespace plumb::v0_1
