// `plumb rank`, driven as by a person: answers, mistakes, undo, interruption, resuming, agreement.
#include "../app/judge.hpp"
#include "../app/rank.hpp"
#include "../app/rule.hpp"
#include "../app/screen.hpp"

#include "support.hpp"
#include "temporary.hpp"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

using namespace plumb;
using test::contains;

namespace {

struct Desk {
  Temporary directory;
  RankOptions options;

  explicit Desk(int prompts = 4, int k = 3) {
    std::vector<Candidates> all;
    for (int i = 0; i < prompts; ++i) {
      Candidates c{.id = str("p", i),
                   .prompt = str("Prompt ", i),
                   .responses = {},
                   .finished = {},
                   .model = "m",
                   .sampling = ""};
      for (int j = 0; j < k; ++j) {
        c.responses.push_back(str("response ", static_cast<char>('A' + j), " to ", i));
        c.finished.push_back(j != 1);
      }
      all.push_back(c);
    }
    options.candidates = directory / "candidates.jsonl";
    options.output = directory / "rankings.jsonl";
    options.annotator = "ana";
    write_jsonl(options.candidates, all);
  }

  std::string sit(const std::string& typed) const {
    std::istringstream in(typed);
    std::ostringstream out;
    rank_on(options, {in, out});
    return out.str();
  }
  std::vector<Ranking> saved() const { return read_rankings(options.output).records; }
};

}  // namespace

TEST_CASE("rank: answers are in terms of what was shown") {
  const Desk desk;
  const std::string screen = desk.sit("3 1=2\n1 2 3\n2 1\nq\n");
  CHECK(contains(screen, "Saved: 3 > 1 = 2"));
  CHECK(contains(screen, "Saved: 2 > 1  (unranked: 3)"));
  CHECK(contains(screen, "3 of 4 ranked by ana"));
  CHECK(contains(screen, "stopped at the length limit"));
  const auto saved = desk.saved();
  REQUIRE(saved.size() == 3);
  for (const Ranking& r : saved) {
    std::vector<int> sorted = r.shown;
    std::sort(sorted.begin(), sorted.end());
    CHECK(sorted == std::vector<int>{0, 1, 2});
    CHECK(r.annotator == "ana");
    CHECK(r.labeller == "person");
    CHECK(r.time.size() == 20);
    CHECK(r.seconds >= 0.001);  // in milliseconds, and never 0, which would be unknown
    CHECK(r.seconds < 60.0);
    CHECK(std::abs(r.seconds * 1000.0 - std::round(r.seconds * 1000.0)) < 1e-6);
    CHECK(r.finished == std::vector<bool>{true, false, true});
  }
  const auto rank_shown = [&](std::size_t i, std::size_t place) {
    return saved[i].rank[static_cast<std::size_t>(saved[i].shown[place])];
  };
  CHECK(rank_shown(0, 2) == 0);
  CHECK(rank_shown(0, 0) == 1);
  CHECK(rank_shown(0, 1) == 1);
  CHECK(rank_shown(2, 1) == 0);
  CHECK(rank_shown(2, 0) == 1);
  CHECK(rank_shown(2, 2) == -1);
  // On the screen, [1] is followed by the response that `shown` names first.
  const auto first = static_cast<std::size_t>(saved[0].shown[0]);
  CHECK(contains(screen, "[1]\n    " + saved[0].responses[first]));
}

TEST_CASE("rank: the order is random, repeatable, and another for another person or seed") {
  Desk desk(30, 4);
  const std::string typed = [] {
    std::string lines;
    for (int i = 0; i < 30; ++i) lines += "1 2 3 4\n";
    return lines;
  }();
  const auto orders = [&](const char* name, std::uint64_t seed, const char* file) {
    desk.options.annotator = name;
    desk.options.asking.plan.seed = seed;
    desk.options.output = desk.directory / file;
    desk.sit(typed);
    std::vector<std::vector<int>> out;
    for (const Ranking& r : desk.saved()) out.push_back(r.shown);
    REQUIRE(out.size() == 30);
    return out;
  };
  const auto ana = orders("ana", 1, "a");
  CHECK(ana == orders("ana", 1, "a2"));
  CHECK(ana != orders("ana", 2, "a3"));
  CHECK(ana != orders("bob", 1, "b"));
  for (int response = 0; response < 4; ++response)  // each is first at times: (3/4)^30 < 0.02 %
    CHECK(std::any_of(ana.begin(), ana.end(), [&](const auto& o) { return o[0] == response; }));
}

TEST_CASE("rank: mistakes are told and asked again, and nothing is saved") {
  const Desk desk;
  const std::string screen = desk.sit("x\n1 1\n4 1\n1 =\n\n2\nu\n?\n");
  CHECK(contains(screen, "Not saved: 'x' is not a number"));
  CHECK(contains(screen, "response 1 is named twice"));
  CHECK(contains(screen, "there is no response 4"));
  CHECK(contains(screen, "one response alone is compared with nothing"));
  CHECK(contains(screen, "Nothing to undo"));
  CHECK(contains(screen, "3 is best, then 1"));
  CHECK(!contains(screen, ".hpp:"));
  CHECK(desk.saved().empty());
}

TEST_CASE("rank: only Enter makes an answer") {
  const Desk desk;
  desk.sit("1 2 3\n3 2 1");
  CHECK(desk.saved().size() == 1);
}

TEST_CASE("rank: undo withdraws the answer from the file and asks again") {
  const Desk desk;
  // answer p0, answer p1, undo p1, undo p0, answer p0 otherwise, skip p1, undo the skip, answer p1
  const std::string screen = desk.sit("1 2 3\n1 2 3\nu\nu\n3 2 1\ns\nu\n2 1 3\nq\n");
  CHECK(contains(screen, "Withdrawn: 1 > 2 > 3"));
  const auto saved = desk.saved();
  REQUIRE(saved.size() == 2);
  CHECK(saved[0].id == "p0");
  CHECK(saved[0].rank[static_cast<std::size_t>(saved[0].shown[2])] == 0);
  CHECK(saved[1].id == "p1");
  CHECK(saved[1].rank[static_cast<std::size_t>(saved[1].shown[1])] == 0);
}

TEST_CASE("rank: each answer is on disk before the next question") {
  // The reader of the questions looks at the file when a question is complete.
  class Watcher : public std::stringbuf {
   public:
    explicit Watcher(std::string path) : path_(std::move(path)) {}
    std::vector<std::size_t> lines;

   protected:
    int sync() override {  // the prompt is flushed
      const std::string text = read_file(path_);
      lines.push_back(static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')));
      return 0;
    }

   private:
    std::string path_;
  };
  const Desk desk;
  Watcher watcher(desk.options.output);
  std::ostream out(&watcher);
  std::istringstream in("1 2 3\n1 2 3\nu\n1 2 3\n");
  rank_on(desk.options, {in, out});
  CHECK(watcher.lines == std::vector<std::size_t>{0, 1, 2, 1, 2});
}

TEST_CASE("rank: a later sitting goes on, also after a torn line; others are not disturbed") {
  Desk desk;
  desk.sit("1 2 3\ns\n3 2 1\nq\n");
  {
    std::FILE* file = std::fopen(desk.options.output.c_str(), "a");
    std::fputs("{\"id\":\"p1\",\"pro", file);
    std::fclose(file);
  }
  const std::string screen = desk.sit("1=2=3\n");
  CHECK(contains(screen, "cut short by a crash"));
  CHECK(contains(screen, "2 of 4 done, 2 to go"));
  CHECK(contains(screen, "Prompt 1"));
  CHECK(!contains(screen, "Prompt 0"));
  REQUIRE(desk.saved().size() == 3);
  CHECK(desk.saved()[2].id == "p1");
  desk.options.annotator = "bob";
  CHECK(contains(desk.sit("q\n"), "0 of 4 done, 4 to go"));
  desk.options.annotator = "ana";
  CHECK(contains(desk.sit("1 2 3\n"), "4 of 4 ranked by ana"));
  CHECK(contains(desk.sit(""), "4 of 4 done, 0 to go"));
}

TEST_CASE("rank: the rule signs every record and asks nothing") {
  Desk desk;
  desk.options.labeller = "rule:warm";
  desk.options.annotator = "";
  const std::string screen = desk.sit("");
  CHECK(contains(screen, "made by this rule, not by people"));
  CHECK(contains(screen, warm_text()));
  const auto saved = desk.saved();
  REQUIRE(saved.size() == 4);
  for (const Ranking& r : saved) {
    CHECK(r.labeller == "rule:warm");
    CHECK(r.annotator == "rule:warm");
    CHECK(r.shown.empty());
    CHECK(r.rank == rule_of("rule:warm").ranks(r.prompt, r.responses, r.finished));
  }
  CHECK(contains(desk.sit(""), "0 ranked by the rule `warm`, 4 were already"));
  CHECK(desk.saved().size() == 4);
}

TEST_CASE("rank: the rule appends, and leaves other people's lines as they are") {
  Desk desk;
  desk.sit("1 2 3\n2 1\nq\n");
  // A line in another hand: other keys, other spaces, an old ranking of the same id.
  const std::string theirs =
      "{ \"id\":\"p0\", \"note\" : \"kept\",\"prompt\":\"Prompt 0\",\"responses\":[\"response A to "
      "0\",\"response B to 0\",\"response C to "
      "0\"],\"ranking\":[[2],[0,1]],\"annotator\":\"bob\"}\n";
  write_plainly(desk.options.output, theirs + read_file(desk.options.output));
  const std::string before = read_file(desk.options.output);
  struct stat was = {}, is = {};
  REQUIRE(::stat(desk.options.output.c_str(), &was) == 0);
  desk.options.labeller = "rule:warm";
  desk.sit("");
  REQUIRE(::stat(desk.options.output.c_str(), &is) == 0);
  const std::string after = read_file(desk.options.output);
  CHECK(was.st_ino == is.st_ino);  // the file itself, not a copy in its place
  CHECK(after.substr(0, before.size()) == before);
  CHECK(desk.saved().size() == 7);
  // While someone else's sitting has the file, the rule waits for nobody and writes nothing.
  desk.options.output = desk.directory / "held.jsonl";
  const JsonlAppender held(desk.options.output);
  CHECK_THROWS_AS(desk.sit(""), IoError);
  CHECK(read_file(desk.options.output).empty());
}

TEST_CASE("rank: a session is all of a sitting, without a terminal") {
  const Desk desk;
  const auto open = [&](const char* name = "ana") {
    return RankingSession(load_candidates(desk.options.candidates), desk.options.output, name, 0);
  };
  {
    RankingSession session = open();
    CHECK(session.total() == 4);
    CHECK(session.done() == 0);
    std::optional<Question> q = session.question();
    REQUIRE(q);
    CHECK(q->id == "p0");
    CHECK(q->number == 1);
    CHECK(q->prompt == "Prompt 0");
    const auto candidates = load_candidates(desk.options.candidates);
    for (std::size_t i = 0; i < 3; ++i) {
      CHECK(q->responses[i] == candidates[0].responses[static_cast<std::size_t>(q->shown[i])]);
      CHECK(q->finished[i] == candidates[0].finished[static_cast<std::size_t>(q->shown[i])]);
    }
    // What is no answer changes nothing, on disk or in the sitting.
    CHECK_THROWS_AS(session.answer("1 9"), DataError);
    CHECK_THROWS_AS(session.answer("1"), DataError);
    CHECK_THROWS_AS(session.answer(Answer{{0, 1}}), DataError);
    CHECK_THROWS_AS(session.answer(Answer{{0, -1, -1}}), DataError);
    CHECK(session.question()->id == "p0");
    CHECK(desk.saved().empty());

    session.answer(Answer{{1, 0, -1}});  // by place
    REQUIRE(desk.saved().size() == 1);
    CHECK(desk.saved()[0].rank[static_cast<std::size_t>(q->shown[1])] == 0);
    CHECK(desk.saved()[0].rank[static_cast<std::size_t>(q->shown[2])] == -1);
    CHECK(session.answer("3 1=2").rank == std::vector<int>{1, 1, 0});
    session.skip();
    CHECK(session.question()->id == "p3");
    CHECK(session.done() == 2);
    CHECK(session.undo() == RankingSession::Undone::Skip);
    CHECK(session.question()->id == "p2");
    CHECK(session.undo() == RankingSession::Undone::Answer);
    CHECK(session.question()->id == "p1");
    CHECK(session.done() == 1);
    CHECK(desk.saved().size() == 1);
    CHECK(session.undo() == RankingSession::Undone::Answer);
    CHECK(session.undo() == RankingSession::Undone::Nothing);
    CHECK(desk.saved().empty());
    CHECK(session.question()->shown == q->shown);  // asked again, it looks the same
    session.answer("1 2 3");
    CHECK_THROWS_AS(open("bob"), IoError);  // one sitting at a time
  }
  RankingSession later = open();
  CHECK(later.done() == 1);
  CHECK(later.question()->id == "p1");
  for (int i = 0; i < 3; ++i) later.answer("1 2 3");
  CHECK(!later.question());
  CHECK_THROWS_AS(later.answer("1 2 3"), ShapeError);
  CHECK_THROWS_AS(open("rule:warm"), DataError);
}

TEST_CASE("rank: what else is said of responses is in the record, and an undo gives it back") {
  const Desk desk(3, 4);
  const auto open = [&] {
    return RankingSession(load_candidates(desk.options.candidates), desk.options.output, "ana", 0);
  };
  {
    RankingSession session = open();
    const std::vector<int> shown = session.question()->shown;
    session.answer({{-1, 1, 3, -1}, {0}, "one is in another language", 0, 12.5});
    const Ranking r = desk.saved().at(0);
    CHECK(r.rank[static_cast<std::size_t>(shown[1])] == 0);  // ranks have no gaps
    CHECK(r.rank[static_cast<std::size_t>(shown[2])] == 1);
    CHECK(r.unusable == std::vector<int>{shown[0]});
    CHECK(r.comment == "one is in another language");
    CHECK(r.seconds == 12.5);
    CHECK(r.strength == 0);
    session.answer({{-1, -1, -1, -1}, {3, 2, 1, 0}});  // all are bad
    CHECK(desk.saved().at(1).unusable == std::vector<int>{0, 1, 2, 3});
    CHECK(desk.saved().at(1).rank == std::vector<int>{-1, -1, -1, -1});
    CHECK(session.seconds_each() == 12.5);
    // What does not fit changes nothing.
    for (const Answer& bad : std::vector<Answer>{{{0, 1, 2, 3}, {0}},
                                                 {{0, 1, 2, 4}},
                                                 {{0, 1, 2, -2}},
                                                 {{0, 1, 2, 3}, {4}},
                                                 {{0, 1, 2, 3}, {}, "\xFF"},
                                                 {{0, 1, 2, 3}, {}, std::string(5000, 'x')},
                                                 {{0, 1, 2, 3}, {}, "", 1},
                                                 {{0, 1, 2, 3}, {}, "", 0, -1.0}})
      CHECK_THROWS_AS(session.answer(bad), DataError);
    CHECK(desk.saved().size() == 2);
  }
  // A later sitting undoes what earlier ones said, one after another.
  RankingSession later = open();
  CHECK(later.can_undo());
  CHECK(later.undo() == RankingSession::Undone::Answer);
  CHECK(later.question()->id == "p1");
  CHECK(later.withdrawn()->unusable == std::vector<int>{0, 1, 2, 3});
  CHECK(later.undo() == RankingSession::Undone::Answer);
  CHECK(later.question()->id == "p0");
  CHECK(later.withdrawn()->rank == std::vector<int>{-1, 0, 1, -1});
  CHECK(later.withdrawn()->unusable == std::vector<int>{0});
  CHECK(later.withdrawn()->comment == "one is in another language");
  CHECK(later.undo() == RankingSession::Undone::Nothing);
  CHECK(desk.saved().empty());
  later.answer("1 2 3 4");
  CHECK_FALSE(later.withdrawn());
}

TEST_CASE("rank: the terminal says all that the page says") {
  Desk desk(2, 3);
  desk.options.finished_too = true;
  desk.sit("x 2\nc a remark\ni\n3 1\nb\n");
  auto saved = desk.saved();
  REQUIRE(saved.size() == 2);
  CHECK(saved[0].unusable == std::vector<int>{saved[0].shown[1]});
  CHECK(saved[0].comment == "a remark");
  CHECK(saved[0].seconds > 0.0);
  CHECK(saved[1].unusable == std::vector<int>{0, 1, 2});
  CHECK(saved[1].comment.empty());  // each answer has its own
  // Undo after the last answer is an earlier sitting's undo: the file has no question left.
  const std::string screen = desk.sit("u\n");
  CHECK(contains(screen, "2 of 2 done"));
  CHECK(contains(screen, "Nothing is left to ask; u undoes the last answer"));
  CHECK(contains(screen, "Withdrawn:   (unusable: 1, 2, 3)"));
  CHECK(contains(screen, "Prompt 1"));
  CHECK(desk.saved().size() == 1);

  const Desk pairs(1, 2);
  CHECK(contains(pairs.sit("2 1 ++++\n1=2 +\n2 1 ++\nq\n"), "Saved: 2 > 1 ++"));
  saved = pairs.saved();
  REQUIRE(saved.size() == 1);
  CHECK(saved[0].strength == 2);
}

TEST_CASE("rank: responses two at a time, each pair once and under its own id") {
  Desk desk(2, 3);
  auto candidates = load_candidates(desk.options.candidates);
  candidates[0].tokens = {{1}, {2, 3}, {4}};
  const std::vector<Candidates> pairs = pairs_of_responses(candidates);
  REQUIRE(pairs.size() == 6);
  CHECK(pairs[0].id == "p0/0-1");
  CHECK(pairs[1].id == "p1/0-1");  // one of each prompt, then the next
  CHECK(pairs[4].id == "p0/1-2");
  CHECK(pairs[4].responses == std::vector<std::string>{"response B to 0", "response C to 0"});
  CHECK(pairs[4].finished == std::vector<bool>{false, true});
  CHECK(pairs[4].tokens == ResponseTokens{{2, 3}, {4}});
  desk.options.asking.pairs = true;
  CHECK(contains(desk.sit("2 1 +\nq\n"), "1 of 6 ranked by ana"));
  CHECK(desk.saved()[0].group == "Prompt 0");  // folds keep a prompt's pairs together
}

TEST_CASE(
    "rank: annotators at one desk share some questions, divide the others, and repeat a few") {
  const Desk desk(60, 3);
  const auto table =
      std::make_shared<RankingDesk>(load_candidates(desk.options.candidates), desk.options.output,
                                    RankingPlan{.seed = 3, .overlap = 0.3, .repeats = 0.2});
  RankingSession ana(table, "ana"), bob(table, "bob");
  CHECK_THROWS_AS(RankingSession(table, ""), DataError);
  std::map<std::string, std::vector<std::string>> asked;
  std::map<std::string, std::vector<std::vector<int>>> shown;
  for (int turn = 0; turn < 200; ++turn) {
    RankingSession& one = turn % 3 == 0 ? bob : ana;  // ana is quicker
    one.look_again();
    if (!one.question()) continue;
    const std::string who = one.annotator();
    // No question that goes to one is before both at once.
    if (ana.question() && bob.question() && ana.question()->id == bob.question()->id)
      CHECK(table->shared(table->place.at(ana.question()->id)));
    asked[who].push_back(one.question()->id);
    shown[who].push_back(one.question()->shown);
    one.answer("1 2 3");
  }
  CHECK_FALSE(ana.question());
  CHECK_FALSE(bob.question());
  CHECK(ana.left() == 0);
  std::size_t shared = 0, repeats = 0;
  for (std::size_t i = 0; i < 60; ++i) {
    const std::string id = str("p", i);
    const auto times = [&](const char* who) {
      return static_cast<std::size_t>(std::count(asked[who].begin(), asked[who].end(), id));
    };
    const std::size_t a = times("ana"), b = times("bob");
    shared += table->shared(i) ? 1 : 0;
    CHECK((a > 0 && b > 0) == table->shared(i));
    CHECK(a + b > 0);
    if (a > 0) CHECK(a == (table->repeated(i, "ana") ? 2 : 1));
    if (b > 0) CHECK(b == (table->repeated(i, "bob") ? 2 : 1));
    repeats += (a > 1 ? 1 : 0) + (b > 1 ? 1 : 0);
  }
  CHECK(shared > 9);  // of 60, at 0.3: 18 ± 3.5
  CHECK(shared < 29);
  CHECK(repeats > 3);
  for (const auto& [who, ids] : asked) {
    std::size_t close = 0;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const auto first = ids.begin() + static_cast<std::ptrdiff_t>(i);
      const auto again = std::find(first + 1, ids.end(), ids[i]);
      if (again < ids.end() - 12 && again - first <= 10) ++close;
    }
    CHECK(close == 0);  // it comes again when the first time is forgotten, but for the last ones
  }
  // Records say which are repeats; a repeat shows an order of its own.
  std::size_t marked = 0;
  for (const Ranking& r : desk.saved()) marked += static_cast<std::size_t>(r.repeat);
  CHECK(marked == repeats);
  CHECK(desk.saved().size() == asked["ana"].size() + asked["bob"].size());
}

TEST_CASE("rank: an undo takes the annotator's own answer from between those of others") {
  const Desk desk(3, 3);
  const auto table = std::make_shared<RankingDesk>(load_candidates(desk.options.candidates),
                                                   desk.options.output, RankingPlan{});
  RankingSession ana(table, "ana"), bob(table, "bob");
  ana.answer("1 2 3");
  bob.answer("3 2 1");
  bob.answer("3 2 1");
  const std::string before = read_file(desk.options.output);
  CHECK(ana.undo() == RankingSession::Undone::Answer);
  CHECK(read_file(desk.options.output) == before.substr(before.find('\n') + 1));
  CHECK(ana.question()->id == "p0");
  CHECK(ana.undo() == RankingSession::Undone::Nothing);
  ana.answer("2 1 3");
  CHECK(bob.undo() == RankingSession::Undone::Answer);
  CHECK(bob.question()->id == "p1");
  const auto saved = desk.saved();
  REQUIRE(saved.size() == 2);
  CHECK(saved[0].annotator == "bob");
  CHECK(saved[1].annotator == "ana");
}

TEST_CASE("rank: what was skipped is asked again on request") {
  const Desk desk(3, 3);
  RankingSession session(load_candidates(desk.options.candidates), desk.options.output, "ana", 0);
  session.skip();
  session.answer("1 2 3");
  session.skip();
  CHECK_FALSE(session.question());
  CHECK(session.skipped() == 2);
  CHECK(session.left() == 2);
  CHECK(session.total() == 3);
  session.ask_skipped();
  CHECK(session.question()->id == "p0");
  CHECK(session.skipped() == 0);
  CHECK(session.undo() == RankingSession::Undone::Answer);  // not the skip, which is no more
  CHECK(session.question()->id == "p1");
  // What is open can be turned to by its key, and counts as skipped no more.
  const std::string key = session.question()->key;
  session.skip();
  CHECK(session.question()->id == "p0");
  CHECK(session.turn_to(key));
  CHECK(session.question()->id == "p1");
  CHECK(session.skipped() == 0);
  session.answer("1 2 3");
  CHECK_FALSE(session.turn_to(key));
  CHECK_FALSE(session.turn_to(""));
}

TEST_CASE("rank: agreement as numbers") {
  Desk desk(3, 3);
  desk.sit("1 2 3\n1 2 3\n1 2 3\n");
  desk.options.annotator = "bob";
  std::istringstream in("1 2 3\n3 2 1\n");
  std::ostringstream out;
  const Json results = rank_on(desk.options, {in, out});
  CHECK(results.at("ranked") == 2);
  CHECK(results.at("candidates") == 3);
  CHECK(results.at("annotators") == 2);
  REQUIRE(results.at("agreement").size() == 1);
  const Json& pair = results.at("agreement")[0];
  CHECK(pair.at("annotators") == Json{"ana", "bob"});
  CHECK(pair.at("prompts") == 2);
  // Against the rankings themselves.
  double tau = 0, share = 0;
  for (std::size_t i = 0; i < 2; ++i) {
    tau += kendall_tau_b(desk.saved()[i].rank, desk.saved()[3 + i].rank) / 2;
    share += pairwise_agreement(desk.saved()[i].rank, desk.saved()[3 + i].rank) / 2;
  }
  CHECK(pair.at("kendall_tau_b") == doctest::Approx(tau));
  CHECK(pair.at("pairwise") == doctest::Approx(share));
  REQUIRE(results.at("position_bias").size() == 2);
  CHECK(results.at("position_bias")[0].at("annotator") == "ana");
  CHECK(results.at("position_bias")[0].at("shown_first_ranked_best") == 1.0);
  CHECK(results.at("position_bias")[1].at("shown_first_ranked_best") == 0.5);
  CHECK(results.at("position_bias")[1].at("without_bias") == doctest::Approx(1.0 / 3));
  desk.options.agreement = true;
  std::istringstream none;
  CHECK(rank_on(desk.options, {none, out}).at("agreement") == results.at("agreement"));
}

TEST_CASE("rank: what files and names say cannot command the terminal") {
  Desk desk;
  auto candidates = load_candidates(desk.options.candidates);
  candidates[0].prompt = "pro\x1b[2Jmpt \xE2\x80\xAE";
  candidates[0].responses[0] =
      "re\xC2\x9B"
      "2Jsponse";
  write_jsonl(desk.options.candidates, candidates);
  desk.options.annotator = "a\x1b]0;na";
  std::string screen = desk.sit("1 2 3\nq\n");
  desk.options.annotator = "b\xC2\x9B";
  desk.options.others = {desk.options.output};
  screen += desk.sit("1 2 3\nq\n");
  CHECK(contains(screen, "Agreement, a?]0;na and b?"));
  CHECK(screen == harmless(screen, Layout::Lines));
}

TEST_CASE("rank: agreement between annotators, in one file or several") {
  Desk desk(2, 3);
  const auto ranking = [](const char* id, const char* who, std::vector<int> rank,
                          std::vector<int> shown) {
    Ranking r;
    r.id = id;
    r.prompt = id;
    r.responses = {"a", "b", "c"};
    r.finished = {true, true, true};
    r.rank = std::move(rank);
    r.annotator = who;
    r.labeller = "person";
    r.shown = std::move(shown);
    return r;
  };
  Ranking other = ranking("y", "bob", {0, 1, 2}, {2, 1, 0});
  other.responses = {"a", "b", "d"};
  const std::vector<Ranking> ana = {ranking("x", "ana", {0, 1, 2}, {0, 1, 2}),
                                    ranking("y", "ana", {0, 1, 2}, {2, 1, 0}),
                                    ranking("z", "ana", {0, 0, 1}, {1, 0, 2})};
  const std::vector<Ranking> bob = {ranking("x", "bob", {0, 2, 1}, {1, 0, 2}), other,
                                    ranking("z", "bob", {0, 1, 2}, {2, 0, 1})};
  write_jsonl(desk.directory / "ana.jsonl", ana);
  write_jsonl(desk.directory / "bob.jsonl", bob);
  desk.options.agreement = true;
  desk.options.others = {desk.directory / "ana.jsonl", desk.directory / "bob.jsonl"};
  const std::string screen = desk.sit("");
  // x: one of three pairs is turned, tau 1/3, pairwise 2/3. z: tau-b 2/√(2·3), pairwise 2.5/3.
  CHECK(contains(screen,
                 "Agreement, ana and bob: Kendall tau-b 0.57, pairwise 75.0 %, over 2 prompts (1 "
                 "left out: other responses under the same id)"));
  // ana: x counts 1, y 0, z ½ (two share the top).
  CHECK(contains(screen, "Shown first and ranked best, ana: 50.0 % of 3"));
  CHECK(contains(screen, "without position bias 33.3 %"));
  CHECK(contains(screen, "Shown first and ranked best, bob: 0.0 % of 3"));
  desk.options.others = {desk.directory / "ana.jsonl"};
  CHECK(contains(desk.sit(""), "Agreement needs two annotators; the files have 1."));
}

TEST_CASE("rank: whose responses are, and how the question was chosen, go into the ranking") {
  const Desk desk(2, 2);
  std::vector<Candidates> candidates = read_candidates(desk.options.candidates).records;
  candidates[0].systems = {"new", "old"};
  candidates[0].probability = 0.125;
  write_jsonl(desk.options.candidates, candidates);
  CHECK(!contains(desk.sit("1 2\n2 1\n"), "new"));  // blind
  REQUIRE(desk.saved().size() == 2);
  CHECK(desk.saved()[0].systems == candidates[0].systems);
  CHECK(desk.saved()[0].probability == 0.125);
  CHECK(desk.saved()[1].systems.empty());
  CHECK(desk.saved()[1].probability == 0.0);
}

TEST_CASE("rank: the report says what answers lean on, who is right, and haste") {
  Desk desk(12, 2);
  std::vector<Candidates> candidates = read_candidates(desk.options.candidates).records;
  for (Candidates& c : candidates) c.responses = {"- a list\n- of two", "no list"};
  write_jsonl(desk.options.candidates, candidates);
  // Everybody prefers the list, but for cem, who now and then turns it round.
  for (const char* name : {"ana", "bob", "cem"}) {
    desk.options.annotator = name;
    RankingSession session(load_candidates(desk.options.candidates), desk.options.output, name, 0);
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      const bool turned = name[0] == 'c' && i % 4 == 0;
      const bool list_first = session.question()->shown[0] == 0;
      const std::vector<int> rank =
          list_first == turned ? std::vector<int>{1, 0} : std::vector{0, 1};
      session.answer({.rank = rank, .seconds = 0.001});
    }
  }
  desk.options.agreement = true;
  std::istringstream none;
  std::ostringstream out;
  const Json results = rank_on(desk.options, {none, out});
  const std::string said = out.str();
  CHECK(contains(said, "Krippendorff's alpha of all people: "));
  CHECK(contains(said, "(nominal, 12 pairs)"));
  CHECK(contains(said, "What the choices of ana lean on"));
  CHECK(contains(said, "\n  a list: "));
  CHECK(!contains(said, "a heading"));  // no response has one
  CHECK(contains(said, "100.0 % of 12 came faster than 72 a second"));
  CHECK(results.at("krippendorff_alpha").at("pairs") == 12);
  const Json& rates = results.at("right_by_dawid_skene");
  CHECK(rates.at("pairs") == 12);
  CHECK(rates.at("rate").at("ana") == doctest::Approx(13.0 / 15));  // 12 of 12, and the prior
  CHECK(rates.at("rate").at("cem") == doctest::Approx(10.0 / 15));
  REQUIRE(results.at("habits").size() == 3);
  CHECK(results.at("habits")[0].at("log_odds").at("list").at("log_odds") > 0.5);
  CHECK(results.at("habits")[0].at("log_odds").at("list").at("pairs") == 12);
  CHECK(results.at("habits")[0].at("time").at("hasty") == 1.0);
  CHECK(results.at("self_agreement").empty());
}

TEST_CASE("rank: files and names that do not fit are refused") {
  Desk desk;
  desk.options.labeller = "rule:cold";
  CHECK_THROWS_AS(desk.sit(""), DataError);
  desk.options.labeller = "person";
  desk.options.annotator = "";
  CHECK_THROWS_AS(desk.sit(""), DataError);
  desk.options.annotator = "rule:warm";
  CHECK_THROWS_AS(desk.sit(""), DataError);
  desk.options.annotator = "ana";
  desk.sit("1 2 3\n");
  const Desk elsewhere(4, 4);  // the same ids, other responses
  desk.options.candidates = elsewhere.options.candidates;
  const std::string message = message_of<DataError>([&] { desk.sit(""); });
  CHECK(contains(message, "ranks other responses under the id p0"));
  std::vector<Candidates> twice = read_candidates(elsewhere.options.candidates).records;
  twice.push_back(twice[0]);
  write_jsonl(desk.options.candidates = desk.directory / "twice.jsonl", twice);
  CHECK_THROWS_AS(desk.sit(""), DataError);
  const Desk single(1, 1);
  CHECK_THROWS_AS(single.sit(""), DataError);
}

TEST_CASE("wrap: width, indentation, and text that would command the terminal") {
  CHECK(wrap("one two three four five six", 20, "  ") == "  one two three four\n  five six\n");
  CHECK(wrap("a\n\nb", 20, " ") == " a\n\n b\n");
  CHECK(wrap("", 20, "  ") == "\n");
  CHECK(wrap("x\x1b[31m\x07y", 20, "") == "x?[31m?y\n");
  CHECK(wrap(std::string(30, 'x'), 20, "") ==
        std::string(20, 'x') + "\n" + std::string(10, 'x') + "\n");
  std::string accents;
  for (int i = 0; i < 20; ++i) accents += "\xC3\xA9";
  CHECK(wrap(accents, 20, "") == accents + "\n");
}
