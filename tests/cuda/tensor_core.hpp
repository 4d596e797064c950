// CudaTensorCore and CudaTf32 on the CPU, for the tests: the products of gemm_tensor_core.cuh as
// plain loops, with the bits of a tensor core by the published model (emulator/tensor_core.hpp).
#pragma once

#include <plumb/cpu/kernels.hpp>
#include <plumb/cuda/gemm_tensor_core.cuh>

#include <emulator/tensor_core.hpp>

#include <doctest/doctest.h>

#include <vector>

#include "gemm_problem.hpp"

namespace test {

using emulator::TensorCoreRule;
using kernels::CudaTensorCore;
using kernels::CudaTf32;

/// k of one mma instruction.
template <class Device>
constexpr int kStep = std::is_same_v<Device, CudaTf32> ? 8 : 16;
template <class Device>
using OperandOf = std::conditional_t<std::is_same_v<Device, CudaTf32>, kernels::gpu::Tf32Operand,
                                     kernels::gpu::Bf16Operand>;

inline float rounded(CudaTensorCore, float x) { return static_cast<float>(bf16(x)); }
inline float rounded(CudaTf32, float x) {  // ties away from zero
  return std::bit_cast<float>((std::bit_cast<std::uint32_t>(x) + 0x1000U) & 0xffffe000U);
}

/// Calls f(architecture) with 80 and 90, which the emulator then plays; from nvcc, for the device's
/// own, and not at all where the model has none.
template <class F>
void for_each_architecture(F f) {
#if defined(__CUDACC__)
  cudaDeviceProp device;
  kernels::check_cuda(cudaGetDeviceProperties(&device, 0), "properties of the device");
  if (device.major > 9)
    MESSAGE("skipped: no model here of the tensor cores of sm_", device.major, device.minor);
  else
    f(device.major * 10);
#else
  const int before = emulator::architecture();
  for (const int architecture : {80, 90}) {
    CAPTURE(architecture);
    emulator::drain_all();
    emulator::set_architecture(architecture);
    f(architecture);
  }
  emulator::drain_all();
  emulator::set_architecture(before);
#endif
}

template <class Device>
using Operands = emulator::TensorOperands<kStep<Device>>;

/// Rows of k operands, rounded, a whole number of instructions each, zeros following k; `from`
/// holds them as they are or transposed.
template <class Device>
std::vector<Operands<Device>> tensor_operands(const std::vector<float>& from, Index rows, Index k,
                                              bool transposed) {
  const Index steps = (k + kStep<Device> - 1) / kStep<Device>;
  std::vector<Operands<Device>> to(at(rows * steps));
  for (Index row = 0; row < rows; ++row)
    for (Index i = 0; i < k; ++i)
      to[at(row * steps + i / kStep<Device>)].set(
          static_cast<int>(i % kStep<Device>),
          rounded(Device{}, from[at(transposed ? i * rows + row : row * k + i)]));
  return to;
}

/// A·B alone: one chain of instructions over ascending k for each element.
template <class Device>
std::vector<float> twin_sums(const Problem& p, TensorCoreRule rule) {
  const auto [m, n, k] = p.size;
  const auto a = tensor_operands<Device>(p.a, m, k, p.form == Form::TN);
  const auto b = tensor_operands<Device>(p.b, n, k, p.form != Form::NT);
  const Index steps = (k + kStep<Device> - 1) / kStep<Device>;
  std::vector<float> sums(at(m * n));
  for (Index row = 0; row < m; ++row)
    for (Index column = 0; column < n; ++column) {
      float& sum = sums[at(row * n + column)];
      for (Index i = 0; i < steps; ++i)
        sum = tensor_core_dot(a[at(row * steps + i)], b[at(column * steps + i)], sum, rule);
    }
  return sums;
}

/// What Problem::on(Device{}, …) gives: added to C's old value, + bias, + residual, activation.
template <class Device>
Results on_twin(const Problem& p, TensorCoreRule rule, bool accumulate, After after,
                Activation f = Activation::Gelu) {
  const Index m = p.size.m, n = p.size.n;
  Results r{p.c, p.c};
  const Epilogue e =
      Problem::epilogue(after, f, p.bias.data(), p.residual.data(), r.c.data(), r.activated.data());
  const auto sums = twin_sums<Device>(p, rule);
  for (Index i = 0; i < m * n; ++i) {
    float x = sums[at(i)];
    if (accumulate) x = r.c[at(i)] + x;
    if (e.bias != nullptr) x += e.bias[i % n];
    if (e.residual != nullptr) x += e.residual[i];
    r.c[at(i)] = x;
  }
  if (e.activated != nullptr) kernels::activation_forward(Cpu{}, e.activated, r.c.data(), f, m * n);
  return r;
}

}  // namespace test
