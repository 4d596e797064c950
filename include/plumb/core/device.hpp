// Devices are types, so that overload resolution picks a kernel at compile time: an op calls
// `gelu_forward(Device{}, …)` unqualified and argument-dependent lookup finds the backend's
// function in plumb::kernels. No op includes a backend; no virtual call; no run-time device tag
// (which, inside inline functions shared by .cpp and .cu files, is a silent violation of the
// one-definition rule).
#pragma once

#include <plumb/core/version.hpp>

namespace plumb { inline namespace v0_1 {

class Pool;

namespace kernels {
/// The CPU backend: plumb/cpu/kernels.hpp. `pool` is the thread pool to run on; null is the
/// process-wide default pool.
struct Cpu {
  Pool* pool = nullptr;
};
}  // namespace kernels

using kernels::Cpu;

/// True once the backend of D has been included.
template <class D>
inline constexpr bool backend_included = false;

}}  // namespace plumb::v0_1
