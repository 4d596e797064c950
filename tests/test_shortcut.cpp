// What a policy found: counted by hand, over-used words among many, and a win rate that length and
// ending explain told from one that they do not.
#include "../app/rule.hpp"
#include "../app/shortcut.hpp"

#include "support.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace plumb;
using test::contains;

namespace {

Candidates one(int prompt, const std::string& response, bool finished = true) {
  Candidates c;
  c.prompt = str("Prompt ", prompt);
  c.responses = {response};
  c.finished = {finished};
  return c;
}

std::string words(int count, const std::string& word) {
  std::string out;
  for (int i = 0; i < count; ++i) out += (i ? " " : "") + word;
  return out;
}

// What is found under a judge that scores by a function of the text.
template <class Score>
Shortcut found(const std::vector<Candidates>& before, const std::vector<Candidates>& after,
               Score score) {
  JudgeTools tools;
  tools.reward_model = [&](const std::string&) {
    return [&](const std::vector<Candidates>& candidates) {
      std::vector<double> scores;
      for (const Candidates& c : candidates) scores.push_back(score(c.responses[0]));
      return scores;
    };
  };
  const auto judge = make_judge("scores", tools);
  return find_shortcut(before, after, *judge, judge->compare(before, after), nullptr);
}

double shortness(const std::string& text) { return -static_cast<double>(text.size()); }
double goodness(const std::string& text) { return contains(text, "good") ? 1.0 : 0.0; }

}  // namespace

TEST_CASE("shortcut: texts in numbers, by hand") {
  const std::vector<Candidates> before = {one(0, "The cat sat. The cat ran.", false),
                                          one(1, "\"Hi,\" said Tom \xC3\xA9.")};
  const std::vector<Candidates> after = {one(0, "Fun fun fun."), one(1, "")};
  const auto judge = make_judge("rule:warm");
  const Shortcut s =
      find_shortcut(before, after, *judge, judge->compare(before, after), &rule_of("rule:warm"));
  CHECK(s.before.responses == 2);
  CHECK(s.before.characters == (25 + 17) / 2.0);  // é is one
  CHECK(s.before.words == 5);                     // the cat sat the cat ran, hi said tom é
  CHECK(s.before.finished == 0.5);
  CHECK(s.before.dialogue == 0.5);
  CHECK(s.before.distinct == doctest::Approx((4.0 / 6 + 1.0) / 2));
  CHECK(s.after.words == 1.5);
  CHECK(s.after.finished == 1.0);
  CHECK(s.after.dialogue == 0.0);
  CHECK(s.after.distinct == doctest::Approx((1.0 / 3 + 0.0) / 2));
  CHECK(s.before.first_words == 3);  // as many as the shorter side has
  CHECK(s.before.vocabulary == 3);
  CHECK(s.after.vocabulary == 1);
  REQUIRE(s.after.parts.size() == 4);
  CHECK(s.after.parts.back().first == "total");
  CHECK(s.after.parts.back().second ==
        doctest::Approx((warm_score("", "Fun fun fun.", true).total - 10.0) / 2));
  CHECK(s.matched.n() < 10);
  CHECK(contains(s.sentence(), "6 characters instead of 21"));
  CHECK(contains(s.sentence(), "100.0 % end by themselves instead of 50.0 %"));
  CHECK(contains(s.sentence(), "cannot be told"));
}

TEST_CASE("shortcut: words and openings that came up, and not those that were common all along") {
  std::vector<Candidates> before, after;
  for (int i = 0; i < 60; ++i) {
    before.push_back(one(i, "The cat and the dog went to the park and sat in the sun."));
    after.push_back(one(i, "They were happy and the dog and the cat went to the happy sun."));
  }
  const Shortcut s = found(before, after, shortness);
  REQUIRE(!s.words.empty());
  CHECK(s.words[0].text == "happy");
  CHECK(s.words[0].before == 0);
  CHECK(s.words[0].after == 120);
  CHECK(s.words[0].z >= 3);
  for (const Overused& o : s.words) {
    CHECK(o.text != "dog");
    CHECK(o.text != "park");
  }
  REQUIRE(s.openings.size() == 1);
  CHECK(s.openings[0].text == "they were happy");
  CHECK(contains(s.sentence(), "\"happy\" (0.0 in a thousand words before, 142.9 after)"));
  CHECK(s.before.parts.empty());
  // The same texts on both sides: nothing came up.
  const Shortcut same = found(before, before, shortness);
  CHECK(same.words.empty());
  CHECK(same.openings.empty());
}

// Sentences of five words, `good` of them good ones, in turn from the first.
std::string sentences(int count, int good) {
  std::string out;
  for (int i = 0; i < count; ++i)
    out += str(i ? " " : "", i < good ? "This is a good one." : "This is a plain one.");
  return out;
}

TEST_CASE("shortcut: a win by length alone is gone at equal length") {
  std::vector<Candidates> before, after;
  for (int i = 0; i < 100; ++i) {
    before.push_back(one(i, sentences(10, 0) + " And then", false));
    after.push_back(one(i, sentences(2 + i % 4, 0)));
  }
  const Shortcut s = found(before, after, shortness);
  CHECK(s.win_rate == 1.0);
  CHECK(s.cut);
  CHECK(s.matched.n() == 100);
  CHECK(s.matched.rate() == 0.5);  // the same sentences, cut where the others end
  CHECK(contains(s.sentence(), "At equal length and ending (100 of 100 responses"));
  CHECK(contains(s.sentence(), "apart from length and ending no gain is shown"));
}

TEST_CASE("shortcut: a win for another reason stays") {
  std::vector<Candidates> before, after;
  for (int i = 0; i < 100; ++i) {
    before.push_back(one(i, sentences(10, i % 10 == 0), false));
    after.push_back(one(i, sentences(3, i % 10 != 0)));
  }
  const Shortcut s = found(before, after, goodness);
  CHECK(s.matched.n() == 100);
  CHECK(s.matched.rate() == 0.9);
  CHECK(s.matched.interval().low > 0.5);
  CHECK(contains(s.sentence(), "preferred for more than their length and ending"));
  for (std::size_t i = 0; i < 100; ++i) std::swap(before[i].responses, after[i].responses);
  for (std::size_t i = 0; i < 100; ++i) before[i].responses = {sentences(10, i % 10 != 0)};
  for (std::size_t i = 0; i < 100; ++i) after[i].responses = {sentences(3, i % 10 == 0)};
  CHECK(contains(found(before, after, goodness).sentence(), "became worse"));
}

TEST_CASE("shortcut: where a text is cut") {
  const std::string text = "Tom sat. \"Look at 3.5 cats!\" he said. Then they ran home... And so";
  CHECK(cut_to(text, 2, true) == "Tom sat.");
  CHECK(cut_to(text, 5, true) == "Tom sat. \"Look at 3.5 cats!\"");  // 3.5 ends nothing
  CHECK(cut_to(text, 7, true) == "Tom sat. \"Look at 3.5 cats!\" he said.");
  CHECK(cut_to(text, 11, true) == "Tom sat. \"Look at 3.5 cats!\" he said. Then they ran home...");
  CHECK(cut_to(text, 30, true) == std::nullopt);
  CHECK(cut_to("no end in sight at all", 3, true) == std::nullopt);
  CHECK(cut_to("no end in sight at all", 3, false) == "no end in");
  CHECK(cut_to("no end", 3, false) == "no end");  // within two words
  CHECK(cut_to("", 0, false) == "");
}

TEST_CASE("shortcut: a judge that only prefers is taken at its own pairs") {
  std::vector<Candidates> before, after;
  for (int i = 0; i < 60; ++i) {
    before.push_back(one(i, words(i < 20 ? 23 : 24, "word"), i < 40));  // 23 of 20 are within 15 %
    after.push_back(one(i, words(20, "good"), true));
  }
  const auto judge = make_judge("rule:warm");
  Verdict v = judge->compare(before, after);
  v.scored = false;
  for (std::size_t i = 0; i < 60; ++i) v.items[i].preference = i < 15 ? 1.0 : 0.0;
  const Shortcut s = find_shortcut(before, after, *judge, v, nullptr);
  CHECK(!s.cut);
  CHECK(s.matched.n() == 20);
  CHECK(s.matched.rate() == 0.75);
  CHECK(s.win_rate == 0.25);
  for (Candidates& c : before) c.finished = {false};  // other endings
  const Shortcut none = find_shortcut(before, after, *judge, v, nullptr);
  CHECK(none.matched.n() == 0);
  CHECK(contains(none.sentence(), "cannot be told: 0 of 60 pairs"));
}
