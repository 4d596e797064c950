// The decoder-only transformer, pre-norm, of any family (nn/transformer_config.hpp).
//
// One forward serves training (packed sequences) and generation (new tokens against a cache): only
// where attention looks for its keys differs, and both attention kernels compute the same bits.
// Hence the log-probability a token had when it was sampled is the one the training forward
// computes. Not here: dropout (there is none in RL), the head's log-softmax (ops/loss.hpp).
#pragma once

#include <plumb/core/real.hpp>
#include <plumb/nn/kv_cache.hpp>
#include <plumb/nn/lora.hpp>
#include <plumb/nn/policy.hpp>
#include <plumb/nn/transformer_config.hpp>
#include <plumb/ops/arithmetic.hpp>
#include <plumb/ops/attention.hpp>
#include <plumb/ops/linear.hpp>
#include <plumb/ops/norm.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

/// Weights of one block.
template <class D>
struct TransformerBlock {
  AdaptedWeight<D> query, key, value, projection, gate, up, down;
  Tensor<D> norm1, norm1_bias, query_bias, key_bias, value_bias, projection_bias;
  Tensor<D> norm2, norm2_bias, gate_bias, up_bias, down_bias;

  using Matrix = std::pair<const char*, AdaptedWeight<D> TransformerBlock::*>;
  static constexpr std::array<Matrix, 7> kMatrices{{{"query", &TransformerBlock::query},
                                                    {"key", &TransformerBlock::key},
                                                    {"value", &TransformerBlock::value},
                                                    {"projection", &TransformerBlock::projection},
                                                    {"gate", &TransformerBlock::gate},
                                                    {"up", &TransformerBlock::up},
                                                    {"down", &TransformerBlock::down}}};
  static constexpr std::array<Tensor<D> TransformerBlock::*, 11> kVectors{
      &TransformerBlock::norm1,      &TransformerBlock::norm1_bias,
      &TransformerBlock::query_bias, &TransformerBlock::key_bias,
      &TransformerBlock::value_bias, &TransformerBlock::projection_bias,
      &TransformerBlock::norm2,      &TransformerBlock::norm2_bias,
      &TransformerBlock::gate_bias,  &TransformerBlock::up_bias,
      &TransformerBlock::down_bias};
};

/// A transformer's matrices packed for generation; see PackedWeight.
template <class D>
struct PackedTransformer {
  std::vector<TransformerBlock<D>> blocks;
  PackedWeight<D> head;
};

template <class D>
class Transformer {
 public:
  using Device = D;
  using Config = TransformerConfig;
  using Cache = KvCache<D>;
  using Packed = PackedTransformer<D>;
  static constexpr bool kPartialBatches = true;

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
  KvCache<D> make_cache(Index slots, Index capacity, CacheType type = CacheType::Float) const {
    return KvCache<D>(config_.layers, slots, capacity, attention_shape(), type);
  }

  /// The matrices as they are now, packed for generation; see PackedWeight.
  PackedTransformer<D> pack() const {
    PackedTransformer<D> all{blocks_, packed_head_ ? packed_head_ : PackedWeight<D>(head_)};
    for (Block& b : all.blocks)
      for (const auto& [name, matrix] : Block::kMatrices) b.*matrix = (b.*matrix).packed();
    return all;
  }

  /// This network with nothing to train, its adapters merged: matrices packed, the rest copied.
  Transformer frozen(Storage storage) const {
    Transformer same(config_);
    for (const Block& from : blocks_) {
      Block b;
      for (const auto& [name, matrix] : Block::kMatrices)
        if (const AdaptedWeight<D>& weight = from.*matrix; weight)
          b.*matrix = frozen_matrix(weight, storage);
      for (const auto vector : Block::kVectors)
        if (from.*vector) b.*vector = (from.*vector).clone();
      same.blocks_.push_back(std::move(b));
    }
    for (const auto part : {&Transformer::embedding_, &Transformer::position_embedding_,
                            &Transformer::final_norm_, &Transformer::final_norm_bias_})
      if (this->*part) same.*part = (this->*part).clone();
    same.head_ = config_.tied_head ? same.embedding_ : head_.clone();
    same.packed_head_ = PackedWeight<D>(same.head_);
    same.cosine_ = cosine_;
    same.sine_ = sine_;
    return same;
  }
  bool is_frozen() const { return static_cast<bool>(packed_head_); }

  /// A frozen network's frozen part, with adapters whose tensors are added to `parameters`: all
  /// that is trained, and all that takes memory.
  Transformer adapted(Parameters<D>& parameters, const LoraConfig& lora,
                      Where where = Where::here()) const {
    check(is_frozen(), "[lora] adapters stand beside frozen weights. HINT: frozen() first", where);
    check_lora(lora, where);
    Transformer other = *this;
    other.lora_ = lora;
    const Index first = lora.top_layers > 0 ? config_.layers - lora.top_layers : 0;
    for (Index i = 0; i < config_.layers; ++i)
      for (const auto& [name, matrix] : Block::kMatrices) {
        AdaptedWeight<D>& weight = other.blocks_[static_cast<std::size_t>(i)].*matrix;
        weight = {};
        weight.base = (blocks_[static_cast<std::size_t>(i)].*matrix).base;
        if (weight && lora.rank > 0 && i >= first && names(lora.targets, name))
          add_adapter(parameters, str("blocks.", i, ".", name), weight, lora);
      }
    return other;
  }
  /// Rank 0: there are no adapters.
  const LoraConfig& lora() const { return lora_; }

  /// Numbers that a token takes in a cache.
  Index cache_floats() const { return 2 * config_.layers * config_.kv_heads * config_.head_size(); }
  /// Numbers that a token of a batch takes while a forward runs; and, recorded, until its backward
  /// has run: each block's results, and the gradients of the one that backward is in.
  Index token_floats(bool recorded) const {
    const Index c = config_.channels, kv = config_.kv_heads * config_.head_size();
    const Index h = config_.hidden, r = lora_.rank;
    const bool turns = config_.family.positions == Positions::Rotary, gated = config_.family.gated;
    const Index block = (turns ? 7 : 6) * c + (turns ? 3 : 2) * kv + (gated ? 3 : 2) * h + 14 * r;
    const Index blocks = is_frozen() && lora_.top_layers > 0 ? lora_.top_layers : config_.layers;
    return recorded ? (blocks + 1) * block : block;
  }

  /// Gives `full`, of the same configuration and all trained, this network's values, its adapters
  /// merged into the matrices.
  void copy_to(const Transformer& full) const {
    const auto take = [](const Tensor<D>& to, const Tensor<D>& from) {
      if (to) copy(D{}, to.data(), from.data(), to.bytes());
    };
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      for (const auto& [name, matrix] : Block::kMatrices)
        if (const AdaptedWeight<D>& weight = blocks_[i].*matrix; weight)
          take((full.blocks_[i].*matrix).base.trained, weight.merged());
      for (const auto vector : Block::kVectors) take(full.blocks_[i].*vector, blocks_[i].*vector);
    }
    for (const auto part : {&Transformer::embedding_, &Transformer::position_embedding_,
                            &Transformer::final_norm_, &Transformer::final_norm_bias_})
      take(full.*part, this->*part);
    if (!config_.tied_head) take(full.head_, head_);
  }

  /// Hidden states after the final norm, packed sequences: (N, C). Where only some rows are read,
  /// the last block computes keys and values of all, and all else of these.
  Tensor<D> operator()(const Batch<D>& batch) const {
    if (!batch.read.rows) return norm(blocks(batch, config_.layers), final_norm_, final_norm_bias_);
    const SharedKeys<D> keys{batch.keys.rows ? batch.keys.offsets : batch.offsets, batch.keys.rows};
    const auto attend = [&](const Tensor<D>& q, const Tensor<D>& k, const Tensor<D>& v) {
      return attention(q, k, v, batch.read.offsets, attention_shape(), keys);
    };
    const auto x = block(blocks_.back(), blocks(batch, config_.layers - 1), batch.positions, attend,
                         &batch.read);
    return norm(x, final_norm_, final_norm_bias_);
  }

  /// How many of the first blocks train nothing: what they make of a batch stays the same.
  Index frozen_layers() const {
    return lora_.rank > 0 && lora_.top_layers > 0 ? config_.layers - lora_.top_layers : 0;
  }
  /// What the first `layers` blocks make of a batch, before any further norm: (N, C).
  Tensor<D> blocks(const Batch<D>& batch, Index layers) const {
    const bool known = batch.below && batch.below_layers <= layers;
    return forward(blocks_, known ? batch.below : embedded(batch.tokens, batch.positions),
                   batch.positions, known ? batch.below_layers : 0, layers,
                   packed_attention(batch));
  }
  /// Whether the first `layers` blocks are those of `other`, in the same memory, and stay so.
  bool keeps(const Transformer& other, Index layers) const {
    const bool none_trained = lora_.rank == 0 || layers <= frozen_layers();
    return is_frozen() && none_trained && embedding_.data() == other.embedding_.data();
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
      return cache.visit(layer, [&](const auto& of) {
        return cached_attention(q, k, v, of.keys, of.values, batch.slots, batch.positions,
                                cache.shape());
      });
    };
    const auto x = forward(packed != nullptr ? packed->blocks : blocks_,
                           embedded(batch.tokens, batch.positions), batch.positions, 0,
                           config_.layers, attend);
    return norm(x, final_norm_, final_norm_bias_);
  }

  /// What each of `layers` blocks (ascending; 0: none, the embedding) leave of the tokens, before
  /// any norm: (N, C) each. Blocks beyond the last of them are not computed.
  std::vector<Tensor<D>> features(const Batch<D>& batch, std::span<const Index> layers,
                                  Where where = Where::here()) const {
    for (std::size_t i = 0; i < layers.size(); ++i)
      if (layers[i] < (i > 0 ? layers[i - 1] + 1 : 0) || layers[i] > config_.layers)
        fail(str("[transformer] features after ", layers[i], " of ", config_.layers,
                 " blocks; layers are named in ascending order"),
             where);
    std::vector<Tensor<D>> all;
    const auto attend = packed_attention(batch);
    auto x = embedded(batch.tokens, batch.positions);
    Index done = 0;
    for (const Index layer : layers) {
      x = forward(blocks_, x, batch.positions, done, layer, attend);
      done = layer;
      all.push_back(x);
    }
    return all;
  }

 private:
  using Block = TransformerBlock<D>;

  explicit Transformer(const TransformerConfig& config) : config_(config) {}

  static AdaptedWeight<D> frozen_matrix(const AdaptedWeight<D>& weight, Storage storage) {
    AdaptedWeight<D> same;
    if (storage == Storage::Int8)
      same.base = PackedWeight<D>::int8(weight.merged());
    else if (weight.down)
      same.base = PackedWeight<D>(weight.merged(), storage == Storage::Bf16);
    else
      same.base = weight.base.packed(storage == Storage::Bf16);
    return same;
  }

  void check_lora(const LoraConfig& lora, Where where) const {
    check_fields(lora, "lora", where);
    if (lora.top_layers > config_.layers)
      fail<DataError>(str("[lora] lora-layers is ", lora.top_layers, "; the model has ",
                          config_.layers, " blocks"),
                      where);
    std::string_view rest = lora.targets;
    while (!rest.empty() && lora.targets != "all") {
      const std::string_view name = rest.substr(0, rest.find(','));
      rest.remove_prefix(std::min(rest.size(), name.size() + 1));
      const auto& all = Block::kMatrices;
      const auto found = std::find_if(all.begin(), all.end(),
                                      [&](const auto& matrix) { return name == matrix.first; });
      if (found == all.end() || !(blocks_[0].*(found->second)))
        fail<DataError>(
            str("[lora] a block of this model has no matrix '", std::string(name),
                "'. HINT: lora-targets is all, or names of query, key, value, projection, ",
                config_.family.gated ? "gate, " : "", "up, down"),
            where);
    }
    check<DataError>(lora.rank == 0 || !lora.targets.empty(), "[lora] lora-targets names no matrix",
                     where);
  }

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
      return attention(q, k, v, batch.offsets, attention_shape(), batch.keys);
    };
  }

  Tensor<D> embedded(const Tensor<D, std::int32_t>& tokens,
                     const Tensor<D, std::int32_t>& positions) const {
    const auto x = embedding(embedding_, tokens);
    return position_embedding_ ? add(x, embedding(position_embedding_, positions)) : x;
  }

  /// x through the blocks [first, last).
  template <class Attend>
  Tensor<D> forward(const std::vector<Block>& blocks, Tensor<D> x,
                    const Tensor<D, std::int32_t>& positions, Index first, Index last,
                    const Attend& attend) const {
    for (Index layer = first; layer < last; ++layer)
      x = block(
          blocks[static_cast<std::size_t>(layer)], x, positions,
          [&](const auto& q, const auto& k, const auto& v) { return attend(layer, q, k, v); });
    return x;
  }

  /// x through a block: all rows of it, or those that are read.
  template <class Attend>
  Tensor<D> block(const Block& b, Tensor<D> x, const Tensor<D, std::int32_t>& positions,
                  const Attend& attend, const typename Batch<D>::Read* read = nullptr) const {
    const auto h = norm(x, b.norm1, b.norm1_bias);
    auto q = linear(read != nullptr ? embedding(h, read->rows) : h, b.query, b.query_bias);
    auto k = linear(h, b.key, b.key_bias);
    const auto v = linear(h, b.value, b.value_bias);
    if (read != nullptr) x = embedding(x, read->rows);
    if (cosine_) {
      q = rope(q, cosine_, sine_, read != nullptr ? read->positions : positions);
      k = rope(k, cosine_, sine_, positions);
    }
    x = linear(attend(q, k, v), b.projection, b.projection_bias, x);
    const auto m = norm(x, b.norm2, b.norm2_bias);
    const auto hidden = b.gate ? swiglu(linear(m, b.gate, b.gate_bias), linear(m, b.up, b.up_bias))
                               : activated_linear(m, b.up, b.up_bias, config_.family.activation);
    return linear(hidden, b.down, b.down_bias, x);
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
        cosine[at] = static_cast<float>(real::cos(angle));
        sine[at] = static_cast<float>(real::sin(angle));
      }
    });
    cosine_ = Tensor<D>::from(cosine, {config_.context, half});
    sine_ = Tensor<D>::from(sine, {config_.context, half});
  }

  TransformerConfig config_;
  Tensor<D> embedding_, position_embedding_, final_norm_, final_norm_bias_, head_, cosine_, sine_;
  std::vector<Block> blocks_;
  PackedWeight<D> packed_head_;  // of a frozen network
  LoraConfig lora_;
};

}}  // namespace plumb::v0_1
