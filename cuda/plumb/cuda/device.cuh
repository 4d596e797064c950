// Devices, streams and memory of the CUDA backend.
//
// Every kernel function takes a device tag, which carries the stream that it runs on, and returns
// without waiting. What returns a value to the host waits for that stream: copy_to_host,
// sum_of_squares, sample_rows, and losses that are asked for statistics. Memory comes from free
// lists by size class, one set of lists per stream: a freed block is reused by the same stream
// without waiting. Where the device has none left, what is free goes back to it, and it is asked
// again.
//
// A host thread has a stream of its own, which does not wait for the default stream, nor that for
// it; at the thread's end stream and memory go to the next thread that begins. StreamScope runs
// work on a stream of the caller's, in order with the thread's own. What this is not: a scheduler,
// a tensor is to die on the stream that used it last; nor for several devices in one process:
// another than the first one is refused.
#pragma once

#include <plumb/core/device.hpp>
#include <plumb/core/memory.hpp>
#include <plumb/cuda/platform.cuh>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

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

// Four size classes per power of two from 256 bytes up: at most a quarter of a block is unused.
// Class 4(e - 8) + q holds (4 + q)·2^(e-2) bytes: 256, 320, 384, 448, 512, 640, …
struct SizeClasses {
  static constexpr int kCount = 4 * 48;

  static int of(std::size_t bytes) {
    if (bytes <= 256) return 0;
    const int exponent = static_cast<int>(std::bit_width(bytes - 1)) - 1;
    const std::size_t quarter = std::size_t{1} << (exponent - 2);
    const std::size_t steps = (bytes + quarter - 1) / quarter - 4;
    return 4 * (exponent - 8) + static_cast<int>(steps);
  }
  static std::size_t capacity(int size_class) {
    const int exponent = 8 + size_class / 4;
    return static_cast<std::size_t>(4 + size_class % 4) << (exponent - 2);
  }
};

/// Free blocks by size class.
struct BlockLists {
  std::vector<void*> free[SizeClasses::kCount];

  void* take(int size_class) {
    auto& list = free[size_class];
    if (list.empty()) return nullptr;
    void* block = list.back();
    list.pop_back();
    return block;
  }
};

/// Pinned memory through which a stream's small uploads pass, so that the caller's memory is free
/// at once and nothing waits: two halves in turn, each reused once the stream has copied from it.
class Staging {
 public:
  static constexpr std::size_t kHalf = std::size_t{1} << 20;

  Staging() {
    void* memory = nullptr;
    check_cuda(cudaMallocHost(&memory, 2 * kHalf), "cudaMallocHost");
    memory_ = static_cast<unsigned char*>(memory);
    for (cudaEvent_t& event : done_) {
      const cudaError_t status = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
      if (status != cudaSuccess) {
        end();
        check_cuda(status, "cudaEventCreate");
      }
    }
  }
  ~Staging() { end(); }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  /// `bytes` up to kHalf.
  void upload(cudaStream_t stream, void* to, const void* from, std::size_t bytes) {
    const std::lock_guard lock(mutex_);  // threads may share a stream
    if (used_ + bytes > kHalf) {
      check_cuda(cudaEventRecord(done_[half_], stream), "cudaEventRecord");
      half_ ^= 1;
      used_ = 0;
      check_cuda(cudaEventSynchronize(done_[half_]), "cudaEventSynchronize");
    }
    unsigned char* place = memory_ + static_cast<std::size_t>(half_) * kHalf + used_;
    used_ += (bytes + 15) / 16 * 16;
    std::memcpy(place, from, bytes);
    check_cuda(cudaMemcpyAsync(to, place, bytes, cudaMemcpyHostToDevice, stream), "cudaMemcpy");
  }

 private:
  void end() {
    for (const cudaEvent_t event : done_)
      if (event != nullptr) forget_cuda(cudaEventDestroy(event));
    forget_cuda(cudaFreeHost(memory_));  // waits for copies from it
  }

  std::mutex mutex_;
  unsigned char* memory_ = nullptr;
  cudaEvent_t done_[2] = {};
  int half_ = 0;
  std::size_t used_ = 0;
};

class DevicePool {
 public:
  static DevicePool& instance() {
    static DevicePool* pool = new DevicePool;  // never destroyed: the driver may go first
    return *pool;
  }

  void* allocate(cudaStream_t stream, std::size_t bytes) {
    const int size_class = SizeClasses::of(bytes);
    const std::size_t capacity = SizeClasses::capacity(size_class);
    const std::lock_guard lock(mutex_);
    Stream& own = lists_of(stream);
    void* block = own.captured != nullptr ? own.captured->take(size_class) : nullptr;
    if (block == nullptr) block = own.lists.take(size_class);
    if (block == nullptr) {
      block = from_device(capacity);
      ++counters_.system_calls;
      counters_.system_bytes += capacity;
    }
    counters_.used_bytes += capacity;
    counters_.peak_bytes = std::max(counters_.peak_bytes, counters_.used_bytes);
    return block;
  }

  void release(cudaStream_t stream, void* block, std::size_t bytes) {
    const int size_class = SizeClasses::of(bytes);
    const std::lock_guard lock(mutex_);
    counters_.used_bytes -= SizeClasses::capacity(size_class);
    Stream& own = lists_of(stream);
    (own.captured != nullptr ? *own.captured : own.lists).free[size_class].push_back(block);
  }

  /// While a graph is captured on the stream, the blocks freed there stay the graph's: it will
  /// write to them whenever it runs. null ends that.
  void capture_into(cudaStream_t stream, BlockLists* lists) {
    const std::lock_guard lock(mutex_);
    lists_of(stream).captured = lists;
  }
  /// Takes the blocks of a graph that will not run again.
  void adopt(cudaStream_t stream, BlockLists& lists) {
    const std::lock_guard lock(mutex_);
    Stream& own = lists_of(stream);
    for (int i = 0; i < SizeClasses::kCount; ++i) {
      own.lists.free[i].insert(own.lists.free[i].end(), lists.free[i].begin(), lists.free[i].end());
      lists.free[i].clear();
    }
  }

  void trim() {
    const std::lock_guard lock(mutex_);
    give_to_device();
  }

  Staging& staging_of(cudaStream_t stream) {
    const std::lock_guard lock(mutex_);
    std::unique_ptr<Staging>& staging = lists_of(stream).staging;
    if (staging == nullptr) staging = std::make_unique<Staging>();
    return *staging;
  }

  /// One that an ended thread gave back, or a new one.
  cudaStream_t take_stream() {
    const std::lock_guard lock(mutex_);
    check_device();
    if (!idle_.empty()) {
      const cudaStream_t stream = idle_.back();
      idle_.pop_back();
      return stream;
    }
    cudaStream_t stream = nullptr;
    check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
    return stream;
  }
  void give_back(cudaStream_t stream) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(stream);
  }

  MemoryCounters counters() {
    const std::lock_guard lock(mutex_);
    return counters_;
  }

 private:
  struct Stream {
    cudaStream_t stream;
    BlockLists lists;
    BlockLists* captured = nullptr;
    std::unique_ptr<Staging> staging{};
  };

  /// Memory of the device's. Where it has none left, what is free here goes back first; not while a
  /// graph is captured, when nothing may be given back.
  void* from_device(std::size_t bytes) {
    check_device();
    void* block = nullptr;
    cudaError_t status = cudaMalloc(&block, bytes);
    if (status == cudaSuccess) return block;
    if (status != cudaErrorMemoryAllocation) check_cuda(status, "cudaMalloc");
    forget_cuda(status);
    const bool captures = std::any_of(streams_.begin(), streams_.end(),
                                      [](const Stream& s) { return s.captured != nullptr; });
    if (!captures && give_to_device() > 0) {
      status = cudaMalloc(&block, bytes);
      if (status == cudaSuccess) return block;
      forget_cuda(status);
    }
    fail<CudaError>(str("[cuda] cudaMalloc: ", cudaGetErrorString(status), ": ", bytes,
                        " bytes were asked for, and ", counters_.used_bytes,
                        " are in use here. HINT: fewer sequences at once (micro-batches, slots) "
                        "need less memory"));
  }
  /// Frees what no tensor has; how many bytes that were.
  std::size_t give_to_device() {
    std::size_t bytes = 0;
    for (Stream& own : streams_)
      for (int i = 0; i < SizeClasses::kCount; ++i)
        while (void* block = own.lists.take(i)) {
          bytes += SizeClasses::capacity(i);
          counters_.system_bytes -= SizeClasses::capacity(i);
          check_cuda(cudaFree(block), "cudaFree");
        }
    return bytes;
  }
  /// Streams and memory are of the device that came first.
  void check_device() {
    int device = 0;
    check_cuda(cudaGetDevice(&device), "cudaGetDevice");
    if (device_ < 0) device_ = device;
    if (device != device_)
      fail<CudaError>(str("[cuda] this thread uses device ", device, ", and the memory here is of "
                          "device ", device_, ". HINT: one device a process, which "
                          "CUDA_VISIBLE_DEVICES chooses"));
  }

  Stream& lists_of(cudaStream_t stream) {
    for (Stream& own : streams_)
      if (own.stream == stream) return own;
    Stream& made = streams_.emplace_back();
    made.stream = stream;
    return made;
  }

  std::mutex mutex_;
  std::deque<Stream> streams_;
  std::vector<cudaStream_t> idle_;
  int device_ = -1;
  MemoryCounters counters_;
};

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
