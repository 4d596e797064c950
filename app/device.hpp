// The device that a program of the command line runs on. One source, a program a device: `plumb` on
// the CPU, `plumb-cuda` on a GPU, `plumb-emulated` with the CUDA kernels on the host; and of each
// one more, `plumb-bf16` and so on, whose matrix products are in bf16. --device and --precision
// start the right one.
#pragma once

#include <plumb/plumb.hpp>

#if defined(PLUMB_PROGRAM_CUDA) || defined(PLUMB_PROGRAM_EMULATED)
#include <plumb/cuda/kernels.cuh>
#endif

namespace plumb { inline namespace v0_1 {

#if defined(PLUMB_PROGRAM_BF16)
inline constexpr const char* kPrecision = "bf16";
#if defined(PLUMB_PROGRAM_CUDA) || defined(PLUMB_PROGRAM_EMULATED)
using Device = CudaBf16;
#else
using Device = CpuBf16;
#endif
#else
inline constexpr const char* kPrecision = "float";
#if defined(PLUMB_PROGRAM_CUDA) || defined(PLUMB_PROGRAM_EMULATED)
using Device = Cuda;
#else
using Device = Cpu;
#endif
#endif

#if defined(PLUMB_PROGRAM_CUDA)
inline constexpr const char* kDeviceName = "cuda";
#elif defined(PLUMB_PROGRAM_EMULATED)
inline constexpr const char* kDeviceName = "emulated";
#else
inline constexpr const char* kDeviceName = "cpu";
#endif

}}  // namespace plumb::v0_1
