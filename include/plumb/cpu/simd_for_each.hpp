// Compiles a file of kernel bodies once for each instruction set, each time in a region that turns
// it on and in a namespace of its own: scalar, and avx2 and avx512, or neon. Ours (kernels.hpp),
// and anybody's:
//
//   #define PLUMB_BODIES "mine.inl.hpp"  // written with V, set, load, map, for_lanes (vec.inl.hpp)
//   #define PLUMB_BODIES_IN mine         // gives mine::scalar::f, mine::avx2::f, mine::avx512::f
//   #include <plumb/cpu/simd_for_each.hpp>
//
// PLUMB_DISPATCH(f), written in that namespace, is then the one for current_isa() (isa.hpp). The
// bodies include nothing, and call no function of a library. Multi-included; docs/extending.md.
#if !defined(PLUMB_BODIES) || !defined(PLUMB_BODIES_IN)
#error "define PLUMB_BODIES and PLUMB_BODIES_IN before: see the head of plumb/cpu/simd_for_each.hpp"
#endif

#include <plumb/core/bf16.hpp>
#include <plumb/core/check.hpp>
#include <plumb/cpu/isa.hpp>
#include <plumb/math/activation.hpp>
#include <plumb/math/adamw.hpp>
#include <plumb/math/elementwise.hpp>

#include <cstdint>

#define PLUMB_FORMULA inline

namespace PLUMB_BODIES_IN {
using ::plumb::Index;
}

#include <plumb/cpu/simd_begin_scalar.hpp>
namespace PLUMB_BODIES_IN::scalar {
#include <plumb/cpu/vec_scalar.inl.hpp>

#include <plumb/cpu/vec.inl.hpp>
#include <plumb/math/elementary.inl.hpp>
#include <plumb/math/activation.inl.hpp>
#include PLUMB_BODIES
}  // namespace PLUMB_BODIES_IN::scalar
#include <plumb/cpu/simd_end.hpp>

#if defined(__x86_64__)
#include <immintrin.h>

#include <plumb/cpu/simd_begin_avx2.hpp>
namespace PLUMB_BODIES_IN::avx2 {
#include <plumb/cpu/vec_avx2.inl.hpp>

#include <plumb/cpu/vec.inl.hpp>
#include <plumb/math/elementary.inl.hpp>
#include <plumb/math/activation.inl.hpp>
#include PLUMB_BODIES
}  // namespace PLUMB_BODIES_IN::avx2
#include <plumb/cpu/simd_end.hpp>

#include <plumb/cpu/simd_begin_avx512.hpp>
namespace PLUMB_BODIES_IN::avx512 {
#include <plumb/cpu/vec_avx512.inl.hpp>

#include <plumb/cpu/vec.inl.hpp>
#include <plumb/math/elementary.inl.hpp>
#include <plumb/math/activation.inl.hpp>
#include PLUMB_BODIES
}  // namespace PLUMB_BODIES_IN::avx512
#include <plumb/cpu/simd_end.hpp>
#elif defined(__aarch64__)
#include <arm_neon.h>

#include <plumb/cpu/simd_begin_neon.hpp>
namespace PLUMB_BODIES_IN::neon {
#include <plumb/cpu/vec_neon.inl.hpp>

#include <plumb/cpu/vec.inl.hpp>
#include <plumb/math/elementary.inl.hpp>
#include <plumb/math/activation.inl.hpp>
#include PLUMB_BODIES
}  // namespace PLUMB_BODIES_IN::neon
#include <plumb/cpu/simd_end.hpp>
#endif

#undef PLUMB_FORMULA
#undef PLUMB_BODIES
#undef PLUMB_BODIES_IN
