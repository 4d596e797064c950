// The decoder-only transformer, pre-norm, in two families:
//   Llama: RMSNorm, rotary positions, SwiGLU, grouped-query heads, no biases (Touvron et al. 2023);
//   GPT-2: LayerNorm, learned positions, GELU (tanh form), biases (Radford et al. 2019).
//
// One forward serves training (packed sequences) and generation (new tokens against a cache): only
// where attention looks for its keys differs, and both attention kernels compute the same bits. Hence
// the log-probability a token had when it was sampled is the one the training forward computes.
// Not here: dropout (there is none in RL), the head's log-softmax (ops/loss.hpp).
#pragma once

#include <plumb/data/packing.hpp>
#include <plumb/nn/kv_cache.hpp>
#include <plumb/nn/parameters.hpp>
#include <plumb/ops/attention.hpp>
#include <plumb/ops/linear.hpp>
#include <plumb/ops/norm.hpp>

#include <cmath>
#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 {

enum class Family : int { Llama = 0, Gpt2 = 1 };

struct TransformerConfig {
  Family family = Family::Llama;
  Index vocab = 512;
  Index context = 512;  ///< longest sequence, tokens
  Index channels = 64;
  Index layers = 5;
  Index heads = 8;
  Index kv_heads = 4;  ///< GPT-2: equal to heads
  Index hidden = 172;  ///< width of the feed-forward layer
  bool tied_head = true;
  float norm_eps = 1e-5F;
  float rope_base = 10000.0F;

  Index head_size() const { return channels / heads; }
  bool operator==(const TransformerConfig&) const = default;
};

/// Packed sequences on the device: N tokens of B sequences one after another, without padding.
template <class D>
struct Batch {
  Tensor<D, std::int32_t> tokens;     ///< (N)
  Tensor<D, std::int32_t> positions;  ///< (N), from 0 in each sequence
  Tensor<D, std::int32_t> offsets;    ///< (B+1), where each sequence begins

  static Batch from(const PackedBatch& packed) {
    const Index n = packed.size();
    return {Tensor<D, std::int32_t>::from(packed.tokens, {n}),
            Tensor<D, std::int32_t>::from(packed.positions(), {n}),
            Tensor<D, std::int32_t>::from(packed.offsets, {packed.sequences() + 1})};
  }
};

/// New tokens for sequences in cache slots.
template <class D>
struct CachedBatch {
  Tensor<D, std::int32_t> tokens, positions, slots;  ///< (M) each
};

/// Weights of one block, its matrices plain or packed.
template <class D, class Matrix>
struct TransformerBlock {
  Matrix query, key, value, projection, gate, up, down;
  Tensor<D> norm1, norm1_bias, query_bias, key_bias, value_bias, projection_bias;
  Tensor<D> norm2, norm2_bias, up_bias, down_bias;
};

/// A transformer's matrices packed for generation; see PackedWeight.
template <class D>
struct PackedTransformer {
  std::vector<TransformerBlock<D, PackedWeight<D>>> blocks;
  PackedWeight<D> head;
};

template <class D>
class Transformer {
 public:
  /// Adds the model's tensors to `parameters` (names: embedding, blocks.0.query, …, final_norm, head).
  Transformer(Parameters<D>& parameters, const TransformerConfig& config) : config_(config) {
    check_config(config);
    const Index c = config.channels, kv = config.kv_heads * config.head_size();
    const bool gpt2 = config.family == Family::Gpt2;
    // GPT-2's initialisation: 0.02, residual projections scaled by 1/√(2·layers).
    const Init normal{0.0F, 0.02F}, one{1.0F, 0.0F}, nothing{};
    const Init residual{0.0F, 0.02F / std::sqrt(2.0F * static_cast<float>(config.layers))};
    const auto bias = [&](const std::string& name, Index n) {
      return gpt2 ? parameters.add(name, {n}, nothing) : Tensor<D>{};
    };

    embedding_ = parameters.add("embedding", {config.vocab, c}, normal);
    if (gpt2)
      position_embedding_ = parameters.add("position_embedding", {config.context, c}, normal);
    for (Index i = 0; i < config.layers; ++i) {
      const std::string p = str("blocks.", i, ".");
      Block b;
      b.norm1 = parameters.add(p + "norm1", {c}, one);
      b.norm1_bias = bias(p + "norm1_bias", c);
      b.query = parameters.add(p + "query", {c, c}, normal);
      b.query_bias = bias(p + "query_bias", c);
      b.key = parameters.add(p + "key", {kv, c}, normal);
      b.key_bias = bias(p + "key_bias", kv);
      b.value = parameters.add(p + "value", {kv, c}, normal);
      b.value_bias = bias(p + "value_bias", kv);
      b.projection = parameters.add(p + "projection", {c, c}, residual);
      b.projection_bias = bias(p + "projection_bias", c);
      b.norm2 = parameters.add(p + "norm2", {c}, one);
      b.norm2_bias = bias(p + "norm2_bias", c);
      if (!gpt2) b.gate = parameters.add(p + "gate", {config.hidden, c}, normal);
      b.up = parameters.add(p + "up", {config.hidden, c}, normal);
      b.up_bias = bias(p + "up_bias", config.hidden);
      b.down = parameters.add(p + "down", {c, config.hidden}, residual);
      b.down_bias = bias(p + "down_bias", c);
      blocks_.push_back(std::move(b));
    }
    final_norm_ = parameters.add("final_norm", {c}, one);
    final_norm_bias_ = bias("final_norm_bias", c);
    head_ = config.tied_head ? embedding_ : parameters.add("head", {config.vocab, c}, normal);
    if (!gpt2) make_rotary_tables();
  }

  const TransformerConfig& config() const { return config_; }
  /// Weight of the language-model head, (V, C).
  const Tensor<D>& head() const { return head_; }

  /// A cache for `slots` sequences of up to `capacity` tokens.
  KvCache<D> make_cache(Index slots, Index capacity) const {
    return KvCache<D>(config_.layers, slots, capacity, attention_shape());
  }

  /// The matrices as they are now, packed for generation; see PackedWeight.
  PackedTransformer<D> pack(bool to_bf16 = false) const {
    const auto packed = [&](const Tensor<D>& weight) { return PackedWeight<D>(weight, to_bf16); };
    PackedTransformer<D> all{{}, packed(head_)};
    for (const Block& b : blocks_)
      all.blocks.push_back({.query = packed(b.query),
                            .key = packed(b.key),
                            .value = packed(b.value),
                            .projection = packed(b.projection),
                            .gate = packed(b.gate),
                            .up = packed(b.up),
                            .down = packed(b.down),
                            .norm1 = b.norm1,
                            .norm1_bias = b.norm1_bias,
                            .query_bias = b.query_bias,
                            .key_bias = b.key_bias,
                            .value_bias = b.value_bias,
                            .projection_bias = b.projection_bias,
                            .norm2 = b.norm2,
                            .norm2_bias = b.norm2_bias,
                            .up_bias = b.up_bias,
                            .down_bias = b.down_bias});
    return all;
  }

  /// Hidden states after the final norm, packed sequences: (N, C).
  Tensor<D> operator()(const Batch<D>& batch) const {
    return forward(blocks_, batch.tokens, batch.positions,
                   [&](Index, const Tensor<D>& q, const Tensor<D>& k, const Tensor<D>& v) {
                     return attention(q, k, v, batch.offsets, attention_shape());
                   });
  }

  /// The same for new tokens of cached sequences, whose keys and values join the cache: (M, C). With
  /// this model's weights packed, faster; the bits are the same.
  Tensor<D> operator()(const CachedBatch<D>& batch, KvCache<D>& cache,
                       const PackedTransformer<D>* packed = nullptr) const {
    const auto attend = [&](Index layer, const Tensor<D>& q, const Tensor<D>& k,
                            const Tensor<D>& v) {
      return cached_attention(q, k, v, cache.keys(layer), cache.values(layer), batch.slots,
                              batch.positions, cache.shape());
    };
    return packed != nullptr ? forward(packed->blocks, batch.tokens, batch.positions, attend)
                             : forward(blocks_, batch.tokens, batch.positions, attend);
  }

 private:
  using Block = TransformerBlock<D, Tensor<D>>;

  AttentionShape attention_shape() const {
    const Index size = config_.head_size();
    return {config_.heads, config_.kv_heads, size, 1.0F / std::sqrt(static_cast<float>(size))};
  }

  Tensor<D> norm(const Tensor<D>& x, const Tensor<D>& weight, const Tensor<D>& bias) const {
    return bias ? layer_norm(x, weight, bias, config_.norm_eps)
                : rms_norm(x, weight, config_.norm_eps);
  }

  template <class Blocks, class Attend>
  Tensor<D> forward(const Blocks& blocks, const Tensor<D, std::int32_t>& tokens,
                    const Tensor<D, std::int32_t>& positions, const Attend& attend) const {
    auto x = embedding(embedding_, tokens);
    if (position_embedding_) x = add(x, embedding(position_embedding_, positions));
    for (Index layer = 0; layer < config_.layers; ++layer) {
      const auto& b = blocks[static_cast<std::size_t>(layer)];
      const auto h = norm(x, b.norm1, b.norm1_bias);
      auto q = linear(h, b.query, b.query_bias);
      auto k = linear(h, b.key, b.key_bias);
      const auto v = linear(h, b.value, b.value_bias);
      if (cosine_) {
        q = rope(q, cosine_, sine_, positions);
        k = rope(k, cosine_, sine_, positions);
      }
      x = linear(attend(layer, q, k, v), b.projection, b.projection_bias, x);
      const auto m = norm(x, b.norm2, b.norm2_bias);
      const auto hidden = b.gate ? swiglu(linear(m, b.gate), linear(m, b.up, b.up_bias))
                                 : activated_linear(m, b.up, b.up_bias, Activation::Gelu);
      x = linear(hidden, b.down, b.down_bias, x);
    }
    return norm(x, final_norm_, final_norm_bias_);
  }

  // cos and sin of position · base^(-2i/D), computed in double: constants of the model, so that no
  // device evaluates a trigonometric function of its own.
  void make_rotary_tables() {
    const Index half = config_.head_size() / 2;
    std::vector<float> cosine, sine;
    for (Index position = 0; position < config_.context; ++position)
      for (Index i = 0; i < half; ++i) {
        const double angle =
            static_cast<double>(position) *
            std::pow(static_cast<double>(config_.rope_base),
                     -2.0 * static_cast<double>(i) / static_cast<double>(config_.head_size()));
        cosine.push_back(static_cast<float>(std::cos(angle)));
        sine.push_back(static_cast<float>(std::sin(angle)));
      }
    cosine_ = Tensor<D>::from(cosine, {config_.context, half});
    sine_ = Tensor<D>::from(sine, {config_.context, half});
  }

  static void check_config(const TransformerConfig& c) {
    if (c.vocab < 1 || c.context < 1 || c.channels < 1 || c.layers < 1 || c.heads < 1 ||
        c.hidden < 1)
      fail<DataError>(
          "[transformer] vocab, context, channels, layers, heads and hidden must be ≥ 1");
    if (c.channels % c.heads != 0)
      fail<DataError>(
          str("[transformer] ", c.channels, " channels do not split into ", c.heads, " heads"));
    if (c.head_size() > kMaxHeadSize)
      fail<DataError>(
          str("[transformer] heads of ", c.head_size(), " channels; at most ", kMaxHeadSize));
    if (c.kv_heads < 1 || c.heads % c.kv_heads != 0)
      fail<DataError>(str("[transformer] ", c.heads, " heads do not share ", c.kv_heads,
                          " key/value heads evenly"));
    if (c.family == Family::Llama && c.head_size() % 2 != 0)
      fail<DataError>(
          str("[transformer] rotary positions need an even head size, not ", c.head_size()));
  }

  TransformerConfig config_;
  Tensor<D> embedding_, position_embedding_, final_norm_, final_norm_bias_, head_, cosine_, sine_;
  std::vector<Block> blocks_;
};

}}  // namespace plumb::v0_1
