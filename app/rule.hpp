// `warm`: a stated rule that ranks continuations of children's stories where no person sits.
//
//   total = friendly + simple + ending - shortness - repetition
//
// It is a stand-in for people and says so wherever its rankings go. It counts words and knows no
// meaning: "not happy" is friendly to it. The response alone is scored. The numbers were set so
// that endings of real stories (TinyStories) come out in the middle: there is room above them, and
// gibberish, loops and empty responses lie below.
#pragma once

#include "screen.hpp"
#include "words.hpp"

#include <plumb/core/check.hpp>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// What `warm` thinks of a response: the three parts, and the total after the deductions.
struct RuleScore {
  double friendly = 0.0;  // -2 … 2
  double simple = 0.0;    // -2 … 1
  double ending = 0.0;    // -1 or 1
  double total = 0.0;     // at most 4
};

namespace warm_rule {

inline constexpr std::string_view kWarm =
    "best friend friendly friends fun glad good happily happy help helped hug hugged kind laugh "
    "laughed love loved nice play played proud safe share shared smile smiled thank thanked thanks "
    "together";
inline constexpr std::string_view kCold =
    "afraid alone angry bad broke broken cried cry dead die died fight hate hit hurt kill lost mad "
    "mean sad scared scary sick yelled";
// Words of more than six letters that children's stories use most.
inline constexpr std::string_view kLongButKnown =
    "animals another anything balloon beautiful because birthday blanket brother brought butterfly "
    "careful cheered children chocolate clapped climbed clothes colorful cookies dropped elephant "
    "everyone everything everywhere excited favorite feeling finally finished flowers forever "
    "friendly friends getting goodbye grabbed grandma grandpa happened happily happiest helping "
    "herself himself holding hugging inside instead jumping kitchen laughed laughing learned "
    "listened looking magical monster morning mother nothing outside parents picture pictures "
    "playing present pretend princess promised quickly rainbow reached remember running shining "
    "shouted singing sisters sitting someone something sometimes special started stopped stories "
    "suddenly surprise surprised teacher thanked thought through together tomorrow treasure "
    "waiting "
    "walking watched watching welcome whisper whispered without wonderful yesterday";

inline constexpr int kMostRepeats = 2;   // times that one word counts as friendly or unfriendly
inline constexpr int kFriendlyPer = 15;  // words
inline constexpr int kShortWord = 6;     // letters
inline constexpr double kSimpleZero =
    0.9;  // share of simple words that scores 0; all of them score 1
inline constexpr int kFewestWords = 25;
inline constexpr double kPerMissingWord = 0.2;
inline constexpr double kDistinctPairs = 0.8;  // share of word pairs below which repetition costs
inline constexpr double kRepetition = 10.0;    // per unit of that share
inline constexpr double kLowest = -10.0;

using plumb::words_of;

inline std::set<std::string, std::less<>> set_of(std::string_view list) {
  const std::vector<std::string> words = words_of(list);
  return {words.begin(), words.end()};
}

inline double friendly(const std::vector<std::string>& words) {
  static const auto warm = set_of(kWarm), cold = set_of(kCold);
  std::map<std::string_view, int> seen;
  int count = 0;
  for (const std::string& word : words)
    if (++seen[word] <= kMostRepeats)
      count += static_cast<int>(warm.contains(word)) - static_cast<int>(cold.contains(word));
  const double length = std::max(kFriendlyPer, static_cast<int>(words.size()));
  return std::clamp(count * kFriendlyPer / length, -2.0, 2.0);
}

inline bool is_simple(const std::string& word) {
  static const auto known = set_of(kLongButKnown);
  const auto letters = std::ssize(word) - std::count(word.begin(), word.end(), '\'');
  const bool vowel = word.find_first_of("aeiouy") != word.npos;
  return (letters <= kShortWord && vowel) || known.contains(word);
}

inline double simple(const std::vector<std::string>& words) {
  const auto count = std::count_if(words.begin(), words.end(), is_simple);
  const double share = static_cast<double>(count) / static_cast<double>(words.size());
  return std::clamp((share - kSimpleZero) / (1.0 - kSimpleZero), -2.0, 1.0);
}

inline bool ends_a_sentence(std::string_view text) {
  const std::size_t last = text.find_last_not_of(" \t\r\n\"')");
  return last != text.npos && std::string_view(".!?").find(text[last]) != text.npos;
}

inline double repetition(const std::vector<std::string>& words) {
  if (words.size() < 2) return 0.0;
  std::set<std::pair<std::string_view, std::string_view>> pairs;
  for (std::size_t i = 1; i < words.size(); ++i) pairs.emplace(words[i - 1], words[i]);
  const double share = static_cast<double>(pairs.size()) / static_cast<double>(words.size() - 1);
  return kRepetition * std::max(0.0, kDistinctPairs - share);
}

}  // namespace warm_rule

/// Scores a response; `finished` says that it ended by itself, within the length limit.
inline RuleScore warm_score(std::string_view /*prompt*/, std::string_view response, bool finished) {
  namespace rule = warm_rule;
  const std::vector<std::string> words = rule::words_of(response);
  if (words.empty()) return {-2.0, -2.0, -1.0, rule::kLowest};
  RuleScore score;
  score.friendly = rule::friendly(words);
  score.simple = rule::simple(words);
  score.ending = finished && rule::ends_a_sentence(response) ? 1.0 : -1.0;
  const auto missing = std::max<std::ptrdiff_t>(0, rule::kFewestWords - std::ssize(words));
  const double total = score.friendly + score.simple + score.ending -
                       rule::kPerMissingWord * static_cast<double>(missing) -
                       rule::repetition(words);
  score.total = std::max(rule::kLowest, total);
  return score;
}

/// The rule in plain words, made from the numbers and lists that it computes with.
inline const char* warm_text() {
  namespace rule = warm_rule;
  static const std::string text =
      str("The rule `warm` scores a story's continuation, from ", rule::kLowest,
          " up to 4, by counting:\n"
          "  friendly  friendly words less unfriendly ones, per ",
          rule::kFriendlyPer, " words (shorter texts count as ", rule::kFriendlyPer,
          "),\n            from -2 to 2; one word counts at most ", rule::kMostRepeats, " times\n",
          "  simple    the share of simple words: ", rule::kShortWord,
          " letters or fewer and a vowel, or one of ", rule::set_of(rule::kLongButKnown).size(),
          "\n            longer words common in children's stories; ", 100.0 * rule::kSimpleZero,
          " % scores 0, all of them 1,\n            and nothing less than -2\n"
          "  ending    1 if it ended by itself, within the length limit, with . ! or ?; else -1\n"
          "  less      ",
          rule::kPerMissingWord, " for each word short of ", rule::kFewestWords, ", and ",
          rule::kRepetition * 0.01, " for each 1 % of word pairs that repeat beyond ",
          100.0 * (1.0 - rule::kDistinctPairs),
          " %\n"
          "  No words score ",
          rule::kLowest, ", the lowest there is. Equal scores tie.\n",
          wrap(str("Friendly: ", rule::kWarm, "."), 92, "  "),
          wrap(str("Unfriendly: ", rule::kCold, "."), 92, "  "));
  return text.c_str();
}

/// Ranks of responses by their totals: 0 is best, equal totals tie.
inline std::vector<int> ranks_of(const std::vector<double>& totals) {
  std::vector<std::size_t> order(totals.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return totals[a] > totals[b]; });
  std::vector<int> ranks(totals.size(), 0);
  for (std::size_t i = 1; i < order.size(); ++i)
    ranks[order[i]] =
        ranks[order[i - 1]] + static_cast<int>(totals[order[i - 1]] - totals[order[i]] >= 1e-9);
  return ranks;
}

}}  // namespace plumb::v0_1
