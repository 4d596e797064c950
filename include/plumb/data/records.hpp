// Records of the loop: demonstrations, candidate responses to a prompt, and rankings of them.
//
// A ranking is a rank per response: 0 is best, equal ranks are ties, -1 is unranked. Agreement
// between two rankings is taken over the responses that both rank. What this is not: a file format;
// see data/jsonl.hpp.
#pragma once

#include <plumb/core/check.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// What one side of a dialogue says: role is system, user or assistant.
struct Turn {
  std::string role, text;
  bool operator==(const Turn&) const = default;
};
using Turns = std::vector<Turn>;

/// Something to be continued. The id is its source's, or the number of its line there. Where it is
/// more than one user's text, `turns` is the dialogue (data/dialogue.hpp), and `text` its
/// transcript.
struct Prompt {
  std::string id, text;
  Turns turns{};
};

/// The tokens of each of K responses as they were sampled, the stop token included; empty if
/// unknown. A text may be cut into tokens in several ways, so what was sampled cannot be had from
/// the text.
using ResponseTokens = std::vector<std::vector<std::int32_t>>;

/// K responses to one prompt, as generated.
struct Candidates {
  std::string id, prompt;
  std::vector<std::string> responses;
  std::vector<bool> finished;  ///< (K) ended by a stop token rather than by length
  std::string model;     ///< whose they are: of `plumb generate`, the fingerprint of its weights
  std::string sampling;  ///< settings including the seed, as JSON text; may be empty
  ResponseTokens tokens{};
  Turns turns{};                       ///< of the prompt, as in Prompt
  std::vector<std::string> systems{};  ///< (K) whose each response is; empty: all are the model's
  double probability = 0.0;            ///< that it was chosen to be asked; 0: unsaid
  std::string name{};                  ///< what people call the model; empty: it has none
};

/// One person's (or rule's) ranking of K responses to one prompt.
struct Ranking {
  std::string id, prompt;
  std::string group;  ///< split key: rankings of one group go to one fold
  std::vector<std::string> responses;
  std::vector<bool> finished;  ///< (K)
  std::vector<int> rank;       ///< (K) 0 is best, equal is a tie, -1 is unranked
  std::string annotator;
  std::string labeller;    ///< "person", or "rule:<name>"
  std::string time;        ///< ISO 8601, UTC
  std::vector<int> shown;  ///< order in which the responses were shown; empty if unknown
  ResponseTokens tokens{};
  Turns turns{};                ///< of the prompt, as in Prompt
  std::vector<double> level{};  ///< (K) how good each is, for margins of pairs; empty if unsaid
  std::vector<std::string> systems{};  ///< (K) whose each response is; empty if unknown
  double seconds = 0.0;                ///< from showing the question to its answer; 0: unknown
  double probability = 0.0;     ///< that it was chosen to be asked (rlhf/active.hpp); 0: unsaid
  std::vector<int> unusable{};  ///< responses that are of no use at all, ascending; unranked
  int strength = 0;  ///< of two responses: 1 slightly, 2 clearly, 3 much better; 0 unsaid
  std::string comment{};
  int repeat = 0;  ///< 1: asked of the same annotator a second time, for their agreement with self
};

/// How good each response of a ranking is, for margins of pairs: its levels; or of two, by how much
/// the better one is better (strength), the other being 0; empty where neither is said.
inline std::vector<double> levels_of(const Ranking& r) {
  if (!r.level.empty() || r.strength == 0) return r.level;
  std::vector<double> out;
  for (const int rank : r.rank) out.push_back(rank == 0 ? r.strength : 0.0);
  return out;
}

/// A prompt and the one completion to imitate.
struct Demonstration {
  std::string prompt, completion;
  Turns turns{};  ///< of the prompt, as in Prompt
};

/// Ranks (k) of 0-based groups, best group first; what no group names is -1. DataError if a group
/// is empty or an index is outside 0 … k - 1 or named twice.
inline std::vector<int> ranks_from_groups(std::span<const std::vector<int>> groups, std::size_t k,
                                          Where where = Where::here()) {
  std::vector<int> rank(k, -1);
  for (std::size_t g = 0; g < groups.size(); ++g) {
    check<DataError>(!groups[g].empty(), "[ranking] a group of the ranking is empty", where);
    for (const int response : groups[g]) {
      if (response < 0 || static_cast<std::size_t>(response) >= k)
        fail<DataError>(str("[ranking] response ", response, " is ranked, but there are ", k,
                            " responses, counted from 0"),
                        where);
      int& place = rank[static_cast<std::size_t>(response)];
      if (place != -1)
        fail<DataError>(str("[ranking] response ", response, " is ranked twice"), where);
      place = static_cast<int>(g);
    }
  }
  return rank;
}

/// The inverse: groups of 0-based responses, best first; unranked ones are in none.
inline std::vector<std::vector<int>> groups_from_ranks(std::span<const int> rank) {
  std::map<int, std::vector<int>> by_rank;
  for (std::size_t i = 0; i < rank.size(); ++i)
    if (rank[i] >= 0) by_rank[rank[i]].push_back(static_cast<int>(i));
  std::vector<std::vector<int>> groups;
  for (auto& [unused, group] : by_rank) groups.push_back(std::move(group));
  return groups;
}

/// Ranks (k) from what a person types: 1-based numbers, best first, `=` between ties, such as
/// "3 1 2=4"; commas and `>` also separate; a part of the responses may be named. DataError names
/// the word that is wrong.
inline std::vector<int> parse_order(std::string_view text, std::size_t k,
                                    Where where = Where::here()) {
  const auto bad = [&](const std::string& what) {
    fail<DataError>(str("[ranking] ", what, ". HINT: name responses 1 to ", k,
                        " from best to worst, ties with =, such as \"2 1=3\""),
                    where);
  };
  std::vector<int> rank(k, -1);
  int place = -1;
  bool tie = false;
  for (std::size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (c == ' ' || c == '\t' || c == ',' || c == '>' || c == '\r' || c == '\n') {
      if (tie && (c == ',' || c == '>')) bad(str("'=' is followed by '", c, "'"));
      ++at;
      continue;
    }
    if (c == '=') {
      if (tie || place < 0) bad("'=' stands where a number should");
      tie = true;
      ++at;
      continue;
    }
    const std::size_t end = std::min(text.find_first_of(" \t,>\r\n=", at), text.size());
    const std::string_view word = text.substr(at, end - at);
    std::size_t number = 0;
    const auto [stop, error] = std::from_chars(word.data(), word.data() + word.size(), number);
    if (error == std::errc::invalid_argument || stop != word.data() + word.size())
      bad(str("'", word, "' is not a number"));
    if (error != std::errc() || number < 1 || number > k)
      bad(str("there is no response ", word, "; there are ", k));
    if (rank[number - 1] != -1) bad(str("response ", word, " is named twice"));
    if (!tie) ++place;
    rank[number - 1] = place;
    tie = false;
    at = end;
  }
  if (tie) bad("'=' stands at the end");
  if (place < 0) bad("no response is named");
  return rank;
}

namespace detail {

/// Calls `visit(sign of a's order, sign of b's order)` for each pair that both rank; 0 is a tie.
template <class Visit>
void for_each_common_pair(std::span<const int> a, std::span<const int> b, Where where,
                          Visit&& visit) {
  if (a.size() != b.size())
    fail(
        str("[ranking] rankings of ", a.size(), " and ", b.size(), " responses cannot be compared"),
        where);
  const auto sign = [](int x, int y) { return (x > y) - (x < y); };
  for (std::size_t i = 0; i < a.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      if (a[i] >= 0 && a[j] >= 0 && b[i] >= 0 && b[j] >= 0)
        visit(sign(a[i], a[j]), sign(b[i], b[j]));
}

}  // namespace detail

/// Kendall's tau-b over the responses that both rank: (C - D) / sqrt((P - ties in a)(P - ties in
/// b)). NaN where it is undefined: no common pair, or one side ties all of them.
inline double kendall_tau_b(std::span<const int> a, std::span<const int> b,
                            Where where = Where::here()) {
  Index difference = 0, untied_a = 0, untied_b = 0;
  detail::for_each_common_pair(a, b, where, [&](int x, int y) {
    difference += x * y;
    untied_a += x != 0;
    untied_b += y != 0;
  });
  if (untied_a == 0 || untied_b == 0) return std::numeric_limits<double>::quiet_NaN();
  return static_cast<double>(difference) /
         std::sqrt(static_cast<double>(untied_a) * static_cast<double>(untied_b));
}

/// Share of the common pairs on which two rankings agree: the same order, or a tie in both, counts
/// 1; a tie in one only counts ½. NaN if there is no common pair.
inline double pairwise_agreement(std::span<const int> a, std::span<const int> b,
                                 Where where = Where::here()) {
  Index pairs = 0, halves = 0;
  detail::for_each_common_pair(a, b, where, [&](int x, int y) {
    ++pairs;
    halves += x == y ? 2 : x == 0 || y == 0 ? 1 : 0;
  });
  if (pairs == 0) return std::numeric_limits<double>::quiet_NaN();
  return static_cast<double>(halves) / (2 * static_cast<double>(pairs));
}

}}  // namespace plumb::v0_1
