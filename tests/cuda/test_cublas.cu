// The emulator's cuBLAS and cublasLt against a double loop, and what they are to refuse. For the
// emulator only: it steers the stand-ins and reads what they report.
#include <emulator/cublas.hpp>
#include <emulator/runtime.hpp>
#include <plumb/core/random.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

using namespace plumb::emulator;

namespace {

constexpr auto kInvalid = CUBLAS_STATUS_INVALID_VALUE, kUnsupported = CUBLAS_STATUS_NOT_SUPPORTED,
               kSuccess = CUBLAS_STATUS_SUCCESS;

/// A copy of host values in device memory.
class OnDevice {
 public:
  explicit OnDevice(const std::vector<float>& host) : n_(host.size()) {
    void* memory = nullptr;
    REQUIRE(cudaMalloc(&memory, n_ * sizeof(float)) == cudaSuccess);
    data_ = static_cast<float*>(memory);
    REQUIRE(cudaMemcpy(data_, host.data(), n_ * sizeof(float), cudaMemcpyHostToDevice) ==
            cudaSuccess);
    // The tests' streams do not wait for the default one, in which the copy may still be queued.
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  }
  ~OnDevice() { cudaFree(data_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

  float* data() const { return data_; }
  std::vector<float> values() const {
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
    std::vector<float> host(n_);
    REQUIRE(cudaMemcpy(host.data(), data_, n_ * sizeof(float), cudaMemcpyDeviceToHost) ==
            cudaSuccess);
    return host;
  }

 private:
  float* data_ = nullptr;
  std::size_t n_;
};

std::vector<float> normals(plumb::Rng& rng, int n) {
  std::vector<float> x(static_cast<std::size_t>(n));
  for (float& v : x) v = rng.normal();
  return x;
}

/// The kinds that were reported since the last call.
std::string reported() {
  std::string kinds;
  for (const Error& error : take_errors()) kinds += (kinds.empty() ? "" : " ") + error.kind;
  return kinds;
}

double gelu(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

/// A product with arguments to spoil, one at a time; by either library. A is (2, 3), B (3, 4), all
/// ones, unless said otherwise.
struct Call {
  int m = 2, n = 4, k = 3, lda = 2, ldb = 3, ldc = 2;
  cublasOperation_t ta = CUBLAS_OP_N, tb = CUBLAS_OP_N;
  float alpha = 1, beta = 0;
  const float *alpha_at = &alpha, *beta_at = &beta;
  std::vector<float> a_host = std::vector<float>(6, 1.0F), b_host = std::vector<float>(12, 1.0F),
                     c_host = std::vector<float>(8, 1.0F), bias_host = std::vector<float>(2, 1.0F);
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  // From here on after ready().
  const float *a = nullptr, *b = nullptr, *c = nullptr, *bias = nullptr;
  float* d = nullptr;
  cudaStream_t stream = nullptr;
  cublasHandle_t handle = nullptr;
  cublasLtHandle_t lt = nullptr;
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t of_a = nullptr, of_b = nullptr, of_c = nullptr, of_d = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
  cublasLtMatmulHeuristicResult_t best{};
  void* room = nullptr;
  std::size_t room_bytes = 0;

  Call() = default;
  ~Call() {
    cublasLtMatmulPreferenceDestroy(preference);
    for (auto* layout : {of_a, of_b, of_c, of_d}) cublasLtMatrixLayoutDestroy(layout);
    cublasLtMatmulDescDestroy(desc);
    cublasLtDestroy(lt);
    cublasDestroy(handle);
    cudaStreamDestroy(stream);
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  /// The operands on the device.
  struct Memory {
    OnDevice a, b, c, bias;
  };
  /// Makes handles and layouts for `memory`, which holds the operands.
  Call& ready(const Memory& memory) {
    a = memory.a.data(), b = memory.b.data(), c = d = memory.c.data(), bias = memory.bias.data();
    REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    REQUIRE(cublasCreate(&handle) == kSuccess);
    REQUIRE(cublasSetStream(handle, stream) == kSuccess);
    REQUIRE(cublasLtCreate(&lt) == kSuccess);
    REQUIRE(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F) == kSuccess);
    REQUIRE(cublasLtMatmulPreferenceCreate(&preference) == kSuccess);
    for (const auto attribute :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      REQUIRE(prefer(attribute, 16U) == kSuccess);
    const auto layout = [](cublasLtMatrixLayout_t& to, int rows, int columns, int ld) {
      REQUIRE(cublasLtMatrixLayoutCreate(&to, CUDA_R_32F, static_cast<std::uint64_t>(rows),
                                         static_cast<std::uint64_t>(columns), ld) == kSuccess);
    };
    ta == CUBLAS_OP_T ? layout(of_a, k, m, lda) : layout(of_a, m, k, lda);
    tb == CUBLAS_OP_T ? layout(of_b, n, k, ldb) : layout(of_b, k, n, ldb);
    layout(of_c, m, n, ldc);
    layout(of_d, m, n, ldc);
    REQUIRE(set(CUBLASLT_MATMUL_DESC_TRANSA, ta) == kSuccess);
    REQUIRE(set(CUBLASLT_MATMUL_DESC_TRANSB, tb) == kSuccess);
    REQUIRE(set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue) == kSuccess);
    REQUIRE(set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias) == kSuccess);
    return *this;
  }
  Memory memory() const {
    return {OnDevice(a_host), OnDevice(b_host), OnDevice(c_host), OnDevice(bias_host)};
  }
  template <class T>
  cublasStatus_t set(cublasLtMatmulDescAttributes_t attribute, T value) {
    return cublasLtMatmulDescSetAttribute(desc, attribute, &value, sizeof value);
  }
  template <class T>
  cublasStatus_t prefer(cublasLtMatmulPreferenceAttributes_t attribute, T value) {
    return cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value);
  }
  cublasStatus_t sgemm() {
    return cublasSgemm(handle, ta, tb, m, n, k, alpha_at, a, lda, b, ldb, beta_at, d, ldc);
  }
  cublasStatus_t ask() {
    int found = 0;
    const auto status = cublasLtMatmulAlgoGetHeuristic(lt, desc, of_a, of_b, of_c, of_d, preference,
                                                       1, &best, &found);
    CHECK(found == (status == kSuccess ? 1 : 0));
    return status;
  }
  cublasStatus_t matmul() {
    return cublasLtMatmul(lt, desc, alpha_at, a, of_a, b, of_b, beta_at, c, of_c, d, of_d,
                          &best.algo, room, room_bytes, stream);
  }
};

/// Both libraries' call of a product, asked of the heuristic before it is spoilt. What is refused
/// leaves C as it was.
template <class Spoil>
void check_refused(Spoil spoil, const std::string& report, bool by_lt) {
  Call call;
  const auto memory = call.memory();
  call.ready(memory);
  REQUIRE(call.ask() == kSuccess);
  spoil(call);
  CHECK((by_lt ? call.matmul() : call.sgemm()) == kInvalid);
  CHECK(memory.c.values() == call.c_host);
  CHECK(reported() == report);
}

}  // namespace

TEST_CASE("both libraries give the product, in random shapes, with every epilogue of cublasLt") {
  plumb::Rng rng(1);
  constexpr cublasLtEpilogue_t kEpilogues[] = {CUBLASLT_EPILOGUE_DEFAULT, CUBLASLT_EPILOGUE_BIAS,
                                               CUBLASLT_EPILOGUE_GELU, CUBLASLT_EPILOGUE_GELU_BIAS};
  const float factors[] = {0.0F, 1.0F, -0.5F, 1.75F};
  const auto below = [&](int n) {
    return static_cast<int>(rng.below(static_cast<std::uint32_t>(n)));
  };
  double worst = 0;
  for (int round = 0; round < 160; ++round) {
    Call call;
    call.m = 1 + below(40), call.n = 1 + below(40), call.k = 1 + below(70);
    const bool ta = below(2) == 1, tb = below(2) == 1, by_lt = round % 2 == 0;
    call.ta = ta ? CUBLAS_OP_T : CUBLAS_OP_N, call.tb = tb ? CUBLAS_OP_T : CUBLAS_OP_N;
    call.lda = (ta ? call.k : call.m) + below(5), call.ldb = (tb ? call.n : call.k) + below(5);
    call.ldc = call.m + below(5);
    call.alpha = factors[below(4)], call.beta = factors[below(4)];
    if (by_lt) call.epilogue = kEpilogues[round / 2 % 4];
    call.a_host = normals(rng, call.lda * (ta ? call.m : call.k));
    call.b_host = normals(rng, call.ldb * (tb ? call.k : call.n));
    call.c_host = normals(rng, call.ldc * call.n);
    call.bias_host = normals(rng, call.m);
    if (call.beta == 0)  // then C holds no numbers
      std::fill(call.c_host.begin(), call.c_host.end(), std::numeric_limits<float>::quiet_NaN());
    const auto memory = call.memory();
    const OnDevice apart(std::vector<float>(call.c_host.size(), -7.0F));
    call.ready(memory);
    if (by_lt && round % 4 == 0) call.d = apart.data();  // out of place
    if (by_lt) {
      REQUIRE(call.ask() == kSuccess);
      REQUIRE(call.matmul() == kSuccess);
    } else {
      REQUIRE(call.sgemm() == kSuccess);
    }
    const auto got = (call.d == apart.data() ? apart : memory.c).values();
    const auto at = [](const std::vector<float>& x, int i) {
      return static_cast<double>(x[static_cast<std::size_t>(i)]);
    };
    for (int j = 0; j < call.n; ++j)
      for (int i = 0; i < call.ldc; ++i) {
        const double value = at(got, j * call.ldc + i);
        if (i >= call.m) {  // between the columns
          const double before = call.d == apart.data() ? -7.0 : at(call.c_host, j * call.ldc + i);
          CHECK((value == before || (std::isnan(value) && std::isnan(before))));
          continue;
        }
        double sum = 0, size = 1e-3;
        for (int p = 0; p < call.k; ++p) {
          const double term = at(call.a_host, ta ? i * call.lda + p : p * call.lda + i) *
                              at(call.b_host, tb ? p * call.ldb + j : j * call.ldb + p);
          sum += term;
          size += std::abs(term);
        }
        double x = call.alpha * sum;
        if (call.beta != 0) x += call.beta * at(call.c_host, j * call.ldc + i);
        if ((call.epilogue & CUBLASLT_EPILOGUE_BIAS) != 0) x += at(call.bias_host, i);
        if ((call.epilogue & CUBLASLT_EPILOGUE_GELU) != 0) x = gelu(x);
        const double error = std::abs(value - x) / (size + 8);
        worst = error <= worst ? worst : std::isnan(error) ? INFINITY : error;
      }
  }
  CHECK(worst < 1e-6);
  CHECK(reported() == "");
}

TEST_CASE("GELU is the tanh form, not erf's") {
  Call call;
  call.a_host.assign(6, 0.5F);  // each product is 1.5
  call.epilogue = CUBLASLT_EPILOGUE_GELU;
  const auto memory = call.memory();
  call.ready(memory);
  REQUIRE(call.ask() == kSuccess);
  REQUIRE(call.matmul() == kSuccess);
  const double x = memory.c.values()[0];
  CHECK(x == doctest::Approx(gelu(1.5)).epsilon(1e-6));
  CHECK(std::abs(x - 0.75 * (1 + std::erf(1.5 / std::sqrt(2.0)))) > 1e-5);
}

TEST_CASE("sums run in an order that is not the obvious one") {
  plumb::Rng rng(4);
  Call call;
  call.m = call.n = call.lda = call.ldc = 1;
  call.k = call.ldb = 300;
  call.a_host = normals(rng, 300);
  call.b_host = normals(rng, 300);
  const auto memory = call.memory();
  REQUIRE(call.ready(memory).sgemm() == kSuccess);
  float chain = 0;
  for (std::size_t i = 0; i < 300; ++i) chain = std::fma(call.a_host[i], call.b_host[i], chain);
  CHECK(memory.c.values()[0] != chain);
  CHECK(memory.c.values()[0] == doctest::Approx(chain).epsilon(1e-4));
}

TEST_CASE("alpha and beta are read by the call, operands when the stream runs; k may be 0") {
  Call call;
  const auto memory = call.memory();
  REQUIRE(call.ready(memory).sgemm() == kSuccess);
  call.alpha = 100;
  CHECK(memory.c.values() == std::vector<float>(8, 3.0F));
  call.k = 0;
  call.beta = 2;
  CHECK(call.sgemm() == kSuccess);
  CHECK(memory.c.values() == std::vector<float>(8, 6.0F));
  call.m = 0;
  CHECK(call.sgemm() == kSuccess);
  CHECK(memory.c.values() == std::vector<float>(8, 6.0F));
}

TEST_CASE("cublasSgemm refuses what its documentation refuses") {
  const auto refused = [](auto spoil) { check_refused(spoil, "", false); };
  refused([](Call& c) { c.m = -1; });
  refused([](Call& c) { c.n = -1; });
  refused([](Call& c) { c.k = -1; });
  refused([](Call& c) { c.lda = 1; });
  refused([](Call& c) { c.ldb = 2; });
  refused([](Call& c) { c.ldc = 1; });
  refused([](Call& c) { c.ta = CUBLAS_OP_T; });  // lda < k
  refused([](Call& c) { c.tb = CUBLAS_OP_T; });  // ldb < n
  refused([](Call& c) { c.ta = static_cast<cublasOperation_t>(3); });
  refused([](Call& c) { c.alpha_at = nullptr; });
  refused([](Call& c) { c.beta_at = nullptr; });
}

TEST_CASE("memory that is not the device's, too small, or overlapping is reported by both") {
  const std::vector<float> host(12, 1.0F);
  for (const bool by_lt : {false, true}) {
    CAPTURE(by_lt);
    const auto refused = [&](auto spoil, const char* report) {
      check_refused(spoil, report, by_lt);
    };
    refused([&](Call& c) { c.b = host.data(); }, "illegal-address");
    refused([](Call& c) { c.a += 4; }, "illegal-address");
    refused([](Call& c) { c.alpha_at = c.a; }, "illegal-address");
    refused([](Call& c) { c.c = c.d = const_cast<float*>(c.b); }, "race");
  }
}

TEST_CASE("memory that is gone when the stream comes to the product is reported") {
  const Order before = schedule_order();
  set_schedule(Order::reverse);  // the other stream first
  Call call;
  const auto operands = call.memory();
  call.ready(operands);
  cudaStream_t other = nullptr;
  REQUIRE(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking) == cudaSuccess);
  void* memory = nullptr;
  REQUIRE(cudaMallocAsync(&memory, 12 * sizeof(float), call.stream) == cudaSuccess);
  REQUIRE(cudaStreamSynchronize(call.stream) == cudaSuccess);
  call.b = static_cast<const float*>(memory);
  CHECK(call.sgemm() == kSuccess);
  CHECK(cudaFreeAsync(memory, other) == cudaSuccess);
  CHECK(cudaStreamSynchronize(call.stream) == cudaErrorIllegalAddress);
  CHECK(reported() == "illegal-address");
  cudaStreamDestroy(other);
  set_schedule(before);
}

TEST_CASE("a workspace is checked, overwritten, and forgotten with the stream") {
  Call call;
  const auto memory = call.memory();
  call.ready(memory);
  const OnDevice room(std::vector<float>(256, 5.0F));
  const std::vector<float> host(1024);
  const auto give = [&](const float* at, std::size_t bytes) {
    return cublasSetWorkspace(call.handle, const_cast<float*>(at), bytes);
  };
  CHECK(give(room.data() + 1, 512) == kInvalid);
  CHECK(give(nullptr, 512) == kInvalid);
  CHECK(give(host.data(), 512) == kInvalid);
  CHECK(give(room.data(), 2000) == kInvalid);
  CHECK(give(room.data(), 512) == kSuccess);
  REQUIRE(call.sgemm() == kSuccess);
  CHECK(std::isnan(room.values()[127]));
  CHECK(room.values()[128] == 5.0F);
  CHECK(give(call.b, 48) == kSuccess);  // an operand in it
  CHECK(call.sgemm() == kInvalid);
  CHECK(reported() == "race");
  REQUIRE(cublasSetStream(call.handle, call.stream) == kSuccess);
  CHECK(call.sgemm() == kSuccess);
}

TEST_CASE("cublasLt refuses wrong sizes, shapes that do not fit, and what it does not serve") {
  Call call;
  const auto memory = call.memory();
  call.ready(memory);
  CHECK(call.set(CUBLASLT_MATMUL_DESC_TRANSA, std::int64_t{1}) == kInvalid);
  CHECK(cublasLtMatmulDescSetAttribute(call.desc, CUBLASLT_MATMUL_DESC_TRANSA, nullptr, 4) ==
        kInvalid);
  CHECK(call.set(CUBLASLT_MATMUL_DESC_TRANSA, std::int32_t{2}) == kUnsupported);
  CHECK(call.set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_RELU) == kUnsupported);
  CHECK(call.prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, 4U) == kInvalid);
  CHECK(cublasSetMathMode(call.handle, CUBLAS_TF32_TENSOR_OP_MATH) == kUnsupported);
  cublasLtMatrixLayout_t halves = nullptr;
  CHECK(cublasLtMatrixLayoutCreate(&halves, CUDA_R_16BF, 2, 3, 2) == kUnsupported);
  CHECK(call.ask() == kSuccess);
  CHECK(call.set(CUBLASLT_MATMUL_DESC_TRANSB, CUBLAS_OP_T) == kSuccess);  // B is (3, 4)
  CHECK(call.ask() == kInvalid);
  CHECK(call.matmul() == kInvalid);
  std::swap(call.of_c, call.of_a);
  CHECK(call.ask() == kInvalid);
}

TEST_CASE(
    "the heuristic's algorithm serves what it was asked for, with its workspace and alignment") {
  Call call;
  const auto memory = call.memory();
  call.ready(memory);
  CHECK(call.matmul() == kInvalid);  // of no algorithm
  REQUIRE(call.ask() == kSuccess);
  CHECK(call.matmul() == kSuccess);
  SUBCASE("another epilogue, one without its bias") {
    REQUIRE(call.set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS) == kSuccess);
    CHECK(call.matmul() == kInvalid);
    REQUIRE(call.ask() == kSuccess);
    CHECK(call.matmul() == kSuccess);
    REQUIRE(call.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<float*>(nullptr)) == kSuccess);
    CHECK(call.matmul() == kInvalid);
    REQUIRE(call.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, call.bias + 1) == kSuccess);
    CHECK(call.matmul() == kInvalid);  // one element for two rows
    CHECK(reported() == "illegal-address");
  }
  SUBCASE("an operand less aligned than promised") {
    const OnDevice b(std::vector<float>(16, 1.0F));
    call.b = b.data() + 1;
    CHECK(call.matmul() == kInvalid);
    REQUIRE(call.prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, 4U) == kSuccess);
    REQUIRE(call.ask() == kSuccess);
    CHECK(call.matmul() == kSuccess);
  }
  SUBCASE("a workspace that it may have, it needs") {
    const std::uint64_t bytes = 512;
    REQUIRE(call.prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, bytes) == kSuccess);
    REQUIRE(call.ask() == kSuccess);
    CHECK(call.matmul() == kInvalid);
    const OnDevice room(std::vector<float>(256));
    call.room = room.data();
    call.room_bytes = bytes;
    CHECK(call.matmul() == kSuccess);
    call.room = room.data() + 1;
    CHECK(call.matmul() == kInvalid);
  }
}

TEST_CASE("what is no object, or was destroyed, is refused, and nothing is left alive") {
  REQUIRE(live_cublas_objects() == 0);
  {
    Call call;
    const auto memory = call.memory();
    call.ready(memory);
    REQUIRE(call.ask() == kSuccess);
    cublasHandle_t other = nullptr;
    REQUIRE(cublasCreate(&other) == kSuccess);
    REQUIRE(cublasDestroy(other) == kSuccess);
    for (const cublasHandle_t none : {cublasHandle_t{}, other}) {
      CHECK(cublasSetStream(none, nullptr) == CUBLAS_STATUS_NOT_INITIALIZED);
      CHECK(cublasSetWorkspace(none, nullptr, 0) == CUBLAS_STATUS_NOT_INITIALIZED);
      CHECK(cublasSetMathMode(none, CUBLAS_DEFAULT_MATH) == CUBLAS_STATUS_NOT_INITIALIZED);
      CHECK(cublasDestroy(none) == CUBLAS_STATUS_NOT_INITIALIZED);
      std::swap(call.handle, other);
      CHECK(call.sgemm() == CUBLAS_STATUS_NOT_INITIALIZED);
      std::swap(call.handle, other);
    }
    CHECK(cublasLtMatmulDescDestroy(nullptr) == kInvalid);
    REQUIRE(cublasLtMatrixLayoutDestroy(call.of_b) == kSuccess);
    CHECK(cublasLtMatrixLayoutDestroy(call.of_b) == kInvalid);
    CHECK(call.ask() == kInvalid);
    CHECK(call.matmul() == kInvalid);
  }
  CHECK(live_cublas_objects() == 0);
}

TEST_CASE("any call can be made to fail, once, without doing anything") {
  Call call;
  const auto memory = call.memory();
  call.ready(memory);
  REQUIRE(call.ask() == kSuccess);
  inject_cublas("cublasSgemm_v2", CUBLAS_STATUS_INTERNAL_ERROR);
  CHECK(call.matmul() == kSuccess);
  call.alpha = 2;
  CHECK(call.sgemm() == CUBLAS_STATUS_INTERNAL_ERROR);
  CHECK(memory.c.values()[0] == 3.0F);
  CHECK(call.sgemm() == kSuccess);
  CHECK(memory.c.values()[0] == 6.0F);
  inject("cublasLtMatmul", 0, cudaErrorMemoryAllocation);  // the runtime's way
  const std::uint64_t before = calls("cublasLtMatmul");
  CHECK(call.matmul() == CUBLAS_STATUS_ALLOC_FAILED);
  CHECK(calls("cublasLtMatmul") == before + 1);
}

TEST_CASE("a product in a graph runs with the graph, as often as that") {
  Call call;
  call.beta = 1;
  const auto memory = call.memory();
  call.ready(memory);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t instance = nullptr;
  REQUIRE(cudaStreamBeginCapture(call.stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  CHECK(call.sgemm() == kSuccess);
  REQUIRE(cudaStreamEndCapture(call.stream, &graph) == cudaSuccess);
  call.alpha = 100;  // as it was when captured
  CHECK(memory.c.values()[0] == 1.0F);
  REQUIRE(cudaGraphInstantiate(&instance, graph, 0) == cudaSuccess);
  for (int i = 0; i < 3; ++i) REQUIRE(cudaGraphLaunch(instance, call.stream) == cudaSuccess);
  CHECK(memory.c.values()[0] == 1.0F + 3 * 3.0F);
  CHECK(cudaGraphExecDestroy(instance) == cudaSuccess);
  CHECK(cudaGraphDestroy(graph) == cudaSuccess);
  CHECK(reported() == "");
}
