// What a policy found: counted by hand, over-used words among many, and a win rate that length and
// ending explain told from one that they do not.
#include "../app/command_judge.cpp"
#include "../app/judge.cpp"
#include "../app/rank.cpp"
#include "../app/ranking_session.cpp"
#include "../app/shortcut.cpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace plumb;

namespace {

bool has(const std::string& text, const std::string& what) { return text.find(what) != text.npos; }

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

// A judge that scores by a function of the text.
template <class Score>
Verdict judged(const std::vector<Candidates>& before, const std::vector<Candidates>& after,
               Score score) {
  JudgeTools tools;
  tools.reward_model = [&](const std::string&) {
    return [&](const std::vector<Candidates>& candidates) {
      std::vector<double> scores;
      for (const Candidates& c : candidates) scores.push_back(score(c.responses[0]));
      return scores;
    };
  };
  return make_judge("scores", tools)->compare(before, after);
}

double shortness(const std::string& text) { return -static_cast<double>(text.size()); }
double goodness(const std::string& text) { return has(text, "good") ? 1.0 : 0.0; }

}  // namespace

TEST_CASE("shortcut: texts in numbers, by hand") {
  const std::vector<Candidates> before = {one(0, "The cat sat. The cat ran.", false),
                                          one(1, "\"Hi,\" said Tom \xC3\xA9.")};
  const std::vector<Candidates> after = {one(0, "Fun fun fun."), one(1, "")};
  const Shortcut s = find_shortcut(before, after, make_judge("rule:warm")->compare(before, after),
                                   &rule_of("rule:warm"));
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
  CHECK(std::isnan(s.matched.rate));
  CHECK(has(s.sentence(), "6 characters instead of 21"));
  CHECK(has(s.sentence(), "100.0 % end by themselves instead of 50.0 %"));
  CHECK(has(s.sentence(), "cannot be told"));
  CHECK(s.json().at("matched").at("win_rate").dump() == "null");
}

TEST_CASE("shortcut: words and openings that came up, and not those that were common all along") {
  std::vector<Candidates> before, after;
  for (int i = 0; i < 60; ++i) {
    before.push_back(one(i, "The cat and the dog went to the park and sat in the sun."));
    after.push_back(one(i, "They were happy and the dog and the cat went to the happy sun."));
  }
  const Shortcut s = find_shortcut(before, after, judged(before, after, shortness), nullptr);
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
  CHECK(has(s.sentence(), "\"happy\" (0 times before, 120 after)"));
  CHECK(s.before.parts.empty());
  // The same texts on both sides: nothing came up.
  const Shortcut same = find_shortcut(before, before, judged(before, before, shortness), nullptr);
  CHECK(same.words.empty());
  CHECK(same.openings.empty());
}

TEST_CASE("shortcut: a win by length alone is gone at equal length") {
  // Lengths spread over 5 … 44 before and 5 … 24 after; the judge likes short.
  std::vector<Candidates> before, after;
  for (int i = 0; i < 200; ++i) {
    before.push_back(one(i, words(5 + i % 40, "word"), i % 2 == 0));
    after.push_back(one(i, words(5 + (i * 7) % 20, "word"), i % 3 != 0));
  }
  const Shortcut s = find_shortcut(before, after, judged(before, after, shortness), nullptr);
  CHECK(s.win_rate > 0.7);
  CHECK(s.matched.responses > 150);
  CHECK(s.matched.counterparts > 50);
  CHECK(s.matched.rate > 0.4);
  CHECK(s.matched.rate < 0.6);
  CHECK(s.matched.interval.low < 0.5);
  CHECK(s.matched.interval.high > 0.5);
  CHECK(has(s.sentence(), "apart from length and ending no gain is shown"));
}

TEST_CASE("shortcut: a win for another reason stays") {
  std::vector<Candidates> before, after;
  for (int i = 0; i < 200; ++i) {
    before.push_back(one(i, words(5 + i % 40, i % 10 == 0 ? "good" : "word")));
    after.push_back(one(i, words(5 + (i * 7) % 20, i % 10 == 0 ? "word" : "good")));
  }
  const Shortcut s = find_shortcut(before, after, judged(before, after, goodness), nullptr);
  CHECK(s.matched.interval.low > 0.5);
  CHECK(s.matched.rate > 0.8);
  CHECK(has(s.sentence(), "preferred for more than their length and ending"));
  // … and one that became worse is said to be.
  const Shortcut worse = find_shortcut(after, before, judged(after, before, goodness), nullptr);
  CHECK(worse.matched.interval.high < 0.5);
  CHECK(has(worse.sentence(), "became worse"));
}

TEST_CASE("shortcut: equal means the same ending, and as many words") {
  std::vector<Candidates> before, after;
  for (int i = 0; i < 40; ++i) {
    before.push_back(one(i, words(20, "word"), false));
    after.push_back(one(i, words(20, "good"), true));
  }
  Verdict v = judged(before, after, goodness);
  CHECK(find_shortcut(before, after, v, nullptr).matched.responses == 0);  // other endings
  for (Candidates& c : before) c.finished = {true};
  CHECK(find_shortcut(before, after, v, nullptr).matched.responses == 40);
  for (Candidates& c : before) c.responses = {words(23, "word")};  // within 15 %
  CHECK(find_shortcut(before, after, v, nullptr).matched.responses == 40);
  for (Candidates& c : before) c.responses = {words(24, "word")};
  CHECK(find_shortcut(before, after, v, nullptr).matched.responses == 0);
}

TEST_CASE("shortcut: one lucky counterpart does not pass for many") {
  // Two hundred responses, but only six before that are comparable: the interval is of six.
  std::vector<Candidates> before, after;
  for (int i = 0; i < 200; ++i) {
    before.push_back(one(i, words(i < 6 ? 20 : 90, i < 2 ? "good" : "word")));
    after.push_back(one(i, words(20, i % 2 ? "good" : "word")));
  }
  const Shortcut s = find_shortcut(before, after, judged(before, after, goodness), nullptr);
  CHECK(s.matched.responses == 200);
  CHECK(s.matched.counterparts == 6);
  CHECK(s.matched.interval.high - s.matched.interval.low > 0.4);
}

TEST_CASE("shortcut: a judge that only prefers is matched within a prompt") {
  std::vector<Candidates> before, after;
  for (int i = 0; i < 40; ++i) {
    before.push_back(one(i, words(20, "word")));
    after.push_back(one(i, words(i < 20 ? 20 : 60, "good")));
  }
  Verdict v = judged(before, after, goodness);
  v.scored = false;
  for (std::size_t i = 0; i < 20; ++i) v.items[i].preference = i < 15 ? 1.0 : 0.0;
  const Shortcut s = find_shortcut(before, after, v, nullptr);
  CHECK(s.matched.responses == 20);
  CHECK(s.matched.counterparts == 20);
  CHECK(s.matched.rate == 0.75);
}
