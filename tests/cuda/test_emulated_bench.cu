// What a benchmark says of kernels that the emulator counts, where it is known; and the one cheat
// that needs another order of threads. For traced programs only.
#include <plumb/bench/count.hpp>
#include <plumb/cuda/bench.cuh>
#include <plumb/cuda/elementwise.cuh>
#include <plumb/cuda/reduce.cuh>

#include <emulator/core.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

using namespace plumb;
using namespace plumb::bench;

namespace {

/// Adds a benchmark of one case, counts it, and takes it out of the list again.
template <class Kernel, class Make, class Oracle, class Bytes>
std::pair<Counted, Work> counted(const std::string& name, Kernel kernel, Make make, Oracle oracle,
                                 Bytes bytes) {
  const std::size_t before = entries().size();
  add(
      name, kernel, each_of({4096}, make), oracle, [](Index) { return 0; }, bytes);
  REQUIRE(entries().size() == before + 1);
  const Entry entry = entries().back();
  entries().pop_back();
  CHECK(entry.full() == name + "/n=4096/emulated");
  CHECK_FALSE(entry.flushes);
  Subject& subject = Holder::instance().hold(entry);
  const Refusal& refusal = Holder::instance().refusal();
  CHECK_MESSAGE(!refusal, refusal.what);
  return {subject.device_counts(), subject.work()};
}

void add_two(Cuda device, float* y, const float* a, const float* b, Index n) {
  combine_forward(device, y, {a, n, 1}, {b, n, 1}, Arithmetic::Add, 1, n);
}

/// The same, each element read from a place of its own 32 bytes: as many bytes, eight times the
/// sectors.
struct Strided {
  float* y;
  const float* x;
  __device__ void operator()(Index i) const { y[i] = x[8 * i]; }
};

/// A tile of 32 × 32 through shared memory, whose columns lie in one bank each.
static __global__ void transpose_badly(float* y, const float* x) {
  __shared__ float tile[32 * 32];
  for (unsigned row = 0; row < 32; ++row) tile[32 * row + threadIdx.x] = x[32 * row + threadIdx.x];
  __syncthreads();
  for (unsigned row = 0; row < 32; ++row) y[32 * row + threadIdx.x] = tile[32 * threadIdx.x + row];
}

/// y = x, and one bit more where the thread came first.
struct FirstCome {
  float* y;
  const float* x;
  std::int32_t* ticket;
  __device__ void operator()(Index i) const {
    const float more = atomicAdd(ticket, 1) == 0 ? 0x1p-22F : 0.0F;
    y[i] = x[i] + more;
  }
};

}  // namespace

TEST_CASE("bench: counts of a sum are 8 bytes read and 4 stored an element") {
  const auto [c, work] = counted(
      "sum", add_two, [](Index n) { return arguments(out(n), in(n), in(n), n); },
      [](std::span<double> y, std::span<const double> a, std::span<const double> b, Index) {
        for (std::size_t i = 0; i < y.size(); ++i) y[i] = a[i] + b[i];
      },
      every_array_once);
  CHECK(c.launches == 1);
  CHECK(c.read == 8 * 4096);
  CHECK(c.stored == 4 * 4096);
  CHECK(c.sectors == c.least_sectors);
  CHECK(c.sectors == 12 * 4096 / 32);
  CHECK(c.shared == 0);
  CHECK(c.barriers == 0);
  CHECK(work.bytes() == 12 * 4096);
  CHECK(count_cells(c, work) ==
        std::vector<std::string>{"1", "32.77 kB", "16.38 kB", "1.00", "1.00", "0 B", "-", "-"});
}

TEST_CASE("bench: sectors of which an eighth is used are counted whole") {
  const auto [c, work] = counted(
      "strided",
      [](Cuda device, float* y, const float* x, Index n) {
        kernels::gpu::map(device, Strided{y, x}, n);
      },
      [](Index n) { return arguments(out(n), in(8 * n), n); },
      [](std::span<double> y, std::span<const double> x, Index n) {
        for (Index i = 0; i < n; ++i) y[std::size_t(i)] = x[std::size_t(8 * i)];
      },
      [](Index n) { return 8 * n; });
  CHECK(c.read == 4 * 4096);
  CHECK(c.sectors == 4096 + 4 * 4096 / 32);
  CHECK(c.least_sectors == 8 * 4096 / 32);
  CHECK(work.bytes() == 8 * 4096);
}

TEST_CASE("bench: conflicts of shared memory's banks are counted") {
  const auto [c, work] = counted(
      "transpose",
      [](Cuda device, float* y, const float* x, Index) {
        PLUMB_LAUNCH(transpose_badly, 1, 32, 0, device.stream, y, x);
      },
      [](Index) { return arguments(out(1024), in(1024), Index{32}); },
      [](std::span<double> y, std::span<const double> x, Index n) {
        for (Index i = 0; i < n * n; ++i) y[std::size_t(i)] = x[std::size_t(i % n * n + i / n)];
      },
      every_array_once);
  CHECK(c.shared == 2 * 4 * 1024);
  CHECK(c.least_passes == 2 * 32);
  CHECK(c.passes == 32 + 32 * 32);  // stored a row a pass; read a column an element a pass
  CHECK(c.blocks == 1);
  CHECK(c.barriers == 1);
  CHECK(work.bytes() == 8 * 1024);
}

TEST_CASE("bench cheat on a device: bits that depend on the order of threads") {
  const auto order = emulator::schedule_order();
  emulator::set_schedule(emulator::Order::forward);
  const auto kernel = [](Cuda device, float* y, const float* x, Index n) {
    const kernels::DeviceScratch<std::int32_t> ticket(device, 1);
    kernels::zero(device, ticket.data(), sizeof(std::int32_t));
    kernels::gpu::map(device, FirstCome{y, x, ticket.data()}, n);
  };
  Checked checked(
      kernel,
      [](std::span<double> y, std::span<const double> x, Index) {
        std::copy(x.begin(), x.end(), y.begin());
      },
      arguments(out(1000), in(1000), Index{1000}));
  const Refusal refusal = checked.check(Cpu{}, 1, false);
  CHECK(std::string(name(refusal.cheat)) == "depends on the threads");
  CHECK(refusal.what == "other bits with its threads in reverse order");
  CHECK(emulator::schedule_order() == emulator::Order::forward);
  emulator::set_schedule(order);
}
