// How likely a policy finds given sequences: the mean negative log-likelihood of a token, whose
// exponential is the perplexity.
#pragma once

#include <plumb/nn/budget.hpp>
#include <plumb/ops/loss.hpp>

#include <vector>

namespace plumb { inline namespace v0_1 {

/// Mean negative log-likelihood of sequences, nats per predicted token (each token but the first of
/// its sequence). DataError if a sequence cannot be read, or none has two tokens.
template <Policy P>
double mean_nll(const P& policy, const std::vector<Tokens>& sequences,
                Where where = Where::here()) {
  using D = typename P::Device;
  double total = 0, count = 0;
  const auto add = [&](PackedBatch& packed, std::size_t i) {
    require_readable(policy, sequences[i], "nll", "sequence", i, 0, where);
    packed.add(sequences[i]);
  };
  for_packed_runs(partial_batches<P>, sequences.size(), forward_tokens(policy), add,
                  [&](const PackedBatch& packed, std::size_t i, std::size_t end) {
                    Tokens rows, targets;
                    for (Index b = 0; i < end; ++i, ++b)
                      for (std::size_t t = 0; t + 1 < sequences[i].size(); ++t) {
                        rows.push_back(packed.row(b, static_cast<Index>(t)));
                        targets.push_back(sequences[i][t + 1]);
                      }
                    if (rows.empty()) return;
                    const auto hidden = policy.hidden(Batch<D>::from(packed));
                    const auto out = head_logprob(embedding(hidden, device_vector<D>(rows)),
                                                  policy.head(), device_vector<D>(targets));
                    for (const float logprob : out.logprob.to_vector()) total -= logprob;
                    count += static_cast<double>(rows.size());
                  });
  if (count == 0) fail<DataError>("[nll] no sequence has two tokens", where);
  return total / count;
}

}}  // namespace plumb::v0_1
