#include "shortcut.hpp"

#include "format.hpp"
#include "words.hpp"

#include <plumb/core/real.hpp>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <tuple>

namespace plumb { inline namespace v0_1 {

namespace {

constexpr double kNear = 0.15;  // of the words: an equal length
constexpr double kNearWords = 2.0;
constexpr double kFewest = 10.0;  // pairs, for a rate to say anything
constexpr double kStriking = 3.0;
constexpr std::size_t kMostOverused = 8;
constexpr std::size_t kOpeningWords = 3;

// One response: where it stands, and its words.
struct Text {
  std::size_t prompt, response;
  bool finished;
  std::vector<std::string> words;
};

std::vector<Text> texts_of(const std::vector<Candidates>& candidates) {
  std::vector<Text> texts;
  for (std::size_t i = 0; i < candidates.size(); ++i)
    for (std::size_t k = 0; k < candidates[i].responses.size(); ++k)
      texts.push_back({i, k, static_cast<bool>(candidates[i].finished[k]),
                       words_of(candidates[i].responses[k])});
  return texts;
}

bool has_quotation_mark(const std::string& text) {
  for (const char* mark : {"\"", "\xE2\x80\x9C", "\xE2\x80\x9D", "\xC2\xAB", "\xC2\xBB"})
    if (text.find(mark) != std::string::npos) return true;
  return false;
}

double distinct_share(const std::vector<std::string>& words) {
  const std::set<std::string> distinct(words.begin(), words.end());
  return words.empty() ? 0.0
                       : static_cast<double>(distinct.size()) / static_cast<double>(words.size());
}

TextStats stats_of(const std::vector<Candidates>& candidates, const std::vector<Text>& texts,
                   const Rule* rule) {
  TextStats s;
  s.responses = static_cast<double>(texts.size());
  for (const Text& text : texts) {
    const std::string& response = candidates[text.prompt].responses[text.response];
    const auto continues = [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) == 0x80U; };
    s.characters += static_cast<double>(std::ssize(response) -
                                        std::count_if(response.begin(), response.end(), continues));
    s.words += static_cast<double>(text.words.size());
    s.finished += text.finished ? 1.0 : 0.0;
    s.dialogue += has_quotation_mark(response) ? 1.0 : 0.0;
    s.distinct += distinct_share(text.words);
    if (rule == nullptr) continue;
    const NamedNumbers parts = rule->parts(candidates[text.prompt].prompt, response, text.finished);
    if (s.parts.empty())
      for (const auto& part : parts) s.parts.emplace_back(part.first, 0.0);
    for (std::size_t p = 0; p < parts.size(); ++p) s.parts[p].second += parts[p].second;
  }
  for (double* sum : {&s.characters, &s.words, &s.finished, &s.dialogue, &s.distinct})
    *sum /= std::max(1.0, s.responses);
  for (auto& part : s.parts) part.second /= std::max(1.0, s.responses);
  return s;
}

// Longer texts repeat more, so the two sets are compared over as many words.
void compare_vocabulary(const std::vector<Text>& before, const std::vector<Text>& after,
                        TextStats& before_stats, TextStats& after_stats) {
  const auto all_words = [](const std::vector<Text>& texts) {
    std::vector<std::string> words;
    for (const Text& text : texts) words.insert(words.end(), text.words.begin(), text.words.end());
    return words;
  };
  std::vector<std::string> b = all_words(before), a = all_words(after);
  const std::size_t common = std::min(b.size(), a.size());
  b.resize(common);
  a.resize(common);
  before_stats.first_words = after_stats.first_words = common;
  before_stats.vocabulary = distinct_share(b) * static_cast<double>(common);
  after_stats.vocabulary = distinct_share(a) * static_cast<double>(common);
}

using Counts = std::map<std::string, double>;

std::vector<Overused> overused(const Counts& before, const Counts& after) {
  double all_before = 0.0, all_after = 0.0;
  for (const auto& [text, count] : before) all_before += count;
  for (const auto& [text, count] : after) all_after += count;
  std::vector<Overused> out;
  for (const auto& [text, a] : after) {
    const auto found = before.find(text);
    const double b = found == before.end() ? 0.0 : found->second;
    Overused o{text, b, a, 0.0, 0.0};
    o.log_odds = real::log((a + 0.5) / (all_after - a + 0.5)) -
                 real::log((b + 0.5) / (all_before - b + 0.5));
    o.z = o.log_odds / std::sqrt(1.0 / (a + 0.5) + 1.0 / (b + 0.5));
    if (o.z >= kStriking) out.push_back(std::move(o));
  }
  std::sort(out.begin(), out.end(), [](const Overused& x, const Overused& y) {
    return x.z != y.z ? x.z > y.z : x.text < y.text;
  });
  if (out.size() > kMostOverused) out.resize(kMostOverused);
  return out;
}

Counts word_counts(const std::vector<Text>& texts) {
  Counts counts;
  for (const Text& text : texts)
    for (const std::string& word : text.words) counts[word] += 1.0;
  return counts;
}

Counts opening_counts(const std::vector<Text>& texts) {
  Counts counts;
  for (const Text& text : texts) {
    std::string opening;
    for (std::size_t i = 0; i < std::min(kOpeningWords, text.words.size()); ++i)
      opening += (i ? " " : "") + text.words[i];
    counts[opening.empty() ? "(nothing)" : opening] += 1.0;
  }
  return counts;
}

bool as_long(std::size_t words, std::size_t wanted) {
  const auto x = static_cast<double>(words), y = static_cast<double>(wanted);
  return std::abs(x - y) <= std::max(kNearWords, kNear * y);
}

// Where sentences of a text end: after . ! or ? and what closes a quotation, before a space or the
// end.
std::vector<std::size_t> sentence_ends(const std::string& text) {
  std::vector<std::size_t> ends;
  for (std::size_t at = 0; (at = text.find_first_of(".!?", at)) != std::string::npos;) {
    at = std::min(text.find_first_not_of(".!?\"')", at), text.size());
    if (at == text.size() || text[at] == ' ' || text[at] == '\n') ends.push_back(at);
  }
  return ends;
}

}  // namespace

std::optional<std::string> cut_to(const std::string& text, std::size_t wanted, bool finished) {
  std::vector<std::size_t> ends = sentence_ends(text);
  if (!finished) {
    ends.clear();
    for (std::size_t at = 0; at < text.size(); ++at)
      if (text[at] == ' ') ends.push_back(at);
    ends.push_back(text.size());
  }
  std::optional<std::string> best;
  std::size_t off = 0;
  for (const std::size_t end : ends) {
    const std::size_t words = words_of(std::string_view(text).substr(0, end)).size();
    const std::size_t distance = words > wanted ? words - wanted : wanted - words;
    if (!as_long(words, wanted) || (best && distance >= off)) continue;
    best = text.substr(0, end);
    off = distance;
  }
  return best;
}

namespace {

// The judge's verdict on the pairs whose response before can be cut to the one after.
Verdict verdict_on_cut(const std::vector<Candidates>& before, const std::vector<Candidates>& after,
                       Judge& judge) {
  std::vector<Candidates> old_cut, new_kept;
  std::vector<std::pair<std::size_t, std::size_t>> places;  // of each pair that is left
  for (const Text& text : texts_of(after)) {
    const Candidates &b = before[text.prompt], &a = after[text.prompt];
    const auto cut = cut_to(b.responses[text.response], text.words.size(), text.finished);
    if (!cut) continue;
    places.emplace_back(text.prompt, text.response);
    old_cut.push_back({b.id, b.prompt, {*cut}, {text.finished}, b.model, b.sampling});
    new_kept.push_back(
        {a.id, a.prompt, {a.responses[text.response]}, {text.finished}, a.model, a.sampling});
  }
  Verdict verdict = judge.compare(old_cut, new_kept);
  for (Verdict::Item& item : verdict.items)
    std::tie(item.prompt, item.response) = places[item.prompt];
  return verdict;
}

// Those of a verdict's pairs that are of equal length and ending as they stand.
Verdict alike_already(const std::vector<Text>& before, const std::vector<Text>& after,
                      const Verdict& verdict) {
  std::set<std::pair<std::size_t, std::size_t>> alike;
  for (std::size_t i = 0; i < after.size(); ++i)
    if (before[i].finished == after[i].finished &&
        as_long(before[i].words.size(), after[i].words.size()))
      alike.emplace(after[i].prompt, after[i].response);
  Verdict some = verdict;
  std::erase_if(some.items, [&](const Verdict::Item& item) {
    return !alike.contains({item.prompt, item.response});
  });
  return some;
}

// The first words of a list, with how often each stands in a thousand words of either side.
std::string listed(const Shortcut& s, std::size_t most) {
  const auto rate = [](double count, const TextStats& side) {
    return fixed(1000.0 * count / std::max(1.0, side.words * side.responses), 1);
  };
  std::string out;
  for (std::size_t i = 0; i < std::min(most, s.words.size()); ++i)
    out += str(i ? ", \"" : "\"", s.words[i].text, "\" (", rate(s.words[i].before, s.before),
               " in a ", "thousand words before, ", rate(s.words[i].after, s.after), " after)");
  return out;
}

Json stats_json(const TextStats& s) {
  Json out = {{"responses", s.responses},   {"characters", s.characters},  {"words", s.words},
              {"finished", s.finished},     {"dialogue", s.dialogue},      {"distinct", s.distinct},
              {"vocabulary", s.vocabulary}, {"first_words", s.first_words}};
  for (const auto& [name, value] : s.parts) out["rule_" + name] = value;
  return out;
}

Json overused_json(const std::vector<Overused>& list) {
  Json out = Json::array();
  for (const Overused& o : list)
    out.push_back({{"text", o.text},
                   {"before", o.before},
                   {"after", o.after},
                   {"log_odds", o.log_odds},
                   {"z", o.z}});
  return out;
}

// What the matched rate says of the win rate.
std::string matched_sentence(const Shortcut& s) {
  const std::string counted = str(fixed(s.matched.n(), 0), " of ", fixed(s.after.responses, 0));
  if (s.matched.n() < kFewest)
    return str("Whether anything else was learned cannot be told: ", counted,
               " pairs are of equal length and ending", s.cut ? ", even after cutting" : "",
               ", and it takes ", fixed(kFewest, 0), '.');
  const Interval i = s.matched.interval();
  const std::string rates =
      str("At equal length and ending (", counted,
          s.cut ? " responses, those before training cut at the end of a sentence" : " pairs",
          ") the win rate is ", percent(s.matched.rate()), " (95 % interval ",
          fixed(100.0 * i.low, 1), " to ", percent(i.high), ") instead of ", percent(s.win_rate));
  if (i.low > 0.5)
    return rates + ": the responses are preferred for more than their length and ending.";
  if (i.high < 0.5)
    return rates + ": apart from length and ending the responses became worse to this judge.";
  return rates + ": apart from length and ending no gain is shown.";
}

}  // namespace

Shortcut find_shortcut(const std::vector<Candidates>& before, const std::vector<Candidates>& after,
                       Judge& judge, const Verdict& verdict, const Rule* rule) {
  const std::vector<Text> old_texts = texts_of(before), new_texts = texts_of(after);
  check(old_texts.size() == new_texts.size(), "[shortcut] before and after differ in their counts");
  Shortcut out;
  out.before = stats_of(before, old_texts, rule);
  out.after = stats_of(after, new_texts, rule);
  compare_vocabulary(old_texts, new_texts, out.before, out.after);
  out.words = overused(word_counts(old_texts), word_counts(new_texts));
  out.openings = overused(opening_counts(old_texts), opening_counts(new_texts));
  out.cut = verdict.scored;
  out.matched = verdict.scored ? verdict_on_cut(before, after, judge)
                               : alike_already(old_texts, new_texts, verdict);
  out.win_rate = verdict.rate();
  return out;
}

std::string Shortcut::sentence() const {
  std::string text =
      str("After training, responses are ", fixed(after.characters, 0), " characters instead of ",
          fixed(before.characters, 0), "; ", percent(after.finished),
          " end by themselves instead of ", percent(before.finished), ", and ",
          percent(after.dialogue), " have dialogue instead of ", percent(before.dialogue), ". ");
  if (after.first_words > 0)
    text += str("Of the first ", after.first_words, " words, ", fixed(after.vocabulary, 0),
                " are distinct instead of ", fixed(before.vocabulary, 0), ". ");
  if (!words.empty()) text += str("The words that came up most: ", listed(*this, 3), ". ");
  return text + matched_sentence(*this);
}

Json Shortcut::json() const {
  return {{"before", stats_json(before)},
          {"after", stats_json(after)},
          {"overused_words", overused_json(words)},
          {"overused_openings", overused_json(openings)},
          {"matched", matched.json()},
          {"matched_by_cutting", cut},
          {"sentence", sentence()}};
}

}}  // namespace plumb::v0_1
