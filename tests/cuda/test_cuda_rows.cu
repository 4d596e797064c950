// Element-by-element kernels, rows, norms and the optimizer on the device: the CPU's bits.
#include <plumb/cuda/elementwise.cuh>
#include <plumb/cuda/norm.cuh>
#include <plumb/cuda/optimizer.cuh>
#include <plumb/cuda/reduce.cuh>
#include <plumb/cuda/rows.cuh>

#include "cases/elementwise.hpp"
#include "cases/norm.hpp"
#include "cases/optimizer.hpp"
#include "cases/reduce.hpp"
#include "cases/rows.hpp"
#include "cuda/support.cuh"

using namespace plumb;
using test::check_same_bits;
using test::random_ids;
using test::random_vector;

namespace {

/// Numbers of every size, with the special ones.
std::vector<float> wide_vector(Index n, std::uint64_t seed) {
  auto x = random_vector(n, seed, 4.0F);
  const float special[] = {0.0F,  -0.0F,  1e-40F,   -1e-40F,   88.8F,     -104.5F,
                           1e30F, -1e30F, INFINITY, -INFINITY, 0x1p-126F, 1.0F};
  for (std::size_t i = 0; i < std::min(x.size() / 2, std::size(special)); ++i)
    x[2 * i] = special[i];
  return x;
}

}  // namespace

TEST_CASE("element-by-element kernels have the CPU's bits") {
  for (const Index n : cases::elementwise::kSmall) {
    INFO("n = ", n);
    const auto a = wide_vector(n, 1), b = random_vector(n, 2), start = random_vector(n, 3);
    check_same_bits(Cuda{}, [&](auto device, auto& at) {
      const float *x = at.in(a), *y = at.in(b), *factor = at.in(std::vector<float>{-0.75F});
      accumulate(device, at.out(start), y, 0.3F, n);
      accumulate_by(device, at.out(start), y, factor, n);
      shift_forward(device, at.out(n), x, 0.7F, n);
      clamp_forward(device, at.out(n), x, -1.0F, 2.0F, n);
      clamp_backward(device, at.out(start), y, x, -1.0F, 2.0F, n);
      scale_forward(device, at.out(n), x, -1.7F, n);
      for (const Function f : {Function::Exp, Function::Erf, Function::Sigmoid, Function::Softplus})
        function_forward(device, at.out(n), x, f, n);
      swiglu_forward(device, at.out(n), y, x, n);
      swiglu_backward(device, at.out(start), at.out(start), y, y, y, n);
    });
    auto positive = a;
    for (float& value : positive) value = std::abs(value);
    check_same_bits(Cuda{}, [&](auto device, auto& at) {
      const float *x = at.in(positive), *some = at.in(start), *dy = at.in(b);
      for (const Function f : {Function::Log, Function::Sqrt})
        function_forward(device, at.out(n), x, f, n);
      for (const Function f : {Function::Exp, Function::Erf, Function::Sigmoid, Function::Softplus})
        function_backward(device, at.out(start), dy, some, f, n);
    });
    for (float& value : positive) value = std::isfinite(value) ? value + 0.1F : 1.0F;
    check_same_bits(Cuda{}, [&](auto device, auto& at) {
      const float *x = at.in(positive), *dy = at.in(b);
      for (const Function f : {Function::Log, Function::Sqrt})
        function_backward(device, at.out(start), dy, x, f, n);
      at.out(1);
    });
    for (const auto f : {Activation::Gelu, Activation::Silu, Activation::Tanh, Activation::Relu,
                         Activation::GeluErf})
      check_same_bits(Cuda{}, [&](auto device, auto& at) {
        const float *x = at.in(b), *dy = at.in(start);
        activation_forward(device, at.out(n), x, f, n);
        activation_backward(device, at.out(start), dy, x, f, n);
      });
  }
}

TEST_CASE("element-by-element kernels: any alignment, any length, and in place") {
  for (const Index n : {1, 3, 4, 5, 1023, 1024, 1025, 2050})
    for (const Index shift : {0, 1}) {
      INFO("n = ", n, ", floats after a 16-byte boundary: ", shift);
      const Index size = n + shift + 3;  // what lies beyond stays as it is
      const auto a = random_vector(size, 1), b = random_vector(size, 2), c = random_vector(size, 3);
      auto squares = c;
      for (float& value : squares) value = value * value;
      const Index whole = n;
      const auto stepped = AdamWStep{1e-3F, 0.9F, 0.999F, 1e-8F, 0.1F, 0.5F, 3, true};
      check_same_bits(Cuda{}, [&](auto device, auto& at) {
        const auto in = [&](const auto& values) { return at.in(values) + shift; };
        const auto out = [&](const auto& values) { return at.out(values) + shift; };
        accumulate(device, out(a), in(b), 0.3F, n);
        accumulate_by(device, out(a), in(b), at.in(std::vector<float>{-0.75F}), n);
        float* scaled = out(a);
        scale_forward(device, scaled, scaled, -1.7F, n);
        float* shifted = out(a);
        shift_forward(device, shifted, shifted, 0.4F, n);
        clamp_forward(device, out(a), in(b), -0.5F, 0.5F, n);
        clamp_backward(device, out(a), in(b), in(c), -0.5F, 0.5F, n);
        float* applied = out(a);
        function_forward(device, applied, applied, Function::Sigmoid, n);
        function_backward(device, out(a), in(b), in(c), Function::Exp, n);
        activation_forward(device, out(a), in(b), Activation::Gelu, n);
        activation_backward(device, out(a), in(b), in(c), Activation::Gelu, n);
        swiglu_forward(device, out(a), in(b), in(c), n);
        swiglu_backward(device, out(a), out(b), in(c), in(a), in(b), n);
        float* sum = out(a);
        combine_forward(device, sum, {sum, whole, 1}, {in(b), whole, 1}, Arithmetic::Add, 1, n);
        combine_backward(device, out(a), in(b), {in(c), whole, 1}, {in(a), whole, 1},
                         Arithmetic::Multiply, true, 1, n);
        adamw_update(device, out(a), in(b), out(c), out(squares), n, stepped);
        sgd_update(device, out(a), in(b), out(c), n, SgdStep{1e-2F, 0.9F, 0.1F, 0.5F, true});
        lion_update(device, out(a), in(b), out(c), n, LionStep{1e-3F, 0.1F, 0.01F, 0.999F, 0.5F});
      });
    }
}

TEST_CASE("arithmetic with what stands beside a matrix has the CPU's bits") {
  for (const auto& [rows, columns] : cases::reduce::kSmall) {
    const Index n = rows, c = columns;
    INFO("n = ", n, ", c = ", c);
    const auto matrix = random_vector(n * c, 1), other = random_vector(n * c, 2),
               row = random_vector(c, 3), column = random_vector(n, 4);
    check_same_bits(Cuda{}, [&](auto device, auto& at) {
      const float *x = at.in(matrix), *dy = at.in(matrix);
      const Operand<float> a{x, c, 1};
      for (const auto& b : {Operand<float>{at.in(other), c, 1}, Operand<float>{at.in(row), 0, 1},
                            Operand<float>{at.in(column), 1, 0}}) {
        for (const Arithmetic f :
             {Arithmetic::Add, Arithmetic::Subtract, Arithmetic::Multiply, Arithmetic::Divide,
              Arithmetic::Minimum, Arithmetic::Maximum}) {
          combine_forward(device, at.out(n * c), a, b, f, n, c);
          combine_forward(device, at.out(n * c), b, a, f, n, c);
          for (const bool by_a : {true, false})
            combine_backward(device, at.out(n * c, 0.5F), dy, a, b, f, by_a, n, c);
        }
        assign(device, at.out(n * (c + 2)), c + 2, b, 0.3F, false, n, c);
        assign(device, at.out(n * (c + 2), 0.7F), c + 2, b, 0.3F, true, n, c);
      }
    });
  }
}

TEST_CASE("reductions, softmax and groups have the CPU's bits") {
  for (const auto& [rows, columns] : cases::reduce::kSmall) {
    const Index n = rows, c = columns;
    INFO("n = ", n, ", c = ", c);
    auto x = random_vector(n * c, 1, 3.0F);
    if (n * c > 3) x[static_cast<std::size_t>(n * c / 2)] = x[0];  // equal ones
    const auto ids = random_ids(n, c, 3);
    const auto offsets = cases::reduce::groups(n);
    const auto groups = static_cast<Index>(offsets.size()) - 1;
    const auto dy = random_vector((n + groups) * c, 2);
    check_same_bits(Cuda{}, [&](auto device, auto& at) {
      const float *xs = at.in(x), *g = at.in(dy);
      const std::int32_t *chosen = at.in(ids), *begins = at.in(offsets);
      row_sums(device, at.out(n), xs, n, c, false);
      row_sums(device, at.out(n, 0.5F), xs, n, c, true);
      for (const bool log : {false, true}) {
        float* y = at.out(n * c);
        softmax_rows(device, y, xs, n, c, log);
        softmax_rows_backward(device, at.out(n * c, 0.25F), g, y, n, c, log);
      }
      pick_forward(device, at.out(n), xs, chosen, n, c);
      pick_backward(device, at.out(n * c, 0.25F), g, chosen, n, c);
      transpose(device, at.out(n * c), xs, 1, n, c);
      if (n % 2 == 0) transpose(device, at.out(n * c), xs, 2, n / 2, c);
      group_sums(device, at.out(groups * c), xs, begins, groups, c);
      float* lse = at.out(groups * c);
      group_logsumexp(device, lse, xs, begins, groups, c);
      if (n * c > 0) {
        group_sums_backward(device, at.out(n * c, 0.25F), g, begins, groups, c);
        group_logsumexp_backward(device, at.out(n * c, 0.25F), g, xs, lse, begins, groups, c);
      }
    });
    for (const float odd : {1.0F, std::numeric_limits<float>::quiet_NaN()}) {
      if (c == 0) continue;
      if (n * c > 7) x[static_cast<std::size_t>(n * c - 3)] = odd;
      const auto here = Tensor<Cpu>::from(x, {n, c});
      const auto there = to<Cuda>(here);
      const auto expected = Tensor<Cpu, std::int32_t>::empty({n});
      const auto got = Tensor<Cuda, std::int32_t>::empty({n});
      argmax_rows(Cpu{}, expected.data(), here.data(), n, c);
      argmax_rows(Cuda{}, got.data(), there.data(), n, c);
      CHECK(got.to_vector() == expected.to_vector());
    }
  }
}

TEST_CASE("the arg-max of a long row is the first of the largest, or the first NaN") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const Index c : {1023, 1024, 1025, 5000}) {
    auto x = random_vector(7 * c, 1, 3.0F);
    const auto at = [c](Index row, Index i) { return static_cast<std::size_t>(row * c + i); };
    x[at(1, 700)] = x[at(1, 69)] = x[at(1, c - 1)] = 90.0F;
    x[at(2, 900)] = nan, x[at(2, 31)] = -nan, x[at(2, 5)] = INFINITY;
    for (Index i = 0; i < c; ++i) x[at(3, i)] = -INFINITY;
    for (Index i = 0; i < c; ++i) x[at(4, i)] = i == 3 ? -1.0F : i % 2 == 0 ? -0.0F : 0.0F;
    x[at(5, c - 1)] = 90.0F;
    x[at(6, c - 1)] = nan;
    const auto here = Tensor<Cpu>::from(x, {7, c});
    const auto there = to<Cuda>(here);
    const auto expected = Tensor<Cpu, std::int32_t>::empty({7});
    const auto got = Tensor<Cuda, std::int32_t>::empty({7});
    argmax_rows(Cpu{}, expected.data(), here.data(), 7, c);
    argmax_rows(Cuda{}, got.data(), there.data(), 7, c);
    INFO("c = ", c);
    CHECK(got.to_vector() == expected.to_vector());
  }
}

TEST_CASE("norms have the CPU's bits") {
  for (const auto& [rows, channels] : cases::norm::kSmall) {
    const Index n = rows, c = channels;
    INFO("n = ", n, ", c = ", c);
    auto x = random_vector(n * c, 1);
    for (float& value : x) value += 0.5F;
    const auto dy = random_vector(n * c, 2), weight = random_vector(c, 3),
               bias = random_vector(c, 4);
    check_same_bits(Cuda{}, [&](auto device, auto& at) {
      const float *xs = at.in(x), *w = at.in(weight), *g = at.in(dy);
      float *rstd = at.out(n), *mean = at.out(n);
      rms_norm_forward(device, at.out(n * c), rstd, xs, w, n, c, 1e-5F);
      rms_norm_backward(device, at.out(n * c, 0.25F), at.out(c, 0.25F), g, xs, w, rstd, n, c);
      layer_norm_forward(device, at.out(n * c), mean, rstd, xs, w, at.in(bias), n, c, 1e-5F);
      layer_norm_backward(device, at.out(n * c, 0.25F), at.out(c, 0.25F), at.out(c, 0.25F), g, xs,
                          w, mean, rstd, n, c);
      rms_norm_backward(device, nullptr, at.out(c), g, xs, w, rstd, n, c);
      layer_norm_backward(device, at.out(n * c), nullptr, nullptr, g, xs, w, mean, rstd, n, c);
    });
  }
}

TEST_CASE("gathering, scattering and sums over tokens have the CPU's bits") {
  for (const Index n : cases::rows::kSmallRows)
    for (const Index c : {Index{1}, Index{7}, Index{33}, Index{130}})
      for (const Index v : cases::rows::kSmallTables) {
        if (n * c > 70000) continue;
        INFO("n = ", n, ", c = ", c, ", v = ", v);
        const auto table = random_vector(v * c, 1), dy = random_vector(n * c, 2);
        const auto ids = random_ids(n, v, 3);
        check_same_bits(Cuda{}, [&](auto device, auto& at) {
          const std::int32_t* rows = at.in(ids);
          embedding_forward(device, at.out(n * c), at.in(table), rows, n, c);
          embedding_backward(device, at.out(table), at.in(dy), rows, n, c, v);
          sum_rows(device, at.out(c, 0.5F), at.in(dy), n, c);
        });
      }
}

TEST_CASE("embedding_backward sorts more tokens than a tile holds") {
  const Index n = 2500, c = 3, v = 700;
  const auto table = random_vector(v * c, 1), dy = random_vector(n * c, 2);
  const auto ids = random_ids(n, v, 3);
  check_same_bits(Cuda{}, [&](auto device, auto& at) {
    embedding_backward(device, at.out(table), at.in(dy), at.in(ids), n, c, v);
  });
}

TEST_CASE("rotary positions have the CPU's bits") {
  for (const Index n : {0, 1, 5, 70})
    for (const Index heads : cases::rows::kSmallHeads)
      for (const Index size : cases::rows::kSmallHeadSizes) {
        INFO("n = ", n, ", heads = ", heads, ", head size = ", size);
        const auto x = random_vector(n * heads * size, 1);
        const auto cosine = random_vector(90 * size / 2, 2), sine = random_vector(90 * size / 2, 3);
        const auto positions = random_ids(n, 90, 4);
        check_same_bits(Cuda{}, [&](auto device, auto& at) {
          const float *xs = at.in(x), *cs = at.in(cosine), *sn = at.in(sine);
          const std::int32_t* p = at.in(positions);
          rope_forward(device, at.out(n * heads * size), xs, cs, sn, p, n, heads, size);
          rope_backward(device, at.out(n * heads * size, 0.5F), xs, cs, sn, p, n, heads, size);
        });
      }
}

TEST_CASE("AdamW and the sum of squares have the CPU's bits") {
  for (const auto& [size] : cases::optimizer::kSmall) {
    const Index n = size;
    INFO("n = ", n);
    const auto p = random_vector(n, 1), g = random_vector(n, 2), m = random_vector(n, 3, 0.1F);
    auto v = random_vector(n, 4, 0.1F);
    for (float& value : v) value *= value;
    for (const bool eps_inside : {false, true})
      check_same_bits(Cuda{}, [&](auto device, auto& at) {
        adamw_update(device, at.out(p), at.in(g), at.out(m), at.out(v), n,
                     AdamWStep{1e-2F, 0.9F, 0.99F, 1e-8F, 0.1F, 0.7F, 3, eps_inside});
        const double sum = sum_of_squares(device, at.in(g), n);
        const auto words = std::bit_cast<std::array<float, 2>>(sum);
        at.out(std::vector<float>(words.begin(), words.end()));
      });
  }
}

TEST_CASE("the sum of squares adds its blocks in order") {
  // 2^60 first: what a 1 adds to it is lost, where ones from the last on would add up.
  std::vector<float> x(20 * 4096);
  x[0] = 0x1p30F;
  for (std::size_t block = 1; block < 20; ++block) x[block * 4096] = 8.0F;
  check_same_bits(Cuda{}, [&](auto device, auto& at) {
    const double sum = sum_of_squares(device, at.in(x), static_cast<Index>(x.size()));
    CHECK(sum == 0x1p60);
    const auto words = std::bit_cast<std::array<float, 2>>(sum);
    at.out(std::vector<float>(words.begin(), words.end()));
  });
}

TEST_CASE("gradient descent and Lion have the CPU's bits") {
  for (const auto& c : cases::optimizer::kSmall) {
    const Index n = c.n;
    INFO("n = ", n);
    const auto start = random_vector(n, 1), grad = random_vector(n, 2);
    check_same_bits(Cuda{}, [&](auto device, auto& at) {
      const float* g = at.in(grad);
      for (const bool nesterov : {false, true})
        sgd_update(device, at.out(start), g, at.out(n, 0.1F), n,
                   SgdStep{0.1F, 0.9F, 0.01F, 0.5F, nesterov});
      lion_update(device, at.out(start), g, at.out(n, 0.1F), n,
                  LionStep{0.01F, 0.1F, 0.01F, -0.001F, 0.5F});
    });
  }
}
