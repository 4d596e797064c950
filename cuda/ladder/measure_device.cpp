// Times on a GPU: the best of several runs between two events, after one that warms up. What binds
// is left to the reader: rates stand beside the part's name, whose data sheet has its limits.
#include <ladder/measure.hpp>

#include <plumb/cuda/device.cuh>

#include <algorithm>
#include <cstdio>
#include <limits>

namespace plumb { inline namespace v0_1 { namespace ladder {
namespace {

using kernels::check_cuda;

constexpr int kRuns = 9;

struct Event {
  cudaEvent_t event = nullptr;
  Event() { check_cuda(cudaEventCreate(&event), "cudaEventCreate"); }
  ~Event() { cudaEventDestroy(event); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
};

std::string number(double value, const char* format) {
  char text[32];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

}  // namespace

Sizes sizes() { return {4096, 4096, 4096, 8192, Index{1} << 26}; }

std::string how() {
  int count = 0;
  cudaDeviceProp properties{};
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0 ||
      cudaGetDeviceProperties(&properties, 0) != cudaSuccess)
    return "";
  return str("Timed on one ", properties.name, " (", properties.multiProcessorCount,
             " SMs): the best of ", kRuns, " runs.");
}

std::vector<std::string> headings() { return {"ms", "TFLOP/s", "GB/s of what must move"}; }

std::vector<std::string> measure(const std::function<void()>& run, const Work& work) {
  const Cuda device;
  const Event begin, end;
  float best = std::numeric_limits<float>::max();
  for (int i = 0; i <= kRuns; ++i) {
    check_cuda(cudaEventRecord(begin.event, device.stream), "cudaEventRecord");
    run();
    check_cuda(cudaEventRecord(end.event, device.stream), "cudaEventRecord");
    check_cuda(cudaEventSynchronize(end.event), "cudaEventSynchronize");
    float milliseconds = 0.0F;
    check_cuda(cudaEventElapsedTime(&milliseconds, begin.event, end.event), "cudaEventElapsedTime");
    if (i > 0) best = std::min(best, milliseconds);
  }
  const double seconds = static_cast<double>(best) * 1e-3;
  return {number(static_cast<double>(best), "%.3f"), number(work.flops / seconds * 1e-12, "%.2f"),
          number(work.bytes / seconds * 1e-9, "%.0f")};
}

}}}  // namespace plumb::v0_1::ladder
