// Devices, streams and memory of the CUDA backend.
//
// Every kernel function takes a device tag, which carries the stream that it runs on, and returns
// without waiting. What returns a value to the host waits for that stream: copy_to_host,
// sum_of_squares where it returns one, and sample_rows (core/host_reads.hpp: many at once). Memory
// comes from device_pool.cuh.
//
// A host thread has a stream of its own, which does not wait for the default stream, nor that for
// it; at the thread's end stream and memory go to the next thread that begins. StreamScope runs
// work on a stream of the caller's, in order with the thread's own. What this is not: a scheduler,
// a tensor is to die on the stream that used it last; nor for several devices in one process:
// another than the first one is refused.
#pragma once

#include <plumb/core/device.hpp>
#include <plumb/cuda/device_pool.cuh>

#include <mutex>

namespace plumb { inline namespace v0_1 {
namespace kernels {

namespace detail {
inline cudaStream_t take_stream();
inline void give_back_stream(cudaStream_t stream);

/// A thread's own stream, taken when it is first needed and given back at the thread's end.
struct ThreadStream {
  cudaStream_t stream = nullptr;
  ~ThreadStream() {
    if (stream != nullptr) give_back_stream(stream);
  }
};
inline thread_local ThreadStream own_stream;
inline thread_local cudaStream_t active_stream = nullptr;

/// The stream of a scope that names one, else the thread's own: capturing a graph needs another
/// than the default one.
inline cudaStream_t current_stream() {
  if (active_stream == nullptr) active_stream = own_stream.stream = take_stream();
  return active_stream;
}
}  // namespace detail

/// The exact mode: float, in the canonical orders, bitwise the CPU's results. The other modes
/// differ in their matrix products.
struct Cuda {
  cudaStream_t stream = detail::current_stream();
};
/// Products in bf16, bitwise CpuBf16's.
struct CudaBf16 : Cuda {};
/// Products by cuBLAS in float: the order of its sums is its own.
struct CudaVendor : Cuda {};
/// Products on tensor cores, operands rounded to bf16 (8 bits), sums in float.
struct CudaTensorCore : Cuda {};
/// Products on tensor cores, operands rounded to tf32 (11 bits), sums in float.
struct CudaTf32 : Cuda {};

}  // namespace kernels

// Said before the kernels, which call one another: a look-up there must not find them missing.
template <>
inline constexpr bool backend_included<kernels::Cuda> = true;
template <>
inline constexpr bool backend_included<kernels::CudaBf16> = true;
template <>
inline constexpr bool backend_included<kernels::CudaVendor> = true;
template <>
inline constexpr bool backend_included<kernels::CudaTensorCore> = true;
template <>
inline constexpr bool backend_included<kernels::CudaTf32> = true;

template <>
inline constexpr bool rounds_products<kernels::CudaBf16> = true;

namespace kernels {

namespace detail {

/// What is queued on `later` from now on waits for all that is queued on `sooner`. Returns what
/// failed, if anything.
inline cudaError_t order_streams(cudaStream_t sooner, cudaStream_t later) {
  cudaEvent_t event = nullptr;
  cudaError_t status = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  if (status != cudaSuccess) return status;
  status = cudaEventRecord(event, sooner);
  if (status == cudaSuccess) status = cudaStreamWaitEvent(later, event, 0);
  forget_cuda(cudaEventDestroy(event));  // once it has happened
  return status;
}

}  // namespace detail

/// Runs what this thread does in its scope on another stream: after all that was queued on the
/// thread's stream before, and before all that is queued there afterwards. cudaStreamLegacy is the
/// default stream. CudaError if the streams cannot be ordered.
class StreamScope {
 public:
  explicit StreamScope(cudaStream_t stream) : outer_(detail::current_stream()), inner_(stream) {
    check_cuda(detail::order_streams(outer_, inner_), "cudaStreamWaitEvent");
    detail::active_stream = inner_;
  }
  ~StreamScope() {
    detail::active_stream = outer_;
    const cudaError_t status = detail::order_streams(inner_, outer_);
    if (status == cudaSuccess) return;
    forget_cuda(status);
    forget_cuda(cudaStreamSynchronize(inner_));  // in order by waiting
  }
  StreamScope(const StreamScope&) = delete;
  StreamScope& operator=(const StreamScope&) = delete;

 private:
  cudaStream_t outer_, inner_;
};

/// Waits for all work on the device's stream.
inline void synchronize(Cuda device) {
  const cudaError_t status = cudaStreamSynchronize(device.stream);
  // A copy may be under way from or to host memory that the exception's way out will free.
  if (status != cudaSuccess) forget_cuda(cudaDeviceSynchronize());
  check_cuda(status, "cudaStreamSynchronize");
}

namespace detail {

/// x[0]·x[1] + x[2], by the flags that this program was compiled with.
template <class T>
__global__ void __launch_bounds__(1) multiply_add(T* x) {
  x[3] = x[0] * x[1] + x[2];
}

/// The exact mode's sums are rounded after each product; nvcc without -fmad=false rounds once.
/// CudaError then, before anything is computed with other bits.
/// `kernel` is multiply_add, but in a test.
inline void check_products_are_rounded(cudaStream_t stream,
                                       void (*kernel)(float*) = multiply_add<float>) {
  constexpr float kFactor = 1.0F + 0x1p-12F;
  float x[4] = {kFactor, kFactor, -(1.0F + 0x1p-11F), 1.0F};  // 0, or 2^-24 where rounded once
  void* place = nullptr;
  check_cuda(cudaMalloc(&place, sizeof x), "cudaMalloc");
  cudaError_t status = cudaMemcpyAsync(place, x, sizeof x, cudaMemcpyHostToDevice, stream);
  if (status == cudaSuccess) {
    try {
      PLUMB_LAUNCH(kernel, 1, 1, 0, stream, static_cast<float*>(place));
    } catch (...) {
      forget_cuda(cudaFree(place));
      throw;
    }
    status = cudaMemcpyAsync(x, place, sizeof x, cudaMemcpyDeviceToHost, stream);
  }
  if (status == cudaSuccess) status = cudaStreamSynchronize(stream);
  forget_cuda(cudaFree(place));
  check_cuda(status, "the first kernel");
  if (x[3] != 0.0F)
    fail<CudaError>(
        "[cuda] this program rounds a product and a sum at once, so its results are not the CPU's. "
        "HINT: compile with nvcc -fmad=false");
}

inline cudaStream_t take_stream() {
  const cudaStream_t stream = DevicePool::instance().take_stream();
  static std::once_flag once;
  try {
    std::call_once(once, [stream] { check_products_are_rounded(stream); });
  } catch (...) {
    give_back_stream(stream);
    throw;
  }
  return stream;
}
inline void give_back_stream(cudaStream_t stream) { DevicePool::instance().give_back(stream); }

}  // namespace detail

// What a backend must offer to Tensor.
inline void* allocate(Cuda device, std::size_t bytes) {
  return detail::DevicePool::instance().allocate(device.stream, bytes);
}
inline void release(Cuda device, void* pointer, std::size_t bytes) {
  detail::DevicePool::instance().release(device.stream, pointer, bytes);
}
inline void zero(Cuda device, void* pointer, std::size_t bytes) {
  if (bytes > 0) check_cuda(cudaMemsetAsync(pointer, 0, bytes, device.stream), "cudaMemset");
}
/// The host memory may change once this returns. Up to 1 MiB nothing waits.
inline void copy_from_host(Cuda device, void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  if (bytes <= detail::Staging::kHalf)
    return detail::DevicePool::instance().staging_of(device.stream).upload(device.stream, to, from,
                                                                          bytes);
  // Large ones are rare (weights): these wait.
  check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, device.stream), "cudaMemcpy");
  synchronize(device);
}
/// Waits for the stream.
inline void copy_to_host(Cuda device, void* to, const void* from, std::size_t bytes) {
  if (bytes > 0)
    check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, device.stream),
               "cudaMemcpy");
  synchronize(device);
}
inline void copy(Cuda device, void* to, const void* from, std::size_t bytes) {
  if (bytes > 0)
    check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, device.stream),
               "cudaMemcpy");
}

/// Uninitialised device memory of n elements, returned to the pool at the end of scope; work queued
/// before then may still use it, since the stream reuses it in order.
template <class T>
class DeviceScratch {
 public:
  DeviceScratch(Cuda device, Index n)
      : device_(device),
        bytes_(static_cast<std::size_t>(n) * sizeof(T)),
        data_(static_cast<T*>(allocate(device, bytes_))) {}
  ~DeviceScratch() { release(device_, data_, bytes_); }
  DeviceScratch(const DeviceScratch&) = delete;
  DeviceScratch& operator=(const DeviceScratch&) = delete;

  T* data() const { return data_; }

 private:
  Cuda device_;
  std::size_t bytes_;
  T* data_;
};

/// Blocks of `per_block` that cover n.
inline unsigned blocks_for(Index n, Index per_block) {
  return static_cast<unsigned>((n + per_block - 1) / per_block);
}

}  // namespace kernels

using kernels::Cuda;
using kernels::CudaBf16;
using kernels::CudaTensorCore;
using kernels::CudaTf32;
using kernels::CudaVendor;

/// As memory_counters(), of device memory.
inline MemoryCounters cuda_memory_counters() {
  return kernels::detail::DevicePool::instance().counters();
}
/// As release_cached_memory(), of device memory: what no tensor has goes back to the device.
inline void release_cached_device_memory() { kernels::detail::DevicePool::instance().trim(); }

}}  // namespace plumb::v0_1
