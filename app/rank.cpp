// `plumb rank`: see rank.hpp.
#include "rank.hpp"

#include "agreement.hpp"
#include "judge.hpp"
#include "progress.hpp"
#include "screen.hpp"

#include <plumb/run/interrupt.hpp>

#include <unistd.h>
#include <algorithm>
#include <iostream>
#include <set>
#include <string>

namespace plumb { inline namespace v0_1 {

namespace {

constexpr const char* kHelp =
    "  3 1 2=4   3 is best, then 1, then 2 and 4 alike\n"
    "  3 1       the others stay unranked: compared with nothing\n"
    "  s         skip this one; the next sitting asks it again\n"
    "  u         undo: withdraw this sitting's previous answer\n"
    "  q         quit; every answer is on disk already\n";

// Errors are written for a log: a person at a prompt needs neither the [place] nor the (file:line).
std::string plain_reason(std::string_view message) {
  if (message.starts_with('[')) message.remove_prefix(message.find(']') + 2);
  if (message.ends_with(')')) message = message.substr(0, message.rfind(" ("));
  return std::string(message);
}

std::string strong(const std::string& text, bool styled) {
  return styled ? "\x1b[1m" + text + "\x1b[0m" : text;
}

void show(const Question& q, std::size_t total, const Screen& screen) {
  std::ostream& out = screen.out;
  out << '\n' << strong(str("── ", q.number, " of ", total, " "), screen.styled) << '\n';
  out << wrap(q.prompt, screen.width, "  ");
  for (std::size_t i = 0; i < q.responses.size(); ++i) {
    out << '\n' << strong(str("[", i + 1, "]"), screen.styled) << '\n';
    out << wrap(q.responses[i].empty() ? "(empty)" : q.responses[i], screen.width, "    ");
    if (!q.finished[i]) out << "    (stopped at the length limit)\n";
  }
  out << '\n';
}

std::string spelled(const std::vector<int>& by_place) {
  std::string text, unranked;
  for (const std::vector<int>& group : groups_from_ranks(by_place)) {
    if (!text.empty()) text += " > ";
    for (std::size_t i = 0; i < group.size(); ++i) text += str(i ? " = " : "", group[i] + 1);
  }
  for (std::size_t i = 0; i < by_place.size(); ++i)
    if (by_place[i] < 0) unranked += str(unranked.empty() ? "" : ", ", i + 1);
  return unranked.empty() ? text : str(text, "  (unranked: ", unranked, ")");
}

// Does what one typed word asks of the waiting question: true when another question is due.
bool obey(RankingSession& session, const std::string& word, const Screen& screen) {
  if (word.empty()) return false;
  if (word == "?") return screen.out << kHelp, false;
  if (word == "s") return session.skip(), true;
  if (word == "u") {
    const auto undone = session.undo();
    if (undone == RankingSession::Undone::Answer) screen.out << "Withdrawn.\n";
    if (undone != RankingSession::Undone::Nothing) return true;
    screen.out << "Nothing to undo: this sitting has no answer yet.\n";
    return false;
  }
  try {
    screen.out << "Saved: " << spelled(session.answer(word)) << '\n';
    return true;
  } catch (const DataError& error) {
    screen.out << wrap("Not saved: " + plain_reason(error.what()), screen.width, "");
    return false;
  }
}

Json rank_with_rule(const RankOptions& options, std::ostream& out) {
  const Rule& rule = rule_of(options.labeller);
  out << rule.text << "Rankings are made by this rule, not by people.\n";
  const std::vector<Candidates> candidates = load_candidates(options.candidates);
  RankingsFile file(options.output, candidates, rule.name, rule.name);
  const std::size_t before = file.done();
  append_by_rule(rule, candidates, file);
  out << file.done() - before << " ranked by the rule `" << rule.short_name() << "`, " << before
      << " were already; in " << harmless(options.output) << ".\n";
  return {{"ranked", file.done()}, {"candidates", candidates.size()}};
}

Json rank_as_person(const RankOptions& options, Screen screen) {
  RankingSession session(load_candidates(options.candidates), options.output, options.annotator,
                         options.seed);
  if (session.file().discarded() > 0)
    screen.out << "The last line of " << harmless(options.output)
               << " was cut short by a crash: removed.\n";
  const std::string name = harmless(options.annotator);
  screen.out << "Ranking as " << name << ": " << session.done() << " of " << session.total()
             << " done, " << session.total() - session.done() << " to go. ? explains the keys.\n";
  ask_on(session, screen);
  screen.out << '\n'
             << session.done() << " of " << session.total() << " ranked by " << name << ", all in "
             << harmless(options.output) << ".\n";
  return {{"ranked", session.done()}, {"candidates", session.total()}};
}

}  // namespace

void append_by_rule(const Rule& rule, const std::vector<Candidates>& candidates,
                    RankingsFile& file) {
  for (const Candidates& c : candidates)
    if (!file.has(c.id)) file.append(c, rule.ranks(c.prompt, c.responses, c.finished), {});
}

void ask_on(RankingSession& session, Screen screen) {
  std::optional<Question> question = session.question();
  if (question) show(*question, session.total(), screen);
  while (question) {
    screen.out << "Best first (s skip, u undo, q quit, ? help): " << std::flush;
    std::string line;
    if (!std::getline(screen.in, line) || screen.in.eof()) {  // only Enter makes an answer
      screen.out << '\n';
      return;
    }
    const std::string word(detail::trimmed(line));
    if (word == "q") return;
    if (!obey(session, word, screen)) continue;
    question = session.question();
    if (question) show(*question, session.total(), screen);
  }
}

Json rank_on(const RankOptions& options, Screen screen) {
  const bool person = options.labeller == "person";
  Json results = Json::object();
  if (!person) rule_of(options.labeller);  // refuse another before anything is done
  if (!options.agreement)
    results = person ? rank_as_person(options, screen) : rank_with_rule(options, screen.out);
  std::vector<Ranking> all;
  std::set<std::string> files(options.others.begin(), options.others.end());
  if (!options.agreement || detail::file_exists(options.output)) files.insert(options.output);
  for (const std::string& file : files) {
    const std::vector<Ranking> some = read_rankings(file).records;
    all.insert(all.end(), some.begin(), some.end());
  }
  const Agreement agreement = agreement_of(all);
  results.update(agreement_json(agreement));
  if (!person && !options.agreement) return results;
  print_agreement(agreement, screen.out);
  if (options.agreement) {
    const AnnotatorRates rates = annotator_rates(all);
    print_rates(rates, screen.out);
    results["right_by_dawid_skene"] = rates_json(rates);
    const std::vector<Habits> habits = habits_of(all);
    print_habits(habits, screen.out);
    results["habits"] = habits_json(habits);
  }
  if (options.agreement && agreement.annotators < 2)
    screen.out << "Agreement needs two annotators; the files have " << agreement.annotators
               << ".\n";
  return results;
}

Screen terminal_screen() {
  return {std::cin, std::cout, std::min(terminal_width(stdout), 100), ::isatty(STDOUT_FILENO) == 1};
}

Json rank_command(const RankOptions& options) {
  const InterruptGuard guard(BlockingReads::Return);
  Json results = {{"status", 0}};
  results.update(rank_on(options, terminal_screen()));
  if (interrupted()) results["status"] = 128 + interrupt_signal();
  return results;
}

}}  // namespace plumb::v0_1
