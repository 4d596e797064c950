// A matrix of a network as it is met: trained itself; frozen, and then packed once for training and
// generation alike; or frozen with a low-rank adapter beside it, which is trained in its place
// (LoRA, Hu et al. 2021):
//
//   y = x·Wᵀ + (α/r)·(x·Aᵀ)·Bᵀ          A (r, in) small and random, B (out, r) zero at first
//
// computed in this order wherever it is computed, so that the log-probability of sampling is the
// training forward's to the bit, with adapters as without. A frozen matrix costs its packed form
// and nothing else: no plain copy, no gradient, no moments. Not here: which matrices a network has
// (nn/transformer.hpp), and files of adapters (models/adapters.hpp).
#pragma once

#include <plumb/core/fields.hpp>
#include <plumb/nn/parameters.hpp>
#include <plumb/ops/linear.hpp>

#include <array>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>

namespace plumb { inline namespace v0_1 {

/// How a frozen matrix is kept. Bf16 takes half the memory, Int8 (cpu/int8.hpp) little more than a
/// quarter and more time for few rows; both are another model than the one that was read: `plumb
/// info --compare` says by how much.
enum class Storage { Float, Bf16, Int8 };
constexpr std::array<std::pair<const char*, Storage>, 3> choices(Storage) {
  return {{{"float", Storage::Float}, {"bf16", Storage::Bf16}, {"int8", Storage::Int8}}};
}

/// Which adapters there are. `targets`: all, or names of a block's matrices, separated by commas:
/// query, key, value, projection, gate, up, down.
struct LoraConfig {
  Index rank = 0;  ///< r; 0: there are none, and every weight is trained
  float alpha = 32.0F;
  std::string targets = "all";
  Index top_layers = 0;  ///< adapters in this many of the last blocks; 0: in all
  Storage frozen = Storage::Float;

  float scale() const { return alpha / static_cast<float>(rank); }
  bool operator==(const LoraConfig&) const = default;
};

template <class F>
void fields(LoraConfig& c, F&& f) {
  const char* group = "Adapters";
  // One chunk of a product's k: see add_linear.
  f(Field{"lora-rank", "rank of the adapters; 0: none, every weight is trained", between(0, kChunk),
          "", group},
    c.rank);
  f(Field{"lora-alpha", "an adapter's product is scaled by alpha / rank", above(0), "", group},
    c.alpha);
  f(Field{"lora-targets",
          "all, or those of query,key,value,projection,gate,up,down that have one",
          {},
          "",
          group},
    c.targets);
  f(Field{"lora-layers", "only in this many of the last blocks; 0: in all", at_least(0), "", group},
    c.top_layers);
  f(Field{"frozen", "how weights that are not trained are kept: float, bf16, int8", {}, "", group},
    c.frozen);
}

/// Whether the comma-separated `list` names `name`, or all.
inline bool names(std::string_view list, std::string_view name) {
  if (list == "all") return true;
  for (std::size_t at = 0; at <= list.size();) {
    const std::size_t end = std::min(list.find(',', at), list.size());
    if (list.substr(at, end - at) == name) return true;
    at = end + 1;
  }
  return false;
}

/// A matrix (out, in): trained, or packed and constant. One of the two.
template <class D>
struct Weight {
  Tensor<D> trained;
  PackedWeight<D> constant;

  Weight() = default;
  Weight(Tensor<D> matrix) : trained(std::move(matrix)) {}         // NOLINT: a weight is one
  Weight(PackedWeight<D> matrix) : constant(std::move(matrix)) {}  // NOLINT
  explicit operator bool() const { return trained || static_cast<bool>(constant); }

  Index out() const { return trained ? trained.dim(0) : constant.out; }
  Index in() const { return trained ? trained.dim(1) : constant.in; }
  Tensor<D> dense() const { return trained ? trained : constant.dense(); }
  /// Constant, with the values of now; what is constant is shared, unless it is to be rounded.
  Weight packed(bool to_bf16 = false) const {
    if (!*this || (constant && !(to_bf16 && constant.exact))) return *this;
    return PackedWeight<D>(dense(), to_bf16);
  }
};

/// A matrix, and an adapter beside it where there is one.
template <class D>
struct AdaptedWeight {
  Weight<D> base;
  Weight<D> down, up;  ///< A (r, in) and B (out, r)
  float scale = 0;     ///< α/r

  AdaptedWeight() = default;
  AdaptedWeight(Tensor<D> matrix) : base(std::move(matrix)) {}  // NOLINT: most have no adapter
  explicit operator bool() const { return static_cast<bool>(base); }

  AdaptedWeight packed() const {
    AdaptedWeight all = *this;
    for (Weight<D>* w : {&all.base, &all.down, &all.up}) *w = w->packed();
    return all;
  }
  /// What the two are as one matrix, W + (α/r)·B·A.
  Tensor<D> merged() const {
    if (!down) return base.dense();
    const auto sum = base.trained ? base.trained.clone() : base.constant.dense();
    const auto b = plumb::scale(up.dense(), scale);
    matmul(D{}, sum.data(), b.data(), down.dense().data(), up.out(), down.in(), down.out(),
           Form::NN, true);
    return sum;
  }
};

template <class D>
Tensor<D> linear(const Tensor<D>& x, const Weight<D>& weight, const Tensor<D>& bias = {},
                 const Tensor<D>& residual = {}, Where where = Where::here()) {
  return weight.trained ? linear(x, weight.trained, bias, residual, where)
                        : linear(x, weight.constant, bias, residual, where);
}

/// See the head of this file. x (N, in), bias (out) or none, residual (N, out) or none -> (N, out).
template <class D>
Tensor<D> linear(const Tensor<D>& x, const AdaptedWeight<D>& weight, const Tensor<D>& bias = {},
                 const Tensor<D>& residual = {}, Where where = Where::here()) {
  auto y = linear(x, weight.base, bias, residual, where);
  if (!weight.down) return y;
  const auto narrow = scale(linear(x, weight.down, {}, {}, where), weight.scale);
  if (weight.up.constant) return linear(narrow, weight.up, {}, y, where);
  add_linear(y, narrow, weight.up.trained, where);
  return y;
}

/// f of linear(x, weight, bias).
template <class D>
Tensor<D> activated_linear(const Tensor<D>& x, const AdaptedWeight<D>& weight,
                           const Tensor<D>& bias, Activation f, Where where = Where::here()) {
  if (weight.down) return activate(linear(x, weight, bias, {}, where), f);
  return weight.base.trained ? activated_linear(x, weight.base.trained, bias, f, where)
                             : activated_linear(x, weight.base.constant, bias, f, where);
}

/// An adapter's two matrices, added to `parameters` as NAME.lora_a and NAME.lora_b. A is drawn with
/// the variance of PEFT's (uniform in ±1/√in), B is zero: at first nothing is changed.
template <class D>
void add_adapter(Parameters<D>& parameters, const std::string& name, AdaptedWeight<D>& weight,
                 const LoraConfig& config) {
  const Index out = weight.base.out(), in = weight.base.in();
  const float std = 1.0F / std::sqrt(3.0F * static_cast<float>(in));
  weight.down = parameters.add(name + ".lora_a", {config.rank, in}, {0.0F, std});
  weight.up = parameters.add(name + ".lora_b", {out, config.rank}, {});
  weight.scale = config.scale();
}

}}  // namespace plumb::v0_1
