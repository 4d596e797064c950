// Element-by-element kernels: y[i] = f(x[i], …), one pass over memory, forward and backward side by
// side. Backward kernels add to the gradients that they are given. Bodies: elementwise.inl.hpp.
// Cost: a few FLOPs per 4-byte element read and written; bound by memory or the last cache.
#pragma once

#include <plumb/core/device.hpp>
#include <plumb/core/pool.hpp>
#include <plumb/cpu/isa.hpp>
#include <plumb/math/activation.hpp>

namespace plumb { inline namespace v0_1 {

namespace kernels {

struct ElementwiseTable {
  void (*add)(float* y, const float* a, const float* b, Index n);
  void (*accumulate)(float* y, const float* x, float scale, Index n);
  void (*multiply)(float* y, const float* a, const float* b, Index n);
  void (*multiply_accumulate)(float* y, const float* a, const float* b, Index n);
  void (*scale)(float* y, const float* x, float factor, Index n);
  void (*activation_forward)(float* y, const float* x, Activation f, Index n);
  void (*activation_backward)(float* dx, const float* dy, const float* x, Activation f, Index n);
  void (*swiglu_forward)(float* y, const float* gate, const float* up, Index n);
  void (*swiglu_backward)(float* dgate, float* dup, const float* dy, const float* gate,
                          const float* up, Index n);
  void (*exp)(float* y, const float* x, Index n);
  void (*log)(float* y, const float* x, Index n);
  void (*erf)(float* y, const float* x, Index n);
};

inline constexpr Index kElementGrain = 16384;

/// y = a + b, n elements.
inline void add_forward(Cpu device, float* y, const float* a, const float* b, Index n) {
  parallel_for(device, n, kElementGrain, [&](Index i, Index end) {
    dispatch<ElementwiseTable>().add(y + i, a + i, b + i, end - i);
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

/// y = a · b, n elements.
inline void multiply_forward(Cpu device, float* y, const float* a, const float* b, Index n) {
  parallel_for(device, n, kElementGrain, [&](Index i, Index end) {
    dispatch<ElementwiseTable>().multiply(y + i, a + i, b + i, end - i);
  });
}

/// y += a · b, n elements (one fma each).
inline void multiply_accumulate(Cpu device, float* y, const float* a, const float* b, Index n) {
  parallel_for(device, n, kElementGrain, [&](Index i, Index end) {
    dispatch<ElementwiseTable>().multiply_accumulate(y + i, a + i, b + i, end - i);
  });
}

/// y = factor · x, n elements; y may be x.
inline void scale_forward(Cpu device, float* y, const float* x, float factor, Index n) {
  parallel_for(device, n, kElementGrain, [&](Index i, Index end) {
    dispatch<ElementwiseTable>().scale(y + i, x + i, factor, end - i);
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

/// y = e^x, y = log x and y = erf x, n elements, by the polynomials of math/elementary.inl.hpp; y
/// may be x.
inline void exp_forward(Cpu device, float* y, const float* x, Index n) {
  parallel_for(device, n, kElementGrain / 4, [&](Index i, Index end) {
    dispatch<ElementwiseTable>().exp(y + i, x + i, end - i);
  });
}
inline void log_forward(Cpu device, float* y, const float* x, Index n) {
  parallel_for(device, n, kElementGrain / 4, [&](Index i, Index end) {
    dispatch<ElementwiseTable>().log(y + i, x + i, end - i);
  });
}
inline void erf_forward(Cpu device, float* y, const float* x, Index n) {
  parallel_for(device, n, kElementGrain / 4, [&](Index i, Index end) {
    dispatch<ElementwiseTable>().erf(y + i, x + i, end - i);
  });
}

}  // namespace kernels
}}  // namespace plumb::v0_1
