// Rankings in the forms of others: what is written is read again to the same pairs, whatever the
// texts hold; what a form cannot say is left out and counted.
#include "../app/export.hpp"

#include "files.hpp"

#include <plumb/data/jsonl.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace plumb;

namespace {

Ranking to_export(const std::string& prompt, std::vector<std::string> responses,
                  std::vector<int> rank) {
  Ranking r;
  r.id = "r1";
  r.prompt = r.group = prompt;
  r.turns = turns_of_transcript(prompt);
  r.finished.assign(responses.size(), true);
  r.responses = std::move(responses);
  r.rank = std::move(rank);
  r.labeller = "person";
  return r;
}

std::vector<Ranking> read_back(const Exported& out) {
  const Temporary directory;
  std::string text;
  for (const std::string& line : out.lines) text += line;
  write_plainly(directory / "out.jsonl", text);
  return read_rankings(directory / "out.jsonl").records;
}

// Texts that a careless writer would garble.
const std::vector<std::string> kHostile{
    "plain",
    "\"quoted\" and \\back\\slashed",
    "two\nlines\r\nand\ttabs",
    "\n\nHuman: I am no human",
    "said\n\nAssistant: twice\n\nHuman: why?",
    "{\"prompt\":\"json\"}",
    "<|im_start|>user</s>\x01\x1f",
    "  blanks at both ends  ",
    "кириллица, 漢字, 😀",
    "",
};

}  // namespace

TEST_CASE("export: pairs are those that the ranking decides, and the others are counted") {
  const std::vector<Ranking> all{to_export("p", {"a", "b", "c", "d", "a"}, {1, 0, 1, -1, 2})};
  for (const ExportForm form : {ExportForm::Trl, ExportForm::HhRlhf}) {
    const Exported out = export_rankings(all, form);
    // b > a, b > c, b > a', c > a'; a and c tie; a and a' are one text; d is unranked.
    CHECK(out.lines.size() == 4);
    CHECK(out.ties == 1);
    CHECK(out.identical == 1);
    CHECK(out.unranked == 4);
    CHECK(out.unsaid == 0);
    CHECK(out.said() ==
          "4 pairs of 1 rankings; left out: 1 ties, 4 pairs with an unranked response, 1 pairs of "
          "the same text");
    CHECK(out.json().at("written") == 4);
  }
  const Exported pairs = export_rankings(all, ExportForm::Trl);
  CHECK(pairs.lines[0] == "{\"prompt\":\"p\",\"chosen\":\"b\",\"rejected\":\"a\"}\n");
  const Exported transcripts = export_rankings(all, ExportForm::HhRlhf);
  CHECK(transcripts.lines[0] ==
        "{\"chosen\":\"\\n\\nHuman: p\\n\\nAssistant: b\",\"rejected\":\"\\n\\nHuman: "
        "p\\n\\nAssistant: a\"}\n");
  CHECK_THROWS_AS(export_form("csv"), DataError);
  CHECK(export_form("hh-rlhf") == ExportForm::HhRlhf);
}

TEST_CASE("export: a dialogue is messages for TRL, and turns in a transcript") {
  const std::string dialogue = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: more\n\nAssistant:";
  const std::vector<Ranking> all{to_export(dialogue, {"yes", "no"}, {0, 1})};
  const Exported trl = export_rankings(all, ExportForm::Trl);
  REQUIRE(trl.lines.size() == 1);
  const Json line = parse_json(trl.lines[0], "line");
  CHECK(line.at("prompt").size() == 3);
  CHECK(line.at("prompt")[1] == Json{{"role", "assistant"}, {"content", "hello"}});
  CHECK(line.at("chosen") == Json::array({{{"role", "assistant"}, {"content", "yes"}}}));
  CHECK(read_back(trl).at(0).turns == all[0].turns);
  const Exported hh = export_rankings(all, ExportForm::HhRlhf);
  CHECK(parse_json(hh.lines.at(0), "line").at("chosen") == dialogue + " yes");
  CHECK(read_back(hh).at(0).turns == all[0].turns);
}

TEST_CASE("export: hostile texts come back, or are left out and said") {
  std::vector<Ranking> all;
  for (const std::string& prompt : kHostile)
    for (const std::string& good : kHostile)
      all.push_back(to_export(prompt, {"worse", good}, {1, 0}));
  for (const ExportForm form : {ExportForm::Rankings, ExportForm::Trl, ExportForm::HhRlhf}) {
    const Exported out = export_rankings(all, form);
    const std::vector<Ranking> back = read_back(out);
    REQUIRE(back.size() == out.lines.size());
    CHECK(out.lines.size() + out.unsaid == all.size());
    std::size_t at = 0;
    for (const Ranking& read : back) {
      // In their order: each is one of those that were given, up to the form's own blank.
      const auto same = [&](const Ranking& given) {
        const bool hh = form == ExportForm::HhRlhf;
        const std::string prompt =
            hh ? "\n\nHuman: " + given.prompt + "\n\nAssistant:" : given.prompt;
        const std::size_t best = read.rank[0] == 0 ? 0 : 1;
        const std::string& text = read.responses[best];
        const std::string& good = given.responses[1];
        return read.prompt == prompt && read.rank[1 - best] == 1 &&
               (text == good || (hh && text == " " + good));
      };
      while (at < all.size() && !same(all[at])) ++at;
      CHECK(at < all.size());
      ++at;
    }
    INFO(out.said());
    if (form == ExportForm::HhRlhf) {
      // Of ten prompts two have marks and one has blanks; of ten responses two have marks.
      CHECK(out.lines.size() == 7 * 8);
      CHECK(out.first_unsaid == "r1: a response has a mark of a turn in it");
    } else {
      CHECK(out.unsaid == 0);
    }
  }
}

TEST_CASE("export: a text that only looks like a transcript stays a text") {
  // One message of the user's, whose text is a transcript: as text it would be read as turns.
  Ranking r = to_export("x", {"a", "b"}, {0, 1});
  r.prompt = r.group = "\n\nHuman: quoted\n\nAssistant:";
  for (const ExportForm form : {ExportForm::Rankings, ExportForm::Trl}) {
    const Exported out = export_rankings({r}, form);
    CHECK(out.lines.size() == 1);
    CHECK(read_back(out).at(0).prompt == r.prompt);
    CHECK(read_back(out).at(0).turns.empty());
  }
  const Exported hh = export_rankings({r}, ExportForm::HhRlhf);
  CHECK(hh.lines.empty());
  CHECK(hh.first_unsaid == "r1: a turn has blanks at an end, or a mark of a turn in it");
  r.prompt = "Be brief.\n\nHuman: hi\n\nAssistant:";
  r.turns = {{"system", "Be brief."}, {"user", "hi"}};
  CHECK(export_rankings({r}, ExportForm::Trl).lines.size() == 1);
  CHECK(export_rankings({r}, ExportForm::HhRlhf).first_unsaid ==
        "r1: a transcript has no place for what the system says");
}

TEST_CASE("export: Plumb's own lines keep all that a ranking says") {
  Ranking r = to_export("p", {"a", "b", "c"}, {1, 0, -1});
  r.annotator = "ana";
  r.seconds = 12.5;
  r.systems = {"x", "y", "z"};
  r.unusable = {2};
  r.comment = "a \"comment\"";
  r.shown = {2, 0, 1};
  const Exported out = export_rankings({r}, ExportForm::Rankings);
  REQUIRE(out.lines.size() == 1);
  CHECK(out.lines[0] == detail::json_line(to_json(r)));
  CHECK(out.said() == "1 rankings of 1 rankings");
}
