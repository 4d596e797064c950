// Streams as queues: which queued operation may run next, which one does, events, and the capture
// of graphs. The rules are those of the CUDA programming guide for streams, the legacy default
// stream and "Creating a Graph Using Stream Capture".
#include <emulator/core_internal.hpp>
#include <emulator/stream.hpp>

#include <algorithm>
#include <cstring>
#include <list>
#include <utility>

namespace plumb::emulator {

namespace {

struct Streams {
  CUstream_st legacy, per_thread;
  std::list<CUstream_st> made;
  std::uint64_t sequence = 0;
  cudaError_t error = cudaSuccess;
  std::vector<std::weak_ptr<Capture>> captures;

  template <class F>
  void each(F f) {
    f(legacy);
    f(per_thread);
    for (CUstream_st& s : made) f(s);
  }
};
Streams& streams() {
  static auto* all = new Streams;  // outlives the exit handlers
  return *all;
}

/// The stream whose front operation has to run before that of `s` can; `s` itself if none.
CUstream_st& first_needed(CUstream_st& s) {
  const Operation& front = s.queue.front();
  if (front.waits != nullptr && front.waits->completed < front.generation)
    return first_needed(*front.recorder);
  if (&s == &streams().legacy) {
    CUstream_st* other = nullptr;
    streams().each([&](CUstream_st& o) {
      if (&o != &s && o.blocking && !o.queue.empty() && o.queue.front().sequence < front.sequence &&
          other == nullptr)
        other = &o;
    });
    if (other != nullptr) return first_needed(*other);
  } else if (s.blocking && !streams().legacy.queue.empty() &&
             streams().legacy.queue.front().sequence < front.sequence) {
    return first_needed(streams().legacy);
  }
  return s;
}

void run_front(CUstream_st& s) {
  Operation operation = std::move(s.queue.front());
  s.queue.pop_front();
  if (operation.work && (streams().error == cudaSuccess || operation.frees)) {
    const cudaError_t error = operation.work();
    if (error != cudaSuccess) set_device_error(error);
  }
  if (operation.records != nullptr) {
    operation.records->completed = std::max(operation.records->completed, operation.generation);
    operation.records->time = std::chrono::steady_clock::now();
  }
  if (s.destroyed && s.queue.empty())
    streams().made.remove_if([&](const CUstream_st& x) { return &x == &s; });
}

/// Some stream's operation that may run now, of the wanted stream's if it is last in line.
CUstream_st* pick(CUstream_st* wanted) {
  std::vector<CUstream_st*> can_run;
  CUstream_st* oldest = nullptr;
  streams().each([&](CUstream_st& s) {
    if (s.queue.empty()) return;
    if (&first_needed(s) == &s) can_run.push_back(&s);
    if (oldest == nullptr || s.queue.front().sequence < oldest->queue.front().sequence) oldest = &s;
  });
  if (oldest == nullptr) return nullptr;
  CUstream_st* needed =
      &first_needed(wanted != nullptr && !wanted->queue.empty() ? *wanted : *oldest);
  const Order order = schedule_order();
  if (order == Order::forward || can_run.empty()) return needed;
  if (order == Order::reverse) return can_run.back() != needed ? can_run.back() : can_run.front();
  return schedule_draw(2) == 0 ? needed : can_run[schedule_draw(can_run.size())];
}

template <class Done>
void drain(CUstream_st* wanted, Done done) {
  if (done()) return;
  const memory::Access access;
  while (!done()) {
    CUstream_st* s = pick(wanted);
    if (s == nullptr) break;
    run_front(*s);
  }
}

/// Until it runs, the host sees garbage where a queued operation will write, unless one that is
/// queued before it still has to read there.
void poison_target(const Operation& operation) {
  if (operation.writes.bytes == 0) return;
  bool read_later = false;
  streams().each([&](const CUstream_st& s) {
    for (const Operation& o : s.queue) read_later |= o.reads.overlaps(operation.writes);
  });
  if (!read_later) std::memset(operation.writes.begin, 0xFF, operation.writes.bytes);
}

void append(CUstream_st& stream, Operation operation) {
  poison_target(operation);
  operation.sequence = ++streams().sequence;
  stream.queue.push_back(std::move(operation));
}

bool forbids_waiting(const Capture& c) {
  return c.active &&
         (c.mode == cudaStreamCaptureModeGlobal ||
          (c.mode == cudaStreamCaptureModeThreadLocal && c.thread == std::this_thread::get_id()));
}

template <class F>
bool any_capture(F matches) {
  auto& list = streams().captures;
  std::erase_if(list, [](const auto& c) { return c.expired(); });
  bool found = false;
  for (const auto& weak : list)
    if (const auto capture = weak.lock(); capture->active && matches(*capture)) {
      capture->valid = false;
      found = true;
    }
  return found;
}

}  // namespace

std::recursive_mutex& runtime_mutex() {
  static auto* mutex = new std::recursive_mutex;
  return *mutex;
}

void set_device_error(cudaError_t error) {
  if (streams().error == cudaSuccess) streams().error = error;
}
cudaError_t device_error() { return streams().error; }

CUstream_st* find_stream(cudaStream_t handle) {
  if (handle == nullptr || handle == cudaStreamLegacy) return &streams().legacy;
  if (handle == cudaStreamPerThread) return &streams().per_thread;
  for (CUstream_st& s : streams().made)
    if (&s == handle && !s.destroyed) return &s;
  return nullptr;
}

cudaError_t push(CUstream_st& stream, Operation operation) {
  if (&stream == &streams().legacy &&
      any_capture([](const Capture& c) { return c.origin->blocking; }))
    return cudaErrorStreamCaptureImplicit;
  if (stream.capture == nullptr) {
    append(stream, std::move(operation));
    return cudaSuccess;
  }
  if (!stream.capture->valid) return cudaErrorStreamCaptureInvalidated;
  stream.capture->nodes.push_back({std::move(operation), stream.frontier});
  stream.frontier = {stream.capture->nodes.size() - 1};
  return cudaSuccess;
}

cudaError_t drain_stream(CUstream_st& stream) {
  if (&stream == &streams().legacy)  // what is in it waits for the blocking streams
    if (const cudaError_t error = push(stream, {}); error != cudaSuccess) return error;
  drain(&stream, [&] { return stream.queue.empty(); });
  return cudaSuccess;
}
void drain_event(const EventState& event) {
  const std::uint64_t generation = event.recorded;
  drain(event.stream, [&] { return event.completed >= generation; });
}
void drain_all() {
  const std::lock_guard lock(runtime_mutex());
  drain(nullptr, [] { return false; });
}
bool idle(const CUstream_st& stream) { return stream.queue.empty(); }
void make_progress() {
  bool once = false;
  drain(nullptr, [&] { return std::exchange(once, true); });
}

void heal_device() {
  const std::lock_guard lock(runtime_mutex());
  streams().error = cudaSuccess;
}

bool capturing() {
  return any_capture([](const Capture&) { return true; });
}

cudaError_t forbidden_in_capture() {
  return any_capture(forbids_waiting) ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}

namespace {

/// Whether every node of `inner` comes before, or is, one of `outer`.
bool joined(const Capture& capture, const std::vector<std::size_t>& inner,
            std::vector<std::size_t> outer) {
  std::vector<bool> before(capture.nodes.size());
  while (!outer.empty()) {
    const std::size_t n = outer.back();
    outer.pop_back();
    if (before[n]) continue;
    before[n] = true;
    outer.insert(outer.end(), capture.nodes[n].after.begin(), capture.nodes[n].after.end());
  }
  return std::all_of(inner.begin(), inner.end(), [&](std::size_t n) { return before[n]; });
}

cudaError_t wait_in_capture(CUstream_st& stream, const EventState& event) {
  const bool captured = event.capture != nullptr && event.capture->active;
  if (stream.capture == nullptr && captured) {
    stream.capture = event.capture;  // the stream joins the capture
    stream.frontier = event.nodes;
    return cudaSuccess;
  }
  if (!captured || event.capture != stream.capture) {
    stream.capture->valid = false;
    return cudaErrorStreamCaptureIsolation;
  }
  for (const std::size_t n : event.nodes)
    if (std::find(stream.frontier.begin(), stream.frontier.end(), n) == stream.frontier.end())
      stream.frontier.push_back(n);
  return cudaSuccess;
}

}  // namespace

cudaError_t create_stream(cudaStream_t* result, bool blocking) {
  streams().made.emplace_back();
  streams().made.back().blocking = blocking;
  *result = &streams().made.back();
  return cudaSuccess;
}

cudaError_t destroy_stream(CUstream_st& stream) {
  if (&stream == &streams().legacy || &stream == &streams().per_thread)
    return cudaErrorInvalidResourceHandle;
  stream.destroyed = true;
  if (stream.queue.empty())
    streams().made.remove_if([&](const CUstream_st& x) { return &x == &stream; });
  return cudaSuccess;
}

cudaError_t record_event(const std::shared_ptr<EventState>& shared, CUstream_st& stream) {
  EventState& event = *shared;
  if (stream.capture != nullptr) {
    event.capture = stream.capture;
    event.nodes = stream.frontier;
    return cudaSuccess;
  }
  Operation operation;
  operation.name = "cudaEventRecord";
  operation.records = shared;
  operation.generation = event.recorded + 1;
  const cudaError_t error = push(stream, std::move(operation));
  if (error != cudaSuccess) return error;
  event.capture = nullptr;
  event.stream = &stream;
  ++event.recorded;
  return cudaSuccess;
}

cudaError_t wait_event(CUstream_st& stream, const std::shared_ptr<EventState>& event) {
  if (stream.capture != nullptr || (event->capture != nullptr && event->capture->active))
    return wait_in_capture(stream, *event);
  Operation operation;
  operation.name = "cudaStreamWaitEvent";
  operation.waits = event;
  operation.recorder = event->stream;
  operation.generation = event->recorded;
  return push(stream, std::move(operation));
}

cudaError_t begin_capture(CUstream_st& stream, cudaStreamCaptureMode mode) {
  if (&stream == &streams().legacy) return cudaErrorStreamCaptureUnsupported;
  if (stream.capture != nullptr) return cudaErrorIllegalState;
  stream.capture = std::make_shared<Capture>();
  stream.capture->origin = &stream;
  stream.capture->mode = mode;
  stream.capture->thread = std::this_thread::get_id();
  stream.frontier.clear();
  streams().captures.push_back(stream.capture);
  return cudaSuccess;
}

cudaError_t end_capture(CUstream_st& stream, cudaGraph_t* graph) {
  *graph = nullptr;
  const std::shared_ptr<Capture> capture = stream.capture;
  if (capture == nullptr) return cudaErrorIllegalState;
  if (capture->origin != &stream) return cudaErrorStreamCaptureUnmatched;
  if (capture->mode != cudaStreamCaptureModeRelaxed &&
      capture->thread != std::this_thread::get_id())
    return cudaErrorStreamCaptureWrongThread;
  bool all_joined = true;
  streams().each([&](CUstream_st& s) {
    if (s.capture != capture) return;
    all_joined = all_joined && joined(*capture, s.frontier, stream.frontier);
    s.capture = nullptr;
  });
  capture->active = false;
  if (!capture->valid) return cudaErrorStreamCaptureInvalidated;
  if (!all_joined) return cudaErrorStreamCaptureUnjoined;
  *graph = new CUgraph_st{std::move(capture->nodes)};
  return cudaSuccess;
}

cudaError_t launch_graph(const CUgraphExec_st& exec, CUstream_st& stream) {
  if (stream.capture != nullptr) return cudaErrorStreamCaptureUnsupported;
  // One queue has one order: any that the dependencies allow.
  std::vector<std::size_t> waiting(exec.nodes.size());
  for (std::size_t i = 0; i < waiting.size(); ++i) waiting[i] = i;
  std::vector<bool> queued(exec.nodes.size());
  while (!waiting.empty()) {
    std::vector<std::size_t> can_go;
    for (std::size_t w = 0; w < waiting.size(); ++w) {
      const auto& after = exec.nodes[waiting[w]].after;
      if (std::all_of(after.begin(), after.end(), [&](std::size_t n) { return queued[n]; }))
        can_go.push_back(w);
    }
    const Order order = schedule_order();
    const std::size_t chosen = order == Order::forward   ? can_go.front()
                               : order == Order::reverse ? can_go.back()
                                                         : can_go[schedule_draw(can_go.size())];
    const std::size_t node = waiting[chosen];
    waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(chosen));
    queued[node] = true;
    const cudaError_t error = push(stream, exec.nodes[node].operation);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace plumb::emulator
