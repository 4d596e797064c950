// Episodes: a prompt, the response sampled for it, and what is learned of each token; and the
// packed batches that a policy reads them in. Token t of a response is predicted, and valued, by
// the hidden state of the token before it; the score is read at the response's last token.
#pragma once

#include <plumb/ops/loss.hpp>
#include <plumb/rlhf/sample.hpp>

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
