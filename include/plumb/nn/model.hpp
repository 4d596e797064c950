// A model: one flat buffer of parameters, a trunk over it, and optionally a scalar head. Policy and
// reference have none; a reward model's head reads the last token, a value model's every token; a
// policy with a head shares its trunk with the value function.
//
// The trunk is the transformer unless another is named: Model makes a Policy (nn/policy.hpp) of any
// type that has a Config, is constructed as Trunk(parameters, config), adding its tensors to them,
// and Generates. tests/test_policy.cpp has a second one.
#pragma once

#include <plumb/nn/transformer.hpp>
#include <plumb/ops/linear.hpp>

#include <cmath>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {

template <class D, class Trunk = Transformer<D>>
class Model {
 public:
  using Device = D;
  using Config = typename Trunk::Config;
  using Cache = typename Trunk::Cache;
  using Packed = typename Trunk::Packed;
  static constexpr bool kPartialBatches = partial_batches<Trunk>;

  /// Fresh weights drawn from `seed`.
  Model(const Config& config, std::uint64_t seed, ScalarHead head = ScalarHead::None)
      : Model(config, head) {
    parameters_.allocate(seed);
  }

  /// A model whose every weight the caller sets before it is used: what a file is read into.
  /// `look(parameters)` may look at names and shapes, and throw, before memory is provided.
  template <class Look>
  static Model unset(const Config& config, ScalarHead head, Look look) {
    Model model(config, head);
    look(model.parameters());
    model.parameters_.allocate_unset();
    return model;
  }

  /// A copy whose trained weights are its own, with the same or another scalar head. Weights common
  /// to both are taken over; a head that is new is drawn from `seed`. What is frozen is shared.
  Model clone(ScalarHead head, std::uint64_t seed = 0) const {
    Model copy = twin(head);
    copy.parameters_.allocate_unset();
    copy.parameters_.copy_common(parameters_);
    for (const char* name : {kScalarWeight, kScalarBias})
      if (copy.parameters_.contains(name) && !parameters_.contains(name))
        copy.parameters_.draw(name, seed);
    return copy;
  }
  Model clone() const { return clone(head_kind_); }

  /// The same network with nothing to train and no scalar head; what adapters stand beside.
  Model frozen(Storage storage = Storage::Float) const {
    Model same([&](Parameters<D>&) { return trunk_.frozen(storage); }, ScalarHead::None);
    same.parameters_.allocate_unset();
    return same;
  }
  /// A frozen network with fresh adapters, drawn from `seed`: the policy, value and reward models
  /// of one trunk in memory, which without adapters is the reference, too (LoRA, nn/lora.hpp).
  Model adapted(const LoraConfig& lora, ScalarHead head, std::uint64_t seed,
                Where where = Where::here()) const {
    Model other([&](Parameters<D>& p) { return trunk_.adapted(p, lora, where); }, head);
    other.parameters_.allocate(seed);
    return other;
  }
  /// The same network with every weight a plain one of its own again, adapters merged into them.
  Model merged() const {
    Model full = unset(config(), head_kind_, [](const Parameters<D>&) {});
    trunk_.copy_to(full.trunk_);
    for (const char* name : {kScalarWeight, kScalarBias})
      if (parameters_.contains(name))
        copy(D{}, full.parameters_[name].data(), parameters_[name].data(),
             parameters_[name].bytes());
    return full;
  }

  const Config& config() const { return trunk_.config(); }
  const Parameters<D>& parameters() const { return parameters_; }
  ScalarHead head_kind() const { return head_kind_; }
  const Trunk& transformer() const { return trunk_; }

  // What a Policy is asked; see nn/policy.hpp.
  Index vocab() const { return trunk_.vocab(); }
  Index context() const { return trunk_.context(); }
  const Tensor<D>& head() const { return trunk_.head(); }
  Tensor<D> hidden(const Batch<D>& batch) const { return trunk_.hidden(batch); }
  Tensor<D> hidden(const CachedBatch<D>& batch, Cache& cache, const Packed& packed) const {
    return trunk_.hidden(batch, cache, packed);
  }
  std::vector<Tensor<D>> features(const Batch<D>& batch,
                                  std::span<const Index> layers) const requires HasFeatures<Trunk> {
    return trunk_.features(batch, layers);
  }
  Index layers() const requires HasFeatures<Trunk> { return trunk_.layers(); }
  Packed pack() const { return trunk_.pack(); }
  // What nn/budget.hpp asks, where the trunk can say it.
  Index token_floats(bool recorded) const requires requires(const Trunk& t) {
    t.token_floats(true);
  }
  { return trunk_.token_floats(recorded); }
  Index cache_floats() const requires requires(const Trunk& t) { t.cache_floats(); }
  { return trunk_.cache_floats(); }
  template <class... Type>
  Cache make_cache(Index slots, Index capacity, Type... type) const requires requires(
      const Trunk& t) { t.make_cache(slots, capacity, type...); }
  { return trunk_.make_cache(slots, capacity, type...); }

  /// w·h + b of each row: hidden (N, C) -> (N).
  Tensor<D> scalar(const Tensor<D>& hidden, Where where = Where::here()) const {
    check(static_cast<bool>(scalar_weight_), "[model] this model has no scalar head", where);
    return linear(hidden, scalar_weight_, scalar_bias_).reshape({hidden.dim(0)});
  }

  /// Replaces the head's output s by gain·s + bias, folded into its weights.
  void rescale_scalar(float gain, float bias, Where where = Where::here()) {
    check(static_cast<bool>(scalar_weight_), "[model] this model has no scalar head", where);
    scale_forward(D{}, scalar_weight_.data(), scalar_weight_.data(), gain, scalar_weight_.size());
    const float shifted = gain * scalar_bias_.item() + bias;
    copy_from_host(D{}, scalar_bias_.data(), &shifted, sizeof shifted);
  }

 private:
  /// The same trunk with another head; its trained weights are not provided yet.
  Model twin(ScalarHead head) const {
    if constexpr (requires { trunk_.is_frozen(); })
      if (trunk_.is_frozen())
        return Model([&](Parameters<D>& p) { return trunk_.adapted(p, trunk_.lora()); }, head);
    return Model(config(), head);
  }

  static constexpr const char* kScalarWeight = "scalar_head";
  static constexpr const char* kScalarBias = "scalar_head_bias";

  Model(const Config& config, ScalarHead head)
      : Model([&](Parameters<D>& parameters) { return Trunk(parameters, config); }, head) {}

  /// `make(parameters)` is the trunk, its tensors added to them.
  template <class Make>
    requires std::is_invocable_v < Make, Parameters<D>
  & > Model(Make make, ScalarHead head) : trunk_(make(parameters_)), head_kind_(head) {
    if (head == ScalarHead::None) return;
    const Index c = trunk_.head().dim(1);
    const float std =
        head == ScalarHead::Reward ? 1.0F / std::sqrt(static_cast<float>(c) + 1.0F) : 0.0F;
    scalar_weight_ = parameters_.add(kScalarWeight, {1, c}, {0.0F, std});
    scalar_bias_ = parameters_.add(kScalarBias, {1}, {});
  }

  Parameters<D> parameters_;
  Trunk trunk_;
  ScalarHead head_kind_;
  Tensor<D> scalar_weight_, scalar_bias_;
};

}}  // namespace plumb::v0_1
