// `plumb rank`: see rank.hpp.
#include "rank.hpp"

#include "agreement.hpp"
#include "judge.hpp"
#include "people_report.hpp"
#include "progress.hpp"
#include "screen.hpp"

#include <plumb/data/text.hpp>
#include <plumb/io/output.hpp>
#include <plumb/run/interrupt.hpp>

#include <unistd.h>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <set>
#include <string>
#include <utility>

namespace plumb { inline namespace v0_1 {

namespace {

constexpr const char* kHelp =
    "  3 1 2=4   3 is best, then 1, then 2 and 4 alike\n"
    "  3 1       the others stay unranked: compared with nothing\n"
    "  2 1 ++    of two: how much better, from + (slightly) to +++ (much)\n"
    "  x 3       3 is of no use: marked, and unranked; x 3 again takes it back\n"
    "  b         all are bad: each is marked as of no use\n"
    "  c TEXT    a comment, kept with the answer\n"
    "  s         skip this one; the next sitting asks it again\n"
    "  u         undo: withdraw the previous answer, also an earlier sitting's\n"
    "  i         the instructions\n"
    "  q         quit; every answer is on disk already\n";

std::string strong(const std::string& text, bool styled) {
  return styled ? "\x1b[1m" + text + "\x1b[0m" : text;
}

// How long what is left takes at the pace so far; nothing where no time is known.
std::string time_left(const RankingSession& session) {
  const double minutes = session.seconds_each() * static_cast<double>(session.left()) / 60.0;
  if (minutes <= 0.0) return {};
  return minutes < 90.0 ? str(", about ", fixed(std::max(minutes, 1.0), 0), " min left")
                        : str(", about ", fixed(minutes / 60.0, 1), " h left");
}

void show(const RankingSession& session, const Screen& screen) {
  const Question& q = *session.question();
  std::ostream& out = screen.out;
  out << '\n'
      << strong(str("── ", q.number, " of ", session.total(), time_left(session), " "),
                screen.styled)
      << '\n';
  out << wrap(q.prompt, screen.width, "  ");
  for (std::size_t i = 0; i < q.responses.size(); ++i) {
    out << '\n' << strong(str("[", i + 1, "]"), screen.styled) << '\n';
    out << wrap(q.responses[i].empty() ? "(empty)" : q.responses[i], screen.width, "    ");
    if (!q.finished[i]) out << "    (stopped at the length limit)\n";
  }
  out << '\n';
}

std::string spelled(const Answer& said) {
  std::string text, unranked, unusable;
  for (const std::vector<int>& group : groups_from_ranks(said.rank)) {
    if (!text.empty()) text += " > ";
    for (std::size_t i = 0; i < group.size(); ++i) text += str(i ? " = " : "", group[i] + 1);
  }
  if (said.strength > 0) text += " " + std::string(static_cast<std::size_t>(said.strength), '+');
  for (std::size_t i = 0; i < said.rank.size(); ++i) {
    const bool bad =
        std::count(said.unusable.begin(), said.unusable.end(), static_cast<int>(i)) > 0;
    std::string& names = bad ? unusable : unranked;
    if (said.rank[i] < 0) names += str(names.empty() ? "" : ", ", i + 1);
  }
  if (!unranked.empty()) text += "  (unranked: " + unranked + ")";
  if (!unusable.empty()) text += "  (unusable: " + unusable + ")";
  return text;
}

// A person at the terminal, and what was said of the waiting question before its order.
class Sitting {
 public:
  Sitting(RankingSession& session, const Screen& screen, std::string instructions,
          bool finished_too, std::function<bool()> over)
      : session_(session),
        screen_(screen),
        instructions_(std::move(instructions)),
        finished_too_(finished_too),
        over_(std::move(over)) {}

  void ask() {
    next();
    while (!is_over() && (session_.question() || ask_whether_all())) {
      screen_.out << "Best first (s skip, u undo, q quit, ? help): " << std::flush;
      std::string line;
      if (!std::getline(screen_.in, line) || screen_.in.eof()) {  // only Enter makes an answer
        screen_.out << '\n';
        return;
      }
      const std::string word(detail::trimmed(line));
      if (word == "q") return;
      try {
        if (obey(word)) next();
      } catch (const DataError& error) {
        screen_.out << wrap("Not saved: " + plain_reason(error.what()), screen_.width, "");
      }
    }
  }

 private:
  bool is_over() const { return over_ && over_(); }

  void next() {
    said_ = {};
    if (session_.question() && !is_over()) show(session_, screen_);
    since_ = std::chrono::steady_clock::now();
  }

  // Where no question waits, after an answer or on request: whether one does after all, since the
  // last answer was withdrawn.
  bool ask_whether_all() {
    if (!session_.can_undo() || !(answered_ || finished_too_)) return false;
    screen_.out << "Nothing is left to ask; u undoes the last answer, Enter ends: " << std::flush;
    std::string line;
    if (!std::getline(screen_.in, line) || screen_.in.eof() || detail::trimmed(line) != "u")
      return false;
    if (undo()) next();
    return session_.question().has_value();
  }

  // Does what a line asks of the waiting question: true when another one is due.
  bool obey(const std::string& line) {
    if (line.empty()) return false;
    if (line == "?") return screen_.out << kHelp, false;
    if (line == "i")
      return screen_.out << wrap(
                 instructions_.empty() ? "There are no instructions." : instructions_,
                 screen_.width, "  "),
             false;
    if (line == "s") return session_.skip(), true;
    if (line == "u") return undo();
    if (line == "b") {
      said_.unusable.clear();
      for (std::size_t i = 0; i < session_.question()->responses.size(); ++i)
        said_.unusable.push_back(static_cast<int>(i));
      return save(Answer{std::vector<int>(said_.unusable.size(), -1)}), true;
    }
    if (line == "c" || line.starts_with("c ")) {
      said_.comment = detail::trimmed(std::string_view(line).substr(1));
      screen_.out << "The comment is kept with the answer.\n";
      return false;
    }
    if (line.starts_with("x ")) return mark(line.substr(2)), false;
    return save(parse_answer(line, session_.question()->responses.size())), true;
  }

  void save(Answer said) {
    said.unusable = said_.unusable;
    said.comment = said_.comment;
    said.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - since_).count();
    session_.answer(said);
    answered_ = true;
    screen_.out << "Saved: " << spelled(said) << '\n';
  }

  void mark(const std::string& names) {
    const std::vector<int> named = parse_order(names, session_.question()->responses.size());
    std::vector<int>& marked = said_.unusable;
    for (int i = 0; i < static_cast<int>(named.size()); ++i)
      if (named[static_cast<std::size_t>(i)] >= 0 && std::erase(marked, i) == 0)
        marked.push_back(i);
    std::string text;
    for (const int i : marked) text += str(text.empty() ? "" : ", ", i + 1);
    screen_.out << "Marked as of no use: " << (text.empty() ? "none" : text) << ".\n";
  }

  bool undo() {
    const auto undone = session_.undo();
    if (undone == RankingSession::Undone::Answer)
      screen_.out << "Withdrawn: " << spelled(*session_.withdrawn()) << '\n';
    if (undone == RankingSession::Undone::Nothing)
      screen_.out << "Nothing to undo: there is no answer yet.\n";
    return undone != RankingSession::Undone::Nothing;
  }

  RankingSession& session_;
  const Screen& screen_;
  std::string instructions_;
  bool finished_too_, answered_ = false;
  std::function<bool()> over_;
  Answer said_;  // unusable and comment
  std::chrono::steady_clock::time_point since_;
};

Json rank_with_rule(const RankOptions& options, std::ostream& out) {
  const Rule& rule = rule_of(options.labeller);
  out << rule.text << "Rankings are made by this rule, not by people.\n";
  const std::vector<Candidates> candidates = load_candidates(options.candidates);
  RankingsFile file(options.output, candidates);
  const std::size_t before = file.by(rule.name).size();
  append_by_rule(rule, candidates, file);
  const std::size_t ranked = file.by(rule.name).size();
  out << ranked - before << " ranked by the rule `" << rule.short_name() << "`, " << before
      << " were already; in " << harmless(options.output) << ".\n";
  return {{"ranked", ranked}, {"candidates", candidates.size()}};
}

Json rank_as_person(const RankOptions& options, Screen screen) {
  persons_name(options.annotator);  // before the file is opened, which creates it
  const std::string instructions = instructions_of(options.asking);
  RankingSession session(desk_of(options.candidates, options.output, options.asking),
                         options.annotator);
  if (session.file().discarded() > 0)
    screen.out << "The last line of " << harmless(options.output)
               << " was cut short by a crash: removed.\n";
  const std::string name = harmless(options.annotator);
  screen.out << "Ranking as " << name << ": " << session.done() << " of " << session.total()
             << " done, " << session.total() - session.done() << " to go. ? explains the keys.\n";
  ask_on(session, screen, instructions, options.finished_too);
  screen.out << '\n'
             << session.done() << " of " << session.total() << " ranked by " << name << ", all in "
             << harmless(options.output) << ".\n";
  return {{"ranked", session.done()}, {"candidates", session.total()}};
}

}  // namespace

std::string plain_reason(std::string_view message) {
  if (message.starts_with('[')) message.remove_prefix(message.find(']') + 2);
  if (message.ends_with(')')) message = message.substr(0, message.rfind(" ("));
  return std::string(message);
}

void append_by_rule(const Rule& rule, const std::vector<Candidates>& candidates,
                    RankingsFile& file) {
  for (const Candidates& c : candidates)
    if (!file.has(rule.name, c.id)) {
      Ranking said;
      said.rank = rule.ranks(c.prompt, c.responses, c.finished);
      said.annotator = said.labeller = rule.name;
      file.append(c, std::move(said));
    }
}

std::shared_ptr<RankingDesk> desk_of(const std::string& candidates, const std::string& output,
                                     const AskingOptions& asking) {
  std::vector<Candidates> all = load_candidates(candidates);
  if (asking.pairs) all = pairs_of_responses(all);
  return std::make_shared<RankingDesk>(std::move(all), output, asking.plan);
}

std::string instructions_of(const AskingOptions& asking) {
  return asking.instructions.empty() ? std::string() : read_text(asking.instructions);
}

void ask_on(RankingSession& session, Screen screen, const std::string& instructions,
            bool finished_too, const std::function<bool()>& over) {
  Sitting(session, screen, instructions, finished_too, over).ask();
}

Json rank_on(const RankOptions& options, Screen screen) {
  const bool person = options.labeller == "person";
  Json results = Json::object();
  check<DataError>(options.report.empty() || options.agreement,
                   "[rank] --report is of the agreement. HINT: --agreement --report FILE.html");
  if (!options.report.empty()) {
    std::vector<std::string> inputs = options.others;
    inputs.insert(inputs.end(), {options.candidates, options.output});
    check_output(options.report, inputs);
  }
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
    if (!options.report.empty()) {
      write_atomically(options.report, people_html(all, agreement, rates, habits));
      screen.out << "report: " << harmless(options.report) << '\n';
    }
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
