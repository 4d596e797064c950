// The emulator's cuBLAS and cublasLt against a double loop, and everything that they are to refuse.
// For the emulator only: it steers the stand-ins and reads what they report.
#include <emulator/cublas.hpp>
#include <emulator/runtime.hpp>
#include <plumb/core/random.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

using namespace plumb::emulator;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// --- Data ------------------------------------------------------------------------------------

/// A copy of host values in device memory.
template <class T>
class OnDevice {
 public:
  explicit OnDevice(const std::vector<T>& host) : n_(host.size()) {
    void* memory = nullptr;
    REQUIRE(cudaMalloc(&memory, std::max<std::size_t>(n_, 1) * sizeof(T)) == cudaSuccess);
    data_ = static_cast<T*>(memory);
    if (n_ > 0)
      REQUIRE(cudaMemcpy(data_, host.data(), n_ * sizeof(T), cudaMemcpyHostToDevice) ==
              cudaSuccess);
    // The tests' streams do not wait for the default one, in which the copy may still be queued.
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  }
  explicit OnDevice(std::size_t n) : OnDevice(std::vector<T>(n)) {}
  ~OnDevice() { cudaFree(data_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

  T* data() const { return data_; }
  std::vector<T> values() const {
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
    std::vector<T> host(n_);
    if (n_ > 0)
      REQUIRE(cudaMemcpy(host.data(), data_, n_ * sizeof(T), cudaMemcpyDeviceToHost) ==
              cudaSuccess);
    return host;
  }

 private:
  T* data_ = nullptr;
  std::size_t n_;
};

std::uint16_t to_bf16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return static_cast<std::uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}
float from_bf16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}
std::vector<std::uint16_t> to_bf16(const std::vector<float>& x) {
  std::vector<std::uint16_t> y(x.size());
  std::transform(x.begin(), x.end(), y.begin(), [](float v) { return to_bf16(v); });
  return y;
}
std::vector<float> from_bf16(const std::vector<std::uint16_t>& x) {
  std::vector<float> y(x.size());
  std::transform(x.begin(), x.end(), y.begin(), [](std::uint16_t v) { return from_bf16(v); });
  return y;
}

int below(plumb::Rng& rng, int n) {
  return static_cast<int>(rng.below(static_cast<std::uint32_t>(n)));
}

std::vector<float> normals(plumb::Rng& rng, std::int64_t n) {
  std::vector<float> x(static_cast<std::size_t>(n));
  for (float& v : x) v = rng.normal();
  return x;
}

struct Shape {
  int m, n, k, batch = 1;
  bool ta = false, tb = false;
  int lda, ldb, ldc;
  long long sa = 0, sb = 0, sc = 0;
  float alpha = 1, beta = 0;

  int columns_a() const { return ta ? m : k; }
  int columns_b() const { return tb ? k : n; }
};

Shape random_shape(plumb::Rng& rng, int batch = 1) {
  Shape s{};
  s.m = 1 + below(rng, 40);
  s.n = 1 + below(rng, 40);
  s.k = 1 + below(rng, 70);
  s.batch = batch;
  s.ta = below(rng, 2) == 1;
  s.tb = below(rng, 2) == 1;
  s.lda = (s.ta ? s.k : s.m) + below(rng, 5);
  s.ldb = (s.tb ? s.n : s.k) + below(rng, 5);
  s.ldc = s.m + below(rng, 5);
  s.sa = static_cast<long long>(s.lda) * s.columns_a() + below(rng, 3);
  s.sb = static_cast<long long>(s.ldb) * s.columns_b() + below(rng, 3);
  s.sc = static_cast<long long>(s.ldc) * s.n + below(rng, 3);
  const float factors[] = {0.0F, 1.0F, -0.5F, 1.75F};
  s.alpha = factors[below(rng, 4)];
  s.beta = factors[below(rng, 4)];
  return s;
}

double gelu(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

/// What a product leaves in its result, in double; elements between columns stay as they were.
struct Expected {
  std::vector<double> d;
  std::vector<double> scale;  ///< of rounding errors: the sum of the terms' magnitudes
};

Expected expected(const Shape& s, const std::vector<float>& a, const std::vector<float>& b,
                  const std::vector<float>& c, const std::vector<float>* bias = nullptr,
                  bool with_gelu = false) {
  Expected e{{c.begin(), c.end()}, std::vector<double>(c.size(), 0.0)};
  for (int z = 0; z < s.batch; ++z)
    for (int j = 0; j < s.n; ++j)
      for (int i = 0; i < s.m; ++i) {
        double sum = 0, magnitude = 1e-3;
        for (int p = 0; p < s.k; ++p) {
          const auto at =
              static_cast<std::size_t>(z * s.sa + (s.ta ? p + static_cast<long long>(i) * s.lda
                                                        : i + static_cast<long long>(p) * s.lda));
          const auto bt =
              static_cast<std::size_t>(z * s.sb + (s.tb ? j + static_cast<long long>(p) * s.ldb
                                                        : p + static_cast<long long>(j) * s.ldb));
          const double term = static_cast<double>(a[at]) * b[bt];
          sum += term;
          magnitude += std::abs(term);
        }
        const auto ct = static_cast<std::size_t>(z * s.sc + static_cast<long long>(j) * s.ldc + i);
        double x = s.alpha * sum;
        magnitude *= std::abs(s.alpha);
        if (s.beta != 0) {
          x += static_cast<double>(s.beta) * c[ct];
          magnitude += std::abs(s.beta * c[ct]);
        }
        if (bias != nullptr) {
          x += (*bias)[static_cast<std::size_t>(i)];
          magnitude += std::abs((*bias)[static_cast<std::size_t>(i)]);
        }
        e.d[ct] = with_gelu ? gelu(x) : x;
        e.scale[ct] = magnitude;
      }
  return e;
}

/// An element's error against its scale; one of scale 0 has to be exact.
double error_at(const Expected& e, std::size_t i, float value) {
  const double error = std::abs(value - e.d[i]);
  if (e.scale[i] == 0) return error == 0 ? 0 : INFINITY;
  return std::isnan(error) ? INFINITY : error / e.scale[i];
}
/// The largest of them; elements between columns must not have changed.
double worst_error(const Expected& e, const std::vector<float>& d) {
  double worst = 0;
  for (std::size_t i = 0; i < d.size(); ++i) worst = std::max(worst, error_at(e, i, d[i]));
  return worst;
}

std::int64_t elements_a(const Shape& s) { return s.sa * (s.batch - 1) + s.lda * s.columns_a(); }
std::int64_t elements_b(const Shape& s) { return s.sb * (s.batch - 1) + s.ldb * s.columns_b(); }
std::int64_t elements_c(const Shape& s) { return s.sc * (s.batch - 1) + s.ldc * s.n; }

cublasOperation_t operation(bool transposed) { return transposed ? CUBLAS_OP_T : CUBLAS_OP_N; }

// --- Handles ------------------------------------------------------------------------------------

struct Stream {
  cudaStream_t stream = nullptr;
  Stream() { REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess); }
  ~Stream() { cudaStreamDestroy(stream); }
};

struct Blas : Stream {
  cublasHandle_t handle = nullptr;
  Blas() {
    REQUIRE(cublasCreate(&handle) == CUBLAS_STATUS_SUCCESS);
    REQUIRE(cublasSetStream(handle, stream) == CUBLAS_STATUS_SUCCESS);
  }
  ~Blas() { cublasDestroy(handle); }
};

/// The kinds that were reported since the last call.
std::string reported() {
  std::string kinds;
  for (const Error& error : take_errors()) kinds += (kinds.empty() ? "" : " ") + error.kind;
  return kinds;
}

/// A small product with arguments to spoil, one at a time.
struct Call : Blas {
  OnDevice<float> a{std::vector<float>(6, 1.0F)}, b{std::vector<float>(12, 1.0F)},
      c{std::vector<float>(8, 1.0F)};
  float alpha = 1, beta = 0;
  const float *alpha_at = &alpha, *beta_at = &beta;
  cublasOperation_t ta = CUBLAS_OP_N, tb = CUBLAS_OP_N;
  int m = 2, n = 4, k = 3, lda = 2, ldb = 3, ldc = 2;
  const float *a_at = a.data(), *b_at = b.data();
  float* c_at = c.data();

  cublasStatus_t sgemm() {
    return cublasSgemm(handle, ta, tb, m, n, k, alpha_at, a_at, lda, b_at, ldb, beta_at, c_at, ldc);
  }
  cublasStatus_t batched(int batch, long long sa, long long sb, long long sc) {
    return cublasSgemmStridedBatched(handle, ta, tb, m, n, k, alpha_at, a_at, lda, sa, b_at, ldb,
                                     sb, beta_at, c_at, ldc, sc, batch);
  }
  cublasStatus_t gemm_ex(cudaDataType type_a, cudaDataType type_b, cudaDataType type_c,
                         cublasComputeType_t compute,
                         cublasGemmAlgo_t algorithm = CUBLAS_GEMM_DEFAULT) {
    return cublasGemmEx(handle, ta, tb, m, n, k, alpha_at, a_at, type_a, lda, b_at, type_b, ldb,
                        beta_at, c_at, type_c, ldc, compute, algorithm);
  }
};

}  // namespace

// --- cuBLAS ------------------------------------------------------------------------------------

TEST_CASE("cublasSgemm is the product, for random shapes, leading dimensions and transposes") {
  plumb::Rng rng(1);
  const Blas blas;
  double worst = 0;
  for (int round = 0; round < 240; ++round) {
    const Shape s = random_shape(rng);
    const auto a = normals(rng, elements_a(s)), b = normals(rng, elements_b(s));
    auto c = normals(rng, elements_c(s));
    const Expected e = expected(s, a, b, c);
    if (s.beta == 0)  // then c holds no numbers
      for (int j = 0; j < s.n; ++j) std::fill_n(c.begin() + j * s.ldc, s.m, kNan);
    const OnDevice da(a), db(b), dc(c);
    REQUIRE(cublasSgemm(blas.handle, operation(s.ta), operation(s.tb), s.m, s.n, s.k, &s.alpha,
                        da.data(), s.lda, db.data(), s.ldb, &s.beta, dc.data(),
                        s.ldc) == CUBLAS_STATUS_SUCCESS);
    worst = std::max(worst, worst_error(e, dc.values()));
  }
  CHECK(worst < 1e-6);
  CHECK(reported() == "");
}

TEST_CASE("cublasSgemmStridedBatched is a product for each matrix") {
  plumb::Rng rng(2);
  const Blas blas;
  double worst = 0;
  for (int round = 0; round < 60; ++round) {
    Shape s = random_shape(rng, 1 + below(rng, 4));
    if (round % 3 == 0) s.sb = 0;  // one matrix for all
    const auto a = normals(rng, elements_a(s)), b = normals(rng, elements_b(s)),
               c = normals(rng, elements_c(s));
    const OnDevice da(a), db(b), dc(c);
    REQUIRE(cublasSgemmStridedBatched(blas.handle, operation(s.ta), operation(s.tb), s.m, s.n, s.k,
                                      &s.alpha, da.data(), s.lda, s.sa, db.data(), s.ldb, s.sb,
                                      &s.beta, dc.data(), s.ldc, s.sc,
                                      s.batch) == CUBLAS_STATUS_SUCCESS);
    worst = std::max(worst, worst_error(expected(s, a, b, c), dc.values()));
  }
  CHECK(worst < 1e-6);
  CHECK(reported() == "");
}

TEST_CASE("cublasGemmEx: operands in bf16, the result in bf16 or float") {
  plumb::Rng rng(3);
  const Blas blas;
  double worst = 0, worst_bf16 = 0;
  for (int round = 0; round < 60; ++round) {
    const Shape s = random_shape(rng);
    const auto a = to_bf16(normals(rng, elements_a(s))), b = to_bf16(normals(rng, elements_b(s)));
    const auto c = to_bf16(normals(rng, elements_c(s)));
    const Expected e = expected(s, from_bf16(a), from_bf16(b), from_bf16(c));
    const OnDevice da(a), db(b), dc(c);
    const OnDevice dc_float(from_bf16(c));
    const auto product = [&](void* result, cudaDataType type) {
      return cublasGemmEx(blas.handle, operation(s.ta), operation(s.tb), s.m, s.n, s.k, &s.alpha,
                          da.data(), CUDA_R_16BF, s.lda, db.data(), CUDA_R_16BF, s.ldb, &s.beta,
                          result, type, s.ldc, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
    };
    REQUIRE(product(dc.data(), CUDA_R_16BF) == CUBLAS_STATUS_SUCCESS);
    REQUIRE(product(dc_float.data(), CUDA_R_32F) == CUBLAS_STATUS_SUCCESS);
    worst = std::max(worst, worst_error(e, dc_float.values()));
    worst_bf16 = std::max(worst_bf16, worst_error(e, from_bf16(dc.values())));
  }
  CHECK(worst < 1e-6);
  CHECK(worst_bf16 < 0x1p-8);
  CHECK(worst_bf16 > 0x1p-12);  // it was rounded
}

TEST_CASE("the fast modes round the operands and nothing else") {
  Call call;
  const float third = 1.0F / 3.0F;
  const OnDevice a(std::vector<float>(6, third)), b(std::vector<float>(12, 3.0F));
  call.a_at = a.data();
  call.b_at = b.data();
  const auto result = [&] { return call.c.values()[0]; };
  REQUIRE(call.sgemm() == CUBLAS_STATUS_SUCCESS);
  CHECK(result() == doctest::Approx(3.0F).epsilon(1e-7));

  const float tf32 =
      std::bit_cast<float>((std::bit_cast<std::uint32_t>(third) + 0x1000) & ~0x1FFFU);
  REQUIRE(cublasSetMathMode(call.handle, CUBLAS_TF32_TENSOR_OP_MATH) == CUBLAS_STATUS_SUCCESS);
  REQUIRE(call.sgemm() == CUBLAS_STATUS_SUCCESS);
  CHECK(result() == 9 * tf32);
  CHECK(9 * tf32 != 3.0F);
  REQUIRE(call.gemm_ex(CUDA_R_32F, CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F_PEDANTIC) ==
          CUBLAS_STATUS_SUCCESS);
  CHECK(result() == doctest::Approx(3.0F).epsilon(1e-7));
  REQUIRE(call.gemm_ex(CUDA_R_32F, CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_16BF) ==
          CUBLAS_STATUS_SUCCESS);
  CHECK(result() == 9 * from_bf16(to_bf16(third)));
}

TEST_CASE("sums run in an order that is not the obvious one") {
  plumb::Rng rng(4);
  const int k = 300;
  const auto a = normals(rng, k), b = normals(rng, k);
  const OnDevice da(a), db(b);
  const OnDevice<float> dc(std::size_t{1});
  const Blas blas;
  const float one = 1, zero = 0;
  REQUIRE(cublasSgemm(blas.handle, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, k, &one, da.data(), 1, db.data(),
                      k, &zero, dc.data(), 1) == CUBLAS_STATUS_SUCCESS);
  float chain = 0;
  for (std::size_t i = 0; i < static_cast<std::size_t>(k); ++i) chain = std::fma(a[i], b[i], chain);
  CHECK(dc.values()[0] != chain);
  CHECK(dc.values()[0] == doctest::Approx(chain).epsilon(1e-4));
}

TEST_CASE("empty products: nothing, or beta alone") {
  Call call;
  call.beta = 2;
  call.m = 0;
  CHECK(call.sgemm() == CUBLAS_STATUS_SUCCESS);
  CHECK(call.c.values() == std::vector<float>(8, 1.0F));
  call.m = 2;
  call.k = 0;
  CHECK(call.sgemm() == CUBLAS_STATUS_SUCCESS);
  CHECK(call.c.values() == std::vector<float>(8, 2.0F));
  CHECK(call.batched(0, 6, 12, 8) == CUBLAS_STATUS_SUCCESS);
  CHECK(reported() == "");
}

TEST_CASE("alpha and beta are read by the call, operands when the stream runs") {
  Call call;
  CHECK(call.sgemm() == CUBLAS_STATUS_SUCCESS);
  call.alpha = 100;
  CHECK(call.c.values() == std::vector<float>(8, 3.0F));
}

TEST_CASE("cublasSgemm refuses what its documentation refuses") {
  const auto refused = [](auto spoil) {
    Call call;
    spoil(call);
    const cublasStatus_t status = call.sgemm();
    CHECK(call.c.values() == std::vector<float>(8, 1.0F));
    return status;
  };
  CHECK(refused([](Call& c) { c.m = -1; }) == CUBLAS_STATUS_INVALID_VALUE);
  CHECK(refused([](Call& c) { c.n = -1; }) == CUBLAS_STATUS_INVALID_VALUE);
  CHECK(refused([](Call& c) { c.k = -1; }) == CUBLAS_STATUS_INVALID_VALUE);
  CHECK(refused([](Call& c) { c.lda = 1; }) == CUBLAS_STATUS_INVALID_VALUE);
  CHECK(refused([](Call& c) { c.ldb = 2; }) == CUBLAS_STATUS_INVALID_VALUE);
  CHECK(refused([](Call& c) { c.ldc = 1; }) == CUBLAS_STATUS_INVALID_VALUE);
  CHECK(refused([](Call& c) { c.ta = CUBLAS_OP_T; }) == CUBLAS_STATUS_INVALID_VALUE);  // lda < k
  CHECK(refused([](Call& c) { c.tb = CUBLAS_OP_T; }) == CUBLAS_STATUS_INVALID_VALUE);  // ldb < n
  CHECK(refused([](Call& c) { c.ta = CUBLAS_OP_CONJG; }) == CUBLAS_STATUS_INVALID_VALUE);
  CHECK(refused([](Call& c) { c.lda = c.m = 0; }) == CUBLAS_STATUS_INVALID_VALUE);
  CHECK(refused([](Call& c) { c.alpha_at = nullptr; }) == CUBLAS_STATUS_INVALID_VALUE);
  CHECK(refused([](Call& c) { c.beta_at = nullptr; }) == CUBLAS_STATUS_INVALID_VALUE);
  CHECK(reported() == "");
  CHECK(refused([](Call& c) { c.a_at = nullptr; }) == CUBLAS_STATUS_INVALID_VALUE);
  CHECK(reported() == "illegal-address");
  CHECK(refused([](Call& c) { c.alpha_at = c.a.data(); }) == CUBLAS_STATUS_INVALID_VALUE);
  CHECK(reported() == "illegal-address");
}

TEST_CASE("a handle that is none is not initialised, a bad stream or mode is refused") {
  Call call;
  const cublasHandle_t good = call.handle;
  call.handle = nullptr;
  CHECK(call.sgemm() == CUBLAS_STATUS_NOT_INITIALIZED);
  CHECK(call.batched(1, 6, 12, 8) == CUBLAS_STATUS_NOT_INITIALIZED);
  CHECK(call.gemm_ex(CUDA_R_32F, CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F) ==
        CUBLAS_STATUS_NOT_INITIALIZED);
  CHECK(cublasSetStream(nullptr, nullptr) == CUBLAS_STATUS_NOT_INITIALIZED);
  CHECK(cublasSetMathMode(nullptr, CUBLAS_DEFAULT_MATH) == CUBLAS_STATUS_NOT_INITIALIZED);
  CHECK(cublasSetWorkspace(nullptr, nullptr, 0) == CUBLAS_STATUS_NOT_INITIALIZED);
  CHECK(cublasDestroy(nullptr) == CUBLAS_STATUS_NOT_INITIALIZED);
  CHECK(cublasCreate(nullptr) == CUBLAS_STATUS_INVALID_VALUE);
  CHECK(cublasGetVersion(nullptr, nullptr) == CUBLAS_STATUS_INVALID_VALUE);
  CHECK(cublasSetMathMode(good, static_cast<cublasMath_t>(31)) == CUBLAS_STATUS_INVALID_VALUE);

  cublasHandle_t other = nullptr;
  REQUIRE(cublasCreate(&other) == CUBLAS_STATUS_SUCCESS);
  CHECK(cublasDestroy(other) == CUBLAS_STATUS_SUCCESS);
  call.handle = other;
  CHECK(call.sgemm() == CUBLAS_STATUS_NOT_INITIALIZED);  // destroyed
  call.handle = good;

  cudaStream_t gone = nullptr;
  REQUIRE(cudaStreamCreateWithFlags(&gone, cudaStreamNonBlocking) == cudaSuccess);
  REQUIRE(cudaStreamDestroy(gone) == cudaSuccess);
  REQUIRE(cublasSetStream(good, gone) == CUBLAS_STATUS_SUCCESS);
  CHECK(call.sgemm() == CUBLAS_STATUS_EXECUTION_FAILED);
  take_errors();
  cudaGetLastError();
  REQUIRE(cublasSetStream(good, call.stream) == CUBLAS_STATUS_SUCCESS);
  CHECK(call.sgemm() == CUBLAS_STATUS_SUCCESS);
}

TEST_CASE("cublasGemmEx refuses types and algorithms that it does not combine") {
  Call call;
  constexpr auto f32 = CUDA_R_32F, bf16 = CUDA_R_16BF;
  const auto unsupported = CUBLAS_STATUS_NOT_SUPPORTED;
  CHECK(call.gemm_ex(f32, bf16, f32, CUBLAS_COMPUTE_32F) == unsupported);
  CHECK(call.gemm_ex(bf16, f32, f32, CUBLAS_COMPUTE_32F) == unsupported);
  CHECK(call.gemm_ex(f32, f32, bf16, CUBLAS_COMPUTE_32F) == unsupported);
  CHECK(call.gemm_ex(CUDA_R_64F, CUDA_R_64F, CUDA_R_64F, CUBLAS_COMPUTE_32F) == unsupported);
  CHECK(call.gemm_ex(f32, f32, f32, CUBLAS_COMPUTE_16F) == unsupported);
  CHECK(call.gemm_ex(bf16, bf16, f32, CUBLAS_COMPUTE_32F_FAST_TF32) == unsupported);
  CHECK(call.gemm_ex(bf16, bf16, bf16, CUBLAS_COMPUTE_32F_FAST_16BF) == unsupported);
  CHECK(call.gemm_ex(f32, f32, f32, CUBLAS_COMPUTE_32F, static_cast<cublasGemmAlgo_t>(50)) ==
        unsupported);
  call.ldc = 1;
  CHECK(call.gemm_ex(f32, f32, f32, CUBLAS_COMPUTE_32F) == CUBLAS_STATUS_INVALID_VALUE);
  CHECK(call.c.values() == std::vector<float>(8, 1.0F));
}

TEST_CASE("memory that is not the device's, too small, or overlapping is reported") {
  Call call;
  std::vector<float> host(12, 1.0F);
  call.b_at = host.data();
  CHECK(call.sgemm() == CUBLAS_STATUS_INVALID_VALUE);
  CHECK(reported() == "illegal-address");
  call.b_at = call.b.data();

  call.ldb = 1 << 20;  // far beyond the allocation
  CHECK(call.sgemm() == CUBLAS_STATUS_INVALID_VALUE);
  CHECK(reported() == "illegal-address");
  call.ldb = 3;

  call.c_at = const_cast<float*>(call.b_at);
  CHECK(call.sgemm() == CUBLAS_STATUS_INVALID_VALUE);
  CHECK(reported() == "race");
  call.c_at = call.c.data();

  const OnDevice<float> big(std::size_t{64});
  call.a_at = big.data();
  call.b_at = big.data() + 16;
  call.c_at = big.data() + 40;
  CHECK(call.batched(2, 6, 12, 8) == CUBLAS_STATUS_SUCCESS);
  CHECK(call.batched(2, 6, 12, 7) == CUBLAS_STATUS_INVALID_VALUE);  // results one element too close
  CHECK(reported() == "race");
  CHECK(call.batched(-1, 6, 12, 8) == CUBLAS_STATUS_INVALID_VALUE);
  call.ldc = 4;  // columns of one matrix between those of the other
  CHECK(call.batched(2, 6, 12, 2) == CUBLAS_STATUS_SUCCESS);
  REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  CHECK(reported() == "");
}

TEST_CASE("memory that is gone when the stream comes to the product is reported") {
  const Order before = schedule_order();
  set_schedule(Order::reverse);  // the other stream first
  Call call;
  const Stream other;
  void* memory = nullptr;
  REQUIRE(cudaMallocAsync(&memory, 12 * sizeof(float), call.stream) == cudaSuccess);
  REQUIRE(cudaStreamSynchronize(call.stream) == cudaSuccess);
  call.b_at = static_cast<const float*>(memory);
  CHECK(call.sgemm() == CUBLAS_STATUS_SUCCESS);
  CHECK(cudaFreeAsync(memory, other.stream) == cudaSuccess);
  CHECK(cudaStreamSynchronize(call.stream) == cudaErrorIllegalAddress);
  CHECK(reported() == "illegal-address");
  set_schedule(before);
}

TEST_CASE("a workspace is checked, overwritten, and forgotten with the stream") {
  Call call;
  const OnDevice<float> room(std::vector<float>(256, 5.0F));
  CHECK(cublasSetWorkspace(call.handle, room.data() + 1, 512) == CUBLAS_STATUS_INVALID_VALUE);
  CHECK(cublasSetWorkspace(call.handle, nullptr, 512) == CUBLAS_STATUS_INVALID_VALUE);
  std::vector<float> host(1024);
  CHECK(cublasSetWorkspace(call.handle, host.data(), 512) == CUBLAS_STATUS_INVALID_VALUE);
  CHECK(cublasSetWorkspace(call.handle, room.data(), 2000) == CUBLAS_STATUS_INVALID_VALUE);
  CHECK(room.values()[0] == 5.0F);
  CHECK(cublasSetWorkspace(call.handle, room.data(), 512) == CUBLAS_STATUS_SUCCESS);
  REQUIRE(call.sgemm() == CUBLAS_STATUS_SUCCESS);
  CHECK(std::isnan(room.values()[127]));
  CHECK(room.values()[128] == 5.0F);
  const OnDevice<float> in_room(std::size_t{12});
  CHECK(cublasSetWorkspace(call.handle, in_room.data(), 48) == CUBLAS_STATUS_SUCCESS);
  call.b_at = in_room.data();
  CHECK(call.sgemm() == CUBLAS_STATUS_INVALID_VALUE);
  CHECK(reported() == "race");
  REQUIRE(cublasSetStream(call.handle, call.stream) == CUBLAS_STATUS_SUCCESS);
  CHECK(call.sgemm() == CUBLAS_STATUS_SUCCESS);
}

TEST_CASE("every status has a name and a text") {
  CHECK(std::string(cublasGetStatusName(CUBLAS_STATUS_ARCH_MISMATCH)) ==
        "CUBLAS_STATUS_ARCH_MISMATCH");
  CHECK(std::string(cublasGetStatusString(CUBLAS_STATUS_SUCCESS)) == "success");
  CHECK(std::string(cublasGetStatusString(CUBLAS_STATUS_MAPPING_ERROR)) ==
        "CUBLAS_STATUS_MAPPING_ERROR");
  int version = -1;
  CHECK(cublasGetVersion(nullptr, &version) == CUBLAS_STATUS_SUCCESS);
  CHECK(version >= 0);
}

// --- cublasLt ------------------------------------------------------------------------------------

namespace {

/// Descriptors of one product; what is null is not given.
struct Lt : Stream {
  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr, d = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
  cublasLtMatmulHeuristicResult_t best{};
  int found = 0;

  explicit Lt(const Shape& s, cudaDataType type = CUDA_R_32F, cudaDataType type_d = CUDA_R_32F,
              int ldd = 0, cublasComputeType_t compute = CUBLAS_COMPUTE_32F) {
    REQUIRE(cublasLtCreate(&handle) == CUBLAS_STATUS_SUCCESS);
    REQUIRE(cublasLtMatmulDescCreate(&desc, compute, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS);
    const auto u = [](int x) { return static_cast<std::uint64_t>(x); };
    create(a, type, u(s.ta ? s.k : s.m), u(s.columns_a()), s.lda, s.batch, s.sa);
    create(b, type, u(s.tb ? s.n : s.k), u(s.columns_b()), s.ldb, s.batch, s.sb);
    create(c, type_d, u(s.m), u(s.n), s.ldc, s.batch, s.sc);
    create(d, type_d, u(s.m), u(s.n), ldd != 0 ? ldd : s.ldc, s.batch, s.sc);
    set(CUBLASLT_MATMUL_DESC_TRANSA, static_cast<std::int32_t>(operation(s.ta)));
    set(CUBLASLT_MATMUL_DESC_TRANSB, static_cast<std::int32_t>(operation(s.tb)));
    REQUIRE(cublasLtMatmulPreferenceCreate(&preference) == CUBLAS_STATUS_SUCCESS);
  }
  ~Lt() {
    cublasLtMatmulPreferenceDestroy(preference);
    for (const cublasLtMatrixLayout_t layout : {a, b, c, d}) cublasLtMatrixLayoutDestroy(layout);
    cublasLtMatmulDescDestroy(desc);
    cublasLtDestroy(handle);
  }

  static void create(cublasLtMatrixLayout_t& layout, cudaDataType type, std::uint64_t rows,
                     std::uint64_t columns, std::int64_t ld, std::int32_t batch,
                     std::int64_t stride) {
    REQUIRE(cublasLtMatrixLayoutCreate(&layout, type, rows, columns, ld) == CUBLAS_STATUS_SUCCESS);
    REQUIRE(change(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, batch) == CUBLAS_STATUS_SUCCESS);
    REQUIRE(change(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, stride) ==
            CUBLAS_STATUS_SUCCESS);
  }
  template <class T>
  static cublasStatus_t change(cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t name,
                               T value) {
    return cublasLtMatrixLayoutSetAttribute(layout, name, &value, sizeof value);
  }
  template <class T>
  cublasStatus_t set(cublasLtMatmulDescAttributes_t name, T value) {
    return cublasLtMatmulDescSetAttribute(desc, name, &value, sizeof value);
  }
  template <class T>
  cublasStatus_t prefer(cublasLtMatmulPreferenceAttributes_t name, T value) {
    return cublasLtMatmulPreferenceSetAttribute(preference, name, &value, sizeof value);
  }
  void epilogue(cublasLtEpilogue_t which, const void* bias) {
    REQUIRE(set(CUBLASLT_MATMUL_DESC_EPILOGUE, static_cast<std::uint32_t>(which)) ==
            CUBLAS_STATUS_SUCCESS);
    REQUIRE(set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias) == CUBLAS_STATUS_SUCCESS);
  }
  cublasStatus_t ask() {
    return cublasLtMatmulAlgoGetHeuristic(handle, desc, a, b, c, d, preference, 1, &best, &found);
  }
};

/// A small product with arguments to spoil, one at a time.
struct LtCall : Lt {
  static Shape shape() {
    Shape s{};
    s.m = 2;
    s.n = 4;
    s.k = 3;
    s.lda = 2;
    s.ldb = 3;
    s.ldc = 2;
    return s;
  }
  OnDevice<float> a_data{std::vector<float>(6, 1.0F)}, b_data{std::vector<float>(12, 1.0F)},
      c_data{std::vector<float>(8, 1.0F)}, bias{std::vector<float>(2, 0.5F)};
  float alpha = 1, beta = 0;
  const void *alpha_at = &alpha, *beta_at = &beta;
  const void *a_at = a_data.data(), *b_at = b_data.data(), *c_at = c_data.data();
  void* d_at = c_data.data();
  const cublasLtMatmulAlgo_t* algorithm = nullptr;
  void* room = nullptr;
  std::size_t room_bytes = 0;

  explicit LtCall(cublasComputeType_t compute = CUBLAS_COMPUTE_32F)
      : Lt(shape(), CUDA_R_32F, CUDA_R_32F, 0, compute) {}
  cublasStatus_t matmul() {
    return cublasLtMatmul(handle, desc, alpha_at, a_at, a, b_at, b, beta_at, c_at, c, d_at, d,
                          algorithm, room, room_bytes, stream);
  }
};

}  // namespace

TEST_CASE("cublasLtMatmul is the product with its epilogue, out of place too") {
  plumb::Rng rng(5);
  double worst = 0;
  constexpr cublasLtEpilogue_t kinds[] = {CUBLASLT_EPILOGUE_DEFAULT, CUBLASLT_EPILOGUE_BIAS,
                                          CUBLASLT_EPILOGUE_GELU, CUBLASLT_EPILOGUE_GELU_BIAS};
  for (int round = 0; round < 80; ++round) {
    Shape s = random_shape(rng, 1 + round % 3 % 2);
    s.sc += 3 * s.n;  // room for another leading dimension
    const cublasLtEpilogue_t kind = kinds[round / 2 % 4];
    const bool in_place = round % 2 == 0;
    const int ldd = in_place ? s.ldc : s.m + 2;
    const auto a = normals(rng, elements_a(s)), b = normals(rng, elements_b(s)),
               c = normals(rng, elements_c(s)), bias = normals(rng, s.m);
    const OnDevice da(a), db(b), dc(c), dbias(bias);
    const OnDevice<float> separate(
        std::vector<float>(c.size() + static_cast<std::size_t>(3 * s.n)));
    float* result = in_place ? dc.data() : separate.data();
    Lt lt(s, CUDA_R_32F, CUDA_R_32F, ldd);
    lt.epilogue(kind, dbias.data());
    for (const auto name :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      REQUIRE(lt.prefer(name, std::uint32_t{16}) == CUBLAS_STATUS_SUCCESS);
    REQUIRE(lt.ask() == CUBLAS_STATUS_SUCCESS);
    REQUIRE(cublasLtMatmul(lt.handle, lt.desc, &s.alpha, da.data(), lt.a, db.data(), lt.b, &s.beta,
                           dc.data(), in_place ? nullptr : lt.c, result, lt.d, &lt.best.algo,
                           nullptr, 0, lt.stream) == CUBLAS_STATUS_SUCCESS);
    const bool with_bias = (kind & CUBLASLT_EPILOGUE_BIAS) != 0;
    Expected e =
        expected(s, a, b, c, with_bias ? &bias : nullptr, (kind & CUBLASLT_EPILOGUE_GELU) != 0);
    const auto d = (in_place ? dc : separate).values();
    for (int z = 0; z < s.batch; ++z)
      for (int j = 0; j < s.n; ++j)
        for (int i = 0; i < s.m; ++i) {
          const auto at = static_cast<std::size_t>(z * s.sc + j * s.ldc + i);
          const auto there = static_cast<std::size_t>(z * s.sc + j * ldd + i);
          worst = std::max(worst, error_at(e, at, d[there]));
        }
  }
  CHECK(worst < 1e-6);
  CHECK(reported() == "");
}

TEST_CASE("cublasLtMatmul in bf16: the bias has the result's type") {
  plumb::Rng rng(6);
  double worst = 0;
  for (int round = 0; round < 20; ++round) {
    const Shape s = random_shape(rng);
    const auto a = to_bf16(normals(rng, elements_a(s))), b = to_bf16(normals(rng, elements_b(s))),
               c = to_bf16(normals(rng, elements_c(s))), bias = to_bf16(normals(rng, s.m));
    const OnDevice da(a), db(b), dc(c), dbias(bias);
    Lt lt(s, CUDA_R_16BF, CUDA_R_16BF);
    lt.epilogue(CUBLASLT_EPILOGUE_BIAS, dbias.data());
    REQUIRE(lt.set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, std::int32_t{CUDA_R_16BF}) ==
            CUBLAS_STATUS_SUCCESS);
    REQUIRE(cublasLtMatmul(lt.handle, lt.desc, &s.alpha, da.data(), lt.a, db.data(), lt.b, &s.beta,
                           dc.data(), lt.c, dc.data(), lt.d, nullptr, nullptr, 0,
                           lt.stream) == CUBLAS_STATUS_SUCCESS);
    const auto wide_bias = from_bf16(bias);
    const Expected e = expected(s, from_bf16(a), from_bf16(b), from_bf16(c), &wide_bias);
    worst = std::max(worst, worst_error(e, from_bf16(dc.values())));
    CHECK(lt.set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, std::int32_t{CUDA_R_32F}) ==
          CUBLAS_STATUS_SUCCESS);
    CHECK(lt.ask() == CUBLAS_STATUS_NOT_SUPPORTED);
  }
  CHECK(worst < 0x1p-8);
  CHECK(worst > 0);
}

TEST_CASE("GELU is the tanh form, not erf's") {
  LtCall call;
  const OnDevice a(std::vector<float>(6, 0.5F));  // each product is 1.5
  call.a_at = a.data();
  call.epilogue(CUBLASLT_EPILOGUE_GELU, nullptr);
  REQUIRE(call.matmul() == CUBLAS_STATUS_SUCCESS);
  const double x = call.c_data.values()[0];
  CHECK(x == doctest::Approx(gelu(1.5)).epsilon(1e-6));
  CHECK(std::abs(x - 0.75 * (1 + std::erf(1.5 / std::sqrt(2.0)))) > 1e-5);
}

TEST_CASE("C with leading dimension 0 is its one column for all, and beta 0 needs no C") {
  LtCall call;
  const OnDevice column(std::vector<float>{10.0F, 20.0F});
  const OnDevice<float> d(std::size_t{8});
  call.c_at = column.data();
  call.d_at = d.data();
  call.beta = 1;
  REQUIRE(Lt::change(call.c, CUBLASLT_MATRIX_LAYOUT_LD, std::int64_t{0}) == CUBLAS_STATUS_SUCCESS);
  REQUIRE(call.matmul() == CUBLAS_STATUS_SUCCESS);
  CHECK(d.values() == std::vector<float>{13, 23, 13, 23, 13, 23, 13, 23});
  call.c_at = nullptr;
  CHECK(call.matmul() == CUBLAS_STATUS_INVALID_VALUE);
  call.beta = 0;
  CHECK(call.matmul() == CUBLAS_STATUS_SUCCESS);
  CHECK(d.values() == std::vector<float>(8, 3.0F));
}

TEST_CASE("cublasLtMatmul refuses what its documentation refuses") {
  const auto refused = [](auto spoil) {
    LtCall call;
    spoil(call);
    const cublasStatus_t status = call.matmul();
    CHECK(call.c_data.values() == std::vector<float>(8, 1.0F));
    return status;
  };
  const auto layout = [&](cublasLtMatrixLayout_t Lt::*which, cublasLtMatrixLayoutAttribute_t name,
                          auto value) {
    return refused(
        [&](LtCall& c) { REQUIRE(Lt::change(c.*which, name, value) == CUBLAS_STATUS_SUCCESS); });
  };
  constexpr auto invalid = CUBLAS_STATUS_INVALID_VALUE;
  constexpr auto rows = CUBLASLT_MATRIX_LAYOUT_ROWS, columns = CUBLASLT_MATRIX_LAYOUT_COLS;
  constexpr std::uint64_t one = 1, zero = 0;
  CHECK(layout(&Lt::a, rows, one) == invalid);
  CHECK(layout(&Lt::a, columns, one) == invalid);
  CHECK(layout(&Lt::b, rows, one) == invalid);
  CHECK(layout(&Lt::b, columns, one) == invalid);
  CHECK(layout(&Lt::c, rows, one) == invalid);
  CHECK(layout(&Lt::d, columns, one) == invalid);
  CHECK(layout(&Lt::a, columns, zero) == invalid);
  CHECK(layout(&Lt::a, CUBLASLT_MATRIX_LAYOUT_LD, std::int64_t{1}) == invalid);
  CHECK(layout(&Lt::d, CUBLASLT_MATRIX_LAYOUT_LD, std::int64_t{1}) == invalid);
  CHECK(layout(&Lt::c, CUBLASLT_MATRIX_LAYOUT_LD, std::int64_t{3}) == invalid);  // in place
  CHECK(layout(&Lt::b, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, std::int32_t{2}) == invalid);
  constexpr auto type = CUBLASLT_MATRIX_LAYOUT_TYPE;
  constexpr std::uint32_t bf16 = CUDA_R_16BF, f16 = CUDA_R_16F;
  CHECK(layout(&Lt::a, type, bf16) == CUBLAS_STATUS_NOT_SUPPORTED);
  CHECK(layout(&Lt::d, type, bf16) == CUBLAS_STATUS_NOT_SUPPORTED);
  CHECK(layout(&Lt::b, type, f16) == CUBLAS_STATUS_NOT_SUPPORTED);
  CHECK(refused([](LtCall& c) { c.alpha_at = nullptr; }) == invalid);
  CHECK(refused([](LtCall& c) { c.beta_at = nullptr; }) == invalid);
  CHECK(refused([](LtCall& c) { c.a_at = nullptr; }) == invalid);
  CHECK(refused([](LtCall& c) { c.b_at = nullptr; }) == invalid);
  CHECK(refused([](LtCall& c) { c.d_at = nullptr; }) == invalid);
  CHECK(refused([](LtCall& c) { c.epilogue(CUBLASLT_EPILOGUE_BIAS, nullptr); }) == invalid);
  CHECK(refused([](LtCall& c) { c.room_bytes = 256; }) == invalid);
  CHECK(reported() == "");
  CHECK(refused([](LtCall& c) {  // a bias of one element for two rows
          c.epilogue(CUBLASLT_EPILOGUE_BIAS, c.bias.data() + 1);
        }) == invalid);
  CHECK(reported() == "illegal-address");
  CHECK(refused([](LtCall& c) { c.alpha_at = c.a_at; }) == invalid);
  CHECK(reported() == "illegal-address");
  CHECK(refused([](LtCall& c) { c.b_at = c.c_data.data(); }) == invalid);
  CHECK(reported() != "");
}

TEST_CASE("descriptors refuse wrong sizes, null, values that are not served, and the destroyed") {
  LtCall call;
  constexpr auto invalid = CUBLAS_STATUS_INVALID_VALUE, unsupported = CUBLAS_STATUS_NOT_SUPPORTED;
  CHECK(call.set(CUBLASLT_MATMUL_DESC_TRANSA, std::int64_t{1}) == invalid);
  CHECK(cublasLtMatmulDescSetAttribute(call.desc, CUBLASLT_MATMUL_DESC_TRANSA, nullptr, 4) ==
        invalid);
  CHECK(call.set(CUBLASLT_MATMUL_DESC_TRANSC, std::int32_t{CUBLAS_OP_T}) == unsupported);
  CHECK(call.set(CUBLASLT_MATMUL_DESC_TRANSA, std::int32_t{CUBLAS_OP_CONJG}) == unsupported);
  CHECK(call.set(CUBLASLT_MATMUL_DESC_EPILOGUE, std::uint32_t{CUBLASLT_EPILOGUE_DGELU}) ==
        unsupported);
  CHECK(call.set(CUBLASLT_MATMUL_DESC_POINTER_MODE, std::int32_t{1}) == unsupported);
  CHECK(Lt::change(call.a, CUBLASLT_MATRIX_LAYOUT_ORDER, std::int32_t{CUBLASLT_ORDER_ROW}) ==
        unsupported);
  CHECK(Lt::change(call.a, CUBLASLT_MATRIX_LAYOUT_LD, std::int32_t{4}) == invalid);
  CHECK(call.prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint32_t{4}) == invalid);
  CHECK(call.prefer(CUBLASLT_MATMUL_PREF_SEARCH_MODE, std::uint32_t{1}) == unsupported);

  std::uint32_t epilogue = 0;
  std::size_t written = 0;
  const auto get = [&](void* to, std::size_t bytes, std::size_t* count) {
    return cublasLtMatmulDescGetAttribute(call.desc, CUBLASLT_MATMUL_DESC_EPILOGUE, to, bytes,
                                          count);
  };
  CHECK(get(nullptr, 0, &written) == CUBLAS_STATUS_SUCCESS);
  CHECK(written == 4);
  CHECK(get(&epilogue, 4, nullptr) == CUBLAS_STATUS_SUCCESS);
  CHECK(epilogue == CUBLASLT_EPILOGUE_DEFAULT);
  CHECK(get(nullptr, 0, nullptr) == invalid);
  CHECK(get(&epilogue, 3, &written) == invalid);
  CHECK(get(nullptr, 4, &written) == invalid);

  cublasLtMatmulDesc_t desc = nullptr;
  CHECK(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_16F, CUDA_R_16F) == unsupported);
  CHECK(cublasLtMatmulDescCreate(nullptr, CUBLAS_COMPUTE_32F, CUDA_R_32F) == invalid);
  REQUIRE(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_64F) == CUBLAS_STATUS_SUCCESS);
  const cublasLtMatmulDesc_t kept = call.desc;
  call.desc = desc;
  CHECK(call.matmul() == unsupported);  // alpha in double
  CHECK(cublasLtMatmulDescDestroy(desc) == CUBLAS_STATUS_SUCCESS);
  CHECK(cublasLtMatmulDescDestroy(desc) == invalid);
  CHECK(call.matmul() == invalid);
  call.desc = kept;
  const cublasLtHandle_t handle = call.handle;
  call.handle = nullptr;
  CHECK(call.matmul() == CUBLAS_STATUS_NOT_INITIALIZED);
  call.handle = handle;
  CHECK(call.matmul() == CUBLAS_STATUS_SUCCESS);
}

TEST_CASE(
    "the heuristic's algorithm serves what it was asked for, with its workspace and alignment") {
  LtCall call;
  CHECK(cublasLtMatmulAlgoGetHeuristic(call.handle, call.desc, call.a, call.b, call.c, call.d,
                                       call.preference, 0, &call.best,
                                       &call.found) == CUBLAS_STATUS_INVALID_VALUE);
  REQUIRE(call.ask() == CUBLAS_STATUS_SUCCESS);
  CHECK(call.found == 1);
  CHECK(call.best.state == CUBLAS_STATUS_SUCCESS);
  CHECK(call.best.workspaceSize == 0);
  call.algorithm = &call.best.algo;
  CHECK(call.matmul() == CUBLAS_STATUS_SUCCESS);

  SUBCASE("other types or another epilogue") {
    call.epilogue(CUBLASLT_EPILOGUE_BIAS, call.bias.data());
    CHECK(call.matmul() == CUBLAS_STATUS_INVALID_VALUE);
    REQUIRE(call.ask() == CUBLAS_STATUS_SUCCESS);
    CHECK(call.matmul() == CUBLAS_STATUS_SUCCESS);
    const cublasLtMatmulAlgo_t zeros{};
    call.algorithm = &zeros;
    CHECK(call.matmul() == CUBLAS_STATUS_INVALID_VALUE);
  }
  SUBCASE("an operand less aligned than promised") {
    const OnDevice<float> b(std::size_t{16});
    call.b_at = b.data() + 1;
    CHECK(call.matmul() == CUBLAS_STATUS_INVALID_VALUE);
    REQUIRE(call.prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, std::uint32_t{4}) ==
            CUBLAS_STATUS_SUCCESS);
    REQUIRE(call.ask() == CUBLAS_STATUS_SUCCESS);
    CHECK(call.matmul() == CUBLAS_STATUS_SUCCESS);
  }
  SUBCASE("a workspace that it may have, it needs") {
    REQUIRE(call.prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{1 << 20}) ==
            CUBLAS_STATUS_SUCCESS);
    REQUIRE(call.ask() == CUBLAS_STATUS_SUCCESS);
    REQUIRE(call.best.workspaceSize > 0);
    CHECK(call.matmul() == CUBLAS_STATUS_INVALID_VALUE);
    const OnDevice<float> room(call.best.workspaceSize / sizeof(float) + 1);
    call.room = room.data();
    call.room_bytes = call.best.workspaceSize;
    CHECK(call.matmul() == CUBLAS_STATUS_SUCCESS);
    call.room_bytes -= 1;
    CHECK(call.matmul() == CUBLAS_STATUS_INVALID_VALUE);
    call.room_bytes += 1;
    call.room = room.data() + 1;
    CHECK(call.matmul() == CUBLAS_STATUS_INVALID_VALUE);
  }
}

// --- Faults on purpose, graphs, leaks
// --------------------------------------------------------------

TEST_CASE("any call can be made to fail, once, without doing anything") {
  Call call;
  inject_cublas("cublasSgemm_v2", 1, CUBLAS_STATUS_INTERNAL_ERROR);
  CHECK(cublasSetMathMode(call.handle, CUBLAS_DEFAULT_MATH) == CUBLAS_STATUS_SUCCESS);
  CHECK(call.sgemm() == CUBLAS_STATUS_SUCCESS);
  CHECK(call.c.values()[0] == 3.0F);
  call.alpha = 2;
  CHECK(call.sgemm() == CUBLAS_STATUS_INTERNAL_ERROR);
  CHECK(call.c.values()[0] == 3.0F);
  CHECK(call.sgemm() == CUBLAS_STATUS_SUCCESS);
  CHECK(call.c.values()[0] == 6.0F);

  const std::size_t live = live_cublas_objects();
  cublasHandle_t other = nullptr;
  inject_cublas("*", 0, CUBLAS_STATUS_ALLOC_FAILED);
  CHECK(cublasCreate(&other) == CUBLAS_STATUS_ALLOC_FAILED);
  CHECK(other == nullptr);
  CHECK(live_cublas_objects() == live);

  LtCall lt;
  inject_cublas("cublasLtMatmul", 0, CUBLAS_STATUS_ARCH_MISMATCH);
  CHECK(lt.ask() == CUBLAS_STATUS_SUCCESS);
  CHECK(lt.matmul() == CUBLAS_STATUS_ARCH_MISMATCH);
  CHECK(lt.matmul() == CUBLAS_STATUS_SUCCESS);

  inject("cublasLtMatmul", 0, cudaErrorMemoryAllocation);  // the runtime's way
  const std::uint64_t before = calls("cublasLtMatmul");
  CHECK(lt.matmul() == CUBLAS_STATUS_ALLOC_FAILED);
  CHECK(calls("cublasLtMatmul") == before + 1);
  inject("cublasSgemm_v2", 0, cudaErrorLaunchFailure);
  CHECK(call.sgemm() == CUBLAS_STATUS_EXECUTION_FAILED);

  inject_cublas("cublasSgemm_v2", 0, CUBLAS_STATUS_INTERNAL_ERROR);
  inject_cublas(nullptr, 0, CUBLAS_STATUS_SUCCESS);
  CHECK(call.sgemm() == CUBLAS_STATUS_SUCCESS);
}

TEST_CASE("a product in a graph runs with the graph, as often as that") {
  Call call;
  call.beta = 1;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t instance = nullptr;
  REQUIRE(cudaStreamBeginCapture(call.stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  CHECK(call.sgemm() == CUBLAS_STATUS_SUCCESS);
  REQUIRE(cudaStreamEndCapture(call.stream, &graph) == cudaSuccess);
  call.alpha = 100;  // as it was when captured
  CHECK(call.c.values()[0] == 1.0F);
  REQUIRE(cudaGraphInstantiate(&instance, graph, 0) == cudaSuccess);
  for (int i = 0; i < 3; ++i) REQUIRE(cudaGraphLaunch(instance, call.stream) == cudaSuccess);
  CHECK(call.c.values()[0] == 1.0F + 3 * 3.0F);
  CHECK(cudaGraphExecDestroy(instance) == cudaSuccess);
  CHECK(cudaGraphDestroy(graph) == cudaSuccess);
  CHECK(reported() == "");
}

TEST_CASE("nothing of cuBLAS is left alive") {
  const std::size_t before = live_cublas_objects();
  { const LtCall call; }
  CHECK(live_cublas_objects() == before);
  CHECK(before == 0);
}
