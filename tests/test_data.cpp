// Data as people have it: every form, every shape of file, compressed or not, and what is wrong
// with a file said by name and place.
#include "files.hpp"

#include <plumb/data/appender.hpp>
#include <plumb/data/jsonl.hpp>
#include <plumb/data/prompts.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include <sys/resource.h>

using namespace plumb;
using test::contains;

namespace {

using DataRanks = std::vector<int>;
using DataTexts = std::vector<std::string>;

std::string gzipped(const std::string& text) {
  z_stream z{};
  REQUIRE(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  std::string out(deflateBound(&z, text.size()) + 64, '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  z.avail_in = static_cast<uInt>(text.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  REQUIRE(deflate(&z, Z_FINISH) == Z_STREAM_END);
  out.resize(out.size() - z.avail_out);
  deflateEnd(&z);
  return out;
}

std::string zstd_of(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

template <class Read>
auto read_as(const std::string& bytes, Read read, const std::string& name = "d.jsonl") {
  const Temporary directory;
  write_plainly(directory / name, bytes);
  return read(directory / name);
}

Ranking ranking_of(const std::string& record) {
  const auto all = read_as(record, [](const std::string& path) { return read_rankings(path); });
  REQUIRE(all.records.size() == 1);
  return all.records[0];
}

Demonstration demonstration_of(const std::string& record) {
  const auto all =
      read_as(record, [](const std::string& path) { return read_demonstrations(path); });
  REQUIRE(all.records.size() == 1);
  return all.records[0];
}

Prompt prompt_of(const std::string& record) {
  const auto all = read_as(record, [](const std::string& path) { return read_prompts(path); });
  REQUIRE(all.records.size() == 1);
  return all.records[0];
}

std::string rankings_error(const std::string& bytes, const std::string& name = "d.jsonl") {
  return message_of<DataError>([&] {
    read_as(
        bytes, [](const std::string& path) { return read_rankings(path); }, name);
  });
}

const Turns kDialogue{{"user", "hi"}, {"assistant", "hello"}, {"user", "more?"}};

/// Three pairs in the three shapes of files.
const std::string kLines =
    "{\"prompt\":\"p, \\\"1\\\"\",\"chosen\":\"a\\nb\",\"rejected\":\"c\"}\n"
    "{\"prompt\":\"p2\",\"chosen\":\"ä\",\"rejected\":\"\"}\n"
    "{\"prompt\":\"p3\",\"chosen\":\"x\",\"rejected\":\"x\"}\n";
const std::string kList =
    "\n [ {\"prompt\":\"p, \\\"1\\\"\",\"chosen\":\"a\\nb\",\"rejected\":\"c\"},\n"
    "{\"prompt\":\"p2\",\n \"chosen\":\"ä\",\"rejected\":\"\"} ,"
    "{\"prompt\":\"p3\",\"chosen\":\"x\",\"rejected\":\"x\"}\n]\n\n";
const std::string kCsv =
    "prompt,chosen,other,rejected\r\n\"p, \"\"1\"\"\",\"a\r\nb\",1,c\r\np2,ä,,\r\np3,x,\"\",x";

}  // namespace

TEST_CASE("data: one content in every shape of file, compressed in every way") {
  const Temporary directory;
  const std::string shapes[] = {kLines, kList, kCsv};
  const char* names[] = {"JSON Lines", "a JSON list", "CSV"};
  for (int shape = 0; shape < 3; ++shape)
    for (int packed = 0; packed < 4; ++packed) {
      const std::string& text = shapes[shape];
      const std::string half = text.substr(0, text.size() / 2), rest = text.substr(half.size());
      const std::string mark = packed == 0 ? "\xef\xbb\xbf" : "";
      write_plainly(directory / "d", packed == 0   ? mark + text
                                     : packed == 1 ? gzipped(text)
                                     : packed == 2 ? zstd_of(text)
                                                   : gzipped(half) + gzipped("") + gzipped(rest) +
                                                         std::string(700, '\0'));
      const Lines<Ranking> read = read_rankings(directory / "d");
      INFO("shape ", shape, " packed ", packed);
      REQUIRE(read.records.size() == 3);
      CHECK(read.records[0].prompt == "p, \"1\"");
      CHECK(read.records[0].responses == DataTexts{"a\nb", "c"});
      CHECK(read.records[1].responses == DataTexts{"ä", ""});
      CHECK(read.records[2].rank == DataRanks{0, 0});
      const std::string before = packed == 0 ? "" : packed == 2 ? "zstd, " : "gzip, ";
      CHECK(read.said == str(before, names[shape], ": 3 pairs (prompt, chosen, rejected)"));
    }
  write_plainly(directory / "d", zstd_of(kLines.substr(0, 10)) + zstd_of(kLines.substr(10)));
  CHECK(read_rankings(directory / "d").records.size() == 3);
}

TEST_CASE("data: empty files, in every shape") {
  for (const std::string& bytes : {std::string(), std::string("[]"), std::string(" [ \n ] \n"),
                                   std::string("prompt,chosen,rejected\n"), gzipped(""),
                                   std::string("prompt,chosen,rejected")}) {
    const auto read = read_as(bytes, [](const std::string& path) { return read_rankings(path); });
    CHECK(read.records.empty());
    CHECK(contains(read.said, "empty"));
  }
}

TEST_CASE("data: TRL's demonstrations, text and messages") {
  Demonstration d = demonstration_of(R"({"prompt":"The sky is","completion":" blue."})");
  CHECK(d.prompt == "The sky is");
  CHECK(d.completion == " blue.");
  CHECK(d.turns.empty());
  d = demonstration_of(R"({"prompt":[{"role":"user","content":"Sky?"}],)"
                       R"("completion":[{"role":"assistant","content":"Blue."}]})");
  CHECK(d.prompt == "Sky?");
  CHECK(d.completion == "Blue.");
  CHECK(d.turns.empty());  // one text of the user's is a prompt like any other
  d = demonstration_of(
      R"({"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"hello"},)"
      R"({"role":"user","content":"more?"},{"role":"assistant","content":"no"}]})");
  CHECK(d.turns == kDialogue);
  CHECK(d.prompt == "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: more?\n\nAssistant:");
  CHECK(d.completion == "no");
  d = demonstration_of(R"({"prompt":"p","completion":"c","label":true})");
  CHECK(d.completion == "c");
  // Of rankings, the best.
  CHECK(demonstration_of(R"({"prompt":"p","chosen":"good","rejected":"bad"})").completion ==
        "good");
  CHECK(demonstration_of(R"({"prompt":"p","response1":"a","response2":"b","votes":[2]})")
            .completion == "b");

  const auto error = [](const std::string& record) {
    return message_of<DataError>([&] { demonstration_of(record); });
  };
  says(error(R"({"prompt":"p","completion":"c","label":false})"), "not one to imitate");
  says(error(R"({"prompt":"p","completion":"c","label":1})"), "true or false");
  says(error(R"({"messages":[{"role":"user","content":"hi"}]})"), "message of the assistant");
  says(error(R"({"messages":[{"role":"user","content":"a"},{"role":"user","content":"b"},)"
             R"({"role":"assistant","content":"c"}]})"),
       "the user speaks after the user");
  says(error(R"({"messages":[{"role":"assistant","content":"a"},{"role":"user","content":"b"},)"
             R"({"role":"assistant","content":"c"}]})"),
       "the assistant speaks first");
  says(error(R"({"messages":[{"role":"user","content":"a"},{"role":"system","content":"b"},)"
             R"({"role":"user","content":"b"},{"role":"assistant","content":"c"}]})"),
       "the system speaks after the user");
  says(error(R"({"messages":[]})"), "\"messages\" is empty");
  says(error(R"({"messages":[{"role":"tool","content":"hi"}]})"), "the role \"tool\"");
  says(error(R"({"messages":[{"role":"user","content":null}]})"), "only messages");
  says(error(R"({"messages":["hi"]})"), "only messages");
  says(error(R"({"text":"The sky is blue."})"), "nothing says where a response begins");
  says(error(R"({"prompt":"p","completions":["a","b"],"labels":[true,false]})"), "labelled steps");
}

TEST_CASE("data: TRL's pairs, with a prompt or without, text or messages") {
  Ranking r = ranking_of(R"({"chosen":"The sky is blue.","rejected":"The sky is green."})");
  CHECK(r.prompt == "The sky is");
  CHECK(r.responses == DataTexts{" blue.", " green."});
  const std::string user = R"({"role":"user","content":"hi"})";
  const auto assistant = [](const std::string& text) {
    return R"({"role":"assistant","content":")" + text + "\"}";
  };
  r = ranking_of(R"({"prompt":[)" + user + R"(],"chosen":[)" + assistant("a") +
                 R"(],"rejected":[)" + assistant("b") + "]}");
  CHECK(r.prompt == "hi");
  CHECK(r.responses == DataTexts{"a", "b"});
  CHECK(r.rank == DataRanks{0, 1});
  const std::string more =
      user + "," + assistant("hello") + R"(,{"role":"user","content":"more?"},)";
  const std::string whole =
      R"("chosen":[)" + more + assistant("a") + R"(],"rejected":[)" + more + assistant("b") + "]}";
  r = ranking_of("{" + whole);
  CHECK(r.turns == kDialogue);
  CHECK(r.group == "hi");
  // UltraFeedback's pairs: the prompt again in the messages, and scores.
  r = ranking_of(R"({"prompt":"more?","score_chosen":7.5,"score_rejected":3,)" + whole);
  CHECK(r.turns == kDialogue);
  CHECK(r.rank == DataRanks{0, 1});
  CHECK(r.level == std::vector<double>{7.5, 3});
  // TRL's margin of the pair, which is what is said of it, whatever the scores.
  CHECK(ranking_of(R"({"margin":1.5,)" + whole).level == std::vector<double>{1.5, 0});
  CHECK(ranking_of(R"({"margin":-1,"score_chosen":4,"score_rejected":3,)" + whole).level ==
        std::vector<double>{-1, 0});
  for (const char* none : {"", R"("margin":null,)", R"("margin":"much better",)",
                           R"("margin":1e300,)", R"("score_chosen":1e300,"score_rejected":1,)"})
    CHECK(ranking_of("{" + std::string(none) + whole).level.empty());
  r = ranking_of(R"({"prompt":"p","responses":["a","b"],"ranking":[[1],[0]],"level":[0.5,2]})");
  CHECK(r.level == std::vector<double>{0.5, 2});
  for (const auto& [level, complaint] : {std::pair{"[1]", "1 entries for 2"},
                                         {"[1,\"2\"]", "only numbers that"},
                                         {"[1,-1e39]", "only numbers that"},
                                         {"3", "a list \"level\""}})
    says(rankings_error(R"({"prompt":"p","responses":["a","b"],"ranking":[[1],[0]],"level":)" +
                        std::string(level) + "}"),
         complaint);
  CHECK(ranking_of(R"({"prompt":"more?","score_chosen":3,"score_rejected":3,)" + whole).rank ==
        DataRanks{0, 0});
  says(rankings_error(R"({"prompt":"more?","score_chosen":2,"score_rejected":3,)" + whole),
       "is less than");
  says(rankings_error(R"({"prompt":"other",)" + whole), "does not begin with the prompt");
  says(rankings_error(R"({"chosen":[)" + more + assistant("a") + R"(],"rejected":[)" + user + "," +
                      assistant("b") + "]}"),
       "part before their last message");
  says(rankings_error(R"({"chosen":[)" + user + R"(],"rejected":[)" + user + "]}"),
       "does not end with a message of the assistant");
  says(rankings_error(R"({"chosen":"yes","rejected":"no"})"), "begin with the same");
  says(rankings_error(R"({"chosen":"a b","rejected":"a b"})"), "are equal");
  says(rankings_error(R"({"prompt":"p","completion":"c","label":true})"), "better than no other");
  CHECK(prompt_of("{" + whole).turns == kDialogue);
}

TEST_CASE("data: hh-rlhf's transcripts are turns, too") {
  const std::string dialogue = R"(\n\nHuman: hi\n\nAssistant: hello\n\nHuman: more?\n\nAssistant:)";
  const Ranking r =
      ranking_of(R"({"chosen":")" + dialogue + R"( a","rejected":")" + dialogue + R"( b"})");
  CHECK(r.turns == kDialogue);
  CHECK(r.prompt == "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: more?\n\nAssistant:");
  CHECK(r.responses == DataTexts{" a", " b"});
  CHECK(prompt_of(R"({"prompt":")" + dialogue + "\"}").turns == kDialogue);
  CHECK(turns_of_transcript("say \n\nHuman: to me\n\nAssistant:").empty());
  CHECK(turns_of_transcript("\n\nHuman: a\n\nAssistant: b").empty());
  CHECK(turns_of_transcript("\n\nHuman: a\n\nAssistant: b\n\nAssistant:").empty());
  CHECK(turns_of_transcript("\n\nAssistant:").empty());
  CHECK(turns_of_transcript("\n\nHuman:\n\nAssistant:") == Turns{{"user", ""}});
  CHECK(turns_of_transcript("\n\nHuman: a\n\nAssistant: b\n\nAssistant: c\n\nHuman: d\n\nHuman: e"
                            "\n\nAssistant:") ==
        Turns{{"user", "a"}, {"assistant", "b\n\nc"}, {"user", "d\n\ne"}});
}

TEST_CASE("data: OpenAssistant's trees give a ranking for each message with ranked replies") {
  const std::string tree =
      R"({"message_tree_id":"t","prompt":{"message_id":"m0","role":"prompter",)"
      R"("text":"hi","replies":[{"message_id":"m1","role":"assistant","text":"second","rank":1,)"
      R"("replies":[]},{"message_id":"m2","role":"assistant","text":"hello","rank":0,"replies":[)"
      R"({"message_id":"m3","role":"prompter","text":"more?","replies":[)"
      R"({"role":"assistant","text":"A","rank":null},{"role":"assistant","text":"B","rank":0},)"
      R"({"role":"assistant","text":"C","rank":1},{"role":"assistant","text":"D","rank":2,)"
      R"("deleted":true}]}]},{"role":"assistant","text":"third","rank":2}]}})";
  const auto all = read_as(tree, [](const std::string& path) { return read_rankings(path); });
  REQUIRE(all.records.size() == 2);
  CHECK(all.records[0].id == "m0");
  CHECK(all.records[0].group == "t");
  CHECK(all.records[0].prompt == "hi");
  CHECK(all.records[0].turns.empty());
  CHECK(all.records[0].responses == DataTexts{"second", "hello", "third"});
  CHECK(all.records[0].rank == DataRanks{1, 0, 2});
  CHECK(all.records[1].turns == kDialogue);
  CHECK(all.records[1].responses == DataTexts{"A", "B", "C"});
  CHECK(all.records[1].rank == DataRanks{-1, 0, 1});
  CHECK(contains(all.said, "1 OpenAssistant's message trees"));
  const auto best = read_as(tree, [](const std::string& p) { return read_demonstrations(p); });
  REQUIRE(best.records.size() == 2);
  CHECK(best.records[0].completion == "hello");
  CHECK(best.records[1].completion == "B");
  CHECK(prompt_of(tree).text == "hi");
  CHECK(prompt_of(tree).id == "t");
  // Nobody ranked: no rankings, and no complaint.
  const auto none = read_as(R"({"message_tree_id":"t","prompt":{"role":"prompter","text":"x"}})",
                            [](const std::string& path) { return read_rankings(path); });
  CHECK(none.records.empty());
  says(rankings_error(R"({"message_tree_id":"t","prompt":{"role":"owl","text":"x"}})"), "\"owl\"");
  says(rankings_error(R"({"message_tree_id":"t","prompt":{"role":"prompter","replies":[1]}})"),
       "expected text \"text\"");
  says(rankings_error(R"({"message_id":"m","parent_id":null,"text":"x","rank":0})"), "trees.jsonl");
}

TEST_CASE("data: summarize-from-feedback, UltraFeedback's scores") {
  Ranking r = ranking_of(
      R"({"info":{"id":"t3","post":"Long.","title":"Short","subreddit":"ask","article":null},)"
      R"("summaries":[{"text":" one","policy":"ref"},{"text":" two"}],"choice":1,"worker":"w"})");
  CHECK(r.prompt == "SUBREDDIT: r/ask\n\nTITLE: Short\n\nPOST: Long.\n\nTL;DR:");
  CHECK(r.responses == DataTexts{" one", " two"});
  CHECK(r.rank == DataRanks{1, 0});
  CHECK(r.annotator == "w");
  r = ranking_of(
      R"({"info":{"article":"News."},"summaries":[{"text":"a"},{"text":"b"}],"choice":0})");
  CHECK(r.prompt == "ARTICLE: News.\n\nTL;DR:");
  says(rankings_error(R"({"info":{"post":"x"},"summaries":[{"text":"a"}],"choice":1})"), "choice");
  says(rankings_error(R"({"info":{"post":"x"},"summaries":[{"text":"a"}],"choice":-1})"), "choice");
  says(rankings_error(R"({"info":3,"summaries":[],"choice":0})"), "an object \"info\"");
  says(rankings_error(R"({"info":{"post":"x"},"summary":{"text":"a","axes":{}}})"), "axes");

  r = ranking_of(R"({"instruction":"do","completions":[{"response":"a","overall_score":7.5},)"
                 R"({"response":"b","overall_score":9},{"response":"c","overall_score":"7.5"},)"
                 R"({"response":"d","overall_score":null},{"response":"e","overall_score":1}]})");
  CHECK(r.prompt == "do");
  CHECK(r.rank == DataRanks{1, 0, 1, -1, 3});
  CHECK(r.level == std::vector<double>{7.5, 9, 7.5, 0, 1});
  CHECK(r.systems.empty());
  r = ranking_of(R"({"instruction":"do","completions":[{"response":"a","overall_score":1,)"
                 R"("model":"x"},{"response":"b","overall_score":2,"model":"y"}]})");
  CHECK(r.systems == std::vector<std::string>{"x", "y"});
  r = ranking_of(R"({"instruction":"do","completions":[{"response":"a","overall_score":1,)"
                 R"("model":"x"},{"response":"b","overall_score":2}]})");
  CHECK(r.systems.empty());  // of all, or of none
  r = ranking_of(R"({"prompt":"do","completions":[{"text":"a","fine-grained_score":2},)"
                 R"({"text":"b","fine-grained_score":4}]})");
  CHECK(r.rank == DataRanks{1, 0});
  says(rankings_error(R"({"prompt":"do","completions":[{"text":"a"},{"text":"b"}]})"),
       "overall_score");
  says(rankings_error(R"({"prompt":"do","completions":[{"text":"a"},"b"]})"), "only objects");
  std::string many = R"({"prompt":"do","completions":[{"text":"a","score":1})";
  for (int i = 0; i < 1000; ++i) many += R"(,{"text":"a","score":1})";
  says(rankings_error(many + "]}"), "1000 are the most");
}

TEST_CASE("data: every form gives prompts, and candidates where it has responses") {
  CHECK(prompt_of(R"({"info":{"post":"x"},"summaries":[{"text":"a"},{"text":"b"}],"choice":0})")
            .text == "POST: x\n\nTL;DR:");
  CHECK(prompt_of(R"({"messages":[{"role":"user","content":"hi"}]})").text == "hi");
  CHECK(prompt_of(R"({"messages":[{"role":"user","content":"hi"},)"
                  R"({"role":"assistant","content":"x"}]})")
            .text == "hi");
  CHECK(prompt_of(R"({"tree":"t","prompt":"p","ranked":["a"]})").text == "p");
  const auto candidates = read_as(R"({"prompt":"p","chosen":"a","rejected":"b"})",
                                  [](const std::string& path) { return read_candidates(path); });
  REQUIRE(candidates.records.size() == 1);
  CHECK(candidates.records[0].responses == DataTexts{"a", "b"});
  CHECK(candidates.records[0].finished == std::vector<bool>{true, true});
  // Prompts files are told by their name or by how they begin.
  for (const char* name : {"p.jsonl", "p.json", "p.csv", "p.jsonl.gz", "p", "p.txt"}) {
    const auto prompts = read_as(
        "{\"prompt\":\"a\"}\n{\"prompt\":\"a\"}\n{\"prompt\":\"b\"}\n",
        [](const std::string& path) { return load_prompts(path); }, name);
    CHECK(texts_of(prompts) == DataTexts{"a", "b"});
  }
  const auto lines = read_as(
      gzipped("{curly}\n[square]\n"), [](const std::string& path) { return load_prompts(path); },
      "p.txt");
  CHECK(texts_of(lines) == DataTexts{"{curly}", "[square]"});
}

TEST_CASE("data: dialogues come back as written") {
  const Temporary directory;
  const Turns system{{"system", "Be \n\nHuman: kind."}, {"user", "hi\n\nAssistant: x"}};
  Ranking r;
  r.id = "1", r.responses = {"a", "b"}, r.finished = {true, true}, r.rank = {0, 1};
  for (const Turns& turns : {kDialogue, system}) {
    r.turns = turns, r.prompt = transcript(turns);
    write_jsonl(directory / "r", std::vector<Ranking>{r});
    const Ranking back = read_rankings(directory / "r").records.at(0);
    CHECK(back.turns == turns);
    CHECK(back.prompt == r.prompt);
    write_jsonl(directory / "c",
                std::vector<Candidates>{{"1", r.prompt, {"a"}, {true}, "", "", {}, turns}});
    CHECK(read_candidates(directory / "c").records.at(0).turns == turns);
  }
}

TEST_CASE("data: complaints name file and line in every shape; a list and CSV go on after them") {
  const auto skipped = [](const std::string& bytes) {
    const auto read =
        read_as(bytes, [](const std::string& path) { return read_rankings(path, BadLine::Skip); });
    CHECK(read.records.size() == 2);
    REQUIRE(read.skipped.size() == 1);
    return read.skipped[0];
  };
  const std::string good = R"({"prompt":"p","chosen":"a","rejected":"b"})";
  says(skipped("[" + good + ",\n\n{\"prompt\":\"],\\\"\"},\n" + good + "]"),
       "d.jsonl:3: expected a ranking");
  says(skipped("[" + good + ",\n7,\n" + good + "]"), "d.jsonl:2: expected a JSON object; the item");
  says(skipped("[" + good + ",\n,\n" + good + "]"), "nothing is here");
  says(skipped("[" + good + ",\n{]},\n" + good + "]"), "d.jsonl:2: ");
  const std::string head = "prompt,chosen,rejected\n", row = "p,a,b\n";
  says(skipped(head + "\"p\n\",a,b\n\"p\"x,a,b\n" + row), "d.jsonl:4: something stands between");
  says(skipped(head + row + "p,a\n" + row), "[csv] ");
  says(skipped(head + row + "p,a\n" + row), "d.jsonl:3: the row has 2 cells, the header 3");
  says(skipped(head + row + "\n" + row), "the line is empty");
  says(skipped(head + row + "p\"q\",a,b\n" + row), "a quote stands inside a cell");
  says(skipped(head + row + "p,\xff,b\n" + row), "not UTF-8");
  const auto error = [](const std::string& bytes) { return rankings_error(bytes); };
  says(error(head + "p,\"a,b\n" + row), "d.jsonl:2: a cell's closing quote is missing");
  says(error("prompt,prompt\n"), "two columns have one name");
  says(error("[" + good), "the list is not closed");
  says(error("[" + good + ","), "the list is not closed");
  says(error("[" + good + ",]"), "nothing is here");
  says(error("[" + good + "] x"), "something follows the list");
  says(error("["), "the list is not closed");
  says(error("[[" + std::string(200000, '[')), "d.jsonl:1: ");
  says(error("[[" + std::string(200, '[') + std::string(200, ']') + "]]"), "64 deep");
  says(error("prompt,responses,ranking\np,\"[\"\"a\"\"\",\"[[0]]\"\n"), "column \"responses\"");
  const Ranking r =
      ranking_of("prompt,responses,ranking,finished\np,\"[\"\"a\"\",\"\"b\"\"]\",\"[[1],[0]]\",\n");
  CHECK(r.rank == DataRanks{1, 0});
}

TEST_CASE("data: what is compressed and damaged, cut short or something else") {
  std::string bytes = gzipped(kLines);
  const auto error = [](const std::string& b) { return rankings_error(b, "d.gz"); };
  for (std::size_t cut = 2; cut < bytes.size(); cut += 7) says(error(bytes.substr(0, cut)), "d.gz");
  says(error(bytes.substr(0, bytes.size() - 1)), "is cut short. HINT");
  says(error(bytes + "x"), "something else follows");
  says(error(bytes + "\x1f\x8b"), "d.gz, byte");
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 0x55);
  says(error(bytes), "d.gz");
  bytes = zstd_of(kLines);
  for (std::size_t cut = 4; cut < bytes.size(); cut += 7)
    says(error(bytes.substr(0, cut)), "is cut short");
  says(error(bytes + "x"), "d.gz, byte");
  says(error(gzipped(gzipped(kLines))), "compressed by gzip; UTF-8 text is read");
  says(error("PAR1\x15\x04"), "is Parquet, for which no distribution packages a small library");
  says(error("PAR1\x15\x04"), "read_parquet");
  says(error("ARROW1\0\0"), "is Arrow");
  says(error("\xfd\x37zXZ"), "compressed by xz");
  says(error("BZh91AY&SY"), "compressed by bzip2");
  says(error("PK\x03\x04"), "a zip archive");
  const Temporary directory;
  write_plainly(directory / "r.jsonl.gz", gzipped(kLines));
  says(message_of<DataError>([&] { JsonlAppender(directory / "r.jsonl.gz"); }),
       "lines are added to plain text only");
  CHECK(read_file(directory / "r.jsonl.gz") == gzipped(kLines));
}

TEST_CASE("data: a record without an end is refused, whatever it says that it is") {
  const Temporary directory;
  const auto error = [&](const std::string& begin, const std::string& rest) {
    std::string text = begin;
    while (text.size() < detail::kLongestRecord + 1000) text += rest;
    write_plainly(directory / "d.zst", zstd_of(text));
    return message_of<DataError>([&] { read_rankings(directory / "d.zst"); });
  };
  const std::string block(1 << 20, 'x');
  says(error("{\"prompt\":\"", block), "d.zst:1: a record is longer than 32 MiB");
  says(error("[{},\n{\"prompt\":\"", block), "expected text \"prompt\"");
  says(error("prompt,chosen\n\"", block), "d.zst:2: a record is longer");
  std::string values = "{\"a\":[0";
  for (int i = 0; i <= (1 << 20); ++i) values += ",0";
  write_plainly(directory / "d.zst", zstd_of("{}\n" + values + "]}"));
  says(message_of<DataError>([&] { read_prompts(directory / "d.zst"); }), "expected text");
  const auto skipped = read_prompts(directory / "d.zst", BadLine::Skip).skipped;
  REQUIRE(skipped.size() == 2);
  says(skipped[1], "d.zst:2: the record holds more than 1048576 values");
}

TEST_CASE("data: JsonReader gives parse_json's values, and its refusals") {
  JsonReader reader;
  const std::string texts[] = {"{}",
                               "[]",
                               "null",
                               "true",
                               "\"a\\u00e9\\ud83d\\ude00\\n\"",
                               "0",
                               "-1",
                               "1",
                               "9223372036854775807",
                               "9223372036854775808",
                               "18446744073709551615",
                               "18446744073709551616",
                               "-9223372036854775808",
                               "1.5",
                               "1e3",
                               "-1E-3",
                               "1e999",
                               "01",
                               "1.",
                               "[1,]",
                               "{\"a\":1,\"a\":2}",
                               "{\"a\":{\"b\":[1,{\"c\":null}]}}",
                               "\"\\ud800\"",
                               "\"\xff\"",
                               "nan",
                               "",
                               " 1 ",
                               "1 2",
                               "\"a",
                               "{\"a\":}",
                               "\"\t\"",
                               std::string("1\0", 2),
                               std::string(63, '[') + std::string(63, ']'),
                               std::string(64, '[') + std::string(64, ']'),
                               std::string(65, '[') + std::string(65, ']'),
                               "{\"b\":1,\"a\":2}"};
  const auto outcome = [](auto&& parse) {
    std::string out;
    const std::string error = message_of<DataError>([&] {
      const Json json = parse();
      out = str(json.dump(), ' ', json.type_name(), json.is_number_unsigned());
    });
    return out + error;
  };
  for (const std::string& text : texts) {
    INFO(text);
    CHECK(outcome([&] { return reader.parse(text); }) == outcome([&] { return parse_json(text); }));
  }
  std::string many = "{";
  for (int i = 0; i < 100; ++i) many += str(i > 0 ? ",\"" : "\"", i, "\":", i);
  CHECK(reader.parse(many + "}") == parse_json(many + "}"));
  says(message_of<DataError>([&] { reader.parse(many + ",\"7\":1}"); }), "\"7\" twice");
  const std::string large = "[\"" + std::string(3 << 20, 'a') + "\"]";
  CHECK(reader.parse(large) == parse_json(large));
}

TEST_CASE("data: any bytes at all are read or refused") {
  const Temporary directory;
  Rng rng(7);
  const std::string seeds[] = {kLines, kList, kCsv, gzipped(kLines), zstd_of(kList), gzipped(kCsv)};
  int refused = 0;
  const int rounds = test::sanitized() ? 200 : 1500;
  for (int round = 0; round < rounds; ++round) {
    std::string bytes = seeds[round % 6];
    const auto below = [&](std::size_t n) { return static_cast<std::size_t>(rng.bits() % n); };
    for (std::size_t changes = 1 + below(3); changes > 0 && !bytes.empty(); --changes) {
      const std::size_t at = below(bytes.size());
      switch (below(4)) {
        case 0: bytes[at] = static_cast<char>(below(256)); break;
        case 1: bytes.erase(at, 1 + below(20)); break;
        case 2: bytes.insert(at, bytes.substr(below(bytes.size()), below(30))); break;
        default: bytes.insert(at, 1, "\"{}[],\n\\:\0"[below(10)]);
      }
    }
    write_plainly(directory / "f", bytes);
    for (const bool skip : {false, true}) {
      const std::string message = message_of<DataError>(
          [&] { read_rankings(directory / "f", skip ? BadLine::Skip : BadLine::Refuse); });
      if (message.empty()) continue;
      CHECK(contains(message, directory / "f"));
      ++refused;
    }
  }
  CHECK(refused > rounds / 3);
}
