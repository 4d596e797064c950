// A policy that is a table, with the logits of the next token for every beginning: all responses
// can be enumerated, so that what a method should find, and what its gradient should be, is known
// exactly. It is a Policy like any other, trained by the same code.
#pragma once

#include "tiny.hpp"

#include <cmath>
#include <vector>

namespace test {

template <class D>
struct TableCache {
  std::vector<std::int32_t> node;
  void copy_slot(Index from, Index to, Index) {
    node[static_cast<std::size_t>(to)] = node[static_cast<std::size_t>(from)];
  }
};

/// Beginnings are the nodes of a tree: the prompts, single tokens, are 0 … V−1, and node n's child
/// by token t is (n + 1)·V + t.
template <class D>
class TableTrunk {
 public:
  struct Config {
    Index vocab = 4, length = 2;  ///< of tokens; of responses
  };
  struct PackedHead {
    plumb::PackedWeight<D> head;
  };
  using Device = D;
  using Cache = TableCache<D>;
  using Packed = PackedHead;

  TableTrunk(plumb::Parameters<D>& parameters, const Config& config) : config_(config) {
    Index nodes = 0, level = config.vocab;
    for (Index i = 0; i < config.length; ++i, level *= config.vocab) nodes += level;
    table_ = parameters.add("table", {nodes, config.vocab}, {0.0F, 1.0F});
    std::vector<float> identity(static_cast<std::size_t>(config.vocab * config.vocab));
    for (Index i = 0; i < config.vocab; ++i)
      identity[static_cast<std::size_t>(i * config.vocab + i)] = 1.0F;
    head_ = Tensor<D>::from(identity, {config.vocab, config.vocab});
  }

  const Config& config() const { return config_; }
  Index vocab() const { return config_.vocab; }
  Index context() const { return config_.length + 1; }
  const Tensor<D>& head() const { return head_; }
  Packed pack() const { return {plumb::PackedWeight<D>(head_)}; }
  Cache make_cache(Index slots, Index) const {
    return {std::vector<std::int32_t>(static_cast<std::size_t>(slots))};
  }

  Tensor<D> hidden(const plumb::Batch<D>& batch) const {
    const auto tokens = batch.tokens.to_vector(), positions = batch.positions.to_vector();
    Tokens nodes;
    for (std::size_t i = 0; i < tokens.size(); ++i)
      nodes.push_back(positions[i] == 0 ? tokens[i] : child(nodes.back(), tokens[i]));
    return rows(nodes);
  }
  Tensor<D> hidden(const plumb::CachedBatch<D>& batch, Cache& cache, const Packed&) const {
    const auto tokens = batch.tokens.to_vector(), positions = batch.positions.to_vector(),
               slots = batch.slots.to_vector();
    Tokens nodes;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      std::int32_t& node = cache.node[static_cast<std::size_t>(slots[i])];
      node = positions[i] == 0 ? tokens[i] : child(node, tokens[i]);
      nodes.push_back(node);
    }
    return rows(nodes);
  }

 private:
  std::int32_t child(std::int32_t node, std::int32_t token) const {
    return (node + 1) * static_cast<std::int32_t>(config_.vocab) + token;
  }
  // The last token of a response has a node beyond the table, and nobody reads what follows it.
  Tensor<D> rows(Tokens nodes) const {
    for (std::int32_t& node : nodes)
      node = std::min(node, static_cast<std::int32_t>(table_.dim(0)) - 1);
    return embedding(table_, plumb::device_vector<D>(nodes));
  }

  Config config_;
  Tensor<D> table_, head_;
};

using Table = plumb::Model<Cpu, TableTrunk<Cpu>>;
static_assert(plumb::Policy<Table>);

/// All responses to a prompt, in order of their tokens, and exact sums over them, in double.
class Enumerated {
 public:
  Enumerated(const Table& policy, std::int32_t prompt) : prompt_(prompt) {
    const Index v = policy.vocab(), length = policy.config().length;
    const auto table = policy.parameters()["table"].to_vector();
    Tokens response;
    const auto visit = [&](auto self, std::int32_t node, double logprob) -> void {
      if (static_cast<Index>(response.size()) == length) {
        responses.push_back(response);
        logprobs.push_back(logprob);
        return;
      }
      const float* logits = table.data() + node * v;
      double total = 0;
      for (Index t = 0; t < v; ++t) total += std::exp(double{logits[t]});
      for (Index t = 0; t < v; ++t) {
        response.push_back(static_cast<std::int32_t>(t));
        self(self, (node + 1) * static_cast<std::int32_t>(v) + static_cast<std::int32_t>(t),
             logprob + logits[t] - std::log(total));
        response.pop_back();
      }
    };
    visit(visit, prompt, 0.0);
  }

  std::vector<Tokens> responses;
  std::vector<double> logprobs;

  std::size_t size() const { return responses.size(); }
  std::size_t place(const Tokens& response) const {
    return static_cast<std::size_t>(std::lower_bound(responses.begin(), responses.end(), response) -
                                    responses.begin());
  }

 private:
  std::int32_t prompt_;
};

/// π* ∝ π_ref e^(r/β), the optimum of E r − β KL(π‖π_ref).
inline std::vector<double> tilted(const Enumerated& reference, const std::vector<double>& reward,
                                  double beta) {
  std::vector<double> p;
  double total = 0;
  for (std::size_t i = 0; i < reference.size(); ++i) {
    p.push_back(std::exp(reference.logprobs[i] + reward[i] / beta));
    total += p.back();
  }
  for (double& x : p) x /= total;
  return p;
}

inline double total_variation(const Enumerated& policy, const std::vector<double>& target) {
  double sum = 0;
  for (std::size_t i = 0; i < target.size(); ++i)
    sum += 0.5 * std::abs(std::exp(policy.logprobs[i]) - target[i]);
  return sum;
}

/// E r − β KL(π‖π_ref).
inline double objective(const Enumerated& policy, const Enumerated& reference,
                        const std::vector<double>& reward, double beta) {
  double sum = 0;
  for (std::size_t i = 0; i < policy.size(); ++i)
    sum += std::exp(policy.logprobs[i]) *
           (reward[i] - beta * (policy.logprobs[i] - reference.logprobs[i]));
  return sum;
}

}  // namespace test
