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

struct Add {
  float* y;
  const float *a, *b;
  __device__ void operator()(Index i) const { y[i] = a[i] + b[i]; }
};
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
struct Multiply {
  float* y;
  const float *a, *b;
  __device__ void operator()(Index i) const { y[i] = a[i] * b[i]; }
};
struct MultiplyAccumulate {
  float* y;
  const float *a, *b;
  __device__ void operator()(Index i) const { y[i] = fma(a[i], b[i], y[i]); }
};
struct Scale {
  float* y;
  const float* x;
  float factor;
  __device__ void operator()(Index i) const { y[i] = factor * x[i]; }
};
struct Exp {
  float* y;
  const float* x;
  __device__ void operator()(Index i) const { y[i] = exp(x[i]); }
};
struct Log {
  float* y;
  const float* x;
  __device__ void operator()(Index i) const { y[i] = log(x[i]); }
};
struct Erf {
  float* y;
  const float* x;
  __device__ void operator()(Index i) const { y[i] = erf(x[i]); }
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

/// y = a + b, n elements.
inline void add_forward(Cuda device, float* y, const float* a, const float* b, Index n) {
  gpu::map(device, gpu::Add{y, a, b}, n);
}
/// y += scale · x, n elements (one fma each).
inline void accumulate(Cuda device, float* y, const float* x, float scale, Index n) {
  gpu::map(device, gpu::Accumulate{y, x, scale}, n);
}
/// y += *scale · x, with a scale that lies on the device: the host waits for nothing.
inline void accumulate_by(Cuda device, float* y, const float* x, const float* scale, Index n) {
  gpu::map(device, gpu::AccumulateBy{y, x, scale}, n);
}
/// y = a · b, n elements.
inline void multiply_forward(Cuda device, float* y, const float* a, const float* b, Index n) {
  gpu::map(device, gpu::Multiply{y, a, b}, n);
}
/// y += a · b, n elements (one fma each).
inline void multiply_accumulate(Cuda device, float* y, const float* a, const float* b, Index n) {
  gpu::map(device, gpu::MultiplyAccumulate{y, a, b}, n);
}
/// y = factor · x, n elements; y may be x.
inline void scale_forward(Cuda device, float* y, const float* x, float factor, Index n) {
  gpu::map(device, gpu::Scale{y, x, factor}, n);
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

/// y = e^x, y = log x and y = erf x, n elements; y may be x.
inline void exp_forward(Cuda device, float* y, const float* x, Index n) {
  gpu::map(device, gpu::Exp{y, x}, n);
}
inline void log_forward(Cuda device, float* y, const float* x, Index n) {
  gpu::map(device, gpu::Log{y, x}, n);
}
inline void erf_forward(Cuda device, float* y, const float* x, Index n) {
  gpu::map(device, gpu::Erf{y, x}, n);
}

}  // namespace kernels
}}  // namespace plumb::v0_1
