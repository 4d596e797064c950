#include "shortcut.hpp"

#include "format.hpp"
#include "words.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

namespace plumb { inline namespace v0_1 {

namespace {

constexpr double kNear = 0.15;  // of the words: an equal length
constexpr double kNearWords = 2.0;
constexpr std::size_t kFewestResponses = 10, kFewestCounterparts = 5;  // for a rate to say anything
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
    o.log_odds =
        std::log((a + 0.5) / (all_after - a + 0.5)) - std::log((b + 0.5) / (all_before - b + 0.5));
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

// A response after beside one before, of equal length and ending.
struct MatchedPair {
  std::size_t after, before;  // items of the verdict
  double weight, outcome;
};

std::vector<MatchedPair> matched_pairs(const std::vector<Text>& before,
                                       const std::vector<Text>& after, const Verdict& verdict) {
  std::map<std::pair<std::size_t, std::size_t>, std::size_t> place;  // in before and after alike
  for (std::size_t i = 0; i < after.size(); ++i) place[{after[i].prompt, after[i].response}] = i;
  const auto text_of = [&](std::size_t item) {
    return place.at({verdict.items[item].prompt, verdict.items[item].response});
  };
  const auto alike = [&](const Text& a, const Text& b) {
    const auto x = static_cast<double>(a.words.size()), y = static_cast<double>(b.words.size());
    return a.finished == b.finished && std::abs(x - y) <= std::max(kNearWords, kNear * x);
  };
  std::vector<MatchedPair> pairs;
  for (std::size_t i = 0; i < verdict.items.size(); ++i) {
    const std::size_t first = pairs.size();
    const std::size_t from = verdict.scored ? 0 : i,
                      to = verdict.scored ? verdict.items.size() : i + 1;
    for (std::size_t j = from; j < to; ++j) {
      if (!alike(after[text_of(i)], before[text_of(j)])) continue;
      const double difference = verdict.items[i].after - verdict.items[j].before;
      const double outcome = !verdict.scored                ? verdict.items[i].preference
                             : std::abs(difference) <= 1e-9 ? 0.5
                             : difference > 0.0             ? 1.0
                                                            : 0.0;
      pairs.push_back({i, j, 0.0, outcome});
    }
    for (std::size_t p = first; p < pairs.size(); ++p)
      pairs[p].weight = 1.0 / static_cast<double>(pairs.size() - first);
  }
  return pairs;
}

double sum_of_squares(const std::map<std::pair<std::size_t, std::size_t>, double>& sums) {
  double squares = 0.0;
  for (const auto& [key, sum] : sums) squares += sum * sum;
  return squares;
}

Shortcut::Matched matched_rate(const std::vector<MatchedPair>& pairs, const Verdict& verdict) {
  Shortcut::Matched out;
  std::set<std::size_t> responses, counterparts;
  double weight = 0.0, won = 0.0;
  for (const MatchedPair& p : pairs) {
    responses.insert(p.after);
    counterparts.insert(p.before);
    weight += p.weight;
    won += p.weight * p.outcome;
  }
  out.responses = responses.size();
  out.counterparts = counterparts.size();
  out.rate = std::nan("");
  if (out.responses < kFewestResponses || out.counterparts < kFewestCounterparts) return out;
  out.rate = won / weight;
  // Sums of residuals by the prompt after, by the prompt before, and by both.
  std::map<std::pair<std::size_t, std::size_t>, double> by_after, by_before, by_both;
  for (const MatchedPair& p : pairs) {
    const std::size_t a = verdict.items[p.after].prompt, b = verdict.items[p.before].prompt;
    const double residual = p.weight * (p.outcome - out.rate);
    by_after[{a, 0}] += residual;
    by_before[{b, 0}] += residual;
    by_both[{a, b}] += residual;
  }
  const double one = sum_of_squares(by_after), other = sum_of_squares(by_before);
  const double squares = std::max({one + other - sum_of_squares(by_both), one, other});
  const auto clusters = static_cast<double>(std::min(by_after.size(), by_before.size()));
  const double variance = clusters / (clusters - 1.0) * squares / (weight * weight);
  // Worth at most the smaller side's responses; a share of 0 or 1 shows no variance, and is worth one
  // outcome a prompt.
  const double spread = out.rate * (1.0 - out.rate);
  const auto most = static_cast<double>(std::min(out.responses, out.counterparts));
  const double size = spread <= 1e-12 ? clusters : std::min(most, spread / variance);
  out.interval = share_interval(out.rate, size, clusters);
  return out;
}

std::string quoted_list(const std::vector<Overused>& list, std::size_t most) {
  std::string out;
  for (std::size_t i = 0; i < std::min(most, list.size()); ++i)
    out += str(i ? ", " : "", "\"", list[i].text, "\" (", fixed(list[i].before, 0),
               " times before, ", fixed(list[i].after, 0), " after)");
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
std::string matched_sentence(const Shortcut::Matched& m, double win_rate, double responses) {
  const std::string counted = str(m.responses, " of ", fixed(responses, 0));
  if (std::isnan(m.rate))
    return str("Whether anything else was learned cannot be told: only ", counted,
               m.responses == 1 ? " response" : " responses",
               " after training had a counterpart of equal length and ending before it.");
  const std::string rates = str(
      "At equal length and ending (", counted, " responses have a counterpart) the win rate is ",
      percent(m.rate), " (95 % interval ", fixed(100.0 * m.interval.low, 1), " to ",
      percent(m.interval.high), "), instead of ", percent(win_rate), " over all");
  if (m.interval.low > 0.5)
    return rates + ": the responses are preferred for more than their length and ending.";
  if (m.interval.high < 0.5)
    return rates + ": apart from length and ending the responses became worse to this judge.";
  return rates + ": apart from length and ending no gain is shown.";
}

}  // namespace

Shortcut find_shortcut(const std::vector<Candidates>& before, const std::vector<Candidates>& after,
                       const Verdict& verdict, const Rule* rule) {
  const std::vector<Text> old_texts = texts_of(before), new_texts = texts_of(after);
  check(old_texts.size() == new_texts.size(), "[shortcut] before and after differ in their counts");
  Shortcut out;
  out.before = stats_of(before, old_texts, rule);
  out.after = stats_of(after, new_texts, rule);
  compare_vocabulary(old_texts, new_texts, out.before, out.after);
  out.words = overused(word_counts(old_texts), word_counts(new_texts));
  out.openings = overused(opening_counts(old_texts), opening_counts(new_texts));
  out.matched = matched_rate(matched_pairs(old_texts, new_texts, verdict), verdict);
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
  if (!words.empty()) text += str("The words that came up most: ", quoted_list(words, 3), ". ");
  return text + matched_sentence(matched, win_rate, after.responses);
}

Json Shortcut::json() const {
  return {{"before", stats_json(before)},
          {"after", stats_json(after)},
          {"overused_words", overused_json(words)},
          {"overused_openings", overused_json(openings)},
          {"matched",
           {{"win_rate", matched.rate},
            {"low", matched.interval.low},
            {"high", matched.interval.high},
            {"responses", matched.responses},
            {"counterparts", matched.counterparts}}},
          {"sentence", sentence()}};
}

}}  // namespace plumb::v0_1
