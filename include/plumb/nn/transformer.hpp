// The decoder-only transformer, pre-norm. What such models differ in is a Family of independent
// features, of which three settings have names:
//   Llama: RMSNorm, rotary positions, SwiGLU, grouped-query heads, no biases (Touvron et al. 2023);
//   Qwen2: Llama with biases on queries, keys and values (Yang et al. 2024);
//   GPT-2: LayerNorm, learned positions, GELU (tanh form), biases everywhere (Radford et al. 2019).
//
// One forward serves training (packed sequences) and generation (new tokens against a cache): only
// where attention looks for its keys differs, and both attention kernels compute the same bits.
// Hence the log-probability a token had when it was sampled is the one the training forward
// computes. Not here: dropout (there is none in RL), the head's log-softmax (ops/loss.hpp).
#pragma once

#include <plumb/core/fields.hpp>
#include <plumb/math/activation.hpp>
#include <plumb/math/attention.hpp>
#include <plumb/nn/kv_cache.hpp>
#include <plumb/nn/policy.hpp>
#include <plumb/ops/attention.hpp>
#include <plumb/ops/linear.hpp>
#include <plumb/ops/norm.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// Rms: weight alone; Layer: weight and bias.
enum class Norm : int { Rms, Layer };
constexpr std::array<std::pair<const char*, Norm>, 2> choices(Norm) {
  return {{{"rms", Norm::Rms}, {"layer", Norm::Layer}}};
}

/// Rotary: queries and keys turned by their position (Su et al. 2021); Learned: a table added to
/// the embedding.
enum class Positions : int { Rotary, Learned };
constexpr std::array<std::pair<const char*, Positions>, 2> choices(Positions) {
  return {{{"rotary", Positions::Rotary}, {"learned", Positions::Learned}}};
}

constexpr std::array<std::pair<const char*, Activation>, 5> choices(Activation) {
  return {{{"gelu", Activation::Gelu},
           {"silu", Activation::Silu},
           {"tanh", Activation::Tanh},
           {"relu", Activation::Relu},
           {"gelu_erf", Activation::GeluErf}}};
}

/// How rotary frequencies are lowered, for contexts longer than a model began with. Linear: all by
/// `factor`. Llama3: those of waves longer than original/low by `factor`, those shorter than
/// original/high not, between the two by degrees (Dubey et al. 2024; huggingface/transformers,
/// modeling_rope_utils.py).
enum class RopeScaling : int { None, Linear, Llama3 };
constexpr std::array<std::pair<const char*, RopeScaling>, 3> choices(RopeScaling) {
  return {{{"none", RopeScaling::None},
           {"linear", RopeScaling::Linear},
           {"llama3", RopeScaling::Llama3}}};
}

/// The features in which decoder-only transformers differ, each free of the others but for what
/// check_config names.
struct Family {
  Norm norm = Norm::Rms;
  Positions positions = Positions::Rotary;
  bool qkv_bias = false;           ///< biases on queries, keys and values
  bool projection_bias = false;    ///< bias on attention's output
  bool feed_forward_bias = false;  ///< biases on the feed-forward's matrices
  bool gated = true;               ///< activation(gate·x) ⊙ up·x, in place of activation(up·x)
  Activation activation = Activation::Silu;

  bool operator==(const Family&) const = default;
  static const Family Llama, Gpt2, Qwen2;
};
inline constexpr Family Family::Llama{};
inline constexpr Family Family::Gpt2{Norm::Layer, Positions::Learned, true, true, true,
                                     false,       Activation::Gelu};
inline constexpr Family Family::Qwen2{.qkv_bias = true};

struct TransformerConfig {
  Family family = Family::Llama;
  Index vocab = 512;
  Index context = 512;  ///< longest sequence, tokens
  Index channels = 64;
  Index layers = 5;
  Index heads = 8;
  Index kv_heads = 4;  ///< heads of keys and values: heads share them evenly
  Index hidden = 172;  ///< width of the feed-forward layer
  bool tied_head = true;
  float norm_eps = 1e-5F;
  float rope_base = 10000.0F;
  RopeScaling rope_scaling = RopeScaling::None;
  float rope_factor = 1.0F;
  float rope_low = 1.0F, rope_high = 4.0F;  ///< Llama3: parts of the original context
  Index rope_original = 8192;               ///< Llama3: the context that the model began with

  Index head_size() const { return channels / heads; }
  bool operator==(const TransformerConfig&) const = default;
};

/// How a model file spells the configuration, and what its numbers may be.
template <class F>
void fields(TransformerConfig& c, F&& f) {
  constexpr double kMost = 1 << 30;  // products of two sizes stay countable
  f(Field{"vocab", "tokens that there are", between(1, kMost)}, c.vocab);
  f(Field{"context", "longest sequence", between(1, 1 << 20), "tokens"}, c.context);
  f(Field{"channels", "width of a hidden state", between(1, kMost)}, c.channels);
  f(Field{"layers", "blocks", between(1, kMost)}, c.layers);
  f(Field{"heads", "attention heads", between(1, kMost)}, c.heads);
  f(Field{"kv_heads", "heads of keys and values", between(1, kMost)}, c.kv_heads);
  f(Field{"hidden", "width of the feed-forward layer", between(1, kMost)}, c.hidden);
  f(Field{"norm", "rms or layer"}, c.family.norm);
  f(Field{"positions", "rotary or learned"}, c.family.positions);
  f(Field{"qkv_bias", "biases on queries, keys and values"}, c.family.qkv_bias);
  f(Field{"projection_bias", "bias on attention's output"}, c.family.projection_bias);
  f(Field{"feed_forward_bias", "biases on the feed-forward"}, c.family.feed_forward_bias);
  f(Field{"gated", "whether the feed-forward has a gate"}, c.family.gated);
  f(Field{"activation", "of the feed-forward"}, c.family.activation);
  f(Field{"tied_head", "whether the head is the embedding"}, c.tied_head);
  f(Field{"norm_eps", "added to a variance", above_to(0, 1)}, c.norm_eps);
  f(Field{"rope_base", "base of the rotary frequencies", above(0)}, c.rope_base);
  f(Field{"rope_scaling", "how they are lowered"}, c.rope_scaling);
  f(Field{"rope_factor", "by how much", at_least(1)}, c.rope_factor);
  f(Field{"rope_low", "waves longer than the original context by this are lowered", above(0)},
    c.rope_low);
  f(Field{"rope_high", "waves shorter than the original context by this are not", above(0)},
    c.rope_high);
  f(Field{"rope_original", "the context before", between(1, 1 << 20), "tokens"}, c.rope_original);
}

/// DataError naming the first size that is out of range or does not fit another, before anything is
/// allocated.
inline void check_config(const TransformerConfig& c, Where where = Where::here()) {
  check_fields(c, "transformer", where);
  if (c.channels % c.heads != 0)
    fail<DataError>(
        str("[transformer] ", c.channels, " channels do not split into ", c.heads, " heads"),
        where);
  if (c.head_size() > kMaxHeadSize)
    fail<DataError>(
        str("[transformer] heads of ", c.head_size(), " channels; at most ", kMaxHeadSize), where);
  if (c.heads % c.kv_heads != 0)
    fail<DataError>(str("[transformer] ", c.heads, " heads do not share ", c.kv_heads,
                        " key/value heads evenly"),
                    where);
  if (c.family.positions == Positions::Rotary && c.head_size() % 2 != 0)
    fail<DataError>(
        str("[transformer] rotary positions need an even head size, not ", c.head_size()), where);
  check<DataError>(!c.family.gated || c.family.activation == Activation::Silu,
                   "[transformer] a gated feed-forward is computed with silu alone (SwiGLU)",
                   where);
  check<DataError>(c.rope_scaling != RopeScaling::Llama3 || c.rope_low < c.rope_high,
                   "[transformer] rope_low must be less than rope_high", where);
}

/// Weights of one block, its matrices plain or packed.
template <class D, class Matrix>
struct TransformerBlock {
  Matrix query, key, value, projection, gate, up, down;
  Tensor<D> norm1, norm1_bias, query_bias, key_bias, value_bias, projection_bias;
  Tensor<D> norm2, norm2_bias, gate_bias, up_bias, down_bias;
};

/// A transformer's matrices packed for generation; see PackedWeight.
template <class D>
struct PackedTransformer {
  std::vector<TransformerBlock<D, PackedWeight<D>>> blocks;
  PackedWeight<D> head;
};

/// The angle between two positions, radians, of each of the head_size/2 pairs of channels.
inline std::vector<double> rotary_frequencies(const TransformerConfig& c) {
  std::vector<double> all;
  for (Index i = 0; i < c.head_size() / 2; ++i) {
    double f = std::pow(static_cast<double>(c.rope_base),
                        -2.0 * static_cast<double>(i) / static_cast<double>(c.head_size()));
    const double lowered = f / static_cast<double>(c.rope_factor);
    if (c.rope_scaling == RopeScaling::Linear) f = lowered;
    if (c.rope_scaling == RopeScaling::Llama3) {
      // Waves in the original context, as a place between low (0) and high (1).
      const double low = c.rope_low, high = c.rope_high, pi = 3.14159265358979323846;
      const double waves = static_cast<double>(c.rope_original) * f / (2 * pi);
      const double place = (waves - low) / (high - low);
      f = place <= 0 ? lowered : place >= 1 ? f : (1 - place) * lowered + place * f;
    }
    all.push_back(f);
  }
  return all;
}

template <class D>
class Transformer {
 public:
  using Device = D;
  using Config = TransformerConfig;
  using Cache = KvCache<D>;
  using Packed = PackedTransformer<D>;

  /// Adds the model's tensors to `parameters` (names: embedding, blocks.0.query, …, final_norm,
  /// head). DataError unless check_config agrees.
  Transformer(Parameters<D>& parameters, const TransformerConfig& config) : config_(config) {
    check_config(config);
    const Family& family = config.family;
    const Index c = config.channels, kv = config.kv_heads * config.head_size();
    // GPT-2's initialisation: 0.02, residual projections scaled by 1/√(2·layers).
    const Init normal{0.0F, 0.02F}, one{1.0F, 0.0F}, nothing{};
    const Init residual{0.0F, 0.02F / std::sqrt(2.0F * static_cast<float>(config.layers))};
    const auto bias = [&](bool has, const std::string& name, Index n) {
      return has ? parameters.add(name, {n}, nothing) : Tensor<D>{};
    };
    const bool norm_bias = family.norm == Norm::Layer;

    embedding_ = parameters.add("embedding", {config.vocab, c}, normal);
    if (family.positions == Positions::Learned)
      position_embedding_ = parameters.add("position_embedding", {config.context, c}, normal);
    for (Index i = 0; i < config.layers; ++i) {
      const std::string p = str("blocks.", i, ".");
      Block b;
      b.norm1 = parameters.add(p + "norm1", {c}, one);
      b.norm1_bias = bias(norm_bias, p + "norm1_bias", c);
      b.query = parameters.add(p + "query", {c, c}, normal);
      b.query_bias = bias(family.qkv_bias, p + "query_bias", c);
      b.key = parameters.add(p + "key", {kv, c}, normal);
      b.key_bias = bias(family.qkv_bias, p + "key_bias", kv);
      b.value = parameters.add(p + "value", {kv, c}, normal);
      b.value_bias = bias(family.qkv_bias, p + "value_bias", kv);
      b.projection = parameters.add(p + "projection", {c, c}, residual);
      b.projection_bias = bias(family.projection_bias, p + "projection_bias", c);
      b.norm2 = parameters.add(p + "norm2", {c}, one);
      b.norm2_bias = bias(norm_bias, p + "norm2_bias", c);
      if (family.gated) b.gate = parameters.add(p + "gate", {config.hidden, c}, normal);
      b.gate_bias = bias(family.gated && family.feed_forward_bias, p + "gate_bias", config.hidden);
      b.up = parameters.add(p + "up", {config.hidden, c}, normal);
      b.up_bias = bias(family.feed_forward_bias, p + "up_bias", config.hidden);
      b.down = parameters.add(p + "down", {c, config.hidden}, residual);
      b.down_bias = bias(family.feed_forward_bias, p + "down_bias", c);
      blocks_.push_back(std::move(b));
    }
    final_norm_ = parameters.add("final_norm", {c}, one);
    final_norm_bias_ = bias(norm_bias, "final_norm_bias", c);
    head_ = config.tied_head ? embedding_ : parameters.add("head", {config.vocab, c}, normal);
    if (family.positions == Positions::Rotary) make_rotary_tables();
  }

  const TransformerConfig& config() const { return config_; }
  Index vocab() const { return config_.vocab; }
  Index context() const { return config_.context; }
  Index layers() const { return config_.layers; }
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
                            .gate_bias = b.gate_bias,
                            .up_bias = b.up_bias,
                            .down_bias = b.down_bias});
    return all;
  }

  /// Hidden states after the final norm, packed sequences: (N, C).
  Tensor<D> operator()(const Batch<D>& batch) const {
    return forward(blocks_, batch.tokens, batch.positions, packed_attention(batch));
  }

  Tensor<D> hidden(const Batch<D>& batch) const { return (*this)(batch); }
  Tensor<D> hidden(const CachedBatch<D>& batch, KvCache<D>& cache,
                   const PackedTransformer<D>& packed) const {
    return (*this)(batch, cache, &packed);
  }

  /// The same for new tokens of cached sequences, whose keys and values join the cache: (M, C).
  /// With this model's weights packed, faster; the bits are the same.
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

  /// What each of `layers` blocks (ascending; 0: the embedding) leave of the tokens, before any
  /// norm: (N, C) each. Blocks beyond the last of them are not computed.
  std::vector<Tensor<D>> features(const Batch<D>& batch, std::span<const Index> layers,
                                  Where where = Where::here()) const {
    const Index last = layers.empty() ? 0 : std::min(layers.back(), config_.layers);
    std::vector<Tensor<D>> all;
    stream(blocks_, batch.tokens, batch.positions, packed_attention(batch), last,
           [&](Index done, const Tensor<D>& x) {
             if (all.size() < layers.size() && done == layers[all.size()]) all.push_back(x);
           });
    if (all.size() < layers.size())
      fail(str("[transformer] features of layer ", layers[all.size()],
               "; layers ascend, from 0 to the model's ", config_.layers),
           where);
    return all;
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

  auto packed_attention(const Batch<D>& batch) const {
    return [this, &batch](Index, const Tensor<D>& q, const Tensor<D>& k, const Tensor<D>& v) {
      return attention(q, k, v, batch.offsets, attention_shape());
    };
  }

  template <class Blocks, class Attend>
  Tensor<D> forward(const Blocks& blocks, const Tensor<D, std::int32_t>& tokens,
                    const Tensor<D, std::int32_t>& positions, const Attend& attend) const {
    const auto x = stream(blocks, tokens, positions, attend, config_.layers, [](auto&&...) {});
    return norm(x, final_norm_, final_norm_bias_);
  }

  // The residual stream after `layers` blocks; visit(blocks done, stream) sees it on its way.
  template <class Blocks, class Attend, class Visit>
  Tensor<D> stream(const Blocks& blocks, const Tensor<D, std::int32_t>& tokens,
                   const Tensor<D, std::int32_t>& positions, const Attend& attend, Index layers,
                   Visit visit) const {
    auto x = embedding(embedding_, tokens);
    if (position_embedding_) x = add(x, embedding(position_embedding_, positions));
    visit(0, x);
    for (Index layer = 0; layer < layers; ++layer) {
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
      const auto hidden = b.gate
                              ? swiglu(linear(m, b.gate, b.gate_bias), linear(m, b.up, b.up_bias))
                              : activated_linear(m, b.up, b.up_bias, config_.family.activation);
      x = linear(hidden, b.down, b.down_bias, x);
      visit(layer + 1, x);
    }
    return x;
  }

  // cos and sin of position · base^(-2i/D), computed in double: constants of the model, so that no
  // device evaluates a trigonometric function of its own.
  void make_rotary_tables() {
    const Index half = config_.head_size() / 2;
    const std::vector<double> frequency = rotary_frequencies(config_);
    std::vector<float> cosine(static_cast<std::size_t>(config_.context * half)),
        sine(cosine.size());
    default_pool().run(config_.context, [&](Index position) {
      for (Index i = 0; i < half; ++i) {
        const double angle = static_cast<double>(position) * frequency[static_cast<std::size_t>(i)];
        const auto at = static_cast<std::size_t>(position * half + i);
        cosine[at] = static_cast<float>(std::cos(angle));
        sine[at] = static_cast<float>(std::sin(angle));
      }
    });
    cosine_ = Tensor<D>::from(cosine, {config_.context, half});
    sine_ = Tensor<D>::from(sine, {config_.context, half});
  }

  TransformerConfig config_;
  Tensor<D> embedding_, position_embedding_, final_norm_, final_norm_bias_, head_, cosine_, sine_;
  std::vector<Block> blocks_;
};

}}  // namespace plumb::v0_1
