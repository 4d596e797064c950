// The rule `warm`: what it prefers, what it cannot be fooled by, and that its text tells its
// numbers.
#include "../app/child_rule.hpp"
#include "../app/judge.hpp"
#include "../app/rule.hpp"

#include <plumb/data/text.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

using namespace plumb;

namespace {

const std::string kGood =
    "Tom and Sam went to the park. They played with the red ball for a while. Tom shared his cake "
    "with Sam. They were happy and went home to sleep.";

double total(std::string_view response, bool finished = true) {
  return warm_score("Once upon a time,", response, finished).total;
}

std::string repeated(const std::string& text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += text;
  return out;
}

}  // namespace

TEST_CASE("warm: a score worked out by hand") {
  // 30 words; friendly: played, shared, happy; all words are short; it ends; no pair repeats.
  const RuleScore score = warm_score("", kGood, true);
  CHECK(warm_rule::words_of(kGood).size() == 30);
  CHECK(score.friendly == 1.5);
  CHECK(score.simple == 1.0);
  CHECK(score.ending == 1.0);
  CHECK(score.total == 3.5);
  // With two hard words, 28 of 30 are simple: a third of the way from 0.9 to 1.
  std::string hard = kGood;
  hard.replace(hard.find("park"), 4, "laboratory").replace(hard.find("cake"), 4, "equipment");
  CHECK(warm_score("", hard, true).simple == doctest::Approx(1.0 / 3.0));
  // Cut short after 22 words: 3 missing, two friendly words, no end.
  const std::string cut = kGood.substr(0, kGood.find(" They were"));
  CHECK(warm_score("", cut, false).total == doctest::Approx(2.0 * 15 / 22 + 1.0 - 1.0 - 3 * 0.2));
  // 30 words, 29 pairs of which 3 are distinct: 0.8 - 3/29 of a share too few, ten for each.
  std::string loop;
  for (int i = 0; i < 10; ++i) loop += "Tom sat down. ";
  CHECK(warm_score("", loop, true).total == doctest::Approx(2.0 - 10 * (0.8 - 3.0 / 29)));
}

TEST_CASE("warm: words") {
  CHECK(warm_rule::words_of("Don't 'stop'! It's 3 o'clock--caf\xC3\xA9.") ==
        std::vector<std::string>{"don't", "stop", "it's", "o'clock", "caf\xC3\xA9"});
  CHECK(warm_rule::is_simple("little"));
  CHECK(warm_rule::is_simple("couldn't") == false);
  CHECK(warm_rule::is_simple("didn't"));  // five letters
  CHECK(warm_rule::is_simple("together"));
  CHECK(!warm_rule::is_simple("generous"));
  CHECK(!warm_rule::is_simple("xqz"));
}

TEST_CASE("warm: one word counts at most twice") {
  CHECK(warm_score("", repeated("fun ", 5) + repeated("cat ", 25), true).friendly == 1.0);
  CHECK(warm_score("", repeated("sad ", 5) + repeated("cat ", 25), true).friendly == -1.0);
}

TEST_CASE("warm: friendlier, simpler and ended are better") {
  std::string sad = kGood, hard = kGood;
  sad.replace(sad.find("happy"), 5, "sad");
  hard.replace(hard.find("sleep"), 5, "hibernate");
  CHECK(total(kGood) > total(sad));
  CHECK(total(kGood) > total(hard));
  CHECK(total(kGood) > total(kGood, false));
  CHECK(total(kGood) > total(kGood.substr(0, kGood.size() - 1)));  // no full stop
  CHECK(total(kGood + "\"") == total(kGood));
  CHECK(warm_score("sad sad", kGood, true).total == total(kGood));  // the response alone
}

TEST_CASE("warm: empty, short, looping and senseless responses lie below a plain unfinished one") {
  const double plain = total(
      "Tom went to the park with his mom. He saw a big tree and a bird in it. The bird was blue "
      "and "
      "it sang a song. Tom said to mom that",
      false);
  CHECK(total("") == -10.0);
  CHECK(total(" .!? 123") == -10.0);
  CHECK(total("Fun.") < plain);
  CHECK(total("They were happy.") < plain);
  CHECK(total(repeated("happy ", 40) + ".") < plain);
  CHECK(total(repeated("They were happy. ", 12)) < plain);
  CHECK(total(repeated("They loved fun and played together with good friends. ", 6)) < plain);
  CHECK(
      total("xqz wrtp ghtr plk bnm qwr tpl kjh gfd szx cvb nmq wrt plk jhg fds zxc vbn mqw rtp lkj "
            "hgf dsz xcv bnm.") < plain);
  CHECK(total(repeated("sad ", 20), false) >= -10.0);
  CHECK(total(repeated("hate ", 5000), false) >= -10.0);
}

TEST_CASE("warm: real endings come out in the middle") {
  const auto stories =
      split_stories(read_text(PLUMB_SOURCE_DIR "/examples/data/tinystories_heldout.txt"));
  REQUIRE(stories.size() >= 300);
  std::vector<double> ended, cut;
  for (const std::string& story : stories) {
    const std::string tail =
        story.substr(story.size() > 400 ? story.find(' ', story.size() - 400) : 0);
    ended.push_back(total(tail));
    cut.push_back(total(tail.substr(0, tail.size() / 2), false));
  }
  std::sort(ended.begin(), ended.end());
  std::sort(cut.begin(), cut.end());
  const double median = ended[ended.size() / 2];
  CHECK(median > 1.5);  // of a range that reaches 4
  CHECK(median < 3.0);
  CHECK(ended[ended.size() / 10] < median - 0.5);  // the scores differ
  CHECK(ended.back() <= 4.0);
  CHECK(cut[cut.size() / 2] < ended[ended.size() / 10]);
}

TEST_CASE("warm: the text tells the numbers and the words of the rule") {
  const std::string text = warm_text();
  const auto has = [&](const std::string& what) { return text.find(what) != text.npos; };
  CHECK(has("per 15 words"));
  CHECK(has("at most 2 times"));
  CHECK(has("6 letters or fewer"));
  CHECK(has("90 % scores 0"));
  CHECK(has("0.2 for each word short of 25"));
  CHECK(has("0.1 for each 1 % of word pairs that repeat beyond 20 %"));
  CHECK(has("score -10"));
  const std::vector<std::string> told = warm_rule::words_of(text);
  for (const auto list : {warm_rule::kWarm, warm_rule::kCold})
    for (const std::string& word : warm_rule::words_of(list))
      CHECK_MESSAGE(std::count(told.begin(), told.end(), word) >= 1, word);
  const auto warm = warm_rule::set_of(warm_rule::kWarm), cold = warm_rule::set_of(warm_rule::kCold);
  for (const std::string& word : warm) CHECK_MESSAGE(!cold.contains(word), word);
}

TEST_CASE("warm: ranks, with ties") {
  CHECK(rule_of("rule:warm").ranks("", {"", kGood, "Tom sat.", kGood}, {true, true, true, true}) ==
        std::vector<int>{2, 0, 1, 0});
  CHECK(rule_of("rule:warm").ranks("", {kGood, kGood}, {false, true}) == std::vector<int>{1, 0});
  CHECK(rule_of("rule:warm").ranks("", {}, {}).empty());
  CHECK_THROWS_AS(rule_of("rule:warm").ranks("", {"a", "b"}, {true}), ShapeError);
}

TEST_CASE("child: a score worked out by hand") {
  // 9 words of which one is hard, in one sentence: 11.1 % hard.
  const std::string text = "The moon is like a big rock in gravitation.";
  const ChildScore score = child_score(text, true);
  CHECK(score.grade == doctest::Approx(0.1579 * 100 / 9 + 0.0496 * 9 + 3.6365));
  CHECK(score.reading == doctest::Approx((6 - score.grade) / 2));
  CHECK(score.picture == 1);
  CHECK(score.child == 0);
  CHECK(score.ending == 1);
  CHECK(score.total == doctest::Approx(score.reading + 2 - 21 * 0.1));
  // 13 easy words in two sentences: no correction.
  const ChildScore easy =
      child_score("Can you see the moon? Think of a ball that is far away.", true);
  CHECK(easy.grade == doctest::Approx(0.0496 * 13 / 2));
  CHECK(easy.reading == 2);
  CHECK(easy.child == 1);
  CHECK(easy.picture == 1);
  CHECK(child_score("", true).total == -10);
  CHECK(child_score("You see it", false).ending == -1);
}

TEST_CASE("child: forms of words that children know") {
  for (const char* word : {"play", "plays", "played", "playing", "stopped", "running", "making",
                           "flies", "happier", "quickly", "dog's", "isn't", "biggest"})
    CHECK_MESSAGE(child_rule::is_easy(word), word);
  for (const char* word : {"gravitational", "phenomenon", "civilization", "atmosphere"})
    CHECK_MESSAGE(!child_rule::is_easy(word), word);
}

TEST_CASE("child: over a child's head, to it, and in circles") {
  const std::string over =
      "The Apollo 11 mission of 1969 constituted a significant technological achievement, in which "
      "astronauts utilized a lunar module in order to accomplish the first successful landing of "
      "human beings on the surface of the Moon, subsequently returning to Earth.";
  const std::string to =
      "Imagine a very big bus that can fly. A long time ago, three men got into one and went up to "
      "the moon. It was so far that it took them days. Then they walked around on it, and you "
      "could "
      "see them jump! After that they came back home.";
  CHECK(child_score(over, true).grade > 8);
  CHECK(child_score(to, true).grade < 5);
  CHECK(child_score(to, true).total > child_score(over, true).total + 3);
  CHECK(child_score(repeated("You see the moon. ", 12), true).total <
        child_score(to, true).total - 3);
  CHECK(child_score(repeated(to + " ", 4), true).total < child_score(to, true).total - 3);
  CHECK(rule_of("rule:child").ranks("", {over, to}, {true, true}) == std::vector<int>{1, 0});
}

TEST_CASE("each rule's text says its numbers, and an unknown one is named with what there is") {
  CHECK(rule_of("rule:child").text.find("0.1579") != std::string::npos);
  CHECK(rule_of("rule:child").text.find("imagine") != std::string::npos);
  CHECK_THROWS_WITH_AS(rule_of("rule:none"), doctest::Contains("rule:warm, rule:child"), DataError);
}
