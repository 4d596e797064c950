// What changed in a policy's responses, and whether the judge's liking for them is that change
// alone.
//
// Training finds the cheapest way to a higher score, often a short one: other lengths, an ending, a
// few words. So a win rate is read beside three things: how the texts changed; which words and
// openings came up (log-odds of the counts, Monroe, Colaresi and Quinn 2008, "Fightin' words", with
// a prior of ½ a word and no other); and the win rate at equal length and ending. For that, a judge
// that scores compares each response after with the one before cut to its length: at the end of the
// sentence that is nearest to as many words, or in the middle where the response after was cut
// itself. It asks what stopping earlier alone would have won. A judge that only prefers is not
// asked again: those of its pairs count that are of equal length and ending by themselves. Equal is
// within 15 % or two words; where there is no such cut or pair, the response is left out. What this
// is not: a causal analysis; what else differs at equal length stays hidden.
#pragma once

#include "judge.hpp"

#include <optional>
#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// One side's texts; means are per response.
struct TextStats {
  double responses = 0.0, characters = 0.0, words = 0.0;
  double finished = 0.0;    ///< share that ended by itself
  double dialogue = 0.0;    ///< share with a quotation mark
  double distinct = 0.0;    ///< distinct words per word of a response, mean
  double vocabulary = 0.0;  ///< distinct words among the set's first words, as many on both sides
  std::size_t first_words = 0;  ///< how many those are
  NamedNumbers parts;           ///< mean parts of the rule's score, if there is a rule
};

/// A word or opening used more after than before: z ≥ 3.
struct Overused {
  std::string text;
  double before = 0.0, after = 0.0;  ///< times
  double log_odds = 0.0, z = 0.0;
};

struct Shortcut {
  TextStats before, after;
  std::vector<Overused> words, openings;  ///< the most striking first, eight at most
  Verdict matched;                        ///< of the pairs of equal length and ending
  bool cut = false;                       ///< for that, the responses before were cut
  double win_rate = 0.0;

  /// What was found and what it cost, in two or three plain sentences.
  std::string sentence() const;
  Json json() const;
};

/// Of candidates with the same prompts and the judge's verdict on them; `rule` may be null.
Shortcut find_shortcut(const std::vector<Candidates>& before, const std::vector<Candidates>& after,
                       Judge& judge, const Verdict& verdict, const Rule* rule);

/// The beginning of `text` that is as long as `wanted` words and ends as asked: with a sentence, or
/// in the middle. Nothing if there is none.
std::optional<std::string> cut_to(const std::string& text, std::size_t wanted, bool finished);

}}  // namespace plumb::v0_1
