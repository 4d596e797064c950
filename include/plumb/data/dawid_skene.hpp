// How reliable each annotator is, without knowing the truth: Dawid and Skene 1979, "Maximum
// likelihood estimation of observer error-rates using the EM algorithm".
//
// Items have a true value each, with probabilities of their own; an annotator says value l where j
// is true with probability π(j, l). Both are fitted at once, with each item's truth as it is then
// believed, by EM from the shares of what was said (the paper's 3.1). With few answers an annotator
// a whole matrix is more than they tell: OneRate has one number each, how often the truth is said,
// errors being spread evenly. What this is not: proof; annotators who err alike pass for right.
#pragma once

#include <plumb/data/agreement.hpp>
#include <plumb/run/choice_model.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// What an annotator said of an item; all numbered from 0. Several of one are several answers.
struct Label {
  std::size_t item, annotator, value;
};

enum class ErrorModel { Matrix, OneRate };

struct Reliability {
  std::vector<double> prevalence;          ///< (V) of the true values
  std::vector<SquareMatrix> said;          ///< (A) of (V, V): row the truth, column what is said
  std::vector<std::vector<double>> truth;  ///< (items, V) as it is believed
  double log_likelihood = 0.0;             ///< of what was said; the prior apart
  int iterations = 0;

  /// How often an annotator says the truth.
  double rate(std::size_t annotator) const {
    double sum = 0.0;
    for (std::size_t v = 0; v < prevalence.size(); ++v)
      sum += prevalence[v] * said[annotator](v, v);
    return sum;
  }
};

namespace detail {

/// Prevalences and rates that fit best if the truth is `out.truth`, which counts as its
/// probabilities; `prior` answers more, as many of each kind, to each annotator.
inline void fit_rates(std::span<const Label> labels, ErrorModel model, double prior,
                      Reliability& out) {
  const std::size_t values = out.prevalence.size();
  std::fill(out.prevalence.begin(), out.prevalence.end(), 0.0);
  for (const auto& item : out.truth)
    for (std::size_t v = 0; v < values; ++v)
      out.prevalence[v] += item[v] / static_cast<double>(out.truth.size());
  for (SquareMatrix& m : out.said) std::fill(m.values.begin(), m.values.end(), prior);
  for (const Label& l : labels)
    for (std::size_t v = 0; v < values; ++v)
      out.said[l.annotator](v, l.value) += out.truth[l.item][v];
  for (SquareMatrix& m : out.said) {
    double right = 0.0, all = 0.0;
    for (std::size_t v = 0; v < values; ++v) {
      double row = 0.0;
      for (std::size_t l = 0; l < values; ++l) row += m(v, l);
      right += m(v, v);
      all += row;
      for (std::size_t l = 0; l < values; ++l)
        m(v, l) = row > 0.0 ? m(v, l) / row : 1.0 / static_cast<double>(values);
    }
    if (model == ErrorModel::Matrix) continue;
    const double rate = all > 0.0 ? right / all : 1.0 / static_cast<double>(values);
    for (std::size_t v = 0; v < values; ++v)
      for (std::size_t l = 0; l < values; ++l)
        m(v, l) = v == l ? rate : (1.0 - rate) / static_cast<double>(values - 1);
  }
}

/// The truth of each item, if prevalences and rates are `out`'s, and the log-likelihood.
inline void fit_truth(std::span<const Label> labels, Reliability& out) {
  const std::size_t values = out.prevalence.size();
  for (auto& item : out.truth)
    for (std::size_t v = 0; v < values; ++v) item[v] = real::log(out.prevalence[v]);
  for (const Label& l : labels)
    for (std::size_t v = 0; v < values; ++v)
      out.truth[l.item][v] += real::log(out.said[l.annotator](v, l.value));
  out.log_likelihood = 0.0;
  for (auto& item : out.truth) {
    const double top = *std::max_element(item.begin(), item.end());
    double total = 0.0;
    for (double& p : item) total += p = real::exp(p - top);
    for (double& p : item) p /= total;
    out.log_likelihood += top + real::log(total);
  }
}

}  // namespace detail

/// Fits the model until no probability changes by 10⁻⁹, in 10,000 steps at most. Every item has a
/// label. `prior`: see fit_rates; 0 is maximum likelihood. ShapeError for numbers beyond the sizes,
/// items without a label, or fewer than two values.
inline Reliability dawid_skene(std::span<const Label> labels, std::size_t items,
                               std::size_t annotators, std::size_t values,
                               ErrorModel model = ErrorModel::Matrix, double prior = 0.0,
                               Where where = Where::here()) {
  check(values >= 2, "[dawid-skene] two values or more can be confused", where);
  Reliability out{std::vector<double>(values),
                  std::vector<SquareMatrix>(annotators, SquareMatrix(values)),
                  std::vector<std::vector<double>>(items, std::vector<double>(values))};
  for (const Label& l : labels) {
    if (l.item >= items || l.annotator >= annotators || l.value >= values)
      fail(str("[dawid-skene] annotator ", l.annotator, " of ", annotators, " says value ", l.value,
               " of ", values, " of item ", l.item, " of ", items),
           where);
    out.truth[l.item][l.value] += 1.0;
  }
  for (auto& item : out.truth) {
    double count = 0.0;
    for (const double n : item) count += n;
    check(count > 0.0, "[dawid-skene] an item has no label", where);
    for (double& n : item) n /= count;
  }
  double change = 1.0;
  while (change > 1e-9 && out.iterations < 10000) {
    detail::fit_rates(labels, model, prior, out);
    const std::vector<std::vector<double>> before = out.truth;
    detail::fit_truth(labels, out);
    change = 0.0;
    for (std::size_t i = 0; i < items; ++i)
      for (std::size_t v = 0; v < values; ++v)
        change = std::max(change, std::abs(out.truth[i][v] - before[i][v]));
    ++out.iterations;
  }
  return out;
}

/// How often each of some people says which of two responses is truly better, or that neither is.
struct AnnotatorRates {
  std::map<std::string, double> rate;  ///< empty: fewer than three people judged any pair together
  std::size_t pairs = 0;               ///< that two people or more judged
};

/// Of the pairs of responses that people ranked; one rate each, with an answer more of each kind as
/// a prior, so that who answered twice is not called infallible. The later of two rankings of one
/// id counts. With two people alone nothing tells whose the errors are.
inline AnnotatorRates annotator_rates(const std::vector<Ranking>& rankings) {
  std::map<std::pair<std::string, std::vector<std::string>>, std::map<std::string, const Ranking*>>
      questions;
  for (const Ranking& r : rankings)
    if (r.repeat == 0 && r.labeller == "person" && !r.annotator.empty())
      questions[{r.id, r.responses}][r.annotator] = &r;
  std::map<std::string, std::size_t> numbers;
  std::vector<Label> labels;
  AnnotatorRates out;
  for (const auto& [question, answers] : questions)
    for (std::size_t i = 0; i < question.second.size(); ++i)
      for (std::size_t j = 0; j < i; ++j) {
        std::vector<Label> of_pair;
        for (const auto& [annotator, r] : answers) {
          if (r->rank[i] < 0 || r->rank[j] < 0) continue;
          const std::size_t value = r->rank[i] < r->rank[j]   ? 0U
                                    : r->rank[i] > r->rank[j] ? 1U
                                                              : 2U;
          of_pair.push_back(
              {out.pairs, numbers.try_emplace(annotator, numbers.size()).first->second, value});
        }
        if (of_pair.size() < 2) continue;
        ++out.pairs;
        labels.insert(labels.end(), of_pair.begin(), of_pair.end());
      }
  std::set<std::size_t> sharing;
  for (const Label& l : labels) sharing.insert(l.annotator);
  if (sharing.size() < 3) return out;
  const Reliability fit =
      dawid_skene(labels, out.pairs, numbers.size(), 3, ErrorModel::OneRate, 1.0 / 3.0);
  for (const auto& [annotator, number] : numbers)
    if (sharing.contains(number)) out.rate[annotator] = fit.rate(number);
  return out;
}

}}  // namespace plumb::v0_1
