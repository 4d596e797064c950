// The CUDA kernels on a GPU: time by events, GB/s and TFLOP/s against the part's datasheet (or, for
// a part not listed, against its clocks), and matrix products against cuBLAS in the same run. Each
// result is compared with the CPU's kernel first; one that differs is not timed. Without a GPU it
// says so and measures nothing.
#include <plumb/cpu/kernels.hpp>
#include <plumb/cuda/gemm_vendor.cuh>
#include <plumb/cuda/kernels.cuh>
#include <plumb/plumb.hpp>

#include <algorithm>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "../../tests/support.hpp"

using namespace plumb;

namespace {

/// What a part can do at the most.
struct Peak {
  const char* name;
  double float_tflops, tf32_tflops, bf16_tflops, gbps;
};

// NVIDIA's datasheets, dense: A100 (2021), H100 and H200 SXM (2023, 2024), L4 and L40S (2023).
constexpr Peak kDatasheets[] = {{"A100-SXM4-80GB", 19.5, 156, 312, 2039},
                                {"A100-SXM4-40GB", 19.5, 156, 312, 1555},
                                {"A100", 19.5, 156, 312, 1935},
                                {"H200", 67, 494, 989, 4800},
                                {"H100 PCIe", 51, 378, 756, 2000},
                                {"H100", 67, 494, 989, 3350},
                                {"L40S", 91.6, 183, 362, 864},
                                {"L4", 30.3, 60, 121, 300}};

Peak peak_of(const cudaDeviceProp& device) {
  for (const Peak& part : kDatasheets)
    if (std::string_view(device.name).find(part.name) != std::string_view::npos) return part;
  int clock = 0, memory_clock = 0, width = 0;
  cudaDeviceGetAttribute(&clock, cudaDevAttrClockRate, 0);
  cudaDeviceGetAttribute(&memory_clock, cudaDevAttrMemoryClockRate, 0);
  cudaDeviceGetAttribute(&width, cudaDevAttrGlobalMemoryBusWidth, 0);
  const double units = device.major == 8 && device.minor == 0 ? 64 : 128;  // float lanes of an SM
  const double tflops = 2e-9 * units * device.multiProcessorCount * clock;
  return {"by its clocks", tflops, 0, 0, 2e-6 * memory_clock * width / 8};
}

/// Median microseconds of a call, after a warm-up.
template <class Call>
double microseconds(Call call) {
  const Cuda device;
  cudaEvent_t begin, end;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  for (int i = 0; i < 3; ++i) call();
  std::vector<double> times;
  for (int sample = 0; sample < 20; ++sample) {
    constexpr int kCalls = 10;
    cudaEventRecord(begin, device.stream);
    for (int i = 0; i < kCalls; ++i) call();
    cudaEventRecord(end, device.stream);
    cudaEventSynchronize(end);
    float ms = 0;
    cudaEventElapsedTime(&ms, begin, end);
    times.push_back(1000.0 * static_cast<double>(ms) / kCalls);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::nth_element(times.begin(), times.begin() + 10, times.end());
  return times[10];
}

void line(const std::string& name, double us, double flops, double peak_tflops, double bytes,
          double peak_gbps, const std::string& note = {}) {
  std::printf("%-44s %10.1f us", name.c_str(), us);
  if (bytes > 0)
    std::printf("  %8.1f GB/s %5.1f %%", 1e-3 * bytes / us, 1e-1 * bytes / us / peak_gbps);
  if (flops > 0 && peak_tflops > 0)
    std::printf("  %8.2f TFLOP/s %5.1f %%", 1e-6 * flops / us, 1e-4 * flops / us / peak_tflops);
  std::printf("  %s\n", note.c_str());
}

Tensor<Cuda> random_tensor(const Shape& shape, std::uint64_t seed) {
  return Tensor<Cuda>::from(test::random_vector(shape.size(), seed), shape);
}

/// Whether the first rows of a product are the CPU's bits.
bool exact(const Tensor<Cuda>& c, const Tensor<Cuda>& a, const Tensor<Cuda>& b, Index n, Index k) {
  const Index rows = std::min<Index>(4, c.dim(0));
  const auto got = c.rows(0, rows).to_vector(), x = a.rows(0, rows).to_vector(), w = b.to_vector();
  std::vector<float> expected(got.size());
  matmul(Cpu{}, expected.data(), x.data(), w.data(), rows, n, k, Form::NT);
  return test::same_bits(got, expected);
}

int failures = 0;

void bench_gemm(const Peak& peak) {
  struct Size {
    Index m, n, k;
  };
  for (const auto& [m, n, k] :
       {Size{1, 768, 3072}, Size{16, 768, 3072}, Size{512, 768, 3072}, Size{2048, 3072, 768},
        Size{4096, 4096, 4096}, Size{2048, 50257, 768}}) {
    const auto a = random_tensor({m, k}, 1), b = random_tensor({n, k}, 2);
    auto c = Tensor<Cuda>::empty({m, n});
    const double flops = 2.0 * static_cast<double>(m) * static_cast<double>(n * k);
    const double bytes = 4.0 * static_cast<double>(m * k + n * k + m * n);
    const auto run = [&, rows = m, columns = n, depth = k](auto device, const char* mode,
                                                           double tflops, double vendor) {
      const double us = microseconds(
          [&] { matmul(device, c.data(), a.data(), b.data(), rows, columns, depth, Form::NT); });
      line(str("gemm NT ", rows, "x", columns, "x", depth, " ", mode), us, flops, tflops, bytes,
           peak.gbps, vendor > 0 ? str(vendor / us, " x cuBLAS float") : "");
      return us;
    };
    const double vendor = run(CudaVendor{}, "cuBLAS", peak.float_tflops, 0);
    run(Cuda{}, "exact", peak.float_tflops, vendor);
    if (!exact(c, a, b, n, k)) {
      std::printf("  WRONG: not the CPU's bits\n");
      ++failures;
    }
    run(CudaTf32{}, "tf32", peak.tf32_tflops, vendor);
    run(CudaTensorCore{}, "bf16", peak.bf16_tflops, vendor);
  }
}

void bench_streams(const Peak& peak) {
  const Index n = 4096, c = 768;
  const auto x = random_tensor({n, c}, 1), weight = random_tensor({c}, 2);
  auto y = Tensor<Cuda>::empty({n, c}), rstd = Tensor<Cuda>::empty({n});
  auto dweight = Tensor<Cuda>::zeros({c});
  const double row_bytes = 4.0 * static_cast<double>(n * c);
  const Cuda device;
  line("gelu forward 4096x768", microseconds([&] {
         activation_forward(device, y.data(), x.data(), Activation::Gelu, y.size());
       }),
       0, 0, 2 * row_bytes, peak.gbps);
  line("rms_norm forward 4096x768", microseconds([&] {
         rms_norm_forward(device, y.data(), rstd.data(), x.data(), weight.data(), n, c, 1e-5F);
       }),
       0, 0, 2 * row_bytes, peak.gbps);
  line("rms_norm backward 4096x768", microseconds([&] {
         rms_norm_backward(device, y.data(), dweight.data(), x.data(), x.data(), weight.data(),
                           rstd.data(), n, c);
       }),
       0, 0, 5 * row_bytes, peak.gbps);
  const Index parameters = 124'439'808;
  auto p = Tensor<Cuda>::zeros({parameters}), g = Tensor<Cuda>::zeros({parameters}),
       m = Tensor<Cuda>::zeros({parameters}), v = Tensor<Cuda>::zeros({parameters});
  line("adamw 124M", microseconds([&] {
         adamw_update(device, p.data(), g.data(), m.data(), v.data(), parameters,
                      AdamWStep{1e-3F, 0.9F, 0.999F, 1e-8F, 0.0F, 1.0F, 1, false});
       }),
       0, 0, 28.0 * static_cast<double>(parameters), peak.gbps);
  const Index rows = 1024, vocabulary = 50257;
  auto logits = random_tensor({rows, vocabulary}, 3);
  auto logprob = Tensor<Cuda>::empty({rows}), lse = Tensor<Cuda>::empty({rows});
  const auto targets = Tensor<Cuda, std::int32_t>::zeros({rows});
  line("log-probs of 1024 rows of 50257", microseconds([&] {
         logprob_rows(device, logprob.data(), nullptr, lse.data(), logits.data(), targets.data(),
                      rows, vocabulary, 1.0F);
       }),
       0, 0, 4.0 * static_cast<double>(rows * vocabulary), peak.gbps);
}

void bench_attention(const Peak& peak) {
  for (const Index length : {256, 1024, 4096}) {
    const Index sequences = 4, n = sequences * length;
    const AttentionShape shape{12, 12, 64, 0.125F};
    const auto q = random_tensor({n, 768}, 1), k = random_tensor({n, 768}, 2),
               v = random_tensor({n, 768}, 3), dout = random_tensor({n, 768}, 4);
    auto out = Tensor<Cuda>::empty({n, 768}), lse = Tensor<Cuda>::empty({n, 12});
    auto dq = Tensor<Cuda>::zeros({n, 768}), dk = Tensor<Cuda>::zeros({n, 768}),
         dv = Tensor<Cuda>::zeros({n, 768});
    std::vector<std::int32_t> starts;
    for (Index b = 0; b <= sequences; ++b) starts.push_back(static_cast<std::int32_t>(b * length));
    const auto offsets = Tensor<Cuda, std::int32_t>::from(starts, {sequences + 1});
    const double flops = 2.0 * 768 * static_cast<double>(sequences * length * (length + 1));
    const Cuda device;
    line(str("attention forward B4 H12 D64 T", length), microseconds([&] {
           attention_forward(device, out.data(), lse.data(), q.data(), k.data(), v.data(),
                             offsets.data(), offsets.data(), sequences, n, n, shape);
         }),
         flops, peak.float_tflops, 0, 0);
    line(str("attention backward B4 H12 D64 T", length), microseconds([&] {
           attention_backward(device, dq.data(), dk.data(), dv.data(), dout.data(), out.data(),
                              lse.data(), q.data(), k.data(), v.data(), offsets.data(),
                              offsets.data(), sequences, n, n, shape);
         }),
         2.5 * flops, peak.float_tflops, 0, 0);
  }
}

}  // namespace

int main() try {
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status != cudaSuccess || devices == 0) {
    std::printf("no CUDA device (%s): nothing was measured\n",
                status != cudaSuccess ? cudaGetErrorString(status) : "none found");
    return 77;
  }
  cudaDeviceProp device;
  kernels::check_cuda(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
  const Peak peak = peak_of(device);
  std::printf(
      "%s, compute capability %d.%d, %d SMs; peaks (%s): float %.1f, tf32 %.0f, bf16 %.0f "
      "TFLOP/s, %.0f GB/s\n",
      device.name, device.major, device.minor, device.multiProcessorCount, peak.name,
      peak.float_tflops, peak.tf32_tflops, peak.bf16_tflops, peak.gbps);
  bench_gemm(peak);
  bench_streams(peak);
  bench_attention(peak);
  return failures == 0 ? 0 : 1;
} catch (const std::exception& error) {
  std::fprintf(stderr, "bench_cuda: %s\n", error.what());
  return 1;
}
