// What decoder-only transformers differ in: a Family of independent features, of which three
// settings have names, and sizes.
//   Llama: RMSNorm, rotary positions, SwiGLU, grouped-query heads, no biases (Touvron et al. 2023);
//   Qwen2: Llama with biases on queries, keys and values (Yang et al. 2024);
//   GPT-2: LayerNorm, learned positions, GELU (tanh form), biases everywhere (Radford et al. 2019).
#pragma once

#include <plumb/core/fields.hpp>
#include <plumb/core/real.hpp>
#include <plumb/math/activation.hpp>
#include <plumb/math/attention.hpp>

#include <array>
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

/// Numbers in the matrices of a model, nearly all of its weights.
inline Index matrix_weights(const TransformerConfig& c) {
  const Index kv = c.kv_heads * c.head_size();
  const Index block =
      2 * c.channels * (c.channels + kv) + (c.family.gated ? 3 : 2) * c.channels * c.hidden;
  return (c.tied_head ? 1 : 2) * c.vocab * c.channels + c.layers * block;
}

/// The angle between two positions, radians, of each of the head_size/2 pairs of channels.
inline std::vector<double> rotary_frequencies(const TransformerConfig& c) {
  std::vector<double> all;
  for (Index i = 0; i < c.head_size() / 2; ++i) {
    double f = real::pow(static_cast<double>(c.rope_base),
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

}}  // namespace plumb::v0_1
