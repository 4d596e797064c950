// Arithmetic, reductions, arrangement, products and recomputation as ops: in float and in double
// against one another and against central differences; what they refuse; operators, detach, print.
#include <plumb/plumb.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "gradients.hpp"

using namespace plumb;
using test::check_op;
using test::contains;
using test::ids;
using test::message_of;

TEST_CASE("arithmetic of two, with what stands beside a matrix on either side") {
  const Shape matrix{5, 7};
  for (const auto& [a, b] : {std::pair<Shape, Shape>{matrix, matrix},
                             {matrix, {7}},
                             {matrix, {1, 7}},
                             {matrix, {5, 1}},
                             {{7}, matrix},
                             {{5, 1}, matrix},
                             {{4}, {4}},
                             {{2, 3, 4}, {2, 3, 4}}}) {
    check_op("add", [](const auto& i) { return add(i[0], i[1]); }, {a, b});
    check_op("sub", [](const auto& i) { return sub(i[0], i[1]); }, {a, b});
    check_op("mul", [](const auto& i) { return mul(i[0], i[1]); }, {a, b});
    check_op(
        "div", [](const auto& i) { return div(i[0], i[1]); }, {a, b}, true);
    check_op("minimum", [](const auto& i) { return minimum(i[0], i[1]); }, {a, b});
    check_op("maximum", [](const auto& i) { return maximum(i[0], i[1]); }, {a, b});
  }
  check_op("a square", [](const auto& i) { return mul(i[0], i[0]); }, {matrix});
  check_op(
      "operators",
      [](const auto& i) { return -(i[0] + i[1]) * i[0] / i[1] - 2 * (i[0] - 0.5F) * 3 + 1; },
      {matrix, matrix}, true);
}

TEST_CASE("functions of one") {
  const Shape shape{3, 11};
  check_op("exp", [](const auto& i) { return exp(i[0]); }, {shape});
  check_op(
      "log", [](const auto& i) { return log(i[0]); }, {shape}, true);
  check_op(
      "sqrt", [](const auto& i) { return sqrt(i[0]); }, {shape}, true);
  check_op("erf", [](const auto& i) { return erf(i[0]); }, {shape});
  check_op("sigmoid", [](const auto& i) { return sigmoid(i[0]); }, {shape});
  check_op("softplus", [](const auto& i) { return softplus(i[0]); }, {shape});
  check_op("silu", [](const auto& i) { return silu(i[0]); }, {shape});
  check_op("relu", [](const auto& i) { return relu(i[0]); }, {shape});
  check_op("gelu", [](const auto& i) { return gelu(i[0]); }, {shape});
  check_op("gelu_erf", [](const auto& i) { return gelu_erf(i[0]); }, {shape});
  check_op("tanh", [](const auto& i) { return plumb::tanh(i[0]); }, {shape});
  check_op("swiglu", [](const auto& i) { return swiglu(i[0], i[1]); }, {shape, shape});
  check_op("neg", [](const auto& i) { return neg(i[0]); }, {shape});
  check_op("clamp", [](const auto& i) { return clamp(i[0], -0.4F, 0.9F); }, {shape});
}

TEST_CASE("reductions") {
  for (const Shape& shape : {Shape{1, 1}, {4, 9}, {70, 3}}) {
    check_op("sum", [](const auto& i) { return sum(i[0]); }, {shape});
    check_op("mean", [](const auto& i) { return mean(i[0]); }, {shape});
    check_op("max", [](const auto& i) { return max(i[0]); }, {shape});
    for (const int axis : {0, 1}) {
      check_op("sum over an axis", [=](const auto& i) { return sum(i[0], axis); }, {shape});
      check_op("mean over an axis", [=](const auto& i) { return mean(i[0], axis); }, {shape});
      check_op("max over an axis", [=](const auto& i) { return max(i[0], axis); }, {shape});
    }
    check_op("softmax", [](const auto& i) { return softmax(i[0]); }, {shape});
    check_op("log_softmax", [](const auto& i) { return log_softmax(i[0]); }, {shape});
  }
  const auto chosen = ids({2, 0, 1, 1});
  check_op("pick", [&](const auto& i) { return pick(i[0], chosen); }, {{4, 3}});
  const auto offsets = ids({0, 2, 3, 7});
  for (const Shape& shape : {Shape{7}, {7, 3}}) {
    check_op("segment_sum", [&](const auto& i) { return segment_sum(i[0], offsets); }, {shape});
    check_op("segment_mean", [&](const auto& i) { return segment_mean(i[0], offsets); }, {shape});
    check_op("segment_logsumexp", [&](const auto& i) { return segment_logsumexp(i[0], offsets); },
             {shape});
  }
}

TEST_CASE("the sum of more than one row of 4096, and of nothing") {
  Rng rng(4);
  for (const Index n : {0, 4095, 4096, 4097, 20001}) {
    const auto x = Tensor<Cpu>::randn({n}, rng);
    double exact = 0;
    for (const float value : x.to_vector()) exact += double{value};
    x.set_requires_grad(true);
    Tape tape;
    const auto y = sum(x);
    CHECK(std::abs(double{y.item()} - exact) < 1e-4);
    tape.backward(y);
    CHECK(x.grad_tensor().to_vector() == std::vector<float>(static_cast<std::size_t>(n), 1.0F));
  }
}

TEST_CASE("arrangement") {
  const Shape matrix{5, 4};
  check_op("transpose", [](const auto& i) { return transpose(i[0]); }, {matrix});
  check_op("transpose of a batch", [](const auto& i) { return transpose(i[0]); }, {{2, 3, 4}});
  check_op("columns", [](const auto& i) { return columns(i[0], 1, 3); }, {matrix});
  check_op("rows", [](const auto& i) { return scale(i[0].rows(1, 4), 1.0F); }, {matrix});
  check_op("concat below",
           [](const auto& i) {
             return concat({i[0], i[1], i[0]}, 0);
           },
           {matrix, {2, 4}});
  check_op("concat beside",
           [](const auto& i) {
             return concat({i[0], i[1]}, 1);
           },
           {matrix, {5, 1}});
  for (const int axis : {0, 1})
    check_op("split and concat in another order",
             [=](const auto& i) {
               const std::vector<Index> extents{2, i[0].dim(axis) - 2};
               const auto parts = split(i[0], extents, axis);
               return concat({parts[1], parts[0]}, axis);
             },
             {matrix});
  const auto places = ids({3, 0, 3, 1, 6});
  check_op("scatter_rows", [&](const auto& i) { return scatter_rows(i[0], places, 7); }, {matrix});
  check_op("embedding", [&](const auto& i) { return embedding(i[0], places); }, {{7, 3}});
}

TEST_CASE("products in all four forms, of matrices and of batches") {
  for (const bool a : {false, true})
    for (const bool b : {false, true}) {
      const Transposed how{a, b};
      const auto op = [how](const auto& i) { return matmul(i[0], i[1], how); };
      check_op("matmul", op, {a ? Shape{4, 3} : Shape{3, 4}, b ? Shape{5, 4} : Shape{4, 5}});
      check_op("matmul of a batch", op,
               {a ? Shape{2, 4, 3} : Shape{2, 3, 4}, b ? Shape{2, 5, 4} : Shape{2, 4, 5}});
    }
  check_op("linear", [](const auto& i) { return linear(i[0], i[1], i[2], i[3]); },
           {{3, 4}, {5, 4}, {5}, {3, 5}});
}

TEST_CASE("a checkpoint changes neither the result nor a gradient, to the bit, and holds less") {
  const auto run = [](bool kept, std::size_t* held) {
    Rng rng(1);
    const auto x = Tensor<Cpu>::randn({64, 32}, rng), w = Tensor<Cpu>::randn({32, 32}, rng, 0.2F);
    for (const auto& t : {x, w}) t.set_requires_grad(true);
    Tape tape;
    auto y = x;
    const std::size_t before = memory_counters().used_bytes;
    for (int layer = 0; layer < 4; ++layer) {
      const auto f = [w](const Tensor<Cpu>& in) {
        return in + plumb::tanh(linear(gelu(linear(in, w)), w));
      };
      y = kept ? f(y) : checkpoint(f, y);
    }
    *held = memory_counters().used_bytes - before;
    tape.backward(sum(y * y));
    auto all = y.to_vector();
    for (const auto& t : {x, w}) {
      const auto gradient = t.grad_tensor().to_vector();
      all.insert(all.end(), gradient.begin(), gradient.end());
    }
    return all;
  };
  std::size_t kept = 0, recomputed = 0;
  const auto expected = run(true, &kept);
  CHECK(test::same_bits(run(false, &recomputed), expected));
  CHECK(2 * recomputed < kept);
}

TEST_CASE("log_softmax and pick have the bits of the fused log-probability") {
  Rng rng(2);
  const auto logits = Tensor<Cpu>::randn({9, 101}, rng, 3.0F);
  const auto targets = ids({0, 100, 5, 5, 33, 32, 31, 64, 7});
  std::vector<float> fused(9), lse(9);
  logprob_rows(Cpu{}, fused.data(), nullptr, lse.data(), logits.data(), targets.data(), 9, 101,
               1.0F);
  CHECK(test::same_bits(pick(log_softmax(logits), targets).to_vector(), fused));
}

TEST_CASE("where two are equal, each has half of the gradient") {
  const auto a = Tensor<Cpu>::from({1, 2, 3}, {3}), b = Tensor<Cpu>::from({1, 3, 2}, {3});
  for (const auto& t : {a, b}) t.set_requires_grad(true);
  Tape tape;
  tape.backward(sum(maximum(a, b)));
  CHECK(a.grad_tensor().to_vector() == std::vector{0.5F, 0.0F, 1.0F});
  CHECK(b.grad_tensor().to_vector() == std::vector{0.5F, 1.0F, 0.0F});
}

TEST_CASE("what is NaN stays so in minimum and maximum, on either side") {
  const float nan = NAN, infinity = INFINITY;
  const auto a = Tensor<Cpu>::from({nan, 1, nan, infinity, -infinity, infinity}, {6});
  const auto b = Tensor<Cpu>::from({1, nan, nan, infinity, infinity, 2}, {6});
  const auto low = minimum(a, b).to_vector(), high = maximum(a, b).to_vector();
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(std::isnan(low[i]));
    CHECK(std::isnan(high[i]));
  }
  CHECK(std::vector(low.begin() + 3, low.end()) == std::vector{infinity, -infinity, 2.0F});
  CHECK(std::vector(high.begin() + 3, high.end()) == std::vector{infinity, infinity, infinity});
}

TEST_CASE("shapes that were not meant are refused, with what may stand there") {
  const auto m = Tensor<Cpu>::zeros({3, 4}), square = Tensor<Cpu>::zeros({3, 3});
  const auto refused = [](auto f, const char* part) {
    const std::string text = message_of(f);
    CAPTURE(text);
    CHECK(contains(text, part));
  };
  refused([&] { return m + Tensor<Cpu>::zeros({3}); }, "(N, C) may stand (C), (1, C) or (N, 1)");
  refused([&] { return Tensor<Cpu>::zeros({3, 1}) * Tensor<Cpu>::zeros({1, 4}); }, "[mul]");
  refused([&] { return m / Tensor<Cpu>::zeros({}); }, "[div]");
  refused([&] { return Tensor<Cpu>::zeros({2, 3, 4}) - Tensor<Cpu>::zeros({4}); }, "[sub]");
  refused([&] { return sum(m, 2); }, "[sum] expected a matrix and axis 0");
  refused([&] { return softmax(Tensor<Cpu>::zeros({3})); }, "[softmax]");
  refused([&] { return argmax(Tensor<Cpu>::zeros({3, 0}), 1); }, "has no columns");
  refused([&] { return pick(m, ids({1, 2})); }, "[pick] expected a matrix (N, C) and ids (N)");
  refused([&] { return columns(m, 2, 5); }, "[columns] [2, 5)");
  refused([&] { return concat({m, square}, 0); }, "[concat] (3, 3) does not fit (3, 4) on axis 0");
  refused([&] { return split(m, std::vector<Index>{1, 1}, 1); }, "[split] extents of 2");
  refused([&] { return scatter_rows(m, ids({1}), 3); }, "[scatter_rows]");
  refused([&] { return transpose(Tensor<Cpu>::zeros({3})); }, "[transpose]");
  refused([&] { return matmul(m, m); }, "[matmul] (3, 4) and (3, 4) do not multiply");
  refused([&] { return matmul(m, m, {.a = true, .b = true}); }, "do not multiply");
  refused([&] { return clamp(m, 1.0F, 0.0F); }, "enclose nothing");
  refused([&] { return segment_mean(m, ids({0, 0, 3})); }, "[segment_mean] group 0 has no rows");
  refused(
      [&] {
        return segment_sum(m, Tensor<Cpu, std::int32_t>::zeros({2, 2}));
      },
      "offsets (G + 1)");
}

TEST_CASE("in double, erf and tanh are the system's to a few of the last places") {
  for (double x = -7; x < 7; x += 0.0371) {
    const auto at = Tensor<Cpu, double>::from({x}, {1});
    CHECK(erf(at).item() == doctest::Approx(std::erf(x)).epsilon(4e-15));
    CHECK(plumb::tanh(at).item() == doctest::Approx(std::tanh(x)).epsilon(1e-15));
  }
  CHECK(erf(Tensor<Cpu, double>::zeros({1})).item() == 0);
}

TEST_CASE("detach: the same memory, no gradient; ids are arranged as numbers are") {
  const auto x = Tensor<Cpu>::from({1, 2, 3, 4}, {2, 2});
  x.set_requires_grad(true);
  const auto d = x.detach();
  CHECK(d.data() == x.data());
  CHECK(!d.requires_grad());
  {
    Tape tape;
    tape.backward(sum(x * d));
  }
  CHECK(x.grad_tensor().to_vector() == x.to_vector());
  auto row = Tensor<Cpu>::ones({2}).detach().rows(1, 2);  // outlives what it came from
  CHECK(row.item() == 1.0F);
  const auto i = Tensor<Cpu, std::int32_t>::arange(6).reshape({2, 3});
  CHECK(transpose(i).to_vector() == std::vector<std::int32_t>{0, 3, 1, 4, 2, 5});
  CHECK(columns(i, 1, 3).to_vector() == std::vector<std::int32_t>{1, 2, 4, 5});
  CHECK(concat({i, i}, 1).dim(1) == 6);
  CHECK(embedding(i, ids({1})).to_vector() == std::vector<std::int32_t>{3, 4, 5});
  CHECK(argmax(i, 0).to_vector() == std::vector<std::int32_t>{1, 1, 1});
  CHECK(argmax(x).item() == 3);
}

TEST_CASE("a tensor as text: its shape, its rows, the middle left out") {
  CHECK(str(Tensor<Cpu>::full({2, 2}, 0.5F)) ==
        "(2, 2)\n         0.5        0.5\n         0.5        0.5");
  CHECK(str(Tensor<Cpu>{}) == "no tensor");
  const std::string text = str(Tensor<Cpu>::arange(400).reshape({20, 20}));
  CHECK(contains(text, "…"));
  CHECK(contains(text, "399"));
  CHECK(!contains(text, " 190 "));
  Rng rng(1);
  const auto values = Tensor<Cpu, double>::randn({1000}, rng, 2.0).to_vector();
  double squares = 0;
  for (const double v : values) squares += v * v;
  CHECK(squares / 1000 == doctest::Approx(4).epsilon(0.2));
}
