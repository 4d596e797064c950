// What the stand-ins for cuBLAS and cublasLt share: one description of a product, its checks, and
// the queueing of its work. Column-major throughout, as in BLAS.
#pragma once

#include <emulator/cublas.hpp>

#include <cstdint>

namespace plumb::emulator::cublas {

/// Counts a call and says with what it is to fail; success if it is not.
cublasStatus_t injected_status(const char* function);
/// First thing in every function of the libraries.
#define PLUMB_CUBLAS_INJECTION                                                            \
  if (const cublasStatus_t wanted = ::plumb::emulator::cublas::injected_status(__func__); \
      wanted != CUBLAS_STATUS_SUCCESS)                                                    \
  return wanted

/// Created objects by address: what was never created, or destroyed already, is found out.
enum class Object { handle, lt_handle, description, layout, preference };
void add_object(const void* object, Object kind);
bool is_object(const void* object, Object kind);
void remove_object(const void* object);

enum class Precision {
  exact,
  tf32,
  bf16
};  ///< what operands are rounded to before they are multiplied
enum class Activation { none, gelu };

struct Operand {
  const void* data = nullptr;
  cudaDataType type = CUDA_R_32F;
  std::int64_t ld = 1;
  std::int64_t stride = 0;  ///< elements between the matrices of a batch
};

/// d (m, n) = activation(alpha · op(a) (m, k) · op(b) (k, n) + beta · c (m, n) + bias (m) in every
/// column).
struct Product {
  std::int64_t m = 0, n = 0, k = 0;
  std::int64_t batch = 1;
  bool transpose_a = false, transpose_b = false;
  float alpha = 1, beta = 0;
  Operand a, b, c;
  Operand d;               ///< the result's layout and place
  void* result = nullptr;  ///< d.data, to write to
  const void* bias = nullptr;
  Activation activation = Activation::none;
  Precision precision = Precision::exact;
  void* workspace = nullptr;
  std::size_t workspace_bytes = 0;
};

constexpr std::size_t kWorkspaceAlignment = 256;

inline std::int64_t bytes_of(cudaDataType type) { return type == CUDA_R_16BF ? 2 : 4; }
inline bool is_operation(cublasOperation_t operation) {
  return operation == CUBLAS_OP_N || operation == CUBLAS_OP_T || operation == CUBLAS_OP_C;
}
/// alpha and beta are read at once, from the host: the libraries' default pointer mode.
bool read_scalar(const char* function, const void* pointer, float& value);
/// Null, or as cublasSetWorkspace and cublasLtMatmul want it: device memory, 256-byte aligned.
bool is_workspace(const void* workspace, std::size_t bytes);

/// Checks the memory of the product whose shapes are in order, and queues its work on the stream.
cublasStatus_t submit(const char* function, const Product& product, cudaStream_t stream);

}  // namespace plumb::emulator::cublas
