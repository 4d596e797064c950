// cuBLAS's declarations for a machine without a CUDA toolkit: what Plumb names, and no more, under
// the toolkit's name of the file. Where there is a toolkit its own header is used, and
// cublas_check.cpp compares the two.
#pragma once

#include "cublas_names.h"

#include <cstddef>
#include <cstdint>

using std::size_t;

typedef struct CUstream_st* cudaStream_t;  // as cuda_runtime_api.h says it too
typedef struct cublasContext* cublasHandle_t;

#define PLUMB_CUBLAS_VALUE(name, value) name = value,
#define PLUMB_CUBLAS_TYPE(type, list) typedef enum { list(PLUMB_CUBLAS_VALUE) } type;
typedef enum cudaDataType_t { PLUMB_CUDA_DATA_TYPE(PLUMB_CUBLAS_VALUE) } cudaDataType;
PLUMB_CUBLAS_ENUMERATIONS(PLUMB_CUBLAS_TYPE)

#include "cublas_functions.h"

#define cublasCreate cublasCreate_v2
#define cublasDestroy cublasDestroy_v2
#define cublasSetStream cublasSetStream_v2
#define cublasSetWorkspace cublasSetWorkspace_v2
#define cublasSgemm cublasSgemm_v2
