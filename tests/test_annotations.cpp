// What people ranked in Argilla and Label Studio, read from their exports. The records are written
// by hand, as documented: Argilla's FeedbackRecord, ResponseSchema and RankingValueSchema (version
// 1), GenericIO.to_list (version 2); Label Studio's "Task format" and tags Ranker and Pairwise, and
// label-studio-converter's convert_to_json_min.
#include "files.hpp"

#include <plumb/data/jsonl.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace plumb;

namespace {

using RanksOf = std::vector<int>;
using TextsOf = std::vector<std::string>;

Lines<Ranking> rankings_in(const std::string& text) {
  const Temporary directory;
  write_plainly(directory / "export.json", text);
  return read_rankings(directory / "export.json");
}

// The complaint about a file of one good record and this one.
std::string export_error(const std::string& record) {
  const std::string good = R"({"prompt":"p","responses":["a","b"],"ranking":[[1],[0]]})";
  const std::string message =
      message_of<DataError>([&] { rankings_in("[" + good + ",\n" + record + "]"); });
  says(message, "export.json:2: ");
  return message;
}

const std::string kArgillaFields =
    R"("fields":{"prompt":"Name a colour.","reply-1":"Blue.","reply_2":"Seven.","reply-3":"Red."})";

std::string argilla(const std::string& values, const std::string& status = "submitted") {
  return "{" + kArgillaFields + R"(,"responses":[{"user_id":"u","status":")" + status +
         R"(","values":{"ranking":{"value":)" + values + "}}}]}";
}

const std::string kItems =
    R"("data":{"prompt":"P?","items":[{"id":"blog","title":"t","body":"B"},{"id":7,"body":"M"},)"
    R"({"id":"wiki","title":"W"}]})";

std::string task(const std::string& result, const std::string& data = kItems) {
  return "{\"id\":5," + data +
         R"(,"annotations":[{"completed_by":3,"was_cancelled":false,"result":[)" + result + "]}]}";
}
std::string ranker(const std::string& value) {
  return R"({"from_name":"rank","to_name":"results","type":"ranker","value":{"ranker":)" + value +
         "}}";
}

}  // namespace

TEST_CASE("annotations: Argilla's feedback records, one ranking a person") {
  const Lines<Ranking> lines = rankings_in("[{" + kArgillaFields + R"(,
    "metadata":{"lang":"en"},"external_id":"q1","suggestions":[],"responses":[
    {"user_id":"6f1a","status":"submitted","values":{"why":{"value":"two are right"},
     "ranking":{"value":[{"value":"reply-2","rank":3},{"value":"reply-1","rank":1},
                         {"value":"reply-3","rank":1}]}}},
    {"user_id":"90bc","status":"submitted","values":{
     "ranking":{"value":[{"value":"reply-3","rank":2},{"value":"reply-1","rank":1},
                         {"value":"reply-2","rank":null}]}}},
    {"user_id":"77aa","status":"discarded","values":{}},
    {"user_id":"88aa","status":"draft","values":{
     "ranking":{"value":[{"value":"reply-1","rank":1}]}}},
    {"user_id":"99aa","status":"discarded","values":null}]},
   {"fields":{"prompt":"x","reply-1":"a"},"responses":[],"suggestions":[]}])");
  REQUIRE(lines.records.size() == 2);
  const Ranking &a = lines.records[0], &b = lines.records[1];
  CHECK(a.id == "q1");
  CHECK(b.id == "q1");
  CHECK(a.prompt == "Name a colour.");
  CHECK(a.group == a.prompt);
  CHECK(a.responses == TextsOf{"Blue.", "Seven.", "Red."});
  CHECK(a.rank == RanksOf{0, 2, 0});  // equal ranks tie
  CHECK(b.rank == RanksOf{0, -1, 1});
  CHECK(a.annotator == "6f1a");
  CHECK(b.annotator == "90bc");
  CHECK(a.labeller == "person");
  CHECK(a.finished == std::vector<bool>(3, true));
  says(lines.said, "a JSON list: 2 Argilla's records (fields, responses); answers left out");
  says(lines.said, "rank nothing: 3");
}

TEST_CASE("annotations: Argilla's second version, nested and flattened") {
  const Lines<Ranking> nested = rankings_in(
      R"([{"id":"r7","fields":{"instruction":[{"role":"user","content":"Say hi."}],
      "a":"Hi.","b":"No."},
      "metadata":{},"suggestions":{},"vectors":{},"_server_id":"e1","responses":{
      "preference":[{"value":[{"value":"b","rank":2},{"value":"a","rank":1}],"user_id":"u1"}],
      "rating":[{"value":4,"user_id":"u1"}]}}])");
  REQUIRE(nested.records.size() == 1);
  CHECK(nested.records[0].prompt == "Say hi.");
  CHECK(nested.records[0].responses == TextsOf{"Hi.", "No."});
  CHECK(nested.records[0].rank == RanksOf{0, 1});
  CHECK(nested.records[0].annotator == "u1");
  CHECK(nested.records[0].id == "r7");

  const Lines<Ranking> flat = rankings_in(
      R"({"id":"r8","_server_id":"e","prompt":"Say hi.","a":"Hi.","b":"No.","source":"w",)"
      R"("preference.responses":[[{"value":"b","rank":1},{"value":"a","rank":1}],)"
      R"([{"value":"b","rank":1},{"value":"a","rank":2}],[{"value":"a","rank":1}]],)"
      R"("preference.responses.users":["u1","u2","u3"],)"
      R"("preference.responses.status":["submitted","submitted","draft"],"why.responses":null})");
  REQUIRE(flat.records.size() == 2);
  CHECK(flat.records[0].rank == RanksOf{0, 0});
  CHECK(flat.records[1].rank == RanksOf{1, 0});
  CHECK(flat.records[1].annotator == "u2");
  says(flat.said, "JSON Lines: 1 Argilla's records, flattened");
  says(flat.said, "rank nothing: 1");
}

TEST_CASE("annotations: what an Argilla record does not say is refused by its name") {
  const std::string all = R"({"value":"reply-1","rank":1},{"value":"reply-2","rank":2},)";
  CHECK(rankings_in(argilla("[" + all + R"({"value":"reply-3","rank":3}])")).records.size() == 1);
  says(export_error(argilla("[" + all + R"({"value":"reply-9","rank":3}])")),
       "\"reply-9\" is ranked, and is none of the 2 items");
  says(export_error(argilla("[" + all + R"({"value":"reply-2","rank":3}])")),
       "\"reply-2\" is ranked twice");
  says(export_error(argilla(R"([{"value":"reply-1","rank":1},{"value":"reply-2","rank":2}])")),
       "which text is the prompt cannot be told, of: \"prompt\", \"reply-3\"");
  for (const char* rank : {"0", "-1", "1.5", "\"1\"", "true"})
    says(export_error(argilla("[" + all + R"({"value":"reply-3","rank":)" + rank + "}]")),
         "a whole number from 1 as \"rank\"");
  says(export_error(argilla("[" + all + R"({"value":3,"rank":3}])")), "expected text \"value\"");
  // Two people, of whom one leaves out what the other ranks.
  says(export_error("{" + kArgillaFields +
                    R"(,"responses":[{"user_id":"u","values":{"r":{"value":[)" + all +
                    R"({"value":"reply-3","rank":3}]}}},{"user_id":"v","values":{"r":{"value":[)" +
                    R"({"value":"reply-1","rank":1},{"value":"reply-3","rank":2}]}}}]})"),
       "a ranking leaves out \"reply-2\"");
  for (const char* other : {"3", R"([{"rank":1}])", R"(["reply-1"])", "[]"})
    says(export_error("{" + kArgillaFields + R"(,"responses":{"r":[{"value":[)" + all +
                      R"({"value":"reply-3","rank":3}]},{"value":)" + other + "}]}}"),
         "an answer to \"r\" is no list of");
  // Version 2 lists the names and drops the ranks; ratings and labels do not say what is better.
  says(export_error(argilla(R"(["reply-1","reply-2"])")),
       "Argilla 2 exports the ranks of no ranking");
  says(export_error(argilla("4")), "answers to \"ranking\", of which the file does not say");
  says(export_error(argilla("\"A is better\"")), "HINT");
  says(export_error("{" + kArgillaFields +
                    R"(,"responses":{"one":[{"value":[{"value":"reply-1","rank":1}]}],)" +
                    R"("two":[{"value":[{"value":"reply-1","rank":1}]}]}})"),
       "two questions rank, \"one\" and \"two\"");
  says(export_error("{" + kArgillaFields + R"(,"responses":[3]})"),
       "only objects in \"responses\"");
  says(export_error("{" + kArgillaFields + R"(,"responses":[{"status":"submitted"}]})"),
       "an object \"values\"");
  says(export_error("{" + kArgillaFields + R"(,"responses":"none"})"), "a list \"responses\"");
  says(export_error("{" + kArgillaFields + R"(,"responses":{"one":3}})"),
       "list of answers to \"one\"");
  says(export_error(R"({"prompt":"p","a":"x","q.responses":[[{"value":"a","rank":1}]],)"
                    R"("q.responses.users":["u","v"]})"),
       "lists of one length as \"q.responses\"");
  says(export_error(R"({"text":"p","a":"x","q.responses":[[{"value":"a","rank":1}]]})"),
       "HINT: one field named \"prompt\"");
}

TEST_CASE("annotations: Label Studio's rankers, one ranking an annotation") {
  const Lines<Ranking> lines =
      rankings_in("[{\"id\":1," + kItems + R"(,"predictions":[],"annotations":[
      {"id":11,"completed_by":{"id":3,"email":"ana@example.org"},"was_cancelled":false,
       "lead_time":4.288,"created_at":"2021-03-09T22:16:08.728353Z","result":[)" +
                  ranker(R"({"rank":[7,"wiki","blog"]})") + R"(]},
      {"id":12,"completed_by":4,"was_cancelled":true,"result":[)" +
                  ranker(R"({"rank":[7,"wiki","blog"]})") + R"(]},
      {"id":13,"completed_by":5,"result":[)" +
                  ranker(R"({"_":["blog"],"best":["wiki",7]})") + R"(]},
      {"id":14,"completed_by":6,"result":[)" +
                  ranker(R"(["blog",7,"wiki"])") + R"(]},
      {"id":15,"completed_by":7,"result":[)" +
                  ranker(R"({"_":["blog",7,"wiki"]})") + R"(]},
      {"id":16,"completed_by":8,"result":[]}]},
      {"id":2,"data":{"prompt":"unasked"},"annotations":[]}])");
  REQUIRE(lines.records.size() == 3);
  const Ranking& a = lines.records[0];
  CHECK(a.id == "1");
  CHECK(a.prompt == "P?");
  CHECK(a.responses == TextsOf{"B", "M", "W"});
  CHECK(a.rank == RanksOf{2, 0, 1});
  CHECK(a.annotator == "ana@example.org");
  CHECK(a.seconds == 4.288);
  CHECK(a.time == "2021-03-09T22:16:08.728353Z");
  CHECK(lines.records[1].rank == RanksOf{-1, 1, 0});
  CHECK(lines.records[1].annotator == "5");
  CHECK(lines.records[1].seconds == 0.0);
  CHECK(lines.records[2].rank == RanksOf{0, 1, 2});
  says(lines.said, "2 Label Studio's tasks (data, annotations); answers left out");
  says(lines.said, "rank nothing: 3");
}

TEST_CASE("annotations: Label Studio's pairs, and JSON-MIN") {
  const auto pair = [](const std::string& data, const std::string& to, const std::string& side) {
    return rankings_in(task(R"({"from_name":"pw","to_name":")" + to +
                                R"(","type":"pairwise","value":{"selected":)" + side + "}}",
                            "\"data\":" + data))
        .records;
  };
  auto got = pair(R"({"prompt":"Q?","answer1":"one","answer2":"two"})", "pw", "\"right\"");
  REQUIRE(got.size() == 1);
  CHECK(got[0].responses == TextsOf{"one", "two"});
  CHECK(got[0].rank == RanksOf{1, 0});
  // The tags name the texts: the left one is the first of them.
  got = pair(R"({"question":"Q?","new":"one","old":"two"})", "old,new", "\"left\"");
  CHECK(got.at(0).responses == TextsOf{"two", "one"});
  CHECK(got.at(0).rank == RanksOf{0, 1});
  CHECK(got.at(0).prompt == "Q?");
  CHECK(pair(R"({"prompt":"Q?","answer1":"one","answer2":"two"})", "pw", "\"none\"").empty());

  const Lines<Ranking> min = rankings_in(
      R"([{"prompt":"Q?","answer1":"one","answer2":"two","id":2,"comparison":[{"selected":"left"}],
      "annotator":3,"annotation_id":7,"created_at":"2023-08-01T10:00:00Z","lead_time":9.5},
      {"prompt":"P?","items":[{"id":"a","body":"A"},{"id":"b","body":"B"}],"id":3,
      "rank":[{"ranker":{"rank":["b","a"]}}],"annotator":"bob@example.org","annotation_id":8}])");
  REQUIRE(min.records.size() == 2);
  CHECK(min.records[0].rank == RanksOf{0, 1});
  CHECK(min.records[0].annotator == "3");
  CHECK(min.records[0].seconds == 9.5);
  CHECK(min.records[1].responses == TextsOf{"A", "B"});
  CHECK(min.records[1].rank == RanksOf{1, 0});
  CHECK(min.records[1].annotator == "bob@example.org");
  says(min.said, "2 Label Studio's JSON-MIN");
}

TEST_CASE("annotations: what a Label Studio task does not say is refused by its name") {
  says(export_error(task(ranker(R"({"rank":[7,"wiki","blg"]})"))),
       "\"blg\" is ranked, and is none of the 3 items");
  says(export_error(task(ranker(R"({"rank":[7,"wiki",7]})"))), "\"7\" is ranked twice");
  says(export_error(task(ranker(R"([7,"wiki"])"))), "a ranking leaves out \"blog\"");
  says(export_error(task(ranker(R"({"good":[7],"bad":["wiki"]})"))),
       "sorted into buckets, \"good\", \"bad\"");
  says(export_error(task(ranker("3"))), "a list of ids");
  says(export_error(task(ranker(R"({"rank":[{"id":7}]})"))), "only ids");
  says(export_error(task(ranker(R"({"a":["wiki"]})") + "," + ranker(R"({"b":["wiki"]})"))),
       "an annotation ranks twice");
  says(export_error(task(R"({"type":"choices","value":{"choices":["A is better"]}})")),
       "no result of a Ranker or a Pairwise, but of \"choices\"");
  says(export_error(task("3")), "only objects as results");
  says(export_error(task(ranker(R"(["a"])"), R"("data":{"prompt":"p","items":["a"]})")),
       "expected a list of items");
  says(export_error(task(ranker(R"(["a"])"), R"("data":{"prompt":"p","items":[{"id":"a"}]})")),
       "expected text \"title\"");
  says(export_error(
           task(ranker(R"(["a"])"),
                R"("data":{"prompt":"p","items":[{"id":"a","body":"x"},{"id":"a","body":"y"}]})")),
       "two items have the \"id\" \"a\"");
  says(export_error(
           task(ranker(R"(["a"])"), R"("data":{"x":"p","y":"q","items":[{"id":"a","body":"x"}]})")),
       "which text is the prompt cannot be told, of: \"x\", \"y\"");
  const std::string chosen = R"({"type":"pairwise","to_name":"l,r","value":{"selected":"left"}})";
  says(export_error(task(chosen, R"("data":{"prompt":"p","one":"x","other":"y"})")),
       "which texts a Pairwise compares cannot be told");
  says(export_error(task(R"({"type":"pairwise","value":{"selected":"up"}})",
                         R"("data":{"prompt":"p","a1":"x","a2":"y"})")),
       "expected \"left\" or \"right\"");
  says(export_error(R"({"data":{"prompt":"p"},"annotations":3})"), "a list \"annotations\"");
  std::string many;  // more than anybody ranks, or any record has annotators
  for (int i = 0; i < 1001; ++i) many += str(i > 0 ? "," : "", R"({"result":[]})");
  says(export_error(R"({"data":{"prompt":"p"},"annotations":[)" + many + "]}"),
       "1001 answers to one record");
  many.clear();
  for (int i = 0; i < 1001; ++i) many += str(i > 0 ? "," : "", R"({"body":"x","id":)", i, "}");
  says(export_error(task(ranker("[1]"), R"("data":{"prompt":"p","items":[)" + many + "]}")),
       "a ranking of 1001 responses");
  says(export_error(R"({"data":{"prompt":"p"},"annotations":[3]})"),
       "only objects in \"annotations\"");
}

TEST_CASE("annotations: prompts, candidates and the best response come out of them, too") {
  const Temporary directory;
  const std::string path = directory / "export.json";
  write_plainly(path, "[{\"id\":1," + kItems + R"(,"annotations":[{"completed_by":1,"result":[)" +
                          ranker(R"({"rank":[7,"wiki","blog"]})") +
                          R"(]},{"completed_by":2,"result":[)" +
                          ranker(R"({"rank":["blog",7,"wiki"]})") + "]}]}]");
  const auto prompts = read_prompts(path).records;
  REQUIRE(prompts.size() == 1);
  CHECK(prompts[0].text == "P?");
  const auto candidates = read_candidates(path).records;
  REQUIRE(candidates.size() == 1);  // asked once, whoever answered
  CHECK(candidates[0].responses == TextsOf{"B", "M", "W"});
  const auto best = read_demonstrations(path).records;
  REQUIRE(best.size() == 2);
  CHECK(best[0].completion == "M");
  CHECK(best[1].completion == "B");
}
