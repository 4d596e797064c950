// Streams as queues, events, and captured graphs; see runtime.hpp for when queued work runs.
// Everything here is called with the runtime's mutex held.
#pragma once

#include <emulator/memory.hpp>

#include <chrono>
#include <deque>
#include <mutex>
#include <thread>

namespace plumb::emulator {

struct Capture;

struct EventState {
  std::uint64_t recorded = 0;   ///< how often cudaEventRecord was called
  std::uint64_t completed = 0;  ///< the latest of them that has run
  CUstream_st* stream = nullptr;
  bool timed = true;
  std::chrono::steady_clock::time_point time{};
  // Recorded while its stream was captured: which nodes it stands for.
  std::shared_ptr<Capture> capture;
  std::vector<std::size_t> nodes;
};

struct HostRange {
  char* begin = nullptr;
  std::size_t bytes = 0;
  bool overlaps(const HostRange& o) const {
    return begin < o.begin + o.bytes && o.begin < begin + bytes;
  }
};

struct Operation {
  const char* name = "";
  std::function<cudaError_t()> work;
  bool frees = false;           ///< its work is done even when the device is broken
  HostRange reads{}, writes{};  ///< host memory, when it runs
  // Either: the work; or an event to record, or to wait for.
  std::shared_ptr<EventState> records, waits;
  CUstream_st* recorder = nullptr;  ///< the stream that records the event waited for
  std::uint64_t generation = 0;
  std::uint64_t sequence = 0;
};

struct Capture {
  struct Node {
    Operation operation;
    std::vector<std::size_t> after;
  };
  std::vector<Node> nodes;
  CUstream_st* origin = nullptr;
  cudaStreamCaptureMode mode{};
  std::thread::id thread{};
  bool active = true;
  bool valid = true;
};

std::recursive_mutex& runtime_mutex();

/// The stream behind a handle, or null if there is none.
CUstream_st* find_stream(cudaStream_t handle);
/// Adds to the stream's queue, or to the graph that it is captured into.
cudaError_t push(CUstream_st& stream, Operation operation);
/// An error if a capture forbids it.
cudaError_t drain_stream(CUstream_st& stream);
void drain_event(const EventState& event);
bool idle(const CUstream_st& stream);
/// Runs one queued operation, so that whoever polls comes to an end.
void make_progress();
/// The error of work that has run, which stays until the device is healed.
cudaError_t device_error();

cudaError_t create_stream(cudaStream_t* result, bool blocking);
cudaError_t destroy_stream(CUstream_st& stream);
cudaError_t record_event(const std::shared_ptr<EventState>& event, CUstream_st& stream);
cudaError_t wait_event(CUstream_st& stream, const std::shared_ptr<EventState>& event);
cudaError_t begin_capture(CUstream_st& stream, cudaStreamCaptureMode mode);
cudaError_t end_capture(CUstream_st& stream, cudaGraph_t* graph);
cudaError_t launch_graph(const CUgraphExec_st& exec, CUstream_st& stream);

/// Whether any stream is being captured; if so, this makes the capture invalid.
bool capturing();
/// The error for a call that capturing streams forbid (one that waits or may wait).
cudaError_t forbidden_in_capture();

}  // namespace plumb::emulator

struct CUstream_st {
  std::deque<plumb::emulator::Operation> queue;
  bool blocking = true;  ///< ordered with the default stream
  bool destroyed = false;
  std::shared_ptr<plumb::emulator::Capture> capture;
  std::vector<std::size_t> frontier;  ///< the nodes that its next one comes after
};

struct CUevent_st {
  std::shared_ptr<plumb::emulator::EventState> state;
};

struct CUgraph_st {
  std::vector<plumb::emulator::Capture::Node> nodes;
};

struct CUgraphExec_st {
  std::vector<plumb::emulator::Capture::Node> nodes;
};
