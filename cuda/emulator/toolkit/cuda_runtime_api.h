// Declarations of the part of the CUDA runtime that Plumb uses, so that the emulator builds on a
// machine without the toolkit. Where the toolkit is there, its own headers are used, and check.cpp
// holds these against them. Structures have only the members in use, so objects compiled with this
// header and with the real one do not mix.
#pragma once

#include "enumerators.inl"

#include <stddef.h>

#include <vector_types.h>

#define CUDART_VERSION 13000
#define CUDARTAPI
#define CUDART_CB

#define PLUMB_ENUMERATOR(name, value) name = value,
#define PLUMB_ENUMERATION(name) enum name { PLUMB_TOOLKIT_##name(PLUMB_ENUMERATOR) };
PLUMB_TOOLKIT_ENUMERATIONS(PLUMB_ENUMERATION)
#undef PLUMB_ENUMERATION
#undef PLUMB_ENUMERATOR

typedef enum cudaError cudaError_t;
typedef struct CUstream_st* cudaStream_t;
typedef struct CUevent_st* cudaEvent_t;
typedef struct CUgraph_st* cudaGraph_t;
typedef struct CUgraphExec_st* cudaGraphExec_t;
typedef struct CUmemPoolHandle_st* cudaMemPool_t;
typedef void (*cudaHostFn_t)(void* data);

#define cudaStreamLegacy ((cudaStream_t)0x1)
#define cudaStreamPerThread ((cudaStream_t)0x2)
#define cudaStreamDefault 0x00
#define cudaStreamNonBlocking 0x01
#define cudaEventDefault 0x00
#define cudaEventBlockingSync 0x01
#define cudaEventDisableTiming 0x02
#define cudaHostAllocDefault 0x00

struct cudaPointerAttributes {
  enum cudaMemoryType type;
  int device;
  void* devicePointer;
  void* hostPointer;
};

struct cudaFuncAttributes {
  size_t sharedSizeBytes;
  size_t constSizeBytes;
  size_t localSizeBytes;
  int maxThreadsPerBlock;
  int numRegs;
  int ptxVersion;
  int binaryVersion;
  int maxDynamicSharedSizeBytes;
};

struct cudaDeviceProp {
  char name[256];
  size_t totalGlobalMem;
  size_t sharedMemPerBlock;
  size_t sharedMemPerBlockOptin;
  size_t sharedMemPerMultiprocessor;
  int regsPerBlock;
  int regsPerMultiprocessor;
  int warpSize;
  int maxThreadsPerBlock;
  int maxThreadsPerMultiProcessor;
  int maxBlocksPerMultiProcessor;
  int multiProcessorCount;
  int major;
  int minor;
  int l2CacheSize;
  int memoryBusWidth;
};

extern "C" {
#define PLUMB_TOOLKIT(name) extern cudaError_t CUDARTAPI name
#include "prototypes.inl"
}

// The default arguments that the real header gives in C++.
inline cudaError_t cudaMemcpyAsync(void* target, const void* source, size_t bytes,
                                   enum cudaMemcpyKind kind) {
  return cudaMemcpyAsync(target, source, bytes, kind, nullptr);
}
inline cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes) {
  return cudaMemsetAsync(p, value, bytes, nullptr);
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event) {
  return cudaStreamWaitEvent(stream, event, 0);
}
inline cudaError_t cudaEventRecord(cudaEvent_t event) { return cudaEventRecord(event, nullptr); }
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph) {
  return cudaGraphInstantiate(exec, graph, 0);
}
