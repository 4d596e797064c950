// NVIDIA's occupancy calculator, for the comparison in test_gate.py. Lines of
// `arch threads registers shared threads-of-a-multiprocessor shared-of-a-multiprocessor` in, blocks
// out.
#include <cuda_occupancy.h>

#include <cstdio>

int main() {
  int arch = 0, threads = 0, registers = 0, shared = 0, all_threads = 0, all_shared = 0;
  while (std::scanf("%d %d %d %d %d %d", &arch, &threads, &registers, &shared, &all_threads,
                    &all_shared) == 6) {
    cudaOccDeviceProp device;
    device.computeMajor = arch / 10;
    device.computeMinor = arch % 10;
    device.maxThreadsPerBlock = 1024;
    device.maxThreadsPerMultiprocessor = all_threads;
    device.regsPerBlock = device.regsPerMultiprocessor = 65536;
    device.warpSize = 32;
    device.sharedMemPerBlock = 48 * 1024;
    device.sharedMemPerMultiprocessor = static_cast<size_t>(all_shared);
    device.sharedMemPerBlockOptin = static_cast<size_t>(all_shared - 1024);
    device.reservedSharedMemPerBlock = 1024;
    device.numSms = 1;
    cudaOccFuncAttributes kernel;
    kernel.maxThreadsPerBlock = 1024;
    kernel.numRegs = registers;
    kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
    kernel.maxDynamicSharedSizeBytes = static_cast<size_t>(shared);
    kernel.numBlockBarriers = 1;
    cudaOccDeviceState state;
    state.carveoutConfig = SHAREDMEM_CARVEOUT_MAX_SHARED;
    cudaOccResult result;
    const cudaOccError status = cudaOccMaxActiveBlocksPerMultiprocessor(
        &result, &device, &kernel, &state, threads, static_cast<size_t>(shared));
    if (status != CUDA_OCC_SUCCESS) return 1;
    std::printf("%d\n", result.activeBlocksPerMultiprocessor);
  }
}
