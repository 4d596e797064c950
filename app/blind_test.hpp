// A blind comparison that may stop as soon as it is decided, however often one looks.
//
// Of the pairs that are decided (ties say nothing of a side), a win has under the null hypothesis
// the probability ½, whatever came before. The Bayes factor of a uniform prior against it,
//
//   E = 2^(w+l) B(w+1, l+1)          of w wins and l losses,
//
// is then a martingale that begins with 1, and so exceeds 20 at any time with a probability of at
// most 1/20 (Ville's inequality). The same for every other share θ in place of ½ gives an interval
// that is right at all times at once with at least 95 %: Robbins 1970, "Statistical methods related
// to the law of the iterated logarithm". What this is not: of any use where pairs of one prompt
// depend on one another; give one pair a prompt.
#pragma once

#include <plumb/core/real.hpp>
#include <plumb/run/statistics.hpp>

namespace plumb { inline namespace v0_1 {

struct BlindTest {
  static constexpr double kEvidence = 20.0;  ///< one in so many is wrong, at most

  double wins = 0.0, ties = 0.0, losses = 0.0;

  /// Bayes factor against the share `theta` of wins among decided pairs, as a natural logarithm.
  double log_evidence(double theta = 0.5) const {
    double out = 0.0;  // log B(w+1, l+1), as a product over the pairs: w of them, then l
    for (double i = 1.0; i <= wins; i += 1.0) out += real::log(i / (i + 1.0));
    for (double i = 1.0; i <= losses; i += 1.0) out += real::log(i / (wins + i + 1.0));
    if (wins > 0.0) out -= wins * real::log(theta);
    if (losses > 0.0) out -= losses * real::log(1.0 - theta);
    return out;
  }

  bool decided() const { return log_evidence() >= real::log(kEvidence); }

  /// Wins and half the ties, of all pairs; NaN of none.
  double rate() const { return (wins + 0.5 * ties) / (wins + ties + losses); }

  /// Of the share of wins among decided pairs: 95 % at all times at once.
  Interval interval() const {
    const double decided_pairs = wins + losses;
    if (decided_pairs == 0.0) return {0.0, 1.0};
    const double middle = wins / decided_pairs, bound = real::log(kEvidence);
    const auto edge = [&](double outside) {  // between what is excluded and what is not
      double inside = middle;
      for (int i = 0; i < 60; ++i) {
        const double half = 0.5 * (inside + outside);
        (log_evidence(half) < bound ? inside : outside) = half;
      }
      return inside;
    };
    return {wins == 0.0 ? 0.0 : edge(0.0), losses == 0.0 ? 1.0 : edge(1.0)};
  }
};

}}  // namespace plumb::v0_1
