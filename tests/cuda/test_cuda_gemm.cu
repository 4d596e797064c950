// The CUDA backend's matrix products: the exact mode bit for bit the CPU's, the others near the oracle.
#include <doctest/doctest.h>
#include <plumb/cpu/kernels.hpp>
#include <plumb/cpu/reference_gemm.hpp>
#include <plumb/cuda/gemm.cuh>

#include <limits>

#include "cases/gemm.hpp"
#include "support.hpp"

using namespace plumb;
using namespace test;
using namespace cases::gemm;
using kernels::Cuda;

namespace {

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

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

  Results on_cpu(bool accumulate, After after, Activation f = Activation::Gelu) const {
    Results r{c, c};
    kernels::matmul(
        Cpu{}, r.c.data(), a.data(), b.data(), size.m, size.n, size.k, form, accumulate,
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

/// A tile kernel, whatever shape matmul would choose.
template <Form form, int kTile>
Results by_tiles(const Problem& p, bool accumulate, After after) {
  const auto [m, n, k] = p.size;
  return p.on_device(
      after, Activation::Gelu, {},
      [&, m = m, n = n, k = k](float* c, const float* a, const float* b, Epilogue e) {
        if (m == 0 || n == 0) return;
        kernels::gpu::launch_tile<form, kTile>(
            Cuda{}, kernels::gpu::product(c, a, b, m, n, k, form, accumulate, e));
      });
}
template <int kTile>
Results by_tiles(const Problem& p, bool accumulate, After after) {
  switch (p.form) {
    case Form::NN: return by_tiles<Form::NN, kTile>(p, accumulate, after);
    case Form::NT: return by_tiles<Form::NT, kTile>(p, accumulate, after);
    case Form::TN: return by_tiles<Form::TN, kTile>(p, accumulate, after);
  }
  return {};
}

template <class T>
Results packed_on_cpu(const Problem& p, After after) {
  const auto [m, n, k] = p.size;
  Results r{p.c, p.c};
  std::vector<T> packed(at(kernels::packed_size(Cpu{}, n, k)));
  kernels::pack_matrix(Cpu{}, packed.data(), p.b.data(), n, k);
  kernels::matmul_packed(Cpu{}, r.c.data(), p.a.data(), packed.data(), m, n, k,
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

}  // namespace

TEST_CASE("cuda gemm: the exact mode has the CPU's bits, in every form and with every epilogue") {
  for (const Size size : kSmall)
    for (const Form form : kForms) {
      const Problem p{size, form};
      for (const bool accumulate : {false, true})
        for (const After after : kAfter) {
          CAPTURE_SIZE(size);
          CAPTURE(static_cast<int>(form));
          CAPTURE(static_cast<int>(after));
          CHECK(p.on(Cuda{}, accumulate, after) == p.on_cpu(accumulate, after));
        }
    }
}

TEST_CASE("cuda gemm: both shapes of tiles have the CPU's bits") {
  for (const Size size : kSmall)
    for (const Form form : kForms) {
      const Problem p{size, form};
      CAPTURE_SIZE(size);
      CAPTURE(static_cast<int>(form));
      const auto plain = p.on_cpu(false, After::Activation);
      CHECK(by_tiles<128>(p, false, After::Activation) == plain);
      CHECK(by_tiles<64>(p, false, After::Activation) == plain);
      const auto added = p.on_cpu(true, After::BiasAndResidual);
      CHECK(by_tiles<128>(p, true, After::BiasAndResidual) == added);
      CHECK(by_tiles<64>(p, true, After::BiasAndResidual) == added);
    }
}

TEST_CASE("cuda gemm: many tiles, of which matmul chooses the large ones") {
  for (const Form form : kForms) {
    const Problem p{{1030, 1100, 10}, form};
    CHECK(p.on(Cuda{}, true, After::Nothing) == p.on_cpu(true, After::Nothing));
  }
}

TEST_CASE("cuda gemm: each activation has the CPU's bits") {
  for (const Size size : {Size{5, 12, 40}, Size{20, 24, 40}, Size{20, 23, 40}})
    for (const Activation f : {Activation::Gelu, Activation::Silu, Activation::Tanh,
                               Activation::Relu, Activation::GeluErf})
      for (const After after : {After::Activation, After::ActivationInPlace}) {
        const Problem p{size, Form::NT};
        CAPTURE(static_cast<int>(f));
        CHECK(p.on(Cuda{}, false, after, f) == p.on_cpu(false, after, f));
      }
}

TEST_CASE("cuda gemm: operands at any alignment") {
  // Sizes that are multiples of 4, so that it is the pointers alone that forbid wide accesses.
  for (const Size size : {Size{12, 32, 64}, Size{24, 96, 264}})
    for (const Form form : kForms)
      for (int operand = 0; operand < 7; ++operand) {
        Offsets offsets;
        Index* const all[] = {&offsets.c,    &offsets.a,        &offsets.b,
                              &offsets.bias, &offsets.residual, &offsets.activated};
        for (int i = 0; i < 6; ++i) *all[i] = operand == i || operand == 6 ? 1 : 0;
        const Problem p{size, form};
        CAPTURE(operand);
        for (const After after : kAfter)
          CHECK(p.on(Cuda{}, true, after, Activation::Gelu, offsets) == p.on_cpu(true, after));
      }
}

TEST_CASE("cuda gemm: few rows, of which chunks of k go side by side") {
  for (Index m = 1; m <= 17; ++m)
    for (const Index k : {0, 1, 31, 32, 100, 256, 260, 511, 1024, 2100, 2304}) {
      const Problem p{{m, m % 3 == 0 ? 37 : 8, k}, Form::NT};
      CAPTURE_SIZE(p.size);
      for (const bool accumulate : {false, true})
        CHECK(p.on(Cuda{}, accumulate, After::Activation) ==
              p.on_cpu(accumulate, After::Activation));
    }
}

TEST_CASE("cuda gemm: with B packed before, the bits of the CPU; as bf16, those of B rounded") {
  for (const Size size : kSmall) {
    const Problem p{size, Form::NT};
    CAPTURE_SIZE(size);
    for (const After after : kAfter) {
      CHECK(packed_on<float>(Cuda{}, p, after) == packed_on_cpu<float>(p, after));
      CHECK(packed_on<bf16>(Cuda{}, p, after) == packed_on_cpu<bf16>(p, after));
    }
  }
  for (const Index m : {1, 7, 16, 17}) {
    const Problem p{{m, 40, 800}, Form::NT};
    const auto expected = packed_on_cpu<bf16>(p, After::Activation);
    CHECK(packed_on<bf16>(Cuda{}, p, After::Activation) == expected);
    CHECK(packed_on<bf16>(Cuda{}, p, After::Activation, 1) == expected);
  }
}

TEST_CASE("cuda gemm: rounding to bf16 is to nearest even, and keeps infinities and NaN") {
  Problem p{{1, 9, 1}, Form::NT};
  p.a = {1.0F};
  p.b = {1.0F + 0x1p-8F, 1.0F + 0x3p-8F,
         0x1.ffp127F,    std::numeric_limits<float>::max(),
         -INFINITY,      NAN,
         -NAN,           0x1p-133F,
         -0.0F};
  const auto c = packed_on<bf16>(Cuda{}, p, After::Nothing).c;
  const auto expected = packed_on_cpu<bf16>(p, After::Nothing).c;
  for (std::size_t i = 0; i < 9; ++i)
    CHECK((std::isnan(expected[i]) ? std::isnan(c[i]) : same_bits({&c[i], 1}, {&expected[i], 1})));
}

TEST_CASE("cuda gemm: a sum that underflows to -0 stays -0: k is not padded") {
  for (const Index m : {3, 20})
    for (const Form form : kForms)
      for (const Index k : {1, 5, 8, 9, 33}) {
        Problem p{{m, 6, k}, form};
        p.a.assign(p.a.size(), 0.0F);
        p.b.assign(p.b.size(), 1e-30F);
        for (Index i = 0; i < m; ++i)
          p.a[at(form == Form::TN ? (k - 1) * m + i : i * k + k - 1)] = -1e-30F;
        const auto c = p.on(Cuda{}, false, After::Nothing).c;
        CHECK(std::signbit(c[0]));
        CHECK(same_bits(c, p.on_cpu(false, After::Nothing).c));
      }
}

TEST_CASE("cuda gemm: nothing is written beyond C and infinities stay in their row") {
  for (const Form form : {Form::NN, Form::NT})
    for (const Index m : {14, 30}) {
      const Index n = 35, k = 40;
      Problem p{{m, n, k}, form};
      p.a[at(3 * k + 5)] = INFINITY;
      const OnDevice<> a(p.a, 0), b(p.b, 0), c(std::vector<float>(at(m * n + 64), 7.0F), 0);
      matmul(Cuda{}, c.data(), a.data(), b.data(), m, n, k, form);
      const auto out = c.on_host();
      for (Index i = 0; i < m * n; ++i) CHECK(std::isfinite(out[at(i)]) == (i / n != 3));
      for (Index i = m * n; i < m * n + 64; ++i) CHECK(out[at(i)] == 7.0F);
    }
}
