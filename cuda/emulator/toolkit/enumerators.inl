// The enumerators of the CUDA runtime that Plumb uses, a list for each enumeration.
// Declared by cuda_runtime_api.h beside this, held against the real ones by check.cpp.
#pragma once

#define PLUMB_TOOLKIT_cudaError(X)          \
  X(cudaSuccess, 0)                         \
  X(cudaErrorInvalidValue, 1)               \
  X(cudaErrorMemoryAllocation, 2)           \
  X(cudaErrorInitializationError, 3)        \
  X(cudaErrorInvalidConfiguration, 9)       \
  X(cudaErrorInvalidMemcpyDirection, 21)    \
  X(cudaErrorInsufficientDriver, 35)        \
  X(cudaErrorInvalidDeviceFunction, 98)     \
  X(cudaErrorNoDevice, 100)                 \
  X(cudaErrorInvalidDevice, 101)            \
  X(cudaErrorNoKernelImageForDevice, 209)   \
  X(cudaErrorInvalidResourceHandle, 400)    \
  X(cudaErrorIllegalState, 401)             \
  X(cudaErrorNotReady, 600)                 \
  X(cudaErrorIllegalAddress, 700)           \
  X(cudaErrorLaunchOutOfResources, 701)     \
  X(cudaErrorLaunchTimeout, 702)            \
  X(cudaErrorMisalignedAddress, 716)        \
  X(cudaErrorLaunchFailure, 719)            \
  X(cudaErrorNotPermitted, 800)             \
  X(cudaErrorNotSupported, 801)             \
  X(cudaErrorStreamCaptureUnsupported, 900) \
  X(cudaErrorStreamCaptureInvalidated, 901) \
  X(cudaErrorStreamCaptureMerge, 902)       \
  X(cudaErrorStreamCaptureUnmatched, 903)   \
  X(cudaErrorStreamCaptureUnjoined, 904)    \
  X(cudaErrorStreamCaptureIsolation, 905)   \
  X(cudaErrorStreamCaptureImplicit, 906)    \
  X(cudaErrorCapturedEvent, 907)            \
  X(cudaErrorStreamCaptureWrongThread, 908) \
  X(cudaErrorUnknown, 999)

#define PLUMB_TOOLKIT_cudaMemcpyKind(X) \
  X(cudaMemcpyHostToHost, 0)            \
  X(cudaMemcpyHostToDevice, 1)          \
  X(cudaMemcpyDeviceToHost, 2)          \
  X(cudaMemcpyDeviceToDevice, 3)        \
  X(cudaMemcpyDefault, 4)

#define PLUMB_TOOLKIT_cudaMemoryType(X) \
  X(cudaMemoryTypeUnregistered, 0)      \
  X(cudaMemoryTypeHost, 1)              \
  X(cudaMemoryTypeDevice, 2)            \
  X(cudaMemoryTypeManaged, 3)

#define PLUMB_TOOLKIT_cudaStreamCaptureStatus(X) \
  X(cudaStreamCaptureStatusNone, 0)              \
  X(cudaStreamCaptureStatusActive, 1)            \
  X(cudaStreamCaptureStatusInvalidated, 2)

#define PLUMB_TOOLKIT_cudaStreamCaptureMode(X) \
  X(cudaStreamCaptureModeGlobal, 0)            \
  X(cudaStreamCaptureModeThreadLocal, 1)       \
  X(cudaStreamCaptureModeRelaxed, 2)

#define PLUMB_TOOLKIT_cudaFuncAttribute(X)             \
  X(cudaFuncAttributeMaxDynamicSharedMemorySize, 8)    \
  X(cudaFuncAttributePreferredSharedMemoryCarveout, 9)

#define PLUMB_TOOLKIT_cudaMemPoolAttr(X)  \
  X(cudaMemPoolAttrReleaseThreshold, 4)   \
  X(cudaMemPoolAttrReservedMemCurrent, 5) \
  X(cudaMemPoolAttrUsedMemCurrent, 7)

#define PLUMB_TOOLKIT_cudaDeviceAttr(X)              \
  X(cudaDevAttrMaxThreadsPerBlock, 1)                \
  X(cudaDevAttrMaxBlockDimX, 2)                      \
  X(cudaDevAttrMaxBlockDimY, 3)                      \
  X(cudaDevAttrMaxBlockDimZ, 4)                      \
  X(cudaDevAttrMaxGridDimX, 5)                       \
  X(cudaDevAttrMaxGridDimY, 6)                       \
  X(cudaDevAttrMaxGridDimZ, 7)                       \
  X(cudaDevAttrMaxSharedMemoryPerBlock, 8)           \
  X(cudaDevAttrWarpSize, 10)                         \
  X(cudaDevAttrClockRate, 13)                        \
  X(cudaDevAttrMultiProcessorCount, 16)              \
  X(cudaDevAttrMemoryClockRate, 36)                  \
  X(cudaDevAttrGlobalMemoryBusWidth, 37)             \
  X(cudaDevAttrL2CacheSize, 38)                      \
  X(cudaDevAttrMaxThreadsPerMultiProcessor, 39)      \
  X(cudaDevAttrComputeCapabilityMajor, 75)           \
  X(cudaDevAttrComputeCapabilityMinor, 76)           \
  X(cudaDevAttrMaxSharedMemoryPerMultiprocessor, 81) \
  X(cudaDevAttrMaxSharedMemoryPerBlockOptin, 97)     \
  X(cudaDevAttrMemoryPoolsSupported, 115)

#define PLUMB_TOOLKIT_ENUMERATIONS(X) \
  X(cudaError) X(cudaMemcpyKind) X(cudaMemoryType) X(cudaStreamCaptureStatus) \
  X(cudaStreamCaptureMode) X(cudaFuncAttribute) X(cudaMemPoolAttr) X(cudaDeviceAttr)
