// Judges: each kind against the same pairs, what it must not be moved by, and programs that
// misbehave.
#include "../app/command_judge.hpp"
#include "../app/judge.hpp"
#include "../app/rule.hpp"

#include "support.hpp"
#include "temporary.hpp"

#include <doctest/doctest.h>
#include <plumb/run/interrupt.hpp>

#include <signal.h>
#include <sys/stat.h>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

using namespace plumb;
using test::contains;

namespace {

// Responses named so that a judge can be told which to like.
struct Pairs {
  std::vector<Candidates> before, after;
  explicit Pairs(int prompts = 6, int responses = 2) {
    for (int i = 0; i < prompts; ++i) {
      Candidates b, a;
      b.prompt = a.prompt = str("Prompt ", i);
      for (int k = 0; k < responses; ++k) {
        b.responses.push_back(str("OLD ", i, ' ', k));
        a.responses.push_back(str("NEW ", i, ' ', k));
        b.finished.push_back(true);
        a.finished.push_back(true);
      }
      before.push_back(b);
      after.push_back(a);
    }
  }
};

JudgeTools scoring_with(ScoreCandidates score) {
  JudgeTools tools;
  tools.reward_model = [score](const std::string&) { return score; };
  return tools;
}

// A script that may be run by its path.
std::string script(const Temporary& directory, const std::string& name, const std::string& body) {
  const std::string path = directory / name;
  write_plainly(path, "#!/bin/sh\n" + body);
  ::chmod(path.c_str(), 0755);
  return path;
}

Verdict ask(const std::string& program, const Pairs& pairs = Pairs()) {
  return make_judge("command:" + program)->compare(pairs.before, pairs.after);
}

// Answers each line by which response comes first; awk, because it is everywhere.
constexpr const char* kLikesNew =
    "exec awk '{ print (index($0, \"NEW\") < index($0, \"OLD\")) ? 1 : 2 }'\n";

// A person who always prefers the response that says `liked`, as the screen shows it.
class Person : public std::streambuf {
 public:
  Person(const std::stringbuf& screen, std::string liked, int answers)
      : screen_(screen), liked_(std::move(liked)), left_(answers) {}

 protected:
  int_type underflow() override {
    if (left_-- == 0) return traits_type::eof();
    const std::string shown = screen_.str();
    const std::size_t question = shown.rfind("[1]\n");
    const std::size_t second = shown.find("[2]\n", question);
    line_ = shown.find(liked_, question) < second ? "1 2\n" : "2 1\n";
    setg(line_.data(), line_.data(), line_.data() + line_.size());
    return traits_type::to_int_type(line_[0]);
  }

 private:
  const std::stringbuf& screen_;
  std::string liked_, line_;
  int left_;
};

Verdict judged_by_person(const Pairs& pairs, const std::string& answers, int how_many,
                         std::string* shown = nullptr, const char* likes = "NEW") {
  std::stringbuf screen;
  Person person(screen, likes, how_many);
  std::istream in(&person);
  std::ostream out(&screen);
  JudgeTools tools;
  tools.answers = answers;
  tools.annotator = "ana";
  tools.screen = [&] { return Screen{in, out}; };
  const Verdict v = make_judge("person", tools)->compare(pairs.before, pairs.after);
  if (shown != nullptr) *shown = screen.str();
  return v;
}

}  // namespace

TEST_CASE("judge: a rule scores both sides") {
  Pairs pairs(2, 1);
  pairs.after[0].responses[0] =
      "They were happy and played together with the red ball for a long while. Then they all went "
      "home to eat cake with mom and dad and sleep.";
  pairs.after[1] = pairs.before[1];
  const Verdict v = make_judge("rule:warm")->compare(pairs.before, pairs.after);
  CHECK(v.judge == "rule:warm");
  CHECK(v.scored);
  REQUIRE(v.items.size() == 2);
  const Candidates& a = pairs.after[0];
  CHECK(v.items[0].after == warm_score(a.prompt, a.responses[0], true).total);
  CHECK(v.items[0].before == warm_score(a.prompt, pairs.before[0].responses[0], true).total);
  CHECK(v.wins() == 1);
  CHECK(v.ties() == 1);
  CHECK(v.rate() == 0.75);
  CHECK(v.mean_difference() == doctest::Approx((v.items[0].after - v.items[0].before) / 2));
  CHECK(v.json().at("win_rate") == 0.75);
  CHECK_THROWS_AS(make_judge("rule:cold"), DataError);
}

TEST_CASE("judge: a reward model's scores decide, and intervals are by prompt") {
  const Pairs pairs(10, 4);
  // After wins in all four responses to eight prompts, and in none to two.
  const auto score = [](const std::vector<Candidates>& candidates) {
    std::vector<double> scores;
    for (std::size_t i = 0; i < candidates.size(); ++i)
      for (const std::string& response : candidates[i].responses)
        scores.push_back((response.starts_with("NEW") ? 1.0 : 0.0) * (i < 8 ? 1.0 : -1.0));
    return scores;
  };
  std::string opened;
  JudgeTools tools;
  tools.reward_model = [&](const std::string& path) {
    opened = path;
    return ScoreCandidates(score);
  };
  const Verdict v =
      make_judge("some/reward.safetensors", tools)->compare(pairs.before, pairs.after);
  CHECK(opened == "some/reward.safetensors");
  CHECK(v.n() == 40);
  CHECK(v.rate() == 0.8);
  // All of a prompt's pairs go one way: ten outcomes, not forty.
  CHECK(v.interval().low < wilson_interval(32, 40).low - 0.1);
  CHECK(v.difference_interval().low < v.mean_difference());
  const auto few = [](const std::vector<Candidates>&) { return std::vector<double>(3, 0.0); };
  CHECK_THROWS_AS(make_judge("m", scoring_with(few))->compare(pairs.before, pairs.after),
                  ShapeError);
  const auto nan = [](const std::vector<Candidates>&) {
    return std::vector<double>(40, std::nan(""));
  };
  CHECK_THROWS_AS(make_judge("m", scoring_with(nan))->compare(pairs.before, pairs.after),
                  NumericError);
  CHECK_THROWS_AS(make_judge("m"), DataError);  // nobody opens reward models here
  CHECK_THROWS_AS(make_judge(""), DataError);
}

TEST_CASE("judge: before and after must belong together") {
  Pairs pairs;
  pairs.after.pop_back();
  CHECK_THROWS_AS(make_judge("rule:warm")->compare(pairs.before, pairs.after), ShapeError);
  pairs = Pairs();
  pairs.after[1].prompt = "another";
  CHECK_THROWS_AS(make_judge("rule:warm")->compare(pairs.before, pairs.after), ShapeError);
  pairs = Pairs();
  pairs.after[1].responses.pop_back();
  CHECK_THROWS_AS(make_judge("rule:warm")->compare(pairs.before, pairs.after), ShapeError);
}

TEST_CASE("judge: a person is asked blindly, and taken up again") {
  const Temporary directory;
  const std::string answers = directory / "answers.jsonl";
  Pairs pairs(12, 1);
  pairs.after[3].responses = pairs.before[3].responses;  // the same text: no question
  for (Candidates& c : pairs.before) c.model = "first model";
  for (Candidates& c : pairs.after) c.model = "second model";
  std::string shown;
  Verdict v = judged_by_person(pairs, answers, 4, &shown);
  CHECK(v.n() == 5);  // four answers, and the tie
  CHECK(v.wins() == 4);
  CHECK(v.ties() == 1);
  CHECK(v.unjudged == 7);
  CHECK(!v.scored);
  CHECK(std::isnan(v.mean_difference()));
  REQUIRE(read_rankings(answers).records.size() == 4);
  for (const Ranking& r : read_rankings(answers).records)  // kept for `plumb ratings`, unseen
    CHECK(r.systems == std::vector<std::string>{"first model", "second model"});
  CHECK(!contains(shown, "model"));
  CHECK(!contains(shown, "before"));
  CHECK(!contains(shown, "after"));
  CHECK(!contains(shown, "OLD 3"));

  // Eight in a row are 2^8 / 9 times as likely of a better model as of an equal one: decided.
  v = judged_by_person(pairs, answers, 100, &shown);
  CHECK(contains(shown, "4 of 11 answered. It ends as soon as it is decided."));
  CHECK(contains(shown,
                 "Decided: of 8 pairs of which you prefer one, 8 are for the second model. 3 "
                 "are not asked"));
  CHECK(v.n() == 9);
  CHECK(v.wins() == 8);
  CHECK(v.unjudged == 3);
  CHECK(v.stopped_early);
  CHECK(v.json().at("stopped_early") == true);
  // Right whenever one looks, so wider than the interval of a number that was fixed before.
  const Interval share = BlindTest{8, 1, 0}.interval();
  CHECK(v.interval().low == doctest::Approx((8 * share.low + 0.5) / 9));
  CHECK(v.interval().high == doctest::Approx(8.5 / 9));
  CHECK(v.interval().low < wilson_interval(8.5, 9).low);
  v = judged_by_person(pairs, answers, 100, &shown);  // the verdict is out
  CHECK(v.n() == 9);
  CHECK(!contains(shown, "[1]"));
  // Which side came first was drawn: each did at times (2 · 2^-8 of failing by chance, and fixed).
  int old_first = 0;
  for (const Ranking& r : read_rankings(answers).records) old_first += r.shown[0] == 0;
  CHECK(old_first > 0);
  CHECK(old_first < 8);
  CHECK_THROWS_AS(make_judge("person"), DataError);  // no file to keep answers in
}

TEST_CASE("judge: a person is asked all that does not decide, and all of dependent pairs") {
  const Temporary directory;
  std::string shown;
  // Several responses to a prompt depend on one another: no early end.
  Verdict v = judged_by_person(Pairs(6, 2), directory / "dependent.jsonl", 100, &shown);
  CHECK(v.wins() == 12);
  CHECK(v.unjudged == 0);
  CHECK(!v.stopped_early);
  CHECK(!contains(shown, "decided"));
  // Whoever prefers what stands second prefers neither model.
  v = judged_by_person(Pairs(40, 1), directory / "second.jsonl", 100, &shown, "neither");
  CHECK(v.n() == 40);
  CHECK(v.unjudged == 0);
  CHECK(!v.stopped_early);
  CHECK(!contains(shown, "Decided"));
  // Decided by the last question: nothing was left out.
  v = judged_by_person(Pairs(8, 1), directory / "last.jsonl", 100, &shown);
  CHECK(v.n() == 8);
  CHECK(!v.stopped_early);
  CHECK(v.interval().low == wilson_interval(8, 8).low);
}

TEST_CASE("judge: ratings call models by their names, where they have some") {
  Pairs pairs(2, 1);
  for (Candidates& c : pairs.before) c.model = "1f3a";
  for (Candidates& c : pairs.after) c.model = "77bc";
  pairs.after[0].name = "new-77bc";
  const auto judged = pairs_to_judge(pairs.before, pairs.after);
  CHECK(judged[0].systems == std::vector<std::string>{"1f3a", "new-77bc"});
  CHECK(judged[1].systems == std::vector<std::string>{"1f3a", "77bc"});
  pairs.before[0].name = "new-77bc";  // one model twice: nothing to rate
  CHECK(pairs_to_judge(pairs.before, pairs.after)[0].systems.empty());
}

TEST_CASE("judge: a program prefers or scores, whichever side is shown first") {
  const Temporary directory;
  Verdict v = ask(script(directory, "likes-new", kLikesNew));
  CHECK(v.rate() == 1.0);
  CHECK(v.n() == 12);
  CHECK(!v.scored);
  v = ask(script(directory, "scores",
                 "exec awk '{ print (index($0, \"NEW\") < index($0, \"OLD\")) ? "
                 "\"[2.5, -1]\" : \"[-1, 2.5]\" }'\n"));
  CHECK(v.rate() == 1.0);
  CHECK(v.scored);
  for (const Verdict::Item& item : v.items) {
    CHECK(item.after == 2.5);
    CHECK(item.before == -1.0);
  }
  CHECK(ask(script(directory, "ties", "exec awk '{ print 0 }'\n")).rate() == 0.5);
  // One that likes whatever comes first prefers neither model.
  const double first =
      ask(script(directory, "first", "exec awk '{ print 1 }'\n"), Pairs(200, 1)).rate();
  CHECK(first > 0.35);
  CHECK(first < 0.65);
  // Words are arguments, and no shell reads them.
  const std::string told = directory / "told";
  ask(script(directory, "arguments", "echo \"$1|$2\" > " + told + "\nexec awk '{ print 0 }'\n") +
      " a;b   $HOME");
  CHECK(read_file(told) == "a;b|$HOME\n");
  CHECK(ask("true", Pairs(0, 1)).n() == 0);
}

TEST_CASE("judge: a program sees the texts as JSON, and nothing of whose they are") {
  const Temporary directory;
  const std::string seen = directory / "seen";
  Pairs pairs(1, 1);
  pairs.before[0].responses[0] = "two\nlines \"quoted\"";
  ask(script(directory, "sees", "exec tee " + seen + " | awk '{ print 0 }'\n"), pairs);
  const Json json = Json::parse(read_file(seen));
  CHECK(json.size() == 2);
  CHECK(json.at("prompt") == "Prompt 0");
  CHECK(json.at("responses").size() == 2);
  CHECK(json.at("responses").dump().find("two\\nlines") != std::string::npos);
}

TEST_CASE("judge: much is written and read at once without a deadlock") {
  const Temporary directory;
  Pairs pairs(400, 1);
  for (Candidates& c : pairs.after) c.responses[0] += std::string(3000, 'x');  // 1.2 MB
  CHECK(ask(script(directory, "lines", kLikesNew), pairs).rate() == 1.0);
  CHECK(ask(script(directory, "all",
                   std::string("cat > ") + (directory / "kept") + "\nwc -l < " +
                       (directory / "kept") + " | awk '{ for (i = 0; i < $1; ++i) print 0 }'\n"),
            pairs)
            .ties() == 400);
}

TEST_CASE("judge: programs that misbehave are named") {
  const Temporary directory;
  const auto message = [&](const std::string& program, const Pairs& pairs = Pairs()) {
    return message_of<DataError>([&] { ask(program, pairs); });
  };
  CHECK(contains(message("/nonexistent/program"), "cannot be started"));
  CHECK(contains(message(""), "names no program"));
  CHECK(contains(message(script(directory, "fails", "cat > /dev/null\nexit 3\n")), "ended with 3"));
  CHECK(contains(message(script(directory, "dies", "kill -9 $$\n")), "ended by signal 9"));
  CHECK(contains(message(script(directory, "few", "exec awk 'NR < 6 { print 1 }'\n")),
                 "5 answers to 12 questions"));
  CHECK(contains(message(script(directory, "many", "exec awk '{ print 1; print 1 }'\n")),
                 "24 answers to 12 questions"));
  CHECK(contains(message(script(directory, "words", "exec awk '{ print \"first\" }'\n")),
                 "line 1 of"));
  for (const char* answer : {"3", "-1", "1.5", "[1]", "[1,2,3]", "[1,null]", "[1e999,0]", "{}", ""})
    CHECK(contains(
        message(script(directory, "odd", std::string("exec awk '{ print \"") + answer + "\" }'\n")),
        "neither two scores nor 0, 1 or 2"));
  // It ends before it has read: an error, and no signal that ends this program.
  Pairs large(300, 1);
  for (Candidates& c : large.after) c.responses[0] += std::string(3000, 'x');
  CHECK(contains(message("true", large), "0 answers to 300 questions, and stopped reading"));
}

TEST_CASE("judge: Ctrl-C ends a program that hangs") {
  const Temporary directory;
  clear_interrupt();
  const InterruptGuard guard(BlockingReads::Return);
  // One hangs with its output open, one after closing it.
  for (const char* body : {"exec sleep 100\n", "exec >&-\nexec sleep 100\n"}) {
    clear_interrupt();
    std::thread key([] {
      ::usleep(300000);
      ::kill(::getpid(), SIGINT);
    });
    CHECK_THROWS_AS(ask(script(directory, "hangs", body)), Interrupted);
    key.join();
  }
  clear_interrupt();
}
