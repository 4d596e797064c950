// The enumerators of cuBLAS and cublasLt that Plumb names, each with its value. cublas_v2.h and
// cublasLt.h beside this file make types of them where there is no CUDA toolkit; cublas_check.cpp
// compares them with the toolkit's own headers where there is one. What this is not: complete.
#pragma once

#define PLUMB_CUBLAS_STATUS(X)          \
  X(CUBLAS_STATUS_SUCCESS, 0)           \
  X(CUBLAS_STATUS_NOT_INITIALIZED, 1)   \
  X(CUBLAS_STATUS_ALLOC_FAILED, 3)      \
  X(CUBLAS_STATUS_INVALID_VALUE, 7)     \
  X(CUBLAS_STATUS_ARCH_MISMATCH, 8)     \
  X(CUBLAS_STATUS_EXECUTION_FAILED, 13) \
  X(CUBLAS_STATUS_INTERNAL_ERROR, 14)   \
  X(CUBLAS_STATUS_NOT_SUPPORTED, 15)

#define PLUMB_CUBLAS_OPERATION(X) \
  X(CUBLAS_OP_N, 0)               \
  X(CUBLAS_OP_T, 1)

// Of these and of the epilogues one more than Plumb names: a test asks for what is not served.
#define PLUMB_CUBLAS_MATH(X) \
  X(CUBLAS_DEFAULT_MATH, 0)  \
  X(CUBLAS_TF32_TENSOR_OP_MATH, 3)
#define PLUMB_CUBLAS_COMPUTE(X) X(CUBLAS_COMPUTE_32F, 68)
#define PLUMB_CUDA_DATA_TYPE(X) X(CUDA_R_32F, 0) X(CUDA_R_16BF, 14)

#define PLUMB_CUBLASLT_MATMUL_DESC(X) \
  X(CUBLASLT_MATMUL_DESC_TRANSA, 3)   \
  X(CUBLASLT_MATMUL_DESC_TRANSB, 4)   \
  X(CUBLASLT_MATMUL_DESC_EPILOGUE, 7) \
  X(CUBLASLT_MATMUL_DESC_BIAS_POINTER, 8)

#define PLUMB_CUBLASLT_EPILOGUE(X) \
  X(CUBLASLT_EPILOGUE_DEFAULT, 1)  \
  X(CUBLASLT_EPILOGUE_RELU, 2)     \
  X(CUBLASLT_EPILOGUE_BIAS, 4)     \
  X(CUBLASLT_EPILOGUE_GELU, 32)    \
  X(CUBLASLT_EPILOGUE_GELU_BIAS, 36)

#define PLUMB_CUBLASLT_PREFERENCE(X)               \
  X(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, 1)   \
  X(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, 5) \
  X(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, 6) \
  X(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, 7) \
  X(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, 8)

/// Every enumeration and its type.
#define PLUMB_CUBLAS_ENUMERATIONS(X)           \
  X(cublasStatus_t, PLUMB_CUBLAS_STATUS)       \
  X(cublasOperation_t, PLUMB_CUBLAS_OPERATION) \
  X(cublasMath_t, PLUMB_CUBLAS_MATH)           \
  X(cublasComputeType_t, PLUMB_CUBLAS_COMPUTE)

#define PLUMB_CUBLASLT_ENUMERATIONS(X)                          \
  X(cublasLtMatmulDescAttributes_t, PLUMB_CUBLASLT_MATMUL_DESC) \
  X(cublasLtEpilogue_t, PLUMB_CUBLASLT_EPILOGUE)                \
  X(cublasLtMatmulPreferenceAttributes_t, PLUMB_CUBLASLT_PREFERENCE)

/// Opaque structures and their size in bytes.
#define PLUMB_CUBLASLT_STRUCTURES(X)  \
  X(cublasLtMatrixLayoutOpaque_t, 64) \
  X(cublasLtMatmulAlgo_t, 64)         \
  X(cublasLtMatmulDescOpaque_t, 256)  \
  X(cublasLtMatmulPreferenceOpaque_t, 64)
