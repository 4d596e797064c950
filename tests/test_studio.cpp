// What the page of `plumb studio` asks for, without HTTP: tests/scripts/studio.py has that.
#include "../app/studio.hpp"
#include "../app/watch.hpp"

#include "support.hpp"
#include "temporary.hpp"

#include <plumb/core/random.hpp>

#include <doctest/doctest.h>

#include <sys/resource.h>
#include <atomic>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

using namespace plumb;
using test::contains;

namespace {

struct Office {
  Temporary directory;
  std::string output = directory / "rankings.jsonl";
  std::unique_ptr<DeskStudio> studio;

  explicit Office(int prompts = 3, int k = 3, RankingPlan plan = {}) : plan_(plan) {
    for (int i = 0; i < prompts; ++i) {
      Candidates c{.id = str("secret-", i),
                   .prompt = str("Prompt ", i),
                   .responses = {},
                   .finished = {},
                   .model = "model-b",
                   .sampling = ""};
      for (int j = 0; j < k; ++j) {
        c.responses.push_back(str("response ", static_cast<char>('A' + j), " to ", i));
        c.finished.push_back(j != 1);
      }
      candidates_.push_back(c);
    }
    open();
  }
  void open() {
    studio.reset();
    desk_.reset();
    desk_ = std::make_shared<RankingDesk>(candidates_, output, plan_);
    studio = std::make_unique<DeskStudio>(desk_, "Be fair.");
  }
  Json ask(const std::string& action, const Json& body, int status = 200) const {
    const StudioReply reply = studio->handle(action, json_text(body));
    CHECK(reply.status == status);
    return parse_json(reply.json);
  }
  Json answer(const Json& at, const Json& rank, int status = 200) const {
    return ask("answer",
               {{"name", at.at("annotator")},
                {"key", at.at("question").at("key")},
                {"rank", rank},
                {"seconds", 2.0}},
               status);
  }
  std::vector<Ranking> saved() const { return read_rankings(output).records; }

 private:
  std::vector<Candidates> candidates_;
  RankingPlan plan_;
  std::shared_ptr<RankingDesk> desk_;
};

const std::string kNobody;

}  // namespace

TEST_CASE("studio: a sitting from the first question to the last") {
  const Office office(3, 3);
  Json at = office.ask("sit", {{"name", "ana"}});
  CHECK(at.at("done") == 0);
  CHECK(at.at("left") == 3);
  CHECK(at.at("instructions") == "Be fair.");
  CHECK(at.at("can_undo") == false);
  const Json& question = at.at("question");
  CHECK(question.at("prompt") == "Prompt 0");
  CHECK(question.at("responses").size() == 3);
  // Nothing of what is sent says whose a response is, or which question it is.
  const std::string text = json_text(at);
  CHECK(!contains(text, "secret"));
  CHECK(!contains(text, "model-b"));
  CHECK(!contains(text, "shown"));

  const std::string key = question.at("key");
  at = office.ask("answer", {{"name", "ana"},
                             {"key", key},
                             {"rank", {1, 0, -1}},
                             {"unusable", {2}},
                             {"comment", "cut"},
                             {"once", "7c0f"},
                             {"seconds", 9.5}});
  CHECK(at.at("last") == "7c0f");
  CHECK(at.at("done") == 1);
  CHECK(at.at("seconds_each") == 9.5);
  CHECK(at.at("seconds_left") == 19.0);
  REQUIRE(office.saved().size() == 1);  // on disk before the reply
  const Ranking r = office.saved()[0];
  CHECK(r.rank[static_cast<std::size_t>(r.shown[1])] == 0);
  CHECK(r.unusable == std::vector<int>{r.shown[2]});
  CHECK(r.comment == "cut");
  CHECK(r.labeller == "person");

  // The same again, as a page sends it whose connection broke, is not saved twice.
  const Json again =
      office.ask("answer", {{"name", "ana"}, {"key", key}, {"rank", {0, 1, 2}}}, 409);
  CHECK(again.at("last") == "7c0f");  // by which the page knows that it was saved
  CHECK(again.at("question") == at.at("question"));
  CHECK(office.saved().size() == 1);
  CHECK(office.ask("undo", {{"name", "ana"}, {"key", key}}, 409).at("done") == 1);

  at = office.ask("skip", {{"name", "ana"}, {"key", at.at("question").at("key")}});
  CHECK(at.at("skipped") == 1);
  at = office.answer(at, {0, 0, 1});
  CHECK(at.at("question").is_null());
  CHECK(at.at("left") == 1);
  at = office.ask("skipped", {{"name", "ana"}});
  CHECK(at.at("question").at("prompt") == "Prompt 1");
  at = office.answer(at, {2, 1, 0});
  CHECK(at.at("question").is_null());
  CHECK(at.at("left") == 0);

  // After the last answer there is still an undo, which gives the answer back to be changed.
  at = office.ask("undo", {{"name", "ana"}, {"key", kNobody}});
  CHECK(at.at("question").at("prompt") == "Prompt 1");
  CHECK(at.at("withdrawn").at("rank") == Json{2, 1, 0});
  CHECK(office.saved().size() == 2);
  CHECK(office.ask("undo", {{"name", "ana"}, {"key", kNobody}}, 409).at("done") == 2);
}

TEST_CASE("studio: a page that comes back, after either side ended, is where it was") {
  Office office(3, 3);
  Json at = office.answer(office.ask("sit", {{"name", "ana"}}), {0, 1, 2});
  CHECK(office.ask("sit", {{"name", "ana"}}).at("question") == at.at("question"));  // reloaded
  office.open();  // the program ended, and was started again
  CHECK(office.ask("sit", {{"name", "ana"}}).at("question") == at.at("question"));
  // A page that was left open goes on as if nothing had been.
  office.open();
  at = office.answer(at, {2, 1, 0});
  CHECK(at.at("done") == 2);
  office.open();
  at = office.ask("undo", {{"name", "ana"}, {"key", at.at("question").at("key")}});
  CHECK(at.at("withdrawn").at("rank") == Json{2, 1, 0});
  CHECK(office.saved().size() == 1);
}

TEST_CASE("studio: what does not fit is refused in words, and nothing is saved") {
  const Office office(1, 3);
  const Json at = office.ask("sit", {{"name", "ana"}});
  const std::string key = at.at("question").at("key");
  const auto refused = [&](const std::string& action, const std::string& body, int status,
                           const char* says) {
    const StudioReply reply = office.studio->handle(action, body);
    CHECK(reply.status == status);
    const std::string error = parse_json(reply.json).at("error");
    CHECK(contains(error, says));
    CHECK(!contains(error, ".cpp:"));
  };
  refused("sit", "", 400, "");
  refused("sit", "[]", 400, "JSON object");
  refused("sit", "{\"name\":\"\\ud800\"}", 400, "");
  refused("sit", "{\"name\":7}", 400, "expected text as \"name\"");
  refused("sit", "{}", 400, "not a person's name");
  refused("sit", "{\"name\":\"rule:warm\"}", 400, "not a person's name");
  refused("sit", json_text({{"name", std::string(200, 'n')}}), 400, "not a person's name");
  refused("nothing", "{\"name\":\"ana\"}", 404, "no such action");
  const auto answer = [&](const Json& more, const char* says) {
    Json body = {{"name", "ana"}, {"key", key}, {"rank", {0, 1, 2}}};
    body.update(more);
    refused("answer", json_text(body), 400, says);
  };
  answer({{"rank", {0, 1}}}, "2 ranks came for 3");
  answer({{"rank", {0, -1, -1}}}, "one response alone");
  answer({{"rank", {0, 1, 3}}}, "a rank is -1 or from 0 to 2");
  answer({{"rank", {0, 1, 1e99}}}, "whole numbers");
  answer({{"rank", {{"0", 1}}}}, "whole numbers");
  answer({{"rank", "012"}}, "whole numbers");
  answer({{"unusable", {5}}}, "there is no response 6");
  answer({{"unusable", {0}}}, "marked as unusable, and ranked");
  answer({{"strength", 2}}, "how much better");
  answer({{"strength", -1}}, "from 0 to 3");
  answer({{"seconds", -1}}, "from 0 to 86400");
  answer({{"seconds", "9"}}, "from 0 to 86400");
  answer({{"comment", {1}}}, "expected text");
  answer({{"comment", std::string(5000, 'c')}}, "at most 4000 bytes");
  CHECK(office.saved().empty());
  CHECK(office.answer(at, {0, 1, 2}).at("done") == 1);
}

TEST_CASE("studio: a full disk is told, and the same answer is saved once there is room") {
  const Office office(2, 3);
  Json at = office.answer(office.ask("sit", {{"name", "ana"}}), {0, 1, 2});
  const std::string before = read_file(office.output);
  const std::string key = at.at("question").at("key");
  struct rlimit limit = {};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &limit) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit full = {before.size() + 10, limit.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &full) == 0);
  const StudioReply reply = office.studio->handle(
      "answer", json_text({{"name", "ana"}, {"key", key}, {"rank", {0, 1, 2}}}));
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
  std::signal(SIGXFSZ, handler);
  CHECK(reply.status == 507);
  CHECK(parse_json(reply.json).at("kind") == "unsaved");
  CHECK(read_file(office.output) == before);
  at = office.ask("sit", {{"name", "ana"}});
  CHECK(at.at("question").at("key") == key);
  CHECK(office.answer(at, {0, 1, 2}).at("done") == 2);
  CHECK(office.saved().size() == 2);
}

TEST_CASE("studio: two annotators at once, every answer once, and none lost") {
  const int prompts = 60;
  const Office office(prompts, 3, {.seed = 5, .overlap = 0.25, .repeats = 0.1});
  std::atomic<int> acknowledged{0};
  const auto work = [&](const char* name) {
    Json at = parse_json(office.studio->handle("sit", json_text({{"name", name}})).json);
    for (int turn = 0; turn < 3 * prompts && !at.at("question").is_null(); ++turn) {
      const Json body = {
          {"name", name}, {"key", at.at("question").at("key")}, {"rank", {turn % 3, 1, 2}}};
      if (turn % 7 == 3) {
        office.studio->handle("undo", json_text({{"name", name}, {"key", body.at("key")}}));
        --acknowledged;
        at = parse_json(office.studio->handle("sit", json_text({{"name", name}})).json);
        continue;
      }
      const StudioReply reply = office.studio->handle("answer", json_text(body));
      if (reply.status == 200) ++acknowledged;
      at = parse_json(reply.json);
    }
  };
  std::thread ana(work, "ana"), bob(work, "bob");
  ana.join();
  bob.join();
  std::map<std::string, std::set<std::string>> who;
  std::set<std::string> made;
  for (const Ranking& r : office.saved()) {
    CHECK(made.insert(str(r.annotator, "/", r.id, "/", r.repeat)).second);
    who[r.id].insert(r.annotator);
  }
  CHECK(static_cast<int>(made.size()) == acknowledged);
  CHECK(who.size() == static_cast<std::size_t>(prompts));
  std::size_t both = 0;
  for (const auto& [id, names] : who) both += names.size() == 2 ? 1 : 0;
  CHECK(both > 4);  // of 60, at 0.25: 15 ± 3.4
  CHECK(both < 26);
}

TEST_CASE("studio: of two models nothing is told until it is decided") {
  const Temporary directory;
  std::vector<Candidates> before, after;
  for (int i = 0; i < 40; ++i) {
    Candidates c{.id = str("q", i),
                 .prompt = str("Prompt ", i),
                 .responses = {str("old ", i), "another"},
                 .finished = {true, true},
                 .model = "old",
                 .sampling = ""};
    before.push_back(c);
    c.responses = {i < 2 ? str("old ", i) : str("new ", i), "another"};
    after.push_back(c);
  }
  Contest contest{directory / "before.jsonl", directory / "after.jsonl"};
  write_jsonl(contest.before, before);
  write_jsonl(contest.after, after);
  const auto table = contest_desk(contest, directory / "answers.jsonl", {});
  CHECK(contest.alike == 2);
  REQUIRE(table->candidates.size() == 38);  // the first response to each prompt
  DeskStudio studio(table, "", contest);
  const auto ask = [&](const std::string& action, const Json& body) {
    return parse_json(studio.handle(action, json_text(body)).json);
  };
  Json at = ask("sit", {{"name", "ana"}});
  int answers = 0;
  std::set<std::size_t> places;
  while (!at.at("question").is_null() && answers < 38) {
    CHECK(!at.contains("verdict"));
    CHECK(!contains(json_text(at), "after.jsonl"));
    const Json& responses = at.at("question").at("responses");
    const std::size_t better =
        contains(responses[0].at("text").get<std::string>(), "new") ? std::size_t{0} : 1;
    places.insert(better);
    std::vector<int> rank(2, 1);
    rank[better] = 0;
    if (answers == 3) rank = {0, 0};
    at = ask(
        "answer",
        {{"name", "ana"}, {"key", at.at("question").at("key")}, {"rank", rank}, {"strength", 0}});
    ++answers;
  }
  CHECK(places.size() == 2);  // in an order that tells nothing
  CHECK(answers == 9);        // 2^8 / 9 > 20 > 2^7 / 8, and a tie
  CHECK(at.at("verdict").at("wins") == 8.0);
  CHECK(at.at("verdict").at("ties") == 3.0);
  CHECK(at.at("verdict").at("decided") == true);
  CHECK(at.at("verdict").at("low") > 0.5);
  CHECK(at.at("can_undo") == false);
  CHECK(studio.handle("undo", json_text({{"name", "ana"}, {"key", ""}})).status == 400);
  CHECK(ask("sit", {{"name", "bob"}}).at("question").is_object());  // another judge is blind still
  after.pop_back();
  write_jsonl(contest.after, after);
  CHECK_THROWS_AS(contest_desk(contest, directory / "more.jsonl", {}), DataError);
}

TEST_CASE("blind test: looked at after every pair, it errs in at most one of twenty") {
  const auto decided_wrongly = [](double p, int looks, std::uint64_t seed) {
    BlindTest test;
    Rng rng(seed, Stage::Order, 0, 0);
    for (int i = 0; i < looks; ++i) {
      const double u = static_cast<double>(rng.below(1U << 30U)) / (1U << 30U);
      (u < 0.1 ? test.ties : u < 0.1 + 0.9 * p ? test.wins : test.losses) += 1.0;
      if (test.decided()) return i + 1;
    }
    return 0;
  };
  int wrong = 0, found = 0, looks = 0;
  for (std::uint64_t run = 0; run < 1000; ++run)
    wrong += decided_wrongly(0.5, 200, run) > 0 ? 1 : 0;
  for (std::uint64_t run = 0; run < 200; ++run) {
    const int at = decided_wrongly(0.75, 200, 10000 + run);
    found += at > 0 ? 1 : 0;
    looks += at;
  }
  MESSAGE("of 1000 without a difference ", wrong, " were decided; of 200 at 75 % ", found,
          ", after ", looks / 200.0, " pairs in the mean");
  CHECK(wrong <= 50);  // Ville: at most 5 %
  CHECK(wrong >= 8);   // and it does decide
  CHECK(found >= 190);
  CHECK(looks / found < 60);
}

TEST_CASE("blind test: its evidence is the beta integral, and its interval is where it ends") {
  const BlindTest test{.wins = 6, .ties = 5, .losses = 2};
  // 2^8 · 6! 2! / 9! = 256 · 1440 / 362880
  CHECK(test.log_evidence() == doctest::Approx(std::log(256.0 * 1440.0 / 362880.0)));
  CHECK(test.rate() == doctest::Approx(8.5 / 13.0));
  CHECK_FALSE(test.decided());
  const Interval interval = test.interval();
  CHECK(interval.low < 0.5);
  CHECK(interval.high < 1.0);
  CHECK(test.log_evidence(interval.low) == doctest::Approx(std::log(20.0)));
  CHECK(test.log_evidence(interval.high) == doctest::Approx(std::log(20.0)));
  CHECK(BlindTest{.ties = 3}.interval().low == 0.0);
  CHECK(BlindTest{.ties = 3}.interval().high == 1.0);
  CHECK(BlindTest{.wins = 8}.interval().high == 1.0);
  CHECK(BlindTest{.wins = 8}.decided());
  CHECK_FALSE(BlindTest{.wins = 7}.decided());  // 2^7 / 8 = 16
}

TEST_CASE("studio: of runs that are watched, what is new") {
  const Temporary directory;
  const std::string run = directory / "run", other = directory / "other";
  std::filesystem::create_directory(run);
  const std::string begin = "step,a,b\n0,1.5,\n1,2.5,nan\n";
  write_plainly(run + "/metrics.csv", begin);
  const WatchStudio watch({run, other});
  CHECK(parse_json(watch.handle("open", "{}").json).at("mode") == "watch");
  CHECK(watch.handle("answer", "{}").status == 404);
  const StudioEvent first = watch.after("");
  CHECK(first.id == "2,0");
  const Json runs = parse_json(first.data).at("runs");
  CHECK(runs[0].at("rows").size() == 2);
  CHECK(runs[0].at("rows")[0] == Json{{"step", 0}, {"values", {{"a", 1.5}}}});
  CHECK(runs[1].at("rows").empty());
  CHECK(watch.after("2,0").data.empty());
  // A row that another program is about to write is none yet.
  write_plainly(run + "/metrics.csv", begin + "2,3.5");
  CHECK(watch.after("2,0").data.empty());
  write_plainly(run + "/metrics.csv", begin + "2,3.5,4\n");
  const StudioEvent next = watch.after("2,0");
  CHECK(next.id == "3,0");
  CHECK(parse_json(next.data).at("runs")[0].at("from") == 2);
  CHECK(parse_json(next.data).at("runs")[0].at("rows").size() == 1);
  // A run that went back to a checkpoint comes anew; so does it for an id that is none.
  write_plainly(run + "/metrics.csv", begin);
  CHECK(parse_json(watch.after("3,0").data).at("runs")[0].at("from") == 0);
  for (const char* id : {"x", "99999999999999999999999,1", ",,,", "-1,0", "2"})
    CHECK(watch.after(id).id == "2,0");
  write_plainly(run + "/metrics.csv", "no metrics\nat all\n");
  const Json bad = parse_json(watch.after("").data).at("runs")[0];
  CHECK(contains(bad.at("error").get<std::string>(), "metrics.csv"));
}

TEST_CASE("studio: times of rows, and the episodes of a step") {
  const Temporary directory;
  const std::string run = directory / "run";
  std::filesystem::create_directory(run);
  write_plainly(run + "/metrics.csv", "step,response/length\n0,20\n1,20\n2,90\n3,90\n");
  // One row lacks a time, one time a row.
  write_plainly(run + "/timing.jsonl",
                "{\"step\":0,\"time/x\":1.5}\n{\"step\":2,\"time/x\":null}\n"
                "{\"step\":3,\"time/x\":4}\n{\"step\":4,\"time/x\":5}\n");
  const WatchStudio watch({run});
  const auto rows = [&](const char* id) {
    return parse_json(watch.after(id).data).at("runs")[0].at("rows");
  };
  CHECK(rows("").size() == 4);
  CHECK(rows("")[0].at("values").at("time/x") == 1.5);
  CHECK_FALSE(rows("")[1].at("values").contains("time/x"));
  CHECK_FALSE(rows("")[2].at("values").contains("time/x"));
  CHECK(rows("3")[0].at("values").at("time/x") == 4);

  const auto ask = [&](const Json& body, int status) {
    const StudioReply reply = watch.handle("episodes", json_text(body));
    CHECK(reply.status == status);
    return parse_json(reply.json);
  };
  CHECK(ask({{"run", 0}, {"iteration", nullptr}}, 404).at("kind") == "episodes");
  const std::string hostile = "<script>\\u202e</script>";
  write_plainly(run + "/episodes.jsonl",
                "{\"step\":1,\"episodes\":[]}\n{\"step\":2,\"episodes\":[\"" + hostile +
                    "\"]}\n{\"step\":3,\"epi");
  CHECK(ask({{"run", 0}, {"iteration", nullptr}}, 200).at("step") == 2);
  const Json two = ask({{"run", 0}, {"iteration", 2}}, 200);
  CHECK(two.at("episodes")[0] == "<script>\xE2\x80\xAE</script>");
  CHECK(two.at("values") == Json{{"response/length", 90}});
  CHECK(contains(two.at("alarms")[0].get<std::string>(), "tokens"));
  CHECK(ask({{"run", 0}, {"iteration", 1}}, 200).at("alarms").empty());  // none by then
  CHECK(ask({{"run", 0}, {"iteration", 3}}, 404).at("kind") == "episodes");
  CHECK(ask({{"run", 0}, {"iteration", 18446744073709551615U}}, 404).at("kind") == "episodes");
  CHECK(ask({{"run", 1}, {"iteration", 1}}, 404).at("kind") == "run");
  for (const Json& wrong :
       {Json{{"run", 0}}, Json{{"run", -1}, {"iteration", 0}}, Json{{"run", run}, {"iteration", 0}},
        Json{{"run", 0}, {"iteration", "1"}}, Json{{"run", 0}, {"iteration", -1}},
        Json{{"run", 0}, {"iteration", 1.5}}, Json(3), Json::array()})
    CHECK(ask(wrong, 400).at("kind") == "request");
  CHECK(watch.handle("episodes", "{").status == 400);
  write_plainly(run + "/episodes.jsonl", "{\"step\":1,\"episodes\":7}\n");
  CHECK(contains(ask({{"run", 0}, {"iteration", 1}}, 400).at("error"), "episodes.jsonl"));
}

TEST_CASE("studio: a ranking of a run that is watched, and what turning it round has found") {
  const Temporary directory;
  const std::string run = directory / "run";
  std::filesystem::create_directories(run + "/round-0");
  const WatchStudio watch({run, run + "/"});
  const auto ask = [&](const Json& body, int status) {
    const StudioReply reply = watch.handle("ranking", json_text(body));
    CHECK(reply.status == status);
    return parse_json(reply.json);
  };
  CHECK(ask({{"run", 0}, {"round", 0}, {"ranking", 0}}, 404).at("kind") == "ranking");
  write_plainly(run + "/round-0/rankings.jsonl",
                "{\"prompt\":\"p\",\"responses\":[\"a\",\"b\"],\"ranking\":[[1],[0]]}\n");
  const Json one = ask({{"run", 0}, {"round", 0}, {"ranking", 0}}, 200);
  CHECK(one.at("responses") == Json{"a", "b"});
  CHECK(one.at("rank") == Json{1, 0});
  CHECK(one.at("rankings") == 1);
  CHECK(one.at("rounds") == 1);
  CHECK(one.at("state") == "none");
  CHECK(ask({{"run", 0}, {"round", 0}, {"ranking", 1}}, 400).at("kind") == "request");
  CHECK(ask({{"run", 0}, {"round", 1}, {"ranking", 0}}, 404).at("kind") == "ranking");
  CHECK(ask({{"run", 2}, {"round", 0}, {"ranking", 0}}, 404).at("kind") == "run");
  CHECK(ask({{"run", 0}, {"round", "../.."}, {"ranking", 0}}, 400).at("kind") == "request");
  std::filesystem::create_directory(run + "-whatif-0-0");
  write_plainly(run + "-whatif-0-0/whatif.json", "{\"answers\":[]}");
  for (const int same : {0, 1}) {
    const Json done = ask({{"run", same}, {"round", 0}, {"ranking", 0}}, 200);
    CHECK(done.at("state") == "done");
    CHECK(done.at("result").at("answers").empty());
  }
  // It is not begun again over what is there.
  CHECK(watch.handle("turn", "{\"run\":0,\"round\":0,\"ranking\":0}").status == 400);
}

TEST_CASE("studio: a desk has room for so many names") {
  const Office office(1, 3);
  int refused = 0;
  for (int i = 0; i < 600; ++i)
    refused += office.studio->handle("sit", json_text({{"name", str("n", i)}})).status == 400;
  CHECK(refused == 100);
}
