// The CUDA runtime's functions that Plumb calls, with the prototypes of the real header where the
// toolkit is there (a changed one then fails to compile), else those of toolkit/.
//
// The device: compute capability 8.0 or 9.0 with its limits, four multiprocessors. An error of a
// kernel is returned by the next call that waits, and by all calls after it until take_errors().
// Not checked: use of memory of cudaMallocAsync in another stream before the allocation's place in
// its own.
#include <emulator/core_internal.hpp>
#include <emulator/setting.hpp>
#include <emulator/stream.hpp>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <stdexcept>

namespace plumb::emulator {

namespace {

struct Injection {
  std::string api;
  int after = -1;
  cudaError_t error = cudaSuccess;
};

struct Runtime {
  std::map<const void*, Kernel> kernels;
  std::map<const void*, int> dynamic_limits;  // of cudaFuncSetAttribute
  std::map<void*, std::size_t> pinned;
  std::map<std::string, std::uint64_t, std::less<>> calls;
  Injection injection;
  bool sticky = false;  // the device's error was returned once
  int devices = 1;
};
Runtime& runtime() {
  static auto* all = new Runtime;  // outlives the exit handlers
  return *all;
}

thread_local cudaError_t last_error = cudaSuccess;
thread_local int current_device = 0;

cudaError_t fail(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

using Lock = std::lock_guard<std::recursive_mutex>;

/// What a waiting call returns.
cudaError_t waited() {
  runtime().sticky = device_error() != cudaSuccess;
  return fail(device_error());
}
bool broken() { return runtime().sticky && device_error() != cudaSuccess; }

// Counts the call and lets an injected or standing error end it.
#define PLUMB_API(name)                                                                      \
  const Lock lock(runtime_mutex());                                                          \
  if (const cudaError_t error_ = injected(name); error_ != cudaSuccess) return fail(error_); \
  if (broken()) return fail(device_error())

#define PLUMB_STREAM(variable, handle)               \
  CUstream_st* const variable = find_stream(handle); \
  if (variable == nullptr) return fail(cudaErrorInvalidResourceHandle)

#define PLUMB_NOT_IN_CAPTURE() \
  if (const cudaError_t error_ = forbidden_in_capture(); error_ != cudaSuccess) return fail(error_)

// --- Limits ---

constexpr std::size_t shared_default = 48 * 1024;
std::size_t shared_per_multiprocessor() { return (architecture() < 90 ? 164 : 228) * 1024; }
std::size_t shared_opt_in() { return shared_per_multiprocessor() - 1024; }
constexpr std::size_t parameter_limit = 4096;

std::size_t static_shared(const Kernel& kernel) {
  std::size_t bytes = kernel.static_shared;
  for (const SharedVariable& v : shared_variables(kernel.function)) bytes += v.bytes;
  return bytes;
}

std::size_t dynamic_limit(const void* function) {
  const auto it = runtime().dynamic_limits.find(function);
  return it == runtime().dynamic_limits.end() ? 0 : static_cast<std::size_t>(it->second);
}

cudaError_t check_limits(const Kernel& kernel, dim3 g, dim3 b, std::size_t dynamic,
                         std::size_t parameter_bytes) {
  const char* name = kernel.name.c_str();
  const std::uint64_t threads = static_cast<std::uint64_t>(b.x) * b.y * b.z;
  if (threads == 0 || b.x > 1024 || b.y > 1024 || b.z > 64 || threads > 1024) {
    remark("launch of %s refused: a block of %u x %u x %u threads", name, b.x, b.y, b.z);
    return cudaErrorInvalidConfiguration;
  }
  if (g.x == 0 || g.y == 0 || g.z == 0 || g.x > 0x7FFFFFFFU || g.y > 65535 || g.z > 65535) {
    remark("launch of %s refused: a grid of %u x %u x %u blocks", name, g.x, g.y, g.z);
    return cudaErrorInvalidConfiguration;
  }
  if (threads > kernel.max_threads) {
    remark("launch of %s refused: %llu threads a block, its launch bounds say %u", name,
           static_cast<unsigned long long>(threads), kernel.max_threads);
    return cudaErrorInvalidConfiguration;
  }
  const std::size_t fixed = static_shared(kernel);
  if (fixed > shared_default ||
      fixed + dynamic > std::max(shared_default, fixed + dynamic_limit(kernel.function))) {
    remark("launch of %s refused: %zu + %zu bytes of static and dynamic shared memory", name, fixed,
           dynamic);
    return cudaErrorInvalidValue;
  }
  if (parameter_bytes > parameter_limit) {
    remark("launch of %s refused: %zu bytes of parameters", name, parameter_bytes);
    return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}

}  // namespace

// --- Kernels ---

void register_kernel(Kernel kernel) {
  const Lock lock(runtime_mutex());
  const void* function = kernel.function;
  runtime().kernels[function] = std::move(kernel);
}

const Kernel* find_kernel(const void* function) {
  const Lock lock(runtime_mutex());
  const auto it = runtime().kernels.find(function);
  return it == runtime().kernels.end() ? nullptr : &it->second;
}

const Kernel* source_kernel(const void* function, const char* name, void (*body)(const void*)) {
  const Lock lock(runtime_mutex());
  Kernel& kernel = runtime().kernels[function];
  if (kernel.body == nullptr) {
    kernel.name = name;
    kernel.body = body;
    kernel.function = function;
  }
  return &kernel;
}

cudaError_t enqueue_launch(const Kernel* kernel, dim3 grid, dim3 block, std::size_t dynamic_shared,
                           cudaStream_t stream, std::shared_ptr<const void> parameters,
                           std::size_t parameter_bytes) {
  PLUMB_API("cudaLaunchKernel");
  PLUMB_STREAM(s, stream);
  if (const cudaError_t error = check_limits(*kernel, grid, block, dynamic_shared, parameter_bytes);
      error != cudaSuccess)
    return fail(error);
  Operation operation;
  operation.name = kernel->name.c_str();
  operation.work = [=] {
    Launch launch;
    launch.kernel = kernel;
    launch.grid = grid;
    launch.block = block;
    launch.dynamic_shared = dynamic_shared;
    launch.parameters = parameters.get();
    launch.parameter_bytes = parameter_bytes;
    run(launch);
    return cudaSuccess;
  };
  return fail(push(*s, std::move(operation)));
}

cudaError_t enqueue(cudaStream_t stream, const char* name, std::function<cudaError_t()> work) {
  const Lock lock(runtime_mutex());
  if (broken()) return fail(device_error());
  PLUMB_STREAM(s, stream);
  Operation operation;
  operation.name = name;
  operation.work = std::move(work);
  return fail(push(*s, std::move(operation)));
}

void check_launch(cudaError_t error) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string("kernel launch: ") + cudaGetErrorString(error));
}

// --- Queries and injection ---

std::vector<LiveAllocation> live_allocations() {
  const Lock lock(runtime_mutex());
  std::vector<LiveAllocation> live;
  for (const memory::Allocation& a : memory::all())
    if (a.live) live.push_back({a.address, a.bytes, a.serial, false});
  for (const auto& [address, bytes] : runtime().pinned) live.push_back({address, bytes, 0, true});
  return live;
}

void report_leaks() {
  drain_all();
  for (const LiveAllocation& a : live_allocations())
    report("leak", "%zu bytes of %s memory at %p, allocation %llu, were never freed", a.bytes,
           a.on_host ? "pinned host" : "device", a.address,
           static_cast<unsigned long long>(a.serial));
}

void inject(const char* api, int calls, cudaError_t error) {
  const Lock lock(runtime_mutex());
  runtime().injection = {api, calls, error};
}
void set_device_count(int devices) {
  const Lock lock(runtime_mutex());
  runtime().devices = devices;
}
void clear_injection() { inject("", -1, cudaSuccess); }

std::uint64_t calls(const char* api) {
  const Lock lock(runtime_mutex());
  const auto it = runtime().calls.find(api);
  return it == runtime().calls.end() ? 0 : it->second;
}

cudaError_t injected(const char* api) {
  const Lock lock(runtime_mutex());
  ++runtime().calls[api];
  Injection& i = runtime().injection;
  if (i.after < 0 || (i.api != "*" && i.api != api) || i.after-- != 0) return cudaSuccess;
  return i.error;
}

namespace {

// --- Memory ---

cudaError_t allocate(void** p, std::size_t bytes, memory::Allocation** made) {
  *made = nullptr;
  if (p == nullptr) return cudaErrorInvalidValue;
  *p = nullptr;
  if (bytes == 0) return cudaSuccess;
  *made = memory::allocate(bytes);
  if (*made == nullptr) return cudaErrorMemoryAllocation;
  *p = (*made)->address;
  return cudaSuccess;
}

/// The live allocation that starts at p; else null, and why is reported.
memory::Allocation* to_free(void* p, const char* api) {
  memory::Allocation* a = memory::find(p);
  if (a != nullptr && a->live && a->address == p) return a;
  if (a != nullptr && !a->live && a->address == p)
    report("double-free", "%s(%p): freed before", api, p);
  else
    report("invalid-free", "%s(%p): no allocation starts there", api, p);
  return nullptr;
}

/// Memory of a captured allocation: it lives as long as a graph with its node.
struct GraphMemory {
  memory::Allocation* allocation;
  explicit GraphMemory(memory::Allocation* a) : allocation(a) {}
  ~GraphMemory() { memory::release(*allocation); }
  GraphMemory(const GraphMemory&) = delete;
  GraphMemory& operator=(const GraphMemory&) = delete;
};

// --- Copies ---

bool is_pinned(const void* p) {
  auto it = runtime().pinned.upper_bound(const_cast<void*>(p));
  if (it == runtime().pinned.begin()) return false;
  --it;
  return p < static_cast<char*>(it->first) + it->second;
}

cudaError_t check_range(const void* p, std::size_t n, bool on_device, const char* what) {
  if (is_device_address(p) != on_device) {
    remark("copy refused: its %s %p is %s memory, its kind says otherwise", what, p,
           on_device ? "host" : "device");
    return cudaErrorInvalidValue;
  }
  if (!on_device || is_live_device_range(p, n)) return cudaSuccess;
  remark("copy refused: its %s, %zu bytes at %p, is not in one live allocation", what, n, p);
  return cudaErrorInvalidValue;
}

struct Copy {
  void* target;
  const void* source;
  std::size_t bytes;
  bool to_device, from_device;
};

cudaError_t make_copy(Copy& copy, cudaMemcpyKind kind) {
  copy.to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  copy.from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (kind == cudaMemcpyDefault) {
    copy.to_device = is_device_address(copy.target);
    copy.from_device = is_device_address(copy.source);
  } else if (!copy.to_device && !copy.from_device && kind != cudaMemcpyHostToHost) {
    return cudaErrorInvalidMemcpyDirection;
  }
  if (const cudaError_t e = check_range(copy.target, copy.bytes, copy.to_device, "target");
      e != cudaSuccess)
    return e;
  return check_range(copy.source, copy.bytes, copy.from_device, "source");
}

/// The copy when it runs; staged: the source's bytes if they were taken before.
cudaError_t do_copy(const Copy& c, const std::vector<char>* staged) {
  const bool live = (!c.to_device || is_live_device_range(c.target, c.bytes)) &&
                    (!c.from_device || is_live_device_range(c.source, c.bytes));
  if (!live) {
    report("use-after-free", "a queued copy of %zu bytes from %p to %p runs after one was freed",
           c.bytes, c.source, c.target);
    return cudaErrorIllegalAddress;
  }
  std::memmove(c.target, staged != nullptr ? staged->data() : c.source, c.bytes);
  if (c.to_device) note_host_write(c.target, c.bytes);
  return cudaSuccess;
}

Operation copy_operation(const Copy& copy, std::shared_ptr<const std::vector<char>> staged) {
  Operation o;
  o.name = "cudaMemcpy";
  o.work = [copy, staged] { return do_copy(copy, staged.get()); };
  if (!copy.from_device && staged == nullptr)
    o.reads = {static_cast<char*>(const_cast<void*>(copy.source)), copy.bytes};
  if (!copy.to_device) o.writes = {static_cast<char*>(copy.target), copy.bytes};
  return o;
}

cudaError_t fill_later(CUstream_st& stream, void* p, int value, std::size_t n, const char* name,
                       bool initialises) {
  Operation o;
  o.name = name;
  o.work = [=] {
    if (!is_live_device_range(p, n)) {
      report("use-after-free", "a queued %s of %zu bytes at %p runs after it was freed", name, n,
             p);
      return cudaErrorIllegalAddress;
    }
    memory::fill(p, value, n);
    if (initialises) note_host_write(p, n);
    return cudaSuccess;
  };
  return push(stream, std::move(o));
}

}  // namespace
}  // namespace plumb::emulator

using namespace plumb::emulator;

extern "C" {

// --- Device memory -----------------------------------------------------------------------------

cudaError_t CUDARTAPI cudaMalloc(void** p, size_t bytes) {
  PLUMB_API("cudaMalloc");
  PLUMB_NOT_IN_CAPTURE();
  memory::Allocation* a;
  if (const cudaError_t e = allocate(p, bytes, &a); e != cudaSuccess) return fail(e);
  if (a != nullptr && !OnlyEnds::here()) memory::fill(a->address, 0xFF, bytes);
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaFree(void* p) {
  const Lock lock(runtime_mutex());
  if (const cudaError_t e = injected("cudaFree"); e != cudaSuccess) return fail(e);
  if (p == nullptr) return cudaSuccess;
  PLUMB_NOT_IN_CAPTURE();
  drain_all();
  memory::Allocation* a = to_free(p, "cudaFree");
  if (a == nullptr) return fail(cudaErrorInvalidValue);
  memory::release(*a);
  return waited();
}

cudaError_t CUDARTAPI cudaMallocAsync(void** p, size_t bytes, cudaStream_t stream) {
  PLUMB_API("cudaMallocAsync");
  PLUMB_STREAM(s, stream);
  memory::Allocation* a;
  if (const cudaError_t e = allocate(p, bytes, &a); e != cudaSuccess || a == nullptr)
    return fail(e);
  if (s->capture == nullptr)
    return fail(fill_later(*s, a->address, 0xFF, bytes, "cudaMallocAsync", false));
  Operation o;
  o.name = "cudaMallocAsync";
  o.work = [memory = std::make_shared<GraphMemory>(a)] {
    memory::fill(memory->allocation->address, 0xFF, memory->allocation->bytes);
    return cudaSuccess;
  };
  return fail(push(*s, std::move(o)));
}

cudaError_t CUDARTAPI cudaFreeAsync(void* p, cudaStream_t stream) {
  const Lock lock(runtime_mutex());
  if (const cudaError_t e = injected("cudaFreeAsync"); e != cudaSuccess) return fail(e);
  PLUMB_STREAM(s, stream);
  if (p == nullptr) return cudaSuccess;
  if (s->capture != nullptr) {
    const memory::Allocation* a = to_free(p, "cudaFreeAsync");
    if (a == nullptr) return fail(cudaErrorInvalidValue);
    return fail(fill_later(*s, p, 0xFF, a->bytes, "cudaFreeAsync", false));
  }
  Operation o;
  o.name = "cudaFreeAsync";
  o.frees = true;
  o.work = [p] {
    memory::Allocation* a = to_free(p, "cudaFreeAsync");
    if (a != nullptr) memory::release(*a);
    return cudaSuccess;
  };
  return fail(push(*s, std::move(o)));
}

cudaError_t CUDARTAPI cudaMallocHost(void** p, size_t bytes) {
  PLUMB_API("cudaMallocHost");
  PLUMB_NOT_IN_CAPTURE();
  if (p == nullptr) return fail(cudaErrorInvalidValue);
  *p = bytes == 0 ? nullptr : std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (*p == nullptr) return bytes == 0 ? cudaSuccess : fail(cudaErrorMemoryAllocation);
  std::memset(*p, 0xFF, bytes);
  runtime().pinned[*p] = bytes;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaHostAlloc(void** p, size_t bytes, unsigned) {
  return cudaMallocHost(p, bytes);
}

cudaError_t CUDARTAPI cudaFreeHost(void* p) {
  const Lock lock(runtime_mutex());
  if (const cudaError_t e = injected("cudaFreeHost"); e != cudaSuccess) return fail(e);
  if (p == nullptr) return cudaSuccess;
  PLUMB_NOT_IN_CAPTURE();
  drain_all();
  if (runtime().pinned.erase(p) == 0) {
    report("invalid-free", "cudaFreeHost(%p): no such pinned memory", p);
    return fail(cudaErrorInvalidValue);
  }
  std::free(p);
  return waited();
}

cudaError_t CUDARTAPI cudaMemGetInfo(size_t* free, size_t* total) {
  PLUMB_API("cudaMemGetInfo");
  *total = memory::limit();
  *free = memory::limit() - memory::used();
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaPointerGetAttributes(struct cudaPointerAttributes* attributes,
                                               const void* p) {
  PLUMB_API("cudaPointerGetAttributes");
  *attributes = {};
  const bool on_device = is_live_device_range(p, 1), pinned = is_pinned(p);
  attributes->type = on_device ? cudaMemoryTypeDevice
                     : pinned  ? cudaMemoryTypeHost
                               : cudaMemoryTypeUnregistered;
  attributes->devicePointer = on_device ? const_cast<void*>(p) : nullptr;
  attributes->hostPointer = pinned ? const_cast<void*>(p) : nullptr;
  return cudaSuccess;
}

// --- Copies and fills --------------------------------------------------------------------------

cudaError_t CUDARTAPI cudaMemcpy(void* target, const void* source, size_t bytes,
                                 enum cudaMemcpyKind kind) {
  PLUMB_API("cudaMemcpy");
  PLUMB_NOT_IN_CAPTURE();
  if (bytes == 0) return cudaSuccess;
  Copy copy{target, source, bytes, false, false};
  if (const cudaError_t e = make_copy(copy, kind); e != cudaSuccess) return fail(e);
  CUstream_st& legacy = *find_stream(nullptr);
  const bool staged = copy.to_device && !copy.from_device && !is_pinned(source);
  std::shared_ptr<const std::vector<char>> bytes_now;
  if (staged)
    bytes_now = std::make_shared<std::vector<char>>(static_cast<const char*>(source),
                                                    static_cast<const char*>(source) + bytes);
  if (const cudaError_t e = push(legacy, copy_operation(copy, bytes_now)); e != cudaSuccess)
    return fail(e);
  if (staged || (copy.to_device && copy.from_device)) return cudaSuccess;
  if (const cudaError_t e = drain_stream(legacy); e != cudaSuccess) return fail(e);
  return waited();
}

cudaError_t CUDARTAPI cudaMemcpyAsync(void* target, const void* source, size_t bytes,
                                      enum cudaMemcpyKind kind, cudaStream_t stream) {
  PLUMB_API("cudaMemcpyAsync");
  PLUMB_STREAM(s, stream);
  if (bytes == 0) return cudaSuccess;
  Copy copy{target, source, bytes, false, false};
  if (const cudaError_t e = make_copy(copy, kind); e != cudaSuccess) return fail(e);
  return fail(push(*s, copy_operation(copy, nullptr)));
}

cudaError_t CUDARTAPI cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t stream) {
  PLUMB_API("cudaMemsetAsync");
  PLUMB_STREAM(s, stream);
  if (bytes == 0) return cudaSuccess;
  if (const cudaError_t e = check_range(p, bytes, true, "target"); e != cudaSuccess) return fail(e);
  return fail(fill_later(*s, p, value, bytes, "cudaMemset", true));
}

cudaError_t CUDARTAPI cudaMemset(void* p, int value, size_t bytes) {
  PLUMB_API("cudaMemset");
  if (bytes == 0) return cudaSuccess;
  if (const cudaError_t e = check_range(p, bytes, true, "target"); e != cudaSuccess) return fail(e);
  return fail(fill_later(*find_stream(nullptr), p, value, bytes, "cudaMemset", true));
}

// --- Streams and events ------------------------------------------------------------------------

cudaError_t CUDARTAPI cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  PLUMB_API("cudaStreamCreateWithFlags");
  return fail(create_stream(stream, flags != cudaStreamNonBlocking));
}

cudaError_t CUDARTAPI cudaStreamCreate(cudaStream_t* stream) {
  PLUMB_API("cudaStreamCreate");
  return fail(create_stream(stream, true));
}

cudaError_t CUDARTAPI cudaStreamDestroy(cudaStream_t stream) {
  const Lock lock(runtime_mutex());
  if (const cudaError_t e = injected("cudaStreamDestroy"); e != cudaSuccess) return fail(e);
  PLUMB_STREAM(s, stream);
  return fail(destroy_stream(*s));
}

cudaError_t CUDARTAPI cudaStreamSynchronize(cudaStream_t stream) {
  PLUMB_API("cudaStreamSynchronize");
  PLUMB_STREAM(s, stream);
  if (s->capture != nullptr) {
    s->capture->valid = false;
    return fail(cudaErrorStreamCaptureUnsupported);
  }
  if (const cudaError_t e = drain_stream(*s); e != cudaSuccess) return fail(e);
  return waited();
}

cudaError_t CUDARTAPI cudaStreamQuery(cudaStream_t stream) {
  PLUMB_API("cudaStreamQuery");
  PLUMB_STREAM(s, stream);
  if (s->capture != nullptr) {
    s->capture->valid = false;
    return fail(cudaErrorStreamCaptureUnsupported);
  }
  if (idle(*s)) return waited();
  make_progress();
  return cudaErrorNotReady;
}

cudaError_t CUDARTAPI cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  PLUMB_API("cudaStreamWaitEvent");
  PLUMB_STREAM(s, stream);
  if (event == nullptr) return fail(cudaErrorInvalidResourceHandle);
  return fail(wait_event(*s, event->state));
}

cudaError_t CUDARTAPI cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  PLUMB_API("cudaEventCreateWithFlags");
  *event = new CUevent_st{std::make_shared<EventState>()};
  (*event)->state->timed = (flags & cudaEventDisableTiming) == 0;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaEventCreate(cudaEvent_t* event) {
  PLUMB_API("cudaEventCreate");
  *event = new CUevent_st{std::make_shared<EventState>()};
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaEventDestroy(cudaEvent_t event) {
  const Lock lock(runtime_mutex());
  if (const cudaError_t e = injected("cudaEventDestroy"); e != cudaSuccess) return fail(e);
  if (event == nullptr) return fail(cudaErrorInvalidResourceHandle);
  delete event;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  PLUMB_API("cudaEventRecord");
  PLUMB_STREAM(s, stream);
  if (event == nullptr) return fail(cudaErrorInvalidResourceHandle);
  return fail(record_event(event->state, *s));
}

cudaError_t CUDARTAPI cudaEventSynchronize(cudaEvent_t event) {
  PLUMB_API("cudaEventSynchronize");
  if (event == nullptr) return fail(cudaErrorInvalidResourceHandle);
  if (event->state->capture != nullptr) return fail(cudaErrorCapturedEvent);
  PLUMB_NOT_IN_CAPTURE();
  drain_event(*event->state);
  return waited();
}

cudaError_t CUDARTAPI cudaEventQuery(cudaEvent_t event) {
  PLUMB_API("cudaEventQuery");
  if (event == nullptr) return fail(cudaErrorInvalidResourceHandle);
  if (event->state->capture != nullptr) return fail(cudaErrorCapturedEvent);
  if (event->state->completed >= event->state->recorded) return waited();
  make_progress();
  return cudaErrorNotReady;
}

cudaError_t CUDARTAPI cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end) {
  PLUMB_API("cudaEventElapsedTime");
  if (start == nullptr || end == nullptr) return fail(cudaErrorInvalidResourceHandle);
  const EventState &a = *start->state, &b = *end->state;
  if (!a.timed || !b.timed || a.recorded == 0 || b.recorded == 0)
    return fail(cudaErrorInvalidResourceHandle);
  if (a.completed < a.recorded || b.completed < b.recorded) return fail(cudaErrorNotReady);
  *ms = std::chrono::duration<float, std::milli>(b.time - a.time).count();
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  PLUMB_API("cudaLaunchHostFunc");
  PLUMB_STREAM(s, stream);
  Operation o;
  o.name = "cudaLaunchHostFunc";
  o.work = [=] {
    function(data);
    return cudaSuccess;
  };
  return fail(push(*s, std::move(o)));
}

cudaError_t CUDARTAPI cudaDeviceSynchronize(void) {
  PLUMB_API("cudaDeviceSynchronize");
  if (capturing()) return fail(cudaErrorStreamCaptureUnsupported);
  drain_all();
  return waited();
}

// --- Graphs ------------------------------------------------------------------------------------

cudaError_t CUDARTAPI cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
  PLUMB_API("cudaStreamBeginCapture");
  PLUMB_STREAM(s, stream);
  return fail(begin_capture(*s, mode));
}

cudaError_t CUDARTAPI cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  PLUMB_API("cudaStreamEndCapture");
  PLUMB_STREAM(s, stream);
  return fail(end_capture(*s, graph));
}

cudaError_t CUDARTAPI cudaStreamIsCapturing(cudaStream_t stream,
                                            enum cudaStreamCaptureStatus* status) {
  PLUMB_API("cudaStreamIsCapturing");
  PLUMB_STREAM(s, stream);
  *status = s->capture == nullptr ? cudaStreamCaptureStatusNone
            : s->capture->valid   ? cudaStreamCaptureStatusActive
                                  : cudaStreamCaptureStatusInvalidated;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph,
                                           unsigned long long) {
  PLUMB_API("cudaGraphInstantiate");
  if (exec == nullptr || graph == nullptr) return fail(cudaErrorInvalidValue);
  *exec = new CUgraphExec_st{graph->nodes};
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  PLUMB_API("cudaGraphLaunch");
  PLUMB_STREAM(s, stream);
  if (exec == nullptr) return fail(cudaErrorInvalidValue);
  return fail(launch_graph(*exec, *s));
}

cudaError_t CUDARTAPI cudaGraphDestroy(cudaGraph_t graph) {
  const Lock lock(runtime_mutex());
  if (const cudaError_t e = injected("cudaGraphDestroy"); e != cudaSuccess) return fail(e);
  delete graph;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGraphExecDestroy(cudaGraphExec_t exec) {
  const Lock lock(runtime_mutex());
  if (const cudaError_t e = injected("cudaGraphExecDestroy"); e != cudaSuccess) return fail(e);
  delete exec;
  return cudaSuccess;
}

// --- Kernels -----------------------------------------------------------------------------------

cudaError_t CUDARTAPI cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** args,
                                       size_t dynamic_shared, cudaStream_t stream) {
  const Kernel* kernel = find_kernel(function);
  if (kernel == nullptr) return fail(cudaErrorInvalidDeviceFunction);
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < kernel->parameter_sizes.size(); ++i)
    bytes = std::max(bytes, kernel->parameter_offsets[i] + kernel->parameter_sizes[i]);
  auto parameters =
      std::make_shared<std::vector<std::max_align_t>>(bytes / sizeof(std::max_align_t) + 1);
  for (std::size_t i = 0; i < kernel->parameter_sizes.size(); ++i)
    std::memcpy(reinterpret_cast<char*>(parameters->data()) + kernel->parameter_offsets[i], args[i],
                kernel->parameter_sizes[i]);
  return enqueue_launch(kernel, grid, block, dynamic_shared, stream,
                        std::shared_ptr<const void>(parameters, parameters->data()), bytes);
}

cudaError_t CUDARTAPI cudaFuncSetAttribute(const void* function, enum cudaFuncAttribute attribute,
                                           int value) {
  PLUMB_API("cudaFuncSetAttribute");
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  const Kernel* kernel = find_kernel(function);
  Kernel unknown;
  unknown.function = function;
  const std::size_t fixed = static_shared(kernel != nullptr ? *kernel : unknown);
  if (value < 0 || static_cast<std::size_t>(value) + fixed > shared_opt_in())
    return fail(cudaErrorInvalidValue);
  runtime().dynamic_limits[function] = value;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaFuncGetAttributes(struct cudaFuncAttributes* attributes,
                                            const void* function) {
  PLUMB_API("cudaFuncGetAttributes");
  const Kernel* kernel = find_kernel(function);
  Kernel unknown;
  unknown.function = function;
  if (kernel == nullptr) kernel = &unknown;
  *attributes = {};
  attributes->sharedSizeBytes = static_shared(*kernel);
  attributes->maxThreadsPerBlock = static_cast<int>(kernel->max_threads);
  attributes->numRegs = static_cast<int>(kernel->registers);
  attributes->ptxVersion = attributes->binaryVersion = 80;
  attributes->maxDynamicSharedSizeBytes = static_cast<int>(
      std::max(dynamic_limit(function), shared_default - attributes->sharedSizeBytes));
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks,
                                                                    const void* function,
                                                                    int threads,
                                                                    size_t dynamic_shared) {
  PLUMB_API("cudaOccupancyMaxActiveBlocksPerMultiprocessor");
  if (threads <= 0) return fail(cudaErrorInvalidValue);
  cudaFuncAttributes attributes;
  cudaFuncGetAttributes(&attributes, function);
  const std::size_t warps = (static_cast<std::size_t>(threads) + 31) / 32;
  const std::size_t shared = attributes.sharedSizeBytes + dynamic_shared + 1024;
  // Registers are given out 256 at a time to a warp; shared memory with 1 KiB for the system.
  const std::size_t registers =
      (static_cast<std::size_t>(attributes.numRegs) * 32 + 255) / 256 * 256 * warps;
  *blocks = static_cast<int>(std::min(
      {std::size_t{32}, 64 / warps, shared_per_multiprocessor() / shared, 65536 / registers}));
  return cudaSuccess;
}

// --- The device --------------------------------------------------------------------------------

cudaError_t CUDARTAPI cudaGetDeviceCount(int* count) {
  PLUMB_API("cudaGetDeviceCount");
  *count = runtime().devices;
  return cudaSuccess;
}
cudaError_t CUDARTAPI cudaGetDevice(int* device) {
  PLUMB_API("cudaGetDevice");
  *device = current_device;
  return cudaSuccess;
}
cudaError_t CUDARTAPI cudaSetDevice(int device) {
  PLUMB_API("cudaSetDevice");
  if (device < 0 || device >= runtime().devices) return fail(cudaErrorInvalidDevice);
  current_device = device;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaDeviceGetAttribute(int* value, enum cudaDeviceAttr attribute,
                                             int device) {
  PLUMB_API("cudaDeviceGetAttribute");
  if (device < 0 || device >= runtime().devices) return fail(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
    case cudaDevAttrMaxBlockDimX:
    case cudaDevAttrMaxBlockDimY: *value = 1024; break;
    case cudaDevAttrMaxBlockDimZ: *value = 64; break;
    case cudaDevAttrMaxGridDimX: *value = 0x7FFFFFFF; break;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ: *value = 65535; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = shared_default; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = static_cast<int>(shared_opt_in()); break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = static_cast<int>(shared_per_multiprocessor());
      break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMultiProcessorCount: *value = 4; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 2048; break;
    case cudaDevAttrComputeCapabilityMajor: *value = architecture() / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *value = architecture() % 10; break;
    case cudaDevAttrMemoryPoolsSupported: *value = 1; break;
    default: return fail(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGetDeviceProperties(struct cudaDeviceProp* p, int device) {
  PLUMB_API("cudaGetDeviceProperties");
  if (device != 0) return fail(cudaErrorInvalidDevice);
  *p = {};
  std::strcpy(p->name, "Plumb emulator");
  p->totalGlobalMem = memory::limit();
  p->sharedMemPerBlock = shared_default;
  p->sharedMemPerBlockOptin = shared_opt_in();
  p->sharedMemPerMultiprocessor = shared_per_multiprocessor();
  p->regsPerBlock = 65536;
  p->warpSize = 32;
  p->maxThreadsPerBlock = 1024;
  p->maxThreadsPerMultiProcessor = 2048;
  p->multiProcessorCount = 4;
  p->major = architecture() / 10;
  p->minor = architecture() % 10;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t CUDARTAPI cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  PLUMB_API("cudaDeviceGetDefaultMemPool");
  if (device != 0) return fail(cudaErrorInvalidDevice);
  static char the_pool;
  *pool = reinterpret_cast<cudaMemPool_t>(&the_pool);
  return cudaSuccess;
}
cudaError_t CUDARTAPI cudaMemPoolSetAttribute(cudaMemPool_t, enum cudaMemPoolAttr, void*) {
  PLUMB_API("cudaMemPoolSetAttribute");
  return cudaSuccess;
}
cudaError_t CUDARTAPI cudaMemPoolTrimTo(cudaMemPool_t, size_t) {
  PLUMB_API("cudaMemPoolTrimTo");
  return cudaSuccess;
}

// --- Errors ------------------------------------------------------------------------------------

cudaError_t CUDARTAPI cudaGetLastError(void) {
  const Lock lock(runtime_mutex());
  const cudaError_t error = broken() ? device_error() : last_error;
  last_error = cudaSuccess;
  return error;
}
cudaError_t CUDARTAPI cudaPeekAtLastError(void) {
  const Lock lock(runtime_mutex());
  return broken() ? device_error() : last_error;
}

#define PLUMB_ERRORS(X)                                                                           \
  X(cudaSuccess, "no error")                                                                      \
  X(cudaErrorInvalidValue, "invalid argument")                                                    \
  X(cudaErrorMemoryAllocation, "out of memory")                                                   \
  X(cudaErrorInvalidConfiguration, "invalid configuration argument")                              \
  X(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy")                         \
  X(cudaErrorInvalidDeviceFunction, "invalid device function")                                    \
  X(cudaErrorNoDevice, "no CUDA-capable device is detected")                                      \
  X(cudaErrorInvalidDevice, "invalid device ordinal")                                             \
  X(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version")  \
  X(cudaErrorInitializationError, "initialization error")                                         \
  X(cudaErrorInvalidResourceHandle, "invalid resource handle")                                    \
  X(cudaErrorIllegalState, "the operation cannot be performed in the present state")              \
  X(cudaErrorNotReady, "device not ready")                                                        \
  X(cudaErrorIllegalAddress, "an illegal memory access was encountered")                          \
  X(cudaErrorMisalignedAddress, "misaligned address")                                             \
  X(cudaErrorLaunchTimeout, "the launch timed out and was terminated")                            \
  X(cudaErrorLaunchFailure, "unspecified launch failure")                                         \
  X(cudaErrorLaunchOutOfResources, "too many resources requested for launch")                     \
  X(cudaErrorNotSupported, "operation not supported")                                             \
  X(cudaErrorUnknown, "unknown error")                                                            \
  X(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing")        \
  X(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture") \
  X(cudaErrorStreamCaptureUnmatched, "capture was not initiated in this stream")                  \
  X(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work")                         \
  X(cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another stream")   \
  X(cudaErrorStreamCaptureImplicit,                                                               \
    "operation would make the legacy stream depend on a capturing blocking stream")               \
  X(cudaErrorStreamCaptureWrongThread,                                                            \
    "attempt to terminate a thread-local capture sequence from another thread")                   \
  X(cudaErrorCapturedEvent,                                                                       \
    "operation not permitted on an event last recorded in a capturing stream")

const char* CUDARTAPI cudaGetErrorName(cudaError_t error) {
  switch (error) {
#define X(name, text) \
  case name: return #name;
    PLUMB_ERRORS(X)
#undef X
    default: return "unrecognized error code";
  }
}
const char* CUDARTAPI cudaGetErrorString(cudaError_t error) {
  switch (error) {
#define X(name, text) \
  case name: return text;
    PLUMB_ERRORS(X)
#undef X
    default: return "unrecognized error code";
  }
}

}  // extern "C"

namespace {
// Leaks at exit, if the environment asks.
const int leak_check = [] {
  const char* text = setting("PLUMB_EMULATOR_LEAKS", {"0", "1"});
  if (text != nullptr && std::strcmp(text, "1") == 0) std::atexit([] { report_leaks(); });
  return 0;
}();
}  // namespace
