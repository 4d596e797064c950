// cublasLt, stood in for: descriptors, the heuristic and cublasLtMatmul with the epilogues that
// Plumb fuses (bias, GELU). See cublas.hpp for what is promised.
//
// The opaque structures hold what the library would hide in them. The heuristic knows one
// algorithm; it notes in it what it was chosen for (types, alignments), and cublasLtMatmul refuses
// an algorithm that was chosen for something else, as the library may.
#include <emulator/cublas_internal.hpp>
#include <emulator/runtime.hpp>

#include <bit>
#include <cstring>
#include <new>
#include <type_traits>

using namespace plumb::emulator;
using namespace plumb::emulator::cublas;

namespace {

struct Description {
  std::int32_t compute = CUBLAS_COMPUTE_32F;
  std::int32_t scale = CUDA_R_32F;
  std::int32_t pointer_mode = CUBLASLT_POINTER_MODE_HOST;
  std::int32_t transa = CUBLAS_OP_N, transb = CUBLAS_OP_N, transc = CUBLAS_OP_N;
  std::uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  std::int32_t bias_type = -1;  ///< as D
  const void* bias = nullptr;
};
struct Layout {
  std::uint32_t type = CUDA_R_32F;
  std::int32_t order = CUBLASLT_ORDER_COL;
  std::uint64_t rows = 0, columns = 0;
  std::int64_t ld = 0;
  std::int32_t batch = 1;
  std::int64_t stride = 0;
};
struct Preference {
  std::uint32_t search = CUBLASLT_SEARCH_BEST_FIT;
  std::uint64_t workspace = 0;
  std::uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
  std::uint32_t alignment[4] = {256, 256, 256, 256};  ///< of A, B, C, D
  float waves = 0;
  std::uint64_t implementations = ~std::uint64_t{0};
};
struct Algorithm {
  static constexpr std::uint64_t kMagic = 0x706C756D62616C67;
  std::uint64_t magic = kMagic;
  std::uint64_t workspace = 0;
  std::uint32_t alignment[4] = {1, 1, 1, 1};
  std::uint32_t epilogue = 0;
  std::int32_t compute = 0;
  std::uint32_t types[2] = {0, 0};  ///< of A and D
  std::uint64_t unused[2] = {};
};
struct Context {};

/// What the opaque structure holds.
template <class Own, class Theirs>
Own& own(Theirs* theirs) {
  static_assert(sizeof(Own) <= sizeof(Theirs) && alignof(Own) <= alignof(Theirs));
  static_assert(std::is_trivially_copyable_v<Own> && std::is_trivially_destructible_v<Own>);
  return *std::launder(reinterpret_cast<Own*>(theirs));
}

template <class Own, class Theirs>
cublasStatus_t create(Theirs** theirs, const Own& initial, Object kind) {
  if (theirs == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  *theirs = new Theirs{};
  new (*theirs) Own(initial);
  add_object(*theirs, kind);
  return CUBLAS_STATUS_SUCCESS;
}
template <class Theirs>
cublasStatus_t destroy(Theirs* theirs, Object kind) {
  if (!is_object(theirs, kind)) return CUBLAS_STATUS_INVALID_VALUE;
  remove_object(theirs);
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
/// As set, with a value that the stand-in can serve.
template <class T, class Good>
cublasStatus_t set_if(T& target, const void* value, std::size_t bytes, Good good) {
  T wanted{};
  const cublasStatus_t status = set(wanted, value, bytes);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  if (!good(wanted)) return CUBLAS_STATUS_NOT_SUPPORTED;
  target = wanted;
  return CUBLAS_STATUS_SUCCESS;
}
template <class T>
cublasStatus_t get(const T& source, void* value, std::size_t bytes, std::size_t* written) {
  if (bytes == 0 && written == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  if (written != nullptr) *written = sizeof(T);
  if (bytes == 0) return CUBLAS_STATUS_SUCCESS;
  if (value == nullptr || bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(value, &source, sizeof(T));
  return CUBLAS_STATUS_SUCCESS;
}

bool is_transpose(std::int32_t operation) {
  return operation == CUBLAS_OP_T || operation == CUBLAS_OP_C;
}
bool has_bias(const Description& d) { return (d.epilogue & CUBLASLT_EPILOGUE_BIAS) != 0; }

/// The rows of cublasLtMatmul's table of types that exist here.
cublasStatus_t check_types(const Description& d, const Layout& a, const Layout& b, const Layout& c,
                           const Layout& result, Precision& precision) {
  const bool bf16 = a.type == CUDA_R_16BF;
  if (d.scale != CUDA_R_32F || a.type != b.type || c.type != result.type)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (!bf16 && (a.type != CUDA_R_32F || result.type != CUDA_R_32F))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (bf16 && result.type != CUDA_R_16BF && result.type != CUDA_R_32F)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (has_bias(d) && d.bias_type != -1 && d.bias_type != static_cast<std::int32_t>(result.type))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (d.compute == CUBLAS_COMPUTE_32F || d.compute == CUBLAS_COMPUTE_32F_PEDANTIC)
    return CUBLAS_STATUS_SUCCESS;
  if (bf16) return CUBLAS_STATUS_NOT_SUPPORTED;
  precision = d.compute == CUBLAS_COMPUTE_32F_FAST_TF32 ? Precision::tf32 : Precision::bf16;
  return CUBLAS_STATUS_SUCCESS;
}

bool is_consistent(const Layout& layout) {
  return layout.rows > 0 && layout.columns > 0 && layout.batch > 0 &&
         layout.ld >= static_cast<std::int64_t>(layout.rows);
}

/// The shapes of a product from its descriptors; no memory yet. C may have ld 0: its first column
/// for all.
cublasStatus_t describe(const Description& d, const Layout& a, const Layout& b, const Layout& c,
                        const Layout& result, Product& p) {
  p.m = static_cast<std::int64_t>(result.rows);
  p.n = static_cast<std::int64_t>(result.columns);
  p.batch = result.batch;
  p.transpose_a = is_transpose(d.transa);
  p.transpose_b = is_transpose(d.transb);
  p.k = static_cast<std::int64_t>(p.transpose_a ? a.rows : a.columns);
  if (!is_consistent(a) || !is_consistent(b) || !is_consistent(result))
    return CUBLAS_STATUS_INVALID_VALUE;
  if ((p.transpose_a ? a.columns : a.rows) != result.rows) return CUBLAS_STATUS_INVALID_VALUE;
  if ((p.transpose_b ? b.rows : b.columns) != result.columns) return CUBLAS_STATUS_INVALID_VALUE;
  if ((p.transpose_b ? b.columns : b.rows) != static_cast<std::uint64_t>(p.k))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (c.rows != result.rows || c.columns != result.columns || c.order != result.order)
    return CUBLAS_STATUS_INVALID_VALUE;
  if (c.ld != 0 && c.ld < static_cast<std::int64_t>(c.rows)) return CUBLAS_STATUS_INVALID_VALUE;
  if (a.batch != result.batch || b.batch != result.batch || c.batch != result.batch)
    return CUBLAS_STATUS_INVALID_VALUE;
  p.activation = (d.epilogue & CUBLASLT_EPILOGUE_GELU) != 0 ? Activation::gelu : Activation::none;
  return check_types(d, a, b, c, result, p.precision);
}

/// Bytes that a product may ask for: room for its result once more in float, as a split of k would
/// need.
std::uint64_t workspace_of(const Product& p) {
  const auto bytes = static_cast<std::uint64_t>(p.m * p.n * p.batch) * sizeof(float);
  return (bytes + kWorkspaceAlignment - 1) / kWorkspaceAlignment * kWorkspaceAlignment;
}

Algorithm algorithm_for(const Description& d, const Layout& a, const Layout& result) {
  Algorithm algorithm;
  algorithm.epilogue = d.epilogue;
  algorithm.compute = d.compute;
  algorithm.types[0] = a.type;
  algorithm.types[1] = result.type;
  return algorithm;
}

bool is_aligned(const void* p, std::uint32_t bytes) {
  return bytes == 0 || reinterpret_cast<std::uintptr_t>(p) % bytes == 0;
}

/// Was this algorithm chosen for such a product, and do the pointers keep what was promised of
/// them?
bool serves(const Algorithm& algorithm, const Description& d, const Layout& a, const Layout& result,
            const Product& p) {
  const Algorithm wanted = algorithm_for(d, a, result);
  const void* pointers[4] = {p.a.data, p.b.data, p.c.data, p.d.data};
  for (int i = 0; i < 4; ++i)
    if (!is_aligned(pointers[i], algorithm.alignment[i])) return false;
  return algorithm.magic == Algorithm::kMagic && algorithm.epilogue == wanted.epilogue &&
         algorithm.compute == wanted.compute && algorithm.types[0] == wanted.types[0] &&
         algorithm.types[1] == wanted.types[1];
}

bool are_layouts(const cublasLtMatrixLayoutOpaque_t* a, const cublasLtMatrixLayoutOpaque_t* b,
                 const cublasLtMatrixLayoutOpaque_t* c, const cublasLtMatrixLayoutOpaque_t* d) {
  return is_object(a, Object::layout) && is_object(b, Object::layout) &&
         is_object(c, Object::layout) && is_object(d, Object::layout);
}

Operand operand(const void* data, const Layout& layout) {
  return {data, static_cast<cudaDataType>(layout.type), layout.ld, layout.stride};
}

}  // namespace

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  PLUMB_CUBLAS_INJECTION;
  if (handle == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  *handle = reinterpret_cast<cublasLtHandle_t>(new Context);
  add_object(*handle, Object::lt_handle);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  PLUMB_CUBLAS_INJECTION;
  if (!is_object(handle, Object::lt_handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  remove_object(handle);
  delete reinterpret_cast<Context*>(handle);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  PLUMB_CUBLAS_INJECTION;
  if (compute != CUBLAS_COMPUTE_32F && compute != CUBLAS_COMPUTE_32F_PEDANTIC &&
      compute != CUBLAS_COMPUTE_32F_FAST_TF32 && compute != CUBLAS_COMPUTE_32F_FAST_16BF)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  Description initial;
  initial.compute = compute;
  initial.scale = scale;
  return create(desc, initial, Object::description);
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
  PLUMB_CUBLAS_INJECTION;
  return destroy(desc, Object::description);
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  PLUMB_CUBLAS_INJECTION;
  if (!is_object(desc, Object::description)) return CUBLAS_STATUS_INVALID_VALUE;
  auto& d = own<Description>(desc);
  const auto operation = [](std::int32_t x) { return x == CUBLAS_OP_N || is_transpose(x); };
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA: return set_if(d.transa, value, bytes, operation);
    case CUBLASLT_MATMUL_DESC_TRANSB: return set_if(d.transb, value, bytes, operation);
    case CUBLASLT_MATMUL_DESC_TRANSC:
      return set_if(d.transc, value, bytes, [](std::int32_t x) { return x == CUBLAS_OP_N; });
    case CUBLASLT_MATMUL_DESC_POINTER_MODE:
      return set_if(d.pointer_mode, value, bytes,
                    [](std::int32_t x) { return x == CUBLASLT_POINTER_MODE_HOST; });
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return set_if(d.epilogue, value, bytes, [](std::uint32_t x) {
        return x == CUBLASLT_EPILOGUE_DEFAULT || x == CUBLASLT_EPILOGUE_BIAS ||
               x == CUBLASLT_EPILOGUE_GELU || x == CUBLASLT_EPILOGUE_GELU_BIAS;
      });
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return set(d.bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: return set(d.bias_type, value, bytes);
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatmulDescGetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute, void* value,
                                              size_t bytes, size_t* written) {
  PLUMB_CUBLAS_INJECTION;
  if (!is_object(desc, Object::description)) return CUBLAS_STATUS_INVALID_VALUE;
  const auto& d = own<Description>(desc);
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE: return get(d.compute, value, bytes, written);
    case CUBLASLT_MATMUL_DESC_SCALE_TYPE: return get(d.scale, value, bytes, written);
    case CUBLASLT_MATMUL_DESC_POINTER_MODE: return get(d.pointer_mode, value, bytes, written);
    case CUBLASLT_MATMUL_DESC_TRANSA: return get(d.transa, value, bytes, written);
    case CUBLASLT_MATMUL_DESC_TRANSB: return get(d.transb, value, bytes, written);
    case CUBLASLT_MATMUL_DESC_TRANSC: return get(d.transc, value, bytes, written);
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return get(d.epilogue, value, bytes, written);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return get(d.bias, value, bytes, written);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: return get(d.bias_type, value, bytes, written);
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type,
                                          uint64_t rows, uint64_t columns, int64_t ld) {
  PLUMB_CUBLAS_INJECTION;
  Layout initial;
  initial.type = static_cast<std::uint32_t>(type);
  initial.rows = rows;
  initial.columns = columns;
  initial.ld = ld;
  return create(layout, initial, Object::layout);
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  PLUMB_CUBLAS_INJECTION;
  return destroy(layout, Object::layout);
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                const void* value, size_t bytes) {
  PLUMB_CUBLAS_INJECTION;
  if (!is_object(layout, Object::layout)) return CUBLAS_STATUS_INVALID_VALUE;
  auto& l = own<Layout>(layout);
  switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_TYPE: return set(l.type, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
      return set_if(l.order, value, bytes, [](std::int32_t x) { return x == CUBLASLT_ORDER_COL; });
    case CUBLASLT_MATRIX_LAYOUT_ROWS: return set(l.rows, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_COLS: return set(l.columns, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_LD: return set(l.ld, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT: return set(l.batch, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET: return set(l.stride, value, bytes);
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  PLUMB_CUBLAS_INJECTION;
  return create(preference, Preference{}, Object::preference);
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  PLUMB_CUBLAS_INJECTION;
  return destroy(preference, Object::preference);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, size_t bytes) {
  PLUMB_CUBLAS_INJECTION;
  if (!is_object(preference, Object::preference)) return CUBLAS_STATUS_INVALID_VALUE;
  auto& p = own<Preference>(preference);
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_SEARCH_MODE:
      return set_if(p.search, value, bytes,
                    [](std::uint32_t x) { return x == CUBLASLT_SEARCH_BEST_FIT; });
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return set(p.workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: return set(p.reductions, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: return set(p.alignment[0], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: return set(p.alignment[1], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: return set(p.alignment[2], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: return set(p.alignment[3], value, bytes);
    case CUBLASLT_MATMUL_PREF_MAX_WAVES_COUNT: return set(p.waves, value, bytes);
    case CUBLASLT_MATMUL_PREF_IMPL_MASK: return set(p.implementations, value, bytes);
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
  if (!is_object(handle, Object::lt_handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!is_object(desc, Object::description) || !are_layouts(a, b, c, d) ||
      !is_object(preference, Object::preference) || requested <= 0 || results == nullptr ||
      returned == nullptr)
    return CUBLAS_STATUS_INVALID_VALUE;
  *returned = 0;
  const auto& description = own<Description>(desc);
  const auto& wanted = own<Preference>(preference);
  Product product;
  const cublasStatus_t status = describe(description, own<Layout>(a), own<Layout>(b),
                                         own<Layout>(c), own<Layout>(d), product);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  Algorithm algorithm = algorithm_for(description, own<Layout>(a), own<Layout>(d));
  std::memcpy(algorithm.alignment, wanted.alignment, sizeof algorithm.alignment);
  // A split of k is taken where its room is granted, so that the caller has to bring it.
  if ((wanted.reductions & CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE) != 0 &&
      workspace_of(product) <= wanted.workspace)
    algorithm.workspace = workspace_of(product);
  cublasLtMatmulHeuristicResult_t result{};
  result.algo = std::bit_cast<cublasLtMatmulAlgo_t>(algorithm);
  result.workspaceSize = algorithm.workspace;
  result.state = CUBLAS_STATUS_SUCCESS;
  result.wavesCount = 1;
  results[0] = result;
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
  if (!is_object(handle, Object::lt_handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (layout_c == nullptr) layout_c = layout_d;
  if (!is_object(desc, Object::description) || !are_layouts(layout_a, layout_b, layout_c, layout_d))
    return CUBLAS_STATUS_INVALID_VALUE;
  const auto& description = own<Description>(desc);
  const auto& la = own<Layout>(layout_a);
  const auto& lb = own<Layout>(layout_b);
  const auto& lc = own<Layout>(layout_c);
  const auto& ld = own<Layout>(layout_d);
  Product product;
  const cublasStatus_t status = describe(description, la, lb, lc, ld, product);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  if (!read_scalar(__func__, alpha, product.alpha) || !read_scalar(__func__, beta, product.beta) ||
      a == nullptr || b == nullptr || d == nullptr || (c == nullptr && product.beta != 0))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (c == d && (lc.ld != ld.ld || lc.stride != ld.stride)) return CUBLAS_STATUS_INVALID_VALUE;
  product.a = operand(a, la);
  product.b = operand(b, lb);
  product.c = operand(c, lc);
  product.d = operand(d, ld);
  product.result = d;
  if (has_bias(description)) {
    if (description.bias == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    product.bias = description.bias;
  }
  if (!is_workspace(workspace, workspace_bytes)) return CUBLAS_STATUS_INVALID_VALUE;
  if (algorithm != nullptr) {
    const auto chosen = std::bit_cast<Algorithm>(*algorithm);
    if (!serves(chosen, description, la, ld, product) || workspace_bytes < chosen.workspace)
      return CUBLAS_STATUS_INVALID_VALUE;
  }
  product.workspace = workspace_bytes > 0 ? workspace : nullptr;
  product.workspace_bytes = workspace_bytes;
  return submit(__func__, product, stream);
}

}  // extern "C"
