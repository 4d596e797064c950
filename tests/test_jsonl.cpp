#include "temporary.hpp"

#include <plumb/data/jsonl.hpp>
#include <plumb/data/text.hpp>

#include <doctest/doctest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include <signal.h>
#include <sys/resource.h>

using namespace plumb;
using Ranks = std::vector<int>;

namespace {

bool says(const std::string& message, const std::string& what) {
  INFO(message, " should say: ", what);
  const bool ok = message.find(what) != std::string::npos;
  CHECK(ok);
  return ok;
}

Ranking one_ranking(const std::string& line) {
  const Temporary directory;
  write_plainly(directory / "r.jsonl", line + "\n");
  const Lines<Ranking> lines = read_rankings(directory / "r.jsonl");
  REQUIRE(lines.records.size() == 1);
  return lines.records[0];
}

/// The complaint about `line`, which is the second of three; the others are good.
std::string ranking_error(const std::string& line) {
  const Temporary directory;
  const std::string good = R"({"prompt":"p","responses":["a","b"],"ranking":[[1],[0]]})";
  write_plainly(directory / "r.jsonl", good + "\n" + line + "\n" + good + "\n");
  const std::string message = message_of<DataError>([&] { read_rankings(directory / "r.jsonl"); });
  says(message, "r.jsonl:2: ");
  const Lines<Ranking> kept = read_rankings(directory / "r.jsonl", BadLine::Skip);
  CHECK(kept.records.size() == 2);
  REQUIRE(kept.skipped.size() == 1);
  says(kept.skipped[0], "r.jsonl:2: ");
  return message;
}

}  // namespace

TEST_CASE("jsonl: candidates come back as written") {
  const Temporary directory;
  const std::string path = directory / "c.jsonl";
  const std::vector<Candidates> all{{"7",
                                     "Once \"upon\"\na time 😀",
                                     {" a", "", "\t\x01"},
                                     {true, false, true},
                                     "m",
                                     R"({"seed":1})"},
                                    {"8", "", {"x"}, {false}, "", ""}};
  write_jsonl(path, all);
  const Lines<Candidates> back = read_candidates(path);
  CHECK(back.skipped.empty());
  REQUIRE(back.records.size() == 2);
  CHECK(back.records[0].id == "7");
  CHECK(back.records[0].prompt == all[0].prompt);
  CHECK(back.records[0].responses == all[0].responses);
  CHECK(back.records[0].finished == all[0].finished);
  CHECK(back.records[0].model == "m");
  CHECK(back.records[0].sampling == R"({"seed":1})");
  CHECK(back.records[1].responses == all[1].responses);
  const std::string text = read_file(path);
  CHECK(text.substr(0, text.find('\n')) ==
        R"({"id":"7","prompt":"Once \"upon\"\na time 😀","responses":[" a","","\t\u0001"],)"
        R"("finished":[true,false,true],"model":"m","sampling":{"seed":1}})");
  CHECK_THROWS_AS(to_json(Candidates{"", "", {"x"}, {true}, "", "{not json"}), DataError);
}

TEST_CASE("jsonl: text that is not UTF-8 is written with replacement characters") {
  const Temporary directory;
  const std::string path = directory / "c.jsonl";
  write_jsonl(path, std::vector<Candidates>{{"1", "p", {"a\xff z"}, {true}, "", ""}});
  CHECK(read_candidates(path).records[0].responses[0] == "a\xef\xbf\xbd z");
}

TEST_CASE("jsonl: rankings come back as written") {
  const Temporary directory;
  const std::string path = directory / "r.jsonl";
  const Ranking r{
      "q1",          "p",    "g",         {"a", "b", "c", "d"},   {true, true, false, true},
      {1, 2, 0, -1}, "anna", "rule:warm", "2025-01-01T00:00:00Z", {3, 1, 0, 2}};
  write_jsonl(path, std::vector<Ranking>{r});
  const Ranking back = read_rankings(path).records.at(0);
  CHECK(back.id == r.id);
  CHECK(back.prompt == r.prompt);
  CHECK(back.group == r.group);
  CHECK(back.responses == r.responses);
  CHECK(back.finished == r.finished);
  CHECK(back.rank == r.rank);
  CHECK(back.annotator == r.annotator);
  CHECK(back.labeller == r.labeller);
  CHECK(back.time == r.time);
  CHECK(back.shown == r.shown);
  CHECK(read_file(path).find(R"("ranking":[[2],[0],[1]])") != std::string::npos);
}

TEST_CASE("jsonl: the forms of rankings are told apart line by line") {
  Ranking r = one_ranking(
      R"({"id":3,"prompt":"p","responses":["a","b","c","d"],"ranking":[[2],[0],[1,3]]})");
  CHECK(r.id == "3");
  CHECK(r.rank == Ranks{1, 2, 0, 2});
  CHECK(r.group == "p");
  CHECK(r.finished == std::vector<bool>(4, true));
  CHECK(r.labeller == "person");

  r = one_ranking(R"({"tree":"t","prompt":"p","ranked":["best","mid","worst"]})");
  CHECK(r.id == "1");
  CHECK(r.group == "t");
  CHECK(r.rank == Ranks{0, 1, 2});

  const auto votes = [](const std::string& list) {
    return one_ranking(R"({"prompt":"p","response1":"a","response2":"b","votes":)" + list + "}")
        .rank;
  };
  CHECK(votes("[1,1,2]") == Ranks{0, 1});
  CHECK(votes("[2,2,2]") == Ranks{1, 0});
  CHECK(votes("[0,2,2]") == Ranks{1, 0});
  CHECK(votes("[0,0,1]") == Ranks{0, 1});
  CHECK(votes("[0,0,0]") == Ranks{0, 0});
  CHECK(votes("[1,2,0]") == Ranks{0, 0});

  r = one_ranking(
      R"({"prompt":"\n\nHuman: hi there\n\nAssistant: yes?\n\nHuman: more\n\nAssistant:",)"
      R"("chosen":" good","rejected":" bad"})");
  CHECK(r.group == "hi there");
  CHECK(r.rank == Ranks{0, 1});
  CHECK(r.responses == std::vector<std::string>{" good", " bad"});
}

TEST_CASE("jsonl: a bad line is named by file and line, and refused or skipped as asked") {
  says(ranking_error(""), "the line is empty");
  says(ranking_error("   \r"), "the line is empty");
  says(ranking_error("{"), "expected a JSON object");
  says(ranking_error(std::string("{\"prompt\":\"p\"}\0{}", 17)), "zero byte");
  says(ranking_error("nonsense"), "expected a JSON object");
  says(ranking_error("[1]"), "the line is another value");
  says(ranking_error("{\"prompt\":\"\xff\"}"), "expected a JSON object");
  says(ranking_error("{}"), "expected text \"prompt\"");
  says(ranking_error(R"({"prompt":3})"), "expected text \"prompt\"");
  says(ranking_error(R"({"prompt":"p"})"), "expected a ranking: \"ranking\" with");
  const auto ranked = [](const std::string& rest) {
    return ranking_error(R"({"prompt":"p","responses":["a","b"],)" + rest + "}");
  };
  says(ranked(R"("ranking":[[0],[2]])"), "response 2 is ranked, but there are 2 responses");
  says(ranked(R"("ranking":[[-1]])"), "response -1 is ranked");
  says(ranked(R"("ranking":[[0],[0]])"), "response 0 is ranked twice");
  says(ranked(R"("ranking":[[0],[]])"), "empty");
  says(ranked(R"("ranking":[])"), "ranks nothing");
  says(ranked(R"("ranking":[0,1])"), "list of lists");
  says(ranked(R"("ranking":{"0":1})"), "expected a list \"ranking\"");
  says(ranked(R"("ranking":[["0"]])"), "whole numbers");
  says(ranked(R"("ranking":[[0.5]])"), "whole numbers");
  says(ranked(R"("ranking":[[99999999999]])"), "whole numbers");
  says(ranked(R"("ranking":[[18446744073709551615]])"), "ranked");
  says(ranked(R"("ranking":[[0]],"finished":[true])"), "1 entries for 2");
  says(ranked(R"("ranking":[[0]],"finished":[1,0])"), "true and false");
  says(ranked(R"("ranking":[[0]],"shown":[0,0])"), "not an order");
  says(ranked(R"("ranking":[[0]],"shown":[2,0])"), "not an order");
  says(ranked(R"("ranking":[[0]],"shown":[1])"), "1 entries for 2");
  says(ranking_error(R"({"prompt":"p","responses":[],"ranking":[[0]]})"), "\"responses\" is empty");
  says(ranking_error(R"({"prompt":"p","responses":["a",1],"ranking":[[0]]})"), "only text");
  says(ranking_error(R"({"prompt":"p","ranking":[[0]]})"), "expected a list \"responses\"");
  says(ranking_error(R"({"prompt":"p","ranked":["a"]})"), "expected text \"tree\"");
  const auto voted = [](const std::string& votes) {
    return ranking_error(R"({"prompt":"p","response1":"a","response2":"b","votes":)" + votes + "}");
  };
  says(voted("[3]"), "a vote is 0, 1 or 2; not 3");
  says(voted("[]"), "\"votes\" is empty");
  says(ranking_error(R"({"prompt":"p","votes":[1]})"), "expected text \"response1\"");
  says(ranking_error(R"({"prompt":"p","chosen":"a"})"), "expected text \"rejected\"");
}

TEST_CASE("jsonl: files without a last newline, with CRLF, empty, compressed, absent") {
  const Temporary directory;
  const std::string path = directory / "p.jsonl";
  write_plainly(path, "{\"prompt\":\"a\"}\r\n{\"prompt\":\"b\",\"other\":1}");
  CHECK(read_prompts(path).records == std::vector<std::string>{"a", "b"});
  write_plainly(path, "{\"prompt\":\"a\"}\n{\"prom");
  says(message_of<DataError>([&] { read_prompts(path); }), "p.jsonl:2: ");
  says(message_of<DataError>([&] { read_prompts(path); }), "the last line was cut short");
  CHECK(read_prompts(path, BadLine::Skip).records.size() == 1);
  write_plainly(path, "");
  CHECK(read_prompts(path).records.empty());
  write_plainly(path, "\x1f\x8b\x08 compressed");
  says(message_of<DataError>([&] { read_prompts(path, BadLine::Skip); }),
       "HINT: gunzip -k " + path);
  CHECK_THROWS_AS(read_prompts(directory / "absent", BadLine::Skip), IoError);
}

TEST_CASE("jsonl: demonstrations") {
  const Temporary directory;
  const std::string path = directory / "d.jsonl";
  write_plainly(path, "{\"prompt\":\"p\",\"completion\":\" c\"}\n{\"prompt\":\"p\"}\n");
  const Lines<Demonstration> lines = read_demonstrations(path, BadLine::Skip);
  REQUIRE(lines.records.size() == 1);
  CHECK(lines.records[0].completion == " c");
  REQUIRE(lines.skipped.size() == 1);
  says(lines.skipped[0], "d.jsonl:2: ");
  says(lines.skipped[0], "expected text \"completion\"");
}

TEST_CASE("jsonl: the OpenAssistant rankings and PandaLM votes that ship are read whole") {
  const std::string data = PLUMB_SOURCE_DIR "/examples/data/";
  const Lines<Ranking> oasst = read_rankings(data + "oasst_kway_rankings_train.jsonl");
  CHECK(oasst.records.size() == 168);
  std::set<std::string> groups;
  std::map<std::size_t, int> by_size;
  for (const Ranking& r : oasst.records) {
    groups.insert(r.group);
    ++by_size[r.responses.size()];
    CHECK(r.rank.size() == r.responses.size());
    CHECK(r.rank.back() == static_cast<int>(r.responses.size()) - 1);
  }
  CHECK(groups.size() == 79);
  CHECK(by_size ==
        std::map<std::size_t, int>{{2, 46}, {3, 92}, {4, 20}, {5, 2}, {6, 6}, {8, 1}, {9, 1}});

  const Lines<Ranking> panda = read_rankings(data + "pandalm_votes_train.jsonl");
  CHECK(panda.records.size() == 834);
  groups.clear();
  std::map<Ranks, int> by_rank;
  for (const Ranking& r : panda.records) {
    groups.insert(r.group);
    ++by_rank[r.rank];
  }
  CHECK(groups.size() == 141);
  // Counted from the file: ties 78 (all 0); 353 for the first, 403 for the second by the sum.
  CHECK(by_rank == std::map<Ranks, int>{{{0, 0}, 78}, {{0, 1}, 353}, {{1, 0}, 403}});
}

TEST_CASE("jsonl: the appender adds lines, undoes its own, and goes on where a file ends") {
  const Temporary directory;
  const std::string path = directory / "a.jsonl";
  {
    JsonlAppender file(path);
    CHECK(file.discarded() == 0);
    CHECK_FALSE(file.undo());
    file.append({{"n", 1}});
    CHECK(read_file(path) == "{\"n\":1}\n");  // on disk before the object goes
    file.append({{"n", 2}});
    CHECK(file.undo());
    CHECK(read_file(path) == "{\"n\":1}\n");
    file.append({{"n", 3}});
    says(message_of<IoError>([&] { JsonlAppender second(path); }), "another program");
  }
  {
    JsonlAppender file(path);
    CHECK_FALSE(file.undo());  // not its own
    file.append({{"n", 4}});
  }
  CHECK(read_file(path) == "{\"n\":1}\n{\"n\":3}\n{\"n\":4}\n");
}

TEST_CASE("jsonl: the appender repairs the end that a crash left, at whichever byte") {
  const Temporary directory;
  const std::string path = directory / "a.jsonl";
  const std::string first = "{\"n\":1}\n", second = "{\"text\":\"a \\\"}\\\" b\",\"m\":[{},2]}";
  for (std::size_t size = 0; size <= second.size(); ++size) {
    CAPTURE(size);
    write_plainly(path, first + second.substr(0, size));
    JsonlAppender file(path);
    const bool whole = size == second.size();  // only the newline is missing
    CHECK(file.discarded() == static_cast<Index>(whole ? 0 : size));
    file.append({{"n", 2}});
    CHECK(read_file(path) == first + (whole ? second + "\n" : "") + "{\"n\":2}\n");
  }
  write_plainly(path, first + std::string(5, '\0'));
  CHECK(JsonlAppender(path).discarded() == 5);
  CHECK(read_file(path) == first);
  write_plainly(path, first + "{}" + std::string(5, '\0'));
  CHECK(JsonlAppender(path).discarded() == 7);
  CHECK(read_file(path) == first);
}

TEST_CASE("jsonl: the appender touches no file that is not its kind") {
  const Temporary directory;
  const std::string path = directory / "notes.txt";
  for (const char* text : {"my notes", "{\"n\":1}\nmy notes", "\x1f\x8b compressed"}) {
    write_plainly(path, text);
    CHECK_THROWS_AS(JsonlAppender{path}, DataError);
    CHECK(read_file(path) == text);
  }
  CHECK_THROWS_AS(JsonlAppender(directory / "no/such"), IoError);
}

TEST_CASE("jsonl: a full disk leaves only whole lines") {
  const Temporary directory;
  const std::string path = directory / "a.jsonl";
  JsonlAppender file(path);
  file.append({{"n", 1}});
  struct rlimit before {};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit limit { 100, before.rlim_max };
  ::setrlimit(RLIMIT_FSIZE, &limit);
  const std::string error = message_of<IoError>([&] {
    file.append({{"text", std::string(500, 'x')}});
  });
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, handler);
  says(error, "HINT: free some space");
  CHECK(read_file(path) == "{\"n\":1}\n");
  file.append({{"n", 2}});
  CHECK(read_file(path) == "{\"n\":1}\n{\"n\":2}\n");
}

TEST_CASE("text: stories and their openings") {
  const std::vector<std::string> stories = split_stories(
      "\n One. Two.\nThree.\n<|endoftext|>\n\n<|endoftext|>What? Yes!<|endoftext|> no end ");
  CHECK(stories == std::vector<std::string>{"One. Two.\nThree.", "What? Yes!", "no end"});
  CHECK(opening(stories[0]) == "One.");
  CHECK(opening(stories[1]) == "What?");
  CHECK(opening(stories[2]) == "no end");
  CHECK(opening("") == "");
  CHECK(split_stories("").empty());
  CHECK(split_stories(read_text(PLUMB_SOURCE_DIR "/examples/data/tinystories_train.txt")).size() ==
        1500);
  CHECK(
      split_stories(read_text(PLUMB_SOURCE_DIR "/examples/data/tinystories_heldout.txt")).size() ==
      400);
}
