// Two optimizers with one moment: gradient descent with momentum, as PyTorch's SGD, and Lion (Chen
// et al. 2023, "Symbolic discovery of optimization algorithms"), which steps by the sign of it.
#pragma once

#include <plumb/core/fields.hpp>
#include <plumb/math/adamw.hpp>
#include <plumb/optim/flat_optimizer.hpp>

namespace plumb { inline namespace v0_1 {

struct SgdConfig {
  float lr = 1e-2F;
  float momentum = 0.9F;       ///< 0: plain gradient descent
  float weight_decay = 0.0F;   ///< added to the gradient; matrices only
  float max_grad_norm = 1.0F;  ///< gradients are scaled down to this norm; 0: never
  bool nesterov = false;
};

struct LionConfig {
  float lr = 1e-4F;  ///< a third to a tenth of AdamW's
  float beta1 = 0.9F;
  float beta2 = 0.99F;
  float weight_decay = 0.0F;   ///< decoupled; matrices only
  float max_grad_norm = 1.0F;  ///< gradients are scaled down to this norm; 0: never
};

template <class F>
void fields(SgdConfig& c, F&& f) {
  f(Field{"lr", "learning rate", at_least(0)}, c.lr);
  f(Field{"momentum", "decay of the moment; 0: none", between(0, 1)}, c.momentum);
  f(Field{"weight-decay", "added to the gradient, of matrices alone", at_least(0)}, c.weight_decay);
  f(Field{"max-grad-norm", "gradients are scaled down to this norm; 0: never", at_least(0)},
    c.max_grad_norm);
  f(Field{"nesterov", "look ahead by one step of the moment", {}}, c.nesterov);
}
template <class F>
void fields(LionConfig& c, F&& f) {
  f(Field{"lr", "learning rate", at_least(0)}, c.lr);
  f(Field{"beta1", "weight of the moment in the step", between(0, 1)}, c.beta1);
  f(Field{"beta2", "decay of the moment", between(0, 1)}, c.beta2);
  f(Field{"weight-decay", "decoupled, of matrices alone", at_least(0)}, c.weight_decay);
  f(Field{"max-grad-norm", "gradients are scaled down to this norm; 0: never", at_least(0)},
    c.max_grad_norm);
}

/// Steps as AdamW does (optim/adamw.hpp): returns the norm, clears the gradients, refuses what is
/// not finite.
template <class D>
class Sgd : public detail::FlatOptimizer<D> {
  using Base = detail::FlatOptimizer<D>;

 public:
  Sgd(const Parameters<D>& parameters, const SgdConfig& config, Where where = Where::here())
      : Base("sgd", parameters, config.max_grad_norm, config.weight_decay != 0.0F),
        config_(config),
        m_(Tensor<D>::zeros({parameters.size()})) {
    check_fields(config, "sgd", where);
  }
  float step(float lr) {
    return this->update([&](Index begin, Index size, bool decay, float scale, Index) {
      sgd_update(D{}, this->flat().data() + begin, this->flat().grad() + begin, m_.data() + begin,
                 size,
                 SgdStep{lr, config_.momentum, decay ? config_.weight_decay : 0.0F, scale,
                         config_.nesterov});
    });
  }
  float step() { return step(config_.lr); }
  /// The moment, of the flat buffer's size.
  const Tensor<D>& m() const { return m_; }

 private:
  SgdConfig config_;
  Tensor<D> m_;
};

template <class D>
class Lion : public detail::FlatOptimizer<D> {
  using Base = detail::FlatOptimizer<D>;

 public:
  Lion(const Parameters<D>& parameters, const LionConfig& config, Where where = Where::here())
      : Base("lion", parameters, config.max_grad_norm, config.weight_decay != 0.0F),
        config_(config),
        m_(Tensor<D>::zeros({parameters.size()})) {
    check_fields(config, "lion", where);
  }
  float step(float lr) {
    const auto rest = [](float beta) { return static_cast<float>(1.0 - double{beta}); };
    return this->update([&](Index begin, Index size, bool decay, float scale, Index) {
      lion_update(D{}, this->flat().data() + begin, this->flat().grad() + begin, m_.data() + begin,
                  size,
                  LionStep{lr, rest(config_.beta1), rest(config_.beta2),
                           decay ? -(lr * config_.weight_decay) : 0.0F, scale});
    });
  }
  float step() { return step(config_.lr); }
  /// The moment, of the flat buffer's size.
  const Tensor<D>& m() const { return m_; }

 private:
  LionConfig config_;
  Tensor<D> m_;
};

}}  // namespace plumb::v0_1
