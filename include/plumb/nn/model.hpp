// A model: one flat buffer of parameters, a transformer over it, and optionally a scalar head. Policy
// and reference have none; a reward model's head reads the last token, a value model's every token; a
// policy with a head shares its trunk with the value function.
#pragma once

#include <plumb/nn/transformer.hpp>
#include <plumb/ops/loss.hpp>

namespace plumb { inline namespace v0_1 {

/// Standard deviation of a scalar head's initial weights. Reward: 1/√(C+1) (Ziegler et al. 2019,
/// lm-human-preferences); value: 0, so that values start at zero.
enum class ScalarHead { None, Reward, Value };

template <class D>
class Model {
 public:
  /// Fresh weights drawn from `seed`.
  Model(const TransformerConfig& config, std::uint64_t seed, ScalarHead head = ScalarHead::None)
      : transformer_(parameters_, config), head_kind_(head) {
    if (head != ScalarHead::None) {
      const auto c = static_cast<float>(config.channels);
      const float std = head == ScalarHead::Reward ? 1.0F / std::sqrt(c + 1.0F) : 0.0F;
      scalar_weight_ = parameters_.add("scalar_head", {1, config.channels}, {0.0F, std});
      scalar_bias_ = parameters_.add("scalar_head_bias", {1}, {});
    }
    parameters_.allocate(seed);
  }

  /// A copy in memory of its own, with the same or another scalar head. Weights common to both are
  /// taken over; a head that is new is drawn from `seed`.
  Model clone(ScalarHead head, std::uint64_t seed = 0) const {
    Model copy(config(), seed, head);
    copy.parameters_.copy_common(parameters_);
    return copy;
  }
  Model clone() const { return clone(head_kind_); }

  const TransformerConfig& config() const { return transformer_.config(); }
  const Transformer<D>& transformer() const { return transformer_; }
  const Parameters<D>& parameters() const { return parameters_; }
  ScalarHead head_kind() const { return head_kind_; }

  /// w·h + b of each row: hidden (N, C) -> (N).
  Tensor<D> scalar(const Tensor<D>& hidden) const {
    check(static_cast<bool>(scalar_weight_), "[model] this model has no scalar head");
    return linear(hidden, scalar_weight_, scalar_bias_).reshape({hidden.dim(0)});
  }

  /// Replaces the head's output s by gain·s + bias, folded into its weights.
  void rescale_scalar(float gain, float bias) {
    check(static_cast<bool>(scalar_weight_), "[model] this model has no scalar head");
    scale_forward(D{}, scalar_weight_.data(), scalar_weight_.data(), gain, scalar_weight_.size());
    const float shifted = gain * scalar_bias_.item() + bias;
    copy_from_host(D{}, scalar_bias_.data(), &shifted, sizeof shifted);
  }

 private:
  Parameters<D> parameters_;
  Transformer<D> transformer_;
  ScalarHead head_kind_;
  Tensor<D> scalar_weight_, scalar_bias_;
};

}}  // namespace plumb::v0_1
