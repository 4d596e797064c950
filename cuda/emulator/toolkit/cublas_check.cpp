// Compared by the compiler, where there is a CUDA toolkit: what cuda/emulator/toolkit says of
// cuBLAS and cublasLt against the toolkit's own headers: every enumerator's value, every
// structure's size, every function's type. Compile with the toolkit's include path, not with
// toolkit/ on it.
#include <cublasLt.h>
#include <cublas_v2.h>

#include "cublas_names.h"

#include <cstddef>
#include <type_traits>

#if !defined(CUBLAS_VERSION)
#error "this is to be compiled against the CUDA toolkit's cublas_v2.h"
#endif

#define PLUMB_SAME_VALUE(name, value) \
  static_assert(name == value, #name " has another value in the toolkit");
#define PLUMB_SAME_VALUES(type, list) list(PLUMB_SAME_VALUE)
PLUMB_CUBLAS_ENUMERATIONS(PLUMB_SAME_VALUES)
PLUMB_CUBLASLT_ENUMERATIONS(PLUMB_SAME_VALUES)
PLUMB_CUDA_DATA_TYPE(PLUMB_SAME_VALUE)

// An enumerator under another type's list would have the right value and the wrong type.
#define PLUMB_SAME_TYPE(name, value) \
  static_assert(std::is_same_v<decltype(name), Type>, #name " belongs to another enumeration");
#define PLUMB_SAME_TYPES(type, list) \
  namespace in_##type {              \
    using Type = type;               \
    list(PLUMB_SAME_TYPE)            \
  }
PLUMB_CUBLAS_ENUMERATIONS(PLUMB_SAME_TYPES)
PLUMB_CUBLASLT_ENUMERATIONS(PLUMB_SAME_TYPES)

#define PLUMB_SAME_SIZE(type, bytes) \
  static_assert(sizeof(type) == (bytes), #type " has another size in the toolkit");
PLUMB_CUBLASLT_STRUCTURES(PLUMB_SAME_SIZE)

// cublasLtMatmulHeuristicResult_t is the one structure whose fields are read.
static_assert(sizeof(cublasLtMatmulHeuristicResult_t) == 96);
static_assert(offsetof(cublasLtMatmulHeuristicResult_t, algo) == 0);
static_assert(offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize) == 64);
static_assert(offsetof(cublasLtMatmulHeuristicResult_t, state) == 72);

// Declared again: another type is an error, and so is a function that became a macro or inline.
#include "cublasLt_functions.h"
#include "cublas_functions.h"
