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
  const auto length = [&](std::size_t i) { return static_cast<Index>(sequences[i].size()); };
  for_token_runs(sequences.size(), forward_tokens(policy), length,
                 [&](std::size_t i, std::size_t end) {
                   PackedBatch packed;
                   Tokens rows, targets;
                   for (; i < end; ++i) {
                     require_readable(policy, sequences[i], "nll", "sequence", i, 0, where);
                     for (std::size_t t = 0; t + 1 < sequences[i].size(); ++t) {
                       rows.push_back(static_cast<std::int32_t>(packed.tokens.size() + t));
                       targets.push_back(sequences[i][t + 1]);
                     }
                     packed.add(sequences[i]);
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
