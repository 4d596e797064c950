// Element-by-element kernels: y[i] = f(x[i], …), one pass over memory, forward and backward side by
// side. Backward kernels add to the gradients that they are given. Bodies: elementwise.inl.hpp.
// Cost: a few FLOPs per 4-byte element read and written; bound by memory or the last cache.
#pragma once

#include <plumb/core/device.hpp>
#include <plumb/core/pool.hpp>
#include <plumb/cpu/isa.hpp>
#include <plumb/math/activation.hpp>
#include <plumb/math/elementwise.hpp>

#include <algorithm>

namespace plumb { inline namespace v0_1 { namespace kernels {

struct ElementwiseTable {
  void (*accumulate)(float* y, const float* x, float scale, Index n);
  void (*scale)(float* y, const float* x, float factor, Index n);
  void (*shift)(float* y, const float* x, float term, Index n);
  void (*clamp_forward)(float* y, const float* x, float low, float high, Index n);
  void (*clamp_backward)(float* dx, const float* dy, const float* x, float low, float high,
                         Index n);
  void (*combine_forward)(float* y, const float* a, const float* b, Arithmetic f, Index n);
  /// By a if `by_a`, else by b.
  void (*combine_backward)(float* d, const float* dy, const float* a, const float* b, Arithmetic f,
                           bool by_a, Index n);
  void (*function_forward)(float* y, const float* x, Function f, Index n);
  void (*function_backward)(float* dx, const float* dy, const float* x, Function f, Index n);
  void (*activation_forward)(float* y, const float* x, Activation f, Index n);
  void (*activation_backward)(float* dx, const float* dy, const float* x, Activation f, Index n);
  void (*swiglu_forward)(float* y, const float* gate, const float* up, Index n);
  void (*swiglu_backward)(float* dgate, float* dup, const float* dy, const float* gate,
                          const float* up, Index n);
};

inline constexpr Index kElementGrain = 16384;

inline constexpr Index kPiece = 1024;

/// The values of x beside elements [column, column + count) of row i, repeated in `room` if need
/// be.
inline const float* operand_values(Operand<float> x, Index i, Index column, Index count,
                                   float* room) {
  const float* const from = x.data + i * x.row + column * x.column;
  if (x.column == 1) return from;
  std::fill_n(room, count, *from);
  return room;
}

/// Calls body(i, column, count) for pieces of rows of the matrix (n, c).
template <class Body>
void for_pieces(Cpu device, Index n, Index c, Body&& body) {
  const Index grain = std::max<Index>(1, kElementGrain / std::max<Index>(c, 1));
  parallel_for(device, n, grain, [&](Index i, Index end) {
    for (; i < end; ++i)
      for (Index column = 0; column < c; column += kPiece)
        body(i, column, std::min(kPiece, c - column));
  });
}

/// Calls body(at, a, b, count) for pieces of the matrix (n, c), from its element `at` on, with the
/// operands' values of the piece.
template <class Body>
void for_operands(Cpu device, Operand<float> a, Operand<float> b, Index n, Index c, Body&& body) {
  if (a.whole(c) && b.whole(c))
    return parallel_for(device, n * c, kElementGrain,
                        [&](Index i, Index end) { body(i, a.data + i, b.data + i, end - i); });
  for_pieces(device, n, c, [&](Index i, Index column, Index count) {
    float room[2][kPiece];
    const float* const of_a = operand_values(a, i, column, count, room[0]);
    body(i * c + column, of_a, operand_values(b, i, column, count, room[1]), count);
  });
}

/// y[i · row + j] = or += factor · x(i, j), i < n, j < c: copies and adds columns, and repeats what
/// stands beside a matrix.
inline void assign(Cpu device, float* y, Index row, Operand<float> x, float factor, bool accumulate,
                   Index n, Index c) {
  for_pieces(device, n, c, [&](Index i, Index column, Index count) {
    float room[kPiece];
    const ElementwiseTable& table = dispatch<ElementwiseTable>();
    (accumulate ? table.accumulate : table.scale)(
        y + i * row + column, operand_values(x, i, column, count, room), factor, count);
  });
}

/// y (N, C) = f(a, b), of what stands beside it.
inline void combine_forward(Cpu device, float* y, Operand<float> a, Operand<float> b, Arithmetic f,
                            Index n, Index c) {
  for_operands(device, a, b, n, c,
               [&](Index at, const float* of_a, const float* of_b, Index count) {
                 dispatch<ElementwiseTable>().combine_forward(y + at, of_a, of_b, f, count);
               });
}

/// d (N, C) += dy · ∂f/∂a, or ∂f/∂b: of an operand that is not whole, what it is to be summed from.
inline void combine_backward(Cpu device, float* d, const float* dy, Operand<float> a,
                             Operand<float> b, Arithmetic f, bool by_a, Index n, Index c) {
  for_operands(
      device, a, b, n, c, [&](Index at, const float* of_a, const float* of_b, Index count) {
        dispatch<ElementwiseTable>().combine_backward(d + at, dy + at, of_a, of_b, f, by_a, count);
      });
}

/// y += scale · x, n elements (one fma each).
inline void accumulate(Cpu device, float* y, const float* x, float scale, Index n) {
  parallel_for(device, n, kElementGrain, [&](Index i, Index end) {
    dispatch<ElementwiseTable>().accumulate(y + i, x + i, scale, end - i);
  });
}

/// y += *scale · x, with a scale in the device's memory.
inline void accumulate_by(Cpu device, float* y, const float* x, const float* scale, Index n) {
  accumulate(device, y, x, *scale, n);
}

/// y = factor · x, n elements; y may be x.
inline void scale_forward(Cpu device, float* y, const float* x, float factor, Index n) {
  parallel_for(device, n, kElementGrain, [&](Index i, Index end) {
    dispatch<ElementwiseTable>().scale(y + i, x + i, factor, end - i);
  });
}

/// y = x + term, n elements.
inline void shift_forward(Cpu device, float* y, const float* x, float term, Index n) {
  parallel_for(device, n, kElementGrain, [&](Index i, Index end) {
    dispatch<ElementwiseTable>().shift(y + i, x + i, term, end - i);
  });
}

/// y = x within [low, high], n elements.
inline void clamp_forward(Cpu device, float* y, const float* x, float low, float high, Index n) {
  parallel_for(device, n, kElementGrain, [&](Index i, Index end) {
    dispatch<ElementwiseTable>().clamp_forward(y + i, x + i, low, high, end - i);
  });
}

/// dx += dy where x is within [low, high].
inline void clamp_backward(Cpu device, float* dx, const float* dy, const float* x, float low,
                           float high, Index n) {
  parallel_for(device, n, kElementGrain, [&](Index i, Index end) {
    dispatch<ElementwiseTable>().clamp_backward(dx + i, dy + i, x + i, low, high, end - i);
  });
}

/// y = f(x), n elements.
inline void activation_forward(Cpu device, float* y, const float* x, Activation f, Index n) {
  parallel_for(device, n, kElementGrain / 4, [&](Index i, Index end) {
    dispatch<ElementwiseTable>().activation_forward(y + i, x + i, f, end - i);
  });
}

/// dx += f'(x) · dy, n elements.
inline void activation_backward(Cpu device, float* dx, const float* dy, const float* x,
                                Activation f, Index n) {
  parallel_for(device, n, kElementGrain / 4, [&](Index i, Index end) {
    dispatch<ElementwiseTable>().activation_backward(dx + i, dy + i, x + i, f, end - i);
  });
}

/// y = silu(gate) · up, n elements (Shazeer 2020, "GLU variants improve transformer").
inline void swiglu_forward(Cpu device, float* y, const float* gate, const float* up, Index n) {
  parallel_for(device, n, kElementGrain / 4, [&](Index i, Index end) {
    dispatch<ElementwiseTable>().swiglu_forward(y + i, gate + i, up + i, end - i);
  });
}

/// dgate += dy · up · silu'(gate); dup += dy · silu(gate).
inline void swiglu_backward(Cpu device, float* dgate, float* dup, const float* dy,
                            const float* gate, const float* up, Index n) {
  parallel_for(device, n, kElementGrain / 4, [&](Index i, Index end) {
    dispatch<ElementwiseTable>().swiglu_backward(dgate + i, dup + i, dy + i, gate + i, up + i,
                                                 end - i);
  });
}

/// y = f(x), n elements, by the polynomials of math/elementary.inl.hpp; y may be x.
inline void function_forward(Cpu device, float* y, const float* x, Function f, Index n) {
  parallel_for(device, n, kElementGrain / 4, [&](Index i, Index end) {
    dispatch<ElementwiseTable>().function_forward(y + i, x + i, f, end - i);
  });
}

/// dx += f'(x) · dy, n elements.
inline void function_backward(Cpu device, float* dx, const float* dy, const float* x, Function f,
                              Index n) {
  parallel_for(device, n, kElementGrain / 4, [&](Index i, Index end) {
    dispatch<ElementwiseTable>().function_backward(dx + i, dy + i, x + i, f, end - i);
  });
}

}  // namespace kernels
}}  // namespace plumb::v0_1
