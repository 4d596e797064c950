// The device that a program of the command line runs on. One source, a program a device: `plumb` on
// the CPU, `plumb-cuda` on a GPU, `plumb-emulated` with the CUDA kernels on the host; --device
// starts the right one.
#pragma once

#include <plumb/plumb.hpp>

#if defined(PLUMB_PROGRAM_CUDA) || defined(PLUMB_PROGRAM_EMULATED)
#include <plumb/cuda/kernels.cuh>
#endif

namespace plumb { inline namespace v0_1 {

#if defined(PLUMB_PROGRAM_CUDA)
using Device = Cuda;
inline constexpr const char* kDeviceName = "cuda";
#elif defined(PLUMB_PROGRAM_EMULATED)
using Device = Cuda;
inline constexpr const char* kDeviceName = "emulated";
#else
using Device = Cpu;
inline constexpr const char* kDeviceName = "cpu";
#endif

}}  // namespace plumb::v0_1
