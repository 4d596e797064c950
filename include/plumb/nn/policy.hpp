// What a policy is: all that sampling, supervised training, reward models and PPO know of a
// network.
//
//   hidden(batch)                  hidden states (N, C) of packed sequences, recorded on a tape in
//   scope; of some rows alone where the batch says so (Batch::read)
//   hidden(cached, cache, packed)  the same, bit for bit, of new tokens of cached sequences: (M, C)
//   head()                         the weight (V, C) whose product with a hidden state is the
//   logits
//   scalar(hidden)                 w·h + b of each row, (N): a score or a value, where there is
//   such a head
//   vocab(), context()             tokens 0 … vocab-1; longest sequence
//   pack(), make_cache(…)      its matrices packed for generation; room for running sequences
//   parameters(), head_kind(), clone(head, seed)
//
// That the two forms of hidden() agree to the bit is the promise on which on-policy training
// stands: tests/test_policy.cpp holds every policy to it. nn/model.hpp makes a Policy of a trunk,
// such as the transformer. Not here: losses, and how a policy came to be (models/).
#pragma once

#include <plumb/core/tensor.hpp>
#include <plumb/data/packing.hpp>
#include <plumb/nn/parameters.hpp>
#include <plumb/ops/attention.hpp>

#include <concepts>
#include <cstdint>
#include <span>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// A scalar head beside the language-model head, and how its weights begin. Reward: standard
/// deviation 1/√(C+1) (Ziegler et al. 2019, lm-human-preferences); Value: 0, so that values start
/// at zero.
enum class ScalarHead { None, Reward, Value };

/// Host values on the device, as a tensor of one dimension.
template <class D, class T>
Tensor<D, T> device_vector(const std::vector<T>& values) {
  return Tensor<D, T>::from(values, {static_cast<Index>(values.size())});
}

/// Packed sequences on the device: N tokens of B sequences one after another, without padding.
template <class D>
struct Batch {
  Tensor<D, std::int32_t> tokens;     ///< (N)
  Tensor<D, std::int32_t> positions;  ///< (N), from 0 in each sequence
  Tensor<D, std::int32_t> offsets;    ///< (B+1), where each sequence's own tokens begin
  SharedKeys<D> keys{};               ///< which rows each sees, where beginnings are shared
  /// Rows of which hidden() gives the states, in this order; none: all.
  struct Read {
    Tensor<D, std::int32_t> offsets;  ///< (B+1), where each sequence's begin: the last of its own
    Tensor<D, std::int32_t> rows, positions;  ///< (M)
  };
  Read read{};
  /// What the first `below_layers` blocks made of the tokens, (N, C), if it is known already.
  Tensor<D> below{};
  Index below_layers = 0;

  static Batch from(const PackedBatch& packed, const ReadRows& read = {}) {
    const PackedBatch::Keys keys = packed.keys();
    const auto if_any = [](const std::vector<std::int32_t>& values) {
      return values.empty() ? Tensor<D, std::int32_t>{} : device_vector<D>(values);
    };
    return {device_vector<D>(packed.tokens),
            device_vector<D>(packed.positions()),
            device_vector<D>(packed.offsets),
            {if_any(keys.offsets), if_any(keys.rows)},
            {if_any(read.offsets), if_any(read.rows), if_any(read.positions)},
            {},
            0};
  }
};

/// New tokens for sequences in cache slots.
template <class D>
struct CachedBatch {
  Tensor<D, std::int32_t> tokens, positions, slots;  ///< (M) each
};

/// Generation's side of a network: what Policy and its trunk (nn/model.hpp) have in common.
template <class T>
concept Generates = requires(const T& t, const Batch<typename T::Device>& batch,
                             const CachedBatch<typename T::Device>& cached,
                             typename T::Cache& cache, const typename T::Packed& packed, Index n) {
  { t.hidden(batch) } -> std::same_as<Tensor<typename T::Device>>;
  { t.hidden(cached, cache, packed) } -> std::same_as<Tensor<typename T::Device>>;
  { t.head() } -> std::same_as<const Tensor<typename T::Device>&>;
  { t.vocab() } -> std::same_as<Index>;
  { t.context() } -> std::same_as<Index>;
  { t.pack() } -> std::same_as<typename T::Packed>;
  { t.make_cache(n, n) } -> std::same_as<typename T::Cache>;
  cache.copy_slot(n, n, n);  // the first n tokens of one slot to another
  {packed.head};             // multiplied by linear(hidden, packed.head)
};

/// See the head of this file.
template <class P>
concept Policy = Generates<P> && requires(const P& p, const Tensor<typename P::Device>& hidden) {
  { p.scalar(hidden) } -> std::same_as<Tensor<typename P::Device>>;
  { p.head_kind() } -> std::same_as<ScalarHead>;
  { p.parameters() } -> std::same_as<const Parameters<typename P::Device>&>;
  { p.clone(ScalarHead::Value, std::uint64_t{}) } -> std::same_as<P>;
};

/// Whether a network reads batches in which beginnings are shared (Batch::keys), and computes what
/// is read alone (Batch::read). One that does not say so is given whole sequences, and gives all.
template <class P>
constexpr bool partial_batches = requires {
  requires P::kPartialBatches;
};

/// A network, or a trunk, that shows what its layers make of the tokens: what a linear reward head
/// reads (rlhf/features.hpp).
template <class T>
concept HasFeatures = requires(const T& t, const Batch<typename T::Device>& batch,
                               std::span<const Index> layers) {
  // (N, C) after each of `layers` layers, ascending, from 0 to layers()
  { t.features(batch, layers) } -> std::same_as<std::vector<Tensor<typename T::Device>>>;
  { t.layers() } -> std::same_as<Index>;
};

/// DataError unless the policy can read the tokens and `room` more: `what` number `i` of operation
/// `op` is what the message names.
template <Policy P>
void require_readable(const P& policy, std::span<const std::int32_t> tokens, const char* op,
                      const char* what, std::size_t i, Index room = 0,
                      Where where = Where::here()) {
  const auto length = static_cast<Index>(tokens.size());
  if (length + room > policy.context())
    fail<DataError>(str("[", op, "] ", what, " ", i, " has ", length, " tokens; the context holds ",
                        policy.context(), room > 0 ? ", the response included" : "",
                        ". HINT: shorten the ", what),
                    where);
  for (const std::int32_t token : tokens)
    if (token < 0 || token >= policy.vocab())
      fail<DataError>(
          str("[", op, "] ", what, " ", i, " has token ", token, ", outside the vocabulary of ",
              policy.vocab(), ". HINT: is this the model's own tokenizer?"),
          where);
}

}}  // namespace plumb::v0_1
