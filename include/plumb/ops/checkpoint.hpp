// Memory for time: f(x) without what its backward needs, which is computed again when that comes
// (Chen et al. 2016, "Training deep nets with sublinear memory cost").
#pragma once

#include <plumb/ops/basic.hpp>

#include <utility>

namespace plumb { inline namespace v0_1 {

/// f(x), of which only x and the result are kept: backward runs f once more. f gives the same for
/// the same x, and reads, besides x, parameters and nothing that this tape computed after x's
/// layer began.
template <class D, class T, class F>
Tensor<D, T> checkpoint(F f, const Tensor<D, T>& x) {
  if (detail::active_tape == nullptr) return f(x);
  Tensor<D, T> y;
  {
    const NoTape once;
    y = f(x.detach());
  }
  y = y.detach();  // f may give back what it was given
  record(y, [y, x, f = std::move(f)] {
    if (!y.has_grad()) return;
    const auto input = x.detach();
    input.set_requires_grad(x.requires_grad());
    Tape again;
    const auto result = f(input);
    if (!result.requires_grad()) return;
    accumulate(D{}, result.grad(), y.grad(), T{1}, y.size());
    again.replay();
    if (x.requires_grad() && input.has_grad())
      accumulate(D{}, x.grad(), input.grad(), T{1}, x.size());
  });
  return y;
}

}}  // namespace plumb::v0_1
