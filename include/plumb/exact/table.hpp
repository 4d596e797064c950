// A policy that is a table: a row of logits for every beginning. All its responses can be listed
// (exact/responses.hpp), so that what a method should find, and what its gradient should be, is
// known exactly. It is a Policy like any other, sampled and trained by the same code; with a scalar
// head it is a value function of beginnings. Not here: generalisation, of which a table has none.
#pragma once

#include <plumb/nn/model.hpp>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// Beginnings are the nodes of a tree: the prompts, single tokens, are nodes 0 … V−1, and node n's
/// child by token t is (n + 1)·V + t.
struct TableShape {
  Index vocab = 4;   ///< V
  Index length = 2;  ///< of the longest response, tokens

  /// Nodes at which a token is drawn.
  Index nodes() const {
    Index all = 0, level = vocab;
    for (Index i = 0; i < length; ++i, level *= vocab) all += level;
    return all;
  }
  std::int32_t child(std::int32_t node, std::int32_t token) const {
    return (node + 1) * static_cast<std::int32_t>(vocab) + token;
  }
};

/// What a decoding slot remembers: the node that it stands at.
template <class D>
struct TableCache {
  std::vector<std::int32_t> node;
  void copy_slot(Index from, Index to, Index) {
    node[static_cast<std::size_t>(to)] = node[static_cast<std::size_t>(from)];
  }
};

/// The trunk: hidden states are rows of the table, (nodes, V), and the head is the identity.
template <class D>
class TableTrunk {
 public:
  using Config = TableShape;
  using Device = D;
  using Cache = TableCache<D>;
  struct Packed {
    PackedWeight<D> head;
  };

  TableTrunk(Parameters<D>& parameters, const Config& shape) : shape_(shape) {
    table_ = parameters.add("table", {shape.nodes(), shape.vocab}, {0.0F, 1.0F});
    std::vector<float> identity(static_cast<std::size_t>(shape.vocab * shape.vocab));
    for (Index i = 0; i < shape.vocab; ++i)
      identity[static_cast<std::size_t>(i * shape.vocab + i)] = 1.0F;
    head_ = Tensor<D>::from(identity, {shape.vocab, shape.vocab});
  }

  const Config& config() const { return shape_; }
  Index vocab() const { return shape_.vocab; }
  Index context() const { return shape_.length + 1; }
  const Tensor<D>& head() const { return head_; }
  Packed pack() const { return {PackedWeight<D>(head_)}; }
  Cache make_cache(Index slots, Index) const {
    return {std::vector<std::int32_t>(static_cast<std::size_t>(slots))};
  }

  Tensor<D> hidden(const Batch<D>& batch) const {
    const auto tokens = batch.tokens.to_vector(), positions = batch.positions.to_vector();
    Tokens nodes;
    for (std::size_t i = 0; i < tokens.size(); ++i)
      nodes.push_back(positions[i] == 0 ? tokens[i] : shape_.child(nodes.back(), tokens[i]));
    return rows(nodes);
  }
  Tensor<D> hidden(const CachedBatch<D>& batch, Cache& cache, const Packed&) const {
    const auto tokens = batch.tokens.to_vector(), positions = batch.positions.to_vector(),
               slots = batch.slots.to_vector();
    Tokens nodes;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      std::int32_t& node = cache.node[static_cast<std::size_t>(slots[i])];
      node = positions[i] == 0 ? tokens[i] : shape_.child(node, tokens[i]);
      nodes.push_back(node);
    }
    return rows(nodes);
  }

 private:
  // The last token of a response has a node beyond the table, and nobody reads what follows it.
  Tensor<D> rows(Tokens nodes) const {
    for (std::int32_t& node : nodes)
      node = std::min(node, static_cast<std::int32_t>(table_.dim(0)) - 1);
    return embedding(table_, device_vector<D>(nodes));
  }

  Config shape_;
  Tensor<D> table_, head_;
};

template <class D>
using Table = Model<D, TableTrunk<D>>;

}}  // namespace plumb::v0_1
