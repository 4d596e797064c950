// AdamW (Loshchilov and Hutter 2019) over a model's flat buffer, with clipping by global norm
// folded into the step. State: two moments of the buffer's size and a step count.
#pragma once

#include <plumb/core/fields.hpp>
#include <plumb/math/adamw.hpp>
#include <plumb/optim/flat_optimizer.hpp>

namespace plumb { inline namespace v0_1 {

struct AdamWConfig {
  float lr = 1e-3F;
  float beta1 = 0.9F;
  float beta2 = 0.999F;
  float eps = 1e-8F;
  float weight_decay = 0.0F;   ///< decoupled; matrices only
  float max_grad_norm = 1.0F;  ///< gradients are scaled down to this norm; 0: never
  bool eps_inside = false;     ///< TensorFlow's convention: see AdamWStep
};

template <class F>
void fields(AdamWConfig& c, F&& f) {
  f(Field{"lr", "learning rate", at_least(0)}, c.lr);
  f(Field{"beta1", "decay of the first moment", between(0, 1), "", "Optimizer"}, c.beta1);
  f(Field{"beta2", "decay of the second moment", between(0, 1), "", "Optimizer"}, c.beta2);
  f(Field{"eps", "epsilon of AdamW", at_least(0), "", "Optimizer"}, c.eps);
  f(Field{"weight-decay", "decoupled, of matrices alone", at_least(0), "", "Optimizer"},
    c.weight_decay);
  f(Field{"max-grad-norm", "gradients are scaled down to this norm; 0: never", at_least(0), "",
          "Optimizer"},
    c.max_grad_norm);
  f(Field{"eps-inside",
          "TensorFlow's place for epsilon (lm-human-preferences)",
          {},
          "",
          "Optimizer"},
    c.eps_inside);
}

template <class D>
class AdamW : public detail::FlatOptimizer<D> {
  using Base = detail::FlatOptimizer<D>;

 public:
  AdamW(const Parameters<D>& parameters, const AdamWConfig& config, Where where = Where::here())
      : Base("adamw", parameters, config.max_grad_norm, config.weight_decay != 0.0F),
        config_(config),
        m_(Tensor<D>::zeros({parameters.size()})),
        v_(Tensor<D>::zeros({parameters.size()})) {
    check_fields(config, "adamw", where);
  }

  /// Updates the parameters from their gradients, then clears these. Returns the gradient norm
  /// before clipping. NumericError if that is not finite: weights and moments are as before, the
  /// gradients cleared, so that the next step is its own.
  float step(float lr) { return this->update(kernel(lr)); }
  /// The same where gradient_norm() is known.
  float step(float lr, double norm) { return this->update(norm, kernel(lr)); }
  float step() { return step(config_.lr); }

  const AdamWConfig& config() const { return config_; }
  /// First and second moment (size of the flat buffer) and, by steps(), updates so far: what a
  /// checkpoint keeps.
  const Tensor<D>& m() const { return m_; }
  const Tensor<D>& v() const { return v_; }

 private:
  auto kernel(float lr) {
    return [this, lr](Index begin, Index size, bool decay, float scale, Index step) {
      adamw_update(D{}, this->flat().data() + begin, this->flat().grad() + begin, m_.data() + begin,
                   v_.data() + begin, size,
                   AdamWStep{lr, config_.beta1, config_.beta2, config_.eps,
                             decay ? config_.weight_decay : 0.0F, scale, step, config_.eps_inside});
    };
  }

  AdamWConfig config_;
  Tensor<D> m_, v_;
};

}}  // namespace plumb::v0_1
