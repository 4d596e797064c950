// What the optimizers share: a model's flat buffer, decay of its matrices alone, and clipping by
// global norm, which is folded into the step.
#pragma once

#include <plumb/nn/parameters.hpp>

#include <cmath>
#include <string>
#include <vector>

namespace plumb { inline namespace v0_1 { namespace detail {

template <class D>
class FlatOptimizer {
 public:
  /// Norm of the gradient. NumericError if it is not finite.
  double gradient_norm() const {
    return gradient_norm(sum_of_squares(D{}, flat_.grad(), flat_.size()));
  }
  /// The same where Σ x² of the gradient is known.
  double gradient_norm(double squares) const {
    const double norm = std::sqrt(squares);
    if (!std::isfinite(norm))
      fail<NumericError>(str("[", name_, "] the gradient norm is ", norm, " at step ", step_ + 1,
                             ". HINT: lower the learning rate; the weights were not touched"));
    return norm;
  }

  /// Updates so far.
  Index steps() const { return step_; }
  void set_steps(Index steps) { step_ = steps; }

 protected:
  FlatOptimizer(const char* name, const Parameters<D>& parameters, float max_grad_norm, bool decays)
      : name_(name), flat_(parameters.flat()), max_grad_norm_(max_grad_norm) {
    for (const auto& entry : parameters.entries()) {
      const Index begin = entry.tensor.data() - flat_.data();
      const bool decay = entry.decay && decays;
      if (spans_.empty() || spans_.back().decay != decay) spans_.push_back({begin, 0, decay});
      spans_.back().end = begin + (entry.tensor.size() + 15) / 16 * 16;
    }
  }

  const Tensor<D>& flat() const { return flat_; }

  /// Calls kernel(begin, size, decay, scale, step) for each span, gradients to be multiplied by
  /// `scale`; then clears these. Returns the norm before clipping. If it is not finite,
  /// NumericError, the gradients cleared and nothing else done.
  template <class Kernel>
  float update(Kernel kernel) {
    double norm;
    try {
      norm = gradient_norm();
    } catch (const NumericError&) {
      flat_.zero_grad();
      throw;
    }
    return update(norm, kernel);
  }
  /// The same where the norm is known.
  template <class Kernel>
  float update(double norm, Kernel kernel) {
    const double limit = max_grad_norm_;
    const double scale = limit > 0 && norm > limit ? limit / norm : 1.0;
    ++step_;
    for (const Span& span : spans_)
      kernel(span.begin, span.end - span.begin, span.decay, static_cast<float>(scale), step_);
    flat_.zero_grad();
    return static_cast<float>(norm);
  }

 private:
  struct Span {  // consecutive tensors of one kind go in one pass
    Index begin, end;
    bool decay;
  };

  const char* name_;
  Tensor<D> flat_;
  float max_grad_norm_;
  std::vector<Span> spans_;
  Index step_ = 0;
};

}}}  // namespace plumb::v0_1::detail
