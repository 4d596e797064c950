// The prototypes of the CUDA runtime's functions that the emulator defines. Declared by
// cuda_runtime_api.h beside this; check.cpp declares them once more after the real header, which
// fails to compile where one has changed.
PLUMB_TOOLKIT(cudaMalloc)(void** p, size_t bytes);
PLUMB_TOOLKIT(cudaFree)(void* p);
PLUMB_TOOLKIT(cudaMallocAsync)(void** p, size_t bytes, cudaStream_t stream);
PLUMB_TOOLKIT(cudaFreeAsync)(void* p, cudaStream_t stream);
PLUMB_TOOLKIT(cudaMallocHost)(void** p, size_t bytes);
PLUMB_TOOLKIT(cudaHostAlloc)(void** p, size_t bytes, unsigned flags);
PLUMB_TOOLKIT(cudaFreeHost)(void* p);
PLUMB_TOOLKIT(cudaMemGetInfo)(size_t* free, size_t* total);
PLUMB_TOOLKIT(cudaPointerGetAttributes)(struct cudaPointerAttributes* attributes, const void* p);
PLUMB_TOOLKIT(cudaMemcpy)(void* target, const void* source, size_t bytes, enum cudaMemcpyKind kind);
PLUMB_TOOLKIT(cudaMemcpyAsync)(void* target, const void* source, size_t bytes,
                               enum cudaMemcpyKind kind, cudaStream_t stream);
PLUMB_TOOLKIT(cudaMemset)(void* p, int value, size_t bytes);
PLUMB_TOOLKIT(cudaMemsetAsync)(void* p, int value, size_t bytes, cudaStream_t stream);
PLUMB_TOOLKIT(cudaStreamCreate)(cudaStream_t* stream);
PLUMB_TOOLKIT(cudaStreamCreateWithFlags)(cudaStream_t* stream, unsigned flags);
PLUMB_TOOLKIT(cudaStreamDestroy)(cudaStream_t stream);
PLUMB_TOOLKIT(cudaStreamSynchronize)(cudaStream_t stream);
PLUMB_TOOLKIT(cudaStreamQuery)(cudaStream_t stream);
PLUMB_TOOLKIT(cudaStreamWaitEvent)(cudaStream_t stream, cudaEvent_t event, unsigned flags);
PLUMB_TOOLKIT(cudaEventCreate)(cudaEvent_t* event);
PLUMB_TOOLKIT(cudaEventCreateWithFlags)(cudaEvent_t* event, unsigned flags);
PLUMB_TOOLKIT(cudaEventDestroy)(cudaEvent_t event);
PLUMB_TOOLKIT(cudaEventRecord)(cudaEvent_t event, cudaStream_t stream);
PLUMB_TOOLKIT(cudaEventSynchronize)(cudaEvent_t event);
PLUMB_TOOLKIT(cudaEventQuery)(cudaEvent_t event);
PLUMB_TOOLKIT(cudaEventElapsedTime)(float* ms, cudaEvent_t start, cudaEvent_t end);
PLUMB_TOOLKIT(cudaLaunchHostFunc)(cudaStream_t stream, cudaHostFn_t function, void* data);
PLUMB_TOOLKIT(cudaDeviceSynchronize)(void);
PLUMB_TOOLKIT(cudaStreamBeginCapture)(cudaStream_t stream, enum cudaStreamCaptureMode mode);
PLUMB_TOOLKIT(cudaStreamEndCapture)(cudaStream_t stream, cudaGraph_t* graph);
PLUMB_TOOLKIT(cudaStreamIsCapturing)(cudaStream_t stream, enum cudaStreamCaptureStatus* status);
PLUMB_TOOLKIT(cudaGraphInstantiate)(cudaGraphExec_t* exec, cudaGraph_t graph,
                                    unsigned long long flags);
PLUMB_TOOLKIT(cudaGraphLaunch)(cudaGraphExec_t exec, cudaStream_t stream);
PLUMB_TOOLKIT(cudaGraphDestroy)(cudaGraph_t graph);
PLUMB_TOOLKIT(cudaGraphExecDestroy)(cudaGraphExec_t exec);
PLUMB_TOOLKIT(cudaLaunchKernel)(const void* function, dim3 grid, dim3 block, void** arguments,
                                size_t dynamic_shared, cudaStream_t stream);
PLUMB_TOOLKIT(cudaFuncSetAttribute)(const void* function, enum cudaFuncAttribute attribute,
                                    int value);
PLUMB_TOOLKIT(cudaFuncGetAttributes)(struct cudaFuncAttributes* attributes, const void* function);
PLUMB_TOOLKIT(cudaOccupancyMaxActiveBlocksPerMultiprocessor)(int* blocks, const void* function,
                                                             int threads, size_t dynamic_shared);
PLUMB_TOOLKIT(cudaGetDeviceCount)(int* count);
PLUMB_TOOLKIT(cudaGetDevice)(int* device);
PLUMB_TOOLKIT(cudaSetDevice)(int device);
PLUMB_TOOLKIT(cudaDeviceGetAttribute)(int* value, enum cudaDeviceAttr attribute, int device);
PLUMB_TOOLKIT(cudaGetDeviceProperties)(struct cudaDeviceProp* properties, int device);
PLUMB_TOOLKIT(cudaRuntimeGetVersion)(int* version);
PLUMB_TOOLKIT(cudaDriverGetVersion)(int* version);
PLUMB_TOOLKIT(cudaDeviceGetDefaultMemPool)(cudaMemPool_t* pool, int device);
PLUMB_TOOLKIT(cudaMemPoolSetAttribute)(cudaMemPool_t pool, enum cudaMemPoolAttr attribute,
                                       void* value);
PLUMB_TOOLKIT(cudaMemPoolTrimTo)(cudaMemPool_t pool, size_t bytes_to_keep);
PLUMB_TOOLKIT(cudaGetLastError)(void);
PLUMB_TOOLKIT(cudaPeekAtLastError)(void);
extern const char* CUDARTAPI cudaGetErrorName(cudaError_t error);
extern const char* CUDARTAPI cudaGetErrorString(cudaError_t error);
