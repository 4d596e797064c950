// Episodes: a prompt, the response sampled for it, and what PPO learns of each token; and the packed
// batches that a model reads them in. Token t of a response is predicted, and valued, by the hidden
// state of the token before it; the score is read at the response's last token.
#pragma once

#include <plumb/nn/model.hpp>
#include <plumb/rlhf/sample.hpp>

#include <span>
#include <vector>

namespace plumb { inline namespace v0_1 {

struct Episode {
  Tokens prompt;
  Tokens response;                  ///< (R), the stop token included
  bool finished = false;            ///< ended by a stop, not by length
  std::vector<float> logprobs;      ///< (R) when sampled, nats
  std::vector<float> ref_logprobs;  ///< (R) under the reference
  std::vector<float> kl_exact;      ///< (R) full-vocabulary KL to the reference, nats
  std::vector<float> values;        ///< (R), or (R+1) with the state after the last token
  std::vector<float> rewards, advantages, returns;  ///< as many as values
  float score = 0;                                  ///< of the whole response, penalties included
};

namespace detail {

/// Calls body(first, last) on runs of consecutive items of at most `budget` tokens together.
template <class Length, class Body>
void for_token_runs(std::size_t count, Index budget, Length length, Body body) {
  for (std::size_t first = 0; first < count;) {
    Index tokens = 0;
    std::size_t last = first;
    while (last < count && (last == first || tokens + length(last) <= budget))
      tokens += length(last++);
    body(first, last);
    first = last;
  }
}

template <class D, class T>
Tensor<D, T> device_vector(const std::vector<T>& values) {
  return Tensor<D, T>::from(values, {static_cast<Index>(values.size())});
}

}  // namespace detail

/// Tokens that one forward without gradient reads at most.
inline constexpr Index kForwardTokens = 8192;

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
      for (std::size_t t = 0; t < episode->values.size(); ++t)
        value_rows.push_back(before - 1 + static_cast<std::int32_t>(t));
      for (std::size_t t = 0; t < episode->response.size(); ++t)
        rows.push_back(before - 1 + static_cast<std::int32_t>(t));
      targets.insert(targets.end(), episode->response.begin(), episode->response.end());
      sequence = episode->prompt;
      sequence.insert(sequence.end(), episode->response.begin(), episode->response.end());
      packed.add(sequence);
    }
    return {Batch<D>::from(packed), detail::device_vector<D>(rows),
            detail::device_vector<D>(targets), detail::device_vector<D>(value_rows)};
  }
};

/// Exact full-vocabulary KL(policy‖reference), nats, at rows of hidden states of the two: (N).
template <class D>
Tensor<D> row_kl(const Model<D>& policy, const Tensor<D>& rows, const Model<D>& reference,
                 const Tensor<D>& ref_rows, float temperature) {
  auto kl = Tensor<D>::empty({rows.dim(0)});
  head_kl_forward(D{}, kl.data(), rows.data(), policy.transformer().head().data(), rows.dim(1),
                  ref_rows.data(), reference.transformer().head().data(), ref_rows.dim(1),
                  rows.dim(0), policy.config().vocab, 1.0F / temperature);
  return kl;
}

/// Mean negative log-likelihood of sequences, nats per predicted token (each token but the first of
/// its sequence). exp of it is the perplexity.
template <class D>
double mean_nll(const Model<D>& model, const std::vector<Tokens>& sequences) {
  double total = 0, count = 0;
  const auto length = [&](std::size_t i) { return static_cast<Index>(sequences[i].size()); };
  detail::for_token_runs(
      sequences.size(), kForwardTokens, length, [&](std::size_t i, std::size_t end) {
        PackedBatch packed;
        Tokens rows, targets;
        for (; i < end; ++i) {
          require_readable(model.config(), sequences[i], "nll", "sequence", i);
          for (std::size_t t = 0; t + 1 < sequences[i].size(); ++t) {
            rows.push_back(static_cast<std::int32_t>(packed.tokens.size() + t));
            targets.push_back(sequences[i][t + 1]);
          }
          packed.add(sequences[i]);
        }
        if (rows.empty()) return;
        const auto hidden = model.transformer()(Batch<D>::from(packed));
        const auto out =
            head_logprob(embedding(hidden, detail::device_vector<D>(rows)),
                         model.transformer().head(), detail::device_vector<D>(targets));
        for (const float logprob : out.logprob.to_vector()) total -= logprob;
        count += static_cast<double>(rows.size());
      });
  if (count == 0) fail<DataError>("[nll] no sequence has two tokens");
  return total / count;
}

}}  // namespace plumb::v0_1
