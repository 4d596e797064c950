// `child`: a stated rule that ranks explanations by how well a child of six could follow them.
//
//   total = reading + picture + child + ending - shortness - length - repetition
//
// `reading` is the Dale–Chall readability formula: the share of words that children do not know and
// the length of sentences. Like `warm` (rule.hpp) it counts and knows no meaning: a wrong
// explanation in short words scores as high as a right one, and the report says so. The response
// alone is scored. Source of the formula: Chall and Dale 1995, Readability Revisited.
#pragma once

#include "easy_words.hpp"
#include "rule.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// What `child` thinks of a response: the four parts, and the total after the deductions.
struct ChildScore {
  double grade = 0.0;    // Dale–Chall: 4.9 and below is a fourth-grader's, 8 a high school's
  double reading = 0.0;  // -2 … 2
  double picture = 0.0;  // 0 or 1
  double child = 0.0;    // 0 or 1
  double ending = 0.0;   // -1 or 1
  double total = 0.0;    // at most 5
};

namespace child_rule {

/// Beginnings of a comparison with something that a child has seen.
inline constexpr std::array<std::string_view, 10> kPictures{
    "like a ", "like an ", "like the ", "like when ", "like your ",
    "imagine", "pretend",  "think of ", "as if ",     "as big as "};
inline constexpr std::string_view kAddress = "you your you're you'll you've yours we let's us our";

inline constexpr double kGradeOfZero = 6.0;  // that `reading` gives 0 for
inline constexpr double kGradesPerPoint = 2.0;
inline constexpr int kFewestWords = 30, kMostWords = 120;
inline constexpr double kPerMissingWord = 0.1, kPerWordTooMany = 0.03;

/// Whether the word, or what it is an ordinary form of, is on the list.
inline bool is_easy(const std::string& word) {
  static const auto easy = warm_rule::set_of(kEasyWords);
  if (easy.contains(word)) return true;
  const auto without = [&](std::string_view end, std::string_view more = {}) {
    if (!word.ends_with(end) || word.size() < end.size() + 2) return false;
    std::string stem = word.substr(0, word.size() - end.size());
    if (easy.contains(stem + std::string(more))) return true;
    // "stopped", "running": the doubled letter goes.
    const bool doubled = stem.size() > 2 && stem.back() == stem[stem.size() - 2];
    return more.empty() && doubled && easy.contains(stem.substr(0, stem.size() - 1));
  };
  return without("'s") || without("s") || without("es") || without("ies", "y") || without("d") ||
         without("ed") || without("ied", "y") || without("ing") || without("ing", "e") ||
         without("er") || without("est") || without("ier", "y") || without("iest", "y") ||
         without("ly") || without("n't");
}

inline std::size_t sentences_of(std::string_view text) {
  std::size_t count = 0;
  bool inside = false;
  for (const char c : text) {
    const bool end = c == '.' || c == '!' || c == '?';
    if (end && inside) ++count;
    if (end) inside = false;
    if (std::isalnum(static_cast<unsigned char>(c)) != 0) inside = true;
  }
  return count + (inside ? 1 : 0);
}

/// The raw formula, and its correction where more than 5 % of the words are hard.
inline double dale_chall(const std::vector<std::string>& words, std::size_t sentences) {
  const auto n = static_cast<double>(words.size());
  const auto hard = static_cast<double>(
      std::count_if(words.begin(), words.end(), [](const auto& word) { return !is_easy(word); }));
  const double share = 100.0 * hard / n;
  return 0.1579 * share + 0.0496 * n / static_cast<double>(std::max<std::size_t>(1, sentences)) +
         (share > 5.0 ? 3.6365 : 0.0);
}

inline bool has_picture(std::string_view text) {
  std::string lower;
  for (const char c : text) lower += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return std::any_of(kPictures.begin(), kPictures.end(),
                     [&](std::string_view p) { return lower.find(p) != lower.npos; });
}

inline bool speaks_to_the_child(const std::vector<std::string>& words) {
  static const auto address = warm_rule::set_of(kAddress);
  return std::any_of(words.begin(), words.end(),
                     [](const auto& word) { return address.contains(word); });
}

}  // namespace child_rule

/// Scores an explanation; `finished` says that it ended by itself, within the length limit.
inline ChildScore child_score(std::string_view response, bool finished) {
  namespace rule = child_rule;
  const std::vector<std::string> words = words_of(response);
  if (words.empty()) return {20.0, -2.0, 0.0, 0.0, -1.0, warm_rule::kLowest};
  ChildScore score;
  score.grade = rule::dale_chall(words, rule::sentences_of(response));
  score.reading = std::clamp((rule::kGradeOfZero - score.grade) / rule::kGradesPerPoint, -2.0, 2.0);
  score.picture = rule::has_picture(response) ? 1.0 : 0.0;
  score.child = rule::speaks_to_the_child(words) ? 1.0 : 0.0;
  score.ending = finished && warm_rule::ends_a_sentence(response) ? 1.0 : -1.0;
  const auto n = static_cast<int>(words.size());
  const double total = score.reading + score.picture + score.child + score.ending -
                       rule::kPerMissingWord * std::max(0, rule::kFewestWords - n) -
                       rule::kPerWordTooMany * std::max(0, n - rule::kMostWords) -
                       warm_rule::repetition(words);
  score.total = std::max(warm_rule::kLowest, total);
  return score;
}

/// The rule in plain words, made from the numbers and lists that it computes with.
inline const char* child_text() {
  namespace rule = child_rule;
  static const std::string text = [] {
    std::string pictures;
    for (const std::string_view p : rule::kPictures)
      pictures += str(pictures.empty() ? "" : ", ", "“", p, "”");
    return str(
        "The rule `child` scores an explanation for a child of six, from ", warm_rule::kLowest,
        " up to 5, by counting:\n"
        "  reading   by the Dale–Chall formula (0.1579 for each 1 % of words that are not among ",
        warm_rule::set_of(kEasyWords).size(),
        "\n            that most fourth-graders know, 0.0496 for each word of an average sentence, "
        "3.6365 if\n            more than 5 % are unknown): ",
        rule::kGradeOfZero, " scores 0, each ", rule::kGradesPerPoint,
        " less one point, from -2 to 2\n"
        "  picture   1 if it compares with something that a child knows\n"
        "  child     1 if it speaks to the child (you, we, let's)\n"
        "  ending    1 if it ended by itself, within the length limit, with . ! or ?; else -1\n"
        "  less      ",
        rule::kPerMissingWord, " for each word short of ", rule::kFewestWords, ", ",
        rule::kPerWordTooMany, " for each beyond ", rule::kMostWords, ", and ",
        warm_rule::kRepetition * 0.01,
        " for each 1 % of word\n            pairs that repeat beyond ",
        100.0 * (1.0 - warm_rule::kDistinctPairs),
        " %\n"
        "  No words score ",
        warm_rule::kLowest,
        ", the lowest there is. Equal scores tie. It knows no meaning: what is "
        "said may be wrong.\n",
        wrap(str("A comparison: ", pictures, "."), 92, "  "));
  }();
  return text.c_str();
}

}}  // namespace plumb::v0_1
