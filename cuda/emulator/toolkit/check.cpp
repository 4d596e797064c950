// Holds the declarations of this directory against the CUDA toolkit's own headers, where there are
// any: a difference does not compile. Nothing here runs.
#include <cuda_runtime_api.h>
#include <vector_functions.h>

#include "enumerators.inl"

#include <type_traits>

#if defined(PLUMB_TOOLKIT)
#error "This must be compiled with the toolkit's headers, not with Plumb's"
#endif

// The functions: a second declaration must agree with the first.
extern "C" {
#define PLUMB_TOOLKIT(name) extern cudaError_t CUDARTAPI name
#include "prototypes.inl"
}

// The enumerators.
#define PLUMB_ENUMERATOR(name, value) static_assert(static_cast<int>(name) == value);
#define PLUMB_ENUMERATION(name) PLUMB_TOOLKIT_##name(PLUMB_ENUMERATOR)
PLUMB_TOOLKIT_ENUMERATIONS(PLUMB_ENUMERATION)

static_assert(cudaStreamNonBlocking == 0x01 && cudaStreamDefault == 0x00);
static_assert(cudaEventBlockingSync == 0x01 && cudaEventDisableTiming == 0x02);

// The structures: members by type, vectors by layout.
#define PLUMB_MEMBER(structure, type, member) \
  static_assert(std::is_same_v<type, decltype(structure::member)>);
PLUMB_MEMBER(cudaPointerAttributes, enum cudaMemoryType, type)
PLUMB_MEMBER(cudaPointerAttributes, int, device)
PLUMB_MEMBER(cudaPointerAttributes, void*, devicePointer)
PLUMB_MEMBER(cudaPointerAttributes, void*, hostPointer)
PLUMB_MEMBER(cudaFuncAttributes, size_t, sharedSizeBytes)
PLUMB_MEMBER(cudaFuncAttributes, size_t, constSizeBytes)
PLUMB_MEMBER(cudaFuncAttributes, size_t, localSizeBytes)
PLUMB_MEMBER(cudaFuncAttributes, int, maxThreadsPerBlock)
PLUMB_MEMBER(cudaFuncAttributes, int, numRegs)
PLUMB_MEMBER(cudaFuncAttributes, int, ptxVersion)
PLUMB_MEMBER(cudaFuncAttributes, int, binaryVersion)
PLUMB_MEMBER(cudaFuncAttributes, int, maxDynamicSharedSizeBytes)
PLUMB_MEMBER(cudaDeviceProp, char[256], name)
PLUMB_MEMBER(cudaDeviceProp, size_t, totalGlobalMem)
PLUMB_MEMBER(cudaDeviceProp, size_t, sharedMemPerBlock)
PLUMB_MEMBER(cudaDeviceProp, size_t, sharedMemPerBlockOptin)
PLUMB_MEMBER(cudaDeviceProp, size_t, sharedMemPerMultiprocessor)
PLUMB_MEMBER(cudaDeviceProp, int, regsPerBlock)
PLUMB_MEMBER(cudaDeviceProp, int, regsPerMultiprocessor)
PLUMB_MEMBER(cudaDeviceProp, int, warpSize)
PLUMB_MEMBER(cudaDeviceProp, int, maxThreadsPerBlock)
PLUMB_MEMBER(cudaDeviceProp, int, maxThreadsPerMultiProcessor)
PLUMB_MEMBER(cudaDeviceProp, int, maxBlocksPerMultiProcessor)
PLUMB_MEMBER(cudaDeviceProp, int, multiProcessorCount)
PLUMB_MEMBER(cudaDeviceProp, int, major)
PLUMB_MEMBER(cudaDeviceProp, int, minor)
PLUMB_MEMBER(cudaDeviceProp, int, l2CacheSize)
PLUMB_MEMBER(cudaDeviceProp, int, memoryBusWidth)

#define PLUMB_VECTOR(type, size, alignment) \
  static_assert(sizeof(type) == size && alignof(type) == alignment);
PLUMB_VECTOR(char4, 4, 4)
PLUMB_VECTOR(uchar4, 4, 4)
PLUMB_VECTOR(short2, 4, 4)
PLUMB_VECTOR(ushort2, 4, 4)
PLUMB_VECTOR(short4, 8, 8)
PLUMB_VECTOR(ushort4, 8, 8)
PLUMB_VECTOR(int2, 8, 8)
PLUMB_VECTOR(int3, 12, 4)
PLUMB_VECTOR(int4, 16, 16)
PLUMB_VECTOR(uint2, 8, 8)
PLUMB_VECTOR(uint3, 12, 4)
PLUMB_VECTOR(uint4, 16, 16)
PLUMB_VECTOR(float2, 8, 8)
PLUMB_VECTOR(float3, 12, 4)
PLUMB_VECTOR(float4, 16, 16)
PLUMB_VECTOR(double2, 16, 16)
PLUMB_VECTOR(longlong2, 16, 16)
PLUMB_VECTOR(ulonglong2, 16, 16)
PLUMB_VECTOR(dim3, 12, 4)
