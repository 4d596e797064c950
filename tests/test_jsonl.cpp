#include "files.hpp"

#include <plumb/data/jsonl.hpp>
#include <plumb/data/text.hpp>
#include <plumb/io/file.hpp>

#include <doctest/doctest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include <sys/file.h>

using namespace plumb;
using Ranks = std::vector<int>;

namespace {

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
                                     R"({"seed":1})",
                                     {{1, 2147483647, 0}, {}, {5}}},
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
  CHECK(back.records[0].tokens == all[0].tokens);
  CHECK(back.records[1].responses == all[1].responses);
  CHECK(back.records[1].tokens.empty());
  const std::string text = read_file(path);
  CHECK(text.substr(0, text.find('\n')) ==
        R"({"id":"7","prompt":"Once \"upon\"\na time 😀","responses":[" a","","\t\u0001"],)"
        R"("finished":[true,false,true],"tokens":[[1,2147483647,0],[],[5]],)"
        R"("model":"m","sampling":{"seed":1}})");
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
  const Ranking r{"q1",
                  "p",
                  "g",
                  {"a", "b", "c", "d"},
                  {true, true, false, true},
                  {1, 2, 0, -1},
                  "anna",
                  "rule:warm",
                  "2025-01-01T00:00:00Z",
                  {3, 1, 0, 2},
                  {{1}, {2, 3}, {}, {4}},
                  {},
                  {0.1, -3, 7.25, 0},
                  {"new", "old", "new", "old"},
                  12.5,
                  0.25,
                  {3},
                  0,
                  "a \"comment\"",
                  1};
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
  CHECK(back.tokens == r.tokens);
  CHECK(back.level == r.level);
  CHECK(back.systems == r.systems);
  CHECK(back.seconds == r.seconds);
  CHECK(back.probability == r.probability);
  CHECK(back.unusable == r.unusable);
  CHECK(back.comment == r.comment);
  CHECK(back.repeat == r.repeat);
  const Candidates asked = read_candidates(path).records.at(0);  // whose and how chosen stay known
  CHECK(asked.systems == r.systems);
  CHECK(asked.probability == r.probability);
  CHECK(parse_json(json_text(to_json(asked)), "c").at("systems") == r.systems);
  CHECK(parse_json(json_text(to_json(asked)), "c").at("probability") == r.probability);
  CHECK(read_file(path).find(R"("ranking":[[2],[0],[1]])") != std::string::npos);
}

TEST_CASE("jsonl: seconds, probabilities and systems that cannot be are refused") {
  const auto said = [](const std::string& field) {
    return message_of<DataError>([&] {
      one_ranking(R"({"prompt":"p","responses":["a","b"],"ranking":[[0],[1]],)" + field + "}");
    });
  };
  CHECK(said(R"("seconds":1.5,"probability":1,"systems":["x","y"])").empty());
  for (const char* seconds : {"0", "-1", "\"1\"", "1e10", "null"})
    CHECK(said(str("\"seconds\":", seconds)).find("\"seconds\"") != std::string::npos);
  for (const char* probability : {"0", "1.01", "true"})
    CHECK(said(str("\"probability\":", probability)).find("at most 1 as") != std::string::npos);
  CHECK(said(R"("systems":["x"])").find("1 entries for 2 responses") != std::string::npos);
  CHECK(said(R"("systems":["x",1])").find("only text in \"systems\"") != std::string::npos);
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

TEST_CASE("jsonl: hh-rlhf's own lines, two transcripts of one dialogue") {
  const auto pair = [](const std::string& chosen, const std::string& rejected) {
    return one_ranking(Json{{"chosen", chosen}, {"rejected", rejected}}.dump());
  };
  const std::string hi = "\n\nHuman: hi\n\nAssistant:";
  Ranking r = pair(hi + " hello", hi + " go away");
  CHECK(r.prompt == hi);
  CHECK(r.responses == std::vector<std::string>{" hello", " go away"});
  CHECK(r.rank == Ranks{0, 1});
  CHECK(r.group == "hi");
  CHECK(r.finished == std::vector<bool>{true, true});

  // Several turns: the last one in common ends the prompt.
  const std::string more = hi + " hello\n\nHuman: and?\n\nAssistant:";
  r = pair(more + " A", more + " B");
  CHECK(r.prompt == more);
  CHECK(r.responses == std::vector<std::string>{" A", " B"});
  CHECK(r.group == "hi");

  // They part earlier than in the last turn: the rest belongs to the responses.
  r = pair(hi + " yes\n\nHuman: x\n\nAssistant: A", hi + " no\n\nHuman: y\n\nAssistant: B");
  CHECK(r.prompt == hi);
  CHECK(r.responses == std::vector<std::string>{" yes\n\nHuman: x\n\nAssistant: A",
                                                " no\n\nHuman: y\n\nAssistant: B"});

  // One begins as the other, or says nothing, or they part inside the mark itself.
  r = pair(hi + " hello there", hi + " hello");
  CHECK(r.responses == std::vector<std::string>{" hello there", " hello"});
  r = pair(hi + " hello", hi);
  CHECK(r.responses == std::vector<std::string>{" hello", ""});
  r = pair(hi + " a\n\nAssistant: b", hi + " a\n\nAssistance: b");
  CHECK(r.prompt == hi);

  // Equal ones, which the data has, decide nothing.
  r = pair(hi + " same", hi + " same");
  CHECK(r.prompt == hi);
  CHECK(r.responses == std::vector<std::string>{" same", " same"});
  CHECK(r.rank == Ranks{0, 0});
  CHECK(one_ranking(R"({"prompt":"p","chosen":"a","rejected":"a"})").rank == Ranks{0, 0});

  says(ranking_error(R"({"chosen":"a","rejected":"b"})"), "begin with the same dialogue");
  says(
      ranking_error(
          R"({"chosen":"\n\nHuman: a\n\nAssistant: x","rejected":"\n\nHuman: b\n\nAssistant: x"})"),
      "begin with the same dialogue");
  says(ranking_error(R"({"chosen":"\n\nHuman: a\n\nAssistant: x"})"), "expected text \"rejected\"");
  says(ranking_error(R"({"chosen":[1],"rejected":"b"})"), "expected text \"chosen\"");
}

TEST_CASE("jsonl: prompts keep their ids") {
  const Temporary directory;
  const std::string path = directory / "p.jsonl";
  write_plainly(path,
                "\xef\xbb\xbf{\"id\":\"x\",\"prompt\":\"a\"}\n{\"prompt\":\"b\"}\n{\"id\":7,"
                "\"prompt\":\"c\"}\n");
  const std::vector<Prompt> prompts = read_prompts(path).records;
  REQUIRE(prompts.size() == 3);
  CHECK(prompts[0].id == "x");
  CHECK(prompts[1].id == "2");
  CHECK(prompts[2].id == "7");
  CHECK(prompts[2].text == "c");
}

TEST_CASE("jsonl: a file that another program adds to is not replaced") {
  const Temporary directory;
  const std::string path = directory / "r.jsonl";
  write_plainly(path, "{}\n");
  const int fd = ::open(path.c_str(), O_RDWR);
  REQUIRE(::flock(fd, LOCK_EX) == 0);
  const std::vector<Candidates> one{{"1", "p", {"a"}, {true}, "", ""}};
  says(message_of<IoError>([&] { write_jsonl(path, one); }), "another program adds to");
  CHECK(read_file(path) == "{}\n");
  ::close(fd);
  write_jsonl(path, one);
  CHECK(read_candidates(path).records.size() == 1);
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
  says(ranked(R"("ranking":[[0]],"unusable":[2])"), "\"unusable\" does not name some of 2");
  says(ranked(R"("ranking":[[0]],"unusable":[1,1])"), "each once");
  says(ranked(R"("ranking":[[0],[1]],"unusable":[1])"), "response 1 is ranked, and is");
  says(ranked(R"("ranking":[[0]],"seconds":-1)"), "a number above 0 and at most");
  says(ranked(R"("ranking":[[0]],"strength":4)"), "\"strength\" as a whole number from 0 to 3");
  says(ranked(R"("ranking":[[0]],"repeat":0.5)"), "\"repeat\" as a whole number from 0 to 1");
  says(ranked(R"("ranking":[[0]],"comment":7)"), "expected text \"comment\"");
  says(ranked(R"("ranking":[[0]],"shown":[0,0])"), "not an order");
  says(ranked(R"("ranking":[[0]],"shown":[2,0])"), "not an order");
  says(ranked(R"("ranking":[[0]],"shown":[1])"), "1 entries for 2");
  says(ranked(R"("ranking":[[0]],"tokens":[[1]])"), "\"tokens\" has 1 entries for 2");
  says(ranked(R"("ranking":[[0]],"tokens":[])"), "\"tokens\" has 0 entries for 2");
  says(ranked(R"("ranking":[[0]],"tokens":[1,2])"), "\"tokens\" as a list of lists");
  says(ranked(R"("ranking":[[0]],"tokens":{"0":[1]})"), "expected a list \"tokens\"");
  for (const char* token : {"-1", "1.0", "\"1\"", "null", "2147483648", "18446744073709551616"})
    says(ranked(str(R"("ranking":[[0]],"tokens":[[1],[)", token, "]]")), "expected only token ids");
  says(ranked(R"("ranking":[[0]],"prompt":"q")"), "it says \"prompt\" twice");
  says(ranked(R"("ranking":[[0]],"sampling":)" + std::string(300000, '[')), "64 deep");
  says(ranked(R"("ranking":[[0]],"score":1e999)"), "overflow");
  says(ranked(R"("ranking":[[0]],"score":NaN)"), "expected a JSON object");
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
  const std::vector<Prompt> prompts = read_prompts(path).records;
  REQUIRE(prompts.size() == 2);
  CHECK(prompts[0].text == "a");
  CHECK(prompts[1].text == "b");
  CHECK(prompts[1].id == "2");
  write_plainly(path, "{\"prompt\":\"a\"}\n{\"prom");
  says(message_of<DataError>([&] { read_prompts(path); }), "p.jsonl:2: ");
  says(message_of<DataError>([&] { read_prompts(path); }), "the last line was cut short");
  CHECK(read_prompts(path, BadLine::Skip).records.size() == 1);
  write_plainly(path, "");
  CHECK(read_prompts(path).records.empty());
  write_plainly(path, "\x1f\x8b\x08 no such thing");
  says(message_of<DataError>([&] { read_prompts(path, BadLine::Skip); }), path + ", byte ");
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

TEST_CASE("text: a byte-order mark and the line ends of Windows are no part of a text") {
  const Temporary directory;
  const std::string path = directory / "t.txt";
  const auto text = [&](const std::string& bytes) {
    write_plainly(path, bytes);
    return read_text(path);
  };
  CHECK(text("\xef\xbb\xbfOnce\r\nupon\r\n\r\na time\r\n") == "Once\nupon\n\na time\n");
  CHECK(text("\xef\xbb\xbf").empty());
  CHECK(text("").empty());
  CHECK(text("a\rb\nc\r") == "a\rb\nc\r");  // not a line end: that is \n here
  CHECK(text("one\r") == "one\r");
  CHECK(text("\r\n") == "\n");
  CHECK(text(std::string("ab\0c", 4)) == std::string("ab\0c", 4));
}

TEST_CASE("text: what plain text would misread is refused as what it is") {
  const Temporary directory;
  const std::string path = directory / "t.txt";
  const auto error = [&](const std::string& bytes) {
    write_plainly(path, bytes);
    const std::string message = message_of<DataError>([&] { read_text(path); });
    says(message, "t.txt");
    says(message, "HINT");
    return message;
  };
  says(error("\x1f\x8b\x08 x"), "the compressed data is damaged");
  says(error(std::string("\xff\xfe"
                         "a\0b\0",
                         6)),
       "is UTF-16");
  says(error(std::string("\xfe\xff"
                         "\0a\0b",
                         6)),
       "is UTF-16");
  says(error(std::string("a\0b\0", 4)), "is UTF-16");
  says(error(std::string("\0a\0b", 4)), "is UTF-16");
  says(error(std::string("\xff\xfe\0\0a\0\0\0", 8)), "is UTF-16");
  says(error("one\rtwo"), "old Mac");
  says(error("one\rtwo\r"), "old Mac");
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
