// A matrix product with its epilogue, run by the CPU and by a device: for the tests of the CUDA
// backend's.
#pragma once

#include <plumb/cpu/kernels.hpp>
#include <plumb/cpu/reference_gemm.hpp>
#include <plumb/cuda/gemm.cuh>

#include <algorithm>
#include <type_traits>
#include <vector>

#include "cases/gemm.hpp"
#include "support.hpp"

namespace test {

using namespace plumb;
using cases::gemm::Size;
using kernels::Cuda;

inline std::size_t at(Index i) { return static_cast<std::size_t>(i); }

/// A copy on the device, `offset` floats after a 16-byte boundary.
template <class T = float>
class OnDevice {
 public:
  OnDevice(const std::vector<float>& x, Index offset)
      : size_(x.size()),
        room_(Cuda{}, static_cast<Index>(x.size()) + offset),
        data_(room_.data() + offset) {
    kernels::copy_from_host(Cuda{}, data_, x.data(), x.size() * sizeof(float));
  }
  T* data() const { return data_; }
  std::vector<T> on_host() const {
    std::vector<T> x(size_);
    kernels::copy_to_host(Cuda{}, x.data(), data_, size_ * sizeof(T));
    return x;
  }

 private:
  std::size_t size_;
  kernels::DeviceScratch<T> room_;
  T* data_;
};

enum class After { Nothing, BiasAndResidual, Activation, ActivationInPlace };
constexpr After kAfter[] = {After::Nothing, After::BiasAndResidual, After::Activation,
                            After::ActivationInPlace};

/// Offsets of the operands from 16-byte boundaries.
struct Offsets {
  Index c = 0, a = 0, b = 0, bias = 0, residual = 0, activated = 0;
};

struct Results {
  std::vector<float> c, activated;
  bool operator==(const Results& other) const {
    return same_bits(c, other.c) && same_bits(activated, other.activated);
  }
};

struct Problem {
  Size size;
  Form form;
  std::vector<float> a = random_vector(size.m * size.k, 1);
  std::vector<float> b = random_vector(size.k * size.n, 2);
  std::vector<float> c = random_vector(size.m * size.n, 3);
  std::vector<float> bias = random_vector(size.n, 4);
  std::vector<float> residual = random_vector(size.m * size.n, 5);

  static Epilogue epilogue(After after, Activation f, const float* bias, const float* residual,
                           float* c, float* activated) {
    switch (after) {
      case After::Nothing: return {};
      case After::BiasAndResidual: return {bias, residual};
      case After::Activation: return {bias, nullptr, activated, f};
      case After::ActivationInPlace: return {nullptr, residual, c, f};
    }
    return {};
  }

  template <class Device = Cpu>
  Results on_cpu(bool accumulate, After after, Activation f = Activation::Gelu) const {
    Results r{c, c};
    kernels::matmul(
        Device{}, r.c.data(), a.data(), b.data(), size.m, size.n, size.k, form, accumulate,
        epilogue(after, f, bias.data(), residual.data(), r.c.data(), r.activated.data()));
    return r;
  }
  /// multiply(c, a, b, epilogue) on the device.
  template <class Multiply>
  Results on_device(After after, Activation f, Offsets offsets, Multiply multiply) const {
    const OnDevice<> to(c, offsets.c), from_a(a, offsets.a), from_b(b, offsets.b),
        from_bias(bias, offsets.bias), from_residual(residual, offsets.residual),
        activated(c, offsets.activated);
    multiply(
        to.data(), from_a.data(), from_b.data(),
        epilogue(after, f, from_bias.data(), from_residual.data(), to.data(), activated.data()));
    return {to.on_host(), activated.on_host()};
  }
  template <class Device>
  Results on(Device device, bool accumulate, After after, Activation f = Activation::Gelu,
             Offsets offsets = {}) const {
    return on_device(after, f, offsets, [&](float* to, const float* x, const float* y, Epilogue e) {
      matmul(device, to, x, y, size.m, size.n, size.k, form, accumulate, e);
    });
  }
};

#define CAPTURE_SIZE(size) \
  CAPTURE(size.m);         \
  CAPTURE(size.n);         \
  CAPTURE(size.k)

/// The device of the CPU whose bits an exact one of CUDA has.
template <class D>
using Twin = std::conditional_t<rounds_products<D>, CpuBf16, Cpu>;

/// With B packed as T before.
template <class T, class Device = Cpu>
Results packed_on_cpu(const Problem& p, After after) {
  const auto [m, n, k] = p.size;
  Results r{p.c, p.c};
  std::vector<T> packed(at(kernels::packed_size(Cpu{}, n, k)));
  kernels::pack_matrix(Cpu{}, packed.data(), p.b.data(), n, k);
  kernels::matmul_packed(Device{}, r.c.data(), p.a.data(), packed.data(), m, n, k,
                         Problem::epilogue(after, Activation::Silu, p.bias.data(),
                                           p.residual.data(), r.c.data(), r.activated.data()));
  return r;
}
template <class T, class Device>
Results packed_on(Device device, const Problem& p, After after, Index offset = 0) {
  const auto [m, n, k] = p.size;
  return p.on_device(
      after, Activation::Silu, {},
      [&, m = m, n = n, k = k](float* c, const float* a, const float* b, Epilogue e) {
        const kernels::DeviceScratch<T> packed(device, packed_size(device, n, k) + offset);
        pack_matrix(device, packed.data() + offset, b, n, k);
        matmul_packed(device, c, a, packed.data() + offset, m, n, k, e);
      });
}

/// |C - exact| / (`unit` · Σ|a·b| + 1e-6 · (the rest)), at worst; accumulates, with bias and
/// residual if asked.
inline double worst_error(const Problem& p, const std::vector<float>& c, bool accumulate,
                          bool epilogue, double unit) {
  const auto [m, n, k] = p.size;
  const auto exact = reference::matmul(p.a.data(), p.b.data(), m, n, k, p.form);
  const auto scale = reference::matmul_scale(p.a.data(), p.b.data(), m, n, k, p.form);
  double worst = 0;
  for (Index i = 0; i < m * n; ++i) {
    double value = exact[at(i)], rest = 0;
    for (const float x : {accumulate ? p.c[at(i)] : 0.0F, epilogue ? p.bias[at(i % n)] : 0.0F,
                          epilogue ? p.residual[at(i)] : 0.0F}) {
      value += static_cast<double>(x);
      rest += std::abs(static_cast<double>(x));
    }
    const double error = std::abs(static_cast<double>(c[at(i)]) - value) /
                         (unit * scale[at(i)] + 1e-6 * (rest + scale[at(i)]) + 1e-30);
    worst = error <= worst ? worst : std::isnan(error) ? INFINITY : error;
  }
  return worst;
}

}  // namespace test
