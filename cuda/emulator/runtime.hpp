// What the emulated CUDA runtime offers beyond cuda_runtime_api.h: registering kernels, queueing
// other work, asking about device memory, and making calls fail on purpose. All but the queries
// that say so are safe to call from several host threads.
//
// Work is queued per stream and runs late: when something waits for it. `forward` order runs only
// what is waited for, `reverse` everything that can run, the other streams first, `random` a mix;
// each is an execution that CUDA allows, so a missing synchronisation shows as a wrong or stale
// value. What CUDA says about copies (its "API synchronization behavior") and what happens here:
//
//   asynchronous copy from or to pageable memory   "might be synchronous": it never is; the source
//                                                  is read, and the target written, when it runs
//   asynchronous copy or memset                    the host target holds NaN bytes until it runs
//   cudaMemcpy from pageable memory                returns when the source was staged: the copy to
//                                                  the device runs later, in the default stream
//   cudaMemcpy to the host, cudaFree               waits for the default stream, or everything
//   cudaMemset                                     runs later, in the default stream
#pragma once

#include <emulator/core.hpp>

#include <functional>
#include <memory>

namespace plumb::emulator {

// --- Kernels -----------------------------------------------------------------------------------

/// Makes the kernel known to cudaLaunchKernel under its handle `kernel.function`.
void register_kernel(Kernel kernel);
/// The registered kernel, or null.
const Kernel* find_kernel(const void* function);
/// The entry for a kernel compiled from source, made at its first launch.
const Kernel* source_kernel(const void* function, const char* name, void (*body)(const void*));

/// Checks the device's limits (error returned at once) and queues the launch; `parameters` is kept
/// until it has run.
cudaError_t enqueue_launch(const Kernel* kernel, dim3 grid, dim3 block, std::size_t dynamic_shared,
                           cudaStream_t stream, std::shared_ptr<const void> parameters,
                           std::size_t parameter_bytes);
/// Queues host code that stands in for device work (a library call); it may touch device memory,
/// and returns an error to be reported at the next synchronisation.
cudaError_t enqueue(cudaStream_t stream, const char* name, std::function<cudaError_t()> work);
/// Throws std::runtime_error on an error.
void check_launch(cudaError_t error);

// --- Device memory -----------------------------------------------------------------------------

/// In one live allocation of cudaMalloc or cudaMallocAsync. Cheap: two loads. Not locked.
bool is_live_device_range(const void* p, std::size_t bytes) noexcept;
/// In the address range of device memory, live or not. Not locked.
bool is_device_address(const void* p) noexcept;
/// For stand-ins that write device memory from host code: these bytes are initialised.
void note_host_write(const void* p, std::size_t bytes);

struct LiveAllocation {
  const void* address;
  std::size_t bytes;
  std::uint64_t serial;  ///< counts the allocations of the process
  bool on_host;          ///< of cudaMallocHost
};
std::vector<LiveAllocation> live_allocations();
/// Reports each live allocation as an error of the kind `leak`. With the environment's
/// PLUMB_EMULATOR_LEAKS=1 this happens at exit.
void report_leaks();
/// Device memory in all; 4 GiB, or the environment's PLUMB_EMULATOR_MEMORY in MiB.
void set_memory_limit(std::size_t bytes);
/// Devices that a thread may choose among. What they do is done on one: to see who keeps apart what
/// is on another.
void set_device_count(int devices);

// --- Fault injection ---------------------------------------------------------------------------

/// The call of `api` ("cudaMalloc") after the next `calls` ones fails with `error`, once; "*" means
/// any call. A launch from source is "cudaLaunchKernel".
void inject(const char* api, int calls, cudaError_t error);
/// Takes back what inject() asked for and has not happened.
void clear_injection();
/// How often `api` was called.
std::uint64_t calls(const char* api);
/// For other libraries' stand-ins: counts the call, and returns the error to fail with, if any.
cudaError_t injected(const char* api);

/// Runs until nothing is queued.
void drain_all();

}  // namespace plumb::emulator
