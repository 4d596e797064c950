// All responses of a table to one prompt, in double: sums over them are exact, with no sample in
// sight. The optimum of a reward under a divergence, its value, and the gradient of anything that
// is a sum over tokens of a coefficient times log π. Sized for up to 10⁵ responses.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/core/real.hpp>
#include <plumb/exact/table.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// The logits of a table, (nodes, V), as doubles.
struct TableLogits {
  TableShape shape;
  std::vector<double> at;

  template <class D>
  static TableLogits of(const Table<D>& policy) {
    const auto values = policy.parameters()["table"].to_vector();
    return {policy.config(), {values.begin(), values.end()}};
  }
};

/// A number for every token of every response.
using PerToken = std::vector<std::vector<double>>;

/// E f under p, and the standard deviation. Both (R).
inline double mean_under(std::span<const double> p, std::span<const double> f) {
  double sum = 0;
  for (std::size_t y = 0; y < p.size(); ++y) sum += p[y] * f[y];
  return sum;
}
inline double deviation_under(std::span<const double> p, std::span<const double> f) {
  const double mean = mean_under(p, f);
  double sum = 0;
  for (std::size_t y = 0; y < p.size(); ++y) sum += p[y] * (f[y] - mean) * (f[y] - mean);
  return std::sqrt(sum);
}

/// Every response to a prompt, in the order of its tokens, and how likely it is.
class Responses {
 public:
  /// A response ends with `stop` (−1: with none), or at the table's length. DataError for more than
  /// 10⁵ responses.
  Responses(const TableLogits& policy, std::int32_t prompt, std::int32_t stop = -1,
            Where where = Where::here())
      : shape_(policy.shape) {
    normalise(policy);
    Tokens response, path;
    std::vector<double> each;
    visit(prompt, stop, response, path, each, where);
    for (const auto& of_tokens : token_logprobs) {
      double sum = 0;
      for (const double x : of_tokens) sum += x;
      logprobs.push_back(sum);
      probabilities.push_back(real::exp(sum));
    }
  }
  template <class D>
  Responses(const Table<D>& policy, std::int32_t prompt, std::int32_t stop = -1,
            Where where = Where::here())
      : Responses(TableLogits::of(policy), prompt, stop, where) {}

  std::vector<Tokens> responses;
  std::vector<double> logprobs, probabilities;  ///< of each, nats
  PerToken token_logprobs;
  std::vector<Tokens> nodes;  ///< at which each token was drawn

  std::size_t size() const { return responses.size(); }
  std::size_t place(const Tokens& response) const {
    return static_cast<std::size_t>(std::lower_bound(responses.begin(), responses.end(), response) -
                                    responses.begin());
  }

  /// E f.
  double mean(std::span<const double> f) const { return mean_under(probabilities, f); }
  double deviation(std::span<const double> f) const { return deviation_under(probabilities, f); }
  double mean_length() const {
    double sum = 0;
    for (std::size_t y = 0; y < size(); ++y)
      sum += probabilities[y] * static_cast<double>(responses[y].size());
    return sum;
  }
  /// KL(this‖other), nats.
  double kl(const Responses& other) const {
    double sum = 0;
    for (std::size_t y = 0; y < size(); ++y)
      sum += probabilities[y] * (logprobs[y] - other.logprobs[y]);
    return sum;
  }

  /// The gradient by the logits of Σ_y Σ_t c[y][t] · log π(y_t), c being constants.
  std::vector<double> gradient(const PerToken& c) const {
    const auto v = static_cast<std::size_t>(shape_.vocab);
    std::vector<double> out(logprob_.size());
    for (std::size_t y = 0; y < size(); ++y)
      for (std::size_t t = 0; t < nodes[y].size(); ++t) {
        const std::size_t row = static_cast<std::size_t>(nodes[y][t]) * v;
        out[row + static_cast<std::size_t>(responses[y][t])] += c[y][t];
        for (std::size_t a = 0; a < v; ++a) out[row + a] -= c[y][t] * real::exp(logprob_[row + a]);
      }
    return out;
  }

 private:
  void normalise(const TableLogits& policy) {
    const auto v = static_cast<std::size_t>(shape_.vocab);
    logprob_ = policy.at;
    for (std::size_t row = 0; row < logprob_.size(); row += v) {
      double total = 0;
      const double top = *std::max_element(&logprob_[row], &logprob_[row] + v);
      for (std::size_t a = 0; a < v; ++a) total += real::exp(logprob_[row + a] - top);
      for (std::size_t a = 0; a < v; ++a) logprob_[row + a] -= top + real::log(total);
    }
  }
  void visit(std::int32_t node, std::int32_t stop, Tokens& response, Tokens& path,
             std::vector<double>& each, Where where) {
    const bool ended = !response.empty() && response.back() == stop;
    if (ended || static_cast<Index>(response.size()) == shape_.length) {
      check<DataError>(responses.size() < 100'000,
                       "[exact] a table of more than 100000 responses. HINT: fewer tokens", where);
      responses.push_back(response);
      nodes.push_back(path);
      token_logprobs.push_back(each);
      return;
    }
    path.push_back(node);
    for (Index t = 0; t < shape_.vocab; ++t) {
      const auto token = static_cast<std::int32_t>(t);
      response.push_back(token);
      each.push_back(logprob_[static_cast<std::size_t>(node * shape_.vocab + t)]);
      visit(shape_.child(node, token), stop, response, path, each, where);
      response.pop_back();
      each.pop_back();
    }
    path.pop_back();
  }

  TableShape shape_;
  std::vector<double> logprob_;  // (nodes, V)
};

/// weight · f, normalised: a distribution from unnormalised logarithms.
inline std::vector<double> normalised(std::vector<double> log_weights) {
  const double top = *std::max_element(log_weights.begin(), log_weights.end());
  double total = 0;
  for (double& x : log_weights) total += (x = real::exp(x - top));
  for (double& x : log_weights) x /= total;
  return log_weights;
}

/// π* ∝ π_ref e^(r/β), the optimum of E r − β KL(π‖π_ref). `log_reference`, `reward` (R).
inline std::vector<double> tilted(std::span<const double> log_reference,
                                  std::span<const double> reward, double beta) {
  std::vector<double> weights;
  for (std::size_t y = 0; y < reward.size(); ++y)
    weights.push_back(log_reference[y] + reward[y] / beta);
  return normalised(std::move(weights));
}

/// E r − β KL(p‖π_ref) of any distribution over the responses.
inline double objective(std::span<const double> p, std::span<const double> log_reference,
                        std::span<const double> reward, double beta) {
  double sum = 0;
  for (std::size_t y = 0; y < p.size(); ++y)
    if (p[y] > 0) sum += p[y] * (reward[y] - beta * (real::log(p[y]) - log_reference[y]));
  return sum;
}

inline double total_variation(std::span<const double> p, std::span<const double> q) {
  double sum = 0;
  for (std::size_t y = 0; y < p.size(); ++y) sum += 0.5 * std::abs(p[y] - q[y]);
  return sum;
}

}}  // namespace plumb::v0_1
