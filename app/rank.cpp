// `plumb rank`: see rank.hpp.
#include "rank.hpp"

#include "rule.hpp"
#include "screen.hpp"

#include <plumb/core/random.hpp>
#include <plumb/data/appender.hpp>
#include <plumb/io/hash.hpp>
#include <plumb/run/interrupt.hpp>
#include "progress.hpp"
#include <plumb/run/statistics.hpp>

#include <unistd.h>
#include <chrono>
#include <cmath>
#include <ctime>
#include <iostream>
#include <map>
#include <optional>
#include <set>
#include <string>

namespace plumb { inline namespace v0_1 {

namespace {

constexpr const char* kRuleName = "rule:warm";

constexpr const char* kHelp =
    "  3 1 2=4   3 is best, then 1, then 2 and 4 alike\n"
    "  3 1       the others stay unranked: compared with nothing\n"
    "  s         skip this one; the next sitting asks it again\n"
    "  u         undo: withdraw this sitting's previous answer\n"
    "  q         quit; every answer is on disk already\n";

std::string utc_now() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm parts = {};
  ::gmtime_r(&now, &parts);
  char buffer[32];
  std::strftime(buffer, sizeof buffer, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return buffer;
}

bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

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

// The ids that this annotator has ranked already. A ranking of other responses under the same id is
// an error: the candidates were generated anew since.
std::set<std::string> ranked_ids(const std::vector<Candidates>& candidates,
                                 const std::vector<Ranking>& rankings, const std::string& annotator,
                                 const std::string& path) {
  std::map<std::string, const Candidates*> by_id;
  for (const Candidates& c : candidates) by_id[c.id] = &c;
  std::set<std::string> ids;
  for (const Ranking& r : rankings) {
    const auto found = by_id.find(r.id);
    if (found == by_id.end()) continue;
    if (found->second->responses != r.responses)
      fail<DataError>(str("[rank] ", path, " ranks other responses under the id ", r.id,
                          " than the candidates have. HINT: give the new rankings another file"));
    if (r.annotator == annotator) ids.insert(r.id);
  }
  return ids;
}

Ranking ranking_of(const Candidates& c, std::vector<int> rank, std::vector<int> shown,
                   const std::string& annotator, const std::string& labeller) {
  Ranking r;
  r.id = c.id;
  r.prompt = c.prompt;
  r.group = c.prompt;
  r.responses = c.responses;
  r.finished = c.finished;
  r.tokens = c.tokens;
  r.rank = std::move(rank);
  r.annotator = annotator;
  r.labeller = labeller;
  r.time = utc_now();
  r.shown = std::move(shown);
  return r;
}

// Errors are written for a log: a person at a prompt needs neither the [place] nor the (file:line).
std::string plain_reason(std::string_view message) {
  if (message.starts_with('[')) message.remove_prefix(message.find(']') + 2);
  if (message.ends_with(')')) message = message.substr(0, message.rfind(" ("));
  return std::string(message);
}

// One annotator's sitting.
class Sitting {
 public:
  Sitting(const RankOptions& options, Screen screen)
      : options_(options),
        screen_(screen),
        candidates_(load_candidates(options.candidates)),
        file_(options.output) {
    if (file_.discarded() > 0)
      screen_.out << "The last line of " << options.output
                  << " was cut short by a crash: removed.\n";
    done_ = ranked_ids(candidates_, read_rankings(options.output).records, options.annotator,
                       options.output);
  }

  void run() {
    const std::size_t left = candidates_.size() - done_.size();
    screen_.out << "Ranking as " << options_.annotator << ": " << done_.size() << " of "
                << candidates_.size() << " done, " << left << " to go. ? explains the keys.\n";
    std::size_t next = 0;
    while (true) {
      while (next < candidates_.size() && done_.contains(candidates_[next].id)) ++next;
      if (next == candidates_.size()) break;
      const Step step = ask(next);
      if (step == Step::Quit) break;
      if (step == Step::Back) {
        next = history_.back().candidate;
        if (history_.back().answered) {
          file_.undo();
          done_.erase(candidates_[next].id);
          screen_.out << "Withdrawn.\n";
        }
        history_.pop_back();
        continue;
      }
      history_.push_back({next, step == Step::Answered});
      ++next;
    }
    screen_.out << '\n'
                << done_.size() << " of " << candidates_.size() << " ranked by "
                << options_.annotator << ", all in " << options_.output << ".\n";
  }

 private:
  enum class Step { Answered, Skipped, Back, Quit };
  struct Past {
    std::size_t candidate;
    bool answered;
  };

  std::string strong(const std::string& text) const {
    return screen_.styled ? "\x1b[1m" + text + "\x1b[0m" : text;
  }

  // A pure function of seed, id and annotator: a question that is asked again looks the same, and
  // two annotators do not share one order, which would pass for agreement.
  std::vector<int> display_order(const Candidates& c) const {
    const std::uint64_t place = Hash64().field(c.id).field(options_.annotator).value();
    const Rng rng(options_.seed, Stage::Order, static_cast<std::uint32_t>(place),
                  static_cast<std::uint32_t>(place >> 32));
    const std::vector<Index> order = permutation(std::ssize(c.responses), rng);
    return {order.begin(), order.end()};
  }

  void show(std::size_t index, const std::vector<int>& shown) const {
    const Candidates& c = candidates_[index];
    std::ostream& out = screen_.out;
    const std::string title = str("── ", index + 1, " of ", candidates_.size(), " ");
    out << '\n' << strong(title) << '\n' << wrap(c.prompt, screen_.width, "  ");
    for (std::size_t i = 0; i < shown.size(); ++i) {
      const auto response = static_cast<std::size_t>(shown[i]);
      out << '\n' << strong(str("[", i + 1, "]")) << '\n';
      out << wrap(c.responses[response].empty() ? "(empty)" : c.responses[response], screen_.width,
                  "    ");
      if (!c.finished[response]) out << "    (stopped at the length limit)\n";
    }
    out << '\n';
  }

  Step ask(std::size_t index) {
    const Candidates& c = candidates_[index];
    const std::vector<int> shown = display_order(c);
    show(index, shown);
    while (true) {
      screen_.out << "Best first (s skip, u undo, q quit, ? help): " << std::flush;
      std::string line;
      if (!std::getline(screen_.in, line) || screen_.in.eof()) {  // only Enter makes an answer
        screen_.out << '\n';
        return Step::Quit;
      }
      const std::string word(detail::trimmed(line));
      if (word == "q") return Step::Quit;
      if (word == "s") return Step::Skipped;
      if (word == "u") {
        if (!history_.empty()) return Step::Back;
        screen_.out << "Nothing to undo: this sitting has no answer yet.\n";
      } else if (word == "?") {
        screen_.out << kHelp;
      } else if (!word.empty() && accept(c, shown, word)) {
        return Step::Answered;
      }
    }
  }

  // Saves the order that was typed; false, with the reason on the screen, if it is not one.
  bool accept(const Candidates& c, const std::vector<int>& shown, const std::string& typed) {
    std::vector<int> by_place;
    try {
      by_place = parse_order(typed, shown.size());
      if (std::count(by_place.begin(), by_place.end(), -1) + 1 == std::ssize(by_place))
        fail<DataError>("one response alone is compared with nothing. HINT: name two or more");
    } catch (const DataError& error) {
      screen_.out << wrap("Not saved: " + plain_reason(error.what()), screen_.width, "");
      return false;
    }
    std::vector<int> rank(shown.size());
    for (std::size_t i = 0; i < shown.size(); ++i)
      rank[static_cast<std::size_t>(shown[i])] = by_place[i];
    file_.append(to_json(ranking_of(c, rank, shown, options_.annotator, options_.labeller)));
    done_.insert(c.id);
    screen_.out << "Saved: " << spelled(by_place) << '\n';
    return true;
  }

  static std::string spelled(const std::vector<int>& by_place) {
    std::string text, unranked;
    for (const std::vector<int>& group : groups_from_ranks(by_place)) {
      if (!text.empty()) text += " > ";
      for (std::size_t i = 0; i < group.size(); ++i) text += str(i ? " = " : "", group[i] + 1);
    }
    for (std::size_t i = 0; i < by_place.size(); ++i)
      if (by_place[i] < 0) unranked += str(unranked.empty() ? "" : ", ", i + 1);
    return unranked.empty() ? text : str(text, "  (unranked: ", unranked, ")");
  }

  const RankOptions& options_;
  Screen screen_;
  std::vector<Candidates> candidates_;
  JsonlAppender file_;
  std::set<std::string> done_;
  std::vector<Past> history_;
};

void rank_with_rule(const RankOptions& options, std::ostream& out) {
  out << warm_text() << "Rankings are made by this rule, not by people.\n";
  std::vector<Candidates> candidates = load_candidates(options.candidates);
  JsonlAppender file(options.output);
  const auto done = ranked_ids(candidates, read_rankings(options.output).records, kRuleName,
                               options.output);
  std::erase_if(candidates, [&](const Candidates& c) { return done.contains(c.id); });
  const std::vector<Ranking> added = rank_by_warm(candidates);
  file.append_all(added);
  out << added.size() << " ranked by the rule `warm`, " << done.size() << " were already; in "
      << options.output << ".\n";
}

// Two annotators' agreement over the prompts that both ranked.
struct Agreement {
  std::vector<double> tau, pairwise;
  std::size_t other_responses = 0;  // one id, but not the same responses
};

using RankingsById = std::map<std::string, const Ranking*>;

Agreement agreement_of(const RankingsById& a, const RankingsById& b) {
  Agreement out;
  for (const auto& [id, ranking] : a) {
    const auto found = b.find(id);
    if (found == b.end()) continue;
    if (ranking->responses != found->second->responses) {
      ++out.other_responses;
      continue;
    }
    const double tau = kendall_tau_b(ranking->rank, found->second->rank);
    const double pairs = pairwise_agreement(ranking->rank, found->second->rank);
    if (!std::isnan(tau)) out.tau.push_back(tau);
    if (!std::isnan(pairs)) out.pairwise.push_back(pairs);
  }
  return out;
}

std::string fixed(double value, int decimals) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.*f", decimals, value);
  return std::isnan(value) ? "-" : buffer;
}

// How often the response shown first is on top; one of m on top together counts 1/m.
void print_position_bias(const std::string& annotator, const RankingsById& rankings,
                         std::ostream& out) {
  double first_best = 0.0, expected = 0.0, n = 0.0;
  for (const auto& [id, r] : rankings) {
    if (r->labeller != "person" || r->shown.empty()) continue;
    const auto best = static_cast<double>(std::count(r->rank.begin(), r->rank.end(), 0));
    if (r->rank[static_cast<std::size_t>(r->shown[0])] == 0) first_best += 1.0 / best;
    expected += 1.0 / static_cast<double>(r->rank.size());
    n += 1.0;
  }
  if (n == 0.0) return;
  const Interval interval = wilson_interval(first_best, n);
  out << "Shown first and ranked best, " << annotator << ": " << fixed(100.0 * first_best / n, 1)
      << " % of " << n << " (95 % interval " << fixed(100.0 * interval.low, 1) << " to "
      << fixed(100.0 * interval.high, 1) << " %; without position bias "
      << fixed(100.0 * expected / n, 1) << " %)\n";
}

}  // namespace

std::vector<Ranking> rank_by_warm(const std::vector<Candidates>& candidates) {
  std::vector<Ranking> out;
  for (const Candidates& c : candidates)
    out.push_back(
        ranking_of(c, rank_by_rule(c.prompt, c.responses, c.finished), {}, kRuleName, kRuleName));
  return out;
}

void print_agreement(const std::vector<Ranking>& rankings, std::ostream& out) {
  std::map<std::string, RankingsById> by_annotator;  // the later of two rankings of one id counts
  for (const Ranking& r : rankings)
    by_annotator[r.annotator.empty() ? "(unnamed)" : r.annotator][r.id] = &r;
  for (auto a = by_annotator.begin(); a != by_annotator.end(); ++a)
    for (auto b = std::next(a); b != by_annotator.end(); ++b) {
      const Agreement both = agreement_of(a->second, b->second);
      out << "Agreement, " << a->first << " and " << b->first << ": ";
      if (both.pairwise.empty())
        out << "no pair of responses in common";
      else
        out << "Kendall tau-b " << fixed(mean(both.tau), 2) << ", pairwise "
            << fixed(100.0 * mean(both.pairwise), 1) << " %, over " << both.pairwise.size()
            << (both.pairwise.size() == 1 ? " prompt" : " prompts");
      if (both.other_responses > 0)
        out << " (" << both.other_responses << " left out: other responses under the same id)";
      out << '\n';
    }
  for (const auto& [annotator, mine] : by_annotator) print_position_bias(annotator, mine, out);
}

void rank_on(const RankOptions& options, Screen screen) {
  const bool person = options.labeller == "person";
  if (!person && options.labeller != kRuleName)
    fail<DataError>(
        str("[rank] no labeller \"", options.labeller, "\". HINT: person or rule:warm"));
  if (!options.agreement) {
    if (person && (options.annotator.empty() || options.annotator.starts_with("rule:") ||
                   !is_utf8(options.annotator)))
      fail<DataError>(str("[rank] \"", repaired_utf8(options.annotator),
                          "\" is not a person's name in UTF-8. HINT: --annotator NAME"));
    if (person)
      Sitting(options, screen).run();
    else
      rank_with_rule(options, screen.out);
  }
  std::vector<Ranking> all;
  std::set<std::string> files(options.others.begin(), options.others.end());
  if (!options.agreement || exists(options.output)) files.insert(options.output);
  for (const std::string& file : files) {
    const std::vector<Ranking> some = read_rankings(file).records;
    all.insert(all.end(), some.begin(), some.end());
  }
  if (!person && !options.agreement) return;
  print_agreement(all, screen.out);
  std::set<std::string> annotators;
  for (const Ranking& r : all) annotators.insert(r.annotator);
  if (options.agreement && annotators.size() < 2)
    screen.out << "Agreement needs two annotators; the files have " << annotators.size() << ".\n";
}

int rank_command(const RankOptions& options) {
  const InterruptGuard guard(BlockingReads::Return);
  rank_on(options, {std::cin, std::cout, std::min(terminal_width(stdout), 100),
                    ::isatty(STDOUT_FILENO) == 1});
  return interrupted() ? 128 + interrupt_signal() : 0;
}

}}  // namespace plumb::v0_1
