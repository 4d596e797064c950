// Every rung of cuda/ladder against sums in double, at sizes that are no multiples of any tile, at
// pointers that are no multiples of 16 bytes, and with memory behind each output that must stay as
// it was. Bounds are worst cases of float's rounding u = 2⁻²⁴, not what was seen.
#include <ladder/rungs.cuh>

#include <plumb/core/random.hpp>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace {

using namespace plumb;

constexpr double kUnit = 0x1p-24;
constexpr float kUntouched = 12345.0F;
constexpr Index kBehind = 64;

std::vector<float> random_vector(Index n, std::uint64_t seed, float scale = 1.0F) {
  Rng rng(seed);
  std::vector<float> x(static_cast<std::size_t>(n));
  for (float& value : x) value = scale * rng.normal();
  return x;
}

/// The device's copy of a vector, `offset` elements behind a 16-byte boundary.
template <class T>
class OnDevice {
 public:
  OnDevice(Cuda device, const std::vector<T>& x, Index offset = 0)
      : room_(device, static_cast<Index>(x.size()) + offset + 1), offset_(offset) {
    kernels::copy_from_host(device, data(), x.data(), x.size() * sizeof(T));
  }
  T* data() const { return room_.data() + offset_; }

 private:
  kernels::DeviceScratch<T> room_;
  Index offset_;
};

/// Room for n results, with known values behind them.
class Result {
 public:
  Result(Cuda device, Index n, Index offset = 0)
      : device_(device),
        n_(static_cast<std::size_t>(n)),
        values_(device, std::vector<float>(n_ + kBehind, kUntouched), offset) {}
  float* data() const { return values_.data(); }

  std::vector<float> take() const {
    std::vector<float> x(n_ + kBehind);
    kernels::copy_to_host(device_, x.data(), data(), x.size() * sizeof(float));
    bool untouched = true;
    for (std::size_t i = n_; i < x.size(); ++i) untouched = untouched && x[i] == kUntouched;
    CHECK_MESSAGE(untouched, "written behind the result's end");
    x.resize(n_);
    return x;
  }

 private:
  Cuda device_;
  std::size_t n_;
  OnDevice<float> values_;
};

std::vector<bf16> rounded(std::vector<float>& x) {
  std::vector<bf16> y;
  for (float& value : x) {
    y.emplace_back(value);
    value = static_cast<float>(y.back());
  }
  return y;
}

/// The worst |x − exact| / bound, infinite for a NaN; at most 1 is right.
double worst_ratio(const std::vector<float>& x, const std::vector<double>& exact,
                   const std::vector<double>& bound) {
  REQUIRE(x.size() == exact.size());
  double worst = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double error = std::abs(static_cast<double>(x[i]) - exact[i]);
    const double ratio = error == 0.0 ? 0.0 : error / bound[i];
    worst = ratio <= worst ? worst : std::isnan(ratio) ? INFINITY : ratio;
  }
  return worst;
}

struct Expected {
  std::vector<double> exact, bound;
};

/// |error| <= (k + 2)·u·sum of |a·b| in any order of the sum. Twice that for tensor cores, whose
/// sums are not specified.
Expected product(const std::vector<float>& a, const std::vector<float>& b, Index m, Index n,
                 Index k, double factor) {
  Expected expected;
  for (Index i = 0; i < m; ++i)
    for (Index j = 0; j < n; ++j) {
      double sum = 0.0, size = 0.0;
      for (Index p = 0; p < k; ++p) {
        const double term = static_cast<double>(a[static_cast<std::size_t>(i * k + p)]) *
                            static_cast<double>(b[static_cast<std::size_t>(p * n + j)]);
        sum += term;
        size += std::abs(term);
      }
      expected.exact.push_back(sum);
      expected.bound.push_back(factor * static_cast<double>(k + 2) * kUnit * size);
    }
  return expected;
}

/// |error| <= (n + 2·(largest − x) + 16)·u·y: the sum's chain, the exponents' rounding, e^x and /.
Expected softmax_of(const std::vector<float>& x, Index rows, Index n) {
  Expected expected;
  for (Index row = 0; row < rows; ++row) {
    const float* values = x.data() + row * n;
    double largest = -INFINITY, sum = 0.0;
    for (Index i = 0; i < n; ++i) largest = std::max(largest, static_cast<double>(values[i]));
    for (Index i = 0; i < n; ++i) sum += std::exp(static_cast<double>(values[i]) - largest);
    for (Index i = 0; i < n; ++i) {
      const double below = largest - static_cast<double>(values[i]);
      const double y = std::exp(-below) / sum;
      expected.exact.push_back(y);
      const double steps = static_cast<double>(n) + (y > 0.0 ? 2.0 * below : 0.0) + 16.0;
      expected.bound.push_back(steps * kUnit * y + 1e-37);
    }
  }
  return expected;
}

/// |error| <= (2·(size + 2)·u·largest of |scale·q|·|k| + (t + 32)·u + weight)·sum of p·|v|,
/// `weight` being the rounding of the weights themselves.
Expected attention_of(const std::vector<float>& q, const std::vector<float>& k,
                      const std::vector<float>& v, Index t, Index size, double weight) {
  Expected expected;
  const double scale = 1.0 / std::sqrt(static_cast<double>(size));
  const auto at = [size](const std::vector<float>& x, Index row, Index d) {
    return static_cast<double>(x[static_cast<std::size_t>(row * size + d)]);
  };
  for (Index i = 0; i < t; ++i) {
    std::vector<double> p(static_cast<std::size_t>(i + 1));
    double largest = -INFINITY, sum = 0.0, size_of_score = 0.0;
    for (Index j = 0; j <= i; ++j) {
      double score = 0.0, magnitude = 0.0;
      for (Index d = 0; d < size; ++d) {
        score += scale * at(q, i, d) * at(k, j, d);
        magnitude += scale * std::abs(at(q, i, d) * at(k, j, d));
      }
      p[static_cast<std::size_t>(j)] = score;
      largest = std::max(largest, score);
      size_of_score = std::max(size_of_score, magnitude);
    }
    for (double& value : p) sum += value = std::exp(value - largest);
    const double relative = 2.0 * static_cast<double>(size + 2) * kUnit * size_of_score +
                            static_cast<double>(t + 32) * kUnit + weight;
    for (Index d = 0; d < size; ++d) {
      double total = 0.0, magnitude = 0.0;
      for (Index j = 0; j <= i; ++j) {
        total += p[static_cast<std::size_t>(j)] / sum * at(v, j, d);
        magnitude += p[static_cast<std::size_t>(j)] / sum * std::abs(at(v, j, d));
      }
      expected.exact.push_back(total);
      expected.bound.push_back(relative * magnitude);
    }
  }
  return expected;
}

struct Size {
  Index m, n, k;
};
// Around the tiles of 32, 64 and 128 and the depths of 8 and 32; rows that lie at 16-byte
// boundaries as floats (multiples of 4), as bf16 too (of 8), or not; nothing to sum; nothing to do.
constexpr Size kSizes[] = {{1, 1, 1},      {3, 5, 7},      {33, 65, 17},    {129, 131, 33},
                           {128, 128, 64}, {100, 132, 36}, {130, 264, 104}, {65, 8, 200},
                           {40, 24, 0},    {0, 5, 3},      {5, 0, 3}};

TEST_CASE("the ladder's products are right at any size") {
  const Cuda device;
  for (const Size& size : kSizes)
    for (const Index offset : {Index{0}, Index{1}}) {
      const Index m = size.m, n = size.n, k = size.k;
      CAPTURE(m);
      CAPTURE(n);
      CAPTURE(k);
      CAPTURE(offset);
      std::vector<float> a = random_vector(m * k, 1), b = random_vector(k * n, 2);
      const Expected whole = product(a, b, m, n, k, 1.0);
      const OnDevice<float> a_float(device, a, offset), b_float(device, b, offset);
      const std::vector<bf16> a_bits = rounded(a), b_bits = rounded(b);
      const Expected halved = product(a, b, m, n, k, 2.0);
      const OnDevice<bf16> a_bf16(device, a_bits, offset), b_bf16(device, b_bits, offset);
      for (const ladder::Gemm& rung : ladder::kGemm) {
        INFO(std::string(rung.name));
        const Result c(device, m * n, offset);
        if (rung.matmul != nullptr)
          rung.matmul(device, c.data(), a_float.data(), b_float.data(), m, n, k);
        else
          rung.matmul_bf16(device, c.data(), a_bf16.data(), b_bf16.data(), m, n, k);
        const Expected& expected = rung.tensor_core ? halved : whole;
        CHECK(worst_ratio(c.take(), expected.exact, expected.bound) <= 1.0);
      }
    }
}

TEST_CASE("the ladder's softmax is right at any width, with large and with masked values") {
  const Cuda device;
  constexpr Index kRows = 9;
  for (const Index n : {1, 2, 31, 32, 33, 100, 129, 1000, 4095, 4104, 4300})
    for (const Index offset : {Index{0}, Index{1}}) {
      CAPTURE(n);
      CAPTURE(offset);
      std::vector<float> x = random_vector(kRows * n, 3, 4.0F);
      for (Index i = 0; i < n; ++i) x[static_cast<std::size_t>(n + i)] += 1000.0F;
      for (Index i = 0; i + 1 < n; ++i)  // only the last is left of row 2, and every third of row 3
        x[static_cast<std::size_t>(2 * n + i)] = -INFINITY;
      for (Index i = 0; i < n; ++i)
        if (i % 3 != n % 3 && i > 0) x[static_cast<std::size_t>(3 * n + i)] = -INFINITY;
      const Expected expected = softmax_of(x, kRows, n);
      const OnDevice<float> input(device, x, offset);
      for (const ladder::Softmax& rung : ladder::kSoftmax) {
        INFO(std::string(rung.name));
        const Result y(device, kRows * n, offset);
        rung.softmax(device, y.data(), input.data(), kRows, n);
        CHECK(worst_ratio(y.take(), expected.exact, expected.bound) <= 1.0);
      }
    }
  for (const ladder::Softmax& rung : ladder::kSoftmax) {
    const Result y(device, 0);
    rung.softmax(device, y.data(), y.data(), 0, 5);
    rung.softmax(device, y.data(), y.data(), 5, 0);
    y.take();
  }
}

template <int kSize>
void check_attention(Index t, float spread) {
  const Cuda device;
  CAPTURE(t);
  CAPTURE(kSize);
  CAPTURE(spread);
  std::vector<float> q = random_vector(t * kSize, 4, spread), k = random_vector(t * kSize, 5),
                     v = random_vector(t * kSize, 6);
  const Expected whole = attention_of(q, k, v, t, kSize, 0.0);
  const OnDevice<float> q_float(device, q), k_float(device, k), v_float(device, v);
  const std::vector<bf16> q_bits = rounded(q), k_bits = rounded(k), v_bits = rounded(v);
  const Expected halved = attention_of(q, k, v, t, kSize, 0x1p-8);
  const OnDevice<bf16> q_bf16(device, q_bits), k_bf16(device, k_bits), v_bf16(device, v_bits);
  for (const ladder::Attention<kSize>& rung : ladder::kAttention<kSize>) {
    INFO(std::string(rung.name));
    const Result out(device, t * kSize);
    if (rung.attention != nullptr)
      rung.attention(device, out.data(), q_float.data(), k_float.data(), v_float.data(), t);
    else
      rung.attention_bf16(device, out.data(), q_bf16.data(), k_bf16.data(), v_bf16.data(), t);
    const Expected& expected = rung.attention != nullptr ? whole : halved;
    CHECK(worst_ratio(out.take(), expected.exact, expected.bound) <= 1.0);
  }
}

TEST_CASE("the ladder's attention is right at any length, with even and with peaked weights") {
  for (const Index t : {0, 1, 5, 31, 33, 64, 65, 130})
    for (const float spread : {1.0F, 8.0F}) {
      check_attention<32>(t, spread);
      check_attention<64>(t, spread);
    }
  check_attention<128>(77, 1.0F);
}

TEST_CASE("the ladder's tensor-core attention refuses what cp.async could not read") {
  const Cuda device;
  const OnDevice<bf16> x(device, std::vector<bf16>(64), 1);
  const Result out(device, 64);
  CHECK_THROWS_AS(
      ladder::attention_4::attention<64>(device, out.data(), x.data(), x.data(), x.data(), 1),
      Error);
}

TEST_CASE("the ladder's sums are right for any number of elements, and the same every time") {
  const Cuda device;
  for (const Index n : {0, 1, 31, 255, 256, 257, 4096, 4097, 66000}) {
    CAPTURE(n);
    const std::vector<float> x = random_vector(n, 7);
    double exact = 0.0, size = 0.0;
    for (const float value : x) {
      exact += static_cast<double>(value);
      size += std::abs(static_cast<double>(value));
    }
    const OnDevice<float> input(device, x);
    for (const ladder::Sum& rung : ladder::kSum) {
      INFO(std::string(rung.name));
      const Result first(device, 1), second(device, 1);
      rung.sum(device, first.data(), input.data(), n);
      rung.sum(device, second.data(), input.data(), n);
      const std::vector<float> sum = first.take(), again = second.take();
      // No chain is longer than 24 additions a level, and there are three levels; the library's are
      // of 128 in a lane and 5 between lanes, and there are two.
      const double chain = rung.sum == ladder::reduce_3::sum ? 2 * 133 : 3 * 24;
      CHECK(worst_ratio(sum, {exact}, {chain * kUnit * size}) <= 1.0);
      CHECK(std::memcmp(sum.data(), again.data(), sizeof(float)) == 0);
    }
  }
}

}  // namespace
