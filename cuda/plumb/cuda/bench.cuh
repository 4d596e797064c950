// What plumb/bench.hpp asks of a GPU: the time of calls, by events; what binds them, by the part's
// datasheet, or by its clocks for a part that is not listed. In a program that is built for the
// emulator: what the calls do, by its tracer; nothing is timed there.
#pragma once

#include <plumb/bench/device.hpp>
#include <plumb/cuda/device.cuh>

#include <algorithm>
#include <cstdio>
#include <string>
#include <string_view>
#include <type_traits>

namespace plumb { inline namespace v0_1 { namespace bench {

/// Whether calls are counted in this program, and not timed: sizes are small then.
inline constexpr bool kCounted = kernels::Emulation::kHere;

/// What a part can do at the most; 0: not known.
struct Peak {
  const char* name;
  double float_tflops, tf32_tflops, bf16_tflops, gbps;
};

// NVIDIA's datasheets, dense: A100 (2021), H100 and H200 SXM (2023, 2024), L4 and L40S (2023).
inline constexpr Peak kDatasheets[] = {{"A100-SXM4-80GB", 19.5, 156, 312, 2039},
                                       {"A100-SXM4-40GB", 19.5, 156, 312, 1555},
                                       {"A100", 19.5, 156, 312, 1935},
                                       {"H200", 67, 494, 989, 4800},
                                       {"H100 PCIe", 51, 378, 756, 2000},
                                       {"H100", 67, 494, 989, 3350},
                                       {"L40S", 91.6, 183, 362, 864},
                                       {"L4", 30.3, 60, 121, 300}};

/// Of a part by the name that its driver gives.
inline Peak peak_of(const cudaDeviceProp& device) {
  for (const Peak& part : kDatasheets)
    if (std::string_view(device.name).find(part.name) != std::string_view::npos) return part;
  int clock = 0, memory_clock = 0, width = 0;
  cudaDeviceGetAttribute(&clock, cudaDevAttrClockRate, 0);
  cudaDeviceGetAttribute(&memory_clock, cudaDevAttrMemoryClockRate, 0);
  cudaDeviceGetAttribute(&width, cudaDevAttrGlobalMemoryBusWidth, 0);
  const double units = device.major == 8 && device.minor == 0 ? 64 : 128;  // float lanes of an SM
  const double tflops = 2e-9 * units * device.multiProcessorCount * clock;
  return {"its clocks", tflops, 0, 0, 2e-6 * memory_clock * width / 8};
}

/// The least time that `peak` allows, memory being what feeds the kernel.
inline Bound bound_by(const Peak& peak, const Work& work) {
  const double tflops = work.bf16   ? peak.bf16_tflops
                        : work.tf32 ? peak.tf32_tflops
                                    : peak.float_tflops;
  const double compute = tflops > 0 ? (work.flops + 2 * work.extra) / tflops * 1e-12 : 0;
  const double move = peak.gbps > 0 ? work.bytes() / peak.gbps * 1e-9 : 0;
  char name[64];
  if (compute >= move)
    std::snprintf(name, sizeof name, "%s (%.1f TFLOP/s)",
                  work.bf16   ? "bf16"
                  : work.tf32 ? "tf32"
                              : "float",
                  tflops);
  else
    std::snprintf(name, sizeof name, "memory (%.0f GB/s)", peak.gbps);
  return {name, std::max(compute, move)};
}

namespace detail {
inline const cudaDeviceProp& device_properties() {
  static const cudaDeviceProp properties = [] {
    cudaDeviceProp found{};
    kernels::check_cuda(cudaGetDeviceProperties(&found, 0), "cudaGetDeviceProperties");
    return found;
  }();
  return properties;
}
inline std::string missing_device() {
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status == cudaSuccess && devices > 0) return "";
  return str("no CUDA device (", status != cudaSuccess ? cudaGetErrorString(status) : "none found",
             ')');
}
inline std::string describe_device() {
  if (kCounted) return "Counted in the emulator, access by access; nothing was timed.";
  const cudaDeviceProp& device = device_properties();
  const Peak peak = peak_of(device);
  char text[256];
  std::snprintf(text, sizeof text,
                "%s, %d SMs; at most (%s) float %.1f, tf32 %.0f, bf16 %.0f TFLOP/s, %.0f GB/s",
                device.name, device.multiProcessorCount, peak.name, peak.float_tflops,
                peak.tf32_tflops, peak.bf16_tflops, peak.gbps);
  return text;
}

/// One, whatever mode of the device a kernel is for.
inline const Side& device_side() {
  static const Side side{kCounted ? "emulated" : "cuda", kCounted, missing_device, describe_device};
  return side;
}

class TimedEvent {
 public:
  TimedEvent() { kernels::check_cuda(cudaEventCreate(&event_), "cudaEventCreate"); }
  ~TimedEvent() { cudaEventDestroy(event_); }
  TimedEvent(const TimedEvent&) = delete;
  TimedEvent& operator=(const TimedEvent&) = delete;

  void record(Cuda device) const {
    kernels::check_cuda(cudaEventRecord(event_, device.stream), "cudaEventRecord");
  }
  /// Seconds from an earlier event to this one, for which it waits.
  double since(const TimedEvent& earlier) const {
    kernels::check_cuda(cudaEventSynchronize(event_), "cudaEventSynchronize");
    float milliseconds = 0.0F;
    kernels::check_cuda(cudaEventElapsedTime(&milliseconds, earlier.event_, event_),
                        "cudaEventElapsedTime");
    return 1e-3 * static_cast<double>(milliseconds);
  }

 private:
  cudaEvent_t event_ = nullptr;
};
}  // namespace detail

/// Of Cuda and its modes.
template <class D>
  requires std::is_base_of_v<Cuda, D>
struct Instruments<D> {
  /// Dependent, since nvcc knows no emulator.
  template <class E>
  static Counted count(const auto& call) {
    const auto before = E::begin();
    call();
    const auto [after, traffic] = E::end();
    const auto number = [](std::uint64_t n) { return static_cast<double>(n); };
    Counted c;
    c.launches = number(after.launches - before.launches);
    c.blocks = number(after.blocks - before.blocks);
    c.barriers = number(after.barriers - before.barriers);
    c.read = number(traffic.global_load_bytes);
    c.stored = number(traffic.global_store_bytes);
    c.sectors = number(traffic.global_sectors);
    c.least_sectors = number(traffic.global_ideal);
    c.shared = number(traffic.shared_load_bytes + traffic.shared_store_bytes);
    c.passes = number(traffic.shared_wavefronts);
    c.least_passes = number(traffic.shared_ideal);
    return c;
  }

  static const Side& side() { return detail::device_side(); }
  static void wait() { kernels::check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize"); }
  template <class F>
  static double seconds(const F& call, Index calls) {
    const D device;
    const detail::TimedEvent begin, end;
    begin.record(device);
    for (Index i = 0; i < calls; ++i) call();
    end.record(device);
    return end.since(begin);
  }
  static Bound bound(const Work& work) {
    return bound_by(peak_of(detail::device_properties()), work);
  }
  /// Twice what its second cache holds is written.
  static void flush() {
    int bytes = 0;
    kernels::check_cuda(cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, 0),
                        "cudaDeviceGetAttribute");
    static const kernels::DeviceScratch<char> all(D{}, 2 * Index{bytes});
    kernels::zero(D{}, all.data(), 2 * static_cast<std::size_t>(bytes));
  }
  static const char* reorder(int turn) { return reorder_by<kernels::Emulation>(turn); }
  template <class F>
  static Counted counted(const F& call) {
    if constexpr (kCounted)
      return count<kernels::Emulation>(call);
    else
      fail("[bench] a GPU is timed, not counted");
  }

 private:
  template <class E>
  static const char* reorder_by(int turn) {
    if constexpr (E::kHere)
      return E::reorder(turn);
    else
      return nullptr;
  }
};

}}}  // namespace plumb::v0_1::bench
