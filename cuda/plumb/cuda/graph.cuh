// Replay on a GPU: the kernels of one decoding step, captured once per number of rows as a CUDA
// graph and then launched as one. A step of a small model is hundreds of kernels of a few
// microseconds each; launching them one by one would cost as much as running them. What this is
// not: for computations whose launches depend on values on the host.
#pragma once

#include <plumb/core/replay.hpp>
#include <plumb/cuda/device.cuh>

#include <concepts>
#include <memory>
#include <vector>

namespace plumb { inline namespace v0_1 {

namespace kernels::detail {

/// Ends the capture however its scope is left.
class Capture {
 public:
  Capture(Cuda device, BlockLists& lists) : device_(device) {
    // Relaxed: the pool may need to ask for memory meanwhile.
    check_cuda(cudaStreamBeginCapture(device.stream, cudaStreamCaptureModeRelaxed),
               "cudaStreamBeginCapture");
    DevicePool::instance().capture_into(device.stream, &lists);
  }
  ~Capture() {
    if (!ended_) forget_cuda(cudaGraphDestroy(end_capture()));
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  cudaGraphExec_t finish() {
    cudaGraph_t graph = end_capture();
    check_cuda(status_, "cudaStreamEndCapture");
    cudaGraphExec_t executable = nullptr;
    const cudaError_t status = cudaGraphInstantiate(&executable, graph, 0);
    forget_cuda(cudaGraphDestroy(graph));
    check_cuda(status, "cudaGraphInstantiate");
    return executable;
  }

 private:
  cudaGraph_t end_capture() {
    ended_ = true;
    DevicePool::instance().capture_into(device_.stream, nullptr);
    cudaGraph_t graph = nullptr;
    status_ = cudaStreamEndCapture(device_.stream, &graph);
    cudaGraph_t rest = nullptr;
    if (status_ != cudaSuccess) {  // a stream that still captured could never be waited for
      forget_cuda(status_);
      const cudaError_t again = cudaStreamEndCapture(device_.stream, &rest);
      forget_cuda(again == cudaSuccess ? cudaGraphDestroy(rest) : again);
    }
    return graph;
  }

  Cuda device_;
  bool ended_ = false;
  cudaError_t status_ = cudaSuccess;
};

}  // namespace kernels::detail

/// Captures at the first run with a key, launches the graph at every run. The graphs keep the
/// memory that their kernels use; their stream is the thread's when Replay was made.
template <std::derived_from<Cuda> D>
class Replay<D> {
 public:
  Replay() = default;
  ~Replay() {
    if (!graphs_.empty()) kernels::forget_cuda(cudaStreamSynchronize(device_.stream));
    for (Graph& graph : graphs_) {
      kernels::forget_cuda(cudaGraphExecDestroy(graph.executable));
      graph.result = {};
      kernels::detail::DevicePool::instance().adopt(device_.stream, *graph.blocks);
    }
  }
  Replay(const Replay&) = delete;
  Replay& operator=(const Replay&) = delete;

  template <class Compute>
  const Tensor<D>& run(Index key, Compute compute) {
    Graph* graph = nullptr;
    for (Graph& known : graphs_)
      if (known.key == key) graph = &known;
    if (graph == nullptr) {
      Graph made{key, nullptr, {}, std::make_unique<kernels::detail::BlockLists>()};
      kernels::detail::Capture capture(device_, *made.blocks);
      made.result = compute();
      made.executable = capture.finish();
      graph = &graphs_.emplace_back(std::move(made));
    }
    kernels::check_cuda(cudaGraphLaunch(graph->executable, device_.stream), "cudaGraphLaunch");
    return graph->result;
  }

 private:
  struct Graph {
    Index key;
    cudaGraphExec_t executable;
    Tensor<D> result;
    std::unique_ptr<kernels::detail::BlockLists> blocks;
  };

  D device_{};
  std::vector<Graph> graphs_;
};

}}  // namespace plumb::v0_1
