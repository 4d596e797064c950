// Element-by-element kernels: y[i] = f(x[i], …), the CPU's formulas and so its bits. Cost: a few
// FLOPs (an activation: 30 to 60) per 4-byte element read and written: bound by memory everywhere,
// 0.1 to 0.2 FLOP/B against the 10 of an A100 or H100. How threads share it out: map.cuh.
#pragma once

#include <plumb/cuda/map.cuh>
#include <plumb/math/activation.hpp>
#include <plumb/math/elementwise.hpp>

namespace plumb { inline namespace v0_1 {
namespace kernels {

namespace gpu {

struct Accumulate {
  float factor;
  __device__ void operator()(const float (&x)[2], float (&y)[1]) const {
    y[0] = fma(factor, x[1], x[0]);
  }
};
struct AccumulateBy {
  const float* factor;
  __device__ void operator()(const float (&x)[2], float (&y)[1]) const {
    y[0] = fma(*factor, x[1], x[0]);
  }
};
struct Scale {
  float factor;
  __device__ void operator()(const float (&x)[1], float (&y)[1]) const { y[0] = factor * x[0]; }
};
struct Shift {
  float term;
  __device__ void operator()(const float (&x)[1], float (&y)[1]) const { y[0] = x[0] + term; }
};
struct Clamp {
  float low, high;
  __device__ void operator()(const float (&x)[1], float (&y)[1]) const {
    y[0] = clamped(x[0], low, high);
  }
};
struct ClampBackward {
  float low, high;
  __device__ void operator()(const float (&x)[3], float (&y)[1]) const {
    y[0] = clamped_gradient(x[0], x[1], x[2], low, high);
  }
};

// What is chosen at run time, each thread chooses alike: these wait for memory.
__device__ inline float function(Function f, float x) {
  switch (f) {
    case Function::Exp: return function<Function::Exp>(x);
    case Function::Log: return function<Function::Log>(x);
    case Function::Erf: return function<Function::Erf>(x);
    case Function::Sqrt: return function<Function::Sqrt>(x);
    case Function::Sigmoid: return function<Function::Sigmoid>(x);
    default: return function<Function::Softplus>(x);
  }
}
__device__ inline float function_gradient(Function f, float dx, float dy, float x) {
  switch (f) {
    case Function::Exp: return function_gradient<Function::Exp>(dx, dy, x);
    case Function::Log: return function_gradient<Function::Log>(dx, dy, x);
    case Function::Erf: return function_gradient<Function::Erf>(dx, dy, x);
    case Function::Sqrt: return function_gradient<Function::Sqrt>(dx, dy, x);
    case Function::Sigmoid: return function_gradient<Function::Sigmoid>(dx, dy, x);
    default: return function_gradient<Function::Softplus>(dx, dy, x);
  }
}
__device__ inline float combined(Arithmetic f, float a, float b) {
  switch (f) {
    case Arithmetic::Add: return combined<Arithmetic::Add>(a, b);
    case Arithmetic::Subtract: return combined<Arithmetic::Subtract>(a, b);
    case Arithmetic::Multiply: return combined<Arithmetic::Multiply>(a, b);
    case Arithmetic::Divide: return combined<Arithmetic::Divide>(a, b);
    case Arithmetic::Minimum: return combined<Arithmetic::Minimum>(a, b);
    default: return combined<Arithmetic::Maximum>(a, b);
  }
}
template <bool kByA>
__device__ float combined_gradient(Arithmetic f, float d, float dy, float a, float b) {
  switch (f) {
    case Arithmetic::Add: return combined_gradient<Arithmetic::Add, kByA>(d, dy, a, b);
    case Arithmetic::Subtract: return combined_gradient<Arithmetic::Subtract, kByA>(d, dy, a, b);
    case Arithmetic::Multiply: return combined_gradient<Arithmetic::Multiply, kByA>(d, dy, a, b);
    case Arithmetic::Divide: return combined_gradient<Arithmetic::Divide, kByA>(d, dy, a, b);
    case Arithmetic::Minimum: return combined_gradient<Arithmetic::Minimum, kByA>(d, dy, a, b);
    default: return combined_gradient<Arithmetic::Maximum, kByA>(d, dy, a, b);
  }
}

struct Apply {
  Function f;
  __device__ void operator()(const float (&x)[1], float (&y)[1]) const { y[0] = function(f, x[0]); }
};
struct ApplyBackward {
  Function f;
  __device__ void operator()(const float (&x)[3], float (&y)[1]) const {
    y[0] = function_gradient(f, x[0], x[1], x[2]);
  }
};

/// Of operands that are whole tensors, and of such that stand beside a matrix.
struct CombineWhole {
  Arithmetic f;
  __device__ void operator()(const float (&x)[2], float (&y)[1]) const {
    y[0] = combined(f, x[0], x[1]);
  }
};
struct CombineWholeBackward {
  Arithmetic f;
  bool by_a;
  __device__ void operator()(const float (&x)[4], float (&y)[1]) const {
    y[0] = by_a ? combined_gradient<true>(f, x[0], x[1], x[2], x[3])
                : combined_gradient<false>(f, x[0], x[1], x[2], x[3]);
  }
};

/// Element i of a matrix of c columns, by what stands beside it; all of a tensor is one row.
struct Place {
  Index row, column;
  __device__ Place(Index i, Index c) : row(i / c), column(i - row * c) {}
  __device__ float of(Operand<float> x) const {
    return x.data[row * x.row + column * x.column];
  }
};
struct Combine {
  float* y;
  Operand<float> a, b;
  Arithmetic f;
  Index c;
  __device__ float2 load(Index i) const {
    const Place at(i, c);
    return {at.of(a), at.of(b)};
  }
  __device__ void store(Index i, float2 x) const { y[i] = combined(f, x.x, x.y); }
};
struct CombineBackward {
  float* d;
  const float* dy;
  Operand<float> a, b;
  Arithmetic f;
  bool by_a;
  Index c;
  __device__ float4 load(Index i) const {
    const Place at(i, c);
    return {d[i], dy[i], at.of(a), at.of(b)};
  }
  __device__ void store(Index i, float4 x) const {
    d[i] = by_a ? combined_gradient<true>(f, x.x, x.y, x.z, x.w)
                : combined_gradient<false>(f, x.x, x.y, x.z, x.w);
  }
};
struct Assign {
  float* y;
  Index row;
  Operand<float> x;
  float factor;
  bool accumulate;
  Index c;
  struct Loaded {
    Index to;
    float x, y;
  };
  __device__ Loaded load(Index i) const {
    const Place at(i, c);
    const Index to = at.row * row + at.column;
    return {to, at.of(x), accumulate ? y[to] : 0.0F};
  }
  __device__ void store(Index, const Loaded& of) const {
    y[of.to] = accumulate ? fma(factor, of.x, of.y) : factor * of.x;
  }
};

template <Activation f>
__device__ float activation(float x) {
  if constexpr (f == Activation::Gelu) return gelu(x);
  if constexpr (f == Activation::Silu) return silu(x);
  if constexpr (f == Activation::Tanh) return tanh(x);
  if constexpr (f == Activation::Relu) return relu(x);
  if constexpr (f == Activation::GeluErf) return gelu_erf(x);
}

/// dx plus f'(x) · dy.
template <Activation f>
__device__ float activation_gradient(float dx, float dy, float x) {
  if constexpr (f == Activation::Gelu) return fma(dy, gelu_derivative(x), dx);
  if constexpr (f == Activation::Silu) return fma(dy, silu_derivative(x), dx);
  if constexpr (f == Activation::Tanh) {
    const float t = tanh(x);
    return fma(dy, fma(0.0F - t, t, 1.0F), dx);
  }
  if constexpr (f == Activation::Relu) return dx + (0.0F < x ? dy : 0.0F);
  if constexpr (f == Activation::GeluErf) return fma(dy, gelu_erf_derivative(x), dx);
}

template <Activation f>
struct Activate {
  __device__ void operator()(const float (&x)[1], float (&y)[1]) const {
    y[0] = activation<f>(x[0]);
  }
};
template <Activation f>
struct ActivateBackward {
  __device__ void operator()(const float (&x)[3], float (&y)[1]) const {
    y[0] = activation_gradient<f>(x[0], x[1], x[2]);
  }
};

/// gate, up.
struct Swiglu {
  __device__ void operator()(const float (&x)[2], float (&y)[1]) const {
    y[0] = silu(x[0]) * x[1];
  }
};
/// dgate, dup; dy, gate, up.
struct SwigluBackward {
  __device__ void operator()(const float (&x)[5], float (&y)[2]) const {
    const float d = x[2], gate = x[3], up = x[4];
    const float s = sigmoid(gate);
    y[0] = fma(d * up, s * fma(gate, 1.0F - s, 1.0F), x[0]);
    y[1] = fma(d, gate * s, x[1]);
  }
};

/// Whether an operand beside a matrix of n rows and c columns is one like it.
inline bool whole(const Operand<float>& x, Index n, Index c) {
  return x.column == 1 && (x.row == c || n == 1);
}

}  // namespace gpu

/// Calls body.template operator()<f>() with a run-time activation as a constant.
template <class Body>
void with_activation(Activation f, Body body) {
  switch (f) {
    case Activation::Gelu: return body.template operator()<Activation::Gelu>();
    case Activation::Silu: return body.template operator()<Activation::Silu>();
    case Activation::Tanh: return body.template operator()<Activation::Tanh>();
    case Activation::Relu: return body.template operator()<Activation::Relu>();
    case Activation::GeluErf: return body.template operator()<Activation::GeluErf>();
  }
}

/// y (N, C) = f(a, b), of what stands beside it.
inline void combine_forward(Cuda device, float* y, Operand<float> a, Operand<float> b, Arithmetic f,
                            Index n, Index c) {
  if (gpu::whole(a, n, c) && gpu::whole(b, n, c))
    gpu::pointwise<2, 1>(device, gpu::CombineWhole{f}, {a.data, b.data}, {y}, n * c);
  else
    gpu::map(device, gpu::Combine{y, a, b, f, c}, n * c);
}
/// d (N, C) += dy · ∂f/∂a, or ∂f/∂b.
inline void combine_backward(Cuda device, float* d, const float* dy, Operand<float> a,
                             Operand<float> b, Arithmetic f, bool by_a, Index n, Index c) {
  if (gpu::whole(a, n, c) && gpu::whole(b, n, c))
    gpu::pointwise<4, 1>(device, gpu::CombineWholeBackward{f, by_a}, {d, dy, a.data, b.data}, {d},
                         n * c);
  else
    gpu::map(device, gpu::CombineBackward{d, dy, a, b, f, by_a, c}, n * c);
}
/// y[i · row + j] = or += factor · x(i, j), i < n, j < c.
inline void assign(Cuda device, float* y, Index row, Operand<float> x, float factor,
                   bool accumulate, Index n, Index c) {
  gpu::map(device, gpu::Assign{y, row, x, factor, accumulate, c}, n * c);
}
/// y += scale · x, n elements (one fma each).
inline void accumulate(Cuda device, float* y, const float* x, float scale, Index n) {
  gpu::pointwise<2, 1>(device, gpu::Accumulate{scale}, {y, x}, {y}, n);
}
/// y += *scale · x, with a scale that lies on the device: the host waits for nothing.
inline void accumulate_by(Cuda device, float* y, const float* x, const float* scale, Index n) {
  gpu::pointwise<2, 1>(device, gpu::AccumulateBy{scale}, {y, x}, {y}, n);
}
/// y = factor · x, n elements; y may be x.
inline void scale_forward(Cuda device, float* y, const float* x, float factor, Index n) {
  gpu::pointwise<1, 1>(device, gpu::Scale{factor}, {x}, {y}, n);
}

/// y = x + term, n elements.
inline void shift_forward(Cuda device, float* y, const float* x, float term, Index n) {
  gpu::pointwise<1, 1>(device, gpu::Shift{term}, {x}, {y}, n);
}
/// y = x within [low, high]; dx += dy where it is.
inline void clamp_forward(Cuda device, float* y, const float* x, float low, float high, Index n) {
  gpu::pointwise<1, 1>(device, gpu::Clamp{low, high}, {x}, {y}, n);
}
inline void clamp_backward(Cuda device, float* dx, const float* dy, const float* x, float low,
                           float high, Index n) {
  gpu::pointwise<3, 1>(device, gpu::ClampBackward{low, high}, {dx, dy, x}, {dx}, n);
}

/// y = f(x), n elements.
inline void activation_forward(Cuda device, float* y, const float* x, Activation f, Index n) {
  with_activation(f, [=]<Activation kind>() {
    gpu::pointwise<1, 1>(device, gpu::Activate<kind>{}, {x}, {y}, n);
  });
}
/// dx += f'(x) · dy, n elements.
inline void activation_backward(Cuda device, float* dx, const float* dy, const float* x,
                                Activation f, Index n) {
  with_activation(f, [=]<Activation kind>() {
    gpu::pointwise<3, 1>(device, gpu::ActivateBackward<kind>{}, {dx, dy, x}, {dx}, n);
  });
}

/// y = silu(gate) · up, n elements (Shazeer 2020, "GLU variants improve transformer").
inline void swiglu_forward(Cuda device, float* y, const float* gate, const float* up, Index n) {
  gpu::pointwise<2, 1>(device, gpu::Swiglu{}, {gate, up}, {y}, n);
}
/// dgate += dy · up · silu'(gate); dup += dy · silu(gate).
inline void swiglu_backward(Cuda device, float* dgate, float* dup, const float* dy,
                            const float* gate, const float* up, Index n) {
  gpu::pointwise<5, 2>(device, gpu::SwigluBackward{}, {dgate, dup, dy, gate, up}, {dgate, dup}, n);
}

/// y = f(x), n elements; y may be x.
inline void function_forward(Cuda device, float* y, const float* x, Function f, Index n) {
  gpu::pointwise<1, 1>(device, gpu::Apply{f}, {x}, {y}, n);
}
/// dx += f'(x) · dy, n elements.
inline void function_backward(Cuda device, float* dx, const float* dy, const float* x, Function f,
                              Index n) {
  gpu::pointwise<3, 1>(device, gpu::ApplyBackward{f}, {dx, dy, x}, {dx}, n);
}

}  // namespace kernels
}}  // namespace plumb::v0_1
