// Keys and values of the tokens seen so far, per layer and slot. A slot holds one sequence; which
// sequence, and how long it is, the caller knows.
#pragma once

#include <plumb/core/tensor.hpp>
#include <plumb/math/attention.hpp>

#include <vector>

namespace plumb { inline namespace v0_1 {

template <class D>
class KvCache {
 public:
  /// Room for `slots` sequences of up to `capacity` tokens.
  KvCache(Index layers, Index slots, Index capacity, const AttentionShape& attention)
      : shape_{slots, capacity, attention} {
    for (Index layer = 0; layer < layers; ++layer) {
      keys_.push_back(Tensor<D>::zeros({shape_.keys_size()}));
      values_.push_back(Tensor<D>::zeros({shape_.values_size()}));
    }
  }

  const KvShape& shape() const { return shape_; }
  const Tensor<D>& keys(Index layer) const { return keys_[static_cast<std::size_t>(layer)]; }
  const Tensor<D>& values(Index layer) const { return values_[static_cast<std::size_t>(layer)]; }

  /// Gives slot `to` the first `length` tokens of slot `from`: many responses to a prompt that was
  /// read once.
  void copy_slot(Index from, Index to, Index length) {
    for (std::size_t layer = 0; layer < keys_.size(); ++layer)
      kv_copy(D{}, keys_[layer].data(), values_[layer].data(), from, to, length, shape_);
  }

 private:
  KvShape shape_;
  std::vector<Tensor<D>> keys_, values_;
};

}}  // namespace plumb::v0_1
