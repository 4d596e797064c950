#include <doctest/doctest.h>
#include <plumb/cpu/kernels.hpp>
#include <plumb/cpu/reference_gemm.hpp>

#include <bit>
#include <limits>

#include "cases/gemm.hpp"
#include "support.hpp"

using namespace plumb;
using namespace test;
using namespace cases::gemm;

namespace {

/// Under a sanitizer those of which a run takes no second.
std::vector<Size> small_sizes() {
  std::vector<Size> sizes(std::begin(kSmall), std::end(kSmall));
  if (sanitized()) std::erase_if(sizes, [](const Size& s) { return s.m * s.n * s.k > 500000; });
  return sizes;
}

struct Problem {
  Size size;
  Form form;
  std::vector<float> a = random_vector(size.m * size.k, 1);
  std::vector<float> b = random_vector(size.k * size.n, 2);
  std::vector<float> c = random_vector(size.m * size.n, 3);
  std::vector<float> bias = random_vector(size.n, 4);
  std::vector<float> residual = random_vector(size.m * size.n, 5);

  template <class D>
  std::vector<float> run(D device, bool accumulate, bool epilogue) const {
    std::vector<float> out = c;
    kernels::matmul(device, out.data(), a.data(), b.data(), size.m, size.n, size.k, form,
                    accumulate, epilogue ? Epilogue{bias.data(), residual.data()} : Epilogue{});
    return out;
  }

  float a_at(Index i, Index p) const {
    return a[at(form == Form::TN ? p * size.m + i : i * size.k + p)];
  }
  float b_at(Index p, Index j) const {
    return b[at(form == Form::NT ? j * size.k + p : p * size.n + j)];
  }
  float float_chunk(Index i, Index j, Index k0, Index k_end) const {
    float sum = 0.0F;
    for (Index p = k0; p < k_end; ++p) sum = std::fma(a_at(i, p), b_at(p, j), sum);
    return sum;
  }
  float bf16_chunk(Index i, Index j, Index k0, Index k_end) const {
    float sum = 0.0F;
    for (Index p = k0; p < k_end; p += 2)
      for (const Index q : {p + 1, p}) {
        const bool there = q < k_end;
        sum = fma_flushed(there ? static_cast<float>(product_bf16(a_at(i, q))) : 0.0F,
                          there ? static_cast<float>(product_bf16(b_at(q, j))) : 0.0F, sum);
      }
    return sum;
  }

  /// The documented order of operations, literally.
  template <class D = Cpu>
  std::vector<float> in_order(bool accumulate, bool epilogue) const {
    std::vector<float> out = c;
    for (Index i = 0; i < size.m; ++i)
      for (Index j = 0; j < size.n; ++j) {
        float sum = accumulate ? c[at(i * size.n + j)] : 0.0F;
        for (Index k0 = 0; k0 < size.k; k0 += 256) {
          const Index k_end = std::min(size.k, k0 + 256);
          const float chunk =
              rounds_products<D> ? bf16_chunk(i, j, k0, k_end) : float_chunk(i, j, k0, k_end);
          sum = k0 == 0 && !accumulate ? chunk : sum + chunk;
        }
        if (epilogue) sum = (sum + bias[at(j)]) + residual[at(i * size.n + j)];
        out[at(i * size.n + j)] = sum;
      }
    return out;
  }

  static std::size_t at(Index i) { return static_cast<std::size_t>(i); }
};

}  // namespace

TEST_CASE("gemm: every form at odd sizes is near the oracle") {
  for (const Size size : small_sizes())
    for (const Form form : kForms) {
      const Problem p{size, form};
      const auto exact = reference::matmul(p.a.data(), p.b.data(), size.m, size.n, size.k, form);
      const auto scale =
          reference::matmul_scale(p.a.data(), p.b.data(), size.m, size.n, size.k, form);
      const auto c = p.run(Cpu{}, false, false);
      double worst = 0;
      for (std::size_t i = 0; i < c.size(); ++i)
        if (const double error = std::abs(static_cast<double>(c[i]) - exact[i]) / scale[i];
            !(error <= worst))
          worst = error;
      CAPTURE(size.m);
      CAPTURE(size.n);
      CAPTURE(size.k);
      CHECK(worst < kTolerance);
    }
}

TEST_CASE_TEMPLATE(
    "gemm: bits are those of the documented order, for every instruction set and thread count", D,
    Cpu, CpuBf16) {
  Pool pools[] = {Pool(3), Pool(2), Pool(1)};
  for (const Size size : small_sizes())
    for (const Form form : kForms)
      for (const bool accumulate : {false, true})
        for (const bool epilogue : {false, true}) {
          const Problem p{size, form};
          const auto expected = p.in_order<D>(accumulate, epilogue);
          CAPTURE(size.m);
          CAPTURE(size.n);
          CAPTURE(size.k);
          CAPTURE(static_cast<int>(form));
          for_each_isa<D>([&](Isa isa) {
            CAPTURE(name(isa));
            for (Pool& pool : std::span(pools).first(sanitized() ? 1 : 3))
              CHECK(same_bits(p.run(D{Cpu{&pool}}, accumulate, epilogue), expected));
          });
        }
}

TEST_CASE("gemm: a row's bits do not depend on the other rows") {
  const Problem all{{200, 70, 300}, Form::NT};
  const auto c = all.run(Cpu{}, false, false);
  for (const Index rows : {Index{1}, Index{7}, Index{13}, Index{97}}) {
    std::vector<float> some(static_cast<std::size_t>(rows * 70));
    const Index first = 200 - rows;
    kernels::matmul(Cpu{}, some.data(), all.a.data() + first * 300, all.b.data(), rows, 70, 300,
                    Form::NT);
    CHECK(same_bits(some, std::span(c).subspan(static_cast<std::size_t>(first * 70))));
  }
}

TEST_CASE_TEMPLATE("gemm: a product over k = 0 is the epilogue alone", D, Cpu, CpuBf16) {
  for_each_isa<D>([](Isa) {
    const Problem p{{3, 37, 0}, Form::NN};
    const auto plain = p.run(D{}, false, false);
    CHECK(same_bits(plain, std::vector<float>(plain.size(), 0.0F)));
    CHECK(same_bits(p.run(D{}, true, false), p.c));
    CHECK(same_bits(p.run(D{}, false, true), p.in_order(false, true)));
  });
}

TEST_CASE_TEMPLATE("gemm: nothing is written beyond C and infinities stay in their row and column",
                   D, Cpu, CpuBf16) {
  for_each_isa<D>([](Isa) {
    const Index m = 14;
    const Index n = 35;
    Problem p{{m, n, 40}, Form::NN};
    p.a[3 * 40 + 5] = INFINITY;
    std::vector<float> c(static_cast<std::size_t>(m * n + 64), 7.0F);
    kernels::matmul(D{}, c.data(), p.a.data(), p.b.data(), m, n, 40, Form::NN);
    for (Index i = 0; i < m * n; ++i)
      CHECK(std::isfinite(c[static_cast<std::size_t>(i)]) == (i / n != 3));
    for (std::size_t i = static_cast<std::size_t>(m * n); i < c.size(); ++i) CHECK(c[i] == 7.0F);
  });
}

TEST_CASE_TEMPLATE("gemm: a B larger than what is packed at once, in k and in columns", D, Cpu,
                   CpuBf16) {
  Pool pool(2);
  for (const Form form : kForms) {
    const Problem p{{sanitized() ? 13 : 97, 260, 4100}, form};
    const auto expected = p.in_order<D>(true, true);
    CAPTURE(static_cast<int>(form));
    for_each_isa<D>([&](Isa) { CHECK(same_bits(p.run(D{Cpu{&pool}}, true, true), expected)); });
  }
}

namespace {

/// The product with B packed as T before.
template <class T, class D>
std::vector<float> run_packed(const Problem& p, D device, bool epilogue) {
  const auto [m, n, k] = p.size;
  std::vector<T> packed(Problem::at(kernels::packed_size(device, n, k)));
  kernels::pack_matrix(device, packed.data(), p.b.data(), n, k);
  std::vector<float> c = p.c;
  kernels::matmul_packed(device, c.data(), p.a.data(), packed.data(), m, n, k,
                         epilogue ? Epilogue{p.bias.data(), p.residual.data()} : Epilogue{});
  return c;
}

}  // namespace

TEST_CASE("gemm: with B packed before, the bits of the form NT; as bf16, those of B rounded") {
  Pool pools[] = {Pool(1), Pool(2)};
  for (const Size size : small_sizes()) {
    const Problem p{size, Form::NT};
    Problem rounded = p;
    for (float& b : rounded.b) b = static_cast<float>(bf16(b));
    CAPTURE(size.m);
    CAPTURE(size.n);
    CAPTURE(size.k);
    for (const bool epilogue : {false, true}) {
      const auto expected = p.in_order(false, epilogue);
      const auto expected_of_rounded = rounded.in_order(false, epilogue);
      for_each_isa([&](Isa) {
        for (Pool& pool : pools) {
          CHECK(same_bits(run_packed<float>(p, Cpu{&pool}, epilogue), expected));
          CHECK(same_bits(run_packed<bf16>(p, Cpu{&pool}, epilogue), expected_of_rounded));
        }
      });
      const auto expected_in_bf16 = p.in_order<CpuBf16>(false, epilogue);
      for_each_isa<CpuBf16>([&](Isa) {
        for (Pool& pool : pools)
          CHECK(same_bits(run_packed<bf16>(p, CpuBf16{Cpu{&pool}}, epilogue), expected_in_bf16));
      });
    }
  }
}

TEST_CASE("gemm: unpacked, a packed matrix is what it was, as bf16 rounded") {
  Pool pool(2);
  for (const Size size : small_sizes()) {
    const auto [m, n, k] = size;
    const auto b = random_vector(n * k, 5);
    std::vector<float> rounded = b;
    for (float& x : rounded) x = static_cast<float>(bf16(x));
    const auto round_trip = [&, n = n, k = k]<class T>(const T&) {
      std::vector<T> packed(Problem::at(kernels::packed_size(Cpu{}, n, k)));
      kernels::pack_matrix(Cpu{&pool}, packed.data(), b.data(), n, k);
      std::vector<float> back(b.size());
      kernels::unpack_matrix(Cpu{&pool}, back.data(), packed.data(), n, k);
      return back;
    };
    for_each_isa([&](Isa) {
      CHECK(same_bits(round_trip(0.0F), b));
      CHECK(same_bits(round_trip(bf16()), rounded));
    });
  }
}

TEST_CASE("eight bits a weight: within half a step of its block's largest, and blocks of zeros") {
  Pool pool(2);
  for (const Index k : {1, 31, 32, 33, 64, 100}) {
    const Index n = 7, blocks = int8_blocks(k);
    auto w = random_vector(n * k, 9);
    for (Index i = 0; i < std::min<Index>(k, 32); ++i) w[Problem::at(3 * k + i)] = 0;
    std::vector<std::int8_t> codes(w.size());
    std::vector<float> scales(Problem::at(n * blocks)), back(w.size());
    kernels::quantize_rows(Cpu{&pool}, codes.data(), scales.data(), w.data(), n, k);
    kernels::expand_rows(Cpu{&pool}, back.data(), codes.data(), scales.data(), n, k);
    for (Index row = 0; row < n; ++row)
      for (Index b = 0; b < blocks; ++b) {
        const Index first = row * k + 32 * b, last = std::min(first + 32, (row + 1) * k);
        double most = 0, worst = 0;
        for (Index i = first; i < last; ++i) {
          const double exact = w[Problem::at(i)];
          most = std::max(most, std::abs(exact));
          worst = std::max(worst, std::abs(exact - double{back[Problem::at(i)]}));
        }
        CHECK(worst <= most / 127 * 0.500001);
        CHECK(scales[Problem::at(row * blocks + b)] == static_cast<float>(most) / 127.0F);
      }
  }
}

TEST_CASE(
    "gemm: an activation has the bits of one taken afterwards, beside the product or in place") {
  for (const Size size : small_sizes())
    for (const Form form : kForms) {
      const Problem p{size, form};
      CAPTURE(size.m);
      CAPTURE(size.n);
      CAPTURE(size.k);
      for (const Activation f : {Activation::Gelu, Activation::Silu})
        for_each_isa([&](Isa) {
          const auto product = p.in_order(false, true);
          std::vector<float> expected(product.size()), c = p.c, activated = p.c;
          kernels::activation_forward(Cpu{}, expected.data(), product.data(), f, size.m * size.n);
          Epilogue epilogue{p.bias.data(), p.residual.data(), activated.data(), f};
          kernels::matmul(Cpu{}, c.data(), p.a.data(), p.b.data(), size.m, size.n, size.k, form,
                          false, epilogue);
          CHECK(same_bits(c, product));
          CHECK(same_bits(activated, expected));
          epilogue.activated = c.data();
          kernels::matmul(Cpu{}, c.data(), p.a.data(), p.b.data(), size.m, size.n, size.k, form,
                          false, epilogue);
          CHECK(same_bits(c, expected));
        });
    }
}

TEST_CASE(
    "gemm: rounding to bf16 is to nearest even, keeps infinities and NaN, and no subnormals") {
  Problem p{{1, 9, 1}, Form::NT};
  p.a = {1.0F};
  p.b = {1.0F + 0x1p-8F,
         1.0F + 0x3p-8F,  // halfway: to the even neighbour, down and up
         0x1.ffp127F,
         std::numeric_limits<float>::max(),
         -INFINITY,
         std::bit_cast<float>(0x7fffffffU),
         std::bit_cast<float>(0xff800001U),
         0x1p-133F,
         -0.0F};
  const auto check_all = [](const std::vector<float>& c) {
    CHECK(c[0] == 1.0F);
    CHECK(c[1] == 1.0F + 0x1p-6F);
    CHECK(c[2] == INFINITY);
    CHECK(c[3] == INFINITY);
    CHECK(c[4] == -INFINITY);
    CHECK(std::isnan(c[5]));
    CHECK(std::isnan(c[6]));
    CHECK(c[7] == 0.0F);
    CHECK(c[8] == 0.0F);
  };
  for_each_isa<CpuBf16>([&](Isa) {
    check_all(run_packed<bf16>(p, Cpu{}, false));
    check_all(run_packed<bf16>(p, CpuBf16{}, false));
  });
}

TEST_CASE("gemm in bf16: near the oracle's product of the rounded operands") {
  for (const Size size : small_sizes())
    for (const Form form : kForms) {
      Problem p{size, form};
      for (auto* x : {&p.a, &p.b})
        for (float& value : *x) value = static_cast<float>(bf16(value));
      const auto exact = reference::matmul(p.a.data(), p.b.data(), size.m, size.n, size.k, form);
      const auto scale =
          reference::matmul_scale(p.a.data(), p.b.data(), size.m, size.n, size.k, form);
      const auto c = p.run(CpuBf16{}, false, false);
      double worst = 0;
      for (std::size_t i = 0; i < c.size(); ++i)
        if (const double error = std::abs(static_cast<double>(c[i]) - exact[i]) / scale[i];
            !(error <= worst))
          worst = error;
      CHECK(worst < kTolerance);
    }
}

TEST_CASE("gemm in bf16: numbers of any size have the bits of the chain, subnormal sums too") {
  Rng rng(3);
  // Exponents from `first`, `count` of them: whole products, products about the least normal, and
  // operands about it.
  const auto fill = [&](std::vector<float>& x, std::uint32_t first, std::uint32_t count) {
    for (float& value : x)
      value = std::bit_cast<float>((rng.below(1U << 31) & 0x007fffffU) | rng.below(2) << 31 |
                                   (first + rng.below(count)) << 23);
  };
  struct Exponents {
    std::uint32_t a, a_count, b, b_count;
  };
  for (const Exponents e : {Exponents{1, 253, 1, 253}, Exponents{40, 30, 20, 60},
                            Exponents{0, 3, 110, 40}, Exponents{0, 2, 0, 2}}) {
    Problem p{{14, 37, 90}, Form::NN};
    fill(p.a, e.a, e.a_count);
    fill(p.b, e.b, e.b_count);
    const auto expected = p.in_order<CpuBf16>(false, false);
    for_each_isa<CpuBf16>([&](Isa isa) {
      CAPTURE(name(isa));
      const auto c = p.run(CpuBf16{}, false, false);
      for (std::size_t i = 0; i < c.size(); ++i)
        CHECK((std::bit_cast<std::uint32_t>(c[i]) == std::bit_cast<std::uint32_t>(expected[i]) ||
               (std::isnan(c[i]) && std::isnan(expected[i]))));
    });
  }
}

TEST_CASE("bf16: a sum that rounds up to the least normal float from below is zero") {
  // 2^-126 - 2^-150 lies halfway between the largest subnormal and the least normal.
  CHECK(std::fma(-0x1p-75F, 0x1p-75F, 0x1p-126F) == 0x1p-126F);
  CHECK(fma_flushed(-0x1p-75F, 0x1p-75F, 0x1p-126F) == 0.0F);
  CHECK(fma_flushed(0x1p-63F, 0x1p-63F, 0.0F) == 0x1p-126F);
  CHECK(std::signbit(fma_flushed(-0x1p-100F, 0x1p-100F, 0.0F)));
  Problem p{{1, 1, 3}, Form::NN};
  p.a = {1.0F, -0x1p-75F, 0.0F};
  p.b = {0x1p-126F, 0x1p-75F, 0.0F};
  const auto expected = p.in_order<CpuBf16>(false, false);
  for_each_isa<CpuBf16>([&](Isa) { CHECK(same_bits(p.run(CpuBf16{}, false, false), expected)); });
}
