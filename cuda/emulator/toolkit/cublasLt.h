// cublasLt's declarations for a machine without a CUDA toolkit; see cublas_v2.h beside this file.
#pragma once

#include "cublas_v2.h"

typedef struct cublasLtContext* cublasLtHandle_t;

PLUMB_CUBLASLT_ENUMERATIONS(PLUMB_CUBLAS_TYPE)

#define PLUMB_CUBLASLT_STRUCTURE(type, bytes) \
  typedef struct {                            \
    uint64_t data[(bytes) / 8];               \
  } type;
PLUMB_CUBLASLT_STRUCTURES(PLUMB_CUBLASLT_STRUCTURE)

typedef cublasLtMatrixLayoutOpaque_t* cublasLtMatrixLayout_t;
typedef cublasLtMatmulDescOpaque_t* cublasLtMatmulDesc_t;
typedef cublasLtMatmulPreferenceOpaque_t* cublasLtMatmulPreference_t;

typedef struct {
  cublasLtMatmulAlgo_t algo;
  size_t workspaceSize;
  cublasStatus_t state;
  float wavesCount;
  int reserved[4];
} cublasLtMatmulHeuristicResult_t;

#include "cublasLt_functions.h"
