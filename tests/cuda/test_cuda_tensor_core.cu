// The bits of tensor cores, by the published model of their rounding (emulator/tensor_core.hpp):
// the rule against the model's own results, the mma instruction against both, and the library's
// products against their twin on the CPU. In the emulator, mma is that rule, for sm_80 and sm_90;
// on a GPU (ctest -L gpu) these tests ask the hardware whether the model is right.
#include <doctest/doctest.h>
#include <ladder/gemm_10_tensor_core.cuh>
#include <ladder/gemm_11_pipelined_tensor_core.cuh>
#include <plumb/cuda/gemm_tensor_core.cuh>
#include <plumb/io/file.hpp>

#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "tensor_core.hpp"

using namespace plumb;
using namespace test;
using namespace cases::gemm;
using emulator::tensor_core_rule;
using kernels::Cuda;

namespace {

std::uint32_t bits(float x) { return std::bit_cast<std::uint32_t>(x); }

/// Dot products of one instruction's k: n × k operands of a and b, and n of each of the others.
struct Vectors {
  std::vector<float> a, b, c, on_80, on_90;
  const std::vector<float>& expected(int architecture) const {
    return architecture < 90 ? on_80 : on_90;
  }
};

/// Those of golden/tensor_core.
template <class Device>
Vectors golden_vectors() {
  constexpr std::size_t kRecord = 76, kCount = 8000;
  const std::string file = read_file(PLUMB_SOURCE_DIR "/tests/golden/tensor_core/mma_vectors.bin");
  REQUIRE(file.size() == 2 * kCount * kRecord);
  const char* next = file.data() + (std::is_same_v<Device, CudaTf32> ? kCount * kRecord : 0);
  const auto word = [&](std::size_t bytes) {
    std::uint32_t x = 0;
    std::memcpy(&x, next, bytes);
    next += bytes;
    return std::bit_cast<float>(x << 8 * (4 - bytes));
  };
  Vectors v;
  for (std::size_t i = 0; i < kCount; ++i) {
    for (auto* operand : {&v.a, &v.b})
      for (int j = 0; j < kStep<Device>; ++j) operand->push_back(word(32 / kStep<Device>));
    for (auto* value : {&v.c, &v.on_80, &v.on_90}) value->push_back(word(4));
  }
  return v;
}

constexpr float kInfinity = std::numeric_limits<float>::infinity(),
                kMost = 0x1.FEp127F;  // of bf16

/// What decides between rules of rounding, with the results that the model's source gives.
struct Corner {
  std::vector<float> a, b;  ///< the first ones, zeros following
  float a_half, b_half;     ///< the first ones of the second half of k
  float c;
  std::uint32_t on_80, on_90;
};
const Corner kCorners[] = {
    {{0}, {0}, 0, 0, -0.0F, 0, 0},                              // a sum of zero is +0,
    {{1, -1}, {1, 1}, 0, 0, -0.0F, 0, 0},                       // a cancelled one too,
    {{-0x1p-75F}, {0x1p-76F}, 0, 0, 0, 0, 0},                   // and one that underflows
    {{0x1p-75F}, {0x1p-74F}, 0, 0, 0, 1, 1},                    // the least subnormal
    {{0}, {0}, 0, 0, 0x1p-149F, 1, 1},                          // is kept
    {{0x1p-133F}, {0x1p10F}, 0, 0, 0, 0x02000000, 0x02000000},  // of subnormal operands too
    {{0}, {kMost}, 0, 0, 0x1p-100F, 0x0D800000, 0x0D800000},    // 0 · large aligns nothing
    // Four terms of 2^-25 beside 1, 2^-23 together: each is lost in 24 bits.
    {{0x1p-25F, 0x1p-25F, 0x1p-25F, 0x1p-25F}, {1, 1, 1, 1}, 0, 0, 1, 0x3F800000, 0x3F800001},
    {{-0x1p-25F, -0x1p-25F}, {1, 1}, 0, 0, 1, 0x3F800000, 0x3F7FFFFF},  // toward zero each
    {{-0x1p-24F}, {1}, 0, 0, 1, 0x3F7FFFFF, 0x3F7FFFFF},
    // Half an ulp of each half of k: rounded between the halves, or added first.
    {{0x1p-24F}, {1}, 0x1p-24F, 1, 1, 0x3F800000, 0x3F800001},
    // A product of 1.5 · 1.5 is aligned by the exponent 0, not 1.
    {{1.5F, -1.5F, 0x1p-24F}, {1.5F, 1.5F, 1}, 0, 0, 0, 0x33800000, 0x33800000},
    {{1.5F, -1.5F, 0x1p-25F}, {1.5F, 1.5F, 1}, 0, 0, 0, 0, 0x33000000},
    {{kMost}, {2}, 0, 0, 0, 0x7F800000, 0x7F800000},  // too large: infinite, never the most
    {{-kMost}, {kMost}, 0, 0, 0, 0xFF800000, 0xFF800000},
    {{kMost, -kMost}, {2, 2}, 0, 0, 3, 0, 0},  // 2^128 and its negative, exactly
    {{kInfinity}, {1}, 0, 0, 0, 0x7F800000, 0x7F800000},
    {{1}, {-kInfinity}, 0, 0, 1, 0xFF800000, 0xFF800000},
    {{0}, {0}, 0, 0, -kInfinity, 0xFF800000, 0xFF800000},
    {{kInfinity}, {0}, 0, 0, 0, 0x7FFFFFFF, 0x7FFFFFFF},
    {{kInfinity}, {1}, 0, 0, -kInfinity, 0x7FFFFFFF, 0x7FFFFFFF},
    {{kInfinity}, {1}, -kInfinity, 1, 0, 0x7FFFFFFF, 0x7FFFFFFF},
    {{std::numeric_limits<float>::quiet_NaN()}, {1}, 0, 0, 0, 0x7FFFFFFF, 0x7FFFFFFF},
};

template <class Device>
Vectors corner_vectors() {
  constexpr std::size_t k = kStep<Device>;
  Vectors v;
  for (const Corner& corner : kCorners) {
    for (const bool of_a : {true, false}) {
      std::vector<float> x = of_a ? corner.a : corner.b;
      x.resize(k);
      x[k / 2] = of_a ? corner.a_half : corner.b_half;
      auto& all = of_a ? v.a : v.b;
      all.insert(all.end(), x.begin(), x.end());
    }
    v.c.push_back(corner.c);
    v.on_80.push_back(std::bit_cast<float>(corner.on_80));
    v.on_90.push_back(std::bit_cast<float>(corner.on_90));
  }
  return v;
}

template <class Device>
std::vector<float> by_rule(const Vectors& v, TensorCoreRule rule) {
  const auto n = static_cast<Index>(v.c.size());
  const auto a = tensor_operands<Device>(v.a, n, kStep<Device>, false),
             b = tensor_operands<Device>(v.b, n, kStep<Device>, false);
  std::vector<float> d;
  for (std::size_t i = 0; i < v.c.size(); ++i)
    d.push_back(tensor_core_dot(a[i], b[i], v.c[i], rule));
  return d;
}

/// Eight dot products a warp, as the diagonals of a 16 × 8 product whose rows 8 to 15 are rows 0 to
/// 7 again: d (n, 2).
template <class E>
__global__ void __launch_bounds__(32)
    diagonal_kernel(float* d, const float* a, const float* b, const float* c) {
  const int first = static_cast<int>(blockIdx.x) * 8, lane = static_cast<int>(threadIdx.x);
  const int row = lane / 4, column = lane % 4 * 2;
  std::uint32_t x[4], y[2];
  E::load(x[0], x[2], a + (first + row) * E::kStep);
  E::load(x[1], x[3], a + (first + row) * E::kStep);
  E::load(y[0], y[1], b + (first + row) * E::kStep);
  float sum[4];
  for (int i = 0; i < 4; ++i) sum[i] = c[first + column + i % 2];
  E::multiply(sum, x, y);
  for (int i = 0; i < 4; ++i)
    if (column + i % 2 == row) d[(first + row) * 2 + i / 2] = sum[i];
}

/// What the instruction makes of them; checks that both rows agree.
template <class Device>
std::vector<float> by_instruction(Vectors v) {
  const std::size_t n = v.c.size(), whole = (n + 7) / 8 * 8;
  v.a.resize(whole * kStep<Device>);
  v.b.resize(whole * kStep<Device>);
  v.c.resize(whole);
  const OnDevice<> a(v.a, 0), b(v.b, 0), c(v.c, 0), d(std::vector<float>(2 * whole), 0);
  PLUMB_LAUNCH((diagonal_kernel<OperandOf<Device>>), static_cast<unsigned>(whole / 8), 32, 0,
               Cuda{}.stream, d.data(), a.data(), b.data(), c.data());
  const auto twice = d.on_host();
  std::vector<float> results;
  std::size_t differ = 0;
  for (std::size_t i = 0; i < n; ++i) {
    results.push_back(twice[2 * i]);
    differ += bits(twice[2 * i]) != bits(twice[2 * i + 1]) ? 1U : 0U;
  }
  CHECK(differ == 0);
  return results;
}

/// How many differ; the first is named.
std::size_t count_differences(const std::vector<float>& got, const std::vector<float>& expected) {
  REQUIRE(got.size() == expected.size());
  std::size_t differ = 0;
  for (std::size_t i = 0; i < got.size(); ++i)
    if (bits(got[i]) != bits(expected[i]) && differ++ == 0)
      MESSAGE("vector ", i, ": ", got[i], " (bits ", bits(got[i]), "), by the model ", expected[i],
              " (bits ", bits(expected[i]), ")");
  return differ;
}

template <class Device, Form form, int kTile>
Results by_tensor_tiles(const Problem& p, bool accumulate, After after) {
  const auto [m, n, k] = p.size;
  return p.on_device(
      after, Activation::Gelu, {},
      [&, m = m, n = n, k = k](float* c, const float* a, const float* b, Epilogue e) {
        kernels::gpu::launch_tensor_tile<OperandOf<Device>, form, kTile>(
            Cuda{}, kernels::gpu::product(c, a, b, m, n, k, form, accumulate, e));
      });
}
template <class Device, int kTile>
Results by_tensor_tiles(const Problem& p, bool accumulate, After after) {
  switch (p.form) {
    case Form::NN: return by_tensor_tiles<Device, Form::NN, kTile>(p, accumulate, after);
    case Form::NT: return by_tensor_tiles<Device, Form::NT, kTile>(p, accumulate, after);
    case Form::TN: return by_tensor_tiles<Device, Form::TN, kTile>(p, accumulate, after);
  }
  return {};
}

}  // namespace

TEST_CASE_TEMPLATE("tensor cores: the rule has the bits of the published model's results", Device,
                   CudaTensorCore, CudaTf32) {
  const Vectors v = golden_vectors<Device>(), corners = corner_vectors<Device>();
  for (const int architecture : {80, 90}) {
    CAPTURE(architecture);
    const TensorCoreRule rule = tensor_core_rule(architecture);
    CHECK(count_differences(by_rule<Device>(v, rule), v.expected(architecture)) == 0);
    CHECK(count_differences(by_rule<Device>(corners, rule), corners.expected(architecture)) == 0);
  }
  // So that neither rule passes for the other.
  CHECK(!same_bits(v.on_80, v.on_90));
  for (const TensorCoreRule other : {TensorCoreRule{24, false}, TensorCoreRule{25, true}}) {
    const auto d = by_rule<Device>(v, other);
    CHECK(!same_bits(d, v.on_80));
    CHECK(!same_bits(d, v.on_90));
  }
}

TEST_CASE_TEMPLATE("tensor cores: an mma instruction has the bits of the published model", Device,
                   CudaTensorCore, CudaTf32) {
  const Vectors v = golden_vectors<Device>(), corners = corner_vectors<Device>();
  for_each_architecture([&](int architecture) {
    CHECK(count_differences(by_instruction<Device>(v), v.expected(architecture)) == 0);
    CHECK(count_differences(by_instruction<Device>(corners), corners.expected(architecture)) == 0);
  });
}

TEST_CASE_TEMPLATE("tensor cores: products have the bits of their twin on the CPU", Device,
                   CudaTensorCore, CudaTf32) {
  for_each_architecture([&](int architecture) {
    const TensorCoreRule rule = tensor_core_rule(architecture);
    std::size_t turn = 0;  // each form meets each epilogue, with and without C's old value
    for (const Size size : kSmall)
      for (const Form form : kForms) {
        const Problem p{size, form};
        const After after = kAfter[turn % 4];
        const bool accumulate = turn++ / 4 % 2 != 0;
        CAPTURE_SIZE(size);
        CAPTURE(static_cast<int>(form));
        CAPTURE(static_cast<int>(after));
        CHECK(p.on(Device{}, accumulate, after) == on_twin<Device>(p, rule, accumulate, after));
      }
  });
}

TEST_CASE_TEMPLATE("tensor cores: both shapes of tiles have the bits of the twin", Device,
                   CudaTensorCore, CudaTf32) {
  for_each_architecture([&](int architecture) {
    for (const Size size : {Size{1, 3, 7}, Size{97, 31, 127}, Size{140, 193, 70}})
      for (const Form form : kForms) {
        const Problem p{size, form};
        CAPTURE_SIZE(size);
        const auto twin =
            on_twin<Device>(p, tensor_core_rule(architecture), true, After::BiasAndResidual);
        CHECK(by_tensor_tiles<Device, 64>(p, true, After::BiasAndResidual) == twin);
        CHECK(by_tensor_tiles<Device, 128>(p, true, After::BiasAndResidual) == twin);
      }
  });
}

TEST_CASE_TEMPLATE("tensor cores: few rows, and B packed before, have the bits of the twin", Device,
                   CudaTensorCore, CudaTf32) {
  for_each_architecture([&](int architecture) {
    const TensorCoreRule rule = tensor_core_rule(architecture);
    for (const Index m : {1, 2, 7, 15, 16, 17, 40})
      for (const Index k : {0, 1, 15, 64, 100, 257, 520}) {
        const Problem p{{m, 37, k}, Form::NT};
        CAPTURE_SIZE(p.size);
        CHECK(p.on(Device{}, true, After::Activation) ==
              on_twin<Device>(p, rule, true, After::Activation));
        const auto packed =
            on_twin<Device>(p, rule, false, After::BiasAndResidual, Activation::Silu);
        CHECK(packed_on<float>(Device{}, p, After::BiasAndResidual) == packed);
        Problem q = p;
        for (float& b : q.b) b = static_cast<float>(bf16(b));
        CHECK(packed_on<bf16>(Device{}, p, After::BiasAndResidual) ==
              on_twin<Device>(q, rule, false, After::BiasAndResidual, Activation::Silu));
      }
  });
}

TEST_CASE_TEMPLATE("tensor cores: the twin's operands of any size, and sums that cancel", Device,
                   CudaTensorCore, CudaTf32) {
  Rng rng(5);
  for_each_architecture([&](int architecture) {
    for (const std::uint32_t spread : {8U, 40U, 120U}) {
      Problem p{{21, 19, 75}, Form::NT};
      for (auto* operand : {&p.a, &p.b})
        for (float& x : *operand)
          x = std::bit_cast<float>(rng.below(1U << 23) | rng.below(2) << 31 |
                                   (127 - spread / 2 + rng.below(spread)) << 23);
      for (std::size_t i = 0; i + 1 < p.a.size(); i += 2) p.a[i + 1] = -p.a[i];
      for (std::size_t i = 0; i + 1 < p.b.size(); i += 2) p.b[i + 1] = p.b[i] * 1.01F;
      CHECK(p.on(Device{}, false, After::Nothing) ==
            on_twin<Device>(p, tensor_core_rule(architecture), false, After::Nothing));
    }
  });
}

TEST_CASE("tensor cores: the ladder's products have the bits of the twin") {
  for_each_architecture([&](int architecture) {
    for (const Size size :
         {Size{1, 1, 1}, Size{33, 65, 17}, Size{130, 264, 104}, Size{40, 24, 0}}) {
      const Problem p{size, Form::NN};
      CAPTURE_SIZE(size);
      const kernels::DeviceScratch<bf16> a(Cuda{}, size.m * size.k), b(Cuda{}, size.k * size.n);
      const auto copy = [](bf16* to, const std::vector<float>& x) {
        const std::vector<bf16> y(x.begin(), x.end());
        kernels::copy_from_host(Cuda{}, to, y.data(), y.size() * sizeof(bf16));
      };
      copy(a.data(), p.a);
      copy(b.data(), p.b);
      const auto twin = twin_sums<CudaTensorCore>(p, tensor_core_rule(architecture));
      for (const auto matmul : {ladder::gemm_10::matmul, ladder::gemm_11::matmul}) {
        const OnDevice<> c(p.c, 0);
        matmul(Cuda{}, c.data(), a.data(), b.data(), size.m, size.n, size.k);
        CHECK(same_bits(c.on_host(), twin));
      }
    }
  });
}
