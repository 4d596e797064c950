// Stand-ins for cuBLAS and cublasLt (cublas.cpp): the functions of their headers that
// gemm_vendor.cuh calls, in float, run on the host in stream order. This header is what tests steer
// them by.
//
// They refuse what the documentation refuses of such calls, with its status; what the documentation
// leaves undefined (operands that overlap the result, memory that is no device memory, a workspace
// in use as data) is refused too and reported. Types, layouts and modes that Plumb does not ask for
// are CUBLAS_STATUS_NOT_SUPPORTED. Written from the documentation: nothing here was compared with
// the libraries on a GPU.
//
// Sums run in an order of their own, pairwise over k in float: neither the exact mode's canonical
// order nor that of any cuBLAS, so that no test can lean on bits that a GPU would not give.
#pragma once

#include <cublasLt.h>
#include <cublas_v2.h>

#include <cstddef>

namespace plumb::emulator {

/// The next call of `function` ("cublasSgemm_v2") returns `status`, once, and does nothing. One
/// injection is kept. The runtime's inject() and calls() know these functions too: an error
/// injected there is CUBLAS_STATUS_EXECUTION_FAILED here, or ALLOC_FAILED.
void inject_cublas(const char* function, cublasStatus_t status);
/// Handles, descriptors, layouts and preferences that were created and not destroyed.
std::size_t live_cublas_objects();

}  // namespace plumb::emulator
