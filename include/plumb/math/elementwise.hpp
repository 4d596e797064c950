// What is computed element by element besides activations, and how a vector stands beside a matrix,
// for the kernels of every backend and the ops above them.
#pragma once

#include <plumb/core/check.hpp>

namespace plumb { inline namespace v0_1 {

/// A function of one number.
enum class Function : int { Exp, Log, Erf, Sqrt, Sigmoid, Softplus };

/// A function of two.
enum class Arithmetic : int { Add, Subtract, Multiply, Divide, Minimum, Maximum };

/// What stands at every place of a matrix (N, C): at (i, j) it is data[i · row + j · column], where
/// `column` is 0 or 1. So a matrix, a part of its columns, a row or a column for all of them.
template <class T>
struct Operand {
  const T* data;
  Index row, column;

  /// Whether it is c values a row, one row behind the other.
  bool whole(Index c) const { return row == c && column == 1; }
};

}}  // namespace plumb::v0_1
