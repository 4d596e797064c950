// Replay: a computation that is run again and again, the same but for what its inputs' memory
// holds, such as one step of decoding. The primary template just runs it; a backend may record it
// once and then replay the recording (cuda/graph.cuh).
#pragma once

#include <plumb/core/tensor.hpp>

namespace plumb { inline namespace v0_1 {

template <class D>
class Replay {
 public:
  /// The result of compute(), which reads inputs at fixed places and, for the same key, is the same
  /// sequence of kernels over the same sizes. Valid until the next run.
  template <class Compute>
  const Tensor<D>& run(Index /*key*/, Compute compute) {
    return result_ = compute();
  }

 private:
  Tensor<D> result_;
};

}}  // namespace plumb::v0_1
