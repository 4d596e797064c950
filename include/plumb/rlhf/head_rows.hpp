// What a linear reward head is, and how one is fitted: standardised rows of features, the loss of a
// ranking with its derivative, and the weights at which their sum is least.
//
// Objective: mean over prompts (or their comparisons: RankingWeight) of the terms of
// math/loss.inl.hpp (Bradley and Terry 1952, or Plackett and Luce) + ½ penalty·|w|², on features of
// mean 0 that have deviation 1 together, as the logarithm of the length has by itself. In double,
// by L-BFGS, in one order of additions: the result depends on no thread. Not here: which layer and
// which penalty (rlhf/reward_head.hpp).
#pragma once

#include <plumb/core/real.hpp>
#include <plumb/math/loss.hpp>
#include <plumb/optim/lbfgs.hpp>
#include <plumb/rlhf/features.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// Which features of a layer a head reads: of the last token, the mean over the response, or both.
enum class Pooling { Last, Mean, Both };
constexpr std::array<std::pair<const char*, Pooling>, 3> choices(Pooling) {
  return {{{"last", Pooling::Last}, {"mean", Pooling::Mean}, {"both", Pooling::Both}}};
}

/// A score that is linear in the features of one layer.
struct LinearHead {
  Index layer = 0;
  Pooling pool = Pooling::Both;
  std::vector<float> weight;  ///< (C), or (2·C): last token, then mean
  float length = 0;           ///< coefficient of log(1 + tokens of the response)
  float bias = 0;

  /// Replaces the score s by gain·s + shift.
  void rescale(double gain, double shift) {
    for (float& w : weight) w = static_cast<float>(gain * static_cast<double>(w));
    length = static_cast<float>(gain * static_cast<double>(length));
    bias = static_cast<float>(gain * static_cast<double>(bias) + shift);
  }
};

namespace detail {

/// Where a pooling's features begin among a layer's 2·C, and how many they are.
inline Index pool_begin(Pooling pool, Index channels) {
  return pool == Pooling::Mean ? channels : 0;
}
inline Index pool_size(Pooling pool, Index channels) {
  return pool == Pooling::Both ? 2 * channels : channels;
}
inline double log_length(Index tokens) { return real::log1p(static_cast<double>(tokens)); }

/// The term of one prompt's loss, a mean as in math/loss.inl.hpp, and its gradient by the scores.
/// Levels as in RankedPrompt, or none. Not here: pairs of another loss than the logistic one, and
/// centring, which penalised weights need not.
inline double ranked_term(const RankingLoss& loss, const Tokens& rank, std::span<const float> level,
                          const double* s, double* d) {
  const std::size_t k = rank.size();
  std::fill(d, d + k, 0.0);
  double sum = 0, terms = 0;
  if (loss.kind == RankingLossKind::BradleyTerry) {
    for (std::size_t i = 0; i < k; ++i)
      for (std::size_t j = 0; j < k; ++j) {
        if (rank[i] < 0 || rank[j] < 0 || rank[i] > rank[j] || i == j) continue;
        // A tie is seen from both sides, half each, and has no margin.
        const double share = rank[i] == rank[j] ? 0.5 : 1.0;
        double x = s[i] - s[j];
        if (rank[i] < rank[j]) {
          x -= static_cast<double>(loss.margin);
          if (!level.empty()) x -= static_cast<double>(level[i]) - static_cast<double>(level[j]);
        }
        const double wrong = 1 / (1 + real::exp(x));
        sum += share * (std::max(0.0, -x) + real::log1p(real::exp(-std::abs(x))));
        d[i] -= share * wrong;
        d[j] += share * wrong;
        terms += share;
      }
  } else {
    const std::int32_t last = *std::max_element(rank.begin(), rank.end());
    for (std::size_t i = 0; i < k; ++i) {
      if (rank[i] < 0 || rank[i] == last) continue;
      double top = s[i], total = 0;
      for (std::size_t j = 0; j < k; ++j)
        if (rank[j] >= rank[i]) top = std::max(top, s[j]);
      for (std::size_t j = 0; j < k; ++j)
        if (rank[j] >= rank[i]) total += real::exp(s[j] - top);
      for (std::size_t j = 0; j < k; ++j)
        if (rank[j] >= rank[i]) d[j] += real::exp(s[j] - top) / total;
      d[i] -= 1;
      sum += real::log(total) + top - s[i];
      terms += 1;
    }
  }
  if (terms == 0) return 0;
  for (std::size_t i = 0; i < k; ++i) d[i] /= terms;
  return sum / terms;
}

/// What a head of one layer and pooling is fitted to: standardised features of the prompts of a
/// training set, rows one prompt after another, the logarithm of the length last.
class HeadRows {
 public:
  HeadRows(const std::vector<RankedPrompt>& prompts, const ResponseFeatures& features,
           std::span<const std::size_t> train, std::size_t layer, Pooling pool, bool length)
      : layer_(features.layers[layer]),
        pool_(pool),
        features_(pool_size(pool, features.channels)),
        width_(features_ + (length ? 1 : 0)),
        mean_(static_cast<std::size_t>(width_)),
        scale_(mean_.size()) {
    std::vector<std::size_t> first(prompts.size() + 1);
    for (std::size_t p = 0; p < prompts.size(); ++p)
      first[p + 1] = first[p] + prompts[p].rank.size();
    for (const std::size_t p : train) {
      first_.push_back(lengths_.size());
      prompts_.push_back(&prompts[p]);
      for (std::size_t row = first[p]; row < first[p + 1]; ++row) {
        const float* x = features.at(row, layer) + pool_begin(pool, features.channels);
        values_.insert(values_.end(), x, x + features_);
        lengths_.push_back(features.lengths[row]);
        if (length) values_.push_back(static_cast<float>(log_length(lengths_.back())));
      }
    }
    standardise();
  }

  std::size_t prompts() const { return prompts_.size(); }
  const Tokens& rank(std::size_t prompt) const { return prompts_[prompt]->rank; }
  /// What RankingLoss::margin_by says of a prompt's levels: they or none.
  std::span<const float> level(std::size_t prompt, const RankingLoss& loss) const {
    return loss.margin_by == MarginBy::Data ? std::span(prompts_[prompt]->level)
                                            : std::span<const float>{};
  }
  Index width() const { return width_; }

  /// Scores of one prompt's responses.
  void score(std::size_t prompt, const std::vector<double>& w, double* scores) const {
    for (std::size_t k = 0; k < rank(prompt).size(); ++k)
      scores[k] = dot8(row(first_[prompt] + k), w.data(), width_);
  }

  /// What each prompt's loss weighs, 1 in the mean of all.
  std::vector<double> weights(const RankingLoss& loss) const {
    std::vector<double> all;
    double sum = 0;
    for (const RankedPrompt* p : prompts_) sum += all.emplace_back(ranking_weight(p->rank, loss));
    for (double& weight : all) weight *= static_cast<double>(all.size()) / sum;
    return all;
  }

  /// The weights that fit the prompts best, beginning from `w`, if each counts so often.
  std::vector<double> fit(const std::vector<double>& times, const RankingLoss& settings,
                          double penalty, std::vector<double> w) const {
    std::vector<double> share = weights(settings), s, d;
    double count = 0;
    for (std::size_t p = 0; p < prompts(); ++p) count += share[p] *= times[p];
    for (double& x : share) x /= count;
    return minimise(
        [&](const std::vector<double>& at, std::vector<double>& gradient) {
          double loss = 0;
          std::fill(gradient.begin(), gradient.end(), 0.0);
          for (std::size_t p = 0; p < prompts(); ++p) {
            if (share[p] == 0) continue;
            s.resize(rank(p).size());
            d.resize(s.size());
            score(p, at, s.data());
            loss +=
                share[p] * ranked_term(settings, rank(p), level(p, settings), s.data(), d.data());
            for (std::size_t k = 0; k < s.size(); ++k) {
              const float* x = row(first_[p] + k);
              const double step = share[p] * d[k];
              for (std::size_t i = 0; i < gradient.size(); ++i)
                gradient[i] += step * static_cast<double>(x[i]);
            }
          }
          for (std::size_t i = 0; i < at.size(); ++i) {
            loss += 0.5 * penalty * at[i] * at[i];
            gradient[i] += penalty * at[i];
          }
          return loss;
        },
        std::move(w));
  }

  /// The head of these weights, for features as they come.
  LinearHead head(const std::vector<double>& w) const {
    LinearHead out{layer_, pool_, {}, 0, 0};
    double bias = 0;
    for (std::size_t i = 0; i < w.size(); ++i) {
      const double weight = w[i] * scale_[i];
      bias -= weight * mean_[i];
      if (static_cast<Index>(i) < features_)
        out.weight.push_back(static_cast<float>(weight));
      else
        out.length = static_cast<float>(weight);
    }
    out.bias = static_cast<float>(bias);
    return out;
  }

 private:
  const float* row(std::size_t i) const { return values_.data() + i * mean_.size(); }

  // Means and deviations of the rows; a feature that never differs is left out.
  void standardise() {
    const double n = static_cast<double>(lengths_.size());
    std::vector<double> square(mean_.size());
    for (std::size_t r = 0; r < lengths_.size(); ++r)
      for (std::size_t i = 0; i < mean_.size(); ++i) mean_[i] += static_cast<double>(row(r)[i]) / n;
    for (std::size_t r = 0; r < lengths_.size(); ++r)
      for (std::size_t i = 0; i < mean_.size(); ++i) {
        const double x = static_cast<double>(row(r)[i]) - mean_[i];
        square[i] += x * x / n;
      }
    for (std::size_t i = 0; i < mean_.size(); ++i) {
      const double share = static_cast<Index>(i) < features_ ? static_cast<double>(features_) : 1.0;
      scale_[i] = square[i] > 1e-12 * mean_[i] * mean_[i] ? 1 / std::sqrt(square[i] * share) : 0.0;
    }
    for (std::size_t r = 0; r < lengths_.size(); ++r)
      for (std::size_t i = 0; i < mean_.size(); ++i) {
        float& x = values_[r * mean_.size() + i];
        x = static_cast<float>((static_cast<double>(x) - mean_[i]) * scale_[i]);
      }
  }

  Index layer_;
  Pooling pool_;
  Index features_, width_;
  std::vector<double> mean_, scale_;
  std::vector<std::size_t> first_;
  std::vector<const RankedPrompt*> prompts_;
  std::vector<Index> lengths_;
  std::vector<float> values_;
};

}  // namespace detail

}}  // namespace plumb::v0_1
