// Episodes: a prompt, the response sampled for it, and what is learned of each token; and the
// packed batches that a policy reads them in. Token t of a response is predicted, and valued, by
// the hidden state of the token before it; the score is read at the response's last token.
#pragma once

#include <plumb/ops/loss.hpp>
#include <plumb/rlhf/sample.hpp>

#include <initializer_list>
#include <span>
#include <vector>

namespace plumb { inline namespace v0_1 {

struct Episode {
  Tokens prompt;
  Tokens response;                  ///< (R), the stop token included
  Index group = 0;                  ///< which prompt: episodes of one group answer the same
  Index steps = 0;                  ///< R, or R+1 with the state after the last token
  bool finished = false;            ///< ended by a stop, not by length
  std::vector<float> logprobs;      ///< (R) when sampled, nats
  std::vector<float> ref_logprobs;  ///< (R) under the reference
  std::vector<float> kl_exact;      ///< (R) full-vocabulary KL to the reference, nats
  std::vector<float> values;        ///< (steps); empty where there is no critic
  std::vector<float> rewards;       ///< (steps)
  std::vector<float> advantages;    ///< (R)
  std::vector<float> returns;       ///< (steps) what a critic is fitted to; empty without one
  float score = 0;                  ///< of the whole response, penalties included
};

/// Episodes packed for a forward pass.
template <class D>
struct EpisodeBatch {
  Batch<D> batch;
  Tensor<D, std::int32_t> rows;        ///< (ΣR) the row that predicts each response token
  Tensor<D, std::int32_t> targets;     ///< (ΣR) that token
  Tensor<D, std::int32_t> value_rows;  ///< (Σ steps) the rows that are valued

  static EpisodeBatch from(std::span<const Episode* const> episodes) {
    PackedBatch packed;
    Tokens rows, targets, value_rows, sequence;
    for (const Episode* episode : episodes) {
      const auto before = static_cast<std::int32_t>(packed.tokens.size() + episode->prompt.size());
      for (Index t = 0; t < episode->steps; ++t)
        value_rows.push_back(before - 1 + static_cast<std::int32_t>(t));
      for (std::size_t t = 0; t < episode->response.size(); ++t)
        rows.push_back(before - 1 + static_cast<std::int32_t>(t));
      targets.insert(targets.end(), episode->response.begin(), episode->response.end());
      sequence = episode->prompt;
      sequence.insert(sequence.end(), episode->response.begin(), episode->response.end());
      packed.add(sequence);
    }
    return {Batch<D>::from(packed), device_vector<D>(rows), device_vector<D>(targets),
            device_vector<D>(value_rows)};
  }
};

/// What the blocks below the first that is trained make of episodes: computed once, and read in
/// every epoch, by the policy and by a reference on the same frozen trunk.
template <class D>
struct FrozenStates {
  Index layers = 0;                ///< how many blocks; 0: nothing is kept
  const Episode* first = nullptr;  ///< of the episodes, which lie one after another
  std::vector<Tensor<D>> states;   ///< of each, (prompt and response, C)

  /// Gives a batch of some of the episodes their states.
  void attach(Batch<D>& batch, std::span<const Episode* const> episodes) const {
    if (layers == 0) return;
    const Index channels = states[0].dim(1);
    batch.below = Tensor<D>::empty({batch.tokens.size(), channels});
    batch.below_layers = layers;
    Index row = 0;
    for (const Episode* episode : episodes) {
      const Tensor<D>& from = states[static_cast<std::size_t>(episode - first)];
      copy(D{}, batch.below.data() + row * channels, from.data(), from.bytes());
      row += from.dim(0);
    }
  }
};

/// The states of episodes for a policy and the `others` that read the same batches; none, where one
/// of these has another trunk or trains more of it.
template <Policy P>
FrozenStates<typename P::Device> frozen_states(const P& policy,
                                               std::initializer_list<const P*> others,
                                               const std::vector<Episode>& episodes) {
  using D = typename P::Device;
  FrozenStates<D> kept{0, episodes.data(), {}};
  if constexpr (requires { policy.transformer().frozen_layers(); }) {
    const auto& trunk = policy.transformer();
    const Index layers = trunk.frozen_layers();
    for (const P* other : others)
      if (other != nullptr && !other->transformer().keeps(trunk, layers)) return kept;
    if (layers == 0) return kept;
    kept.layers = layers;
    const auto length = [&](std::size_t i) {
      return static_cast<Index>(episodes[i].prompt.size() + episodes[i].response.size());
    };
    for_token_runs(episodes.size(), forward_tokens(policy), length,
                   [&](std::size_t i, std::size_t end) {
                     std::vector<const Episode*> members;
                     for (std::size_t e = i; e < end; ++e) members.push_back(&episodes[e]);
                     const auto all = trunk.blocks(EpisodeBatch<D>::from(members).batch, layers);
                     for (Index row = 0; i < end; row += length(i++))
                       kept.states.push_back(all.rows(row, row + length(i)));
                   });
  }
  return kept;
}

/// Exact full-vocabulary KL(policy‖reference), nats, at rows of hidden states of the two: (N).
template <Policy P, Policy R>
Tensor<typename P::Device> row_kl(const P& policy, const Tensor<typename P::Device>& rows,
                                  const R& reference, const Tensor<typename P::Device>& ref_rows,
                                  float temperature) {
  using D = typename P::Device;
  auto kl = Tensor<D>::empty({rows.dim(0)});
  head_kl_forward(D{}, kl.data(), rows.data(), policy.head().data(), rows.dim(1), ref_rows.data(),
                  reference.head().data(), ref_rows.dim(1), rows.dim(0), policy.vocab(),
                  1.0F / temperature);
  return kl;
}

}}  // namespace plumb::v0_1
