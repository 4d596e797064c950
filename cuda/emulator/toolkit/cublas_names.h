// The enumerators of cuBLAS and cublasLt that Plumb names, each with its value. cublas_v2.h and cublasLt.h
// beside this file make types of them where there is no CUDA toolkit; cublas_check.cpp compares them with
// the toolkit's own headers where there is one. What this is not: complete.
#pragma once

#define PLUMB_CUBLAS_STATUS(X)          \
  X(CUBLAS_STATUS_SUCCESS, 0)           \
  X(CUBLAS_STATUS_NOT_INITIALIZED, 1)   \
  X(CUBLAS_STATUS_ALLOC_FAILED, 3)      \
  X(CUBLAS_STATUS_INVALID_VALUE, 7)     \
  X(CUBLAS_STATUS_ARCH_MISMATCH, 8)     \
  X(CUBLAS_STATUS_MAPPING_ERROR, 11)    \
  X(CUBLAS_STATUS_EXECUTION_FAILED, 13) \
  X(CUBLAS_STATUS_INTERNAL_ERROR, 14)   \
  X(CUBLAS_STATUS_NOT_SUPPORTED, 15)    \
  X(CUBLAS_STATUS_LICENSE_ERROR, 16)

#define PLUMB_CUBLAS_OPERATION(X) \
  X(CUBLAS_OP_N, 0)               \
  X(CUBLAS_OP_T, 1)               \
  X(CUBLAS_OP_C, 2)               \
  X(CUBLAS_OP_CONJG, 3)

#define PLUMB_CUBLAS_MATH(X)                     \
  X(CUBLAS_DEFAULT_MATH, 0)                      \
  X(CUBLAS_TENSOR_OP_MATH, 1)                    \
  X(CUBLAS_PEDANTIC_MATH, 2)                     \
  X(CUBLAS_TF32_TENSOR_OP_MATH, 3)               \
  X(CUBLAS_FP32_EMULATED_BF16X9_MATH, 4)         \
  X(CUBLAS_FP64_EMULATED_FIXEDPOINT_MATH, 8)     \
  X(CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION, 16)

#define PLUMB_CUBLAS_COMPUTE(X)           \
  X(CUBLAS_COMPUTE_16F, 64)               \
  X(CUBLAS_COMPUTE_32F, 68)               \
  X(CUBLAS_COMPUTE_32F_PEDANTIC, 69)      \
  X(CUBLAS_COMPUTE_32F_FAST_16F, 74)      \
  X(CUBLAS_COMPUTE_32F_FAST_16BF, 75)     \
  X(CUBLAS_COMPUTE_32F_FAST_TF32, 77)     \
  X(CUBLAS_COMPUTE_32F_EMULATED_16BFX9, 78) \
  X(CUBLAS_COMPUTE_64F, 70)               \
  X(CUBLAS_COMPUTE_32I, 72)

#define PLUMB_CUBLAS_ALGORITHM(X)       \
  X(CUBLAS_GEMM_DEFAULT, -1)            \
  X(CUBLAS_GEMM_DEFAULT_TENSOR_OP, 99)

#define PLUMB_CUDA_DATA_TYPE(X) \
  X(CUDA_R_32F, 0)              \
  X(CUDA_R_64F, 1)              \
  X(CUDA_R_16F, 2)              \
  X(CUDA_R_8I, 3)               \
  X(CUDA_R_32I, 10)             \
  X(CUDA_R_16BF, 14)

#define PLUMB_CUBLASLT_POINTER_MODE(X) \
  X(CUBLASLT_POINTER_MODE_HOST, 0)     \
  X(CUBLASLT_POINTER_MODE_DEVICE, 1)

#define PLUMB_CUBLASLT_ORDER(X) \
  X(CUBLASLT_ORDER_COL, 0)      \
  X(CUBLASLT_ORDER_ROW, 1)

#define PLUMB_CUBLASLT_LAYOUT(X)                    \
  X(CUBLASLT_MATRIX_LAYOUT_TYPE, 0)                 \
  X(CUBLASLT_MATRIX_LAYOUT_ORDER, 1)                \
  X(CUBLASLT_MATRIX_LAYOUT_ROWS, 2)                 \
  X(CUBLASLT_MATRIX_LAYOUT_COLS, 3)                 \
  X(CUBLASLT_MATRIX_LAYOUT_LD, 4)                   \
  X(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, 5)          \
  X(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, 6) \
  X(CUBLASLT_MATRIX_LAYOUT_PLANE_OFFSET, 7)

#define PLUMB_CUBLASLT_MATMUL_DESC(X)               \
  X(CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, 0)           \
  X(CUBLASLT_MATMUL_DESC_SCALE_TYPE, 1)             \
  X(CUBLASLT_MATMUL_DESC_POINTER_MODE, 2)           \
  X(CUBLASLT_MATMUL_DESC_TRANSA, 3)                 \
  X(CUBLASLT_MATMUL_DESC_TRANSB, 4)                 \
  X(CUBLASLT_MATMUL_DESC_TRANSC, 5)                 \
  X(CUBLASLT_MATMUL_DESC_FILL_MODE, 6)              \
  X(CUBLASLT_MATMUL_DESC_EPILOGUE, 7)               \
  X(CUBLASLT_MATMUL_DESC_BIAS_POINTER, 8)           \
  X(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, 26)

#define PLUMB_CUBLASLT_EPILOGUE(X)   \
  X(CUBLASLT_EPILOGUE_DEFAULT, 1)    \
  X(CUBLASLT_EPILOGUE_RELU, 2)       \
  X(CUBLASLT_EPILOGUE_BIAS, 4)       \
  X(CUBLASLT_EPILOGUE_RELU_BIAS, 6)  \
  X(CUBLASLT_EPILOGUE_GELU, 32)      \
  X(CUBLASLT_EPILOGUE_GELU_BIAS, 36) \
  X(CUBLASLT_EPILOGUE_GELU_AUX, 160) \
  X(CUBLASLT_EPILOGUE_DGELU, 192)

#define PLUMB_CUBLASLT_SEARCH(X)   \
  X(CUBLASLT_SEARCH_BEST_FIT, 0)   \
  X(CUBLASLT_SEARCH_LIMITED_BY_ALGO_ID, 1)

#define PLUMB_CUBLASLT_REDUCTION(X)      \
  X(CUBLASLT_REDUCTION_SCHEME_NONE, 0)   \
  X(CUBLASLT_REDUCTION_SCHEME_INPLACE, 1) \
  X(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, 2) \
  X(CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE, 4) \
  X(CUBLASLT_REDUCTION_SCHEME_MASK, 7)

#define PLUMB_CUBLASLT_PREFERENCE(X)               \
  X(CUBLASLT_MATMUL_PREF_SEARCH_MODE, 0)           \
  X(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, 1)   \
  X(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, 3) \
  X(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, 5) \
  X(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, 6) \
  X(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, 7) \
  X(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, 8) \
  X(CUBLASLT_MATMUL_PREF_MAX_WAVES_COUNT, 9)       \
  X(CUBLASLT_MATMUL_PREF_IMPL_MASK, 12)

/// Every enumeration and its type.
#define PLUMB_CUBLAS_ENUMERATIONS(X)              \
  X(cublasStatus_t, PLUMB_CUBLAS_STATUS)          \
  X(cublasOperation_t, PLUMB_CUBLAS_OPERATION)    \
  X(cublasMath_t, PLUMB_CUBLAS_MATH)              \
  X(cublasComputeType_t, PLUMB_CUBLAS_COMPUTE)    \
  X(cublasGemmAlgo_t, PLUMB_CUBLAS_ALGORITHM)

#define PLUMB_CUBLASLT_ENUMERATIONS(X)                              \
  X(cublasLtPointerMode_t, PLUMB_CUBLASLT_POINTER_MODE)             \
  X(cublasLtOrder_t, PLUMB_CUBLASLT_ORDER)                          \
  X(cublasLtMatrixLayoutAttribute_t, PLUMB_CUBLASLT_LAYOUT)         \
  X(cublasLtMatmulDescAttributes_t, PLUMB_CUBLASLT_MATMUL_DESC)     \
  X(cublasLtEpilogue_t, PLUMB_CUBLASLT_EPILOGUE)                    \
  X(cublasLtMatmulSearch_t, PLUMB_CUBLASLT_SEARCH)                  \
  X(cublasLtReductionScheme_t, PLUMB_CUBLASLT_REDUCTION)            \
  X(cublasLtMatmulPreferenceAttributes_t, PLUMB_CUBLASLT_PREFERENCE)

/// Opaque structures and their size in bytes.
#define PLUMB_CUBLASLT_STRUCTURES(X)       \
  X(cublasLtMatrixLayoutOpaque_t, 64)      \
  X(cublasLtMatmulAlgo_t, 64)              \
  X(cublasLtMatmulDescOpaque_t, 256)       \
  X(cublasLtMatmulPreferenceOpaque_t, 64)
