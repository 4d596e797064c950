// Element-by-element kernels: y[i] = f(x[i], …), the CPU's formulas and so its bits. Cost: a few
// FLOPs
// (an activation: 30 to 60) per 4-byte element read and written: bound by memory everywhere, 0.1 to
// 0.2 FLOP/B against the 10 of an A100 or H100. A warp reads 128 consecutive bytes at a time, a
// thread kPerThread elements a block's width apart. What this is not: vectorised by float4, which
// would need aligned views.
#pragma once

#include <plumb/cuda/device.cuh>
#include <plumb/cuda/lanes.cuh>
#include <plumb/math/activation.hpp>
#include <plumb/math/elementwise.hpp>

namespace plumb { inline namespace v0_1 {
namespace kernels {

namespace gpu {

inline constexpr int kMapThreads = 256;
inline constexpr int kPerThread = 4;

/// Calls f(i) for every i < n.
template <int kThreads, class F>
__global__ void __launch_bounds__(kThreads) map_kernel(F f, Index n) {
  const Index first = static_cast<Index>(blockIdx.x) * (kThreads * kPerThread) + threadIdx.x;
#pragma unroll
  for (int j = 0; j < kPerThread; ++j) {
    const Index i = first + j * kThreads;
    if (i < n) f(i);
  }
}

template <class F>
void map(Cuda device, const F& f, Index n) {
  if (n > 0)
    PLUMB_LAUNCH((map_kernel<kMapThreads, F>), blocks_for(n, kMapThreads * kPerThread), kMapThreads,
                 0, device.stream, f, n);
}

struct Accumulate {
  float* y;
  const float* x;
  float factor;
  __device__ void operator()(Index i) const { y[i] = fma(factor, x[i], y[i]); }
};
struct AccumulateBy {
  float* y;
  const float *x, *factor;
  __device__ void operator()(Index i) const { y[i] = fma(*factor, x[i], y[i]); }
};
struct Scale {
  float* y;
  const float* x;
  float factor;
  __device__ void operator()(Index i) const { y[i] = factor * x[i]; }
};
struct Shift {
  float* y;
  const float* x;
  float term;
  __device__ void operator()(Index i) const { y[i] = x[i] + term; }
};
struct Clamp {
  float* y;
  const float* x;
  float low, high;
  __device__ void operator()(Index i) const { y[i] = clamped(x[i], low, high); }
};
struct ClampBackward {
  float* dx;
  const float *dy, *x;
  float low, high;
  __device__ void operator()(Index i) const {
    dx[i] = clamped_gradient(dx[i], dy[i], x[i], low, high);
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
  float* y;
  const float* x;
  Function f;
  __device__ void operator()(Index i) const { y[i] = function(f, x[i]); }
};
struct ApplyBackward {
  float* dx;
  const float *dy, *x;
  Function f;
  __device__ void operator()(Index i) const { dx[i] = function_gradient(f, dx[i], dy[i], x[i]); }
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
  __device__ void operator()(Index i) const {
    const Place at(i, c);
    y[i] = combined(f, at.of(a), at.of(b));
  }
};
struct CombineBackward {
  float* d;
  const float* dy;
  Operand<float> a, b;
  Arithmetic f;
  bool by_a;
  Index c;
  __device__ void operator()(Index i) const {
    const Place at(i, c);
    d[i] = by_a ? combined_gradient<true>(f, d[i], dy[i], at.of(a), at.of(b))
                : combined_gradient<false>(f, d[i], dy[i], at.of(a), at.of(b));
  }
};
struct Assign {
  float* y;
  Index row;
  Operand<float> x;
  float factor;
  bool accumulate;
  Index c;
  __device__ void operator()(Index i) const {
    const Place at(i, c);
    float& to = y[at.row * row + at.column];
    to = accumulate ? fma(factor, at.of(x), to) : factor * at.of(x);
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
  float* y;
  const float* x;
  __device__ void operator()(Index i) const { y[i] = activation<f>(x[i]); }
};
template <Activation f>
struct ActivateBackward {
  float* dx;
  const float *dy, *x;
  __device__ void operator()(Index i) const { dx[i] = activation_gradient<f>(dx[i], dy[i], x[i]); }
};

struct Swiglu {
  float* y;
  const float *gate, *up;
  __device__ void operator()(Index i) const { y[i] = silu(gate[i]) * up[i]; }
};
struct SwigluBackward {
  float *dgate, *dup;
  const float *dy, *gate, *up;
  __device__ void operator()(Index i) const {
    const float g = gate[i];
    const float s = sigmoid(g);
    const float d = dy[i];
    dgate[i] = fma(d * up[i], s * fma(g, 1.0F - s, 1.0F), dgate[i]);
    dup[i] = fma(d, g * s, dup[i]);
  }
};

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
  gpu::map(device, gpu::Combine{y, a, b, f, c}, n * c);
}
/// d (N, C) += dy · ∂f/∂a, or ∂f/∂b.
inline void combine_backward(Cuda device, float* d, const float* dy, Operand<float> a,
                             Operand<float> b, Arithmetic f, bool by_a, Index n, Index c) {
  gpu::map(device, gpu::CombineBackward{d, dy, a, b, f, by_a, c}, n * c);
}
/// y[i · row + j] = or += factor · x(i, j), i < n, j < c.
inline void assign(Cuda device, float* y, Index row, Operand<float> x, float factor,
                   bool accumulate, Index n, Index c) {
  gpu::map(device, gpu::Assign{y, row, x, factor, accumulate, c}, n * c);
}
/// y += scale · x, n elements (one fma each).
inline void accumulate(Cuda device, float* y, const float* x, float scale, Index n) {
  gpu::map(device, gpu::Accumulate{y, x, scale}, n);
}
/// y += *scale · x, with a scale that lies on the device: the host waits for nothing.
inline void accumulate_by(Cuda device, float* y, const float* x, const float* scale, Index n) {
  gpu::map(device, gpu::AccumulateBy{y, x, scale}, n);
}
/// y = factor · x, n elements; y may be x.
inline void scale_forward(Cuda device, float* y, const float* x, float factor, Index n) {
  gpu::map(device, gpu::Scale{y, x, factor}, n);
}

/// y = x + term, n elements.
inline void shift_forward(Cuda device, float* y, const float* x, float term, Index n) {
  gpu::map(device, gpu::Shift{y, x, term}, n);
}
/// y = x within [low, high]; dx += dy where it is.
inline void clamp_forward(Cuda device, float* y, const float* x, float low, float high, Index n) {
  gpu::map(device, gpu::Clamp{y, x, low, high}, n);
}
inline void clamp_backward(Cuda device, float* dx, const float* dy, const float* x, float low,
                           float high, Index n) {
  gpu::map(device, gpu::ClampBackward{dx, dy, x, low, high}, n);
}

/// y = f(x), n elements.
inline void activation_forward(Cuda device, float* y, const float* x, Activation f, Index n) {
  with_activation(f, [=]<Activation kind>() { gpu::map(device, gpu::Activate<kind>{y, x}, n); });
}
/// dx += f'(x) · dy, n elements.
inline void activation_backward(Cuda device, float* dx, const float* dy, const float* x,
                                Activation f, Index n) {
  with_activation(f, [=]<Activation kind>() {
    gpu::map(device, gpu::ActivateBackward<kind>{dx, dy, x}, n);
  });
}

/// y = silu(gate) · up, n elements (Shazeer 2020, "GLU variants improve transformer").
inline void swiglu_forward(Cuda device, float* y, const float* gate, const float* up, Index n) {
  gpu::map(device, gpu::Swiglu{y, gate, up}, n);
}
/// dgate += dy · up · silu'(gate); dup += dy · silu(gate).
inline void swiglu_backward(Cuda device, float* dgate, float* dup, const float* dy,
                            const float* gate, const float* up, Index n) {
  gpu::map(device, gpu::SwigluBackward{dgate, dup, dy, gate, up}, n);
}

/// y = f(x), n elements; y may be x.
inline void function_forward(Cuda device, float* y, const float* x, Function f, Index n) {
  gpu::map(device, gpu::Apply{y, x, f}, n);
}
/// dx += f'(x) · dy, n elements.
inline void function_backward(Cuda device, float* dx, const float* dy, const float* x, Function f,
                              Index n) {
  gpu::map(device, gpu::ApplyBackward{dx, dy, x, f}, n);
}

}  // namespace kernels
}}  // namespace plumb::v0_1
