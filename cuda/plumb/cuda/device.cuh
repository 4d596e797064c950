// Devices, streams and memory of the CUDA backend.
//
// Every kernel function takes a device tag, which carries the stream that it runs on, and returns
// without waiting. What returns a value to the host waits for that stream: copy_to_host,
// sum_of_squares, sample_rows, and losses that are asked for statistics. Memory comes from free
// lists by size class, as on the host, one set of lists per stream: a freed block is reused by the
// same stream without waiting. What this is not: a scheduler; a tensor is to die on the stream that
// used it last.
#pragma once

#include <plumb/core/device.hpp>
#include <plumb/core/memory.hpp>
#include <plumb/cuda/platform.cuh>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <deque>
#include <mutex>
#include <utility>
#include <vector>

namespace plumb { inline namespace v0_1 {
namespace kernels {

namespace detail {
inline thread_local cudaStream_t active_stream = nullptr;

/// Creates the thread's first stream: capturing a graph needs another than the default one.
inline cudaStream_t current_stream() {
  if (active_stream == nullptr)
    check_cuda(cudaStreamCreateWithFlags(&active_stream, cudaStreamNonBlocking),
               "cudaStreamCreate");
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

/// Runs what this thread does in its scope on another stream.
class StreamScope {
 public:
  explicit StreamScope(cudaStream_t stream)
      : outer_(std::exchange(detail::active_stream, stream)) {}
  ~StreamScope() { detail::active_stream = outer_; }
  StreamScope(const StreamScope&) = delete;
  StreamScope& operator=(const StreamScope&) = delete;

 private:
  cudaStream_t outer_;
};

/// Waits for all work on the device's stream.
inline void synchronize(Cuda device) {
  const cudaError_t status = cudaStreamSynchronize(device.stream);
  // A copy may be under way from or to host memory that the exception's way out will free.
  if (status != cudaSuccess) cudaDeviceSynchronize();
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
    counters_.used_bytes += capacity;
    counters_.peak_bytes = std::max(counters_.peak_bytes, counters_.used_bytes);
    Stream& own = lists_of(stream);
    void* block = own.captured != nullptr ? own.captured->take(size_class) : nullptr;
    if (block == nullptr) block = own.lists.take(size_class);
    if (block != nullptr) return block;
    const cudaError_t status = cudaMalloc(&block, capacity);
    if (status != cudaSuccess) {
      counters_.used_bytes -= capacity;
      check_cuda(status, "cudaMalloc");
    }
    ++counters_.system_calls;
    counters_.system_bytes += capacity;
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
    for (Stream& own : streams_)
      for (int i = 0; i < SizeClasses::kCount; ++i)
        while (void* block = own.lists.take(i)) {
          counters_.system_bytes -= SizeClasses::capacity(i);
          check_cuda(cudaFree(block), "cudaFree");
        }
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
  };

  Stream& lists_of(cudaStream_t stream) {
    for (Stream& own : streams_)
      if (own.stream == stream) return own;
    return streams_.emplace_back(Stream{stream, {}, nullptr});
  }

  std::mutex mutex_;
  std::deque<Stream> streams_;
  MemoryCounters counters_;
};

/// Pinned memory through which small uploads pass, so that the caller's memory is free at once and
/// nothing waits: two halves in turn, each reused once its copies are done.
class Staging {
 public:
  static constexpr std::size_t kHalf = std::size_t{1} << 20;

  static Staging& instance() {
    thread_local Staging staging;
    return staging;
  }
  ~Staging() {  // at the thread's end, the program's perhaps: errors have nobody to tell
    for (const cudaEvent_t event : done_) cudaEventDestroy(event);
    cudaFreeHost(memory_);  // waits for copies from it
  }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  void upload(cudaStream_t stream, void* to, const void* from, std::size_t bytes) {
    if (bytes > kHalf) {  // large ones are rare (weights): these wait
      check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream), "cudaMemcpy");
      synchronize(Cuda{stream});
      return;
    }
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
  Staging() {
    void* memory = nullptr;
    check_cuda(cudaMallocHost(&memory, 2 * kHalf), "cudaMallocHost");
    memory_ = static_cast<unsigned char*>(memory);
    for (cudaEvent_t& event : done_)
      check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
  }

  unsigned char* memory_;
  cudaEvent_t done_[2];
  int half_ = 0;
  std::size_t used_ = 0;
};

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
  if (bytes > 0) detail::Staging::instance().upload(device.stream, to, from, bytes);
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

}}  // namespace plumb::v0_1
