// What a benchmark refuses to time on a device: the cheats of test_bench.cpp that a device allows,
// each by the same name; and honest kernels, which it takes.
#include <plumb/bench/check.hpp>
#include <plumb/core/tensor.hpp>
#include <plumb/cuda/bench.cuh>
#include <plumb/cuda/elementwise.cuh>
#include <plumb/cuda/rows.cuh>

#include <doctest/doctest.h>

#include <cmath>
#include <map>
#include <memory>
#include <vector>

using namespace plumb;
using namespace plumb::bench;

namespace {

/// y = x · |x| + ½.
struct SquareOnDevice {
  float* y;
  const float* x;
  __device__ void operator()(Index i) const { y[i] = x[i] * fabsf(x[i]) + 0.5F; }
};
void square_on(Cuda device, float* y, const float* x, Index n) {
  kernels::gpu::map(device, SquareOnDevice{y, x}, n);
}

/// p[at] = value, or p[at] += value.
struct Poke {
  float* p;
  float value;
  bool adds;
  __device__ void operator()(Index) const { *p = adds ? *p + value : value; }
};
void poke(Cuda device, float* p, float value, bool adds = false) {
  kernels::gpu::map(device, Poke{p, value, adds}, 1);
}

void device_square_exact(std::span<double> y, std::span<const double> x, Index n) {
  for (Index i = 0; i < n; ++i) {
    const auto at = static_cast<std::size_t>(i);
    y[at] = x[at] * std::abs(x[at]) + 0.5;
  }
}

constexpr Index kDeviceSize = 1023;

template <class Kernel>
Refusal device_refusal(Kernel kernel, Index n = kDeviceSize, bool right_before = false) {
  Checked checked(std::move(kernel), device_square_exact, arguments(out(n), in(n, -4, 4), n));
  static_assert(std::is_same_v<typename decltype(checked)::Device, Cuda>);
  return checked.check(Cpu{}, 1, right_before);
}
void check_device_refused(const Refusal& refusal, Cheat cheat) {
  const std::string seen =
      str("expected \"", name(cheat), "\", got \"", name(refusal.cheat), ": ", refusal.what, '"');
  CHECK_MESSAGE(refusal.cheat == cheat, seen);
}

/// A result kept on the device.
struct Kept {
  std::unique_ptr<kernels::DeviceScratch<float>> memory;
  bool there() const { return memory != nullptr; }
  float* make(Cuda device, Index n) {
    memory = std::make_unique<kernels::DeviceScratch<float>>(device, n);
    return memory->data();
  }
  void give(Cuda device, float* y, Index n) const {
    kernels::copy(device, y, memory->data(), static_cast<std::size_t>(n) * sizeof(float));
  }
};

/// As it, a hundred times over.
struct ExpensiveSquare {
  float* y;
  const float* x;
  __device__ void operator()(Index i) const {
    float wasted = x[i];
    for (int k = 0; k < 300; ++k) wasted = wasted * 0.75F + x[i];
    y[i] = x[i] * fabsf(x[i]) + 0.5F + (wasted > 1e30F ? 1.0F : 0.0F);
  }
};

struct RoundedSquare {
  float* y;
  const float* x;
  __device__ void operator()(Index i) const {
    const float square = x[i] * fabsf(x[i]) + 0.5F;
    y[i] = __int_as_float((__float_as_int(square) + 0x8000) & ~0xffff);  // to eight bits
  }
};

/// Adds 0 · what y held.
struct ReadingSquare {
  float* y;
  const float* x;
  __device__ void operator()(Index i) const { y[i] = x[i] * fabsf(x[i]) + 0.5F + 0.0F * y[i]; }
};

}  // namespace

TEST_CASE("bench on a device: honest kernels are taken") {
  for (const Index n : {0, 1, 33, 1023, 4096})
    check_device_refused(device_refusal(square_on, n), Cheat::None);
  // One that adds to what is there, of numbers of a table; and a mode of the device.
  const auto gather = [](CudaTf32 device, float* sum, const float* table, const std::int32_t* rows,
                         Index n, Index c) {
    const Tensor<Cuda> some = Tensor<Cuda>::empty({n, c});
    embedding_forward(Cuda{device}, some.data(), table, rows, n, c);
    accumulate(Cuda{device}, sum, some.data(), 0.75F, n * c);
  };
  const auto exact = [](std::span<double> sum, std::span<const double> table,
                        std::span<const std::int32_t> rows, Index n, Index c) {
    for (Index i = 0; i < n * c; ++i) {
      const Index row = rows[static_cast<std::size_t>(i / c)];
      sum[static_cast<std::size_t>(i)] += 0.75 * table[static_cast<std::size_t>(row * c + i % c)];
    }
  };
  const Index n = 40, c = 65, v = 11;
  Checked checked(gather, exact, arguments(inout(n * c), in(v * c), ids(n, v), n, c));
  check_device_refused(checked.check(Cpu{}, 3, false), Cheat::None);
}

TEST_CASE("bench on a device: a result computed once, or kept for an address") {
  auto once = std::make_shared<Kept>();
  check_device_refused(device_refusal([once](Cuda device, float* y, const float* x, Index n) {
                         if (!once->there()) square_on(device, once->make(device, n), x, n);
                         once->give(device, y, n);
                       }),
                       Cheat::Cached);
  auto by_address = std::make_shared<std::map<const float*, Kept>>();
  check_device_refused(device_refusal([by_address](Cuda device, float* y, const float* x, Index n) {
                         Kept& kept = (*by_address)[x];
                         if (!kept.there()) square_on(device, kept.make(device, n), x, n);
                         kept.give(device, y, n);
                       }),
                       Cheat::CachedByAddress);
}

TEST_CASE("bench on a device: computed once, then copied while the inputs are known") {
  auto kept = std::make_shared<Kept>();
  auto known = std::make_shared<std::vector<float>>();
  const Index size = 4 * kDeviceSize;
  check_device_refused(
      device_refusal(
          [kept, known](Cuda device, float* y, const float* x, Index n) {
            std::vector<float> now(static_cast<std::size_t>(n));
            kernels::copy_to_host(device, now.data(), x, now.size() * sizeof(float));
            if (now != *known) {
              *known = now;
              kernels::gpu::map(device, ExpensiveSquare{kept->make(device, n), x}, n);
            }
            kept->give(device, y, n);
          },
          size),
      Cheat::KnowsItsInputs);
}

TEST_CASE("bench on a device: the tail is skipped, or what is outside is written") {
  const auto tailless = [](Cuda device, float* y, const float* x, Index n) {
    square_on(device, y, x, n / 8 * 8);
  };
  const Refusal refusal = device_refusal(tailless);
  check_device_refused(refusal, Cheat::LeavesUnwritten);
  CHECK(refusal.what ==
        "call 2: element 1016 of argument 1 was not written (the output still holds the poison)");
  check_device_refused(device_refusal(tailless, 1024), Cheat::None);
  for (const Index at : {Index{-1}, kDeviceSize, kDeviceSize + 3})
    check_device_refused(device_refusal([at](Cuda device, float* y, const float* x, Index n) {
                           square_on(device, y, x, n);
                           poke(device, y + at, 0.0F);
                         }),
                         Cheat::WritesOutside);
}

TEST_CASE("bench on a device: an input is changed, or the output's old content read") {
  check_device_refused(device_refusal([](Cuda device, float* y, const float* x, Index n) {
                         square_on(device, y, x, n);
                         poke(device, const_cast<float*>(x) + n / 2, 1.0F, true);
                       }),
                       Cheat::ChangesInput);
  check_device_refused(device_refusal([](Cuda device, float* y, const float* x, Index n) {
                         kernels::gpu::map(device, ReadingSquare{y, x}, n);
                       }),
                       Cheat::ReadsOutput);
}

TEST_CASE("bench on a device: what depends on the call, or on where arrays lie") {
  int calls = 0;
  check_device_refused(
      device_refusal([calls](Cuda device, float* y, const float* x, Index n) mutable {
        square_on(device, y, x, n);
        if (++calls >= 3) poke(device, y, 1.0F, true);
      }),
      Cheat::DependsOnCall);
  check_device_refused(device_refusal([](Cuda device, float* y, const float* x, Index n) {
                         square_on(device, y, x, n);
                         if (reinterpret_cast<std::uintptr_t>(x) % 64 != 0) poke(device, y, 7.0F);
                       }),
                       Cheat::DependsOnPlace);
  // After the calls that were timed.
  Checked checked([calls](Cuda device, float* y, const float* x,
                          Index n) mutable { square_on(device, y, x, ++calls > 100 ? n / 2 : n); },
                  device_square_exact, arguments(out(kDeviceSize), in(kDeviceSize), kDeviceSize));
  check_device_refused(checked.check(Cpu{}, 1, false), Cheat::None);
  for (int i = 0; i < 100; ++i) checked.run(Cpu{});
  check_device_refused(checked.last_call(Cpu{}), Cheat::DependsOnCall);
}

TEST_CASE("bench on a device: wrong, wrong for a size, less precise than claimed") {
  const auto small = [](Cuda device, float* y, const float* x, Index n) {
    square_on(device, y, x, n);
    if (n > 512) poke(device, y + n - 1, 0.0F);
  };
  check_device_refused(device_refusal(small, 511), Cheat::None);
  check_device_refused(device_refusal(small, 1023, true), Cheat::WrongForSize);
  check_device_refused(device_refusal(small, 1023, false), Cheat::Wrong);
  check_device_refused(device_refusal([](Cuda device, float* y, const float* x, Index n) {
                         kernels::gpu::map(device, RoundedSquare{y, x}, n);
                       }),
                       Cheat::LessPrecise);
}

TEST_CASE("bench on a device: it returns before its work is in the stream's order") {
  cudaStream_t other = nullptr;
  kernels::check_cuda(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), "other");
  // Some of it is on a stream that nobody waits for, behind what takes a while.
  kernels::DeviceScratch<float> scratch(Cuda{}, Index{1} << 16);
  check_device_refused(
      device_refusal([other, &scratch](Cuda device, float* y, const float* x, Index n) {
        square_on(device, y, x, n / 2);
        const Cuda late{other};
        if (!kCounted)
          for (int i = 0; i < 200; ++i)
            kernels::gpu::map(late, ExpensiveSquare{scratch.data(), scratch.data()}, 1 << 16);
        square_on(late, y + n / 2, x + n / 2, n - n / 2);
      }),
      Cheat::ReturnsEarly);
  cudaStreamDestroy(other);
}

TEST_CASE("bench on a device: it throws, as a launch that is refused does") {
  const Refusal refusal = device_refusal([](Cuda device, float* y, const float* x, Index n) {
    PLUMB_LAUNCH((kernels::gpu::map_kernel<kernels::gpu::kMapThreads, SquareOnDevice>), 1, 4096, 0,
                 device.stream, SquareOnDevice{y, x}, n);
  });
  check_device_refused(refusal, Cheat::Throws);
  CHECK(refusal.what.find("call 1 threw: [cuda] launch of") == 0);
}

TEST_CASE("bench on a device: the bound is the datasheet's") {
  cudaDeviceProp device{};
  std::snprintf(device.name, sizeof device.name, "NVIDIA H100 80GB HBM3");
  const Peak peak = peak_of(device);
  CHECK(std::string(peak.name) == "H100");
  Work work;
  work.flops = 67e9;
  work.read = 3350e6;
  CHECK(bound_by(peak, work).seconds == doctest::Approx(1e-3));
  CHECK(bound_by(peak, work).name == "float (67.0 TFLOP/s)");
  work.bf16 = true;
  CHECK(bound_by(peak, work).name == "memory (3350 GB/s)");
  work.read /= 100;
  CHECK(bound_by(peak, work).seconds == doctest::Approx(67.0 / 989.0 * 1e-3));
  // Of a part whose tensor cores nobody knows, memory's limit alone.
  CHECK(bound_by({"its clocks", 10, 0, 0, 1000}, work).name == "memory (1000 GB/s)");
}
