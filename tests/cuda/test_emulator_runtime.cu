// The emulator's CUDA language and runtime: warp operations and matrix instructions against plain
// loops, streams, events and graphs, memory, limits, injected errors, the tracer's counts.
#if __has_include(<plumb/cuda/platform.cuh>)
#include <plumb/cuda/platform.cuh>
#else
#include <emulator/device.hpp>
#endif

#include <emulator/trace.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <functional>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>

namespace {

using namespace plumb::kernels;
namespace emulator = plumb::emulator;
using emulator::Order;

const std::string_view way = PLUMB_WAY;

template <class T>
struct Device {
  T* p = nullptr;
  std::size_t n;
  explicit Device(std::size_t size) : n(size) {
    REQUIRE(cudaMalloc(reinterpret_cast<void**>(&p), n * sizeof(T)) == cudaSuccess);
  }
  explicit Device(const std::vector<T>& host) : Device(host.size()) {
    REQUIRE(cudaMemcpy(p, host.data(), n * sizeof(T), cudaMemcpyHostToDevice) == cudaSuccess);
  }
  ~Device() { cudaFree(p); }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  std::vector<T> host() const {
    std::vector<T> h(n);
    REQUIRE(cudaMemcpy(h.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess);
    return h;
  }
};

struct Schedule {  // restores the order at the end
  Order before = emulator::schedule_order();
  explicit Schedule(Order order, std::uint64_t seed = 1) { emulator::set_schedule(order, seed); }
  ~Schedule() { emulator::set_schedule(before); }
};

struct Stream {
  cudaStream_t handle = nullptr;
  explicit Stream(unsigned flags = cudaStreamNonBlocking) {
    REQUIRE(cudaStreamCreateWithFlags(&handle, flags) == cudaSuccess);
  }
  ~Stream() { cudaStreamDestroy(handle); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator cudaStream_t() const { return handle; }
};

struct Event {
  cudaEvent_t handle = nullptr;
  Event() { REQUIRE(cudaEventCreate(&handle) == cudaSuccess); }
  ~Event() { cudaEventDestroy(handle); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  operator cudaEvent_t() const { return handle; }
};

std::vector<int> iota(std::size_t n) {
  std::vector<int> v(n);
  std::iota(v.begin(), v.end(), 0);
  return v;
}

// --- Kernels -----------------------------------------------------------------------------------

static __global__ void indices(int* out) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned size = blockDim.x * blockDim.y * blockDim.z;
  atomicAdd(&out[block * size + thread], 1);
}

static __global__ void shuffles(int* out, int width) {
  const int l = static_cast<int>(threadIdx.x), n = 32;
  out[l] = __shfl_sync(~0U, l, 5, width);
  out[n + l] = __shfl_xor_sync(~0U, l, 3, width);
  out[2 * n + l] = __shfl_down_sync(~0U, l, 3, width);
  out[3 * n + l] = __shfl_up_sync(~0U, l, 3, width);
  const double d = __shfl_xor_sync(~0U, static_cast<double>(l) + 0.5, 1);
  out[4 * n + l] = static_cast<int>(2.0 * d);
}

static __global__ void votes(int* out) {
  const int l = static_cast<int>(threadIdx.x);
  const bool odd = l % 2 != 0;
  out[0 + 8 * l] = static_cast<int>(__ballot_sync(~0U, odd));
  out[1 + 8 * l] = __any_sync(~0U, l == 31);
  out[2 + 8 * l] = __all_sync(~0U, l < 31);
  out[3 + 8 * l] = __reduce_add_sync(~0U, l - 3);
  out[4 + 8 * l] = __reduce_max_sync(~0U, -l);
  out[5 + 8 * l] = __reduce_min_sync(~0U, -l);
  out[6 + 8 * l] = static_cast<int>(__reduce_or_sync(~0U, 1U << l % 7));
  // The halves of the warp at different operations, with masks of their own.
  if (l < 16)
    out[7 + 8 * l] = __shfl_xor_sync(0x0000FFFFU, l, 1);
  else
    out[7 + 8 * l] = __shfl_down_sync(0xFFFF0000U, l, 1);
}

static __global__ void block_votes(int* out) {
  const int t = static_cast<int>(threadIdx.x);
  const int count = __syncthreads_count(t % 3 == 0);
  const int any = __syncthreads_or(t == 77), none = __syncthreads_or(0);
  const int all = __syncthreads_and(1), most = __syncthreads_and(t != 7);
  out[t] = count * 10000 + any * 1000 + none * 100 + all * 10 + most;
}

static __global__ void atomics(int* out) {
  atomicAdd(&out[0], 2);
  atomicMax(&out[1], static_cast<int>(threadIdx.x));
  atomicMin(&out[2], -static_cast<int>(threadIdx.x));
  atomicCAS(&out[3], 0, 7);
  atomicExch(&out[4], 9);
  atomicInc(reinterpret_cast<unsigned*>(&out[5]), 1000000U);
}

// One warp: c (16, 8) = a (16, 32) · b (32, 8), bf16, through shared memory and ldmatrix. b comes
// as it is, and is read with .trans, or transposed, and is read without.
template <bool Transposed>
static __global__ void bf16_product(float* c, const std::uint16_t* a, const std::uint16_t* b) {
  __shared__ __align__(16) std::uint16_t as[16 * 32], bs[32 * 8];
  const unsigned l = threadIdx.x;
  for (unsigned i = l; i < 64; i += 32) {
    cp_async_16(as + 8 * i, a + 8 * i, 16);
    if (i < 32) cp_async_16(bs + 8 * i, b + 8 * i, 16);
  }
  cp_async_commit();
  cp_async_wait<0>();
  __syncwarp();
  float d[4] = {};
  std::uint32_t bf[4];
  if constexpr (Transposed)
    ldmatrix_x4_transposed(bf, bs + 8 * l);  // b (k, n), rows of 8
  else
    ldmatrix_x4(bf, bs + 32 * (l % 8) + 8 * (l / 8));  // b transposed (n, k), rows of 32
  for (unsigned k = 0; k < 2; ++k) {
    std::uint32_t af[4];
    ldmatrix_x4(af, as + 32 * (l % 16) + 16 * k + 8 * (l / 16));
    const std::uint32_t bk[2] = {bf[2 * k], bf[2 * k + 1]};
    mma_bf16(d, af, bk);
  }
  for (unsigned i = 0; i < 4; ++i) c[(l / 4 + i / 2 * 8) * 8 + l % 4 * 2 + i % 2] = d[i];
}

static __global__ void tf32_product(float* c, const float* a, const float* b) {
  const unsigned g = threadIdx.x / 4, t = threadIdx.x % 4;
  float d[4] = {};
  const std::uint32_t af[4] = {to_tf32(a[g * 8 + t]), to_tf32(a[(g + 8) * 8 + t]),
                               to_tf32(a[g * 8 + t + 4]), to_tf32(a[(g + 8) * 8 + t + 4])};
  const std::uint32_t bf[2] = {to_tf32(b[t * 8 + g]), to_tf32(b[(t + 4) * 8 + g])};
  mma_tf32(d, af, bf);
  for (unsigned i = 0; i < 4; ++i) c[(g + i / 2 * 8) * 8 + t * 2 + i % 2] = d[i];
}

static __global__ void copy_tail(float* out, const float* in, int bytes) {
  __shared__ __align__(16) float s[4];
  cp_async_16(s, in, bytes);
  cp_async_commit();
  cp_async_wait<0>();
  for (int i = 0; i < 4; ++i) out[i] = s[i];
}

static __global__ void add(int* p, int n, int value) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) p[i] += value;
}
static __global__ void double_it(int* p, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) p[i] *= 2;
}

static __global__ void order_of_blocks(int* out, int* next) {
  if (threadIdx.x == 0) out[blockIdx.x] = atomicAdd(next, 1);
}

static __global__ void fill_dynamic(float* out, int n) {
  float* s = dynamic_shared<float>();
  for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x)) s[i] = 1.0F;
  __syncthreads();
  if (threadIdx.x == 0) out[0] = s[n - 1];
}

static __global__ void two_places(float* out) {
  if (threadIdx.x == 0) {
    __syncthreads();  // first
  } else {
    __syncthreads();  // second
  }
  out[threadIdx.x] = 1.0F;
}

// 32 x 32 floats, transposed through shared memory whose rows are `Pitch` apart.
template <int Pitch>
static __global__ void transpose(float* out, const float* in) {
  __shared__ float s[32 * Pitch];
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  s[y * Pitch + x] = in[y * 32 + x];
  __syncthreads();
  out[y * 32 + x] = s[x * Pitch + y];
}

static __global__ void barriers(int n) {
  for (int i = 0; i < n; ++i) __syncthreads();
}
static __global__ void shuffle_often(int* out, int n) {
  int v = static_cast<int>(threadIdx.x);
  for (int i = 0; i < n; ++i) v = __shfl_xor_sync(~0U, v, 1);
  out[threadIdx.x] = v;
}
static __global__ void nothing() {}

float from_bf16(std::uint16_t bits) { return __uint_as_float(static_cast<unsigned>(bits) << 16); }

}  // namespace

// --- Language ----------------------------------------------------------------------------------

TEST_CASE("every thread of every block runs once, in each order") {
  for (const Order order : {Order::forward, Order::reverse, Order::random})
    for (const unsigned seed : {1U, 2U, 3U}) {
      const Schedule schedule(order, seed);
      Device<int> out(std::vector<int>(5 * 3 * 2 * 7 * 3 * 2));
      PLUMB_LAUNCH(indices, dim3(5, 3, 2), dim3(7, 3, 2), 0, nullptr, out.p);
      CHECK(out.host() == std::vector<int>(out.n, 1));
    }
}

TEST_CASE("random orders differ by seed and repeat with it") {
  const auto order = [](Order kind, unsigned seed) {
    const Schedule schedule(kind, seed);
    Device<int> out(64), next(std::vector<int>{0});
    PLUMB_LAUNCH(order_of_blocks, 64, 32, 0, nullptr, out.p, next.p);
    return out.host();
  };
  CHECK(order(Order::forward, 1) == iota(64));
  std::vector<int> backwards = iota(64);
  std::reverse(backwards.begin(), backwards.end());
  CHECK(order(Order::reverse, 1) == backwards);
  CHECK(order(Order::random, 1) == order(Order::random, 1));
  CHECK(order(Order::random, 1) != order(Order::random, 2));
  CHECK(order(Order::random, 1) != iota(64));
}

TEST_CASE("shuffles") {
  for (const int width : {32, 16, 8, 4, 2}) {
    Device<int> out(5 * 32);
    PLUMB_LAUNCH(shuffles, 1, 32, 0, nullptr, out.p, width);
    const std::vector<int> h = out.host();
    for (int l = 0; l < 32; ++l) {
      const int first = l / width * width, at = l - first;
      const auto k = static_cast<std::size_t>(l);
      CHECK(h[k] == first + 5 % width);
      // Beyond the segment a lane keeps its own, as does one that reads a later segment.
      const int other = l ^ 3;
      CHECK(h[32 + k] == (other < first + width ? other : l));
      CHECK(h[64 + k] == (at + 3 < width ? l + 3 : l));
      CHECK(h[96 + k] == (at >= 3 ? l - 3 : l));
      CHECK(h[128 + k] == 2 * (l ^ 1) + 1);
    }
  }
}

TEST_CASE("votes, reductions, and disjoint masks") {
  for (const Order order : {Order::forward, Order::reverse, Order::random}) {
    const Schedule schedule(order);
    Device<int> out(8 * 32), block(128), counters(std::vector<int>(6));
    PLUMB_LAUNCH(votes, 1, 32, 0, nullptr, out.p);
    const std::vector<int> h = out.host();
    for (std::size_t l = 0; l < 32; ++l) {
      const int lane = static_cast<int>(l);
      CHECK(static_cast<unsigned>(h[8 * l]) == 0xAAAAAAAAU);
      CHECK(h[8 * l + 1] == 1);
      CHECK(h[8 * l + 2] == 0);
      CHECK(h[8 * l + 3] == 31 * 16 - 96);
      CHECK(h[8 * l + 4] == 0);
      CHECK(h[8 * l + 5] == -31);
      CHECK(h[8 * l + 6] == 127);
      CHECK(h[8 * l + 7] == (lane < 16 ? lane ^ 1 : lane < 31 ? lane + 1 : lane));
    }
    PLUMB_LAUNCH(block_votes, 1, 128, 0, nullptr, block.p);
    CHECK(block.host() == std::vector<int>(128, 43 * 10000 + 1010));
    PLUMB_LAUNCH(atomics, 3, 64, 0, nullptr, counters.p);
    CHECK(counters.host() == std::vector<int>{384, 63, -63, 7, 9, 192});
  }
}

TEST_CASE("integer and float intrinsics") {
  CHECK(__popc(0xF0F0U) == 8);
  CHECK(__clz(1) == 31);
  CHECK(__clz(0) == 32);
  CHECK(__ffs(8) == 4);
  CHECK(__brev(1U) == 0x80000000U);
  CHECK(__umulhi(0x80000000U, 6U) == 3);
  CHECK(__funnelshift_l(0x80000000U, 1U, 1) == 3);
  CHECK(__float_as_int(1.0F) == 0x3F800000);
  CHECK(__fmaf_rn(1.0F + 0x1p-12F, 1.0F + 0x1p-12F, -1.0F) == 0x1p-11F + 0x1p-24F);
  CHECK(min(NAN, 1.0F) == 1.0F);
  CHECK(to_tf32(1.0F + 0x1p-11F) == __float_as_uint(1.0F + 0x1p-10F));  // a tie, away from zero
  CHECK(to_tf32(-1.0F - 0x1p-11F) == __float_as_uint(-1.0F - 0x1p-10F));
  CHECK(to_tf32(INFINITY) == __float_as_uint(INFINITY));
}

TEST_CASE("matrix instructions") {
  // Small integers: every sum is exact, so any order gives the same bits.
  std::vector<std::uint16_t> a(16 * 32), b(32 * 8), b_transposed(32 * 8);
  unsigned state = 7;
  const auto next = [&] {
    state = state * 1664525U + 1013904223U;
    const float v = static_cast<float>(static_cast<int>(state >> 28) - 8);
    return static_cast<std::uint16_t>(__float_as_uint(v) >> 16);
  };
  for (auto& x : a) x = next();
  for (auto& x : b) x = next();
  std::vector<float> want(16 * 8);
  for (std::size_t k = 0; k < 32; ++k)
    for (std::size_t j = 0; j < 8; ++j) {
      b_transposed[j * 32 + k] = b[k * 8 + j];
      for (std::size_t i = 0; i < 16; ++i)
        want[i * 8 + j] += from_bf16(a[i * 32 + k]) * from_bf16(b[k * 8 + j]);
    }
  Device<std::uint16_t> da(a), db(b), dt(b_transposed);
  Device<float> c(16 * 8);
  PLUMB_LAUNCH(bf16_product<true>, 1, 32, 0, nullptr, c.p, da.p, db.p);
  CHECK(c.host() == want);
  PLUMB_LAUNCH(bf16_product<false>, 1, 32, 0, nullptr, c.p, da.p, dt.p);
  CHECK(c.host() == want);

  std::vector<float> fa(16 * 8), fb(8 * 8), fwant(16 * 8);
  for (auto& x : fa) x = from_bf16(next());
  for (auto& x : fb) x = from_bf16(next());
  for (std::size_t i = 0; i < 16; ++i)
    for (std::size_t k = 0; k < 8; ++k)
      for (std::size_t j = 0; j < 8; ++j) fwant[i * 8 + j] += fa[i * 8 + k] * fb[k * 8 + j];
  Device<float> dfa(fa), dfb(fb);
  PLUMB_LAUNCH(tf32_product, 1, 32, 0, nullptr, c.p, dfa.p, dfb.p);
  CHECK(c.host() == fwant);
}

TEST_CASE("an asynchronous copy fills up with zeros") {
  Device<float> in(std::vector<float>{1, 2, 3, 4}), out(4);
  for (const int bytes : {0, 4, 12, 16}) {
    PLUMB_LAUNCH(copy_tail, 1, 1, 0, nullptr, out.p, in.p, bytes);
    std::vector<float> want{1, 2, 3, 4};
    for (std::size_t i = static_cast<std::size_t>(bytes) / 4; i < 4; ++i) want[i] = 0.0F;
    CHECK(out.host() == want);
  }
}

TEST_CASE("an error names the kernel, the thread and both places") {
  if (way == "tsan") return;  // fibers that end in the middle confuse libtsan's own report
  Device<float> out(64);
  PLUMB_LAUNCH(two_places, 1, 64, 0, nullptr, out.p);
  CHECK(cudaDeviceSynchronize() == cudaErrorLaunchFailure);
  CHECK(cudaGetLastError() == cudaErrorLaunchFailure);
  CHECK(cudaDeviceSynchronize() == cudaErrorLaunchFailure);  // it stays until it is taken
  const std::vector<emulator::Error> errors = emulator::take_errors();
  REQUIRE(errors.size() == 1);
  CHECK(errors[0].kind == "divergence");
  CHECK(errors[0].text.find("kernel two_places, block (0, 0, 0), thread (") != std::string::npos);
  const std::size_t first = errors[0].text.find("test_emulator_runtime.cu:");
  REQUIRE(first != std::string::npos);
  CHECK(errors[0].text.find("test_emulator_runtime.cu:", first + 1) != std::string::npos);
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
  CHECK(cudaGetLastError() == cudaErrorLaunchFailure);  // kept until it is asked for
}

// --- Streams, events, graphs -------------------------------------------------------------------

TEST_CASE("work is queued, and runs in the order of its stream") {
  for (const Order order : {Order::forward, Order::reverse, Order::random})
    for (const unsigned seed : {1U, 2U, 3U, 4U}) {
      const Schedule schedule(order, seed);
      const Stream s;
      Device<int> p(std::vector<int>(64, 1));
      REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
      PLUMB_LAUNCH(add, 1, 64, 0, s, p.p, 64, 3);
      PLUMB_LAUNCH(double_it, 1, 64, 0, s, p.p, 64);
      PLUMB_LAUNCH(add, 1, 64, 0, s, p.p, 64, 1);
      std::vector<int> h(64, 5);
      REQUIRE(cudaMemcpyAsync(h.data(), p.p, 256, cudaMemcpyDeviceToHost, s) == cudaSuccess);
      CHECK(h[0] == -1);  // garbage until the copy has run
      CHECK(cudaStreamQuery(s) == cudaErrorNotReady);
      REQUIRE(cudaStreamSynchronize(s) == cudaSuccess);
      CHECK(cudaStreamQuery(s) == cudaSuccess);
      CHECK(h == std::vector<int>(64, 9));
    }
}

TEST_CASE("the default stream waits for blocking streams and they for it") {
  for (const Order order : {Order::forward, Order::reverse, Order::random})
    for (const unsigned seed : {1U, 2U, 3U, 4U}) {
      const Schedule schedule(order, seed);
      const Stream a(cudaStreamDefault), b(cudaStreamDefault);
      Device<int> p(std::vector<int>(1, 1));
      PLUMB_LAUNCH(add, 1, 1, 0, a, p.p, 1, 2);
      PLUMB_LAUNCH(double_it, 1, 1, 0, nullptr, p.p, 1);
      PLUMB_LAUNCH(add, 1, 1, 0, b, p.p, 1, 10);
      CHECK(p.host() == std::vector<int>{16});
    }
}

TEST_CASE("events order streams") {
  for (const Order order : {Order::forward, Order::reverse, Order::random})
    for (const unsigned seed : {1U, 2U, 3U, 4U}) {
      const Schedule schedule(order, seed);
      const Stream a, b;
      const Event e, again;
      Device<int> p(std::vector<int>(1, 1));
      REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
      CHECK(cudaEventQuery(e) == cudaSuccess);  // never recorded: nothing to wait for
      PLUMB_LAUNCH(add, 1, 1, 0, a, p.p, 1, 2);
      REQUIRE(cudaEventRecord(e, a) == cudaSuccess);
      REQUIRE(cudaStreamWaitEvent(b, e, 0) == cudaSuccess);
      REQUIRE(cudaEventRecord(e, b) == cudaSuccess);  // what b waits for stays the first one
      PLUMB_LAUNCH(double_it, 1, 1, 0, b, p.p, 1);
      REQUIRE(cudaEventRecord(again, b) == cudaSuccess);
      REQUIRE(cudaEventSynchronize(again) == cudaSuccess);
      float ms = -1.0F;
      CHECK(cudaEventElapsedTime(&ms, e, again) == cudaSuccess);
      CHECK(ms >= 0.0F);
      CHECK(p.host() == std::vector<int>{6});
    }
}

TEST_CASE("an asynchronous copy reads its source when it runs, a plain one when it is called") {
  const Stream s;
  std::vector<int> h(4, 1);
  Device<int> p(std::vector<int>(4, 0)), q(4);
  REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  REQUIRE(cudaMemcpyAsync(p.p, h.data(), 16, cudaMemcpyHostToDevice, s) == cudaSuccess);
  REQUIRE(cudaMemcpy(q.p, h.data(), 16, cudaMemcpyHostToDevice) == cudaSuccess);
  h.assign(4, 2);
  REQUIRE(cudaStreamSynchronize(s) == cudaSuccess);
  CHECK(p.host() == std::vector<int>(4, 2));
  CHECK(q.host() == std::vector<int>(4, 1));
}

TEST_CASE("a captured graph replays") {
  for (const Order order : {Order::forward, Order::reverse, Order::random}) {
    const Schedule schedule(order, 5);
    const Stream s, other;
    const Event fork, join;
    Device<int> p(std::vector<int>(64, 1)), q(std::vector<int>(64, 0));
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
    REQUIRE(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal) == cudaSuccess);
    PLUMB_LAUNCH(add, 1, 64, 0, s, p.p, 64, 1);
    REQUIRE(cudaEventRecord(fork, s) == cudaSuccess);
    REQUIRE(cudaStreamWaitEvent(other, fork, 0) == cudaSuccess);
    PLUMB_LAUNCH(add, 1, 64, 0, other, q.p, 64, 5);
    PLUMB_LAUNCH(double_it, 1, 64, 0, s, p.p, 64);
    REQUIRE(cudaEventRecord(join, other) == cudaSuccess);
    REQUIRE(cudaStreamWaitEvent(s, join, 0) == cudaSuccess);
    REQUIRE(cudaMemcpyAsync(q.p, p.p, 4, cudaMemcpyDeviceToDevice, s) == cudaSuccess);
    cudaGraph_t graph = nullptr;
    REQUIRE(cudaStreamEndCapture(s, &graph) == cudaSuccess);
    cudaGraphExec_t exec = nullptr;
    REQUIRE(cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess);
    REQUIRE(cudaGraphDestroy(graph) == cudaSuccess);
    CHECK(p.host() == std::vector<int>(64, 1));  // captured, not run
    for (int i = 0; i < 3; ++i) REQUIRE(cudaGraphLaunch(exec, s) == cudaSuccess);
    REQUIRE(cudaStreamSynchronize(s) == cudaSuccess);
    CHECK(p.host() == std::vector<int>(64, 22));
    CHECK(q.host()[0] == 22);
    CHECK(q.host()[1] == 15);
    REQUIRE(cudaGraphExecDestroy(exec) == cudaSuccess);
  }
}

TEST_CASE("misuse of capture is an error") {
  const Stream s, other, blocking(cudaStreamDefault);
  const Event e, outside;
  Device<int> p(std::vector<int>(1, 1));
  REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  cudaGraph_t graph = nullptr;
  const auto capture = [&](cudaStream_t stream, cudaStreamCaptureMode mode, auto f) {
    REQUIRE(cudaStreamBeginCapture(stream, mode) == cudaSuccess);
    f();
    const cudaError_t end = cudaStreamEndCapture(stream, &graph);
    if (graph != nullptr) cudaGraphDestroy(graph);
    cudaGetLastError();
    return end;
  };
  const auto global = cudaStreamCaptureModeGlobal;
  CHECK(cudaStreamBeginCapture(nullptr, global) == cudaErrorStreamCaptureUnsupported);
  CHECK(cudaStreamEndCapture(s, &graph) == cudaErrorIllegalState);
  const std::function<cudaError_t()> forbidden[] = {
      [&] { return cudaStreamSynchronize(s); },
      [&] { return cudaStreamQuery(s); },
      [&] { return cudaDeviceSynchronize(); },
      [&] {
        int x;
        return cudaMemcpy(&x, p.p, 4, cudaMemcpyDeviceToHost);
      },
      [&] {
        void* x;
        return cudaMalloc(&x, 4);
      },
      [&] { return cudaFree(p.p); },
  };
  for (const auto& call : forbidden) {
    CHECK(capture(s, global, [&] { CHECK(call() == cudaErrorStreamCaptureUnsupported); }) ==
          cudaErrorStreamCaptureInvalidated);
    CHECK(p.host() == std::vector<int>{1});
  }
  CHECK(capture(blocking, cudaStreamCaptureModeRelaxed, [&] {
          CHECK(cudaMemsetAsync(p.p, 0, 4, nullptr) == cudaErrorStreamCaptureImplicit);
        }) == cudaErrorStreamCaptureInvalidated);
  CHECK(capture(s, global, [&] {
          cudaEventRecord(e, s);
          cudaStreamWaitEvent(other, e, 0);
          cudaMemsetAsync(p.p, 0, 4, other);
          CHECK(cudaEventQuery(e) == cudaErrorCapturedEvent);
          cudaStreamCaptureStatus status;
          CHECK(cudaStreamIsCapturing(other, &status) == cudaSuccess);
          CHECK(status == cudaStreamCaptureStatusActive);
          CHECK(cudaStreamEndCapture(other, &graph) == cudaErrorStreamCaptureUnmatched);
        }) == cudaErrorStreamCaptureUnjoined);
  REQUIRE(cudaEventRecord(outside, other) == cudaSuccess);
  CHECK(capture(s, global, [&] {
          CHECK(cudaStreamWaitEvent(s, outside, 0) == cudaErrorStreamCaptureIsolation);
        }) == cudaErrorStreamCaptureInvalidated);
  // A wait for another stream that is not captured, and what the mode allows, is no misuse.
  CHECK(capture(s, global, [&] { CHECK(cudaStreamSynchronize(other) == cudaSuccess); }) ==
        cudaSuccess);
  CHECK(capture(s, cudaStreamCaptureModeRelaxed, [&] {
          void* x = nullptr;
          CHECK(cudaMalloc(&x, 4) == cudaSuccess);
          CHECK(cudaFree(x) == cudaSuccess);
        }) == cudaSuccess);
}

// --- Memory and limits -------------------------------------------------------------------------

TEST_CASE("device memory") {
  const std::size_t before = emulator::live_allocations().size();
  {
    Device<float> p(100);
    CHECK(std::isnan(p.host()[0]));  // nobody wrote it
    CHECK(reinterpret_cast<std::uintptr_t>(p.p) % 256 == 0);
    CHECK(emulator::live_allocations().size() == before + 1);
    CHECK(emulator::is_live_device_range(p.p, 400));
    CHECK(!emulator::is_live_device_range(p.p, 401));
    CHECK(!emulator::is_live_device_range(&before, 1));
    float h[101];
    CHECK(cudaMemcpy(h, p.p, 404, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
    CHECK(cudaMemcpy(h, p.p, 400, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
    CHECK(cudaMemcpy(p.p, h, 400, cudaMemcpyDeviceToDevice) == cudaErrorInvalidValue);
    CHECK(cudaMemset(h, 0, 4) == cudaErrorInvalidValue);
    CHECK(cudaMemcpy(h, p.p, 400, cudaMemcpyDefault) == cudaSuccess);
    CHECK(cudaGetLastError() == cudaErrorInvalidValue);
    CHECK(cudaGetLastError() == cudaSuccess);
  }
  CHECK(emulator::live_allocations().size() == before);
  void* p = &p;
  CHECK(cudaMalloc(&p, 0) == cudaSuccess);
  CHECK(p == nullptr);
  CHECK(cudaFree(nullptr) == cudaSuccess);
  CHECK(cudaFree(&p) == cudaErrorInvalidValue);
  CHECK(emulator::take_errors().at(0).kind == "invalid-free");

  std::size_t free = 0, total = 0;
  CHECK(cudaMemGetInfo(&free, &total) == cudaSuccess);
  emulator::set_memory_limit(total - free + 1000);
  CHECK(cudaMalloc(&p, 1001) == cudaErrorMemoryAllocation);
  CHECK(cudaMalloc(&p, 1000) == cudaSuccess);
  CHECK(cudaFree(p) == cudaSuccess);
  emulator::set_memory_limit(total);
}

TEST_CASE("memory in stream order, and in a graph") {
  const Stream s;
  const std::size_t before = emulator::live_allocations().size();
  int *p = nullptr, *q = nullptr;
  REQUIRE(cudaMallocAsync(reinterpret_cast<void**>(&p), 4, s) == cudaSuccess);
  REQUIRE(cudaMemsetAsync(p, 1, 4, s) == cudaSuccess);
  int h = 0;
  REQUIRE(cudaMemcpyAsync(&h, p, 4, cudaMemcpyDeviceToHost, s) == cudaSuccess);
  REQUIRE(cudaFreeAsync(p, s) == cudaSuccess);
  REQUIRE(cudaStreamSynchronize(s) == cudaSuccess);
  CHECK(h == 0x01010101);
  CHECK(emulator::live_allocations().size() == before);

  // A copy that was queued after the memory was freed.
  REQUIRE(cudaMallocAsync(reinterpret_cast<void**>(&p), 4, s) == cudaSuccess);
  REQUIRE(cudaFreeAsync(p, s) == cudaSuccess);
  REQUIRE(cudaMemcpyAsync(&h, p, 4, cudaMemcpyDeviceToHost, s) == cudaSuccess);
  CHECK(cudaStreamSynchronize(s) == cudaErrorIllegalAddress);
  CHECK(emulator::take_errors().at(0).kind == "use-after-free");

  REQUIRE(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal) == cudaSuccess);
  REQUIRE(cudaMallocAsync(reinterpret_cast<void**>(&q), 4, s) == cudaSuccess);
  REQUIRE(cudaMemsetAsync(q, 2, 4, s) == cudaSuccess);
  REQUIRE(cudaMemcpyAsync(&h, q, 4, cudaMemcpyDeviceToHost, s) == cudaSuccess);
  REQUIRE(cudaFreeAsync(q, s) == cudaSuccess);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  REQUIRE(cudaStreamEndCapture(s, &graph) == cudaSuccess);
  REQUIRE(cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess);
  for (int i = 0; i < 2; ++i) {
    h = 0;
    REQUIRE(cudaGraphLaunch(exec, s) == cudaSuccess);
    REQUIRE(cudaStreamSynchronize(s) == cudaSuccess);
    CHECK(h == 0x02020202);
  }
  REQUIRE(cudaGraphDestroy(graph) == cudaSuccess);
  REQUIRE(cudaGraphExecDestroy(exec) == cudaSuccess);
  CHECK(emulator::live_allocations().size() == before);
}

TEST_CASE("the device is what its architecture says") {
  const int before = emulator::architecture();
  for (const int architecture : {80, 90}) {
    emulator::set_architecture(architecture);
    cudaDeviceProp properties;
    CHECK(cudaGetDeviceProperties(&properties, 0) == cudaSuccess);
    CHECK(properties.major * 10 + properties.minor == architecture);
    CHECK(properties.sharedMemPerBlockOptin == (architecture == 80 ? 163 : 227) * 1024);
    CHECK(properties.sharedMemPerMultiprocessor == (architecture == 80 ? 164 : 228) * 1024);
    const auto attribute = [](cudaDeviceAttr which) {
      int value = 0;
      CHECK(cudaDeviceGetAttribute(&value, which, 0) == cudaSuccess);
      return static_cast<std::size_t>(value);
    };
    CHECK(attribute(cudaDevAttrComputeCapabilityMajor) * 10 +
              attribute(cudaDevAttrComputeCapabilityMinor) ==
          static_cast<std::size_t>(architecture));
    CHECK(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin) == properties.sharedMemPerBlockOptin);
    CHECK(attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor) ==
          properties.sharedMemPerMultiprocessor);
  }
  emulator::set_architecture(before);
}

TEST_CASE("architecture child" * doctest::skip()) {
  std::printf("the device is sm_%d\n", emulator::architecture());
}

TEST_CASE("the environment says which architecture the device plays") {
  const auto child = [](const char* setting) {
    char self[4096] = {};
    REQUIRE(::readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    const std::string command =
        std::string(setting) + " '" + self + "' --no-skip --test-case='architecture child' 2>&1";
    std::FILE* pipe = ::popen(command.c_str(), "r");
    REQUIRE(pipe != nullptr);
    std::string output;
    char buffer[4096];
    while (const std::size_t n = std::fread(buffer, 1, sizeof buffer, pipe))
      output.append(buffer, n);
    return std::pair(::pclose(pipe), output);
  };
  const std::string name = "PLUMB_EMULATOR_ARCHITECTURE";
  for (const std::string architecture : {"sm_80", "sm_90"}) {
    const auto [status, output] = child((name + "=" + architecture).c_str());
    INFO(output);
    CHECK(status == 0);
    CHECK(output.find("the device is " + architecture + "\n") != std::string::npos);
  }
  CHECK(child(("env -u " + name).c_str()).second.find("sm_80\n") != std::string::npos);
  const auto [status, output] = child((name + "=sm_100").c_str());
  INFO(output);
  CHECK(status != 0);
  CHECK(output.find(name + " is 'sm_100'; expected one of sm_80 sm_90") != std::string::npos);
}

TEST_CASE("launches beyond the limits are refused") {
  Device<float> out(1);
  const auto refused = [&](dim3 grid, dim3 block, std::size_t shared) {
    const cudaError_t e =
        emulator::launch("fill_dynamic", fill_dynamic, grid, block, shared, nullptr, out.p, 1);
    cudaGetLastError();
    return e;
  };
  CHECK(refused(1, 1025, 64) == cudaErrorInvalidConfiguration);
  CHECK(refused(1, dim3(32, 33), 64) == cudaErrorInvalidConfiguration);
  CHECK(refused(1, dim3(1, 1, 65), 64) == cudaErrorInvalidConfiguration);
  CHECK(refused(1, 0, 64) == cudaErrorInvalidConfiguration);
  CHECK(refused(0, 1, 64) == cudaErrorInvalidConfiguration);
  CHECK(refused(dim3(1, 65536), 1, 64) == cudaErrorInvalidConfiguration);
  CHECK(refused(dim3(1, 1, 65536), 1, 64) == cudaErrorInvalidConfiguration);
  CHECK(refused(1, 1, 48 * 1024 + 1) == cudaErrorInvalidValue);
  const auto* kernel = reinterpret_cast<const void*>(fill_dynamic);
  const auto attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
  int most = 0;
  CHECK(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0) == cudaSuccess);
  CHECK(cudaFuncSetAttribute(kernel, attribute, most + 1) == cudaErrorInvalidValue);
  CHECK(cudaFuncSetAttribute(kernel, attribute, 100 * 1024) == cudaSuccess);
  CHECK(refused(1, 1, 100 * 1024 + 1) == cudaErrorInvalidValue);
  PLUMB_LAUNCH(fill_dynamic, 1, 32, 100 * 1024, nullptr, out.p, 25 * 1024);
  CHECK(out.host()[0] == 1.0F);

  // Static shared memory is known from the symbol table.
  cudaFuncAttributes attributes;
  CHECK(cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(transpose<33>)) ==
        cudaSuccess);
  CHECK(attributes.sharedSizeBytes == 32 * 33 * 4);
  int blocks = 0;
  CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
            &blocks, reinterpret_cast<const void*>(transpose<33>), 1024, 0) == cudaSuccess);
  CHECK(blocks == 2);
  CHECK(cudaLaunchKernel(&blocks, 1, 1, nullptr, 0, nullptr) == cudaErrorInvalidDeviceFunction);
  cudaGetLastError();
}

TEST_CASE("a kernel of a table is launched by its handle") {
  static int handle;
  Device<int> out(std::vector<int>{0});
  emulator::Kernel kernel;
  kernel.name = "sum of parameters";
  kernel.function = &handle;
  kernel.parameter_offsets = {0, 8, 12};
  kernel.parameter_sizes = {8, 4, 1};
  kernel.body = [](const void* parameters) {
    const auto* p = static_cast<const char*>(parameters);
    int* target;
    int x;
    std::memcpy(&target, p, sizeof target);
    std::memcpy(&x, p + 8, sizeof x);
    *target = x + p[12];
  };
  emulator::register_kernel(kernel);
  int x = 40;
  signed char y = 2;
  void* arguments[] = {&out.p, &x, &y};
  REQUIRE(cudaLaunchKernel(&handle, 1, 1, arguments, 0, nullptr) == cudaSuccess);
  x = 0;  // copied when it was launched
  CHECK(out.host() == std::vector<int>{42});
}

TEST_CASE("injected errors") {
  void* p = nullptr;
  const std::uint64_t before = emulator::calls("cudaMalloc");
  emulator::inject("cudaMalloc", 1, cudaErrorMemoryAllocation);
  CHECK(cudaMalloc(&p, 4) == cudaSuccess);
  CHECK(cudaFree(p) == cudaSuccess);
  CHECK(cudaMalloc(&p, 4) == cudaErrorMemoryAllocation);
  CHECK(cudaGetLastError() == cudaErrorMemoryAllocation);
  CHECK(cudaMalloc(&p, 4) == cudaSuccess);
  CHECK(cudaFree(p) == cudaSuccess);
  CHECK(emulator::calls("cudaMalloc") == before + 3);
  emulator::inject("*", 0, cudaErrorNoDevice);
  int count = 0;
  CHECK(cudaGetDeviceCount(&count) == cudaErrorNoDevice);
  CHECK(cudaGetDeviceCount(&count) == cudaSuccess);
  CHECK(count == 1);
  emulator::inject("cudaLaunchKernel", 0, cudaErrorLaunchOutOfResources);
  CHECK(emulator::launch("nothing", nothing, 1, 1, 0, nullptr) == cudaErrorLaunchOutOfResources);
  emulator::inject("cudaMalloc", 0, cudaErrorMemoryAllocation);
  emulator::clear_injection();
  CHECK(cudaMalloc(&p, 4) == cudaSuccess);
  CHECK(cudaFree(p) == cudaSuccess);
  cudaGetLastError();
}

TEST_CASE("queued host work may touch device memory, and fail later") {
  Device<int> p(std::vector<int>{1});
  int* address = p.p;
  REQUIRE(emulator::enqueue(nullptr, "library", [address] {
            *address += 41;
            return cudaSuccess;
          }) == cudaSuccess);
  CHECK(p.host() == std::vector<int>{42});
  REQUIRE(emulator::enqueue(nullptr, "library", [] { return cudaErrorIllegalAddress; }) ==
          cudaSuccess);
  CHECK(cudaDeviceSynchronize() == cudaErrorIllegalAddress);
  emulator::take_errors();
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
  CHECK(cudaGetLastError() == cudaErrorIllegalAddress);
}

// --- Counts ------------------------------------------------------------------------------------

TEST_CASE("the tracer counts bytes, sectors and bank conflicts") {
  CHECK(emulator::traced() == (way == "trace"));
  if (way != "trace") return;
  std::vector<float> start(1024, 1.0F);
  Device<float> in(start), out(1024);
  emulator::trace_counts().clear();
  emulator::trace_transactions(true);
  PLUMB_LAUNCH(transpose<32>, 1, dim3(32, 32), 0, nullptr, out.p, in.p);
  PLUMB_LAUNCH(transpose<33>, 1, dim3(32, 32), 0, nullptr, out.p, in.p);
  REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  emulator::trace_transactions(false);
  const auto& conflicting = emulator::trace_counts().at("transpose<32>");
  const auto& padded = emulator::trace_counts().at("transpose<33>");
  for (const auto* c : {&conflicting, &padded}) {
    CHECK(c->launches == 1);
    CHECK(c->global_loads == 1024);
    CHECK(c->global_load_bytes == 4096);
    CHECK(c->global_store_bytes == 4096);
    CHECK(c->shared_load_bytes == 4096);
    CHECK(c->shared_store_bytes == 4096);
    CHECK(c->global_requests == 64);
    CHECK(c->global_sectors == 256);
    CHECK(c->global_ideal == 256);
    CHECK(c->shared_requests == 64);
    CHECK(c->shared_ideal == 64);
  }
  CHECK(conflicting.shared_wavefronts == 32 + 32 * 32);  // a column is one bank
  CHECK(padded.shared_wavefronts == 64);
}

// --- Cost --------------------------------------------------------------------------------------

TEST_CASE("cost of a barrier, a shuffle, a thread") {
  if (way != "fast") return;
  const auto seconds = [](auto f) {  // of this process, the least of five
    double least = INFINITY;
    for (int i = 0; i < 5; ++i) {
      const std::clock_t start = std::clock();
      f();
      CHECK(cudaDeviceSynchronize() == cudaSuccess);
      least = std::min(least, static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
    }
    return least;
  };
  Device<int> out(1024);
  for (const unsigned n : {32U, 256U, 1024U}) {
    const unsigned times = 200000 / n, blocks = 200000 / n;
    const double barrier =
        seconds([&] { PLUMB_LAUNCH(barriers, 1, n, 0, nullptr, static_cast<int>(times)); });
    const double shuffle = seconds(
        [&] { PLUMB_LAUNCH(shuffle_often, 1, n, 0, nullptr, out.p, static_cast<int>(times)); });
    const double empty = seconds([&] { PLUMB_LAUNCH(nothing, blocks, n, 0, nullptr); });
    std::printf(
        "block of %4u: %5.1f ns a barrier and thread, %5.1f ns a shuffle and lane, "
        "%5.1f million empty threads a second\n",
        n, barrier / times / n * 1e9, shuffle / times / n * 1e9, blocks * n / empty / 1e6);
  }
}
