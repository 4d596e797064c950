// cuBLAS, stood in for: handles and the products in float and bf16. The prototypes come from
// cublas_v2.h, the toolkit's own where there is one: compiled with -Wmissing-declarations, a
// function that changed or went is an error. See cublas.hpp for what is promised.
#include <emulator/toolkit/cublas_names.h>
#include <emulator/cublas_internal.hpp>
#include <emulator/runtime.hpp>

#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <string>

using namespace plumb::emulator;
using namespace plumb::emulator::cublas;

struct cublasContext {
  cudaStream_t stream = nullptr;
  cublasMath_t math = CUBLAS_DEFAULT_MATH;
  void* workspace = nullptr;
  std::size_t workspace_bytes = 0;
};

namespace {

/// Of what follows: objects and the injection.
std::mutex& mutex() {
  static std::mutex one;
  return one;
}
struct Injection {
  std::string function;
  int skip = 0;
  cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
};
Injection& injection() {
  static Injection one;
  return one;
}
std::map<const void*, Object>& objects() {
  static std::map<const void*, Object> all;
  return all;
}
bool is_handle(cublasHandle_t handle) { return is_object(handle, Object::handle); }

bool shapes_are_valid(const Product& p) {
  const std::int64_t rows_a = p.transpose_a ? p.k : p.m;
  const std::int64_t rows_b = p.transpose_b ? p.n : p.k;
  return p.m >= 0 && p.n >= 0 && p.k >= 0 && p.batch >= 0 &&
         p.a.ld >= std::max<std::int64_t>(1, rows_a) &&
         p.b.ld >= std::max<std::int64_t>(1, rows_b) && p.c.ld >= std::max<std::int64_t>(1, p.m);
}

Product product_of(int m, int n, int k) {
  Product product;
  product.m = m;
  product.n = n;
  product.k = k;
  return product;
}

struct Call {
  const char* function;
  cublasHandle_t handle;
  cublasOperation_t transa, transb;
  const void *alpha, *beta;
};

/// What all three products check of their arguments, in the order of the documentation's table.
cublasStatus_t launch(const Call& call, Product product) {
  if (!is_operation(call.transa) || !is_operation(call.transb)) return CUBLAS_STATUS_INVALID_VALUE;
  product.transpose_a = call.transa != CUBLAS_OP_N;
  product.transpose_b = call.transb != CUBLAS_OP_N;
  if (!shapes_are_valid(product)) return CUBLAS_STATUS_INVALID_VALUE;
  if (!read_scalar(call.function, call.alpha, product.alpha) ||
      !read_scalar(call.function, call.beta, product.beta))
    return CUBLAS_STATUS_INVALID_VALUE;
  product.d = product.c;
  product.workspace = call.handle->workspace;
  product.workspace_bytes = call.handle->workspace_bytes;
  return submit(call.function, product, call.handle->stream);
}

Precision precision_of(cublasHandle_t handle) {
  return handle->math == CUBLAS_TF32_TENSOR_OP_MATH ? Precision::tf32 : Precision::exact;
}

/// The rows of cublasGemmEx's table of types that exist here.
cublasStatus_t choose_precision(cudaDataType a, cudaDataType b, cudaDataType c,
                                cublasComputeType_t compute, Precision& precision) {
  if (a != b) return CUBLAS_STATUS_NOT_SUPPORTED;
  const bool floats = a == CUDA_R_32F && c == CUDA_R_32F;
  const bool bf16 = a == CUDA_R_16BF && (c == CUDA_R_16BF || c == CUDA_R_32F);
  switch (compute) {
    case CUBLAS_COMPUTE_32F: break;
    case CUBLAS_COMPUTE_32F_PEDANTIC: precision = Precision::exact; break;
    case CUBLAS_COMPUTE_32F_FAST_TF32:
      if (bf16) return CUBLAS_STATUS_NOT_SUPPORTED;
      precision = Precision::tf32;
      break;
    case CUBLAS_COMPUTE_32F_FAST_16BF:
      if (bf16) return CUBLAS_STATUS_NOT_SUPPORTED;
      precision = Precision::bf16;
      break;
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  return floats || bf16 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

}  // namespace

namespace plumb::emulator {

void inject_cublas(const char* function, int skip, cublasStatus_t status) {
  const std::lock_guard lock(mutex());
  injection() = {function != nullptr ? function : "", skip, status};
}
std::size_t live_cublas_objects() {
  const std::lock_guard lock(mutex());
  return objects().size();
}

namespace cublas {

cublasStatus_t injected_status(const char* function) {
  if (const cudaError_t error = injected(function); error != cudaSuccess)
    return error == cudaErrorMemoryAllocation ? CUBLAS_STATUS_ALLOC_FAILED
                                              : CUBLAS_STATUS_EXECUTION_FAILED;
  const std::lock_guard lock(mutex());
  Injection& wanted = injection();
  if (wanted.function != "*" && wanted.function != function) return CUBLAS_STATUS_SUCCESS;
  if (wanted.skip-- > 0) return CUBLAS_STATUS_SUCCESS;
  wanted.function.clear();
  return wanted.status;
}

void add_object(const void* object, Object kind) {
  const std::lock_guard lock(mutex());
  objects()[object] = kind;
}
bool is_object(const void* object, Object kind) {
  const std::lock_guard lock(mutex());
  const auto found = objects().find(object);
  return found != objects().end() && found->second == kind;
}
void remove_object(const void* object) {
  const std::lock_guard lock(mutex());
  objects().erase(object);
}

}  // namespace cublas
}  // namespace plumb::emulator

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  PLUMB_CUBLAS_INJECTION;
  if (handle == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  *handle = new cublasContext;
  add_object(*handle, Object::handle);
  return CUBLAS_STATUS_SUCCESS;
}

// The library waits for the device here, for the resources that it frees.
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  PLUMB_CUBLAS_INJECTION;
  if (!is_handle(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  const cudaError_t waited = cudaDeviceSynchronize();
  remove_object(handle);
  delete handle;
  return waited == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

cublasStatus_t cublasGetVersion_v2(cublasHandle_t, int* version) {
  PLUMB_CUBLAS_INJECTION;
  if (version == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
#if defined(CUBLAS_VERSION)
  *version = CUBLAS_VERSION;
#else
  *version = 0;  // no toolkit: this stands in for no version in particular
#endif
  return CUBLAS_STATUS_SUCCESS;
}

// Also takes back the workspace that was set.
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  PLUMB_CUBLAS_INJECTION;
  if (!is_handle(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  handle->stream = stream;
  handle->workspace = nullptr;
  handle->workspace_bytes = 0;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetStream_v2(cublasHandle_t handle, cudaStream_t* stream) {
  PLUMB_CUBLAS_INJECTION;
  if (!is_handle(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (stream == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  *stream = handle->stream;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
  PLUMB_CUBLAS_INJECTION;
  if (!is_handle(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  constexpr std::array known{CUBLAS_DEFAULT_MATH, CUBLAS_TENSOR_OP_MATH, CUBLAS_PEDANTIC_MATH,
                             CUBLAS_TF32_TENSOR_OP_MATH,
                             CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION};
  if (std::find(known.begin(), known.end(), mode) == known.end())
    return CUBLAS_STATUS_INVALID_VALUE;
  handle->math = mode;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetMathMode(cublasHandle_t handle, cublasMath_t* mode) {
  PLUMB_CUBLAS_INJECTION;
  if (!is_handle(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (mode == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  *mode = handle->math;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void* workspace, size_t bytes) {
  PLUMB_CUBLAS_INJECTION;
  if (!is_handle(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
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
  if (!is_handle(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  Product product = product_of(m, n, k);
  product.a = {a, CUDA_R_32F, lda};
  product.b = {b, CUDA_R_32F, ldb};
  product.c = {c, CUDA_R_32F, ldc};
  product.result = c;
  product.precision = precision_of(handle);
  return launch({__func__, handle, transa, transb, alpha, beta}, product);
}

cublasStatus_t cublasSgemmStridedBatched(cublasHandle_t handle, cublasOperation_t transa,
                                         cublasOperation_t transb, int m, int n, int k,
                                         const float* alpha, const float* a, int lda,
                                         long long stride_a, const float* b, int ldb,
                                         long long stride_b, const float* beta, float* c, int ldc,
                                         long long stride_c, int batch) {
  PLUMB_CUBLAS_INJECTION;
  if (!is_handle(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  Product product = product_of(m, n, k);
  product.batch = batch;
  product.a = {a, CUDA_R_32F, lda, stride_a};
  product.b = {b, CUDA_R_32F, ldb, stride_b};
  product.c = {c, CUDA_R_32F, ldc, stride_c};
  product.result = c;
  product.precision = precision_of(handle);
  return launch({__func__, handle, transa, transb, alpha, beta}, product);
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t transa,
                            cublasOperation_t transb, int m, int n, int k, const void* alpha,
                            const void* a, cudaDataType type_a, int lda, const void* b,
                            cudaDataType type_b, int ldb, const void* beta, void* c,
                            cudaDataType type_c, int ldc, cublasComputeType_t compute,
                            cublasGemmAlgo_t algorithm) {
  PLUMB_CUBLAS_INJECTION;
  if (!is_handle(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  Product product = product_of(m, n, k);
  product.a = {a, type_a, lda};
  product.b = {b, type_b, ldb};
  product.c = {c, type_c, ldc};
  product.result = c;
  if (type_a == CUDA_R_32F) product.precision = precision_of(handle);
  const cublasStatus_t types = choose_precision(type_a, type_b, type_c, compute, product.precision);
  if (types != CUBLAS_STATUS_SUCCESS) return types;
  if (algorithm != CUBLAS_GEMM_DEFAULT && algorithm != CUBLAS_GEMM_DEFAULT_TENSOR_OP)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  return launch({__func__, handle, transa, transb, alpha, beta}, product);
}

#define PLUMB_STATUS_NAME(name, value) \
  case name: return #name;
const char* cublasGetStatusName(cublasStatus_t status) {
  switch (status) { PLUMB_CUBLAS_STATUS(PLUMB_STATUS_NAME) }
  return "unknown status";
}

const char* cublasGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "success";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "the library was not initialized";
    case CUBLAS_STATUS_ALLOC_FAILED: return "the resource allocation failed";
    case CUBLAS_STATUS_INVALID_VALUE: return "an invalid value was passed as a parameter";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "the work failed on the device";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "the combination of parameters is not supported";
    default: return cublasGetStatusName(status);
  }
}

}  // extern "C"
