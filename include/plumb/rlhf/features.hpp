// What a frozen trunk makes of a response, pooled to a few numbers: the hidden state of its last
// token, and the mean over its tokens (its end token is one of them), after each of some layers. A
// linear reward head reads them (rlhf/reward_head.hpp). No gradient, one trunk, and the bits depend
// neither on the batch nor on the threads: forwards are packed, and a mean is one chain in double.
#pragma once

#include <plumb/core/pool.hpp>
#include <plumb/nn/budget.hpp>
#include <plumb/ops/linear.hpp>
#include <plumb/rlhf/episode.hpp>
#include <plumb/rlhf/ranking.hpp>

#include <functional>
#include <span>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// A sequence, and where in it the response to its prompt begins.
struct Answered {
  Tokens tokens;
  Index begin = 0;

  Index response() const { return static_cast<Index>(tokens.size()) - begin; }
};

/// The sequences of rankings, prompt after prompt. ShapeError unless each says where its response
/// begins.
inline std::vector<Answered> answered(const std::vector<RankedPrompt>& prompts,
                                      Where where = Where::here()) {
  std::vector<Answered> all;
  for (const RankedPrompt& p : prompts) {
    check(p.begins.size() == p.sequences.size(),
          "[features] a ranking does not say where its responses begin", where);
    for (std::size_t k = 0; k < p.sequences.size(); ++k)
      all.push_back({p.sequences[k], p.begins[k]});
  }
  return all;
}

/// The sequences of episodes.
inline std::vector<Answered> answered(const std::vector<Episode>& episodes) {
  std::vector<Answered> all;
  for (const Episode& e : episodes) {
    all.push_back({e.prompt, static_cast<Index>(e.prompt.size())});
    all.back().tokens.insert(all.back().tokens.end(), e.response.begin(), e.response.end());
  }
  return all;
}

/// Features of sequences, a row each: for each layer the last token's hidden state (C), then the
/// mean over the response (C).
struct ResponseFeatures {
  std::vector<Index> layers;   ///< how many blocks had been computed, ascending
  Index channels = 0;          ///< C
  std::vector<Index> lengths;  ///< tokens of each response
  std::vector<float> values;   ///< (B, layers, 2, C)

  Index rows() const { return static_cast<Index>(lengths.size()); }
  Index width() const { return static_cast<Index>(layers.size()) * 2 * channels; }
  /// The 2·C numbers of a row after layers[layer] blocks.
  const float* at(std::size_t row, std::size_t layer) const {
    return values.data() + static_cast<Index>(row) * width() +
           static_cast<Index>(layer) * 2 * channels;
  }
};

/// Called with the sequences that are done and their number.
using FeatureProgress = std::function<void(Index done, Index total)>;

namespace detail {

// Rows `first` … of one layer: hidden (N, C) of sequences packed so.
inline void pool_rows(ResponseFeatures& out, std::size_t first, std::size_t layer,
                      std::span<const Answered> sequences, const PackedBatch& packed,
                      const std::vector<float>& hidden) {
  const auto channels = static_cast<std::size_t>(out.channels);
  default_pool().run(static_cast<Index>(sequences.size()), [&](Index s) {
    const auto i = static_cast<std::size_t>(s);
    float* const to = out.values.data() + (first + i) * static_cast<std::size_t>(out.width()) +
                      layer * 2 * channels;
    const Index end = packed.length(s);
    // A response of no tokens is read at the end of its prompt.
    const Index tokens = std::max<Index>(1, sequences[i].response());
    const auto row = [&](Index t) {
      return hidden.data() + static_cast<std::size_t>(packed.row(s, t)) * channels;
    };
    std::vector<double> sum(channels);
    for (Index t = end - tokens; t < end; ++t)
      for (std::size_t c = 0; c < channels; ++c) sum[c] += static_cast<double>(row(t)[c]);
    for (std::size_t c = 0; c < channels; ++c) {
      to[c] = row(end - 1)[c];
      to[channels + c] = static_cast<float>(sum[c] / static_cast<double>(tokens));
    }
  });
}

}  // namespace detail

/// Features of sequences after each of `layers` (ascending) blocks of a trunk. DataError, naming
/// the sequence, where the trunk cannot read one.
template <Policy P>
  requires HasFeatures<P> ResponseFeatures response_features(const P& trunk,
                                                             const std::vector<Answered>& sequences,
                                                             std::vector<Index> layers,
                                                             const FeatureProgress& progress = {},
                                                             Where where = Where::here()) {
    using D = typename P::Device;
    ResponseFeatures out{std::move(layers), trunk.head().dim(1), {}, {}};
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      require_readable(trunk, sequences[i].tokens, "features", "sequence", i, 0, where);
      check(sequences[i].begin >= 0 && sequences[i].response() >= 0,
            "[features] a response begins outside its sequence", where);
      out.lengths.push_back(sequences[i].response());
    }
    out.values.resize(static_cast<std::size_t>(out.rows() * out.width()));
    const auto add = [&](PackedBatch& packed, std::size_t i) { packed.add(sequences[i].tokens); };
    for_packed_runs(partial_batches<P>, sequences.size(), forward_tokens(trunk), add,
                    [&](const PackedBatch& packed, std::size_t i, std::size_t end) {
                      const auto hidden = trunk.features(Batch<D>::from(packed), out.layers);
                      for (std::size_t layer = 0; layer < hidden.size(); ++layer)
                        detail::pool_rows(out, i, layer, std::span(sequences).subspan(i, end - i),
                                          packed, hidden[layer].to_vector());
                      if (progress) progress(static_cast<Index>(end), out.rows());
                    });
    return out;
  }

}}  // namespace plumb::v0_1
