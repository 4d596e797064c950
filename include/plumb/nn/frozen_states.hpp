// What the blocks below the first that is trained make of sequences: computed once, and read in
// every epoch, by the policy and by others on the same frozen trunk. Not here: what is trained
// above.
#pragma once

#include <plumb/nn/budget.hpp>
#include <plumb/nn/policy.hpp>

#include <initializer_list>
#include <span>
#include <vector>

namespace plumb { inline namespace v0_1 {

template <class D>
struct FrozenStates {
  Index layers = 0;               ///< how many blocks; 0: nothing is kept
  std::vector<Tensor<D>> states;  ///< of each sequence, (tokens, C)

  /// Gives a batch its sequences' states; sequence b is number places[b].
  void attach(Batch<D>& batch, const PackedBatch& packed,
              std::span<const std::size_t> places) const {
    if (layers == 0) return;
    const Index channels = states[0].dim(1);
    batch.below = Tensor<D>::empty({batch.tokens.size(), channels});
    batch.below_layers = layers;
    for (std::size_t b = 0; b < places.size(); ++b) {
      const Tensor<D>& all = states[places[b]];
      const auto own = all.rows(packed.prefixes[b], all.dim(0));
      copy(D{}, batch.below.data() + packed.offsets[b] * channels, own.data(), own.bytes());
    }
  }
};

/// The states of `count` sequences, add(batch, i) appending the i-th, for a policy and the `others`
/// that read the same batches; none, where one of these has another trunk or trains more of it.
template <Policy P, class Add>
FrozenStates<typename P::Device> frozen_states(const P& policy,
                                               std::initializer_list<const P*> others,
                                               std::size_t count, Add add) {
  using D = typename P::Device;
  FrozenStates<D> kept;
  if constexpr (requires { policy.transformer().frozen_layers(); }) {
    const auto& trunk = policy.transformer();
    const Index layers = trunk.frozen_layers();
    for (const P* other : others)
      if (other != nullptr && !other->transformer().keeps(trunk, layers)) return kept;
    if (layers == 0) return kept;
    kept.layers = layers;
    for_packed_runs(partial_batches<P>, count, forward_tokens(policy), add,
                    [&](const PackedBatch& packed, std::size_t, std::size_t) {
                      const auto states = trunk.blocks(Batch<D>::from(packed), layers);
                      for (Index b = 0; b < packed.sequences(); ++b) {
                        Tokens rows;
                        for (Index t = 0; t < packed.length(b); ++t)
                          rows.push_back(packed.row(b, t));
                        kept.states.push_back(embedding(states, device_vector<D>(rows)));
                      }
                    });
  }
  return kept;
}

/// The same for a training of `epochs` passes over data of `tokens` tokens: where it is one pass,
/// or the states would take more than a quarter of what memory_limit() leaves, nothing is kept.
template <Policy P, class Add>
FrozenStates<typename P::Device> frozen_states_of_data(const P& policy, Index epochs, Index tokens,
                                                       std::size_t count, Add add) {
  const double bytes = 4.0 * static_cast<double>(tokens * policy.head().dim(1));
  const double free =
      static_cast<double>(memory_limit()) - static_cast<double>(memory_counters().used_bytes);
  if (epochs < 2 || (memory_limit() > 0 && bytes > 0.25 * free)) return {};
  return frozen_states(policy, {}, count, add);
}

}}  // namespace plumb::v0_1
