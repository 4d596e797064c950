// Matrix products by cuBLAS: the mode CudaVendor. A file of its own, for who includes it links
// cublas and cublasLt. Float without tf32; the order of sums is the library's, and may change with
// the number of rows.
//
// Row-major C = A·B is column-major Cᵀ = Bᵀ·Aᵀ of the same memory: B goes first, and an operand is
// transposed where the form says so. A plain product is cublasSgemm. A bias, a residual and a GELU
// (the library's is the tanh form) in place come with the product by cublasLt, which leaves 4·M·N
// bytes to write and no more; what it has no algorithm for, the other activations and an activation
// beside the product are done by an element-by-element kernel afterwards, 8 to 16 bytes per element
// more. Handles live as long as their thread works; the workspace is the pool's, so that a captured
// graph keeps it. What this is not: bit for bit any other mode; the way of bf16 weights, which take
// the exact one.
#pragma once

#include <plumb/cuda/gemm.cuh>
#include <plumb/math/activation.hpp>
#include <plumb/math/gemm.hpp>

#include <cublasLt.h>
#include <cublas_v2.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <limits>
#include <map>
#include <utility>

namespace plumb { inline namespace v0_1 {
namespace kernels {

namespace vendor {

/// A product as cuBLAS is asked for it.
struct Shape {
  Index m, n, k;
  Form form;
};

inline const char* name(Form form) {
  return form == Form::NN ? "NN" : form == Form::NT ? "NT" : "TN";
}
inline const char* name(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "success";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "not initialized";
    case CUBLAS_STATUS_ALLOC_FAILED: return "allocation failed";
    case CUBLAS_STATUS_INVALID_VALUE: return "invalid value";
    case CUBLAS_STATUS_ARCH_MISMATCH: return "not on this architecture";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "execution failed";
    case CUBLAS_STATUS_INTERNAL_ERROR: return "internal error";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "not supported";
    default: return "unknown status";
  }
}

/// Throws CudaError unless `status` is success.
inline void check_cublas(cublasStatus_t status, const char* call, const Shape& s,
                         Where where = Where::here()) {
  if (status == CUBLAS_STATUS_SUCCESS) [[likely]]
    return;
  fail<CudaError>(str("[cublas] ", call, ": ", name(status), " (status ", static_cast<int>(status),
                      ") for a product ", name(s.form), " of m ", s.m, ", n ", s.n, ", k ", s.k),
                  where);
}

/// A cublasLt object, destroyed with its owner.
template <class T, cublasStatus_t (*destroy)(T)>
class Owned {
 public:
  Owned() = default;
  ~Owned() { end(); }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;

  /// For a new one; the one before is destroyed.
  T* to_create() {
    end();
    return &object_;
  }
  T get() const { return object_; }

 private:
  void end() {
    if (object_ != nullptr) destroy(object_);  // its status tells nothing that one could act on
    object_ = nullptr;
  }

  T object_ = nullptr;
};

inline cublasOperation_t operation(bool transposed) {
  return transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
}

inline constexpr std::size_t kWorkspace = std::size_t{32} << 20;  // what NVIDIA advises for Hopper

/// Packed batches have ever new numbers of rows, and to ask the library for an algorithm costs many
/// times a launch: it is asked once for all that lie between two bounds, four to a power of two,
/// with the upper one. Rows up to 16 are each for themselves.
inline Index row_bucket(Index rows) {
  if (rows <= 16) return rows;
  const auto step = static_cast<Index>(std::bit_floor(static_cast<std::uint64_t>(rows - 1)) / 4);
  return (rows + step - 1) / step * step;
}
/// The shape that stands for it: of the rows of a batch, which are m, or k of a product Aᵀ·B.
inline Shape bucket_of(Shape s) {
  Index& rows = s.form == Form::TN ? s.k : s.m;
  rows = row_bucket(rows);
  return s;
}

/// A product by cublasLt, ready to run for a bucket's shapes, an epilogue and an alignment again.
struct Plan {
  Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy> description;
  Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy> a, b, c;
  cublasLtMatmulAlgo_t algorithm{};
  bool found = false;  ///< whether the library has an algorithm

  /// alignment: of A, B, the addend and C, in bytes.
  Plan(cublasLtHandle_t handle, const Shape& s, cublasLtEpilogue_t epilogue,
       const std::array<unsigned, 4>& alignment) {
    describe(s, epilogue);
    lay_out(s);
    Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy> preference;
    check_cublas(cublasLtMatmulPreferenceCreate(preference.to_create()),
                 "cublasLtMatmulPreferenceCreate", s);
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
      check_cublas(
          cublasLtMatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof value),
          "cublasLtMatmulPreferenceSetAttribute", s);
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspace);
    // The library's A is our B, and the reverse.
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment[1]);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment[0]);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment[2]);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment[3]);
    cublasLtMatmulHeuristicResult_t result{};
    int count = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle, description.get(), b.get(), a.get(), c.get(),
                                       c.get(), preference.get(), 1, &result, &count);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED) return;
    check_cublas(status, "cublasLtMatmulAlgoGetHeuristic", s);
    found = count > 0 && result.state == CUBLAS_STATUS_SUCCESS;
    algorithm = result.algo;
  }

  /// For a shape of the plan's bucket. As stored: a row is a column of the library's.
  void lay_out(const Shape& s) {
    if (s.m == laid_m_ && s.k == laid_k_) return;
    laid_m_ = -1;
    const auto layout = [&](auto& object, Index rows, Index columns) {
      check_cublas(cublasLtMatrixLayoutCreate(object.to_create(), CUDA_R_32F,
                                              static_cast<std::uint64_t>(columns),
                                              static_cast<std::uint64_t>(rows), columns),
                   "cublasLtMatrixLayoutCreate", s);
    };
    s.form == Form::TN ? layout(a, s.k, s.m) : layout(a, s.m, s.k);
    s.form == Form::NT ? layout(b, s.n, s.k) : layout(b, s.k, s.n);
    layout(c, s.m, s.n);
    laid_m_ = s.m;
    laid_k_ = s.k;
  }

  void set(cublasLtMatmulDescAttributes_t attribute, const void* value, std::size_t bytes,
           const Shape& s) {
    check_cublas(cublasLtMatmulDescSetAttribute(description.get(), attribute, value, bytes),
                 "cublasLtMatmulDescSetAttribute", s);
  }

 private:
  void describe(const Shape& s, cublasLtEpilogue_t epilogue) {
    check_cublas(cublasLtMatmulDescCreate(description.to_create(), CUBLAS_COMPUTE_32F, CUDA_R_32F),
                 "cublasLtMatmulDescCreate", s);
    const cublasOperation_t of_b = operation(s.form == Form::NT);
    const cublasOperation_t of_a = operation(s.form == Form::TN);
    set(CUBLASLT_MATMUL_DESC_TRANSA, &of_b, sizeof of_b, s);
    set(CUBLASLT_MATMUL_DESC_TRANSB, &of_a, sizeof of_a, s);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue, s);
  }

  Index laid_m_ = -1, laid_k_ = -1;
};

/// The largest power of two, up to 256, that the address is a multiple of.
inline unsigned alignment_of(const void* p) {
  const auto address = reinterpret_cast<std::uintptr_t>(p) | 256U;
  return static_cast<unsigned>(address & (~address + 1U));
}

/// A thread's handles, and the plans that it met lately.
class Context {
 public:
  static Context& instance() {
    thread_local Context context;
    return context;
  }
  Context() = default;
  ~Context() {  // at the thread's end, the program's perhaps: errors have nobody to tell
    plans_.clear();
    if (lt_ != nullptr) cublasLtDestroy(lt_);
    if (blas_ != nullptr) cublasDestroy(blas_);
  }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  /// C = A·B, added to C's old value if accumulating.
  void product(Cuda device, float* c, const float* a, const float* b, const Shape& s,
               bool accumulate) {
    if (blas_ == nullptr) check_cublas(cublasCreate(&blas_), "cublasCreate", s);
    const DeviceScratch<unsigned char> workspace(device, static_cast<Index>(kWorkspace));
    check_cublas(cublasSetStream(blas_, device.stream), "cublasSetStream", s);
    check_cublas(cublasSetWorkspace(blas_, workspace.data(), kWorkspace), "cublasSetWorkspace", s);
    check_cublas(cublasSetMathMode(blas_, CUBLAS_DEFAULT_MATH), "cublasSetMathMode", s);
    const auto size = [](Index x) { return static_cast<int>(x); };
    const float one = 1.0F, beta = accumulate ? 1.0F : 0.0F;
    check_cublas(
        cublasSgemm(blas_, operation(s.form == Form::NT), operation(s.form == Form::TN), size(s.n),
                    size(s.m), size(s.k), &one, b, size(s.form == Form::NT ? s.k : s.n), a,
                    size(s.form == Form::TN ? s.m : s.k), &beta, c, size(s.n)),
        "cublasSgemm", s);
  }

  /// C = f(A·B + addend + bias), where `addend` may be null or C, `bias` null, f none or GELU.
  /// False, and nothing done, if the library has no algorithm for it.
  bool fused(Cuda device, float* c, const float* a, const float* b, const Shape& s,
             const float* addend, const float* bias, bool gelu) {
    if (lt_ == nullptr) check_cublas(cublasLtCreate(&lt_), "cublasLtCreate", s);
    const cublasLtEpilogue_t epilogue =
        bias != nullptr ? gelu ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_BIAS
        : gelu          ? CUBLASLT_EPILOGUE_GELU
                        : CUBLASLT_EPILOGUE_DEFAULT;
    const float beta = addend != nullptr ? 1.0F : 0.0F, one = 1.0F;
    if (addend == nullptr) addend = c;
    Plan& plan = plan_for(
        bucket_of(s), epilogue,
        {alignment_of(a), alignment_of(b), alignment_of(addend), alignment_of(c)});
    if (!plan.found) return false;
    plan.lay_out(s);
    if (bias != nullptr) plan.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias, s);
    const DeviceScratch<unsigned char> workspace(device, static_cast<Index>(kWorkspace));
    const cublasStatus_t status =
        cublasLtMatmul(lt_, plan.description.get(), &one, b, plan.b.get(), a, plan.a.get(), &beta,
                       addend, plan.c.get(), c, plan.c.get(), &plan.algorithm, workspace.data(),
                       kWorkspace, device.stream);
    // The bucket's algorithm may be none for this shape.
    if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE)
      return false;
    check_cublas(status, "cublasLtMatmul", s);
    return true;
  }

 private:
  using Key = std::array<Index, 9>;
  static constexpr std::size_t kPlans = 256;

  Plan& plan_for(const Shape& s, cublasLtEpilogue_t epilogue,
                 const std::array<unsigned, 4>& alignment) {
    const Key key{static_cast<Index>(s.form),
                  static_cast<Index>(epilogue),
                  s.m,
                  s.n,
                  s.k,
                  alignment[0],
                  alignment[1],
                  alignment[2],
                  alignment[3]};
    if (const auto found = plans_.find(key); found != plans_.end()) return found->second;
    if (plans_.size() >= kPlans) plans_.clear();
    return plans_
        .emplace(std::piecewise_construct, std::forward_as_tuple(key),
                 std::forward_as_tuple(lt_, s, epilogue, alignment))
        .first->second;
  }

  cublasHandle_t blas_ = nullptr;
  cublasLtHandle_t lt_ = nullptr;
  std::map<Key, Plan> plans_;
};

}  // namespace vendor

namespace gpu {

/// What was not fused: + bias, + residual.
struct FinishProduct {
  float* c;
  const float *bias, *residual;
  Index n;
  __device__ void operator()(Index i) const {
    float x = c[i];
    if (bias != nullptr) x = x + bias[i % n];
    if (residual != nullptr) x = x + residual[i];
    c[i] = x;
  }
};

}  // namespace gpu

/// As matmul(Cuda, …), by cuBLAS: near it, not with its bits.
inline void matmul(CudaVendor device, float* c, const float* a, const float* b, Index m, Index n,
                   Index k, Form form, bool accumulate, Epilogue epilogue) {
  if (m == 0 || n == 0) return;
  if (k == 0)  // nothing to multiply
    return matmul(Cuda{device}, c, a, b, m, n, k, form, accumulate, epilogue);
  const vendor::Shape shape{m, n, k, form};
  check(std::max({m, n, k}) <= std::numeric_limits<int>::max(),
        "[matmul] cuBLAS takes sizes below 2^31");
  auto& context = vendor::Context::instance();
  const float *bias = epilogue.bias, *residual = epilogue.residual;
  // The library adds one matrix: what C holds, or a residual.
  const bool both = accumulate && residual != nullptr;
  bool gelu = epilogue.activated == c && epilogue.activation == Activation::Gelu && !both;
  if ((bias != nullptr || gelu || (residual != nullptr && !accumulate)) &&
      context.fused(device, c, a, b, shape, accumulate ? c : residual, bias, gelu)) {
    bias = nullptr;
    if (!both) residual = nullptr;
  } else {
    context.product(device, c, a, b, shape, accumulate);
    gelu = false;
  }
  if (bias != nullptr || residual != nullptr)
    gpu::map(device, gpu::FinishProduct{c, bias, residual, n}, m * n);
  if (epilogue.activated != nullptr && !gelu)
    activation_forward(device, epilogue.activated, c, epilogue.activation, m * n);
}

/// B packed as float is B: the product in the form NT. As bf16: the exact mode's, since cuBLAS
/// multiplies no floats by bf16.
template <class T>
void matmul_packed(CudaVendor device, float* c, const float* a, const T* packed, Index m, Index n,
                   Index k, Epilogue epilogue) {
  if constexpr (std::is_same_v<T, float>)
    matmul(device, c, a, packed, m, n, k, Form::NT, false, epilogue);
  else
    matmul_packed(Cuda{device}, c, a, packed, m, n, k, epilogue);
}

}  // namespace kernels
}}  // namespace plumb::v0_1
