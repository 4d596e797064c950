// What matrix products there are, and in which chunks each backend sums them.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/math/activation.hpp>

namespace plumb { inline namespace v0_1 {

/// Which operand of a matrix product is stored transposed: A·B, A·Bᵀ, Aᵀ·B.
enum class Form : int { NN, NT, TN };

/// What a matrix product does after its last chunk: (sum + bias) + residual, and f of that.
template <class T>
struct EpilogueOf {
  const T* bias = nullptr;                   ///< (N)
  const T* residual = nullptr;               ///< (M, N)
  T* activated = nullptr;                    ///< (M, N), overwritten; it may be the product itself
  Activation activation = Activation::Gelu;  ///< f, where `activated` is given
};

using Epilogue = EpilogueOf<float>;

/// Products' k per chunk.
inline constexpr Index kChunk = 256;

}}  // namespace plumb::v0_1
