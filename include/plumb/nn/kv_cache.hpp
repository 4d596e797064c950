// Keys and values of the tokens seen so far, per layer and slot. A slot holds one sequence; which
// sequence, and how long it is, the caller knows.
#pragma once

#include <plumb/core/bf16.hpp>
#include <plumb/core/tensor.hpp>
#include <plumb/math/attention.hpp>

#include <vector>

namespace plumb { inline namespace v0_1 {

template <class D>
class KvCache {
 public:
  /// One layer's, as float or as bf16.
  template <class T>
  struct Layer {
    Tensor<D, T> keys, values;
  };

  /// Room for `slots` sequences of up to `capacity` tokens.
  KvCache(Index layers, Index slots, Index capacity, const AttentionShape& attention,
          CacheType type = CacheType::Float)
      : shape_{slots, capacity, attention} {
    const auto add = [&]<class T>(std::vector<Layer<T>>& to) {
      for (Index layer = 0; layer < layers; ++layer)
        to.push_back({Tensor<D, T>::zeros({shape_.keys_size()}),
                      Tensor<D, T>::zeros({shape_.values_size()})});
    };
    type == CacheType::Bf16 ? add(bf16_layers_) : add(float_layers_);
  }

  const KvShape& shape() const { return shape_; }

  /// What body(layer) makes of a layer.
  template <class Body>
  auto visit(Index layer, const Body& body) const {
    const auto i = static_cast<std::size_t>(layer);
    return bf16_layers_.empty() ? body(float_layers_[i]) : body(bf16_layers_[i]);
  }

  /// Gives slot `to` the first `length` tokens of slot `from`: many responses to a prompt that was
  /// read once.
  void copy_slot(Index from, Index to, Index length) {
    const std::size_t layers = float_layers_.size() + bf16_layers_.size();
    for (Index layer = 0; layer < static_cast<Index>(layers); ++layer)
      visit(layer, [&](const auto& of) {
        kv_copy(D{}, of.keys.data(), of.values.data(), from, to, length, shape_);
      });
  }

 private:
  KvShape shape_;
  // One of the two.
  std::vector<Layer<float>> float_layers_;
  std::vector<Layer<bf16>> bf16_layers_;
};

}}  // namespace plumb::v0_1
