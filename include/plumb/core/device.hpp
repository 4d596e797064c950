// Devices are types, so that overload resolution picks a kernel at compile time: an op calls
// `gelu_forward(Device{}, …)` unqualified and argument-dependent lookup finds the backend's
// function in plumb::kernels. No op includes a backend; no virtual call; no run-time device tag
// (which, inside inline functions shared by .cpp and .cu files, is a silent violation of the
// one-definition rule).
#pragma once

#include <plumb/core/version.hpp>

#include <type_traits>

namespace plumb { inline namespace v0_1 {

class Pool;

namespace kernels {
/// The CPU backend: plumb/cpu/kernels.hpp. `pool` is the thread pool to run on; null is the
/// process-wide default pool.
struct Cpu {
  Pool* pool = nullptr;
};
/// The same with matrix products in bf16: operands rounded, sums, weights and all between in float
/// (math/bf16.hpp). A mode in the type, as those of the CUDA backend.
struct CpuBf16 : Cpu {};
}  // namespace kernels

using kernels::Cpu;
using kernels::CpuBf16;

/// True once the backend of D has been included.
template <class D>
inline constexpr bool backend_included = false;

/// Whether the memory of D is the host's.
template <class D>
inline constexpr bool on_host = std::is_base_of_v<Cpu, D>;

/// True for devices whose matrix products round both operands to bf16: there a weight that is not
/// trained is kept as what it is read as, in half the memory.
template <class D>
inline constexpr bool rounds_products = false;
template <>
inline constexpr bool rounds_products<CpuBf16> = true;

}}  // namespace plumb::v0_1
