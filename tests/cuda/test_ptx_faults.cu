// What a GPU would punish, seeded in kernels that run through the translation of nvcc's PTX: each
// fault must be reported by its kind and place, and its correct twin must stay quiet. Only for the
// emulator.
#undef NDEBUG
#include "ptx_support.hpp"

#include <emulator/core.hpp>
#include <emulator/ptx_module.hpp>
#include <emulator/trace.hpp>

#include <algorithm>
#include <cassert>
#include <string>

// What an object's start-up code and launch stubs call.
extern "C" {
void** __cudaRegisterFatBinary(void* wrapper);
void __cudaRegisterFatBinaryEnd(void** handle);
void __cudaRegisterFunction(void** handle, const char* stub, char* function, const char* name, int,
                            uint3*, uint3*, dim3*, dim3*, int*);
void __cudaRegisterVar(void** handle, char*, char*, const char* name, int, std::size_t, int, int);
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* stub);
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                               std::size_t shared, cudaStream_t stream);
}

using plumb::emulator::Error;
using plumb::emulator::take_errors;

namespace {

/// Runs what was launched; the errors that it made.
std::vector<Error> errors_of_launch() {
  static_cast<void>(cudaDeviceSynchronize());
  auto errors = take_errors();
  static_cast<void>(cudaGetLastError());
  return errors;
}
bool has(const std::vector<Error>& errors, const char* kind, const char* text = "") {
  return std::any_of(errors.begin(), errors.end(), [&](const Error& e) {
    return e.kind == kind && e.text.find(text) != std::string::npos;
  });
}

// Each `bad` is a value that the compiler does not know.

__global__ void wide_load(float* out, const float* in, int offset) {
  const float4 v = *reinterpret_cast<const float4*>(in + offset);
  out[0] = v.x + v.y + v.z + v.w;
}
__global__ void wide_shared(float* out, int offset) {
  __shared__ __align__(16) float tile[64];
  tile[threadIdx.x] = 1;
  __syncthreads();
  const float2 v = *reinterpret_cast<float2*>(tile + offset);
  if (threadIdx.x == 0) out[0] = v.x + v.y;
}
__global__ void write_at(float* out, long long offset) { out[offset] = 1; }
__global__ void read_at(float* out, const float* in, long long offset) { out[0] = in[offset]; }
__global__ void shared_at(float* out, int offset) {
  extern __shared__ float room[];
  room[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = room[static_cast<int>(threadIdx.x) + offset];
}
__global__ void local_at(float* out, int offset) {
  float room[8];
  for (int i = 0; i < 8; ++i) room[i] = out[i];
  room[(offset * 3) & 7] += 1;
  out[0] = room[offset];
}
__global__ void generic_at(float* out, int offset) {
  __shared__ float room[32];
  room[threadIdx.x] = 1;
  __syncthreads();
  float* p = offset == 5 ? out : room + offset;
  asm volatile("st.f32 [%0], %1;" ::"l"(p), "f"(2.0f));
}
__global__ void divergent_barrier(float* out, int bad) {
  if (static_cast<int>(threadIdx.x) < 16 || bad == 0) {
    __syncthreads();
    out[threadIdx.x] = 1;
  } else {
    out[threadIdx.x] = 2;
    __syncthreads();
    out[threadIdx.x] = 3;
  }
}
__global__ void early_exit(float* out, int bad) {
  if (bad != 0 && threadIdx.x == 3) return;
  out[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] += 1;
}
__global__ void lonely_shuffle(float* out, int bad) {
  float v = static_cast<float>(threadIdx.x);
  if (bad == 0 || threadIdx.x < 16) v += __shfl_xor_sync(~0u, v, 1);
  out[threadIdx.x] = v;
}
__global__ void copy_without_wait(float* out, const float* in, int bad) {
  __shared__ __align__(16) float tile[32];
  const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(tile + threadIdx.x));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(in + threadIdx.x));
  asm volatile("cp.async.commit_group;");
  if (bad == 0) asm volatile("cp.async.wait_group 0;" ::: "memory");
  __syncthreads();
  out[threadIdx.x] = tile[31 - threadIdx.x];
}
__global__ void assertion(float* out, int bad) {
  assert(bad == 0 || threadIdx.x != 1);
  if (threadIdx.x == 0) out[0] = 1;
}
__global__ void trapped(int bad) {
  if (bad != 0) __trap();
}
__global__ void __launch_bounds__(64) bounded(float* out) { out[threadIdx.x] = 1; }

// What only the tracer sees.
__global__ void reverse(float* out, int bad) {
  __shared__ float room[64];
  room[threadIdx.x] = static_cast<float>(threadIdx.x);
  if (bad == 0) __syncthreads();
  out[threadIdx.x] = room[63 - threadIdx.x];
}
__global__ void reverse_in_warp(float* out, int bad) {
  __shared__ float room[32];
  float v = static_cast<float>(threadIdx.x);
  room[threadIdx.x] = v;
  if (bad == 0)
    __syncwarp();
  else
    v = __shfl_xor_sync(~0u, v, 1);  // a shuffle is no fence
  out[threadIdx.x] = room[31 - threadIdx.x] + v;
}
__global__ void overwrite(float* out, int bad) {
  __shared__ float room[32];
  room[threadIdx.x] = 1;
  __syncthreads();
  const float v = room[threadIdx.x ^ 1];
  if (bad == 0) __syncthreads();
  room[threadIdx.x] = 2;
  out[threadIdx.x] = v;
}
__global__ void copy_wide(float* out, const float* in, int step) {
  __shared__ __align__(16) float tile[160];
  const int i = static_cast<int>(threadIdx.x);
  const float4 v = reinterpret_cast<const float4*>(in)[i];
  if (step == 4) {
    reinterpret_cast<float4*>(tile)[i] = v;
    __syncwarp();
    reinterpret_cast<float4*>(out)[i] = reinterpret_cast<float4*>(tile)[i ^ 1];
  } else {
    tile[4 * i] = v.x;
    out[i] = tile[4 * i];
  }
}
__global__ void blocks_meet(float* out, int bad) {
  out[bad == 0 ? blockIdx.x : 0] = static_cast<float>(blockIdx.x);
}
__global__ void counter_of_blocks(int* out, int bad) {
  if (bad == 0)
    atomicAdd(out, 1);
  else
    *out += 1;
}
__global__ void unwritten_shared(float* out, int bad) {
  __shared__ float room[33];
  room[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = room[threadIdx.x + (bad != 0 ? 1 : 0)];
}
__global__ void copy_too_early(float* out, const float* in,
                               int bad) {  // waits, but meets no barrier
  __shared__ float tile[32];
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(
                   static_cast<unsigned>(__cvta_generic_to_shared(tile + threadIdx.x))),
               "l"(in + threadIdx.x));
  asm volatile("cp.async.wait_all;" ::: "memory");
  if (bad == 0) __syncthreads();
  out[threadIdx.x] = tile[31 - threadIdx.x];
}

}  // namespace

TEST_CASE("misaligned vectors") {
  const Device<float> in(std::vector<float>(16)), out(16);
  wide_load<<<1, 1>>>(out, in, 4);
  CHECK(errors_of_launch().empty());
  wide_load<<<1, 1>>>(out, in, 2);
  CHECK(has(errors_of_launch(), "misaligned", "16 bytes"));
  wide_shared<<<1, 64>>>(out, 2);
  CHECK(errors_of_launch().empty());
  wide_shared<<<1, 64>>>(out, 3);
  CHECK(has(errors_of_launch(), "misaligned", "shared"));
}

TEST_CASE("bounds of global memory") {
  const Device<float> in(std::vector<float>(16)), out(16);
  write_at<<<1, 1>>>(out, 15);
  CHECK(errors_of_launch().empty());
  for (const long long offset : {16LL, -1LL, 1LL << 20, -(1LL << 40)}) {
    write_at<<<1, 1>>>(out, offset);
    const auto errors = errors_of_launch();
    CHECK((has(errors, "out-of-bounds") || has(errors, "host-pointer")));
  }
  read_at<<<1, 1>>>(out, in, 16);
  // The place: PTX line, and the source line that -lineinfo gives.
  CHECK(has(errors_of_launch(), "out-of-bounds", "test_ptx_faults.cu:"));
}

TEST_CASE("host pointers and freed memory") {
  const Device<float> out(4);
  std::vector<float> host(4);
  read_at<<<1, 1>>>(out, host.data(), 0);
  CHECK(has(errors_of_launch(), "host-pointer"));
  float* freed = nullptr;
  REQUIRE(cudaMalloc(&freed, 64) == cudaSuccess);
  cudaMemset(freed, 0, 64);
  read_at<<<1, 1>>>(out, freed, 0);
  CHECK(errors_of_launch().empty());
  cudaFree(freed);
  read_at<<<1, 1>>>(out, freed, 0);
  CHECK(has(errors_of_launch(), "use-after-free"));
}

TEST_CASE("bounds of shared and local memory") {
  const Device<float> out(std::vector<float>(32));
  shared_at<<<1, 32, 128>>>(out, 0);
  CHECK(errors_of_launch().empty());
  shared_at<<<1, 32, 128>>>(out, 1);
  CHECK(has(errors_of_launch(), "out-of-bounds", "shared"));
  local_at<<<1, 1>>>(out, 7);
  CHECK(errors_of_launch().empty());
  local_at<<<1, 1>>>(out, 8);
  CHECK(has(errors_of_launch(), "out-of-bounds", "local"));
  generic_at<<<1, 1>>>(out, 31);
  CHECK(errors_of_launch().empty());
  generic_at<<<1, 1>>>(out, 32);
  CHECK(has(errors_of_launch(), "out-of-bounds", "shared"));
}

TEST_CASE("threads that do not meet") {
  const Device<float> out(32);
  divergent_barrier<<<1, 32>>>(out, 0);
  CHECK(errors_of_launch().empty());
  divergent_barrier<<<1, 32>>>(out, 1);
  CHECK(has(errors_of_launch(), "divergence"));
  early_exit<<<1, 32>>>(out, 0);
  CHECK(errors_of_launch().empty());
  early_exit<<<1, 32>>>(out, 1);
  CHECK(has(errors_of_launch(), "early-exit"));
  lonely_shuffle<<<1, 32>>>(out, 0);
  CHECK(errors_of_launch().empty());
  lonely_shuffle<<<1, 32>>>(out, 1);
  CHECK(!errors_of_launch().empty());
}

TEST_CASE("an asynchronous copy that nobody waits for") {
  const Device<float> in(std::vector<float>(32, 2.0f)), out(32);
  copy_without_wait<<<1, 32>>>(out, in, 0);
  CHECK(errors_of_launch().empty());
  copy_without_wait<<<1, 32>>>(out, in, 1);
  CHECK(has(errors_of_launch(), "cp-async"));
}

TEST_CASE("traps, assertions, launches beyond a kernel's bounds") {
  const Device<float> out(128);
  trapped<<<1, 1>>>(0);
  assertion<<<1, 2>>>(out, 0);
  CHECK(errors_of_launch().empty());
  trapped<<<1, 1>>>(1);
  CHECK(has(errors_of_launch(), "trap"));
  assertion<<<1, 2>>>(out, 1);
  CHECK(has(errors_of_launch(), "assertion", "bad == 0 || threadIdx.x != 1 at "));
  bounded<<<1, 64>>>(out);
  CHECK(cudaGetLastError() == cudaSuccess);
  bounded<<<1, 65>>>(out);
  CHECK(cudaGetLastError() != cudaSuccess);
  CHECK(errors_of_launch().empty());
}

TEST_CASE("races and uninitialised memory") {
  if (!plumb::emulator::traced()) {
    MESSAGE("skipped: this program is linked without the tracer");
    return;
  }
  const Device<float> in(std::vector<float>(64)), out(64);
  const Device<int> counter(std::vector<int>(1));
  for (const int bad : {0, 1}) {
    const auto reported = [&](const char* kind, const char* place) {
      const auto errors = errors_of_launch();
      return bad != 0 ? has(errors, kind, place) : errors.empty();
    };
    reverse<<<1, 64>>>(out, bad);
    CHECK(reported("race", "ld.shared.f32 at test_ptx_faults.cu:"));
    reverse_in_warp<<<1, 32>>>(out, bad);
    CHECK(reported("race", "shared"));
    overwrite<<<1, 32>>>(out, bad);
    CHECK(reported("race", "after a read"));
    blocks_meet<<<2, 1>>>(out, bad);
    CHECK(reported("race", "another block"));
    counter_of_blocks<<<4, 1>>>(counter, bad);
    CHECK(reported("race", "another block"));
    unwritten_shared<<<1, 32>>>(out, bad);
    CHECK(reported("uninitialised", "shared"));
    copy_too_early<<<1, 32>>>(out, in, bad);
    CHECK(reported("race", "shared"));
  }
}

TEST_CASE("bytes, sectors and wavefronts are those of nvcc's accesses") {
  if (!plumb::emulator::traced()) {
    MESSAGE("skipped: this program is linked without the tracer");
    return;
  }
  const Device<float> in(std::vector<float>(128)), out(128);
  static_cast<void>(cudaDeviceSynchronize());
  plumb::emulator::trace_counts().clear();
  plumb::emulator::trace_transactions(true);
  copy_wide<<<1, 32>>>(out, in, 4);
  static_cast<void>(cudaDeviceSynchronize());
  const auto wide = plumb::emulator::trace_counts().begin()->second;
  CHECK(wide.global_loads == 32);
  CHECK(wide.global_load_bytes == 512);
  CHECK(wide.global_requests == 2);
  CHECK(wide.global_sectors == 32);
  CHECK(wide.shared_wavefronts == 8);
  CHECK(wide.shared_ideal == 8);
  plumb::emulator::trace_counts().clear();
  copy_wide<<<1, 32>>>(out, in, 1);  // columns of four: four lanes to a bank
  static_cast<void>(cudaDeviceSynchronize());
  plumb::emulator::trace_transactions(false);
  const auto strided = plumb::emulator::trace_counts().begin()->second;
  CHECK(strided.shared_wavefronts > strided.shared_ideal);
  CHECK(errors_of_launch().empty());
}

TEST_CASE("an object without its translation is refused") {
  // An object of another version of the source: its fatbin differs in one word.
  struct Fatbin {
    std::uint32_t magic;
    std::uint16_t version, header;
    std::uint64_t bytes, content;
  };
  struct Wrapper {
    std::int32_t magic, version;
    const void* data;
    void* unused;
  };
  for (const bool variable : {false, true}) {
    auto* fatbin = new Fatbin{0xBA55ED50, 1, 16, 8, 12345};  // registered for good
    Wrapper wrapper{0x466243b1, 1, fatbin, nullptr};
    void** handle = __cudaRegisterFatBinary(&wrapper);
    static char stubs[2];
    char* stub = &stubs[variable ? 1 : 0];
    char name[] = "_Z7missingv";
    __cudaRegisterFunction(handle, stub, name, name, -1, nullptr, nullptr, nullptr, nullptr,
                           nullptr);
    if (variable) __cudaRegisterVar(handle, nullptr, nullptr, "table_of_device", 0, 4, 0, 0);
    __cudaRegisterFatBinaryEnd(handle);
    cudaKernel_t kernel = nullptr;
    REQUIRE(__cudaGetKernel(&kernel, stub) == cudaSuccess);
    CHECK(__cudaLaunchKernel(kernel, dim3(1), dim3(1), nullptr, 0, nullptr) != cudaSuccess);
    CHECK(has(take_errors(), "no-translation", variable ? "table_of_device" : "_Z7missingv"));
  }
}

TEST_CASE("instructions are counted") {
  const Device<float> in(std::vector<float>(64)), out(64);
  static_cast<void>(cudaDeviceSynchronize());
  plumb::emulator::ptx::reset_instruction_counts();
  wide_load<<<3, 7>>>(out, in, 0);  // racing for out[0]
  static_cast<void>(cudaDeviceSynchronize());
  std::uint64_t wide = 0, adds = 0;
  for (const auto& c : plumb::emulator::ptx::instruction_counts()) {
    if (c.opcode.find(".v4.") != std::string::npos) wide += c.count;
    if (c.opcode.rfind("add", 0) == 0 && c.opcode.find("f32") != std::string::npos) adds += c.count;
  }
  CHECK(wide == 21);
  CHECK(adds == 63);
  take_errors();
}
