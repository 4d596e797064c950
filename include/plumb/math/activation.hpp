// What activations there are, for the kernels of every backend and the ops above them.
#pragma once

#include <plumb/core/version.hpp>

namespace plumb { inline namespace v0_1 {

/// What a hidden layer does to each element. Gelu is the tanh form, GeluErf the exact one.
enum class Activation : int { Gelu = 0, Silu = 1, Tanh = 2, Relu = 3, GeluErf = 4 };

}}  // namespace plumb::v0_1
