// A baseline that every reward model must beat: a linear score of which words a response has,
// fitted to the same rankings. Pairwise logistic regression (Bradley and Terry 1952) on the
// presence of words that occur at least twice, by AdaGrad (Duchi et al. 2011) with weight decay; no
// order, no grammar, no prompt.
#pragma once

#include "words.hpp"

#include <plumb/core/real.hpp>
#include <plumb/data/records.hpp>

#include <cmath>
#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 {

class BagOfWords {
 public:
  explicit BagOfWords(const std::vector<Ranking>& rankings) {
    std::map<std::string, int> times;
    for (const Ranking& r : rankings)
      for (const std::string& text : r.responses)
        for (const std::string& word : distinct(text)) ++times[word];
    for (const auto& [word, count] : times)
      if (count >= 2) places_.emplace(word, static_cast<int>(places_.size()));
    weights_.assign(places_.size(), 0.0);
    fit(rankings);
  }

  double score(const std::string& response) const {
    double sum = 0;
    for (const int place : features(response)) sum += weights_[static_cast<std::size_t>(place)];
    return sum;
  }

  /// Pairs that rankings decide, and how many of them the scores get right; equal scores count one
  /// half.
  void count(const std::vector<Ranking>& rankings, double& pairs, double& correct) const {
    for (const Ranking& r : rankings) {
      std::vector<double> scores;
      for (const std::string& text : r.responses) scores.push_back(score(text));
      for_pairs(r, [&](std::size_t better, std::size_t worse) {
        pairs += 1;
        correct += scores[better] > scores[worse]    ? 1.0
                   : scores[better] == scores[worse] ? 0.5
                                                     : 0.0;
      });
    }
  }

 private:
  static std::set<std::string> distinct(const std::string& text) {
    const auto words = words_of(text);
    return {words.begin(), words.end()};
  }

  std::vector<int> features(const std::string& text) const {
    std::vector<int> out;
    for (const std::string& word : distinct(text))
      if (const auto found = places_.find(word); found != places_.end())
        out.push_back(found->second);
    return out;
  }

  template <class Visit>
  static void for_pairs(const Ranking& r, Visit visit) {
    for (std::size_t i = 0; i < r.rank.size(); ++i)
      for (std::size_t j = 0; j < r.rank.size(); ++j)
        if (r.rank[i] >= 0 && r.rank[j] >= 0 && r.rank[i] < r.rank[j]) visit(i, j);
  }

  void fit(const std::vector<Ranking>& rankings) {
    constexpr int kEpochs = 30;
    constexpr double kRate = 0.1, kDecay = 1e-3;
    std::vector<double> squares(weights_.size(), 1e-8);
    for (int epoch = 0; epoch < kEpochs; ++epoch)
      for (const Ranking& r : rankings) {
        std::vector<std::vector<int>> places;
        for (const std::string& text : r.responses) places.push_back(features(text));
        for_pairs(r, [&](std::size_t better, std::size_t worse) {
          double margin = 0;
          for (const int p : places[better]) margin += weights_[static_cast<std::size_t>(p)];
          for (const int p : places[worse]) margin -= weights_[static_cast<std::size_t>(p)];
          const double slope = 1.0 / (1.0 + real::exp(margin));  // of log σ(margin)
          const auto move = [&](const std::vector<int>& features, double sign) {
            for (const int p : features) {
              const auto at = static_cast<std::size_t>(p);
              const double g = sign * slope - kDecay * weights_[at];
              squares[at] += g * g;
              weights_[at] += kRate * g / std::sqrt(squares[at]);
            }
          };
          move(places[better], 1.0);
          move(places[worse], -1.0);
        });
      }
  }

  std::map<std::string, int> places_;
  std::vector<double> weights_;
};

}}  // namespace plumb::v0_1
