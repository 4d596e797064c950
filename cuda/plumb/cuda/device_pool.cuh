// Device memory of the CUDA backend: free lists by size class, one set of them a stream, and the
// pinned memory through which small uploads pass. A freed block is used again by its stream without
// waiting. Where the device has none left, what is free goes back to it, and it is asked again.
//
// A pool hides faults: what is written past a tensor falls into its block's unused part, what is
// read after a tensor's end is somebody's valid numbers. With PLUMB_DEVICE_MEMORY=exact in the
// environment each tensor is an allocation of the device's own, of its very size, and ends as one:
// then compute-sanitizer, or the emulator (whose freed memory is poisoned and out of use), sees
// tensors. It is slow: every release waits for the device.
#pragma once

#include <plumb/core/environment.hpp>
#include <plumb/core/memory.hpp>
#include <plumb/cuda/platform.cuh>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace plumb { inline namespace v0_1 {
namespace kernels::detail {

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

/// Free blocks by size class; of exact memory the ones that a graph writes to, which nobody reuses.
struct BlockLists {
  std::vector<void*> free[SizeClasses::kCount];
  std::vector<void*> kept;

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
    if (exact_) return allocate_exactly(bytes);
    const int size_class = SizeClasses::of(bytes);
    const std::size_t capacity = SizeClasses::capacity(size_class);
    const std::lock_guard lock(mutex_);
    Stream& own = lists_of(stream);
    void* block = own.captured != nullptr ? own.captured->take(size_class) : nullptr;
    if (block == nullptr) block = own.lists.take(size_class);
    if (block == nullptr) {
      block = from_device(capacity);
    }
    count_use(capacity);
    return block;
  }

  void release(cudaStream_t stream, void* block, std::size_t bytes) {
    if (exact_) return release_exactly(stream, block, bytes);
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
    for (void* block : lists.kept) forget_cuda(cudaFree(block));
    lists.kept.clear();
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
  /// Whether each tensor is an allocation of its own.
  bool exact() const { return exact_; }

 private:
  struct Stream {
    cudaStream_t stream;
    BlockLists lists;
    BlockLists* captured = nullptr;
    std::unique_ptr<Staging> staging{};
  };

  void* allocate_exactly(std::size_t bytes) {
    const std::size_t size = std::max<std::size_t>(bytes, 1);
    const std::lock_guard lock(mutex_);
    void* block = from_device(size);
    live_.emplace(block, size);
    count_use(size);
    return block;
  }
  /// A block of a graph that is being captured stays the graph's, and no tensor is put there; at
  /// each run of the graph NaN is, from here on.
  void release_exactly(cudaStream_t stream, void* block, std::size_t bytes) {
    const std::size_t size = std::max<std::size_t>(bytes, 1);
    const std::lock_guard lock(mutex_);
    const auto found = live_.find(block);
    if (found == live_.end() || found->second != size) {  // in a destructor: nobody could catch it
      std::fprintf(stderr, "[cuda] released %zu bytes at %p, where %s\n", size, block,
                   found == live_.end() ? "no tensor is: twice?" : "a tensor of another size is");
      std::abort();
    }
    live_.erase(found);
    counters_.used_bytes -= size;
    counters_.system_bytes -= size;
    BlockLists* const captured = lists_of(stream).captured;
    if (captured == nullptr) return forget_cuda(cudaFree(block));
    captured->kept.push_back(block);
    forget_cuda(cudaMemsetAsync(block, 0xFF, size, stream));
  }

  void count_use(std::size_t bytes) {
    counters_.used_bytes += bytes;
    counters_.peak_bytes = std::max(counters_.peak_bytes, counters_.used_bytes);
  }

  /// Memory of the device's. Where it has none left, what is free here goes back first; not while a
  /// graph is captured, when nothing may be given back.
  void* from_device(std::size_t bytes) {
    check_device();
    void* block = nullptr;
    cudaError_t status = cudaMalloc(&block, bytes);
    if (status == cudaErrorMemoryAllocation) {
      forget_cuda(status);
      const bool captures = std::any_of(streams_.begin(), streams_.end(),
                                        [](const Stream& s) { return s.captured != nullptr; });
      if (!captures && give_to_device() > 0) status = cudaMalloc(&block, bytes);
    }
    if (status == cudaSuccess) {
      ++counters_.system_calls;
      counters_.system_bytes += bytes;
      return block;
    }
    if (status != cudaErrorMemoryAllocation) check_cuda(status, "cudaMalloc");
    forget_cuda(status);
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

  const bool exact_ = environment_choice("PLUMB_DEVICE_MEMORY", {"pool", "exact"}) == 1;
  std::mutex mutex_;
  std::unordered_map<const void*, std::size_t> live_;  ///< exact memory: bytes of each tensor
  std::deque<Stream> streams_;
  std::vector<cudaStream_t> idle_;
  int device_ = -1;
  MemoryCounters counters_;
};

}  // namespace kernels::detail
}}  // namespace plumb::v0_1
