// AdamW (Loshchilov and Hutter 2019) over a model's flat buffer, with clipping by global norm
// folded into the step. State: two moments of the buffer's size and a step count.
#pragma once

#include <plumb/core/fields.hpp>
#include <plumb/math/adamw.hpp>
#include <plumb/nn/parameters.hpp>

#include <cmath>

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
class AdamW {
 public:
  AdamW(const Parameters<D>& parameters, const AdamWConfig& config, Where where = Where::here())
      : config_(config),
        flat_(parameters.flat()),
        m_(Tensor<D>::zeros({parameters.size()})),
        v_(Tensor<D>::zeros({parameters.size()})) {
    check_fields(config, "adamw", where);
    for (const auto& entry : parameters.entries()) {
      const Index begin = entry.tensor.data() - flat_.data();
      const bool decay = entry.decay && config.weight_decay != 0.0F;
      if (spans_.empty() || spans_.back().decay != decay) spans_.push_back({begin, 0, decay});
      spans_.back().end = begin + (entry.tensor.size() + 15) / 16 * 16;
    }
  }

  /// Norm of the gradient. NumericError if it is not finite.
  double gradient_norm() const {
    const double norm = std::sqrt(sum_of_squares(D{}, flat_.grad(), flat_.size()));
    if (!std::isfinite(norm))
      fail<NumericError>(str("[adamw] the gradient norm is ", norm, " at step ", step_ + 1,
                             ". HINT: lower the learning rate; the weights were not touched"));
    return norm;
  }

  /// Updates the parameters from their gradients, then clears these. Returns the gradient norm
  /// before clipping. NumericError if that is not finite: weights and moments are as before, the
  /// gradients cleared, so that the next step is its own.
  float step(float lr) {
    double norm;
    try {
      norm = gradient_norm();
    } catch (const NumericError&) {
      flat_.zero_grad();
      throw;
    }
    const double limit = config_.max_grad_norm;
    const double scale = limit > 0 && norm > limit ? limit / norm : 1.0;
    ++step_;
    for (const Span& span : spans_)
      adamw_update(D{}, flat_.data() + span.begin, flat_.grad() + span.begin,
                   m_.data() + span.begin, v_.data() + span.begin, span.end - span.begin,
                   AdamWStep{lr, config_.beta1, config_.beta2, config_.eps,
                             span.decay ? config_.weight_decay : 0.0F, static_cast<float>(scale),
                             step_, config_.eps_inside});
    flat_.zero_grad();
    return static_cast<float>(norm);
  }
  float step() { return step(config_.lr); }

  const AdamWConfig& config() const { return config_; }
  /// First and second moment (size of the flat buffer) and updates so far: what a checkpoint keeps.
  const Tensor<D>& m() const { return m_; }
  const Tensor<D>& v() const { return v_; }
  Index steps() const { return step_; }
  void set_steps(Index steps) { step_ = steps; }

 private:
  struct Span {  // consecutive tensors of one kind go in one pass
    Index begin, end;
    bool decay;
  };

  AdamWConfig config_;
  Tensor<D> flat_, m_, v_;
  std::vector<Span> spans_;
  Index step_ = 0;
};

}}  // namespace plumb::v0_1
