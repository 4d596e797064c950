// Which instruction set the kernels use: chosen once by cpuid, or by PLUMB_ISA=scalar|neon|avx2|
// avx512|avx512_bf16, or by set_isa (tests run every path in one process). All give the same bits.
//
// Each family of kernels has a table of function pointers, filled once per instruction set from the
// same source: see kernels.hpp.
#pragma once

#include <plumb/core/check.hpp>
#include <plumb/core/environment.hpp>
#include <plumb/cpu/vdpbf16ps.hpp>

#include <atomic>

// Before a loop of few, constantly many steps whose array must live in registers; -O2 does not see
// to it by itself. _LANES: not where registers are single lanes, 32 copies of a body take long to
// compile.
#if defined(__clang__)
#define PLUMB_UNROLL _Pragma("unroll")
#define PLUMB_UNROLL_LANES _Pragma("unroll(kRegisters <= 4 ? kRegisters : 1)")
#else
#define PLUMB_UNROLL _Pragma("GCC unroll 32")
#define PLUMB_UNROLL_LANES _Pragma("GCC unroll (kRegisters <= 4 ? kRegisters : 1)")
#endif

// A lambda that is called twice is otherwise a call.
#define PLUMB_INLINE __attribute__((always_inline))

// Of a function that simd_for_each.hpp compiled for each, the one for `isa`, or for that in use.
#if defined(__x86_64__)
#define PLUMB_FOR_ISA(isa, function)                 \
  ((isa) >= ::plumb::Isa::Avx512 ? &avx512::function \
   : (isa) == ::plumb::Isa::Avx2 ? &avx2::function   \
                                 : &scalar::function)
#elif defined(__aarch64__)
#define PLUMB_FOR_ISA(isa, function) \
  ((isa) == ::plumb::Isa::Neon ? &neon::function : &scalar::function)
#else
#define PLUMB_FOR_ISA(isa, function) (static_cast<void>(isa), &scalar::function)
#endif
#define PLUMB_DISPATCH(function) PLUMB_FOR_ISA(::plumb::current_isa(), function)

namespace plumb { inline namespace v0_1 {

/// Avx512Bf16 differs from Avx512 in the products of CpuBf16 alone. Neon is all that a 64-bit ARM
/// processor has, and each of those has it.
enum class Isa : int { Scalar = 0, Neon = 1, Avx2 = 2, Avx512 = 3, Avx512Bf16 = 4 };

inline constexpr const char* kIsaNames[] = {"scalar", "neon", "avx2", "avx512", "avx512_bf16"};
inline const char* name(Isa isa) { return kIsaNames[static_cast<int>(isa)]; }

/// Whether this processor can run `isa`.
inline bool supported(Isa isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  switch (isa) {
    case Isa::Avx512Bf16: {
      static const bool is = supported(Isa::Avx512) && __builtin_cpu_supports("avx512bf16") &&
                             detail::dot_is_the_chain();
      return is;
    }
    case Isa::Avx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("fma");
    case Isa::Avx2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    default: return isa == Isa::Scalar;
  }
#elif defined(__aarch64__)
  return isa == Isa::Scalar || isa == Isa::Neon;
#else
  return isa == Isa::Scalar;
#endif
}

namespace detail {
inline Isa initial_isa() {
  const int named =
      environment_choice("PLUMB_ISA", {"scalar", "neon", "avx2", "avx512", "avx512_bf16"});
  if (named < 0) {
#if defined(__x86_64__)
    if (supported(Isa::Avx512Bf16) && dot_is_fast()) return Isa::Avx512Bf16;
#endif
    for (const Isa isa : {Isa::Avx512, Isa::Avx2, Isa::Neon})
      if (supported(isa)) return isa;
    return Isa::Scalar;
  }
  const Isa isa{named};
  if (!supported(isa))
    fail<DataError>(str("[isa] PLUMB_ISA is '", name(isa),
                        "', which this processor lacks. HINT: unset it for the best that it has"));
  return isa;
}
inline std::atomic<Isa>& isa_state() {
  static std::atomic<Isa> isa{initial_isa()};
  return isa;
}
}  // namespace detail

/// The instruction set in use.
inline Isa current_isa() { return detail::isa_state().load(std::memory_order_relaxed); }

/// Chooses another. Not while kernels run.
inline void set_isa(Isa isa, Where where = Where::here()) {
  if (!supported(isa)) fail(str("[isa] this processor lacks ", name(isa)), where);
  detail::isa_state().store(isa, std::memory_order_relaxed);
}

namespace kernels {
/// The table of a family of kernels for an instruction set. Specialised once per family.
template <class Table>
const Table& table_for(Isa isa);

template <class Table>
const Table& dispatch() {
  return table_for<Table>(current_isa());
}
}  // namespace kernels

}}  // namespace plumb::v0_1
