// The CUDA backend's matrix products: the exact mode bit for bit the CPU's, the others near the
// oracle.
#include <doctest/doctest.h>
#include <plumb/cuda/gemm_tensor_core.cuh>

#include <limits>

#include "gemm_problem.hpp"

using namespace plumb;
using namespace test;
using namespace cases::gemm;
using kernels::Cuda;
using kernels::CudaBf16;

namespace {

/// A tile kernel, whatever shape matmul would choose.
template <class Sum, Form form, int kTile>
Results by_tiles(const Problem& p, bool accumulate, After after) {
  const auto [m, n, k] = p.size;
  return p.on_device(
      after, Activation::Gelu, {},
      [&, m = m, n = n, k = k](float* c, const float* a, const float* b, Epilogue e) {
        if (m == 0 || n == 0) return;
        kernels::gpu::launch_tile<Sum, form, kTile>(
            Cuda{}, kernels::gpu::product(c, a, b, m, n, k, form, accumulate, e));
      });
}
template <class Sum, int kTile>
Results by_tiles(const Problem& p, bool accumulate, After after) {
  switch (p.form) {
    case Form::NN: return by_tiles<Sum, Form::NN, kTile>(p, accumulate, after);
    case Form::NT: return by_tiles<Sum, Form::NT, kTile>(p, accumulate, after);
    case Form::TN: return by_tiles<Sum, Form::TN, kTile>(p, accumulate, after);
  }
  return {};
}

}  // namespace

TEST_CASE_TEMPLATE(
    "cuda gemm: the exact modes have the CPU's bits, in every form and with every epilogue", D,
    Cuda, CudaBf16) {
  for (const Size size : kSmall)
    for (const Form form : kForms) {
      const Problem p{size, form};
      for (const bool accumulate : {false, true})
        for (const After after : kAfter) {
          CAPTURE_SIZE(size);
          CAPTURE(static_cast<int>(form));
          CAPTURE(static_cast<int>(after));
          CHECK(p.on(D{}, accumulate, after) == p.on_cpu<Twin<D>>(accumulate, after));
        }
    }
}

TEST_CASE_TEMPLATE("cuda gemm: both shapes of tiles have the CPU's bits", D, Cuda, CudaBf16) {
  using Sum = std::conditional_t<rounds_products<D>, kernels::gpu::Bf16Sum, kernels::gpu::FloatSum>;
  for (const Size size : kSmall)
    for (const Form form : kForms) {
      const Problem p{size, form};
      CAPTURE_SIZE(size);
      CAPTURE(static_cast<int>(form));
      const auto plain = p.on_cpu<Twin<D>>(false, After::Activation);
      CHECK(by_tiles<Sum, 128>(p, false, After::Activation) == plain);
      CHECK(by_tiles<Sum, 64>(p, false, After::Activation) == plain);
      const auto added = p.on_cpu<Twin<D>>(true, After::BiasAndResidual);
      CHECK(by_tiles<Sum, 128>(p, true, After::BiasAndResidual) == added);
      CHECK(by_tiles<Sum, 64>(p, true, After::BiasAndResidual) == added);
    }
}

TEST_CASE("cuda gemm: many tiles, of which matmul chooses the large ones") {
  if (sanitized()) {
    MESSAGE(
        "left out under sanitizers, where it takes long: the large tiles are tested by themselves");
    return;
  }
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

TEST_CASE_TEMPLATE("cuda gemm: few rows, of which chunks of k go side by side", D, Cuda, CudaBf16) {
  for (Index m = 1; m <= 17; ++m)
    for (const Index k : {0, 1, 31, 32, 100, 256, 260, 511, 1024, 2100, 2304}) {
      const Problem p{{m, m % 3 == 0 ? 37 : 8, k}, Form::NT};
      CAPTURE_SIZE(p.size);
      for (const bool accumulate : {false, true})
        CHECK(p.on(D{}, accumulate, After::Activation) ==
              p.on_cpu<Twin<D>>(accumulate, After::Activation));
    }
}

TEST_CASE_TEMPLATE("cuda gemm: 17 to 128 rows, of which chunks of k go to blocks of their own", D,
                   Cuda, CudaBf16) {
  for (const Size size : {Size{17, 96, 512}, Size{17, 37, 513}, Size{65, 130, 1000},
                          Size{128, 33, 257}, Size{101, 70, 770}, Size{64, 64, 3072}}) {
    if (sanitized() && size.k > 2000) continue;
    REQUIRE(kernels::gpu::split_of(size.m, size.n, size.k).at_once > 1);
    for (const Form form : kForms) {
      const Problem p{size, form};
      CAPTURE_SIZE(size);
      CAPTURE(static_cast<int>(form));
      for (const bool accumulate : {false, true})
        for (const After after : kAfter)
          CHECK(p.on(D{}, accumulate, after) == p.on_cpu<Twin<D>>(accumulate, after));
      const Offsets odd{1, 1, 1, 1, 1, 1};
      CHECK(p.on(D{}, true, After::Activation, Activation::Gelu, odd) ==
            p.on_cpu<Twin<D>>(true, After::Activation));
    }
    const Problem p{size, Form::NT};
    CHECK(packed_on<bf16>(D{}, p, After::Activation) ==
          packed_on_cpu<bf16, Twin<D>>(p, After::Activation));
  }
}

TEST_CASE("cuda gemm: chunks of k a few at a time: the totals so far wait in C") {
  for (const Index at_once : {1, 2, 3, 4})
    for (const After after : kAfter) {
      const Problem p{{19, 70, 900}, Form::NT};
      const auto [m, n, k] = p.size;
      CAPTURE(at_once);
      for (const bool accumulate : {false, true})
        CHECK(p.on_device(after, Activation::Gelu, {},
                          [&, m = m, n = n, k = k](float* c, const float* a, const float* b,
                                                   const Epilogue& e) {
                            kernels::gpu::launch_split<kernels::gpu::FloatSum, Form::NT>(
                                Cuda{},
                                kernels::gpu::product(c, a, b, m, n, k, Form::NT, accumulate, e),
                                {4, at_once});
                          }) == p.on_cpu(accumulate, after));
    }
}

TEST_CASE("cuda gemm: with B packed before, the bits of the CPU; as bf16, those of B rounded") {
  for (const Size size : kSmall) {
    const Problem p{size, Form::NT};
    CAPTURE_SIZE(size);
    for (const After after : kAfter) {
      CHECK(packed_on<float>(Cuda{}, p, after) == packed_on_cpu<float>(p, after));
      CHECK(packed_on<bf16>(Cuda{}, p, after) == packed_on_cpu<bf16>(p, after));
      CHECK(packed_on<bf16>(CudaBf16{}, p, after) == packed_on_cpu<bf16, CpuBf16>(p, after));
    }
  }
  for (const Index m : {1, 7, 16, 17}) {
    const Problem p{{m, 40, 800}, Form::NT};
    const auto expected = packed_on_cpu<bf16>(p, After::Activation);
    CHECK(packed_on<bf16>(Cuda{}, p, After::Activation) == expected);
    CHECK(packed_on<bf16>(Cuda{}, p, After::Activation, 1) == expected);
    const auto rounded = packed_on_cpu<bf16, CpuBf16>(p, After::Activation);
    CHECK(packed_on<bf16>(CudaBf16{}, p, After::Activation) == rounded);
    CHECK(packed_on<bf16>(CudaBf16{}, p, After::Activation, 1) == rounded);
  }
}

TEST_CASE("cuda gemm in bf16: numbers of any size have the CPU's bits, subnormal sums too") {
  Rng rng(3);
  const auto fill = [&](std::vector<float>& x, std::uint32_t first, std::uint32_t count) {
    for (float& value : x) {
      const std::uint32_t fraction = rng.below(1U << 23), sign = rng.below(2);
      value = std::bit_cast<float>(fraction | sign << 31 | (first + rng.below(count)) << 23);
    }
  };
  for (const std::uint32_t first : {0U, 30U, 100U})
    for (const Index m : {5, 20}) {
      Problem p{{m, 12, 41}, Form::NT};
      fill(p.a, first, 3);
      fill(p.b, 70 - first / 2, 50);
      CHECK(same_bits(p.on(CudaBf16{}, false, After::Nothing).c,
                      p.on_cpu<CpuBf16>(false, After::Nothing).c));
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

// Tensor cores. Rounding to nearest changes an operand by 2^-8 of itself at most (bf16: 8 bits) or
// 2^-11 (tf32: 11 bits), so a product by twice that and a little: 2^-7 or 2^-10 of each element's
// sum of |a·b|.

namespace {

template <class Device>
constexpr double kRounding = 0;
template <>
constexpr double kRounding<CudaTensorCore> = 0x1.01p-7;
template <>
constexpr double kRounding<CudaTf32> = 0x1.01p-10;

float rounded(CudaTensorCore, float x) { return static_cast<float>(bf16(x)); }
float rounded(CudaTf32, float x) {  // ties away from zero
  return std::bit_cast<float>((std::bit_cast<std::uint32_t>(x) + 0x1000U) & 0xffffe000U);
}

template <class Device>
void check_near_oracle(const Problem& p, Offsets offsets = {}) {
  CAPTURE_SIZE(p.size);
  CAPTURE(static_cast<int>(p.form));
  const auto c = p.on(Device{}, false, After::Nothing, {}, offsets).c;
  CHECK(worst_error(p, c, false, false, kRounding<Device>) < 1);
  const auto added = p.on(Device{}, true, After::BiasAndResidual, {}, offsets).c;
  CHECK(worst_error(p, added, true, true, kRounding<Device>) < 1);
}

/// Operands that are exact in the mode, so that only sums round: in float, in the hardware's own
/// way within an instruction.
template <class Device>
void check_sums(Problem p) {
  CAPTURE_SIZE(p.size);
  CAPTURE(static_cast<int>(p.form));
  for (auto* operand : {&p.a, &p.b})
    for (float& x : *operand) x = rounded(Device{}, x);
  const auto c = p.on(Device{}, false, After::Nothing).c;
  CHECK(worst_error(p, c, false, false, 1e-5) < 1);
}

template <class E, Form form, int kTile>
std::vector<float> by_tensor_tiles(const Problem& p) {
  const auto [m, n, k] = p.size;
  return p
      .on_device(After::Nothing, {}, {},
                 [&, m = m, n = n, k = k](float* c, const float* a, const float* b, Epilogue e) {
                   kernels::gpu::launch_tensor_tile<E, form, kTile>(
                       Cuda{}, kernels::gpu::product(c, a, b, m, n, k, form, false, e));
                 })
      .c;
}

}  // namespace

TEST_CASE_TEMPLATE("cuda gemm: tensor cores, every form at odd sizes is near the oracle", Device,
                   CudaTensorCore, CudaTf32) {
  for (const Size size : kSmall)
    for (const Form form : kForms) {
      const Problem p{size, form};
      check_near_oracle<Device>(p);
      check_sums<Device>(p);
    }
}

TEST_CASE_TEMPLATE("cuda gemm: tensor cores, operands at any alignment", Device, CudaTensorCore,
                   CudaTf32) {
  for (const Size size : {Size{12, 32, 64}, Size{24, 96, 264}})
    for (const Form form : kForms)
      for (const Offsets offsets : {Offsets{.a = 1}, Offsets{.b = 1}, Offsets{1, 1, 1, 1, 1, 1}})
        check_near_oracle<Device>(Problem{size, form}, offsets);
}

TEST_CASE_TEMPLATE("cuda gemm: tensor cores, large tiles have the bits of small ones", Device,
                   CudaTensorCore, CudaTf32) {
  using E = std::conditional_t<std::is_same_v<Device, CudaTf32>, kernels::gpu::Tf32Operand,
                               kernels::gpu::Bf16Operand>;
  for (const Size size : {Size{97, 31, 127}, Size{193, 140, 70}, Size{260, 70, 300}}) {
    const Problem nn{size, Form::NN}, nt{size, Form::NT}, tn{size, Form::TN};
    CHECK(same_bits(by_tensor_tiles<E, Form::NN, 64>(nn), by_tensor_tiles<E, Form::NN, 128>(nn)));
    CHECK(same_bits(by_tensor_tiles<E, Form::NT, 64>(nt), by_tensor_tiles<E, Form::NT, 128>(nt)));
    CHECK(same_bits(by_tensor_tiles<E, Form::TN, 64>(tn), by_tensor_tiles<E, Form::TN, 128>(tn)));
  }
  if (!sanitized())
    for (const Form form : kForms) check_near_oracle<Device>(Problem{{1030, 1100, 10}, form});
}

TEST_CASE_TEMPLATE("cuda gemm: tensor cores, a row's bits do not depend on the other rows", Device,
                   CudaTensorCore, CudaTf32) {
  for (const Index k : {Index{64}, Index{300}, Index{297}}) {
    const Problem all{{200, 70, k}, Form::NT};
    const auto c = all.on(Device{}, false, After::Nothing).c;
    for (const Index rows : {Index{1}, Index{7}, Index{16}, Index{17}, Index{97}}) {
      Problem some = all;
      some.size.m = rows;
      some.a.erase(some.a.begin(), some.a.end() - rows * k);
      some.c.resize(at(rows * 70));
      CAPTURE(rows);
      CHECK(same_bits(some.on(Device{}, false, After::Nothing).c,
                      std::span(c).subspan(at((200 - rows) * 70))));
    }
  }
}

TEST_CASE_TEMPLATE("cuda gemm: tensor cores, with B packed before, the bits of the form NT", Device,
                   CudaTensorCore, CudaTf32) {
  for (const Size size : {Size{1, 65, 255}, Size{5, 31, 257}, Size{16, 40, 800}, Size{17, 40, 800},
                          Size{97, 31, 127}, Size{193, 140, 72}, Size{1030, 1100, 16}}) {
    if (sanitized() && size.m > 1000) continue;
    CAPTURE_SIZE(size);
    const Problem p{size, Form::NT};
    const auto expected = p.on(Device{}, false, After::BiasAndResidual);
    CHECK(packed_on<float>(Device{}, p, After::BiasAndResidual) == expected);
    Problem q = p;
    for (float& b : q.b) b = static_cast<float>(bf16(b));
    const auto of_rounded = q.on(Device{}, false, After::BiasAndResidual);
    CHECK(packed_on<bf16>(Device{}, p, After::BiasAndResidual) == of_rounded);
    CHECK(packed_on<bf16>(Device{}, p, After::BiasAndResidual, 1) == of_rounded);
    if (std::is_same_v<Device, CudaTensorCore>) CHECK(of_rounded == expected);
  }
}

TEST_CASE_TEMPLATE("cuda gemm: tensor cores, an activation has the bits of one taken afterwards",
                   Device, CudaTensorCore, CudaTf32) {
  for (const Size size : {Size{5, 12, 40}, Size{20, 23, 40}, Size{70, 24, 40}}) {
    const Problem p{size, Form::NT};
    for (const Activation f : {Activation::Gelu, Activation::Relu}) {
      const auto beside = p.on(Device{}, false, After::Activation, f);
      std::vector<float> expected(beside.c.size());
      kernels::activation_forward(Cpu{}, expected.data(), beside.c.data(), f, size.m * size.n);
      CHECK(same_bits(beside.activated, expected));
    }
  }
}
