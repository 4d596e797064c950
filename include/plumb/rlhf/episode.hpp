// Episodes: a prompt, the response sampled for it, and what is learned of each token; and the
// packed batches that a policy reads them in. Token t of a response is predicted, and valued, by
// the hidden state of the token before it; the score is read at the response's last token.
#pragma once

#include <plumb/nn/frozen_states.hpp>
#include <plumb/ops/loss.hpp>
#include <plumb/rlhf/sample.hpp>

#include <initializer_list>
#include <span>
#include <vector>

namespace plumb { inline namespace v0_1 {

struct Episode {
  Tokens prompt;
  Tokens response;                     ///< (R), the stop token included
  Index group = 0;                     ///< which prompt: episodes of one group answer the same
  Index steps = 0;                     ///< R, or R+1 with the state after the last token
  bool finished = false;               ///< ended by a stop, not by length
  std::vector<float> logprobs;         ///< (R) when sampled, nats; corrected: the policy's own
  std::vector<float> policy_logprobs;  ///< (R) the policy's own, where the sampler may be another
  std::vector<float> ref_logprobs;     ///< (R) under the reference
  std::vector<float> kl_exact;         ///< (R) full-vocabulary KL to the reference, nats; or none
  std::vector<float> values;           ///< (steps); empty where there is no critic
  std::vector<float> rewards;          ///< (steps)
  std::vector<float> advantages;       ///< (R)
  std::vector<float> returns;          ///< (steps) what a critic is fitted to; empty without one
  std::vector<float> weights;          ///< (R) of importance, by which advantages are multiplied
  float raw_score = 0;                 ///< of the whole response, as it was given
  float score = 0;                     ///< the same clipped, and penalties included
};

/// Calls body(members) on the episodes of each group, which lie one after another.
template <class Body>
void for_groups(std::span<Episode> episodes, Body body) {
  for (std::size_t first = 0; first < episodes.size();) {
    std::size_t end = first + 1;
    while (end < episodes.size() && episodes[end].group == episodes[first].group) ++end;
    body(episodes.subspan(first, end - first));
    first = end;
  }
}

/// Appends an episode to a batch.
inline void pack(PackedBatch& packed, const Episode& episode) {
  Tokens sequence = episode.prompt;
  sequence.insert(sequence.end(), episode.response.begin(), episode.response.end());
  packed.add(sequence);
}

/// Episodes packed for a forward pass.
template <class D>
struct EpisodeBatch {
  Batch<D> batch;
  Tensor<D, std::int32_t> rows;        ///< (ΣR) the hidden state that predicts each response token
  Tensor<D, std::int32_t> targets;     ///< (ΣR) that token
  Tensor<D, std::int32_t> value_rows;  ///< (Σ steps) the hidden states that are valued

  /// Sequence b of `packed` being episode b.
  static EpisodeBatch from(const PackedBatch& packed, std::span<const Episode* const> episodes) {
    Tokens rows, targets, value_rows;
    for (std::size_t i = 0; i < episodes.size(); ++i) {
      const Episode& e = *episodes[i];
      const auto before = static_cast<Index>(e.prompt.size()) - 1;
      const auto tokens = static_cast<Index>(e.response.size());
      for (Index t = 0; t < e.steps; ++t)
        value_rows.push_back(packed.row(static_cast<Index>(i), before + t));
      for (Index t = 0; t < tokens; ++t)
        rows.push_back(packed.row(static_cast<Index>(i), before + t));
      targets.insert(targets.end(), e.response.begin(), e.response.end());
    }
    const ReadRows read = read_rows(packed, {&rows, &value_rows});
    return {Batch<D>::from(packed, read), device_vector<D>(rows), device_vector<D>(targets),
            device_vector<D>(value_rows)};
  }
  /// The episodes in one batch; `share`: beginnings that they have in common once.
  static EpisodeBatch from(std::span<const Episode* const> episodes, bool share = false) {
    PackedBatch packed(share);
    for (const Episode* episode : episodes) pack(packed, *episode);
    return from(packed, episodes);
  }
};

/// Episodes packed into batches of at most `budget` tokens: body(batch, episodes).
template <class Body>
void for_episode_runs(bool share, std::span<const Episode* const> episodes, Index budget,
                      Body body) {
  const auto add = [&](PackedBatch& packed, std::size_t i) { pack(packed, *episodes[i]); };
  for_packed_runs(share, episodes.size(), budget, add,
                  [&](const PackedBatch& packed, std::size_t first, std::size_t last) {
                    body(packed, episodes.subspan(first, last - first));
                  });
}

/// The places of episodes in the list that begins at `first`.
inline std::vector<std::size_t> places_of(std::span<const Episode* const> episodes,
                                          const Episode* first) {
  std::vector<std::size_t> places;
  for (const Episode* e : episodes) places.push_back(static_cast<std::size_t>(e - first));
  return places;
}

/// FrozenStates of episodes.
template <Policy P>
FrozenStates<typename P::Device> frozen_states(const P& policy,
                                               std::initializer_list<const P*> others,
                                               const std::vector<Episode>& episodes) {
  return frozen_states(policy, others, episodes.size(),
                       [&](PackedBatch& packed, std::size_t i) { pack(packed, episodes[i]); });
}

/// What a reference says of rows of hidden states, its own and the policy's.
template <class D>
struct RowReference {
  Tensor<D> logprob;  ///< (N), nats, of the targets
  Tensor<D> kl;       ///< (N), nats, KL(policy‖reference) over the whole vocabulary
};
template <Policy P, Policy R>
RowReference<typename P::Device> row_reference(
    const P& policy, const Tensor<typename P::Device>& rows, const R& reference,
    const Tensor<typename P::Device>& ref_rows,
    const Tensor<typename P::Device, std::int32_t>& targets, float temperature) {
  using D = typename P::Device;
  const RowReference<D> out{Tensor<D>::empty({rows.dim(0)}), Tensor<D>::empty({rows.dim(0)})};
  head_kl_forward(D{}, out.kl.data(), rows.data(), policy.head().data(), rows.dim(1),
                  ref_rows.data(), reference.head().data(), ref_rows.dim(1), rows.dim(0),
                  policy.vocab(), 1.0F / temperature, targets.data(), out.logprob.data());
  return out;
}

}}  // namespace plumb::v0_1
