// The CUDA language for a host compiler: what nvcc knows by itself, on top of the fiber core. The
// non-CUDA half of plumb/cuda/platform.cuh includes this, instruments.hpp, and nothing else of the
// emulator.
//
// Kernels are ordinary functions here, `__shared__` variables are static ones (blocks run one after
// another), threadIdx & co are macros. Left out on purpose, as Plumb's kernels do without:
// __constant__, cooperative groups, textures, float atomics, fast-math intrinsics.
#pragma once

#include <emulator/core.hpp>
#include <emulator/runtime.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <tuple>
#include <type_traits>

#include <vector_functions.h>

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __launch_bounds__
#undef __forceinline__
#undef __noinline__
#undef __align__
#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)
#define __forceinline__ inline
#define __align__(n) __attribute__((aligned(n)))

#define threadIdx (::plumb::emulator::thread_index())
#define blockIdx (::plumb::emulator::block_index())
#define blockDim (::plumb::emulator::block_size())
#define gridDim (::plumb::emulator::grid_size())
inline constexpr int warpSize = 32;

// --- Barriers and warp operations --------------------------------------------------------------

inline void __syncthreads(PLUMB_EMULATOR_PLACE) {
  ::plumb::emulator::barrier(::plumb::emulator::Barrier::plain, 0, place);
}
inline int __syncthreads_count(int predicate, PLUMB_EMULATOR_PLACE) {
  return ::plumb::emulator::barrier(::plumb::emulator::Barrier::count, predicate, place);
}
inline int __syncthreads_or(int predicate, PLUMB_EMULATOR_PLACE) {
  return ::plumb::emulator::barrier(::plumb::emulator::Barrier::any, predicate, place);
}
inline int __syncthreads_and(int predicate, PLUMB_EMULATOR_PLACE) {
  return ::plumb::emulator::barrier(::plumb::emulator::Barrier::all, predicate, place);
}
inline void __syncwarp(unsigned mask = ~0U, PLUMB_EMULATOR_PLACE) {
  ::plumb::emulator::warp_collective(mask, "__syncwarp", nullptr, nullptr, place, true);
}

namespace plumb::emulator {

/// The value of `source` among the mask's lanes; no order of memory, as in CUDA.
std::uint64_t shuffle(unsigned mask, std::uint64_t value, unsigned source, const char* name,
                      Place place);
unsigned ballot(unsigned mask, bool predicate, const char* name, Place place);
enum class Reduction { add, minimum, maximum, bit_and, bit_or, bit_xor };
std::int64_t reduce(unsigned mask, std::int64_t value, Reduction reduction, Place place);

template <class T>
T shuffle(unsigned mask, T value, int source, const char* name, Place place) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = shuffle(mask, bits, static_cast<unsigned>(source), name, place);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace plumb::emulator

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, PLUMB_EMULATOR_PLACE) {
  const int l = static_cast<int>(::plumb::emulator::lane());
  return ::plumb::emulator::shuffle(mask, value, (l & ~(width - 1)) | (source & (width - 1)),
                                    "__shfl_sync", place);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, PLUMB_EMULATOR_PLACE) {
  const int l = static_cast<int>(::plumb::emulator::lane()), s = l ^ lanes;
  const bool inside = (s & ~(width - 1)) <= (l & ~(width - 1));
  return ::plumb::emulator::shuffle(mask, value, inside ? s : l, "__shfl_xor_sync", place);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, PLUMB_EMULATOR_PLACE) {
  const int l = static_cast<int>(::plumb::emulator::lane()), d = static_cast<int>(delta);
  const bool inside = (l & (width - 1)) + d < width;
  return ::plumb::emulator::shuffle(mask, value, inside ? l + d : l, "__shfl_down_sync", place);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, PLUMB_EMULATOR_PLACE) {
  const int l = static_cast<int>(::plumb::emulator::lane()), d = static_cast<int>(delta);
  const bool inside = (l & (width - 1)) >= d;
  return ::plumb::emulator::shuffle(mask, value, inside ? l - d : l, "__shfl_up_sync", place);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, PLUMB_EMULATOR_PLACE) {
  return ::plumb::emulator::ballot(mask, predicate != 0, "__ballot_sync", place);
}
inline int __any_sync(unsigned mask, int predicate, PLUMB_EMULATOR_PLACE) {
  return ::plumb::emulator::ballot(mask, predicate != 0, "__any_sync", place) != 0;
}
inline int __all_sync(unsigned mask, int predicate, PLUMB_EMULATOR_PLACE) {
  return ::plumb::emulator::ballot(mask, predicate == 0, "__all_sync", place) == 0;
}
inline unsigned __activemask() { return ::plumb::emulator::active_mask(); }

#define PLUMB_EMULATOR_REDUCE(name, type, reduction)                                             \
  inline type name(unsigned mask, type value, PLUMB_EMULATOR_PLACE) {                            \
    return static_cast<type>(                                                                    \
        ::plumb::emulator::reduce(mask, value, ::plumb::emulator::Reduction::reduction, place)); \
  }
PLUMB_EMULATOR_REDUCE(__reduce_add_sync, int, add)
PLUMB_EMULATOR_REDUCE(__reduce_add_sync, unsigned, add)
PLUMB_EMULATOR_REDUCE(__reduce_min_sync, int, minimum)
PLUMB_EMULATOR_REDUCE(__reduce_min_sync, unsigned, minimum)
PLUMB_EMULATOR_REDUCE(__reduce_max_sync, int, maximum)
PLUMB_EMULATOR_REDUCE(__reduce_max_sync, unsigned, maximum)
PLUMB_EMULATOR_REDUCE(__reduce_and_sync, unsigned, bit_and)
PLUMB_EMULATOR_REDUCE(__reduce_or_sync, unsigned, bit_or)
PLUMB_EMULATOR_REDUCE(__reduce_xor_sync, unsigned, bit_xor)
#undef PLUMB_EMULATOR_REDUCE

// --- Atomics -----------------------------------------------------------------------------------
// No thread is interrupted between its load and its store. They are the compiler's atomics so that
// sanitizers and the tracer know them as such; relaxed, as in CUDA.

namespace plumb::emulator {

template <class T, class F>
T atomic_update(T* p, F next) {
  static_assert(std::is_integral_v<T>);
  const T old = __atomic_load_n(p, __ATOMIC_RELAXED);
  __atomic_store_n(p, next(old), __ATOMIC_RELAXED);
  return old;
}

}  // namespace plumb::emulator

#define PLUMB_EMULATOR_ATOMICS(T)                                                           \
  inline T atomicAdd(T* p, T v) { return __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }      \
  inline T atomicExch(T* p, T v) { return __atomic_exchange_n(p, v, __ATOMIC_RELAXED); }    \
  inline T atomicAnd(T* p, T v) { return __atomic_fetch_and(p, v, __ATOMIC_RELAXED); }      \
  inline T atomicOr(T* p, T v) { return __atomic_fetch_or(p, v, __ATOMIC_RELAXED); }        \
  inline T atomicXor(T* p, T v) { return __atomic_fetch_xor(p, v, __ATOMIC_RELAXED); }      \
  inline T atomicCAS(T* p, T compare, T v) {                                                \
    __atomic_compare_exchange_n(p, &compare, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED); \
    return compare;                                                                         \
  }                                                                                         \
  inline T atomicMax(T* p, T v) {                                                           \
    return ::plumb::emulator::atomic_update(p, [v](T old) { return old > v ? old : v; });   \
  }                                                                                         \
  inline T atomicMin(T* p, T v) {                                                           \
    return ::plumb::emulator::atomic_update(p, [v](T old) { return old < v ? old : v; });   \
  }
PLUMB_EMULATOR_ATOMICS(int)
PLUMB_EMULATOR_ATOMICS(unsigned)
PLUMB_EMULATOR_ATOMICS(unsigned long long)
#undef PLUMB_EMULATOR_ATOMICS
inline unsigned atomicInc(unsigned* p, unsigned limit) {
  return ::plumb::emulator::atomic_update(
      p, [limit](unsigned old) { return old >= limit ? 0 : old + 1; });
}
inline void __threadfence() {}
inline void __threadfence_block() {}

// --- Arithmetic --------------------------------------------------------------------------------

inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0F / a; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return std::sqrt(a); }
inline float rsqrtf(float a) { return 1.0F / std::sqrt(a); }

inline int __float_as_int(float a) { return std::bit_cast<int>(a); }
inline unsigned __float_as_uint(float a) { return std::bit_cast<unsigned>(a); }
inline float __int_as_float(int a) { return std::bit_cast<float>(a); }
inline float __uint_as_float(unsigned a) { return std::bit_cast<float>(a); }
inline long long __double_as_longlong(double a) { return std::bit_cast<long long>(a); }
inline double __longlong_as_double(long long a) { return std::bit_cast<double>(a); }
inline int __float2int_rn(float a) { return static_cast<int>(std::nearbyint(a)); }
inline int __float2int_rz(float a) { return static_cast<int>(a); }
inline float __int2float_rn(int a) { return static_cast<float>(a); }

inline int __popc(unsigned a) { return __builtin_popcount(a); }
inline int __popcll(unsigned long long a) { return __builtin_popcountll(a); }
inline int __clz(int a) { return std::countl_zero(static_cast<unsigned>(a)); }
inline int __clzll(long long a) { return std::countl_zero(static_cast<unsigned long long>(a)); }
inline int __ffs(int a) { return __builtin_ffs(a); }
inline int __ffsll(long long a) { return __builtin_ffsll(a); }
inline unsigned __brev(unsigned a) {
  unsigned r = 0;
  for (int i = 0; i < 32; ++i) r |= (a >> i & 1) << (31 - i);
  return r;
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<unsigned long long>(a) * b >> 32);
}
inline int __mulhi(int a, int b) { return static_cast<int>(static_cast<long long>(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>(
      ((static_cast<unsigned long long>(high) << 32 | low) << (shift & 31)) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((static_cast<unsigned long long>(high) << 32 | low) >> (shift & 31));
}

#define PLUMB_EMULATOR_MIN_MAX(T)                  \
  inline T min(T a, T b) { return b < a ? b : a; } \
  inline T max(T a, T b) { return a < b ? b : a; }
PLUMB_EMULATOR_MIN_MAX(int)
PLUMB_EMULATOR_MIN_MAX(unsigned)
PLUMB_EMULATOR_MIN_MAX(long)
PLUMB_EMULATOR_MIN_MAX(unsigned long)
PLUMB_EMULATOR_MIN_MAX(long long)
PLUMB_EMULATOR_MIN_MAX(unsigned long long)
#undef PLUMB_EMULATOR_MIN_MAX
// CUDA's of floats are fminf & co: a NaN loses.
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }
inline double min(double a, double b) { return std::fmin(a, b); }
inline double max(double a, double b) { return std::fmax(a, b); }

template <class T>
T __ldg(const T* p) {
  return *p;
}

// --- Plumb's own names -------------------------------------------------------------------------

namespace plumb::emulator {

// In a traced or TSan build the compiler may split a float4 into four accesses; there the accesses
// are told to the tool as one, by functions that the tool does not see.
#if defined(__SANITIZE_THREAD__)
#define PLUMB_EMULATOR_TELLS 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define PLUMB_EMULATOR_TELLS 1
#endif
#endif

float4 load_told(const float* p);
void store_told(float* p, float4 v);

/// mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 and m16n8k8 with tf32, rounded by the
/// published model of the architecture that is played (tensor_core.hpp).
void multiply_bf16(float* d, const std::uint32_t* a, const std::uint32_t* b, Place place);
void multiply_tf32(float* d, const std::uint32_t* a, const std::uint32_t* b, Place place);
/// ldmatrix.sync.aligned.m8n8.x4.shared.b16, with .trans if transposed.
void load_matrices(std::uint32_t* r, const void* row, bool transposed, Place place);
/// cvt.rna.tf32.f32
std::uint32_t round_to_tf32(float a);

/// Queues a launch, its arguments converted to the parameters' types now.
template <class... P, class... A>
cudaError_t launch(const char* name, void (*kernel)(P...), dim3 grid, dim3 block,
                   std::size_t shared_bytes, cudaStream_t stream, A&&... arguments) {
  static_assert((std::is_trivially_copyable_v<P> && ...), "kernel parameters are copied as bytes");
  struct Parameters {
    void (*kernel)(P...);
    std::tuple<P...> values;
  };
  auto parameters = std::make_shared<Parameters>(
      Parameters{kernel, std::tuple<P...>(static_cast<P>(arguments)...)});
  const auto body = [](const void* p) {
    const auto* q = static_cast<const Parameters*>(p);
    std::apply(q->kernel, q->values);
  };
  return enqueue_launch(source_kernel(reinterpret_cast<const void*>(kernel), name, body), grid,
                        block, shared_bytes, stream, std::move(parameters), sizeof(Parameters));
}

}  // namespace plumb::emulator

namespace plumb { inline namespace v0_1 { namespace kernels {

template <class T>
T* dynamic_shared() {
  return reinterpret_cast<T*>(::plumb::emulator::dynamic_shared_memory());
}

inline float4 load4(const float* p, PLUMB_EMULATOR_PLACE) {
  ::plumb::emulator::check_aligned(p, 16, place);
#if defined(PLUMB_EMULATOR_TELLS)
  return ::plumb::emulator::load_told(p);
#else
  return *reinterpret_cast<const float4*>(p);
#endif
}
inline void store4(float* p, float4 v, PLUMB_EMULATOR_PLACE) {
  ::plumb::emulator::check_aligned(p, 16, place);
#if defined(PLUMB_EMULATOR_TELLS)
  ::plumb::emulator::store_told(p, v);
#else
  *reinterpret_cast<float4*>(p) = v;
#endif
}

inline void cp_async_16(void* shared, const void* global, int bytes, PLUMB_EMULATOR_PLACE) {
  ::plumb::emulator::copy_async(shared, global, 16, static_cast<unsigned>(bytes), place);
}
inline void cp_async_commit() { ::plumb::emulator::copy_async_commit(); }
template <int N>
void cp_async_wait(PLUMB_EMULATOR_PLACE) {
  ::plumb::emulator::copy_async_wait(N, place);
}

inline void ldmatrix_x4(std::uint32_t (&r)[4], const void* row, PLUMB_EMULATOR_PLACE) {
  ::plumb::emulator::load_matrices(r, row, false, place);
}
inline void ldmatrix_x4_transposed(std::uint32_t (&r)[4], const void* row, PLUMB_EMULATOR_PLACE) {
  ::plumb::emulator::load_matrices(r, row, true, place);
}
inline void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                     PLUMB_EMULATOR_PLACE) {
  ::plumb::emulator::multiply_bf16(d, a, b, place);
}
inline void mma_tf32(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                     PLUMB_EMULATOR_PLACE) {
  ::plumb::emulator::multiply_tf32(d, a, b, place);
}
inline std::uint32_t to_tf32(float a) { return ::plumb::emulator::round_to_tf32(a); }

}}}  // namespace plumb::v0_1::kernels

// A refused launch throws what platform.cuh defines; alone, this header throws runtime_error.
#if !defined(PLUMB_LAUNCH)
#define PLUMB_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::plumb::emulator::check_launch(::plumb::emulator::launch(         \
      #kernel, kernel, grid, block, shared_bytes, stream __VA_OPT__(, ) __VA_ARGS__))
#endif
