// How far rankings can be trusted, told from the rankings themselves: whether annotators agree with
// each other and with themselves.
//
// Between two: Kendall's τ_b and the share of pairs that both order alike (data/records.hpp).
// Between all people: Krippendorff's α (Krippendorff 2011, "Computing Krippendorff's
// alpha-reliability"): 1 is agreement, 0 what chance would give, and it may be less; any number of
// annotators, and not all need have ranked all. Nominal, of pairs of responses: the one, the other
// or neither is better. Ordinal, of responses: the rank that each was given. With oneself: what one
// annotator says of the same responses to the same prompt, asked again under any id. What answers
// lean on besides: data/habits.hpp. How good each annotator is: data/dawid_skene.hpp.
#pragma once

#include <plumb/data/records.hpp>
#include <plumb/run/statistics.hpp>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <map>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// How far two values differ: Nominal, at all; Ordinal, by how many of the values that were given
/// lie between them.
enum class AlphaMetric { Nominal, Ordinal };

/// Krippendorff's α. Of each unit the values that it was given, in any order, one an annotator;
/// units with fewer than two say nothing. NaN where it is undefined: no unit with two values, or
/// all values are equal.
inline double krippendorff_alpha(std::span<const std::vector<int>> units, AlphaMetric metric) {
  std::map<int, double> count;                       // of each value that can be paired
  std::map<std::pair<int, int>, double> coincident;  // of values c < k within units
  double total = 0.0;
  for (const std::vector<int>& unit : units) {
    if (unit.size() < 2) continue;
    total += static_cast<double>(unit.size());
    for (std::size_t i = 0; i < unit.size(); ++i) {
      count[unit[i]] += 1.0;
      for (std::size_t j = 0; j < i; ++j)
        if (unit[i] != unit[j])
          coincident[std::minmax(unit[i], unit[j])] += 1.0 / static_cast<double>(unit.size() - 1);
    }
  }
  const auto distance = [&](auto low, auto high) {
    if (metric == AlphaMetric::Nominal) return 1.0;
    double between = (low->second + high->second) / 2.0;
    for (auto value = std::next(low); value != high; ++value) between += value->second;
    return between * between;
  };
  double observed = 0.0, expected = 0.0;
  for (auto low = count.begin(); low != count.end(); ++low)
    for (auto high = std::next(low); high != count.end(); ++high) {
      const double apart = distance(low, high);
      const auto found = coincident.find({low->first, high->first});
      if (found != coincident.end()) observed += found->second * apart;
      expected += low->second * high->second * apart;
    }
  if (expected == 0.0) return std::numeric_limits<double>::quiet_NaN();
  return 1.0 - (total - 1.0) * observed / expected;
}

/// How far annotators agree, and how often people put the response shown first on top.
struct Agreement {
  struct Pair {
    std::string a, b;
    double tau = 0.0;                 ///< mean of Kendall's tau-b where it is defined; NaN: nowhere
    double pairwise = 0.0;            ///< mean share of pairs on which the two agree; NaN: no pair
    std::size_t prompts = 0;          ///< that both ranked, with a pair of responses in common
    std::size_t other_responses = 0;  ///< one id, but not the same responses: left out
  };
  /// What one annotator says when asked again, beside the time before.
  struct Self {
    std::string annotator;
    double tau = 0.0;         ///< as in Pair
    double pairwise = 0.0;    ///< as in Pair
    std::size_t repeats = 0;  ///< with a pair of responses ranked both times
  };
  struct Position {
    std::string annotator;
    double first_best =
        0.0;                ///< the one shown first is on top; one of m on top together counts 1/m
    double expected = 0.0;  ///< of first_best, without position bias
    double rankings = 0.0;
  };
  std::size_t annotators = 0;
  std::vector<Pair> pairs;
  std::vector<Self> selves;         ///< of those who were asked again
  std::vector<Position> positions;  ///< of people who were shown an order
  double alpha_pairs = std::numeric_limits<double>::quiet_NaN();  ///< of people; nominal
  double alpha_ranks = std::numeric_limits<double>::quiet_NaN();  ///< of people; ordinal
  std::size_t shared_pairs = 0, shared_responses = 0;  ///< that two people or more judged
};

namespace detail {

using RankingsById = std::map<std::string, const Ranking*>;

inline std::string annotator_name(const Ranking& r) {
  return r.annotator.empty() ? "(unnamed)" : r.annotator;
}

inline Agreement::Pair agreement_between(const RankingsById& a, const RankingsById& b) {
  Agreement::Pair out;
  std::vector<double> taus, shares;
  for (const auto& [id, ranking] : a) {
    const auto found = b.find(id);
    if (found == b.end()) continue;
    if (ranking->responses != found->second->responses) {
      ++out.other_responses;
      continue;
    }
    const double tau = kendall_tau_b(ranking->rank, found->second->rank);
    const double share = pairwise_agreement(ranking->rank, found->second->rank);
    if (!std::isnan(tau)) taus.push_back(tau);
    if (!std::isnan(share)) shares.push_back(share);
  }
  out.tau = mean(taus);
  out.pairwise = mean(shares);
  out.prompts = shares.size();
  return out;
}

inline Agreement::Position position_of(const std::string& annotator, const RankingsById& rankings) {
  Agreement::Position out{annotator};
  for (const auto& [id, r] : rankings) {
    if (r->labeller != "person" || r->shown.empty()) continue;
    const auto best = static_cast<double>(std::count(r->rank.begin(), r->rank.end(), 0));
    if (best == 0.0) continue;  // all are of no use
    if (r->rank[static_cast<std::size_t>(r->shown[0])] == 0) out.first_best += 1.0 / best;
    out.expected += 1.0 / static_cast<double>(r->rank.size());
    out.rankings += 1.0;
  }
  return out;
}

/// A ranking with its responses in the order of their texts, so that the same question is the same
/// under another id and in another order.
struct SortedQuestion {
  std::pair<std::string, std::vector<std::string>> question;  ///< prompt, responses
  std::vector<int> rank;
};
inline SortedQuestion sorted_question(const Ranking& r) {
  std::vector<std::size_t> order(r.responses.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return r.responses[a] < r.responses[b]; });
  SortedQuestion out{{r.prompt, {}}, {}};
  for (const std::size_t i : order) {
    out.question.second.push_back(r.responses[i]);
    out.rank.push_back(r.rank[i]);
  }
  return out;
}

/// Agreement of each named annotator with themselves, each answer beside the one before.
inline std::vector<Agreement::Self> self_agreement(const std::vector<Ranking>& rankings) {
  struct Found {
    std::map<std::pair<std::string, std::vector<std::string>>, std::vector<int>> last;
    std::vector<double> taus, shares;
  };
  std::map<std::string, Found> by_annotator;
  for (const Ranking& r : rankings) {
    if (r.annotator.empty()) continue;
    Found& mine = by_annotator[r.annotator];
    SortedQuestion now = sorted_question(r);
    const auto [before, first] = mine.last.try_emplace(std::move(now.question), now.rank);
    if (first) continue;
    const double tau = kendall_tau_b(before->second, now.rank);
    const double share = pairwise_agreement(before->second, now.rank);
    if (!std::isnan(tau)) mine.taus.push_back(tau);
    if (!std::isnan(share)) mine.shares.push_back(share);
    before->second = std::move(now.rank);
  }
  std::vector<Agreement::Self> out;
  for (const auto& [annotator, mine] : by_annotator)
    if (!mine.shares.empty())
      out.push_back({annotator, mean(mine.taus), mean(mine.shares), mine.shares.size()});
  return out;
}

/// Krippendorff's α of people's answers, into `out`.
inline void add_alphas(const std::map<std::string, RankingsById>& by_annotator, Agreement& out) {
  std::map<std::pair<std::string, std::vector<std::string>>, std::vector<const Ranking*>> questions;
  for (const auto& [annotator, mine] : by_annotator)
    for (const auto& [id, r] : mine)
      if (r->labeller == "person") questions[{id, r->responses}].push_back(r);
  std::vector<std::vector<int>> pairs, ranks;
  for (const auto& [question, answers] : questions)
    for (std::size_t i = 0; i < question.second.size(); ++i) {
      std::vector<int>& given = ranks.emplace_back();
      for (const Ranking* r : answers)
        if (r->rank[i] >= 0) given.push_back(r->rank[i]);
      out.shared_responses += given.size() >= 2 ? 1U : 0U;
      for (std::size_t j = 0; j < i; ++j) {
        std::vector<int>& better = pairs.emplace_back();
        for (const Ranking* r : answers)
          if (r->rank[i] >= 0 && r->rank[j] >= 0)
            better.push_back((r->rank[i] > r->rank[j]) - (r->rank[i] < r->rank[j]));
        out.shared_pairs += better.size() >= 2 ? 1U : 0U;
      }
    }
  out.alpha_pairs = krippendorff_alpha(pairs, AlphaMetric::Nominal);
  out.alpha_ranks = krippendorff_alpha(ranks, AlphaMetric::Ordinal);
}

}  // namespace detail

/// Over rankings of any number of annotators. Between annotators the later of two of one id counts,
/// and none that was asked a second time.
inline Agreement agreement_of(const std::vector<Ranking>& rankings) {
  std::map<std::string, detail::RankingsById> by_annotator;
  for (const Ranking& r : rankings)
    if (r.repeat == 0) by_annotator[detail::annotator_name(r)][r.id] = &r;
  Agreement out;
  out.annotators = by_annotator.size();
  for (auto a = by_annotator.begin(); a != by_annotator.end(); ++a)
    for (auto b = std::next(a); b != by_annotator.end(); ++b) {
      out.pairs.push_back(detail::agreement_between(a->second, b->second));
      out.pairs.back().a = a->first;
      out.pairs.back().b = b->first;
    }
  out.selves = detail::self_agreement(rankings);
  for (const auto& [annotator, mine] : by_annotator) {
    const Agreement::Position position = detail::position_of(annotator, mine);
    if (position.rankings > 0.0) out.positions.push_back(position);
  }
  detail::add_alphas(by_annotator, out);
  return out;
}

}}  // namespace plumb::v0_1
