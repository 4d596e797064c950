// The emulator itself: what a kernel computes there, and that each fault which a GPU would punish
// is reported (in the builds that can see it), while the same program without the fault is quiet.
// A fault runs in a process of its own: sanitizers end theirs.
#include "faults.cuh"

#include <emulator/trace.hpp>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>

#include <unistd.h>

namespace {

using namespace plumb::kernels;
namespace emulator = plumb::emulator;

const std::string_view way = PLUMB_WAY;

void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

/// n floats on the device, from 0 on by ones.
struct Floats {
  float* p = nullptr;
  std::size_t n;
  explicit Floats(std::size_t size) : n(size) {
    std::vector<float> start(n);
    for (std::size_t i = 0; i < n; ++i) start[i] = static_cast<float>(i);
    check(cudaMalloc(reinterpret_cast<void**>(&p), n * sizeof(float)));
    check(cudaMemcpy(p, start.data(), n * sizeof(float), cudaMemcpyHostToDevice));
  }
  ~Floats() { cudaFree(p); }
  Floats(const Floats&) = delete;
  Floats& operator=(const Floats&) = delete;
  std::vector<float> host() const {
    std::vector<float> h(n);
    check(cudaMemcpy(h.data(), p, n * sizeof(float), cudaMemcpyDeviceToHost));
    return h;
  }
};

// --- Faults ------------------------------------------------------------------------------------

/// A wrong value is how some faults show.
void expect(bool right) {
  if (right) return;
  std::puts("wrong value");
  std::fflush(stdout);
  std::_Exit(3);
}

template <class F>
void each_bug(bool bug, F f) {
  bug ? f(std::true_type{}) : f(std::false_type{});
}

#define FAULT_KERNEL(kernel, threads, ...)                                          \
  [](bool bug) {                                                                    \
    Floats out(256), in(256);                                                       \
    each_bug(bug, [&](auto b) {                                                     \
      PLUMB_LAUNCH((faults::kernel<b.value>), 1, threads, 0, nullptr, __VA_ARGS__); \
    });                                                                             \
    cudaDeviceSynchronize();                                                        \
  }

struct Fault {
  const char* name;
  std::function<void(bool)> run;
  // What the output must contain in each way; null where the fault is not seen.
  const char *fast, *asan, *tsan, *trace;
};

const char* const asan_report = "ERROR: AddressSanitizer";
const char* const ubsan_report = "runtime error";
const char* const tsan_report = "WARNING: ThreadSanitizer: data race";

void missing_stream_synchronisation(bool bug) {
  Floats in(64), out(64);
  cudaStream_t stream;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  check(cudaDeviceSynchronize());
  PLUMB_LAUNCH(faults::copy, 1, 64, 0, stream, out.p, in.p, 64);
  std::vector<float> host(64, 5.0F);
  check(cudaMemcpyAsync(host.data(), out.p, 256, cudaMemcpyDeviceToHost, stream));
  if (!bug) check(cudaStreamSynchronize(stream));
  const bool right = host[63] == 63.0F;
  check(cudaStreamSynchronize(stream));
  check(cudaStreamDestroy(stream));
  expect(right);
}

void missing_event_wait(bool bug) {
  emulator::set_schedule(emulator::Order::forward);  // the laziest; others may happen to be right
  Floats in(64), middle(64), out(64);
  cudaStream_t first, second;
  cudaEvent_t event;
  check(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking));
  check(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  check(cudaMemset(middle.p, 0, 256));
  check(cudaDeviceSynchronize());
  PLUMB_LAUNCH(faults::copy, 1, 64, 0, first, middle.p, in.p, 64);
  check(cudaEventRecord(event, first));
  if (!bug) check(cudaStreamWaitEvent(second, event, 0));
  PLUMB_LAUNCH(faults::copy, 1, 64, 0, second, out.p, middle.p, 64);
  check(cudaStreamSynchronize(second));
  check(cudaStreamSynchronize(first));
  const bool right = out.host()[63] == 63.0F;
  check(cudaEventDestroy(event));
  check(cudaStreamDestroy(first));
  check(cudaStreamDestroy(second));
  expect(right);
}

const std::vector<Fault>& faults_table() {
  static const std::vector<Fault> table = {
      {"static shared memory out of bounds", FAULT_KERNEL(static_out_of_bounds, 64, out.p), nullptr,
       "out of bounds", nullptr, nullptr},
      {"static shared memory out of bounds by a pointer",
       FAULT_KERNEL(static_out_of_bounds_by_pointer, 64, out.p), nullptr, asan_report, nullptr,
       nullptr},
      {"dynamic shared memory read out of bounds",
       [](bool bug) {
         Floats out(64);
         each_bug(bug, [&](auto b) {
           PLUMB_LAUNCH((faults::dynamic_out_of_bounds<b.value>), 1, 64, 256, nullptr, out.p);
         });
         cudaDeviceSynchronize();
       },
       nullptr, asan_report, nullptr, "out-of-bounds"},
      {"dynamic shared memory written out of bounds",
       [](bool bug) {
         Floats out(64);
         each_bug(bug, [&](auto b) {
           PLUMB_LAUNCH((faults::dynamic_write_out_of_bounds<b.value>), 1, 64, 256, nullptr, out.p);
         });
         cudaDeviceSynchronize();
       },
       "out-of-bounds", asan_report, "out-of-bounds", "out-of-bounds"},
      {"global memory written out of bounds",
       [](bool bug) {
         Floats out(100);
         PLUMB_LAUNCH(faults::write_up_to, 2, 64, 0, nullptr, out.p, bug ? 101 : 100);
         cudaDeviceSynchronize();
       },
       "out-of-bounds", asan_report, "out-of-bounds", "out-of-bounds"},
      {"global memory read out of bounds",
       [](bool bug) {
         Floats out(128), in(100);
         PLUMB_LAUNCH(faults::copy, 2, 64, 0, nullptr, out.p, in.p, bug ? 101 : 100);
         cudaDeviceSynchronize();
       },
       nullptr, asan_report, nullptr, "out-of-bounds"},
      {"race in a block", FAULT_KERNEL(race_in_block, 64, out.p), nullptr, nullptr, tsan_report,
       "race"},
      {"race between blocks",
       [](bool bug) {
         int* out = nullptr;
         check(cudaMalloc(reinterpret_cast<void**>(&out), 256));
         check(cudaMemset(out, 0, 256));
         each_bug(bug, [&](auto b) {
           PLUMB_LAUNCH((faults::race_between_blocks<b.value>), 2, 64, 0, nullptr, out);
         });
         cudaFree(out);
       },
       nullptr, nullptr, nullptr, "race"},
      {"missing __syncthreads", FAULT_KERNEL(missing_syncthreads, 64, out.p, in.p), nullptr,
       nullptr, tsan_report, "race"},
      {"missing second __syncthreads", FAULT_KERNEL(missing_second_barrier, 64, out.p, in.p),
       nullptr, nullptr, tsan_report, "race"},
      {"missing __syncwarp", FAULT_KERNEL(missing_syncwarp, 32, out.p, in.p), nullptr, nullptr,
       tsan_report, "race"},
      {"shuffle taken for a fence", FAULT_KERNEL(shuffle_as_fence, 32, out.p, in.p), nullptr,
       nullptr, tsan_report, "race"},
      {"divergent barrier", FAULT_KERNEL(divergent_barrier, 64, out.p), "divergence", "divergence",
       "divergence", "divergence"},
      {"early exit before a barrier", FAULT_KERNEL(early_exit, 64, out.p, 40), "early-exit",
       "early-exit", "early-exit", "early-exit"},
      {"shuffle in a branch: deadlock", FAULT_KERNEL(shuffle_in_branch, 32, out.p), "deadlock",
       "deadlock", "deadlock", "deadlock"},
      {"exited lane in a mask", FAULT_KERNEL(exited_lane, 32, out.p), "exited-lane", "exited-lane",
       "exited-lane", "exited-lane"},
      {"mask without the caller", FAULT_KERNEL(wrong_mask, 32, out.p), "warp-mask", "warp-mask",
       "warp-mask", "warp-mask"},
      {"uninitialised shared memory",
       [](bool bug) {
         Floats out(64);
         each_bug(bug, [&](auto b) {
           PLUMB_LAUNCH((faults::uninitialised_shared<b.value>), 1, 64, 0, nullptr, out.p);
         });
         cudaDeviceSynchronize();
         if (way != "trace") expect(out.host()[63] == 1.0F);
       },
       "wrong value", "wrong value", "wrong value", "uninitialised"},
      {"misaligned load4", FAULT_KERNEL(misaligned_load4, 32, out.p, in.p), "misaligned",
       "misaligned", "misaligned", "misaligned"},
      {"misaligned float2", FAULT_KERNEL(misaligned_vector, 32, out.p, in.p), nullptr, ubsan_report,
       nullptr, nullptr},
      {"missing wait for cp.async",
       [](bool bug) {
         Floats out(256), in(256);
         each_bug(bug, [&](auto b) {
           PLUMB_LAUNCH((faults::missing_copy_wait<b.value>), 1, 32, 0, nullptr, out.p, in.p);
         });
         cudaDeviceSynchronize();
         if (way == "tsan" || way == "trace") return;
         const std::vector<float> h = out.host();
         for (std::size_t i = 0; i < 32; ++i) expect(h[i] == static_cast<float>(127 - i));
       },
       "wrong value", "wrong value", tsan_report, "race"},
      {"cp.async never waited for", FAULT_KERNEL(never_waits, 32, out.p, in.p), "cp-async",
       "cp-async", "cp-async", "cp-async"},
      {"use after free",
       [](bool bug) {
         Floats out(64);
         auto in = std::make_unique<Floats>(64);
         const float* p = in->p;
         if (bug) in.reset();
         PLUMB_LAUNCH(faults::copy, 1, 64, 0, nullptr, out.p, p, 64);
         cudaDeviceSynchronize();
         if (way == "fast" || way == "tsan") expect(out.host()[63] == 63.0F);
       },
       "wrong value", asan_report, "wrong value", "use-after-free"},
      {"double free",
       [](bool bug) {
         float* p = nullptr;
         check(cudaMalloc(reinterpret_cast<void**>(&p), 64));
         cudaFree(p);
         if (bug) cudaFree(p);
       },
       "double-free", "double-free", "double-free", "double-free"},
      {"leak",
       [](bool bug) {
         float* p = nullptr;
         check(cudaMalloc(reinterpret_cast<void**>(&p), 64));
         if (!bug) cudaFree(p);
         emulator::report_leaks();
       },
       "leak", "leak", "leak", "leak"},
      {"host pointer in a kernel",
       [](bool bug) {
         Floats out(64), in(64);
         std::vector<float> host(64, 1.0F);
         PLUMB_LAUNCH(faults::copy, 1, 64, 0, nullptr, out.p, bug ? host.data() : in.p, 64);
         cudaDeviceSynchronize();
       },
       nullptr, nullptr, nullptr, "host-pointer"},
      {"null pointer in a kernel",
       [](bool bug) {
         Floats out(64);
         PLUMB_LAUNCH(faults::write_up_to, 1, 64, 0, nullptr, bug ? nullptr : out.p, 64);
         cudaDeviceSynchronize();
       },
       "illegal-address", "null pointer", "illegal-address", "host-pointer"},
      {"device pointer on the host",
       [](bool bug) {
         Floats out(64);
         const float v = bug ? *static_cast<volatile float*>(out.p) : out.host()[1];
         expect(v == 1.0F);
       },
       "host-access", "host-access", "host-access", "host-access"},
      {"stack overflow", FAULT_KERNEL(deep_stack, 32, out.p), "stack", "stack", "stack", "stack"},
      {"launch beyond the limits",
       [](bool bug) {
         Floats out(2048);
         const auto error = emulator::launch("write_up_to", faults::write_up_to, 1,
                                             bug ? 2048 : 1024, 0, nullptr, out.p, 2048);
         expect(error == cudaSuccess);
       },
       "wrong value", "wrong value", "wrong value", "wrong value"},
      {"missing stream synchronisation", missing_stream_synchronisation, "wrong value",
       "wrong value", "wrong value", "wrong value"},
      {"missing wait for an event", missing_event_wait, "wrong value", "wrong value", "wrong value",
       "wrong value"},
  };
  return table;
}

// --- Running them ------------------------------------------------------------------------------

struct Outcome {
  int status;
  std::string output;
};

Outcome run_fault(const char* name, bool bug) {
  char self[4096] = {};
  REQUIRE(::readlink("/proc/self/exe", self, sizeof self - 1) > 0);
  const std::string command =
      std::string("TSAN_OPTIONS=atexit_sleep_ms=0 PLUMB_EMULATOR_LEAKS=0 PLUMB_FAULT='") + name +
      "' PLUMB_FAULT_BUG=" + (bug ? "1" : "0") + " '" + self +
      "' --no-skip --test-case='fault child' 2>&1";
  std::FILE* pipe = ::popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::string output;
  char buffer[4096];
  while (const std::size_t n = std::fread(buffer, 1, sizeof buffer, pipe)) output.append(buffer, n);
  return {::pclose(pipe), output};
}

}  // namespace

TEST_CASE("fault child" * doctest::skip()) {
  const char* name = std::getenv("PLUMB_FAULT");
  const char* bug = std::getenv("PLUMB_FAULT_BUG");
  REQUIRE(name != nullptr);
  for (const Fault& fault : faults_table())
    if (std::string_view(name) == fault.name) fault.run(bug[0] == '1');
}

TEST_CASE("each fault is reported, its twin is quiet") {
  std::printf("%-40s %s\n", "fault", PLUMB_WAY);
  for (const Fault& fault : faults_table()) {
    INFO(fault.name);
    const char* expected = way == "fast"   ? fault.fast
                           : way == "asan" ? fault.asan
                           : way == "tsan" ? fault.tsan
                                           : fault.trace;
    const Outcome with = run_fault(fault.name, true);
    const bool reported = with.status != 0;
    std::printf("%-40s %s\n", fault.name, reported ? "reported" : "not seen");
    if (expected != nullptr) {
      INFO(with.output);
      CHECK(with.status != 0);
      CHECK(with.output.find(expected) != std::string::npos);
    }
    const Outcome without = run_fault(fault.name, false);
    INFO(without.output);
    CHECK(without.status == 0);
    CHECK(without.output.find("plumb emulator: ") == std::string::npos);
    CHECK(without.output.find("Sanitizer") == std::string::npos);
  }
}
