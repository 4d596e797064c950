// cuBLAS and cublasLt, stood in for: what gemm_vendor.cuh calls of them, in float. The prototypes
// come from the toolkit's own headers where there is a toolkit: compiled with
// -Wmissing-declarations, a function that changed or went is an error. See cublas.hpp for what is
// promised. Column-major throughout, as in BLAS. Order of reduction: pairwise over k from groups of
// kGroup products. Cost: 2·m·n·k FLOPs on one host thread, about 1 ns each.
#include <emulator/cublas.hpp>
#include <emulator/runtime.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <mutex>
#include <new>
#include <set>
#include <string>
#include <type_traits>
#include <vector>

using namespace plumb::emulator;

struct cublasContext {
  cudaStream_t stream = nullptr;
  void* workspace = nullptr;
  std::size_t workspace_bytes = 0;
};

namespace {

constexpr std::int64_t kGroup = 8;
constexpr std::size_t kWorkspaceAlignment = 256;

/// Created objects by address (what was never created, or destroyed already, is found out), and
/// the injection.
struct State {
  std::mutex mutex;
  std::set<const void*> objects;
  std::string function;
  cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
};
State& state() {
  static auto* one = new State;  // outlives the threads' handles
  return *one;
}
bool is_object(const void* object) {
  const std::lock_guard lock(state().mutex);
  return state().objects.count(object) != 0;
}
bool remove_object(const void* object) {
  const std::lock_guard lock(state().mutex);
  return state().objects.erase(object) != 0;
}
void add_object(const void* object) {
  const std::lock_guard lock(state().mutex);
  state().objects.insert(object);
}

/// Counts a call and says with what it is to fail; success if it is not.
cublasStatus_t injected_status(const char* function) {
  if (const cudaError_t error = injected(function); error != cudaSuccess)
    return error == cudaErrorMemoryAllocation ? CUBLAS_STATUS_ALLOC_FAILED
                                              : CUBLAS_STATUS_EXECUTION_FAILED;
  const std::lock_guard lock(state().mutex);
  if (state().function != function) return CUBLAS_STATUS_SUCCESS;
  state().function.clear();
  return state().status;
}
/// First thing in every function of the libraries.
#define PLUMB_CUBLAS_INJECTION                                                                  \
  if (const cublasStatus_t wanted = injected_status(__func__); wanted != CUBLAS_STATUS_SUCCESS) \
  return wanted

// --- The product ---------------------------------------------------------------------------------

/// A matrix as it is stored.
struct Matrix {
  const char* name = "";
  const float* data = nullptr;
  std::int64_t rows = 0, columns = 0, ld = 1;

  bool fits() const { return rows >= 0 && columns >= 0 && ld >= std::max<std::int64_t>(1, rows); }
  std::uintptr_t first() const { return reinterpret_cast<std::uintptr_t>(data); }
  std::size_t bytes() const {
    if (rows == 0 || columns == 0) return 0;
    return static_cast<std::size_t>((columns - 1) * ld + rows) * sizeof(float);
  }
  bool overlaps(const Matrix& other) const {
    return first() < other.first() + other.bytes() && other.first() < first() + bytes();
  }
};

/// d (m, n) = gelu(alpha · op(a) (m, k) · op(b) (k, n) + beta · c (m, n) + bias (m) in every
/// column); c lies as d does.
struct Product {
  std::int64_t m = 0, n = 0, k = 0;
  bool transpose_a = false, transpose_b = false;
  Matrix a, b, c, bias;
  float* d = nullptr;
  void* workspace = nullptr;
  std::size_t workspace_bytes = 0;
  float alpha = 1, beta = 0;
  bool gelu = false;

  Matrix result() const { return {"the result", d, m, n, c.ld}; }
  Matrix addend() const { return beta != 0 ? c : Matrix{}; }
  Matrix room() const {
    const auto floats = static_cast<std::int64_t>(workspace_bytes / sizeof(float));
    return {"the workspace", static_cast<const float*>(workspace), floats, 1, floats};
  }
};

Product product_of(std::int64_t m, std::int64_t n, std::int64_t k, bool transpose_a,
                   bool transpose_b, const float* a, std::int64_t lda, const float* b,
                   std::int64_t ldb, const float* c, float* d, std::int64_t ldc) {
  return {m,
          n,
          k,
          transpose_a,
          transpose_b,
          {"A", a, transpose_a ? k : m, transpose_a ? m : k, lda},
          {"B", b, transpose_b ? n : k, transpose_b ? k : n, ldb},
          {"C", c, m, n, ldc},
          {"the bias", nullptr, 0, 1, 1},
          d};
}

float dot(const float* a, const float* b, std::int64_t n) {
  if (n <= kGroup) {
    float sum = 0;
    for (std::int64_t i = n; i-- > 0;) sum = std::fma(a[i], b[i], sum);
    return sum;
  }
  const std::int64_t half = (n / 2 + kGroup - 1) / kGroup * kGroup;
  return dot(a, b, half) + dot(a + half, b + half, n - half);
}

/// The tanh form (Hendrycks and Gimpel 2016). cuBLAS's documentation does not say which; PyTorch
/// found its epilogue to be this one (pytorch/pytorch#104061).
float gelu(float x) {
  return 0.5F * x * (1.0F + std::tanh(0.7978845608F * (x + 0.044715F * x * x * x)));
}

/// Lines of k elements, contiguous in k: rows of op(a) or columns of op(b).
std::vector<float> gather(const Matrix& x, std::int64_t lines, std::int64_t k, bool along_columns) {
  std::vector<float> out;
  out.reserve(static_cast<std::size_t>(lines * k));
  for (std::int64_t i = 0; i < lines; ++i)
    for (std::int64_t p = 0; p < k; ++p)
      out.push_back(along_columns ? x.data[i * x.ld + p] : x.data[p * x.ld + i]);
  return out;
}

void compute(const Product& p) {
  // Whoever keeps data where the library may write loses it.
  if (p.workspace != nullptr) std::memset(p.workspace, 0xFF, p.workspace_bytes);
  const auto a = gather(p.a, p.m, p.k, p.transpose_a), b = gather(p.b, p.n, p.k, !p.transpose_b);
  for (std::int64_t j = 0; j < p.n; ++j) {
    for (std::int64_t i = 0; i < p.m; ++i) {
      float x = p.alpha * dot(a.data() + i * p.k, b.data() + j * p.k, p.k);
      // With beta = 0, c need not hold numbers.
      if (p.beta != 0) x = std::fma(p.beta, p.c.data[j * p.c.ld + i], x);
      if (p.bias.data != nullptr) x += p.bias.data[i];
      p.d[j * p.c.ld + i] = p.gelu ? gelu(x) : x;
    }
    note_host_write(p.d + j * p.c.ld, static_cast<std::size_t>(p.m) * sizeof(float));
  }
}

/// Reports operands that are not in device memory.
bool in_device_memory(const char* function, const Product& p) {
  bool good = true;
  for (const Matrix& x : {p.a, p.b, p.bias, p.addend(), p.result(), p.room()}) {
    if (x.bytes() == 0 || is_live_device_range(x.data, x.bytes())) continue;
    report("illegal-address", "%s: the %zu bytes of %s at %p are not (or no longer) device memory",
           function, x.bytes(), x.name, static_cast<const void*>(x.data));
    good = false;
  }
  return good;
}

/// Reports operands that overlap what is written; c may be d.
bool apart(const char* function, const Product& p) {
  bool good = true;
  const auto check = [&](const Matrix& x, const Matrix& y) {
    if (x.bytes() == 0 || y.bytes() == 0 || !x.overlaps(y)) return;
    report("race", "%s: %s overlaps %s", function, x.name, y.name);
    good = false;
  };
  for (const Matrix& x : {p.a, p.b, p.bias}) check(p.result(), x);
  if (p.c.data != p.d) check(p.result(), p.addend());
  for (const Matrix& x : {p.a, p.b, p.bias, p.addend(), p.result()}) check(p.room(), x);
  return good;
}

/// alpha and beta are read at once, from the host: the libraries' default pointer mode.
bool read_scalar(const char* function, const void* pointer, float& value) {
  if (pointer == nullptr) return false;
  if (is_device_address(pointer)) {
    report("illegal-address", "%s: alpha or beta at %p is device memory, and read by the host",
           function, pointer);
    return false;
  }
  std::memcpy(&value, pointer, sizeof value);
  return true;
}

/// Null, or as both libraries want it: device memory, 256-byte aligned.
bool is_workspace(const void* workspace, std::size_t bytes) {
  if (bytes == 0) return true;
  return workspace != nullptr &&
         reinterpret_cast<std::uintptr_t>(workspace) % kWorkspaceAlignment == 0 &&
         is_live_device_range(workspace, bytes);
}

/// Checks shapes and memory, and queues the work on the stream.
cublasStatus_t submit(const char* function, Product p, const void* alpha, const void* beta,
                      cudaStream_t stream) {
  if (p.k < 0 || !p.a.fits() || !p.b.fits() || !p.c.fits() ||
      !read_scalar(function, alpha, p.alpha) || !read_scalar(function, beta, p.beta))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (p.m == 0 || p.n == 0) return CUBLAS_STATUS_SUCCESS;
  if (!in_device_memory(function, p) || !apart(function, p)) return CUBLAS_STATUS_INVALID_VALUE;
  const cudaError_t status = enqueue(stream, function, [function, p] {
    // Queued work runs late: its memory may have gone.
    if (!in_device_memory(function, p)) return cudaErrorIllegalAddress;
    compute(p);
    return cudaSuccess;
  });
  return status == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

bool is_operation(std::int32_t x) { return x == CUBLAS_OP_N || x == CUBLAS_OP_T; }

// --- cublasLt's opaque structures, and what they hold here ---------------------------------------

struct Description {
  std::int32_t transa = CUBLAS_OP_N, transb = CUBLAS_OP_N;
  std::uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const float* bias = nullptr;
};
struct Layout {
  std::int64_t rows, columns, ld;
  bool operator==(const Layout& other) const {
    return rows == other.rows && columns == other.columns && ld == other.ld;
  }
};
struct Preference {
  std::uint64_t workspace = 0;
  std::uint32_t alignment[4] = {256, 256, 256, 256};  ///< of A, B, C, D
};
/// What the heuristic chose is for this epilogue and preference alone, as the library may have it.
struct Algorithm {
  static constexpr std::uint64_t kMagic = 0x706C756D62616C67;
  std::uint64_t magic, epilogue;
  Preference chosen_for;
  std::uint64_t unused[3];
};

template <class Own, class Theirs>
Own& own(Theirs* theirs) {
  static_assert(sizeof(Own) <= sizeof(Theirs) && alignof(Own) <= alignof(Theirs));
  static_assert(std::is_trivially_copyable_v<Own> && std::is_trivially_destructible_v<Own>);
  return *std::launder(reinterpret_cast<Own*>(theirs));
}
template <class Own, class Theirs>
cublasStatus_t create(Theirs** theirs, const Own& initial) {
  if (theirs == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  *theirs = new Theirs{};
  new (*theirs) Own(initial);
  add_object(*theirs);
  return CUBLAS_STATUS_SUCCESS;
}
template <class Theirs>
cublasStatus_t destroy(Theirs* theirs) {
  if (!remove_object(theirs)) return CUBLAS_STATUS_INVALID_VALUE;
  delete theirs;
  return CUBLAS_STATUS_SUCCESS;
}

/// Copies an attribute in; the size must be that of what the library stores.
template <class T>
cublasStatus_t set(T& target, const void* value, std::size_t bytes) {
  if (value == nullptr || bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&target, value, sizeof(T));
  return CUBLAS_STATUS_SUCCESS;
}

/// The product of some layouts; false where they do not fit together.
bool describe(const Description& d, const Layout& a, const Layout& b, const Layout& c, Product& p) {
  const bool ta = d.transa == CUBLAS_OP_T, tb = d.transb == CUBLAS_OP_T;
  p = product_of(c.rows, c.columns, ta ? a.rows : a.columns, ta, tb, nullptr, a.ld, nullptr, b.ld,
                 nullptr, nullptr, c.ld);
  p.gelu = (d.epilogue & CUBLASLT_EPILOGUE_GELU) != 0;
  if ((d.epilogue & CUBLASLT_EPILOGUE_BIAS) != 0) {
    p.bias.data = d.bias;
    p.bias.rows = p.bias.ld = p.m;
  }
  return p.m > 0 && p.n > 0 && p.k > 0 && p.a.rows == a.rows && p.a.columns == a.columns &&
         p.b.rows == b.rows && p.b.columns == b.columns;
}

}  // namespace

namespace plumb::emulator {

void inject_cublas(const char* function, cublasStatus_t status) {
  const std::lock_guard lock(state().mutex);
  state().function = function;
  state().status = status;
}
std::size_t live_cublas_objects() {
  const std::lock_guard lock(state().mutex);
  return state().objects.size();
}

}  // namespace plumb::emulator

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  PLUMB_CUBLAS_INJECTION;
  if (handle == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  *handle = new cublasContext;
  add_object(*handle);
  return CUBLAS_STATUS_SUCCESS;
}

// The library waits for the device here, for the resources that it frees.
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  PLUMB_CUBLAS_INJECTION;
  if (!remove_object(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  const cudaError_t waited = cudaDeviceSynchronize();
  delete handle;
  return waited == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

// Also takes back the workspace that was set.
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  PLUMB_CUBLAS_INJECTION;
  if (!is_object(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  *handle = {stream, nullptr, 0};
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
  PLUMB_CUBLAS_INJECTION;
  if (!is_object(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  return mode == CUBLAS_DEFAULT_MATH ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void* workspace, size_t bytes) {
  PLUMB_CUBLAS_INJECTION;
  if (!is_object(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!is_workspace(workspace, bytes)) return CUBLAS_STATUS_INVALID_VALUE;
  handle->workspace = bytes > 0 ? workspace : nullptr;
  handle->workspace_bytes = bytes;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSgemm_v2(cublasHandle_t handle, cublasOperation_t transa,
                              cublasOperation_t transb, int m, int n, int k, const float* alpha,
                              const float* a, int lda, const float* b, int ldb, const float* beta,
                              float* c, int ldc) {
  PLUMB_CUBLAS_INJECTION;
  if (!is_object(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!is_operation(transa) || !is_operation(transb)) return CUBLAS_STATUS_INVALID_VALUE;
  Product product =
      product_of(m, n, k, transa == CUBLAS_OP_T, transb == CUBLAS_OP_T, a, lda, b, ldb, c, c, ldc);
  product.workspace = handle->workspace;
  product.workspace_bytes = handle->workspace_bytes;
  return submit(__func__, product, alpha, beta, handle->stream);
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  PLUMB_CUBLAS_INJECTION;
  if (handle == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  *handle = reinterpret_cast<cublasLtHandle_t>(new char);
  add_object(*handle);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  PLUMB_CUBLAS_INJECTION;
  if (!remove_object(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  delete reinterpret_cast<char*>(handle);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  PLUMB_CUBLAS_INJECTION;
  if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  return create(desc, Description{});
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
  PLUMB_CUBLAS_INJECTION;
  return destroy(desc);
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  PLUMB_CUBLAS_INJECTION;
  if (!is_object(desc)) return CUBLAS_STATUS_INVALID_VALUE;
  Description d = own<Description>(desc);
  cublasStatus_t status = CUBLAS_STATUS_NOT_SUPPORTED;
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA: status = set(d.transa, value, bytes); break;
    case CUBLASLT_MATMUL_DESC_TRANSB: status = set(d.transb, value, bytes); break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE: status = set(d.epilogue, value, bytes); break;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: status = set(d.bias, value, bytes); break;
    default: break;
  }
  const bool served =
      d.epilogue == CUBLASLT_EPILOGUE_DEFAULT || d.epilogue == CUBLASLT_EPILOGUE_BIAS ||
      d.epilogue == CUBLASLT_EPILOGUE_GELU || d.epilogue == CUBLASLT_EPILOGUE_GELU_BIAS;
  if (!is_operation(d.transa) || !is_operation(d.transb) || !served)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  own<Description>(desc) = d;
  return status;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type,
                                          uint64_t rows, uint64_t columns, int64_t ld) {
  PLUMB_CUBLAS_INJECTION;
  if (type != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  return create(layout,
                Layout{static_cast<std::int64_t>(rows), static_cast<std::int64_t>(columns), ld});
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  PLUMB_CUBLAS_INJECTION;
  return destroy(layout);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  PLUMB_CUBLAS_INJECTION;
  return create(preference, Preference{});
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  PLUMB_CUBLAS_INJECTION;
  return destroy(preference);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, size_t bytes) {
  PLUMB_CUBLAS_INJECTION;
  if (!is_object(preference)) return CUBLAS_STATUS_INVALID_VALUE;
  auto& p = own<Preference>(preference);
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return set(p.workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: return set(p.alignment[0], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: return set(p.alignment[1], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: return set(p.alignment[2], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: return set(p.alignment[3], value, bytes);
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t* results,
                                              int* returned) {
  PLUMB_CUBLAS_INJECTION;
  if (!is_object(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  for (const void* object : std::initializer_list<const void*>{desc, a, b, c, d, preference})
    if (!is_object(object)) return CUBLAS_STATUS_INVALID_VALUE;
  if (requested <= 0 || results == nullptr || returned == nullptr)
    return CUBLAS_STATUS_INVALID_VALUE;
  *returned = 0;
  Product product;
  const auto& description = own<Description>(desc);
  if (!(own<Layout>(c) == own<Layout>(d)) ||
      !describe(description, own<Layout>(a), own<Layout>(b), own<Layout>(d), product))
    return CUBLAS_STATUS_INVALID_VALUE;
  // It wants all the room that is granted, so that the caller has to bring it.
  const Preference& wanted = own<Preference>(preference);
  *results = {};
  results->algo = std::bit_cast<cublasLtMatmulAlgo_t>(
      Algorithm{Algorithm::kMagic, description.epilogue, wanted, {}});
  results->workspaceSize = wanted.workspace;
  results->state = CUBLAS_STATUS_SUCCESS;
  *returned = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t layout_a, const void* b,
                              cublasLtMatrixLayout_t layout_b, const void* beta, const void* c,
                              cublasLtMatrixLayout_t layout_c, void* d,
                              cublasLtMatrixLayout_t layout_d,
                              const cublasLtMatmulAlgo_t* algorithm, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  PLUMB_CUBLAS_INJECTION;
  if (!is_object(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  for (const void* object :
       std::initializer_list<const void*>{desc, layout_a, layout_b, layout_c, layout_d})
    if (!is_object(object)) return CUBLAS_STATUS_INVALID_VALUE;
  const auto& description = own<Description>(desc);
  Product product;
  if (!(own<Layout>(layout_c) == own<Layout>(layout_d)) || algorithm == nullptr ||
      !describe(description, own<Layout>(layout_a), own<Layout>(layout_b), own<Layout>(layout_d),
                product))
    return CUBLAS_STATUS_INVALID_VALUE;
  const auto chosen = std::bit_cast<Algorithm>(*algorithm);
  if (chosen.magic != Algorithm::kMagic || chosen.epilogue != description.epilogue ||
      workspace_bytes < chosen.chosen_for.workspace || !is_workspace(workspace, workspace_bytes) ||
      (product.bias.rows > 0 && product.bias.data == nullptr))
    return CUBLAS_STATUS_INVALID_VALUE;
  const void* pointers[4] = {a, b, c, d};
  for (int i = 0; i < 4; ++i)
    if (pointers[i] == nullptr ||
        reinterpret_cast<std::uintptr_t>(pointers[i]) % chosen.chosen_for.alignment[i] != 0)
      return CUBLAS_STATUS_INVALID_VALUE;
  product.a.data = static_cast<const float*>(a);
  product.b.data = static_cast<const float*>(b);
  product.c.data = static_cast<const float*>(c);
  product.d = static_cast<float*>(d);
  product.workspace = workspace_bytes > 0 ? workspace : nullptr;
  product.workspace_bytes = workspace_bytes;
  return submit(__func__, product, alpha, beta, stream);
}

}  // extern "C"
